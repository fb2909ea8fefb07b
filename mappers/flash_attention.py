"""Attention with an online softmax: queries stay on chip, keys and values stream past them, and no
score ever leaves.

Of a query tile Q the running maximum m, the running sum l and the unnormalised result O are kept.
For every block of keys K and values V:

    S = scale Q K^T                  array, then vector unit; masked in blocks on the diagonal
    m' = max(m, rowmax S)            a = exp(m - m')
    P = exp(S - m')                  rounded to the format of the operands
    l = a l + rowsum P               O = a O + P V

and at the end O / l is stored. Blocks that no row of the tile sees are skipped, and the last block
ends with the last key that one sees. The sum adds the rounded P, so that the weights that multiply
V are normalised by their own sum.

Several tiles run side by side, each on one array: instruction by instruction of the vector unit in
turn, so that its latency is hidden. The scores of the next block are multiplied before the values
of this one, so that arrays and vector unit overlap, over the ends of tiles too.

Where there are fewer query tiles than arrays, as in decoding, the keys are split into ranges that
different arrays take, and their results merged through main memory (mapping/partials).

Source: Dao, FlashAttention-2, 2023 (arXiv 2307.08691), Algorithm 1; Milakov and Gimelshein, Online
normalizer calculation for softmax, 2018 (arXiv 1805.02867).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from accelsim.errors import AccelsimError
from accelsim.hw.dma import Dma
from accelsim.hw.systolic import Systolic
from accelsim.hw.vector import Vector
from accelsim.mapping.attention_tiling import (
    AttentionProblem,
    AttentionResources,
    AttentionTiling,
    best_attention_tiling,
)
from accelsim.mapping.heads import QueryTile, group_keys_or_values, query_tiles, split_keys
from accelsim.mapping.lowering import Core, Lowering, leading_array
from accelsim.mapping.partials import Partials
from accelsim.mapping.registry import mapper
from accelsim.mapping.rowwise import FP32
from accelsim.mapping.score_traffic import saved_traffic
from accelsim.program.opcodes import Function
from accelsim.program.storage import View
from accelsim.workload.operators import Attention

if TYPE_CHECKING:
    from accelsim.arch.model import Architecture

F = Function
EVERYTHING = slice(None)


def _lacks(arch: Architecture) -> str:
    """Scores are made by the arrays and weights by the vector unit: it works on both memories."""
    array = leading_array(arch.units_of(Systolic).values())
    if array is None:
        return ""
    both = {array.inputs, array.outputs}
    if any(both <= set(vector.memory) for vector in arch.units_of(Vector).values()):
        return ""
    return f"a vector unit that works on {' and '.join(sorted(both))}"


@mapper(
    "flash-attention",
    lowers=("attention",),
    needs=(Systolic, Vector, Dma),
    preference=1,
    lacks=_lacks,
)
def flash_attention(op: Attention, low: Lowering) -> None:
    """Q K^T, online softmax and P V in one pass over keys and values, scores on chip."""
    for core in low.cores:
        core.reset()
    tiling = best_attention_tiling(problem_of(op, low), _resources(low, low.cores[0]))
    low.build.note(str(tiling))
    low.build.note(saved_traffic(op, low))
    online_softmax(op, low, tiling, [_site(core) for core in low.cores])


@dataclass(frozen=True)
class Site:
    """What works on the query tiles of one core, and where.

    Slots of the arrays and of the vector unit; the memories of queries, weights, keys (and values)
    and scores (results, statistics). ``rows``: of every buffer, whatever the tiles hold (0: as many
    as those have). ``weights``: buffers of weights (0: as many as of queries).
    """

    core: Core
    arrays: tuple[int, ...]
    vector: int
    query_memory: str
    weight_memory: str
    key_memory: str
    score_memory: str
    rows: int = 0
    weights: int = 0


def _site(core: Core) -> Site:
    array = core.arrays[0][1]
    slots = tuple(slot for slot, _ in core.arrays)
    memories = array.inputs, array.inputs, array.weights, array.outputs
    return Site(core, slots, _vector(core)[0], *memories)


def online_softmax(
    op: Attention,
    low: Lowering,
    tiling: AttentionTiling,
    sites: Sequence[Site],
    start: Callable[[], None] = lambda: None,
    *,
    heads: int = 0,
) -> None:
    """Attention by a tiling, the query tiles shared out over one site per core.

    ``start`` is called ahead of each kernel: the streams, and the merge where keys are split.
    Cores work on ``heads`` key heads at a time, whose keys they find in a cache (0: on any).
    """
    whole = query_tiles(op, low, tiling.heads, tiling.rows)
    tiles, partial = whole, None
    if tiling.span < op.kv_len:
        tiles = split_keys(whole, tiling.span)
        partial = Partials.of(op, low, tiling.span)
        low.build.note(f"keys split into ranges of {tiling.span}, then merged")
    low.build.reserve(_instructions(tiles, tiling), "attention with an online softmax")
    start()
    shares = _shares(_batches(tiles, tiling), low, heads)
    for site, batches in zip(sites, shares, strict=True):
        if batches:
            _Stream(low, site, op, tiling, partial).emit(batches)
    if partial is not None:
        start()
        partial.merge(low, [piece for tile in whole for piece in tile.pieces])


def problem_of(op: Attention, low: Lowering) -> AttentionProblem:
    """What tile sizes depend on."""
    return AttentionProblem(
        groups=op.batch * op.kv_heads,
        shared=op.heads // op.kv_heads,
        q_len=op.q_len,
        kv_len=op.kv_len,
        head_dim=op.head_dim,
        causal=op.causal and op.q_len > 1,
        bits=low.format(op.inputs[0]).bits,
    )


def _resources(low: Lowering, core: Core) -> AttentionResources:
    if not core.arrays:
        raise AccelsimError(f"core {core.index} has no systolic array")
    array = core.arrays[0][1]
    vector = _vector(core)[1]
    names = list(dict.fromkeys(array.memories()))
    hz = low.arch.clocks[array.clock]
    return AttentionResources(
        cores=len(low.cores),
        array=array,
        arrays=len(core.arrays),
        lanes=vector.lanes,
        slots=tuple(vector.slots_by_function().tolist()),
        vector_latency=vector.latency,
        capacities=tuple(core.arenas[name].free for name in names),
        places=(names.index(array.inputs), names.index(array.weights), names.index(array.outputs)),
        bytes_per_cycle=0.0 if low.ideal else low.core_bytes_per_second / hz,
        latency=low.read_seconds * hz,
        vector_cycle=hz / low.arch.clocks[vector.clock],
    )


def _vector(core: Core) -> tuple[int, Vector]:
    """Slot and block of the vector unit that works on scores and on weights."""
    array = core.arrays[0][1]
    both = {array.inputs, array.outputs}
    return next((slot, unit) for slot, unit in core.of(Vector) if both <= set(unit.memory))


Batch = list[QueryTile]


def _batches(tiles: Sequence[QueryTile], tiling: AttentionTiling) -> list[Batch]:
    """Tiles that run side by side: of one key head, unless it has too few."""
    batches: list[Batch] = []
    for tile in tiles:
        last = batches[-1] if batches else []
        known = {(one.group, one.first) for one in last} | {(tile.group, tile.first)}
        if not last or len(last) == tiling.ways or len(known) > tiling.streams:
            batches.append([])
        batches[-1].append(tile)
    return batches


def _shares(batches: Sequence[Batch], low: Lowering, heads: int) -> list[list[Batch]]:
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


def _instructions(tiles: Sequence[QueryTile], tiling: AttentionTiling) -> int:
    """About as many as are emitted: per tile and block two products, loads and vector functions."""
    blocks = sum(-(-tile.keys // tiling.keys) * (15 + len(tile.pieces)) for tile in tiles)
    return blocks + sum(2 * len(tile.pieces) + 2 for tile in tiles)


@dataclass
class _Way:
    """One query tile at work on one array: its buffers, taken when they are first written, so that
    the tile before has been stored, and how far it is."""

    tile: QueryTile
    array: int
    query: View
    score: list[View] = field(default_factory=list)  # blocks that wait for the vector unit
    started: bool = False
    result: View = field(init=False)
    top: View = field(init=False)  # the running maximum
    spare: View = field(init=False)  # where the next one is put
    factor: View = field(init=False)
    total: View = field(init=False)


@dataclass(frozen=True)
class _Step:
    """A block of keys that some ways multiply with: each sees them up to its own last key.

    ``first`` and ``stops`` count from the first key that a way takes.
    """

    batch: int
    first: int
    ways: tuple[int, ...]
    stops: tuple[int, ...]


class _Stream:
    """The batches of one core."""

    def __init__(
        self,
        low: Lowering,
        site: Site,
        op: Attention,
        tiling: AttentionTiling,
        partial: Partials | None = None,
    ) -> None:
        self.low, self.core, self.op, self.tiling = low, site.core, op, tiling
        self.build, self.partial = low.build, partial
        self.arrays, self.vector = site.arrays, site.vector
        ring, height = site.core.ring, site.rows or tiling.height
        t, fmt, d = tiling, low.format(op.inputs[0]), op.head_dim
        self.query = ring(site.query_memory, "q", height, d, fmt, t.buffers)
        weights = site.weights or t.buffers
        self.weight = ring(site.weight_memory, "p", height, t.keys, fmt, weights)
        slots = t.depth * t.streams
        self.keys = ring(site.key_memory, "k", t.keys, d, low.format(op.inputs[1]), slots)
        self.values = ring(site.key_memory, "v", t.keys, d, low.format(op.inputs[2]), slots)
        self.score = ring(site.score_memory, "s", height, t.keys, FP32, 2 * t.ways)
        self.result = ring(site.score_memory, "o", height, d, FP32, t.buffers)
        self.columns = [
            ring(site.score_memory, name, height, 1, FP32, 2 * t.ways)
            for name in ("top", "spare", "factor", "total")
        ]
        self.running: dict[int, list[_Way]] = {}

    def emit(self, batches: list[Batch]) -> None:
        """Emit all batches: scores a block ahead of the softmax, the division a block behind, so
        that the vector unit need not wait for the last product of a tile."""
        steps = [step for i, batch in enumerate(batches) for step in self._steps(i, batch)]
        done: list[_Way] = []
        self._scores(steps[0], batches)
        for i, step in enumerate(steps):
            if i + 1 < len(steps):
                self._scores(steps[i + 1], batches)
            ways = [self.running[step.batch][w] for w in step.ways]
            values = self._block(step, ways, 2)
            weights = self._softmax(step, ways)
            self._finish(done)
            self._values(step, ways, weights, values)
            done = [w for w, s in zip(ways, step.stops, strict=True) if s == w.tile.keys]
        self._finish(done)

    def _steps(self, index: int, batch: Batch) -> list[_Step]:
        keys = self.tiling.keys
        steps = []
        for first in range(0, max(tile.keys for tile in batch), keys):
            ways = tuple(i for i, tile in enumerate(batch) if tile.keys > first)
            stops = tuple(min(first + keys, batch[i].keys) for i in ways)
            steps.append(_Step(index, first, ways, stops))
        return steps

    def _begin(self, index: int, tile: QueryTile) -> _Way:
        rows = slice(0, tile.rows)
        query = self.query.next()[rows, EVERYTHING]
        part = len(tile.pieces) > 1
        for piece in tile.pieces:
            target = query[piece.rows, EVERYTHING]
            self.build.load(self.core.load_queues[0], target, piece.queries, part=part)
        return _Way(tile, self.arrays[index % len(self.arrays)], query)

    def _block(self, step: _Step, ways: Sequence[_Way], operand: int) -> list[View]:
        """For every way, its keys or values of a block; what several ways need is loaded once."""
        ring, queue = (
            (self.keys, self.core.load_queues[0])
            if operand == 1
            else (self.values, self.core.load_queues[-1])
        )
        stops: dict[tuple[int, int], int] = {}
        for way, stop in zip(ways, step.stops, strict=True):
            start = way.tile.group, way.tile.first
            stops[start] = max(stop, stops.get(start, 0))
        blocks = {}
        for (group, first), stop in stops.items():
            whole = group_keys_or_values(self.op, self.low, group, operand)
            block = ring.next()[: stop - step.first, EVERYTHING]
            self.build.load(queue, block, whole[first + step.first : first + stop, EVERYTHING])
            blocks[group, first] = block
        return [
            blocks[way.tile.group, way.tile.first][: stop - step.first, EVERYTHING]
            for way, stop in zip(ways, step.stops, strict=True)
        ]

    def _scores(self, step: _Step, batches: list[Batch]) -> None:
        """Q K^T of every way, for the softmax of the next step."""
        if step.first == 0:
            tiles = batches[step.batch]
            self.running[step.batch] = [self._begin(i, tile) for i, tile in enumerate(tiles)]
            self.running.pop(step.batch - 2, None)
        ways = [self.running[step.batch][i] for i in step.ways]
        for way, keys in zip(ways, self._block(step, ways, 1), strict=True):
            score = self.score.next()[: way.tile.rows, : keys.rows]
            self.build.matmul(way.array, score, way.query, keys, accumulate=False, transpose_b=True)
            way.score.append(score)

    def _softmax(self, step: _Step, ways: Sequence[_Way]) -> list[View]:
        """Weights of a block; running maxima and sums, and the results rescaled to the new maxima.

        Function by function over all ways: each hides the latency of the others.
        """
        v, build = self.vector, self.build
        scores = [way.score.pop(0) for way in ways]
        weights = [self.weight.next()[: s.rows, : s.cols] for s in scores]
        later = [way for way in ways if way.started]
        for way in ways:
            if not way.started:
                columns = (ring.next()[: way.tile.rows, EVERYTHING] for ring in self.columns)
                way.top, way.spare, way.factor, way.total = columns
        for s in scores:
            build.vector(v, F.MUL_IMM, s, s, imm=self.op.scale)
        for way, s in zip(ways, scores, strict=True):
            self._mask(way.tile, s, way.tile.first + step.first)
        for way, s in zip(ways, scores, strict=True):
            build.vector(v, F.ROW_MAX, way.spare, s)
        for way in later:
            build.vector(v, F.MAX, way.spare, way.spare, way.top)
        for way, s in zip(ways, scores, strict=True):
            build.vector(v, F.SUB, s, s, way.spare)
        for way in later:
            build.vector(v, F.SUB, way.factor, way.top, way.spare)
        for s, p in zip(scores, weights, strict=True):
            build.vector(v, F.EXP, p, s)
        for way in later:
            build.vector(v, F.EXP, way.factor, way.factor)
        self._sums(ways, weights)
        for way in later:
            build.vector(v, F.MUL, way.result, way.result, way.factor)
        for way in ways:
            way.top, way.spare = way.spare, way.top
            way.started = True
        return weights

    def _sums(self, ways: Sequence[_Way], weights: Sequence[View]) -> None:
        """Running sums; the old maximum's column holds the sum of the block."""
        v, build = self.vector, self.build
        for way, p in zip(ways, weights, strict=True):
            build.vector(v, F.ROW_SUM, way.top if way.started else way.total, p)
        for way in ways:
            if way.started:
                build.vector(v, F.MUL, way.total, way.total, way.factor)
        for way in ways:
            if way.started:
                build.vector(v, F.ADD, way.total, way.total, way.top)

    def _mask(self, tile: QueryTile, score: View, first: int) -> None:
        """Hide the keys behind each query, where the block reaches beyond the first of them."""
        for piece in tile.pieces:
            seen_by_all = max(0, piece.position + 1 - first)
            if seen_by_all < score.cols:
                self.build.vector(
                    self.vector,
                    F.CAUSAL_MASK,
                    corner := score[piece.rows, seen_by_all:],
                    corner,
                    imm=piece.position - first - seen_by_all,
                )

    def _values(
        self, step: _Step, ways: Sequence[_Way], weights: Sequence[View], values: Sequence[View]
    ) -> None:
        """P V of every way, onto its result."""
        for way, p, block in zip(ways, weights, values, strict=True):
            if step.first == 0:
                way.result = self.result.next()[: way.tile.rows, EVERYTHING]
            self.build.matmul(way.array, way.result, p, block, accumulate=step.first > 0)

    def _finish(self, ways: Sequence[_Way]) -> None:
        """Divide by the sums and store; store what is divided later as it is."""
        if self.partial is not None:
            for way in ways:
                for piece in way.tile.pieces:
                    result, top, total = (
                        view[piece.rows, EVERYTHING] for view in (way.result, way.top, way.total)
                    )
                    parts = result, top, total
                    queue = self.core.store_queue
                    self.partial.store(self.low, queue, piece, way.tile.first, parts)
            return
        for way in ways:
            self.build.vector(self.vector, F.RECIPROCAL, way.total, way.total)
        for way in ways:
            self.build.vector(self.vector, F.MUL, way.result, way.result, way.total)
        for way in ways:
            for piece in way.tile.pieces:
                self.build.store(
                    self.core.store_queue, piece.outputs, way.result[piece.rows, EVERYTHING]
                )
