"""Steps of a program: commands by name, with what the stream of a channel does not say.

A stream is enough to tell when commands go; what they compute depends on columns, too. Streams
follow from steps, and functional executes the same steps on bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from accelsim.hw.pim.channel.stream import NO_ROW, PimStream
from accelsim.hw.pim.family import Family


class Step(NamedTuple):
    """A run of ``repeat`` commands from a column of a row on; ``bank`` is any of those reached."""

    command: str
    row: int = NO_ROW
    bank: int = 0
    column: int = 0
    repeat: int = 1
    last: int = 0


def stream_of(family: Family, steps: Iterable[Step]) -> PimStream:
    """The stream that a channel gets; what comes once is sent as often as it repeats."""
    rows: list[tuple[int, int, int, int, int, int]] = []
    for step in steps:
        command = family.command(step.command)
        times, repeat = (step.repeat, 1) if command.repeat == "once" else (1, step.repeat)
        rows += [(command.number, step.row, step.bank, repeat, step.last, step.last)] * times
    return PimStream.of(rows)
