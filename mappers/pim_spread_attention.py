"""Attention of a decode batch where all channels of banks share every request (PIM-GPT, AiM).

The query comes over the pins into the buffer of every channel; each multiplies its tokens' keys
with it, the heads of a row side by side. The scores come to the scratchpad, where exponentials are
made head by head; a head's go to the channels that have its features, which multiply them with the
values. Sums are divided at the end.

Source: Wu et al., PIM-GPT, npj Unconventional Computing 2024 (heads side by side, keys row by row,
values column by column, softmax on the ASIC).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import frexp
from typing import TYPE_CHECKING

from accelsim.errors import CapacityError
from accelsim.hw.dma import Dma
from accelsim.hw.pim.memory import PimDram
from accelsim.hw.pim.unit import Pim
from accelsim.hw.vector import Vector
from accelsim.mapping.bank_attention import BankAttention, Halves, cache_bytes, lacks_caches
from accelsim.mapping.bank_caches import Kept, SpreadCaches
from accelsim.mapping.bank_layouts import Placed, bank_memory, slower_than_reading
from accelsim.mapping.lowering import Lowering
from accelsim.mapping.placement import Arena, aligned
from accelsim.mapping.registry import mapper
from accelsim.numerics.formats import number_format, row_bytes
from accelsim.numerics.orders import order_of
from accelsim.program.opcodes import Function
from accelsim.program.storage import View
from accelsim.workload.operators import Attention

if TYPE_CHECKING:
    from accelsim.arch.model import Architecture

F = Function
FP32 = number_format("fp32")

_Work = tuple[Kept, slice, int]
"""Heads of a request, and which of the queries of every key head."""


def _declines(op: Attention, arch: Architecture, forced: bool) -> str:
    """Why the banks are not to compute an attention; "" if they are to."""
    memory = bank_memory(arch)
    if problem := SpreadCaches.problem(op, memory):
        return problem
    clocks = SpreadCaches.of(op, memory).cycles
    return slower_than_reading(arch, clocks, cache_bytes(op, memory), forced)


def _places(op: Attention, arch: Architecture) -> Mapping[str, Placed]:
    """Keys and values over all channels."""
    return SpreadCaches.of(op, bank_memory(arch)).tensors(op)


@mapper(
    "pim-spread-attention", lowers=("attention",), needs=(Pim, PimDram, Vector, Dma),
    preference=2, lacks=lacks_caches("channels"), declines=_declines, places=_places,
)  # fmt: skip
def pim_spread_attention(op: Attention, low: Lowering) -> None:
    """Q K^T and P V by the banks of all channels, softmax on the vector unit beside."""
    _Spread(op, low).emit()


@dataclass(frozen=True)
class _Step:
    """Some heads of a request, of one row of keys, with one query each, and their buffers.

    ``member`` numbers the queries of a key head; rows of the buffers are heads.
    """

    one: Kept
    heads: slice
    member: int
    query: View
    scores: View
    weights: list[View]  # [1, tokens] of each head
    narrow: tuple[View, View]
    sums: list[View]  # [heads, head_dim] for each range of tokens


class _Spread(BankAttention[SpreadCaches]):
    def __init__(self, op: Attention, low: Lowering) -> None:
        super().__init__(op, low, SpreadCaches.of(op, bank_memory(low.arch)))
        self.vector = self.core.vector(self.results)[0]
        self.load, self.store = self.core.beside_queues[0], self.core.beside_queues[-1]
        self.halves = Halves(self.whole)
        # A power of two changes no bits of the query; another factor has to wait for the scores.
        self.early = frexp(op.scale)[0] == 0.5

    def emit(self) -> None:
        chunks = len(self.places.chunks(self.op.kv_len))
        if chunks > 1:
            self.build.reduce(order_of(f"split:{chunks}:{self.places.row_elements}"))
        self.halves.run(self._steps(), self._scores, self._finish)
        self.build.note(
            f"{len(self.places.requests)} requests over {len(self.channels)} channels of banks,"
            f" {self.places.cycles:,} clocks of products"
        )

    def _steps(self) -> Iterator[_Work]:
        """Heads of a row of keys, as many as have room at once."""
        of_a_row, kv_heads = self.places.heads_of_a_row, self.op.kv_heads
        for one in self.places.requests:
            most = min(of_a_row, self.halves.capacity // self._bytes(one.tokens))
            if most < 1:
                raise CapacityError(
                    f"scores of {one.tokens:,} tokens do not fit into {self.whole.name} twice"
                )
            for row in range(0, kv_heads, of_a_row):
                last = min(row + of_a_row, kv_heads)
                for first in range(row, last, most):
                    for member in range(self.group):
                        yield one, slice(first, min(first + most, last)), member

    def _bytes(self, tokens: int) -> int:
        """What the buffers of a head take, with the room that they may lose by alignment."""
        d, chunks = self.op.head_dim, len(self.places.chunks(tokens))
        found = [row_bytes(d, self.kept), row_bytes(tokens, FP32), row_bytes(tokens, self.kept)]
        found += [row_bytes(1, FP32)] * 2 + [row_bytes(d, FP32)] * chunks
        return sum(aligned(nbytes) for nbytes in found)

    def _scores(self, work: _Work, chip: Arena) -> _Step:
        """The query to all channels, the scores of all tokens to the scratchpad."""
        one, heads, member = work
        d, count = self.op.head_dim, heads.stop - heads.start
        query = chip.buffer("query", 1, count * d, self.kept)  # banks multiply what is alike
        first = (one.number * self.op.heads + heads.start * self.group + member) * d
        source = self.low.window(self.op.operand("q") or "", first, count, d, d * self.group)
        lines = query.storage.view(count, d, self.kept)
        self.build.load(self.load, lines, source)
        if self.early and self.op.scale != 1:
            self.build.vector(self.vector, F.MUL_IMM, query, query, imm=self.op.scale)
        step = _Step(
            one, heads, member, query,
            chip.buffer("scores", count, one.tokens, FP32),
            [chip.buffer("weights", 1, one.tokens, self.kept) for _ in range(count)],
            (chip.buffer("maximum", count, 1, FP32), chip.buffer("sum", count, 1, FP32)),
            [chip.buffer("values", count, d, FP32) for _ in self.places.chunks(one.tokens)],
        )  # fmt: skip
        met: set[int] = set()
        for run in self.places.runs(slice(0, one.tokens)):
            keys = self.places.keys(self.keys, one, run, heads, self.kept)
            self.build.pim(
                self.channels[run.channel], step.scores[:, run.rows], query, keys,
                abreast=True, kept=run.channel in met, part=True,
            )  # fmt: skip
            met.add(run.channel)
        return step

    def _finish(self, step: _Step) -> None:
        """Exponentials and weighted values head by head, then the results."""
        x, (top, total), build, v = step.scores, step.narrow, self.build, self.vector
        if not self.early:
            build.vector(v, F.MUL_IMM, x, x, imm=self.op.scale)
        build.vector(v, F.ROW_MAX, top, x)
        for head in range(x.rows + 1):
            mine, before = slice(head, head + 1), slice(head - 1, head)
            if head < x.rows:
                build.vector(v, F.EXP_SUB, step.weights[head], x[mine, :], top[mine, :])
                self._weigh(step, head)
            if head:  # those of the head before have left the pipeline
                build.vector(v, F.ROW_SUM, total[before, :], step.weights[head - 1])
        build.vector(v, F.RECIPROCAL, total, total)
        self._result(step)

    def _weigh(self, step: _Step, head: int) -> None:
        """A head's exponentials to its channels, and their products with its values."""
        d, one = self.op.head_dim, step.one
        first = (step.heads.start + head) * d
        for part, sums in zip(self.places.chunks(one.tokens), step.sums, strict=True):
            weights, met = step.weights[head][:, part], set[int]()
            for run in self.places.runs(slice(first, first + d)):
                values = self.places.values(self.values, one, run, part, self.kept)
                columns = slice(run.rows.start - first, run.rows.stop - first)
                self.build.pim(
                    self.channels[run.channel], sums[head : head + 1, columns], weights, values,
                    kept=run.channel in met, part=True,
                )  # fmt: skip
                met.add(run.channel)

    def _result(self, step: _Step) -> None:
        """The sums of all ranges of tokens added up, divided, and stored."""
        d, (_, factor) = self.op.head_dim, step.narrow
        total, *more = step.sums
        for part in more:
            self.build.vector(self.vector, F.ADD, total, total, part)
        self.build.vector(self.vector, F.MUL, total, total, factor)
        head = step.heads.start * self.group + step.member
        first = (step.one.number * self.op.heads + head) * d
        out = self.low.window(self.op.output, first, total.rows, d, self.group * d)
        self.build.store(self.store, out, total)
