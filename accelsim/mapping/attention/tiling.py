"""Tile sizes of attention with an online softmax: a closed-form cost over candidate tiles.

``ways`` query tiles are worked on side by side, each on one array, block of keys after block of
keys. While the vector unit turns the scores of block n into weights, the arrays multiply the
weights of block n - 1 with its values and make the scores of block n + 1. So the tiles of a core
take, over their blocks,

    max(sum max(v, a, (v + a + drain) / 2), memory, blocks x round trip / (buffers - 1))

with v = vector n and a = values n-1 + scores n+1, plus the first and the last block, which nothing
overlaps. The ports of the scratchpads are left out. Blocks on the diagonal of a causal attention
are smaller than others: there one unit waits for the other. The larger a tile, the fewer times keys
are read (once per batch and key head) and the fewer instructions; the larger a block, the fewer
rescalings. Which of them the scratchpads hold decides. Where there are fewer query tiles than
arrays, keys are split into ranges that different arrays take, and the partial results are merged
(FlashDecoding).

Source: Dao, FlashAttention-2, 2023 (arXiv 2307.08691), Algorithm 1 and §3.1 (loop order);
Dao, Haziza, Massa and Sizov, Flash-Decoding for long-context inference, 2023.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

import numpy as np
import numpy.typing as npt

from accelsim.errors import CapacityError
from accelsim.mapping.attention.machine import ArrayResources
from accelsim.mapping.placement import ALIGNMENT, readable
from accelsim.mapping.tile_sizes import extents
from accelsim.mapping.tiling import TOLERANCE, granules
from accelsim.program.opcodes import REDUCTIONS, Function

F = Function
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
# Passes over a block of scores; over a column of row statistics when the block is not the first.
WIDE = (F.MUL_IMM, F.ROW_MAX, F.SUB, F.EXP, F.ROW_SUM)
NARROW = (F.MAX, F.SUB, F.EXP, F.MUL, F.ADD)
STATISTICS = 4  # columns of [rows, 1] per query tile: maximum old and new, rescaling factor, sum
FP32_BYTES = 4
MANY = 32  # times as many blocks as the largest tiles have: not looked at


@dataclass(frozen=True)
class AttentionProblem:
    """Attention of all cores: ``groups`` key heads (of all sequences) that ``shared`` query heads
    of ``q_len`` queries attend to, of the last ``window`` if it is not 0; ``bits`` per element of
    the operands, ``kv_bits`` of keys and values as they are kept. A query and a key are ``rope``
    elements longer than a value. ``latent``: keys are values, too. ``biased``: a number per head
    and key is added to scores."""

    groups: int
    shared: int
    q_len: int
    kv_len: int
    head_dim: int
    causal: bool
    bits: int
    kv_bits: int = 0
    rope: int = 0
    window: int = 0
    latent: bool = False
    biased: bool = False
    unified: bool = False  # no running maximum, nothing is rescaled

    @property
    def wide(self) -> tuple[Function, ...]:
        """Passes over a block of scores."""
        found = (F.MUL_IMM, F.EXP, F.ROW_SUM) if self.unified else WIDE
        return (*found, F.ADD) if self.biased else found

    @property
    def narrow(self) -> tuple[Function, ...]:
        """Passes over a column of row statistics when the block is not the first."""
        return (F.ADD,) if self.unified else NARROW

    @property
    def key_dim(self) -> int:
        """Elements of a query, and of a key."""
        return self.head_dim + self.rope

    @property
    def kept_bits(self) -> int:
        """Bits of a key with its value in main memory."""
        values = 0 if self.latent else self.head_dim
        return (self.key_dim + values) * (self.kv_bits or self.bits)


@dataclass(frozen=True)
class AttentionTiling:
    """Query tiles of ``rows`` queries of ``heads`` heads, against blocks of ``keys`` keys.

    ``ways`` tiles side by side, of which ``streams`` at most have different keys; ``depth`` buffers
    of keys, and of values, per stream. ``double``: queries and results have two buffers per way,
    so that batches overlap. A tile takes ``span`` keys; if those are not all of them, others take
    the rest and partial results are merged. ``cycles`` is the closed-form estimate.
    """

    heads: int
    rows: int
    keys: int
    ways: int
    streams: int
    depth: int
    double: bool
    span: int
    cycles: float = 0.0

    @property
    def height(self) -> int:
        """Rows of a query tile."""
        return self.heads * self.rows

    @property
    def buffers(self) -> int:
        """Query tiles that have buffers."""
        return self.ways * (2 if self.double else 1)

    @property
    def weight_buffers(self) -> int:
        """Blocks of weights that have buffers."""
        return self.buffers

    @property
    def buffer_rows(self) -> int:
        """Rows of a buffer, whatever a tile holds."""
        return self.height

    @property
    def turn(self) -> int:
        """Key heads that all cores work on at a time; 0: any."""
        return 0

    def __str__(self) -> str:
        stacked = f"{self.heads} heads x " if self.heads > 1 else ""
        return (
            f"online softmax, query tiles of {stacked}{self.rows}, {self.ways} at a time,"
            f" key blocks of {self.keys}"
        )


@lru_cache(maxsize=1024)
def best_attention_tiling(p: AttentionProblem, r: ArrayResources) -> AttentionTiling:
    """The cheapest tiles that fit, of near equals the largest; CapacityError if none fits."""
    choices = list(attention_tilings(p, r))
    if not choices:
        raise _too_small(p, r)
    fastest = min(c.cycles for c in choices)
    near = [c for c in choices if c.cycles <= fastest * TOLERANCE]
    return max(near, key=lambda c: (c.height * c.keys * c.ways, c.depth, -c.cycles))


def attention_tilings(p: AttentionProblem, r: ArrayResources) -> Iterator[AttentionTiling]:
    """Candidates that fit, with their cost, but for those of very many blocks."""
    for splits in _splits(p, r):
        span = -(-p.kv_len // splits)
        # Every range of keys is a key head of its own, but for the merge.
        part = replace(p, groups=p.groups * -(-p.kv_len // span), kv_len=span)
        fitting = [shape for shape in _shapes(part, r) if _fits(part, r, shape)]
        fewest = min((_blocks(part, shape) for shape in fitting), default=0)
        for shape in fitting:
            if _blocks(part, shape) <= MANY * fewest:
                cycles = _cycles(part, r, shape) + merge_cycles(p, r, -(-p.kv_len // span))
                yield replace(shape, cycles=cycles)


def _splits(p: AttentionProblem, r: ArrayResources) -> list[int]:
    """Into how many ranges keys may be split: as many as arrays are left without a query tile."""
    if p.causal or p.shared * p.q_len > 4 * granules(r.array)[0]:
        return [1]
    most = min(r.cores * r.arrays // p.groups, p.kv_len)
    return sorted({1, *(1 << e for e in range(most.bit_length()) if 1 << e <= most), max(1, most)})


def merge_cycles(p: AttentionProblem, r: ArrayResources, splits: int) -> float:
    """Cycles of writing, reading and adding partial results; 0 of one."""
    if splits == 1:
        return 0.0
    rows = -(-p.groups * p.shared * p.q_len // r.cores)
    passes = 2 * r.slots[F.MUL] + r.slots[F.ADD]
    lanes = splits * passes * (-(-rows * p.head_dim // r.lanes) + r.vector_latency)
    if not r.bytes_per_cycle:
        return lanes * r.vector_cycle
    moved = 2 * FP32_BYTES * rows * splits * (p.head_dim + 2)
    return lanes * r.vector_cycle + moved / r.bytes_per_cycle + 4 * r.latency


def _shapes(p: AttentionProblem, r: ArrayResources) -> Iterator[AttentionTiling]:
    for (heads, rows), keys in product(_heights(p, r), _widths(p, r)):
        tiles = -(-p.shared // heads) * -(-p.q_len // rows)
        for turns, depth, double in product((1, 2), (2, 3), (True, False)):
            ways = min(turns * r.arrays, tiles * p.groups)
            # Tiles of one key head share its keys; only where they are too few, heads mix.
            streams = 1 if tiles >= ways else min(ways, -(-ways // tiles) + (ways % tiles > 0))
            yield AttentionTiling(heads, rows, keys, ways, streams, depth, double, p.kv_len)


def _blocks(p: AttentionProblem, t: AttentionTiling) -> int:
    """Blocks of a key head, of all its query tiles."""
    return -(-p.shared // t.heads) * -(-p.q_len // t.rows) * -(-p.kv_len // t.keys)


def _heights(p: AttentionProblem, r: ArrayResources) -> list[tuple[int, int]]:
    """(heads, rows): some queries of one head, or all queries of several heads."""
    granule = granules(r.array)[0]
    single = [(1, rows) for rows in _sizes(p.q_len, granule)]
    if p.q_len > 4 * granule:
        return single
    return single + [(heads, p.q_len) for heads in _sizes(p.shared, 1) if heads > 1]


def _widths(p: AttentionProblem, r: ArrayResources) -> list[int]:
    """Keys of a block: they lie along the columns for the scores, along the rows for the values."""
    _, along_n, along_k = granules(r.array)
    return _sizes(p.kv_len, max(along_n, along_k))


def _sizes(dimension: int, granule: int) -> list[int]:
    """Candidate extents, and what is left to a scratchpad too small for a granule."""
    small = {1 << e for e in range(granule.bit_length()) if 1 << e < min(granule, dimension)}
    return sorted({*extents(dimension, granule), *small})


def scratchpad_bytes(p: AttentionProblem, t: AttentionTiling) -> tuple[int, int, int]:
    """Bytes of queries and weights, of keys and values, of scores, results and statistics.

    Scores and statistics of two blocks are alive at once.
    """

    def room(count: int, rows: int, row_bits: int) -> int:
        return count * (rows * -(-row_bits // 8) + ALIGNMENT)

    queries = room(t.buffers, t.height, p.key_dim * p.bits)
    weights = room(t.buffers, t.height, t.keys * p.bits)
    keys = room(key_slots(p.latent, t), t.keys, p.key_dim * p.bits)
    if not p.latent:
        keys += room(t.depth * t.streams, t.keys, p.head_dim * p.bits)
    bias = room(2 * t.ways, t.heads, t.keys * 8 * FP32_BYTES) if p.biased else 0
    scores = room(2 * t.ways, t.height, t.keys * 8 * FP32_BYTES)
    results = room(t.buffers, t.height, p.head_dim * 8 * FP32_BYTES)
    columns = room(STATISTICS * 2 * t.ways, t.height, 8 * FP32_BYTES)
    return queries + weights, keys, bias + scores + results + columns


def key_slots(latent: bool, t: AttentionTiling) -> int:
    """Buffers of keys: latent ones stay for a block longer, until they have been values."""
    return (t.depth + latent) * t.streams


def _fits(p: AttentionProblem, r: ArrayResources, t: AttentionTiling) -> bool:
    used = [0] * len(r.capacities)
    for place, nbytes in zip(r.places, scratchpad_bytes(p, t), strict=True):
        used[place] += nbytes
    return all(u <= capacity for u, capacity in zip(used, r.capacities, strict=True))


def _cycles(p: AttentionProblem, r: ArrayResources, t: AttentionTiling) -> float:
    """Closed-form cost in array cycles, see the module."""
    groups, sees, visible = _batches(p, t)
    seen, begun = _blocks_of(p, t, sees, visible)
    arrays, lanes = _on_arrays(p, r, t, seen), _on_lanes(p, r, t, seen, begun)
    spare = -t.ways % r.arrays
    turns = np.pad(arrays, ((0, 0), (0, spare))).reshape(len(seen), -1, r.arrays)
    half = turns.sum(axis=1).max(axis=1) / 2
    batches = len(visible) * p.groups / groups
    share = -(-batches // r.cores) / len(visible)
    busy = _overlapped(lanes, half, share, r.array.fill_drain_cycles)
    fill = r.array.fill_drain_cycles + float(half[0] + half[-1])
    if not r.bytes_per_cycle:
        return busy + fill
    row = (p.key_dim + p.head_dim) * p.bits / 16 / r.bytes_per_cycle
    key = (p.kept_bits + 8 * FP32_BYTES * t.heads * int(p.biased)) / 8 / r.bytes_per_cycle
    queries = t.height * np.count_nonzero(visible)
    memory = key * t.streams * float(seen.max(axis=1).sum()) + 2 * row * queries
    load = float(key * min(t.keys, p.kv_len) * t.streams)
    turn = len(seen) * (r.latency + load) / (t.depth - 1)
    # With one buffer per way, the queries of a batch come when the one before is stored.
    apart = 0.0 if t.double else 2 * (r.latency + row * t.height) + float(half.mean())
    ends = 2 * r.latency + load + 2 * row * t.height * t.ways
    return max(busy, share * memory, share * turn) + share * apart * len(visible) + fill + ends


def _overlapped(lanes: Floats, half: Floats, share: float, drain: int) -> float:
    """Cycles of blocks, ``share`` times over: the vector unit's beside the values of the block
    before and the scores of the one behind. Nothing is before the first block of the first time and
    behind the last of the last."""
    before, behind = np.roll(half, 1), np.roll(half, -1)
    between = _rounds(lanes, before + behind, drain)
    before[0] = behind[-1] = 0
    alone = _rounds(lanes, before + behind, drain)
    return min(share, 1.0) * alone + max(share - 1.0, 0.0) * between


def _rounds(lanes: Floats, beside: Floats, drain: int) -> float:
    """Scores n + 2 are issued behind values n, which wait for softmax n: two blocks per round."""
    return float(np.maximum(np.maximum(lanes, beside), (lanes + beside + drain) / 2).sum())


def _batches(p: AttentionProblem, t: AttentionTiling) -> tuple[int, Ints, Ints]:
    """(key heads, first key that each way sees [batches, ways], the one behind the last) of some
    batches like all others."""
    starts = np.arange(0, p.q_len, t.rows, dtype=np.int64)
    ends = np.minimum(np.arange(t.rows, p.q_len + t.rows, t.rows, dtype=np.int64), p.q_len)
    visible = p.kv_len - p.q_len + ends if p.causal else np.full_like(ends, p.kv_len)
    sees = np.zeros_like(visible)
    if p.window:
        sees = np.maximum(0, p.kv_len - p.q_len + starts + 1 - p.window)
    groups = 1 if t.streams == 1 else min(p.groups, t.ways)

    def dealt(keys: Ints) -> Ints:
        tiles = np.tile(np.repeat(keys, -(-p.shared // t.heads)), groups)
        return np.pad(tiles, (0, -len(tiles) % t.ways)).reshape(-1, t.ways)

    return groups, dealt(sees), dealt(visible)


def _blocks_of(
    p: AttentionProblem, t: AttentionTiling, sees: Ints, visible: Ints
) -> tuple[Ints, Ints]:
    """Keys of every way in every block of all batches, and how many ways have had a block before:
    [blocks, ways] and [blocks]."""
    first = np.arange(0, p.kv_len, t.keys, dtype=np.int64)[:, None]
    last = np.minimum(visible[:, None, :], first + t.keys)
    seen = np.maximum(last - np.maximum(sees[:, None, :], first), 0)
    sees_some = seen > 0
    begun = (sees_some & (np.cumsum(sees_some, axis=1) > 1)).sum(axis=2).reshape(-1)
    seen = seen.reshape(-1, visible.shape[1])
    some = seen.any(axis=1)
    return seen[some], begun[some]


def _on_arrays(p: AttentionProblem, r: ArrayResources, t: AttentionTiling, keys: Ints) -> Ints:
    """Array cycles that blocks of ``keys`` keys take of one query tile; 0 of 0."""
    some = np.maximum(keys, 1)
    height, depth = np.full_like(keys, t.height), np.full_like(keys, p.head_dim)
    scores, _ = r.array.cycles(height, some, depth)
    if p.rope:
        scores = scores + r.array.cycles(height, some, np.full_like(keys, p.rope))[0]
    values, _ = r.array.cycles(height, depth, some)
    return np.where(keys > 0, scores + values, 0)


def _on_lanes(
    p: AttentionProblem, r: ArrayResources, t: AttentionTiling, keys: Ints, begun: Ints
) -> Floats:
    """Cycles of the vector unit per block, with those in which it waits for its own results.

    A function waits for the one before it of the same tile; meanwhile those of the other ways run.
    What had a block before is rescaled. Results are divided by their sums once, behind the last
    block: that is counted with the first.
    """
    lanes, slots = r.lanes, r.slots
    ways = np.count_nonzero(keys, axis=1)
    wide = (-(-t.height * keys // lanes)).sum(axis=1) * sum(slots[f] for f in p.wide)
    column, result = -(-t.height // lanes), -(-t.height * p.head_dim // lanes) * slots[F.MUL]
    narrow = column * sum(slots[f] for f in p.narrow) + (0 if p.unified else result)
    divide = column * slots[F.RECIPROCAL] + result
    busy = wide + begun * narrow + (ways - begun) * divide

    own, tree = -(-t.height * t.keys // lanes), lanes.bit_length()
    waits = [r.vector_latency + (tree if f in REDUCTIONS else 0) for f in p.wide]
    stalls = sum(np.maximum(0, wait - (ways - 1) * own) for wait in waits)
    for some, functions in ((begun, len(p.narrow)), (ways - begun, 1)):
        stalls = stalls + (some > 0) * functions * np.maximum(0, r.vector_latency - some + 1)
    return np.asarray((busy + stalls) * r.vector_cycle, dtype=np.float64)


def _too_small(p: AttentionProblem, r: ArrayResources) -> CapacityError:
    have = " + ".join(readable(c) for c in r.capacities)
    need = scratchpad_bytes(p, AttentionTiling(1, 1, 1, 1, 1, 2, False, p.kv_len))
    parts = " + ".join(readable(n) for n in need)
    return CapacityError(
        f"a query tile of one row with head_dim {p.head_dim} needs {parts} for queries and weights,"
        f" keys and values, scores and results, more than the on-chip memory of {have}: enlarge"
        " the memories, or keep the scores in main memory (--mapper unfused-attention)"
    )
