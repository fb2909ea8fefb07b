"""The bytes of banks that compute, and matrix-vector products as their units form them.

A layout says where an element is stored, a walk how the family's commands go over the matrix
(hw/pim/layouts). What a walk reads is written down here in hardware terms: which DRAM row and
columns a command opens and multiplies in all banks, which inputs the banks have been given, and
which output a bank's accumulator then holds. It does not ask the layout. So a product is right only
if both agree.

What nobody wrote is NaN, so that a product that reads it shows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.errors import AccelsimError
from accelsim.functional.memory import POISON
from accelsim.hw.pim.layouts.families import GROUP_BANKS, PAIR, REGISTERS
from accelsim.hw.pim.layouts.layout import BankGrid, Layout
from accelsim.hw.pim.layouts.walks import GroupColumns, Sweep, walk_of
from accelsim.numerics.bank_macs import BankLanes, held, lane_sum
from accelsim.numerics.formats import Format
from accelsim.numerics.orders import Order, order_of
from accelsim.numerics.rules import Rule

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class BankMemory:
    """Rows first_row .. last_row of every bank of a grid, elements of one 16-bit format."""

    def __init__(self, grid: BankGrid, fmt: Format, first_row: int, last_row: int) -> None:
        if fmt.bits != grid.bits or fmt.bits != 16:
            raise AccelsimError(
                f"banks of {grid.bits}-bit elements keep no {fmt.name}; accepted: fp16, bf16"
            )
        self.grid, self.fmt, self.first_row = grid, fmt, first_row
        shape = (grid.channels, grid.banks, last_row - first_row + 1, grid.row_elements)
        self.bits = np.full(shape, POISON, dtype=np.uint16)

    @classmethod
    def holding(cls, fmt: Format, *layouts: Layout) -> BankMemory:
        """The rows that some layouts of one grid use."""
        first = min(layout.first_row for layout in layouts)
        last = max(layout.last_row for layout in layouts)
        return cls(layouts[0].grid, fmt, first, last)

    def store(self, layout: Layout, values: Array) -> None:
        """Write a matrix; what else lies in a column that it begins becomes 0."""
        i, j = np.indices((layout.rows, layout.cols))
        place = layout.place(i, j)
        row, size = place.row - self.first_row, self.grid.column_elements
        columns = self.bits.reshape(*self.bits.shape[:3], -1, size)
        columns[place.channel, place.bank, row, place.column // size] = 0
        words = self.fmt.codes(self.fmt.encode(values.astype(np.float32)))
        self.bits[place.channel, place.bank, row, place.column] = words

    def load(self, layout: Layout) -> Float32:
        """A matrix as it lies there."""
        i, j = np.indices((layout.rows, layout.cols))
        place = layout.place(i, j)
        row = place.row - self.first_row
        return self._decoded(self.bits[place.channel, place.bank, row, place.column])

    def columns(self, element: int, count: int) -> Float32:
        """What a command that opens a row of all banks multiplies: ``count`` columns from the one
        of number ``element`` // column size within a bank; [channels, banks, elements]."""
        row, column = divmod(element, self.grid.row_elements)
        stop = column + count * self.grid.column_elements
        if stop > self.grid.row_elements:
            raise AccelsimError(f"{count} columns from {column} on leave row {row}")
        return self._decoded(self.bits[:, :, row - self.first_row, column:stop])

    def write(self, element: int, banks: slice | int, values: Array) -> None:
        """Write the column that begins at an element of some banks; [channels, banks, elements]."""
        row, column = divmod(element, self.grid.row_elements)
        words = self.fmt.codes(self.fmt.encode(np.asarray(values, dtype=np.float32)))
        stop = column + self.grid.column_elements
        self.bits[:, banks, row - self.first_row, column:stop] = words

    def _decoded(self, words: npt.NDArray[np.uint16]) -> Float32:
        return np.asarray(self.fmt.decode(self.fmt.stored(words)), dtype=np.float32)


