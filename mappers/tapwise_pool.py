"""Pooling on the vector unit: the taps of a window, one after the other, over a tile of images.

The tile lies on chip in planes (accelsim/mapping/planes.py), so that a tap of a run of pixels is
one window and one vector instruction.
"""

from __future__ import annotations

import math

from accelsim.errors import CapacityError
from accelsim.hw.dma import Dma
from accelsim.hw.vector import Vector
from accelsim.mapping.lowering import Core, Lowering
from accelsim.mapping.placement import ALIGNMENT, readable
from accelsim.mapping.planes import Planes, corners, image_counts, row_counts
from accelsim.mapping.registry import mapper
from accelsim.mapping.rowwise import FP32
from accelsim.numerics.formats import Format, row_bytes
from accelsim.program.opcodes import Function
from accelsim.program.storage import View
from accelsim.workload.operators import Pool2d

F = Function
# Tiles rather than one, so that loads, taps and stores overlap.
TILES = 4


@mapper("tapwise-pool", lowers=("pool2d",), needs=(Vector, Dma))
def tapwise_pool(op: Pool2d, low: Lowering) -> None:
    """Maximum or mean over the taps of every window, tiles of whole rows."""
    cores = low.cores
    planes = _tile(op, low, cores[0])
    low.build.note(f"tiles of {planes.images} images, {planes.out_rows} rows")
    places = corners(op, planes.images, planes.out_rows)
    for i, core in enumerate(cores):
        if mine := places[i :: len(cores)]:
            _lower_core(op, low, core, planes, mine)


def _tile(op: Pool2d, low: Lowering, core: Core) -> Planes:
    """The largest tiles that fit twice, and leave a few to overlap."""
    arena = core.arenas[_memory(core)]
    fmt = low.format(op.inputs[0])
    row = row_bytes(op.channels, fmt)
    result = row if op.function == "max" else 4 * op.channels
    fitting = []
    for images in image_counts(op):
        for rows in row_counts(op):
            planes = Planes(op, images, rows)
            needed = 2 * (planes.rows * row + planes.result_rows * result + 2 * ALIGNMENT)
            if needed <= arena.free:
                fitting.append(planes)
    if not fitting:
        raise CapacityError(
            f"one row of one image with its double buffers does not fit ({readable(arena.free)})"
        )
    wanted = min(TILES, op.batch * op.out_h)
    several = [p for p in fitting if _count(op, p) >= wanted] or fitting
    return min(several, key=lambda p: (_count(op, p), p.rows))


def _count(op: Pool2d, planes: Planes) -> int:
    return math.ceil(op.batch / planes.images) * math.ceil(op.out_h / planes.out_rows)


def _memory(core: Core) -> str:
    return max(core.vector()[1].memory, key=lambda name: core.arenas[name].capacity)


def _lower_core(
    op: Pool2d, low: Lowering, core: Core, planes: Planes, places: list[tuple[int, int, int]]
) -> None:
    core.reset()
    memory, fmt = _memory(core), low.format(op.inputs[0])
    largest = op.function == "max"
    tiles = core.ring(memory, "x", planes.rows, op.channels, fmt)
    results = core.ring(memory, "y", planes.result_rows, op.channels, fmt if largest else FP32)
    target = low.matrix(op.output, cols=op.channels)
    for place in places:
        tile, result = tiles.next(), results.next()
        outside = _least(fmt) if largest else 0.0
        channels = slice(0, op.channels)
        planes.load(low, core.load_queues[0], tile, place, channels, outside)
        _reduce(op, low, core.vector(memory)[0], planes, tile, result)
        for mine, pixels in planes.results(result, target, place):
            low.build.store(core.store_queue, pixels, mine)


def _least(fmt: Format) -> float:
    """What no value of a format is below; integers saturate."""
    # Without infinities, an e4m3 -Inf would be NaN, and so would every maximum that it enters.
    return -fmt.largest if fmt.is_float and not fmt.has_infinity else -math.inf


def _reduce(op: Pool2d, low: Lowering, unit: int, planes: Planes, tile: View, result: View) -> None:
    """Every tap of all windows of a tile, into its result."""
    length = planes.run(planes.out_rows)
    done = result[:length, :]
    for i in range(op.fh):
        for j in range(op.fw):
            start = planes.tap(i, j)
            tap = tile[start : start + length, :]
            if i == j == 0:
                low.build.vector(unit, F.COPY, done, tap)
            else:
                low.build.vector(unit, F.MAX if op.function == "max" else F.ADD, done, done, tap)
    if op.function == "mean":
        low.build.vector(unit, F.MUL_IMM, done, done, imm=1.0 / (op.fh * op.fw))
