"""Tile sizes of a tap-by-tap convolution: a closed-form cost over candidate tiles.

The loop nest is: filters > images and rows > channels, or images and rows > filters > channels. The
sums of a tile stay on chip over all taps and channels. What the outer loop fixes is loaded once,
if all its channels fit at once. Cost as in mapping/tiling.py: the slower of arrays and memory, plus
the first loads and the last store, which nothing hides.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from accelsim.errors import CapacityError
from accelsim.hw.systolic import Systolic
from accelsim.mapping.placement import ALIGNMENT, readable
from accelsim.mapping.planes import Planes, image_counts, row_counts
from accelsim.mapping.tile_sizes import even_share
from accelsim.workload.operators import Conv2d

Outer = Literal["filters", "pixels"]
Pieces = Literal["flat", "rows", "halves", "flat filters", "row filters", "pixels"]


@dataclass(frozen=True)
class Machine:
    """What one core offers: ``arrays`` like ``array``, ``free`` bytes of the memory around them
    and main memory's ``bytes_per_cycle`` (0: unlimited) and ``latency``, in array cycles.

    ``bits`` are those of an element of the images and filters, and of a sum.
    """

    array: Systolic
    arrays: int
    free: int
    bytes_per_cycle: float
    latency: float
    bits: tuple[int, int]


@dataclass(frozen=True)
class ConvTiling:
    """Tiles of ``images`` x ``rows`` output rows, ``filters`` and ``channels``.

    ``pieces`` says how a tile's pixels become products: one run per array ("flat"), an output row
    each ("rows"), a share of every row per array ("halves"), or one pixel of all images each, held
    in the array while the filters stream ("pixels"). With "flat filters" and "row filters" the
    arrays share the filters instead, and each takes the whole run or every row.
    """

    images: int
    rows: int
    filters: int
    channels: int
    outer: Outer
    pieces: Pieces
    cycles: float

    def __str__(self) -> str:
        held = ", pixels held in the array" if self.pieces == "pixels" else ""
        return (
            f"tiles of {self.images} images, {self.rows} rows, {self.filters} filters,"
            f" {self.channels} channels, {self.outer} outermost{held}"
        )


@dataclass(frozen=True)
class Sizes:
    """Bytes of the buffers of one tile: images, filters, sums."""

    image: int
    weight: int
    sums: int


def lanes_hold_images(op: Conv2d, array: Systolic) -> bool:
    """Whether the images of the batch, not the channels, lie along the array's lanes.

    XLA pads one dimension of a tensor to the lanes, chosen by heuristics that are not published
    (cloud.google.com/tpu/docs/performance-guide). Here it is the batch where the channels leave
    lanes empty and the batch leaves no more; the measured 64-channel convolution of
    validation/tpu_v3 bears this out.
    """
    return op.cin // op.groups < array.rows and op.batch >= op.cin // op.groups


@lru_cache(maxsize=1024)
def best_conv_tiling(op: Conv2d, machine: Machine) -> ConvTiling:
    """The cheapest tiles that fit; CapacityError if not even the smallest do."""
    found = min(_candidates(op, machine), key=lambda t: t.cycles, default=None)
    if found is None:
        raise CapacityError(
            f"one row of one image with one block of filters does not fit into"
            f" {readable(machine.free)}: enlarge the memory or use a smaller array"
        )
    return found


def _candidates(op: Conv2d, m: Machine) -> Iterator[ConvTiling]:
    depth, width = op.cin // op.groups, op.cout // op.groups
    for images in image_counts(op):
        for rows in row_counts(op):
            planes = Planes(op, images, rows)
            for filters in _blocks(width, m.array.cols):
                for channels in _blocks(depth, m.array.rows):
                    yield from _orders(op, m, planes, filters, channels)


def _blocks(size: int, granule: int) -> list[int]:
    """The whole dimension, and powers of two of the array's extent below it."""
    blocks = {size}
    block = granule
    while block < size:
        blocks.add(block)
        block *= 2
    return sorted(blocks)


def sizes(op: Conv2d, m: Machine, planes: Planes, filters: int, channels: int) -> Sizes:
    """Bytes of one buffer of each kind."""
    element, total = (bits / 8 for bits in m.bits)
    return Sizes(
        math.ceil(planes.rows * channels * element),
        math.ceil(op.fh * op.fw * channels * filters * element),
        math.ceil(planes.result_rows * filters * total),
    )


def slots(op: Conv2d, planes: Planes, filters: int, channels: int) -> tuple[int, int]:
    """Buffers of images and filters: one for what is loaded once, else two."""
    if op.groups > 1 or channels < op.cin:
        return 2, 2
    whole_images = planes.images >= op.batch and planes.out_rows >= op.out_h
    return 1 if whole_images else 2, 1 if filters >= op.cout else 2


