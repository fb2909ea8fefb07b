"""Bank conflicts of 2-D windows: the closed form is the count of every access, bank by bank."""

from collections import Counter
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from accelsim.hw import banks as rooms
from accelsim.hw.banks import busiest_bank
from accelsim.hw.memory import MainMemory
from accelsim.hw.sram import Sram

HZ = 10**9


def counted(base, rows, row_bytes, stride, banks, width):
    """Words on the busiest bank, one access after the other."""
    load = Counter()
    for row in range(rows):
        start = base + row * stride
        if row_bytes:
            for word in range(start // width, (start + row_bytes - 1) // width + 1):
                load[word % banks] += 1
    return max(load.values(), default=0)


def columns(windows):
    return tuple(np.array(column, np.int64) for column in zip(*windows, strict=True))


windows = st.tuples(
    st.integers(0, 500), st.integers(0, 40), st.integers(0, 200), st.integers(0, 300)
)


@settings(max_examples=300, deadline=None)
@given(st.lists(windows, min_size=1, max_size=8), st.integers(1, 9), st.integers(1, 17))
@example([(0, 1000, 4, 128)], 32, 4)
def test_the_busiest_bank_is_the_busiest_when_counted(listed, banks, width):
    expected = [counted(*window, banks, width) for window in listed]
    assert busiest_bank(*columns(listed), banks, width).tolist() == expected
    with mock.patch.object(rooms, "AT_ONCE", 30):
        assert busiest_bank(*columns(listed), banks, width).tolist() == expected


@settings(max_examples=300, deadline=None)
@given(st.lists(windows, min_size=1, max_size=8), st.integers(1, 9), st.integers(1, 17))
def test_conflicts_only_ever_add_time_and_never_to_contiguous_windows(listed, banks, width):
    sram = Sram(capacity=1 << 20, banks=banks, width=width)
    base, rows, row_bytes, stride = columns(listed)
    assert (sram.conflict_cycles(base, rows, row_bytes, stride) >= 0).all()
    assert not sram.conflict_cycles(base, rows, row_bytes, row_bytes).any()
    one = np.minimum(rows, 1)
    assert not sram.conflict_cycles(base, one, row_bytes, stride).any()
    assert np.array_equal(
        sram.window_cycles(base, rows, row_bytes, row_bytes, HZ),
        sram.transfer_cycles(rows * row_bytes, HZ),
    )


@pytest.mark.parametrize(
    ("stride", "cycles"),
    [
        (4, 1),  # one word per bank: contiguous
        (8, 2),  # every other bank: two words on each
        (16, 4),
        (128, 32),  # all rows in one bank
        (132, 1),  # a column of a matrix padded by one word
        (0, 32),  # the same word over and over: no broadcast
    ],
)
def test_a_column_of_words_in_32_banks_of_4_bytes(stride, cycles):
    """The shared memory of a GPU: strides and conflicts as its programming guides have them."""
    sram = Sram(capacity=1 << 16, banks=32, width=4)
    window = columns([(0, 32, 4, stride)])
    assert sram.window_cycles(*window, HZ).tolist() == [cycles]


def test_rows_that_cross_words_touch_one_more():
    sram = Sram(capacity=1 << 16, banks=4, width=8)
    window = columns([(4, 3, 32, 64), (0, 3, 32, 64)])
    assert sram.window_cycles(*window, HZ).tolist() == [6, 3]


def test_memories_without_banks_have_no_conflicts():
    window = columns([(0, 32, 4, 128)])
    assert Sram(capacity=1 << 16, banks=32).window_cycles(*window, HZ).tolist() == [0]
    dram = MainMemory(capacity=1 << 20, bandwidth=HZ, granule=32)
    assert dram.conflict_cycles(*window).tolist() == [0]
    assert dram.window_cycles(*window, HZ).tolist() == [32 * 32]  # whole granules


def test_many_windows_of_few_shapes_are_looked_at_once():
    """Rows that repeat and windows that repeat: counting them all would take minutes."""
    n = 200_000
    window = columns([(64, 1 << 17, 4, 100)])
    many = tuple(np.repeat(column, n) for column in window)
    found = busiest_bank(*many, 32, 4)
    assert len(found) == n
    assert np.unique(found).tolist() == [counted(64, 1 << 17, 4, 100, 32, 4)]
