"""Attention in a stack of AttAcc: heads over channels, two of a channel in turn, software pipelined.

A channel works on one head at a time. While the scores of a head leave its units, the vectors of
the next one come in: the head's scores, the next one's scores beside the first's softmax, the
first's context beside the second's softmax, the second's context. Barriers part the steps. Keys lie
along the rows, an equal share of each head's maximum context in every bank, values 8 MiB above.

The lists are dealt in pieces over all channels of the stack before each gets its own, so a piece is
not always a whole number of commands per channel; what rounding leaves over is never sent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from accelsim.errors import AccelsimError
from accelsim.hw.pim.family import Family
from accelsim.hw.pim.operators import Attention, Operator
from accelsim.hw.pim.stream import BARRIER, NO_ROW, PimStream, concatenated

VALUES_AT = 1 << 23
"""Byte address of the values within a bank; keys begin at 0."""

BANK, GROUP, BUFFER = range(3)  # where the units are

Row = tuple[int, int, int, int, int, int]
_Step = Callable[[int], Iterator[Row]]
_Once = Callable[[], Iterator[Row]]


def attacc_streams(family: Family, operator: Operator) -> list[tuple[PimStream, int]]:
    """Streams of channels that differ, each with the number of channels that have it.

    Raises:
        AccelsimError: not an attention, or a context that does not fit.
    """
    if not isinstance(operator, Attention):
        raise AccelsimError(f"{family.name} computes attention; accepted: attention:tokens=...")
    longest = family.numbers["longest_context"]
    if operator.tokens > longest:
        raise AccelsimError(f"{operator.tokens} tokens; accepted: up to {longest}")
    if operator.bytes > family.device.organization.column_bytes:
        raise AccelsimError(f"{operator.bytes} bytes per element; accepted: 1, 2 or 4")
    work = _Stack(family, operator)
    alike: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for channel in range(family.channels):
        alike.setdefault(work.signature(channel), []).append(channel)
    return [(work.channel(mine[0]), len(mine)) for mine in alike.values()]


@dataclass(frozen=True)
class _Stack:
    """One stack of channels and the heads that it serves."""

    family: Family
    work: Attention

    @property
    def as_published(self) -> bool:
        """Whether to send what the authors' generator sends: the second context of a pair from the
        first one's rows, and the weights of a lone head once more with every step."""
        return self.family.numbers["as_published"] > 0

    @property
    def macs(self) -> int:
        """Elements of a column."""
        return self.family.device.organization.column_bytes // self.work.bytes

    @property
    def level(self) -> int:
        return self.family.numbers["level"]

    def share(self) -> int:
        """Tokens are spread over this many parts of a channel, each with a unit of its own."""
        parts = self.family.device.organization
        if self.level == BUFFER:
            return parts.pseudo_channels
        return parts.pseudo_channels * parts.ranks * parts.bank_groups

    def split(self) -> int:
        """And the elements of a head over the banks of a group."""
        return self.family.device.organization.banks if self.level == BANK else 1

    @property
    def columns(self) -> int:
        """Columns of a token's key, and of a head's results, in one part."""
        return math.ceil(self.work.head_dim / self.split() / self.macs)

    @property
    def tokens(self) -> int:
        """Tokens of one part."""
        return math.ceil(self.work.tokens / self.share())

    @property
    def pieces(self) -> int:
        """Steps that the scores of a head are sent in."""
        return math.ceil(self.work.tokens / self.share() / self.family.numbers["piece"])

    def heads(self, turn: int) -> int:
        """Heads of all channels in a turn."""
        return min(self.family.channels, self.work.heads - turn * self.family.channels)

    @property
    def turns(self) -> int:
        return math.ceil(self.work.heads / self.family.channels)

    def signature(self, channel: int) -> tuple[tuple[int, ...], ...]:
        """What tells the streams of two channels apart: heads, and commands of dealt pieces."""
        found = []
        for turn in sorted({0, 1, self.turns - 2, self.turns - 1} & set(range(self.turns))):
            head = _Head(self, turn, channel)
            found.append((int(head.here),))
            for pieces in (self.pieces, self.columns):
                vector = (sum(1 for _ in head.vector_piece(j, pieces)) for j in range(pieces))
                weights = (sum(1 for _ in head.weights_piece(j, pieces)) for j in range(pieces))
                found += [tuple(vector), tuple(weights)]
        return tuple(found)

    def channel(self, channel: int) -> PimStream:
        """Everything that one channel is sent."""
        parts: list[PimStream] = []
        full: PimStream | None = None  # the third pair and those like it are the second, moved on
        for turn in range(0, self.turns - 1, 2):
            like_second = turn > 2 and self.heads(turn + 1) == self.heads(0) and self.moves_by_rows
            if like_second and full is not None:
                parts.append(self.moved(full, turn - 2))
                continue
            parts.append(PimStream.of(self.pair(turn, channel)))
            if turn == 2:
                full = parts[-1]
        if self.turns % 2:
            parts.append(PimStream.of(self.alone(self.turns - 1, channel)))
        return concatenated(parts)

    @property
    def head_bytes(self) -> int:
        """Bytes of a bank that each head has for its keys."""
        parts = self.family.device.organization
        spread = parts.pseudo_channels * parts.ranks * parts.banks_per_rank
        longest = self.family.numbers["longest_context"]
        return math.ceil(longest * self.work.head_dim / spread)

    @property
    def moves_by_rows(self) -> bool:
        return self.head_bytes % self.family.device.organization.row_bytes == 0

    def moved(self, stream: PimStream, turns: int) -> PimStream:
        """The same stream for heads so many turns later."""
        rows = turns * self.head_bytes // self.family.device.organization.row_bytes
        return replace(stream, row=np.where(stream.row < 0, stream.row, stream.row + rows))

    # --- steps

    def pair(self, turn: int, channel: int) -> Iterator[Row]:
        """Two heads of a channel, the second a step behind the first."""
        one, two = _Head(self, turn, channel), _Head(self, turn + 1, channel)
        yield from one.vector()
        if turn == 0:
            yield from one.score(0, 1)
        yield _BARRIER
        yield from self.steps(
            self.pieces, one.scores, one.scores_out, lambda j: two.vector_piece(j, self.pieces)
        )
        yield from self.steps(
            self.pieces,
            two.scores,
            two.scores_out,
            lambda j: one.weights_piece(j, self.pieces),
            one.softmax,
        )
        yield from self.steps(
            self.columns,
            one.context,
            one.context_out,
            lambda j: two.weights_piece(j, self.columns),
            two.softmax,
        )
        last = one if self.as_published else two
        yield from self.steps(self.columns, last.context, last.context_out)

    def alone(self, turn: int, channel: int) -> Iterator[Row]:
        """A head without another one beside it."""
        head = _Head(self, turn, channel)
        yield from head.vector()
        yield _BARRIER
        if self.as_published:
            for j in range(self.pieces + 1):
                yield from self.step(j, self.pieces, head.scores, head.scores_out)
                yield from self.softmax_alone(head)
        else:
            yield from self.steps(self.pieces, head.scores, head.scores_out)
            yield from self.softmax_alone(head)
        yield from self.steps(self.columns, head.context, head.context_out)

    @staticmethod
    def softmax_alone(head: _Head) -> Iterator[Row]:
        yield from head.softmax()
        yield from head.weights()
        yield _BARRIER

    @classmethod
    def steps(
        cls,
        count: int,
        work: _Step,
        out: _Step,
        beside: _Step | None = None,
        first: _Once | None = None,
    ) -> Iterator[Row]:
        """All steps of one product."""
        for j in range(count + 1):
            yield from cls.step(j, count, work, out, beside, first)

    @staticmethod
    def step(
        j: int,
        count: int,
        work: _Step,
        out: _Step,
        beside: _Step | None = None,
        first: _Once | None = None,
    ) -> Iterator[Row]:
        """Work of step j, results of step j - 1, and what comes in beside them."""
        if j < count:
            yield from work(j)
        if j > 0:
            yield from out(j - 1)
        if j == 0 and first is not None:
            yield from first()
        if j < count:
            if beside is not None:
                yield from beside(j)
            yield _BARRIER


