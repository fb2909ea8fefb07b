"""What caches must do by reasoning alone, and what they refuse."""

import numpy as np
import pytest

from accelsim.arch.faults import ParameterError
from accelsim.arch.parameters import make_block
from accelsim.errors import AccelsimError
from accelsim.hw import cache as rooms
from accelsim.hw.cache import COUNTS, Cache, check_chains, kernels
from accelsim.hw.memory import MainMemory
from accelsim.hw.sram import Sram

LINE, SECTOR = 128, 32
READ, WRITE = 0, 1


class Chain:
    """Caches under test, the first one entered; runs and counts are those of the last window."""

    def __init__(self, cores=1, **caches):
        self.names = list(caches)
        self.state = rooms.build(caches, cores)
        self.busy = rooms.new_busy(self.state)
        self.counts = rooms.new_counts(self.state)
        self.runs = []

    def walk(self, write, base, rows, row_bytes, stride=None, core=0, entry=0):
        stride = row_bytes if stride is None else stride
        window = (base, rows, row_bytes, stride)
        runs = rooms.new_runs(rooms.most_runs(self.state, entry, *window[1:]))
        self.counts[:] = 0
        self.busy[:] = 0
        used = kernels.walk(
            self.state, entry, core, *window, write, self.counts, self.busy, runs, 0
        )
        self.runs = [tuple(run) for run in runs[:used].tolist()]
        return self

    def __getattr__(self, count):
        return int(self.counts[0, COUNTS.index(count)])

    def of(self, name):
        return dict(zip(COUNTS, self.counts[self.names.index(name)].tolist(), strict=True))


def cache(**parameters):
    """64 lines of four sectors in 16 sets of four."""
    return Cache(**{"of": "hbm", "capacity": 64 * LINE, "sectors": 4, "ways": 4, **parameters})


# -- replacement --------------------------------------------------------------------------------


def test_no_request_overtakes_one_that_it_depends_on():
    """One line of room: what is written is fetched, sent back, and fetched again in one window."""
    l1 = Cache(of="hbm", capacity=32, line=32, ways=1)
    chain = Chain(l1=l1).walk(WRITE, 1, 2, 62, stride=0)  # lines 0, 1, 0, 1, each in part
    fetched = [(0, 32, READ), (32, 32, READ)]
    assert chain.runs == [*fetched, (0, 64, WRITE), *fetched, (0, 32, WRITE)]


def test_a_working_set_of_the_capacity_hits_after_the_first_pass():
    chain = Chain(l1=cache())
    assert chain.walk(READ, 0, 1, 64 * LINE).fill == 64 * LINE
    assert chain.runs == [(0, 64 * LINE, READ)]
    for _ in range(3):
        chain.walk(READ, 0, 1, 64 * LINE)
        assert (chain.hits, chain.read_hit, chain.fill, chain.runs) == (64, 64 * LINE, 0, [])


def test_a_cyclic_sweep_of_one_line_more_always_misses_under_lru():
    """In a set that lacks one way, LRU drops just what comes next."""
    chain = Chain(l1=cache(ways=64))
    for _ in range(4):
        assert chain.walk(READ, 0, 1, 65 * LINE).hits == 0
    chain = Chain(l1=cache(ways=4))  # the one line more shares a set with four others
    chain.walk(READ, 0, 1, 65 * LINE)
    assert chain.walk(READ, 0, 1, 65 * LINE).hits == 60


def test_use_makes_a_line_young_again():
    chain = Chain(l1=cache(capacity=2 * LINE, ways=2))
    for line, hits in ((0, 0), (1, 0), (0, 1), (2, 0), (0, 1), (1, 0)):
        assert chain.walk(READ, line * LINE, 1, 4).hits == hits
    for line, hits in ((0, 1), (3, 0), (0, 1)):
        assert chain.walk(WRITE, line * LINE, 1, SECTOR).hits == hits


def test_random_replacement_keeps_some_of_a_sweep_that_lru_loses():
    """n lines in n - 1 random ways: the miss ratio of a cyclic sweep lies well between 0 and 1."""
    chain = Chain(l1=cache(ways=64, policy="random"))
    hits = [chain.walk(READ, 0, 1, 72 * LINE).hits for _ in range(50)]
    assert 0.5 < np.mean(hits[10:]) / 72 < 0.9


