"""Channels that follow a leader are what they would be alone: times, commands, rows and energy.

Programs send most of their windows to all channels alike, and now and then something to one of
them, before, amid and after pauses, so that channels part and join all the time.
"""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from dram_streams import controllers, devices
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_engine_memory_reference import architecture, by_hand, with_device
from test_engine_reference import outcome, random_program

from accelsim import engine
from accelsim.engine import reference
from accelsim.engine.traffic import Traffic
from accelsim.hw.dram.block import Dram
from accelsim.hw.dram.catalog import device
from accelsim.hw.dram.commands import COLUMN_COMMANDS, Command
from accelsim.hw.dram.energy import energy_pj

MANY = settings(  # the first example compiles
    deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=150
)
CLOSES = (Command.PRE, Command.RDA, Command.WRA)


@st.composite
def drams(draw):
    """Channels between which neighbouring addresses take turns."""
    chosen = draw(controllers())
    names = [
        "page",
        "window",
        "write_buffer",
        "high_watermark",
        "low_watermark",
        "hit_cap",
        "refresh",
    ]
    memory = Dram(
        device="hbm2",
        channels=draw(st.integers(2, 5)),
        capacity=1 << 24,
        mapping=draw(st.sampled_from(["RoRaBaChCoBg", "RoRaBaCoPcChCo2Bg", "RoRaBaCoCh"])),
        hashing=draw(st.booleans()),
        **{name: getattr(chosen, name) for name in names},
    )
    one, clock = draw(devices()), draw(st.sampled_from([500, 1000])) * 10**6
    short_rows, stretch = replace(one.organization, columns=4), draw(st.sampled_from([1, 1, 8]))
    constraints = tuple(  # a window that outlasts a row's cycle is seen when all else is ready
        replace(of, cycles=of.cycles * stretch) if of.window > 1 else of for of in one.constraints
    )
    return memory, replace(one, organization=short_rows, clock_hz=clock, constraints=constraints)


@st.composite
def programs(draw, memory):
    """Transfers of whole sweeps in few rows, some with single bursts beside them, and pauses."""
    arch, found = architecture(memory), memory.address_map.compiled
    sweep, rows = found.sweep * found.column_bytes, memory.part.organization.rows
    row = memory.address_map.capacity_bytes // rows
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, odd = draw(st.integers(2, 16)), draw(st.sampled_from([0.0, 0.1, 0.4]))
    longest = draw(st.sampled_from([3, 40, 1000]))
    timed = random_program(
        int(rng.integers(2**31)), n, 3, 2, longest=longest, dep_density=draw(st.floats(0, 0.3))
    )
    count = rng.integers(0, 3, n)
    first = np.concatenate([[0], np.cumsum(count)])
    windows = []
    for i in range(first[-1]):
        base = row * rng.integers(0, 3) + sweep * rng.integers(0, 3)
        nbytes = sweep * rng.integers(1, 3)
        if rng.random() < odd:
            base += int(rng.integers(0, found.sweep)) * found.column_bytes
            nbytes = int(rng.integers(1, 4 * found.column_bytes))
        windows.append((base, 1, nbytes, nbytes, rng.random() < 0.3, 0, i))
    window = np.array(windows, np.int64).reshape(-1, 7)
    traffic = Traffic(first, window, arch, "hbm", -1, max(1, len(windows)))
    port = np.where(timed.port == 0, -1, timed.port).astype(np.int16)
    return replace(timed, port=port, traffic=traffic)


