"""What the compiled loop gives to channels whose banks compute: bursts of windows, and products.

What is sent in a tick a channel takes in its next clock (hw/pim/channel/channel_kernels). Channels
that have got the same so far are in the same state: as in ``channel_kernels``, one of them is
simulated, their leader. A product is for one channel alone.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit_uncounted as njit
from accelsim.engine.leader_kernels import follow, heir_of, inherit
from accelsim.hw.dram.mapping import CHANNEL, PSEUDO, CompiledMap
from accelsim.hw.dram.mapping_kernels import bank_in, locate, sweeps
from accelsim.hw.dram.state import ACCEPT_LEFT, DONE_LEFT
from accelsim.hw.pim.channel.channel_kernels import ASLEEP, UNTIL_TOLD, idle, live
from accelsim.hw.pim.channel.fifo_kernels import push
from accelsim.hw.pim.channel.state import (
    AFTER,
    CLOCK,
    END,
    MEMBERS,
    NEVER,
    NONE,
    WRITTEN,
    Channels,
)  # fmt: skip
from accelsim.hw.pim.channel.twin_kernels import (
    add_account,
    alike,
    copy_channel,
    keep_last,
    tally,
)  # fmt: skip

PRODUCT_CHANNEL, ENTRIES_END = 0, 1  # columns of products
UNTOUCHED, CHANGED, AWAKE = range(3)  # of a channel, in a tick


class Banks(NamedTuple):
    """Main memory of ``kind: pim_dram`` at dram fidelity.

    digits   scratch
    nodes    scratch, as long as the pool of nodes
    touched  [channel] CHANGED: its next decision may have; AWAKE: and it has lived up to now
    full     [1] set when the nodes were used up
    product  [instruction, (channel, end of its entries)]: -1 where none
    leader   [channel] the one that is simulated for it, itself perhaps
    account  [channel, word] what it had counted more than its leader when it joined
    """

    state: Channels
    map: CompiledMap
    digits: NDArray[np.int64]
    nodes: NDArray[np.int64]
    tick: int
    latency: int
    touched: NDArray[np.int64]
    full: NDArray[np.int64]
    product: NDArray[np.int64]
    leader: NDArray[np.int64]
    account: NDArray[np.int64]


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
    turn, r = _rows_of_a_turn(a, base, row_bytes, stride), 0
    while r < rows:
        burst = (base + r * stride) // a.column_bytes
        last = (base + r * stride + row_bytes - 1) // a.column_bytes
        if 0 < turn <= rows - r and burst % a.sweep < a.run:
            _, _, row, _, _ = locate(a, burst, banks.digits)
            if _sweep(banks, sender, row, last - burst + 1, write, clock) == 0:
                return 0
            bursts += turn * (last - burst + 1)
            r += turn
            continue
        bursts += last - burst + 1
        while burst <= last:
            n = _send_next(banks, sender, burst, last - burst + 1, write, clock)
            if n == 0:
                banks.full[0] = 1
                return 0
            burst += n
        r += 1
    banks.state.transfers[sender, ACCEPT_LEFT] += bursts
    banks.state.transfers[sender, DONE_LEFT] += bursts
    return bursts * a.column_bytes


@njit
def _rows_of_a_turn(a: CompiledMap, base: int, row_bytes: int, stride: int) -> int:
    """How many rows of a window go to the same place of one channel after the other until all have
    had theirs; 0 if they do not."""
    run = a.run * a.column_bytes
    if a.sweep == 0 or a.lanes > 1 or stride != run or base % run + row_bytes > run:
        return 0
    return int(a.sweep // a.run)


@njit
def _send_next(banks: Banks, sender: int, burst: int, left: int, write: int, clock: int) -> int:
    """Send the next of ``left`` bursts that go to one row, or to the same row of all channels, as
    many to each; how many, 0 if there was no room."""
    a = banks.map
    c, bank, row, _, run = locate(a, burst, banks.digits)
    if a.lanes == 1 and sweeps(a, burst, left, banks.digits) > 0:
        return _sweep(banks, sender, row, a.run, write, clock) * a.run
    run = min(run, left)
    if not _alone(banks, c):
        return 0
    _wake(banks, c, clock)
    return run if push(banks.state, c, sender, bank, row, run, write) else 0


@njit
def _sweep(banks: Banks, sender: int, row: int, each: int, write: int, clock: int) -> int:
    """Send as many bursts to every pseudo-channel of every channel, from the one located last; how
    many pseudo-channels there are, 0 if there was no room."""
    a = banks.map
    _join(banks, clock)
    for pseudo in range(a.sizes[PSEUDO]):
        bank = bank_in(a, banks.digits, pseudo)
        for c in range(a.sizes[CHANNEL]):
            if banks.leader[c] != c:
                continue
            _wake(banks, c, clock)
            if not push(banks.state, c, sender, bank, row, each, write):
                banks.full[0] = 1
                return 0
    return int(a.sweep // a.run)


@njit
def command(banks: Banks, sender: int, at: int) -> bool:
    """Give a channel the commands of an instruction's product; whether it has one."""
    c = banks.product[sender, PRODUCT_CHANNEL]
    if c < 0:
        return False
    if not _alone(banks, c):
        banks.full[0] = 1
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
    if banks.touched[c] < AWAKE:
        banks.touched[c] = AWAKE
        s = banks.state.word[c]
        if idle(banks.state, c):
            live(banks.state, c, clock, ASLEEP)
        s[CLOCK] = min(s[CLOCK], clock)


