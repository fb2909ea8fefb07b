"""Image tiles on chip for windowed operators: every filter tap of a run of pixels is one window.

A tile holds some rows of some images, zero padding included, with the images innermost: one row of
the buffer is one pixel of one image, all its channels. With a stride the pixels are split into
planes of equal phase (those that one tap can meet), so that neighbouring outputs always read
neighbouring pixels:

    row of the buffer = ((plane * plane_rows + row) * plane_cols + column) * images + image

A tap (i, j) of ``count`` output rows is then one contiguous window; between output rows it covers
(plane_cols - out_w) further pixels, whose results belong to no output. This is the on-chip form of
a channel-first implicit im2col (Zhou et al., Characterizing and Demystifying the Implicit
Convolution Algorithm on Commercial Matrix-Multiplication Accelerators, IISWC 2021, arXiv
2110.03901, who find it in TPUs).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from accelsim.mapping.lowering import Lowering
from accelsim.program.storage import View
from accelsim.workload.operators import Conv2d, Pool2d


@dataclass(frozen=True)
class Planes:
    """The on-chip layout of tiles of ``out_rows`` output rows of ``images`` images."""

    op: Conv2d | Pool2d
    images: int
    out_rows: int

    @cached_property
    def phases(self) -> list[tuple[int, int]]:
        """(row, column) phase of every plane that a tap meets."""
        down, across = self.op.stride
        return [
            (i, j) for i in range(min(down, self.op.fh)) for j in range(min(across, self.op.fw))
        ]

    @property
    def plane_rows(self) -> int:
        return self.out_rows + (self.op.fh - 1) // self.op.stride[0]

    @property
    def plane_cols(self) -> int:
        return self.op.out_w + (self.op.fw - 1) // self.op.stride[1]

    @property
    def rows(self) -> int:
        """Rows of the buffer of one tile."""
        return len(self.phases) * self.plane_rows * self.plane_cols * self.images

    @property
    def pitch(self) -> int:
        """Rows of a result buffer from one output row to the next."""
        return self.plane_cols * self.images

    @property
    def result_rows(self) -> int:
        """Rows of the result buffer of one tile, those between output rows included."""
        return self.out_rows * self.pitch

    def run(self, count: int) -> int:
        """Length of a window over ``count`` output rows."""
        return (count - 1) * self.pitch + self.op.out_w * self.images

    def tap(self, i: int, j: int) -> int:
        """First row of the buffer that tap (i, j) of the tile's first output pixel reads."""
        down, across = self.op.stride
        plane = self.phases.index((i % down, j % across))
        return ((plane * self.plane_rows + i // down) * self.plane_cols + j // across) * self.images

    def load(
        self,
        low: Lowering,
        queue: int,
        tile: View,
        corner: tuple[int, int, int],
        channels: slice,
        outside: float = 0.0,
    ) -> None:
        """Load the tile at ``corner`` (first image, number of images, first output row).

        What lies outside of the image becomes ``outside``.
        """
        first, count, y = corner
        runs = list(self._runs(y))
        if count * sum(length for *_, length in runs) < self.rows:
            low.build.fill(queue, tile, outside)
        for start, row, col, length in runs:
            for image in range(count):
                source = self._pixels(low, first + image, row, col, length, channels)
                target = every(tile, start + image, length, self.images)
                low.build.load(queue, target, source, part=True)

    def _runs(self, y: int) -> Iterator[tuple[int, int, int, int]]:
        """(first row of the buffer, image row, image column, pixels) of every row of a tile."""
        op = self.op
        down, across = op.stride
        for plane, (i, j) in enumerate(self.phases):
            lo = max(0, -((j - op.padding[2]) // across))
            hi = min(self.plane_cols, (op.w - 1 - j + op.padding[2]) // across + 1)
            for r in range(self.plane_rows):
                row = (y + r) * down + i - op.padding[0]
                if 0 <= row < op.h and lo < hi:
                    start = ((plane * self.plane_rows + r) * self.plane_cols + lo) * self.images
                    yield start, row, lo * across + j - op.padding[2], hi - lo

    def _pixels(
        self, low: Lowering, image: int, row: int, col: int, length: int, channels: slice
    ) -> View:
        op = self.op
        element = ((image * op.h + row) * op.w + col) * op.channels_in + channels.start
        width = channels.stop - channels.start
        return low.window(op.inputs[0], element, length, width, op.stride[1] * op.channels_in)

    def results(
        self, tile: View, target: View, corner: tuple[int, int, int]
    ) -> Iterator[tuple[View, View]]:
        """(rows of the result buffer, rows of [pixels, channels] ``target``) of every output row
        of every image."""
        first, count, y = corner
        op = self.op
        for r in range(min(self.out_rows, op.out_h - y)):
            for image in range(count):
                pixel = ((first + image) * op.out_h + y + r) * op.out_w
                mine = every(tile, r * self.pitch + image, op.out_w, self.images)
                yield mine, target[pixel : pixel + op.out_w, :]


def every(view: View, first: int, count: int, step: int) -> View:
    """``count`` rows of a window, ``step`` rows apart, from row ``first`` on."""
    base = view.base + first * view.stride
    return View(view.storage, base, count, view.cols, view.stride * step, view.fmt)


def corners(op: Conv2d | Pool2d, images: int, out_rows: int) -> list[tuple[int, int, int]]:
    """(first image, number of images, first output row) of every tile."""
    return [
        (first, min(images, op.batch - first), y)
        for first in range(0, op.batch, images)
        for y in range(0, op.out_h, out_rows)
    ]


def image_counts(op: Conv2d | Pool2d) -> list[int]:
    """Candidate numbers of images per tile: even shares of the batch."""
    return sorted({-(-op.batch // parts) for parts in (1, 2, 4, 8, 16, 32, 64, op.batch)})


def row_counts(op: Conv2d | Pool2d) -> list[int]:
    """Candidate numbers of output rows per tile: even shares of the image."""
    parts = (1, 2, 3, 4, 6, 8, 14, 16, 28, 32, 64, op.out_h)
    return sorted({-(-op.out_h // p) for p in parts})
