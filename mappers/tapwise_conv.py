"""Convolution tap by tap: image tiles on chip once, one product per filter tap and run of pixels.

Every tap is a product [pixels, channels] @ [channels, filters] of a window of the image tile
(accelsim/mapping/planes.py), summed on chip over all taps; nothing is copied out as im2col would.
Channels lie along the rows of the array, so fewer channels than rows leave part of it idle. Where
the batch fills the lanes better than the channels do, every pixel's images are the stationary
operand and the filters stream past them.

A 1 x 1 convolution without stride is a plain matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.errors import AccelsimError
from accelsim.hw.dma import Dma
from accelsim.hw.systolic import Systolic
from accelsim.mapping.conv_tiling import Machine, best_conv_tiling, filter_share, slots
from accelsim.mapping.epilogue import Finisher, finish_of
from accelsim.mapping.lowering import Core, Lowering
from accelsim.mapping.operands import Stored
from accelsim.mapping.planes import Planes, corners
from accelsim.mapping.products import Product, accumulator_format, lower_products, steps
from accelsim.mapping.registry import mapper
from accelsim.program.storage import View
from accelsim.workload.operators import Conv2d

EVERYTHING = slice(None)
Corner = tuple[int, int, int]


@mapper("tapwise-conv", lowers=("conv2d",), needs=(Systolic, Dma))
def tapwise_conv(op: Conv2d, low: Lowering) -> None:
    """Image tiles stay on chip while every tap multiplies them, channels or images on the lanes."""
    if op.fh == op.fw == 1 and op.stride == (1, 1) and not any(op.padding) and op.groups == 1:
        pixels = op.batch * op.h * op.w
        product = Product(
            Stored(low.matrix(op.inputs[0], rows=pixels)),
            low.matrix(op.inputs[1], cols=op.cin if op.flipped else op.cout),
            low.matrix(op.output, cols=op.cout),
            finish_of(op, low),
            transpose_b=op.flipped,
        )
        lower_products(low, [product])
        return
    for i, core in enumerate(low.cores):
        _Core(op, low, core).emit(i, len(low.cores))


@dataclass
class _Core:
    """The loop nest of one core."""

    op: Conv2d
    low: Lowering
    core: Core

    def __post_init__(self) -> None:
        op, low, core = self.op, self.low, self.core
        core.reset()
        self.slots = [slot for slot, _ in core.arrays]
        array = core.arrays[0][1]
        self.memory = array.outputs
        if {*array.memories()} != {self.memory}:
            raise AccelsimError(
                "tapwise-conv needs one scratchpad for all operands of the arrays, not "
                + ", ".join(dict.fromkeys(array.memories()))
            )
        self.finish = finish_of(op, low)
        self.fmt = low.format(op.inputs[1])
        self.sum_fmt = accumulator_format(self.fmt)
        arena = core.arenas[self.memory]
        hz = low.arch.clocks[array.clock]
        bandwidth = 0.0 if low.ideal else low.memory.peak_bandwidth / len(low.cores) / hz
        self.machine = Machine(
            array, len(self.slots), arena.free,
            bandwidth, low.memory.access_seconds * hz, (self.fmt.bits, self.sum_fmt.bits),
        )  # fmt: skip
        self.tiling = best_conv_tiling(op, self.machine)
        low.build.note(str(self.tiling))
        self.planes = Planes(op, self.tiling.images, self.tiling.rows)
        self._reserve_buffers()
        self.depth, self.width = op.cin // op.groups, op.cout // op.groups
        self.weights = low.matrix(op.inputs[1], cols=op.cin if op.flipped else op.cout)
        self.target = low.matrix(op.output, cols=op.cout)
        for group in () if op.flipped else steps(op.cout, self.width):
            low.layouts.pack(self.weights[:, group], self.tiling.filters)

    def _reserve_buffers(self) -> None:
        t, core = self.tiling, self.core
        taps = self.op.fh * self.op.fw

        fmt = self.low.format(self.op.inputs[0])
        images, filters = slots(self.op, self.planes, t.filters, t.channels)
        self.images = core.ring(self.memory, "images", self.planes.rows, t.channels, fmt, images)
        block = (t.filters, t.channels) if self.op.flipped else (t.channels, t.filters)
        self.filters = core.ring(
            self.memory, "filters", taps * block[0], block[1], self.fmt, filters
        )
        self.sums = core.ring(self.memory, "sums", self.planes.result_rows, t.filters, self.sum_fmt)
        if self.finish.residual is not None:
            residual = self.finish.residual.fmt
            rows = self.planes.result_rows
            self.residuals = core.ring(self.memory, "residual", rows, t.filters, residual, 1)
        self.finisher = Finisher(
            self.low, core, self.memory, t.filters, self.finish, slots=2, streamed=False
        )

    def emit(self, first: int, cores: int) -> None:
        """Every ``cores``-th tile of pixels, from the ``first`` on."""
        t, op = self.tiling, self.op
        places = corners(op, t.images, t.rows)[first::cores]
        blocks = [(g, f) for g in range(op.groups) for f in steps(self.width, t.filters)]
        self.kept: dict[str, tuple[object, View]] = {}
        if t.outer == "filters":
            for group, filters in blocks:
                for place in places:
                    self._tile(place, group, filters)
        else:
            for group in range(op.groups):
                for place in places:
                    for filters in steps(self.width, t.filters):
                        self._tile(place, group, filters)

    def _tile(self, place: Corner, group: int, filters: slice) -> None:
        sums = self.sums.next()[:, : filters.stop - filters.start]
        columns = slice(group * self.width + filters.start, group * self.width + filters.stop)
        residual: View | None = None
        for i, part in enumerate(steps(self.depth, self.tiling.channels)):
            image = self._image(place, group, part)
            weight = self._filters(group, filters, part)
            if i == 0:
                residual = self._residual(place, columns)
            self._multiply(sums, image, weight, part.stop - part.start, i > 0)
        self._store(place, sums, columns, residual)

    def _image(self, place: Corner, group: int, part: slice) -> View:
        """The tile of the images, unless it is the one that is there."""
        key = (place, group, part.start)
        if (held := self.kept.get("image")) and held[0] == key:
            return held[1]
        tile = self.images.next()[:, : part.stop - part.start]
        base = group * self.depth
        channels = slice(base + part.start, base + part.stop)
        self.planes.load(self.low, self.core.load_queues[0], tile, place, channels)
        self.kept["image"] = key, tile
        return tile

    def _filters(self, group: int, filters: slice, part: slice) -> View:
        """The block of filters as [taps * channels, filters], unless it is there."""
        key = (group, filters.start, part.start)
        if (held := self.kept.get("filters")) and held[0] == key:
            return held[1]
        op, channels = self.op, part.stop - part.start
        taps, count = op.fh * op.fw, filters.stop - filters.start
        if op.flipped:
            block = self._flipped(group, filters, part)
            self.kept["filters"] = key, block
            return block
        block = self.filters.next()[: taps * channels, :count]
        base = group * self.width
        columns = slice(base + filters.start, base + filters.stop)
        queue = self.core.load_queues[-1]
        if channels == self.depth:
            self.low.build.load(queue, block, self.weights[:, columns])
        else:
            for tap in range(taps):
                rows = slice(tap * self.depth + part.start, tap * self.depth + part.stop)
                mine = block[tap * channels : (tap + 1) * channels, :]
                self.low.build.load(queue, mine, self.weights[rows, columns], part=True)
        self.kept["filters"] = key, block
        return block

    def _flipped(self, group: int, filters: slice, part: slice) -> View:
        """A block of flipped filters as [taps * filters, channels], the taps in reverse."""
        taps, count = self.op.fh * self.op.fw, filters.stop - filters.start
        block = self.filters.next()[: taps * count, : part.stop - part.start]
        first = group * self.depth
        columns = slice(first + part.start, first + part.stop)
        for tap in range(taps):
            stored = (taps - 1 - tap) * self.width
            source = self.weights[stored + filters.start : stored + filters.stop, columns]
            mine = block[tap * count : (tap + 1) * count, :]
            self.low.build.load(self.core.load_queues[-1], mine, source, part=taps > 1)
        return block

    def _multiply(self, sums: View, image: View, weight: View, channels: int, more: bool) -> None:
        """All taps of one tile; the arrays share its pixels."""
        op, planes = self.op, self.planes
        pieces = self._pieces()
        held, flipped = self.tiling.pieces == "pixels", op.flipped
        height = sums.cols if flipped else channels
        for tap in range(op.fh * op.fw):
            start = planes.tap(*divmod(tap, op.fw))
            taps = weight[tap * height : (tap + 1) * height, :]
            for array, first, length, columns in pieces:
                if (columns.start or 0) >= sums.cols:
                    continue
                self.low.build.matmul(
                    self.slots[array],
                    sums[first : first + length, columns],
                    image[start + first : start + first + length, :],
                    taps[columns, :] if flipped else taps[:, columns],
                    accumulate=more or tap > 0,
                    transpose_b=flipped,
                    stationary_a=held,
                    part=len(pieces) > 1,
                )

    def _pieces(self) -> list[tuple[int, int, int, slice]]:
        """(array, first row of the result, rows, columns) of the products of one tap."""
        how, planes, arrays = self.tiling.pieces, self.planes, len(self.slots)
        images, width = planes.images, self.op.out_w
        if how.endswith("filters"):
            share = filter_share(self.machine, self.tiling.filters)
            columns = list(enumerate(steps(self.tiling.filters, share)))
            return [(i, *run, part) for run in self._written() for i, part in columns]
        if how == "flat":
            runs = _shares(0, planes.run(planes.out_rows), 1, arrays)
        elif how == "rows":
            runs = [(i % arrays, *run) for i, run in enumerate(self._written())]
        elif how == "halves":
            rows = [first for first, _ in self._written()]
            runs = [r for first in rows for r in _shares(first, width * images, images, arrays)]
        else:
            pixels = [first + x * images for first, _ in self._written() for x in range(width)]
            runs = [(i % arrays, first, images) for i, first in enumerate(pixels)]
        return [(*run, EVERYTHING) for run in runs]

    def _store(self, place: Corner, sums: View, columns: slice, residual: View | None) -> None:
        """Finish the sums of a tile and store the pixels.

        Between the output rows lies what no product wrote: only the rows that were are finished.
        """
        planes, finisher = self.planes, self.finisher
        bias = finisher.bias(self.finish.window(EVERYTHING, columns))
        for first, length in self._written():
            if bias is not None:
                finisher.add(sums[first : first + length, :], bias)
        if residual is not None:
            for first, length in self._rows(min(planes.out_rows, self.op.out_h - place[2])):
                run = slice(first, first + length)
                finisher.add(sums[run, :], residual[run, :])
        for first, length in self._written():
            if self.finish.activation:
                finisher.activate(sums[first : first + length, :], self.finish.activation)
        for mine, pixels in planes.results(sums, self.target[:, columns], place):
            self.low.build.store(self.core.store_queue, pixels, mine)

    def _residual(self, place: Corner, columns: slice) -> View | None:
        """What is added to the pixels of a tile, on chip in the layout of its sums."""
        if self.finish.residual is None:
            return None
        tile = self.residuals.next()[:, : columns.stop - columns.start]
        source = self.finish.residual[:, columns]
        if place[1] < self.planes.images:
            self.low.build.fill(self.core.load_queues[-1], tile, 0.0)
        for mine, pixels in self.planes.results(tile, source, place):
            self.low.build.load(self.core.load_queues[-1], mine, pixels, part=True)
        return tile

    def _written(self) -> list[tuple[int, int]]:
        """(first row, rows) of the parts of a result buffer that the products wrote."""
        planes = self.planes
        if self.tiling.pieces.startswith("flat"):
            return [(0, planes.run(planes.out_rows))]
        return self._rows(planes.out_rows)

    def _rows(self, count: int) -> list[tuple[int, int]]:
        """(first row, rows) of every output row of a result buffer."""
        planes = self.planes
        length = self.op.out_w * planes.images
        return [(r * planes.pitch, length) for r in range(count)]


def _shares(first: int, length: int, granule: int, parts: int) -> list[tuple[int, int, int]]:
    """(part, first row, rows) of even shares of a run, in whole granules."""
    share = -(-length // (parts * granule)) * granule
    return [
        (i, start, min(share, first + length - start))
        for i, start in enumerate(range(first, first + length, share))
    ]
