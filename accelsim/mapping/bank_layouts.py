"""Tensors in banks that compute: keys and values of a decode batch, request by request.

A request lies in one channel. Its keys have a token in every bank, the heads side by side along the
rows; its values a feature in every bank, the tokens along the rows (hw/pim/layouts/families). The
requests of a channel lie one behind the other; which request goes to which channel is decided by
how long its attention takes there (mapping/balance).

The regions say where every element lies, so that whoever appends a token writes it to its place:
a key to one run of a row, the features of a value to as many banks.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

from accelsim.errors import AccelsimError
from accelsim.hw.pim.cost import product_cost
from accelsim.hw.pim.layouts.families import Heads
from accelsim.hw.pim.layouts.layout import Layout
from accelsim.hw.pim.memory import PimDram
from accelsim.hw.pim.products.product import Sweep
from accelsim.hw.pim.products.registry import products_of
from accelsim.hw.pim.unit import Pim
from accelsim.hw.vector import Vector
from accelsim.mapping.balance import balanced, in_turns
from accelsim.numerics.formats import FORMATS, Format
from accelsim.program.opcodes import Opcode
from accelsim.program.storage import Piece, View
from accelsim.program.table import Region

if TYPE_CHECKING:
    from accelsim.arch.model import Architecture
    from accelsim.program.storage import Storage
    from accelsim.workload.operators import Attention

ELEMENT_BYTES = 2


@dataclass(frozen=True)
class Placed:
    """A tensor that lies in banks: its regions, whole rows of all banks, elements of ``bits``."""

    regions: tuple[Region, ...]
    nbytes: int
    boundary: int
    bits: int

    @property
    def in_columns(self) -> bool:
        """Whether any row is found where every region has its columns of all rows: a gather knows
        which row only when it runs."""
        return all(one.row == 0 and one.col_step == ELEMENT_BYTES for one in self.regions)


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


def bank_memory(arch: Architecture) -> PimDram:
    """The main memory of an architecture whose banks compute."""
    memory = arch.main_memory()[1]
    assert isinstance(memory, PimDram)
    return memory


def lacks_banks(arch: Architecture) -> str:
    """What is missing for products in the banks of main memory; "" if nothing."""
    units = list(arch.units_of(Pim).values())
    if not isinstance(arch.main_memory()[1], PimDram) or not units:
        return "a main memory of kind: pim_dram and a unit of kind: pim"
    if any(unit.results in v.memory for v in arch.units_of(Vector).values() for unit in units):
        return ""
    return f"a vector unit that works on {units[0].results}"


CACHES = {
    "channel": "caches of which each lies in one channel",
    "heads": "caches of which each head lies in a channel",
    "channels": "caches that lie over all channels",
}
"""Where keys and values lie, by the kinds of products (hw/pim/products)."""


def lacks_caches(kind: str) -> Callable[[Architecture], str]:
    """What is missing for attention over caches of a kind; "" if nothing."""

    def lacks(arch: Architecture) -> str:
        if missing := lacks_banks(arch):
            return missing
        return "" if products_of(bank_memory(arch).pim).caches == kind else CACHES[kind]

    return lacks


def only_banks(arch: Architecture) -> bool:
    """Whether nothing else multiplies matrices, so that banks have to, however slowly."""
    return not any(Opcode.MATMUL in unit.opcodes for unit in arch.units.values())


def address(memory: PimDram, layout: Layout, row: int, col: int) -> int:
    """Bytes from row 0 of all banks to an element of a layout."""
    return memory.address(layout.place(row, col))


@dataclass(frozen=True)
class CachePlaces:
    """Where the keys and the values of all sequences of an attention lie."""

    memory: PimDram
    kv_heads: int
    head_dim: int
    shared: int
    lengths: tuple[int, ...]

    @property
    def row_elements(self) -> int:
        return self.memory.grid.row_elements

    @property
    def heads_of_a_row(self) -> int:
        """Key heads side by side in a row."""
        return max(1, self.row_elements // self.head_dim)

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

    def address(self, layout: Layout, row: int, col: int) -> int:
        """Bytes from the start of the tensor to an element of a layout."""
        return address(self.memory, layout, row, col)

    @cached_property
    def key_regions(self) -> tuple[Region, ...]:
        """Regions of the cache of keys, in the order of its rows."""
        d, step, found = self.head_dim, self.memory.bank_pitch, []
        for one, row in self._rows():
            for head in range(self.kv_heads):
                offset = self.address(one.keys, 0, head * d)
                first = row + head * one.tokens
                found.append(Region(first, one.tokens, 0, d, offset, step, ELEMENT_BYTES))
        return tuple(found)

    @cached_property
    def value_regions(self) -> tuple[Region, ...]:
        """Regions of the cache of values, in the order of its rows."""
        d, step, size = self.head_dim, self.memory.bank_pitch, self.row_elements
        found = []
        for one, row in self._rows():
            for head in range(self.kv_heads):
                for first in range(0, one.tokens, size):
                    offset = self.address(one.values, head * d, first)
                    top = row + head * one.tokens + first
                    some = min(size, one.tokens - first)
                    found.append(Region(top, some, 0, d, offset, ELEMENT_BYTES, step))
        return tuple(found)

    def _rows(self) -> Iterable[tuple[Request, int]]:
        """Every sequence with the first row of its 2-D form."""
        starts = accumulate(self.lengths, initial=0)
        return zip(self.requests, (self.kv_heads * s for s in starts), strict=False)

    def placed(self, keys: bool) -> Placed:
        """The cache of keys, or of values."""
        layouts = [one.keys if keys else one.values for one in self.requests]
        rows = 1 + max(layout.last_row for layout in layouts)
        pitch = self.memory.row_pitch
        regions = self.key_regions if keys else self.value_regions
        return Placed(regions, rows * pitch, pitch, self.memory.grid.bits)

    def keys(self, cache: Storage, one: Request, heads: slice, fmt: Format) -> View:
        """Keys [tokens, heads side by side] of a sequence: heads of one row."""
        d = self.head_dim
        return cache.view(
            one.tokens, (heads.stop - heads.start) * d, fmt,
            offset=self.address(one.keys, 0, heads.start * d), stride=self.memory.bank_pitch,
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


@cache
def _places(
    memory: PimDram, kv_heads: int, head_dim: int, shared: int, lengths: tuple[int, ...]
) -> CachePlaces:
    return CachePlaces(memory, kv_heads, head_dim, shared, lengths)


def cache_places(op: Attention, memory: PimDram) -> CachePlaces:
    """The places of an attention's caches; layers with equal ones share them."""
    return _places(memory, op.kv_heads, op.head_dim, op.heads // op.kv_heads, op.lengths)


def attention_problem(op: Attention, memory: PimDram) -> str:
    """Why the banks of a memory do not compute an attention; "" if they do."""
    if not op.cached or op.q_len != 1:
        return "one query per sequence with a cache of keys and values"
    if op.window or op.alibi or op.rope_dim or op.latent or op.page:
        return "a cache that is seen whole and is not paged, without further terms in its scores"
    if op.kv_dtype and FORMATS[op.kv_dtype].bits != memory.grid.bits:
        return f"a cache of {memory.grid.bits}-bit elements"
    if op.head_dim > memory.grid.row_elements:
        return f"heads of at most {memory.grid.row_elements} elements, a row of a bank"
    spread = products_of(memory.pim).caches == "channels"
    divides = spread or memory.grid.row_elements % op.head_dim == 0
    if not divides or op.head_dim % memory.grid.banks:
        row = "" if spread else f" that divide a row of {memory.grid.row_elements} elements"
        return f"heads of whole turns of {memory.grid.banks} banks{row}, not {op.head_dim}"
    return ""


def region_pieces(window: View, regions: Sequence[Region], columns: int) -> list[Piece]:
    """Where a window of the row-major form of a tensor in regions lies; these are sorted."""
    element = window.fmt.bits // 8
    row, col = divmod((window.base - window.storage.base) // element, columns)
    if window.rows > 1 and window.stride != columns * element:
        raise AccelsimError(f"{window.storage.name} lies in banks: a window of another form")
    at = bisect_right(regions, row, key=lambda one: one.row) - 1
    at = bisect_left(regions, regions[at].row, key=lambda one: one.row)
    found: list[Piece] = []
    while at < len(regions) and regions[at].row < row + window.rows:
        one = regions[at]
        rows = slice(max(row, one.row), min(row + window.rows, one.row + one.rows))
        cols = slice(max(col, one.col), min(col + window.cols, one.col + one.cols))
        if rows.start < rows.stop and cols.start < cols.stop:
            found += _lines(window, one, rows, cols, row, col)
        at += 1
    return found


def _lines(window: View, one: Region, rows: slice, cols: slice, row: int, col: int) -> list[Piece]:
    """Pieces of a window in one region: one, or one per row where its elements lie apart."""
    storage, fmt, width = window.storage, window.fmt, cols.stop - cols.start
    across = slice(cols.start - col, cols.stop - col)
    offset = one.offset + (rows.start - one.row) * one.row_step
    offset += (cols.start - one.col) * one.col_step
    if one.col_step == fmt.bits // 8:
        count = rows.stop - rows.start
        view = storage.view(count, width, fmt, offset=offset, stride=one.row_step)
        return [(slice(rows.start - row, rows.stop - row), across, view)]
    return [
        (
            slice(r - row, r - row + 1),
            across,
            storage.view(
                width, 1, fmt,
                offset=offset + (r - rows.start) * one.row_step, stride=one.col_step,
            ),
        )
        for r in range(rows.start, rows.stop)
    ]  # fmt: skip
