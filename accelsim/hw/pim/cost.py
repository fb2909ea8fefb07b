"""How long a product in the banks of one channel takes when nothing else is under way there.

The commands of the product are sent to an idle channel once, command by command; products of the
same shape take the same time. Refresh is the share of time that a long stream loses to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from accelsim.errors import AccelsimError
from accelsim.hw.pim.catalog import family as find_family
from accelsim.hw.pim.family import Family
from accelsim.hw.pim.products import Sweep
from accelsim.hw.pim.programs import products_of
from accelsim.hw.pim.stream import PimStream, concatenated

LONG_TILES = 256
"""Tiles of a stream that meets several refreshes."""


@dataclass(frozen=True)
class Taken:
    """Clocks of a product in one channel until the next can follow (``cycles``) and until its last
    result has been read (``latency``), its commands by name (columns of composites), and how many
    of them whoever commands the banks sends: composites count once, rows are opened by the
    controller."""

    cycles: int
    latency: int
    commands: tuple[tuple[str, int], ...]
    sent: int = 0


@cache
def product_cost(name: str, sweep: Sweep) -> Taken:
    """The cost of a product by a family of that name, refresh included as a share."""
    family = find_family(name)
    stream = _stream(family, sweep)
    cycles, count = _run(family, stream, refresh=False)
    ahead = _ahead(family, sweep) if products_of(family).pipelined else cycles
    number, den = refresh_share(name)
    latency = -(-max(ahead, cycles) * number // den)
    return Taken(-(-ahead * number // den), latency, count, _sent(family, stream))


def _sent(family: Family, stream: PimStream) -> int:
    """Commands of a stream as they are sent one by one."""
    runs = [one.number for one in family.commands if one.repeat == "run"]
    return int(np.where(np.isin(stream.command, runs), stream.repeat, 1).sum())


def _stream(family: Family, *sweeps: Sweep) -> PimStream:
    """Commands of products one behind the other."""
    vector = (family.device.organization.rows - 1, 0)
    products, row, parts = products_of(family), 0, []
    for sweep in sweeps:
        parts.append(PimStream.of(products.rows(family, sweep, row, vector)))
        row = int(parts[-1].row.max()) + 1
    return concatenated(parts)


def _ahead(family: Family, sweep: Sweep) -> int:
    """What a product takes in front of a small one: less than alone."""
    probe = Sweep(1, 1, 1, family.units.macs, True, begins=sweep.ends)
    both, _ = _run(family, _stream(family, sweep, probe), refresh=False)
    return both - _run(family, _stream(family, probe), refresh=False)[0]


@cache
def refresh_share(name: str) -> tuple[int, int]:
    """(with, without): clocks of a long stream of tiles with refreshes and without."""
    family = find_family(name)
    if not family.rules.refresh:
        return 1, 1
    columns = family.device.organization.row_bytes * 8 // family.units.operand_bits
    stream = _stream(family, Sweep(1, 1, LONG_TILES * family.banks, columns, abreast=True))
    return _run(family, stream, refresh=True)[0], _run(family, stream, refresh=False)[0]


def _run(
    family: Family, stream: PimStream, refresh: bool
) -> tuple[int, tuple[tuple[str, int], ...]]:
    from accelsim.hw.pim import channel_kernels as kernels
    from accelsim.hw.pim import state

    k = state.channels(family, [stream], None, outstanding=0, refresh=refresh, log=0)
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
