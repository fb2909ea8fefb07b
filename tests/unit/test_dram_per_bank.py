"""Policy per-bank: DRAMsim3's command logs command by command, the checker, other devices."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from accelsim.errors import AccelsimError
from accelsim.hw.dram.catalog import device
from accelsim.hw.dram.commands import Command
from accelsim.hw.dram.controller import Controller
from accelsim.hw.dram.log import read_log
from accelsim.hw.dram.run import memory_device, run_stream
from accelsim.hw.dram.streams import STREAMS, Requests

DATA = Path(__file__).parent / "data/dramsim3"
PER_BANK = Controller(policy="per-bank", hit_cap=4)

# Cycles and mean read latency are DRAMsim3's own, of the same runs.
LOGS = [
    ("ddr4_2400_refon", "mix21_seq", 5692, 347.91),
    ("ddr4_3200_refon", "seq_read", 5971, 273.299),
    ("gddr6_x16_refon", "rand_read", 13762, 1559.68),
    ("hbm2_1ch_refon", "mix21_rand", 8426, 975.7706),
    ("hbm2_1ch_refon", "strided", 51605, 2033.674),
]


def said(row):
    """What both logs say of a command: DRAMsim3 gives a refresh no bank, a precharge any row."""
    clock, command, _, *where = row
    known = {Command.REFAB: 1, Command.PRE: 3}.get(command, 5)
    return clock, command, *where[:known]


@pytest.mark.parametrize(("config", "stream", "cycles", "latency"), LOGS)
def test_commands_are_those_of_dramsim3(config, stream, cycles, latency):
    run = run_stream(str(DATA / f"{config}.ini"), stream=stream, requests=1000, check=True)
    truth = [said(row) for row in read_log(DATA / f"{config}_{stream}_n1000.txt.gz").rows()]
    mine = [said(row) for row in run.logs[0].rows()]
    assert len(truth) > 1000
    assert mine[: len(truth)] == truth
    # What follows writes the buffer back, after DRAMsim3 has stopped with its last answer.
    assert all(row[0] >= cycles - 2 for row in mine[len(truth) :])
    assert run.acknowledged_cycles == cycles
    assert run.read_latency.mean == pytest.approx(latency, abs=1e-3)
    assert run.violations == 0
    assert run.row_hits + run.row_misses + run.row_conflicts + run.merged == 1000


@pytest.mark.parametrize("name", ["ddr4-3200", "hbm2", "gddr6"])
@pytest.mark.parametrize("stream", STREAMS)
def test_the_checker_accepts_every_stream(name, stream):
    run = run_stream(
        name, stream=stream, requests=3000, controller=PER_BANK, channels=2, check=True
    )
    assert run.violations == 0
    columns = run.commands["RD"] + run.commands["WR"]
    assert columns + run.merged == 3000
    assert min(one.requests for one in run.channel_loads) > 0 or stream == "strided"


def test_one_full_channel_holds_up_the_others():
    """Requests are accepted in order: nothing overtakes the first whose queue is full."""
    memory = memory_device(str(DATA / "hbm2_8ch_refon.ini"))
    run = run_stream(memory, stream="strided", requests=2000)
    alone = run_stream(replace(memory, channels=1), stream="strided", requests=2000)
    assert run.acknowledged_cycles == alone.acknowledged_cycles
    assert [one.requests for one in run.channel_loads] == [2000] + [0] * 7


def small(addresses, writes):
    return Requests("mine", np.array(addresses, np.int64), np.array(writes, bool))


def test_same_bursts_are_merged():
    """A second write, a read of a waiting write and a second read cost no command."""
    ini = str(DATA / "ddr4_2400_refon.ini")
    run = run_stream(ini, stream=small([0, 0, 0, 64, 64], [1, 1, 0, 0, 0]))
    assert (run.commands["RD"], run.commands["WR"], run.merged) == (1, 1, 3)


def test_a_write_waits_for_the_read_of_its_burst():
    ini = str(DATA / "ddr4_2400_refon.ini")
    run = run_stream(ini, stream=small([0, 0], [0, 1]), check=True)
    order = [Command(one) for one in run.logs[0].command]
    assert order == [Command.ACT, Command.RD, Command.WR]


def test_a_trace_is_offered_at_its_clocks():
    requests = replace(small([0, 64], [0, 0]), clock=np.array([100, 5000]))
    run = run_stream(str(DATA / "ddr4_2400_refon.ini"), stream=requests, log=True)
    # Into the bank's queue in clock t, commanded in t + 1; the second finds its row open.
    assert run.logs[0].cycle.tolist() == [101, 101 + 17, 5001]


def test_a_deeper_queue_sees_more_row_hits():
    memory = memory_device(str(DATA / "ddr4_2400_refon.ini"))
    rows = np.arange(400) % 2 * 2**17  # two rows of one bank in turn
    stream = small(rows + np.arange(400) // 2 * 64, np.zeros(400))
    hits = [
        run_stream(
            memory, stream=stream, controller=replace(memory.controller, command_queue=depth)
        ).row_hits
        for depth in (1, 8)
    ]
    assert hits[0] == 0
    assert hits[1] > 200


def drained(addresses, writes, clocks=None, **settings):
    """(name, clock) of the commands on DDR4-2400 without refresh, rows ROW apart in bank 0."""
    memory = memory_device(str(DATA / "ddr4_2400_refon.ini"))
    asked = small(addresses, writes)
    if clocks is not None:
        asked = replace(asked, clock=np.array(clocks))
    controller = replace(memory.controller, refresh=False, **settings)
    log = run_stream(memory, stream=asked, controller=controller, log=True).logs[0]
    return [(Command(a).name, int(b)) for a, b in zip(log.command, log.cycle, strict=True)]


ROW, BANK = 2**17, 2**13


@pytest.mark.parametrize(("cap", "third"), [(1, "PRE"), (2, "PRE"), (3, "RD")])
def test_a_row_is_closed_once_it_had_its_share(cap, third):
    """Two columns served; when PRE is ready, a third hit has just come behind another row."""
    found = drained([0, ROW, 64, 128], [0] * 4, [100, 102, 130, 139], hit_cap=cap)
    assert found[:3] == [("ACT", 101), ("RD", 118), ("RD", 131)]
    assert found[3] == (third, 140)


@pytest.mark.parametrize(("writes", "at_once"), [(8, False), (9, True)])
def test_more_than_eight_writes_go_when_nothing_else_is_to_do(writes, at_once):
    found = drained(
        [*(BANK * k for k in range(writes)), ROW], [1] * writes + [0], [0] * writes + [5000]
    )
    first = next(clock for name, clock in found if name == "WR")
    assert (first < 100) == at_once
    assert at_once or first > 5000


def test_a_drain_stops_at_a_write_whose_burst_is_to_be_read():
    """No write behind it begins before: their banks are opened after the read."""
    buffer = {"write_buffer": 2, "high_watermark": 2}
    found = drained([0, 0, BANK], [0, 1, 1], **buffer)
    assert [name for name, _ in found[:2]] == ["ACT", "RD"]
    assert [name for name, _ in found].count("WR") == 2
    other = drained([0, 64, BANK], [0, 1, 1], **buffer)
    assert [name for name, _ in other[:2]] == ["ACT", "ACT"]


def test_after_a_drain_has_stopped_reads_come_first():
    """The buffer is full of three writes; the second waits for the read of its burst."""
    buffer = {"write_buffer": 3, "high_watermark": 3}
    found = drained([0, BANK, 0, 2 * BANK], [0, 1, 1, 1], **buffer)
    assert [name for name, _ in found] == ["ACT", "ACT", "WR", "RD", "WR", "ACT", "WR"]


def test_a_full_buffer_does_not_wait_for_a_read_that_waits_for_it():
    """The bank's queue is full of older reads, the buffer of writes, the first to that burst."""
    reads = [*(ROW * k for k in range(1, 12)), 0]
    writes = [0, *(ROW * k for k in range(20, 51))]
    found = drained(reads + writes, [0] * len(reads) + [1] * len(writes))
    assert [name for name, _ in found].count("WR") == len(writes)
    assert [name for name, _ in found].count("RD") == len(reads)


def test_bad_settings():
    with pytest.raises(AccelsimError, match="command_queue = 0 is out of range; accepted: 1 to"):
        Controller(policy="per-bank", command_queue=0)
    with pytest.raises(AccelsimError, match="page closed needs policy window"):
        Controller(policy="per-bank", page="closed")
    part = device("ddr4-3200")
    part = replace(part, refresh=replace(part.refresh, kind="per-bank"))
    with pytest.raises(AccelsimError, match="wants per-bank refreshes; accepted: policy window"):
        run_stream(part, requests=10, controller=PER_BANK)
    run = run_stream(part, requests=10, controller=replace(PER_BANK, refresh=False))
    assert run.commands["REFAB"] == 0
