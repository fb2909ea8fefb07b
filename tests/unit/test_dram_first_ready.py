"""Policy first-ready: Ramulator 2.1's totals, its rules one by one, the checker, other devices."""

from dataclasses import replace

import numpy as np
import pytest
from accelsim.validation import dram

from accelsim.errors import AccelsimError
from accelsim.hw.dram.catalog import device, list_devices
from accelsim.hw.dram.commands import Command
from accelsim.hw.dram.controller import Controller
from accelsim.hw.dram.run import run_stream
from accelsim.hw.dram.streams import STREAMS, Requests
from accelsim.results.claims import truth

FIRST_READY = Controller.of_policy("first-ready")
QUIET = Controller.of_policy("first-ready", refresh=False)
ONE = device("ddr4-2400")
T = ONE.timings
ROW_BY_ROW = "RoRaBaBgChCo"
ROW, BANK = 2**17, 2**13  # bytes from row to row of a bank, from bank to bank

RUNS = [
    r for r in truth("accelsim.validation.dram", "ramulator.csv")
    if r["requests"] == "10000" and r["stream"] != "strided"
]  # fmt: skip


@pytest.mark.parametrize("r", RUNS, ids=lambda r: "-".join(r.values()))
def test_totals_are_those_of_ramulator(r):
    assert dram.simulated_first_ready(r).accepted_cycles == int(r["cycles"])


@pytest.mark.parametrize("name", list_devices())
@pytest.mark.parametrize("stream", STREAMS)
def test_the_checker_accepts_every_stream(name, stream):
    one = device(name)
    one = replace(one, refresh=replace(one.refresh, kind="all-bank"))
    run = run_stream(
        one, stream=stream, requests=3000, controller=FIRST_READY, channels=2, check=True
    )
    assert run.violations == 0
    assert run.commands["RD"] + run.commands["WR"] + run.merged == 3000
    assert run.row_hits + run.row_misses + run.row_conflicts + run.merged == 3000
    assert run.accepted_cycles <= run.acknowledged_cycles <= run.cycles


def commands(addresses, writes, controller=QUIET, one=ONE, clocks=None, mapping=ROW_BY_ROW):
    """(name, clock, bank number in its group) of all commands."""
    clock = None if clocks is None else np.array(clocks, np.int64)
    asked = Requests("mine", np.array(addresses, np.int64), np.array(writes, bool), clock)
    log = run_stream(one, stream=asked, controller=controller, mapping=mapping, log=True).logs[0]
    rows = zip(log.command, log.cycle, log.bank_group + 4 * log.bank, strict=True)
    return [(Command(command).name, int(cycle), int(bank)) for command, cycle, bank in rows]


def names(*args, **kwargs):
    return [name for name, _, _ in commands(*args, **kwargs)]


def test_a_read_by_hand():
    assert commands([0], [0]) == [("ACT", 1, 0), ("RD", 1 + T["tRCDRD"], 0)]


def test_an_older_request_closes_a_row_that_others_would_hit():
    """At tRAS, when PRE is ready: the hits until then are served, the one after waits."""
    other_row = commands([0, ROW, 64, 128], [0] * 4)
    assert [name for name, _, _ in other_row] == ["ACT", "RD", "RD", "RD", "PRE", "ACT", "RD"]
    late = commands([0, ROW, 64], [0] * 3, clocks=[0, 0, 1 + T["tRAS"]])
    assert [name for name, _, _ in late] == ["ACT", "RD", "PRE", "ACT", "RD", "PRE", "ACT", "RD"]
    assert late[2][1] == 1 + T["tRAS"]


def test_a_row_is_kept_for_who_opened_it():
    """Nobody may close it before, even an older request that comes from the other queue."""
    found = commands([0, 0 + ROW], [0, 1], clocks=[0, 2])
    assert [name for name, _, _ in found] == ["ACT", "RD", "PRE", "ACT", "WR"]


def test_who_opened_a_row_is_served_among_those_of_the_other_direction():
    """Eight writes are due while a read waits for its row: the read comes as soon as it is open."""
    eager = replace(QUIET, high_watermark=8, low_watermark=0, accepts_per_clock=0)
    writes = [BANK * k for k in range(1, 9)]
    found = commands([0, *writes], [0] + [1] * 8, eager, clocks=[0] + [3] * 8)
    reads = [cycle for name, cycle, _ in found if name == "RD"]
    assert reads == [1 + T["tRCDRD"]]
    opened = [cycle for name, cycle, bank in found if name == "ACT" and bank != 0]
    assert min(opened) < reads[0]  # writes had begun


