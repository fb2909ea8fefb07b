"""Products of tile programs in the channels of Newton and NeuPIMs.

A vector lies in a row of a bank and is copied into the global buffer from there. Weights lie in a
block of outputs per channel, a request's keys and values in one channel.
"""

from __future__ import annotations

from collections.abc import Iterator

from accelsim.hw.pim.family import Family
from accelsim.hw.pim.layouts.families import Heads, cache_layouts, weight_layout
from accelsim.hw.pim.layouts.layout import BankGrid, Layout
from accelsim.hw.pim.products.product import Products, Row, Share, Sweep, blocks_by_chunks
from accelsim.hw.pim.programs.newton import sweep_rows


class NewtonProducts(Products):
    """Vectors in rows of banks, results read out tile by tile."""

    tables = True

    def rows(
        self, family: Family, sweep: Sweep, first_row: int, vector: tuple[int, int]
    ) -> Iterator[Row]:
        return sweep_rows(family, sweep, first_row, vector)

    def weights(self, family: Family, grid: BankGrid, outputs: int, inputs: int) -> Layout:
        del family
        return weight_layout("pim-gpt", grid, outputs, inputs)

    def shares(self, family: Family, grid: BankGrid, outputs: int, inputs: int) -> list[Share]:
        del family
        return blocks_by_chunks(grid, outputs, inputs)

    def cache(
        self, family: Family, grid: BankGrid, heads: Heads, place: int
    ) -> tuple[Layout, Layout]:
        del family
        return cache_layouts("neupims", grid, heads, place)
