"""Lanes of a timeline: one per unit queue and per port that was held, from one schedule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from accelsim.program.opcodes import Function, Opcode
from accelsim.results.collect import kept_ticks

if TYPE_CHECKING:
    from accelsim.program.table import Program
    from accelsim.results.result import SegmentRun

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Lane:
    """What one unit or port did: intervals that do not overlap, in order of time.

    ``index`` is the instruction of each interval, ``operator`` its operator. ``core`` is -1 for
    what all cores share. Times are in core cycles in ``lanes_of`` and in ticks in ``tick_lanes``.
    """

    name: str
    core: int
    is_port: bool
    index: Ints
    start: npt.NDArray[np.float64] | Ints
    stop: npt.NDArray[np.float64] | Ints
    operator: Ints

    def where(self, chosen: npt.NDArray[np.bool_]) -> Lane:
        """The lane with some of its intervals."""
        return replace(
            self, index=self.index[chosen], start=self.start[chosen],
            stop=self.stop[chosen], operator=self.operator[chosen],
        )  # fmt: skip


def tick_lanes(run: SegmentRun) -> list[Lane]:
    """Lanes in ticks: units core by core, then ports; of a network only the busiest link.

    What takes no time is left out.

    A unit's interval lasts until it can take the next instruction, so it includes waiting for
    ports; a port's lasts while it serves the instruction. Both follow from the schedule by the
    rule of ``accelsim.engine.schedule``.
    """
    ports, done = _ports(run)
    timed, start = run.bound.timed, run.schedule.start
    free = np.maximum(start + kept_ticks(run), done)
    units = []
    for i, slot in enumerate(run.bound.program.units):
        index = np.flatnonzero(timed.unit == i)
        units.append(_lane(run, slot.name, slot.core, False, index, start[index], free[index]))
    return units + [lane for lane in ports if len(lane.index)]


def lanes_of(run: SegmentRun) -> list[Lane]:
    """Lanes in core cycles: every unit, and the ports of what the cores share."""
    tick = run.bound.arch.ticks_per_cycle("core")
    return [
        replace(lane, start=lane.start / tick, stop=lane.stop / tick)
        for lane in tick_lanes(run)
        if not (lane.is_port and lane.core >= 0)
    ]


def _ports(run: SegmentRun) -> tuple[list[Lane], Ints]:
    """(lanes of the ports, tick at which the last port of each instruction has served it)."""
    cores = {space.name: space.core for space in run.bound.program.spaces}
    done = np.zeros(len(run.bound.timed), dtype=np.int64)
    lanes: list[Lane] = []
    busiest: dict[str, tuple[int, int]] = {}  # of a network: ticks and place in lanes
    for p, index, begin, end in _services(run):
        done[index] = np.maximum(done[index], end)
        name, group = run.bound.port_names[p], run.bound.port_groups[p]
        lane = _lane(run, name, cores.get(name.split(" ")[0], -1), True, index, begin, end)
        if group not in run.bound.arch.networks:
            lanes.append(lane)
            continue
        ticks = int((end - begin).sum())
        most, place = busiest.get(group, (-1, len(lanes)))
        lanes[place : place + 1] = [lane if ticks > most else lanes[place]]
        busiest[group] = (max(most, ticks), place)
    return lanes, done


def _services(run: SegmentRun) -> Iterator[tuple[int, Ints, Ints, Ints]]:
    """(port, instructions, begin, end) of what every port served, in its order."""
    timed, schedule = run.bound.timed, run.schedule
    row, slot = np.nonzero(timed.port >= 0)
    position = np.empty(len(timed), dtype=np.int64)
    position[schedule.order] = np.arange(len(timed))
    port, held = timed.port[row, slot], timed.hold[row, slot]
    by_port = np.lexsort((position[row], port))
    bounds = np.searchsorted(port[by_port], np.arange(timed.ports + 1))
    for p, (first, end) in enumerate(pairwise(bounds.tolist())):
        index, hold = row[by_port[first:end]], held[by_port[first:end]]
        # Served in commit order: begin[j] = max(start[j], end[j-1]). Where an instruction starts
        # after it was ready, all its ports are free no earlier, so its start stands for both.
        before = np.cumsum(hold) - hold
        begin = before + np.maximum.accumulate(schedule.start[index] - before)
        yield p, index, begin, begin + hold


def _lane(
    run: SegmentRun, name: str, core: int, is_port: bool, index: Ints, start: Ints, stop: Ints
) -> Lane:
    """Intervals of some instructions, in order of time, without those that take none."""
    order = np.argsort(start, kind="stable")
    order = order[(stop > start)[order]]
    operator = run.bound.program.column("operator")[index[order]]
    return Lane(name, core, is_port, index[order], start[order], stop[order], operator)


def label(program: Program, index: int) -> str:
    """An instruction in words: "MATMUL layer0.ffn.up"; vector instructions by their function."""
    opcode = Opcode(int(program.column("opcode")[index]))
    function = Function(int(program.column("function")[index]))
    word = function.name if opcode == Opcode.VECTOR else opcode.name
    return f"{word} {program.operators[int(program.column('operator')[index])].name}"
