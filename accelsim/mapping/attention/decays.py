"""Decays between the tokens of a chunk, formed by a vector unit.

With c_i the sum of the first i log decays of a chunk, the head's decays are the matrix
exp(c_i - c_j) for i >= j and 0 beyond, the column exp(c_i) of what came before the chunk, and the
row exp(c_C - c_j) of what is left of every token at its end, which is the matrix's last. Sums come
before exponentials, and no exponent is positive but by a rounding: nothing overflows.

The sums are formed in rounds (Hillis and Steele, Data parallel algorithms, CACM 29(12), 1986):
round r adds to every row the one 2^r rows before. A column of numbers without gaps is a row of as
many: c_j is read as a row from where c_i lies as a column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from accelsim.mapping.lowering import Core, Lowering, Ring
from accelsim.mapping.rowwise import FP32
from accelsim.program.builder import Builder
from accelsim.program.opcodes import Function
from accelsim.program.storage import View
from accelsim.workload.linear_attention import Recurrence

F = Function
EVERYTHING = slice(None)


@dataclass(frozen=True)
class Decay:
    """Decays of one head over a chunk of C tokens: ``pairs`` [C, C] (only the last row, [1, C], of
    a state update), ``before`` [C, 1]."""

    pairs: View
    before: View

    def cut(self, rows: int) -> Decay:
        """Those of a chunk of as many tokens that begins the same."""
        if self.pairs.rows == 1:
            return self
        return Decay(self.pairs[:rows, :rows], self.before[:rows, EVERYTHING])

    @property
    def whole(self) -> View:
        """Decay of the whole chunk [1, 1]."""
        return self.before[self.before.rows - 1 :, EVERYTHING]

    @property
    def left(self) -> View:
        """What is left of every token at the end of the chunk [C, 1]."""
        return as_column(self.pairs[self.pairs.rows - 1 :, EVERYTHING])


def as_row(column: View) -> View:
    """The numbers of a column without gaps, as a row."""
    return View(
        column.storage, column.base, 1, column.rows, column.rows * column.stride, column.fmt
    )


def as_column(row: View) -> View:
    """The numbers of a row, as a column."""
    return View(row.storage, row.base, row.cols, 1, row.fmt.bits // 8, row.fmt)


class Decays:
    """Buffers and instructions that form the decays of ``ways`` heads on one core."""

    def __init__(
        self,
        low: Lowering,
        core: Core,
        op: Recurrence,
        chunk: int,
        ways: int,
        memory: str,
        slot: int,
    ) -> None:
        self.low, self.core, self.op, self.slot = low, core, op, slot
        self.pairwise = op.kind == "linear_attention"
        height = chunk if self.pairwise else 1
        # Scores to keep and to hide: 1 and 0 where nothing decays, else 0 and -inf as exponents.
        self.mask = core.buffer(memory, "mask", height, chunk, FP32)
        low.build.fill(core.load_queues[0], self.mask, 0.0 if op.decayed else 1.0)
        if self.pairwise:
            low.build.vector(slot, F.CAUSAL_MASK, self.mask, self.mask)
        if not op.decayed:
            low.build.vector(slot, F.RELU, self.mask, self.mask)
            return
        ring = core.ring
        self.gates = ring(memory, "gates", chunk, ways, FP32)
        self.sums = ring(memory, "sums", chunk, ways, FP32)
        self.column = ring(memory, "sum", chunk, 1, FP32, 2 * ways)
        self.before = ring(memory, "before", chunk, 1, FP32, 2 * ways)
        self.pairs = ring(memory, "decays", height, chunk, FP32, 2 * ways)

    def fixed(self, heads: Sequence[int], rows: int) -> list[Decay]:
        """Of heads with a constant decay each."""
        tile = self.gates.next()[:rows, : len(heads)]
        fill_gates(self.low.build, self.core.load_queues[0], tile, self.op, heads)
        return self._decays(tile)

    def gated(self, members: Sequence[tuple[int, int]], tokens: slice) -> list[Decay]:
        """Of the gates of (sequence, head) over some tokens; neighbours are loaded as one."""
        op, build = self.op, self.low.build
        tile = self.gates.next()[: tokens.stop - tokens.start, : len(members)]
        runs = _runs(members)
        for first, last in runs:
            sequence, head = members[first]
            start = (sequence * op.q_len + tokens.start) * op.heads + head
            name = op.operand("log_decay") or ""
            source = self.low.window(name, start, tile.rows, last - first, op.heads)
            queue = self.core.load_queues[-1]
            build.load(queue, tile[:, first:last], source, part=len(runs) > 1)
        return self._decays(tile)

    def _decays(self, gates: View) -> list[Decay]:
        """Decays of every column of log decays."""
        do, slot, rows = self.low.build.vector, self.slot, gates.rows
        sums = prefix_sums(self.low.build, slot, self.sums, gates)
        columns = [self.column.next()[:rows, EVERYTHING] for _ in range(sums.cols)]
        found = []
        for i, column in enumerate(columns):
            do(slot, F.COPY, column, sums[:, i : i + 1])
        for _ in columns:
            pairs = self.pairs.next()[: rows if self.pairwise else 1, :rows]
            found.append(Decay(pairs, self.before.next()[:rows, EVERYTHING]))
        for one, column in zip(found, columns, strict=True):
            mask = self.mask[: one.pairs.rows, :rows]
            do(slot, F.SUB, one.pairs, mask, as_row(column))
        for one, column in zip(found, columns, strict=True):
            do(slot, F.ADD, one.pairs, one.pairs, column[rows - one.pairs.rows :, EVERYTHING])
        for one, column in zip(found, columns, strict=True):
            do(slot, F.EXP, one.pairs, one.pairs)
            do(slot, F.EXP, one.before, column)
        return found


def prefix_sums(build: Builder, slot: int, ring: Ring, gates: View) -> View:
    """Sums of the rows up to each, of all columns at once, in buffers of the ring."""
    reach = 1
    while reach < gates.rows:
        later = ring.next()[: gates.rows, : gates.cols]
        build.vector(slot, F.COPY, later[:reach, EVERYTHING], gates[:reach, EVERYTHING])
        earlier = gates[: gates.rows - reach, EVERYTHING]
        build.vector(slot, F.ADD, later[reach:, EVERYTHING], gates[reach:, EVERYTHING], earlier)
        gates, reach = later, 2 * reach
    return gates


def fill_gates(
    build: Builder, queue: int, tile: View, op: Recurrence, heads: Sequence[int]
) -> None:
    """The constant log decays of some heads, one in every column."""
    for i, head in enumerate(heads):
        build.fill(queue, tile[:, i : i + 1], op.log_decays[head], part=True)


def _runs(members: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges of members of one sequence."""
    cuts = [i for i in range(1, len(members)) if members[i][0] != members[i - 1][0]]
    return list(zip([0, *cuts], [*cuts, len(members)], strict=True))
