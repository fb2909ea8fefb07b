"""How many tokens a chunk of linear attention has and how many heads are worked on side by side: a
closed-form cost over candidates.

Per chunk of C tokens a head takes four products, Q K^T, P V, Q S and K^T V, and the vector unit
passes over the scores [C, C], the keys and the results [C, d], and twice over the state [d, d]. A
chunk's pairs cost C per token, its state d^2 / C: arrays want C near d and no smaller than a fold.
Per step, which is a chunk of every head of a group, a core takes

    max(arrays, vector unit, memory, chain + the heads beside the first on the slower unit / 2)

where the chain of one head goes through state, Q S, its decay, the two products that add, and back.

Source: Yang et al., Gated Linear Attention Transformers, 2023 (arXiv 2312.06635), section 4.1, for
the chunked form; the cost is ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

import numpy as np

from accelsim.errors import CapacityError
from accelsim.mapping.attention.machine import ArrayResources
from accelsim.mapping.placement import ALIGNMENT, readable
from accelsim.mapping.tiling import TOLERANCE, granules
from accelsim.program.opcodes import Function

F = Function
FP32_BYTES = 4
DEPTHS = (3, 2)
"""Chunks of queries, keys and values that have buffers."""


@dataclass(frozen=True)
class ChunkProblem:
    """Linear attention of ``members`` heads of all sequences, ``q_len`` tokens each, with keys of
    ``d`` and values of ``e`` elements of ``bits``. ``chunk``: tokens that are wanted (0: any);
    ``decay`` as in Recurrence; ``outputs``: whether results are made, or only states."""

    members: int
    q_len: int
    d: int
    e: int
    bits: int
    decay: str
    chunk: int
    outputs: bool

    @property
    def gated(self) -> bool:
        """Whether decays change from chunk to chunk."""
        return self.decay == "gated"

    @property
    def decayed(self) -> bool:
        """Whether there are decays."""
        return self.decay != "none"


@dataclass(frozen=True)
class ChunkTiling:
    """Chunks of ``chunk`` tokens of ``ways`` heads side by side, ``depth`` chunks of operands with
    buffers. ``double``: states and results have two buffers per way, so that heads and chunks
    overlap; ``cycles`` is the estimate."""

    chunk: int
    ways: int
    depth: int
    double: bool
    cycles: float = 0.0

    def __str__(self) -> str:
        return f"chunks of {self.chunk} tokens, {self.ways} heads at a time"


@lru_cache(maxsize=1024)
def best_chunk_tiling(p: ChunkProblem, r: ArrayResources) -> ChunkTiling:
    """The cheapest that fits, of near equals the longest chunks; CapacityError if none fits."""
    fitting = list(chunk_tilings(p, r))
    if not fitting:
        raise _too_small(p, r)
    fastest = min(t.cycles for t in fitting)
    near = [t for t in fitting if t.cycles <= fastest * TOLERANCE]
    return max(near, key=lambda t: (t.chunk * t.ways, t.depth, t.double, -t.cycles))


def chunk_tilings(p: ChunkProblem, r: ArrayResources) -> Iterator[ChunkTiling]:
    """Candidates that fit, with their cost."""
    share = -(-p.members // r.cores)
    ways = {min(share, n) for e in range(5) for n in (1 << e, r.arrays << e)}
    shapes = product(_lengths(p, r), sorted(ways), DEPTHS, (True, False))
    for shape in (ChunkTiling(*sizes) for sizes in shapes):
        if _fits(p, r, shape):
            yield replace(shape, cycles=_cycles(p, r, shape))


def _lengths(p: ChunkProblem, r: ArrayResources) -> list[int]:
    """Powers of two up to a few folds of the array; the wanted length alone if there is one."""
    if p.chunk:
        return [min(p.chunk, p.q_len)]
    most = 4 * max(granules(r.array))
    powers = {1 << e for e in range(most.bit_length()) if 8 <= 1 << e <= most}
    return sorted({min(c, p.q_len) for c in powers})


def scratchpad_bytes(p: ChunkProblem, t: ChunkTiling, shared: bool) -> tuple[int, int, int]:
    """Bytes in the memories of A, B and C; ``shared``: A and B lie in one, and keys once."""
    c, w, element = t.chunk, t.ways, p.bits / 8

    def room(count: int, elements: int, size: float) -> int:
        return count * (int(-(-elements * size // 1)) + ALIGNMENT)

    rolling = t.depth * w
    a = room(rolling * (p.outputs + (not shared)), c * p.d, element)
    a += room(2 * w * p.decayed, c * p.d, element)
    a += room(2 * w * p.outputs, c * c, element)
    b = room(rolling * (p.outputs or shared), c * p.d, element)
    b += room(rolling, c * p.e, element) + room(2 * w * p.outputs, p.d * p.e, element)
    a += room(1 + 2 * w * p.decayed, c * c if p.outputs else c, FP32_BYTES)
    a += (room(4, c * w, FP32_BYTES) + room(4 * w, c, FP32_BYTES)) * p.decayed
    out = room(2 * w * p.outputs, c * c, FP32_BYTES)
    few = 2 * w if t.double else w
    return a, b, out + room(few * p.outputs, c * p.e, FP32_BYTES) + room(few, p.d * p.e, FP32_BYTES)


def _fits(p: ChunkProblem, r: ArrayResources, t: ChunkTiling) -> bool:
    used = [0] * len(r.capacities)
    parts = scratchpad_bytes(p, t, r.places[0] == r.places[1])
    for place, nbytes in zip(r.places, parts, strict=True):
        used[place] += nbytes
    return all(u <= capacity for u, capacity in zip(used, r.capacities, strict=True))


def _cycles(p: ChunkProblem, r: ArrayResources, t: ChunkTiling) -> float:
    """Closed-form cost in array cycles, see the module."""
    c, d, e = t.chunk, p.d, p.e
    x, qs, pv, kv = (_product(r, *shape) for shape in ((c, c, d), (c, e, d), (c, e, c), (d, e, c)))
    if not p.outputs:
        x = qs = pv = 0
    array = -(-t.ways // r.arrays) * (x + qs + pv + kv)
    score, head = (_passes(r, c * c, (F.MUL,)) if p.outputs else 0.0), 0.0
    if p.gated:
        score += _passes(r, c * c if p.outputs else c, (F.SUB, F.ADD, F.EXP))
    if p.decayed:
        score += _passes(r, c * d, (F.MUL,))
        head += _passes(r, d * e, (F.MUL,))
    if p.outputs:
        head += _passes(r, d * e, (F.COPY,)) + _passes(r, c * e, (F.MUL_IMM,) * (1 + p.decayed))
    vector = t.ways * (score + head) + (_sums(r, t) if p.gated else 0.0)
    drain, waits = r.array.fill_drain_cycles, r.vector_latency * r.vector_cycle
    chain = qs + pv + kv + 2 * drain + head + 4 * waits
    beside = max(array * (1 - 1 / t.ways), vector * (1 - 1 / t.ways)) / 2
    stored = t.ways * c * e * p.bits / 8 / r.bytes_per_cycle if r.bytes_per_cycle else 0.0
    apart = 0.0 if t.double or not p.outputs else r.latency + stored
    step = max(array, vector, chain + beside) + apart
    ends = x + score + chain
    groups = -(-p.members // t.ways)
    steps = -(-groups // r.cores) * -(-p.q_len // c)
    if not r.bytes_per_cycle:
        return steps * step + ends
    moved = t.ways * c * ((1 + p.outputs) * d + (1 + p.outputs) * e) * p.bits / 8
    load = moved / r.bytes_per_cycle
    turn = (r.latency + load) / (t.depth - 1)
    return steps * max(step, load, turn) + ends + load + 2 * r.latency


def _product(r: ArrayResources, m: int, n: int, k: int) -> int:
    sizes = (np.array([size], dtype=np.int64) for size in (m, n, k))
    return int(r.array.cycles(*sizes)[0][0])


def _passes(r: ArrayResources, elements: int, functions: tuple[Function, ...]) -> float:
    return -(-elements // r.lanes) * sum(r.slots[f] for f in functions) * r.vector_cycle


def _sums(r: ArrayResources, t: ChunkTiling) -> float:
    """Cycles of the sums of gates of a step, every one of which waits for the one before."""
    rounds = max(0, t.chunk - 1).bit_length()
    one = -(-t.chunk * t.ways // r.lanes) * r.slots[F.ADD] + r.vector_latency
    return rounds * one * r.vector_cycle


def _too_small(p: ChunkProblem, r: ArrayResources) -> CapacityError:
    have = " + ".join(readable(c) for c in r.capacities)
    chunk = _lengths(p, r)[0]
    shared = r.places[0] == r.places[1]
    need = scratchpad_bytes(p, ChunkTiling(chunk, 1, DEPTHS[-1], False), shared)
    parts = " + ".join(readable(n) for n in need)
    return CapacityError(
        f"a chunk of {chunk} tokens with a state of {p.d} x {p.e} needs {parts} for what the arrays"
        f" read as rows, as columns and write, more than the on-chip memory of {have}: enlarge the"
        " memories, or choose a smaller chunk= or dv="
    )
