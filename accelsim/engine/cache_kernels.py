"""What the compiled loop asks of caches: windows are looked up, banks serve what was found."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit_uncounted as njit
from accelsim.hw.cache import kernels as cache_kernels
from accelsim.hw.cache.kernels import Caches, pass_banks, walk

BASE, ROWS, ROW_BYTES, STRIDE, IS_WRITE, CORE, OPERAND = range(7)  # columns of a window
# Columns of the cache counts, as plain numbers for the compiler.
LOOKUPS, READS, WRITES = cache_kernels.LOOKUPS, cache_kernels.READ, cache_kernels.WRITE
READ_HITS, FILLS = cache_kernels.READ_HIT, cache_kernels.FILL
BANKS, WIDTH, INSTANCES = cache_kernels.BANKS, cache_kernels.WIDTH, cache_kernels.INSTANCES
FIRST_BANK = cache_kernels.FIRST_BANK


class CacheLevels(NamedTuple):
    """The caches and what the clock needs beside them, one row per cache."""

    state: Caches
    counts: NDArray[np.int64]
    busy: NDArray[np.int64]
    bank_free: NDArray[np.int64]  # [bank] ticks
    bank_ticks: NDArray[np.int64]  # [bank] for which it has worked
    runs: NDArray[np.int64]
    entry: int  # the cache nearest to the units
    tick: NDArray[np.int64]  # ticks per cycle
    latency: NDArray[np.int64]  # ticks
    walked: NDArray[np.int64]  # [operand] bytes filled when it was last walked, -1 never
    trusted: int  # bytes filled since then up to which a window is taken to be still there
    trusting: NDArray[np.int64]  # [1] bytes of the instruction at work that were taken so


@njit
def look_up(levels: CacheLevels, window: NDArray[np.int64], looked: NDArray[np.int64]) -> int:
    """Pass a window through the caches; how many runs are left for the memory.

    A window that was walked lately is taken to be still there: less than ``trusted`` bytes have
    been filled since.
    """
    counts = levels.counts
    operand, nbytes = window[OPERAND], window[ROWS] * window[ROW_BYTES]
    filled = counts[levels.entry, FILLS]
    known = levels.walked[operand]
    if known >= 0 and window[IS_WRITE] == 0 and filled - known + nbytes <= levels.trusted:
        counts[levels.entry, READS] += nbytes
        counts[levels.entry, READ_HITS] += nbytes
        looked[levels.entry] += nbytes
        levels.trusting[0] += nbytes
        return 0
    caches = counts.shape[0]
    for c in range(caches):
        looked[c] -= counts[c, READS] + counts[c, WRITES]
    used = walk(
        levels.state, levels.entry, window[CORE], window[BASE], window[ROWS], window[ROW_BYTES],
        window[STRIDE], window[IS_WRITE], counts, levels.busy, levels.runs, 0,
    )  # fmt: skip
    for c in range(caches):
        looked[c] += counts[c, READS] + counts[c, WRITES]
    if window[IS_WRITE] == 0:
        levels.walked[operand] = counts[levels.entry, FILLS]
    return used


@njit
def serve(
    levels: CacheLevels,
    core: int,
    looked: NDArray[np.int64],
    served: NDArray[np.int64],
    at: int,
) -> tuple[int, int]:
    """Queue at the banks that an instruction has work for: (end, latency) in ticks.

    ``looked`` are the bytes that it looked up in each cache, ``served`` gets its longest service.
    """
    passed, late = at, 0
    for c in range(levels.tick.shape[0]):
        if looked[c] == 0:
            continue
        late += levels.latency[c]
        shape = levels.state.caches[c]
        first = shape[FIRST_BANK] + (core if shape[INSTANCES] > 1 else 0) * shape[BANKS]
        end = first + shape[BANKS]
        if c == levels.entry and levels.trusting[0] > 0:
            _spread(levels.busy, first, end, levels.trusting[0], shape[WIDTH])
            levels.trusting[0] = 0
        for bank in range(first, end):
            levels.bank_ticks[bank] += levels.busy[bank] * levels.tick[c]
            served[c] = max(served[c], levels.busy[bank] * levels.tick[c])
        done = pass_banks(levels.state, c, core, at, levels.tick[c], levels.busy, levels.bank_free)
        passed = max(passed, done)
    return passed, late


@njit
def _spread(busy: NDArray[np.int64], first: int, end: int, nbytes: int, width: int) -> None:
    """Work of a window that was not walked: the same for all banks."""
    if width > 0:
        each = -(-nbytes // (width * (end - first)))
        for bank in range(first, end):
            busy[bank] += each
