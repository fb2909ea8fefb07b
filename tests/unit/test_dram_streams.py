"""Request streams: bit-exact with the rules that define them, and trace files line by line."""

import numpy as np
import pytest

from accelsim.errors import AccelsimError
from accelsim.hw.dram.streams import (
    STREAMS,
    Extent,
    Requests,
    check_inside,
    make_stream,
    read_trace,
    splitmix64,
)

MASK = (1 << 64) - 1
EXTENTS = (
    Extent(64, 1 << 17, 16 << 30),
    Extent(32, 3 * 4096, 3 * 4096 * 1000),  # no power of two
    Extent(32, 1 << 15, 1 << 19),  # everything wraps
)


def one_at_a_time(seed):
    """splitmix64 as published: a state that is counted up and mixed."""
    state = seed
    while True:
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        yield z ^ (z >> 31)


def expected(name, requests, extent, seed):
    """The streams as a loop says them."""
    window = min(extent.capacity_bytes, 1 << 30)
    rows = extent.capacity_bytes // extent.row_span_bytes
    random, reads, writes = one_at_a_time(seed), 0, 0
    for i in range(requests):
        write = name == "seq_write" or (name.startswith("mix21") and i % 3 == 2)
        if name.startswith("seq"):
            address = i * extent.burst_bytes % extent.capacity_bytes
        elif name == "strided":
            address = i % rows * extent.row_span_bytes
        elif name == "mix21_seq" and write:
            address, writes = window // 2 + writes * extent.burst_bytes, writes + 1
        elif name == "mix21_seq":
            address, reads = reads * extent.burst_bytes, reads + 1
        else:
            address = next(random) % (window // extent.burst_bytes) * extent.burst_bytes
        yield address, write


def test_splitmix64_gives_the_published_numbers():
    # The first outputs for seed 1234567 of the authors' C code (prng.di.unimi.it/splitmix64.c).
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert splitmix64(4, 1234567).tolist() == known


@pytest.mark.parametrize("seed", [0, 42, MASK])
def test_splitmix64_for_extreme_seeds(seed):
    source = one_at_a_time(seed)
    assert splitmix64(100, seed).tolist() == [next(source) for _ in range(100)]


@pytest.mark.parametrize("extent", EXTENTS)
@pytest.mark.parametrize("name", STREAMS)
def test_streams_follow_their_rules(name, extent):
    made = make_stream(name, 1000, extent, seed=7)
    assert list(zip(made.address.tolist(), made.write.tolist(), strict=True)) == list(
        expected(name, 1000, extent, 7)
    )
    assert made.clock is None


def test_a_seed_changes_random_streams_only():
    for name in STREAMS:
        first, second = (make_stream(name, 100, EXTENTS[0], seed) for seed in (1, 2))
        same = np.array_equal(first.address, second.address)
        assert same == ("rand" not in name)


@pytest.mark.parametrize(
    ("name", "requests", "seed", "said"),
    [
        ("seq_reed", 10, 0, "did you mean 'seq_read'"),
        ("seq_read", 0, 0, "0 requests; accepted: 1 or more"),
        ("seq_read", -3, 0, "-3 requests; accepted: 1 or more"),
        ("rand_read", 10, -1, "seed -1 is out of range"),
        ("rand_read", 10, 1 << 64, "accepted: 0 to 2**64 - 1"),
        ("mix21_seq", 100_000, 0, "past the capacity; accepted: addresses below 0x80000"),
    ],
)
def test_bad_streams(name, requests, seed, said):
    with pytest.raises(AccelsimError) as caught:
        make_stream(name, requests, EXTENTS[2], seed)
    assert said in str(caught.value)


def test_the_first_request_outside_is_named():
    requests = Requests("mine", np.array([0, 64, 1 << 20, 1 << 21]), np.zeros(4, np.bool_))
    check_inside(requests, (1 << 21) + 1)
    with pytest.raises(AccelsimError, match="stream mine: request 2 at 0x100000 is past"):
        check_inside(requests, 1 << 20)


def trace(tmp_path, text):
    file = tmp_path / "a.trc"
    file.write_text(text)
    return file


def test_all_trace_formats(tmp_path):
    file = trace(
        tmp_path,
        "# a comment\n0x40 READ 0\n0x80 WRITE 5 # one more\n\nR 0xc0\nw 256\nLD 320\nST 384\n"
        "0x1c0 read\n",
    )
    found = read_trace(file)
    assert found.address.tolist() == [0x40, 0x80, 0xC0, 256, 320, 384, 0x1C0]
    assert found.write.tolist() == [False, True, False, True, False, True, False]
    assert found.clock.tolist() == [0, 5, 5, 5, 5, 5, 5]
    assert read_trace(file, 2).address.tolist() == [0x40, 0x80]
    assert read_trace(trace(tmp_path, "R 0\n0x40 READ 0\n")).clock is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0x40", "a.trc:2: '0x40' is no request; accepted: 0xADDR READ|WRITE [CLOCK]"),
        ("0x40 FETCH", "a.trc:2: '0x40 FETCH' is no request"),
        ("R 0x40 7", "a.trc:2: 'R 0x40 7' is no request"),
        ("R", "a.trc:2: 'R' is no request"),
        ("R zero", "a.trc:2: address 'zero' is no number"),
        ("-64 READ", "a.trc:2: address -64 is out of range; accepted: 0 to 2**62 - 1"),
        ("R 0xffffffffffffffffff", "a.trc:2: address 0xffffffffffffffffff is out of range"),
        ("0x40 READ soon", "a.trc:2: clock 'soon' is no number"),
        ("0x40 READ 9000000000000000000", "a.trc:2: clock 9000000000000000000 is out of range"),
        ("0x40 READ 3", "a.trc:2: clock 3 is before the one above; accepted: 9 or later"),
        ("0x40 READ 10 1", "a.trc:2: '0x40 READ 10 1' is no request"),
    ],
)
def test_bad_trace_lines(tmp_path, line, said):
    with pytest.raises(AccelsimError) as caught:
        read_trace(trace(tmp_path, f"0 READ 9\n{line}\n"))
    assert said in str(caught.value)


def test_bad_trace_files(tmp_path):
    with pytest.raises(AccelsimError, match="no request in it"):
        read_trace(trace(tmp_path, "# nothing\n"))
    with pytest.raises(AccelsimError, match="No such file"):
        read_trace(tmp_path / "nowhere.trc")
    (tmp_path / "binary.trc").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(AccelsimError, match="is not text"):
        read_trace(tmp_path / "binary.trc")
