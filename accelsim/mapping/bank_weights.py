"""Weights in banks that compute: outputs in a block per channel, in each over its banks, inputs
along their rows, a row of inputs after the other.

The weight is kept as the transformer has it, [inputs, outputs]; its columns lie along rows of
banks. One product of a channel is all its outputs with a row's length of inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

from accelsim.hw.pim.cost import product_cost
from accelsim.hw.pim.layout import Layout
from accelsim.hw.pim.layout_families import weight_layout
from accelsim.hw.pim.newton_programs import Sweep
from accelsim.mapping.bank_layouts import ELEMENT_BYTES, Placed, address
from accelsim.numerics.formats import Format
from accelsim.program.table import Region

if TYPE_CHECKING:
    from accelsim.hw.pim.memory import PimDram
    from accelsim.program.storage import Storage, View

BLOCKS = "pim-gpt"
"""The family whose layout this is: chunks of inputs apart, blocks of outputs."""


@dataclass(frozen=True)
class WeightPlaces:
    """A weight of ``inputs`` x ``outputs`` in all channels of a memory."""

    memory: PimDram
    inputs: int
    outputs: int

    @cached_property
    def layout(self) -> Layout:
        """Where output (row) and input (column) of W lie."""
        return weight_layout(BLOCKS, self.memory.grid, self.outputs, self.inputs)

    @property
    def block(self) -> int:
        """Outputs of a channel, whole turns of its banks."""
        banks = self.memory.grid.banks
        return -(-self.outputs // (banks * self.memory.channels)) * banks

    @property
    def blocks(self) -> list[slice]:
        """Outputs of every channel that has some."""
        starts = range(0, self.outputs, self.block)
        return [slice(first, min(first + self.block, self.outputs)) for first in starts]

    @property
    def chunks(self) -> list[slice]:
        """Inputs of every row of a bank."""
        size = self.memory.grid.row_elements
        starts = range(0, self.inputs, size)
        return [slice(first, min(first + size, self.inputs)) for first in starts]

    @cached_property
    def cycles(self) -> int:
        """Clocks of a product with one vector in a channel."""
        outputs, family = self.blocks[0].stop, self.memory.family
        sweeps = [Sweep(1, 1, outputs, one.stop - one.start, abreast=True) for one in self.chunks]
        return sum(product_cost(family, sweep).cycles for sweep in sweeps)

    def placed(self) -> Placed:
        """The weight as a tensor in banks."""
        memory, step = self.memory, self.memory.bank_pitch
        regions = tuple(
            Region(
                k.start, k.stop - k.start, n.start, n.stop - n.start,
                address(memory, self.layout, n.start, k.start), ELEMENT_BYTES, step,
            )
            for k in self.chunks
            for n in self.blocks
        )  # fmt: skip
        pitch, rows = memory.row_pitch, self.layout.last_row + 1
        return Placed(regions, rows * pitch, pitch, 0, memory.grid.bits)

    def window(self, weight: Storage, outputs: slice, inputs: slice, fmt: Format) -> View:
        """W[outputs, inputs] of one channel and one row's length of inputs."""
        return weight.view(
            outputs.stop - outputs.start, inputs.stop - inputs.start, fmt,
            offset=address(self.memory, self.layout, outputs.start, inputs.start),
            stride=self.memory.bank_pitch,
        )  # fmt: skip


@cache
def weight_places(memory: PimDram, inputs: int, outputs: int) -> WeightPlaces:
    """The places of a weight; weights of a size share them."""
    return WeightPlaces(memory, inputs, outputs)
