"""Operators that only move data: embedding gather and KV-cache append."""

from __future__ import annotations

from accelsim.errors import CapacityError
from accelsim.hw.dma import Dma
from accelsim.hw.sram import Sram
from accelsim.mapping.attention.heads import append_runs
from accelsim.mapping.lowering import Lowering
from accelsim.mapping.placement import ALIGNMENT
from accelsim.mapping.registry import mapper
from accelsim.mapping.tile_sizes import even_shares
from accelsim.numerics.formats import row_bytes
from accelsim.workload.operators import EmbeddingGather, KvAppend, PrependToken


def rows_that_fit(free_bytes: int, nbytes_per_row: int, rows: int, even: int = 1) -> int:
    """Tile height of a double-buffered pass-through, a multiple of ``even`` if it is larger;
    CapacityError if not even one row fits."""
    fits = (free_bytes - 2 * ALIGNMENT) // (2 * nbytes_per_row)
    if fits < 1:
        raise CapacityError(f"two rows of {nbytes_per_row} bytes do not fit into the scratchpad")
    # A few tiles rather than one, so that stores overlap with loads.
    height = max(1, min(int(fits), -(-rows // 4)))
    return height // even * even if height > even else height


@mapper("dma-gather", lowers=("embedding",), needs=(Dma, Sram))
def dma_gather(op: EmbeddingGather, low: Lowering) -> None:
    """Gather table rows by index into a scratchpad, then store them."""
    table = low.matrix(op.inputs[0], op.vocab, op.hidden)
    ids = low.matrix(op.inputs[1], op.tokens, 1)
    out = low.matrix(op.output, op.tokens, op.hidden)
    everything = slice(None)
    for core, mine in zip(low.cores, even_shares(op.tokens, len(low.cores)), strict=False):
        arena = core.arenas[core.staging]
        row = row_bytes(op.hidden, table.fmt)
        height = rows_that_fit(arena.free, row, len(mine), low.even_rows)
        ring = core.ring(core.staging, "rows", height, op.hidden, table.fmt)
        for top in mine[::height]:
            rows = slice(top, min(top + height, mine.stop))
            tile = ring.next()[: rows.stop - rows.start, everything]
            low.build.gather(core.load_queues[0], tile, table, ids[rows, everything])
            low.build.store(core.store_queue, out[rows, everything], tile)


@mapper("dma-kv-append", lowers=("kv_append",), needs=(Dma, Sram))
def dma_kv_append(op: KvAppend, low: Lowering) -> None:
    """Sequences are dealt to the cores; each head's new rows go to their place in the cache."""
    d, width = op.head_dim, op.kv_heads * op.head_dim
    new = low.matrix(op.inputs[0], op.batch * op.q_len, width)
    everything = slice(None)
    rings = []
    for core in low.cores[: op.batch]:
        arena = core.arenas[core.staging]
        height = rows_that_fit(arena.free, row_bytes(width, new.fmt), op.q_len)
        rings.append(core.ring(core.staging, "new", height, width, new.fmt))
    for sequence in range(op.batch):
        core, ring = low.cores[sequence % len(rings)], rings[sequence % len(rings)]
        for top in range(0, op.q_len, height):
            count = min(height, op.q_len - top)
            tile = ring.next()[:count, everything]
            start = sequence * op.q_len + top
            low.build.load(core.load_queues[0], tile, new[start : start + count, everything])
            for head in range(op.kv_heads):
                mine = tile[everything, head * d : (head + 1) * d]
                first = op.position_of(sequence) + top
                for run in append_runs(op, low, sequence, head, first, first + count):
                    rows = slice(run.first - first, run.first - first + run.view.rows)
                    low.build.store(core.store_queue, run.view, mine[rows, everything])


@mapper("dma-token", lowers=("prepend_token", "drop_token"), needs=(Dma, Sram))
def dma_token(op: PrependToken, low: Lowering) -> None:
    """Sequences are dealt to the cores; a token goes before each, or the first of each is left."""
    low.begin_kernel()
    drops = op.kind == "drop_token"
    x, out = (low.matrix(name, cols=op.hidden) for name in (op.inputs[0], op.output))
    everything = slice(None)
    for index, core in enumerate(low.cores[: op.batch]):
        arena = core.arenas[core.staging]
        height = rows_that_fit(arena.free, row_bytes(op.hidden, x.fmt), op.q_len + 1)
        ring = core.ring(core.staging, "rows", height, op.hidden, x.fmt)
        for sequence in range(index, op.batch, len(low.cores)):
            first, after = sequence * op.q_len, sequence * (op.q_len + 1)
            moves = [
                (after + 1 + top, first + top, min(height, op.q_len - top))
                for top in range(0, op.q_len, height)
            ]
            if not drops:
                tile = ring.next()[:1, everything]
                low.build.load(core.load_queues[0], tile, low.matrix(op.inputs[1], 1, op.hidden))
                low.build.store(core.store_queue, out[after : after + 1, everything], tile)
            for longer, shorter, count in moves:
                source, target = (longer, shorter) if drops else (shorter, longer)
                tile = ring.next()[:count, everything]
                low.build.load(core.load_queues[0], tile, x[source : source + count, everything])
                low.build.store(core.store_queue, out[target : target + count, everything], tile)
