"""Row-wise operators whose rows are longer than the scratchpad: swept over block by block.

A reduction over a row needs all of it before the first result is known. Where a row does not fit
on chip, a few rows at a time are read once per reduction and once more for the results:

    softmax     largest of x | sum of exp(x - max) | exp(x - max) / sum
    layernorm   mean | scale from the centred squares | (x - mean) * scale * weight + bias
    rmsnorm     scale from the squares | x * scale * weight
    cross-entropy's gradient: as softmax, less one at the label, over the number of rows
    softmax's gradient        sum of p * grad | (grad - sum) * p * scale

The statistics of these rows, columns of fp32, stay on chip from sweep to sweep, so that nothing but
the operands and the results moves. Functions and formats are those of whole rows; only sums are put
together from those of the blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from accelsim.errors import CapacityError
from accelsim.mapping.lowering import Core, Lowering, Ring
from accelsim.mapping.placement import ALIGNMENT, readable
from accelsim.mapping.rowwise import FP32, Recipe, Vectors, lower_rowwise, row_fits, row_periods
from accelsim.mapping.tile_sizes import even_shares
from accelsim.numerics.formats import row_bytes
from accelsim.program.opcodes import Function
from accelsim.program.storage import View

F = Function
ROWS = 8  # at a time at most: they share what is loaded for all rows, and the ends of sweeps
RUN = 256  # columns that blocks of several rows have at least: memory likes long runs
VECTOR = 16  # blocks are as wide as a multiple of this where they can


@dataclass(frozen=True)
class Block:
    """Some rows by some columns on chip.

    ``inputs`` are the streamed operands, ``held`` the row vectors, ``wide`` an fp32 temporary of
    the block's shape, ``columns`` the statistics [rows, 1] and, as the last one, room for those of
    this block alone; ``out`` is the result, written in the last sweep. ``row`` and ``col`` say
    where the block begins in the whole operand.
    """

    inputs: Sequence[View]
    held: Sequence[View]
    wide: View
    columns: Sequence[View]
    out: View
    row: int
    col: int


Steps = Callable[[Vectors, Block], None]
Prepare = Callable[[Vectors, Block], View]


def _nothing(_v: Vectors, _columns: Sequence[View]) -> None:
    pass


@dataclass(frozen=True)
class Sweep:
    """One way over the rows: ``steps`` for every block, then ``end`` for the statistics; ``held``:
    the row vectors are read, too. ``instructions`` of the vector unit per block, about."""

    steps: Steps
    end: Callable[[Vectors, Sequence[View]], None] = _nothing
    held: bool = False
    instructions: int = 5


@dataclass(frozen=True)
class Sweeps:
    """Sweeps over rows, the last of which gives the result, with ``columns`` statistics."""

    sweeps: Sequence[Sweep]
    columns: int


def lower_rows(low: Lowering, recipe: Recipe, sweeps: Sweeps) -> None:
    """Emit a recipe over all cores if a whole row fits on chip, else sweeps for the same result."""
    if row_fits(low, recipe):
        lower_rowwise(low, recipe)
    else:
        sweep_rows(low, recipe, sweeps)


def sweep_rows(low: Lowering, recipe: Recipe, sweeps: Sweeps) -> None:
    """Emit sweeps over all cores: over the streams, row vectors and result of a recipe."""
    low.begin_kernel()
    shares = even_shares(recipe.out.rows, len(low.cores), recipe.row_period or 1)
    for core, rows in zip(low.cores, shares, strict=False):
        _Rows(low, core, recipe, sweeps).emit(rows.start, rows.stop)


class _Rows:
    """Sweeps on one core."""

    def __init__(self, low: Lowering, core: Core, recipe: Recipe, sweeps: Sweeps) -> None:
        self.low, self.core, self.recipe, self.sweeps = low, core, recipe, sweeps
        slot, unit = core.vector()
        self.vectors = Vectors(low, slot)
        core.reset()
        self.memory = max(unit.memory, key=lambda name: core.arenas[name].capacity)

    def emit(self, first: int, last: int) -> None:
        r = self.recipe
        most = min(last - first, r.row_period or last - first)
        height, width = self._shape(most)
        self.low.build.note(f"{len(self.sweeps.sweeps)} sweeps in blocks of {height} x {width}")
        blocks = -(-(last - first) // height) * -(-r.cols // width)
        loads = len(r.streams) + len(r.held) + 1
        count = sum(loads + sweep.instructions for sweep in self.sweeps.sweeps)
        self.low.build.reserve(blocks * count, f"sweeps over {r.out.rows} long rows")
        self._take(height, width)
        for start, bottom in row_periods(first, last, r.row_period):
            for top in range(start, bottom, height):
                self._tile(slice(top, min(top + height, bottom)), width)

    def _tile(self, rows: slice, width: int) -> None:
        columns = [ring.next()[: rows.stop - rows.start, :] for ring in self.columns]
        for sweep in self.sweeps.sweeps:
            for left in range(0, self.recipe.cols, width):
                cols = slice(left, min(left + width, self.recipe.cols))
                self._block(sweep, rows, cols, columns)
            sweep.end(self.vectors, columns)

    def _block(self, sweep: Sweep, rows: slice, cols: slice, columns: Sequence[View]) -> None:
        r, build = self.recipe, self.low.build
        height, width = rows.stop - rows.start, cols.stop - cols.start
        inputs = [ring.next()[:height, :width] for ring in self.inputs]
        for tile, stream in zip(inputs, r.streams, strict=True):
            mine = cols if stream.cols == r.cols else slice(0, stream.cols)  # a column comes whole
            build.load(self.core.load_queues[0], tile, stream[rows, mine])
        held = [ring.next()[:, :width] for ring in self.held if sweep.held]
        for tile, vector in zip(held, r.held, strict=False):
            build.load(self.core.load_queues[-1], tile, vector[:, cols])
        wide = self.wide.next()[:height, :width]
        last = sweep is self.sweeps.sweeps[-1]
        out = self.out.next()[:height, :width] if last else wide
        block = Block(inputs, held, wide, columns, out, rows.start, cols.start)
        sweep.steps(self.vectors, block)
        if last:
            build.store(self.core.store_queue, r.out[rows, cols], out)

    def _take(self, height: int, width: int) -> None:
        r = self.recipe

        def ring(name: str, rows: int, cols: int, fmt: object, slots: int = 2) -> Ring:
            return self.core.ring(self.memory, name, rows, cols, fmt, slots)  # type: ignore[arg-type]

        self.inputs = [
            ring(f"x{i}", height, min(width, s.cols), s.fmt) for i, s in enumerate(r.streams)
        ]
        self.held = [ring(f"held{i}", 1, width, h.fmt) for i, h in enumerate(r.held)]
        self.out = ring("y", height, width, r.out.fmt)
        self.wide = ring("t", height, width, FP32, 1)
        self.columns = [ring(f"r{i}", height, 1, FP32) for i in range(self.sweeps.columns + 1)]

    def _shape(self, most: int) -> tuple[int, int]:
        """(rows, columns) of a block: several rows if the blocks stay wide; of equal widths."""
        widths = {h: self._width(h) for h in (ROWS, ROWS // 2, ROWS // 4, 1) if h <= most}
        height = max((h for h, width in widths.items() if width >= RUN), default=1)
        width = widths[height]
        if width < 1:
            raise CapacityError(
                f"one row of {self.recipe.cols} elements does not fit into {self.memory}"
                f" ({readable(self.core.arenas[self.memory].capacity)}), nor does one element of it"
                " with its double buffers"
            )
        even = -(-self.recipe.cols // -(-self.recipe.cols // width))
        return height, min(width, -(-even // VECTOR) * VECTOR)

    def _width(self, height: int) -> int:
        """Columns of blocks of so many rows that fit."""
        r = self.recipe
        streamed = [*r.streams, r.out]
        buffers = 2 * (len(streamed) + len(r.held) + self.sweeps.columns + 1) + 1
        columns = 2 * (self.sweeps.columns + 1) * height * row_bytes(1, FP32)
        free = self.core.arenas[self.memory].free - buffers * ALIGNMENT - columns
        per_vector = height * row_bytes(VECTOR, FP32)
        per_vector += 2 * height * sum(row_bytes(VECTOR, s.fmt) for s in streamed)
        per_vector += 2 * sum(row_bytes(VECTOR, h.fmt) for h in r.held)
        width = free * VECTOR // per_vector
        return width // VECTOR * VECTOR if width > VECTOR else int(width)


# --- the sweeps of each operator


def _combined(v: Vectors, b: Block, reduction: Function, join: Function, x: View, to: int) -> None:
    """Reduce a block's rows and join them to column ``to``, which the first block begins."""
    whole, part = b.columns[to], b.columns[-1]
    if b.col == 0:
        v(reduction, whole, x)
        return
    v(reduction, part, x)
    v(join, whole, whole, part)


