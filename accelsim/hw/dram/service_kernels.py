"""Compiled count of what a window asks of channels, banks and ranks. See ``service``."""

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit
from accelsim.hw.dram.mapping import BANK, GROUP, PSEUDO, RANK, CompiledMap
from accelsim.hw.dram.mapping_kernels import locate

BURST, SAME_GROUP, SAME_BANK, ACTIVATES = range(4)  # costs, in clocks
OPEN_ROW, ROWS, BURSTS = range(3)  # columns of the work of a bank
NO_ROW = -1


@njit
def service_clocks(
    a: CompiledMap,
    rows: int,
    row_bytes: int,
    stride: int,
    most: int,
    cost: NDArray[np.float64],
    work: NDArray[np.int64],
    digits: NDArray[np.int64],
) -> tuple[float, int]:
    """(clocks of the part that is busy longest, bytes) of a window from address 0.

    Of the first rows only where it has more than ``most`` bursts. Scratch: ``work`` is zeros for
    the banks of all channels, columns as above.
    """
    in_channel = a.sizes[BANK] * a.sizes[GROUP] * a.sizes[RANK] * a.sizes[PSEUDO]
    work[:, OPEN_ROW] = NO_ROW
    bursts, moved = 0, 0
    for r in range(rows):
        first = r * stride
        end = min(first + row_bytes, (first // a.column_bytes + most) * a.column_bytes)
        moved += end - first
        for burst in range(first // a.column_bytes, (end - 1) // a.column_bytes + 1):
            c, bank, row, _, _ = locate(a, burst, digits)
            b = c * in_channel + bank
            if work[b, OPEN_ROW] != row:
                work[b, OPEN_ROW] = row
                work[b, ROWS] += 1
            work[b, BURSTS] += 1
            bursts += 1
        if bursts >= most:
            break
    return _busiest(work, a, cost), moved


@njit
def _busiest(work: NDArray[np.int64], a: CompiledMap, cost: NDArray[np.float64]) -> float:
    """Clocks of the bank, bank group, rank or pseudo-channel that has most to do."""
    in_group = a.sizes[BANK]
    in_rank = in_group * a.sizes[GROUP]
    in_pseudo = in_rank * a.sizes[RANK]
    clocks = 0.0
    of_group, of_rank, of_pseudo = 0, 0, 0
    for b in range(work.shape[0]):
        if b % in_group == 0:
            of_group = 0
        if b % in_rank == 0:
            of_rank = 0
        if b % in_pseudo == 0:
            of_pseudo = 0
        of_group += work[b, BURSTS]
        of_rank += work[b, ROWS]
        of_pseudo += work[b, BURSTS]
        clocks = max(clocks, work[b, ROWS] * cost[SAME_BANK], of_group * cost[SAME_GROUP])
        clocks = max(clocks, of_rank * cost[ACTIVATES], of_pseudo * cost[BURST])
    return clocks
