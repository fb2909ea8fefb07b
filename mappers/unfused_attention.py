"""Attention without fusion: scores to memory, softmax over them, probabilities to memory, values.

The scores keep fp32, the probabilities take the format of the queries. Query heads that share a
key head are stacked as rows of one product when there is one query per sequence. Rows of scores
that are longer than the scratchpad are swept over three times (mapping/long_rows).
"""

from __future__ import annotations

from accelsim.hw.dma import Dma
from accelsim.hw.systolic import Systolic
from accelsim.hw.vector import Vector
from accelsim.mapping.attention.gathered import Plain
from accelsim.mapping.attention.heads import head_groups, outputs
from accelsim.mapping.attention.masks import masks
from accelsim.mapping.long_rows import Block, lower_rows, softmax_sweeps
from accelsim.mapping.lowering import Lowering
from accelsim.mapping.products import Product, Stored, lower_products
from accelsim.mapping.registry import mapper
from accelsim.mapping.rowwise import (
    FP32,
    SOFTMAX_FUNCTIONS,
    Recipe,
    Tile,
    Vectors,
    softmax_of,
)
from accelsim.program.opcodes import Function
from accelsim.program.storage import View
from accelsim.workload.operators import Attention

F = Function


@mapper("unfused-attention", lowers=("attention",), needs=(Systolic, Vector, Dma))
def unfused_attention(op: Attention, low: Lowering) -> None:
    """Q K^T, softmax and P V as three passes over main memory."""
    plain, groups = Plain(op, low), head_groups(op)
    scores, weights = plain.scores("scores", FP32), plain.scores("weights", plain.fmt)
    lower_products(
        low,
        [
            Product(Stored(plain.queries(g)), plain.keys(g), scores.of(g), transpose_b=True)
            for g in groups
        ],
    )
    for rows, score in () if op.alibi else scores:
        _softmax(op, low, score, weights.of(rows))
    for group in groups if op.alibi else ():
        _softmax(op, low, scores.of(group), weights.of(group), plain.bias(group))
    lower_products(
        low,
        [Product(Stored(weights.of(g)), plain.values(g), outputs(op, low, g)) for g in groups],
    )


def _softmax(
    op: Attention, low: Lowering, scores: View, weights: View, bias: View | None = None
) -> None:
    """Softmax of score rows, to which one row of ``bias`` is added, or each its own."""
    one = bias is not None and bias.rows == 1
    hides = [] if not op.masked else [F.CAUSAL_MASK, *([F.WINDOW_MASK] if op.window else [])]

    def steps(v: Vectors, t: Tile) -> None:
        (scaled,) = t.wide
        v(F.MUL_IMM, scaled, t.inputs[0], imm=op.scale)
        if bias is not None:
            v(F.ADD, scaled, scaled, t.held[0] if one else t.inputs[1])
        position = scores.cols - op.q_len + t.first_row % op.q_len
        for mask in hides:
            first = position if mask is F.CAUSAL_MASK else position + 1 - op.window
            v(mask, scaled, scaled, imm=first)
        softmax_of(v, t, scaled)

    def block_of_scores(v: Vectors, b: Block) -> View:
        score = v(F.MUL_IMM, b.wide, b.inputs[0], imm=op.scale)
        if bias is not None:
            v(F.ADD, score, score, b.held[0] if one else b.inputs[1])
        position = scores.cols - op.q_len + b.row % op.q_len
        for mask in masks(op, position, score.rows, b.col, score.cols):
            corner = score[:, mask.cols]
            v(mask.function, corner, corner, imm=mask.imm)
        return score

    recipe = Recipe(
        steps, [scores, *([bias] if bias and not one else [])], weights,
        held=[bias] if bias and one else (), wide=1, narrow=2,
        row_period=op.q_len if op.masked else 0,
        functions=(F.MUL_IMM, *([F.ADD] if bias else []), *hides, *SOFTMAX_FUNCTIONS),
    )  # fmt: skip
    prepared = 1 + (bias is not None) + len(hides)
    lower_rows(low, recipe, softmax_sweeps(block_of_scores, prepared, held=one))
