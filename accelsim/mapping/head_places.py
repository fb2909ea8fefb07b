"""Keys and values of a decode batch in banks that come in groups: head by head, as AttAcc has them.

A head of a sequence lies in one channel; which one is decided by how long its attention takes there
(mapping/balance). The heads of a channel lie one behind the other, each from the beginning of a row
of all banks. Under the memory's map (hw/pim/memory.IN_GROUPS) the keys of a head are a window of
addresses with a row per token and 64 features, the values one window for every 64 features: the
places of hw.pim.layouts.families.attacc_cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from accelsim.hw.pim.cost import product_cost
from accelsim.hw.pim.layouts.families import GROUP_BANKS, PAIR, Heads
from accelsim.hw.pim.layouts.layout import Layout
from accelsim.hw.pim.products.product import Sweep
from accelsim.hw.pim.products.registry import products_of
from accelsim.mapping.balance import balanced
from accelsim.mapping.bank_attention import Caches, cache_problem
from accelsim.mapping.bank_layouts import ELEMENT_BYTES
from accelsim.numerics.formats import Format
from accelsim.program.storage import View
from accelsim.program.table import Region

if TYPE_CHECKING:
    from accelsim.hw.pim.memory import PimDram
    from accelsim.program.storage import Storage
    from accelsim.workload.operators import Attention


@dataclass(frozen=True)
class PlacedHead:
    """A key head of a sequence: its channel, how many are before it there, its first row of the
    banks, and the first row of its cache in the tensor's 2-D form."""

    sequence: int
    head: int
    tokens: int
    channel: int
    turn: int
    first_row: int
    cache_row: int


@dataclass(frozen=True)
class HeadPlaces(Caches):
    """Where the keys and the values of all heads of an attention lie."""

    @property
    def groups(self) -> int:
        """Groups of banks in a channel."""
        return self.memory.grid.banks // GROUP_BANKS

    @property
    def line(self) -> int:
        """Features that a column of each bank of a group holds."""
        return GROUP_BANKS * self.memory.grid.column_elements

    @property
    def features(self) -> list[slice]:
        """Those of a head, line by line."""
        starts = range(0, self.head_dim, self.line)
        return [slice(first, min(first + self.line, self.head_dim)) for first in starts]

    @property
    def pitch(self) -> int:
        """Bytes from a line to the next one of a channel."""
        return self.line * ELEMENT_BYTES * self.memory.channels

    def span(self, tokens: int) -> int:
        """Lines of a channel that the values of a line's features take."""
        return -(-tokens // (self.groups * PAIR)) * self.groups * PAIR

    def rows(self, tokens: int) -> int:
        """Rows of all banks that a head takes."""
        lines = self.span(tokens) * len(self.features)
        grid = self.memory.grid
        return -(-lines // (self.groups * grid.row_elements // grid.column_elements))

    def sweeps(self, tokens: int) -> list[Sweep]:
        """The products of a query with a head's cache."""
        values = (
            Sweep(1, 1, some.stop - some.start, tokens, columns=True, brings=some.start == 0)
            for some in self.features
        )
        return [Sweep(1, 1, tokens, self.head_dim), *values]

    def cycles(self, tokens: int) -> int:
        """Clocks that the attention of a key head takes in its channel."""
        family = self.memory.family
        return self.shared * sum(product_cost(family, s).cycles for s in self.sweeps(tokens))

    @cached_property
    def loads(self) -> tuple[int, ...]:
        """Clocks of every head, sequence by sequence."""
        of = {tokens: self.cycles(tokens) for tokens in set(self.lengths)}
        return tuple(of[tokens] for tokens in self.lengths for _ in range(self.kv_heads))

    @cached_property
    def busiest(self) -> int:
        """Clocks of the channel with most to do."""
        total = [0] * self.memory.channels
        for number, one in enumerate(self.heads):
            total[one.channel] += self.loads[number]
        return max(total)

    @cached_property
    def heads(self) -> tuple[PlacedHead, ...]:
        """All heads of all sequences in their order."""
        channels = self.memory.channels
        channel_of = {
            number: channel
            for channel, mine in enumerate(balanced(self.loads, channels))
            for number in mine
        }
        used, turns, row = [0] * channels, [0] * channels, 0
        found = []
        for number in range(len(self.lengths) * self.kv_heads):
            sequence, head = divmod(number, self.kv_heads)
            channel, tokens = channel_of[number], self.lengths[sequence]
            found.append(
                PlacedHead(sequence, head, tokens, channel, turns[channel], used[channel], row)
            )
            used[channel] += self.rows(tokens)
            turns[channel] += 1
            row += tokens
        return tuple(found)

    def layouts(self, one: PlacedHead) -> tuple[Layout, Layout]:
        """Its keys and values as a layout of the family, each from row 0 of a tensor on."""
        heads = Heads(1, self.head_dim, one.tokens)
        family = self.memory.pim
        keys, values = products_of(family).cache(family, self.memory.grid, heads, one.channel)
        start = one.first_row * self.memory.grid.row_elements
        return replace(keys, origin=start), replace(values, origin=start)

    # -- addresses -----------------------------------------------------------------------------

    def offset(self, one: PlacedHead, line: int = 0) -> int:
        """Bytes from the start of a tensor to a line of a head."""
        channel = one.channel * self.line * ELEMENT_BYTES
        return one.first_row * self.memory.row_pitch + channel + line * self.pitch

    def keys(self, cache: Storage, one: PlacedHead, fmt: Format) -> View:
        """[tokens, features], a row of them line by line."""
        lines, width = len(self.features), min(self.line, self.head_dim)
        return cache.view(
            one.tokens * lines, width, fmt, offset=self.offset(one), stride=self.pitch
        )

    def values(self, cache: Storage, one: PlacedHead, line: int, fmt: Format) -> View:
        """[tokens, features of a line]."""
        some = self.features[line]
        offset = self.offset(one, line * self.span(one.tokens))
        return cache.view(one.tokens, some.stop - some.start, fmt, offset=offset, stride=self.pitch)

    @cached_property
    def key_regions(self) -> tuple[Region, ...]:
        return tuple(self._regions(keys=True))

    @cached_property
    def value_regions(self) -> tuple[Region, ...]:
        return tuple(self._regions(keys=False))

    def _regions(self, keys: bool) -> Iterator[Region]:
        lines = len(self.features)
        for one in self.heads:
            for line, some in enumerate(self.features):
                first = line if keys else line * self.span(one.tokens)
                step = self.pitch * (lines if keys else 1)
                yield Region(
                    one.cache_row, one.tokens, some.start, some.stop - some.start,
                    self.offset(one, first), step, ELEMENT_BYTES,
                )  # fmt: skip

    def depth(self, keys: bool) -> int:
        del keys  # both take as many
        return max(one.first_row + self.rows(one.tokens) for one in self.heads)


def heads_problem(op: Attention, memory: PimDram) -> str:
    """Why groups of banks do not compute an attention; "" if they do."""
    if problem := cache_problem(op, memory):
        return problem
    column = memory.grid.column_elements
    line = GROUP_BANKS * column
    if op.head_dim % column or (op.head_dim > line and op.head_dim != PAIR * line):
        return (
            f"heads of whole columns of {column} elements, up to {line}, or of {PAIR * line}, a"
            f" pair of columns in every bank of a group, not {op.head_dim}"
        )
    return ""
