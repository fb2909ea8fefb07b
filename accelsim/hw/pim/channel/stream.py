"""A stream of PIM commands for one channel, as columns: what a program hands to a controller."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accelsim.hw.pim.family import Family

Ints = NDArray[np.int64]

BARRIER = -1
"""Number of the entry that the controller does not look beyond, other than to open and close
rows."""

NO_ROW = -1


@dataclass(frozen=True)
class PimStream:
    """Commands in order; ``bank`` is any of those a command reaches, counted through the channel.

    ``repeat`` is how many of a run or how many columns of a composite (1 elsewhere). A header says
    how many columns its tile has at once (``repeat``) and how many results (``results``). ``last``
    marks the end of a tile.
    """

    command: Ints
    row: Ints
    bank: Ints
    repeat: Ints
    results: Ints
    last: Ints

    def __len__(self) -> int:
        return len(self.command)

    def counts(self, family: Family) -> Mapping[str, int]:
        """Commands by name; a run counts each of its commands, a composite is one."""
        found: dict[str, int] = {}
        for one in family.commands:
            mine = self.command == one.number
            times = int(self.repeat[mine].sum()) if one.repeat == "run" else int(mine.sum())
            if times:
                found[one.name] = times
        return found

    @classmethod
    def of(cls, rows: Iterable[tuple[int, int, int, int, int, int]]) -> PimStream:
        """Rows of (command, row, bank, repeat, results, last)."""
        table = np.array(list(rows), np.int64).reshape(-1, 6)
        return cls(*np.ascontiguousarray(table.T))

    def table(self) -> Ints:
        return np.stack(
            [self.command, self.row, self.bank, self.repeat, self.results, self.last], axis=1
        )


def concatenated(parts: Iterable[PimStream]) -> PimStream:
    """One stream after the other."""
    tables = [one.table() for one in parts]
    table = np.concatenate(tables) if tables else np.zeros((0, 6), np.int64)
    return PimStream(*np.ascontiguousarray(table.T))
