"""Physical lower bounds: what a run cannot beat, whatever its schedule.

Every unit has so much work and every memory and link so many bytes; divided by how many instances
there are, none of them can be done earlier. A result below one of them is a defect of the
simulator, so it raises.
"""

from __future__ import annotations

import numpy as np

from accelsim.engine.bind import BoundProgram
from accelsim.errors import AccelsimError
from accelsim.program.opcodes import Opcode


def lower_bound_ticks(bound: BoundProgram) -> dict[str, float]:
    """Ticks that each unit kind, memory and link needs at least, by name.

    Arrays: multiply-accumulates over peak. Other units: issue time over instances. Memories and
    links: the time their bytes hold a port, over the ports of that kind.
    """
    return {**_unit_bounds(bound), **_port_bounds(bound)}


def _unit_bounds(bound: BoundProgram) -> dict[str, float]:
    program, arch = bound.program, bound.arch
    matmul = program.column("opcode") == Opcode.MATMUL
    macs = program.column("m") * program.column("n") * program.column("k")
    bounds = {}
    for kind, (name, block) in enumerate(arch.units.items()):
        count = block.count * arch.cores
        mine = bound.unit_kind == kind
        peak = block.peak_macs_per_cycle()
        if peak:
            cycles = int(macs[matmul & mine].sum()) / (peak * count)
            bounds[name] = cycles * arch.ticks_per_cycle(block.clock)
        elif Opcode.VECTOR in block.opcodes:
            bounds[name] = int(bound.timed.occupancy[mine].sum()) / count
    return bounds


def _port_bounds(bound: BoundProgram) -> dict[str, float]:
    """Busy time of every port; the ports of one memory per core share its work evenly at best."""
    timed = bound.timed
    held = timed.port >= 0
    busy = np.bincount(
        timed.port[held].astype(np.int64), weights=timed.hold[held], minlength=timed.ports
    )
    return {name: float(ticks) for name, ticks in zip(bound.port_names, busy, strict=True)}


def check_bounds(ticks: int, bounds: dict[str, float], what: str) -> None:
    """Raise if a finished run is faster than physics allows."""
    for name, least in bounds.items():
        if ticks < least * (1 - 1e-12) - 1e-6:
            raise AccelsimError(
                f"defect: {what} took {ticks} ticks, below the bound of {name} ({least:.1f} ticks);"
                " please report it"
            )
