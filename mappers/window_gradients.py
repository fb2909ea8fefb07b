"""What goes back through windows over images: pooling, and taps added up in the image.

Everything lies on chip row by row of the image. The taps of one output row are read at once, as
rows of the im2col matrix; what each of them gives to a row of the image is one window with a
stride.
"""

from __future__ import annotations

import math

from accelsim.errors import CapacityError
from accelsim.hw.dma import Dma
from accelsim.hw.vector import Vector
from accelsim.mapping.lowering import Core, Lowering
from accelsim.mapping.placement import ALIGNMENT, readable
from accelsim.mapping.planes import every
from accelsim.mapping.registry import mapper
from accelsim.mapping.rowwise import FP32
from accelsim.mapping.tile_sizes import even_shares
from accelsim.numerics.formats import Format, row_bytes
from accelsim.program.opcodes import Function
from accelsim.program.storage import View
from accelsim.workload.operators import Col2im, Pool2dGrad

F = Function
EVERYTHING = slice(None)


def _memory(core: Core) -> str:
    return max(core.vector()[1].memory, key=lambda name: core.arenas[name].capacity)


def _reach(op: Col2im | Pool2dGrad, tap: int) -> tuple[int, int, int]:
    """(first output column, columns, first image column) of a tap's pixels inside the image."""
    across, offset = op.stride[1], tap - op.padding[2]
    first = max(0, -(offset // across)) if offset < 0 else 0
    last = min(op.out_w - 1, (op.w - 1 - offset) // across)
    return first, last - first + 1, first * across + offset


@mapper("vector-col2im", lowers=("col2im",), needs=(Vector, Dma))
def vector_col2im(op: Col2im, low: Lowering) -> None:
    """Rows of the image in turn: the taps of all output rows that meet it, added up."""
    low.begin_kernel()
    shares = even_shares(op.batch * op.h, len(low.cores))
    for core, rows in zip(low.cores, shares, strict=False):
        _Col2im(op, low, core).emit(rows)


class _Col2im:
    """The image rows of one core."""

    def __init__(self, op: Col2im, low: Lowering, core: Core) -> None:
        self.op, self.low, self.core = op, low, core
        core.reset()
        self.slot = core.vector()[0]
        self.fmt = low.format(op.inputs[0])
        self.width = op.fh * op.fw * op.channels
        self.taps = low.matrix(op.inputs[0], cols=self.width)
        self.image = low.matrix(op.output, cols=op.channels)
        memory, run = _memory(core), op.fw * op.channels
        needed = 2 * op.out_w * row_bytes(run, self.fmt) + 8 * op.w * op.channels + 4 * ALIGNMENT
        if needed > core.arenas[memory].free:
            raise CapacityError(
                f"a row of taps and one of the image need {readable(needed)}, {memory} has"
                f" {readable(core.arenas[memory].capacity)}"
            )
        self.tiles = core.ring(memory, "taps", op.out_w, run, self.fmt)
        self.sums = core.ring(memory, "row", op.w, op.channels, FP32)

    def emit(self, rows: range) -> None:
        """Emit image rows, counted over the whole batch."""
        op, build = self.op, self.low.build
        build.reserve(len(rows) * (2 + op.fw + 1) * -(-op.fh // op.stride[0]), "taps of an image")
        for row in rows:
            image, y = divmod(row, op.h)
            sums = self.sums.next()
            build.fill(self.core.load_queues[-1], sums, 0.0)
            for tap_row in range(op.fh):
                below, rest = divmod(y + op.padding[0] - tap_row, op.stride[0])
                if not rest and 0 <= below < op.out_h:
                    self._add(sums, image * op.out_h + below, tap_row)
            build.store(self.core.store_queue, self.image[row * op.w : (row + 1) * op.w, :], sums)

    def _add(self, sums: View, out_row: int, tap_row: int) -> None:
        """Add a filter row's taps of one output row."""
        op, build = self.op, self.low.build
        tile, run = self.tiles.next(), op.fw * op.channels
        pixels = slice(out_row * op.out_w, (out_row + 1) * op.out_w)
        columns = slice(tap_row * run, (tap_row + 1) * run)
        build.load(self.core.load_queues[0], tile, self.taps[pixels, columns])
        for tap in range(op.fw):
            first, count, start = _reach(op, tap)
            if count > 0:
                mine = tile[first : first + count, tap * op.channels : (tap + 1) * op.channels]
                into = every(sums, start, count, op.stride[1])
                build.vector(self.slot, F.ADD, into, into, mine)


@mapper("vector-pool-grad", lowers=("pool2d_grad",), needs=(Vector, Dma))
def vector_pool_grad(op: Pool2dGrad, low: Lowering) -> None:
    """Output rows in turn: what comes back, for the tap that was the largest, or shared by all."""
    low.begin_kernel()
    shares = even_shares(op.batch * op.out_h, len(low.cores))
    for core, rows in zip(low.cores, shares, strict=False):
        _PoolGrad(op, low, core).emit(rows)


class _PoolGrad:
    """The output rows of one core."""

    def __init__(self, op: Pool2dGrad, low: Lowering, core: Core) -> None:
        self.op, self.low, self.core = op, low, core
        core.reset()
        memory = _memory(core)
        self.slot = core.vector()[0]
        channels, taps = op.channels, op.fh * op.fw
        self.fmt = low.format(op.inputs[0])
        self.grads = low.matrix(op.inputs[0], cols=channels)
        self.result = low.matrix(op.output, cols=taps * channels)
        row = row_bytes(channels, self.fmt)
        needed = op.out_w * (4 * row + 2 * taps * row + 2 * taps * row + 8 * channels)
        if needed + 12 * ALIGNMENT > core.arenas[memory].free:
            raise CapacityError(
                f"the windows of one output row need {readable(needed)}, {memory} has"
                f" {readable(core.arenas[memory].capacity)}"
            )
        self.grad = core.ring(memory, "grad", op.out_w, channels, self.fmt)
        self.out = core.ring(memory, "taps", op.out_w, taps * channels, self.fmt)
        if op.function == "max":
            self.x = core.ring(memory, "x", op.out_w, taps * channels, self.fmt)
            self.y = core.ring(memory, "y", op.out_w, channels, self.fmt)
            self.hit = core.ring(memory, "hit", op.out_w, channels, FP32, 1)
            self.free = core.ring(memory, "free", op.out_w, channels, FP32, 1)

    def emit(self, rows: range) -> None:
        """Emit output rows, counted over the whole batch."""
        op, build = self.op, self.low.build
        taps = op.fh * op.fw
        build.reserve(len(rows) * (3 + 6 * taps), "taps of a pooling")
        for row in rows:
            pixels = slice(row * op.out_w, (row + 1) * op.out_w)
            grad, out = self.grad.next(), self.out.next()
            build.load(self.core.load_queues[0], grad, self.grads[pixels, :])
            if op.function == "max":
                self._largest(row, grad, out)
            else:
                for tap in range(taps):
                    mine = self._tap(out, tap)
                    build.vector(self.slot, F.MUL_IMM, mine, grad, None, 1.0 / taps)
            build.store(self.core.store_queue, self.result[pixels, :], out)

    def _tap(self, view: View, tap: int) -> View:
        return view[:, tap * self.op.channels : (tap + 1) * self.op.channels]

    def _largest(self, row: int, grad: View, out: View) -> None:
        """What comes back, where a pixel is the first that equals the largest of its window."""
        op, build = self.op, self.low.build
        queue, slot = self.core.load_queues[0], self.slot
        x, y, hit, free = (ring.next() for ring in (self.x, self.y, self.hit, self.free))
        pooled = self.low.matrix(op.inputs[2], cols=op.channels)
        build.load(queue, y, pooled[row * op.out_w : (row + 1) * op.out_w, :])
        for tap in range(op.fh * op.fw):
            self._load(self._tap(x, tap), row, *divmod(tap, op.fw))
        for tap in range(op.fh * op.fw):
            build.vector(slot, F.SUB, hit, y, self._tap(x, tap))
            build.vector(slot, F.STEP, hit, hit)  # 1 where the largest is larger
            if tap == 0:
                build.vector(slot, F.MUL_IMM, hit, hit, None, -1.0)
                build.vector(slot, F.ADD_IMM, hit, hit, None, 1.0)
                build.vector(slot, F.MUL, self._tap(out, tap), grad, hit)
                build.vector(slot, F.MUL_IMM, free, hit, None, -1.0)
                build.vector(slot, F.ADD_IMM, free, free, None, 1.0)
                continue
            build.vector(slot, F.MUL, hit, free, hit)  # free, and not the largest: stays free
            build.vector(slot, F.SUB, free, free, hit)
            build.vector(slot, F.MUL, self._tap(out, tap), grad, free)
            build.vector(slot, F.COPY, free, hit)

    def _load(self, tile: View, row: int, tap_row: int, tap: int) -> None:
        """The pixels that a tap of an output row meets; what lies outside is below all values."""
        op, build, queue = self.op, self.low.build, self.core.load_queues[0]
        image, out_y = divmod(row, op.out_h)
        y = out_y * op.stride[0] + tap_row - op.padding[0]
        first, count, start = _reach(op, tap)
        inside = 0 <= y < op.h and count > 0
        lowest = _least(self.fmt)
        if not inside:
            build.fill(queue, tile, lowest, part=True)
            return
        if first > 0:
            build.fill(queue, tile[:first, EVERYTHING], lowest, part=True)
        if first + count < op.out_w:
            build.fill(queue, tile[first + count :, EVERYTHING], lowest, part=True)
        element = ((image * op.h + y) * op.w + start) * op.channels
        source = self.low.window(
            op.inputs[1], element, count, op.channels, op.stride[1] * op.channels
        )
        build.load(queue, tile[first : first + count, EVERYTHING], source, part=True)


def _least(fmt: Format) -> float:
    """What no value of a format is below."""
    return -fmt.largest if not fmt.has_infinity else -math.inf