def partings(memory, seed):
    """Rounds of a burst or two for every channel, which for one of them is another one or comes
    later; a pause; and sweeps that all channels get, which meets them idle or nearly so."""
    rng, found = np.random.default_rng(seed), memory.address_map.compiled
    burst, sweep = found.column_bytes, found.sweep * found.column_bytes
    row = memory.address_map.capacity_bytes // memory.part.organization.rows
    windows, pauses = [], []

    def send(pause, *of):
        windows.append(of)
        pauses.append(pause)

    for _ in range(rng.integers(1, 4)):
        for _ in range(rng.integers(0, 3)):
            at, write = (
                row * rng.integers(0, 2) + burst * np.arange(found.sweep),
                rng.random() < 0.5,
            )
            channel, odd = memory.address_map.locate(at).channel, rng.integers(0, memory.channels)
            what = rng.choice(["nothing", "row", "row", "place", "kind", "late", "twice"])
            for c in range(memory.channels):
                base, kind = int(at[channel == c][0]), write
                if c == odd:
                    base = int(at[channel == c][-1]) if what == "place" else base
                    base = (base + row) % (2 * row) if what == "row" else base
                    kind = write ^ (what == "kind")
                    send(rng.integers(1, 30) if what == "late" else 0)
                    if what == "twice":
                        send(0, (base, 1, burst, burst, kind))
                send(0, (base, 1, burst, burst, kind))
        send(rng.integers(0, rng.choice([20, 60, 400])))
        some = zip(rng.integers(0, 3, 3), rng.random(3) < 0.4, strict=True)
        sweeps = [(row * number, 1, sweep, sweep, write) for number, write in some]
        send(rng.integers(0, 60), *sweeps[: rng.integers(1, 4)])
    return by_hand(windows, memory, occupancy=pauses)


def accounts(log, device):
    """What a log says: its commands, columns that hit, when data last moved, and clocks in which
    ranks were open until then."""
    t, parts = device.timings, device.organization
    commands = Counter(entry.command for entry in log)
    fresh, hits, last = set(), 0, 0
    for entry in log:
        if entry.command is Command.ACT:
            fresh.add(entry.bank)
        elif entry.command in COLUMN_COMMANDS:
            hits += entry.bank not in fresh
            fresh.discard(entry.bank)
            reads = entry.command in (Command.RD, Command.RDA)
            last = max(last, entry.clock + t["CL" if reads else "CWL"] + t["burst_cycles"])
    opened, since, clocks = {}, {}, 0
    for entry in log:
        rank = entry.bank // parts.banks_per_rank
        banks = opened.setdefault(rank, set())
        if entry.command is Command.ACT:
            if not banks:
                since[rank] = entry.clock
            banks.add(entry.bank)
        elif entry.command in CLOSES:
            banks.discard(entry.bank)
            if not banks:
                clocks += entry.clock - since[rank]
    clocks += sum(max(0, last - since[rank]) for rank, banks in opened.items() if banks)
    return commands, hits, last, clocks


def assert_accounts_agree(timed, activity):
    """What the compiled channels have counted is in the logs of the specification."""
    dram, machine = timed.traffic.dram, reference.simulate(timed)
    told = [accounts(one.channel.log, dram.part) for one in machine.channels.channels]
    counts = activity.channels.counts
    for command in Command:
        if command.name in counts:
            assert counts[command.name].tolist() == [one[0][command] for one in told]
    assert counts["hits"].tolist() == [one[1] for one in told]
    columns = [sum(one[0][command] for command in COLUMN_COMMANDS) for one in told]
    assert sum(counts[name] for name in ("hits", "misses", "conflicts")).tolist() == columns
    commands, last = sum((one[0] for one in told), Counter()), max(one[2] for one in told)
    parts, active = dram.part.organization, sum(one[3] for one in told)
    idle = max(0, dram.channels * parts.pseudo_channels * parts.ranks * last - active)
    totals = {command: commands[command] for command in Command}
    assert activity.channels.energy_pj == pytest.approx(
        energy_pj(dram.part, totals, active, idle)["total"], rel=1e-12
    )


def assert_twins_agree(timed):
    assert outcome(engine.run, timed) == outcome(reference.run, timed)
    if timed.traffic.window.size:
        assert_accounts_agree(timed, engine.run(timed).activity)


@given(st.data(), drams())
@MANY
def test_channels_part_and_join(data, dram):
    memory, one = dram
    with with_device(one):
        assert_twins_agree(data.draw(programs(memory)))


