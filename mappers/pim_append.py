"""New keys and values into caches that lie in banks: a few wide windows per request.

A request's new key lies in runs of a row, one per group of heads; its new value in as many banks as
it has features, the same place in each, which is one window of single elements for each channel
that has some. Every such element costs a whole access of the memory, and at dram fidelity a row
that is opened for it alone, in whatever order: features have rows of their own, so have requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from accelsim.errors import CapacityError
from accelsim.hw.dma import Dma
from accelsim.hw.pim.memory import PimDram
from accelsim.hw.pim.unit import Pim
from accelsim.mapping.bank_layouts import region_pieces
from accelsim.mapping.lowering import Lowering
from accelsim.mapping.registry import mapper
from accelsim.numerics.formats import row_bytes
from accelsim.program.storage import View
from accelsim.workload.operators import KvAppend

if TYPE_CHECKING:
    from accelsim.arch.model import Architecture
    from accelsim.program.table import Region

TILES = 4


def _declines(op: KvAppend, arch: Architecture, forced: bool) -> str:
    """Why an append is not for banks; "" if it is."""
    del arch, forced
    return "" if op.q_len == 1 and not op.page else "one token per sequence and no pages"


@mapper("pim-kv-append", lowers=("kv_append",), needs=(Pim, PimDram, Dma), preference=2,
        declines=_declines)  # fmt: skip
def pim_kv_append(op: KvAppend, low: Lowering) -> None:
    """New rows of many requests on chip at once, then each to its banks."""
    core, width = low.cores[0], op.kv_heads * op.head_dim
    memory = core.of(Pim)[0][1].results
    queues = core.beside_queues
    # A channel takes the features of a value one row of a bank after the other; queues that store
    # side by side keep several channels at it.
    stores = queues[1:] or queues
    new = low.matrix(op.inputs[0], op.batch, width)
    fit = core.arenas[memory].free // TILES // (row_bytes(width, new.fmt) + 64)
    if fit < 1:
        raise CapacityError(f"a row of {width} elements does not fit into {memory} {TILES} times")
    height = min(fit, max(1, -(-op.batch // TILES)))
    arena = core.arenas[memory]
    # At the far end, so that the attention behind need not wait for its place.
    needed = min(TILES, op.batch) * (height * row_bytes(width, new.fmt) + 64)
    arena.take("of other operators", arena.free - needed)
    ring = core.ring(memory, "new", height, width, new.fmt, slots=min(TILES, op.batch))
    for top in range(0, op.batch, height):
        stop = min(top + height, op.batch)
        tile = ring.next()[: stop - top, :]
        low.build.load(queues[0], tile, new[top:stop, :])
        for sequence in range(top, stop):
            _append(
                op,
                low,
                stores[sequence % len(stores)],
                sequence,
                tile[sequence - top : sequence - top + 1, :],
            )


def _append(op: KvAppend, low: Lowering, queue: int, sequence: int, row: View) -> None:
    """One request's new row to its place, neighbouring heads at once."""
    d, cache = op.head_dim, low.matrix(op.output, cols=op.head_dim)
    position = op.position_of(sequence)
    places = []
    for head in range(op.kv_heads):
        ((_, rows),) = op.cache_rows(sequence, head, position, position + 1, op.kv_heads)
        places.append(cache[rows, :])
    placed = low.placed.get(op.output)
    there = (_there(one, placed.regions, d) for one in places) if placed else ()
    windows = _merged([view for one in there for view in one]) if placed else places
    first = 0
    for window in windows:
        count = window.rows * window.cols
        low.build.store(queue, window, row[:, first : first + count].like(window), in_place=True)
        first += count


def _there(window: View, regions: Sequence[Region], columns: int) -> list[View]:
    """Where a row of a cache lies, in the order of its columns."""
    return [view for _, _, view in region_pieces(window, regions, columns)]


def _merged(windows: list[View]) -> list[View]:
    """Windows of neighbouring heads as one where they go on with the same step."""
    found = windows[:1]
    for window in windows[1:]:
        last = found[-1]
        if window.rows == 1 and window.base == last.base + row_bytes(last.cols, last.fmt):
            shape = 1, last.cols + window.cols
        elif window.cols == 1 and window.base == last.base + last.rows * last.stride:
            shape = last.rows + window.rows, 1
        else:
            found.append(window)
            continue
        found[-1] = View(last.storage, last.base, *shape, last.stride, last.fmt)
    return found
