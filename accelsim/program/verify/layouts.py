"""Layouts: every window of a tensor stored in panels lies within one of them, row upon row.

Bounds alone would let through a window of the row-major form of a packed tensor: it stays inside
the storage and reads other elements than it means to.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from accelsim.numerics.formats import FORMATS
from accelsim.program.table import COLUMN
from accelsim.program.verify.violation import Violation, at_instruction

if TYPE_CHECKING:
    from accelsim.program.table import Ints, Program, StorageInfo


def layout_problem(info: StorageInfo) -> str:
    """What is wrong with the panels of a storage, '' if nothing is."""
    if not info.panels:
        return ""
    if not info.shape or info.format not in FORMATS:
        return "is in panels, but has no shape or no number format"
    edges = (*info.panels, info.shape[-1])
    if edges[0] != 0 or any(a >= b for a, b in pairwise(edges)):
        return f"has panels from columns {edges[:-1]}, which do not cut its {edges[-1]} columns"
    if any(edge * FORMATS[info.format].bits % 8 for edge in edges):
        return "has panels whose rows do not fill whole bytes"
    return ""


def layout_violations(program: Program, limit: int) -> list[Violation]:
    """Instructions that read or write a packed tensor across its panels."""
    packed = [s for s, info in enumerate(program.storages) if info.panels]
    wrong = np.zeros(len(program.operands) + 1, dtype=bool)  # the last entry: no operand
    for s in packed:
        mine = np.flatnonzero(program.operand_column("storage") == s)
        wrong[mine] = ~_within_a_panel(program.storages[s], program.operands[mine])
    if not wrong.any():
        return []
    first = COLUMN["dst"]
    rows, columns = np.nonzero(wrong[program.instructions[:, first : first + 4]])
    return [
        _worded(program, int(i), int(program.instructions[i, first + c]))
        for i, c in zip(rows[:limit], columns[:limit], strict=True)
    ]


def _within_a_panel(info: StorageInfo, operands: Ints) -> npt.NDArray[np.bool_]:
    """bool per operand descriptor: rows of one panel, one panel row apart."""
    _, _, base, rows, row_bytes, stride, _ = operands.T
    bits = FORMATS[info.format].bits
    height = math.prod(info.shape[:-1])
    edges = np.array([*info.panels, info.shape[-1]], dtype=np.int64) * bits // 8
    offset = base - info.base
    i = np.clip(np.searchsorted(edges * height, offset, side="right") - 1, 0, len(edges) - 2)
    pitch = (edges[1:] - edges[:-1])[i]
    row, column = np.divmod(offset - edges[i] * height, pitch)
    inside = (column + row_bytes <= pitch) & (row + rows <= height)
    found: npt.NDArray[np.bool_] = inside & ((rows == 1) | (stride == pitch))
    return found


def _worded(program: Program, i: int, operand: int) -> Violation:
    from accelsim.program.listing import operand_text

    name = program.storages[int(program.operands[operand, 0])].name
    problem = f"has {operand_text(program, operand)}, which is no window of one panel of {name}"
    return at_instruction(program, "layout", i, problem, name)
