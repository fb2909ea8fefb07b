"""The main path: graph and architecture, to programs, to a clock, to a Result."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

from accelsim._version import __version__
from accelsim.engine.bind import Fidelity, bind
from accelsim.engine.memory_system import TRUSTED_SHARE, trusted_cache
from accelsim.engine.merge import run as run_engine
from accelsim.errors import AccelsimError
from accelsim.hw.pim.unit import Pim
from accelsim.hw.sram import Sram
from accelsim.mapping.lowering import UNLIMITED_BYTES, lower
from accelsim.mapping.placement import Heap, Plan, plan_tensors, readable
from accelsim.mapping.registry import own_places
from accelsim.program.builder import DEFAULT_INSTRUCTION_LIMIT
from accelsim.program.opcodes import Opcode
from accelsim.program.verify import verify
from accelsim.results.collect import NOTHING, Totals, collect, weighted
from accelsim.results.result import Result, SegmentRun
from accelsim.results.uncounted import uncounted
from accelsim.workload.fusion import with_fused_activations

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from accelsim.arch.model import Architecture
    from accelsim.functional.check import Check
    from accelsim.program.table import Program
    from accelsim.workload.graph import Graph
    from accelsim.workload.operators import Operator
    from accelsim.workload.segments import Segment

Order = Literal["clock", "program"]
ORDERS: tuple[Order, ...] = ("clock", "program")

# A check holds every tensor and computes every product: about a minute of work at the limits.
CHECK_BYTES_LIMIT = 4 << 30
CHECK_MACS_LIMIT = 10**11
# Beyond these, bounds of exponentials and norms become infinite and say nothing.
SMALLEST_SCALE, LARGEST_SCALE = 2.0**-12, 16.0


def simulate_graph(
    graph: Graph,
    arch: Architecture,
    memory: Fidelity = "bandwidth",
    mappers: Sequence[str] = (),
    *,
    compose: bool = True,
    instruction_limit: int = DEFAULT_INSTRUCTION_LIMIT,
    progress: Callable[[str, int, int], None] | None = None,
) -> Result:
    """Run a workload on an architecture's clock.

    ``compose`` simulates one of identical consecutive layers and repeats it (declared in the
    result); otherwise the whole graph is one program. ``progress(what, done, of)`` is called as
    segments finish.
    """
    began = time.perf_counter()
    graph = _as_run(graph, arch)
    plan = plan_memory(graph, arch, memory, mappers)
    segments = graph.segments() if compose else ()
    slices = [(s.name, s.operators, s.count) for s in segments] or [
        (graph.name, graph.operators, 1)
    ]
    runs = []
    for i, (name, operators, repeat) in enumerate(slices):
        if progress:
            progress(name, i, len(slices))
        program = compile_program(graph, operators, arch, plan, memory, mappers, instruction_limit)
        bound = bind(program, arch, memory)
        runs.append(SegmentRun(name, repeat, bound, run_engine(bound.timed)))
    if progress:
        progress("done", len(slices), len(slices))
    return _result(graph, arch, memory, runs, segments, time.perf_counter() - began)


def check_graph(
    graph: Graph,
    arch: Architecture,
    seed: int = 0,
    order: Order = "clock",
    mappers: Sequence[str] = (),
    memory: Fidelity = "bandwidth",
    scale: float = 1.0,
) -> Check:
    """Execute the whole workload's program on numbers and judge every operator.

    ``order`` "clock" executes as the engine scheduled it (a missing dependency changes the
    numbers), "program" in the order the mappers emitted. ``scale`` multiplies the floating-point
    values: 16 shows a softmax without its maximum, 2**-6 a norm without its epsilon. Raises
    AccelsimError if the workload is too large to compute here.
    """
    from accelsim.functional.check import check

    if order not in ORDERS:
        raise AccelsimError(f"order {order!r} is not known; accepted: {', '.join(ORDERS)}")
    if not SMALLEST_SCALE <= scale <= LARGEST_SCALE:
        raise AccelsimError(f"scale {scale} is out of range; accepted: {SMALLEST_SCALE} to 16")
    graph = _as_run(graph, arch)
    nbytes = sum(spec.bytes for spec in graph.tensors.values())
    if nbytes > CHECK_BYTES_LIMIT or graph.macs > CHECK_MACS_LIMIT:
        raise AccelsimError(
            f"{graph.name} is too large to compute here ({readable(nbytes)}, {graph.macs:.3g} MACs;"
            f" limits {readable(CHECK_BYTES_LIMIT)}, {CHECK_MACS_LIMIT:.0e} MACs): check a scaled"
            " down one, e.g. layers=2,hidden=256"
        )
    plan = plan_memory(graph, arch, memory, mappers)
    program = compile_program(graph, graph.operators, arch, plan, memory, mappers)
    schedule = None
    if order == "clock":
        schedule = run_engine(bind(program, arch, memory).timed)
    return check(arch, graph, program, schedule, seed, scale)


def _as_run(graph: Graph, arch: Architecture) -> Graph:
    """The workload as the machine runs it: activations in products where banks' sums are finished
    as they come."""
    fuses = any(unit.fuses for unit in arch.units_of(Pim).values())
    return with_fused_activations(graph) if fuses else graph


def plan_memory(
    graph: Graph, arch: Architecture, memory: Fidelity, mappers: Sequence[str] = ()
) -> Plan:
    """Place all tensors of a graph in the architecture's main memory."""
    name, block = arch.main_memory()
    capacity = UNLIMITED_BYTES if memory == "ideal" else block.capacity
    chip = next((n for n, m in arch.memories.items() if isinstance(m, Sram) and m.activations), "")
    heap = Heap(chip, arch.memories[chip].capacity) if chip else None
    return plan_tensors(graph, name, capacity, own_places(graph, arch, tuple(mappers)), heap)


