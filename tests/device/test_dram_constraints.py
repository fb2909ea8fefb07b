"""Every constraint of every device: met exactly it is not reported, missed by one clock it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from dram_probes import probe, with_two_ranks

from accelsim.hw.dram.catalog import device, list_devices
from accelsim.hw.dram.checker import DATA, STATE_RULES, check_log
from accelsim.hw.dram.device import Constraint, Device
from accelsim.hw.dram.dramsim3_ini import import_dramsim3

DRAMSIM3 = sorted((Path(__file__).parents[1] / "unit/data/dramsim3").glob("*_refon.ini"))
DEVICES = [*map(device, list_devices()), *(import_dramsim3(file).device for file in DRAMSIM3)]


@pytest.fixture(params=DEVICES, ids=[one.name for one in DEVICES])
def two_ranks(request: pytest.FixtureRequest) -> Device:
    return with_two_ranks(request.param)


def reported(two_ranks: Device, constraint: Constraint, gap: int) -> list[Constraint | None]:
    verdict = check_log(two_ranks, probe(two_ranks, constraint, gap), refresh=False)
    assert verdict.total == len(verdict.violations)
    return [one.constraint for one in verdict.violations]


def test_a_constraint_missed_by_one_clock_is_found(two_ranks: Device) -> None:
    missed = [
        str(one)
        for one in two_ranks.constraints
        if one not in reported(two_ranks, one, one.cycles - 1)
    ]
    assert not missed


def test_a_constraint_met_exactly_is_not_reported(two_ranks: Device) -> None:
    wrong = [
        str(one) for one in two_ranks.constraints if one in reported(two_ranks, one, one.cycles)
    ]
    assert not wrong


def test_an_exact_log_is_clean_unless_something_stronger_forbids_it(two_ranks: Device) -> None:
    clean = 0
    for one in two_ranks.constraints:
        verdict = check_log(two_ranks, probe(two_ranks, one, one.cycles), refresh=False)
        clean += verdict.ok
        for found in verdict.violations:
            stronger = found.constraint
            # What only the command bus allows may find a bank, or the data bus, not ready.
            assert stronger is not None or found.rule in (*STATE_RULES, DATA), (one, found)
            if stronger is not None and one.window == 1:
                assert (stronger.before, stronger.after) == (one.before, one.after), (one, found)
                assert stronger.cycles > one.cycles
    assert clean >= 0.7 * len(two_ranks.constraints)
