"""Operands of an attention as plain matrices, for mappers that multiply whole ones.

Where a cache lies in pages, is kept in another format than the queries, or has its rope part
apart, what belongs together is first copied to one place in main memory, as frameworks do that
concatenate, gather and convert before a batched product.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

from accelsim.hw.simt import Simt
from accelsim.mapping.attention.heads import (
    EVERYTHING,
    bias_rows,
    cache_runs,
    group_of,
    head_groups,
    place_of,
    queries,
)
from accelsim.mapping.attention.stretches import Stretches
from accelsim.mapping.lowering import Lowering
from accelsim.mapping.placement import ALIGNMENT
from accelsim.mapping.simt_rows import Threads, tile_height
from accelsim.numerics.formats import Format, row_bytes
from accelsim.program.storage import View
from accelsim.workload.operators import Attention

IN_FLIGHT = 32
"""Copies of one core that are on their way at once, at most."""

Copy = tuple[View, View]
"""(target, source), windows of one shape."""


@dataclass
class Plain:
    """Queries [rows, d], keys [n, d] and values [n, head_dim] of a group of score rows,
    d = head_dim + rope_dim, all in the format of the queries. Keys that no query sees are left out:
    the last n = ``keys_read_by`` of a sequence are here, ``kv_len`` at most."""

    op: Attention
    low: Lowering
    copies: list[Copy] = field(default_factory=list)

    def __post_init__(self) -> None:
        op = self.op
        if op.rope_dim:
            self._put_queries()
        if op.rope_dim or op.pages or op.kv_dtype not in ("", self.fmt.name):
            self._put("k", op.head_dim + op.rope_dim)
            if not op.latent:
                self._put("v", op.head_dim)
        if self.copies:
            copy_windows(self.low, self.copies)

    @property
    def kv_len(self) -> int:
        """Keys that are left of a sequence at most."""
        return self.op.keys_read

    def width(self, window: slice) -> int:
        """Keys that a group of score rows is multiplied with."""
        return self.op.keys_read_by[place_of(self.op, window)[0]]

    def scores(self, name: str, fmt: Format) -> Stretches:
        """Room in main memory for a number per score."""
        op = self.op
        height = op.heads * op.q_len
        return Stretches.scratch(self.low, f"{op.name}.{name}", op.keys_read_by, height, fmt)

    @cached_property
    def _tops(self) -> list[int]:
        """Keys of all sequences before each, in what has been copied together."""
        return list(accumulate(self.op.keys_read_by, initial=0))

    @cached_property
    def fmt(self) -> Format:
        """Format of the queries."""
        return self.low.format(self.op.inputs[0])

    @cached_property
    def _room(self) -> dict[str, View]:
        """What has been copied together, by operand."""
        return {}

    def _put_queries(self) -> None:
        op, low = self.op, self.low
        wide = op.head_dim + op.rope_dim
        whole = low.scratch(f"{op.name}.q", op.batch * op.heads * op.q_len, wide, self.fmt)
        self._room["q"] = whole
        for group in head_groups(op):
            self.copies += [
                (whole[group, : op.head_dim], queries(op, low, group)),
                (whole[group, op.head_dim :], queries(op, low, group, "q_rope")),
            ]

    def _put(self, name: str, wide: int) -> None:
        op, low = self.op, self.low
        groups = op.batch * op.kv_heads
        rows = op.kv_heads * self._tops[-1]
        whole = low.scratch(f"{op.name}.{name}", rows, wide, self.fmt)
        self._room[name] = whole
        parts = [(name, slice(0, op.head_dim))]
        if name == "k" and op.rope_dim:
            parts.append(("k_rope", slice(op.head_dim, wide)))
        for group in range(groups):
            first, stop, top = self._place(group)
            for operand, columns in parts:
                for run in cache_runs(op, low, group, operand, first, stop):
                    row = top + run.first - first
                    self.copies.append((whole[row : row + run.view.rows, columns], run.view))

    def _place(self, group: int) -> tuple[int, int, int]:
        """Keys (first, behind the last) of a key head that are here, and their first row."""
        sequence, head = divmod(group, self.op.kv_heads)
        count, stop = self.op.keys_read_by[sequence], self.op.lengths[sequence]
        return stop - count, stop, self._tops[sequence] * self.op.kv_heads + head * count

    def queries(self, window: slice) -> View:
        """Queries of a group of score rows."""
        if "q" in self._room:
            return self._room["q"][window, EVERYTHING]
        return queries(self.op, self.low, window)

    def keys(self, window: slice) -> View:
        """Keys that a group of score rows is multiplied with."""
        return self._of("k", window)

    def values(self, window: slice) -> View:
        """Values that they weigh."""
        if self.op.latent:
            return self._of("k", window)[EVERYTHING, : self.op.head_dim]
        return self._of("v", window)

    def _of(self, name: str, window: slice) -> View:
        group = group_of(self.op, window)
        first, stop, top = self._place(group)
        if name in self._room:
            return self._room[name][top : top + stop - first, EVERYTHING]
        return cache_runs(self.op, self.low, group, name, first, stop)[0].view

    def bias(self, window: slice) -> View:
        """What is added to a group of score rows: one row [1, n] for all of them, or, if they are
        of several heads with one query each, a row for each."""
        rows = bias_rows(self.op, self.low, window)
        return rows[EVERYTHING, rows.cols - self.width(window) :]


def copy_windows(low: Lowering, copies: list[Copy]) -> None:
    """Copy windows of main memory through the cores' scratchpads or registers, converting formats;
    the cores take turns."""
    if low.cores[0].of(Simt):
        _copy_by_threads(low, copies)
    else:
        _copy_by_dma(low, copies)


def _tiles(copies: list[Copy], height: int) -> Iterator[Copy]:
    for target, source in copies:
        for top in range(0, source.rows, height):
            rows = slice(top, min(top + height, source.rows))
            yield target[rows, EVERYTHING], source[rows, EVERYTHING]


def _copy_by_dma(low: Lowering, copies: list[Copy]) -> None:
    wide, fmt = max(source.cols for _, source in copies), copies[0][0].fmt
    tall = max(source.rows for _, source in copies)
    rings = []
    for core in low.cores:
        core.reset()
        free = core.arenas[core.staging].free - 2 * ALIGNMENT
        height = max(1, min(tall, free // (2 * row_bytes(wide, fmt))))
        # Pages are short: many are on their way at once, or latency would be all there is.
        slots = free // (height * row_bytes(wide, fmt) + ALIGNMENT)
        slots = max(2, min(IN_FLIGHT, slots))
        rings.append(core.ring(core.staging, "copied", height, wide, fmt, slots))
    for turn, (target, source) in enumerate(_tiles(copies, height)):
        core, ring = low.cores[turn % len(rings)], rings[turn % len(rings)]
        tile = ring.next()[: source.rows, : source.cols]
        low.build.load(core.load_queues[0], tile, source)
        low.build.store(core.store_queue, target, tile)


def _copy_by_threads(low: Lowering, copies: list[Copy]) -> None:
    wide, fmt = max(source.cols for _, source in copies), copies[0][0].fmt
    tall = max(source.rows for _, source in copies)
    low.launch()
    threads = [Threads(low, core) for core in low.cores]
    height = tile_height(tall, wide, 2 * row_bytes(wide, fmt), threads[0].free)
    rings = [t.ring("copied", height, wide, fmt) for t in threads]
    for turn, (target, source) in enumerate(_tiles(copies, height)):
        t = threads[turn % len(threads)]
        tile = rings[turn % len(rings)].next()[: source.rows, : source.cols]
        low.build.load(t.core.load_queues[0], tile, source)
        t.store(target, tile)
