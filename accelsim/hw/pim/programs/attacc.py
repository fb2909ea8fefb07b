"""Attention in a stack of AttAcc: heads over channels, two of a channel in turn, pipelined.

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
from functools import cached_property

import numpy as np

from accelsim.errors import AccelsimError
from accelsim.hw.pim.channel.stream import BARRIER, NO_ROW, PimStream, concatenated
from accelsim.hw.pim.family import Family
from accelsim.hw.pim.operators import Attention, Operator, refusal

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
        raise refusal(family.name, operator, "attention:tokens=...")
    longest = family.figure("longest_context")
    if operator.tokens > longest:
        raise AccelsimError(
            f"{operator.tokens} tokens; accepted: up to {longest}, the context for which every head"
            f" has rows in the banks (numbers.longest_context of {family.name})"
        )
    if operator.bytes > family.device.organization.column_bytes:
        raise AccelsimError(f"{operator.bytes} bytes per element; accepted: 1, 2 or 4")
    work = Stack(family, operator)
    values = VALUES_AT // family.device.organization.row_bytes
    family.check_rows(2 * work.key_rows if work.key_rows > values else values + work.key_rows)
    alike: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for channel in range(family.channels):
        alike.setdefault(work.signature(channel), []).append(channel)
    return [(work.channel(mine[0]), len(mine)) for mine in alike.values()]


@dataclass(frozen=True)
class Stack:
    """One stack of channels and the heads that it serves."""

    family: Family
    work: Attention

    @cached_property
    def as_published(self) -> bool:
        """Whether to send what the authors' generator sends: the second context of a pair from the
        first one's rows, and the weights of a lone head once more with every step."""
        return self.family.figure("as_published") > 0

    @cached_property
    def macs(self) -> int:
        """Elements of a column."""
        return self.family.device.organization.column_bytes // self.work.bytes

    @cached_property
    def level(self) -> int:
        return self.family.figure("level")

    def share(self) -> int:
        """Tokens are spread over this many parts of a channel, each with a unit of its own."""
        parts = self.family.device.organization
        if self.level == BUFFER:
            return parts.pseudo_channels
        return parts.channel_ranks * parts.bank_groups

    def split(self) -> int:
        """And the elements of a head over the banks of a group."""
        return self.family.device.organization.banks if self.level == BANK else 1

    @cached_property
    def columns(self) -> int:
        """Columns of a token's key, and of a head's results, in one part."""
        return math.ceil(self.work.head_dim / self.split() / self.macs)

    @cached_property
    def tokens(self) -> int:
        """Tokens of one part."""
        return math.ceil(self.work.tokens / self.share())

    @cached_property
    def pieces(self) -> int:
        """Steps that the scores of a head are sent in."""
        return math.ceil(self.work.tokens / self.share() / self.family.figure("piece"))

    def heads(self, turn: int) -> int:
        """Heads of all channels in a turn."""
        return min(self.family.channels, self.work.heads - turn * self.family.channels)

    @cached_property
    def turns(self) -> int:
        return math.ceil(self.work.heads / self.family.channels)

    def signature(self, channel: int) -> tuple[tuple[int, ...], ...]:
        """What tells the streams of two channels apart: heads, and commands of dealt pieces."""
        found: list[tuple[int, ...]] = []
        for turn in sorted({0, 1, self.turns - 2, self.turns - 1} & set(range(self.turns))):
            head = Head(self, turn, channel)
            found.append((int(head.here),))
            for pieces in (self.pieces, self.columns):
                vector = (len(head.dealt(head.vector_banks, j, pieces)) for j in range(pieces))
                weights = (len(head.weights_dealt(j, pieces)) for j in range(pieces))
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

    @cached_property
    def head_bytes(self) -> int:
        """Bytes of a bank that each head has for its keys."""
        parts = self.family.device.organization
        spread = parts.channel_banks
        longest = self.family.figure("longest_context")
        return math.ceil(longest * self.work.head_dim / spread)

    @property
    def key_rows(self) -> int:
        """Rows of a bank that the keys of all heads take; the values take as many."""
        return math.ceil(self.turns * self.head_bytes / self.family.device.organization.row_bytes)

    @cached_property
    def moves_by_rows(self) -> bool:
        return self.head_bytes % self.family.device.organization.row_bytes == 0

    def moved(self, stream: PimStream, turns: int) -> PimStream:
        """The same stream for heads so many turns later."""
        rows = turns * self.head_bytes // self.family.device.organization.row_bytes
        return replace(stream, row=np.where(stream.row < 0, stream.row, stream.row + rows))

    # --- steps

    def pair(self, turn: int, channel: int) -> Iterator[Row]:
        """Two heads of a channel, the second a step behind the first."""
        one, two = Head(self, turn, channel), Head(self, turn + 1, channel)
        yield from one.vector()
        if turn == 0:
            yield from one.score(1)
        yield BARRIER_ROW
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
        head = Head(self, turn, channel)
        yield from head.vector()
        yield BARRIER_ROW
        if self.as_published:
            for j in range(self.pieces + 1):
                yield from self.step(j, self.pieces, head.scores, head.scores_out)
                yield from self.softmax_alone(head)
        else:
            yield from self.steps(self.pieces, head.scores, head.scores_out)
            yield from self.softmax_alone(head)
        yield from self.steps(self.columns, head.context, head.context_out)

    @staticmethod
    def softmax_alone(head: Head) -> Iterator[Row]:
        yield from head.softmax()
        yield from head.weights()
        yield BARRIER_ROW

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
            yield BARRIER_ROW


