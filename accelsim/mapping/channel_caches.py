"""Keys and values of a decode batch in banks that compute: a request in a channel.

A request lies in one channel. Its keys have a token in every bank, the heads side by side along the
rows; its values a feature in every bank, the tokens along the rows (hw/pim/layouts/families). The
requests of a channel lie one behind the other; which request goes to which channel is decided by
how long its attention takes there (mapping/balance).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from accelsim.hw.pim.cost import product_cost
from accelsim.hw.pim.layouts.families import Heads
from accelsim.hw.pim.layouts.layout import Layout
from accelsim.hw.pim.products.product import Sweep
from accelsim.hw.pim.products.registry import products_of
from accelsim.mapping.balance import balanced, in_turns
from accelsim.mapping.bank_attention import RowCaches
from accelsim.mapping.bank_layouts import ELEMENT_BYTES
from accelsim.numerics.formats import Format
from accelsim.program.storage import View
from accelsim.program.table import Region

if TYPE_CHECKING:
    from accelsim.program.storage import Storage


@dataclass(frozen=True)
class Request:
    """A sequence of a decode batch: its channel, and where its keys and values lie there.

    ``turn`` counts those before it in the channel.
    """

    number: int
    tokens: int
    channel: int
    turn: int
    keys: Layout
    values: Layout


@dataclass(frozen=True)
class CachePlaces(RowCaches[Request]):
    """Where the keys and the values of all sequences of an attention lie, each in one channel."""

    def sweeps(self, tokens: int, heads: int) -> list[Sweep]:
        """The products of ``heads`` key heads of a sequence in its channel."""
        size, group = self.row_elements, self.heads_of_a_row
        found = []
        for first in range(0, heads, group):
            some = min(group, heads - first)
            found.append(Sweep(1, some, tokens, self.head_dim, abreast=True))
        for first in range(0, tokens, size):
            some = min(size, tokens - first)
            found += [Sweep(one, 1, self.head_dim, some) for one in self.at_once(tokens, heads)]
        return found * self.shared

    def at_once(self, tokens: int, heads: int) -> list[int]:
        """Heads whose values are one window, as often as it takes for ``heads``."""
        return [heads] if tokens <= self.row_elements else [1] * heads

    def cycles(self, tokens: int) -> int:
        """Clocks that the attention of a sequence takes in its channel."""
        family = self.memory.family
        return sum(product_cost(family, s).cycles for s in self.sweeps(tokens, self.kv_heads))

    @cached_property
    def loads(self) -> tuple[int, ...]:
        """Clocks that every sequence takes."""
        of = {tokens: self.cycles(tokens) for tokens in set(self.lengths)}
        return tuple(of[tokens] for tokens in self.lengths)

    @cached_property
    def busiest(self) -> int:
        """Clocks of the channel with most to do."""
        total = [0] * self.memory.channels
        for one in self.requests:
            total[one.channel] += self.loads[one.number]
        return max(total)

    @property
    def _dealt(self) -> list[list[int]]:
        """Sequences of every channel."""
        channels = self.memory.channels
        if self.memory.requests == "in turns":
            return in_turns(len(self.lengths), channels)
        return balanced(self.loads, channels)

    @cached_property
    def requests(self) -> tuple[Request, ...]:
        """All sequences in their order, with their places."""
        channels = self.memory.channels
        used, turns = [[0, 0] for _ in range(channels)], [0] * channels
        found = []
        channel_of = {
            number: channel for channel, mine in enumerate(self._dealt) for number in mine
        }
        for number in range(len(self.lengths)):
            channel = channel_of[number]
            tokens = self.lengths[number]
            pair = self._layouts(tokens, channel)
            rows = [layout.last_row - layout.first_row + 1 for layout in pair]
            keys, values = (
                replace(layout, origin=first * self.row_elements)
                for layout, first in zip(pair, used[channel], strict=True)
            )
            found.append(Request(number, tokens, channel, turns[channel], keys, values))
            turns[channel] += 1
            used[channel] = [a + b for a, b in zip(used[channel], rows, strict=True)]
        return tuple(found)

    def _layouts(self, tokens: int, channel: int) -> tuple[Layout, Layout]:
        heads = Heads(self.kv_heads, self.head_dim, tokens)
        family = self.memory.pim
        return products_of(family).cache(family, self.memory.grid, heads, channel)

    @cached_property
    def key_regions(self) -> tuple[Region, ...]:
        d, step, found = self.head_dim, self.memory.bank_pitch, []
        for one, row in self.tops():
            for head in range(self.kv_heads):
                offset = self.address(one.keys, 0, head * d)
                first = row + head * one.tokens
                found.append(Region(first, one.tokens, 0, d, offset, step, ELEMENT_BYTES))
        return tuple(found)

    @cached_property
    def value_regions(self) -> tuple[Region, ...]:
        d, step, size = self.head_dim, self.memory.bank_pitch, self.row_elements
        found = []
        for one, row in self.tops():
            for head in range(self.kv_heads):
                for first in range(0, one.tokens, size):
                    offset = self.address(one.values, head * d, first)
                    top = row + head * one.tokens + first
                    some = min(size, one.tokens - first)
                    found.append(Region(top, some, 0, d, offset, ELEMENT_BYTES, step))
        return tuple(found)

    def keys(self, cache: Storage, one: Request, heads: slice, fmt: Format) -> View:
        """Keys [tokens, heads side by side] of a sequence: heads of one row."""
        d = self.head_dim
        return cache.view(
            one.tokens, (heads.stop - heads.start) * d, fmt,
            offset=self.address(one.keys, 0, heads.start * d),
            stride=self.memory.bank_pitch,
        )  # fmt: skip

    def values(
        self, cache: Storage, one: Request, heads: slice, tokens: slice, fmt: Format
    ) -> View:
        """Values [features of all these heads, tokens] of a sequence: tokens of one row, and of
        one head where there are more rows than one (a head's rows lie together)."""
        d = self.head_dim
        return cache.view(
            (heads.stop - heads.start) * d, tokens.stop - tokens.start, fmt,
            offset=self.address(one.values, heads.start * d, tokens.start),
            stride=self.memory.bank_pitch,
        )  # fmt: skip
