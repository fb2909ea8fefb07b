"""Bytes per node of an interleaved memory, counted one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.hw.noc.interleave import bytes_per_node

windows = st.tuples(
    st.integers(0, 5000), st.integers(1, 40), st.integers(1, 700), st.integers(0, 900)
)


def counted(window: tuple[int, ...], interleave: int, nodes: int, skewed: bool) -> list[int]:
    base, rows, row_bytes, stride = window
    found = [0] * nodes
    for row in range(rows):
        for byte in range(row_bytes):
            b = (base + row * stride + byte) // interleave
            if skewed:
                b += b // nodes + b // nodes // nodes
            found[b % nodes] += 1
    return found


@given(
    st.lists(windows, min_size=1, max_size=4),
    st.sampled_from([1, 4, 16, 60]),
    st.integers(1, 5),
    st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_every_byte_lies_where_its_address_says(
    many: list[tuple[int, ...]], interleave: int, nodes: int, skewed: bool
) -> None:
    dealt = bytes_per_node(np.array(many, dtype=np.int64), interleave, nodes, skewed)
    assert dealt.tolist() == [counted(window, interleave, nodes, skewed) for window in many]


def test_long_rows_count_whole_turns() -> None:
    window = np.array([[7, 3, 10**9, 2 * 10**9]], dtype=np.int64)
    dealt = bytes_per_node(window, 256, 8, True)[0]
    assert dealt.sum() == 3 * 10**9
    assert dealt.max() - dealt.min() <= 3 * 256 * 8


@pytest.mark.parametrize("turn", [2048, 2048 * 8])
def test_skewed_dealing_spreads_a_column_that_plain_dealing_piles_up(turn: int) -> None:
    column = np.array([[0, 64, 64, turn]], dtype=np.int64)
    assert (bytes_per_node(column, 256, 8, False)[0] > 0).sum() == 1
    assert bytes_per_node(column, 256, 8, True)[0].tolist() == [512] * 8
