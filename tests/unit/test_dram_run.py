"""Request streams on every shipped device: closed forms by the clock, the checker, properties.

The clocks of this controller: a request accepted in clock t is first commanded in clock t + 1, and
a read commanded in clock t is complete at t + CL + burst, the clock after its last beat.
"""

import json
from itertools import pairwise

import numpy as np
import pytest

from accelsim import AccelsimError, memory_stream
from accelsim.hw.dram.catalog import device, list_devices
from accelsim.hw.dram.commands import Command, Scope
from accelsim.hw.dram.run import MAPPING, MOST_LOGGED, memory_device
from accelsim.hw.dram.streams import STREAMS, Requests

DEVICES = list_devices()
ROW_BY_ROW = "RoRaBaBgChCo"
BANK_BY_BANK = "RoRaCoChBaBg"


class Times:
    """What the closed forms are made of, out of a device's timings and constraints."""

    def __init__(self, name):
        self.device = device(name)
        self.parts = self.device.organization
        self.table = self.device.constraint_table()
        t = self.device.timings
        self.access = t["CL"] + t["burst_cycles"]
        self.column = max(t["burst_cycles"], t["tCCD_S"])
        self.rcd, self.ras, self.rp, self.rc = t["tRCDRD"], t["tRAS"], t["tRP"], t["tRC"]
        self.read_to_pre = self.table[Scope.BANK, Command.RD, Command.PRE]
        self.activate = max(
            t["tRRD_S"], *(cycles / window for cycles, window in self.device.windows())
        )

    def slots(self, command, followers):
        """Clocks of the command bus that a command takes at least."""
        return max(1, min(self.table[Scope.CHANNEL, command, one] for one in followers))


@pytest.fixture(params=DEVICES)
def times(request):
    return Times(request.param)


def run(times, stream, requests, **settings):
    return memory_stream(times.device, stream, requests, refresh=False, **settings)


# --- closed forms


def test_saturating_strided_reads_wait_for_tRC(times):  # noqa: N802
    period = max(times.rc, times.rcd + times.read_to_pre + times.rp)
    found = run(times, "strided", 300)
    assert found.cycles == 1 + times.rcd + times.access + 299 * period
    assert (found.row_misses, found.row_conflicts) == (1, 299)


def test_one_by_one_strided_reads(times):
    """The next PRE comes in the clock after the read before is complete, if the row may close."""
    open_for = max(times.ras, times.rcd + max(times.read_to_pre, times.access + 1))
    period = max(times.rc, open_for + times.rp)
    found = run(times, "strided", 300, inject="qd1")
    assert found.cycles == 1 + times.rcd + times.access + 299 * period
    assert found.read_latency.max == period if period > times.rc else True


def test_one_by_one_row_hits(times):
    n = times.parts.columns
    found = run(times, "seq_read", n, inject="qd1", mapping=ROW_BY_ROW)
    hit = 1 + times.access
    assert (found.read_latency.min, found.read_latency.p50) == (hit, hit)
    assert found.cycles == times.rcd + n * hit
    assert (found.row_hits, found.row_misses) == (n - 1, 1)


def test_one_by_one_closed_banks(times):
    n = times.parts.banks_per_rank
    found = run(times, "seq_read", n, inject="qd1", mapping=BANK_BY_BANK)
    closed = 1 + times.rcd + times.access
    assert (found.read_latency.min, found.read_latency.max) == (closed, closed)
    assert found.cycles == n * closed
    assert found.row_misses == n


def test_interleaved_sequential_reads_fill_the_data_bus(times):
    n, buses = 20_000, times.parts.pseudo_channels
    found = run(times, "seq_read", n)
    bound = n / buses * times.column
    assert bound <= found.cycles <= 1.02 * bound + times.rcd + times.access or (
        times.device.name == "hbm3e" and found.cycles <= 1.08 * bound
    )


def test_random_reads_approach_the_bound_of_activations(times):
    """tFAW / 4 or tRRD per rank, the clocks of the command bus, or those of the data bus."""
    n, parts = 20_000, times.parts
    act = times.slots(Command.ACT, (Command.ACT, Command.PRE, Command.RD))
    pre = times.slots(Command.PRE, (Command.ACT, Command.PRE, Command.RD))
    read = times.slots(Command.RD, (Command.ACT, Command.PRE, Command.RD))
    if times.device.dual_command:
        act = times.slots(Command.ACT, (Command.ACT, Command.PRE))
        read = 0
    bound = max(
        times.activate / (parts.pseudo_channels * parts.ranks),
        act + pre + read,
        times.column / parts.pseudo_channels,
    )
    found = run(times, "rand_read", n, window=128)
    # The first bursts need no PRE, and what is open in the end none after.
    assert 0.99 * bound <= found.cycles / n <= 1.09 * bound


