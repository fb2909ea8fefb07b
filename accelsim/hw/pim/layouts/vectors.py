"""Where vectors lie that are computed element by element: the rows of one matrix [vectors, n].

    hbm-pim      vectors in rows of their own, one behind the other; an element has the same
                 channel, bank and column in each. Neighbouring columns of 16 elements take turns
                 over channels, then banks
    aim          vectors in the first banks of every bank group, an element in the same row and
                 column of each; columns take turns over channels, then bank groups
    aim, copied  whole rows in an even bank and the odd one beside it

Sources: address order of HBM-PIM (column above banks above channels; Kwon et al., ISCA 2021), banks
of AiM's instructions (aim_simulator 0f28a07, MIT, SK hynix).
"""

from __future__ import annotations

from accelsim.errors import AccelsimError
from accelsim.hw.pim.family import Family
from accelsim.hw.pim.layouts.layout import BankGrid, Digit, Layout
from accelsim.hw.pim.operators import Copy, Elementwise
from accelsim.hw.pim.programs.aim import columns_of
from accelsim.hw.pim.programs.hbm_pim import vector_columns, vector_rows


def grid_of(family: Family) -> BankGrid:
    """The banks of a family."""
    parts = family.device.organization
    return BankGrid(
        family.channels, family.banks, parts.rows, parts.row_bytes, parts.column_bytes,
        family.units.operand_bits,
    )  # fmt: skip


def vector_layout(family: Family, operator: Elementwise) -> Layout:
    """The vectors of an operator, the result last.

    Raises:
        AccelsimError: an operator without vectors in memory, or vectors beyond the banks' rows.
    """
    if not operator.vectors:
        raise AccelsimError(f"{operator} has no vectors in the banks; accepted: add, ewmul, ...")
    grid, n = grid_of(family), operator.n
    digits = _hbm_pim if family.programs == "hbm-pim" else _copied
    if family.programs == "banks" and not isinstance(operator, Copy):
        digits = _aim
    return Layout("vectors", grid, operator.vectors, n, digits(family, grid, operator))


def _columns(grid: BankGrid) -> tuple[Digit, Digit]:
    size = grid.column_elements
    return Digit("col", size, "element"), Digit("col", grid.channels, "channel")


def _hbm_pim(family: Family, grid: BankGrid, operator: Elementwise) -> tuple[Digit, ...]:
    apart = vector_rows(family, operator.n) * grid.row_elements
    return (
        *_columns(grid),
        Digit("col", grid.banks, "bank"),
        Digit("col", vector_columns(family, operator.n), "element", grid.column_elements),
        Digit("row", operator.vectors, "element", apart),
    )


def _aim(family: Family, grid: BankGrid, operator: Elementwise) -> tuple[Digit, ...]:
    size = family.device.organization.banks
    groups = grid.banks // size
    return (
        *_columns(grid),
        Digit("col", groups, "bank", size),
        Digit("col", columns_of(family, operator.n, groups), "element", grid.column_elements),
        Digit("row", operator.vectors, "bank"),
    )


def _copied(family: Family, grid: BankGrid, operator: Elementwise) -> tuple[Digit, ...]:
    return (
        *_columns(grid),
        Digit("col", grid.banks // 2, "bank", 2),
        Digit(
            "col", columns_of(family, operator.n, grid.banks // 2), "element", grid.column_elements
        ),
        Digit("row", operator.vectors, "bank"),
    )
