"""Memory cut into cells, the units of account of coverage and hazards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from accelsim.program.table import Ints, Program

Marks = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Cells:
    """Operand descriptors as sets of cells (see cell_kernels.build_cells).

    Descriptor d covers ``rectangles[first[d] : first[d + 1]]``, none if its storage needs no
    account. ``owner[c]`` is the storage whose data cell c holds at the start, -1 for none;
    ``due[c]`` is 1 where an operator must write. ``group`` says which cells lie in which storage.
    """

    first: Ints
    rectangles: Ints
    grids: Ints
    cuts: Ints
    owner: Marks
    due: Marks

    @classmethod
    def build(
        cls,
        program: Program,
        verdicts: Ints,
        group: Ints,
        origin: Ints,
        n_groups: int,
        extra: Ints,
        owners: Ints,
    ) -> Cells:
        """Cut at every operand window and at the ``extra`` ones.

        The first of these hold data of the storages ``owners`` at the start, the rest are due.
        """
        from accelsim.program.verify.cell_kernels import build_cells, paint, place_windows

        windows = place_windows(program.operands, verdicts, group, origin, extra)
        first, rectangles, grids, cuts, count = build_cells(windows, n_groups)
        owner = np.full(count, -1, dtype=np.int32)
        due = np.zeros(count, dtype=np.int32)
        held = np.arange(len(program.operands), len(windows))
        paint(first, rectangles, held[: len(owners)], owners, owner)
        owed = held[len(owners) :]
        paint(first, rectangles, owed, np.ones(len(owed), dtype=np.int64), due)
        return cls(first, rectangles, grids, cuts, owner, due)

    def place(self, cell: int) -> tuple[int, int]:
        """(group, first byte in it) of a cell."""
        used = np.flatnonzero(self.grids[:, 3])
        g = int(used[np.searchsorted(self.grids[used, 1], cell, side="right") - 1])
        pitch, base, height, width, cut = (int(x) for x in self.grids[g])
        row, column = divmod(cell - base, width)
        return g, int(self.cuts[cut + row] * pitch + self.cuts[cut + height + 1 + column])
