"""Attention of a decode batch in memory: scores and weighted values by the banks, softmax beside.

A request lies in one channel (mapping/channel_caches). Its query goes to a row of the channel; the
banks multiply it with all keys, heads side by side in a row at once; the scores come to the
scratchpad of the memory's side, whose vector unit makes the softmax; the weights go back to rows
of the channel, and the banks multiply them with the values. Channels work side by side, each in its
own part of the scratchpad and at its own pace: some heads' scores are under way while the softmax
of those before is made.

Source: Heo et al., NeuPIMs, ASPLOS 2024, sections 4 and 5.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from accelsim.hw.dma import Dma
from accelsim.hw.pim.cost import product_cost
from accelsim.hw.pim.memory import PimDram
from accelsim.hw.pim.unit import Pim
from accelsim.hw.systolic import Systolic
from accelsim.hw.vector import Vector
from accelsim.mapping.bank_attention import HALVES, BankAttention, cache_bytes, lacks_caches
from accelsim.mapping.bank_layouts import Placed, bank_memory, slower_than_reading
from accelsim.mapping.channel_caches import CachePlaces, Request
from accelsim.mapping.lowering import Lowering
from accelsim.mapping.placement import ALIGNMENT, Arena, aligned
from accelsim.mapping.registry import mapper
from accelsim.numerics.formats import number_format, row_bytes
from accelsim.numerics.orders import order_of
from accelsim.program.opcodes import Function
from accelsim.program.storage import Storage, View
from accelsim.workload.operators import Attention

if TYPE_CHECKING:
    from accelsim.arch.model import Architecture

F = Function
FP32 = number_format("fp32")

Work = tuple[Request, slice, int]
"""Heads of a request that are in work at once, and which part of the request they are."""


class Does(IntEnum):
    """What is done for some heads; in this order where nothing else decides."""

    RESULT = 0
    SCORES = 1
    SOFTMAX = 2
    VALUES = 3


class Turn(NamedTuple):
    """What would begin at a clock if only banks took time: ``number`` of all steps of a ring."""

    clock: int
    what: Does
    ring: int
    number: int
    work: Work


def _declines(op: Attention, arch: Architecture, forced: bool) -> str:
    """Why the banks are not to compute an attention; "" if they are to."""
    memory = bank_memory(arch)
    if problem := CachePlaces.problem(op, memory):
        return problem
    clocks, nbytes = _in_banks(CachePlaces.of(op, memory), arch), cache_bytes(op, memory)
    return slower_than_reading(arch, clocks, nbytes, forced, _on_arrays(op, arch))


def _in_banks(places: CachePlaces, arch: Architecture) -> int:
    """Clocks until the busiest channel and whoever sends the commands of all are done."""
    unit = next(iter(arch.units_of(Pim).values()))
    if not unit.issue:
        return places.busiest
    family, sent = places.memory.family, 0
    for tokens in places.lengths:
        sweeps = places.sweeps(tokens, places.kv_heads)
        sent += sum(product_cost(family, sweep).sent for sweep in sweeps)
    return max(places.busiest, sent * unit.issue)


def _on_arrays(op: Attention, arch: Architecture) -> float:
    """Seconds that systolic arrays are busy with scores and values, if there are some."""
    arrays = [(unit, unit.count * arch.cores) for unit in arch.units_of(Systolic).values()]
    if not arrays:
        return 0.0
    array, count = arrays[0]
    tokens = np.array(op.lengths)
    rows = np.full_like(tokens, op.heads // op.kv_heads)
    d = np.full_like(tokens, op.head_dim)
    busy = array.cycles(rows, tokens, d)[0] + array.cycles(rows, d, tokens)[0]
    return int(busy.sum()) * op.kv_heads / count / arch.clocks[array.clock]


def _places(op: Attention, arch: Architecture) -> Mapping[str, Placed]:
    """Keys and values in the channels of their requests."""
    return CachePlaces.of(op, bank_memory(arch)).tensors(op)


@mapper(
    "pim-attention", lowers=("attention",), needs=(Pim, PimDram, Vector, Dma),
    preference=2, lacks=lacks_caches("channel"), declines=_declines, places=_places,
)  # fmt: skip
def pim_attention(op: Attention, low: Lowering) -> None:
    """Q K^T and P V by the banks of each request's channel, softmax on the vector unit beside."""
    _Attention(op, low).emit()