def test_random_replacement_depends_on_the_seed_and_nothing_else():
    def trail(seed):
        state = rooms.build({"l1": cache(policy="random")}, 2, seed)
        counts, busy, runs = rooms.new_counts(state), rooms.new_busy(state), rooms.new_runs(9000)
        for core in (0, 1, 0):
            kernels.walk(state, 0, core, 0, 1, 80 * LINE, 0, READ, counts, busy, runs, 0)
        return state.ways[kernels.TAG].tolist()

    assert trail(1) == trail(1) != trail(2)
    half = len(trail(1)) // 2
    assert trail(1)[:half] != trail(1)[half:]  # every instance draws for itself


def test_random_replacement_picks_every_way_equally():
    """Chi-square with 63 degrees of freedom: 99.9 % lie below 104 (tables); the seed is fixed."""
    state = rooms.build({"l1": cache(ways=64, policy="random")}, 1, 5)
    picked = np.zeros(64)
    counts, busy, runs = rooms.new_counts(state), rooms.new_busy(state), rooms.new_runs(300)
    kernels.walk(state, 0, 0, 0, 1, 64 * LINE, 0, READ, counts, busy, runs, 0)
    for line in range(64, 64 + 6400):
        kernels.walk(state, 0, 0, line * LINE, 1, 1, 0, READ, counts, busy, runs, 0)
        picked[np.flatnonzero(state.ways[kernels.TAG] == line)] += 1
    assert picked.sum() == 6400
    assert 35 < ((picked - 100) ** 2 / 100).sum() < 104


def test_a_stream_leaves_the_resident_set_alone_under_streaming_only():
    """48 lines are used twice, so they stay in three of four ways; a stream uses up the fourth."""
    for policy, kept in (("streaming", 48), ("lru", 0)):
        chain = Chain(l1=cache(policy=policy))
        chain.walk(READ, 0, 1, 48 * LINE)
        chain.walk(READ, 0, 1, 48 * LINE)
        chain.walk(READ, 1 << 20, 1, 4096 * LINE)
        assert chain.walk(READ, 0, 1, 48 * LINE).hits == kept


def test_what_is_written_is_no_stream():
    chain = Chain(l1=cache(policy="streaming"))
    chain.walk(WRITE, 0, 1, 48 * LINE)
    chain.walk(READ, 1 << 20, 1, 4096 * LINE)
    assert chain.walk(READ, 0, 1, 48 * LINE).hits == 48


def test_strides_of_the_set_period_thrash_a_few_sets():
    """16 sets: lines 16 apart share a set of four ways. Eight of them never hit, four always do."""
    chain = Chain(l1=cache())
    for lines, hits in ((8, 0), (4, 4)):
        chain = Chain(l1=cache())
        chain.walk(READ, 0, lines, LINE, stride=16 * LINE)
        assert chain.walk(READ, 0, lines, LINE, stride=16 * LINE).hits == hits
    # Full associativity or a stride prime to the sets has no such conflict.
    for parameters, stride in (({"ways": 64}, 16), ({}, 17)):
        chain = Chain(l1=cache(**parameters))
        chain.walk(READ, 0, 8, LINE, stride=stride * LINE)
        assert chain.walk(READ, 0, 8, LINE, stride=stride * LINE).hits == 8


# -- sectors -------------------------------------------------------------------------------------


def test_a_column_fetches_sectors_not_lines():
    """Two bytes of each of 32 rows of 1 KiB: a sector each, and the next columns hit in it."""
    chain = Chain(l1=cache())
    chain.walk(READ, 0, 32, 2, stride=1024)
    assert (chain.lookups, chain.fill) == (32, 32 * SECTOR)
    assert chain.runs == [(row * 1024, SECTOR, READ) for row in range(32)]
    unsectored = Chain(l1=cache(sectors=1)).walk(READ, 0, 32, 2, stride=1024)
    assert unsectored.fill == 32 * LINE
    narrow = Chain(l1=cache(capacity=256 * LINE))  # 64 sets, of which the rows use every eighth
    narrow.walk(READ, 0, 32, 2, stride=1024)
    assert narrow.walk(READ, 2, 32, 2, stride=1024).hits == 32
    assert narrow.walk(READ, SECTOR, 32, 2, stride=1024).hits == 0  # the line is there, not this


def test_only_the_missing_sectors_are_fetched_and_neighbours_go_together():
    chain = Chain(l1=cache())
    chain.walk(READ, SECTOR, 1, SECTOR)
    chain.walk(READ, 0, 1, 2 * LINE)
    assert (chain.read_hit, chain.fill, chain.hits) == (SECTOR, 2 * LINE - SECTOR, 0)
    assert chain.runs == [(0, SECTOR, READ), (2 * SECTOR, 2 * LINE - 2 * SECTOR, READ)]


