"""Row-wise operators as tile programs: rows are shared out, streamed through a vector unit, stored.

A recipe says what one tile of rows needs: which windows are loaded, which stay on chip, which
temporaries it uses and the vector instructions in between. The tile height is chosen so that loads
and stores hide behind the vector unit without paying its pipeline latency too often.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from accelsim.errors import CapacityError
from accelsim.mapping.lowering import Core, Lowering, Ring
from accelsim.mapping.placement import ALIGNMENT, readable
from accelsim.mapping.tile_sizes import even_shares
from accelsim.mapping.tiling import TOLERANCE
from accelsim.numerics.formats import number_format, row_bytes
from accelsim.program.opcodes import REDUCTIONS, Function
from accelsim.program.storage import View

FP32 = number_format("fp32")


@dataclass(frozen=True)
class Tile:
    """One tile of rows on chip: what a recipe's steps work on.

    ``inputs`` are the streamed operands, ``held`` the operands that stay (row vectors),
    ``wide`` and ``narrow`` fp32 temporaries of [rows, cols] and [rows, 1], ``out`` the result,
    ``more`` further ones; ``first_row`` and ``first_col`` say where the tile begins in the whole
    operand.
    """

    inputs: Sequence[View]
    held: Sequence[View]
    wide: Sequence[View]
    narrow: Sequence[View]
    out: View
    first_row: int
    more: Sequence[View] = ()
    first_col: int = 0


@dataclass(frozen=True)
class Vectors:
    """The vector unit while it works on one tile; each call is one instruction."""

    low: Lowering
    slot: int

    def __call__(
        self, function: Function, dst: View, a: View, b: View | None = None, imm: float = 0.0
    ) -> View:
        self.low.build.vector(self.slot, function, dst, a, b, imm)
        return dst


Steps = Callable[[Vectors, Tile], None]

SOFTMAX_FUNCTIONS = (
    Function.ROW_MAX,
    Function.SUB,
    Function.EXP,
    Function.ROW_SUM,
    Function.RECIPROCAL,
    Function.MUL,
)


def softmax_of(v: Vectors, t: Tile, x: View) -> None:
    """Softmax of each row of ``x`` into the tile's result: one wide, two narrow temporaries."""
    (e,), (top, total) = t.wide, t.narrow
    v(Function.ROW_MAX, top, x)
    v(Function.SUB, e, x, top)
    v(Function.EXP, e, e)
    v(Function.ROW_SUM, total, e)
    v(Function.RECIPROCAL, total, total)
    v(Function.MUL, t.out, e, total)


STRIPS = 8  # tiles next to each other, so that loads, work and stores overlap


@dataclass(frozen=True)
class Recipe:
    """A row-wise computation of streams [rows, cols] to ``out`` [rows, cols] or [rows, 1].

    ``streams`` are cut into row tiles (they may be of different widths), ``held`` are loaded once
    per core. ``wide`` and ``narrow`` count temporaries. ``columns_split`` allows tiles of part of a
    row (no reduction over it). ``row_period``: tiles do not cross multiples of it (0: no limit).
    ``functions`` are the passes over a tile, ``instructions`` how many they are cut into (0: one
    each). ``more`` are further results of the form of ``out``.
    """

    steps: Steps
    streams: Sequence[View]
    out: View
    held: Sequence[View] = ()
    wide: int = 0
    narrow: int = 0
    columns_split: bool = False
    row_period: int = 0
    functions: Sequence[Function] = (Function.COPY,)
    instructions: int = 0
    more: Sequence[View] = ()

    @property
    def cols(self) -> int:
        """Columns of the widest operand: those of the result, unless it is a column of sums."""
        return max(self.out.cols, *(stream.cols for stream in self.streams))

    @property
    def vector_instructions(self) -> int:
        """Vector instructions per tile."""
        return self.instructions or len(self.functions)


def lower_rowwise(low: Lowering, recipe: Recipe) -> None:
    """Emit a recipe over all cores."""
    low.begin_kernel()
    shares = even_shares(recipe.out.rows, len(low.cores), recipe.row_period or 1)
    for core, rows in zip(low.cores, shares, strict=False):
        _Stream(low, core, recipe).emit(rows.start, rows.stop)


def row_fits(low: Lowering, recipe: Recipe) -> bool:
    """Whether a core can hold one row of a recipe with all its buffers."""
    return _Stream(low, low.cores[0], recipe).holds_a_row()


