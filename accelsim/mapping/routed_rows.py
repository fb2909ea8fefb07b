"""Rows of a mixture of experts on the lanes of a core: the gate's weights, the weighted sums.

Vector units and the threads of multiprocessors run the same instructions; they differ in how the
rows are dealt to the cores and in which unit executes (``Lanes``). Rows that a list of places names
are gathered from main memory, one transfer for each choice of a tile of tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from accelsim.mapping.lowering import Core, Lowering
from accelsim.mapping.simt_rows import FP32, cut, piece_width, shares, tile_height
from accelsim.numerics.formats import row_bytes
from accelsim.program.opcodes import Function
from accelsim.program.storage import View
from accelsim.workload.operators import ExpertCombine, ExpertGate

F = Function


@dataclass(frozen=True)
class Lanes:
    """A unit of a core that computes on rows, and the scratchpad in which it does."""

    low: Lowering
    core: Core
    slot: int
    memory: str

    @property
    def free(self) -> int:
        """Bytes of the scratchpad that are left."""
        return self.core.arenas[self.memory].free

    def do(
        self, function: Function, dst: View, a: View, b: View | None = None, imm: float = 0.0
    ) -> View:
        """One instruction; returns its result."""
        self.low.build.vector(self.slot, function, dst, a, b, imm)
        return dst

    def load(self, dst: View, src: View) -> View:
        """Bring a window on chip; returns where."""
        self.low.build.load(self.core.load_queues[0], dst, src)
        return dst

    def gather(self, dst: View, table: View, ids: View) -> View:
        """Bring the rows that ``ids`` names on chip; returns where."""
        self.low.build.gather(self.core.load_queues[0], dst, table, ids)
        return dst

    def store(self, dst: View, src: View) -> None:
        """A tile to main memory."""
        self.low.build.store(self.core.store_queue, dst, src)


Dealt = Iterable[tuple[Lanes, slice]]


def vector_lanes(low: Lowering, rows: int) -> Iterator[tuple[Lanes, slice]]:
    """The vector units, each with its share of the rows."""
    for core, window in shares(low, rows):
        core.reset()
        slot, unit = core.vector()
        yield (
            Lanes(low, core, slot, max(unit.memory, key=lambda n: core.arenas[n].capacity)),
            window,
        )


def threads(low: Lowering, rows: int) -> Iterator[tuple[Lanes, slice]]:
    """The multiprocessors as one kernel, each with its share of the rows."""
    low.launch()
    for core, window in shares(low, rows):
        core.reset()
        slot, unit = core.threads
        yield (
            Lanes(low, core, slot, max(unit.memory, key=lambda n: core.arenas[n].capacity)),
            window,
        )


def gate_on(lanes: Lanes, op: ExpertGate, tokens: slice) -> None:
    """The weights of some tokens' experts.

    Each choice is a maximum over the scores and a comparison of all of them with it; the program
    subtracts in place of comparing, which costs the same. Their results decide nothing here: what
    they would find is given, and the chosen scores are gathered by it.
    """
    low, core, k = lanes.low, lanes.core, op.top_k
    scores = low.matrix(op.inputs[0], op.tokens, op.experts)
    flat = low.matrix(op.inputs[0], op.tokens * op.experts, 1)
    chosen, out = low.matrix(op.inputs[1], op.tokens * k, 1), low.matrix(op.output, op.tokens, k)
    row = 2 * row_bytes(op.experts, scores.fmt) + 4 * op.experts + 16 * k + 64
    held = 4 * op.experts * op.has_bias
    height = tile_height(tokens.stop - tokens.start, op.experts, row, lanes.free - held)
    x_ring = core.ring(lanes.memory, "scores", height, op.experts, scores.fmt)
    left_ring = core.ring(lanes.memory, "left", height, op.experts, FP32, 1)
    top_ring = core.ring(lanes.memory, "top", height, 1, FP32, 1)
    picked_ring = core.ring(lanes.memory, "chosen", height, k, scores.fmt)
    out_ring = core.ring(lanes.memory, "weights", height, k, out.fmt)
    bias: View | None = None
    if op.has_bias:
        source = low.matrix(op.inputs[2], 1, op.experts)
        bias = lanes.load(core.buffer(lanes.memory, "bias", 1, op.experts, source.fmt), source)
    for rows in cut(tokens, height):
        count = rows.stop - rows.start
        left, top = left_ring.next()[:count, :], top_ring.next()[:count, :]
        x = lanes.load(x_ring.next()[:count, :], scores[rows, :])
        if bias is not None:
            x = lanes.do(F.ADD, left, x, bias)
        for _ in range(k):
            lanes.do(F.ROW_MAX, top, x)
            x = lanes.do(F.SUB, left, x, top)
        picked = picked_ring.next()
        column = picked.storage.view(count * k, 1, picked.fmt)
        lanes.gather(column, flat, chosen[rows.start * k : rows.stop * k, :])
        weights = _weights(lanes, op, picked[:count, :], top, out_ring.next()[:count, :])
        lanes.store(out[rows, :], weights)


def _weights(lanes: Lanes, op: ExpertGate, picked: View, total: View, out: View) -> View:
    """Chosen scores, normalised and scaled as the model says."""
    if op.normalise:
        lanes.do(F.ROW_SUM, total, picked)
        lanes.do(F.RECIPROCAL, total, total)
        if op.scale != 1.0:
            lanes.do(F.MUL_IMM, total, total, imm=op.scale)
        return lanes.do(F.MUL, out, picked, total)
    if op.scale == 1.0:
        return lanes.do(F.COPY, out, picked)
    return lanes.do(F.MUL_IMM, out, picked, imm=op.scale)


class Combine:
    """The weighted sums of one core: buffers, and the steps of a tile of tokens."""

    def __init__(self, lanes: Lanes, op: ExpertCombine, tokens: slice) -> None:
        self.lanes, self.op, self.tokens, low = lanes, op, tokens, lanes.low
        self.table = low.matrix(op.inputs[0], op.table_rows, op.hidden)
        self.weights = low.matrix(op.inputs[1], op.tokens, op.top_k)
        self.places = low.matrix(op.inputs[2], op.top_k * op.tokens, 1)
        self.out = low.matrix(op.output, op.tokens, op.hidden)
        element = (4 * self.table.fmt.bits + 2 * self.out.fmt.bits) // 8 + 8
        self.width = piece_width(op.hidden, element, lanes.free)
        # Weights of a tile of tokens and of what is copied, twice, their sum, and boundaries.
        row = element * self.width + 16 * op.top_k + 64
        self.height = tile_height(tokens.stop - tokens.start, self.width, row, lanes.free)
        self._reserve_buffers()

    def _reserve_buffers(self) -> None:
        op, core, memory = self.op, self.lanes.core, self.lanes.memory
        height, width, fmt = self.height, self.width, self.table.fmt
        self.row_ring = core.ring(memory, "rows", height, width, fmt)
        self.weight_ring = core.ring(memory, "weights", height, op.top_k, self.weights.fmt)
        self.sums = core.ring(memory, "sums", height, width, FP32, 1)
        self.terms = core.ring(memory, "terms", height, width, FP32, 1)
        self.result = core.ring(memory, "y", height, width, self.out.fmt)
        if op.copies:
            self.x = self.lanes.low.matrix(op.inputs[3], op.tokens, op.hidden)
            self.copies = self.lanes.low.matrix(op.inputs[4], op.tokens, op.top_k)
            self.copy_ring = core.ring(memory, "copies", height, op.top_k, self.copies.fmt)
            self.share_ring = core.ring(memory, "share", height, 1, FP32, 1)

    def emit(self) -> None:
        """All tokens of the core, tile by tile."""
        for rows in cut(self.tokens, self.height):
            count = rows.stop - rows.start
            weights = self.lanes.load(self.weight_ring.next()[:count, :], self.weights[rows, :])
            share = self._share(rows) if self.op.copies else None
            for cols in cut(slice(0, self.op.hidden), self.width):
                self._tile(rows, cols, weights, share)

    def _share(self, rows: slice) -> View:
        """How much of each token is copied."""
        count = rows.stop - rows.start
        copies = self.lanes.load(self.copy_ring.next()[:count, :], self.copies[rows, :])
        return self.lanes.do(F.ROW_SUM, self.share_ring.next()[:count, :], copies)

    def _tile(self, rows: slice, cols: slice, weights: View, share: View | None) -> None:
        """Some columns of some tokens: a product and an addition for each choice."""
        op, lanes = self.op, self.lanes
        count, width = rows.stop - rows.start, cols.stop - cols.start
        total = self.sums.next()[:count, :width]
        out = self.result.next()[:count, :width]
        factors = [weights[:, j : j + 1] for j in range(op.top_k)]
        if share is not None:
            factors.append(share)
        for j, factor in enumerate(factors):
            tile = self.row_ring.next()[:count, :width]
            if j == op.top_k:
                lanes.load(tile, self.x[rows, cols])
            else:
                first = j * op.tokens
                places = self.places[first + rows.start : first + rows.stop, :]
                lanes.gather(tile, self.table[:, cols], places)
            last = j == len(factors) - 1
            if j == 0:
                lanes.do(F.MUL, out if last else total, tile, factor)
            else:
                term = lanes.do(F.MUL, self.terms.next()[:count, :width], tile, factor)
                lanes.do(F.ADD, out if last else total, total, term)
        lanes.store(self.out[rows, cols], out)


def lower_gate(op: ExpertGate, dealt: Dealt) -> None:
    """The gate on all cores."""
    for lanes, tokens in dealt:
        gate_on(lanes, op, tokens)


def lower_combine(op: ExpertCombine, dealt: Dealt) -> None:
    """The weighted sums on all cores."""
    for lanes, tokens in dealt:
        Combine(lanes, op, tokens).emit()
