"""DRAM device files: what ships is complete and sourced; every fault is one line at its place."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from accelsim.cli.main import app
from accelsim.errors import AccelsimError
from accelsim.hw.dram.catalog import device, list_devices, shipped_devices
from accelsim.hw.dram.commands import Command, Scope
from accelsim.hw.dram.describe import describe, summary
from accelsim.hw.dram.expression import evaluate
from accelsim.hw.dram.loader import FOLDER, load_devices
from accelsim.yaml_lines import read_yaml

NAMED = {
    "ddr4-2400", "ddr4-3200", "ddr5-4800", "lpddr4x-4266", "lpddr5-6400", "gddr6", "gddr6-12",
    "hbm2", "hbm2e", "hbm3", "hbm3e", "hbm3e-6250",
}  # fmt: skip

GOOD = """\
extends: ddr4
devices:
  mine:
    clock: 1200 MHz
    organization: {ranks: 2}
    timings:
      CL: 17
      CWL: 12
      tRCDRD: 14.16 ns
      tRP: 17
      tRAS: 32 ns
      tRRD_S: 4
      tRRD_L: 6
      tFAW: 21 ns
    refresh: {kind: all-bank}
"""


def load(tmp_path: Path, text: str) -> str:
    """The message of the fault in a device file, without its folder."""
    file = tmp_path / "my.yaml"
    file.write_text(text)
    with pytest.raises(AccelsimError) as fault:
        load_devices(file)
    message = str(fault.value)
    assert "\n" not in message
    return message.removeprefix(f"{file}")


def test_the_named_devices_ship() -> None:
    assert set(list_devices()) >= NAMED


@pytest.mark.parametrize("name", sorted(NAMED))
def test_every_number_has_a_source(name: str) -> None:
    one = device(name)
    file = next(file for file in FOLDER.glob("*.yaml") if name in load_devices(file))
    root = read_yaml(file)
    given = {**root.plain()["timings"], **root.plain()["devices"][name].get("timings", {})}
    derived = {
        timing for timing, text in given.items()
        if isinstance(text, str) and not re.search(r"\d+(\.\d+)? ?[nu]s|^\d", text)
        and timing not in ("tRTW", "tREFIpb", "CWL")
    }  # fmt: skip
    power = "currents" if "currents" in root.plain()["devices"][name] else "energy"
    needed = (set(given) - derived) | {"clock", "organization", power}
    assert needed <= one.sources.keys()
    assert derived <= {"tRCDWR", "tRC", "tRRD_L", "tWTR_L", "tRTW_L"}
    assert all(len(text) > 4 for text in one.sources.values())


def test_ranks_of_a_shared_bus_are_kept_apart() -> None:
    """Every shipped file but GDDR6's, whose channels have one rank."""
    shared = (Scope.OTHER_RANKS, Scope.PSEUDO_CHANNEL)
    for one in shipped_devices().values():
        t = one.timings
        apart = {(c.before, c.after): c.cycles for c in one.constraints if c.scope in shared}
        if one.standard == "GDDR6":
            assert not apart
            assert one.organization.ranks == 1
            continue
        for same in (Command.RD, Command.WR):
            assert apart[same, same] > t["burst_cycles"]  # data, and a gap
        assert apart[Command.RD, Command.WR] > t["CL"] - t["CWL"] + t["burst_cycles"]
        gap = t["CWL"] + t["burst_cycles"] - t["CL"]
        assert apart.get((Command.WR, Command.RD), 0) > gap


def test_a_table_holds_the_strictest_constraint() -> None:
    for one in shipped_devices().values():
        table = one.constraint_table()
        assert table.shape == (len(Scope), len(Command), len(Command))
        for rule in one.constraints:
            if rule.window == 1:
                assert table[rule.scope, rule.before, rule.after] >= rule.cycles
        keys = {(c.scope, c.before, c.after) for c in one.constraints if c.window == 1}
        assert np.count_nonzero(table >= 0) == len(keys)


