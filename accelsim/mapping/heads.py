"""Windows of attention operands: which rows of the score matrix share one key head, and where the
queries, keys, values and results of those rows lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from accelsim.mapping.lowering import Lowering
from accelsim.program.storage import View
from accelsim.workload.operators import Attention

EVERYTHING = slice(None)


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


@dataclass(frozen=True)
class Piece:
    """Queries of one head within a tile, or of several heads with one query each.

    ``rows`` are theirs in the tile, ``position`` where the first of them stands among the keys:
    row r of the piece sees keys 0 .. position + r if the attention is causal. ``first_row`` is
    that of the first one in the whole score matrix, ordered (sequence, head, query).
    """

    rows: slice
    first_row: int
    queries: View
    outputs: View
    position: int


@dataclass(frozen=True)
class QueryTile:
    """Queries [rows, head_dim] that share one key head, in ``pieces`` that are stored apart.

    ``group`` numbers the key heads of all sequences; of its keys the tile takes those from
    ``first`` to before ``visible``, from where on none sees them.
    """

    group: int
    rows: int
    visible: int
    pieces: tuple[Piece, ...]
    first: int = 0

    @property
    def keys(self) -> int:
        """How many keys the tile takes."""
        return self.visible - self.first


def query_tiles(op: Attention, low: Lowering, heads: int, rows: int) -> list[QueryTile]:
    """All queries in tiles of ``rows`` positions of ``heads`` heads, cut at the edges.

    Ordered by key head, then position, then head, so that neighbours see about the same keys.
    """
    shared = op.heads // op.kv_heads
    return [
        _query_tile(op, low, group, range(h, min(h + heads, shared)), r, min(r + rows, op.q_len))
        for group in range(op.batch * op.kv_heads)
        for r in range(0, op.q_len, rows)
        for h in range(0, shared, heads)
    ]


def split_keys(tiles: Sequence[QueryTile], span: int) -> list[QueryTile]:
    """Every tile once per range of ``span`` keys; those with the same keys are neighbours."""
    split = [
        replace(tile, first=first, visible=min(first + span, tile.visible))
        for tile in tiles
        for first in range(0, tile.visible, span)
    ]
    return sorted(split, key=lambda tile: (tile.group, tile.first))


def _query_tile(
    op: Attention, low: Lowering, group: int, heads: range, first: int, last: int
) -> QueryTile:
    """Queries first .. last - 1 of some heads of a group."""
    row = group * (op.heads // op.kv_heads) * op.q_len
    position, height = op.kv_len - op.q_len + first, last - first
    visible = position + height if op.causal else op.kv_len
    if op.q_len == 1:
        window = slice(row + heads.start, row + heads.stop)
        q, out = queries(op, low, window), outputs(op, low, window)
        one = Piece(slice(0, len(heads)), window.start, q, out, op.kv_len)
        return QueryTile(group, len(heads), op.kv_len, (one,))
    pieces = []
    for i, head in enumerate(heads):
        window, some = slice(row + head * op.q_len, row + (head + 1) * op.q_len), slice(first, last)
        pieces.append(
            Piece(
                slice(i * height, (i + 1) * height),
                window.start + first,
                queries(op, low, window)[some, EVERYTHING],
                outputs(op, low, window)[some, EVERYTHING],
                position if op.causal else op.kv_len,
            )
        )
    return QueryTile(group, height * len(heads), visible, tuple(pieces))


def group_keys_or_values(op: Attention, low: Lowering, group: int, operand: int) -> View:
    """Keys (operand 1) or values (operand 2) [kv_len, head_dim] of a key head of all sequences."""
    row = group * (op.heads // op.kv_heads) * op.q_len
    return keys_or_values(op, low, slice(row, row + 1), operand)
