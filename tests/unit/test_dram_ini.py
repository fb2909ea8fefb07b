"""DRAMsim3 configuration files: what is read, what DRAMsim3 makes of it, and faults by line."""

from __future__ import annotations

from pathlib import Path

import pytest

from accelsim import memory_stream
from accelsim.errors import AccelsimError
from accelsim.hw.dram.commands import Command, Scope
from accelsim.hw.dram.device import Currents, Organization
from accelsim.hw.dram.dramsim3_ini import import_dramsim3

DATA = Path(__file__).parent / "data/dramsim3"

SMALL = """\
; a comment
[dram_structure]
protocol = DDR4 ; and another
bankgroups = 2
banks_per_group = 4
rows = 1024
columns = 1024
device_width = 16
BL = 8

[timing]
tCK = 1.0
tRAS = 30
[system]
channel_size = 64
"""


def imported(tmp_path: Path, text: str):  # type: ignore[no-untyped-def]
    file = tmp_path / "my.ini"
    file.write_text(text)
    return import_dramsim3(file)


@pytest.mark.parametrize(
    ("name", "standard", "parts", "clock_hz", "dual"),
    [
        ("ddr4_2400_refon", "DDR4", (1, 1, 4, 4, 65536, 128, 64), 1_204_819_277, False),
        ("ddr4_3200_refon", "DDR4", (1, 1, 4, 4, 65536, 128, 64), 1_587_301_587, False),
        ("gddr6_x16_refon", "GDDR6", (1, 1, 1, 16, 16384, 128, 32), 1_515_151_515, False),
        ("hbm2_1ch_refon", "HBM", (1, 1, 4, 4, 32768, 32, 64), 1_000_000_000, True),
    ],
)
def test_organisation(
    name: str, standard: str, parts: tuple[int, ...], clock_hz: int, dual: bool
) -> None:
    device = import_dramsim3(DATA / f"{name}.ini").device
    assert device.standard == standard
    assert device.organization == Organization(*parts)
    assert device.clock_hz == clock_hz
    assert device.dual_command is dual
    megabytes = {"DDR4": 8192, "GDDR6": 1024, "HBM": 1024}[standard]
    assert device.organization.capacity_bytes == megabytes * 2**20


def test_controller_settings() -> None:
    settings = import_dramsim3(DATA / "hbm2_8ch_refon.ini").settings
    assert settings == {
        "channels": 8, "mapping": "rorabgbachco", "queues": "per-bank", "command_queue": 8,
        "read_queue": 32, "write_buffer": 32, "unified_queue": False, "page": "open",
        "refresh": "staggered",
    }  # fmt: skip


def test_refresh_and_currents_come_from_the_file() -> None:
    device = import_dramsim3(DATA / "ddr4_2400_refon.ini").device
    assert device.refresh.kind == "all-bank"
    assert (device.refresh.interval_cycles, device.refresh.all_bank_cycles) == (9360, 420)
    assert device.power == Currents(
        vdd=1.2, idd0=48, idd2p=25, idd2n=34, idd3p=37, idd3n=43, idd4r=135, idd4w=123,
        idd5ab=250, idd5pb=5, dies=8,
    )  # fmt: skip


def test_an_interval_that_never_ends_turns_refresh_off(tmp_path: Path) -> None:
    text = (DATA / "ddr4_2400_refon.ini").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("tREFI ="))
    file = tmp_path / "refoff.ini"
    file.write_text(text.replace(line, "tREFI = 2000000000"))
    run = memory_stream(str(file), "strided", 2000, inject="qd1", check=True)
    assert run.acknowledged_cycles == 113_984  # DRAMsim3's own, of validation/dram/dramsim3.csv
    assert (run.commands["REFAB"], run.violations) == (0, 0)


def test_defaults_are_those_of_dramsim3(tmp_path: Path) -> None:
    one = imported(tmp_path, SMALL)
    t = one.device.timings
    assert (t["CL"], t["CWL"], t["tRTP"], t["tRTRS"], t["tFAW"]) == (12, 12, 5, 2, 50)
    assert t["tRC"] == 30 + 10
    assert one.settings["command_queue"] == 16
    assert one.settings["mapping"] == "chrobabgraco"


