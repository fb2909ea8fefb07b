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

This is the stream of instructions; tiles, units and memories are the mapper's choice. Several tiles
run side by side, each on one array: instruction by instruction of the vector unit in
turn, so that its latency is hidden. The scores of the next block are multiplied before the values
of this one, so that arrays and vector unit overlap, over the ends of tiles too.

Where there are fewer query tiles than arrays, as in decoding, the keys are split into ranges that
different arrays take, and their results merged through main memory (mapping/attention/partials).

Source: Dao, FlashAttention-2, 2023 (arXiv 2307.08691), Algorithm 1; Milakov and Gimelshein, Online
normalizer calculation for softmax, 2018 (arXiv 1805.02867).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import ClassVar

from accelsim.mapping.attention.heads import QueryTile, cache_runs, split_keys
from accelsim.mapping.attention.masks import masks, sees_nothing
from accelsim.mapping.attention.partials import Partials
from accelsim.mapping.attention.phases import Batch, Phase, batches_of, instructions, shares
from accelsim.mapping.attention.score_traffic import saved_traffic
from accelsim.mapping.attention.tiling import AttentionTiling, key_slots
from accelsim.mapping.lowering import Core, Lowering
from accelsim.mapping.rowwise import FP32
from accelsim.numerics.orders import CHAIN, Online, Order
from accelsim.program.opcodes import Function
from accelsim.program.storage import View
from accelsim.workload.operators import Attention

F = Function
EVERYTHING = slice(None)
LOWEST = -(2.0 - 2.0**-23) * 2.0**127
"""The lowest finite fp32: the maximum of a row that has seen no key yet."""


@dataclass(frozen=True)
class Site:
    """What works on the query tiles of one core, and where: slots of the arrays and of the vector
    unit with so many lanes; the memories of queries and weights, of keys and values, and of scores
    and results."""

    core: Core
    arrays: tuple[int, ...]
    vector: int
    lanes: int
    queries: str
    keys: str
    scores: str


def online_softmax(
    op: Attention,
    low: Lowering,
    phases: Sequence[Phase],
    sites: Sequence[Site],
    start: Callable[[], None] = lambda: None,
    stream: type[Stream] | None = None,
    order: Order = CHAIN,
) -> None:
    """Attention in phases, the query tiles of each shared out over one site per core.

    ``start`` is called ahead of each kernel: a phase, and the merge where keys are split.
    ``stream`` is what is done with the batches of a core, by default the module's Stream; ``order``
    how the units reduce what an instruction gives them.
    """
    works = stream or Stream
    low.build.note(saved_traffic(op, low))
    tiles, splits = [], 0
    for phase in phases:
        low.build.note(str(phase.tiling))
        tiles.append(split_keys(phase.tiles, phase.span, splits))
        splits += phase.splits
    for phase in phases:
        low.build.reduce(works.order(op, low, phase, order, sites[0].lanes, split=splits > 1))
    partial = None
    if splits > 1:
        partial = Partials.of(op, low, chain(*tiles), maxima=works.maxima)
        low.build.note(f"keys split into {splits} ranges, then merged")
    for phase, some in zip(phases, tiles if partial else [p.tiles for p in phases], strict=True):
        low.build.reserve(instructions(some, phase.tiling), "attention with an online softmax")
        batches = batches_of(some, phase.tiling)
        start()
        for site, mine in zip(sites, shares(batches, low, phase.tiling.turn), strict=True):
            site.core.reset()
            if mine:
                works(low, site, op, phase.tiling, partial).emit(mine)
    if partial is not None:
        start()
        partial.merge(low, [piece for tile in phases[-1].tiles for piece in tile.pieces])


@dataclass
class Way:
    """One query tile at work on one array: its buffers, taken when they are first written, so that
    the tile before has been stored, and how far it is."""

    tile: QueryTile
    array: int
    queries: list[View]  # and their rope part
    score: list[View] = field(default_factory=list)  # blocks that wait for the vector unit
    latent: list[View] = field(default_factory=list)  # keys that are to be values, too
    started: bool = False
    multiplied: bool = False
    result: View = field(init=False)
    top: View = field(init=False)  # the running maximum
    spare: View = field(init=False)  # where the next one is put
    factor: View = field(init=False)
    total: View = field(init=False)


@dataclass(frozen=True)
class Step:
    """A block of keys that some ways multiply with: way i with keys starts[i] .. stops[i] - 1 of
    its key head."""

    batch: int
    ways: tuple[int, ...]
    starts: tuple[int, ...]
    stops: tuple[int, ...]