BARRIER_ROW: Row = (BARRIER, NO_ROW, 0, 1, 0, 0)


@dataclass(frozen=True)
class Head:
    """The head of one turn, as one channel sees it; nothing where the turn has fewer heads.

    ``first`` is the column of its banks at which what is multiplied begins; None: where the stack
    has the keys and the values of the turn.
    """

    stack: Stack
    turn: int
    channel: int
    first: int | None = None

    @cached_property
    def here(self) -> bool:
        return self.channel < self.stack.heads(self.turn)

    def commands(self, name: str, banks: list[int]) -> Iterator[Row]:
        """A command that moves something, to each of some banks."""
        number = self.stack.family.number(name)
        yield from ((number, NO_ROW, bank, 1, 0, 0) for bank in banks)

    # --- products

    def products(self, begin: int, end: int, values: bool) -> Iterator[Row]:
        """Columns begin to end of the head's keys or values, as they lie in the banks."""
        if not self.here:
            return
        stack, parts = self.stack, self.stack.family.device.organization
        first = self.first
        if first is None:
            offset = self.turn * stack.head_bytes + (VALUES_AT if values else 0)
            first = offset // parts.column_bytes
        at = np.arange(begin, end)
        bank = np.zeros_like(at)
        if stack.level == GROUP:
            bank = at // parts.columns % parts.banks
            at = at // parts.columns // parts.banks * parts.columns + at % parts.columns
        elif stack.level == BUFFER:
            groups = parts.bank_groups * parts.ranks
            bank = at % groups * parts.banks + at // groups % parts.banks
            at = at // (groups * parts.banks)
        number = stack.family.number(("MAC_AB", "MAC_SB", "MAC_PB")[stack.level])
        rows = (first + at) // parts.columns
        for row, one in zip(rows.tolist(), bank.tolist(), strict=True):
            yield (number, row, one, 1, 0, 0)

    def score(self, columns: int) -> Iterator[Row]:
        """The first columns of the keys."""
        return self.products(0, columns, values=False)

    def scores(self, j: int) -> Iterator[Row]:
        """A piece of the tokens."""
        piece, columns = self.stack.family.figure("piece"), self.stack.columns
        end = min((j + 1) * piece, self.stack.tokens)
        return self.products(j * piece * columns, end * columns, values=False)

    def context(self, j: int) -> Iterator[Row]:
        """One column of results: all tokens."""
        tokens = self.stack.tokens
        return self.products(j * tokens, (j + 1) * tokens, values=True)

    # --- what moves

    def scores_out(self, _: int) -> Iterator[Row]:
        parts = self.stack.family.device.organization
        banks = [
            rank * parts.banks_per_rank + group * parts.banks
            for group in range(parts.bank_groups)
            for rank in range(parts.ranks)
        ]
        return self.sent("MV_SB", [0] if self.stack.level == BUFFER else banks)

    def context_out(self, _: int) -> Iterator[Row]:
        parts, level = self.stack.family.device.organization, self.stack.level
        ranks = 1 if level == BUFFER else parts.ranks
        banks = [
            rank * parts.banks_per_rank + bank
            for bank in range(parts.banks if level == BANK else 1)
            for rank in range(ranks)
        ]
        return self.sent("MV_SB", banks)

    def softmax(self) -> Iterator[Row]:
        return self.sent("SFM", [0])

    def sent(self, name: str, banks: list[int]) -> Iterator[Row]:
        return self.commands(name, banks if self.here else [])

    @cached_property
    def vector_banks(self) -> list[int]:
        """Where the parts of the query go."""
        return [bank for bank in range(self.stack.split()) for _ in range(self.stack.columns)]

    @cached_property
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
        return self.sent("WR_GB", self.vector_banks)

    def weights(self) -> Iterator[Row]:
        return self.sent("MV_GB", self.weight_banks)

    def vector_piece(self, j: int, pieces: int) -> Iterator[Row]:
        return self.commands("WR_GB", self.dealt(self.vector_banks, j, pieces))

    def weights_piece(self, j: int, pieces: int) -> Iterator[Row]:
        """Weights come in during the second half of the steps."""
        return self.commands("MV_GB", self.weights_dealt(j, pieces))

    def weights_dealt(self, j: int, pieces: int) -> list[int]:
        later = j - pieces // 2
        return self.dealt(self.weight_banks, later, math.ceil(pieces / 2)) if later >= 0 else []

    def dealt(self, banks: list[int], j: int, pieces: int) -> list[int]:
        """Those of the channel in piece j of the list over all channels, element by element."""
        heads = self.stack.heads(self.turn)
        each = int(len(banks) * heads / pieces)
        if not self.here:
            return []
        begin, end = (-(-(at * each - self.channel) // heads) for at in (j, j + 1))
        return banks[max(0, begin) : max(0, end)]
