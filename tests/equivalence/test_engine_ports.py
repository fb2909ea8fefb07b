"""What independent ports promise, for every program, and where less time is never worse.

Less is not better in general: a port serves first come, first served, so a quicker instruction may
arrive before another one and delay it. It never is worse where no port is shared between units.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_engine_reference import random_program

from accelsim import engine
from accelsim.engine import TimedProgram
from accelsim.engine.schedule import port_service

MANY = settings(  # the first example compiles
    deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=200
)


@st.composite
def crowded_programs(draw):
    """Random programs with up to three ports per instruction, quick or slow against the units."""
    seed, n = draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, 120))
    units, ports = draw(st.integers(1, 12)), draw(st.integers(1, 6))
    timed = random_program(seed, n, units, ports, longest=draw(st.sampled_from([1, 3, 20])))
    return replace(timed, hold=timed.hold * draw(st.sampled_from([1, 10])))


@given(crowded_programs())
@MANY
def test_ports_serve_one_at_a_time_and_an_instruction_spans_its_services(timed):
    s = engine.run(timed)
    first, last = np.full(len(timed), 1 << 62), s.start.copy()
    for p in range(timed.ports):
        index, begin, end = port_service(timed, s, p)
        assert sorted(index) == np.flatnonzero((timed.port == p).any(axis=1)).tolist()
        assert (begin[1:] >= end[:-1]).all()
        first[index] = np.minimum(first[index], begin)
        last[index] = np.maximum(last[index], end)
    holds_any = (timed.port >= 0).any(axis=1)
    assert (first == s.start)[holds_any].all()
    tail = np.maximum(0, timed.latency - timed.occupancy)
    for u in range(timed.units):
        queue = np.flatnonzero(timed.unit == u)
        free = np.maximum(s.start + timed.occupancy, last)[queue]
        assert (s.start[queue[1:]] >= free[:-1]).all()
        arrived = np.maximum(s.start + timed.latency, last + tail)[queue]
        assert np.array_equal(s.finish[queue], np.maximum.accumulate(arrived))


@given(crowded_programs())
@MANY
def test_units_need_not_be_told_how_long_their_ports_take(timed):
    """Occupancies and latencies that are stretched to the longest hold change nothing."""
    longest = np.where(timed.port >= 0, timed.hold, 0).max(axis=1)
    tail = np.maximum(0, timed.latency - timed.occupancy)
    stretched = replace(
        timed,
        occupancy=np.maximum(timed.occupancy, longest),
        latency=np.maximum(timed.latency, longest + tail),
    )
    assert_same_times(engine.run(timed), engine.run(stretched))


@given(crowded_programs(), st.integers(0, 2**32 - 1))
@MANY
def test_less_latency_and_quicker_ports_are_never_slower_where_units_share_no_port(timed, seed):
    own = np.where(timed.port >= 0, timed.port + timed.ports * timed.unit[:, None], -1)
    timed = replace(timed, port=own.astype(np.int16), ports=timed.ports * timed.units)
    before = engine.run(timed)
    for quicker in (
        replace(timed, hold=timed.hold // 2),
        replace(timed, latency=timed.latency // 2),
        _cut_at_random(timed, seed),
    ):
        after = engine.run(quicker)
        assert (after.start <= before.start).all()
        assert (after.finish <= before.finish).all()


@given(crowded_programs())
@MANY
def test_no_result_before_its_ports_have_had_their_time(timed):
    held = [np.where(timed.port == p, timed.hold, 0).max(axis=1) for p in range(timed.ports)]
    assert engine.run(timed).ticks >= np.sum(held, axis=1).max()


@pytest.mark.parametrize("loads", [1, 2, 10])
def test_slow_scratchpad_does_not_leave_the_dram_idle(loads):
    """``loads`` queues, 4 ticks of DRAM and 6 of a scratchpad each, behind 100 ticks of compute.

    DRAM is done after 4 * loads, so a transfer that needs only DRAM finishes right then.
    """
    n = loads + 2
    port, hold = np.full((n, 3), -1, np.int16), np.zeros((n, 3), np.int64)
    port[0, 0], hold[0, 0] = 1, 100
    port[1:, 0], hold[1:, 0] = 0, 4
    port[1:-1, 1], hold[1:-1, 1] = 1, 6
    timed = TimedProgram(
        unit=np.arange(n, dtype=np.int32),
        occupancy=np.zeros(n, np.int64),
        latency=np.zeros(n, np.int64),
        dep=np.full((n, 3), -1, np.int32),
        port=port,
        hold=hold,
        units=n,
        ports=2,
    )
    s = engine.run(timed)
    assert s.finish[-1] == 4 * loads + 4
    assert s.finish[1:-1].tolist() == [100 + 6 * (k + 1) for k in range(loads)]


def _cut_at_random(timed, seed):
    """Every hold and every latency shortened by an amount of its own."""
    rng = np.random.default_rng(seed)
    return replace(
        timed,
        hold=rng.integers(0, timed.hold + 1),
        latency=rng.integers(0, timed.latency + 1),
    )


def assert_same_times(a, b):
    assert np.array_equal(a.start, b.start)
    assert np.array_equal(a.finish, b.finish)
    assert np.array_equal(a.order, b.order)
