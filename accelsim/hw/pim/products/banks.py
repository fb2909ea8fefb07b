"""Products of tile programs where all banks of a channel go in step: AiM and PIM-GPT.

A vector comes over the pins into the global buffer. Two orders, as for streams (bank_programs):
inputs first, partial sums of every row's length of inputs read out and added elsewhere (PIM-GPT);
or outputs first, one result of every bank at a time, its sum kept in the units while the vector's
chunks come (AiM). Keys and values of a request lie over all channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

from accelsim.hw.pim.channel.stream import NO_ROW
from accelsim.hw.pim.family import Family
from accelsim.hw.pim.layouts.families import Heads, cache_layouts, weight_layout
from accelsim.hw.pim.layouts.layout import BankGrid, Layout
from accelsim.hw.pim.products.product import Products, Row, Share, Spread, Sweep, blocks_by_chunks


class BankProducts(Products):
    """Vectors over the pins, rows of all banks opened together."""

    host_vectors = True
    goes_on = True
    pipelined = True
    tables = True
    caches: ClassVar[Spread] = "channels"

    def rows(
        self, family: Family, sweep: Sweep, first_row: int, vector: tuple[int, int]
    ) -> Iterator[Row]:
        del vector
        number, row = family.number, first_row
        columns = math.ceil(sweep.k / family.units.macs)
        biased = any(one.name == "WR_BIAS" for one in family.commands)
        for _ in range(sweep.vectors):
            for tile in range(math.ceil(sweep.n / family.banks)):
                if biased and sweep.begins:
                    yield (number("WR_BIAS"), NO_ROW, 0, 1, 0, 0)
                if tile == 0 and sweep.brings:
                    yield (number("WR_GB"), NO_ROW, 0, sweep.results * columns, 0, 0)
                for result in range(sweep.results):
                    if biased and sweep.begins and result:
                        yield (number("WR_BIAS"), NO_ROW, 0, 1, 0, 0)
                    yield (number("MAC_ABK"), row, 0, columns, 0, 0)
                    if result == sweep.results - 1:
                        yield (number("PRE_ABK"), NO_ROW, 0, 1, 0, 0)
                    if sweep.ends:
                        yield (number("RD_MAC"), NO_ROW, 0, 1, 1, 1)
                row += 1

    def weights(self, family: Family, grid: BankGrid, outputs: int, inputs: int) -> Layout:
        name = "pim-gpt" if family.figure("inputs_first") else "aim"
        return weight_layout(name, grid, outputs, inputs)

    def shares(self, family: Family, grid: BankGrid, outputs: int, inputs: int) -> list[Share]:
        if family.figure("inputs_first"):
            return blocks_by_chunks(grid, outputs, inputs)
        return list(_outputs_first(grid, outputs, inputs))

    def cache(
        self, family: Family, grid: BankGrid, heads: Heads, place: int
    ) -> tuple[Layout, Layout]:
        del family
        return cache_layouts("aim", grid, heads, place)


def _outputs_first(grid: BankGrid, outputs: int, inputs: int) -> Iterator[Share]:
    """A turn of the banks of every channel at a time, over all inputs."""
    block = -(-outputs // (grid.banks * grid.channels)) * grid.banks
    starts = range(0, inputs, grid.row_elements)
    for turn in range(0, block, grid.banks):
        for start in starts:
            part = slice(start, min(start + grid.row_elements, inputs))
            for channel, first in enumerate(range(turn, outputs, block)):
                # A channel's block ends where the weight does.
                mine = slice(first, min(first + grid.banks, outputs))
                share = Share(channel, mine, part)
                yield replace(share, begins=start == 0, ends=part.stop == inputs)
