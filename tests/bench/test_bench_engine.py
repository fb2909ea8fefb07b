"""Speed of the clock: cores of four units, all of whose transfers contend for one memory port.

Transfers may also hold a port of their core's scratchpad.
"""

import numpy as np
import pytest

from accelsim import engine
from accelsim.engine import TimedProgram, reference

pytestmark = pytest.mark.bench

LOAD_A, LOAD_B, COMPUTE, STORE = range(4)


def double_buffered_cores(cores, n, scratchpads=False):
    """n instructions: on each core, tile t loads A and B, computes and stores.

    Loads wait for the COMPUTE of tile t-2 (its input buffers), COMPUTE for its loads and for the
    STORE of tile t-2 (its output buffer). All times are drawn; cores stand one after the other.
    """
    rng = np.random.default_rng(cores)
    tiles = n // (4 * cores)
    first = 4 * np.arange(cores * tiles).reshape(cores, tiles)
    ready = np.arange(tiles) >= 2
    ticks = np.empty((cores, tiles, 4), np.int64)
    for u, (low, high) in enumerate([(40, 90), (40, 90), (60, 120), (20, 60)]):
        ticks[:, :, u] = rng.integers(low, high, (cores, tiles))
    dep = np.full((cores, tiles, 4, 3), -1, np.int32)
    dep[:, :, LOAD_A, 0] = dep[:, :, LOAD_B, 0] = np.where(ready, first - 8 + COMPUTE, -1)
    dep[:, :, COMPUTE, 0], dep[:, :, COMPUTE, 1] = first + LOAD_A, first + LOAD_B
    dep[:, :, COMPUTE, 2] = np.where(ready, first - 8 + STORE, -1)
    dep[:, :, STORE, 0] = first + COMPUTE
    port = np.full((cores, tiles, 4, 3), -1, np.int16)
    port[:, :, [LOAD_A, LOAD_B, STORE], 0] = 0
    if scratchpads:
        port[:, :, [LOAD_A, LOAD_B, STORE], 1] = 1 + np.arange(cores)[:, None, None]
    unit = np.broadcast_to(
        4 * np.arange(cores)[:, None, None] + np.arange(4), (cores, tiles, 4)
    ).astype(np.int32)
    return TimedProgram(
        unit=unit.ravel(),
        occupancy=ticks.ravel(),
        latency=ticks.ravel() + np.where(unit.ravel() % 4 == COMPUTE, 10, 0),
        dep=dep.reshape(-1, 3),
        port=port.reshape(-1, 3),
        hold=np.repeat(ticks.reshape(-1, 1), 3, axis=1),
        units=4 * cores,
        ports=1 + cores,
    )


def report(benchmark, timed, run):
    schedule = benchmark(run, timed)
    benchmark.extra_info["M instr/s"] = round(len(timed) / benchmark.stats.stats.min / 1e6, 2)
    assert np.array_equal(np.sort(schedule.order), np.arange(len(timed)))


@pytest.mark.parametrize("n", [20_000, 1_000_000])
@pytest.mark.parametrize("units", [4, 8, 16, 64, 256])
def test_contended_port(benchmark, units, n):
    """End to end: checks, queue links, merge and the output arrays."""
    benchmark.group = f"{units} units"
    engine.warm_up()
    report(benchmark, double_buffered_cores(units // 4, n), engine.run)


@pytest.mark.parametrize("units", [4, 8, 16])
def test_two_ports_per_transfer(benchmark, units):
    benchmark.group = f"{units} units"
    engine.warm_up()
    report(benchmark, double_buffered_cores(units // 4, 1_000_000, scratchpads=True), engine.run)


def test_no_ports(benchmark):
    benchmark.group = "16 units"
    engine.warm_up()
    timed = double_buffered_cores(4, 1_000_000)
    timed.port[:] = -1
    report(benchmark, timed, engine.run)


def test_reference(benchmark):
    benchmark.group = "SimPy"
    report(benchmark, double_buffered_cores(4, 4_000), reference.run)
