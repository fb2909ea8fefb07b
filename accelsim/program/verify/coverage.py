"""Coverage: every element that an operator produces is written exactly once, by that operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from accelsim.numerics.formats import FORMATS
from accelsim.program.opcodes import Flag
from accelsim.program.table import COLUMN
from accelsim.program.verify.violation import Violation, at_instruction, instruction_text

if TYPE_CHECKING:
    from accelsim.program.table import Program, StorageInfo
    from accelsim.program.verify.cells import Cells
    from accelsim.program.verify.extents import Extents


def coverage_violations(
    program: Program, extents: Extents, cells: Cells, limit: int
) -> list[Violation]:
    """Gaps and overlaps in what operators write. ``cells`` are cut storage by storage."""
    from accelsim.program.verify.cell_kernels import count_writes

    found = np.empty((limit, 4), dtype=np.int64)
    count = count_writes(
        program.instructions,
        program.operands,
        extents.table[:, 6],
        int(Flag.ACCUMULATE),
        cells.first,
        cells.rectangles,
        cells.due,
        found,
    )
    return [_worded(program, cells, *map(int, row)) for row in found[:count]]


def _worded(program: Program, cells: Cells, what: int, i: int, other: int, cell: int) -> Violation:
    if what == 3:
        s, offset = cells.place(cell)
        info = program.storages[s]
        operator = program.operators[info.producer].name
        message = (
            f"operator {operator!r}: no instruction writes {info.role} {info.name}"
            f" at {_element(info, offset)}"
        )
        return Violation("coverage", message, operator=operator, storage=info.name)
    info = program.storages[program.operands[program.instructions[i, COLUMN["dst"]], 0]]
    if what == 0:
        owner = program.operators[info.producer].name if info.producer >= 0 else ""
        produced = f"operator {owner!r} produces" if owner else "no operator produces"
        problem = f"writes {info.role} {info.name}, which {produced}"
        return at_instruction(program, "coverage", i, problem, info.name)
    element = _element(info, cells.place(cell)[1])
    if what == 1:
        problem = f"writes {info.role} {info.name} at {element}, which is not its to write"
        return at_instruction(program, "coverage", i, problem, info.name)
    problem = (
        f"writes {info.role} {info.name} at {element} again,"
        f" after {instruction_text(program, other)}"
    )
    return at_instruction(program, "coverage", i, problem, info.name, other)


def _element(info: StorageInfo, offset: int) -> str:
    """Where a byte lies in a tensor: ``row 3, column 128`` of its 2-D form."""
    if not info.shape or info.format not in FORMATS:
        return f"byte {offset}"
    row, column = divmod(offset * 8 // FORMATS[info.format].bits, info.shape[-1])
    return f"row {row}, column {column}"