def _orders(
    op: Conv2d, m: Machine, planes: Planes, filters: int, channels: int
) -> Iterator[ConvTiling]:
    """Both loop orders of one tile shape, each with its best pieces, if they fit."""
    nbytes = sizes(op, m, planes, filters, channels)
    pixel_tiles = math.ceil(op.batch / planes.images) * math.ceil(op.out_h / planes.out_rows)
    filter_tiles = math.ceil(op.cout // op.groups / filters)
    depth_tiles = math.ceil(op.cin // op.groups / channels)
    image_slots, filter_slots = slots(op, planes, filters, channels)
    used = image_slots * nbytes.image + filter_slots * nbytes.weight + 2 * nbytes.sums
    used += 2 * filters * m.bits[1] // 8  # the bias
    if op.has_residual:
        used += nbytes.sums * m.bits[0] // m.bits[1]
    if used + 12 * ALIGNMENT > m.free:
        return
    pieces, busy = _best_pieces(op, m, planes, filters, channels)
    tiles = op.groups * pixel_tiles * filter_tiles
    for outer in ("filters", "pixels"):
        images = tiles if outer == "filters" else op.groups * pixel_tiles
        weights = tiles if outer == "pixels" else op.groups * filter_tiles
        if pixel_tiles == 1:
            images = op.groups
        if filter_tiles == 1:
            weights = op.groups
        if depth_tiles > 1:
            images = weights = tiles * depth_tiles
        loads = _Loads(tiles * depth_tiles, images, weights)
        cycles = _cycles(op, m, nbytes, loads, busy)
        yield ConvTiling(
            planes.images, planes.out_rows, filters, channels, outer, pieces, cycles
        )  # fmt: skip


@dataclass(frozen=True)
class _Loads:
    """Steps of a loop nest, each one tile of images against one block of filters, and how often
    it loads images and filters."""

    steps: int
    images: int
    weights: int


def _cycles(op: Conv2d, m: Machine, nbytes: Sizes, loads: _Loads, busy: float) -> float:
    """Closed-form cost of a loop nest whose steps keep the arrays ``busy``."""
    work = loads.steps * busy
    if not m.bytes_per_cycle:
        return work
    image, weight = nbytes.image / m.bytes_per_cycle, nbytes.weight / m.bytes_per_cycle
    stored = op.batch * op.out_h * op.out_w * op.cout * m.bits[0] / 8 / m.bytes_per_cycle
    memory = loads.images * image + loads.weights * weight + stored
    last = nbytes.sums * m.bits[0] / m.bits[1] / m.bytes_per_cycle
    # A buffer of a pair is free again one load, the products and their drain later.
    streamed = sum(
        size
        for size, count in ((image, loads.images), (weight, loads.weights))
        if count == loads.steps
    )
    drain = m.latency + m.array.fill_drain_cycles if streamed else 0
    turns = loads.steps * (busy + streamed + drain) / 2
    return max(max(work, turns) + image + weight + last, memory + busy) + 2 * m.latency


def _best_pieces(
    op: Conv2d, m: Machine, planes: Planes, filters: int, channels: int
) -> tuple[Pieces, float]:
    """(pieces, cycles of the busiest array for all taps of one tile)."""
    taps = op.fh * op.fw
    if lanes_hold_images(op, m.array):
        pixels = math.ceil(planes.out_rows * op.out_w / m.arrays)
        return "pixels", taps * pixels * _occupancy(m, filters, planes.images, channels)
    row, row_share = op.out_w * planes.images, math.ceil(op.out_w / m.arrays) * planes.images
    flat = math.ceil(planes.run(planes.out_rows) / m.arrays)
    share = filter_share(m, filters)
    costs: dict[Pieces, float] = {
        "flat": _occupancy(m, flat, filters, channels),
        "rows": math.ceil(planes.out_rows / m.arrays) * _occupancy(m, row, filters, channels),
        "halves": planes.out_rows * _occupancy(m, row_share, filters, channels),
        "flat filters": _occupancy(m, planes.run(planes.out_rows), share, channels),
        "row filters": planes.out_rows * _occupancy(m, row, share, channels),
    }
    best = min(costs, key=lambda name: costs[name])
    return best, taps * costs[best]


def filter_share(m: Machine, filters: int) -> int:
    """Filters of each array where they share a block of them."""
    return even_share(filters, m.arrays, m.array.cols)


def _occupancy(m: Machine, time: int, across: int, depth: int) -> float:
    """Array cycles of a product that streams ``time`` rows past a [depth, across] operand."""
    sizes = (np.array([size], dtype=np.int64) for size in (time, across, depth))
    return float(m.array.cycles(*sizes)[0][0])
