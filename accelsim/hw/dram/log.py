"""Command logs: what a channel's command bus carried, clock by clock, as columns and as text.

A line of a log file is ``cycle command pseudo_channel rank bank_group bank row column``; numbers
are decimal or 0x.... The logs that DRAMsim3 writes (its words for the commands, the channel where
the pseudo-channel stands here) are read, too.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Literal, cast

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import AccelsimError, unknown
from accelsim.hw.dram.commands import Command

Ints = NDArray[np.int64]

WORDS = {
    **{command.name.lower(): command for command in Command},
    "activate": Command.ACT, "precharge": Command.PRE, "read": Command.RD, "write": Command.WR,
    "read_p": Command.RDA, "write_p": Command.WRA, "refresh": Command.REFAB,
    "refresh_bank": Command.REFPB,
}  # fmt: skip
"""What a line may call a command, in any case."""


@dataclass(frozen=True)
class CommandLog:
    """Commands of one channel in the order of issue, one entry per command and column.

    ``cycle`` counts clocks of the command bus. Where a command has no bank (PREAB, REFAB) or no
    row or column, the entry is 0 or -1 and is not looked at.
    """

    cycle: Ints
    command: Ints
    pseudo_channel: Ints
    rank: Ints
    bank_group: Ints
    bank: Ints
    row: Ints
    column: Ints

    def __len__(self) -> int:
        return len(self.cycle)

    def __post_init__(self) -> None:
        if len({len(getattr(self, one.name)) for one in fields(self)}) > 1:
            raise AccelsimError("columns of a command log differ in length; accepted: one length")

    @classmethod
    def from_rows(cls, rows: Iterable[Iterable[int]]) -> CommandLog:
        """A log of (cycle, command, pseudo_channel, rank, bank_group, bank, row, column)."""
        table = np.array([tuple(row) for row in rows], np.int64).reshape(-1, 8)
        return cls(*np.ascontiguousarray(table.T))

    def rows(self) -> Iterator[tuple[int, ...]]:
        return zip(*(getattr(self, one.name).tolist() for one in fields(self)), strict=True)

    def entry(self, index: int) -> str:
        """One command as a message names it."""
        part = {one.name: int(getattr(self, one.name)[index]) for one in fields(self)}
        code = part["command"]
        name = Command(code).name if code in set(Command) else f"command {code}"
        return (
            f"{name} at {part['cycle']} (pseudo-channel {part['pseudo_channel']}, "
            f"rank {part['rank']}, group {part['bank_group']}, bank {part['bank']}, "
            f"row {part['row']}, column {part['column']})"
        )


def write_log(path: str | Path, log: CommandLog) -> None:
    """Write a log as text; compressed if the name ends in .gz."""
    names = [command.name for command in Command]
    with _open(Path(path), "wt") as file:
        file.write("# cycle command pseudo_channel rank bank_group bank row column\n")
        for cycle, command, *where in log.rows():
            file.write(f"{cycle} {names[command]} {' '.join(map(str, where))}\n")


def read_log(path: str | Path) -> CommandLog:
    """Read a log file.

    Raises:
        AccelsimError: ``FILE:LINE: ...`` for a line that is not a command.
    """
    rows: list[tuple[int, ...]] = []
    try:
        with _open(Path(path), "rt") as file:
            for number, line in enumerate(file, 1):
                words = line.split("#")[0].split()
                if words:
                    rows.append(_entry(words, f"{path}:{number}"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not text"
        raise AccelsimError(f"{path}: {reason}; accepted: a command log") from None
    return CommandLog.from_rows(rows)


def _open(path: Path, mode: Literal["rt", "wt"]) -> IO[str]:
    compressed = path.suffix == ".gz"
    return cast(IO[str], gzip.open(path, mode) if compressed else open(path, mode))


def _entry(words: list[str], where: str) -> tuple[int, ...]:
    if len(words) != 8:
        raise AccelsimError(
            f"{where}: {len(words)} words; accepted: cycle command pseudo_channel rank "
            "bank_group bank row column"
        )
    command = WORDS.get(words[1].lower())
    if command is None:
        raise AccelsimError(f"{where}: {unknown('command', words[1], WORDS)}")
    try:
        numbers = [int(word, 0) for word in (words[0], *words[2:])]
    except ValueError:
        raise AccelsimError(f"{where}: not a number among {words}; accepted: 12 or 0xc") from None
    numbers[1] = max(0, numbers[1])  # DRAMsim3's refreshes have channel -1
    return (numbers[0], int(command), *numbers[1:])
