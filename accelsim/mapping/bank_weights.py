"""Weights in banks that compute, where the family's products find them (hw/pim/products).

The weight is kept as the transformer has it, [inputs, outputs]; its columns lie along rows of
banks. One product of a channel is some of its outputs with at most a row's length of inputs.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

from accelsim.hw.pim.cost import product_cost
from accelsim.hw.pim.layout import Layout
from accelsim.hw.pim.products import Products, Share
from accelsim.hw.pim.programs import products_of
from accelsim.mapping.bank_layouts import ELEMENT_BYTES, Placed
from accelsim.numerics.formats import Format
from accelsim.program.table import Region

if TYPE_CHECKING:
    from accelsim.hw.pim.memory import PimDram
    from accelsim.program.storage import Storage, View


@dataclass(frozen=True)
class WeightPlaces:
    """A weight of ``inputs`` x ``outputs`` in all channels of a memory."""

    memory: PimDram
    inputs: int
    outputs: int

    @cached_property
    def products(self) -> Products:
        """How the banks multiply it."""
        return products_of(self.memory.pim)

    @cached_property
    def layout(self) -> Layout:
        """Where output (row) and input (column) of W lie."""
        memory = self.memory
        return self.products.weights(memory.pim, memory.grid, self.outputs, self.inputs)

    @cached_property
    def shares(self) -> list[Share]:
        """The products with one vector, in the order of every channel."""
        memory = self.memory
        return self.products.shares(memory.pim, memory.grid, self.outputs, self.inputs)

    @cached_property
    def sums(self) -> int:
        """Partial sums of an output."""
        return 1 + max(one.sums for one in self.shares)

    @cached_property
    def channels(self) -> int:
        """Channels that have outputs."""
        return len({one.channel for one in self.shares})

    @cached_property
    def cycles(self) -> int:
        """Clocks of the products with one vector in the channel with most of them."""
        busy: Counter[int] = Counter()
        for one in self.shares:
            busy[one.channel] += product_cost(self.memory.family, one.sweep).cycles
        return max(busy.values())

    def placed(self) -> Placed:
        """The weight as a tensor in banks."""
        regions = tuple(
            Region(
                k.start, k.stop - k.start, n.start, n.stop - n.start,
                self._address(n.start, k.start), ELEMENT_BYTES, self._step(one),
            )
            for one in sorted(self.shares, key=lambda s: (s.inputs.start, s.outputs.start))
            for k, n in [(one.inputs, one.outputs)]
        )  # fmt: skip
        pitch, rows = self.memory.row_pitch, self.layout.last_row + 1
        return Placed(regions, rows * pitch, pitch, 0, self.memory.grid.bits)

    def window(self, weight: Storage, one: Share, fmt: Format) -> View:
        """W[outputs, inputs] of a product."""
        n, k = one.outputs, one.inputs
        return weight.view(
            n.stop - n.start, k.stop - k.start, fmt,
            offset=self._address(n.start, k.start), stride=self._step(one),
        )  # fmt: skip

    def _step(self, one: Share) -> int:
        """Bytes from an output to the next."""
        first, k = one.outputs.start, one.inputs.start
        if one.outputs.stop - first == 1:
            return self.memory.bank_pitch
        return self._address(first + 1, k) - self._address(first, k)

    def _address(self, output: int, inputs: int) -> int:
        return self.products.address(self.memory, self.layout, output, inputs)


@cache
def weight_places(memory: PimDram, inputs: int, outputs: int) -> WeightPlaces:
    """The places of a weight; weights of a size share them."""
    return WeightPlaces(memory, inputs, outputs)
