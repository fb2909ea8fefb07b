"""One design point, simulated: the function that runs on every core of a sweep."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from accelsim.errors import AccelsimError
from accelsim.explore.space import DesignPoint
from accelsim.workload import workload as make_workload
from accelsim.workload.graph import Graph

if TYPE_CHECKING:
    from accelsim.results.result import Result

Record = dict[str, Any]

OK, SKIPPED, FAILED = "ok", "skipped", "failed"


@dataclass(frozen=True)
class Task:
    """A point with everything it needs: pure data that any process can work on."""

    index: int
    point: DesignPoint
    workload: str | Graph
    memory: str
    mapper: tuple[str, ...] = ()
    sweep: int = 0  # identifies the sweep: workload files may change between two of them

    def graph(self) -> Graph:
        """The workload of this point. Raises AccelsimError."""
        settings = self.point.settings
        if isinstance(self.workload, Graph):
            if settings:
                raise AccelsimError(
                    f"workload.{next(iter(settings))} cannot vary in a graph; accepted: a "
                    "workload by name"
                )
            return self.workload
        return _graph(self.sweep, self.workload, tuple(sorted(settings.items())))


@lru_cache(maxsize=64)
def _graph(_sweep: int, name: str, settings: tuple[tuple[str, Any], ...]) -> Graph:
    return make_workload(name, **dict(settings))


@dataclass(frozen=True)
class Evaluated:
    """Records of a chunk in its order, and the seconds that they took."""

    records: list[Record]
    seconds: float


def evaluate(chunk: Sequence[Task]) -> Evaluated:
    """Simulate the points of a chunk."""
    began = time.perf_counter()
    records = [evaluate_one(task) for task in chunk]
    return Evaluated(records, time.perf_counter() - began)


def evaluate_one(task: Task) -> Record:
    """One point: its metrics, or why it was skipped (a contradiction) or failed (a defect)."""
    from accelsim.simulation import simulate_graph

    try:
        arch = task.point.arch.override(task.point.overrides)
        result = simulate_graph(task.graph(), arch, task.memory, task.mapper)  # type: ignore[arg-type]
    except AccelsimError as fault:
        return {"index": task.index, "status": SKIPPED, "error": one_line(fault)}
    except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as fault:
        # A defect in one point must not cost the hours spent on the others.
        told = f"{type(fault).__name__}: {one_line(fault)}"
        return {"index": task.index, "status": FAILED, "error": told}
    return {"index": task.index, "status": OK, "error": "", **metrics(result)}


def metrics(result: Result) -> Record:
    """The numbers of a result that a sweep keeps, flat: "utilization.mxu", "read_bytes.hbm"."""
    shared = _shared_memories(result)
    return {
        "cycles": result.cycles,
        "seconds": result.seconds,
        "energy_pj": result.energy_pj["total"],
        "macs": result.macs,
        "instructions": result.instructions,
        "bottleneck": result.bottleneck,
        "bound_cycles": max(result.bounds.values(), default=0.0),
        **{f"utilization.{name}": share for name, share in result.utilization.items()},
        **{f"read_bytes.{name}": result.traffic_bytes[name]["read"] for name in shared},
        **{f"write_bytes.{name}": result.traffic_bytes[name]["write"] for name in shared},
    }


def _shared_memories(result: Result) -> list[str]:
    memories: Mapping[str, Any] = result.architecture.memories if result.architecture else {}
    return [name for name, memory in memories.items() if memory.shared]


def metric_columns(points: Sequence[DesignPoint]) -> dict[str, type]:
    """Every metric that these points can have, and its type, before any of them has run."""
    columns: dict[str, type] = {
        "cycles": int,
        "seconds": float,
        "energy_pj": float,
        "macs": int,
        "instructions": int,
        "bottleneck": str,
        "bound_cycles": float,
    }
    archs = {id(point.arch): point.arch for point in points}.values()
    shared = dict.fromkeys(n for a in archs for n, memory in a.memories.items() if memory.shared)
    units = dict.fromkeys(name for a in archs for name in a.units)
    columns |= {f"utilization.{name}": float for name in (*units, *shared)}
    columns |= {f"{way}_bytes.{name}": int for way in ("read", "write") for name in shared}
    return columns


def objective_names(points: Sequence[DesignPoint]) -> list[str]:
    """What can be minimised or maximised: metrics and axes that are numbers."""
    axes = [
        axis
        for axis, _ in points[0].values
        if all(isinstance(point.parameters[axis], (int, float)) for point in points)
    ]
    return [name for name, kind in metric_columns(points).items() if kind is not str] + axes


def one_line(fault: object) -> str:
    """A message on one line, as a table can hold it."""
    return " ".join(str(fault).split())
