"""Arithmetic in the cells of a DRAM array: numbers as bit planes, one operation on whole rows.

A number lies along a bit line, a bit in each of its rows, so that one activation works on as many
numbers as a row has bits. A subarray keeps a few rows whose word lines can be raised together:
three of them settle at their majority, and a cell with two word lines gives its complement. Two
operations on rows are enough:

    AAP a b   activate a, then b, precharge: b takes what a has (of three, their majority)
    AP  a     activate, precharge: the three rows of a take their majority

Sums carry in such rows: with C in one two-line cell and its complement in the other,

    Cout = MAJ(A, B, C)    S = MAJ(not Cout, C, MAJ(A, B, not C))

Sources: Seshadri et al., Ambit, MICRO 2017 (AAP, the sixteen addresses of reserved rows); Hajinazar
et al., SIMDRAM, ASPLOS 2021, table of operations: 8 n + 1 row operations for a sum of n bits and
11 n^2 - 5 n - 1 for a product. The sequences below are this project's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum


class Reserved(IntEnum):
    """Addresses of the rows that every subarray keeps for computing, below those of data."""

    T0 = -1
    T1 = -2
    T2 = -3
    T3 = -4
    DCC0 = -5
    NOT_DCC0 = -6
    DCC1 = -7
    NOT_DCC1 = -8
    DCC0_T0 = -9
    DCC1_T1 = -10
    T2_T3 = -11
    T0_T3 = -12
    T0_T1_T2 = -13
    T1_T2_T3 = -14
    DCC0_T1_T2 = -15
    DCC1_T0_T3 = -16
    ZEROS = -17
    ONES = -18


CELLS = ("T0", "T1", "T2", "T3", "DCC0", "DCC1")
RESERVED_ROWS = 16
"""Rows of a subarray that are set aside: six cells (two with two word lines), two constants, and
the rest of sixteen for what a controller wants to keep there."""

R = Reserved

WORDLINES: dict[Reserved, tuple[tuple[str, bool], ...]] = {
    R.T0: (("T0", False),),
    R.T1: (("T1", False),),
    R.T2: (("T2", False),),
    R.T3: (("T3", False),),
    R.DCC0: (("DCC0", False),),
    R.NOT_DCC0: (("DCC0", True),),
    R.DCC1: (("DCC1", False),),
    R.NOT_DCC1: (("DCC1", True),),
    R.DCC0_T0: (("DCC0", True), ("T0", False)),
    R.DCC1_T1: (("DCC1", True), ("T1", False)),
    R.T2_T3: (("T2", False), ("T3", False)),
    R.T0_T3: (("T0", False), ("T3", False)),
    R.T0_T1_T2: (("T0", False), ("T1", False), ("T2", False)),
    R.T1_T2_T3: (("T1", False), ("T2", False), ("T3", False)),
    R.DCC0_T1_T2: (("DCC0", False), ("T1", False), ("T2", False)),
    R.DCC1_T0_T3: (("DCC1", False), ("T0", False), ("T3", False)),
}
"""Cells that an address raises, and whether at the word line that shows the complement."""


@dataclass(frozen=True)
class RowOp:
    """AAP from ``source`` to ``target``, or AP of ``source`` (no target). Rows from 0 are data."""

    source: int
    target: int | None = None


Rows = Sequence[int]


def add(a: Rows, b: Rows, out: Rows) -> Iterator[RowOp]:
    """``out`` = ``a`` + ``b``, lowest bits first; one row more than theirs takes the carry.

    ``out`` may be either of the two.
    """
    yield from _no_carry()
    for one, other, total in zip(a, b, out, strict=False):
        yield RowOp(one, R.T2_T3)
        yield from _sum(other, total)
    if len(out) > len(a):
        yield RowOp(R.DCC1, out[len(a)])


def multiply(a: Rows, b: Rows, out: Rows) -> Iterator[RowOp]:
    """``out`` = ``a`` x ``b`` without signs; as many rows as both together.

    Partial products are added one by one; a conjunction settles right where the sum wants it.
    """
    for one, total in zip(a, out, strict=False):
        yield from _and(one, b[0], total)
    yield RowOp(R.ZEROS, out[len(a)])
    for place in range(1, len(b)):
        yield from _no_carry()
        for one, total in zip(a, out[place:], strict=False):
            yield from _and(one, b[place], R.T2_T3)
            yield from _sum(total, total)
        yield RowOp(R.DCC1, out[place + len(a)])


def _no_carry() -> Iterator[RowOp]:
    yield RowOp(R.ZEROS, R.DCC1)
    yield RowOp(R.ONES, R.DCC0)


def _and(a: int, b: int, out: int) -> Iterator[RowOp]:
    yield RowOp(a, R.T0)
    yield RowOp(b, R.T1)
    yield RowOp(R.ZEROS, R.T2)
    yield RowOp(R.T0_T1_T2, out)


def _sum(b: int, out: int) -> Iterator[RowOp]:
    """A bit of a sum, its first operand in T2 and T3, the carry in DCC1, its complement in DCC0."""
    yield RowOp(b, R.T1)
    yield RowOp(b, R.T0)
    yield RowOp(R.DCC0_T1_T2)  # MAJ(A, B, not C), in T1
    yield RowOp(R.DCC1, R.T2)  # C
    yield RowOp(R.DCC1_T0_T3, R.NOT_DCC0)  # Cout in DCC1, its complement in DCC0
    yield RowOp(R.DCC0, R.T0)
    yield RowOp(R.T0_T1_T2, out)


def add_operations(bits: int) -> int:
    """Row operations of a sum of numbers of so many bits, its carry kept."""
    return 8 * bits + 3


def multiply_operations(bits: int) -> int:
    """Row operations of a product of two numbers of so many bits."""
    return 11 * bits * bits - 4 * bits - 2