@dataclass(frozen=True)
class _Step:
    """Heads of a request from the query to the result, and the buffers they are in.

    ``part`` numbers the steps of a request; rows of scores are (query head of a group, key head).
    """

    one: Request
    heads: slice
    part: int
    scores: View
    weights: View
    narrow: tuple[View, View]
    sums: list[View]  # [key heads, head_dim], by range of tokens within member of the groups


class _Ring:
    """A channel's part of the scratchpad, in halves by turns or taken as a whole."""

    def __init__(self, arena: Arena) -> None:
        self.arena, self.number = arena, 0
        self.half = arena.capacity // HALVES // ALIGNMENT * ALIGNMENT
        self.halves: list[Arena] = []

    def is_whole(self, nbytes: int) -> bool:
        """Whether so many bytes are more than a half has."""
        return nbytes > self.half

    def room(self, nbytes: int) -> Arena:
        """Where the next step has its buffers; what was there before may be overwritten."""
        if self.is_whole(nbytes):
            found = self.joined()
        else:
            self.halves = self.halves or self.arena.split(HALVES)
            self.number += 1
            found = self.halves[self.number % HALVES]
        found.reset()
        return found

    def joined(self) -> Arena:
        """The part as a whole."""
        if self.halves:
            self.arena.rejoin(self.halves)
        self.halves = []
        return self.arena


