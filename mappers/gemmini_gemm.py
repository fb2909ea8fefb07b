"""GEMM tiled by the Gemmini heuristic, as ONNXim runs it on weight-stationary arrays.

The output tile is a square of ``side`` array blocks that fills half of the accumulator memory; the
K depth fills a quarter of the operand scratchpad with each operand. Output tiles are dealt to the
cores in turn; all of K of a tile stays on its core. Within a tile, blocks of A (rows) and of B
(columns) arrive over the whole depth, B block 0 first, then all of A, then the other B blocks, and
the array starts as soon as the blocks it needs are there. A single DMA queue carries the loads of
tile t+1 ahead of the stores of tile t.

The heuristic fixes the number of tiles, not their balance: where the counts do not divide, it grows
the count along the longer dimension only, and leaves square problems as they are. That is why small
square products run on one core. Source: ONNXim (Ham et al., IEEE CAL 2024, MIT) and Gemmini's
software library; figures in validation/onnxim_*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from accelsim.errors import CapacityError
from accelsim.hw.dma import Dma
from accelsim.hw.systolic import Systolic
from accelsim.mapping.epilogue import Finisher, reserved_bytes
from accelsim.mapping.lowering import Core, Lowering
from accelsim.mapping.products import Product, gemm_products, lower_products, steps
from accelsim.mapping.registry import mapper
from accelsim.program.storage import View
from accelsim.workload.operators import Gemm


@dataclass(frozen=True)
class Heuristic:
    """Tile extents [m, n, k] of one product."""

    m: int
    n: int
    k: int


def gemmini_tiles(
    product: Product, array: Systolic, cores: int, spad_bytes: int, acc_bytes: int
) -> Heuristic:
    """The Gemmini heuristic: integer arithmetic on array blocks.

    ``spad_bytes`` and ``acc_bytes`` are whole memories, of which one half is filled at a time.
    """
    block = array.rows
    element = product.b.fmt.bits // 8
    acc_element = product.sums.bits // 8
    side = math.isqrt(acc_bytes // (2 * acc_element * block * block))
    if not side:
        raise CapacityError(
            f"half of the accumulator memory ({acc_bytes // 2} bytes) holds no {block} x {block}"
            " block; use larger outputs memory or a smaller array"
        )
    depth = spad_bytes // (4 * element * block * block) // side
    if not depth:
        raise CapacityError(
            f"a quarter of the operand memory ({spad_bytes // 4} bytes) holds no {side} blocks of"
            f" {block} x {block}; use larger inputs memory or a smaller array"
        )
    counts = {"m": -(-product.m // (side * block)), "n": -(-product.n // (side * block))}
    longer = "n" if product.n > product.m else "m"
    grows = product.m != product.n and max(product.m, product.n) > cores
    if grows and counts["m"] * counts["n"] < cores:
        counts[longer] *= -(-cores // (counts["m"] * counts["n"]))
    if grows:
        counts[longer] += counts["m"] * counts["n"] % cores

    def inner(size: int, count: int) -> int:
        padded = -(-size // block) * block
        return max(block, -(-padded // count) // block * block)

    return Heuristic(
        inner(product.m, counts["m"]),
        inner(product.n, counts["n"]),
        inner(product.k, -(-product.k // (depth * block))),
    )


class _CoreTiles:
    """The output tiles of one core, with their buffers."""

    def __init__(self, low: Lowering, core: Core, product: Product, tiles: Heuristic) -> None:
        self.build, self.core = low.build, core
        self.slot, self.array = core.arrays[0]
        core.reset()
        array, fmt = self.array, product.b.fmt
        # A block of B or C is one array wide, and not narrower than one access of main memory.
        access = -(-low.memory.access_bytes * 8 // fmt.bits // array.cols) * array.cols
        self.width = max(array.cols, access)
        b_shape = (tiles.n, tiles.k) if product.transpose_b else (tiles.k, tiles.n)
        self.a_ring = core.ring(array.inputs, "a", tiles.m, tiles.k, product.a.fmt)
        self.b_ring = core.ring(array.weights, "b", *b_shape, fmt)
        self.finisher = Finisher(
            low, core, array.outputs, min(self.width, tiles.n), product.finish, slots=2
        )
        # One pair of buffers per block of columns, so that a block is stored once it is finished.
        self.c_rings = [
            core.ring(array.outputs, f"c{i}", tiles.m, b.stop - b.start, product.sums)
            for i, b in enumerate(steps(tiles.n, self.width))
        ]

    def accumulators(self, m: int, n: int) -> list[View]:
        """Buffers of a new output tile, one per block of columns."""
        views = [ring.next() for ring in self.c_rings]
        blocks = steps(n, self.width)
        return [v[:m, : b.stop - b.start] for v, b in zip(views, blocks, strict=False)]

    def multiply(
        self, product: Product, acc: list[View], rows: slice, cols: slice, ks: slice
    ) -> None:
        """One K tile of one output tile: the array follows the blocks as they arrive."""
        m, n, k = (w.stop - w.start for w in (rows, cols, ks))
        a = self.a_ring.next()[:m, :k]
        b = self.b_ring.next()
        b = b[:n, :k] if product.transpose_b else b[:k, :n]
        for j, block in enumerate(steps(n, self.width)):
            self._load_b(product, b, within(cols, block), ks, block)
            for part in steps(m, self.array.rows) if j == 0 else [slice(0, m)]:
                if j == 0:
                    product.a.fetch(
                        self.build, self.core.load_queues[0], a[part, :], within(rows, part), ks,
                        part=True,
                    )  # fmt: skip
                columns = b[block, :] if product.transpose_b else b[:, block]
                self.build.matmul(
                    self.slot, acc[j][part, :], a[part, :], columns,
                    accumulate=ks.start > 0, transpose_b=product.transpose_b,
                )  # fmt: skip

    def store(self, product: Product, acc: list[View], rows: slice, cols: slice) -> None:
        """Store an output tile, block by block as they are finished."""
        for j, view in enumerate(acc):
            first = cols.start + j * self.width
            block = slice(first, first + view.cols)
            self.finisher.finish(view, product.finish.window(rows, block))
            target = product.c[rows, block]
            self.build.store(self.core.store_queue, target, view)

    def _load_b(self, product: Product, b: View, cols: slice, ks: slice, block: slice) -> None:
        source = product.b_window(cols, ks)
        target = b[block, :] if product.transpose_b else b[:, block]
        self.build.load(self.core.load_queues[0], target, source, part=True)


def within(whole: slice, part: slice) -> slice:
    """A window of a window, in the coordinates of the outermost."""
    return slice(whole.start + part.start, whole.start + part.stop)


@mapper("gemmini-gemm", lowers=("gemm",), needs=(Systolic, Dma))
def gemmini_gemm(op: Gemm, low: Lowering) -> None:
    """Square output tiles by the Gemmini heuristic, dealt to the cores in turn (ONNXim)."""
    if op.transpose_a:  # which the heuristic does not know
        lower_products(low, gemm_products(op, low))
        return
    for product in gemm_products(op, low):
        _lower_product(low, product)


def _lower_product(low: Lowering, product: Product) -> None:
    array = low.cores[0].arrays[0][1]
    arenas = low.cores[0].arenas
    for core in low.cores:
        core.reset()
    tiles = gemmini_tiles(
        product, array, len(low.cores), arenas[array.inputs].free,
        arenas[array.outputs].free - reserved_bytes(product.finish, arenas[array.outputs].capacity),
    )  # fmt: skip
    low.build.note(f"tiles m {tiles.m} n {tiles.n} k {tiles.k}, dealt to the cores in turn")
    tiles_of_core: list[list[tuple[slice, slice]]] = [[] for _ in low.cores]
    outputs = [(r, c) for r in steps(product.m, tiles.m) for c in steps(product.n, tiles.n)]
    for i, output in enumerate(outputs):
        tiles_of_core[i % len(low.cores)].append(output)
    for core, mine in zip(low.cores, tiles_of_core, strict=True):
        if mine:
            _lower_core(_CoreTiles(low, core, product, tiles), product, mine, tiles.k)


def _lower_core(
    emit: _CoreTiles, product: Product, outputs: list[tuple[slice, slice]], depth: int
) -> None:
    """Loads of a tile are queued ahead of the stores of the tile before it."""
    finished: tuple[list[View], slice, slice] | None = None
    for rows, cols in outputs:
        acc = emit.accumulators(rows.stop - rows.start, cols.stop - cols.start)
        for i, ks in enumerate(steps(product.k, depth)):
            emit.multiply(product, acc, rows, cols, ks)
            if i == 0 and finished:
                emit.store(product, *finished)
        finished = (acc, rows, cols)
    if finished:
        emit.store(product, *finished)
