"""What people import: architectures, workloads, simulate, check, sweep, memories and PIM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from accelsim.arch.catalog import arch
from accelsim.arch.model import Architecture
from accelsim.mapping.registry import load_plugin
from accelsim.simulation import check_graph, simulate_graph
from accelsim.workload import workload
from accelsim.workload.graph import Graph

if TYPE_CHECKING:
    from pathlib import Path

    from accelsim.explore.executors import Executor
    from accelsim.explore.outcome import Sweep
    from accelsim.explore.space import DesignPoint, Grid, Value
    from accelsim.functional.check import Check
    from accelsim.hw.dram.device import Device
    from accelsim.hw.dram.streams import Requests
    from accelsim.hw.pim.family import Family
    from accelsim.hw.pim.operators import Operator
    from accelsim.system.bank_decoder import BankDecoder
    from accelsim.system.eager import EagerGeneration
    from accelsim.system.generation import Generation
    from accelsim.views.memory import StreamRun
    from accelsim.views.pim import PimReport
    from accelsim.views.run import Run

__all__ = [
    "arch",
    "check",
    "generate",
    "grid",
    "load_plugin",
    "memory_stream",
    "pim_run",
    "simulate",
    "sweep",
    "workload",
]


def as_arch(
    given: str | Architecture, overrides: Mapping[str, object] | None = None
) -> Architecture:
    """An architecture from a name, a path or itself, with parameters replaced."""
    if isinstance(given, Architecture):
        return given.override(overrides or {})
    return arch(given, overrides)


def as_graph(given: str | Graph, **settings: Any) -> Graph:
    """A workload from a name, a path, an inline operator or itself."""
    return given if isinstance(given, Graph) else workload(given, **settings)


def simulate(
    arch: str | Architecture,
    workload: str | Graph,
    *,
    memory: str = "bandwidth",
    mapper: str | Sequence[str] = (),
    overrides: Mapping[str, object] | None = None,
    compose: bool = True,
    max_instructions: int | None = None,
) -> Run:
    """Run a workload on an architecture's clock and say what it took.

    ``arch`` and ``workload`` are names, paths or objects; ``memory`` is "ideal", "bandwidth" or
    "dram"; ``mapper`` names mappers to prefer; ``overrides`` replaces parameters, as ``--set``
    does; ``compose=False`` simulates identical layers one by one. Raises AccelsimError.
    """
    from accelsim.program.builder import DEFAULT_INSTRUCTION_LIMIT
    from accelsim.views.run import Run

    wanted = (mapper,) if isinstance(mapper, str) else tuple(mapper)
    limit = DEFAULT_INSTRUCTION_LIMIT if max_instructions is None else max_instructions
    result = simulate_graph(
        as_graph(workload),
        as_arch(arch, overrides),
        memory,  # type: ignore[arg-type]  # checked against FIDELITIES when the program is bound
        wanted,
        compose=compose,
        instruction_limit=limit,
    )
    return Run.of(result)


def check(
    arch: str | Architecture,
    workload: str | Graph,
    *,
    seed: int = 0,
    order: str = "clock",
    mapper: str | Sequence[str] = (),
    overrides: Mapping[str, object] | None = None,
    memory: str = "bandwidth",
    scale: float = 1.0,
) -> Check:
    """Execute the workload's tile program on numbers and judge every operator.

    Integers must be exact, floating point inside a derived bound; ``order`` is "clock" (as the
    engine scheduled it) or "program"; ``scale`` multiplies the floating-point values. Where no
    finite bound is known, as of a softmax of very large scores, elements that differ are counted as
    ``unjudged``, and the check is not ok. Raises AccelsimError.
    """
    wanted = (mapper,) if isinstance(mapper, str) else tuple(mapper)
    return check_graph(
        as_graph(workload),
        as_arch(arch, overrides),
        seed,
        order,  # type: ignore[arg-type]  # checked against ORDERS
        wanted,
        memory,  # type: ignore[arg-type]  # checked against FIDELITIES
        scale,
    )


def grid(
    arch: str | Architecture | Sequence[str | Architecture],
    axes: Mapping[str, Sequence[Value]] | None = None,
) -> Grid:
    """All combinations of parameter values: ``grid("tpu-v3", {"mxu.rows": [64, 128, 256]})``.

    An axis is a parameter path, "workload" or "workload.KEY" (a setting such as batch), "memory"
    or "mapper". Raises AccelsimError for an axis that names nothing.
    """
    from accelsim.explore import space

    return space.grid(arch, axes)


def sweep(
    points: Sequence[DesignPoint],
    workload: str | Graph = "",
    *,
    out: str | Path | None = None,
    resume: bool = False,
    executor: str | Executor = "local",
    jobs: int | None = None,
    memory: str = "bandwidth",
    mapper: str | Sequence[str] = (),
    objectives: Sequence[str] = ("seconds", "energy_pj"),
) -> Sweep:
    """Simulate a workload on every point of a grid, on all cores: a table with a Pareto front.

    ``out`` is a CSV, or the folder for one, that results are appended to as they arrive; with
    ``resume`` the points in it are not simulated again. ``jobs=1`` stays in this process. Designs
    that contradict themselves become rows with a reason. Raises AccelsimError.
    """
    from accelsim.explore.sweep import sweep as run_sweep

    return run_sweep(
        points, workload, out=out, resume=resume, executor=executor, jobs=jobs,
        memory=memory, mapper=mapper, objectives=objectives,
    )  # fmt: skip


def memory_stream(
    device: str | Device,
    stream: str | Requests = "seq_read",
    requests: int | None = None,
    *,
    inject: str = "saturating",
    seed: int = 42,
    mapping: str | None = None,
    hashing: bool = False,
    channels: int | None = None,
    log: bool = False,
    check: bool = False,
    **controller: object,
) -> StreamRun:
    """Drive a DRAM device by a request stream, command by command.

    ``device`` is a name ("hbm2"), ``FILE.yaml:NAME`` or DRAMsim3's ``FILE.ini``; ``stream`` a name
    ("rand_read"), a trace file or ``Requests``; ``inject`` "saturating" or "qd1"; ``mapping`` the
    address fields from the top; ``controller`` its settings: policy, page, window, hit_cap,
    refresh ... ``log`` keeps the commands in ``.logs``, ``check`` has them checked. Raises
    AccelsimError.
    """
    from accelsim.hw.dram.run import controller_with, memory_device, run_stream
    from accelsim.views.memory import StreamRun

    memory = memory_device(device)
    run = run_stream(
        memory, stream=stream, requests=requests, inject=inject, seed=seed,
        controller=controller_with(memory.controller, controller), mapping=mapping,
        hashing=hashing, channels=channels, log=log, check=check,
    )  # fmt: skip
    return StreamRun.of(run)


def pim_run(
    family: str | Family,
    operator: str | Operator,
    *,
    background: int = 0,
    refresh: bool = True,
    log: bool = False,
    check: bool = False,
) -> PimReport:
    """Compute an operator in memory, command by command.

    ``family`` is a name ("neupims", "attacc-bank", "aim", "hbm-pim", ...) or ``FILE.yaml:NAME``;
    ``operator`` "gemv:m=1024,n=512", "logit:tokens=256,heads=8", "attend:...", "attention:..." or
    one on vectors, "add:n=4096" (hw/pim/operators).
    ``background`` sequential reads are under way in every channel meanwhile. ``log`` keeps the
    commands in ``.logs``, ``check`` has them checked. Raises AccelsimError.
    """
    from accelsim.hw.pim.run import run_pim
    from accelsim.views.pim import PimReport

    run = run_pim(family, operator, background=background, refresh=refresh, log=log, check=check)
    return PimReport.of(run)


def generate(
    model: str, machine: BankDecoder | EagerGeneration | None = None, tokens: int = 1024
) -> Generation:
    """Generate ``tokens`` tokens of a text with a model of the library, one step after the other.

    ``machine`` is a memory that computes with an ASIC (PIM-GPT if not given), or an architecture
    under a framework that calls one operator at a time. Raises AccelsimError.
    """
    from accelsim.system.generation import PIM_GPT, generate

    return generate(model, PIM_GPT if machine is None else machine, tokens)