def test_rows_that_follow_each_other_are_one_row():
    chain = Chain(l1=cache())
    assert chain.walk(READ, 0, 64, 32, stride=32).lookups == 16
    assert Chain(l1=cache()).walk(READ, 0, 64, 32, stride=33).lookups > 64
    for rows, row_bytes in ((0, 32), (3, 0)):
        assert chain.walk(READ, 0, rows, row_bytes).lookups == 0


# -- writes --------------------------------------------------------------------------------------


def test_write_back_traffic_is_the_dirty_bytes():
    chain = Chain(l1=cache())
    chain.walk(WRITE, 0, 1, 64 * LINE)
    assert (chain.fill, chain.runs) == (0, [])  # sectors written whole are not fetched
    chain.walk(WRITE, 0, 1, 64 * LINE)
    assert (chain.write_hit, chain.runs) == (64 * LINE, [])
    chain.walk(READ, 1 << 20, 1, 48 * LINE)
    assert chain.back == 48 * LINE
    assert (0, 48 * LINE, WRITE) in chain.runs
    runs = rooms.flush(chain.state, chain.counts, chain.busy)
    assert runs.tolist() == [[48 * LINE, 16 * LINE, WRITE]]
    assert chain.back == 64 * LINE
    assert len(rooms.flush(chain.state, chain.counts, chain.busy)) == 0


def test_only_dirty_sectors_are_written_back():
    chain = Chain(l1=cache())
    chain.walk(READ, 0, 1, LINE)
    chain.walk(WRITE, 40, 1, 8)
    assert (chain.write_hit, chain.fill) == (SECTOR, 0)
    chain.walk(READ, 1 << 20, 1, 64 * LINE)
    assert (chain.back, chain.fill) == (SECTOR, 64 * LINE)
    assert sorted(chain.runs) == [(SECTOR, SECTOR, WRITE), (1 << 20, 64 * LINE, READ)]


def test_a_sector_written_in_part_is_fetched_first():
    chain = Chain(l1=cache()).walk(WRITE, 8, 1, 2 * SECTOR)  # ends 8 bytes into the third sector
    assert (chain.fill, chain.through) == (2 * SECTOR, 0)
    assert chain.runs == [(0, SECTOR, READ), (2 * SECTOR, SECTOR, READ)]


@pytest.mark.parametrize("allocate", [True, False])
def test_write_through_sends_every_byte_on_and_keeps_nothing_dirty(allocate):
    chain = Chain(l1=cache(write="through", allocate=allocate))
    for _ in range(2):
        chain.walk(WRITE, 0, 4, 64, stride=256)
        assert chain.through == 256
        assert chain.runs == [(256 * row, 64, WRITE) for row in range(4)]
    assert chain.hits == (4 if allocate else 0)
    assert len(rooms.flush(chain.state, chain.counts, chain.busy)) == 0


def test_without_allocation_what_is_not_there_goes_past_the_cache():
    chain = Chain(l1=cache(allocate=False))
    chain.walk(WRITE, 4, 1, 100)
    assert (chain.runs, chain.through, chain.fill) == ([(4, 100, WRITE)], 100, 0)
    chain.walk(READ, 0, 1, SECTOR)
    chain.walk(WRITE, 4, 1, 100)  # the first sector is there now: its 28 bytes stay
    assert (chain.write_hit, chain.runs) == (SECTOR, [(SECTOR, 72, WRITE)])


# -- chains --------------------------------------------------------------------------------------


def two_levels(**upper):
    return {
        "l1": cache(of="l2", **upper),
        "l2": cache(capacity=1024 * LINE, ways=16, shared=True),
    }


def test_a_second_core_finds_in_the_shared_cache_what_the_first_one_fetched():
    chain = Chain(cores=2, **two_levels())
    chain.walk(READ, 0, 1, 32 * LINE, core=0)
    assert chain.of("l2")["fill"] == 32 * LINE
    chain.walk(READ, 0, 1, 32 * LINE, core=1)
    assert (chain.hits, chain.runs) == (0, [])
    assert chain.of("l2")["read_hit"] == 32 * LINE
    chain.walk(READ, 0, 1, 32 * LINE, core=1)
    assert chain.hits == 32
    assert chain.of("l2")["lookups"] == 0


