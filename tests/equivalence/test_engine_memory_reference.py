"""The compiled engine with caches and DRAM channels is the SimPy specification, tick by tick.

Machines are small and crowded: two or more units, few lines, short queues, slow and fast clocks, so
that full FIFOs, ties, late acceptances, evictions and refreshes are the rule.
"""

from dataclasses import replace
from unittest import mock

import numpy as np
from dram_streams import DEVICES, controllers, devices
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_engine_reference import outcome, random_program

from accelsim import engine
from accelsim.arch.model import Architecture
from accelsim.engine import reference
from accelsim.engine.traffic import Traffic
from accelsim.hw.cache import Cache
from accelsim.hw.dma import Dma
from accelsim.hw.dram.block import Dram
from accelsim.hw.memory import MainMemory

MANY = settings(  # the first example compiles
    deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=150
)
MAPPINGS = ("RoRaBaChCoBg", "RoBaRaCoCh", "RoCoBaRaCh", "RoRaChBaCo")


@st.composite
def caches(draw):
    """One to three levels of a few lines each, the last ones shared; often one shared LRU cache."""
    depth = draw(st.sampled_from([1, 1, 1, 2, 3]))
    private = draw(st.integers(0, depth))
    names = [f"l{i}" for i in range(depth)]
    return {
        name: draw(one_cache(of, shared=i >= private))
        for i, (name, of) in enumerate(zip(names, [*names[1:], "hbm"], strict=True))
    }


@st.composite
def one_cache(draw, of, shared):
    line, banks = 1 << draw(st.integers(4, 7)), draw(st.sampled_from([1, 2, 4]))
    ways = draw(st.integers(1, 4))
    return Cache(
        of=of,
        capacity=line * ways * banks * draw(st.sampled_from([1, 2, 8])),
        line=line,
        sectors=draw(st.sampled_from([1, 2, 4])),
        ways=ways,
        banks=banks,
        bank_hash=draw(st.sampled_from(["none", "xor", "sum"])),
        shared=shared,
        policy=draw(st.sampled_from(["lru", "lru", "random", "streaming"])),
        write=draw(st.sampled_from(["back", "through"])),
        allocate=draw(st.booleans()),
        width=draw(st.sampled_from([0, 8, 32])),
        latency=draw(st.integers(0, 5)),
    )


def architecture(memory, chain=None, cores=1, clock="1 GHz"):
    return Architecture.build(
        name="small", clock=clock, cores=cores, units={"dma": Dma()}, memories={"hbm": memory},
        caches=chain or {},
    )  # fmt: skip


@st.composite
def programs(draw, arch, by_channels, most=24):
    """A random program, some instructions of which move up to three windows, on ``arch``.

    Windows repeat and overlap, so that rows are hit, bursts merge and lines are found. Port 0 is
    main memory's own.
    """
    seed, n = draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, most))
    units, ports = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    timed = random_program(
        seed, n, units, ports, longest=draw(st.sampled_from([0, 3, 40])),
        dep_density=draw(st.sampled_from([0.1, 0.4])), reach=draw(st.sampled_from([4, 40])),
    )  # fmt: skip
    timed = replace(timed, port=np.where(timed.port == 0, -1, timed.port).astype(np.int16))
    rng = np.random.default_rng(seed)
    operands, longest = draw(st.integers(1, 8)), draw(st.sampled_from([64, 300, 2000]))
    operand = np.stack(
        [
            rng.integers(0, draw(st.sampled_from([200, 5000, 1 << 20])), operands),
            rng.integers(1, 5, operands),
            rng.integers(1, longest, operands),
            rng.integers(0, 3, operands),
        ],
        axis=1,
    )
    # Rows overlap, follow each other, or lie far apart.
    operand[:, 3] = np.choose(operand[:, 3], [operand[:, 2], operand[:, 2] // 2, 3000])
    count = rng.integers(0, 4, n) * (rng.random(n) < 0.8)
    first = np.concatenate([[0], np.cumsum(count)])
    chosen = rng.integers(0, operands, first[-1])
    mostly_read = draw(st.sampled_from([0.0, 0.3, 0.9]))
    core = np.repeat(timed.unit % arch.cores, count)
    write = rng.random(len(chosen)) < mostly_read
    window = np.column_stack([operand[chosen], write, core, chosen]).astype(np.int64)
    traffic = Traffic(first, window, arch, "hbm", -1 if by_channels else 0, operands)
    return replace(timed, traffic=traffic)


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


@given(st.data(), caches(), st.integers(1, 3), st.sampled_from([1, 3, 64]))
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


@given(st.data(), drams(), caches(), st.integers(1, 3))
@MANY
def test_caches_before_channels(data, dram, chain, cores):
    memory, one = dram
    with with_device(one):
        arch = architecture(memory, chain, cores)
        assert_engines_agree(data.draw(programs(arch, by_channels=True)))
