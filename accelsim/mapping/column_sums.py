"""Sums over the rows of a matrix: the gradient of a bias, of a norm's weight, batch statistics.

Lanes lie along the columns. Every core adds its share of the rows tile by tile, row for row of the
tile, folds the tile onto one row at the end, and leaves that row in main memory; one core adds the
rows of all. Where rows do not fit on chip, they are cut, unless a term needs the whole of its row.

In a tile of h rows a term passes one addition for every tile before it, ceil(log2 h) of the fold,
and those of the cores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from accelsim.errors import CapacityError
from accelsim.mapping.lowering import Core, Lowering
from accelsim.mapping.placement import ALIGNMENT, readable
from accelsim.mapping.rowwise import FP32, Tile, Vectors
from accelsim.mapping.tile_sizes import even_shares
from accelsim.numerics.formats import row_bytes
from accelsim.program.opcodes import Function
from accelsim.program.storage import View

F = Function
Terms = Callable[[Vectors, Tile], View]
"""What is summed, of a tile: a view of its rows, on chip."""

FULL_LANES = 16  # instructions are at least this many times as long as the lanes are wide
GRANULE = 64  # columns


@dataclass(frozen=True)
class ColumnSums:
    """``scale`` times the sums over the rows of ``terms`` of streams [rows, cols] and of ``held``
    rows [1, cols], into ``out`` [1, cols].

    ``wide`` and ``narrow`` count fp32 temporaries [rows, cols] and [rows, 1] of the terms.
    """

    terms: Terms
    streams: Sequence[View]
    out: View
    held: Sequence[View] = ()
    wide: int = 0
    narrow: int = 0
    scale: float = 1.0
    columns_split: bool = True
    instructions: int = 1


def lower_column_sums(low: Lowering, sums: ColumnSums) -> None:
    """Emit sums over all cores, and their sum."""
    low.begin_kernel()
    shares = list(even_shares(sums.streams[0].rows, len(low.cores)))
    alone = len(shares) == 1
    parts = sums.out if alone else low.scratch("parts", len(shares), sums.out.cols, FP32)
    for i, (core, mine) in enumerate(zip(low.cores, shares, strict=False)):
        window = slice(mine.start, mine.stop)
        target = parts if alone else parts[i : i + 1, :]
        _OnCore(low, core, sums, 1.0 if not alone else sums.scale).emit(window, target)
    if not alone:
        low.begin_kernel()
        total = ColumnSums(_first, [parts], sums.out, scale=sums.scale)
        _OnCore(low, low.cores[0], total, sums.scale).emit(slice(0, len(shares)), sums.out)


def _first(_v: Vectors, t: Tile) -> View:
    return t.inputs[0]


class _OnCore:
    """The share of one core."""

    def __init__(self, low: Lowering, core: Core, sums: ColumnSums, scale: float) -> None:
        self.low, self.core, self.sums, self.scale = low, core, sums, scale
        self.slot, self.unit = core.vector()
        core.reset()
        self.memory = max(self.unit.memory, key=lambda name: core.arenas[name].capacity)
        self.v = Vectors(low, self.slot)

    def emit(self, rows: slice, target: View) -> None:
        s = self.sums
        height, width = self._shape(rows.stop - rows.start)
        tiles = -(-(rows.stop - rows.start) // height) * -(-s.out.cols // width)
        each = len(s.streams) + s.instructions + 1
        self.low.build.reserve(tiles * each, f"sums over {rows.stop - rows.start} rows")
        self.low.build.note(f"tiles of {height} x {width}, summed over rows")
        self._take(height, width)
        for left in range(0, s.out.cols, width):
            columns = slice(left, min(left + width, s.out.cols))
            self._columns(rows, columns, height, target)

    def _columns(self, rows: slice, columns: slice, height: int, target: View) -> None:
        """The sums of some columns."""
        count = columns.stop - columns.start
        held = [ring.next()[:, :count] for ring in self.held]
        for tile, row in zip(held, self.sums.held, strict=True):
            self.low.build.load(self.core.load_queues[-1], tile, row[:, columns])
        most = min(height, rows.stop - rows.start)
        running = self.running.next()[:most, :count]
        for top in range(rows.start, rows.stop, height):
            window = slice(top, min(top + height, rows.stop))
            terms = self.sums.terms(self.v, self._tile(window, columns, held))
            mine = running[: terms.rows, :]
            if top == rows.start:
                self.v(F.COPY, mine, terms)
            else:
                self.v(F.ADD, mine, mine, terms)
        self._finish(running, target[:, columns])

    def _tile(self, rows: slice, columns: slice, held: Sequence[View]) -> Tile:
        height, width = rows.stop - rows.start, columns.stop - columns.start
        inputs = [ring.next()[:height, :width] for ring in self.inputs]
        for tile, stream in zip(inputs, self.sums.streams, strict=True):
            self.low.build.load(self.core.load_queues[0], tile, stream[rows, columns])
        wide = [ring.next()[:height, :width] for ring in self.wide]
        narrow = [ring.next()[:height, :] for ring in self.narrow]
        return Tile(inputs, held, wide, narrow, inputs[0], rows.start, (), columns.start)

    def _finish(self, running: View, target: View) -> None:
        """Fold the rows of a tile onto the first, and store that."""
        count = running.rows
        while count > 1:
            half = count // 2
            top, bottom = running[:half, :], running[count - half : count, :]
            self.v(F.ADD, top, top, bottom)
            count -= half
        result = self.result.next()[:, : running.cols]
        self.v(F.MUL_IMM, result, running[:1, :], imm=self.scale)
        self.low.build.store(self.core.store_queue, target, result)

    def _take(self, height: int, width: int) -> None:
        s, ring = self.sums, self.core.ring
        m = self.memory
        self.inputs = [ring(m, f"x{i}", height, width, x.fmt) for i, x in enumerate(s.streams)]
        self.held = [ring(m, f"held{i}", 1, width, h.fmt) for i, h in enumerate(s.held)]
        self.wide = [ring(m, f"t{i}", height, width, FP32, 1) for i in range(s.wide)]
        self.narrow = [ring(m, f"r{i}", height, 1, FP32, 1) for i in range(s.narrow)]
        self.running = ring(m, "sums", height, width, FP32)
        self.result = ring(m, "y", 1, width, FP32)

    def _shape(self, rows: int) -> tuple[int, int]:
        """(rows, columns) of a tile: whole rows if some fit, or as many columns as fit."""
        s = self.sums
        cols = s.out.cols
        width = cols
        while s.columns_split and width > GRANULE and self._fits(width) < 1:
            width = -(-width // 2 // GRANULE) * GRANULE
        fits = self._fits(width)
        if fits < 1:
            raise CapacityError(
                f"one row of {width} elements does not fit into {self.memory} with its buffers"
                f" ({readable(self.core.arenas[self.memory].capacity)})"
            )
        wanted = max(8, -(-FULL_LANES * self.unit.lanes // width))
        return max(1, min(fits, rows, wanted)), width

    def _fits(self, width: int) -> int:
        """Rows of a tile of ``width`` columns that fit with their buffers."""
        s = self.sums
        buffers = 2 * (len(s.streams) + len(s.held) + 2) + s.wide + s.narrow
        free = self.core.arenas[self.memory].free - buffers * ALIGNMENT
        free -= 2 * sum(row_bytes(width, h.fmt) for h in s.held) + 2 * row_bytes(width, FP32)
        streamed = 2 * sum(row_bytes(width, x.fmt) for x in s.streams)
        each = streamed + (s.wide + 2) * row_bytes(width, FP32) + s.narrow * row_bytes(1, FP32)
        return int(free // each)
