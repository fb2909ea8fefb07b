"""Attention results over ranges of keys, kept in main memory until they are merged.

A range leaves, per row, its maximum m_i, its sum of exponentials l_i and its unnormalised result
O_i. With M = max m_i and f_i = exp(m_i - M) the whole result is sum f_i O_i / sum f_i l_i.

Source: Dao, Haziza, Massa and Sizov, Flash-Decoding for long-context inference, 2023.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from accelsim.errors import CapacityError
from accelsim.mapping.attention.heads import Piece, QueryTile
from accelsim.mapping.attention.stretches import Stretches
from accelsim.mapping.lowering import Core, Lowering
from accelsim.mapping.placement import ALIGNMENT, readable
from accelsim.numerics.formats import number_format
from accelsim.program.opcodes import Function
from accelsim.program.storage import View
from accelsim.workload.operators import Attention

F = Function
FP32 = number_format("fp32")
FP32_BYTES = 4
EVERYTHING = slice(None)


@dataclass(frozen=True)
class Partials:
    """Results [rows, ranges x head_dim], maxima and sums [rows, ranges] of all score rows, fp32:
    sequences of fewer keys have fewer ranges. Without maxima all ranges have the same one.
    """

    results: Stretches
    maxima: Stretches | None
    sums: Stretches

    @property
    def kept(self) -> list[Stretches]:
        """What is kept of a range."""
        return [view for view in (self.results, self.maxima, self.sums) if view is not None]

    @classmethod
    def of(
        cls, op: Attention, low: Lowering, split: Iterable[QueryTile], *, maxima: bool = True
    ) -> Partials:
        """Room in main memory for what tiles of ranges of keys leave."""
        ranges = ranges_of(op, split)

        def room(name: str, cols: int) -> Stretches:
            widths = [n * cols for n in ranges]
            return Stretches.scratch(low, f"{op.name}.{name}", widths, 1, FP32)

        return cls(room("partial", op.head_dim), room("max", 1) if maxima else None, room("sum", 1))

    def store(
        self, low: Lowering, queue: int, piece: Piece, split: int, parts: Sequence[View]
    ) -> None:
        """Write what range number ``split`` of the keys left of a piece."""
        rows = slice(piece.first_row, piece.first_row + piece.count)
        for whole, part in zip(self.kept, parts, strict=True):
            column = split * part.cols
            low.build.store(queue, whole.of(rows)[:, column : column + part.cols], part)

    def merge(self, low: Lowering, pieces: Sequence[Piece]) -> None:
        """Merge the ranges of all pieces, row by row, shared out over the cores."""
        shares: list[list[tuple[Piece, slice]]] = [[] for _ in low.cores]
        share = -(-sum(piece.count for piece in pieces) // len(low.cores))
        turn = 0
        for piece in pieces:
            for first in range(0, piece.count, share):
                rows = slice(first, min(first + share, piece.count))
                shares[turn % len(shares)].append((piece, rows))
                turn += 1
        for core, mine in zip(low.cores, shares, strict=True):
            if mine:
                _Merge(low, core, self).emit(mine)


def ranges_of(op: Attention, split: Iterable[QueryTile]) -> list[int]:
    """Ranges of keys that each score row has."""
    found = [0] * (op.batch * op.heads * op.q_len)
    for tile in split:
        for piece in tile.pieces:
            for row in range(piece.first_row, piece.first_row + piece.count):
                found[row] = max(found[row], tile.part + 1)
    return found


def most_ranges(head_dim: int, capacity: int) -> int:
    """Ranges of each of two phases at most, so that a row of all of them can be merged."""
    free = capacity - 12 * ALIGNMENT - _row_bytes(head_dim, 0, 1)
    return free // (_row_bytes(head_dim, 1, 1) - _row_bytes(head_dim, 0, 1)) // 2


def rows_that_fit(head_dim: int, splits: int, slots: int, capacity: int) -> int:
    """Rows whose ``splits`` partial results fit into a memory ``slots`` times."""
    return (capacity - 12 * ALIGNMENT) // _row_bytes(head_dim, splits, slots)


def _row_bytes(head_dim: int, splits: int, slots: int) -> int:
    """Bytes of a row: parts, two columns of each, the result, one column."""
    return FP32_BYTES * slots * (splits * (head_dim + 2) + head_dim + 1)


class _Merge:
    """The merge of some rows on one core's vector unit."""

    def __init__(self, low: Lowering, core: Core, partial: Partials) -> None:
        self.low, self.core, self.partial = low, core, partial
        self.slot, unit = core.vector()
        core.reset()
        memory = max(unit.memory, key=lambda name: core.arenas[name].capacity)
        width, splits = partial.results.cols, partial.sums.cols
        self.head_dim, self.splits = width // splits, splits
        arena = core.arenas[memory]
        slots = 2 if rows_that_fit(self.head_dim, splits, 2, arena.free) else 1
        self.height = rows_that_fit(self.head_dim, splits, slots, arena.free)
        if self.height < 1:
            row = _row_bytes(self.head_dim, splits, 1)
            raise CapacityError(
                f"a row's {splits} partial results need {readable(row)}, {memory} has"
                f" {readable(arena.capacity)}"
            )
        self.height = int(min(self.height, partial.results.rows))
        self.parts, self.tops, self.totals, self.out, self.column = (
            core.ring(memory, name, self.height, cols, FP32, slots)
            for name, cols in (
                ("parts", width), ("tops", splits), ("totals", splits),
                ("merged", self.head_dim), ("column", 1),
            )
        )  # fmt: skip

    def emit(self, work: Sequence[tuple[Piece, slice]]) -> None:
        """Merge windows of pieces, as many rows at once as fit."""
        for piece, rows in work:
            for first in range(rows.start, rows.stop, self.height):
                self._merge(piece, slice(first, min(first + self.height, rows.stop)))

    def _merge(self, piece: Piece, rows: slice) -> None:
        build, v = self.low.build, self.slot
        height, d, p = rows.stop - rows.start, self.head_dim, self.partial
        where = slice(piece.first_row + rows.start, piece.first_row + rows.stop)
        n = p.sums.of(where).cols
        widths = (n * d, n, n, d, 1)
        parts, tops, totals, out, column = (
            ring.next()[:height, :width]
            for ring, width in zip(
                (self.parts, self.tops, self.totals, self.out, self.column), widths, strict=True
            )
        )
        targets = (parts, totals) if p.maxima is None else (parts, tops, totals)
        for target, source in zip(targets, p.kept, strict=True):
            build.load(self.core.load_queues[0], target, source.of(where))
        each = [parts[EVERYTHING, i * d : (i + 1) * d] for i in range(n)]
        if p.maxima is not None:
            build.vector(v, F.ROW_MAX, column, tops)
            build.vector(v, F.SUB, tops, tops, column)
            build.vector(v, F.EXP, tops, tops)
            build.vector(v, F.MUL, totals, totals, tops)
        build.vector(v, F.ROW_SUM, column, totals)
        build.vector(v, F.RECIPROCAL, column, column)
        for i, part in enumerate(each) if p.maxima is not None else ():
            build.vector(v, F.MUL, part if i else out, part, tops[EVERYTHING, i : i + 1])
        for i in range(1, n):
            first = each[0] if i == 1 and p.maxima is None else out
            build.vector(v, F.ADD, out, first, each[i])
        build.vector(v, F.MUL, out, each[0] if n == 1 and p.maxima is None else out, column)
        build.store(self.core.store_queue, piece.outputs[rows, EVERYTHING], out)
