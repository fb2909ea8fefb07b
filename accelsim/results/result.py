"""The Result of a simulation: frozen, serialisable, versioned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accelsim.arch.model import Architecture
    from accelsim.engine.bind import BoundProgram
    from accelsim.engine.schedule import Schedule
    from accelsim.workload.graph import Graph

SCHEMA = 1


@dataclass(frozen=True)
class OperatorResult:
    """One operator of the workload: what it took and moved, over all its repetitions.

    ``cycles`` is the time by which it moved the end of the run (operators overlap; the sum over
    all operators is the total). ``macs`` counts multiply-accumulates of the workload,
    ``traffic_bytes`` what it moved in main memory, ``utilization`` the share of the arrays' peak
    from its first start to its last finish, ``bottleneck`` the resource it kept busiest,
    ``mapping`` the tiles that the mapper chose.
    """

    name: str
    kind: str
    mapper: str
    repeat: int
    cycles: float
    macs: int
    traffic_bytes: Mapping[str, int]
    energy_pj: float
    utilization: float
    bottleneck: str
    mapping: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in the JSON result."""
        return {**self.__dict__, "traffic_bytes": dict(self.traffic_bytes)}


@dataclass(frozen=True, eq=False)
class SegmentRun:
    """A slice of the workload as it ran: program, clock and how often it repeats."""

    name: str
    repeat: int
    bound: BoundProgram
    schedule: Schedule


@dataclass(frozen=True, eq=False)
class Result:
    """What one architecture does with one workload.

    Times are in cycles of the core clock and in seconds. ``utilization`` is per unit: for arrays
    useful multiply-accumulates over peak, for other units the share of time they were issuing,
    for memories the share of their bandwidth. ``bounds`` are lower bounds in cycles.
    ``links`` is what crossed a network: {network: {link: {"bytes": ..., "utilization": ...}}}.
    ``approximations`` lists everything that was composed or left out. Attributes are the keys of
    ``to_dict()``; ``segments`` keeps the programs and schedules for timelines.
    """

    version: str
    arch: str
    workload: str
    mapper: str
    memory: str
    clock_hz: int
    cycles: int
    macs: int
    instructions: int
    utilization: Mapping[str, float]
    traffic_bytes: Mapping[str, Mapping[str, int]]
    energy_pj: Mapping[str, float]
    bounds: Mapping[str, float]
    bottleneck: str
    approximations: tuple[str, ...]
    operators: tuple[OperatorResult, ...]
    wall_seconds: float
    links: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    segments: tuple[SegmentRun, ...] = field(repr=False, default=())
    architecture: Architecture | None = field(repr=False, default=None)
    graph: Graph | None = field(repr=False, default=None)
    schema: int = SCHEMA

    @property
    def seconds(self) -> float:
        """Simulated time."""
        return self.cycles / self.clock_hz

    @cached_property
    def digests(self) -> dict[str, str]:
        """SHA-256 of what went in: equal digests (and version) mean equal results."""
        found = {"arch": self.architecture, "workload": self.graph}
        return {name: thing.digest() for name, thing in found.items() if thing is not None}

    def to_dict(self) -> dict[str, Any]:
        """The result as plain JSON values (schema 1)."""
        return {
            "schema": self.schema,
            "version": self.version,
            "arch": self.arch,
            "workload": self.workload,
            "mapper": self.mapper,
            "memory": self.memory,
            "clock_hz": self.clock_hz,
            "cycles": self.cycles,
            "seconds": self.seconds,
            "macs": self.macs,
            "instructions": self.instructions,
            "utilization": dict(self.utilization),
            "traffic_bytes": {name: dict(t) for name, t in self.traffic_bytes.items()},
            "energy_pj": dict(self.energy_pj),
            "bounds": dict(self.bounds),
            "bottleneck": self.bottleneck,
            "approximations": list(self.approximations),
            "links": {name: dict(links) for name, links in self.links.items()},
            "operators": [op.to_dict() for op in self.operators],
            "digests": self.digests,
            "wall_seconds": self.wall_seconds,
        }
