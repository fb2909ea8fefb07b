"""Energy of commands: the current formulas by hand, published figures, and sums."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from accelsim.hw.dram.catalog import device, shipped_devices
from accelsim.hw.dram.commands import Command
from accelsim.hw.dram.dramsim3_ini import import_dramsim3
from accelsim.hw.dram.energy import command_energy_pj, energy_pj, standby_power_mw

DATA = Path(__file__).parent / "data/dramsim3"


def test_current_formulas_by_hand() -> None:
    one = import_dramsim3(DATA / "ddr4_2400_refon.ini").device
    energy = command_energy_pj(one)
    pj = 1.2 * 8 * 0.83  # VDD x dies x tCK
    assert energy[Command.ACT] == pytest.approx(pj * (48 * 56 - (43 * 39 + 34 * 17)))
    assert energy[Command.RD] == pytest.approx(pj * (135 - 43) * 4)
    assert energy[Command.WRA] == pytest.approx(pj * (123 - 43) * 4)
    assert energy[Command.REFAB] == pytest.approx(pj * (250 - 43) * 420)
    assert energy[Command.REFPB] == pytest.approx(energy[Command.REFAB] / 16)
    assert Command.PRE not in energy  # it is in the activation's
    assert standby_power_mw(one) == pytest.approx((1.2 * 8 * 43, 1.2 * 8 * 34))


def test_a_run_is_the_sum_of_its_parts() -> None:
    one = device("ddr4-3200")
    energy = command_energy_pj(one)
    counts = {Command.ACT: 3, Command.PRE: 3, Command.RD: 5, Command.WRA: 7, Command.REFAB: 2}
    parts = energy_pj(one, counts, active_cycles=1000, idle_cycles=500)
    assert parts["activate"] == pytest.approx(3 * energy[Command.ACT])
    assert parts["read"] == pytest.approx(5 * energy[Command.RD])
    assert parts["write"] == pytest.approx(7 * energy[Command.WR])
    assert parts["refresh"] == pytest.approx(2 * energy[Command.REFAB])
    active_mw, idle_mw = standby_power_mw(one)
    assert parts["standby"] == pytest.approx((active_mw * 1000 + idle_mw * 500) * 0.625)
    total = parts.pop("total")
    assert total == pytest.approx(sum(parts.values()))


def per_bit(name: str, columns: int) -> float:
    """Energy per bit of reading ``columns`` columns of each row at full speed."""
    one = device(name)
    t, parts = one.timings, one.organization
    cycles = columns * max(t["burst_cycles"], t["tCCD_S"])
    run = energy_pj(one, {Command.ACT: 1, Command.RD: columns}, cycles, 0)
    return run["total"] / (columns * parts.column_bytes * 8)


def test_published_totals_are_met() -> None:
    # O'Connor et al., MICRO 2017, Table 3: 909 pJ per 1 KB row and 3.48 pJ/bit; 3.9 pJ/bit in all
    # where 2 to 3 kbit of a row are used.
    hbm2 = command_energy_pj(device("hbm2"))
    assert hbm2[Command.ACT] == 909
    assert hbm2[Command.RD] == pytest.approx(3.48 * 256)
    assert per_bit("hbm2", 10) == pytest.approx(3.9, abs=0.1)
    assert 3.6 < per_bit("hbm2", 32) < per_bit("hbm2", 10) < per_bit("hbm2", 5)
    for name in ("gddr6", "gddr6-14", "gddr6-12"):
        assert per_bit(name, 64) == pytest.approx(7.5, abs=0.01)
    assert per_bit("lpddr5-6400", 64) == pytest.approx(7.0, abs=0.05)


def test_a_refresh_costs_its_rows_where_no_figure_is_published() -> None:
    # 16384 rows x 16 banks in 32 ms, a refresh every 3.9 us: 32 rows each.
    energy = command_energy_pj(device("hbm2"))
    assert energy[Command.REFAB] == pytest.approx(909 * 16384 * 16 * 3900 / 32e6)
    assert energy[Command.REFPB] == pytest.approx(energy[Command.REFAB] / 16)


def test_same_bank_refreshes_are_fine_grained() -> None:
    one = device("ddr5-4800")
    energy = command_energy_pj(one)
    assert one.refresh.per_bank_interval_cycles == 1170  # 3.9 us / 2 / 4 banks of a group
    assert energy[Command.REFPB] == pytest.approx(energy[Command.REFAB] / 8)


@pytest.mark.parametrize("name", shipped_devices())
def test_energies_are_never_negative(name: str) -> None:
    energy = command_energy_pj(device(name))
    assert all(pj >= 0 for pj in energy.values())
    assert min(energy[c] for c in (Command.RD, Command.WR, Command.REFAB)) > 0
    active_mw, idle_mw = standby_power_mw(device(name))
    assert active_mw >= idle_mw > 0


def test_a_device_without_figures_has_no_energy() -> None:
    bare = replace(device("hbm2"), power=None)
    assert command_energy_pj(bare) == {}
    assert energy_pj(bare, {Command.RD: 9}, 10, 10)["total"] == 0
