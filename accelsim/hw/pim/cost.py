"""How long a product in the banks of one channel takes when nothing else is under way there.

The commands of the product are sent to an idle channel once, command by command; products of the
same shape take the same time. Refresh is the share of time that a long stream loses to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from accelsim.errors import AccelsimError
from accelsim.hw.pim.catalog import family as find_family
from accelsim.hw.pim.family import Family
from accelsim.hw.pim.newton_programs import Row, Sweep, sweep_rows
from accelsim.hw.pim.stream import PimStream

LONG_TILES = 256
"""Tiles of a stream that meets several refreshes."""


@dataclass(frozen=True)
class Taken:
    """Clocks of a product in one channel, from its first command to its last result read, and its
    commands by name (columns of composites)."""

    cycles: int
    commands: tuple[tuple[str, int], ...]


def product_rows(
    family: Family, sweep: Sweep, first_row: int, vector: tuple[int, int]
) -> Iterator[Row]:
    """Commands of one product of a tile program; see newton_programs.sweep_rows."""
    if family.programs != "newton":
        raise AccelsimError(
            f"family {family.name} computes no products of tile programs; accepted: newton, neupims"
        )
    return sweep_rows(family, sweep, first_row, vector)


@cache
def product_cost(name: str, sweep: Sweep) -> Taken:
    """The cost of a product by a family of that name, refresh included as a share."""
    family = find_family(name)
    vector = (family.device.organization.rows - 1, 0)
    stream = PimStream.of(product_rows(family, sweep, 0, vector))
    cycles, count = _run(family, stream, refresh=False)
    number, den = refresh_share(name)
    return Taken(-(-cycles * number // den), count)


@cache
def refresh_share(name: str) -> tuple[int, int]:
    """(with, without): clocks of a long stream of tiles with refreshes and without."""
    family = find_family(name)
    columns = family.device.organization.row_bytes * 8 // family.units.operand_bits
    sweep = Sweep(1, 1, LONG_TILES * family.banks, columns, abreast=True)
    vector = (family.device.organization.rows - 1, 0)
    stream = PimStream.of(product_rows(family, sweep, 0, vector))
    if not family.rules.refresh:
        return 1, 1
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
