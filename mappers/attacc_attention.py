"""Attention of a decode batch beside the banks of AttAcc: a head in a channel, softmax below it.

The query of a head goes to the units of its channel, which multiply it with the keys; the scores
come to the buffer die, whose softmax unit of the stack makes weights of them; these go back to the
units, which multiply them with the values, 64 features at a time. Channels work side by side, a
head after the other; the next head's scores are under way while the softmax of the one before runs.

Source: Park et al., AttAcc, ASPLOS 2024, sections 4 and 5, and its published traces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from accelsim.errors import CapacityError
from accelsim.hw.dma import Dma
from accelsim.hw.pim.memory import PimDram
from accelsim.hw.pim.unit import Pim
from accelsim.hw.vector import Vector
from accelsim.mapping.bank_attention import BankAttention, Halves, cache_bytes, lacks_caches
from accelsim.mapping.bank_layouts import Placed, bank_memory, slower_than_reading
from accelsim.mapping.head_places import HeadPlaces, PlacedHead, heads_problem
from accelsim.mapping.lowering import Lowering
from accelsim.mapping.placement import Arena, aligned
from accelsim.mapping.registry import mapper
from accelsim.numerics.formats import number_format, row_bytes
from accelsim.program.opcodes import Function
from accelsim.program.storage import View
from accelsim.workload.operators import Attention

if TYPE_CHECKING:
    from accelsim.arch.model import Architecture

F = Function
FP32 = number_format("fp32")

_Work = tuple[PlacedHead, int]
"""A query head: its key head, and which of those that share it."""


def _declines(op: Attention, arch: Architecture, forced: bool) -> str:
    """Why the banks are not to compute an attention; "" if they are to."""
    memory = bank_memory(arch)
    if problem := heads_problem(op, memory):
        return problem
    clocks = HeadPlaces.of(op, memory).busiest
    return slower_than_reading(arch, clocks, cache_bytes(op, memory), forced)


def _places(op: Attention, arch: Architecture) -> Mapping[str, Placed]:
    """Keys and values in the channels of their heads."""
    return HeadPlaces.of(op, bank_memory(arch)).tensors(op)


@mapper(
    "attacc-attention", lowers=("attention",), needs=(Pim, PimDram, Vector, Dma),
    preference=3, lacks=lacks_caches("heads"), declines=_declines, places=_places,
)  # fmt: skip
def attacc_attention(op: Attention, low: Lowering) -> None:
    """Q K^T and P V by the groups of banks of each head's channel, softmax on the buffer die."""
    _HeadAttention(op, low).emit()


@dataclass(frozen=True)
class _Query:
    """A query head with the buffers that it is in on its way."""

    one: PlacedHead
    member: int  # of the group of query heads that share the key head
    row: int  # of the query and of the result, in those of its turn
    scores: View
    weights: View
    top: View
    total: View


@dataclass(frozen=True)
class _Turn:
    """Query heads that are in work together: in every channel one, of a channel's busiest part."""

    queries: list[_Query]
    results: View


