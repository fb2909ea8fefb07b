"""Bank conflicts: how many accesses of a 2-D window fall on its busiest bank.

Words of ``width`` bytes are interleaved over ``banks``: word w lies in bank w mod banks. A window
reads or writes the words that each of its rows touches, row by row, and a bank serves one word per
cycle, so the window takes as many cycles as its busiest bank has words.

Rows repeat the banks of earlier rows after banks x width / gcd(stride, banks x width) of them, so
no more rows than that are looked at.
"""

from __future__ import annotations

import numpy as np

from accelsim.hw.block import Ints

AT_ONCE = 1 << 20
"""Rows and banks that are looked at together, so that memory stays small."""


def busiest_bank(
    base: Ints, rows: Ints, row_bytes: Ints, stride: Ints, banks: int, width: int
) -> Ints:
    """Words on the busiest bank of every window; 0 for windows without bytes."""
    period = banks * width
    windows = [base % period, stride % period, rows, np.where(rows > 0, row_bytes, 0)]
    # Programs repeat a few shapes many times.
    kind = np.zeros(len(base), np.int64)
    for column in windows:
        values, code = np.unique(column, return_inverse=True)
        _, kind = np.unique(kind * len(values) + code.reshape(-1), return_inverse=True)
    _, example = np.unique(kind, return_index=True)
    start, step, rows, row_bytes = (column[example] for column in windows)
    patterns = np.minimum(rows, period // np.gcd(step, period))
    cost = np.cumsum(patterns + 2 * banks) // AT_ONCE
    busiest = np.empty(len(example), np.int64)
    for turn in np.unique(cost):
        now = cost == turn
        busiest[now] = _busiest(
            start[now], step[now], rows[now], row_bytes[now], patterns[now], banks, width
        )
    found: Ints = busiest[kind.reshape(-1)]
    return found


def _busiest(
    start: Ints, step: Ints, rows: Ints, row_bytes: Ints, patterns: Ints, banks: int, width: int
) -> Ints:
    """``busiest_bank`` of windows whose rows have ``patterns`` different first bytes."""
    window = np.repeat(np.arange(len(start)), patterns)
    row = np.arange(len(window)) - np.repeat(np.cumsum(patterns) - patterns, patterns)
    times = rows[window] // patterns[window] + (row < rows[window] % patterns[window])
    at = (start[window] + row * step[window]) % (banks * width)
    first = at // width
    words = np.where(row_bytes[window] > 0, (at + row_bytes[window] - 1) // width - first + 1, 0)
    # Whole turns over the banks load all alike; what is left is a range that may wrap around.
    everywhere = np.zeros(len(start), np.int64)
    np.add.at(everywhere, window, times * (words // banks))
    change = np.zeros((len(start), 2 * banks), np.int64)
    np.add.at(change, (window, first), times)
    np.add.at(change, (window, first + words % banks), -times)
    load = np.cumsum(change, axis=1)
    most: Ints = everywhere + (load[:, :banks] + load[:, banks:]).max(axis=1)
    return most
