"""Row-wise kernels on a GPU: threads load rows, compute in registers, and store the result.

Every multiprocessor gets its share of the rows (or of the elements, where rows do not matter) and
works on it tile by tile. The loads of the next tile are issued before the current one is computed,
as other resident warps would, so memory latency shows only where a multiprocessor has a single
tile. Row reductions whose rows do not fit on chip read them once per pass, piece by piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from accelsim.errors import CapacityError
from accelsim.mapping.epilogue import Finish, Finisher
from accelsim.mapping.lowering import Core, Lowering, Ring
from accelsim.mapping.placement import readable
from accelsim.numerics.formats import Format, number_format, row_bytes
from accelsim.program.opcodes import Function
from accelsim.program.storage import View

FP32 = number_format("fp32")
MOST_TILES = 8
"""Tiles per multiprocessor that a kernel is cut into where memory allows fewer, larger ones."""
RESIDENT = 8192
"""Elements of a tile at least, where there are as many: those of 2048 resident threads with a few
each, which hide each other's latencies."""
MARGIN = 4096
"""Bytes of on-chip memory left to alignment and to the statistics of rows."""
ELEMENT_GRANULE = 64
PIECES_PER_CORE, PIECE_COLUMNS = 4, 512
"""How the second kernel of a split K is cut."""


Load = tuple[Ring, View, bool]
"""Buffers, source, and whether threads take it element by element."""


@dataclass(frozen=True)
class Step:
    """A stretch of a kernel on one multiprocessor: what is loaded, and what is done with it."""

    loads: Sequence[Load]
    work: Callable[[list[View]], None]


class Threads:
    """The threads of one multiprocessor, as a kernel writer sees them."""

    def __init__(self, low: Lowering, core: Core) -> None:
        self.low, self.core, self.build = low, core, low.build
        self.slot, self.unit = core.threads
        core.reset()

    @cached_property
    def memory(self) -> str:
        """The on-chip memory that tiles are kept in: the largest."""
        arenas = self.core.arenas
        return max(self.unit.memory, key=lambda name: arenas[name].capacity)

    @property
    def free(self) -> int:
        """Bytes of it that are left."""
        return self.core.arenas[self.memory].free

    def ring(self, name: str, rows: int, cols: int, fmt: Format, slots: int = 2) -> Ring:
        """Buffers of [rows, cols] used in turn."""
        return self.core.ring(self.memory, name, rows, cols, fmt, slots)

    def do(
        self, function: Function, dst: View, a: View, b: View | None = None, imm: float = 0.0
    ) -> View:
        """One vector instruction; returns its result."""
        self.build.vector(self.slot, function, dst, a, b, imm)
        return dst

    def store(self, dst: View, src: View, *, scalar: bool = False) -> None:
        """Store a tile to main memory."""
        self.build.store(self.core.store_queue, dst, src, scalar=scalar)

    def run(self, steps: Sequence[Step]) -> None:
        """Emit the steps, the loads of each ahead of the work of the one before."""
        ahead: list[list[View]] = []
        for i in range(len(steps) + 1):
            if i < len(steps):
                ahead.append([self._load(*load) for load in steps[i].loads])
            if i > 0:
                steps[i - 1].work(ahead[i - 1])
                ahead[i - 1] = []

    def _load(self, ring: Ring, source: View, scalar: bool) -> View:
        tile = ring.next()[: source.rows, : source.cols]
        self.build.load(self.core.load_queues[0], tile, source, scalar=scalar)
        return tile