def test_writes_go_on_to_the_low_watermark_once_no_read_waited():
    """A read that comes then waits until few enough are left; without it they all go."""
    lazy = replace(QUIET, low_watermark=2, accepts_per_clock=0)
    writes = [64 * k for k in range(8)]
    found = names([*writes, ROW // 2], [1] * 8 + [0], lazy, clocks=[0] * 8 + [2])
    assert found.index("RD") > found.index("WR")
    before = [name for name in found[: found.index("RD")] if name == "WR"]
    assert 8 - 2 <= len(before) <= 8
    assert found.count("WR") == 8


def test_all_ranks_are_refreshed_at_once():
    one = device("hbm2")
    run = run_stream(one, stream="rand_read", requests=8000, controller=FIRST_READY, log=True)
    log = run.logs[0]
    clocks = log.cycle[log.command == Command.REFAB]
    assert len(clocks) % 4 == 0
    by_turn = clocks.reshape(-1, 4)
    period = one.refresh.interval_cycles
    first = by_turn.min(axis=1)
    assert np.array_equal(first // period, np.arange(1, len(first) + 1))
    assert np.all(by_turn.max(axis=1) - first < 200)
    assert run.commands["PREAB"] > 0


def test_while_a_refresh_waits_only_open_rows_are_served():
    run = run_stream(ONE, stream="rand_read", requests=20_000, controller=FIRST_READY, log=True)
    log, period = run.logs[0], ONE.refresh.interval_cycles
    refreshes = log.cycle[log.command == Command.REFAB]
    assert len(refreshes) > 10
    for n, clock in enumerate(refreshes.tolist(), 1):
        between = (log.cycle >= n * period) & (log.cycle < clock)
        assert set(log.command[between]) <= {Command.RD, Command.PREAB}


def test_same_bursts_are_merged():
    """A second write and a read of a waiting write cost no command; a read comes before a write."""
    assert names([0, 0, 0, 64], [1, 1, 0, 0]).count("WR") == 1
    assert names([0, 0, 0, 64], [1, 1, 0, 0]).count("RD") == 1
    # Writes are due and the row is open: a write must not overtake the read of its burst.
    eager = replace(QUIET, high_watermark=1, low_watermark=0)
    assert names([64, 0, 0], [0, 0, 1], eager) == ["ACT", "RD", "RD", "WR"]


def test_a_refresh_waits_for_who_opened_a_row():
    """A write opened its row, then reads kept the bus from it until the refresh fell due."""
    due = ONE.refresh.interval_cycles
    reads = [64 * k for k in range(1, 30)]
    found = commands(
        [0, BANK, *reads], [0, 1, *(0 for _ in reads)],
        replace(QUIET, refresh=True, accepts_per_clock=0),
        clocks=[due - 200, due - 70, *(due - 68 + 4 * k for k in range(len(reads)))],
    )  # fmt: skip
    after = [(name, clock) for name, clock, _ in found if clock >= due]
    assert [name for name, _ in after[:3]] == ["WR", "PREAB", "REFAB"]
    last = max(clock for name, clock, _ in found if name == "RD" and clock < due)
    assert after[0][1] - last > T["tRTP"]  # banks might have been closed before


def test_one_by_one():
    run = run_stream(
        ONE, stream="seq_read", requests=100, inject="qd1", mapping=ROW_BY_ROW, controller=QUIET
    )
    assert run.read_latency.p50 == 1 + T["CL"] + T["burst_cycles"]


def test_a_full_queue_holds_up_the_next_channel():
    writes = Requests("mine", np.arange(80) * ROW * 2, np.ones(80, bool))
    run = run_stream(ONE, stream=writes, channels=2, mapping="RoRaBaBgCoCh", controller=QUIET)
    assert [one.requests for one in run.channel_loads] == [80, 0]
    assert run.accepted_cycles > 40 * T["tRC"]


def test_a_small_log_changes_nothing(monkeypatch):
    from accelsim.hw.dram import first_ready

    assert first_ready.KINDS[6] is Command.PREAB
    whole = run_stream("hbm2", stream="mix21_rand", requests=3000, controller=FIRST_READY, log=True)
    monkeypatch.setattr("accelsim.hw.dram.drive.LOG_ROWS", 50)
    piece = run_stream("hbm2", stream="mix21_rand", requests=3000, controller=FIRST_READY, log=True)
    assert list(whole.logs[0].rows()) == list(piece.logs[0].rows())


def test_bad_settings():
    with pytest.raises(AccelsimError, match="page closed needs policy window"):
        Controller(policy="first-ready", page="closed")
    part = replace(ONE, refresh=replace(ONE.refresh, kind="per-bank"))
    with pytest.raises(AccelsimError, match="policy first-ready refreshes whole ranks"):
        run_stream(part, requests=10, controller=FIRST_READY)
