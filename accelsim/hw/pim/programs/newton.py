"""GEMV, logit and attend in a channel of Newton or NeuPIMs.

A tile is one row of every bank: 32 rows of the matrix of a row's length each. Logit: tokens over
the banks, the heads of a device side by side along the rows, one result per head. Attend: elements
of a head over the banks, tokens along the rows. The vector of a chunk is copied into the global
buffer first, from the rows that the stream keeps for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from accelsim.hw.pim.channel.stream import PimStream
from accelsim.hw.pim.family import Family
from accelsim.hw.pim.layouts.families import check_head
from accelsim.hw.pim.operators import Attend, Gemv, Logit, Operator, refusal
from accelsim.hw.pim.products.product import Row, Sweep


def newton_streams(family: Family, operator: Operator) -> list[tuple[PimStream, int]]:
    """The stream of the one channel that works on the operator."""
    return [(PimStream.of(newton_rows(family, operator)), 1)]


def newton_rows(family: Family, operator: Operator, first_row: int = 0) -> Iterator[Row]:
    """Commands of an operator whose matrix begins at row ``first_row`` of every bank."""
    writer = _Writer(family, first_row)
    if isinstance(operator, Gemv):
        return writer.gemv(operator)
    if isinstance(operator, Logit):
        return writer.logit(operator)
    if isinstance(operator, Attend):
        return writer.attend(operator)
    raise refusal(family.name, operator, "logit, attend, gemv")


def sweep_rows(
    family: Family, sweep: Sweep, first_row: int, vector: tuple[int, int]
) -> Iterator[Row]:
    """Commands of a product whose matrix begins at row ``first_row`` of every bank, and whose
    vectors lie in the banks from (row, bank) ``vector`` on."""
    writer = _Writer(family, first_row)
    tile = [writer.columns(sweep.k)] * sweep.results
    tiles = math.ceil(sweep.n / family.banks)
    for number in range(sweep.vectors):
        further, bank = divmod(vector[1] + number, family.banks)
        writer.vector = vector[0] + further, bank
        yield from writer.chunk([tile] * tiles)


class _Writer:
    def __init__(self, family: Family, first_row: int) -> None:
        self.family, self.row = family, first_row
        parts = family.device.organization
        self.row_length = parts.row_bytes * 8 // family.units.operand_bits
        self.vector = parts.rows - 1, 0

    def gemv(self, work: Gemv) -> Iterator[Row]:
        for first in range(0, work.n, self.row_length):
            columns = self.columns(min(self.row_length, work.n - first))
            groups = math.ceil(work.m / self.family.banks)
            yield from self.chunk([[columns]] * groups)

    def logit(self, work: Logit) -> Iterator[Row]:
        together = self.heads_of_a_row(work.head_dim)
        for first in range(0, work.heads, together):
            heads = min(together, work.heads - first)
            tile = [self.columns(work.head_dim)] * heads
            yield from self.chunk([tile] * math.ceil(work.tokens / self.family.banks))

    def attend(self, work: Attend) -> Iterator[Row]:
        check_head(work.head_dim, self.row_length, self.family.banks, whole=True)
        for _ in range(work.heads):
            for first in range(0, work.tokens, self.row_length):
                columns = self.columns(min(self.row_length, work.tokens - first))
                groups = math.ceil(work.head_dim / self.family.banks)
                yield from self.chunk([[columns]] * groups)

    def heads_of_a_row(self, head_dim: int) -> int:
        check_head(head_dim, self.row_length, self.family.banks, whole=True)
        return self.row_length // head_dim

    def columns(self, elements: int) -> int:
        """Column commands of the units for so many elements of every row."""
        return math.ceil(elements / self.family.units.macs)

    def chunk(self, tiles: list[list[int]]) -> Iterator[Row]:
        """A vector into the global buffer, then its tiles, each a list of columns per result."""
        number = self.family.number
        # The last row of a bank holds the vectors.
        self.family.check_rows(self.row + len(tiles) + 1)
        if not self.family.rules.concurrent:
            yield self.header(tiles[0])  # host traffic stops with the first header
        yield (number("GWRITE"), *self.vector, 1, 0, 0)
        for tile in tiles:
            yield self.header(tile)
            for at, columns in enumerate(tile):
                last = int(at == len(tile) - 1)
                if self.family.rules.concurrent:
                    yield (number("COMPS_READRES"), self.row, 0, columns, 1, last)
                else:
                    yield (number("COMP"), self.row, 0, columns, 0, 0)
                    yield (number("READRES"), self.row, 0, 1, 1, last)
            self.row += 1

    def header(self, tile: list[int]) -> Row:
        """Announces columns and results, both rounded up to powers of two by its encoding."""
        results = _power_of_two(len(tile))
        columns = min(_power_of_two(max(tile)) * results, _power_of_two(sum(tile)))
        return (self.family.number("P_HEADER"), self.row, 0, columns, results, 0)


def _power_of_two(value: int) -> int:
    return 1 << max(0, (value - 1).bit_length())