def test_as_many_ranks_as_the_channel_holds(tmp_path: Path) -> None:
    # 1024 rows x 2 KiB x 8 banks x 4 dies = 64 MiB a rank
    assert imported(tmp_path, SMALL).device.organization.ranks == 1
    two = imported(tmp_path, SMALL.replace("channel_size = 64", "channel_size = 191"))
    assert two.device.organization.ranks == 2
    table = two.device.constraint_table()
    assert table[Scope.OTHER_RANKS, Command.RD, Command.RD] == 4 + 2
    assert table[Scope.OTHER_RANKS, Command.RD, Command.WR] == 4 + 2  # CL = CWL here
    assert table[Scope.OTHER_RANKS, Command.WR, Command.WR] == 4
    less = imported(tmp_path, SMALL.replace("channel_size = 64", "channel_size = 1"))
    assert less.device.organization.ranks == 1


def test_bank_level_refresh_has_its_constraints(tmp_path: Path) -> None:
    text = SMALL + "refresh_policy = BANK_LEVEL_STAGGERED\n"
    one = imported(tmp_path, text.replace("tRAS = 30", "tRAS = 30\ntRFCb = 33\ntREFIb = 500"))
    assert one.device.refresh.kind == "per-bank"
    assert one.device.refresh.per_bank_interval_cycles == 500
    table = one.device.constraint_table()
    assert table[Scope.BANK, Command.REFPB, Command.ACT] == 33
    assert one.settings["refresh"] == "per-bank"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("= DDR4", "= DDR9", ":3: protocol: unknown protocol 'DDR9'; did you mean '"),
        ("= 1.0", "= fast", ":12: tCK: 'fast' is not a number; accepted: a number"),
        ("= 1.0", "= nan", ":12: tCK: 'nan' is not a number; accepted: a number"),
        ("= 1.0", "= inf", ":12: tCK: 'inf' is not a number; accepted: a number"),
        ("= 1.0", "= 0", ":12: tCK: must be positive, not 0; accepted: nanoseconds"),
        ("= 30", "= 30.5", ":13: tRAS: 30.5 is not whole; accepted: a whole number"),
        ("= 30", "= 0", ":13: tRAS must be at least 1 cycle, not 0; accepted: 1, 2, ..."),
        (
            "= 30", "= 30\ntRFC = 7800",
            ":14: tRFC = 7800 contradicts tREFI = 7800; accepted: tRFC of at most 7799 cycles",
        ),
        (
            "bankgroups = 2", "bankgroups = 0",
            ":4: bank_groups must be at least 1, not 0; accepted: 1, 2, 3, ...",
        ),
        (
            "columns = 1024", "columns = 1000",
            ":7: columns must be a power of two, not 125; accepted: 1, 2, 4, ...",
        ),
        ("BL = 8", "BL", ":9: 'BL' is not understood; accepted: [section], key = value, ; comment"),
        (
            "[system]", "[system]\nqueue_structure = PER_CHIP",
            ":15: queue_structure: unknown queue_structure 'PER_CHIP'; accepted: PER_BANK, "
            "PER_RANK",
        ),
        (
            "[system]", "[system]\nchannels = 0",
            ":15: channels: 0 is out of range; accepted: 1 to 1024",
        ),
        (
            "[system]", "[system]\naddress_mapping = rororabacoch",
            ":15: mapping 'rororabacoch' names ro (row) twice",
        ),
        (
            "[system]", "[system]\nunified_queue = maybe",
            ":15: unified_queue: 'maybe' is neither true nor false; accepted: true, false",
        ),
        (
            "[system]", "[system]\nbus_width = 8",
            ":15: bus_width: 8 is no multiple of device_width 16; accepted: 64",
        ),
        ("[dram_structure]", "[structure]", ": no section [dram_structure]; accepted:"),
    ],
)  # fmt: skip
def test_a_fault_is_one_line_at_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(AccelsimError) as fault:
        imported(tmp_path, SMALL.replace(old, new, 1))
    text = str(fault.value).removeprefix(str(tmp_path / "my.ini"))
    assert "\n" not in text
    assert text.startswith(message)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(AccelsimError, match=r"nowhere\.ini: .*; accepted: a DRAMsim3"):
        import_dramsim3(tmp_path / "nowhere.ini")
