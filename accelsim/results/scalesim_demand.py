"""Which SRAM words a SCALE-Sim array asks for, fold by fold, in closed form.

A layer is M x K (ifmap) times K x N (filter). Its stationary tiles, the folds, run one after the
other: folds along the columns outside, folds along the rows inside. Within a fold an operand is
either *streamed*, one diagonal of its tile per cycle because lanes are skewed, or *loaded*, one
row per cycle without skew:

    dataflow   rows x cols   time   ifmap      filter     ofmap leaves from cycle
    os         M x N         K      streamed   streamed   T - 1
    ws         K x N         M      streamed   loaded     2R - 1
    is         K x M         N      loaded     streamed   2R - 1

(definitions: Samajdar et al., ISPASS 2020, and the v3 simulator).
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Dataflow = Literal["os", "ws", "is"]


@dataclass(frozen=True)
class Tile:
    """Accesses of one operand in one fold: ``length`` x ``width`` words from cycle ``start`` on.

    ``skewed``: word (i, j) moves in cycle start + i + j, else in cycle start + i.
    """

    length: int
    width: int
    start: int
    skewed: bool = True

    @property
    def words(self) -> int:
        return self.length * self.width

    @property
    def last_cycle(self) -> int:
        """The cycle of its last word, from the start of the fold."""
        return self.start + self.length - 1 + (self.width - 1 if self.skewed else 0)

    def words_through(self, cycle: int) -> int:
        """Words moved up to and including a cycle, counted from the start of the fold."""
        steps = cycle - self.start + 1
        if not self.skewed:
            return min(max(steps, 0), self.length) * self.width
        short, long = sorted((self.length, self.width))
        if steps <= 0:
            return 0
        if steps <= short:
            return steps * (steps + 1) // 2
        if steps <= long:
            return short * (short + 1) // 2 + (steps - short) * short
        left = max(short + long - 1 - steps, 0)
        return self.words - left * (left + 1) // 2

    def cycle_of(self, word: int) -> int:
        """The cycle in which the ``word``-th word (from 1) moves, from the start of the fold."""
        cycles = range(self.start, self.last_cycle + 1)
        return self.start + bisect_left(cycles, word, key=self.words_through)


@dataclass(frozen=True)
class Layer:
    """A matrix product of a SCALE-Sim run: M, N, K on ``rows`` x ``cols`` cells."""

    m: int
    n: int
    k: int
    rows: int
    cols: int
    dataflow: Dataflow

    @cached_property
    def mapped(self) -> tuple[int, int, int]:
        """The dimensions along the rows, along the columns, and along time."""
        if self.dataflow == "os":
            return self.m, self.n, self.k
        if self.dataflow == "ws":
            return self.k, self.n, self.m
        return self.k, self.m, self.n

    @cached_property
    def row_folds(self) -> int:
        return -(-self.mapped[0] // self.rows)

    @cached_property
    def col_folds(self) -> int:
        return -(-self.mapped[1] // self.cols)

    @property
    def folds(self) -> int:
        return self.row_folds * self.col_folds

    @cached_property
    def fold_cycles(self) -> int:
        """Cycles of every fold, edge folds included."""
        load = 0 if self.dataflow == "os" else self.rows
        return load + self.rows + self.cols + self.mapped[2] - 2

    @property
    def total_cycles(self) -> int:
        """What SCALE-Sim calls Total Cycles: the index of the last cycle."""
        return self.folds * self.fold_cycles - 1

    def used(self, fold: int) -> tuple[int, int]:
        """(rows, columns) of the array that a fold uses."""
        col, row = divmod(fold, self.row_folds)
        along_rows, along_cols, _ = self.mapped
        return (
            min(self.rows, along_rows - row * self.rows),
            min(self.cols, along_cols - col * self.cols),
        )

    def along_rows(self, fold: int) -> Tile:
        """The operand that is streamed in along the rows: ifmap (os, ws) or filter (is)."""
        start = 0 if self.dataflow == "os" else self.rows
        return Tile(self.mapped[2], self.used(fold)[0], start)

    def along_columns(self, fold: int) -> Tile:
        """The operand that enters along the columns: streamed (os) or loaded, last row first."""
        height, width = self.used(fold)
        if self.dataflow == "os":
            return Tile(self.mapped[2], width, 0)
        return Tile(height, width, self.rows - height, skewed=False)

    def ofmap(self, fold: int) -> Tile:
        """Results, or partial sums, as they leave at the bottom of the array."""
        height, width = self.used(fold)
        time = self.mapped[2]
        if self.dataflow == "os":  # the bottom row leaves first, unused rows before the used ones
            return Tile(height, width, time - 1 + self.rows - height)
        return Tile(time, width, 2 * self.rows - 1)
