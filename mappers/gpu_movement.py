"""Operators that only move data, on a GPU: embedding gather and KV-cache append."""

from __future__ import annotations

from collections.abc import Iterator

from accelsim.hw.simt import LoadStore, Simt
from accelsim.mapping.attention.heads import append_runs
from accelsim.mapping.lowering import Lowering
from accelsim.mapping.registry import mapper
from accelsim.mapping.simt_rows import Threads, cut, shares, tile_height
from accelsim.numerics.formats import row_bytes
from accelsim.program.storage import View
from accelsim.workload.operators import EmbeddingGather, KvAppend


@mapper("gpu-gather", lowers=("embedding",), needs=(Simt, LoadStore), preference=1)
def gpu_gather(op: EmbeddingGather, low: Lowering) -> None:
    """Gather table rows by index into registers, then store them."""
    table = low.matrix(op.inputs[0], op.vocab, op.hidden)
    ids = low.matrix(op.inputs[1], op.tokens, 1)
    out = low.matrix(op.output, op.tokens, op.hidden)
    everything = slice(None)
    low.launch()
    for core, tokens in shares(low, op.tokens):
        t = Threads(low, core)
        count = tokens.stop - tokens.start
        height = tile_height(count, op.hidden, 2 * row_bytes(op.hidden, table.fmt), t.free)
        ring = t.ring("rows", height, op.hidden, table.fmt)
        for rows in cut(tokens, height):
            tile = ring.next()[: rows.stop - rows.start, everything]
            low.build.gather(core.load_queues[0], tile, table, ids[rows, everything])
            t.store(out[rows, everything], tile)


@mapper("gpu-kv-append", lowers=("kv_append",), needs=(Simt, LoadStore), preference=1)
def gpu_kv_append(op: KvAppend, low: Lowering) -> None:
    """Every multiprocessor takes some new tokens; each head's rows go to their place."""
    d, width = op.head_dim, op.kv_heads * op.head_dim
    new = low.matrix(op.inputs[0], op.batch * op.q_len, width)
    low.launch()
    threads: dict[int, Threads] = {}
    for core, tokens in shares(low, op.batch * op.q_len, period=op.q_len):
        t = threads.get(core.index)
        if t is None:
            t = threads[core.index] = Threads(low, core)
            share = -(-op.batch * op.q_len // len(low.cores))
            height = tile_height(share, width, 2 * row_bytes(width, new.fmt), t.free)
            ring = t.ring("new", height, width, new.fmt)
        for rows in cut(tokens, height):
            tile = ring.next()[: rows.stop - rows.start, :]
            low.build.load(core.load_queues[0], tile, new[rows, :])
            for head in range(op.kv_heads):
                mine = tile[:, head * d : (head + 1) * d]
                for run, place in _runs(op, low, rows, head):
                    t.store(run, mine[place, :])


def _runs(op: KvAppend, low: Lowering, rows: slice, head: int) -> Iterator[tuple[View, slice]]:
    """Where the rows of one head go in the cache, and which of them; all of one sequence."""
    sequence, token = divmod(rows.start, op.q_len)
    first = op.position_of(sequence) + token
    for run in append_runs(op, low, sequence, head, first, first + rows.stop - rows.start):
        yield run.view, slice(run.first - first, run.first - first + run.view.rows)