class _Stream:
    """A recipe on one core."""

    def __init__(self, low: Lowering, core: Core, recipe: Recipe) -> None:
        self.low, self.core, self.recipe = low, core, recipe
        self.slot, self.unit = core.vector()
        core.reset()
        self.memory = max(self.unit.memory, key=lambda name: core.arenas[name].capacity)
        rows = recipe.out.rows
        self.even_rows = low.even_rows if rows >= low.even_rows else 1

    def emit(self, first: int, last: int) -> None:
        r = self.recipe
        cols = self._tile_cols()
        height = self._tile_rows(last - first, cols)
        self.low.build.note(f"tiles of {height} x {cols}")
        windows = [
            (slice(top, min(top + height, bottom)), slice(left, min(left + cols, r.cols)))
            for start, bottom in row_periods(first, last, r.row_period)
            for top in range(start, bottom, height)
            for left in range(0, r.cols, cols)
        ]
        per_tile = len(r.streams) + r.vector_instructions + 1 + len(r.more)
        self.low.build.reserve(
            len(windows) * per_tile, f"a row-wise operator over {r.out.rows} rows"
        )
        rings = self._rings(height, cols)
        held = [self._hold(view, i) for i, view in enumerate(r.held)] if cols == r.cols else []
        for rows, columns in windows:
            self._tile(rows, columns, rings, held)

    def _tile(
        self, rows: slice, cols: slice, rings: dict[str, list[Ring]], held: list[View]
    ) -> None:
        r, build = self.recipe, self.low.build
        height, width = rows.stop - rows.start, cols.stop - cols.start
        inputs = []
        for ring, stream in zip(rings["in"], r.streams, strict=True):
            columns = self._columns(stream, cols)
            tile = ring.next()[:height, : columns.stop - columns.start]
            build.load(self.core.load_queues[0], tile, stream[rows, columns])
            inputs.append(tile)
        if not held and r.held:
            held = [self._hold(view[:, cols], i, rings) for i, view in enumerate(r.held)]
        wide = [ring.next()[:height, :width] for ring in rings["wide"]]
        narrow = [ring.next()[:height, :] for ring in rings["narrow"]]
        stored = self._columns(r.out, cols)
        out = rings["out"][0].next()[:height, : stored.stop - stored.start]
        more = [ring.next()[:height, : out.cols] for ring in rings["more"]]
        tile_views = Tile(inputs, held, wide, narrow, out, rows.start, more, cols.start)
        r.steps(Vectors(self.low, self.slot), tile_views)
        for target, tile in zip((r.out, *r.more), (out, *more), strict=True):
            build.store(self.core.store_queue, target[rows, stored], tile)

    def _columns(self, operand: View, cols: slice) -> slice:
        """The columns of an operand in a tile: narrow ones come whole."""
        return cols if operand.cols == self.recipe.cols else slice(0, operand.cols)

    def _hold(self, view: View, index: int, rings: dict[str, list[Ring]] | None = None) -> View:
        if rings is None:
            kept = self.core.buffer(self.memory, f"held{index}", view.rows, view.cols, view.fmt)
        else:
            kept = rings["held"][index].next()[:, : view.cols]
        self.low.build.load(self.core.load_queues[-1], kept, view)
        return kept

    def _rings(self, rows: int, cols: int) -> dict[str, list[Ring]]:
        r, core, memory = self.recipe, self.core, self.memory
        split = cols < r.cols
        return {
            "in": [
                core.ring(memory, f"x{i}", rows, self._width(s, cols), s.fmt)
                for i, s in enumerate(r.streams)
            ],
            "out": [core.ring(memory, "y", rows, self._width(r.out, cols), r.out.fmt)],
            "more": [
                core.ring(memory, f"z{i}", rows, self._width(m, cols), m.fmt)
                for i, m in enumerate(r.more)
            ],
            "wide": [core.ring(memory, f"t{i}", rows, cols, FP32, 1) for i in range(r.wide)],
            "narrow": [core.ring(memory, f"r{i}", rows, 1, FP32, 1) for i in range(r.narrow)],
            "held": [
                core.ring(memory, f"held{i}", 1, cols, h.fmt) for i, h in enumerate(r.held) if split
            ],
        }

    def _row_bytes(self, cols: int) -> int:
        """Scratchpad bytes per tile row, all buffers."""
        r = self.recipe
        return 2 * self._streamed_row_bytes(cols) + r.wide * 4 * cols + r.narrow * 4

    def _streamed_row_bytes(self, cols: int) -> int:
        """Bytes of main memory that one tile row of ``cols`` columns moves."""
        streamed = (*self.recipe.streams, self.recipe.out, *self.recipe.more)
        return sum(row_bytes(self._width(v, cols), v.fmt) for v in streamed)

    def _width(self, stream: View, cols: int) -> int:
        """Columns of a stream in a tile of ``cols``: narrow streams come whole."""
        return cols if stream.cols == self.recipe.cols else stream.cols

    def _overhead_bytes(self) -> int:
        r = self.recipe
        held = sum(h.nbytes + ALIGNMENT for h in r.held)
        moved = len(r.streams) + 1 + len(r.more)
        return held + ALIGNMENT * (2 * moved + r.wide + r.narrow)

    def holds_a_row(self) -> bool:
        """Whether one row fits with all its buffers."""
        free = self.core.arenas[self.memory].free - self._overhead_bytes()
        return self._row_bytes(self.recipe.cols) <= free

    def _tile_cols(self) -> int:
        """Whole rows if one fits, else as many columns as fit (where rows may be cut)."""
        r = self.recipe
        if panels := self._panels():
            return panels
        if self.holds_a_row():
            return r.cols
        if not r.columns_split:
            raise CapacityError(
                f"one row of {r.cols} elements needs {readable(self._row_bytes(r.cols))}"
                f" with its double buffers, {self.memory} has"
                f" {readable(self.core.arenas[self.memory].capacity)}"
            )
        cols = (self.core.arenas[self.memory].free - 4096) // self._column_bytes() // 64 * 64
        if cols < 64:
            raise CapacityError(
                f"64 elements with their double buffers do not fit into {self.memory}"
                f" ({readable(self.core.arenas[self.memory].capacity)})"
            )
        return int(cols)

    def _column_bytes(self) -> int:
        """Scratchpad bytes per column of a tile of one row, if rows are cut.

        Held row vectors are cut with the columns, two buffers each.
        """
        held = sum(2 * row_bytes(64, h.fmt) // 64 for h in self.recipe.held)
        return self._row_bytes(64) // 64 + held

    def _panels(self) -> int:
        """Columns of a few panels, as tall as they come or at least a turn over the channels;
        0 where rows are not cut, or nothing lies in panels."""
        if not self.recipe.columns_split or self.even_rows == 1:
            return 0
        width, room = self.low.panel_width, self.core.arenas[self.memory].free - 4096
        for rows in (self.recipe.out.rows, self.even_rows):
            cols = min(room // (self._column_bytes() * rows), self.recipe.cols // STRIPS)
            if cols >= width:
                return int(cols // width * width)
        return 0

    def _tile_rows(self, rows: int, cols: int) -> int:
        """Height that minimises exposed transfers plus pipeline latencies (closed form)."""
        free = self.core.arenas[self.memory].free - self._overhead_bytes()
        fits = max(1, free // self._row_bytes(cols))
        period = self.recipe.row_period or rows
        limit, step = min(fits, rows, period), 1
        if limit >= self.even_rows:
            step, limit = self.even_rows, limit // self.even_rows * self.even_rows
        if cols < self.recipe.cols:
            return limit if self.even_rows > 1 else 1
        candidates = {limit} | {step << e for e in range(limit.bit_length()) if step << e <= limit}
        cost = {height: self._cycles(rows, height, cols) for height in candidates}
        near = [height for height in candidates if cost[height] <= min(cost.values()) * TOLERANCE]
        return max(near)

    def _cycles(self, rows: int, height: int, cols: int) -> float:
        r, hz = self.recipe, self.low.arch.clocks[self.unit.clock]
        tiles = -(-rows // height)
        slots = self.unit.slots_by_function()
        passes = sum(int(slots[f]) for f in r.functions)
        busy = tiles * (passes * -(-height * cols // self.unit.lanes))
        stalls = tiles * r.vector_instructions * self.unit.latency
        stalls += tiles * sum(f in REDUCTIONS for f in r.functions) * self.unit.lanes.bit_length()
        if self.low.ideal:
            return float(busy + stalls)
        bandwidth = self.low.core_bytes_per_second / hz
        latency = self.low.read_seconds * hz
        row = self._streamed_row_bytes(cols)
        results = (r.out, *r.more)
        stored = sum(height * row_bytes(self._width(v, cols), v.fmt) for v in results) / bandwidth
        loaded = height * row / bandwidth - stored
        tile_busy = (busy + stalls) / tiles
        # A buffer of a pair is free again one load, compute and drain later (or store).
        turn = latency + tile_busy + max(loaded, stored)
        slowest = max(busy + stalls, rows * row / bandwidth, tiles * turn / 2)
        return slowest + loaded + stored + 2 * latency


def row_periods(first: int, last: int, period: int) -> list[tuple[int, int]]:
    """Row ranges that do not cross multiples of ``period``."""
    if not period:
        return [(first, last)]
    cuts = [first, *range((first // period + 1) * period, last, period), last]
    return list(pairwise(cuts))