def _streamed(_v: Vectors, b: Block) -> View:
    """The operand as it is stored."""
    return b.inputs[0]


def softmax_sweeps(
    prepare: Prepare = _streamed, instructions: int = 0, held: bool = False
) -> Sweeps:
    """Maximum, sum of exponentials, quotients of what ``prepare`` makes of a block, in so many
    instructions."""

    def maxima(v: Vectors, b: Block) -> None:
        _combined(v, b, F.ROW_MAX, F.MAX, prepare(v, b), 0)

    def sums(v: Vectors, b: Block) -> None:
        v(F.SUB, b.wide, prepare(v, b), b.columns[0])
        v(F.EXP, b.wide, b.wide)
        _combined(v, b, F.ROW_SUM, F.ADD, b.wide, 1)

    def invert(v: Vectors, columns: Sequence[View]) -> None:
        v(F.RECIPROCAL, columns[1], columns[1])

    def quotients(v: Vectors, b: Block) -> None:
        v(F.SUB, b.wide, prepare(v, b), b.columns[0])
        v(F.EXP, b.wide, b.wide)
        v(F.MUL, b.out, b.wide, b.columns[1])

    sweeps = (
        Sweep(maxima, held=held, instructions=2 + instructions),
        Sweep(sums, invert, held=held, instructions=4 + instructions),
        Sweep(quotients, held=held, instructions=3 + instructions),
    )
    return Sweeps(sweeps, 2)


