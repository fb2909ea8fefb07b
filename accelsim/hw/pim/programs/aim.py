"""AiM's commands for vectors: element by element, through a function, from bank to bank.

    ewmul   column by column, the first bank of every bank group times the second one, into the
            third one: four banks of a channel give 16 products each
    ewadd   the interface reads rows of the first two banks into its registers, adds, and writes the
            third one; sums take no command of the channel
    af      16 values go into the accumulators of a channel's banks, every bank looks its value up
            in the table in its last row, 16 results are read
    copy    a row of an even bank through the global buffer into the odd bank beside it

Source: Kwon et al., GDDR6-AiM, ISSCC 2022; instructions and their banks as in aim_simulator 0f28a07
(MIT, SK hynix), whose interface adds registers (EWADD) in no time. Operands are therefore kept in
the first banks of every group, results in the third one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from accelsim.hw.pim.family import Family
from accelsim.hw.pim.operators import Af, Copy, Elementwise, Ewadd, Ewmul
from accelsim.hw.pim.programs.steps import Step


def aim_steps(family: Family, operator: Elementwise) -> Iterator[Step] | None:
    """Steps of an operator in every channel; None for one that has no commands.

    Raises:
        AccelsimError: more rows than a bank has.
    """
    if isinstance(operator, Ewmul | Ewadd):
        family.check_rows(_rows(columns_of(family, operator.n, _groups(family)), family))
        return (_multiplied if isinstance(operator, Ewmul) else _added)(family, operator)
    if isinstance(operator, Copy):
        family.check_rows(_rows(columns_of(family, operator.n, family.banks // 2), family))
        return _copied(family, operator)
    return _looked_up(family, operator) if isinstance(operator, Af) else None


def columns_of(family: Family, n: int, banks: int) -> int:
    """Columns that a vector takes in so many banks of every channel."""
    return math.ceil(n / (family.units.macs * banks * family.channels))


def _groups(family: Family) -> int:
    return family.banks // family.device.organization.banks


def _rows(columns: int, family: Family) -> int:
    return math.ceil(columns / family.device.organization.columns)


def _row_columns(family: Family, columns: int) -> Iterator[tuple[int, int]]:
    """(row, columns in it)."""
    width = family.device.organization.columns
    for first in range(0, columns, width):
        yield first // width, min(width, columns - first)


def _multiplied(family: Family, operator: Elementwise) -> Iterator[Step]:
    columns = columns_of(family, operator.n, _groups(family))
    for row, count in _row_columns(family, columns):
        yield Step("EWMUL", row, repeat=count)
        yield Step("PRE_ABK", last=1)


def _added(family: Family, operator: Elementwise) -> Iterator[Step]:
    size = family.device.organization.banks
    columns = columns_of(family, operator.n, _groups(family))
    for row, count in _row_columns(family, columns):
        for bank in range(0, family.banks, size):
            yield Step("RD", row, bank, repeat=count)
            yield Step("RD", row, bank + 1, repeat=count)
            yield Step("EWADD", bank=bank, repeat=count)
            yield Step("WR", row, bank + 2, repeat=count, last=1)


def _copied(family: Family, operator: Elementwise) -> Iterator[Step]:
    columns = columns_of(family, operator.n, family.banks // 2)
    for row, count in _row_columns(family, columns):
        for bank in range(0, family.banks, 2):
            yield Step("COPY_BKGB", row, bank, repeat=count)
            yield Step("COPY_GBBK", row, bank + 1, repeat=count, last=1)


def _looked_up(family: Family, operator: Elementwise) -> Iterator[Step]:
    table = family.device.organization.rows - 1
    for _ in range(math.ceil(operator.n / (family.banks * family.channels))):
        yield Step("WR_BIAS")
        yield Step("AF", table)
        yield Step("RD_AF", last=1)
