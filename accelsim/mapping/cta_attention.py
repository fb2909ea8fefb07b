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
from accelsim.mapping.attention_tiling import (
    FP32_BYTES,
    NARROW,
    STATISTICS,
    WIDE,
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
class CtaAttention:
    """Queries, keys and split of a grid; ``tile`` is the (rows, keys) of a block of scores. There
    are ``ctas``, which would have ``blocks`` in all if no keys were split."""

    tiling: AttentionTiling
    tile: Shape
    ctas: int
    blocks: int

    def __str__(self) -> str:
        stacked = f"{self.tiling.heads} heads x " if self.tiling.heads > 1 else ""
        queries = "1 query" if self.tiling.rows == 1 else f"{self.tiling.rows} queries"
        return f"online softmax, CTA tiles of {stacked}{queries}, key blocks of {self.tile[1]}"

    def occupancy(self, cores: int) -> str:
        """How many multiprocessors have work."""
        busy = min(self.ctas, cores)
        ctas = "1 CTA" if self.ctas == 1 else f"{self.ctas:,} CTAs"
        return f"{ctas} on {busy} of {cores} multiprocessors, {busy / cores:.0%}"


@lru_cache(maxsize=1024)
def best_cta_attention(p: AttentionProblem, m: Multiprocessor, splits: bool) -> CtaAttention:
    """The cheapest grid; of those within NEAR of it the tile with the fewest and smallest blocks.

    ``splits``: keys may be split. Raises CapacityError if no tile fits.
    """
    choices = list(_grids(p, m, splits))
    if not choices:
        raise _too_small(p, m)
    least = min(c.tiling.cycles for c in choices) * NEAR
    near = [c for c in choices if c.tiling.cycles <= least]
    return min(near, key=lambda c: (c.blocks, c.tile[0] * c.tile[1], c.tiling.cycles))


def _grids(p: AttentionProblem, m: Multiprocessor, splits: bool) -> Iterator[CtaAttention]:
    """Grids that fit, with their cost."""
    for tile in _tiles(p, m):
        heads, rows = stacked(p, tile[0])
        tiles = p.groups * -(-p.shared // heads) * -(-p.q_len // rows)
        for depth in DEPTHS:
            if not fits(p, m, tile, depth):
                continue
            for span in _spans(p, m, tile, tiles, splits):
                t = AttentionTiling(heads, rows, tile[1], 1, 1, depth, False, span)
                ctas = tiles * -(-p.kv_len // span)
                seen = _blocks(p, replace(t, span=p.kv_len))
                blocks = tiles * sum(seen) // len(seen)
                yield CtaAttention(
                    replace(t, cycles=_cycles(p, m, tile, t, ctas)), tile, ctas, blocks
                )


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
    head = -(-p.head_dim * p.bits // 8)
    registers = aligned(rows * p.head_dim * FP32_BYTES)
    registers += SCORES * aligned(rows * keys * FP32_BYTES)
    registers += 2 * STATISTICS * aligned(rows * FP32_BYTES)
    shared = aligned(rows * head) + WEIGHTS * aligned(rows * -(-keys * p.bits // 8))
    return registers, shared + 2 * depth * aligned(keys * head)


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
    for waves in WAVES:
        ranges = min(waves * m.gpu.cores // tiles, blocks)
        if splits and ranges > 1:
            found.add(min(p.kv_len, -(-blocks // ranges) * tile[1]))
    return [span for span in found if splittable(p, span)]


def heads_at_a_time(p: AttentionProblem, gpu: Gpu) -> int:
    """Key heads whose keys and values fill at most 1/CACHE_SHARE of the cache, in even turns; all
    if there is no cache, or if even one is too large."""
    one = 2 * p.kv_len * p.head_dim * p.bits // 8
    most = gpu.cache_capacity // CACHE_SHARE // max(1, one) or p.groups
    turns = -(-p.groups // most)
    return -(-p.groups // turns)


def splittable(p: AttentionProblem, span: int) -> bool:
    """Whether every query sees a key of every range: no query stands before the last range."""
    last = (p.kv_len - 1) // span * span
    return not p.causal or last <= p.kv_len - p.q_len


def _cycles(
    p: AttentionProblem, m: Multiprocessor, tile: Shape, t: AttentionTiling, ctas: int
) -> float:
    """Closed-form cost of a grid in cycles of the tensor cores, see the module."""
    gpu, splits = m.gpu, -(-p.kv_len // t.span)
    blocks = _blocks(p, t)
    scores = gpu.tensor.main_loop_cycles(tile, p.head_dim, p.bits, staged=True)
    values = gpu.tensor.main_loop_cycles((tile[0], p.head_dim), tile[1], p.bits, staged=True)
    softmax = _softmax_cycles(p, m, t)
    load = _access_cycles(gpu, min(tile[1], p.kv_len) * p.head_dim, p.bits)
    turn = (max(scores, values) + gpu.latency + load) / t.depth
    period = max(scores + values, softmax, 2 * load, turn)
    mean = sum(blocks) / len(blocks)
    # Equal CTAs run in waves; unequal ones fill each other's gaps.
    share = max(max(blocks), ctas * mean / gpu.cores)
    if len(set(blocks)) == 1:
        share = -(-ctas // gpu.cores) * mean
    ends = 2 * gpu.latency + scores + values + softmax / 2
    ends += load + 2 * _access_cycles(gpu, t.height * p.head_dim, p.bits)
    row = p.head_dim * p.bits / 8
    seen = ctas * mean * tile[1]
    cache = 2 * row * seen / gpu.cache_bytes if gpu.cache_bytes else 0.0
    moved = 2 * row * p.groups * (p.kv_len + p.shared * p.q_len)
    memory = moved / gpu.memory_bytes + gpu.latency if gpu.memory_bytes else 0.0
    return max(share * period + ends, cache + ends, memory + ends) + _merge_cycles(p, m, splits)


def _blocks(p: AttentionProblem, t: AttentionTiling) -> list[int]:
    """Blocks of keys that the CTAs of one key head take, by position."""
    ends = [min(first + t.rows, p.q_len) for first in range(0, p.q_len, t.rows)]
    seen = [p.kv_len - p.q_len + end if p.causal else p.kv_len for end in ends]
    return [-(-min(keys, t.span) // t.keys) for keys in seen]


def _softmax_cycles(p: AttentionProblem, m: Multiprocessor, t: AttentionTiling) -> float:
    """Cycles of the lanes for a block: each function waits for the one before it."""
    keys = min(t.keys, t.span)
    wide = -(-t.height * keys // m.lanes) * sum(m.slots[f] for f in WIDE)
    narrow = -(-t.height // m.lanes) * sum(m.slots[f] for f in NARROW)
    rescaled = -(-t.height * p.head_dim // m.lanes) * m.slots[F.MUL]
    tree = sum(m.lanes.bit_length() for f in WIDE if f in REDUCTIONS)
    return wide + narrow + rescaled + (len(WIDE) + 1) * m.latency + tree


def _access_cycles(gpu: Gpu, elements: int, bits: int) -> float:
    """Cycles of the load/store path for elements of a block: issue, or the port."""
    issue = elements * gpu.lsu.slots_per_element(bits) / gpu.lsu.lanes
    return max(issue, elements * bits / 8 / gpu.lsu.fetch_width)


def _merge_cycles(p: AttentionProblem, m: Multiprocessor, splits: int) -> float:
    """The kernel that merges partial results, with its launch; 0 of one."""
    if splits == 1:
        return 0.0
    rows = -(-p.groups * p.shared * p.q_len // m.gpu.cores)
    passes = -(-rows * p.head_dim // m.lanes) * (2 * m.slots[F.MUL] + m.slots[F.ADD])
    lanes = splits * (passes + m.latency) + len(WIDE) * m.latency
    loads = _access_cycles(m.gpu, rows * splits * (p.head_dim + 2), 8 * FP32_BYTES)
    return m.gpu.launch + 4 * m.gpu.latency + lanes + 2 * loads


def _too_small(p: AttentionProblem, m: Multiprocessor) -> CapacityError:
    registers, shared = onchip_bytes(p, LEAST, 1)
    return CapacityError(
        f"the smallest CTA tile, {LEAST[0]}x{LEAST[1]} with head_dim {p.head_dim}, needs"
        f" {readable(registers)} of registers and {readable(shared)} of shared memory, more than"
        f" {readable(m.gpu.register_bytes)} and {readable(m.shared_bytes)}: keep the scores in main"
        " memory (--mapper gpu-attention)"
    )
