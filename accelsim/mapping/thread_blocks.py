"""Matrix products as grids of CTAs: panels stream through the caches, sums stay in registers.

A CTA is a few MATMUL instructions on one multiprocessor's tensor cores, one for each chunk of K,
and the store of its tile by the multiprocessor's threads. If K is split, it stores partial sums for
a second kernel, or it adds what the CTA before it left and leaves the sum to the next (real
kernels use the result itself for that; here every sum has its place, as in a workspace).

The operands of an instruction are windows of main memory. CTAs that run side by side read the same
panels at about the same time, so whether a panel comes from the cache or from memory is for the
cache to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

from accelsim.errors import AccelsimError
from accelsim.hw.simt import LoadStore
from accelsim.mapping.cta import Gpu, Products, best_grid, ctas
from accelsim.mapping.epilogue import Finisher
from accelsim.mapping.kernel_weights import KernelWeights
from accelsim.mapping.lowering import Core, Lowering, Ring
from accelsim.mapping.operands import Stored
from accelsim.mapping.products import Product, steps
from accelsim.mapping.simt_rows import add_parts, cut
from accelsim.numerics.formats import number_format
from accelsim.program.opcodes import Function
from accelsim.program.storage import CodedView, View

INSTRUCTIONS_PER_KERNEL = 8_000
"""Chunks of K are as short as this many instructions allow, up to MOST_CHUNKS of a CTA."""
MOST_CHUNKS = 16
SHORTEST_CHUNK = 128
CACHE_SHARE = 2
"""A wave's chunks fill at most 1/CACHE_SHARE of the cache, so that neighbours find them there."""
SPARSE_STEPS = (
    "sparse tensor cores: one instruction adds as a dense one does on the selected pairs,"
    " a hypothesis that no capture has confirmed"
)
HANDED_ON = 4096
"""Elements of an earlier CTA's sums that are loaded at once: some for each thread's registers."""


def lower_grids(low: Lowering, products: Sequence[Product]) -> None:
    """One kernel for all products of a shape."""
    groups: dict[tuple[int, int, int], list[Product]] = {}
    for product in products:
        groups.setdefault((product.m, product.n, product.k), []).append(product)
    for group in groups.values():
        _Kernel(low, group).emit()


def lower_grid(low: Lowering, products: Sequence[Product]) -> None:
    """One kernel for products that differ in m only."""
    _Kernel(low, products).emit()


def gpu_of(low: Lowering) -> Gpu:
    """What the closed form may count on."""
    core = low.cores[0]
    tensor = core.tensor_cores[1]
    hz = low.arch.clocks[tensor.clock]
    capacity, cache = shared_cache(low, hz)
    return Gpu(
        tensor=tensor,
        lsu=core.of(LoadStore)[0][1],
        launch=core.threads[1].launch,
        cores=len(low.cores),
        register_bytes=core.arenas[tensor.accumulators].capacity,
        memory_bytes=0.0 if low.ideal else low.memory.peak_bandwidth / hz,
        latency=low.memory.access_seconds * hz,
        cache_bytes=0.0 if low.ideal else cache,
        cache_capacity=capacity,
    )


def shared_cache(low: Lowering, hz: int) -> tuple[int, float]:
    """Capacity of the cache that all cores share before main memory, and its bytes per cycle."""
    arch = low.arch
    for cache in arch.caches.values():
        if cache.shared and cache.of == arch.main_memory()[0]:
            return cache.capacity, cache.bytes_per_cycle * arch.hz_of(cache) / hz
    return 0, 0.0


@dataclass(frozen=True)
class _Cta:
    """One CTA: a tile of one product and a part of K."""

    product: int
    rows: slice
    cols: slice
    part: int


