"""Laws that no cache may break: LRU stacks include each other, bytes are conserved."""

import dataclasses

from cache_chains import chains
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from accelsim.hw import cache as rooms
from accelsim.hw.cache import COUNTS, Cache, kernels

MANY = settings(  # the first example compiles
    deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=300
)


@st.composite
def windows(draw):
    rows, row_bytes = draw(st.integers(1, 8)), draw(st.integers(1, 300))
    stride = draw(st.one_of(st.just(row_bytes), st.integers(0, 500)))
    return draw(st.integers(0, 2000)), rows, row_bytes, stride


accesses = st.lists(st.tuples(windows(), st.booleans(), st.integers(0, 1)), min_size=1, max_size=12)


def walk_all(caches, work, cores=2):
    """(counts by cache, runs) of windows that enter at the first cache, and the runs of a flush."""
    state = rooms.build(caches, cores)
    counts, busy, runs = rooms.new_counts(state), rooms.new_busy(state), []
    for window, write, core in work:
        room = rooms.new_runs(rooms.most_runs(state, 0, *window[1:]))
        used = kernels.walk(state, 0, core, *window, int(write), counts, busy, room, 0)
        runs += room[:used].tolist()
    before = counts.copy()
    flushed = rooms.flush(state, counts, busy).tolist()
    named = {
        name: dict(zip(COUNTS, row, strict=True))
        for name, row in zip(caches, before.tolist(), strict=True)
    }
    return named, runs, flushed


def bytes_of(window):
    base, rows, row_bytes, stride = window
    return {base + r * stride + b for r in range(rows) for b in range(row_bytes)}


def bytes_in(runs, write):
    return {byte for at, n, kind in runs if kind == write for byte in range(at, at + n)}


# FIFO would miss 9 times in three lines and 10 times in four: Belady, Nelson, Shedler, CACM 12(6).
BELADY = [((32 * line, 1, 32, 32), False, 0) for line in (1, 2, 3, 4, 1, 2, 5, 1, 2, 3, 4, 5)]


@MANY
@given(accesses, st.integers(1, 12), st.integers(1, 12), st.sampled_from([1, 2, 4]))
@example(BELADY, 3, 1, 1)
def test_a_larger_fully_associative_lru_cache_never_misses_more(work, ways, more, sectors):
    """Mattson et al., Evaluation techniques for storage hierarchies, IBM Systems Journal 9(2)."""
    small = Cache(of="m", capacity=32 * ways, line=32, sectors=sectors, ways=ways, shared=True)
    large = dataclasses.replace(small, capacity=32 * (ways + more), ways=ways + more)
    few, many = (walk_all({"c": cache}, work)[0]["c"] for cache in (small, large))
    assert many["hits"] >= few["hits"]
    assert many["read_hit"] >= few["read_hit"]
    assert many["write_hit"] >= few["write_hit"]
    assert many["fill"] <= few["fill"]
    assert many["back"] <= few["back"]


@MANY
@given(chains("memory"), accesses)
def test_what_leaves_one_level_arrives_at_the_next(caches, work):
    counts, runs, _ = walk_all(caches, work)
    for name, cache in caches.items():
        here = counts[name]
        assert here["read"] - here["read_hit"] <= here["fill"]
        assert here["hits"] <= here["lookups"]
        assert here["back"] == 0 or cache.write == "back"
        assert here["through"] == 0 or cache.write == "through" or not cache.allocate
        sent = here["back"] + here["through"]
        if cache.of == "memory":
            assert here["fill"] == sum(n for _, n, write in runs if not write)
            assert sent == sum(n for _, n, write in runs if write)
            continue
        behind, below = caches[cache.of], counts[cache.of]
        # A cache behind counts whole sectors of its own.
        assert below["read"] >= here["fill"]
        assert below["write"] >= sent
        if cache.sector % behind.sector == 0:
            assert below["read"] == here["fill"]
            assert below["write"] == sent or here["through"] > 0


# A line is fetched, written and sent back while the read that fetches it is still open.
OVERTAKEN = {
    "l0": Cache(of="l1", capacity=48, line=8, ways=3),
    "l1": Cache(
        of="l2", capacity=128, line=32, ways=2, policy="streaming", write="through", allocate=False
    ),
    "l2": Cache(of="memory", capacity=16, line=4, ways=2, policy="random", shared=True),
}

ITS_WORK = [
    ((0, 1, 1, 1), False, 0),
    ((0, 1, 1, 1), False, 1),
    ((7, 3, 34, 328), True, 1),
    ((0, 7, 47, 47), False, 1),
]


@MANY
@given(chains("memory"), accesses)
@example(OVERTAKEN, ITS_WORK)
def test_memory_sees_every_written_byte_and_gave_every_read_one(caches, work):
    """No byte that was written is lost in a cache, and none is read out of thin air."""
    _, runs, flushed = walk_all(caches, work)
    read = set().union(*(bytes_of(window) for window, write, _ in work if not write))
    written = set().union(*(bytes_of(window) for window, write, _ in work if write))
    stored = bytes_in([*runs, *flushed], 1)
    assert written <= stored
    assert read <= bytes_in([*runs, *flushed], 0) | written
    # What is stored was written, or shares a sector with it in some cache.
    widest = max(cache.sector for cache in caches.values())
    assert {byte // widest for byte in stored} <= {byte // widest for byte in written}


@MANY
@given(chains("memory"), accesses)
def test_equal_work_gives_equal_results(caches, work):
    assert walk_all(caches, work) == walk_all(caches, work)
