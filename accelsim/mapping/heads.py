"""Windows of attention operands: which rows of the score matrix share one key head, and where the
queries, keys, values and results of those rows lie."""

from __future__ import annotations

from accelsim.mapping.lowering import Lowering
from accelsim.program.storage import View
from accelsim.workload.operators import Attention


def head_groups(op: Attention) -> list[slice]:
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


def queries(op: Attention, low: Lowering, window: slice) -> View:
    """Queries [rows, head_dim] of a group of score rows."""
    return _token_window(op, low, window, op.inputs[0])


def outputs(op: Attention, low: Lowering, window: slice) -> View:
    """Results [rows, head_dim] of a group of score rows."""
    return _token_window(op, low, window, op.output)


def keys_or_values(op: Attention, low: Lowering, window: slice, operand: int) -> View:
    """Keys (operand 1) or values (operand 2) [kv_len, head_dim] that a group of rows attends to."""
    sequence, head = _place(op, window)
    kv_head = head // (op.heads // op.kv_heads)
    if not op.cached:
        width = op.kv_heads * op.head_dim
        first = sequence * op.kv_len * width + kv_head * op.head_dim
        return low.window(op.inputs[operand], first, op.kv_len, op.head_dim, width)
    first = (sequence * op.kv_heads + kv_head) * op.kv_len * op.head_dim
    return low.window(op.inputs[operand], first, op.kv_len, op.head_dim, op.head_dim)
