"""Tile sizes of attention with an online softmax: a closed-form cost over candidate tiles.

``ways`` query tiles are worked on side by side, each on one array, block of keys after block of
keys. While the vector unit turns the scores of one block into weights, the arrays multiply the
weights of the block before with its values and make the scores of the next one. A batch of such
tiles therefore takes what its slowest resource needs, or the turnover of its key buffers:

    max(arrays, vector unit, memory, blocks x round trip / (key buffers - 1))

and the whole operator what the batches of the busiest core take, plus the first and the last block,
which nothing overlaps. The larger a tile, the fewer times keys are read (once per batch and key
head) and the fewer instructions; the larger a block, the fewer rescalings. Which of them the
scratchpads hold decides.

Source: Dao, FlashAttention-2, 2023 (arXiv 2307.08691), Algorithm 1 and §3.1 (loop order).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
import numpy.typing as npt

from accelsim.errors import CapacityError
from accelsim.hw.systolic import Systolic
from accelsim.mapping.placement import ALIGNMENT, readable
from accelsim.mapping.tiling import TOLERANCE, extents, granules
from accelsim.program.opcodes import REDUCTIONS, Function

F = Function
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
# Passes over a block of scores; over a column of row statistics when the block is not the first.
WIDE = (F.MUL_IMM, F.ROW_MAX, F.SUB, F.EXP, F.ROW_SUM)
NARROW = (F.MAX, F.SUB, F.EXP, F.MUL, F.ADD)
STATISTICS = 4  # columns of [rows, 1] per query tile: maximum old and new, rescaling factor, sum
FP32_BYTES = 4


@dataclass(frozen=True)
class AttentionProblem:
    """Attention of all cores: ``groups`` key heads (of all sequences) that ``shared`` query heads
    of ``q_len`` queries attend to; ``bits`` per element of the operands."""

    groups: int
    shared: int
    q_len: int
    kv_len: int
    head_dim: int
    causal: bool
    bits: int


@dataclass(frozen=True)
class AttentionResources:
    """What one core of ``cores`` offers.

    ``capacities`` are the bytes of the memories that queries and weights, keys and values, and
    scores and results lie in; equal ``places`` share one of them. ``bytes_per_cycle`` (0:
    unlimited) and ``latency`` are main memory's, in array cycles. The vector unit has ``lanes``,
    ``slots`` cycles per function code and ``vector_latency``, in cycles of ``vector_cycle`` array
    cycles each.
    """

    cores: int
    array: Systolic
    arrays: int
    lanes: int
    slots: tuple[int, ...]
    vector_latency: int
    capacities: tuple[int, ...]
    places: tuple[int, int, int]
    bytes_per_cycle: float
    latency: float
    vector_cycle: float


@dataclass(frozen=True)
class AttentionTiling:
    """Query tiles of ``rows`` queries of ``heads`` heads, against blocks of ``keys`` keys.

    ``ways`` tiles side by side, of which ``streams`` at most have different keys; ``depth`` buffers
    of keys, and of values, per stream. ``double``: queries and results have two buffers per way,
    so that batches overlap. ``cycles`` is the closed-form estimate.
    """

    heads: int
    rows: int
    keys: int
    ways: int
    streams: int
    depth: int
    double: bool
    cycles: float = 0.0

    @property
    def height(self) -> int:
        """Rows of a query tile."""
        return self.heads * self.rows

    @property
    def buffers(self) -> int:
        """Query tiles that have buffers."""
        return self.ways * (2 if self.double else 1)

    def __str__(self) -> str:
        stacked = f"{self.heads} heads x " if self.heads > 1 else ""
        return (
            f"online softmax, query tiles of {stacked}{self.rows}, {self.ways} at a time,"
            f" key blocks of {self.keys}"
        )


@lru_cache(maxsize=1024)
def best_attention_tiling(p: AttentionProblem, r: AttentionResources) -> AttentionTiling:
    """The cheapest tiles that fit, of near equals the largest; CapacityError if none fits."""
    choices = list(attention_tilings(p, r))
    if not choices:
        raise _too_small(p, r)
    fastest = min(c.cycles for c in choices)
    near = [c for c in choices if c.cycles <= fastest * TOLERANCE]
    return max(near, key=lambda c: (c.height * c.keys * c.ways, c.depth, -c.cycles))


def attention_tilings(p: AttentionProblem, r: AttentionResources) -> Iterator[AttentionTiling]:
    """Every candidate that fits, with its cost."""
    for (heads, rows), keys in product(_heights(p, r), _widths(p, r)):
        tiles = -(-p.shared // heads) * -(-p.q_len // rows)
        for turns, depth, double in product((1, 2), (2, 3), (True, False)):
            ways = min(turns * r.arrays, tiles * p.groups)
            # Tiles of one key head share its keys; only where they are too few, heads mix.
            streams = 1 if tiles >= ways else min(ways, -(-ways // tiles) + (ways % tiles > 0))
            shape = AttentionTiling(heads, rows, keys, ways, streams, depth, double)
            if _fits(p, r, shape):
                cost = _cycles(p, r, shape)
                yield AttentionTiling(heads, rows, keys, ways, streams, depth, double, cost)


def _heights(p: AttentionProblem, r: AttentionResources) -> list[tuple[int, int]]:
    """(heads, rows): some queries of one head, or all queries of several heads."""
    granule = granules(r.array)[0]
    single = [(1, rows) for rows in _sizes(p.q_len, granule)]
    if p.q_len > 4 * granule:
        return single
    return single + [(heads, p.q_len) for heads in _sizes(p.shared, 1) if heads > 1]


def _widths(p: AttentionProblem, r: AttentionResources) -> list[int]:
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

    queries = room(t.buffers, t.height, p.head_dim * p.bits)
    weights = room(t.buffers, t.height, t.keys * p.bits)
    keys = room(2 * t.depth * t.streams, t.keys, p.head_dim * p.bits)
    scores = room(2 * t.ways, t.height, t.keys * 8 * FP32_BYTES)
    results = room(t.buffers, t.height, p.head_dim * 8 * FP32_BYTES)
    columns = room(STATISTICS * 2 * t.ways, t.height, 8 * FP32_BYTES)
    return queries + weights, keys, scores + results + columns


def _fits(p: AttentionProblem, r: AttentionResources, t: AttentionTiling) -> bool:
    used = [0] * len(r.capacities)
    for place, nbytes in zip(r.places, scratchpad_bytes(p, t), strict=True):
        used[place] += nbytes
    return all(u <= capacity for u, capacity in zip(used, r.capacities, strict=True))


def _cycles(p: AttentionProblem, r: AttentionResources, t: AttentionTiling) -> float:
    """Closed-form cost in array cycles, see the module."""
    ends = np.minimum(np.arange(t.rows, p.q_len + t.rows, t.rows, dtype=np.int64), p.q_len)
    visible = p.kv_len - p.q_len + ends if p.causal else np.full_like(ends, p.kv_len)
    blocks = -(-visible // t.keys)
    whole, rest = visible // t.keys, visible % t.keys
    block_array, block_vector = _block(p, r, t, np.array([t.keys]))
    last_array, last_vector = _block(p, r, t, rest)
    per_group = len(ends) * -(-p.shared // t.heads)
    tiles = per_group * p.groups
    batches = -(-tiles // t.ways) if t.streams > 1 else -(-per_group // t.ways) * p.groups
    filled = tiles / (batches * t.ways)
    array = float(np.mean(whole * block_array + last_array)) * -(-t.ways // r.arrays)
    vector = float(np.mean(whole * block_vector + last_vector)) * t.ways * filled
    steps = float(np.mean(blocks))
    stalls = _stalls(r, t) * steps
    array_block = float(block_array[0]) * -(-t.ways // r.arrays)
    fill = r.array.fill_drain_cycles + array_block + float(block_vector[0]) * t.ways
    if not r.bytes_per_cycle:
        return -(-batches // r.cores) * max(array, vector + stalls) + fill
    row = p.head_dim * p.bits / 8 / r.bytes_per_cycle
    memory = 2 * row * (float(np.mean(visible)) * t.streams + t.height * t.ways * filled)
    load = 2 * row * min(t.keys, p.kv_len) * t.streams
    turn = steps * (r.latency + load) / (t.depth - 1)
    # With one buffer per way, the queries of a batch come when the one before is stored.
    apart = 0.0 if t.double else 2 * (r.latency + row * t.height) + array_block / 2
    batch = max(array, vector + stalls, memory, turn) + apart
    ends_cycles = 2 * r.latency + load + 2 * row * t.height * t.ways
    return -(-batches // r.cores) * batch + fill + ends_cycles


def _block(
    p: AttentionProblem, r: AttentionResources, t: AttentionTiling, keys: Ints
) -> tuple[Ints, Floats]:
    """(array, vector unit) cycles that blocks of ``keys`` keys take of one query tile; 0 of 0."""
    some = np.maximum(keys, 1)
    height, depth = np.full_like(keys, t.height), np.full_like(keys, p.head_dim)
    scores, _ = r.array.cycles(height, some, depth)
    values, _ = r.array.cycles(height, depth, some)
    lanes, slots = r.lanes, r.slots
    wide = -(-t.height * some // lanes) * sum(slots[f] for f in WIDE)
    narrow = -(-t.height // lanes) * sum(slots[f] for f in NARROW)
    rescaled = -(-t.height * p.head_dim // lanes) * slots[F.MUL]
    vector = (wide + narrow + rescaled) * r.vector_cycle
    return np.where(keys > 0, scores + values, 0), np.where(keys > 0, vector, 0.0)


def _stalls(r: AttentionResources, t: AttentionTiling) -> float:
    """Cycles per block in which the vector unit waits for its own results.

    A function waits for the one before it of the same tile; meanwhile those of the other ways run.
    """
    own, tree = -(-t.height * t.keys // r.lanes), r.lanes.bit_length()
    waits = [r.vector_latency + (tree if f in REDUCTIONS else 0) for f in WIDE]
    wide = sum(max(0, wait - (t.ways - 1) * own) for wait in waits)
    narrow = len(NARROW) * max(0, r.vector_latency - (t.ways - 1))
    return (wide + narrow) * r.vector_cycle


def _too_small(p: AttentionProblem, r: AttentionResources) -> CapacityError:
    have = " + ".join(readable(c) for c in r.capacities)
    need = scratchpad_bytes(p, AttentionTiling(1, 1, 1, 1, 1, 2, False))
    parts = " + ".join(readable(n) for n in need)
    return CapacityError(
        f"a query tile of one row with head_dim {p.head_dim} needs {parts} for queries and weights,"
        f" keys and values, scores and results, more than the on-chip memory of {have}: enlarge"
        " the memories, or keep the scores in main memory (--mapper unfused-attention)"
    )
