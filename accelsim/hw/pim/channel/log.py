"""Logs of a PIM channel's command bus, as columns and as text.

A line of a log file is ``cycle command bank row repeat``: the bank is counted through the channel,
and any of those that the command reaches; ``repeat`` is how many of a run are still to come, itself
among them, or the columns of a composite.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from accelsim.hw.pim.family import Family

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class PimLog:
    """Commands of one channel in the order of issue."""

    cycle: Ints
    command: Ints
    bank: Ints
    row: Ints
    repeat: Ints

    def __len__(self) -> int:
        return len(self.cycle)

    @classmethod
    def of(cls, table: Ints) -> PimLog:
        """Rows of (clock, command, channel, bank, row, repeat), in the order of their clocks."""
        order = np.argsort(table[:, 0], kind="stable")
        clock, command, _, bank, row, repeat = np.ascontiguousarray(table[order].T)
        return cls(clock, command, bank, row, repeat)

    def entry(self, index: int, family: Family) -> str:
        """One command as a message names it."""
        if index < 0:
            return "nothing"
        name = family.commands[int(self.command[index])].name
        return (
            f"{name} at {int(self.cycle[index])} (bank {int(self.bank[index])}, "
            f"row {int(self.row[index])})"
        )


def write_log(path: Path, log: PimLog, family: Family) -> None:
    """Write a log as text; compressed if the name ends in .gz."""
    names = [one.name for one in family.commands]
    with gzip.open(path, "wt") if path.suffix == ".gz" else open(path, "w") as file:
        file.write("# cycle command bank row repeat\n")
        columns = (log.cycle, log.command, log.bank, log.row, log.repeat)
        for clock, command, *rest in np.stack(columns, axis=1).tolist():
            file.write(f"{clock} {names[command]} {' '.join(map(str, rest))}\n")