def test_no_stream_is_faster_than_its_bursts(times):
    for stream in STREAMS:
        for page in ("open", "closed"):
            found = run(times, stream, 3000, page=page)
            moved = found.requests - found.merged
            assert found.cycles >= moved / times.parts.pseudo_channels * times.column
            assert found.acknowledged_cycles <= found.cycles


@pytest.mark.parametrize("hashing", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", ["hbm2", "hbm3e", "ddr4-2400"])  # hbm3e: 24,576 rows
@pytest.mark.parametrize("mapping", [MAPPING, ROW_BY_ROW, "RoBaRaPcCoBgCh"])
def test_places_are_those_of_the_address_map(name, channels, mapping, hashing):
    from accelsim.hw.dram import run_kernels as kernels
    from accelsim.hw.dram.mapping import AddressMap

    parts = device(name).organization
    where = AddressMap.of(mapping, parts, channels, hashing)
    random = np.random.default_rng(1).integers(where.capacity_bytes, size=200)
    address = np.concatenate([random, random[:9, None].repeat(300, 1).ravel()])
    address[200:] += np.tile(np.arange(300) * parts.column_bytes, 9)
    address %= where.capacity_bytes
    places = kernels.Places(
        *np.zeros((4, len(address)), np.int32),
        write=np.zeros(0, np.bool_),
        clock=np.zeros(0, np.int64),
    )
    banks, queues = parts.ranks * parts.banks_per_rank, parts.pseudo_channels
    kernels.place(where.compiled, address, banks, queues, places)
    at = where.locate(address)
    bank = (at.pseudo_channel * parts.ranks + at.rank) * parts.bank_groups + at.bank_group
    assert np.array_equal(places.queue, at.channel * queues + at.pseudo_channel)
    assert np.array_equal(places.bank, bank * parts.banks + at.bank)
    assert np.array_equal(places.row, at.row)
    assert np.array_equal(places.column, at.column)


# --- the independent checker


@pytest.mark.parametrize("name", DEVICES)
def test_the_checker_finds_nothing_in_random_commands(name):
    commands = 0
    for settings in (
        {"stream": "mix21_rand", "requests": 14_000, "seed": 1},
        {"stream": "rand_read", "requests": 6_000, "seed": 2, "page": "closed", "hashing": True},
        {"stream": "mix21_seq", "requests": 8_000, "channels": 2, "mapping": "RoBaRaBgCoCh"},
        {"stream": "mix21_rand", "requests": 2_000, "seed": 3, "inject": "qd1"},
        {"stream": "rand_read", "requests": 4_000, "refresh": False, "accepts_per_clock": 1},
    ):
        found = memory_stream(name, check=True, **settings)
        assert found.violations == 0, found.verdicts[0].violations[:3]
        commands += sum(found.commands.values())
        assert sum(verdict.commands for verdict in found.verdicts) == sum(found.commands.values())
    assert commands > 75_000  # a million over all devices


def test_the_checker_sees_what_the_log_holds():
    """Another device's log is full of violations: the check reads it."""
    slow, fast = device("ddr4-3200"), device("ddr4-2400")
    from accelsim.hw.dram.checker import check_log

    log = memory_stream(fast, "rand_read", 1000, log=True).logs[0]
    assert check_log(fast, log).ok
    assert check_log(slow, log).total > 100


# --- refresh, traces, results


@pytest.mark.parametrize("name", DEVICES)
def test_refreshes_come_and_cost_time(name):
    with_, without = (memory_stream(name, "strided", 3000, refresh=on) for on in (True, False))
    parts, refresh = device(name).organization, device(name).refresh
    ranks = parts.pseudo_channels * parts.ranks
    wanted = with_.cycles / refresh.interval_cycles * ranks
    assert wanted - 2 * ranks <= with_.commands["REFAB"] <= wanted + 1
    share = refresh.all_bank_cycles / refresh.interval_cycles
    assert 1 < with_.cycles / without.cycles < 1 + 2.5 * share
    assert without.commands["REFAB"] == 0


def test_a_refreshed_idle_memory():
    """Nothing is asked for a long time: refreshes go on."""
    far = 1_000_000
    stream = Requests("far", np.array([0, 64]), np.zeros(2, np.bool_), np.array([0, far]))
    found = memory_stream("ddr4-2400", stream, check=True)
    assert found.violations == 0
    assert far < found.cycles < far + 600
    assert found.commands["REFAB"] == found.cycles // device("ddr4-2400").refresh.interval_cycles


def test_requests_wait_for_their_clocks(times):
    """A hit every 100 clocks takes what a hit alone takes."""
    n = 20
    address = np.arange(n) * times.parts.column_bytes
    stream = Requests("paced", address, np.zeros(n, np.bool_), np.arange(n) * 200)
    for inject in ("saturating", "qd1"):
        found = memory_stream(
            times.device, stream, inject=inject, refresh=False, mapping=ROW_BY_ROW
        )
        assert found.cycles == (n - 1) * 200 + 1 + times.access


def test_queues_do_not_wait_for_one_another():
    """Each channel by itself takes as long as together with another that gets other requests."""
    address = np.arange(4000) * 64
    write = np.zeros(4000, np.bool_)
    both = memory_stream("ddr4-2400", Requests("both", address, write), channels=2)
    first = memory_stream("ddr4-2400", Requests("first", address[::2], write[::2]), channels=2)
    assert both.cycles == first.cycles
    assert first.channel_loads[1].requests == 0


def all_at_once(name, stream, requests, mapping):
    """Commands and completion clocks when everything is pushed before anything is decided."""
    from accelsim.hw.dram import state
    from accelsim.hw.dram.controller import Controller
    from accelsim.hw.dram.fifo_kernels import push
    from accelsim.hw.dram.mapping import AddressMap
    from accelsim.hw.dram.streams import Extent, make_stream
    from accelsim.hw.dram.window_kernels import advance

    one = device(name)
    parts = one.organization
    where = AddressMap.of(mapping, parts, 1)
    extent = Extent(parts.column_bytes, where.capacity_bytes // parts.rows, where.capacity_bytes)
    asked = make_stream(stream, requests, extent) if isinstance(stream, str) else stream
    at = where.locate(asked.address)
    bank = (at.pseudo_channel * parts.ranks + at.rank) * parts.bank_groups + at.bank_group
    bank = bank * parts.banks + at.bank
    settings = Controller(refresh=False)
    m = state.memory(one, settings, 1, nodes=requests, requests=requests, log=5 * requests)
    for b, row, column, write in zip(bank, at.row, at.column, asked.write, strict=True):
        assert push(m, 0, -1, int(b), int(row), int(column), 1, 1, int(write), 0)
    assert advance(m, 0, state.NEVER, False) == state.NEVER
    log = m.log[: m.book[state.LOGGED]]
    return log[:, [0, 1, 4, 5]].tolist(), int(m.finished.max())


def phases(requests):
    """Random addresses, mostly writes and mostly reads in turn: write buffers fill and drain."""
    random = np.random.default_rng(5)
    write = random.random(requests) < np.where(np.arange(requests) // 300 % 2, 0.1, 0.95)
    return Requests("phases", random.integers(1 << 18, size=requests) * 64, write)


@pytest.mark.parametrize("name", ["ddr4-2400", "hbm2"])
@pytest.mark.parametrize("stream", [*STREAMS, phases(9000)], ids=[*STREAMS, "phases"])
@pytest.mark.parametrize("mapping", [MAPPING, ROW_BY_ROW])
def test_piecewise_driving_changes_nothing(name, stream, mapping):
    requests = 3000 if isinstance(stream, str) else len(stream)
    commands, last = all_at_once(name, stream, requests, mapping)
    found = memory_stream(name, stream, requests, refresh=False, log=True, mapping=mapping)
    log = found.logs[0]
    driven = zip(log.cycle, log.command, log.row, log.column, strict=True)
    assert [list(map(int, one)) for one in driven] == commands
    assert found.acknowledged_cycles == last


def test_a_small_log_changes_nothing(monkeypatch):
    from accelsim.hw.dram import drive

    def commands(inject):
        found = memory_stream("hbm2", "mix21_rand", 3000, log=True, channels=2, inject=inject)
        return [list(log.rows()) for log in found.logs]

    for inject in drive.INJECTS:
        whole = commands(inject)
        with monkeypatch.context() as patch:
            patch.setattr(drive, "LOG_ROWS", 50)
            assert commands(inject) == whole


def test_writes_are_merged_and_reads_forwarded():
    address = np.array([0, 0, 0, 64])
    write = np.array([True, False, True, False])
    found = memory_stream("ddr4-2400", Requests("mine", address, write), refresh=False)
    assert found.merged == 2
    assert (found.commands["WR"], found.commands["RD"]) == (1, 1)


def test_reads_and_writes_of_one_row_stay_apart():
    write = np.arange(64) // 4 % 2 == 1
    mine = Requests("mine", np.arange(64) * 64, write)
    found = memory_stream("ddr4-2400", mine, mapping=ROW_BY_ROW)
    assert (found.commands["RD"], found.commands["WR"]) == (32, 32)


def test_posted_writes_are_written_in_the_end():
    one = Requests("one", np.array([0]), np.array([True]))
    t = device("ddr4-2400").timings
    for inject in ("saturating", "qd1"):
        found = memory_stream("ddr4-2400", one, inject=inject)
        assert found.commands["WR"] == 1
        assert found.acknowledged_cycles == 1
        assert found.cycles == 1 + t["tRCDWR"] + t["CWL"] + t["burst_cycles"]


def test_channels_without_requests_are_refreshed():
    found = memory_stream("ddr4-2400", "strided", 3000, channels=2)
    assert [one.requests for one in found.channel_loads] == [3000, 0]
    refreshes = found.cycles // device("ddr4-2400").refresh.interval_cycles
    assert found.commands["REFAB"] == pytest.approx(2 * refreshes, abs=1)


def test_counts_add_up(times):
    found = memory_stream(times.device, "mix21_rand", 6000, channels=3, check=True)
    assert found.reads == 4000
    assert found.writes == 2000
    moved = found.row_hits + found.row_misses + found.row_conflicts
    assert moved == sum(found.commands[name] for name in ("RD", "WR", "RDA", "WRA"))
    assert sum(one.requests for one in found.channel_loads) == 6000
    bus = sum(one.bus_share for one in found.channel_loads)
    cycles = moved * times.device.timings["burst_cycles"] / times.parts.pseudo_channels
    assert bus == pytest.approx(cycles / found.cycles)
    assert found.bytes_per_second == pytest.approx(
        6000 * times.parts.column_bytes * times.device.clock_hz / found.cycles
    )
    assert found.peak_bytes_per_second == 3 * times.device.channel_bytes_per_second


def test_energy_of_a_known_run():
    """One row, one read: activation, read and stand-by by hand."""
    from accelsim.hw.dram.energy import command_energy_pj, standby_power_mw

    one = device("ddr4-2400")
    found = memory_stream(one, "seq_read", 1, refresh=False)
    energy = command_energy_pj(one)
    active, idle = standby_power_mw(one)
    t = one.timings
    cycles = 1 + t["tRCDRD"] + t["CL"] + t["burst_cycles"]
    assert found.cycles == cycles
    assert found.energy_pj["activate"] == pytest.approx(energy[Command.ACT])
    assert found.energy_pj["read"] == pytest.approx(energy[Command.RD])
    standby = (active * (cycles - 1) + idle) * one.tck_ns
    assert found.energy_pj["standby"] == pytest.approx(standby)


def test_percentiles_are_nearest_ranks():
    from accelsim.hw.dram.run import _latency

    clocks = np.random.default_rng(3).permutation(np.arange(1, 201)) * 10
    reads = np.zeros(200, np.bool_)
    found = _latency(np.full(200, 7), clocks + 7, reads, 0)
    assert (found.min, found.p50, found.p90, found.p99) == (10, 1000, 1800, 1980)
    assert (found.max, found.mean) == (2000, 1005)
    slow = clocks > 1000
    assert _latency(np.zeros(200, np.int64), clocks, slow, 100).p99 == 990
    assert _latency(np.zeros(200, np.int64), clocks, ~reads, 200) is None


def test_latencies_of_reads_one_by_one():
    found = memory_stream("ddr4-2400", "rand_read", 999, inject="qd1", refresh=False)
    one = found.read_latency
    assert one.min <= one.p50 <= one.p90 <= one.p99 <= one.max
    assert found.cycles == pytest.approx(999 * one.mean)
    t = Times("ddr4-2400")
    assert one.p50 == 1 + t.rp + t.rcd + t.access  # most requests find another row open


# --- properties


@pytest.mark.parametrize("name", DEVICES)
def test_more_channels_and_larger_windows_are_not_slower(name):
    """On random reads; FR-FCFS is greedy, so 3 % either way count as a tie."""

    def cycles(**settings):
        return memory_stream(name, "rand_read", 6000, **settings).cycles

    channels = [cycles(channels=count) for count in (1, 2, 3, 4)]
    windows = [cycles(window=size) for size in (1, 4, 16, 64)]
    for line in (channels, windows):
        assert all(after <= 1.03 * before for before, after in pairwise(line))
    assert channels[3] < 0.5 * channels[0]
    assert windows[3] < 0.5 * windows[0]


def test_a_result_in_json():
    found = memory_stream("hbm2", "mix21_rand", 1000, check=True, hashing=True)
    told = json.loads(json.dumps(found.to_dict()))
    assert told["schema"] == 1
    assert told["device"] == "hbm2"
    assert told["mapping"] == MAPPING
    assert told["controller"]["window"] == 32
    assert told["checked"] == {"commands": sum(told["commands"].values()), "violations": 0}
    assert told["read_latency_cycles"]["mean"] == found.read_latency.mean
    assert told["requests"] == told["reads"] + told["writes"] == 1000
    assert told["energy_pj"]["total"] > 0


def test_digests_tell_devices_and_streams_apart():
    def digests(name="ddr4-2400", stream="rand_read", seed=1):
        return memory_stream(name, stream, 100, seed=seed).digests

    same = digests()
    assert digests() == same
    assert digests(name="ddr4-3200")["device"] != same["device"]
    assert digests(seed=2)["stream"] != same["stream"]
    assert digests(stream="seq_read")["stream"] != same["stream"]
    address, write = np.arange(100) * 64, np.zeros(100, np.bool_)
    mine = digests(stream=Requests("mine", address, write))["stream"]
    assert digests(stream=Requests("mine", address, ~write))["stream"] != mine


def test_a_run_without_reads_has_no_read_latency():
    found = memory_stream("ddr4-2400", "seq_write", 100)
    assert found.read_latency is None
    assert "Read latency" not in str(found)
    assert found.acknowledged_cycles < found.cycles


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"device": "ddr4-2401"}, "did you mean 'ddr4-2400'"),
        ({"stream": "random"}, "unknown stream 'random'"),
        ({"requests": -5}, "requests = -5 is out of range"),
        ({"channels": 0}, "channels = 0 is out of range; accepted: 1 to 1,024"),
        ({"inject": "fast"}, "unknown injection 'fast'"),
        ({"policy": "fcfs"}, "unknown policy 'fcfs'"),
        ({"page": "half"}, "unknown page 'half'"),
        ({"window": 0}, "window = 0 is out of range"),
        ({"hit_capp": 4}, "did you mean 'hit_cap'"),
        ({"mapping": "RoRaBaCo"}, "ch (channel) missing"),
        ({"requests": MOST_LOGGED + 1, "check": True}, "too large to keep"),
    ],
)
def test_bad_settings(settings, said):
    with pytest.raises(AccelsimError) as caught:
        memory_stream(**{"device": "ddr4-2400", **settings})
    assert said in str(caught.value)


def test_an_address_past_the_capacity():
    capacity = device("ddr4-2400").organization.capacity_bytes
    stream = Requests("mine", np.array([capacity]), np.zeros(1, np.bool_))
    with pytest.raises(AccelsimError, match="past the capacity"):
        memory_stream("ddr4-2400", stream)
    assert memory_stream("ddr4-2400", stream, channels=2).requests == 1


def test_an_empty_stream():
    with pytest.raises(AccelsimError, match="is empty"):
        memory_stream("ddr4-2400", Requests("none", np.zeros(0, np.int64), np.zeros(0, np.bool_)))


def test_a_shipped_device_has_one_channel_and_defaults():
    found = memory_device("hbm2")
    assert (found.mapping, found.channels) == (MAPPING, 1)