class _HeadAttention(BankAttention[HeadPlaces]):
    def __init__(self, op: Attention, low: Lowering) -> None:
        super().__init__(op, low, HeadPlaces.of(op, bank_memory(low.arch)))
        stacks = self.core.of(Vector)
        self.softmax = [slot for slot, unit in stacks if self.results in unit.memory]
        self.load, self.store = self.core.beside_queues[0], self.core.beside_queues[-1]
        self.halves = Halves(self.whole)

    def emit(self) -> None:
        self.halves.run(self._batches(), self._scores, self._finish)
        places = self.places
        self.build.note(
            f"{len(places.heads)} heads in {len(self.channels)} channels of banks, the busiest"
            f" {places.busiest:,} of {sum(places.loads):,} clocks"
        )

    def _batches(self) -> Iterator[list[_Work]]:
        """Query heads (key head, member of its group) that have room in half of the buffer: a turn
        of all channels, or what fits of it."""
        turns = sorted(self.places.heads, key=lambda one: one.turn)
        for _, heads in groupby(turns, key=lambda one: one.turn):
            some = list(heads)
            for member in range(self.group):
                yield from self._fitting([(one, member) for one in some])

    def _fitting(self, queries: list[_Work]) -> Iterator[list[_Work]]:
        batch: list[_Work] = []
        used = 0
        for one, member in queries:
            size = self._bytes(one.tokens)
            if size > self.halves.capacity:
                raise CapacityError(
                    f"scores of {one.tokens:,} tokens take {size:,} bytes; half of"
                    f" {self.whole.name} has {self.halves.capacity:,}"
                )
            if batch and used + size > self.halves.capacity:
                yield batch
                batch, used = [], 0
            batch.append((one, member))
            used += size
        yield batch

    def _bytes(self, tokens: int) -> int:
        """What the buffers of a query head take."""
        d = self.op.head_dim
        narrow = aligned(row_bytes(2, FP32))
        vectors = aligned(row_bytes(d, self.kept)) + aligned(row_bytes(d, FP32))
        return aligned(row_bytes(tokens, FP32)) + vectors + narrow

    # -- a turn --------------------------------------------------------------------------------

    def _scores(self, batch: list[_Work], chip: Arena) -> _Turn:
        """The queries to the buffer die, and their products with the keys."""
        d, build = self.op.head_dim, self.build
        queries = chip.buffer("queries", len(batch), d, self.kept)
        results = chip.buffer("results", len(batch), d, FP32)
        for first, rows in self._runs(batch):
            source = self.low.window(
                self.op.operand("q") or "", first, rows.stop - rows.start, d, d
            )
            build.load(self.load, queries[rows, :], source)
        found = []
        for row, (one, member) in enumerate(batch):
            scores = chip.buffer("scores", 1, one.tokens, FP32)
            weights = scores.storage.view(1, one.tokens, self.kept)  # in their place
            narrow = chip.buffer("maximum, sum", 1, 2, FP32)
            keys = self.places.keys(self.keys, one, self.kept)
            build.pim(self.channels[one.channel], scores, queries[row : row + 1, :], keys)
            found.append(_Query(one, member, row, scores, weights, narrow[:, 0:1], narrow[:, 1:2]))
        return _Turn(found, results)

    def _runs(self, batch: Sequence[_Work]) -> Iterator[tuple[int, slice]]:
        """First element, and rows of the turn, of queries that are neighbours in the tensor."""
        d, start = self.op.head_dim, 0
        numbers = [self._number(*one) for one in batch]
        for row, number in enumerate(numbers):
            if row + 1 == len(numbers) or numbers[row + 1] != number + 1:
                yield numbers[start] * d, slice(start, row + 1)
                start = row + 1

    def _number(self, one: PlacedHead, member: int) -> int:
        """Of a query head, in all of the batch."""
        return one.sequence * self.op.heads + one.head * self.group + member

    def _finish(self, turn: _Turn) -> None:
        """Softmax and weighted values of a turn, and its results to main memory."""
        self._softmax(turn.queries)
        for query in turn.queries:
            self._weigh(query, turn.results)
        d = self.op.head_dim
        for first, rows in self._runs([(q.one, q.member) for q in turn.queries]):
            out = self.low.window(self.op.output, first, rows.stop - rows.start, d, d)
            self.build.store(self.store, out, turn.results[rows, :])

    def _softmax(self, queries: Sequence[_Query]) -> None:
        """On the softmax units of the stacks: each function for all heads before the next one, so
        that no head waits for its own."""
        build, stacks, scale = self.build, len(self.softmax), self.op.scale
        mine = [(self.softmax[q.one.channel * stacks // len(self.channels)], q) for q in queries]
        for v, q in mine:
            build.vector(v, F.MUL_IMM, q.scores, q.scores, imm=scale)
        for v, q in mine:
            build.vector(v, F.ROW_MAX, q.top, q.scores)
        for v, q in mine:
            build.vector(v, F.EXP_SUB, q.scores, q.scores, q.top)
        for v, q in mine:
            build.vector(v, F.ROW_SUM, q.total, q.scores)
        for v, q in mine:
            build.vector(v, F.RECIPROCAL, q.total, q.total)
        for v, q in mine:
            build.vector(v, F.MUL, q.weights, q.scores, q.total)

    def _weigh(self, query: _Query, results: View) -> None:
        """The weights back to the units, and the values of every line of features."""
        one = query.one
        for line, some in enumerate(self.places.features):
            values = self.places.values(self.values, one, line, self.kept)
            part = results[query.row : query.row + 1, some]
            self.build.pim(
                self.channels[one.channel], part, query.weights, values,
                columns=True, kept=line > 0, part=True,
            )  # fmt: skip
