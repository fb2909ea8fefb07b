"""What the compiled loop sends to DRAM channels: windows, cut into the bursts of each channel.

Channels that have got the same so far are in the same state. Of those only one is simulated, their
leader (see ``hw.dram.twin_kernels``): memories interleave neighbouring addresses over all channels,
so that large transfers go to all of them alike.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit_uncounted as njit
from accelsim.engine.leader_kernels import follow, heir_of, inherit
from accelsim.hw.dram.fifo_kernels import push, push_stripe
from accelsim.hw.dram.mapping import CHANNEL, PSEUDO, CompiledMap
from accelsim.hw.dram.mapping_kernels import bank_in, lane_banks, locate, sweeps
from accelsim.hw.dram.state import (
    ACCEPT_LEFT,
    DONE_LEFT,
    IDLE_CLOCK,
    MEMBERS,
    NEVER,
    Memory,
)
from accelsim.hw.dram.twin_kernels import add_account, alike, copy_channel, tally
from accelsim.hw.dram.window_kernels import advance


class Channels(NamedTuple):
    """Main memory at dram fidelity.

    digits, banks, nodes  scratch
    first     agent number of channel 0
    touched   [channel] 1: bursts were pushed, its next decision may have changed
    full      [1] set when the pool of nodes was used up
    leader    [channel] the one that is simulated for it, itself perhaps
    account   [channel, word] what it had counted more than its leader when it joined
    """

    state: Memory
    map: CompiledMap
    digits: NDArray[np.int64]
    banks: NDArray[np.int64]
    nodes: NDArray[np.int64]
    tick: int
    latency: int
    first: int
    touched: NDArray[np.int64]
    full: NDArray[np.int64]
    leader: NDArray[np.int64]
    account: NDArray[np.int64]


@njit
def send(
    channels: Channels,
    transfer: int,
    base: int,
    rows: int,
    row_bytes: int,
    stride: int,
    write: int,
    at: int,
) -> int:
    """Send a window to its channels in address order; the bytes that this moves."""
    m, a = channels.state, channels.map
    clock = -(-at // channels.tick)
    if stride == row_bytes:
        row_bytes *= rows
        rows = 1
    bursts = 0
    for r in range(rows):
        burst = (base + r * stride) // a.column_bytes
        last = (base + r * stride + row_bytes - 1) // a.column_bytes
        bursts += last - burst + 1
        while burst <= last:
            n = _send_next(channels, transfer, burst, last - burst + 1, write, clock)
            if n == 0:
                channels.full[0] = 1
                return 0
            burst += n
    m.transfers[transfer, ACCEPT_LEFT] += bursts
    m.transfers[transfer, DONE_LEFT] += bursts
    return bursts * a.column_bytes


@njit
def _send_next(
    channels: Channels, transfer: int, burst: int, left: int, write: int, clock: int
) -> int:
    """Send the next of ``left`` bursts that go to one row; how many, 0 if there was no room.

    Or those that go to the same row of all channels, as many to each: in which order the channels
    get theirs at one clock makes no difference.
    """
    m, a = channels.state, channels.map
    digits = channels.digits
    c, bank, row, column, run = locate(a, burst, digits)
    visits = sweeps(a, burst, left, digits)
    if visits > 0:
        return _sweep(channels, transfer, row, column, visits, write, clock)
    run = min(run, left)
    if m.state[channels.leader[c], MEMBERS] > 1 and not stand_alone(channels, c):
        return 0
    here = lane_banks(a, digits, channels.banks) if a.lanes > 1 else 0
    done = _push(channels, c, transfer, bank, here, row, column, run, write, clock)
    return run if done else 0


@njit
def _sweep(
    channels: Channels, transfer: int, row: int, column: int, visits: int, write: int, clock: int
) -> int:
    """Send as many bursts to every pseudo-channel of every channel, from the one located last."""
    a = channels.map
    digits = channels.digits
    each = visits * a.run * a.lanes
    _join(channels, clock)
    for pseudo in range(a.sizes[PSEUDO]):
        bank = bank_in(a, digits, pseudo)
        here = lane_banks(a, digits, channels.banks) if a.lanes > 1 else 0
        for c in range(a.sizes[CHANNEL]):
            if channels.leader[c] != c:
                continue
            if not _push(channels, c, transfer, bank, here, row, column, each, write, clock):
                return 0
    return int(visits * a.sweep)


@njit
def _push(
    channels: Channels,
    c: int,
    transfer: int,
    bank: int,
    here: int,
    row: int,
    column: int,
    count: int,
    write: int,
    clock: int,
) -> bool:
    """Push a run of one bank, or a stripe over the banks of the lanes, ``here`` of them first."""
    m = channels.state
    channels.touched[c] = 1
    if channels.map.lanes == 1:
        return push(m, c, transfer, bank, row, column, count, 1, write, clock)
    return push_stripe(m, c, transfer, channels.banks, here, row, column, count, write, clock)


# --- leaders


@njit
def live(channels: Channels, c: int, limit: int, idle: bool) -> None:
    """``advance`` a channel: compiled once, not inlined wherever channels live on."""
    advance(channels.state, c, limit, idle)


@njit
def _join(channels: Channels, clock: int) -> None:
    """Let leaders that have nothing to do follow others in the same state."""
    m, leader, idle_ones = channels.state, channels.leader, channels.nodes
    count = 0
    for c in range(leader.shape[0]):
        s = m.state[c]
        if leader[c] != c or s[MEMBERS] == leader.shape[0] or s[IDLE_CLOCK] < NEVER:
            continue
        live(channels, c, clock, True)  # refreshes of the time that it was idle
        live(channels, c, clock, False)
        joins = False
        for k in range(count):
            if alike(m.state[idle_ones[k]], s, clock):
                _follow(channels, c, idle_ones[k])
                joins = True
                break
        if not joins:
            channels.touched[c] = 1
            idle_ones[count] = c
            count += 1


@njit
def _follow(channels: Channels, c: int, other: int) -> None:
    """Channel c and those that follow it get another leader, in the same state."""
    s, t = channels.state.state[c], channels.state.state[other]
    more = channels.account[c]
    for word in range(more.shape[0]):
        more[word] = 0
    tally(s, more, 1)
    tally(t, more, -1)
    follow(channels.leader, channels.account, c, other)
    t[MEMBERS] += s[MEMBERS]


@njit
def stand_alone(channels: Channels, c: int) -> bool:
    """Simulate a channel for itself from now on; False, and nothing done, when there is no room."""
    m, lead, heir = channels.state, channels.leader[c], heir_of(channels.leader, c)
    if heir < 0:
        return True
    s = m.state[lead]
    if not copy_channel(m, lead, heir, channels.nodes):
        return False
    add_account(m.state[heir], channels.account[heir])
    members = s[MEMBERS] - 1
    s[MEMBERS] = 1 if lead == c else members
    m.state[heir, MEMBERS] = members if lead == c else 1
    inherit(channels.leader, channels.account, c, heir)
    channels.touched[c] = 1
    channels.touched[heir] = 1
    return True


@njit
def part_all(channels: Channels) -> None:
    """Give every channel a record of its own again, with what it has counted."""
    for c in range(channels.leader.shape[0]):
        stand_alone(channels, c)