def test_an_l1_that_overflows_writes_back_into_the_l2():
    chain = Chain(**two_levels())
    chain.walk(WRITE, 0, 1, 256 * LINE)
    assert (chain.back, chain.of("l2")["write"], chain.runs) == (192 * LINE, 192 * LINE, [])
    runs = rooms.flush(chain.state, chain.counts, chain.busy)
    assert runs.tolist() == [[0, 256 * LINE, WRITE]]


def test_a_cache_may_be_entered_behind_the_first():
    chain = Chain(**two_levels()).walk(READ, 0, 1, LINE, entry=1)
    assert chain.lookups == 0
    assert chain.of("l2")["fill"] == LINE


def test_dropping_forgets_clean_lines_of_one_core():
    chain = Chain(cores=2, **two_levels())
    for core in (0, 1):
        chain.walk(READ, 0, 1, 8 * LINE, core=core)
    chain.walk(WRITE, 0, 1, LINE, core=0)
    kernels.drop(chain.state, 0, 0)
    assert chain.walk(READ, 0, 1, 8 * LINE, core=0).hits == 1  # the dirty one
    assert chain.walk(READ, 0, 1, 8 * LINE, core=1).hits == 8


def test_runs_past_the_room_are_counted_and_the_caches_go_on():
    chain = Chain(l1=cache())
    counts, busy, runs = chain.counts, chain.busy, rooms.new_runs(2)
    used = kernels.walk(chain.state, 0, 0, 0, 8, 4, 256, READ, counts, busy, runs, 0)
    assert (used, runs.tolist()) == (8, [[0, SECTOR, READ], [256, SECTOR, READ]])
    assert chain.walk(READ, 0, 8, 4, stride=256).hits == 8


# -- banks ---------------------------------------------------------------------------------------


def banked(**parameters):
    return Chain(l1=cache(capacity=1024 * LINE, banks=16, width=64, **parameters))


def slowest(chain):
    return kernels.slowest_bank(chain.state, 0, 0, chain.busy)


def test_lines_are_interleaved_over_the_banks():
    """64 lines over 16 banks are four each, of two cycles; lines 16 apart share one bank."""
    chain = banked().walk(READ, 0, 1, 64 * LINE)
    assert chain.busy.tolist() == [8] * 16
    assert slowest(chain) == 8
    assert slowest(chain) == 0  # it was taken
    assert slowest(banked().walk(READ, 0, 16, LINE, stride=16 * LINE)) == 32
    assert slowest(banked().walk(READ, 0, 16, 4, stride=16 * LINE)) == 16  # a cycle per lookup


@pytest.mark.parametrize("bank_hash", ["xor", "sum"])
def test_a_hash_spreads_strides_of_the_bank_period(bank_hash):
    """Both hashes are Latin squares: 16 lines in a row, or 16 apart, fall on 16 banks."""
    for stride in (1, 16, 256):
        chain = banked(bank_hash=bank_hash).walk(READ, 0, 16, LINE, stride=stride * LINE)
        assert chain.busy.tolist() == [2] * 16
    # They change where lines are, not whether: the whole capacity still fits.
    chain = banked(bank_hash=bank_hash)
    chain.walk(READ, 0, 1, 1024 * LINE)
    assert chain.walk(READ, 0, 1, 1024 * LINE).hits == 1024


def test_banks_that_are_servers_let_windows_on_other_banks_pass():
    chain, free = banked(), rooms.new_busy(banked().state)
    chain.walk(READ, 0, 4, LINE, stride=16 * LINE)  # bank 0: 8 cycles
    assert kernels.pass_banks(chain.state, 0, 0, 100, 10, chain.busy, free) == 180
    chain.walk(READ, LINE, 1, LINE)  # bank 1: 2 cycles
    assert kernels.pass_banks(chain.state, 0, 0, 100, 10, chain.busy, free) == 120
    chain.walk(READ, 0, 1, 2 * LINE)  # behind both
    assert kernels.pass_banks(chain.state, 0, 0, 100, 10, chain.busy, free) == 200
    assert free[:3].tolist() == [200, 140, 0]


def test_energy_is_counted_by_what_happens_in_the_array():
    l1 = cache(read_pj_per_byte=1.0, write_pj_per_byte=2.0, lookup_pj=3.0)
    chain = Chain(l1=l1)
    chain.walk(WRITE, 0, 1, 64 * LINE)
    assert l1.actions(chain.of("l1")) == {"read_byte": 0, "write_byte": 64 * LINE, "lookup": 64}
    chain.walk(READ, 1 << 20, 1, 64 * LINE)  # 64 lines out, 64 in
    both = {"read_byte": 64 * LINE, "write_byte": 64 * LINE, "lookup": 64}
    assert l1.actions(chain.of("l1")) == both
    assert set(both) == set(l1.energy_pj_per_action())


