"""Compiled address maps: bursts to channel, bank, row and column. ``mapping`` specifies them."""

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit
from accelsim.hw.dram.mapping import (
    BANK,
    CHANNEL,
    COLUMN,
    GROUP,
    LANE,
    PSEUDO,
    RANK,
    ROW,
    CompiledMap,
)  # fmt: skip


@njit
def locate(a: CompiledMap, burst: int, digit: NDArray[np.int64]) -> tuple[int, int, int, int, int]:
    """(channel, bank in the channel, row, column, run) of burst number ``burst``.

    ``run`` bursts from here on lie one column after the other in the same row; over ``a.lanes``
    bank groups, if that is more than one, they take turns in columns of the same row: see
    ``lane_banks``. ``digit`` is scratch, one entry per field and one for the lane. Banks are
    numbered pseudo-channel, rank, group, bank.
    """
    left, above = burst, 0
    for k in range(a.fields.shape[0]):
        which, size = a.fields[k, 0], a.fields[k, 1]
        high = left // size
        digit[which] = left - high * size
        left = high
        if which == CHANNEL:
            above = left
    lane = digit[GROUP] if a.lanes > 1 else 0
    digit[LANE] = lane
    run = (a.sizes[COLUMN] - digit[COLUMN]) * a.lanes - lane if a.run_field == COLUMN else 1
    if a.hashed:
        digit[CHANNEL] = permuted(digit[CHANNEL], above, a.sizes[CHANNEL])
        digit[GROUP] = permuted(digit[GROUP], digit[ROW], a.sizes[GROUP])
        digit[BANK] = permuted(digit[BANK], digit[ROW], a.sizes[BANK])
        digit[PSEUDO] = permuted(digit[PSEUDO], digit[ROW], a.sizes[PSEUDO])
    return digit[CHANNEL], _bank(a, digit, digit[GROUP]), digit[ROW], digit[COLUMN], run


@njit
def lane_banks(a: CompiledMap, digit: NDArray[np.int64], banks: NDArray[np.int64]) -> int:
    """The banks of ``a.lanes`` bursts from the one located last on; how many are in its column."""
    size, lane = a.sizes[GROUP], digit[LANE]
    shift = permuted(0, digit[ROW], size) if a.hashed else 0
    binary = size & (size - 1) == 0
    for k in range(size):
        group = (lane + k) % size
        group = group ^ shift if binary else (group + shift) % size
        banks[k] = _bank(a, digit, group)
    return int(size - lane)


@njit
def _bank(a: CompiledMap, digit: NDArray[np.int64], group: int) -> int:
    bank = digit[PSEUDO] * a.sizes[RANK] + digit[RANK]
    return int((bank * a.sizes[GROUP] + group) * a.sizes[BANK] + digit[BANK])


@njit
def permuted(digit: int, by: int, size: int) -> int:
    """A digit in base ``size``, its value exchanged according to the digits of ``by``."""
    if size > 1:
        binary = size & (size - 1) == 0
        while by > 0:
            high = by // size
            low = by - high * size
            digit = digit ^ low if binary else (digit + low) % size
            by = high
    return digit
