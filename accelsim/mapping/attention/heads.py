"""Windows of attention operands: which rows of the score matrix share one key head, and where the
queries, keys, values and results of those rows lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from accelsim.mapping.lowering import Lowering
from accelsim.program.storage import View
from accelsim.workload.operators import Attention, KvAppend

EVERYTHING = slice(None)


def head_groups(op: Attention) -> list[slice]:
    """Rows of the score matrix, ordered (sequence, head, query), that share one key head."""
    height = op.q_len if op.q_len > 1 else op.heads // op.kv_heads
    return [slice(r, r + height) for r in range(0, op.batch * op.heads * op.q_len, height)]


def place_of(op: Attention, window: slice) -> tuple[int, int]:
    """(sequence, first query head) of a group of score rows."""
    sequence, head = divmod(int(window.start) // op.q_len, op.heads)
    return sequence, head


def group_of(op: Attention, window: slice) -> int:
    """Number, over all sequences, of the key head that a group of score rows reads."""
    sequence, head = place_of(op, window)
    return sequence * op.kv_heads + head // (op.heads // op.kv_heads)


def _token_window(op: Attention, low: Lowering, window: slice, tensor: str, size: int) -> View:
    """The rows of a [tokens, heads*size] tensor that belong to a group of score rows."""
    sequence, head = place_of(op, window)
    width = op.heads * size
    first = sequence * op.q_len * width + head * size
    # One query per sequence: the group's rows are neighbouring heads of the same token.
    stride = width if op.q_len > 1 else size
    return low.window(tensor, first, window.stop - window.start, size, stride)


def queries(op: Attention, low: Lowering, window: slice, name: str = "q") -> View:
    """Queries [rows, head_dim] of a group of score rows, or [rows, rope_dim] of ``q_rope``."""
    size = op.rope_dim if name == "q_rope" else op.head_dim
    return _token_window(op, low, window, op.operand(name) or "", size)


def outputs(op: Attention, low: Lowering, window: slice) -> View:
    """Results [rows, head_dim] of a group of score rows."""
    return _token_window(op, low, window, op.output, op.head_dim)


def bias_rows(op: Attention, low: Lowering, window: slice) -> View:
    """What is added to a group of score rows: one row [1, keys] for all of them, or, if they are
    of several heads with one query each, a row for each."""
    sequence, head = place_of(op, window)
    heads = 1 if op.q_len > 1 else window.stop - window.start
    whole = low.matrix(op.operand("bias") or "", op.heads, op.kv_len)
    return whole[head : head + heads, : op.lengths[sequence]]


@dataclass(frozen=True)
class Run:
    """Neighbouring tokens of a cache that lie one behind the other: tokens ``first`` on."""

    first: int
    view: View


def cache_runs(
    op: Attention, low: Lowering, group: int, name: str, first: int, stop: int
) -> list[Run]:
    """Where tokens first .. stop - 1 of a key head lie: of the operand ``k``, ``v`` or ``k_rope``.

    One run, or one per page.
    """
    tensor, heads, size = op.operand(name) or "", op.kv_heads, op.head_dim
    sequence, head = divmod(group, heads)
    if name == "k_rope":
        head, heads, size = 0, 1, op.rope_dim
    if not op.cached:
        width = heads * size
        begin = (sequence * op.kv_len + first) * width + head * size
        return [Run(first, low.window(tensor, begin, stop - first, size, width))]
    whole = low.matrix(tensor, cols=size)
    places = op.cache_rows(sequence, head, first, stop, heads)
    return [Run(token, whole[rows, EVERYTHING]) for token, rows in places]


def append_runs(
    op: KvAppend, low: Lowering, sequence: int, head: int, first: int, stop: int
) -> list[Run]:
    """Where tokens first .. stop - 1 of a sequence go in the cache of a key head."""
    whole = low.matrix(op.output, cols=op.head_dim)
    places = op.cache_rows(sequence, head, first, stop, op.kv_heads)
    return [Run(token, whole[rows, EVERYTHING]) for token, rows in places]


@dataclass(frozen=True)
class Piece:
    """Queries of one head within a tile, or of several heads with one query each.

    ``rows`` are theirs in the tile, ``position`` where the first of them stands among the keys:
    row r of the piece sees keys up to position + r if the attention is causal, of them the last
    ``window`` if it has one. ``first_row`` is that of the first one in the whole score matrix,
    ordered (sequence, head, query).
    """

    rows: slice
    first_row: int
    queries: tuple[View, ...]  # and those of the rope part, if there is one
    outputs: View
    position: int

    @property
    def count(self) -> int:
        """How many queries."""
        return int(self.rows.stop - self.rows.start)


@dataclass(frozen=True)
class QueryTile:
    """Queries [rows, head_dim] that share one key head, in ``pieces`` that are stored apart.

    ``group`` numbers the key heads of all sequences. The tile is to take the keys from ``first``
    on; of these some query sees those from ``sees`` to before ``visible``. ``part`` numbers the
    ranges into which keys are split.
    """

    group: int
    rows: int
    visible: int
    pieces: tuple[Piece, ...]
    first: int = 0
    sees: int = 0
    part: int = 0

    @property
    def keys(self) -> int:
        """How many keys the tile takes."""
        return self.visible - self.sees


Member = tuple[int, int]
"""(sequence, query head)."""


def query_tiles(op: Attention, low: Lowering, heads: int, rows: int) -> list[QueryTile]:
    """All queries in tiles of ``rows`` positions of ``heads`` heads, cut at the edges.

    Ordered by key head, then position, then head, so that neighbours see about the same keys.
    """
    shared = op.heads // op.kv_heads
    tiles = []
    for group in range(op.batch * op.kv_heads):
        sequence, key_head = divmod(group, op.kv_heads)
        members = [(sequence, key_head * shared + h) for h in range(shared)]
        tiles += _tiles(op, low, group, members, heads, rows)
    return tiles


def prefix_tiles(op: Attention, low: Lowering, heads: int, rows: int) -> list[QueryTile]:
    """The queries of all sequences in tiles that read the keys of their common prefix."""
    shared = op.heads // op.kv_heads
    tiles = []
    for key_head in range(op.kv_heads):
        members = [(s, key_head * shared + h) for s in range(op.batch) for h in range(shared)]
        tiles += _tiles(op, low, key_head, members, heads, rows)
    return [replace(tile, visible=op.prefix) for tile in tiles]


def behind_prefix(op: Attention, tiles: Sequence[QueryTile]) -> list[QueryTile]:
    """The same queries reading only what is behind the common prefix."""
    return [replace(tile, first=op.prefix, sees=op.prefix) for tile in tiles]


def _tiles(
    op: Attention, low: Lowering, group: int, members: list[Member], heads: int, rows: int
) -> list[QueryTile]:
    return [
        _query_tile(op, low, group, members[h : h + heads], r, min(r + rows, op.q_len))
        for r in range(0, op.q_len, rows)
        for h in range(0, len(members), heads)
    ]


def split_keys(tiles: Sequence[QueryTile], span: int, part: int = 0) -> list[QueryTile]:
    """Every tile once per range of ``span`` keys, which are numbered from ``part`` on; those with
    the same keys are neighbours."""
    split = [
        replace(
            tile,
            first=start,
            sees=max(start, tile.sees),
            visible=min(start + span, tile.visible),
            part=i,
        )
        for tile in tiles
        for i, start in enumerate(range(tile.first, tile.visible, span), part)
    ]
    return sorted(split, key=lambda tile: (tile.group, tile.first))


def _query_tile(
    op: Attention, low: Lowering, group: int, members: Sequence[Member], first: int, last: int
) -> QueryTile:
    """Queries first .. last - 1 of some heads."""
    sequence = members[0][0]
    sees, visible = op.keys_seen(first, sequence).start, op.keys_seen(last - 1, sequence).stop
    names = ("q", "q_rope") if op.rope_dim else ("q",)
    pieces: list[Piece] = []

    def add(head: slice, some: slice, position: int) -> None:
        """Rows ``some`` of those of a head, or of several, in the whole score matrix."""
        top = pieces[-1].rows.stop if pieces else 0
        views = tuple(queries(op, low, head, name)[some, EVERYTHING] for name in names)
        place = slice(top, top + some.stop - some.start)
        results = outputs(op, low, head)[some, EVERYTHING]
        pieces.append(Piece(place, head.start + some.start, views, results, position))

    if op.q_len == 1:
        for _, same in groupby(members, key=lambda member: member[0]):
            run = list(same)
            row = run[0][0] * op.heads + run[0][1]
            add(slice(row, row + len(run)), slice(0, len(run)), op.lengths[run[0][0]])
        # All rows see the same keys: blocks begin with the first of them.
        return QueryTile(group, pieces[-1].rows.stop, visible, tuple(pieces), sees, sees)
    for sequence, head in members:
        row = (sequence * op.heads + head) * op.q_len
        position = op.kv_len - op.q_len + first if op.masked else op.kv_len
        add(slice(row, row + op.q_len), slice(first, last), position)
    start = op.keys_seen(0).start
    return QueryTile(group, pieces[-1].rows.stop, visible, tuple(pieces), start, sees)