class _Attention(BankAttention[CachePlaces]):
    def __init__(self, op: Attention, low: Lowering) -> None:
        super().__init__(op, low, CachePlaces.of(op, bank_memory(low.arch)))
        self.vector = self.core.vector(self.results)[0]
        queues = self.core.beside_queues
        # Results wait for the banks; nothing else is to wait behind them.
        self.load, self.store = queues[0], queues[len(queues) // 3]
        self.back, self.out = queues[len(queues) // 2], queues[-1]
        self.memory = self.places.memory
        self.clocks = cache(self._clocks_of)
        self.rows: dict[tuple[int, int, str], Storage] = {}
        most = max(self.places.requests, key=lambda one: one.tokens)
        largest = self._bytes((most, slice(0, min(self.places.heads_of_a_row, op.kv_heads)), 0))
        count = max(1, min(len(self.channels), self.whole.capacity // (largest + ALIGNMENT)))
        self.rings = [_Ring(arena) for arena in self.whole.split(count)]
        self.single = len(self.places.requests) <= count

    def emit(self) -> None:
        chunks = -(-self.op.kv_len // self.places.row_elements)
        if chunks > 1:
            split = f"split:{chunks}:{self.places.row_elements}"
            self.build.reduce(order_of(split))
        steps: dict[tuple[int, int], _Step] = {}
        for turn in self._turns():
            at = turn.ring, turn.number
            if turn.what is Does.SCORES:
                chip = self.rings[turn.ring].room(self._bytes(turn.work))
                steps[at] = self._scores(turn.work, chip)
            elif turn.what is Does.SOFTMAX:
                self._softmax(steps[at])
            elif turn.what is Does.VALUES:
                self._weigh(steps[at])
            else:
                self._result(steps.pop(at))
        self.whole.rejoin([ring.joined() for ring in self.rings])
        busiest = self.places.busiest
        self.build.note(
            f"{len(self.places.requests)} requests in {len(self.channels)} channels of banks, the"
            f" busiest {busiest:,} of {sum(self.places.loads):,} clocks"
        )

    def _turns(self) -> list[Turn]:
        """What is done, in the order in which it would begin if only banks took time: queues are in
        order, and none is to wait behind a channel that has more to do."""
        work: list[list[Work]] = [[] for _ in self.rings]
        for one in sorted(self.places.requests, key=lambda r: -r.tokens):
            parts = ((one, heads, part) for part, heads in enumerate(self._parts(one)))
            work[one.channel % len(self.rings)].extend(parts)
        return sorted(turn for ring, mine in enumerate(work) for turn in self._of_ring(ring, mine))

    def _of_ring(self, ring: int, work: list[Work]) -> Iterator[Turn]:
        """Scores of a step, then values of the one before, whose softmax has been made meanwhile.
        A step that takes a whole ring is alone in it."""
        clock, before = 0, -1
        for number, mine in enumerate(work):
            alone = self.rings[ring].is_whole(self._bytes(mine))
            if alone and before >= 0:
                clock = yield from self._values(clock, ring, before, work[before])
                before = -1
            yield Turn(clock, Does.SCORES, ring, number, mine)
            clock += self._clocks(mine)[0]
            yield Turn(clock, Does.SOFTMAX, ring, number, mine)
            if before >= 0:
                clock = yield from self._values(clock, ring, before, work[before])
            before = number
            if alone:
                clock = yield from self._values(clock, ring, number, mine)
                before = -1
        if before >= 0:
            yield from self._values(clock, ring, before, work[before])

    def _values(self, clock: int, ring: int, number: int, work: Work) -> Generator[Turn, None, int]:
        """Values and results of a step; the clock after them."""
        yield Turn(clock, Does.VALUES, ring, number, work)
        clock += self._clocks(work)[1]
        yield Turn(clock, Does.RESULT, ring, number, work)
        return clock

    def _clocks(self, work: Work) -> tuple[int, int]:
        """Clocks of the banks for scores and for values of some heads of a request."""
        one, heads, _ = work
        return self.clocks(one.tokens, heads.stop - heads.start)

    def _clocks_of(self, tokens: int, heads: int) -> tuple[int, int]:
        sweeps = self.places.sweeps(tokens, heads)
        took = [(s.abreast, product_cost(self.memory.family, s).cycles) for s in sweeps]
        return sum(c for keys, c in took if keys), sum(c for keys, c in took if not keys)

    def _parts(self, one: Request) -> Iterator[slice]:
        """Heads of a request that are in work at once: as many as half a ring holds, and at least
        two parts of a request that has a ring to itself."""
        of_a_row, kv_heads = self.places.heads_of_a_row, self.op.kv_heads
        rows = -(-kv_heads // of_a_row)
        half = self.rings[0].half
        fit = max(1, half // self._bytes((one, slice(0, of_a_row), 0)))
        fit = min(fit, max(1, rows // HALVES)) if self.single else fit
        for first in range(0, kv_heads, fit * of_a_row):
            yield slice(first, min(first + fit * of_a_row, kv_heads))

    def _bytes(self, work: Work) -> int:
        """What the buffers of a step take; as _scores hands them out."""
        one, taken, _ = work
        heads, tokens, d = taken.stop - taken.start, one.tokens, self.op.head_dim
        rows, chunks = heads * self.group, -(-tokens // self.places.row_elements)
        found = [row_bytes(d, self.fmt), row_bytes(tokens, FP32), row_bytes(tokens, self.kept)]
        found += [row_bytes(1, FP32)] * 2
        values = self.group * chunks * aligned(heads * row_bytes(d, FP32))
        return sum(aligned(rows * nbytes) for nbytes in found) + values

    # -- places --------------------------------------------------------------------------------

    def _row(self, step: _Step, what: str) -> tuple[Storage, int]:
        """Rows of the channel for vectors, a bank each: storage, and offset of the first.

        Requests of a turn share the storage, as their channels lie side by side in it.
        """
        key, pitch = (step.one.turn, step.part, what), self.memory.bank_pitch
        if key not in self.rows:
            name = f"{what}[{step.one.turn}.{step.part}]"
            vectors = 1 + self._most(what)  # one more, as they begin at a bank
            self.rows[key] = self.low.scratch_arena.take(name, vectors * pitch)
        storage = self.rows[key]
        first = aligned(storage.base, pitch) - storage.base
        return storage, first + step.one.channel * self.memory.part.organization.row_bytes

    def _most(self, what: str) -> int:
        """Vectors of any request."""
        places = self.places
        if what == "queries":
            return self.group * -(-self.op.kv_heads // places.heads_of_a_row)
        return self.group * self.op.kv_heads * -(-self.op.kv_len // places.row_elements)

    # -- a request -----------------------------------------------------------------------------

    def _query(self, one: Request, heads: slice, chip: Arena) -> View:
        """The query of a request on chip: [heads of a group, key heads x head_dim]."""
        d, group = self.op.head_dim, self.group
        width = self.op.heads * d
        count = heads.stop - heads.start
        q = chip.buffer("query", count * group, d, self.fmt)
        first = one.number * width + heads.start * group * d
        source = self.low.window(self.op.operand("q") or "", first, count * group, d, d)
        self.build.load(self.load, q, source)
        return q

    def _scores(self, work: Work, chip: Arena) -> _Step:
        """The query to its channel, all scores of some heads to the scratchpad."""
        one, heads, part = work
        count, of_a_row = heads.stop - heads.start, self.places.heads_of_a_row
        q, rows = self._query(one, heads, chip), self.group * count
        scores = chip.buffer("scores", rows, one.tokens, FP32)
        weights = chip.buffer("weights", rows, one.tokens, self.kept)
        narrow = chip.buffer("maximum", rows, 1, FP32), chip.buffer("sum", rows, 1, FP32)
        chunks = -(-one.tokens // self.places.row_elements)
        sums = [
            chip.buffer("values", count, self.op.head_dim, FP32) for _ in range(self.group * chunks)
        ]
        step = _Step(one, heads, part, scores, weights, narrow, sums)
        groups = range(heads.start, heads.stop, of_a_row)
        for vector, (member, head) in enumerate(product(range(self.group), groups)):
            some = slice(head, min(head + of_a_row, heads.stop))
            vectors = self._to_channel(step, q, some, member, vector)
            top = member * count + head - heads.start
            found = scores[top : top + some.stop - some.start, 0 : one.tokens]
            keys = self.places.keys(self.keys, one, some, self.kept)
            self.build.pim(self.channels[one.channel], found, vectors, keys, abreast=True)
        return step

    def _to_channel(self, step: _Step, q: View, heads: slice, member: int, vector: int) -> View:
        """Queries of some heads side by side in a row of the channel."""
        d, count = self.op.head_dim, heads.stop - heads.start
        storage, first = self._row(step, "queries")
        offset = first + vector * self.memory.bank_pitch
        there = storage.view(count, d, self.kept, offset=offset)
        pitch = row_bytes(d, self.fmt)
        begin = ((heads.start - step.heads.start) * self.group + member) * pitch
        mine = View(q.storage, q.base + begin, count, d, pitch * self.group, self.fmt)
        self.build.store(self.store, there, mine, apart=True)
        return storage.view(1, count * d, self.kept, offset=offset)

    def _softmax(self, step: _Step) -> None:
        x, v, build = step.scores, self.vector, self.build
        top, total = step.narrow
        build.vector(v, F.MUL_IMM, x, x, imm=self.op.scale)
        build.vector(v, F.ROW_MAX, top, x)
        build.vector(v, F.SUB, x, x, top)
        build.vector(v, F.EXP, x, x)
        build.vector(v, F.ROW_SUM, total, x)
        build.vector(v, F.RECIPROCAL, total, total)
        build.vector(v, F.MUL, step.weights, x, total)

    def _weigh(self, step: _Step) -> None:
        """The weights to their channel; the banks' sums over ranges of tokens."""
        one, heads, size = step.one, step.heads, self.places.row_elements
        count, sums = heads.stop - heads.start, iter(step.sums)
        storage, first = self._row(step, "weights")
        pitch, vector = self.memory.bank_pitch, 0
        at_once = self.places.at_once(one.tokens, count)
        for member in range(self.group):
            rows = slice(member * count, (member + 1) * count)
            for start in range(0, one.tokens, size):
                tokens = slice(start, min(start + size, one.tokens))
                some = tokens.stop - tokens.start
                there = storage.view(
                    count, some, self.kept, offset=first + vector * pitch, stride=pitch
                )
                vector += count
                self.build.store(self.back, there, step.weights[rows, tokens], apart=True)
                found, top = next(sums), 0
                for width in at_once:
                    some_heads = slice(heads.start + top, heads.start + top + width)
                    values = self.places.values(self.values, one, some_heads, tokens, self.kept)
                    part = slice(top, top + width)
                    self.build.pim(
                        self.channels[one.channel], found[part, :], there[part, :], values
                    )
                    top += width

    def _result(self, step: _Step) -> None:
        """The sums of all ranges of tokens added up, and stored."""
        d, group = self.op.head_dim, self.group
        chunks = len(step.sums) // group
        for member in range(group):
            total, *more = step.sums[member * chunks : (member + 1) * chunks]
            for part in more:
                self.build.vector(self.vector, F.ADD, total, total, part)
            head = step.heads.start * group + member
            first = (step.one.number * self.op.heads + head) * d
            out = self.low.window(self.op.output, first, total.rows, d, group * d)
            self.build.store(self.out, out, total)
