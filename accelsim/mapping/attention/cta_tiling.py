"""CTAs of attention with an online softmax on a GPU: tile, block of keys and split of the keys.

A CTA owns the queries of one key head that fit a tile: some queries of one head, or all queries of
several heads that share the keys, as rows. Per block of keys the tensor cores take the scores
Q K^T and the values P V, the SIMT lanes the softmax in between. Scores have two buffers, so that
those of the next block are multiplied while the lanes work on these, and a block takes

    max(scores + values, softmax, loads of K and V, round trips of their buffers)

of which there are as many as the busiest multiprocessor has. Beside it stand the keys and values of
all CTAs over the L2 cache's bandwidth, and those of all key heads over main memory's.

What fits decides about tile and block: the results, both buffers of scores and the statistics of
the rows lie in the registers; the queries, both buffers of weights and the blocks of keys and
values in shared memory. Tiles come in the shapes that the tensor cores list, or are
parts of the smallest where none fits.

With fewer CTAs than multiprocessors the keys are split into ranges for CTAs of their own, as many
as there are idle multiprocessors; a second kernel merges their results. Its launch and its time are
part of the cost, so that short contexts stay whole.

Source: Dao, FlashAttention-2, 2023 (arXiv 2307.08691), §3.1 to §3.3 (loop order, parallel CTAs over
queries, block sizes by shared memory and registers); Shah et al., FlashAttention-3, 2024
(arXiv 2407.08608), §3.2 (two buffers of scores); Dao, Haziza, Massa and Sizov, Flash-Decoding for
long-context inference, 2023.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from accelsim.errors import CapacityError
from accelsim.hw.tensor_core import Shape
from accelsim.mapping.attention.partials import most_ranges
from accelsim.mapping.attention.tiling import (
    FP32_BYTES,
    STATISTICS,
    AttentionProblem,
    AttentionTiling,
)
from accelsim.mapping.cta import Gpu
from accelsim.mapping.placement import aligned, readable
from accelsim.program.opcodes import REDUCTIONS, Function

F = Function
DEPTHS = (1, 2)
"""Buffers of keys, and of values."""
WEIGHTS = SCORES = 2
"""Buffers of weights and of scores."""
NEAR = 1.05
"""Grids within this factor of the cheapest count as equal: the closed form is no better, and
instructions are saved."""
CACHE_SHARE = 2
"""As for the waves of a matrix product: the rest is left to queries and results."""
LEAST = (16, 8)
"""Rows and columns of one mma instruction (m16n8k16, NVIDIA PTX ISA): a warp's smallest tile."""
WAVES = (1, 2, 3, 4)
"""CTAs per multiprocessor that a split of the keys aims at."""


@dataclass(frozen=True)
class Multiprocessor:
    """What a CTA may count on: the GPU around it, its SIMT lanes (``slots`` issue cycles per
    function code, ``latency`` of a result) and its shared memory."""

    gpu: Gpu
    lanes: int
    slots: tuple[int, ...]
    latency: int
    shared_bytes: int


@dataclass(frozen=True)
class CtaTiling(AttentionTiling):
    """The tiling of a grid of CTAs, one query tile each: ways and streams are 1.

    The tensor cores work on all ``tile_rows`` rows of a tile. There are ``ctas`` on ``cores``
    multiprocessors, which would have ``blocks`` of keys in all if no keys were split.
    """

    tile_rows: int = 0
    ctas: int = 0
    cores: int = 0
    blocks: int = 0
    heads_in_cache: int = 0

    @property
    def weight_buffers(self) -> int:
        return WEIGHTS

    @property
    def buffer_rows(self) -> int:
        return self.tile_rows

    @property
    def turn(self) -> int:
        return self.heads_in_cache

    def __str__(self) -> str:
        stacked = f"{self.heads} heads x " if self.heads > 1 else ""
        queries = "1 query" if self.rows == 1 else f"{self.rows} queries"
        ctas, busy = f"{self.ctas:,} CTAs", min(self.ctas, self.cores)
        return (
            f"online softmax, CTA tiles of {stacked}{queries}, key blocks of {self.keys};"
            f" {ctas if self.ctas > 1 else '1 CTA'} on {busy} of {self.cores} multiprocessors,"
            f" {busy / self.cores:.0%}"
        )


@lru_cache(maxsize=1024)
def best_cta_tiling(p: AttentionProblem, m: Multiprocessor, splits: bool) -> CtaTiling:
    """The cheapest grid; of those within NEAR of it the tile with the fewest and smallest blocks.

    ``splits``: keys may be split. Raises CapacityError if no tile fits.
    """
    choices = list(cta_tilings(p, m, splits))
    if not choices:
        raise _too_small(p, m)
    least = min(c.cycles for c in choices) * NEAR
    near = [c for c in choices if c.cycles <= least]
    return min(near, key=lambda c: (c.blocks, c.tile_rows * c.keys, c.cycles))