@given(st.integers(0, 2**32 - 1), drams())
@MANY
def test_only_channels_that_are_alike_join(seed, dram):
    memory, one = dram
    with with_device(one):
        assert_twins_agree(partings(memory, seed))


READ, WRITE = False, True
FOUR = range(4)
APART = {  # bursts (row, bank, write) of channel 0 and of channel 1; what all get after a pause
    "open row": ([(1, 0, READ)], [(2, 0, READ)], [(1, 0, READ)]),
    "hits of a row": ([(0, 0, READ)] * 2, [(0, 0, READ)], [(1, 0, READ), (0, 0, READ)]),
    "read": ([(0, 0, READ)], None, [(1, 0, READ)]),
    "write": ([(0, 0, WRITE)], None, [(1, 0, READ)]),
    "turn to reads": ([(0, 0, WRITE)], None, [(0, 0, READ)]),
    "turn to writes": ([(0, 0, READ)], None, [(0, 0, WRITE)]),
    "activations": ([(1, k, READ) for k in FOUR], None, [(2, k, READ) for k in FOUR]),
}


def senders(memory):
    """A burst to a place on the last pseudo-channel of a channel; one to each, all channels."""
    found, burst = memory.address_map, memory.address_map.column_bytes
    at = burst * np.arange(3 * found.capacity_bytes // memory.part.organization.rows // burst)
    fields, sweep = found.locate(at), found.compiled.sweep * burst

    def places(channel, number, bank):
        wanted = {"channel": channel, "row": number, "rank": 0, "bank": bank, "bank_group": 0}
        return at[np.all([getattr(fields, of) == n for of, n in wanted.items()], axis=0)]

    def single(channel, number, bank, write):
        return int(places(channel, number, bank)[-1]), 1, burst, burst, write

    def to_all(number, bank, write):
        return int(places(0, number, bank)[0]), 1, sweep, sweep, write

    return single, to_all


TWO = Dram(
    device="hbm2", channels=2, capacity=1 << 24, mapping="RoRaBaCoCh", hashing=False, hit_cap=3,
    refresh=False,
)  # fmt: skip


@pytest.mark.parametrize("what", APART)
def test_channels_that_differ_in_one_thing_stay_apart(what):
    """After every pause from none to one after which both channels are ready for everything."""
    first, second, after = APART[what]
    one = device("hbm2")
    slow = tuple(
        replace(of, cycles=of.cycles * (1 + 7 * (of.window > 1))) for of in one.constraints
    )
    with with_device(replace(one, constraints=slow)):
        memory = replace(TWO)  # it has not looked up its part yet
        single, to_all = senders(memory)
        both, sweeps = [to_all(0, 0, READ)], [to_all(*of) for of in after]
        one_way = [[single(0, *of)] for of in first]
        other_way = [[single(1, *of)] for of in (second or first)]
        # Clocks from burst to burst of channel 1, and pauses that are tried.
        late, pauses_tried = (40, 200) if what == "activations" else (0 if second else 11, 60)
        for pause in range(pauses_tried):
            pauses = [150, *[0] * (len(first) - 1), *[late] * len(other_way), pause, 0]
            timed = by_hand([both, *one_way, *other_way, sweeps], memory, occupancy=pauses)
            assert_twins_agree(timed)


def test_what_a_channel_did_alone_counts_once_however_often_it_joins():
    """Channel 1 opens a row more, then both read another one: they are alike but for the counts."""
    single, to_all = senders(TWO)
    alone = [[single(1, 1, 0, READ)], [single(0, 2, 0, READ)], [single(1, 2, 0, READ)]]
    timed = by_hand([*alone, [to_all(0, 0, READ)]] * 4, TWO, occupancy=[0, 0, 400, 400] * 4)
    counts = engine.run(timed).activity.channels.counts["ACT"]
    assert counts[1] - counts[0] == 4
    assert_twins_agree(timed)
