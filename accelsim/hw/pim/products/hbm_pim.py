"""Products of tile programs in the pseudo-channels of HBM-PIM: a kernel of GEMV each.

A pseudo-channel has a block of outputs, in tiles of eight registers of every unit. The vector comes
over its pins into GRF_A, again for every tile; results, 16 lanes each, are read out of the banks,
and the lanes added as they are read. Sums do not outlive a kernel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from accelsim.hw.block import Ints
from accelsim.hw.pim.channel.stream import NO_ROW
from accelsim.hw.pim.family import Family
from accelsim.hw.pim.layouts.families import hbm_pim_blocks
from accelsim.hw.pim.layouts.layout import BankGrid, Layout
from accelsim.hw.pim.products.product import Products, Row, Share, Spread, Sweep
from accelsim.hw.pim.programs.crf import REGISTERS
from accelsim.hw.pim.programs.hbm_pim import EVEN, ODD, kernel_steps
from accelsim.hw.pim.programs.steps import stream_of

if TYPE_CHECKING:
    from accelsim.hw.pim.memory import PimDram


class HbmPimProducts(Products):
    """Vectors over the pins into registers, results through the banks."""

    host_vectors = True
    caches: ClassVar[Spread] = "none"

    def rows(
        self, family: Family, sweep: Sweep, first_row: int, vector: tuple[int, int]
    ) -> Iterator[Row]:
        del vector
        tiles, pairs = _tiles(family, sweep.n), _pairs(family, sweep.k)
        for _ in range(sweep.vectors * sweep.results):
            steps = kernel_steps(family, tiles, pairs, first_row)
            for row in stream_of(family, steps).table().tolist():
                yield tuple(row)

    def beside_host(
        self, family: Family, sweep: Sweep, column: int, vector: tuple[int, int]
    ) -> Iterator[Row]:
        """Banks are closed before they change their mode, and results read in the ordinary one."""
        del column
        for _ in range(sweep.vectors * sweep.results):
            yield from _closed(family, EVEN, ODD)
            yield from self.rows(family, replace(sweep, vectors=1, results=1), 0, vector)
            yield from _results(family, sweep.n)

    def places(self, memory: PimDram, base: Ints, storage: Ints) -> tuple[Ints, Ints, Ints]:
        """A tensor is whole rows of all banks, its channels one after the other: in each, outputs
        take the rows of all banks one after the other."""
        row_bytes = memory.part.organization.row_bytes * memory.pim.banks
        first, nbytes = storage.T
        channel, within = np.divmod(base - first, nbytes // memory.channels)
        return channel, first // memory.row_pitch + within // row_bytes, np.zeros_like(base)

    def turn(self, family: Family) -> int:
        return _outputs(family)

    def pin_bytes(self, family: Family, sweep: Sweep) -> int:
        burst, inputs = family.device.organization.column_bytes, 2 * REGISTERS
        given = _tiles(family, sweep.n) * _pairs(family, sweep.k) * inputs
        return sweep.vectors * sweep.results * (given + sweep.n) * burst

    def reading(self, family: Family, sweep: Sweep) -> int:
        """A burst of 16 lanes per result."""
        bursts = sweep.vectors * sweep.results * sweep.n
        return bursts * family.device.timings["burst_cycles"]

    def weights(self, family: Family, grid: BankGrid, outputs: int, inputs: int) -> Layout:
        del family
        return hbm_pim_blocks(grid, outputs, inputs)

    def shares(self, family: Family, grid: BankGrid, outputs: int, inputs: int) -> list[Share]:
        block = _tiles(family, -(-outputs // grid.channels)) * _outputs(family)
        return [
            Share(channel, slice(first, min(first + block, outputs)), slice(0, inputs))
            for channel, first in enumerate(range(0, outputs, block))
        ]

    def address(self, memory: PimDram, layout: Layout, row: Ints, col: Ints) -> Ints:
        """Weights are addressed output by output: inputs of a register, even and odd bank, pair
        after pair; then registers, units, tiles, channels."""
        place, grid = layout.place(row, col), memory.grid
        size = REGISTERS * grid.column_elements
        pairs = -(-layout.cols // (2 * size))
        within = place.row * grid.row_elements + place.column - layout.origin
        block, lane = divmod(within, size)
        turn, register = divmod(block, REGISTERS)
        tile, pair = divmod(turn, pairs)
        unit, odd = divmod(place.bank, 2)
        tiles = -(-layout.elements // (pairs * REGISTERS * size))
        output = ((place.channel * tiles + tile) * (grid.banks // 2) + unit) * REGISTERS
        element: Ints = ((output + register) * pairs + pair) * 2 * size + odd * size + lane
        return element * grid.bits // 8


def _closed(family: Family, *halves: int) -> Iterator[Row]:
    """No row is open in the even, or the odd, banks."""
    for half in halves:
        yield (family.number("PRE_HAB"), NO_ROW, half, 1, 0, 0)


def _results(family: Family, outputs: int) -> Iterator[Row]:
    """What reads the results of a product: a column of an odd bank for every output, tile by tile,
    bank groups in turn."""
    parts, number = family.device.organization, family.number
    row = parts.rows // 2  # as kernel_steps has it
    group_by_group = [
        group * parts.banks + bank
        for bank in range(ODD, parts.banks, family.units.banks_per_unit)
        for group in range(family.banks // parts.banks)
    ]
    for first in range(0, outputs, _outputs(family)):
        held = {bank: outputs - first - bank // 2 * REGISTERS for bank in group_by_group}
        yield from _closed(family, ODD)
        for bank in group_by_group:
            if held[bank] > 0:
                yield (number("ACT"), row, bank, 1, 0, 0)
        for register in range(REGISTERS):
            for bank in group_by_group:
                if held[bank] > register:
                    yield (number("RD"), row, bank, 1, 0, 0)
        row += 1


def _outputs(family: Family) -> int:
    """Outputs of a tile in a pseudo-channel."""
    return family.banks // family.units.banks_per_unit * REGISTERS


def _tiles(family: Family, outputs: int) -> int:
    return math.ceil(outputs / _outputs(family))


def _pairs(family: Family, inputs: int) -> int:
    return math.ceil(inputs / (2 * REGISTERS * family.units.macs))
