"""Convolution as a matrix product: im2col windows are gathered by strided DMA descriptors.

Row p of the im2col matrix is one output pixel, column (fh, fw, c) one tap of its window. In NHWC
memory, the taps of one filter row and the channels are contiguous, and the next output pixel is
``stride * cin`` elements further, so a tile of the matrix is a few strided 2-D copies. With padding
or groups the taps are fetched one by one, and what lies outside the image is filled with zeros.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from accelsim.hw.dma import Dma
from accelsim.hw.systolic import Systolic
from accelsim.mapping.epilogue import finish_of
from accelsim.mapping.kept import kept_columns
from accelsim.mapping.lowering import Lowering
from accelsim.mapping.operands import Window
from accelsim.mapping.products import Product, lower_products
from accelsim.mapping.registry import mapper
from accelsim.numerics.formats import Format
from accelsim.program.builder import Builder
from accelsim.program.storage import View
from accelsim.workload.operators import Conv2d, ConvWeightGrad


@dataclass(frozen=True)
class Im2col:
    """The [pixels, taps] matrix of one group of a convolution, never stored as such."""

    op: Conv2d
    low: Lowering
    group: int

    @property
    def rows(self) -> int:
        return self.op.gemm_m

    @property
    def cols(self) -> int:
        return self.op.gemm_k

    @property
    def fmt(self) -> Format:
        return self.low.format(self.op.inputs[0])

    def fetch(
        self, build: Builder, queue: int, dst: View, rows: slice, cols: slice, *, part: bool = False
    ) -> None:
        for y, first, last in self._image_rows(rows):
            for tap_row, x_tap, c0, c1 in self._taps(cols):
                window = dst[
                    first - rows.start : last - rows.start, c0 - cols.start : c1 - cols.start
                ]
                self._fetch_taps(build, queue, window, y, first, (tap_row, x_tap, c0))

    def fetches(self, rows: int, cols: int) -> int:
        return -(-rows // self.op.out_w) * -(-cols // self._run)

    @property
    def _run(self) -> int:
        """Taps that lie side by side in memory: a filter row, or the channels of one tap."""
        op = self.op
        channels = op.cin // op.groups
        return op.fw * channels if op.groups == 1 and not any(op.padding[2:]) else channels

    def _image_rows(self, rows: slice) -> Iterator[tuple[int, int, int]]:
        """(output row over the whole batch, first pixel, last pixel + 1) of a range of pixels."""
        pixel = rows.start
        while pixel < rows.stop:
            y = pixel // self.op.out_w
            last = min((y + 1) * self.op.out_w, rows.stop)
            yield y, pixel, last
            pixel = last

    def _taps(self, cols: slice) -> Iterator[tuple[int, int, int, int]]:
        """(filter row, filter column, first matrix column, last + 1) of contiguous runs of taps."""
        op = self.op
        channels, run = op.cin // op.groups, self._run
        start = cols.start // run * run
        for c in range(start, cols.stop, run):
            tap = c // channels
            yield tap // op.fw, tap % op.fw, max(c, cols.start), min(c + run, cols.stop)

    def _fetch_taps(
        self, build: Builder, queue: int, dst: View, y: int, first: int, tap: tuple[int, int, int]
    ) -> None:
        """Fetch one run of taps for pixels of one output row, zeros where it leaves the image."""
        op = self.op
        tap_row, tap_col, column = tap
        image, out_y = divmod(y, op.out_h)
        in_y = out_y * op.stride[0] - op.padding[0] + tap_row
        x0 = first % op.out_w
        # Pixels whose input column lies inside the image: lo .. hi within this run.
        offset = tap_col - op.padding[2]
        step = op.stride[1]
        lo = max(0, -(offset // step) - x0) if offset < 0 else 0
        hi = min(dst.rows, (op.w - 1 - offset) // step - x0 + 1)
        if not any(op.padding[2:]):
            lo, hi = 0, dst.rows
        if not 0 <= in_y < op.h or hi <= lo:
            build.fill(queue, dst, 0.0, part=True)
            return
        everything = slice(None)
        if lo > 0:
            build.fill(queue, dst[0:lo, everything], 0.0, part=True)
        if hi < dst.rows:
            build.fill(queue, dst[hi : dst.rows, everything], 0.0, part=True)
        channels = op.cin // op.groups
        in_x = (x0 + lo) * step + offset
        # A run may start in the middle of its taps when the tile's K edge cuts it.
        within = column - (tap_row * op.fw + tap_col) * channels
        element = ((image * op.h + in_y) * op.w + in_x) * op.cin + self.group * channels + within
        source = self.low.window(op.inputs[0], element, hi - lo, dst.cols, step * op.cin)
        build.load(queue, dst[lo:hi, everything], source, part=True)


@dataclass(frozen=True)
class FlippedTaps(Window):
    """The weights of a flipped convolution's group as [filters, taps], tap by tap.

    They lie as [fh, fw, filters, channels] with the taps in reverse (see Conv2d.flipped).
    """

    channels: int
    filters: int
    group: int

    def fetch(self, build: Builder, queue: int, dst: View) -> None:
        filters, taps = self.window
        channels, last = self.channels, self.stored.rows // self.filters - 1
        for tap in range(taps.start // channels, -(-taps.stop // channels)):
            first, stop = max(tap * channels, taps.start), min((tap + 1) * channels, taps.stop)
            row = (last - tap) * self.filters
            column = (self.group - tap) * channels
            source = self.stored[
                row + filters.start : row + filters.stop, column + first : column + stop
            ]
            mine = dst[:, first - taps.start : stop - taps.start]
            build.load(queue, mine, source, part=mine.cols < dst.cols)


def _weights(op: Conv2d, low: Lowering, group: int) -> View | FlippedTaps:
    """The filters of a group: [taps, filters], or [filters, taps] if they are flipped."""
    filters, channels = op.cout // op.groups, op.cin // op.groups
    if not op.flipped:
        whole = low.matrix(op.inputs[1], cols=op.cout)
        return whole[:, group * filters : (group + 1) * filters]
    whole = low.matrix(op.inputs[1], cols=op.cin)
    everything = (slice(0, filters), slice(0, op.gemm_k))
    return FlippedTaps(whole, everything, channels, filters, group)


@mapper(
    "im2col-conv",
    lowers=("conv2d", "layer_sparse_conv2d"),
    needs=(Systolic, Dma),
    preference=1,
    reads_coded=True,
)
def im2col_conv(op: Conv2d, low: Lowering) -> None:
    """im2col by strided DMA, then the tiled matrix product, one per group."""
    per_group = op.cout // op.groups
    outputs = low.matrix(op.output, cols=op.cout)
    finish = finish_of(op, low)
    everything = slice(None)
    products = []
    for group in range(op.groups):
        cols = slice(group * per_group, (group + 1) * per_group)
        products.append(
            Product(
                kept_columns(op, Im2col(op, low, group)),
                _weights(op, low, group),
                outputs[everything, cols],
                finish.window(everything, cols),
                transpose_b=op.flipped,
            )
        )
    lower_products(low, products)


@mapper("im2col-wgrad", lowers=("conv2d_wgrad",), needs=(Systolic, Dma))
def im2col_wgrad(op: ConvWeightGrad, low: Lowering) -> None:
    """Gradient of filters: the im2col matrix, transposed, times that of the result's gradient."""
    filters = op.cout // op.groups
    given, result = low.matrix(op.inputs[1], cols=op.cout), low.matrix(op.output, cols=op.cout)
    columns = [slice(g * filters, (g + 1) * filters) for g in range(op.groups)]
    products = [
        Product(Im2col(op, low, g), given[:, cols], result[:, cols], transpose_a=True)
        for g, cols in enumerate(columns)
    ]
    lower_products(low, products)
