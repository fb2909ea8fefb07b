"""Line lookups per second of the compiled caches, walked from a compiled loop as in the engine."""

import numba
import numpy as np
import pytest

from accelsim.hw import cache as rooms
from accelsim.hw.cache import COUNTS, Cache, kernels
from accelsim.hw.cache.reference import System

pytestmark = pytest.mark.bench

MIB = 1 << 20
# Sizes and banks of an A100's caches: NVIDIA A100 Tensor Core GPU Architecture, white paper, 2020.
L2 = Cache(
    of="hbm",
    capacity=40 * MIB,
    sectors=4,
    ways=16,
    shared=True,
    banks=80,
    bank_hash="sum",
    width=64,
)
L1 = Cache(
    of="l2", capacity=MIB // 8, sectors=4, ways=4, write="through", allocate=False, width=128
)

walk = kernels.walk


@numba.njit(nogil=True)
def walk_repeatedly(times, state, base, rows, row_bytes, stride, write, counts, busy, runs):
    for _ in range(times):
        walk(state, 0, 0, base, rows, row_bytes, stride, write, counts, busy, runs, 0)


WINDOWS = {  # name: (rows, row bytes, stride), all from address 0
    "tile of 64 KiB": (1, 65536, 65536),
    "rows of 256 B": (256, 256, 8192),
    "a column": (4096, 2, 8192),
    "40 MiB": (1, 40 * MIB, 40 * MIB),
    "80 MiB": (1, 80 * MIB, 80 * MIB),
}


def report(benchmark, caches, window, write):
    state = rooms.build(caches, 1)
    counts, busy = rooms.new_counts(state), rooms.new_busy(state)
    runs = rooms.new_runs(rooms.most_runs(state, 0, *window))
    times = 1 + 2_000_000 // (window[0] * (1 + window[1] // 128))
    walk_repeatedly(1, state, 0, *window, write, counts, busy, runs)
    counts[:] = 0
    walk_repeatedly(1, state, 0, *window, write, counts, busy, runs)
    one = dict(zip(COUNTS, counts[0].tolist(), strict=True))
    benchmark(walk_repeatedly, times, state, 0, *window, write, counts, busy, runs)
    lookups = times * one["lookups"] / benchmark.stats.stats.min
    benchmark.extra_info["M lookups/s"] = round(lookups / 1e6, 1)
    benchmark.extra_info["hit rate"] = round(one["hits"] / one["lookups"], 3)


@pytest.mark.parametrize("write", [0, 1], ids=["read", "write"])
@pytest.mark.parametrize("window", WINDOWS)
def test_l2(benchmark, window, write):
    benchmark.group = f"L2: {window}"
    report(benchmark, {"l2": L2}, WINDOWS[window], write)


@pytest.mark.parametrize("window", WINDOWS)
def test_l1_before_l2(benchmark, window):
    benchmark.group = f"L1 and L2: {window}"
    report(benchmark, {"l1": L1, "l2": L2}, WINDOWS[window], 0)


@pytest.mark.parametrize("policy", ["lru", "random", "streaming"])
def test_policies_on_misses(benchmark, policy):
    benchmark.group = "misses by policy"
    cache = Cache(of="hbm", capacity=MIB, sectors=4, ways=16, policy=policy, shared=True)
    report(benchmark, {"l2": cache}, (1, 8 * MIB, 8 * MIB), 0)


def test_one_line_per_walk(benchmark):
    """What a walk costs before it looks up anything."""
    report(benchmark, {"l2": L2}, (1, 128, 128), 0)


def test_reference(benchmark):
    system = System({"l2": L2}, 1)
    system.walk("l2", 0, 0, *WINDOWS["tile of 64 KiB"], False)
    benchmark(system.walk, "l2", 0, 0, *WINDOWS["tile of 64 KiB"], False)
    lookups = 512 / benchmark.stats.stats.min
    benchmark.extra_info["M lookups/s"] = round(lookups / 1e6, 3)
    assert np.isclose(system.levels["l2"][0].counts["fill"], 65536)
