"""Keys and values of a decode batch over all channels of banks that compute.

Tokens of the keys, and features of the values, take turns over the banks of a channel, then over
channels (hw/pim/layouts/families); heads lie side by side along rows of keys, tokens along rows of
values. So a run of as many tokens, or features, as a channel has banks is one product there. The
requests lie one behind the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from accelsim.hw.pim.cost import product_cost
from accelsim.hw.pim.layouts.families import Heads
from accelsim.hw.pim.layouts.layout import Layout
from accelsim.hw.pim.products.product import Sweep
from accelsim.hw.pim.products.registry import products_of
from accelsim.mapping.bank_attention import RowCaches
from accelsim.mapping.bank_layouts import ELEMENT_BYTES
from accelsim.numerics.formats import Format
from accelsim.program.storage import Storage, View
from accelsim.program.table import Region

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Kept:
    """A sequence of a decode batch: ``tokens``, and where its keys and values lie."""

    number: int
    tokens: int
    keys: Layout
    values: Layout


@dataclass(frozen=True)
class Run:
    """Rows of one product: tokens of keys, or features of values, in the banks of a channel."""

    channel: int
    rows: slice


@dataclass(frozen=True)
class SpreadCaches(RowCaches[Kept]):
    """Where the keys and the values of all sequences of an attention lie, over all channels."""

    @cached_property
    def requests(self) -> tuple[Kept, ...]:
        """All sequences in their order, with their places."""
        used, found, family = [0, 0], [], self.memory.pim
        for number, tokens in enumerate(self.lengths):
            heads = Heads(self.kv_heads, self.head_dim, tokens)
            pair = products_of(family).cache(family, self.memory.grid, heads, 0)
            keys, values = (
                replace(layout, origin=first * self.row_elements)
                for layout, first in zip(pair, used, strict=True)
            )
            found.append(Kept(number, tokens, keys, values))
            used = [layout.last_row + 1 for layout in (keys, values)]
        return tuple(found)

    def runs(self, rows: slice) -> Iterator[Run]:
        """Tokens, or features, turn by turn over the banks of the channels."""
        banks, channels = self.memory.grid.banks, self.memory.channels
        first = rows.start
        while first < rows.stop:
            stop = min((first // banks + 1) * banks, rows.stop)
            yield Run(first // banks % channels, slice(first, stop))
            first = stop

    @cached_property
    def cycles(self) -> int:
        """Clocks of all sequences' products."""
        family, d, total = self.memory.family, self.head_dim, 0
        turn = self.memory.grid.banks * self.memory.channels
        for tokens in self.lengths:
            for first in range(0, self.kv_heads, self.heads_of_a_row):
                some = min(self.heads_of_a_row, self.kv_heads - first)
                one = Sweep(1, some, self.memory.grid.banks, d, abreast=True)
                further = replace(one, brings=False)
                turns = -(-tokens // turn)
                total += product_cost(family, one).cycles
                total += (turns - 1) * product_cost(family, further).cycles
            for part in self.chunks(tokens):
                one = Sweep(1, 1, self.memory.grid.banks, part.stop - part.start)
                total += -(-self.kv_heads * d // turn) * product_cost(family, one).cycles
        return self.shared * total

    @cached_property
    def key_regions(self) -> tuple[Region, ...]:
        d, step, found = self.head_dim, self.memory.bank_pitch, []
        for one, top in self.tops():
            for head in range(self.kv_heads):
                for run in self.runs(slice(0, one.tokens)):
                    first, count = run.rows.start, run.rows.stop - run.rows.start
                    offset = self.address(one.keys, first, head * d)
                    row = top + head * one.tokens + first
                    found.append(Region(row, count, 0, d, offset, step, ELEMENT_BYTES))
        return tuple(found)

    @cached_property
    def value_regions(self) -> tuple[Region, ...]:
        d, step, found = self.head_dim, self.memory.bank_pitch, []
        for one, top in self.tops():
            for head in range(self.kv_heads):
                for part in self.chunks(one.tokens):
                    row, count = top + head * one.tokens + part.start, part.stop - part.start
                    for run in self.runs(slice(head * d, (head + 1) * d)):
                        first, width = run.rows.start, run.rows.stop - run.rows.start
                        offset = self.address(one.values, first, part.start)
                        col = first - head * d
                        found.append(Region(row, count, col, width, offset, ELEMENT_BYTES, step))
        return tuple(found)

    def keys(self, cache: Storage, one: Kept, run: Run, heads: slice, fmt: Format) -> View:
        """Keys [tokens of a run, heads side by side]: heads of one row."""
        d, rows = self.head_dim, run.rows
        return cache.view(
            rows.stop - rows.start, (heads.stop - heads.start) * d, fmt,
            offset=self.address(one.keys, rows.start, heads.start * d),
            stride=self.memory.bank_pitch,
        )  # fmt: skip

    def values(self, cache: Storage, one: Kept, run: Run, tokens: slice, fmt: Format) -> View:
        """Values [features of a run, tokens]: tokens of one row."""
        rows = run.rows
        return cache.view(
            rows.stop - rows.start, tokens.stop - tokens.start, fmt,
            offset=self.address(one.values, rows.start, tokens.start),
            stride=self.memory.bank_pitch,
        )  # fmt: skip
