"""What the compiled loop gives to channels whose banks compute: bursts of windows, and products.

What is sent in a tick a channel takes in its next clock (hw/pim/channel/channel_kernels).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit_uncounted as njit
from accelsim.hw.dram.mapping import CompiledMap
from accelsim.hw.dram.mapping_kernels import locate
from accelsim.hw.dram.state import ACCEPT_LEFT, DONE_LEFT
from accelsim.hw.pim.channel.channel_kernels import ASLEEP, UNTIL_TOLD, idle, live
from accelsim.hw.pim.channel.fifo_kernels import push
from accelsim.hw.pim.channel.state import AFTER, CLOCK, END, NEVER, WRITTEN, Channels

CHANNEL, ENTRIES_END = 0, 1  # columns of products


class Banks(NamedTuple):
    """Main memory of ``kind: pim_dram`` at dram fidelity.

    digits   scratch
    first    agent number of channel 0
    touched  [channel] 1: something was given, its next decision may have changed
    full     [1] set when the nodes were used up
    product  [instruction, (channel, end of its entries)]: -1 where none
    """

    state: Channels
    map: CompiledMap
    digits: NDArray[np.int64]
    tick: int
    latency: int
    touched: NDArray[np.int64]
    full: NDArray[np.int64]
    product: NDArray[np.int64]


@njit
def send_to_banks(
    banks: Banks,
    sender: int,
    base: int,
    rows: int,
    row_bytes: int,
    stride: int,
    write: int,
    at: int,
) -> int:
    """Send a window to its channels in address order; the bytes that this moves."""
    a, clock, bursts = banks.map, at // banks.tick + 1, 0
    if stride == row_bytes:
        row_bytes *= rows
        rows = 1
    for r in range(rows):
        burst = (base + r * stride) // a.column_bytes
        last = (base + r * stride + row_bytes - 1) // a.column_bytes
        bursts += last - burst + 1
        while burst <= last:
            c, bank, row, _, run = locate(a, burst, banks.digits)
            count = min(run, last - burst + 1)
            _wake(banks, c, clock)
            if not push(banks.state, c, sender, bank, row, count, write):
                banks.full[0] = 1
                return 0
            burst += count
    banks.state.transfers[sender, ACCEPT_LEFT] += bursts
    banks.state.transfers[sender, DONE_LEFT] += bursts
    return bursts * a.column_bytes


@njit
def command(banks: Banks, sender: int, at: int) -> bool:
    """Give a channel the commands of an instruction's product; whether it has one."""
    c = banks.product[sender, CHANNEL]
    if c < 0:
        return False
    _wake(banks, c, at // banks.tick + 1)
    s = banks.state.word[c]
    first, s[END] = s[END], banks.product[sender, ENTRIES_END]
    banks.state.entry[first, AFTER] = s[WRITTEN]
    banks.state.transfers[sender, ACCEPT_LEFT] += s[END] - first
    banks.state.transfers[sender, DONE_LEFT] += s[END] - first
    return True


@njit
def _wake(banks: Banks, c: int, clock: int) -> None:
    """Let a channel live the clocks before one in which something is given to it."""
    if banks.touched[c] == 0:
        banks.touched[c] = 1
        s = banks.state.word[c]
        if idle(banks.state, c):
            live(banks.state, c, clock, ASLEEP)
        s[CLOCK] = min(s[CLOCK], clock)


@njit
def decide(banks: Banks, c: int, limit: int) -> None:
    """Let a channel live up to a clock, for one at least, or until it has something to tell."""
    least = banks.state.word[c, CLOCK] + 1
    live(banks.state, c, min(NEVER - 1, max(limit, least)), UNTIL_TOLD)


@njit
def next_clock(banks: Banks, c: int) -> int:
    """When a channel decides next; NEVER if nothing waits there."""
    return NEVER if idle(banks.state, c) else int(banks.state.word[c, CLOCK])
