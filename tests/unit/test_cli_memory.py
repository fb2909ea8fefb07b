"""``accelsim memory``: its summary, its files, and one clear line for every bad input."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import accelsim
from accelsim.cli.main import app
from accelsim.hw.dram import drive
from accelsim.hw.dram.catalog import device
from accelsim.hw.dram.checker import Verdict, Violation, check_log
from accelsim.hw.dram.log import read_log

SHIPPED = Path(drive.__file__).parent / "devices"
INI = Path(__file__).parent / "data/dramsim3/hbm2_1ch_refon.ini"


def call(*args, code=0):
    done = CliRunner().invoke(app, ["memory", *map(str, args)])
    assert done.exit_code == code, done.output
    return done


def error(*args):
    """The one line on stderr; nothing on stdout."""
    done = call(*args, code=2)
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def test_the_summary_says_what_the_result_says():
    said = call("hbm2", "--stream", "mix21_rand", "--requests", 3000, "--channels", 2, "--check")
    run = accelsim.memory_stream("hbm2", "mix21_rand", 3000, channels=2, check=True)
    shown = str(run).rpartition("\n\n")[0]  # what follows is the time it took
    assert said.stdout.startswith(shown)
    assert f"{run.cycles:,} clocks" in shown
    assert f"{sum(run.commands.values()):,} commands checked, 0 violations" in shown
    for part in ("Read latency", "Rows", "Commands", "Channels", "Energy", "pJ/bit"):
        assert part in shown
    assert repr(run) == f"<StreamRun of mix21_rand on hbm2: {run.cycles:,} cycles>"


def test_every_option_reaches_the_simulation():
    base = ("ddr4-2400", "--stream", "mix21_rand", "--requests", 2000, "--json", "-")
    plain = json.loads(call(*base).stdout)
    for option, at, value in (
        (("--inject", "qd1"), "inject", "qd1"),
        (("--seed", "7"), "seed", 7),
        (("--mapping", "RoBaRaCoCh"), "mapping", "RoBaRaCoCh"),
        (("--hashing",), "hashing", True),
        (("--channels", "3"), "channels", 3),
        (("--page", "closed"), "controller.page", "closed"),
        (("--window", "4"), "controller.window", 4),
        (("--hit-cap", "1"), "controller.hit_cap", 1),
        (("--refresh", "off"), "controller.refresh", False),
    ):
        told = json.loads(call(*base, *option).stdout)
        where = told
        for key in at.split("."):
            where = where[key]
        assert where == value
        if option[0] != "--hit-cap":  # random requests hardly hit
            assert told["cycles"] != plain["cycles"], option


def test_a_hit_cap_gives_turns_to_other_rows(tmp_path):
    """Bursts of two rows of a bank in turn: without a cap, one row is served and then the other."""
    trace = tmp_path / "turns.trc"
    trace.write_text("".join(f"R {256 * (i // 2) + (i % 2 << 17):#x}\n" for i in range(16)))
    free, capped = (
        json.loads(call("ddr4-2400", "--stream", trace, "--json", "-", *cap).stdout)
        for cap in ((), ("--hit-cap", 1))
    )
    assert (free["row_misses"], free["row_conflicts"]) == (1, 1)
    assert capped["row_conflicts"] == 15


def test_json_beside_the_summary(tmp_path):
    file = tmp_path / "run.json"
    said = call("ddr5-4800", "--requests", 500, "--json", file)
    told = json.loads(file.read_text())
    assert f"{told['cycles']:,} clocks" in said.stdout
    assert told["stream"] == "seq_read"


def test_a_log_can_be_read_and_checked(tmp_path):
    file = tmp_path / "commands.txt"
    call("gddr6", "--stream", "rand_read", "--requests", 2000, "--log", file)
    log = read_log(file)
    assert check_log(device("gddr6"), log).ok
    assert len(log) > 4000


def test_a_log_per_channel(tmp_path):
    call("hbm3", "--requests", 300, "--channels", 2, "--log", tmp_path / "all.log.gz")
    files = sorted(one.name for one in tmp_path.iterdir())
    assert files == ["all.ch0.log.gz", "all.ch1.log.gz"]
    both = [read_log(tmp_path / name) for name in files]
    assert sum((log.command == 2).sum() for log in both) == 300


def test_a_violation_is_shown_and_exits_1(monkeypatch):
    import accelsim.hw.dram.run as room

    found = [Violation("tRC", 0, 1, f"tRC broken {n}") for n in range(7)]
    monkeypatch.setattr(room, "check_log", lambda *_, **__: Verdict(found, 7, 20, ["tRC"]))
    said = call("ddr4-2400", "--requests", 10, "--check", code=1)
    assert "20 commands checked, 7 violations" in said.stdout
    assert "tRC broken 4" in said.stdout
    assert "and 2 more" in said.stdout


def test_a_trace_file(tmp_path):
    trace = tmp_path / "a.trc"
    trace.write_text("0x0 READ 0\n0x40 WRITE 10\n0x80 READ 20\n")
    told = json.loads(call("ddr4-2400", "--stream", trace, "--json", "-").stdout)
    assert (told["reads"], told["writes"], told["seed"]) == (2, 1, None)
    told = json.loads(call("ddr4-2400", "--stream", trace, "--requests", 1, "--json", "-").stdout)
    assert told["requests"] == 1


def test_a_dramsim3_file_brings_its_map():
    told = json.loads(call(INI, "--policy", "window", "--requests", 500, "--json", "-").stdout)
    assert told["device"] == INI.stem
    assert told["mapping"].lower() == "rorabgbachco"


def test_a_device_file(tmp_path):
    file = SHIPPED / "ddr4.yaml"
    told = json.loads(call(f"{file}:ddr4-3200", "--requests", 10, "--json", "-").stdout)
    assert told["device"] == "ddr4-3200"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("dddr4-2400",), "did you mean 'ddr4-2400'"),
        (("nowhere.ini",), "nowhere.ini"),
        (("nowhere.yaml:a",), "nowhere.yaml"),
        (("ddr4-2400", "--stream", "seq"), "unknown stream 'seq'"),
        (("ddr4-2400", "--stream", "nowhere.trc"), "or a trace file"),
        (("ddr4-2400", "--requests", "-1"), "requests = -1 is out of range"),
        (("ddr4-2400", "--requests", "0"), "requests = 0 is out of range"),
        (("ddr4-2400", "--requests", "many"), "'--requests'"),
        (("ddr4-2400", "--requests", str(1 << 40)), "accepted: 1 to 268,435,456"),
        (("ddr4-2400", "--requests", "20000000", "--check"), "too large to keep"),
        (("ddr4-2400", "--inject", "fast"), "accepted: qd1, saturating"),
        (("ddr4-2400", "--seed", "-1", "--stream", "rand_read"), "seed -1"),
        (("ddr4-2400", "--channels", "0"), "channels = 0"),
        (("ddr4-2400", "--channels", "-2"), "channels = -2"),
        (("ddr4-2400", "--mapping", "RoCo"), "missing"),
        (("ddr4-2400", "--mapping", "RoRaBaCoChXx"), "unknown field 'xx'"),
        (("ddr4-2400", "--mapping", "RoRoRaBaCoCh"), "twice"),
        (("ddr4-2400", "--mapping", ""), "missing"),
        (("ddr4-2400", "--policy", "fifo"), "unknown policy 'fifo'"),
        (("ddr4-2400", "--page", "ajar"), "accepted: closed, open"),
        (("ddr4-2400", "--window", "0"), "window = 0"),
        (("ddr4-2400", "--window", "1000000"), "window = 1000000"),
        (("ddr4-2400", "--hit-cap", "0"), "hit_cap = 0"),
        (("ddr4-2400", "--refresh", "maybe"), "accepted: on, off"),
        (("ddr4-2400", "--log", "-"), "only --json writes to stdout"),
        (("ddr4-2400", "--log", "/nowhere/a.log"), "cannot write /nowhere/a.log"),
        (("ddr4-2400", "--json", "/nowhere/a.json"), "cannot write /nowhere/a.json"),
        ((), "Missing argument 'DEVICE'"),
        (("ddr4-2400", "--requests", "nan"), "'--requests'"),
        (("ddr4-2400", "--window", "nan"), "'--window'"),
        (("ddr4-2400", "--channels", "99999999999"), "accepted: 1 to 1,024"),
        (("ddr4-2400", "--hit-cap", "99999999999999999999"), "accepted: 1 to 4096"),
        (("ddr4-2400", "--seed", str(1 << 64)), "out of range"),
        (("ddr4-2400", "--policy", "first-ready", "--page", "closed"), "accepted: open"),
        ((SHIPPED / "gddr6.yaml",), "holds more than one memory device; accepted: "),
    ],
)
def test_bad_input(args, said):
    assert said in error(*args)


def test_a_bad_trace_line_is_named(tmp_path):
    trace = tmp_path / "a.trc"
    trace.write_text("R 0x40\nX 0x80\n")
    assert f"{trace}:2: 'X 0x80' is no request" in error("ddr4-2400", "--stream", trace)
    trace.write_text(f"# far\nR {1 << 40}\n")
    assert f"{trace}:2: request 0 at 0x10000000000 is past the capacity" in error(
        "ddr4-2400", "--stream", trace
    )
    trace.write_text("R -5\n")
    assert f"{trace}:1: address -5 is out of range" in error("ddr4-2400", "--stream", trace)
    trace.write_text("0x0 READ 99999999999999\n")
    assert f"{trace}:1: clock 99999999999999 is too far" in error("ddr4-2400", "--stream", trace)
    trace.write_bytes(b"\xff\xfe\x00")
    assert "is not text" in error("ddr4-2400", "--stream", trace)
    trace.write_text("")
    assert "no request in it" in error("ddr4-2400", "--stream", trace)
    assert f"{tmp_path}: Is a directory" in error("ddr4-2400", "--stream", tmp_path)


def test_no_log_is_written_if_one_cannot_be(tmp_path):
    (tmp_path / "a.ch1.log").mkdir()
    said = error("ddr4-2400", "--requests", 9, "--channels", 2, "--log", tmp_path / "a.log")
    assert f"cannot write {tmp_path / 'a.ch1.log'}: Is a directory" in said
    assert [file.name for file in tmp_path.iterdir()] == ["a.ch1.log"]
