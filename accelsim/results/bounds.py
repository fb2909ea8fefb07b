"""Lower bounds: what a run cannot beat, whatever its schedule.

An array needs at least the workload's multiply-accumulates over the peak of all its instances,
however the mapper cut them. Every other unit needs the time in which it issues its own work, over
its instances, and every port of a memory or link the time for the bytes that the program moves
through it. A result below one of them is a defect of the simulator, so it raises.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from accelsim.engine.bind import BoundProgram
from accelsim.errors import AccelsimError
from accelsim.hw.block import Ints
from accelsim.program.opcodes import PRODUCTS
from accelsim.results import memory
from accelsim.results.result import SegmentRun


def lower_bound_ticks(run: SegmentRun) -> dict[str, float]:
    """Ticks that each unit, port, cache and channel needs at least, by name."""
    return {**_unit_bounds(run.bound), **_port_bounds(run.bound), **memory.bounds(run)}


def operators_on(bound: BoundProgram, kind: int) -> Ints:
    """Operators whose products run on the unit at position ``kind`` of the architecture."""
    program = bound.program
    products = np.isin(program.column("opcode"), PRODUCTS) & (bound.unit_index == kind)
    return np.unique(program.column("operator")[products])


def _unit_bounds(bound: BoundProgram) -> dict[str, float]:
    program, arch = bound.program, bound.arch
    bounds = {}
    for kind, (name, block) in enumerate(arch.units.items()):
        instances = block.count * arch.cores
        peak = block.peak_macs_per_cycle() * instances
        if peak:
            macs = sum(program.operators[i].macs for i in operators_on(bound, kind))
            bounds[name] = macs / peak * arch.ticks_per_cycle(block.clock)
        else:
            bounds[name] = int(bound.work[bound.unit_index == kind].sum()) / instances
    return bounds


def _port_bounds(bound: BoundProgram) -> dict[str, float]:
    """Busy time of every port; each stands alone. A network is as busy as its busiest link."""
    bounds: dict[str, float] = {}
    for name, ticks in zip(bound.port_groups, port_ticks(bound).tolist(), strict=True):
        bounds[name] = max(bounds.get(name, 0.0), ticks)
    return bounds


def port_ticks(bound: BoundProgram) -> npt.NDArray[np.float64]:
    """Ticks for which every port is held."""
    timed = bound.timed
    held = timed.port >= 0
    ticks = np.bincount(
        timed.port[held].astype(np.int64), weights=timed.hold[held], minlength=timed.ports
    )
    return ticks.astype(np.float64)


def check_bounds(ticks: int, bounds: dict[str, float], what: str) -> None:
    """Raise if a finished run is faster than its bounds allow."""
    for name, least in bounds.items():
        if ticks < least * (1 - 1e-12) - 1e-6:
            raise AccelsimError(
                f"defect: {what} took {ticks} ticks, below the bound of {name} ({least:.1f} ticks);"
                " please report it"
            )
