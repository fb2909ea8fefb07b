"""Weights in banks that compute, where the family's products find them (hw/pim/products).

The weight is kept as the transformer has it, [inputs, outputs]; its columns lie along rows of
banks. One product of a channel is some of its outputs with at most a row's length of inputs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING

from accelsim.errors import CapacityError
from accelsim.hw.pim.cost import product_cost
from accelsim.hw.pim.layouts.layout import Layout
from accelsim.hw.pim.products.product import Products, Share, table_layout, table_shares
from accelsim.hw.pim.products.registry import products_of
from accelsim.mapping.bank_layouts import ELEMENT_BYTES, Placed
from accelsim.numerics.formats import Format
from accelsim.program.table import Region

if TYPE_CHECKING:
    from accelsim.hw.pim.memory import PimDram
    from accelsim.program.storage import Storage, View


@dataclass(frozen=True)
class Piece:
    """Outputs that are finished at once: every share with the first of its places in a row of
    sums, and runs of that row with the outputs that they are."""

    shares: tuple[tuple[Share, int], ...]
    runs: tuple[tuple[int, range], ...]

    @property
    def width(self) -> int:
        """Sums of the piece."""
        return sum(len(numbers) for _, numbers in self.runs)


@dataclass(frozen=True)
class WeightPlaces:
    """A weight of ``inputs`` x ``outputs`` in all channels of a memory, or a ``table`` of outputs
    x inputs."""

    memory: PimDram
    inputs: int
    outputs: int
    table: bool = False

    @cached_property
    def products(self) -> Products:
        """How the banks multiply it."""
        return products_of(self.memory.pim)

    @cached_property
    def layout(self) -> Layout:
        """Where output (row) and input (column) of W lie."""
        memory = self.memory
        if self.table:
            return table_layout(memory.grid, self.outputs, self.inputs)
        return self.products.weights(memory.pim, memory.grid, self.outputs, self.inputs)

    @cached_property
    def shares(self) -> list[Share]:
        """The products with one vector, in the order of every channel."""
        memory = self.memory
        if self.table:
            return table_shares(memory.grid, self.outputs, self.inputs)
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
    def turn(self) -> int:
        """Outputs of a channel that come at once."""
        return self.memory.grid.banks if self.table else self.products.turn(self.memory.pim)

    @cached_property
    def cycles(self) -> int:
        """Clocks of the products with one vector in the channel with most of them."""
        busy: Counter[int] = Counter()
        for one in self.shares:
            busy[one.channel] += product_cost(self.memory.family, one.sweep).cycles
        return max(busy.values())

    def pieces(self, width: int) -> list[Piece]:
        """The products in pieces of at most ``width`` outputs, whole turns of every channel."""
        turn = self.turn
        height = width // self.channels // turn * turn
        if height < 1:
            raise CapacityError(
                f"sums of {turn} outputs in each of {self.channels} channels do not fit"
            )
        first: dict[int, int] = {}
        found: dict[int, list[Share]] = {}
        for one in self.shares:
            start = first.setdefault(one.channel, one.outputs.start)
            for part in _parts(one, start, height):
                number = (part.outputs.start - start) // (one.outputs.step or 1) // height
                found.setdefault(number, []).append(part)
        return [_piece(shares) for _, shares in sorted(found.items())]

    def placed(self) -> Placed:
        """The weight as a tensor in banks."""
        regions = self._table_regions() if self.table else self._weight_regions()
        pitch, rows = self.memory.row_pitch, self.layout.last_row + 1
        return Placed(regions, rows * pitch, pitch, self.memory.grid.bits)

    def _weight_regions(self) -> tuple[Region, ...]:
        return tuple(
            Region(
                k.start, k.stop - k.start, n.start, n.stop - n.start,
                self._address(n.start, k.start), ELEMENT_BYTES, self._step(one),
            )
            for one in sorted(self.shares, key=lambda s: (s.inputs.start, s.outputs.start))
            for k, n in [(one.inputs, one.outputs)]
        )  # fmt: skip

    def _table_regions(self) -> tuple[Region, ...]:
        step = self.memory.part.organization.row_bytes
        return tuple(
            Region(
                0, self.outputs, one.inputs.start, one.inputs.stop - one.inputs.start,
                self._address(0, one.inputs.start), step, ELEMENT_BYTES,
            )
            for one in self.shares
            if one.channel == 0
        )  # fmt: skip

    def window(self, weight: Storage, one: Share, fmt: Format) -> View:
        """W[outputs, inputs] of a product."""
        k = one.inputs
        return weight.view(
            len(one.numbers), k.stop - k.start, fmt,
            offset=self._address(one.outputs.start, k.start), stride=self._step(one),
        )  # fmt: skip

    def _step(self, one: Share) -> int:
        """Bytes from an output to the next."""
        if len(one.numbers) == 1:
            return self.memory.bank_pitch
        first, second = one.numbers[:2]
        start = one.inputs.start
        return self._address(second, start) - self._address(first, start)

    def _address(self, output: int, inputs: int) -> int:
        return self.products.address(self.memory, self.layout, output, inputs)


def _parts(one: Share, start: int, height: int) -> Iterator[Share]:
    """A share cut where a channel's outputs, counted from ``start``, are multiples of height."""
    step = one.outputs.step or 1
    index = (one.outputs.start - start) // step
    first = 0
    while first < len(one.numbers):
        stop = min(len(one.numbers), (index + first) // height * height + height - index)
        mine = one.numbers[first:stop]
        cut = slice(mine.start, mine.stop, mine.step)
        yield replace(one, outputs=cut, further=first > 0)
        first = stop


def _piece(shares: list[Share]) -> Piece:
    """Sums of a channel side by side, channel after channel."""
    outputs: dict[int, dict[int, Share]] = {}
    for one in shares:
        outputs.setdefault(one.channel, {}).setdefault(one.outputs.start, one)
    place: dict[tuple[int, int], int] = {}
    runs: list[tuple[int, range]] = []
    used = 0
    for channel, mine in sorted(outputs.items()):
        for start, one in sorted(mine.items()):
            place[channel, start] = used
            last = runs[-1][1] if runs else range(0)
            if last and last.step == one.numbers.step == 1 and last.stop == start:
                runs[-1] = (runs[-1][0], range(last.start, one.numbers.stop))
            else:
                runs.append((used, one.numbers))
            used += len(one.numbers)
    return Piece(tuple((s, place[s.channel, s.outputs.start]) for s in shares), tuple(runs))


@cache
def weight_places(memory: PimDram, inputs: int, outputs: int, table: bool = False) -> WeightPlaces:
    """The places of a weight; weights of a size share them."""
    return WeightPlaces(memory, inputs, outputs, table)
