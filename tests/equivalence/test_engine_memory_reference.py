"""The compiled engine with caches and DRAM channels is the SimPy specification, tick by tick.

Machines are small and crowded: two or more units, few lines, short queues, slow and fast clocks, so
that full FIFOs, ties, late acceptances, evictions and refreshes are the rule.
"""

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from cache_chains import chains
from dram_streams import DEVICES, controllers, devices
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_engine_reference import outcome, random_program

from accelsim import engine
from accelsim.arch.model import Architecture
from accelsim.engine import TimedProgram, reference
from accelsim.engine.traffic import Traffic
from accelsim.hw.cache import Cache
from accelsim.hw.dma import Dma
from accelsim.hw.dram.block import Dram
from accelsim.hw.memory import MainMemory

MANY = settings(  # the first example compiles
    deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=150
)
MAPPINGS = ("RoRaBaChCoBg", "RoBaRaCoCh", "RoCoBaRaCh", "RoRaChBaCo")


def architecture(memory, chain=None, cores=1, clock="1 GHz"):
    return Architecture.build(
        name="small", clock=clock, cores=cores, units={"dma": Dma()}, memories={"hbm": memory},
        caches=chain or {},
    )  # fmt: skip


def with_traffic(timed, seed, arch, by_channels, operands=8, span=5000, longest=300, writes=0.3):
    """A program, some instructions of which move up to three windows on ``arch``.

    Windows repeat and overlap, and so do their rows, or they follow each other or lie far apart:
    rows are hit, bursts merge and lines are found. Port 0 is main memory's own.
    """
    rng, n = np.random.default_rng(seed), len(timed)
    row_bytes = rng.integers(1, longest, operands)
    stride = np.choose(rng.integers(0, 3, operands), [row_bytes, row_bytes // 2, 3000])
    base, rows = rng.integers(0, span, operands), rng.integers(1, 5, operands)
    operand = np.column_stack([base, rows, row_bytes, stride])
    count = rng.integers(0, 4, n) * (rng.random(n) < 0.8)
    first = np.concatenate([[0], np.cumsum(count)])
    chosen = rng.integers(0, operands, first[-1])
    write = rng.random(len(chosen)) < writes
    core = np.repeat(timed.unit % arch.cores, count)
    window = np.column_stack([operand[chosen], write, core, chosen]).astype(np.int64)
    traffic = Traffic(first, window, arch, "hbm", -1 if by_channels else 0, operands)
    port = np.where(timed.port == 0, -1, timed.port).astype(np.int16)
    return replace(timed, port=port, traffic=traffic)


@st.composite
def programs(draw, arch, by_channels):
    seed = draw(st.integers(0, 2**32 - 1))
    timed = random_program(
        seed,
        n=draw(st.integers(1, 24)),
        units=draw(st.integers(1, 6)),
        ports=draw(st.integers(1, 3)),
        longest=draw(st.sampled_from([0, 3, 40])),
        dep_density=draw(st.sampled_from([0.1, 0.4])),
        reach=draw(st.sampled_from([4, 40])),
    )
    return with_traffic(
        timed,
        seed,
        arch,
        by_channels,
        operands=draw(st.integers(1, 8)),
        span=draw(st.sampled_from([200, 5000, 1 << 20])),
        longest=draw(st.sampled_from([64, 300, 2000])),
        writes=draw(st.sampled_from([0.0, 0.3, 0.9])),
    )


@st.composite
def drams(draw):
    """Channels with short queues, on a clock of their own; and the device to simulate them with."""
    settings = draw(controllers())
    memory = Dram(
        device=draw(st.sampled_from(DEVICES)),
        channels=draw(st.integers(1, 4)),
        capacity=1 << 24,
        mapping=draw(st.sampled_from(MAPPINGS)),
        hashing=draw(st.booleans()),
        latency=draw(st.sampled_from([0.0, 20e-9])),
        **{
            name: getattr(settings, name)
            for name in (
                "page", "window", "write_buffer", "high_watermark", "low_watermark", "hit_cap",
                "refresh",
            )
        },
    )  # fmt: skip
    clock = draw(st.sampled_from([500, 1000, 1500, 2000])) * 10**6
    return memory, replace(draw(devices()), clock_hz=clock)


def assert_engines_agree(timed):
    assert outcome(engine.run, timed) == outcome(reference.run, timed)


def with_device(one):
    """The part that every DRAM block is made of, whatever it names."""
    return mock.patch("accelsim.hw.dram.block.find_device", return_value=one)


@given(st.data(), chains("hbm"), st.integers(1, 3), st.sampled_from([1, 3, 64]))
@MANY
def test_caches_before_a_port(data, chain, cores, bandwidth):
    memory = MainMemory(capacity=1 << 30, bandwidth=bandwidth * 10**9, latency=7e-9)
    arch = architecture(memory, chain, cores)
    assert_engines_agree(data.draw(programs(arch, by_channels=False)))


@given(st.data(), drams())
@MANY
def test_channels(data, dram):
    memory, one = dram
    with with_device(one):
        assert_engines_agree(data.draw(programs(architecture(memory), by_channels=True)))


@given(st.data(), drams(), chains("hbm"), st.integers(1, 3))
@MANY
def test_caches_before_channels(data, dram, chain, cores):
    memory, one = dram
    with with_device(one):
        arch = architecture(memory, chain, cores)
        assert_engines_agree(data.draw(programs(arch, by_channels=True)))


L1 = Cache(of="l2", capacity=2048, line=64, ways=2, sectors=2, width=16, latency=3)
L2 = Cache(of="hbm", capacity=8192, line=64, ways=4, shared=True, banks=4, width=16, latency=20)
SHORT_QUEUES = {"window": 4, "write_buffer": 6, "high_watermark": 4, "low_watermark": 2}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("chain", [{}, {"l2": L2}, {"l1": L1, "l2": L2}], ids=len)
def test_long_programs(chain, seed):
    """Hundreds of instructions, so that every part of the loop has been through many states."""
    device = ("hbm2", "ddr4-2400", "lpddr5-6400")[seed % 3]
    memory = Dram(device=device, channels=1 + seed % 4, capacity=1 << 24, **SHORT_QUEUES)
    timed = random_program(seed, 250, 5, 3, longest=20, dep_density=0.2)
    arch = architecture(memory, chain, cores=2)
    assert_engines_agree(with_traffic(timed, seed, arch, True, operands=20))


def by_hand(windows, memory, chain=None, units=1, **columns):
    """A program of instructions that take no time but for their windows of bytes."""
    n = len(windows)
    columns = {"port": np.full((n, 2), -1), "hold": np.zeros((n, 2)), **columns}
    first = np.cumsum([0, *map(len, windows)])
    rows = [(*window, 0, k) for some in windows for k, window in enumerate(some)]
    by_channels = isinstance(memory, Dram)
    arch = architecture(memory, chain)
    port = -1 if by_channels else 0
    return TimedProgram(
        unit=np.arange(n, dtype=np.int32) % units,
        occupancy=np.array(columns.get("occupancy", np.zeros(n)), np.int64),
        latency=np.zeros(n, np.int64),
        dep=np.full((n, 3), -1, np.int32),
        port=np.array(columns["port"], np.int16),
        hold=np.array(columns["hold"], np.int64),
        units=units,
        ports=3,
        traffic=Traffic(
            first, np.array(rows, np.int64).reshape(-1, 7), arch, "hbm", port, max(1, len(rows))
        ),
    )


def test_what_a_released_unit_sends_is_accepted_in_the_same_clock():
    """Seven bursts per channel for a window of five: the last transfer waits for no clock."""
    memory = Dram(
        device="ddr4-2400", channels=2, capacity=1 << 24, mapping="RoBaRaCoCh", hashing=False,
        window=5, refresh=False, command_clock=10**9,
    )  # fmt: skip
    two = (128, 1, 128, 128, 0)  # one burst in each channel
    timed = by_hand([[two], [two], [two, two, two], [two], [two]], memory)
    found = reference.run(timed)
    assert found.start[:4].tolist() == [0, 0, 0, 0]
    assert found.start[4] > 0
    assert_engines_agree(timed)


def test_a_port_named_twice_counts_once():
    memory = MainMemory(capacity=1 << 30, bandwidth=10**9)
    timed = by_hand([[], []], memory, {"l2": L2}, units=2, port=[[1, 1]] * 2, hold=[[3, 5]] * 2)
    assert reference.run(timed).finish.tolist() == [5, 10]
    assert_engines_agree(timed)


def test_a_window_that_was_just_read_is_taken_to_be_there():
    """4096 bytes across 65 lines, half of the cache: looked up, then trusted.

    Looked up, the busiest bank has 17 lines of 4 cycles; trusted, all have 64 cycles.
    """
    memory = MainMemory(capacity=1 << 30, bandwidth=64 * 10**9)
    timed = by_hand([[(32, 1, 4096, 4096, 0)]] * 2, memory, {"l2": L2})
    assert reference.run(timed).finish.tolist() == [17 * 4 + 20, 17 * 4 + 64 + 20]
    assert_engines_agree(timed)


def test_a_unit_that_a_channel_releases_goes_by_its_number():
    """Unit 0 waits for room in a window of one, unit 1 for its own clock, until the same tick.

    The other pseudo-channel has nothing to do, so the channel does not run ahead.
    """
    memory = Dram(
        device="hbm3", channels=1, capacity=1 << 24, mapping="RoBaRaChCo", hashing=False, window=1,
        refresh=False,
    )  # fmt: skip
    timed = by_hand([[(0, 1, 128, 128, 0)], [], [], []], memory, units=2)
    released = int(reference.run(timed).start[2])
    assert released > 0
    timed = replace(timed, occupancy=np.array([0, released, 0, 0]))
    found = reference.run(timed)
    assert found.start.tolist() == [0, 0, released, released]
    assert found.order.tolist() == [0, 1, 2, 3]
    assert_engines_agree(timed)
