"""Lower bounds: what a run cannot beat, whatever its schedule.

An array needs at least the workload's multiply-accumulates over the peak of all its instances,
however the mapper cut them. Every other unit needs the time in which it issues its own work, over
its instances, and every port of a memory or link the time for the bytes that the program moves
through it. A result below one of them is a defect of the simulator, so it raises.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from accelsim.encoding.encodings import CODED
from accelsim.engine.bind import BoundProgram
from accelsim.errors import AccelsimError
from accelsim.hw.block import Ints, Unit
from accelsim.numerics.formats import FORMATS
from accelsim.program.opcodes import PRODUCTS
from accelsim.results import memory
from accelsim.results.result import SegmentRun


def lower_bound_ticks(run: SegmentRun) -> dict[str, float]:
    """Ticks that each unit, port, cache and channel needs at least, by name."""
    return {**_unit_bounds(run.bound), **_port_bounds(run.bound), **memory.bounds(run)}


def product_ticks(bound: BoundProgram, kind: int) -> dict[int, float]:
    """Ticks that each operator's products need on all units of a kind, at their peak.

    ``kind`` is the unit's position in the architecture. An operator whose factors are of several
    widths is taken for one of the narrowest, which may be the fastest, and one of which some are
    sparse for all sparse.
    """
    program, (_, block) = bound.program, list(bound.arch.units.items())[kind]
    products = np.isin(program.column("opcode"), PRODUCTS) & (bound.unit_index == kind)
    owner = program.column("operator")[products]
    bits = _operand_bits(bound, products)
    tick = bound.arch.ticks_of(block)
    instances = block.count * bound.arch.cores
    speedups = _speedups(bound, block, products)
    return {
        int(i): program.operators[i].macs
        / (block.peak_macs_per_cycle(int(bits[owner == i].min())) * instances)
        / int(speedups[owner == i].max())
        * tick
        for i in np.unique(owner)
    }


def _speedups(bound: BoundProgram, block: Unit, rows: npt.NDArray[np.bool_]) -> Ints:
    """How many times the peak some products reach because of what their factors leave out."""
    program = bound.program
    speedups = np.ones(int(rows.sum()), dtype=np.int64)
    for number, form in enumerate(program.forms):
        codes = program.operand_column("format")[program.sources[rows, :2]]
        reading = (codes == CODED + number).any(axis=1)
        if reading.any():
            speedups[reading] = np.maximum(speedups[reading], block.speedup(form))
    return speedups


def _operand_bits(bound: BoundProgram, rows: npt.NDArray[np.bool_]) -> Ints:
    """Bits per element of the first factor of some products."""
    formats = np.array([f.bits for f in FORMATS.values()], dtype=np.int64)
    factor = bound.program.column("src0")[rows]
    codes: Ints = bound.program.element_formats()[factor]
    return formats[codes]


def _unit_bounds(bound: BoundProgram) -> dict[str, float]:
    bounds: dict[str, float] = {}
    for kind, (name, block) in enumerate(bound.arch.units.items()):
        if block.peak_macs_per_cycle():
            bounds[name] = sum(product_ticks(bound, kind).values())
        else:
            instances = block.count * bound.arch.cores
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