def compile_program(
    graph: Graph,
    operators: Sequence[Operator],
    arch: Architecture,
    plan: Plan,
    memory: Fidelity,
    mappers: Sequence[str] = (),
    instruction_limit: int = DEFAULT_INSTRUCTION_LIMIT,
) -> Program:
    """Lower operators to a tile program and verify it."""
    program = lower(
        graph,
        operators,
        arch,
        plan,
        ideal=memory == "ideal",
        channels=memory == "dram",
        mappers=tuple(mappers),
        instruction_limit=instruction_limit,
    )
    verify(program)
    return program


def _result(
    graph: Graph,
    arch: Architecture,
    memory: Fidelity,
    runs: list[SegmentRun],
    segments: Sequence[Segment],
    wall_seconds: float,
) -> Result:
    totals = [collect(run) for run in runs]
    repeats = [run.repeat for run in runs]
    tick = arch.ticks_per_cycle("core")
    ticks = sum(t.ticks * r for t, r in zip(totals, repeats, strict=True))
    bounds = {
        name: value / tick
        for name, value in weighted([t.bounds_ticks for t in totals], repeats).items()
    }
    busy = weighted([t.busy_ticks for t in totals], repeats)
    energy = weighted([t.energy_pj for t in totals], repeats)
    traffic = _traffic(totals, repeats)
    used = dict.fromkeys(o.mapper for t in totals for o in t.operators)
    told = _approximations(graph, arch, memory, runs, segments)
    if any(energy.values()) and (left_out := uncounted(runs, traffic)):
        told = (*told, left_out)
    return Result(
        version=__version__,
        arch=arch.name,
        workload=describe(graph),
        mapper="+".join(used),
        memory=memory,
        clock_hz=arch.clocks["core"],
        cycles=-(-ticks // tick),
        macs=sum(op.macs for t in totals for op in t.operators),
        instructions=sum(len(run.bound.program) * run.repeat for run in runs),
        utilization={name: value / ticks if ticks else 0.0 for name, value in busy.items()},
        traffic_bytes=traffic,
        energy_pj={"total": sum(energy.values()), **energy},
        bounds=bounds,
        bottleneck=max(bounds, key=lambda name: bounds[name]) if any(bounds.values()) else NOTHING,
        approximations=told,
        operators=tuple(op for t in totals for op in t.operators),
        wall_seconds=wall_seconds,
        links=_links(totals, repeats, ticks),
        segments=tuple(runs),
        architecture=arch,
        graph=graph,
    )


def calibration(arch: Architecture) -> list[str]:
    """The constants that were fitted to measurements, with what they were fitted to."""
    from accelsim.arch.describe import parameter_text

    return [
        f"{path} = {parameter_text(arch, path)} is calibrated, not published: {arch.sources[path]}"
        for path in arch.calibrated
    ]


def _traffic(totals: list[Totals], repeats: list[int]) -> dict[str, dict[str, int]]:
    summed: dict[str, dict[str, int]] = {}
    for total, repeat in zip(totals, repeats, strict=True):
        for name, moved in total.traffic_bytes.items():
            into = summed.setdefault(name, {"read": 0, "write": 0})
            for direction, nbytes in moved.items():
                into[direction] += nbytes * repeat
    return summed


def _links(
    totals: list[Totals], repeats: list[int], ticks: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Bytes and share of the time for every link of every network, over the whole run."""
    found = {}
    for network, use in totals[0].links.items() if totals else ():
        parts = [(t.links[network], r) for t, r in zip(totals, repeats, strict=True)]
        found[network] = {
            link: {
                "bytes": sum(int(part.nbytes[i]) * r for part, r in parts),
                "utilization": sum(float(part.busy_ticks[i]) * r for part, r in parts)
                / max(ticks, 1),
            }
            for i, link in enumerate(use.names)
        }
    return found


def _approximations(
    graph: Graph,
    arch: Architecture,
    memory: Fidelity,
    runs: list[SegmentRun],
    segments: Sequence[Segment],
) -> tuple[str, ...]:
    """Everything the numbers leave out or compose, in plain words."""
    found = [f"{arch.name}: {text}" for text in (*arch.assumptions, *calibration(arch))]
    found += graph.assumptions
    if memory == "ideal":
        found.append("memory ideal: transfers take no time and on-chip capacity is not limited")
    elif memory == "dram":
        found.append(
            "memory dram: a gather's rows are spread evenly over its table, a store is done when"
            " the write buffers have it, and requests of one transfer arrive all at once"
        )
    else:
        found.append("memory bandwidth: latency plus shared bandwidth, no banks, rows or refresh")
    if memory == "dram" and any(
        (run.bound.program.column("opcode") == Opcode.PIM).any() for run in runs
    ):
        found.append(
            "memory dram: commands of products in the banks share their channel with reads and"
            " writes by the family's rules; a product waits for what was written before it"
        )
    beside = [name for name, unit in arch.units_of(Pim).items() if unit.own_pins]
    if memory == "bandwidth" and beside:
        found.append(
            f"{beside[0]}: reads and writes pass between the commands of products in the banks;"
            " neither delays the other"
        )
    found += [
        f"network {name}: links serve whole transfers in turn, routers hold what waits; gathers"
        " draw on all nodes of a memory alike"
        for name in arch.networks
        if memory != "ideal"
    ]
    if memory != "ideal" and (name := trusted_cache(arch)):
        found.append(
            f"cache {name}: a window that was read lately is taken to be still there while less"
            f" than {TRUSTED_SHARE:.0%} of the cache has been refilled"
        )
    for segment in segments:
        if segment.count > 1:
            found.append(
                f"{segment.name}: one of {segment.count} identical layers simulated, then repeated"
            )
    if len(runs) > 1:
        found.append("slices of the workload do not overlap: the machine drains between them")
    for run in runs:
        found.extend(run.bound.program.approximations)
    return tuple(dict.fromkeys(found))


def describe(graph: Graph) -> str:
    """The workload as a user would type it: name and settings."""
    settings = ",".join(f"{k}={v}" for k, v in graph.settings.items())
    return f"{graph.name}:{settings}" if settings and ":" not in graph.name else graph.name
