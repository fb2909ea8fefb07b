"""Softmax as a GPU kernel: rows of up to 1024 columns stay in registers, longer are read thrice.

That is PyTorch's: the warp softmax, and the block softmax with its passes for the maximum, the sum
and the result (aten/src/ATen/native/cuda/PersistentSoftmax.cuh, SoftMax.cu).
"""

from __future__ import annotations

from collections.abc import Callable

from accelsim.mapping.attention.gathered import Plain
from accelsim.mapping.attention.stretches import Stretches
from accelsim.mapping.lowering import Lowering
from accelsim.mapping.simt_rows import (
    FP32,
    Step,
    Threads,
    cut,
    piece_width,
    shares,
    tile_height,
)
from accelsim.program.opcodes import Function
from accelsim.program.storage import View

F = Function

CTAS = 2
"""Rows that a multiprocessor works on at once: CTAs of 1024 of its 2048 threads."""
IN_REGISTERS = 1024
"""Columns of a row that PyTorch's warp softmax keeps in registers."""


def softmax_kernel(
    low: Lowering, x: Stretches, out: Stretches, scores: Plain | None = None
) -> None:
    """Softmax of the rows of ``x``, which as ``scores`` are scaled, biased and masked before."""
    low.launch()
    threads: dict[int, tuple[Threads, _Softmax]] = {}
    for core, rows in shares(low, x.rows, _period(scores)):
        if core.index not in threads:
            t = Threads(low, core)
            threads[core.index] = t, _Softmax(t, x, out, scores)
        t, kernel = threads[core.index]
        t.run([step for tile in cut(rows, kernel.height) for step in kernel.steps(tile)])


def _bias(scores: Plain, rows: slice) -> View:
    """The bias of these rows: one row, or a row for each of several heads."""
    q_len = scores.op.q_len
    if q_len == 1:
        return scores.bias(rows)
    head = rows.start - rows.start % q_len
    return scores.bias(slice(head, head + q_len))


def _period(scores: Plain | None) -> int:
    """Rows that a tile must not cross: of a head if they differ in more than their values."""
    if scores is None or not (scores.op.masked or scores.op.alibi or scores.op.contexts):
        return 0
    op = scores.op
    return op.q_len if op.q_len > 1 else op.heads


class _Softmax:
    """The softmax kernel of one multiprocessor: its buffers and the steps of a tile."""

    def __init__(self, t: Threads, x: Stretches, out: Stretches, scores: Plain | None) -> None:
        self.t, self.x, self.out, self.scores = t, x, out, scores
        biased = scores is not None and scores.op.alibi
        element = 2 * x.fmt.bits // 8 + 2 * out.fmt.bits // 8 + 4 + 8 * biased
        share = -(-x.rows // len(t.low.cores))
        rows = min(share, _period(scores) or share)
        resident = min(rows, CTAS)
        self.width = piece_width(x.cols, resident * element, t.free)
        self.height = tile_height(rows, self.width, element * self.width + 64, t.free, resident)
        self.read = t.ring("x", self.height, self.width, x.fmt)
        self.wide = t.ring("e", self.height, self.width, FP32, 1)
        self.result = t.ring("y", self.height, self.width, out.fmt)
        if biased:
            self.bias = t.ring("bias", self.height, self.width, FP32)
        self.narrow = {n: t.ring(n, self.height, 1, FP32) for n in ("top", "total", "part")}

    def steps(self, rows: slice) -> list[Step]:
        """Maximum, sum and result of a tile of rows, each over all pieces of the rows."""
        h = rows.stop - rows.start
        top, total = (self.narrow[n].next()[:h, :] for n in ("top", "total"))
        x = self.x.of(rows)
        cols = x.cols
        # One descriptor for all reads of a piece.
        pieces = [(c, x[:, c]) for c in cut(slice(0, cols), self.width)]
        if cols <= IN_REGISTERS:
            return [self._step(rows, pieces[0], lambda e, c: self._whole(e, c, rows, top, total))]
        passes: list[Callable[[View, slice], None]] = [
            lambda e, c: self._reduce(F.ROW_MAX, F.MAX, e, top, c),
            lambda e, c: self._sum(e, top, total, c, last=c.stop == cols),
            lambda e, c: self._divide(e, rows, c, top, total),
        ]
        return [self._step(rows, piece, work) for work in passes for piece in pieces]

    def _step(
        self, rows: slice, piece: tuple[slice, View], work: Callable[[View, slice], None]
    ) -> Step:
        cols, source = piece

        def scaled(tiles: list[View]) -> None:
            x, *bias = tiles
            e = self.wide.next()[: x.rows, : x.cols]
            if self.scores is not None:
                x = self._score(self.scores, e, x, bias, rows, cols)
            self.source = x
            work(e, cols)

        loads = [(self.read, source, False)]
        if self.scores is not None and self.scores.op.alibi:
            loads.append((self.bias, _bias(self.scores, rows)[:, cols], False))
        return Step(loads, scaled)

    def _score(
        self, scores: Plain, e: View, x: View, bias: list[View], rows: slice, cols: slice
    ) -> View:
        """A piece of scores as the softmax takes them; ``x`` itself if nothing is to be done."""
        op = scores.op
        if op.scale != 1.0:
            x = self.t.do(F.MUL_IMM, e, x, imm=op.scale)
        for term in bias:
            x = self.t.do(F.ADD, e, x, term)
        # Masks count columns from the piece's first.
        position = scores.kv_len - op.q_len + rows.start % op.q_len - cols.start
        if op.masked:
            x = self.t.do(F.CAUSAL_MASK, e, x, imm=position)
        if op.masked and op.window:
            x = self.t.do(F.WINDOW_MASK, e, x, imm=position + 1 - op.window)
        return x

    def _reduce(self, fold: Function, join: Function, e: View, total: View, cols: slice) -> None:
        """Fold a piece of the rows onto their running result."""
        source = self.source if fold is F.ROW_MAX else e
        if cols.start == 0:
            self.t.do(fold, total, source)
            return
        part = self.t.do(fold, self.narrow["part"].next()[: e.rows, :], source)
        self.t.do(join, total, total, part)

    def _exponent(self, e: View, top: View) -> View:
        self.t.do(F.SUB, e, self.source, top)
        return self.t.do(F.EXP, e, e)

    def _sum(self, e: View, top: View, total: View, cols: slice, *, last: bool) -> None:
        self._reduce(F.ROW_SUM, F.ADD, self._exponent(e, top), total, cols)
        if last:
            self.t.do(F.RECIPROCAL, total, total)

    def _divide(self, e: View, rows: slice, cols: slice, top: View, total: View) -> None:
        self._store(self._exponent(e, top), rows, cols, total)

    def _whole(self, e: View, cols: slice, rows: slice, top: View, total: View) -> None:
        self._reduce(F.ROW_MAX, F.MAX, e, top, cols)
        self._sum(e, top, total, cols, last=True)
        self._store(e, rows, cols, total)

    def _store(self, e: View, rows: slice, cols: slice, total: View) -> None:
        y = self.t.do(F.MUL, self.result.next()[: e.rows, : e.cols], e, total)
        self.t.store(self.out.of(rows)[:, cols], y)
