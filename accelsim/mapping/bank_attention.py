"""Attention of a decode batch in banks that compute: what its caches and mappers have in common.

Families differ in where keys and values lie (``CACHES``); for each there are places and a mapper:
mapping/channel_caches, mapping/bank_caches and mapping/head_places. Everywhere the banks give
scores to a scratchpad, beside which a vector unit makes the softmax, and take its weights back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar

from accelsim.hw.pim.layouts.layout import Layout
from accelsim.hw.pim.memory import PimDram
from accelsim.hw.pim.products.registry import products_of
from accelsim.hw.pim.unit import Pim
from accelsim.mapping.bank_layouts import Placed, address, bank_memory, lacks_banks
from accelsim.numerics.formats import FORMATS, Format
from accelsim.program.table import Region

if TYPE_CHECKING:
    from accelsim.arch.model import Architecture
    from accelsim.mapping.lowering import Lowering
    from accelsim.mapping.placement import Arena
    from accelsim.workload.operators import Attention

CACHES = {
    "channel": "caches of which each lies in one channel",
    "heads": "caches of which each head lies in a channel",
    "channels": "caches that lie over all channels",
}
"""Where keys and values lie, by the kinds of products (hw/pim/products)."""
HALVES = 2
"""Parts of a scratchpad: while one takes scores, the softmax runs in the other."""


def lacks_caches(kind: str) -> Callable[[Architecture], str]:
    """What is missing for attention over caches of a kind; "" if nothing."""

    def lacks(arch: Architecture) -> str:
        if missing := lacks_banks(arch):
            return missing
        return "" if products_of(bank_memory(arch).pim).caches == kind else CACHES[kind]

    return lacks


def cache_problem(op: Attention, memory: PimDram) -> str:
    """Why banks that compute can keep no such keys and values; "" if they can."""
    if not op.cached or op.q_len != 1:
        return "one query per sequence with a cache of keys and values"
    if op.window or op.alibi or op.rope_dim or op.latent or op.page:
        return "a cache that is seen whole and is not paged, without further terms in its scores"
    if op.kv_dtype and FORMATS[op.kv_dtype].bits != memory.grid.bits:
        return f"a cache of {memory.grid.bits}-bit elements"
    return ""


def cache_bytes(op: Attention, memory: PimDram) -> int:
    """Keys and values that an attention reads."""
    return 2 * sum(op.lengths) * op.kv_heads * op.head_dim * memory.grid.bits // 8


# -- places ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Caches(ABC):
    """Where the keys and the values of all sequences of an attention lie.

    ``lengths`` are the tokens of the sequences; ``shared`` query heads have a key head.
    """

    memory: PimDram
    kv_heads: int
    head_dim: int
    shared: int
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, op: Attention, memory: PimDram) -> Self:
        """Those of an operator; layers with equal ones share them, and what was found out."""
        mine = cls(memory, op.kv_heads, op.head_dim, op.heads // op.kv_heads, op.lengths)
        found = _first_of(mine)
        assert isinstance(found, cls)
        return found

    @property
    @abstractmethod
    def key_regions(self) -> tuple[Region, ...]:
        """Regions of the cache of keys, in the order of its rows."""

    @property
    @abstractmethod
    def value_regions(self) -> tuple[Region, ...]:
        """Regions of the cache of values, in the order of its rows."""

    @abstractmethod
    def depth(self, keys: bool) -> int:
        """Rows of all banks that the cache of keys, or of values, takes."""

    def placed(self, keys: bool) -> Placed:
        """The cache of keys, or of values."""
        pitch = self.memory.row_pitch
        regions = self.key_regions if keys else self.value_regions
        return Placed(regions, self.depth(keys) * pitch, pitch, self.memory.grid.bits)

    def tensors(self, op: Attention) -> dict[str, Placed]:
        """Keys and values of an operator, by name."""
        k, v = op.operand("k") or "", op.operand("v") or ""
        return {k: self.placed(True), v: self.placed(False)}


@lru_cache(maxsize=64)
def _first_of(caches: Caches) -> Caches:
    """The first of equal ones, while they are in use."""
    return caches


class Sequence(Protocol):
    """A sequence of a decode batch: its ``tokens``, and where its keys and values lie."""

    @property
    def tokens(self) -> int: ...
    @property
    def keys(self) -> Layout: ...
    @property
    def values(self) -> Layout: ...


S = TypeVar("S", bound=Sequence)


class RowCaches(Caches, Generic[S]):
    """Caches with heads side by side along rows of keys, and tokens along rows of values."""

    @property
    @abstractmethod
    def requests(self) -> tuple[S, ...]:
        """All sequences in their order, with their places."""

    @staticmethod
    def problem(op: Attention, memory: PimDram) -> str:
        """Why banks can keep no such keys and values in rows; "" if they can."""
        if problem := cache_problem(op, memory):
            return problem
        if op.head_dim > memory.grid.row_elements:
            return f"heads of at most {memory.grid.row_elements} elements, a row of a bank"
        spread = products_of(memory.pim).caches == "channels"
        divides = spread or memory.grid.row_elements % op.head_dim == 0
        if not divides or op.head_dim % memory.grid.banks:
            row = "" if spread else f" that divide a row of {memory.grid.row_elements} elements"
            return f"heads of whole turns of {memory.grid.banks} banks{row}, not {op.head_dim}"
        return ""

    @property
    def row_elements(self) -> int:
        return self.memory.grid.row_elements

    @property
    def heads_of_a_row(self) -> int:
        """Key heads side by side in a row."""
        return max(1, self.row_elements // self.head_dim)

    def chunks(self, tokens: int) -> list[slice]:
        """Tokens of a row of values each."""
        size = self.row_elements
        return [slice(t, min(t + size, tokens)) for t in range(0, tokens, size)]

    def address(self, layout: Layout, row: int, col: int) -> int:
        """Bytes from the start of the tensor to an element of a layout."""
        return address(self.memory, layout, row, col)

    def depth(self, keys: bool) -> int:
        return 1 + max((one.keys if keys else one.values).last_row for one in self.requests)

    def tops(self) -> Iterator[tuple[S, int]]:
        """Every sequence with the first row of its 2-D form."""
        starts = accumulate(self.lengths, initial=0)
        return ((one, self.kv_heads * s) for one, s in zip(self.requests, starts, strict=False))


# -- programs --------------------------------------------------------------------------------------

C = TypeVar("C", bound=Caches)
W = TypeVar("W")
T = TypeVar("T")


class BankAttention(Generic[C]):
    """What every attention in banks works with: a queue per channel, the scratchpad of results,
    and the tensors with their places."""

    def __init__(self, op: Attention, low: Lowering, places: C) -> None:
        self.op, self.low, self.build, self.places = op, low, low.build, places
        self.core = low.cores[0]
        units = self.core.of(Pim)
        self.channels, self.results = [slot for slot, _ in units], units[0][1].results
        self.whole = self.core.arenas[self.results]
        self.keys = low.tensors[op.operand("k") or ""]
        self.values = low.tensors[op.operand("v") or ""]
        self.fmt: Format = low.format(op.operand("q") or "")
        self.kept: Format = low.format(op.operand("k") or "")
        self.group = places.shared


class Halves:
    """A scratchpad in two parts, in which steps are by turns."""

    def __init__(self, whole: Arena) -> None:
        self.whole, self.parts = whole, whole.split(HALVES)

    @property
    def capacity(self) -> int:
        """Bytes of a half."""
        return self.parts[0].capacity

    def run(
        self, work: Iterable[W], begin: Callable[[W, Arena], T], finish: Callable[[T], None]
    ) -> None:
        """Begin a step in a half, then finish the one before, which is in the other."""
        waiting: list[T] = []
        for number, one in enumerate(work):
            part = self.parts[number % HALVES]
            part.reset()
            waiting.append(begin(one, part))
            if len(waiting) == HALVES:
                finish(waiting.pop(0))
        for step in waiting:
            finish(step)
        self.whole.rejoin(self.parts)
