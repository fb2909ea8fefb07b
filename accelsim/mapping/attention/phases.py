"""What an attention with an online softmax does in one go: which query tiles read which keys, which
tiles run side by side, and on which core."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from accelsim.errors import CapacityError
from accelsim.hw.systolic import Systolic
from accelsim.mapping.attention.heads import QueryTile, behind_prefix, prefix_tiles, query_tiles
from accelsim.mapping.attention.machine import array_resources, resources_of
from accelsim.mapping.attention.tiling import (
    AttentionProblem,
    AttentionTiling,
    best_attention_tiling,
    merge_cycles,
)
from accelsim.mapping.lowering import Lowering
from accelsim.workload.operators import Attention

if TYPE_CHECKING:
    from accelsim.arch.model import Architecture

Batch = list[QueryTile]


@dataclass(frozen=True)
class Tiler:
    """How a machine tiles an attention, and the cycles of merging so many parts of its rows."""

    best: Callable[[AttentionProblem], AttentionTiling]
    merge_cycles: Callable[[AttentionProblem, int], float]


@dataclass(frozen=True)
class Phase:
    """Query tiles and the keys that they read in one go, with the tiling for it: ``keys`` at most,
    for which tiles of ``typical`` ones are chosen."""

    tiles: list[QueryTile]
    tiling: AttentionTiling
    keys: int
    typical: int

    @classmethod
    def of(cls, op: Attention, low: Lowering, tiler: Tiler) -> Phase:
        """All queries and all keys that they see."""
        keys, typical = op.keys_read, -(-sum(op.keys_read_by) // op.batch)
        shared = op.heads // op.kv_heads
        tiling = tiler.best(_problem(op, low, op.batch * op.kv_heads, shared, typical))
        return cls(query_tiles(op, low, tiling.heads, tiling.rows), tiling, keys, typical)

    @property
    def span(self) -> int:
        """Keys of a range."""
        return self.tiling.span if self.tiling.span < self.typical else self.keys

    @property
    def splits(self) -> int:
        """Ranges into which the keys are split."""
        return -(-self.keys // self.span)


def has_common_keys(op: Attention) -> bool:
    """Whether all queries of several sequences see the same first keys."""
    return op.batch > 1 and 0 < op.prefix <= min(op.lengths) - op.q_len and not op.window


def phases_of(op: Attention, low: Lowering, tiler: Tiler) -> list[Phase]:
    """One phase, or two where sequences have keys in common and the merge costs less than reading
    these keys for every sequence."""
    whole = Phase.of(op, low, tiler)
    if not has_common_keys(op):
        return [whole]
    two = two_phases(op, low, tiler)
    typical = -(-sum(op.lengths) // op.batch)
    problem = _problem(op, low, op.batch * op.kv_heads, op.heads // op.kv_heads, typical)
    parts = sum(phase.splits for phase in two)
    cycles = sum(phase.tiling.cycles for phase in two) + tiler.merge_cycles(problem, parts)
    if cycles >= whole.tiling.cycles:
        return [whole]
    low.build.note(f"common prefix of {op.prefix} read once for {op.batch} sequences")
    return two


def two_phases(op: Attention, low: Lowering, tiler: Tiler) -> list[Phase]:
    """The common prefix with the queries of all sequences together, so that it is read once, then
    what every sequence has of its own.

    Source: Ye, Tao, Huang and Li, ChunkAttention, ACL 2024, section 3.2.
    """
    shared, own = op.heads // op.kv_heads, op.kv_len - op.prefix
    typical = -(-sum(op.lengths) // op.batch) - op.prefix
    common = _problem(op, low, op.kv_heads, op.batch * shared, op.prefix, common=True)
    first = tiler.best(common)
    then = tiler.best(_problem(op, low, op.batch * op.kv_heads, shared, typical))
    behind = behind_prefix(op, query_tiles(op, low, then.heads, then.rows))
    return [
        Phase(prefix_tiles(op, low, first.heads, first.rows), first, op.prefix, op.prefix),
        Phase(behind, then, own, typical),
    ]


def _problem(
    op: Attention, low: Lowering, groups: int, shared: int, keys: int, *, common: bool = False
) -> AttentionProblem:
    """What tiles depend on: ``groups`` key heads with ``keys`` keys each, that ``shared`` query
    heads see; ``common``: every query sees all of them."""
    bits, kept = (low.format(name).bits for name in op.inputs[:2])
    return _problem_of(op, groups, shared, keys, bits, kept, common)


def _problem_of(
    op: Attention, groups: int, shared: int, keys: int, bits: int, kept: int, common: bool
) -> AttentionProblem:
    return AttentionProblem(
        groups=groups,
        shared=shared,
        q_len=op.q_len,
        kv_len=keys,
        head_dim=op.head_dim,
        causal=op.masked and not common,
        bits=bits,
        kv_bits=kept,
        rope=op.rope_dim,
        window=op.window if op.masked else 0,
        latent=op.latent,
        biased=op.alibi,
    )


def seconds_on_arrays(op: Attention, arch: Architecture, bits: int) -> float:
    """About how long the arrays of a machine attend with scores on chip, with operands of so many
    bits, all requests as if they were of mean length: 0 if there are no arrays, infinite if the
    scores have no room. Networks between cores and memory are left out."""
    if not arch.units_of(Systolic):
        return 0.0
    resources = resources_of(arch)
    if resources is None:
        return inf
    typical = -(-sum(op.keys_read_by) // op.batch)
    groups, shared = op.batch * op.kv_heads, op.heads // op.kv_heads
    problem = _problem_of(op, groups, shared, typical, bits, bits, common=False)
    try:
        tiling = best_attention_tiling(problem, resources)
    except CapacityError:
        return inf
    return tiling.cycles / arch.clocks[resources.array.clock]


def on_arrays(low: Lowering) -> Tiler:
    """Tilings for systolic arrays."""
    resources = array_resources(low)
    return Tiler(
        lambda problem: best_attention_tiling(problem, resources),
        lambda problem, parts: merge_cycles(problem, resources, parts),
    )


def batches_of(tiles: Sequence[QueryTile], tiling: AttentionTiling) -> list[Batch]:
    """Tiles that run side by side: of one key head, unless it has too few."""
    batches: list[Batch] = []
    for tile in tiles:
        last = batches[-1] if batches else []
        known = {(one.group, one.first) for one in last} | {(tile.group, tile.first)}
        if not last or len(last) == tiling.ways or len(known) > tiling.streams:
            batches.append([])
        batches[-1].append(tile)
    return batches


def shares(batches: Sequence[Batch], low: Lowering, heads: int = 0) -> list[list[Batch]]:
    """Batches of every core: the longest first, of so many key heads at a time (0: of all), each to
    the core that has least to do."""
    load = [0] * len(low.cores)
    mine: list[list[int]] = [[] for _ in low.cores]
    work = [sum(tile.rows * tile.keys for tile in batch) for batch in batches]
    turn = [batch[0].group // heads if heads else 0 for batch in batches]
    for i in sorted(range(len(batches)), key=lambda i: (turn[i], -work[i])):
        core = load.index(min(load))
        load[core] += work[i]
        mine[core].append(i)
    return [[batches[i] for i in (some if heads else sorted(some))] for some in mine]


def instructions(tiles: Sequence[QueryTile], tiling: AttentionTiling) -> int:
    """About as many as are emitted: per tile and block two products, loads and vector functions."""
    blocks = sum(-(-tile.keys // tiling.keys) * (15 + 3 * len(tile.pieces)) for tile in tiles)
    return blocks + sum(2 * len(tile.pieces) + 2 for tile in tiles)
