"""Lanes of a timeline: one per unit queue and per port that was held, from one schedule."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from accelsim.program.opcodes import Function, Opcode

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
    """Lanes in ticks: units core by core, then ports. What takes no time is left out.

    A unit's interval lasts until it can take the next instruction, so it includes waiting for
    ports; a port's lasts while it serves the instruction. Both follow from the schedule by the
    rule of ``accelsim.engine.schedule``.
    """
    ports, done = _ports(run)
    timed, start = run.bound.timed, run.schedule.start
    free = np.maximum(start + timed.occupancy, done)
    units = [
        _lane(run, slot.name, slot.core, False, np.flatnonzero(timed.unit == i), start, free)
        for i, slot in enumerate(run.bound.program.units)
    ]
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
    timed, schedule = run.bound.timed, run.schedule
    cores = {space.name: space.core for space in run.bound.program.spaces}
    done = np.zeros(len(timed), dtype=np.int64)
    lanes = []
    for i, name in enumerate(run.bound.port_names):
        uses = timed.port == i
        index = schedule.order[uses.any(axis=1)[schedule.order]]
        hold = np.where(uses, timed.hold, 0).max(axis=1)[index]
        # Served in commit order: begin[j] = max(start[j], end[j-1]). Where an instruction starts
        # after it was ready, all its ports are free no earlier, so its start stands for both.
        before = np.cumsum(hold) - hold
        begin = before + np.maximum.accumulate(schedule.start[index] - before)
        done[index] = np.maximum(done[index], begin + hold)
        times = np.zeros((2, len(timed)), dtype=np.int64)
        times[0, index], times[1, index] = begin, begin + hold
        core = cores.get(name.split(" ")[0], -1)
        lanes.append(_lane(run, name, core, True, index, *times))
    return lanes, done


def _lane(
    run: SegmentRun, name: str, core: int, is_port: bool, index: Ints, start: Ints, stop: Ints
) -> Lane:
    """Intervals of some instructions, in order of time, without those that take none."""
    index = index[stop[index] > start[index]]
    index = index[np.argsort(start[index], kind="stable")]
    operator = run.bound.program.column("operator")[index]
    return Lane(name, core, is_port, index, start[index], stop[index], operator)


def label(program: Program, index: int) -> str:
    """An instruction in words: "MATMUL layer0.ffn.up"; vector instructions by their function."""
    opcode = Opcode(int(program.column("opcode")[index]))
    function = Function(int(program.column("function")[index]))
    word = function.name if opcode == Opcode.VECTOR else opcode.name
    return f"{word} {program.operators[int(program.column('operator')[index])].name}"