@njit
def decide(banks: Banks, limit: int) -> None:
    """Let all channels live up to a clock, or until one has something to tell."""
    live(banks.state, NONE, min(NEVER - 1, limit), UNTIL_TOLD)


@njit
def next_clock(banks: Banks) -> int:
    """When the first of all channels acts next; NEVER if nothing waits anywhere."""
    k, first = banks.state, NEVER
    for c in range(banks.touched.shape[0]):
        if banks.touched[c] != UNTOUCHED:
            banks.touched[c] = UNTOUCHED
            waits = banks.leader[c] == c and not idle(k, c)
            k.due[c] = k.word[c, CLOCK] if waits else NEVER
        first = min(first, k.due[c])
    return int(first)


# --- leaders


@njit
def _join(banks: Banks, clock: int) -> None:
    """Let leaders that have nothing to do follow others in the same state."""
    k, leader, waiting = banks.state, banks.leader, banks.nodes
    count = 0
    for c in range(leader.shape[0]):
        if leader[c] != c or k.word[c, MEMBERS] == leader.shape[0] or not idle(k, c):
            continue
        _wake(banks, c, clock)
        joins = False
        for n in range(count):
            if alike(k, waiting[n], c, clock):
                _follow(banks, c, waiting[n])
                joins = True
                break
        if not joins:
            waiting[count] = c
            count += 1


@njit
def _follow(banks: Banks, c: int, other: int) -> None:
    """Channel c and those that follow it get another leader, in the same state."""
    more = banks.account[c]
    for word in range(more.shape[0]):
        more[word] = 0
    tally(banks.state, c, more, 1)
    tally(banks.state, other, more, -1)
    keep_last(banks.state, c, other)
    follow(banks.leader, banks.account, c, other)
    banks.state.word[other, MEMBERS] += banks.state.word[c, MEMBERS]


@njit
def _alone(banks: Banks, c: int) -> bool:
    """Simulate a channel for itself from now on; False, and nothing done, when there is no room."""
    k, lead, heir = banks.state, banks.leader[c], heir_of(banks.leader, c)
    if heir < 0:
        return True
    if not copy_channel(k, lead, heir, banks.nodes):
        return False
    add_account(k, heir, banks.account[heir])
    members = k.word[lead, MEMBERS] - 1
    k.word[lead, MEMBERS] = 1 if lead == c else members
    k.word[heir, MEMBERS] = members if lead == c else 1
    inherit(banks.leader, banks.account, c, heir)
    banks.touched[heir] = max(banks.touched[lead], CHANGED)
    return True


@njit
def part_all_banks(banks: Banks) -> None:
    """Give every channel a record of its own again, with what it has counted."""
    for c in range(banks.leader.shape[0]):
        _alone(banks, c)
