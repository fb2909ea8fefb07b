"""Attention of a decode batch in memory: scores and weighted values by the banks, softmax beside.

A request lies in one channel (mapping/channel_caches). Its query goes to a row of the channel; the
banks multiply it with all keys, heads side by side in a row at once; the scores come to the
scratchpad of the memory's side, whose vector unit makes the softmax; the weights go back to rows
of the channel, and the banks multiply them with the values. Channels work side by side, each in its
own part of the scratchpad and at its own pace: some heads' scores are under way while the softmax
of those before is made. Query heads that share a key head take turns where there is no room for all
of them in all channels.

Source: Heo et al., NeuPIMs, ASPLOS 2024, sections 4 and 5.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from accelsim.hw.dma import Dma
from accelsim.hw.pim.cost import product_cost
from accelsim.hw.pim.memory import PimDram
from accelsim.hw.pim.unit import Pim
from accelsim.hw.vector import Vector
from accelsim.mapping.attention.phases import seconds_on_arrays
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
SLACK = 0.85
"""Arrays are sooner than the estimate of their tiles by 4 to 22 %, banks never than theirs, which
leaves out the softmax and the ways to it (neupims and npu-pim, 32 to 2,048 tokens)."""


class Work(NamedTuple):
    """What of a request is in work at once: key heads, and of the query heads of each those of some
    places; which part of the request that is."""

    one: Request
    heads: slice
    members: slice
    part: int


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
    otherwise = SLACK * seconds_on_arrays(op, arch, memory.grid.bits)
    return slower_than_reading(arch, clocks, nbytes, forced, otherwise)


def _in_banks(places: CachePlaces, arch: Architecture) -> int:
    """Clocks until the banks whose scores share most of the scratchpad by turns, and whoever sends
    the commands of all, are done."""
    unit = next(iter(arch.units_of(Pim).values()))
    rings, _ = _parting(places, arch.memories[unit.results].capacity, places.memory.grid.bits)
    busy = [0] * rings
    for one in places.requests:
        busy[one.channel % rings] += places.loads[one.number]
    if not unit.issue:
        return max(busy)
    family, sent = places.memory.family, 0
    for tokens in places.lengths:
        sweeps = places.sweeps(tokens, places.kv_heads)
        sent += sum(product_cost(family, sweep).sent for sweep in sweeps)
    return max(*busy, sent * unit.issue)


def _parting(places: CachePlaces, capacity: int, bits: int) -> tuple[int, int]:
    """Into how many parts a scratchpad is divided, at most one for each channel, and how many query
    heads of a key head are in work at once: all, or as few as it takes for all channels to work.
    ``bits`` are those of a query's elements."""
    longest, channels = max(places.lengths), places.memory.channels
    heads = min(places.heads_of_a_row, places.kv_heads)
    rings, members = 1, places.shared
    for members in range(places.shared, 0, -1):
        nbytes = _buffer_bytes(places, longest, heads, members, bits) + ALIGNMENT
        rings = max(1, min(channels, capacity // nbytes))
        if rings == channels:
            break
    return rings, members


def _buffer_bytes(places: CachePlaces, tokens: int, heads: int, members: int, bits: int) -> int:
    """What the buffers of a step take at most, as _scores hands them out: query, scores, weights,
    maxima and sums, values of every row's length of tokens."""
    kept, d, rows = places.memory.grid.bits // 8, places.head_dim, heads * members
    found = [bits // 8 * d, 4 * tokens, kept * tokens, 4, 4]
    values = members * -(-tokens // places.row_elements) * aligned(heads * 4 * d)
    return sum(aligned(rows * nbytes) for nbytes in found) + values


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

    Rows of scores are (query head of a group, key head).
    """

    work: Work
    scores: View
    weights: View
    narrow: tuple[View, View]
    sums: list[View]  # [key heads, head_dim], by range of tokens within member of the groups

    @property
    def members(self) -> range:
        """Places of its query heads in their groups."""
        return range(self.work.members.start, self.work.members.stop)


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
        count, self.members = _parting(self.places, self.whole.capacity, self.fmt.bits)
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
            parts = (
                Work(one, heads, members, part)
                for part, (heads, members) in enumerate(product(self._heads(one), self._members()))
            )
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
        scores, values = self.clocks(work.one.tokens, work.heads.stop - work.heads.start)
        share = work.members.stop - work.members.start
        return scores * share // self.group, values * share // self.group

    def _clocks_of(self, tokens: int, heads: int) -> tuple[int, int]:
        sweeps = self.places.sweeps(tokens, heads)
        took = [(s.abreast, product_cost(self.memory.family, s).cycles) for s in sweeps]
        return sum(c for keys, c in took if keys), sum(c for keys, c in took if not keys)

    def _members(self) -> list[slice]:
        """Query heads of each group that are in work at once."""
        starts = range(0, self.group, self.members)
        return [slice(first, min(first + self.members, self.group)) for first in starts]

    def _heads(self, one: Request) -> Iterator[slice]:
        """Key heads of a request that are in work at once: as many as half a ring holds, and at
        least two parts of a request that has a ring to itself."""
        of_a_row, kv_heads = self.places.heads_of_a_row, self.op.kv_heads
        rows = -(-kv_heads // of_a_row)
        half = self.rings[0].half
        fit = max(1, half // self._buffers(one.tokens, of_a_row, self.members))
        fit = min(fit, max(1, rows // HALVES)) if self.single else fit
        for first in range(0, kv_heads, fit * of_a_row):
            yield slice(first, min(first + fit * of_a_row, kv_heads))

    def _bytes(self, work: Work) -> int:
        """What the buffers of a step take."""
        heads, members = (some.stop - some.start for some in (work.heads, work.members))
        return self._buffers(work.one.tokens, heads, members)

    def _buffers(self, tokens: int, heads: int, members: int) -> int:
        return _buffer_bytes(self.places, tokens, heads, members, self.fmt.bits)

    # -- places --------------------------------------------------------------------------------

    def _row(self, step: _Step, what: str) -> tuple[Storage, int]:
        """Rows of the channel for vectors, a bank each: storage, and offset of the first.

        Requests of a turn share the storage, as their channels lie side by side in it.
        """
        one, part = step.work.one, step.work.part
        key, pitch = (one.turn, part, what), self.memory.bank_pitch
        if key not in self.rows:
            name = f"{what}[{one.turn}.{part}]"
            vectors = 1 + self._most(what)  # one more, as they begin at a bank
            self.rows[key] = self.low.scratch_arena.take(name, vectors * pitch)
        storage = self.rows[key]
        first = aligned(storage.base, pitch) - storage.base
        return storage, first + one.channel * self.memory.part.organization.row_bytes

    def _most(self, what: str) -> int:
        """Vectors of any step."""
        places = self.places
        if what == "queries":
            return self.members * -(-self.op.kv_heads // places.heads_of_a_row)
        return self.members * self.op.kv_heads * -(-self.op.kv_len // places.row_elements)

    # -- a request -----------------------------------------------------------------------------

    def _query(self, work: Work, chip: Arena) -> View:
        """The query of a request on chip: [key heads, heads of a group x head_dim]."""
        d, group, heads = self.op.head_dim, self.group, work.heads
        count, width = heads.stop - heads.start, (work.members.stop - work.members.start) * d
        q = chip.buffer("query", count, width, self.fmt)
        first = (work.one.number * self.op.kv_heads + heads.start) * group + work.members.start
        source = self.low.window(self.op.operand("q") or "", first * d, count, width, group * d)
        self.build.load(self.load, q, source)
        return q

    def _scores(self, work: Work, chip: Arena) -> _Step:
        """The query to its channel, all scores of some heads to the scratchpad."""
        one, heads, members, _ = work
        count, of_a_row = heads.stop - heads.start, self.places.heads_of_a_row
        some_members = members.stop - members.start
        q, rows = self._query(work, chip), some_members * count
        scores = chip.buffer("scores", rows, one.tokens, FP32)
        weights = chip.buffer("weights", rows, one.tokens, self.kept)
        narrow = chip.buffer("maximum", rows, 1, FP32), chip.buffer("sum", rows, 1, FP32)
        chunks = -(-one.tokens // self.places.row_elements)
        sums = [
            chip.buffer("values", count, self.op.head_dim, FP32)
            for _ in range(some_members * chunks)
        ]
        step = _Step(work, scores, weights, narrow, sums)
        groups = range(heads.start, heads.stop, of_a_row)
        for vector, (member, head) in enumerate(product(range(some_members), groups)):
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
        begin = (heads.start - step.work.heads.start) * q.stride + member * pitch
        mine = View(q.storage, q.base + begin, count, d, q.stride, self.fmt)
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
        (one, heads, _, _), size = step.work, self.places.row_elements
        count, sums = heads.stop - heads.start, iter(step.sums)
        storage, first = self._row(step, "weights")
        pitch, vector = self.memory.bank_pitch, 0
        at_once = self.places.at_once(one.tokens, count)
        for member in range(len(step.members)):
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
        d, group, (one, heads, _, _) = self.op.head_dim, self.group, step.work
        chunks = len(step.sums) // len(step.members)
        for number, member in enumerate(step.members):
            total, *more = step.sums[number * chunks : (number + 1) * chunks]
            for part in more:
                self.build.vector(self.vector, F.ADD, total, total, part)
            first = ((one.number * self.op.kv_heads + heads.start) * group + member) * d
            out = self.low.window(self.op.output, first, total.rows, d, group * d)
            self.build.store(self.out, out, total)
