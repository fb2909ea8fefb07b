"""Attention without fusion: scores to memory, softmax over them, probabilities to memory, values.

The scores keep fp32, the probabilities take the format of the queries. Query heads that share a
key head are stacked as rows of one product when there is one query per sequence.
"""

from __future__ import annotations

from accelsim.hw.dma import Dma
from accelsim.hw.systolic import Systolic
from accelsim.hw.vector import Vector
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
    heads = _head_groups(op)
    lower_products(
        low,
        [
            Product(Stored(q), k, scores[window, :], transpose_b=True)
            for window, q, k in ((w, _queries(op, low, w, 0), _cache(op, low, w, 1)) for w in heads)
        ],
    )
    _softmax(op, low, scores, weights)
    lower_products(
        low,
        [
            Product(
                Stored(weights[window, :]), _cache(op, low, window, 2), _outputs(op, low, window)
            )
            for window in heads
        ],
    )


def _head_groups(op: Attention) -> list[slice]:
    """Rows of the score matrix, ordered (sequence, head, query), that share one key head."""
    height = op.q_len if op.q_len > 1 else op.heads // op.kv_heads
    return [slice(r, r + height) for r in range(0, op.batch * op.heads * op.q_len, height)]


def _place(op: Attention, window: slice) -> tuple[int, int]:
    """(sequence, first query head) of a group of score rows."""
    sequence, head = divmod(int(window.start) // op.q_len, op.heads)
    return sequence, head


def _token_window(op: Attention, low: Lowering, window: slice, tensor: str) -> View:
    """The rows of a [tokens, heads*head_dim] tensor that belong to a group of score rows."""
    sequence, head = _place(op, window)
    width = op.heads * op.head_dim
    first = sequence * op.q_len * width + head * op.head_dim
    # One query per sequence: the group's rows are neighbouring heads of the same token.
    stride = width if op.q_len > 1 else op.head_dim
    return low.window(tensor, first, window.stop - window.start, op.head_dim, stride)


def _queries(op: Attention, low: Lowering, window: slice, operand: int) -> View:
    return _token_window(op, low, window, op.inputs[operand])


def _outputs(op: Attention, low: Lowering, window: slice) -> View:
    return _token_window(op, low, window, op.output)


def _cache(op: Attention, low: Lowering, window: slice, operand: int) -> View:
    sequence, head = _place(op, window)
    kv_head = head // (op.heads // op.kv_heads)
    first = (sequence * op.kv_heads + kv_head) * op.kv_len * op.head_dim
    return low.window(op.inputs[operand], first, op.kv_len, op.head_dim, op.head_dim)


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