def test_a_file_may_extend_a_shipped_one(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(GOOD)
    mine, shipped = device(f"{file}:mine"), device("ddr4-2400")
    assert mine == device(str(file))
    assert dict(mine.timings) == dict(shipped.timings)
    assert mine.constraints == shipped.constraints
    assert mine.organization.ranks == 2
    assert mine.organization.capacity_bytes == 2 * shipped.organization.capacity_bytes
    assert mine.power is None


def test_a_constraint_that_asks_nothing_is_left_out() -> None:
    # CWL + burst + tRTRS - CL = 12 + 4 + 1 - 17
    table = device("ddr4-2400").constraint_table()
    assert table[Scope.OTHER_RANKS, Command.WR, Command.RD] == -1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "tRAS: 32 ns", "tRAS: 32 ns\n      tRC: 55",
            ":12: mine: tRC = 55 contradicts tRAS + tRP = 39 + 17; accepted: tRC of 56 cycles or "
            "more",
        ),
        ("CL: 17", "CL: 0", ":7: mine: CL must be at least 1 cycle, not 0; accepted: 1, 2, ..."),
        (
            "tFAW: 21 ns", "tFAW: -1",
            ":14: mine: tFAW must be at least 1 cycle, not -1; accepted: 1, 2, ...",
        ),
        (
            "tFAW: 21 ns", "tFAW: 21 ns\n      tREFI: 420",
            ":6: mine: tRFC = 420 contradicts tREFI = 420; accepted: tRFC of at most 419 cycles",
        ),
        (
            "tRRD_L: 6", "tRRD_L: 3",
            ":12: mine: tRRD_S = 4 contradicts tRRD_L = 3; accepted: tRRD_S of at most 3 cycles",
        ),
        (
            "ranks: 2", "banks: 0",
            ":5: mine: banks must be at least 1, not 0; accepted: 1, 2, 3, ...",
        ),
        (
            "extends: ddr4", "extends: gddr6",
            ":5: mine: ranks = 2 share a data bus, and no constraint of scope other_ranks is from "
            "RD to RD; accepted: ranks: 1, or such constraints",
        ),
        (
            "ranks: 2", "ranks: 100000",
            ":5: mine: 1600000 banks in a channel (pseudo_channels x ranks x bank_groups x banks); "
            "accepted: up to 4096",
        ),
        (
            "ranks: 2", "rows: 99999999999999999999",
            ":5: mine: a channel of 13107199999999999999868928 B; accepted: up to "
            "1125899906842624 B",
        ),
        (
            "CL: 17", "CL: 99999999999999999999",
            ":7: mine: CL = 99999999999999999999 cycles; accepted: up to 1000000000",
        ),
        (
            "CL: 17", "CL: .nan",
            ":7: mine: CL is nan; accepted: whole cycles, a time (7.5 ns) or a formula",
        ),
        (
            "ranks: 2", "pseudo_channels: 0",
            ":5: mine: pseudo_channels must be at least 1, not 0; accepted: 1, 2, 3, ...",
        ),
        (
            "ranks: 2", "columns: 100",
            ":5: mine: columns must be a power of two, not 100; accepted: 1, 2, 4, ...",
        ),
        ("ranks: 2", "ranks: 1.5", ":5: mine: ranks must be a whole number, not 1.5"),
        (
            "ranks: 2", "bank: 4",
            ":5: mine: unknown key of organization 'bank'; did you mean 'banks'? accepted: "
            "bank_groups, banks, column_bytes, columns, pseudo_channels, ranks, rows",
        ),
        (
            "1200 MHz", "1200 MHx",
            ":4: mine: clock: unknown unit 'MHx' for Hz; did you mean 'MHz'? accepted: a number "
            "with one of Hz, kHz, MHz, GHz",
        ),
        ("1200 MHz", "0 Hz", ":4: mine: clock must be positive, not 0 Hz; accepted: 1 GHz"),
        (
            "tFAW: 21 ns", "tFAW: [21]",
            ":14: mine: tFAW is [21]; accepted: whole cycles, a time (7.5 ns) or a formula",
        ),
        (
            "tFAW: 21 ns", "tFAW: 21 parsecs",
            ":14: mine: tFAW: cannot read the formula '21 parsecs'; accepted: + - * // max() "
            "min(), whole numbers, times (7.5 ns) and timing names",
        ),
        (
            "tRP: 17", "tRP: tQ\n      tQ: tRP",
            ":6: mine: the formulas of tRC, tRP, tQ need each other",
        ),
        ("tRP: 17", "tRP: tRX", ":10: mine: tRP: unknown timing 'tRX'; did you mean 'tWR'?"),
        (
            "kind: all-bank", "kind: all",
            ":15: mine: unknown refresh kind 'all'; did you mean 'all-bank'? accepted: all-bank, "
            "per-bank",
        ),
        (
            "kind: all-bank", "kind: per-bank",
            ":15: mine: per-bank refresh needs tREFIpb and tRFCpb; accepted: all-bank",
        ),
        (
            "kind: all-bank", "groups_per_command: 3",
            ":15: mine: groups_per_command = 3 does not divide 4 bank groups; accepted: a divisor "
            "of the number of bank groups",
        ),
        (
            "kind: all-bank", "groups_per_command: all",
            ":15: mine: groups_per_command must be a whole number, not 'all'",
        ),
        ("extends: ddr4", "extends: ddr9", ":1: unknown device file 'ddr9'; did you mean 'ddr5'?"),
        ("extends: ddr4\n", "", ":1: standard is missing; accepted: name of the standard"),
        (
            "devices:\n", "constraints:\n- {before: ACT, after: RD, scope: bank}\ndevices:\n",
            ":3: cycles of a constraint is missing",
        ),
        (
            "devices:\n",
            "constraints:\n- {before: ACT, after: RD, scope: die, cycles: 1}\ndevices:\n",
            ":3: unknown scope 'die'; accepted: bank, bank_group, channel, other_ranks, "
            "pseudo_channel, rank",
        ),
        (
            "devices:\n",
            "constraints:\n- {before: ACT, after: READS, scope: bank, cycles: 1}\ndevices:\n",
            ":3: unknown command 'READS'; did you mean 'READ'?",
        ),
        (
            "devices:\n",
            "constraints:\n- {before: ACT, after: RD, scope: bank, cycles: tXX}\ndevices:\n",
            ":3: mine: constraint: unknown timing 'tXX'",
        ),
        (
            "devices:\n",
            "constraints:\n- {before: ACT, after: RD, scope: bank, cycles: 3}\ndevices:\n",
            ":2: mine: no constraint from ACT to WR of a bank; accepted: {before: ACT, after: WR, "
            "scope: bank, cycles: ...}",
        ),
    ],
)  # fmt: skip
def test_a_fault_is_one_line_at_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert GOOD.count(old) == 1
    assert load(tmp_path, GOOD.replace(old, new)).startswith(message)