class _Kernel:
    """All products of one n and k as one grid; its tiles are chosen for the mean m."""

    def __init__(self, low: Lowering, products: Sequence[Product]) -> None:
        self.low, self.build, self.products = low, low.build, products
        first = products[0]
        self.acc_fmt = first.sums
        mean = -(-sum(p.m for p in products) // len(products))
        self.gpu = gpu_of(low)
        self.weights = KernelWeights.of(low, self.gpu.tensor, products)
        self.shape = Products(
            mean, first.n, first.k, len(products), first.b.fmt.bits, first.c.fmt.bits,
            self.weights.reading, self.weights.columns,
        )  # fmt: skip
        self.grid = best_grid(self.shape, self.gpu)
        low.build.note(f"{self.grid}{self.weights}")
        if self.weights.speedup > 1:
            low.build.approximate(SPARSE_STEPS)
        self.views: dict[tuple[int, bool, int, int], View | CodedView] = {}

    def emit(self) -> None:
        """Launch, run all CTAs, and add the parts of K if there are several."""
        chunks, first = self._chunks(), self.products[0]
        self.order = self.gpu.tensor.order(
            first.b.fmt, len(chunks), self.acc_fmt, first.c.fmt,
            grain=self.grain, speedup=self.weights.speedup,
        )  # fmt: skip
        self.build.reduce(self.order)
        total = ctas(self.shape, self.grid) * (len(chunks[0]) + 1)
        shape = self.shape
        self.build.reserve(total, f"[{shape.m}, {shape.k}] @ [{shape.k}, {shape.n}]")
        self.low.launch()
        rings = self._rings()
        parts = self._workspace(len(chunks))
        serial = self.order.merge == "serial"
        finishers = [] if parts and not serial else self._finishers()
        handed_on = self._handed_on() if serial else []
        for i, cta in enumerate(self._raster()):
            core = i % len(self.low.cores)
            sums = self._sums(self.low.cores[core], rings[core], cta, chunks[cta.part])
            if serial and cta.part > 0:
                left = parts[cta.product][cta.part - 1]
                self._take_over(core, handed_on[core], left, cta, sums)
            if parts and cta.part < len(parts[cta.product]):
                target = parts[cta.product][cta.part]
            else:
                product = self.products[cta.product]
                finishers[core].finish(sums, product.finish.window(cta.rows, cta.cols))
                target = product.c
            store = self.low.cores[core].store_queue
            self.build.store(store, target[cta.rows, cta.cols], sums)
        if parts and not serial:
            results = [(p.c, p.finish) for p in self.products]
            add_parts(self.low, parts, results)

    def _chunks(self) -> list[list[slice]]:
        """Per part of K its chunks: short enough for the cache and the instruction budget."""
        shape, grid = self.shape, self.grid
        part = -(-shape.k // grid.split)
        budget = INSTRUCTIONS_PER_KERNEL // ctas(shape, grid) - 1
        wanted = max(1, min(MOST_CHUNKS, budget, part // SHORTEST_CHUNK))
        if self.gpu.cache_capacity:
            height = min(grid.height, len(self.low.cores))
            width = -(-len(self.low.cores) // height)
            wave = shape.panel_bytes((height * grid.tile[0], width * grid.tile[1]), part)
            wanted = max(wanted, ceil(wave * CACHE_SHARE / self.gpu.cache_capacity))
        granule = self.weights.granule
        step = self.weights.step or max(granule, -(-part // (wanted * granule)) * granule)
        # Coded weights are cut alike in all parts, for whoever else reads them.
        self.grain = step if self.weights.reading else granule
        aligned = -(-part // self.grain) * self.grain
        self.weights.cut(self.low, self.products, grid.tile[1], step)
        return [
            [slice(first, min(first + step, end)) for first in range(start, end, step)]
            for start in range(0, shape.k, aligned)
            for end in (min(start + aligned, shape.k),)
        ]

    def _rings(self) -> list[Ring]:
        rows, cols = self.grid.tile
        memory = self.gpu.tensor.accumulators
        for core in self.low.cores:
            core.reset()
        return [
            core.ring(memory, "sums", rows, cols, self.acc_fmt, self.grid.buffers)
            for core in self.low.cores
        ]

    def _finishers(self) -> list[Finisher]:
        """What adds biases to the sums, per core."""
        memory, width = self.gpu.tensor.accumulators, self.grid.tile[1]
        like = self.products[0].finish
        return [Finisher(self.low, core, memory, width, like, 2) for core in self.low.cores]

    def _workspace(self, parts: int) -> list[list[View]]:
        """Per product a matrix of sums for each part of K, the last not if all add to it."""
        if parts == 1:
            return []
        fmt = number_format(self.order.partials)
        stored = parts - (self.order.merge == "serial")
        return [
            [self.low.scratch(f"part{i}.{part}", p.m, p.n, fmt) for part in range(stored)]
            for i, p in enumerate(self.products)
        ]

    def _handed_on(self) -> list[Ring]:
        """Where a CTA's threads load what the one before left, per core."""
        memory, (rows, cols) = self.gpu.tensor.accumulators, self.grid.tile
        fmt = number_format(self.order.partials)
        self.height = max(1, min(rows, HANDED_ON // cols))
        return [core.ring(memory, "before", self.height, cols, fmt) for core in self.low.cores]

    def _take_over(self, index: int, ring: Ring, left: View, cta: _Cta, sums: View) -> None:
        """Add to a CTA's sums those of the parts before, a few rows at a time."""
        core = self.low.cores[index]
        threads = core.vector(self.gpu.tensor.accumulators)[0]
        for rows in cut(cta.rows, self.height):
            before = ring.next()[: rows.stop - rows.start, : sums.cols]
            self.build.load(core.load_queues[0], before, left[rows, cta.cols])
            some = sums[rows.start - cta.rows.start : rows.stop - cta.rows.start, :]
            self.build.vector(threads, Function.ADD, some, some, before)

    def _raster(self) -> Iterator[_Cta]:
        """CTAs in order of issue: blocks of ``height`` tiles of m, column by column."""
        cols = steps(self.shape.n, self.grid.tile[1])
        parts = len(self._chunks())
        for product in range(len(self.products)):
            rows = steps(self.products[product].m, self.grid.tile[0])
            for top in range(0, len(rows), self.grid.height):
                for col in cols:
                    for row in rows[top : top + self.grid.height]:
                        for part in range(parts):
                            yield _Cta(product, row, col, part)

    def _sums(self, core: Core, ring: Ring, cta: _Cta, chunks: list[slice]) -> View:
        """The products of a CTA, chunk by chunk of its part of K."""
        product, tensor = self.products[cta.product], core.tensor_cores[0]
        sums = ring.next()[: cta.rows.stop - cta.rows.start, : cta.cols.stop - cta.cols.start]
        for i, ks in enumerate(chunks):
            a = self._panel(cta.product, False, cta.rows, ks)
            b = self._panel(cta.product, True, cta.cols, ks)
            self.build.matmul(
                tensor, sums, a, b, accumulate=i > 0,
                transpose_a=product.transpose_a, transpose_b=product.transpose_b,
            )  # fmt: skip
        return sums

    def _panel(self, index: int, is_b: bool, along: slice, ks: slice) -> View | CodedView:
        """A chunk of a panel; one descriptor for all CTAs that read it."""
        key = (index, is_b, along.start, ks.start)
        view = self.views.get(key)
        if view is None:
            product = self.products[index]
            if is_b:
                window = product.b_window(along, ks)
                coded = self.weights.reading is not None
                view = self.low.coded.tile(window) if coded else window
            elif isinstance(product.a, Stored):
                view = product.a.view[(ks, along) if product.transpose_a else (along, ks)]
            else:
                raise AccelsimError("a GPU multiplies only operands that lie in memory as matrices")
            self.views[key] = view
        return view