_BARRIER: Row = (BARRIER, NO_ROW, 0, 1, 0, 0)


@dataclass(frozen=True)
class _Head:
    """The head of one turn, as one channel sees it; nothing where the turn has fewer heads."""

    stack: _Stack
    turn: int
    channel: int

    @property
    def here(self) -> bool:
        return self.channel < self.stack.heads(self.turn)

    def command(self, name: str, bank: int) -> Row:
        return (self.stack.family.number(name), NO_ROW, bank, 1, 0, 0)

    # --- products

    def column(self, at: int, values: bool) -> Row:
        """The ``at``-th column of the head's keys or values."""
        stack, parts = self.stack, self.stack.family.device.organization
        first = (self.turn * stack.head_bytes + (VALUES_AT if values else 0)) // parts.column_bytes
        bank = 0
        if stack.level == GROUP:
            bank = at // parts.columns % parts.banks
            at = at // parts.columns // parts.banks * parts.columns + at % parts.columns
        elif stack.level == BUFFER:
            groups = parts.bank_groups * parts.ranks
            bank = at % groups * parts.banks + at // groups % parts.banks
            at //= groups * parts.banks
        name = ("MAC_AB", "MAC_SB", "MAC_PB")[stack.level]
        return (stack.family.number(name), (first + at) // parts.columns, bank, 1, 0, 0)

    def score(self, token: int, columns: int) -> Iterator[Row]:
        if self.here:
            for at in range(columns):
                yield self.column(token * self.stack.columns + at, values=False)

    def scores(self, j: int) -> Iterator[Row]:
        """A piece of the tokens."""
        piece = self.stack.family.numbers["piece"]
        for token in range(j * piece, min((j + 1) * piece, self.stack.tokens)):
            yield from self.score(token, self.stack.columns)

    def context(self, j: int) -> Iterator[Row]:
        """One column of results: all tokens."""
        if self.here:
            for token in range(self.stack.tokens):
                yield self.column(j * self.stack.tokens + token, values=True)

    # --- what moves

    def scores_out(self, _: int) -> Iterator[Row]:
        parts = self.stack.family.device.organization
        if self.here and self.stack.level == BUFFER:
            yield self.command("MV_SB", 0)
        elif self.here:
            for group in range(parts.bank_groups):
                for rank in range(parts.ranks):
                    bank = rank * parts.banks_per_rank + group * parts.banks
                    yield self.command("MV_SB", bank)

    def context_out(self, _: int) -> Iterator[Row]:
        parts, level = self.stack.family.device.organization, self.stack.level
        if not self.here:
            return
        banks = parts.banks if level == BANK else 1
        ranks = 1 if level == BUFFER else parts.ranks
        for bank in range(banks):
            for rank in range(ranks):
                yield self.command("MV_SB", rank * parts.banks_per_rank + bank)

    def softmax(self) -> Iterator[Row]:
        if self.here:
            yield self.command("SFM", 0)

    def vector_banks(self) -> list[int]:
        """Where the parts of the query go."""
        return [bank for bank in range(self.stack.split()) for _ in range(self.stack.columns)]

    def weight_banks(self) -> list[int]:
        """Where the parts of the scores go."""
        parts, stack = self.stack.family.device.organization, self.stack
        columns = math.ceil(stack.work.tokens / (stack.share() * stack.macs))
        if stack.level == BUFFER:
            return [0] * columns
        return [
            rank * parts.banks_per_rank + group * parts.banks
            for rank in range(parts.ranks)
            for group in range(parts.bank_groups)
            for _ in range(columns)
        ]

    def vector(self) -> Iterator[Row]:
        if self.here:
            yield from (self.command("WR_GB", bank) for bank in self.vector_banks())

    def weights(self) -> Iterator[Row]:
        if self.here:
            yield from (self.command("MV_GB", bank) for bank in self.weight_banks())

    def vector_piece(self, j: int, pieces: int) -> Iterator[Row]:
        banks = self.vector_banks()
        dealt = int(len(banks) * self.stack.heads(self.turn) / pieces)
        yield from self.dealt("WR_GB", banks, j * dealt, (j + 1) * dealt)

    def weights_piece(self, j: int, pieces: int) -> Iterator[Row]:
        """Weights come in during the second half of the steps."""
        banks, half = self.weight_banks(), pieces // 2
        if j >= half:
            dealt = int(len(banks) * self.stack.heads(self.turn) / math.ceil(pieces / 2))
            yield from self.dealt("MV_GB", banks, (j - half) * dealt, (j - half + 1) * dealt)

    def dealt(self, name: str, banks: list[int], begin: int, end: int) -> Iterator[Row]:
        """Those of the channel among commands begin to end of the list over all channels."""
        heads = self.stack.heads(self.turn)
        for at, bank in enumerate(banks):
            if self.here and begin <= at * heads + self.channel < end:
                yield self.command(name, bank)
