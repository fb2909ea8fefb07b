"""A stream of one channel in which nothing else is under way: its clocks and its commands."""

from __future__ import annotations

import numpy as np

from accelsim.errors import AccelsimError
from accelsim.hw.pim.channel.stream import PimStream
from accelsim.hw.pim.family import Family


def run_alone(
    family: Family, stream: PimStream, refresh: bool
) -> tuple[int, tuple[tuple[str, int], ...]]:
    """Clocks to the last result, and how many of each command (columns of composites)."""
    from accelsim.hw.pim.channel import channel_kernels as kernels
    from accelsim.hw.pim.channel import state

    after = family.numbers.get("refresh_after", 0)
    k = state.channels(
        family, [stream], None, outstanding=0, refresh=refresh, refresh_after=after, log=0
    )
    if kernels.finish(k, 0, False) != kernels.DONE:
        raise AccelsimError(f"{family.name}: a product never ends; accepted: other constraints")
    columns = {
        one.number: int(stream.repeat[stream.command == one.number].sum())
        for one in family.commands
        if one.repeat == "composite"
    }
    count = tuple(
        (one.name, columns.get(one.number, int(k.sent[0, one.number])))
        for one in family.commands
        if np.any(k.sent[0, one.number])
    )
    return int(k.word[0, state.PIM_FINISH]) + 1, count