class Stream:
    """The batches of one core."""

    maxima: ClassVar[bool] = True
    """Whether partial results have maxima of their own."""

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
        ring, t, fmt, d = site.core.ring, tiling, low.format(op.inputs[0]), op.head_dim
        height = t.buffer_rows
        parts = [("", d), *([("_rope", op.rope_dim)] if op.rope_dim else [])]
        self.query = [
            ring(site.queries, f"q{name}", height, size, fmt, t.buffers) for name, size in parts
        ]
        self.weight = ring(site.queries, "p", height, t.keys, fmt, t.weight_buffers)
        # What is kept in another format is converted on its way.
        slots = key_slots(op.latent, t)
        self.rings = {
            f"k{name}": ring(site.keys, f"k{name}", t.keys, size, fmt, slots)
            for name, size in parts
        }
        if not op.latent:
            self.rings["v"] = ring(site.keys, "v", t.keys, d, fmt, t.depth * t.streams)
        if op.alibi:
            self.bias = ring(site.scores, "bias", t.heads, t.keys, FP32, 2 * t.ways)
        self.score = ring(site.scores, "s", height, t.keys, FP32, 2 * t.ways)
        self.result = ring(site.scores, "o", height, d, FP32, t.buffers)
        self.columns = {
            name: ring(site.scores, name, height, 1, FP32, 2 * t.ways)
            for name in ("top", "spare", "factor", "total")
        }
        self.running: dict[int, list[Way]] = {}

    @classmethod
    def order(
        cls, op: Attention, low: Lowering, phase: Phase, units: Order, lanes: int, *, split: bool
    ) -> Order:
        """What these instructions, and the merge, do with the keys of a phase."""
        fmt = low.format(op.inputs[0]).name
        online = Online(
            keys=phase.tiling.keys,
            span=phase.span if split else 0,
            exponential="exp",
            probabilities=fmt,
            summed=fmt,
            lanes=lanes,
            division="reciprocal",
        )
        return replace(units, online=online)

    def emit(self, batches: list[Batch]) -> None:
        """Emit all batches: scores a block ahead of the softmax, the division a block behind, so
        that the vector unit need not wait for the last product of a tile."""
        steps = [step for i, batch in enumerate(batches) for step in self._steps(i, batch)]
        done: list[Way] = []
        self._scores(steps[0], batches)
        for i, step in enumerate(steps):
            if i + 1 < len(steps):
                self._scores(steps[i + 1], batches)
            ways = [self.running[step.batch][w] for w in step.ways]
            values = self._value_blocks(step, ways)
            weights = self._softmax(step, ways)
            self._finish(done)
            self._values(ways, weights, values)
            done = [w for w, s in zip(ways, step.stops, strict=True) if s == w.tile.visible]
        self._finish(done)

    def _steps(self, index: int, batch: Batch) -> list[Step]:
        keys = self.tiling.keys
        steps = []
        for offset in range(0, max(tile.visible - tile.first for tile in batch), keys):
            starts = [max(tile.first + offset, tile.sees) for tile in batch]
            stops = [min(tile.first + offset + keys, tile.visible) for tile in batch]
            ways = [i for i in range(len(batch)) if starts[i] < stops[i]]
            if ways:
                first, last = (tuple(ends[i] for i in ways) for ends in (starts, stops))
                steps.append(Step(index, tuple(ways), first, last))
        return steps

    def _begin(self, index: int, tile: QueryTile) -> Way:
        loaded = [ring.next()[: tile.rows, EVERYTHING] for ring in self.query]
        part = len(tile.pieces) > 1
        for piece in tile.pieces:
            for whole, source in zip(loaded, piece.queries, strict=True):
                target = whole[piece.rows, EVERYTHING]
                self.build.load(self.core.load_queues[0], target, source, part=part)
        return Way(tile, self.arrays[index % len(self.arrays)], loaded)

    def _block(self, step: Step, ways: Sequence[Way], name: str) -> list[View]:
        """For every way, its block of an operand; what several ways need is loaded once."""
        ring, queue = self.rings[name], self.core.load_queues[-1 if name == "v" else 0]
        needs: dict[tuple[int, int], tuple[int, int]] = {}
        for way, start, stop in zip(ways, step.starts, step.stops, strict=True):
            key = way.tile.group, way.tile.first
            first, last = needs.get(key, (start, stop))
            needs[key] = min(first, start), max(last, stop)
        blocks = {}
        for key, (first, last) in needs.items():
            block = ring.next()[: last - first, EVERYTHING]
            runs = cache_runs(self.op, self.low, key[0], name, first, last)
            for run in runs:
                rows = slice(run.first - first, run.first - first + run.view.rows)
                self.build.load(queue, block[rows, EVERYTHING], run.view, part=len(runs) > 1)
            blocks[key] = first, block
        views = []
        for way, start, stop in zip(ways, step.starts, step.stops, strict=True):
            first, block = blocks[way.tile.group, way.tile.first]
            views.append(block[start - first : stop - first, EVERYTHING])
        return views

    def _scores(self, step: Step, batches: list[Batch]) -> None:
        """Q K^T of every way, for the softmax of the next step."""
        if step.batch not in self.running:
            tiles = batches[step.batch]
            self.running[step.batch] = [self._begin(i, tile) for i, tile in enumerate(tiles)]
            self.running.pop(step.batch - 2, None)
        ways = [self.running[step.batch][i] for i in step.ways]
        names = [name for name in self.rings if name != "v"]
        for part, name in enumerate(names):
            for way, keys in zip(ways, self._block(step, ways, name), strict=True):
                if part == 0:
                    way.score.append(self.score.next()[: way.tile.rows, : keys.rows])
                    way.latent.append(keys)
                score, query = way.score[-1], way.queries[part]
                self.build.matmul(
                    way.array, score, query, keys, accumulate=part > 0, transpose_b=True
                )

    def _softmax(self, step: Step, ways: Sequence[Way]) -> list[View]:
        """Weights of a block; running maxima and sums, and the results rescaled to the new maxima.

        Function by function over all ways: each hides the latency of the others.
        """
        v, build = self.vector, self.build
        scores = [way.score.pop(0) for way in ways]
        weights = [self.weight.next()[: s.rows, : s.cols] for s in scores]
        later = [way for way in ways if way.started]
        for way in ways:
            if not way.started:
                columns = (
                    self.columns[name].next()[: way.tile.rows, EVERYTHING]
                    for name in ("top", "spare", "factor", "total")
                )
                way.top, way.spare, way.factor, way.total = columns
        self._finish_scores(step, ways, scores)
        for way, s in zip(ways, scores, strict=True):
            build.vector(v, F.ROW_MAX, way.spare, s)
        for way in later:
            build.vector(v, F.MAX, way.spare, way.spare, way.top)
        for way, stop in zip(ways, step.stops, strict=True):
            if any(sees_nothing(self.op, p.position, p.count, stop) for p in way.tile.pieces):
                build.vector(v, F.MAX_IMM, way.spare, way.spare, imm=LOWEST)
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

    def _finish_scores(self, step: Step, ways: Sequence[Way], scores: Sequence[View]) -> None:
        """Scale the scores of a block, add the bias and hide what is not seen."""
        for s in scores:
            self.build.vector(self.vector, F.MUL_IMM, s, s, imm=self.op.scale)
        for way, s, first in zip(ways, scores, step.starts, strict=True):
            self._add_bias(way.tile, s, first)
            self._mask(way.tile, s, first)

    def _sums(self, ways: Sequence[Way], weights: Sequence[View]) -> None:
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

    def _add_bias(self, tile: QueryTile, score: View, first: int) -> None:
        """Add what every head adds to the scores of the keys from ``first`` on."""
        op = self.op
        if not op.alibi:
            return
        bias, row = self.bias.next()[:, : score.cols], 0
        whole = self.low.matrix(op.operand("bias") or "", op.heads, op.kv_len)
        for piece in tile.pieces:
            head = piece.first_row // op.q_len % op.heads
            count = piece.count if op.q_len == 1 else 1
            some = bias[row : row + count, EVERYTHING]
            source = whole[head : head + count, first : first + score.cols]
            part = len(tile.pieces) > 1
            self.build.load(self.core.load_queues[-1], some, source, part=part)
            target = score[piece.rows, EVERYTHING]
            self.build.vector(self.vector, F.ADD, target, target, some)
            row += count

    def _mask(self, tile: QueryTile, score: View, first: int) -> None:
        """Hide the keys that a query does not see, in the corners of the block where there are
        any."""
        for piece in tile.pieces:
            for mask in masks(self.op, piece.position, piece.count, first, score.cols):
                corner = score[piece.rows, mask.cols]
                self.build.vector(self.vector, mask.function, corner, corner, imm=mask.imm)

    def _value_blocks(self, step: Step, ways: Sequence[Way]) -> list[View]:
        """For every way, its values of a block: loaded, or its latent keys."""
        kept = [way.latent.pop(0) for way in ways]
        return kept if self.op.latent else self._block(step, ways, "v")

    def _values(self, ways: Sequence[Way], weights: Sequence[View], values: Sequence[View]) -> None:
        """P V of every way, onto its result."""
        for way, p, block in zip(ways, weights, values, strict=True):
            if not way.multiplied:
                way.result = self.result.next()[: way.tile.rows, EVERYTHING]
            self.build.matmul(way.array, way.result, p, block, accumulate=way.multiplied)
            way.multiplied = True

    def _parts(self, way: Way) -> tuple[View, ...]:
        """What a range of keys leaves of a tile."""
        return way.result, way.top, way.total

    def _finish(self, ways: Sequence[Way]) -> None:
        """Divide by the sums and store; store what is divided later as it is."""
        if self.partial is not None:
            for way in ways:
                for piece in way.tile.pieces:
                    parts = [view[piece.rows, EVERYTHING] for view in self._parts(way)]
                    queue = self.core.store_queue
                    self.partial.store(self.low, queue, piece, way.tile.part, parts)
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
