"""Small caches of every kind, and chains of them, for tests to draw."""

from hypothesis import strategies as st

from accelsim.hw.cache import Cache


@st.composite
def chains(draw, memory):
    """One to three levels of a few lines each before ``memory``, the last ones shared; often one
    shared LRU cache."""
    depth = draw(st.sampled_from([1, 1, 1, 2, 3]))
    private = draw(st.integers(0, depth))
    names = [f"l{i}" for i in range(depth)]
    return {
        name: draw(some_cache(of, shared=i >= private))
        for i, (name, of) in enumerate(zip(names, [*names[1:], memory], strict=True))
    }


@st.composite
def some_cache(draw, of, shared):
    line, banks = 1 << draw(st.integers(2, 7)), draw(st.sampled_from([1, 2, 4]))
    ways = draw(st.integers(1, 6))
    return Cache(
        of=of,
        capacity=line * ways * banks * draw(st.sampled_from([1, 2, 3, 8])),
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