@pytest.mark.parametrize("number", [".nan", ".inf", "-1"])
def test_energies_are_finite_and_not_negative(tmp_path: Path, number: str) -> None:
    power = f"    energy: {{activate_pj: {number}, read_pj_per_bit: 1, write_pj_per_bit: 1}}\n"
    value = float(number.replace(".", ""))
    assert load(tmp_path, GOOD + power) == (
        f":16: mine: activate_pj must be finite and not negative, not {value:g}"
    )


def test_an_unknown_device_lists_the_known_ones() -> None:
    with pytest.raises(AccelsimError, match=r"unknown memory device 'hbm4'; did you mean 'hbm"):
        device("hbm4")


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 9))
def test_formulas_are_whole_number_arithmetic(a: int, b: int, c: int) -> None:
    names = {"a": a, "b": b, "tC_L": c}
    assert evaluate("a + 2 * b - tC_L", names) == a + 2 * b - c
    assert evaluate("max(a, b, 7) // tC_L", names) == max(a, b, 7) // c
    assert evaluate("-min(a, b)", names) == -min(a, b)


def test_times_are_rounded_up_and_intervals_down() -> None:
    assert evaluate("7.5 ns", {}, 1_200_000_000) == 9  # exactly 9
    assert evaluate("7.6 ns", {}, 1_200_000_000) == 10
    assert evaluate("max(4, 1 ns) + 1us", {}, 1_000_000_000) == 1004
    assert evaluate("3.9 us", {}, 1_333_000_000, down=True) == 5198


@pytest.mark.parametrize(
    "text", ["__import__('os')", "a.b", "a[0]", "1.5", "a / 2", "a if a else b", "f(1, 2)", "a ="]
)
def test_nothing_but_arithmetic_is_evaluated(text: str) -> None:
    with pytest.raises(AccelsimError, match="accepted"):
        evaluate(text, {"a": 1, "b": 2})


def test_division_by_zero_and_unitless_clocks_are_named() -> None:
    with pytest.raises(AccelsimError, match="divides by zero"):
        evaluate("a // b", {"a": 1, "b": 0})
    with pytest.raises(AccelsimError, match="a time needs a clock"):
        evaluate("3 ns", {})


def test_a_page_names_every_timing_and_constraint() -> None:
    for one in shipped_devices().values():
        page = describe(one)
        assert summary(one) in page or one.description in page
        for name in one.timings:
            assert re.search(rf"^  {name} +\d", page, re.MULTILINE)
        for rule in one.constraints:
            assert f"({rule.name})" in page


def test_the_command_line_lists_and_shows_devices(tmp_path: Path) -> None:
    listed = CliRunner().invoke(app, ["list", "memories"]).output
    assert "ddr4-2400" in listed
    assert "19.2 GB/s a channel, CL-tRCD-tRP-tRAS 17-17-17-39 at 1.2 GHz" in listed
    shown = CliRunner().invoke(app, ["show", "hbm3"]).output
    assert "1.6 GHz  51.2 GB/s and 1 GiB a channel" in shown
    file = tmp_path / "my.yaml"
    file.write_text(GOOD)
    assert "17  " in CliRunner().invoke(app, ["show", f"{file}:mine"]).output