def cross_entropy_sweeps(rows: int) -> Sweeps:
    """Those of softmax, whose results lose one at the label and are divided by the rows."""
    softmax = softmax_sweeps()

    def gradients(v: Vectors, b: Block) -> None:
        v(F.SUB, b.wide, b.inputs[0], b.columns[0])
        v(F.EXP, b.wide, b.wide)
        v(F.MUL, b.wide, b.wide, b.columns[1])
        v(F.UNHOT, b.wide, b.wide, b.inputs[1], imm=b.col)
        v(F.MUL_IMM, b.out, b.wide, imm=1.0 / rows)

    return Sweeps((*softmax.sweeps[:2], Sweep(gradients)), softmax.columns)


def softmax_grad_sweeps(scale: float) -> Sweeps:
    """Sum of p * grad, then what is left of grad, times p."""

    def sums(v: Vectors, b: Block) -> None:
        v(F.MUL, b.wide, b.inputs[0], b.inputs[1])
        _combined(v, b, F.ROW_SUM, F.ADD, b.wide, 0)

    def gradients(v: Vectors, b: Block) -> None:
        v(F.SUB, b.wide, b.inputs[1], b.columns[0])
        v(F.MUL, b.wide, b.wide, b.inputs[0])
        v(F.MUL_IMM, b.out, b.wide, imm=scale)

    return Sweeps((Sweep(sums), Sweep(gradients)), 1)


def layernorm_sweeps(cols: int, eps: float) -> Sweeps:
    """Mean, scale from the centred squares, then weight and bias, which are held."""

    def total(v: Vectors, b: Block) -> None:
        _combined(v, b, F.ROW_SUM, F.ADD, b.inputs[0], 0)

    def mean(v: Vectors, columns: Sequence[View]) -> None:
        v(F.MUL_IMM, columns[0], columns[0], imm=1.0 / cols)

    def squares(v: Vectors, b: Block) -> None:
        v(F.SUB, b.wide, b.inputs[0], b.columns[0])
        v(F.MUL, b.wide, b.wide, b.wide)
        _combined(v, b, F.ROW_SUM, F.ADD, b.wide, 1)

    def scale(v: Vectors, columns: Sequence[View]) -> None:
        _inverse_root(v, columns[1], cols, eps)

    def normalised(v: Vectors, b: Block) -> None:
        weight, bias = b.held
        v(F.SUB, b.wide, b.inputs[0], b.columns[0])
        v(F.MUL, b.wide, b.wide, b.columns[1])
        v(F.MUL, b.wide, b.wide, weight)
        v(F.ADD, b.out, b.wide, bias)

    return Sweeps((Sweep(total, mean), Sweep(squares, scale), Sweep(normalised, held=True)), 2)


def rmsnorm_sweeps(cols: int, eps: float) -> Sweeps:
    """Scale from the squares, then the weight, which is held."""

    def squares(v: Vectors, b: Block) -> None:
        v(F.MUL, b.wide, b.inputs[0], b.inputs[0])
        _combined(v, b, F.ROW_SUM, F.ADD, b.wide, 0)

    def scale(v: Vectors, columns: Sequence[View]) -> None:
        _inverse_root(v, columns[0], cols, eps)

    def normalised(v: Vectors, b: Block) -> None:
        v(F.MUL, b.wide, b.inputs[0], b.columns[0])
        v(F.MUL, b.out, b.wide, b.held[0])

    return Sweeps((Sweep(squares, scale), Sweep(normalised, held=True)), 1)


def _inverse_root(v: Vectors, total: View, cols: int, eps: float) -> None:
    """1 / sqrt(total / cols + eps), in place."""
    v(F.MUL_IMM, total, total, imm=1.0 / cols)
    v(F.ADD_IMM, total, total, imm=eps)
    v(F.RSQRT, total, total)
