"""Weights in banks that compute, where the family's products find them (hw/pim/products).

The weight is kept as the transformer has it, [inputs, outputs]; its columns lie along rows of
banks. One product of a channel is some of its outputs with at most a row's length of inputs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np

from accelsim.errors import CapacityError
from accelsim.hw.pim.cost import product_cost
from accelsim.hw.pim.layouts.layout import Layout
from accelsim.hw.pim.products.product import Products, Share, table_layout, table_shares
from accelsim.hw.pim.products.registry import products_of
from accelsim.mapping.bank_layouts import ELEMENT_BYTES, Placed
from accelsim.numerics.formats import Format
from accelsim.program.table import Region

if TYPE_CHECKING:
    from accelsim.hw.block import Ints
    from accelsim.hw.pim.memory import PimDram
    from accelsim.program.storage import Storage, View


@dataclass(frozen=True)
class Job:
    """A product of a piece: the first of its places in a row of sums, and where its part of the
    weight lies: bytes to the first output (``offset``), and from an output to the next."""

    share: Share
    place: int
    offset: int
    step: int

    def window(self, weight: Storage, fmt: Format) -> View:
        """W[outputs, inputs]."""
        n, k = len(self.share.numbers), self.share.inputs
        return weight.view(n, k.stop - k.start, fmt, offset=self.offset, stride=self.step)


@dataclass(frozen=True)
class Piece:
    """Outputs that are finished at once: the products, and runs of their row of sums with the
    outputs that they are."""

    jobs: tuple[Job, ...]
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

    @property
    def at_once(self) -> int:
        """Outputs of all channels that come at once."""
        return self.turn * self.channels

    @property
    def whole(self) -> int:
        """Outputs in whole turns of all channels."""
        return -(-self.outputs // self.at_once) * self.at_once

    @cached_property
    def cycles(self) -> int:
        """Clocks of the products with one vector in the channel with most of them."""
        busy: Counter[int] = Counter()
        for one in self.shares:
            busy[one.channel] += product_cost(self.memory.family, one.sweep).cycles
        return max(busy.values())

    @cached_property
    def sent(self) -> int:
        """Commands of the products with one vector in all channels, as they are sent one by one."""
        return sum(product_cost(self.memory.family, one.sweep).sent for one in self.shares)

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
        return [self._piece(shares) for _, shares in sorted(found.items())]

    def placed(self) -> Placed:
        """The weight as a tensor in banks."""
        regions = self._table_regions() if self.table else self._weight_regions()
        pitch, rows = self.memory.row_pitch, self.layout.last_row + 1
        return Placed(regions, rows * pitch, pitch, self.memory.grid.bits)

    def _weight_regions(self) -> tuple[Region, ...]:
        shares = sorted(self.shares, key=lambda s: (s.inputs.start, s.outputs.start))
        return tuple(
            Region(
                k.start, k.stop - k.start, n.start, n.stop - n.start, offset, ELEMENT_BYTES, step
            )
            for one, offset, step in zip(shares, *self._lie(shares), strict=True)
            for k, n in [(one.inputs, one.outputs)]
        )  # fmt: skip

    def _table_regions(self) -> tuple[Region, ...]:
        step = self.memory.part.organization.row_bytes
        shares = [one for one in self.shares if one.channel == 0]
        offsets = self._address(0, np.array([one.inputs.start for one in shares]))
        return tuple(
            Region(
                0, self.outputs, one.inputs.start, one.inputs.stop - one.inputs.start,
                offset, step, ELEMENT_BYTES,
            )
            for one, offset in zip(shares, offsets.tolist(), strict=True)
        )  # fmt: skip

    def _piece(self, shares: list[Share]) -> Piece:
        """Sums of a channel side by side, channel after channel."""
        places, runs = _side_by_side(shares)
        return Piece(tuple(map(Job, shares, places, *self._lie(shares))), runs)

    def _lie(self, shares: Sequence[Share]) -> tuple[list[int], list[int]]:
        """Bytes to the first output of every product, and from an output to the next."""
        pairs = [(one.numbers[0], one.numbers[:2][-1]) for one in shares]
        first, second = self._address(
            np.array(pairs).T, np.array([one.inputs.start for one in shares])
        )
        alone = first == second
        return first.tolist(), np.where(alone, self.memory.bank_pitch, second - first).tolist()

    def _address(self, outputs: Ints | int, inputs: Ints) -> Ints:
        return self.products.address(self.memory, self.layout, np.asarray(outputs), inputs)


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


def _side_by_side(shares: list[Share]) -> tuple[list[int], tuple[tuple[int, range], ...]]:
    """The first place of every share in a row of sums, where those of a channel lie side by side,
    and runs of that row with the outputs that they are."""
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
    return [place[one.channel, one.outputs.start] for one in shares], tuple(runs)


@cache
def weight_places(memory: PimDram, inputs: int, outputs: int, table: bool = False) -> WeightPlaces:
    """The places of a weight; weights of a size share them."""
    return WeightPlaces(memory, inputs, outputs, table)
