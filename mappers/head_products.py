"""Attention in parts, as training without fusion runs it: products of heads, softmax of scores.

One product for each head of each sequence, whose operands are columns of wide matrices and rows of
stacked ones. Rows of scores that are longer than the scratchpad are swept over.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from accelsim.hw.dma import Dma
from accelsim.hw.simt import LoadStore, Simt
from accelsim.hw.systolic import Systolic
from accelsim.hw.tensor_core import TensorCore
from accelsim.hw.vector import Vector
from accelsim.mapping.attention.masks import masks
from accelsim.mapping.long_rows import Block, lower_rows, softmax_sweeps
from accelsim.mapping.lowering import Lowering
from accelsim.mapping.operands import Stored, Window
from accelsim.mapping.products import Product, lower_products
from accelsim.mapping.registry import mapper
from accelsim.mapping.rowwise import (
    FP32,
    SOFTMAX_FUNCTIONS,
    Recipe,
    Tile,
    Vectors,
    lower_rowwise,
    softmax_of,
)
from accelsim.mapping.thread_blocks import lower_grids
from accelsim.program.builder import Builder
from accelsim.program.opcodes import Function
from accelsim.program.storage import View
from accelsim.workload.operators import HeadProduct, ScoreSoftmax

F = Function


@dataclass(frozen=True)
class HeadsOfAGroup(Window):
    """Query heads that share a key head, one below the other: [heads*q_len, head_dim] of a wide
    matrix, where they lie side by side."""

    q_len: int
    head_dim: int

    def fetch(self, build: Builder, queue: int, dst: View) -> None:
        rows, cols = self.window
        for head in range(rows.start // self.q_len, -(-rows.stop // self.q_len)):
            above = head * self.q_len
            first, last = max(above, rows.start), min(above + self.q_len, rows.stop)
            left = head * self.head_dim
            source = self.stored[first - above : last - above, left + cols.start : left + cols.stop]
            mine = dst[first - rows.start : last - rows.start, :]
            build.load(queue, mine, source, part=mine.rows < dst.rows)


def _products(op: HeadProduct, low: Lowering) -> list[Product]:
    """One product for each head, of the keys in a backward product, of each sequence."""
    a, b, c = (low.matrix(name) for name in (op.inputs[0], op.inputs[1], op.output))
    heads = op.kv_heads if op.form == "back" else op.heads
    makers = {"scores": _scores, "values": _values, "back": _back}
    maker = makers[op.form]
    return [maker(op, (a, b, c), s, h) for s in range(op.batch) for h in range(heads)]


def _columns(op: HeadProduct, head: int, heads: int = 1) -> slice:
    return slice(head * op.head_dim, (head + heads) * op.head_dim)


def _rows(size: int, sequence: int) -> slice:
    return slice(sequence * size, (sequence + 1) * size)


def _stacked(op: HeadProduct, sequence: int, head: int, heads: int = 1) -> slice:
    first = (sequence * op.heads + head) * op.q_len
    return slice(first, first + heads * op.q_len)


Three = tuple[View, View, View]


def _scores(op: HeadProduct, views: Three, sequence: int, head: int) -> Product:
    a, b, c = views
    mine = a[_rows(op.q_len, sequence), _columns(op, head)]
    keys = b[_rows(op.kv_len, sequence), _columns(op, head // op.group)]
    return Product(Stored(mine), keys, c[_stacked(op, sequence, head), :], transpose_b=True)


def _values(op: HeadProduct, views: Three, sequence: int, head: int) -> Product:
    a, b, c = views
    values = b[_rows(op.kv_len, sequence), _columns(op, head // op.group)]
    result = c[_rows(op.q_len, sequence), _columns(op, head)]
    return Product(Stored(a[_stacked(op, sequence, head), :]), values, result)


def _back(op: HeadProduct, views: Three, sequence: int, head: int) -> Product:
    a, b, c = views
    first = head * op.group
    stacked = a[_stacked(op, sequence, first, op.group), :]
    wide = b[_rows(op.q_len, sequence), _columns(op, first, op.group)]
    result = c[_rows(op.kv_len, sequence), _columns(op, head)]
    if op.group == 1:
        return Product(Stored(stacked), wide, result, transpose_a=True)
    whole = (slice(0, op.group * op.q_len), slice(0, op.head_dim))
    heads = HeadsOfAGroup(wide, whole, op.q_len, op.head_dim)
    return Product(Stored(stacked), heads, result, transpose_a=True)


@mapper("systolic-head-gemm", lowers=("head_gemm",), needs=(Systolic, Dma))
def systolic_head_gemm(op: HeadProduct, low: Lowering) -> None:
    """Heads dealt to the cores, each a tiled product."""
    lower_products(low, _products(op, low))


@mapper("gpu-head-gemm", lowers=("head_gemm",), needs=(TensorCore, Simt, LoadStore), preference=1)
def gpu_head_gemm(op: HeadProduct, low: Lowering) -> None:
    """All heads as one grid of CTAs; query heads of a group are added up by a second kernel."""
    if op.form != "back" or op.group == 1:
        lower_grids(low, _products(op, low))
        return
    alone = replace(op, kv_heads=op.heads)
    a, b, c = (low.matrix(name) for name in (op.inputs[0], op.inputs[1], op.output))
    parts = low.scratch(f"{op.name}.parts", c.rows, op.heads * op.head_dim, FP32)
    places = [(s, h) for s in range(op.batch) for h in range(op.heads)]
    lower_grids(low, [_back(alone, (a, b, parts), s, h) for s, h in places])
    for head in range(op.kv_heads):
        first = head * op.group
        streams = [parts[:, _columns(op, h)] for h in range(first, first + op.group)]
        functions = (F.ADD,) * (op.group - 1)
        recipe = Recipe(
            _added, streams, c[:, _columns(op, head)], columns_split=True, functions=functions
        )
        lower_rowwise(low, recipe)


def _added(v: Vectors, t: Tile) -> None:
    first, *others = t.inputs
    for i, other in enumerate(others):
        v(F.ADD, t.out if i == len(others) - 1 else first, first, other)


@mapper("vector-score-softmax", lowers=("score_softmax",), needs=(Vector, Dma))
def vector_score_softmax(op: ScoreSoftmax, low: Lowering) -> None:
    """Scaled, masked where rows see different columns, softmax of the row."""
    hides = [] if not op.masked else [F.CAUSAL_MASK, *([F.WINDOW_MASK] if op.window else [])]
    x, out = (low.matrix(name, op.rows, op.cols) for name in (op.inputs[0], op.output))

    def steps(v: Vectors, t: Tile) -> None:
        (scaled,) = t.wide
        v(F.MUL_IMM, scaled, t.inputs[0], imm=op.scale)
        position = op.cols - op.q_len + t.first_row % op.q_len
        for mask in hides:
            first = position if mask is F.CAUSAL_MASK else position + 1 - op.window
            v(mask, scaled, scaled, imm=first)
        softmax_of(v, t, scaled)

    def scaled_block(v: Vectors, b: Block) -> View:
        score = v(F.MUL_IMM, b.wide, b.inputs[0], imm=op.scale)
        position = op.cols - op.q_len + b.row % op.q_len
        for mask in masks(op, position, score.rows, b.col, score.cols):
            corner = score[:, mask.cols]
            v(mask.function, corner, corner, imm=mask.imm)
        return score

    recipe = Recipe(
        steps, [x], out, wide=1, narrow=2, row_period=op.q_len if op.masked else 0,
        functions=(F.MUL_IMM, *hides, *SOFTMAX_FUNCTIONS),
    )  # fmt: skip
    lower_rows(low, recipe, softmax_sweeps(scaled_block, 1 + len(hides)))
