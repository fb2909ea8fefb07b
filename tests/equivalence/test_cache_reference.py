"""The compiled caches are the specification in plain Python: runs, counts, bank cycles and lines.

Caches are tiny and addresses few, so that evictions, sector misses and full queues are the rule.
"""

from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accelsim.hw import cache as rooms
from accelsim.hw.cache import COUNTS, Cache, kernels
from accelsim.hw.cache.reference import System

MANY = settings(  # the first example compiles
    deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=400
)
REACH = 1 << 12  # bytes that windows lie in


@st.composite
def tiny_caches(draw, of, shared):
    line = draw(st.sampled_from([4, 8, 16, 32]))
    ways, banks = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    hashes = ["none", "sum"] + (["xor"] if banks in (1, 2, 4) else [])
    return Cache(
        of=of,
        capacity=line * ways * banks * draw(st.integers(1, 4)),
        line=line,
        sectors=draw(st.sampled_from([1, 2, 4])),
        ways=ways,
        policy=draw(st.sampled_from(["lru", "random", "streaming"])),
        write=draw(st.sampled_from(["back", "through"])),
        allocate=draw(st.booleans()),
        shared=shared,
        banks=banks,
        bank_hash=draw(st.sampled_from(hashes)),
        width=draw(st.sampled_from([0, 1, 3, 4, 64])),
    )


@st.composite
def systems(draw):
    """One to three levels, the last ones shared; sometimes a second cache before the second."""
    depth, shared_from = draw(st.integers(1, 3)), draw(st.integers(0, 3))
    caches = {}
    for level in range(depth):
        of = f"l{level + 1}" if level + 1 < depth else "memory"
        caches[f"l{level}"] = draw(tiny_caches(of, level >= shared_from))
    if depth > 1 and draw(st.booleans()):
        caches["side"] = draw(tiny_caches("l1", False))
    names = draw(st.permutations(list(caches)))
    return {name: caches[name] for name in names}, draw(st.integers(1, 3)), draw(st.integers(0, 9))


@st.composite
def windows(draw):
    rows, row_bytes = draw(st.integers(0, 6)), draw(st.integers(0, 90))
    stride = draw(st.one_of(st.just(row_bytes), st.integers(0, 200)))
    return draw(st.integers(0, REACH // 8)), rows, row_bytes, stride


cases = st.tuples(
    systems(),
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 9), windows(), st.booleans()), max_size=12
    ),
)


def compiled(case):
    """Runs of every window, then those of a flush, counts, bank cycles and all that is held."""
    (caches, cores, seed), accesses = case
    names = list(caches)
    state = rooms.build(caches, cores, seed)
    counts, busy, seen = rooms.new_counts(state), rooms.new_busy(state), []
    for entry, core, window, write in accesses:
        runs = rooms.new_runs(rooms.most_runs(state, entry % len(names), *window[1:]))
        used = kernels.walk(
            state, entry % len(names), core % cores, *window, int(write), counts, busy, runs, 0
        )
        assert used <= len(runs)
        seen.append([tuple(run) for run in runs[:used].tolist()])
    held = np.sort(state.ways[kernels.TAG][state.ways[kernels.TAG] >= 0]).tolist()
    seen.append([tuple(run) for run in rooms.flush(state, counts, busy).tolist()])
    return seen, {name: counts[i].tolist() for i, name in enumerate(names)}, busy.tolist(), held


def specified(case):
    (caches, cores, seed), accesses = case
    names = list(caches)
    system = System(caches, cores, seed)
    seen = [
        system.walk(names[entry % len(names)], core % cores, *window, write)
        for entry, core, window, write in accesses
    ]
    levels = [level for each in system.levels.values() for level in each]
    held = sorted(number for level in levels for lines in level.sets for number in lines)
    seen.append(system.flush())
    counts = {
        name: [sum(level.counts[count] for level in system.levels[name]) for count in COUNTS]
        for name in names
    }
    busy = [
        level.busy[bank]
        for name in names
        for level in system.levels[name]
        for bank in range(caches[name].banks)
    ]
    return seen, counts, busy, held


@MANY
@given(cases)
def test_compiled_caches_are_the_specification(case):
    assert compiled(case) == specified(case)


@settings(MANY, max_examples=100)
@given(cases)
def test_short_turns_change_nothing(case):
    """The same loops as Python executes them, stopping after every line or two."""
    loops = ("walk", "write_back", "_serve", "_drain", "_forward", "_note")
    uncompiled = {name: getattr(kernels, name).py_func for name in loops}
    with mock.patch.multiple(kernels, PIECES=4, **uncompiled):
        assert compiled(case) == specified(case)


@pytest.mark.parametrize("policy", ["lru", "random", "streaming"])
def test_long_windows_through_three_levels(policy):
    """Large enough that every queue fills several times within one window."""
    rng = np.random.default_rng(1)
    caches = {
        "l1": Cache(of="l2", capacity=2048, line=32, sectors=4, ways=4, policy=policy),
        "l2": Cache(of="l3", capacity=8192, line=64, sectors=2, ways=8, policy=policy, banks=4),
        "l3": Cache(of="hbm", capacity=32768, line=128, sectors=16, ways=16, policy=policy,
                    shared=True, banks=16, bank_hash="xor", width=16),
    }  # fmt: skip
    accesses = []
    for _ in range(12):
        window = (int(rng.integers(0, 4096)), int(rng.integers(1, 300)), int(rng.integers(1, 200)))
        stride = int(rng.integers(0, 400))
        accesses.append((0, int(rng.integers(2)), (*window, stride), bool(rng.integers(2))))
    case = (caches, 2, 3), accesses
    assert compiled(case) == specified(case)
