"""Where the elements of a matrix lie in banks that compute: channel, bank, DRAM row, column.

A layout cuts the two indices of a matrix [rows, cols] into digits, as an address map cuts an
address, and gives every digit a place: a channel, a bank, or elements further on within the bank.

    element (token 70, feature 5) of keys over 32 banks with rows of 512 elements and two rows per
    token: token = 6 + 32 x 2 -> bank 6, tile 2; feature 5 -> element 5 of row 2 x 2 + 0

No two elements lie at one address, and every address tells its element.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from accelsim.errors import AccelsimError, CapacityError

Ints = npt.NDArray[np.int64]
Axis = Literal["row", "col"]
Field = Literal["channel", "bank", "element"]
FIELDS: tuple[Field, ...] = ("channel", "bank", "element")


@dataclass(frozen=True)
class BankGrid:
    """Banks with compute units: ``channels`` of ``banks`` each, of ``rows`` rows.

    A unit multiplies ``column_bytes`` of the open row at once; elements have ``bits``.
    """

    channels: int
    banks: int
    rows: int
    row_bytes: int
    column_bytes: int = 32
    bits: int = 16

    def __post_init__(self) -> None:
        for name in ("channels", "banks", "rows", "row_bytes", "column_bytes", "bits"):
            if getattr(self, name) < 1:
                raise AccelsimError(f"a grid of banks needs {name} from 1")
        if self.row_bytes % self.column_bytes or 8 * self.column_bytes % self.bits:
            raise AccelsimError(
                f"rows of {self.row_bytes} bytes, columns of {self.column_bytes}, elements of"
                f" {self.bits} bits; accepted: whole columns in a row, whole elements in a column"
            )

    @property
    def row_elements(self) -> int:
        """Elements of a row."""
        return self.row_bytes * 8 // self.bits

    @property
    def column_elements(self) -> int:
        """Elements of a column access."""
        return self.column_bytes * 8 // self.bits

    @property
    def bank_elements(self) -> int:
        """Elements of a bank."""
        return self.rows * self.row_elements


class Place(NamedTuple):
    """Addresses of elements; ``column`` counts elements within the row."""

    channel: Ints
    bank: Ints
    row: Ints
    column: Ints


@dataclass(frozen=True)
class Digit:
    """Part of an index: ``size`` values, each ``stride`` further on in its field."""

    axis: Axis
    size: int
    field: Field
    stride: int = 1

    def __str__(self) -> str:
        step = f" x {self.stride:,}" if self.stride > 1 else ""
        return f"{self.size:,} -> {self.field}{step}"


@dataclass(frozen=True)
class Layout:
    """A matrix [rows, cols] in a grid of banks.

    ``digits`` of an axis stand from the lowest to the highest. ``origin`` is where the matrix
    begins: its first channel, and its first element within each bank.
    """

    name: str
    grid: BankGrid
    rows: int
    cols: int
    digits: tuple[Digit, ...]
    channel: int = 0
    origin: int = 0

    def __post_init__(self) -> None:
        for axis, extent in (("row", self.rows), ("col", self.cols)):
            if extent < 1 or self._span(axis) < extent:
                raise AccelsimError(f"{self.name}: digits of {axis}s do not reach {extent:,}")
        for field in FIELDS:
            self._check_field(field)
        if self.last_row >= self.grid.rows:
            raise CapacityError(
                f"{self.name}: {self.last_row + 1:,} rows of a bank; it has {self.grid.rows:,}"
            )

    def _span(self, axis: str) -> int:
        return int(np.prod([d.size for d in self.digits if d.axis == axis], dtype=np.int64))

    def _of_field(self, field: Field) -> list[Digit]:
        """Digits of a field that are not always 0, the largest stride first."""
        mine = (d for d in self.digits if d.field == field and d.size > 1)
        return sorted(mine, key=lambda d: -d.stride)

    def _check_field(self, field: Field) -> None:
        """Addresses are distinct where each stride passes over all that smaller ones reach."""
        reach = 1
        for digit in reversed(self._of_field(field)):
            if digit.stride < reach:
                raise AccelsimError(f"{self.name}: two elements at one {field}: {digit}")
            reach = digit.stride * digit.size
        held = {"channel": self.grid.channels - self.channel, "bank": self.grid.banks}
        if field in held and reach > held[field]:
            raise AccelsimError(f"{self.name}: {reach} {field}s; the grid has {held[field]} there")

    @property
    def elements(self) -> int:
        """Elements of a bank that the matrix reaches over, gaps included."""
        reached = 0
        for axis, extent in (("row", self.rows), ("col", self.cols)):
            reached += self._furthest(axis, extent - 1)
        return reached + 1

    def _furthest(self, axis: str, last: int) -> int:
        """How far the digits of indices 0 .. last get within a bank."""
        furthest, rest = 0, last
        digits = [d for d in self.digits if d.axis == axis]
        values = []
        for digit in digits:
            values.append(rest % digit.size)
            rest //= digit.size
        # Below the highest digit that is not 0 everything is passed through.
        free = False
        for digit, value in zip(reversed(digits), reversed(values), strict=True):
            most = digit.size - 1 if free else value
            free = free or value > 0
            furthest += most * digit.stride if digit.field == "element" else 0
        return furthest

    @property
    def first_row(self) -> int:
        """The first DRAM row that it uses."""
        return self.origin // self.grid.row_elements

    @property
    def last_row(self) -> int:
        """The last one."""
        return (self.origin + self.elements - 1) // self.grid.row_elements

    def place(self, row: Any, col: Any) -> Place:
        """Addresses of elements (row, col): numbers of numbers, and arrays broadcast."""
        rest = {"row": self._within("row", row), "col": self._within("col", col)}
        found = dict.fromkeys(FIELDS, 0 * (rest["row"] + rest["col"]))
        for digit in self.digits:
            rest[digit.axis], value = divmod(rest[digit.axis], digit.size)
            found[digit.field] = found[digit.field] + value * digit.stride
        number, column = divmod(found["element"] + self.origin, self.grid.row_elements)
        return Place(found["channel"] + self.channel, found["bank"], number, column)

    def _within(self, axis: Axis, index: Any) -> Any:
        """An index, or an array of them, none of which is beyond the matrix."""
        extent = self.rows if axis == "row" else self.cols
        if isinstance(index, int):
            least = most = index
        else:
            index = np.asarray(index, dtype=np.int64)
            least, most = index.min(initial=0), index.max(initial=0)
        if not 0 <= least <= most < extent:
            raise AccelsimError(f"{self.name}: no {axis} beyond {extent - 1}")
        return index

    def element(self, place: Place) -> tuple[Ints, Ints]:
        """(row, col) of what lies at addresses; -1, -1 where nothing of this matrix does."""
        values = {
            "channel": np.asarray(place.channel, dtype=np.int64) - self.channel,
            "bank": np.asarray(place.bank, dtype=np.int64),
            "element": place.row * self.grid.row_elements + place.column - self.origin,
        }
        known = np.logical_and.reduce([value >= 0 for value in values.values()])
        digits: dict[Digit, Ints] = {}
        for field in FIELDS:
            rest = values[field]
            for digit in self._of_field(field):
                digits[digit], rest = np.divmod(rest, digit.stride)
                known = known & (digits[digit] < digit.size)
            known = known & (rest == 0)
        index = {"row": np.zeros_like(place.row), "col": np.zeros_like(place.row)}
        weight = {"row": 1, "col": 1}
        for digit in self.digits:
            if digit.size > 1:
                index[digit.axis] = index[digit.axis] + digits[digit] * weight[digit.axis]
            weight[digit.axis] *= digit.size
        known = known & (index["row"] < self.rows) & (index["col"] < self.cols)
        return np.where(known, index["row"], -1), np.where(known, index["col"], -1)

    @property
    def filled(self) -> float:
        """Share of the DRAM rows between its first and last, in its banks, that it fills."""
        row_count = self.last_row - self.first_row + 1
        banks = 1
        for field in ("channel", "bank"):
            for digit in self.digits:
                banks *= digit.size if digit.field == field else 1
        return self.rows * self.cols / (banks * row_count * self.grid.row_elements)

    def __str__(self) -> str:
        grid = self.grid
        return (
            f"{self.name} [{self.rows:,}, {self.cols:,}] in {grid.channels} channels x"
            f" {grid.banks} banks, rows {self.first_row:,} to {self.last_row:,} of"
            f" {grid.row_elements} elements, {self.filled:.0%} filled"
        )

    def describe(self) -> str:
        """The layout as a small table: what becomes of the digits of each index, and the first
        elements of some banks."""
        lines = [str(self)]
        for axis, label in (("row", "row"), ("col", "column")):
            parts = ", ".join(str(d) for d in self.digits if d.axis == axis)
            lines.append(f"  {label + ' index:':<14}{parts}")
        return "\n".join([*lines, *self._picture()])

    def _picture(self) -> Iterator[str]:
        """Elements of the first rows of some banks: the first, its neighbour, the last."""
        grid = self.grid
        banks = sorted({0, min(1, grid.banks - 1), grid.banks - 1})
        yield "  DRAM row  " + "".join(f"{f'bank {bank}':<26}" for bank in banks).rstrip()
        for row in range(self.first_row, min(self.first_row + 3, self.last_row + 1)):
            cells = [self._cell(bank, row) for bank in banks]
            yield f"  {row:>8}  " + "".join(f"{cell:<26}" for cell in cells).rstrip()

    def _cell(self, bank: int, row: int) -> str:
        columns = np.arange(self.grid.row_elements, dtype=np.int64)
        same = np.ones_like(columns)
        i, j = self.element(Place(self.channel * same, bank * same, row * same, columns))
        held = np.flatnonzero(i >= 0)
        if not held.size:
            return "-"
        first, last = held[0], held[-1]
        return f"({i[first]}, {j[first]}) .. ({i[last]}, {j[last]})"
