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
    digit[COLUMN] = 0
    for k in range(a.fields.shape[0]):
        which, size = a.fields[k, 0], a.fields[k, 1]
        high = left // size
        low = left - high * size
        digit[which] = digit[which] + low * a.fields[k, 2] if which == COLUMN else low
        left = high
        if which == CHANNEL:
            above = left
    lane = digit[GROUP] if a.lanes > 1 else 0
    digit[LANE] = lane
    run = (a.run - digit[COLUMN] % a.run) * a.lanes - lane
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
def sweeps(a: CompiledMap, burst: int, bursts: int, digit: NDArray[np.int64]) -> int:
    """How many times ``bursts`` from the one located last on visit all pseudo-channels of a row.

    Every visit is to ``a.run`` columns of every bank group, in the same rows everywhere.
    """
    if a.sweep == 0 or burst % a.sweep != 0:
        return 0
    return int(min(bursts // a.sweep, (a.sizes[COLUMN] - digit[COLUMN]) // a.run))


@njit
def bank_in(a: CompiledMap, digit: NDArray[np.int64], pseudo: int) -> int:
    """The bank located last, in another pseudo-channel of its channel, which becomes the last."""
    digit[PSEUDO] = pseudo
    return _bank(a, digit, digit[GROUP])


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
