"""Tensors in banks that compute: where they lie, and when the banks should multiply them.

Regions say where every element lies, so that windows of a tensor's row-major form are found there:
a token that is appended to a cache is written to its place, a key to one run of a row, the features
of a value to as many banks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from accelsim.errors import AccelsimError
from accelsim.hw.pim.layouts.layout import Layout
from accelsim.hw.pim.memory import PimDram
from accelsim.hw.pim.unit import Pim
from accelsim.hw.vector import Vector
from accelsim.program.opcodes import Opcode
from accelsim.program.storage import Piece, View
from accelsim.program.table import Region

if TYPE_CHECKING:
    from accelsim.arch.model import Architecture

ELEMENT_BYTES = 2


@dataclass(frozen=True)
class Placed:
    """A tensor that lies in banks: its regions, whole rows of all banks, elements of ``bits``."""

    regions: tuple[Region, ...]
    nbytes: int
    boundary: int
    bits: int

    @property
    def in_columns(self) -> bool:
        """Whether any row is found where every region has its columns of all rows: a gather knows
        which row only when it runs."""
        return all(one.row == 0 and one.col_step == ELEMENT_BYTES for one in self.regions)


def bank_memory(arch: Architecture) -> PimDram:
    """The main memory of an architecture whose banks compute."""
    memory = arch.main_memory()[1]
    assert isinstance(memory, PimDram)
    return memory


def lacks_banks(arch: Architecture) -> str:
    """What is missing for products in the banks of main memory; "" if nothing."""
    units = list(arch.units_of(Pim).values())
    if not isinstance(arch.main_memory()[1], PimDram) or not units:
        return "a main memory of kind: pim_dram and a unit of kind: pim"
    if any(unit.results in v.memory for v in arch.units_of(Vector).values() for unit in units):
        return ""
    return f"a vector unit that works on {units[0].results}"


def only_banks(arch: Architecture) -> bool:
    """Whether nothing else multiplies matrices, so that banks have to, however slowly."""
    return not any(Opcode.MATMUL in unit.opcodes for unit in arch.units.values())


def slower_than_reading(
    arch: Architecture, clocks: int, nbytes: int, forced: bool, otherwise_seconds: float = 0.0
) -> str:
    """Why banks that need so many clocks are not to compute what takes as long as its bytes are
    read, or ``otherwise_seconds`` if that is longer; "" if they are to, as they are wherever they
    are ``forced`` or have to."""
    memory = bank_memory(arch)
    otherwise = max(nbytes / memory.peak_bandwidth, otherwise_seconds)
    if forced or only_banks(arch) or clocks / memory.own_clock_hz <= otherwise:
        return ""
    return f"what is sooner in the banks than reading {nbytes:,} bytes"


def address(memory: PimDram, layout: Layout, row: int, col: int) -> int:
    """Bytes from row 0 of all banks to an element of a layout."""
    return int(memory.address(layout.place(row, col)))


def region_pieces(window: View, regions: Sequence[Region], columns: int) -> list[Piece]:
    """Where a window of the row-major form of a tensor in regions lies; these are sorted."""
    element = window.fmt.bits // 8
    row, col = divmod((window.base - window.storage.base) // element, columns)
    if window.rows > 1 and window.stride != columns * element:
        raise AccelsimError(f"{window.storage.name} lies in banks: a window of another form")
    # A row alone is less than the regions that begin there.
    at = bisect_left(regions, (row + 1,)) - 1
    at = bisect_left(regions, (regions[at].row,))
    found: list[Piece] = []
    while at < len(regions) and regions[at].row < row + window.rows:
        one = regions[at]
        rows = slice(max(row, one.row), min(row + window.rows, one.row + one.rows))
        cols = slice(max(col, one.col), min(col + window.cols, one.col + one.cols))
        if rows.start < rows.stop and cols.start < cols.stop:
            found += _lines(window, one, rows, cols, row, col)
        at += 1
    return found


def _lines(window: View, one: Region, rows: slice, cols: slice, row: int, col: int) -> list[Piece]:
    """Pieces of a window in one region: one, or one per row where its elements lie apart."""
    storage, fmt, width = window.storage, window.fmt, cols.stop - cols.start
    across = slice(cols.start - col, cols.stop - col)
    offset = one.offset + (rows.start - one.row) * one.row_step
    offset += (cols.start - one.col) * one.col_step
    if one.col_step == fmt.bits // 8:
        count = rows.stop - rows.start
        view = storage.view(count, width, fmt, offset=offset, stride=one.row_step)
        return [(slice(rows.start - row, rows.stop - row), across, view)]
    return [
        (
            slice(r - row, r - row + 1),
            across,
            storage.view(
                width, 1, fmt,
                offset=offset + (r - rows.start) * one.row_step, stride=one.col_step,
            ),
        )
        for r in range(rows.start, rows.stop)
    ]  # fmt: skip