# -- parameters ----------------------------------------------------------------------------------

GOOD = {"of": "hbm", "capacity": "8 KiB", "ways": 4}


def test_a_cache_is_read_as_an_architecture_file_spells_it():
    read = make_block(
        Cache,
        {**GOOD, "line": "128 B", "width": "64 B", "policy": "streaming", "lookup_pj": "2 pJ"},
        "l2",
    )
    assert (read.capacity, read.line, read.sector, read.sets) == (8192, 128, 128, 16)
    assert (read.kind, read.bytes_per_cycle) == ("cache", 64)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"line": 96}, "l2.line: line must be a power of two of bytes, not 96"),
        ({"sectors": 3}, "sectors must be a power of two of at most 16, not 3"),
        ({"sectors": 32}, "sectors must be a power of two of at most 16, not 32"),
        ({"line": 4, "sectors": 8}, "sectors must be a power of two of at most 4, not 8"),
        ({"ways": 0}, "ways must be 1 to 1048576, not 0"),
        ({"ways": 3}, "capacity 8192 B is no whole number of sets of 3 x 128 B"),
        ({"capacity": 256}, "capacity 256 B is less than one set of 4 x 128 B"),
        ({"banks": 0}, "banks must be at least 1, not 0"),
        ({"banks": 3}, "16 sets do not divide over 3 banks"),
        ({"capacity": 6144, "banks": 12, "bank_hash": "xor"}, "bank_hash xor needs a power of two"),
        ({"width": -1}, "width must not be negative, not -1"),
        ({"latency": -1}, "latency must not be negative, not -1"),
        ({"lookup_pj": -1.0}, "lookup_pj must not be negative, not -1.0"),
        ({"of": ""}, "of is empty"),
        ({"policy": "fifo"}, "'fifo'; accepted: lru, random, streaming"),
        ({"write": "around"}, "'around'; accepted: back, through"),
    ],
)
def test_what_a_cache_cannot_be_is_one_line(wrong, message):
    with pytest.raises(ParameterError) as fault:
        make_block(Cache, {**GOOD, **wrong}, "l2")
    assert message in str(fault.value)
    assert "\n" not in str(fault.value)


def test_a_cache_built_in_python_checks_its_choices_too():
    with pytest.raises(AccelsimError, match="policy must be one of lru, random, streaming, not"):
        cache(policy="fifo").check()


HBM = {"hbm": MainMemory(capacity=1 << 30, bandwidth=1), "spad": Sram(capacity=1 << 20)}


@pytest.mark.parametrize(
    ("caches", "message"),
    [
        ({"l1": cache(of="l1")}, "cache 'l1': of names itself"),
        ({"l1": cache(of="l3")}, "cache 'l1': of names 'l3'; accepted: hbm, spad"),
        ({"l1": cache(of="l2"), "l2": cache(of="l1")}, "caches l1 -> l2 -> l1 form a ring"),
        (
            {"l1": cache(of="l2", shared=True), "l2": cache()},
            "cache 'l1' is shared, but 'l2' behind it exists once per core",
        ),
        (
            {"l1": cache(of="spad", shared=True)},
            "cache 'l1' is shared, but 'spad' behind it exists once per core",
        ),
    ],
)
def test_caches_that_form_no_chain_are_named(caches, message):
    with pytest.raises(AccelsimError) as fault:
        check_chains(caches, HBM)
    assert message in str(fault.value)


def test_caches_that_form_chains_pass():
    check_chains({**two_levels(), "side": cache(of="l2"), "own": cache(of="spad")}, HBM)
    assert rooms.chain_of(two_levels(), "l1") == ("l1", "l2")
    with pytest.raises(AccelsimError, match="unknown cache 'l0'; accepted: l1, l2"):
        rooms.chain_of(two_levels(), "l0")


def test_more_lines_than_a_machine_holds_are_refused():
    with pytest.raises(AccelsimError, match="the caches hold over 268435456 lines"):
        rooms.build({"l1": cache(capacity=1 << 40)}, 1)


def test_counts_are_named_in_the_order_of_the_columns():
    assert [getattr(kernels, name.upper()) for name in COUNTS] == list(range(len(COUNTS)))
