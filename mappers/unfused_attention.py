"""Attention without fusion: scores to memory, softmax over them, probabilities to memory, values.

The scores keep fp32, the probabilities take the format of the queries. Query heads that share a
key head are stacked as rows of one product when there is one query per sequence.
"""

from __future__ import annotations

from accelsim.hw.dma import Dma
from accelsim.hw.systolic import Systolic
from accelsim.hw.vector import Vector
from accelsim.mapping.heads import head_groups, keys_or_values, outputs, queries
from accelsim.mapping.lowering import Lowering
from accelsim.mapping.products import Product, Stored, lower_products
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
from accelsim.program.opcodes import Function
from accelsim.program.storage import View
from accelsim.workload.operators import Attention

F = Function


@mapper("unfused-attention", lowers=("attention",), needs=(Systolic, Vector, Dma))
def unfused_attention(op: Attention, low: Lowering) -> None:
    """Q K^T, softmax and P V as three passes over main memory."""
    rows = op.batch * op.heads * op.q_len
    scores = low.scratch(f"{op.name}.scores", rows, op.kv_len, FP32)
    weights = low.scratch(f"{op.name}.weights", rows, op.kv_len, low.format(op.inputs[0]))
    heads = head_groups(op)
    lower_products(
        low,
        [
            Product(Stored(q), k, scores[window, :], transpose_b=True)
            for window, q, k in (
                (w, queries(op, low, w), keys_or_values(op, low, w, 1)) for w in heads
            )
        ],
    )
    _softmax(op, low, scores, weights)
    lower_products(
        low,
        [
            Product(
                Stored(weights[window, :]),
                keys_or_values(op, low, window, 2),
                outputs(op, low, window),
            )
            for window in heads
        ],
    )


def _softmax(op: Attention, low: Lowering, scores: View, weights: View) -> None:
    masked = op.causal and op.q_len > 1

    def steps(v: Vectors, t: Tile) -> None:
        (scaled,) = t.wide
        v(F.MUL_IMM, scaled, t.inputs[0], imm=op.scale)
        if masked:
            position = op.kv_len - op.q_len + t.first_row % op.q_len
            v(F.CAUSAL_MASK, scaled, scaled, imm=position)
        softmax_of(v, t, scaled)

    functions = (F.MUL_IMM, *((F.CAUSAL_MASK,) if masked else ()), *SOFTMAX_FUNCTIONS)
    recipe = Recipe(
        steps, [scores], weights, wide=1, narrow=2,
        row_period=op.q_len if masked else 0, functions=functions,
    )  # fmt: skip
    lower_rowwise(low, recipe)
