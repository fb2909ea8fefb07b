"""CTA grids of a matrix product on a GPU: tile, split of K and raster by closed-form cost.

A grid of CTAs runs in waves of one CTA per multiprocessor. What a wave costs is the most that one
of its resources needs for its CTAs, to which comes what cannot overlap:

    sum over waves of max(main loop + prologue + epilogue, panels over the L2 cache's bandwidth,
        matrices over the main memory's) + first access + last store

The epilogue hides behind the next CTA's main loop where the registers hold two tiles of sums. With
split K, several CTAs sum parts of K into a workspace, and a second kernel adds the parts. Coded
weights (hw.expansion) cost the bytes that are stored and the time to expand them, in every CTA that
reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import sqrt

from accelsim.hw.expansion import Weights
from accelsim.hw.simt import LoadStore
from accelsim.hw.tensor_core import ACCUMULATOR_BYTES, Shape, TensorCore

SPLITS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
SHORTEST_SPLIT = 256
"""k of a part below which a split only adds prologues."""
PARTS_KEPT = 2
"""Parts that fill at most 1/PARTS_KEPT of the cache are still in it when they are added."""
TOLERANCE = 1.005
"""Grids within this factor of the cheapest count as equal; the one with fewest CTAs wins."""


@dataclass(frozen=True)
class Gpu:
    """What a grid may count on, in cycles of the tensor cores' clock.

    ``memory_bytes`` and ``cache_bytes`` per cycle (0: not limited), ``latency`` of a first access,
    ``cache_capacity`` bytes that neighbouring CTAs can share panels in, ``register_bytes`` of
    accumulators of one multiprocessor.
    """

    tensor: TensorCore
    lsu: LoadStore
    launch: int
    cores: int
    register_bytes: int
    memory_bytes: float
    latency: float
    cache_bytes: float
    cache_capacity: int


@dataclass(frozen=True)
class Products:
    """``count`` products [m, k] @ [k, n] of ``bits``-bit operands, results of ``result_bits``.

    ``weights``: how the second operand is read if it is coded; ``columns`` of the CTA tile where
    another operator has cut it already (0: free).
    """

    m: int
    n: int
    k: int
    count: int
    bits: int
    result_bits: int
    weights: Weights | None = None
    columns: int = 0

    @property
    def weight_bits(self) -> float:
        """Bits per element of the second operand as it is stored."""
        return self.weights.bits if self.weights else self.bits

    def panel_bytes(self, tile: Shape, k: int) -> float:
        """Bytes that a CTA fetches for ``k``."""
        return (tile[0] * self.bits + tile[1] * self.weight_bits) * k / 8


@dataclass(frozen=True)
class Grid:
    """CTAs that compute ``tile`` each, K cut into ``split`` parts, ``buffers`` tiles of sums.

    Tiles are taken in columns of ``height`` tiles of m, so that the CTAs of a wave form a block.
    """

    tile: Shape
    split: int
    height: int
    buffers: int
    cycles: float

    def __str__(self) -> str:
        split = f", K in {self.split} parts" if self.split > 1 else ""
        return f"CTA tiles of {self.tile[0]} x {self.tile[1]}{split}"


def tiles_of(p: Products, tile: Shape) -> tuple[int, int]:
    """Tiles along m and along n."""
    return -(-p.m // tile[0]), -(-p.n // tile[1])


@lru_cache(maxsize=4096)
def best_grid(p: Products, gpu: Gpu) -> Grid:
    """The cheapest grid; of those that count as equal the one with fewest CTAs."""
    grids = [
        _grid(p, gpu, tile, split)
        for tile in tiles_for(p, gpu.tensor)
        for split in SPLITS
        if split == 1 or p.k >= split * SHORTEST_SPLIT
    ]
    least = min(grid.cycles for grid in grids) * TOLERANCE
    near = [grid for grid in grids if grid.cycles <= least]
    return min(near, key=lambda g: (ctas(p, g), g.cycles))


def tiles_for(p: Products, tensor: TensorCore) -> list[Shape]:
    """The CTA tiles of the kernels that may compute some products."""
    found = tensor.shapes_for(p.weights)
    return [tile for tile in found if p.columns in (0, tile[1])] or [(found[0][0], p.columns)]


def ctas(p: Products, grid: Grid) -> int:
    """CTAs of a grid."""
    along_m, along_n = tiles_of(p, grid.tile)
    return p.count * along_m * along_n * grid.split


def _grid(p: Products, gpu: Gpu, tile: Shape, split: int) -> Grid:
    buffers = min(2, gpu.register_bytes // (2 * tile[0] * tile[1] * ACCUMULATOR_BYTES)) or 1
    grid = Grid(tile, split, _height(p, tile, gpu.cores), buffers, 0.0)
    return Grid(tile, split, grid.height, buffers, _cycles(p, gpu, grid))


def _height(p: Products, tile: Shape, cores: int) -> int:
    """Tiles of m in a wave whose block of CTAs reads the fewest bytes."""
    along_m, along_n = tiles_of(p, tile)
    square = sqrt(cores * tile[1] / tile[0])
    least = -(-cores // along_n)
    return max(1, min(along_m, max(least, round(square))))


def _cycles(p: Products, gpu: Gpu, grid: Grid) -> float:
    tile, split = grid.tile, grid.split
    k = -(-p.k // split)
    panel = p.panel_bytes(tile, k)
    loop = gpu.tensor.main_loop_cycles(tile, k, p.bits, weights=p.weights)
    main = max(loop, panel / gpu.tensor.fetch_width)
    prologue = gpu.tensor.prologue
    stored = 8 * ACCUMULATOR_BYTES if split > 1 else p.result_bits
    slots = gpu.lsu.slots_per_element(stored)
    epilogue = gpu.tensor.drain + tile[0] * tile[1] * slots / gpu.lsu.lanes + gpu.latency
    count = ctas(p, grid)
    exposed = 0.0 if grid.buffers > 1 else epilogue
    last = epilogue - exposed
    results = p.count * p.m * p.n * stored / 8 * split
    kept = split > 1 and results * PARTS_KEPT <= gpu.cache_capacity
    moved = p.count * p.panel_bytes((p.m, p.n), p.k) + (0.0 if kept else results)
    shared = (count * panel + results) / gpu.cache_bytes if gpu.cache_bytes else 0.0
    memory = moved / gpu.memory_bytes if gpu.memory_bytes else 0.0
    # What a wave of few CTAs leaves of the memory's bandwidth no other wave can use.
    each = max(shared, memory) / count
    full, rest = divmod(count, gpu.cores)
    wave = main + prologue + exposed
    busy = full * max(wave, gpu.cores * each) + (max(wave, rest * each) if rest else 0.0)
    total = max(busy, memory + prologue + epilogue) + last + gpu.latency
    return total if split == 1 else total + _adding_cycles(p, gpu, split, results, kept)


def _adding_cycles(p: Products, gpu: Gpu, split: int, parts: float, kept: bool) -> float:
    """What the kernel that adds ``parts`` bytes of sums takes, with its launch."""
    each = split * gpu.lsu.slots_per_element(8 * ACCUMULATOR_BYTES)
    each += gpu.lsu.slots_per_element(p.result_bits)
    issue = p.count * p.m * p.n / gpu.cores * each / gpu.lsu.lanes
    rate = gpu.cache_bytes if kept else gpu.memory_bytes
    return gpu.launch + 3 * gpu.latency + max(issue, parts / rate if rate else 0.0)