def cta_tilings(p: AttentionProblem, m: Multiprocessor, splits: bool) -> Iterator[CtaTiling]:
    """Grids that fit, with their cost."""
    for tile in _tiles(p, m):
        heads, rows = stacked(p, tile[0])
        tiles = p.groups * -(-p.shared // heads) * -(-p.q_len // rows)
        for depth in DEPTHS:
            if not fits(p, m, tile, depth):
                continue
            for span in _spans(p, m, tile, tiles, splits):
                t = CtaTiling(
                    heads, rows, tile[1], 1, 1, depth, False, span,
                    tile_rows=tile[0],
                    ctas=tiles * -(-p.kv_len // span),
                    cores=m.gpu.cores,
                    heads_in_cache=heads_in_cache(p, m.gpu),
                )  # fmt: skip
                seen = _blocks(p, replace(t, span=p.kv_len))
                blocks = tiles * sum(seen) // len(seen)
                yield replace(t, cycles=_cycles(p, m, t), blocks=blocks)


def _tiles(p: AttentionProblem, m: Multiprocessor) -> list[Shape]:
    """Tiles that fit: those that the tensor cores list, or the largest part of the smallest."""
    listed = [tile for tile in m.gpu.tensor.shapes if fits(p, m, tile, 1)]
    if listed:
        return listed
    rows, keys = min(m.gpu.tensor.shapes, key=lambda tile: tile[0] * tile[1])
    while rows > LEAST[0] or keys > LEAST[1]:
        rows, keys = (rows // 2, keys) if rows > keys else (rows, keys // 2)
        if fits(p, m, (rows, keys), 1):
            return [(rows, keys)]
    return []


def stacked(p: AttentionProblem, height: int) -> tuple[int, int]:
    """(heads, queries of each) in a tile of ``height`` rows."""
    if p.q_len >= height:
        return 1, height
    return min(p.shared, height // p.q_len), p.q_len


def onchip_bytes(p: AttentionProblem, tile: Shape, depth: int) -> tuple[int, int]:
    """Bytes in the registers (results, scores, statistics) and in shared memory (queries, weights,
    keys and values)."""
    rows, keys = tile
    registers = aligned(rows * p.head_dim * FP32_BYTES)
    registers += SCORES * aligned(rows * keys * FP32_BYTES)
    registers += 2 * STATISTICS * aligned(rows * FP32_BYTES)
    if p.biased:
        registers += 2 * aligned(stacked(p, rows)[0] * keys * FP32_BYTES)
    shared = WEIGHTS * aligned(rows * -(-keys * p.bits // 8))
    for size in (p.head_dim, p.rope):
        row = -(-size * p.bits // 8)
        shared += aligned(rows * row) + (depth + p.latent) * aligned(keys * row)
    if not p.latent:
        shared += depth * aligned(keys * -(-p.head_dim * p.bits // 8))
    return registers, shared


def fits(p: AttentionProblem, m: Multiprocessor, tile: Shape, depth: int) -> bool:
    """Whether a tile's buffers fit into a multiprocessor."""
    registers, shared = onchip_bytes(p, tile, depth)
    return registers <= m.gpu.register_bytes and shared <= m.shared_bytes


def _spans(
    p: AttentionProblem, m: Multiprocessor, tile: Shape, tiles: int, splits: bool
) -> list[int]:
    """Keys of a range: all, or as many whole blocks as fill the multiprocessors with CTAs."""
    found = {p.kv_len}
    blocks = -(-p.kv_len // tile[1])
    most = most_ranges(p.head_dim, m.gpu.register_bytes)
    for waves in WAVES:
        ranges = min(waves * m.gpu.cores // tiles, blocks, most)
        if splits and ranges > 1:
            # A range more or less may end where every query sees one of its keys.
            spans = (n * tile[1] for n in range(-(-blocks // ranges), blocks))
            found.add(next((span for span in spans if splittable(p, span)), p.kv_len))
    return sorted(found)


def heads_in_cache(p: AttentionProblem, gpu: Gpu) -> int:
    """Key heads whose keys and values fill at most 1/CACHE_SHARE of the cache, in even turns; 0 if
    there is no cache."""
    if not gpu.cache_capacity:
        return 0
    most = max(1, gpu.cache_capacity // CACHE_SHARE // (p.kv_len * p.kept_bits // 8 or 1))
    return -(-p.groups // -(-p.groups // most))


def splittable(p: AttentionProblem, span: int) -> bool:
    """Whether every query sees a key of every range: no query stands before the last range, and no
    window begins behind the first."""
    last = (p.kv_len - 1) // span * span
    if not p.causal or not last:
        return True
    return last <= p.kv_len - p.q_len and not (p.window and p.q_len > span)


def _cycles(p: AttentionProblem, m: Multiprocessor, t: CtaTiling) -> float:
    """Closed-form cost of a grid in cycles of the tensor cores, see the module."""
    gpu, blocks = m.gpu, _blocks(p, t)
    mean = sum(blocks) / len(blocks)
    scores, values = _product_cycles(p, gpu, t)
    softmax = _softmax_cycles(p, m, t)
    load = _access_cycles(gpu, min(t.keys, p.kv_len), p.kept_bits) / 2
    turn = (max(scores, values) + gpu.latency + load) / t.depth
    period = max(scores + values, softmax, 2 * load, turn)
    # Equal CTAs run in waves; unequal ones fill each other's gaps.
    share = max(max(blocks), t.ctas * mean / gpu.cores)
    if len(set(blocks)) == 1:
        share = -(-t.ctas // gpu.cores) * mean
    ends = 2 * gpu.latency + scores + values + softmax / 2 + load
    ends += _access_cycles(gpu, t.height * (p.key_dim + p.head_dim), p.bits)
    kept = p.kept_bits / 8
    cache = kept * t.ctas * mean * t.keys / gpu.cache_bytes if gpu.cache_bytes else 0.0
    moved = p.groups * (
        kept * p.kv_len + p.shared * p.q_len * (p.key_dim + p.head_dim) * p.bits / 8
    )
    memory = moved / gpu.memory_bytes + gpu.latency if gpu.memory_bytes else 0.0
    return max(share * period, cache, memory) + ends + merge_cycles(p, m, -(-p.kv_len // t.span))


def _product_cycles(p: AttentionProblem, gpu: Gpu, t: CtaTiling) -> tuple[float, float]:
    """Cycles of the tensor cores for the scores and for the values of a block."""

    def product(cols: int, k: int) -> float:
        return gpu.tensor.main_loop_cycles((t.tile_rows, cols), k, p.bits, staged=True)

    rope = product(t.keys, p.rope) if p.rope else 0.0
    return product(t.keys, p.head_dim) + rope, product(p.head_dim, t.keys)


def _blocks(p: AttentionProblem, t: AttentionTiling) -> list[int]:
    """Blocks of keys that the CTAs of one key head take, by position."""
    blocks = []
    for first in range(0, p.q_len, t.rows):
        stop, start = p.kv_len, 0
        if p.causal:
            stop = p.kv_len - p.q_len + min(first + t.rows, p.q_len)
        if p.window:
            start = max(0, p.kv_len - p.q_len + first + 1 - p.window)
        blocks.append(-(-min(stop, t.span) // t.keys) - start // t.keys)
    return blocks


def _softmax_cycles(p: AttentionProblem, m: Multiprocessor, t: AttentionTiling) -> float:
    """Cycles of the lanes for a block: each function waits for the one before it."""
    keys = min(t.keys, t.span)
    slots = sum(m.slots[f] for f in p.wide) - (fused_slots(m.slots) if F.SUB in p.wide else 0)
    wide = -(-t.height * keys // m.lanes) * slots
    narrow = -(-t.height // m.lanes) * sum(m.slots[f] for f in p.narrow)
    rescaled = 0 if p.unified else -(-t.height * p.head_dim // m.lanes) * m.slots[F.MUL]
    tree = sum(m.lanes.bit_length() for f in p.wide if f in REDUCTIONS)
    return wide + narrow + rescaled + (len(p.wide) + 1) * m.latency + tree


def fused_slots(slots: tuple[int, ...]) -> int:
    """Issue slots per score that lanes save by subtracting within the exponential; 0: none do."""
    return max(0, slots[F.EXP] + slots[F.SUB] - slots[F.EXP_SUB])


def _access_cycles(gpu: Gpu, elements: int, bits: int) -> float:
    """Cycles of the load/store path for elements of a block: issue, or the port."""
    issue = elements * gpu.lsu.slots_per_element(bits) / gpu.lsu.lanes
    return max(issue, elements * bits / 8 / gpu.lsu.fetch_width)


def merge_cycles(p: AttentionProblem, m: Multiprocessor, splits: int) -> float:
    """The kernel that merges partial results, with its launch; 0 of one."""
    if splits == 1:
        return 0.0
    rows = -(-p.groups * p.shared * p.q_len // m.gpu.cores)
    passes = -(-rows * p.head_dim // m.lanes) * (2 * m.slots[F.MUL] + m.slots[F.ADD])
    lanes = splits * (passes + m.latency) + len(p.wide) * m.latency
    loads = _access_cycles(m.gpu, rows * splits * (p.head_dim + 2), 8 * FP32_BYTES)
    return m.gpu.launch + 4 * m.gpu.latency + lanes + 2 * loads


def _too_small(p: AttentionProblem, m: Multiprocessor) -> CapacityError:
    registers, shared = onchip_bytes(p, LEAST, 1)
    heads = f"head_dim {p.head_dim}" + (f" and rope_dim {p.rope}" if p.rope else "")
    return CapacityError(
        f"the smallest CTA tile, {LEAST[0]}x{LEAST[1]} with {heads}, needs"
        f" {readable(registers)} of registers and {readable(shared)} of shared memory, more than"
        f" {readable(m.gpu.register_bytes)} and {readable(m.shared_bytes)}: keep the scores in main"
        " memory (--mapper gpu-attention)"
    )
