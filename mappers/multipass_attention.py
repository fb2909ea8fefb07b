"""Attention in three passes over a score matrix in main memory: a pass ends at every reduction,
and what surrounds the softmax is fused into it (see multipass_rows).

    scores = scale Q K^T and the largest of every row | sums of exp(score - max) |
    exp(score - max) / sum, multiplied with V as it is made

The scores are written once and read twice, in fp32. A row tile of the first and the last pass
belongs to one array; the arrays take turns.
"""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.errors import AccelsimError, CapacityError
from accelsim.hw.dma import Dma
from accelsim.hw.systolic import Systolic
from accelsim.hw.vector import Vector
from accelsim.mapping.attention.gathered import Plain
from accelsim.mapping.attention.heads import head_groups, outputs
from accelsim.mapping.attention.masks import masks
from accelsim.mapping.attention.stretches import Stretches
from accelsim.mapping.lowering import Core, Lowering, Ring
from accelsim.mapping.placement import ALIGNMENT, readable
from accelsim.mapping.products import steps
from accelsim.mapping.registry import mapper
from accelsim.mapping.rowwise import FP32
from accelsim.numerics.formats import Format, row_bytes
from accelsim.program.opcodes import Function
from accelsim.program.storage import View
from accelsim.workload.operators import Attention

from .multipass_rows import exponential_sums

F = Function
EVERYTHING = slice(None)
# Tiles in flight per array: one is computed while the other is moved.
DEPTH = 2
# A row tile streams this often the rows of the array, so that turning to other keys shows little.
STREAMS = 2


@mapper("multipass-attention", lowers=("attention",), needs=(Systolic, Vector, Dma), preference=-1)
def multipass_attention(op: Attention, low: Lowering) -> None:
    """Scores with row maxima, sums of exponentials, and the product with V, a pass each."""
    rows = op.batch * op.heads * op.q_len
    groups, plain = head_groups(op), Plain(op, low)
    scores = plain.scores("scores", FP32)
    top = low.scratch(f"{op.name}.max", rows, 1, FP32)
    total = low.scratch(f"{op.name}.sum", rows, 1, FP32)
    for core, mine in _shares(low, groups):
        _Scores(low, core, op, plain).emit(mine, scores, top)
    for some, score in scores:
        exponential_sums(low, score, top[some, :], total[some, :])
    for core, mine in _shares(low, groups):
        _Values(low, core, op, plain).emit(mine, scores, top, total)


def _shares(low: Lowering, groups: list[slice]) -> list[tuple[Core, list[slice]]]:
    """Groups of score rows, dealt to the cores."""
    cores = low.cores
    return [(core, mine) for i, core in enumerate(cores) if (mine := groups[i :: len(cores)])]


@dataclass
class _Pass:
    """One pass on one core: its units, and tiles of ``height`` score rows by ``width`` keys."""

    low: Lowering
    core: Core
    op: Attention
    plain: Plain

    def __post_init__(self) -> None:
        self.build = self.low.build
        self.core.reset()
        self.array = self.core.arrays[0][1]
        self.memory = self.array.outputs
        self.vector, unit = self.core.vector(self.memory)
        if {*self.array.memories()} != {self.memory} or self.memory not in unit.memory:
            raise AccelsimError(
                "multipass-attention needs one scratchpad that the arrays and the vector unit"
                f" share, not {', '.join(dict.fromkeys(self.array.memories()))}"
            )
        self.slots = DEPTH * len(self.core.arrays)
        self.fmt = self.low.format(self.op.inputs[0])
        self.depth = self.op.head_dim + self.op.rope_dim
        self.group = self.op.q_len if self.op.q_len > 1 else self.op.heads // self.op.kv_heads
        self.height, self.width = self._tile()
        self.low.build.note(f"tiles of {self.height} x {self.width} scores")

    def _tile(self) -> tuple[int, int]:
        """The most keys, then the most rows up to a useful number, that fit with all buffers."""
        op, free = self.op, self.core.arenas[self.memory].free - 16 * self.slots * ALIGNMENT
        fixed = self.slots * row_bytes(self.depth, self.fmt)  # a key
        bias = self.slots * 4 * op.alibi  # for each row one, or one for all
        per_row = self.slots * (row_bytes(self.depth, self.fmt) + 4 * op.head_dim + 16)
        most = min(self.group, STREAMS * self.array.rows)
        width = self.plain.kv_len
        while width >= 1:
            row = per_row + (self.slots * self._score_bytes() + bias) * width
            height = (free - fixed * width) // row
            if height >= min(most, self.array.rows) or (width == 1 and height >= 1):
                return int(min(height, most)), width
            width = width // 2
        raise CapacityError(
            f"one score with its key, query and result does not fit into {self.memory}"
            f" ({readable(self.core.arenas[self.memory].capacity)})"
        )

    def _score_bytes(self) -> int:
        """Scratchpad bytes per score of a tile: fp32 values and what is made of them."""
        return 8 + row_bytes(8, self.fmt) // 8

    def ring(self, name: str, rows: int, cols: int, fmt: Format) -> Ring:
        return self.core.ring(self.memory, name, rows, cols, fmt, self.slots)

    def load(self, ring: Ring, source: View) -> View:
        tile = ring.next()[: source.rows, : source.cols]
        self.build.load(self.core.load_queues[0], tile, source)
        return tile

    def store(self, target: View, tile: View) -> None:
        self.build.store(self.core.store_queue, target, tile)

    def slot(self, turn: int) -> int:
        """The array whose turn it is."""
        return self.core.arrays[turn % len(self.core.arrays)][0]


