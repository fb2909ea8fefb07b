"""Derived constraints, bandwidths and capacities of the shipped devices, against sums by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from accelsim.hw.dram.catalog import device
from accelsim.hw.dram.commands import Command, Scope
from accelsim.hw.dram.device import Device
from accelsim.hw.dram.dramsim3_ini import import_dramsim3

DATA = Path(__file__).parents[1] / "unit/data/dramsim3"

C, S = Command, Scope

READ_TO_WRITE = (C.RD, C.WR, S.RANK)
READ_TO_WRITE_ON_BUS = (C.RD, C.WR, S.PSEUDO_CHANNEL)
WRITE_TO_READ = (C.WR, C.RD, S.RANK)
WRITE_TO_READ_ON_BUS = (C.WR, C.RD, S.PSEUDO_CHANNEL)
WRITE_TO_READ_IN_GROUP = (C.WR, C.RD, S.BANK_GROUP)
WRITE_TO_PRECHARGE = (C.WR, C.PRE, S.BANK)
READ_TO_PRECHARGE = (C.RD, C.PRE, S.BANK)
READ_AP_TO_ACTIVATE = (C.RDA, C.ACT, S.BANK)
WRITE_AP_TO_ACTIVATE = (C.WRA, C.ACT, S.BANK)
ROW_CYCLE = (C.ACT, C.ACT, S.BANK)

EXPECTED = {
    "ddr4-2400": {
        READ_TO_WRITE: 17 + 4 + 2 - 12,
        WRITE_TO_READ: 12 + 4 + 3,
        WRITE_TO_READ_IN_GROUP: 12 + 4 + 9,
        WRITE_TO_PRECHARGE: 12 + 4 + 18,
        READ_AP_TO_ACTIVATE: 9 + 17,
        WRITE_AP_TO_ACTIVATE: 12 + 4 + 18 + 17,
        ROW_CYCLE: 39 + 17,
        (C.RD, C.RD, S.BANK_GROUP): 6,
        (C.RD, C.RD, S.RANK): 4,
        (C.RD, C.RD, S.OTHER_RANKS): 4 + 1,
        (C.ACT, C.ACT, S.BANK_GROUP): 6,
        (C.ACT, C.ACT, S.RANK): 4,
        (C.ACT, C.RD, S.BANK): 17,
        (C.PRE, C.REFAB, S.RANK): 17,
        (C.REFAB, C.ACT, S.RANK): 420,
        (C.REFAB, C.REFPB, S.RANK): -1,
    },
    "ddr4-3200": {
        READ_TO_WRITE: 22 + 4 + 2 - 16,
        WRITE_TO_READ: 16 + 4 + 4,
        WRITE_TO_READ_IN_GROUP: 16 + 4 + 12,
        WRITE_TO_PRECHARGE: 16 + 4 + 24,
        READ_AP_TO_ACTIVATE: 12 + 22,
        ROW_CYCLE: 52 + 22,
        (C.WR, C.WR, S.BANK_GROUP): 8,
        (C.ACT, C.ACT, S.BANK_GROUP): 8,
        (C.REFAB, C.ACT, S.RANK): 560,
    },
    "ddr5-4800": {
        READ_TO_WRITE: 40 + 8 + 4 - 38,
        WRITE_TO_READ: 38 + 8 + 6,
        WRITE_TO_READ_IN_GROUP: 38 + 8 + 24,
        WRITE_TO_PRECHARGE: 38 + 8 + 72,
        ROW_CYCLE: 77 + 39,
        (C.RD, C.RD, S.BANK_GROUP): 12,
        (C.WR, C.WR, S.BANK_GROUP): 24,
        (C.WR, C.WR, S.RANK): 8,
        (C.PRE, C.PRE, S.RANK): 2,
        (C.ACT, C.PRE, S.CHANNEL): 2,
        (C.PRE, C.ACT, S.CHANNEL): -1,
        (C.REFPB, C.ACT, S.BANK): 312,
        (C.REFPB, C.ACT, S.RANK): 72,
    },
    "lpddr4x-4266": {
        READ_TO_WRITE: 36 + 8 + 8 + 2 - 18,
        WRITE_TO_READ: 18 + 1 + 8 + 22,
        WRITE_TO_PRECHARGE: 18 + 1 + 8 + 39,
        READ_TO_PRECHARGE: 16,
        ROW_CYCLE: 90 + 39,
        (C.ACT, C.ACT, S.RANK): 16,
        (C.PREAB, C.ACT, S.RANK): 45,
        (C.RD, C.ACT, S.CHANNEL): 4,
        (C.PRE, C.ACT, S.CHANNEL): 2,
        (C.REFPB, C.REFPB, S.RANK): 192,
    },
    "lpddr5-6400": {
        READ_TO_WRITE: 17 + 2 + 2 - 9,
        (C.RD, C.WR, S.BANK_GROUP): 17 + 4 + 2 - 9,
        WRITE_TO_READ: 9 + 2 + 5,
        WRITE_TO_READ_IN_GROUP: 9 + 4 + 10,
        READ_TO_PRECHARGE: 2 + 6 - 2,
        WRITE_TO_PRECHARGE: 9 + 2 + 1 + 28,
        ROW_CYCLE: 34 + 15,
        (C.RD, C.RD, S.BANK_GROUP): 4,
        (C.RD, C.RD, S.RANK): 2,
    },
    "gddr6": {
        READ_TO_WRITE: 28 + 2 + 2 - 6,
        WRITE_TO_READ: 6 + 2 + 10,
        WRITE_TO_READ_IN_GROUP: 6 + 2 + 13,
        WRITE_TO_PRECHARGE: 6 + 2 + 30,
        ROW_CYCLE: 60 + 30,
        (C.ACT, C.WR, S.BANK): 18,
        (C.ACT, C.RD, S.BANK): 30,
        (C.RD, C.RD, S.RANK): 2,
        (C.RD, C.RD, S.BANK_GROUP): 3,
    },
    "hbm2": {
        READ_TO_WRITE_ON_BUS: 18 + 2 + 2 - 7,
        WRITE_TO_READ_ON_BUS: 7 + 2 + 4,
        WRITE_TO_READ_IN_GROUP: 7 + 2 + 9,
        WRITE_TO_PRECHARGE: 7 + 2 + 14,
        ROW_CYCLE: 28 + 14,
        (C.RD, C.RD, S.RANK): 2,
        (C.RD, C.RD, S.OTHER_RANKS): 3,
        (C.ACT, C.PRE, S.CHANNEL): 2,
        (C.REFPB, C.ACT, S.RANK): 8,
    },
    "hbm3": {
        READ_TO_WRITE_ON_BUS: 26 + 2 + 2 - 8,
        WRITE_TO_READ_IN_GROUP: 8 + 2 + 12,
        WRITE_TO_PRECHARGE: 8 + 2 + 24,
        ROW_CYCLE: 48 + 26,
        (C.ACT, C.ACT, S.CHANNEL): 2,
        (C.ACT, C.PRE, S.CHANNEL): -1,
        (C.REFAB, C.ACT, S.RANK): 560,
    },
    # DRAMsim3's derivation, field by field.
    "ddr4_2400_refon.ini": {
        READ_TO_WRITE: 17 + 4 - 12 + 1,
        WRITE_TO_READ: 12 + 4 + 3,
        WRITE_TO_READ_IN_GROUP: 12 + 4 + 9,
        READ_TO_PRECHARGE: 9,
        READ_AP_TO_ACTIVATE: 4 + 9 + 17,
        WRITE_AP_TO_ACTIVATE: 12 + 4 + 18 + 17,
        ROW_CYCLE: 39 + 17,
        (C.PRE, C.PRE, S.RANK): -1,
    },
    "hbm2_1ch_refon.ini": {
        READ_TO_WRITE: 14 + 2 - 4 + 2,  # tRTRS is not in the file: 2
        WRITE_TO_READ: 4 + 2 + 6,
        READ_TO_PRECHARGE: 5,  # tRTP is not in the file: 5
        (C.RD, C.RD, S.BANK_GROUP): 2,
        ROW_CYCLE: 34 + 14,
    },
    "gddr6_x16_refon.ini": {
        READ_TO_WRITE: 24 + 1 - 16 + 1,  # a burst takes BL / 16
        WRITE_TO_READ_IN_GROUP: 16 + 1 + 7,
        READ_TO_PRECHARGE: 5,
        (C.RD, C.RD, S.BANK_GROUP): 3,  # one bank group: the short timings
        (C.PRE, C.PRE, S.RANK): 2,
        ROW_CYCLE: 54 + 24,
    },
}  # fmt: skip


def named(name: str) -> Device:
    return import_dramsim3(DATA / name).device if name.endswith(".ini") else device(name)


@pytest.mark.parametrize("name", EXPECTED)
def test_constraints_are_the_sums_of_their_timings(name: str) -> None:
    table = named(name).constraint_table()
    found = {key: int(table[key[2], key[0], key[1]]) for key in EXPECTED[name]}
    assert found == EXPECTED[name]


@pytest.mark.parametrize(
    ("name", "windows"),
    [
        ("ddr4-2400", [(26, 4)]), ("ddr4-3200", [(34, 4)]), ("ddr5-4800", [(32, 4)]),
        ("lpddr4x-4266", [(64, 4)]), ("lpddr5-6400", [(16, 4)]), ("gddr6", [(32, 4)]),
        ("hbm2", [(16, 4)]), ("hbm3", [(24, 4)]), ("hbm2_1ch_refon.ini", [(30, 4)]),
        ("gddr6_x16_refon.ini", [(32, 4), (420, 32)]),
    ],
)  # fmt: skip
def test_activation_windows(name: str, windows: list[tuple[int, int]]) -> None:
    assert named(name).windows() == windows


@pytest.mark.parametrize(
    ("name", "channels", "gigabytes_per_second", "gibibytes"),
    [
        ("ddr4-2400", 1, 19.2, 8), ("ddr4-3200", 1, 25.6, 8), ("ddr5-4800", 2, 38.4, 16),
        ("lpddr4x-4266", 2, 17.064, 2), ("lpddr5-6400", 1, 12.8, 2), ("gddr6", 2, 64, 1),
        ("gddr6-14", 2, 56, 1), ("gddr6-12", 2, 48, 1), ("hbm2", 8, 256, 8),
        ("hbm2e", 8, 409.6, 16), ("hbm3", 16, 819.2, 16), ("hbm3-5200", 16, 665.6, 16),
        ("hbm3e", 16, 1177.6, 24), ("hbm3e-6250", 16, 800, 24),
    ],
)  # fmt: skip
def test_a_module_die_or_stack_has_its_bandwidth_and_capacity(
    name: str, channels: int, gigabytes_per_second: float, gibibytes: float
) -> None:
    one = device(name)
    assert channels * one.channel_bytes_per_second / 1e9 == pytest.approx(gigabytes_per_second)
    assert channels * one.organization.capacity_bytes == gibibytes * 2**30


@pytest.mark.parametrize(
    ("name", "interval_ns", "groups", "rounds"),  # DDR5: fine granularity, half the rows at once
    [
        ("ddr4-2400", 7800, 1, 1), ("ddr5-4800", 3900, 8, 2), ("lpddr4x-4266", 3904, 1, 1),
        ("lpddr5-6400", 3906, 2, 1), ("gddr6", 1900, 1, 1), ("hbm2", 3900, 1, 1),
        ("hbm3e", 3900, 1, 1),
    ],
)  # fmt: skip
def test_refresh_keeps_every_row_alive(
    name: str, interval_ns: float, groups: int, rounds: int
) -> None:
    one = device(name)
    refresh, parts = one.refresh, one.organization
    assert refresh.interval_cycles * one.tck_ns == pytest.approx(interval_ns, rel=1e-3)
    assert refresh.interval_cycles * one.tck_ns <= interval_ns
    assert refresh.groups_per_command == groups
    if refresh.per_bank_interval_cycles:
        commands = rounds * parts.banks_per_rank // groups  # to refresh every row of every bank
        assert refresh.per_bank_interval_cycles * commands <= refresh.interval_cycles
        assert refresh.per_bank_interval_cycles * (commands + 1) > refresh.interval_cycles
