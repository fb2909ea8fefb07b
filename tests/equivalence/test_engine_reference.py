"""The compiled engine is the SimPy specification: every start, finish, commit and deadlock.

Programs are small and crowded, so that ties, zero times, busy ports and blocked heads are the rule
and not the exception.
"""

from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from accelsim import engine
from accelsim.engine import DeadlockError, TimedProgram, kernels, reference

MANY = settings(  # the first example compiles
    deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=400
)


def outcome(run, timed):
    """What an engine says of a program, in a form that can be compared."""
    try:
        schedule = run(timed)
    except DeadlockError as stuck:
        return str(stuck), stuck.waiting
    return schedule.start.tolist(), schedule.finish.tolist(), schedule.order.tolist()


def run_uncompiled(timed):
    """The same loops as Python executes them."""
    with (
        mock.patch.object(kernels, "link_queues", kernels.link_queues.py_func),
        mock.patch.object(kernels, "merge_heads", kernels.merge_heads.py_func),
    ):
        return engine.run(timed)


def assert_engines_agree(timed):
    expected = outcome(reference.run, timed)
    assert outcome(engine.run, timed) == expected
    assert outcome(run_uncompiled, timed) == expected


@st.composite
def tiny_programs(draw):
    """Up to 10 instructions, every field drawn, so that a counterexample shrinks to its core."""
    n = draw(st.integers(0, 10))
    units, ports = draw(st.integers(1, 4)), draw(st.integers(0, 2))
    ticks = st.integers(0, 4)

    def column(element, dtype):
        return np.array([draw(element) for _ in range(n)], dtype)

    def slots(element, dtype):
        rows = [[draw(element) for _ in range(3)] for _ in range(n)]
        return np.array(rows, dtype).reshape(n, 3)

    dep = slots(st.integers(-4, max(n - 1, 0)).map(lambda d: max(d, -1)), np.int32)
    dep[dep == np.arange(n)[:, None]] = -1
    early = slots(st.booleans(), np.bool_) if draw(st.booleans()) else None
    return TimedProgram(
        unit=column(st.integers(0, units - 1), np.int32),
        occupancy=column(ticks, np.int64),
        latency=column(ticks, np.int64),
        dep=dep,
        port=slots(st.integers(-1, ports - 1), np.int16),
        hold=slots(ticks, np.int64),
        units=units,
        ports=ports,
        early=early,
    )


def random_program(
    seed,
    n,
    units,
    ports,
    *,
    longest=3,
    periods=(1,),
    dep_density=0.5,
    ahead=0.0,
    reach=40,
    slots=3,
    early=0.0,
):
    """A program drawn from a seed.

    ``periods``: clock periods in ticks, one per unit; all times of a unit are multiples of its own.
    ``ahead``: share of the dependencies that point to a later instruction, as in a FIFO program;
    ``reach``: how far dependencies reach; ``slots``: how many ports an instruction may name;
    ``early``: share of the dependencies that wait for the issue only.
    """
    rng = np.random.default_rng(seed)
    unit = rng.integers(0, units, n).astype(np.int32)
    period = rng.choice(periods, units)[unit]
    i = np.arange(n)[:, None]
    distance = rng.integers(1, reach + 1, (n, 3))
    dep = np.where(rng.random((n, 3)) < ahead, i + distance, i - distance)
    dep = np.where((rng.random((n, 3)) < dep_density) & (dep >= 0) & (dep < n), dep, -1)
    return TimedProgram(
        unit=unit,
        occupancy=rng.integers(0, longest + 1, n) * period,
        latency=rng.integers(0, longest + 1, n) * period,
        dep=dep.astype(np.int32),
        port=rng.integers(-1, ports, (n, slots)).astype(np.int16),
        hold=rng.integers(0, longest + 1, (n, slots)) * period[:, None],
        units=units,
        ports=ports,
        early=rng.random((n, 3)) < early if early else None,
    )


SHAPES = {
    "seed": st.integers(0, 2**32 - 1),
    "n": st.integers(1, 120),
    "units": st.integers(1, 64),
    "ports": st.integers(0, 3),
}


@given(tiny_programs())
@MANY
def test_tiny_programs(timed):
    assert_engines_agree(timed)


@given(**SHAPES, longest=st.sampled_from([0, 1, 3, 50]))
@MANY
def test_contention_and_ties(seed, n, units, ports, longest):
    assert_engines_agree(random_program(seed, n, units, ports, longest=longest))


@given(**{**SHAPES, "ports": st.integers(2, 8)}, factor=st.sampled_from([3, 20]))
@MANY
def test_ports_that_are_slower_than_the_units(seed, n, units, ports, factor):
    timed = random_program(seed, n, units, ports, dep_density=0.2)
    timed.hold[:] *= factor
    assert_engines_agree(timed)


@given(**{**SHAPES, "ports": st.integers(1, 20)}, slots=st.sampled_from([1, 2, 9, 17]))
@MANY
def test_transfers_that_cross_many_links(seed, n, units, ports, slots):
    assert_engines_agree(random_program(seed, n, units, ports, slots=slots))


@given(**SHAPES, reach=st.sampled_from([2, 40]))
@MANY
def test_units_in_many_clock_domains(seed, n, units, ports, reach):
    periods = (1, 2, 3, 5, 7, 10, 16, 1000)
    assert_engines_agree(random_program(seed, n, units, ports, periods=periods, reach=reach))


@given(**SHAPES, ahead=st.sampled_from([0.02, 0.2]))
@MANY
def test_dependencies_that_point_ahead(seed, n, units, ports, ahead):
    timed = random_program(seed, n, units, ports, ahead=ahead, dep_density=0.2)
    assert_engines_agree(timed)


@given(**SHAPES, early=st.sampled_from([0.3, 1.0]), ahead=st.sampled_from([0.0, 0.02]))
@MANY
def test_waits_for_the_issue(seed, n, units, ports, early, ahead):
    timed = random_program(seed, n, units, ports, longest=9, early=early, ahead=ahead)
    assert_engines_agree(timed)


@given(seed=SHAPES["seed"], units=st.integers(2, 64))
@settings(MANY, max_examples=150)
def test_deadlocks_name_the_same_heads(seed, units):
    timed = random_program(seed, 100, units, 1, ahead=0.5, reach=90)
    expected = outcome(reference.run, timed)
    assume(isinstance(expected[0], str))
    assert outcome(engine.run, timed) == expected
    assert len(expected[1]) >= 1
    assert all(d in timed.dep[i] and timed.unit[i] == u for u, i, d in expected[1])


@pytest.mark.parametrize("units", [1, 2, 3, 4, 17, 32, 33, 64, 300])
@pytest.mark.parametrize("ports", [0, 1, 3])
def test_long_programs(units, ports):
    """Thousands of instructions, so that every part of the loop has been through many states."""
    timed = random_program(units, 4000, units, ports, periods=(1, 2, 3), dep_density=0.3, reach=300)
    assert outcome(engine.run, timed) == outcome(reference.run, timed)