def shares(low: Lowering, count: int, period: int = 0) -> Iterator[tuple[Core, slice]]:
    """``count`` items as neighbouring ranges, one for each core; with ``period``, ranges that
    do not cross its multiples come as several."""
    cores = len(low.cores)
    for i, core in enumerate(low.cores):
        first, last = count * i // cores, count * (i + 1) // cores
        while first < last:
            end = min(last, (first // period + 1) * period) if period else last
            yield core, slice(first, end)
            first = end


def tile_height(rows: int, width: int, bytes_per_row: int, free: int, resident: int = 1) -> int:
    """Rows of a tile ``width`` wide: a few tiles for each share, as far as they fit.

    ``resident`` rows at least, whose CTAs a multiprocessor holds at once.
    """
    fits = (free - MARGIN // 2) // bytes_per_row
    if fits < 1:
        raise CapacityError(
            f"one row needs {readable(bytes_per_row)} with its buffers, {readable(free)} are left"
        )
    return min(fits, rows, max(resident, -(-rows // MOST_TILES), -(-RESIDENT // width)))


def cut(window: slice, height: int) -> list[slice]:
    """A range in pieces of ``height``."""
    return [
        slice(s, min(s + height, window.stop)) for s in range(window.start, window.stop, height)
    ]


def piece_width(cols: int, bytes_per_element: int, free: int) -> int:
    """Columns of a row that fit on chip: all of them, or whole granules."""
    fits = (free - MARGIN) // bytes_per_element
    return cols if cols <= fits else max(1, fits // ELEMENT_GRANULE) * ELEMENT_GRANULE


Emit = Callable[[Threads, list[View], Sequence[View], View], None]
"""Computes one piece from its inputs: threads, inputs, fp32 temporaries, buffer of the result."""


def elementwise(
    low: Lowering,
    inputs: Sequence[View],
    out: View,
    emit: Emit,
    *,
    temporaries: int = 0,
    scalar: bool = False,
) -> None:
    """One kernel over all elements of packed matrices, however they fall into rows.

    ``emit(threads, tiles, temporaries, result)`` computes one piece. Inputs of one row serve all
    rows of the others.
    """
    low.launch()
    rows = any(view.rows == 1 and out.rows > 1 for view in inputs)
    packed = all(v.rows == 1 or v.stride == row_bytes(v.cols, v.fmt) for v in (*inputs, out))
    flat = packed and not rows and not scalar
    views = [_flat(v) for v in inputs] if flat else list(inputs)
    target = _flat(out) if flat else out
    threads: dict[int, Threads] = {}
    for core, window in shares(low, target.cols if flat else target.rows):
        t = threads.setdefault(core.index, Threads(low, core))
        _Pieces(t, views, target, temporaries, scalar, flat).run(window, emit)


def _flat(view: View) -> View:
    return View(view.storage, view.base, 1, view.rows * view.cols, 0, view.fmt)


class _Pieces:
    """An elementwise kernel on one multiprocessor."""

    def __init__(
        self,
        threads: Threads,
        inputs: Sequence[View],
        out: View,
        temporaries: int,
        scalar: bool,
        flat: bool,
    ) -> None:
        self.t, self.inputs, self.out = threads, inputs, out
        self.temporaries, self.scalar, self.flat = temporaries, scalar, flat
        self.bytes_per_element = 2 * sum(v.fmt.bits for v in (*inputs, out)) // 8 + 4 * max(
            1, temporaries
        )

    def run(self, window: slice, emit: Emit) -> None:
        """Emit all pieces of this multiprocessor's share."""
        t, places = self.t, self._places(window)
        height = max(r.stop - r.start for r, _ in places)
        width = max(c.stop - c.start for _, c in places)
        rings = [
            t.ring(f"x{i}", 1 if v.rows == 1 else height, width, v.fmt)
            for i, v in enumerate(self.inputs)
        ]
        kept = [t.ring(f"t{i}", height, width, FP32, 1) for i in range(self.temporaries)]
        results = t.ring("y", height, width, self.out.fmt)

        def step(rows: slice, cols: slice) -> Step:
            def work(tiles: list[View]) -> None:
                h, w = rows.stop - rows.start, cols.stop - cols.start
                y = results.next()[:h, :w]
                emit(t, tiles, [ring.next()[:h, :w] for ring in kept], y)
                t.store(self.out[rows, cols], y, scalar=self.scalar)

            sources = [v[slice(0, 1) if v.rows == 1 else rows, cols] for v in self.inputs]
            loads = [(r, v, self.scalar) for r, v in zip(rings, sources, strict=True)]
            return Step(loads, work)

        t.run([step(rows, cols) for rows, cols in places])

    def _places(self, window: slice) -> list[tuple[slice, slice]]:
        everything = slice(0, self.out.cols)
        if self.flat:
            size = window.stop - window.start
            fits = piece_width(size, self.bytes_per_element, self.t.free)
            even = -(-size // MOST_TILES // ELEMENT_GRANULE) * ELEMENT_GRANULE
            return [(slice(0, 1), cols) for cols in cut(window, min(fits, max(even, RESIDENT)))]
        width = piece_width(self.out.cols, self.bytes_per_element, self.t.free)
        rows = window.stop - window.start
        height = tile_height(rows, width, width * self.bytes_per_element, self.t.free)
        return [(r, c) for r in cut(window, height) for c in cut(everything, width)]


def add_parts(
    low: Lowering, parts: Sequence[Sequence[View]], results: Sequence[tuple[View, Finish]]
) -> None:
    """A kernel that adds the sums of the parts of K, finishes them, and stores the results."""
    low.launch()
    pieces = PIECES_PER_CORE * len(low.cores)
    first = results[0][0]
    everything = cut(slice(0, first.cols), PIECE_COLUMNS)
    height = -(-len(results) * first.rows * len(everything) // pieces)
    t = Threads(low, low.cores[0])
    fmt, kept = parts[0][0].fmt, _running(parts[0][0].fmt)
    bits = 2 * len(parts[0]) * fmt.bits + (0 if kept is fmt else 2 * kept.bits)
    fits = (t.free - MARGIN) // (PIECE_COLUMNS * bits // 8)
    places = [
        (i, rows, cols)
        for i, (c, _) in enumerate(results)
        for rows in cut(slice(0, c.rows), max(1, min(height, fits)))
        for cols in everything
    ]
    for core, window in shares(low, len(places)):
        _add_share(Threads(low, core), places[window], parts, results)


def _running(partials: Format) -> Format:
    """What partial sums are added in: fp32, or int32, however narrow they are kept."""
    return partials if partials.is_integer else FP32


def _add_share(
    t: Threads,
    places: Sequence[tuple[int, slice, slice]],
    parts: Sequence[Sequence[View]],
    results: Sequence[tuple[View, Finish]],
) -> None:
    width = max(cols.stop - cols.start for _, _, cols in places)
    height = max(rows.stop - rows.start for _, rows, _ in places)
    fmt = parts[0][0].fmt
    rings = [t.ring(f"part{i}", height, width, fmt) for i in range(len(parts[0]))]
    running = None if _running(fmt) is fmt else t.ring("sum", height, width, FP32)
    finisher = Finisher(t.low, t.core, t.memory, width, results[0][1], 2)

    def step(i: int, rows: slice, cols: slice) -> Step:
        def work(tiles: list[View]) -> None:
            sums = tiles[0]
            total = running.next()[: sums.rows, : sums.cols] if running else sums
            for tile in tiles[1:]:
                sums = t.do(Function.ADD, total, sums, tile)
            result, finish = results[i]
            finisher.finish(total, finish.window(rows, cols))
            t.store(result[rows, cols], total)

        return Step([(r, p[rows, cols], False) for r, p in zip(rings, parts[i], strict=True)], work)

    t.run([step(*place) for place in places])