@dataclass(frozen=True)
class Sweeps:
    """Rows of all banks against chunks of the inputs: Newton and its relatives.

    ``channels`` of the banks take part, from ``channel`` on; outputs take turns over banks, then
    channels, or lie in a block per channel (``blocks``). Behind ``first_row`` come, for
    ``together`` tiles of outputs (0: all) at a time, all chunks of the inputs, for each of them the
    tiles.
    """

    grid: BankGrid
    rows: int
    cols: int
    first_row: int
    channel: int
    channels: int
    blocks: bool = False
    together: int = 0

    @property
    def tiles(self) -> int:
        """Outputs of a bank."""
        return -(-self.rows // (self.grid.banks * self.channels))

    @property
    def chunks(self) -> int:
        """Rows that a bank opens for an output."""
        return -(-self.cols // self.grid.row_elements)

    def outputs(self, tile: int) -> Ints:
        """The output of every bank [channels, banks]."""
        channel = np.arange(self.channels)[:, None]
        bank = np.arange(self.grid.banks)
        if self.blocks:
            return (channel * self.tiles + tile) * self.grid.banks + bank
        return (tile * self.channels + channel) * self.grid.banks + bank

    def row(self, tile: int, chunk: int) -> int:
        """The DRAM row that holds a chunk of a tile."""
        together = self.together or self.tiles
        group, one = divmod(tile, together)
        return self.first_row + (group * self.chunks + chunk) * together + one

    def product(
        self, memory: BankMemory, rule: Rule, x: Array, outputs: range, inputs: range
    ) -> Float32:
        """W[outputs, inputs] x, fp32; ``x`` has an element for each of ``inputs``."""
        y = np.zeros(len(outputs), dtype=np.float32)
        begun = np.zeros(len(outputs), dtype=bool)
        for first, vector in self._vectors(x, inputs):
            chunk, column = divmod(first, self.grid.row_elements)
            for tile in range(self.tiles):
                number = self.outputs(tile)
                wanted = (number >= outputs.start) & (number < min(outputs.stop, self.rows))
                if not wanted.any():
                    continue
                element = self.row(tile, chunk) * self.grid.row_elements + column
                held_there = memory.columns(element, len(vector) // self.grid.column_elements)
                mine = held_there[self.channel : self.channel + self.channels][wanted]
                part = rule.multiply(mine, vector[:, None], None)[:, 0]
                index = number[wanted] - outputs.start
                y[index] = np.where(begun[index], y[index] + part, part)
                begun[index] = True
        return y

    def _vectors(self, x: Array, inputs: range) -> Iterator[tuple[int, Float32]]:
        """What the vector buffer is given for each chunk, whole columns, and its first input."""
        size, column = self.grid.row_elements, self.grid.column_elements
        for chunk in range(inputs.start // size, -(-inputs.stop // size)):
            first = max(inputs.start, chunk * size)
            stop = min(inputs.stop, (chunk + 1) * size)
            start = first // column * column
            vector = np.zeros(-(-stop // column) * column - start, dtype=np.float32)
            vector[first - start : stop - start] = x[first - inputs.start : stop - inputs.start]
            yield start, vector


def register_product(memory: BankMemory, layout: Layout, rule: BankLanes, x: Array) -> Float32:
    """W x by the units of HBM-PIM, each between two banks."""
    grid, adder = memory.grid, rule.adder
    lanes, units = grid.column_elements, grid.banks // 2
    inputs = REGISTERS * lanes
    pairs = -(-layout.cols // (2 * inputs))
    vector = np.zeros(pairs * 2 * inputs, dtype=np.float32)
    vector[: layout.cols] = x
    given = vector.reshape(pairs, 2, REGISTERS, lanes)
    per_tile = REGISTERS * units * grid.channels
    y = np.zeros(-(-layout.rows // per_tile) * per_tile, dtype=np.float32)
    for tile in range(len(y) // per_tile):
        for register in range(REGISTERS):
            sums = np.zeros((grid.channels, units, lanes), dtype=np.float32)
            for burst in range(-(-layout.cols // lanes)):
                half, place = divmod(burst, REGISTERS)
                pair, odd = divmod(half, 2)
                block = (tile * pairs + pair) * REGISTERS + register
                element = layout.origin + block * inputs + place * lanes
                banks = memory.columns(element, 1)[:, odd::2]
                banks = _written(banks, tile, register, layout, per_tile)
                sums = held(sums + held(banks * given[pair, odd, place], adder), adder)
            first = tile * per_tile + register
            number = first + REGISTERS * np.arange(grid.channels * units)
            y[number] = lane_sum(np.moveaxis(sums.reshape(-1, lanes), 1, 0))
    return y[: layout.rows]


def _written(banks: Float32, tile: int, register: int, layout: Layout, per_tile: int) -> Float32:
    """Columns of units that have an output; a host gives the others zeros."""
    channels, units, _ = banks.shape
    number = tile * per_tile + register + REGISTERS * np.arange(channels * units)
    return np.where((number < layout.rows).reshape(channels, units, 1), banks, np.float32(0))


def group_scores(memory: BankMemory, keys: Layout, rule: Rule, q: Array, tokens: int) -> Float32:
    """K q of a head's first ``tokens`` tokens by AttAcc's groups of banks."""
    grid, lanes = memory.grid, memory.grid.column_elements
    groups, width = grid.banks // GROUP_BANKS, -(-keys.cols // grid.column_elements) * lanes
    columns = -(-keys.cols // (GROUP_BANKS * lanes))
    beside = max(1, PAIR // columns)
    vector = np.zeros(width, dtype=np.float32)
    vector[: keys.cols] = q
    scores = np.zeros((-(-tokens // (groups * beside)), groups, beside), dtype=np.float32)
    for turn, one in np.ndindex(len(scores), beside):
        element = keys.origin + (turn * beside + one) * columns * lanes
        banks = _columns_across(memory, element, columns)[keys.channel]
        # A bank has the columns of its features one after the other; banks take turns.
        rows = banks.reshape(groups, GROUP_BANKS, columns, lanes).swapaxes(1, 2)
        mine = np.ascontiguousarray(rows.reshape(groups, -1)[:, :width])
        scores[turn, :, one] = rule.multiply(mine, vector[:, None], None)[:, 0]
    return scores.reshape(-1)[:tokens]


def group_values(memory: BankMemory, values: Layout, rule: BankLanes, p: Array) -> Float32:
    """V^T p of a head's first tokens by AttAcc's lanes, a weight for each token."""
    grid, lanes = memory.grid, memory.grid.column_elements
    groups = grid.banks // GROUP_BANKS
    columns, turns = -(-values.rows // (GROUP_BANKS * lanes)), -(-values.cols // (groups * PAIR))
    weights = np.zeros((-(-len(p) // (groups * PAIR)), groups, PAIR), dtype=np.float32)
    weights.reshape(-1)[: len(p)] = p
    out = np.zeros((columns, GROUP_BANKS, lanes), dtype=np.float32)
    for column in range(columns):
        sums = np.zeros((groups, GROUP_BANKS, lanes), dtype=np.float32)
        for turn, one in np.ndindex(len(weights), PAIR):
            element = values.origin + ((column * turns + turn) * PAIR + one) * lanes
            banks = memory.columns(element, 1)[values.channel].reshape(groups, GROUP_BANKS, lanes)
            token = (turn * groups + np.arange(groups)) * PAIR + one
            banks = np.where((token < len(p))[:, None, None], banks, np.float32(0))
            product = held(banks * weights[turn, :, one, None, None], rule.adder)
            sums = held(sums + product, rule.adder)
        out[column] = lane_sum(sums)
    return out.reshape(-1)[: values.rows]


def _columns_across(memory: BankMemory, element: int, count: int) -> Float32:
    """Columns one by one, as a partition may begin anywhere in a row and go on in the next."""
    lanes = memory.grid.column_elements
    return np.concatenate([memory.columns(element + i * lanes, 1) for i in range(count)], axis=2)


def sweeps_of(family: str, layout: Layout, head_size: int = 0) -> Sweeps:
    """The sweeps of a family over weights, keys or values of a layout's shape and place; values of
    NeuPIMs come head by head, of ``head_size`` features each (0: one head)."""
    walk = walk_of(family, layout, head_size)
    if not isinstance(walk, Sweep):
        raise AccelsimError(f"{family} goes over {layout.name} in other ways than row by row")
    return _sweeps(walk, layout)


def _sweeps(walk: Sweep, layout: Layout) -> Sweeps:
    return Sweeps(
        grid=layout.grid,
        rows=layout.rows,
        cols=layout.cols,
        first_row=layout.first_row,
        channel=layout.channel,
        channels=1 if walk.alone else layout.grid.channels,
        blocks=walk.blocks,
        together=walk.together,
    )


def bank_order(family: str, layout: Layout, inputs: int) -> Order:
    """The order in which a product over so many inputs is summed, as a tag of numerics.orders."""
    return order_of(walk_of(family, layout).order(layout, inputs))


def gemv(
    family: str, memory: BankMemory, layout: Layout, rule: Rule, x: Array, head_size: int = 0
) -> Float32:
    """W x of a matrix that lies in banks, as the family's units compute it (see sweeps_of).

    Raises AccelsimError where the family's units have lanes and the rule is none of lanes, or the
    other way round.
    """
    walk = walk_of(family, layout, head_size)
    if walk.by_lanes != isinstance(rule, BankLanes):
        units = "lanes (macs16-fp16)" if walk.by_lanes else "adder trees (tree16-fp32)"
        raise AccelsimError(f"{family} multiplies {layout.name} by {units}, not by {rule.tag}")
    if isinstance(rule, BankLanes):
        by_lanes = group_values if isinstance(walk, GroupColumns) else register_product
        return by_lanes(memory, layout, rule, x)
    if isinstance(walk, Sweep):
        rows, cols = range(layout.rows), range(layout.cols)
        return _sweeps(walk, layout).product(memory, rule, x, rows, cols)
    return group_scores(memory, layout, rule, x, layout.rows)
