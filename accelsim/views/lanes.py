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

    A unit's interval is from start to start + occupancy: until it can take the next instruction.
    A port's is from the start of the instruction that holds it for as long as it does.
    """
    timed, program = run.bound.timed, run.bound.program
    unit_lanes = [
        _lane(run, slot.name, slot.core, False, timed.unit == i, timed.occupancy)
        for i, slot in enumerate(program.units)
    ]
    cores = {space.name: space.core for space in program.spaces}
    port_lanes = []
    for i, name in enumerate(run.bound.port_names):
        held = np.where(timed.port == i, timed.hold, 0).sum(axis=1)
        core = cores.get(name.split(" ")[0], -1)
        port_lanes.append(_lane(run, name, core, True, held > 0, held))
    return unit_lanes + [lane for lane in port_lanes if len(lane.index)]


def lanes_of(run: SegmentRun) -> list[Lane]:
    """Lanes in core cycles: every unit, and the ports of what the cores share."""
    tick = run.bound.arch.ticks_per_cycle("core")
    return [
        replace(lane, start=lane.start / tick, stop=lane.stop / tick)
        for lane in tick_lanes(run)
        if not (lane.is_port and lane.core >= 0)
    ]


def _lane(
    run: SegmentRun, name: str, core: int, is_port: bool,
    mine: npt.NDArray[np.bool_], ticks: Ints,
) -> Lane:  # fmt: skip
    index = np.flatnonzero(mine & (ticks > 0))
    start = run.schedule.start[index]
    order = np.argsort(start, kind="stable")
    index, start = index[order], start[order]
    operator = run.bound.program.column("operator")[index]
    return Lane(name, core, is_port, index, start, start + ticks[index], operator)


def label(program: Program, index: int) -> str:
    """An instruction in words: "MATMUL layer0.ffn.up"; vector instructions by their function."""
    opcode = Opcode(int(program.column("opcode")[index]))
    function = Function(int(program.column("function")[index]))
    word = function.name if opcode == Opcode.VECTOR else opcode.name
    return f"{word} {program.operators[int(program.column('operator')[index])].name}"
