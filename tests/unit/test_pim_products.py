"""Commands of products in channels that a host reads and writes, too, walked row by row."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from accelsim.hw.pim.catalog import family
from accelsim.hw.pim.channel.reach import touches
from accelsim.hw.pim.family import PimCommand, Role
from accelsim.hw.pim.products.product import Sweep
from accelsim.hw.pim.products.registry import products_of


def walked(name: str, sweep: Sweep) -> Iterator[tuple[PimCommand, set[int], set[int]]]:
    """Every command of a product, the banks that it reaches, and those with an open row before it;
    the host has left rows of all banks open."""
    found = family(name)
    opened = set(range(found.banks))
    for number, _, bank, *_ in products_of(found).beside_host(found, sweep, 0, (0, 0)):
        one = found.commands[number]
        reached = set(np.flatnonzero(touches(found.device.organization, one.reach)[bank]).tolist())
        yield one, reached, set(opened)
        if one.role is Role.CLOSE:
            opened -= reached
        elif one.role in (Role.OPEN, Role.COLUMN):
            opened |= reached


@pytest.mark.parametrize("sweep", [Sweep(2, 1, 64, 256, True), Sweep(1, 1, 200, 300, True)])
def test_banks_of_hbm_pim_are_closed_when_they_leave_the_ordinary_mode(sweep: Sweep) -> None:
    ordinary, kernels = True, 0
    modes = 0
    for one, reached, opened in walked("hbm-pim", sweep):
        if one.name == "MODE":
            if ordinary:
                assert not opened
                ordinary, kernels = False, kernels + 1
            modes += 1
        elif one.name == "ACT":  # results are read in it, from rows that are opened for them
            assert not reached & opened
            ordinary = True
        elif one.name == "RD":
            assert reached <= opened
    assert kernels == sweep.vectors
    assert modes > 2 * kernels
