"""What people import: architectures, workloads, simulate, check, sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from accelsim.arch.catalog import arch
from accelsim.arch.model import Architecture
from accelsim.simulation import check_graph, simulate_graph
from accelsim.workload import workload
from accelsim.workload.graph import Graph

if TYPE_CHECKING:
    from accelsim.functional.check import Check
    from accelsim.results.result import Result

__all__ = ["arch", "check", "simulate", "workload"]


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
) -> Result:
    """Run a workload on an architecture's clock and say what it took.

    ``arch`` and ``workload`` are names, paths or objects; ``memory`` is "ideal" or "bandwidth";
    ``mapper`` names mappers to prefer; ``overrides`` replaces parameters, as ``--set`` does;
    ``compose=False`` simulates identical layers one by one. Raises AccelsimError.
    """
    from accelsim.program.builder import DEFAULT_INSTRUCTION_LIMIT

    wanted = (mapper,) if isinstance(mapper, str) else tuple(mapper)
    return simulate_graph(
        as_graph(workload),
        as_arch(arch, overrides),
        memory,  # type: ignore[arg-type]  # checked against FIDELITIES when the program is bound
        wanted,
        compose=compose,
        instruction_limit=max_instructions or DEFAULT_INSTRUCTION_LIMIT,
    )


def check(
    arch: str | Architecture,
    workload: str | Graph,
    *,
    seed: int = 0,
    order: str = "clock",
    mapper: str | Sequence[str] = (),
    overrides: Mapping[str, object] | None = None,
    memory: str = "bandwidth",
) -> Check:
    """Execute the workload's tile program on numbers and judge every operator.

    Integers must be exact, floating point inside a derived bound; ``order`` is "clock" (as the
    engine scheduled it) or "program". Raises AccelsimError.
    """
    wanted = (mapper,) if isinstance(mapper, str) else tuple(mapper)
    return check_graph(
        as_graph(workload),
        as_arch(arch, overrides),
        seed,
        order,  # type: ignore[arg-type]  # checked against ORDERS
        wanted,
        memory,  # type: ignore[arg-type]  # checked against FIDELITIES
    )
