"""What flows through a machine over time: bytes per second, units at work, averaged over bins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from accelsim.engine.bind import BoundProgram
from accelsim.results.memory import main_bytes
from accelsim.views.lanes import Lane

if TYPE_CHECKING:
    from accelsim.results.result import SegmentRun

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Numbers = Ints | Floats

BINS = 400  # of a segment


@dataclass(frozen=True, eq=False)
class Counter:
    """A quantity over a segment: ``values[i]`` is its mean from tick ``edges[i]`` to the next."""

    name: str
    unit: str
    memory: bool
    edges: Ints
    values: Floats


def counters_of(run: SegmentRun, lanes: Sequence[Lane]) -> Iterator[Counter]:
    """Bytes per second of what the cores share, and units at work where there are several."""
    ticks = run.schedule.ticks
    if not ticks:
        return
    edges = np.unique(np.linspace(0, ticks, BINS + 1).astype(np.int64))
    giga = run.bound.arch.ticks_per_second() / 1e9
    for name, start, stop, nbytes in _shared(run, lanes):
        if nbytes.any():
            rate = giga * flow(start, stop, nbytes, edges)
            yield Counter(f"{name} GB/s", "GB/s", True, edges, rate)
    for name, mine in _groups(run, lanes):
        start, stop = (np.concatenate([getattr(one, end) for one in mine]) for end in _ENDS)
        working = flow(start, stop, stop - start, edges)
        yield Counter(f"{name} at work, of {len(mine)}", "units", False, edges, working)


_ENDS = ("start", "stop")


def flow(start: Numbers, stop: Numbers, amount: Numbers, edges: Ints) -> Floats:
    """Mean amount per tick between edges; each passes evenly from its start to its stop."""
    begin, end = start.astype(np.float64), np.maximum(stop, start + 1).astype(np.float64)
    slope = amount / (end - begin)
    times, change = np.concatenate([begin, end]), np.concatenate([slope, -slope])
    order = np.argsort(times, kind="stable")
    times, rate = times[order], np.cumsum(change[order])
    passed = np.concatenate([[0.0], np.cumsum(rate[:-1] * np.diff(times))])
    at_edge = np.interp(edges, times, passed, left=0.0)
    found: Floats = np.maximum(np.diff(at_edge) / np.diff(edges), 0.0)
    return found


def _shared(
    run: SegmentRun, lanes: Sequence[Lane]
) -> Iterator[tuple[str, Numbers, Numbers, Numbers]]:
    """(name, starts, stops, bytes) of shared ports, and of main memory where channels decide."""
    for lane in lanes:
        if lane.is_port and lane.core < 0:
            yield lane.name, lane.start, lane.stop, port_bytes(run.bound, lane)
    if run.schedule.activity is not None:
        moved = main_bytes(run).sum(axis=1)
        index = np.flatnonzero(moved)
        start, stop = run.schedule.start[index], run.schedule.finish[index]
        yield run.bound.arch.main_memory()[0], start, stop, moved[index]


def _groups(run: SegmentRun, lanes: Sequence[Lane]) -> Iterator[tuple[str, list[Lane]]]:
    """Units of which there are several, with the lanes of all."""
    for name in run.bound.arch.units:
        slots = {slot.name for slot in run.bound.program.units if slot.unit == name}
        mine = [lane for lane in lanes if not lane.is_port and lane.name in slots]
        if len(mine) > 1 and any(len(lane.index) for lane in mine):
            yield name, mine


def port_bytes(bound: BoundProgram, lane: Lane) -> Floats:
    """Bytes that each interval of a memory port moves; zeros for the port of a link."""
    name, _, way = lane.name.partition(" ")
    spaces = [i for i, space in enumerate(bound.program.spaces) if space.name == name]
    here = np.isin(bound.accesses.space[lane.index], spaces)
    if way:
        here[:, :2] &= way == "read"
        here[:, 2] &= way == "write"
    moved: Ints = np.where(here, bound.accesses.nbytes[lane.index], 0).sum(axis=1)
    return moved.astype(np.float64)
