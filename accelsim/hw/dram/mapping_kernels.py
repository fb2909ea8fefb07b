"""Compiled address maps: bursts to channel, bank, row and column. ``mapping`` specifies them."""

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit
from accelsim.hw.dram.mapping import (
    BANK,
    CHANNEL,
    COLUMN,
    GROUP,
    PSEUDO,
    RANK,
    ROW,
    CompiledMap,
)  # fmt: skip


@njit
def locate(a: CompiledMap, burst: int, digit: NDArray[np.int64]) -> tuple[int, int, int, int, int]:
    """(channel, bank in the channel, row, column, run) of burst number ``burst``.

    ``run`` bursts from here on lie one column after the other in the same row. ``digit`` is
    scratch, one entry per field. Banks are numbered pseudo-channel, rank, group, bank.
    """
    left, above = burst, 0
    for k in range(a.fields.shape[0]):
        which, size = a.fields[k, 0], a.fields[k, 1]
        high = left // size
        digit[which] = left - high * size
        left = high
        if which == CHANNEL:
            above = left
    run = a.sizes[COLUMN] - digit[COLUMN] if a.run_field == COLUMN else 1
    if a.hashed:
        digit[CHANNEL] = permuted(digit[CHANNEL], above, a.sizes[CHANNEL])
        digit[GROUP] = permuted(digit[GROUP], digit[ROW], a.sizes[GROUP])
        digit[BANK] = permuted(digit[BANK], digit[ROW], a.sizes[BANK])
        digit[PSEUDO] = permuted(digit[PSEUDO], digit[ROW], a.sizes[PSEUDO])
    bank = digit[PSEUDO] * a.sizes[RANK] + digit[RANK]
    bank = (bank * a.sizes[GROUP] + digit[GROUP]) * a.sizes[BANK] + digit[BANK]
    return digit[CHANNEL], bank, digit[ROW], digit[COLUMN], run


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