class _Scores(_Pass):
    """scale Q K^T, masked, and the largest score of every row."""

    def emit(self, groups: list[slice], scores: Stretches, top: View) -> None:
        op = self.op
        q = self.ring("q", self.height, self.depth, self.fmt)
        k = self.ring("k", self.width, self.depth, self.fmt)
        if op.alibi:
            self.bias = self.ring("bias", 1 if op.q_len > 1 else self.height, self.width, FP32)
        s = self.ring("s", self.height, self.width, FP32)
        high = self.ring("max", self.height, 1, FP32)
        part = self.ring("part", self.height, 1, FP32)
        turn = 0
        for group in groups:
            keys, rows = self.plain.keys(group), self.plain.queries(group)
            width = self.plain.width(group)
            kept: View | None = None
            for tile in steps(rows.rows, self.height):
                query = self.load(q, rows[tile, :])
                best = high.next()[: query.rows, :]
                for columns in steps(width, self.width):
                    if kept is None or self.width < width:
                        kept = self.load(k, keys[columns, :])
                    score = s.next()[: query.rows, : kept.rows]
                    self.build.matmul(
                        self.slot(turn), score, query, kept, accumulate=False, transpose_b=True
                    )
                    self._finish(score, group, tile, columns)
                    larger = best if columns.start == 0 else part.next()[: query.rows, :]
                    self.build.vector(self.vector, F.ROW_MAX, larger, score)
                    if larger is not best:
                        self.build.vector(self.vector, F.MAX, best, best, larger)
                    self.store(scores.of(_within(group, tile))[:, columns], score)
                    turn += 1
                self.store(top[_within(group, tile), :], best)

    def _finish(self, score: View, group: slice, tile: slice, columns: slice) -> None:
        op, vector = self.op, self.vector
        self.build.vector(vector, F.MUL_IMM, score, score, imm=op.scale)
        if op.alibi:
            rows = self.plain.bias(group)
            part = rows[:, columns] if rows.rows == 1 else rows[tile, columns]
            self.build.vector(vector, F.ADD, score, score, self.load(self.bias, part))
        position = self.plain.kv_len - op.q_len + tile.start
        for mask in masks(op, position, score.rows, columns.start, score.cols):
            corner = score[EVERYTHING, mask.cols]
            self.build.vector(vector, mask.function, corner, corner, imm=mask.imm)


class _Values(_Pass):
    """exp(score - max) / sum, multiplied with V as it is made."""

    def emit(self, groups: list[slice], scores: Stretches, top: View, total: View) -> None:
        op = self.op
        s = self.ring("s", self.height, self.width, FP32)
        p = self.ring("p", self.height, self.width, self.fmt)
        v = self.ring("v", self.width, op.head_dim, self.fmt)
        high, sums = (self.ring(name, self.height, 1, FP32) for name in ("max", "sum"))
        inverse = self.ring("inverse", self.height, 1, FP32)
        acc = self.ring("out", self.height, op.head_dim, FP32)
        turn = 0
        for group in groups:
            values, out = self.plain.values(group), outputs(op, self.low, group)
            width = self.plain.width(group)
            kept: View | None = None
            for tile in steps(out.rows, self.height):
                rows = _within(group, tile)
                best, divisor = self.load(high, top[rows, :]), self.load(sums, total[rows, :])
                factor = inverse.next()[: best.rows, :]
                self.build.vector(self.vector, F.RECIPROCAL, factor, divisor)
                result = acc.next()[: best.rows, :]
                for columns in steps(width, self.width):
                    if kept is None or self.width < width:
                        kept = self.load(v, values[columns, :])
                    score = self.load(s, scores.of(rows)[:, columns])
                    weight = p.next()[: score.rows, : score.cols]
                    self.build.vector(self.vector, F.SUB, score, score, best)
                    self.build.vector(self.vector, F.EXP, score, score)
                    self.build.vector(self.vector, F.MUL, weight, score, factor)
                    self.build.matmul(
                        self.slot(turn), result, weight, kept, accumulate=columns.start > 0
                    )
                self.store(out[tile, EVERYTHING], result)
                turn += 1


def _within(group: slice, tile: slice) -> slice:
    """Rows of a tile of a group, in the whole score matrix."""
    return slice(group.start + tile.start, group.start + tile.stop)
