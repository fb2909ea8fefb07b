"""How long a product in the banks of one channel takes when nothing else is under way there.

The commands of the product are sent to an idle channel once, command by command; products of the
same shape take the same time. Refresh is the share of time that a long stream loses to it; where a
family's kernels begin at a known time after the last one (``refresh_after``), it comes as it falls.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from accelsim.hw.pim.catalog import family as find_family
from accelsim.hw.pim.channel.run_alone import run_alone
from accelsim.hw.pim.channel.stream import PimStream, concatenated
from accelsim.hw.pim.family import Family
from accelsim.hw.pim.products.product import Sweep, Taken
from accelsim.hw.pim.products.registry import products_of

LONG_TILES = 256
"""Tiles of a stream that meets several refreshes."""


@cache
def product_cost(name: str, sweep: Sweep) -> Taken:
    """The cost of a product by a family of that name, refresh included as a share."""
    family = find_family(name)
    products = products_of(family)
    if (own := products.taken(family, sweep)) is not None:
        return own
    stream = _stream(family, sweep)
    if "refresh_after" in family.numbers:
        cycles, count = run_alone(family, stream, refresh=True)
        until = cycles + products.reading(family, sweep)
        return Taken(cycles, until, count, _sent(family, stream))
    cycles, count = run_alone(family, stream, refresh=False)
    ahead = _ahead(family, sweep) if products.pipelined else cycles
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
    both, _ = run_alone(family, _stream(family, sweep, probe), refresh=False)
    return both - run_alone(family, _stream(family, probe), refresh=False)[0]


@cache
def refresh_share(name: str) -> tuple[int, int]:
    """(with, without): clocks of a long stream of tiles with refreshes and without."""
    family = find_family(name)
    if not family.rules.refresh:
        return 1, 1
    columns = family.device.organization.row_bytes * 8 // family.units.operand_bits
    stream = _stream(family, Sweep(1, 1, LONG_TILES * family.banks, columns, abreast=True))
    return run_alone(family, stream, refresh=True)[0], run_alone(family, stream, refresh=False)[0]
