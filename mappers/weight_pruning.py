"""Compact copies of weights: dense tiles in, coded tiles out, through a pruning unit."""

from __future__ import annotations

from accelsim.errors import AccelsimError, CapacityError
from accelsim.hw.dma import Dma
from accelsim.hw.pruner import Pruner
from accelsim.mapping.lowering import Lowering
from accelsim.mapping.placement import ALIGNMENT
from accelsim.mapping.products import steps
from accelsim.mapping.registry import mapper
from accelsim.numerics.formats import number_format, row_bytes
from accelsim.program.storage import View
from accelsim.workload.pruning_operators import PruneWeight

BYTE = number_format("uint8")
WIDE = 256  # columns of a tile, where a weight has more


@mapper("prune-weight", lowers=("prune_weight",), needs=(Pruner, Dma), reads_coded=True)
def prune_weight(op: PruneWeight, low: Lowering) -> None:
    """Tiles of whole groups, double-buffered, tap by tap."""
    core = low.cores[0]
    slot, unit = core.of(Pruner)[0]
    name = f"nm:{op.kept}:{op.group}"
    if not unit.encodes(name):
        raise AccelsimError(
            f"the pruning unit takes groups of at most {unit.largest_group}, not {name}"
        )
    copy = low.matrix(op.output, rows=op.taps * op.rows, cols=op.cols)
    weight = low.matrix(op.inputs[0], rows=copy.rows * copy.cols // _width(op), cols=_width(op))
    height, width = _tile(op, core.arenas[unit.memory].free, weight.fmt.bits)
    shape = (width, height) if op.turned else (height, width)
    dense = core.ring(unit.memory, "dense", *shape, weight.fmt)
    # No copy is longer than what it is made of, and an index byte for every element.
    room = height * row_bytes(width, weight.fmt) + height * width
    coded = core.ring(unit.memory, "coded", 1, room, BYTE)
    for tap in range(op.taps):
        for rows in steps(op.rows, height):
            for cols in steps(op.cols, width):
                place, buffers = (tap, rows, cols), (dense.next(), coded.next())
                _emit(op, low, slot, place, (weight, copy), buffers)


def _width(op: PruneWeight) -> int:
    """Columns of the weight as it is stored."""
    return op.rows if op.turned else op.cols


def _tile(op: PruneWeight, free_bytes: int, bits: int) -> tuple[int, int]:
    """Rows and columns of a tile of the copy, of whole groups; CapacityError if none fits."""
    width, height = min(op.cols, WIDE // op.group * op.group or op.group), op.rows
    each = 2 * width * (2 * bits + 8) // 8  # two buffers, dense and coded
    most = (free_bytes - 8 * ALIGNMENT) // each
    if height > most:
        height = most // op.group * op.group
    if height < 1:
        raise CapacityError(f"two tiles of {op.group} x {width} weights do not fit on chip")
    return height, width


def _emit(
    op: PruneWeight,
    low: Lowering,
    slot: int,
    place: tuple[int, slice, slice],
    matrices: tuple[View, View],
    buffers: tuple[View, View],
) -> None:
    """One tile: loaded, pruned, stored."""
    (tap, rows, cols), (weight, copy), (dense, buffer) = place, matrices, buffers
    core = low.cores[0]
    height, width = rows.stop - rows.start, cols.stop - cols.start
    first = tap * op.rows
    target = low.coded.tile(copy[first + rows.start : first + rows.stop, cols])
    if op.turned:
        from_tap = (op.taps - 1 - tap) * op.cols
        source = weight[from_tap + cols.start : from_tap + cols.stop, rows]
        tile = dense[:width, :height]
    else:
        source = weight[first + rows.start : first + rows.stop, cols]
        tile = dense[:height, :width]
    low.build.load(core.load_queues[0], tile, source)
    waiting = low.build.coded(buffer.storage, 0, target.nbytes, target.form)
    low.build.encode(slot, waiting, tile, transpose=op.turned)
    low.build.store(core.store_queue, target, waiting)
