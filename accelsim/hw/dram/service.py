"""How long channels need for a window at least, by where its bursts lie: what tile choices ask.

A 2-D window of short rows seldom loads all channels alike: a stride may leave some out, rows that
start inside a burst move more bytes than they hold, and a few bursts of a row do not pay for its
activation. The window takes as long as the part of the memory that is busy longest:

    max(bursts of a pseudo-channel x burst, bursts of a bank group x tCCD_L,
        rows of a bank x tRC, rows of a rank x max(tRRD, tFAW / 4))

Order, read latency, refresh and other traffic are left out.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from accelsim.hw.dram.mapping import LANE

if TYPE_CHECKING:
    from accelsim.hw.block import Ints
    from accelsim.hw.dram.block import Dram

MOST_BURSTS = 8192
"""Bursts of a window that are looked at; patterns of rows repeat long before."""


def slowdown(dram: Dram, rows: Ints, row_bytes: Ints, stride: int) -> npt.NDArray[np.float64]:
    """How much longer windows take than their bytes at the peak of all channels.

    Windows of ``rows`` rows of ``row_bytes`` bytes, ``stride`` apart, from address 0.
    """
    shapes, of = np.unique(np.stack([rows, row_bytes]), axis=1, return_inverse=True)
    found = [_of_window(dram, int(r), int(nbytes), stride) for r, nbytes in shapes.T]
    return np.array(found)[of.reshape(-1)]


@lru_cache(maxsize=65536)
def _of_window(dram: Dram, rows: int, row_bytes: int, stride: int) -> float:
    from accelsim.hw.dram.service_kernels import service_clocks

    part = dram.part
    t, parts = part.timings, part.organization
    if stride == row_bytes:
        rows, row_bytes = 1, rows * row_bytes
    cost = np.array(
        [
            max(t["burst_cycles"], t["tCCD_S"]),
            t["tCCD_L"],
            t["tRC"],
            max(t["tRRD_S"], t["tFAW"] / 4),
        ],
        np.float64,
    )
    banks = dram.channels * parts.channel_banks
    clocks, nbytes = service_clocks(
        dram.address_map.compiled, rows, row_bytes, stride, MOST_BURSTS, cost,
        np.zeros((banks, 3), np.int64), np.zeros(LANE + 1, np.int64),
    )  # fmt: skip
    return float(clocks * dram.bandwidth / part.clock_hz / nbytes)
