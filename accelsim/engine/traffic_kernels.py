"""The compiled loop for machines whose memory decides while time passes: caches and DRAM channels.

The head-merge of ``kernels.merge_heads`` with two kinds of agents in one tournament: unit heads,
and the channels of main memory, each at the tick of its next decision; a channel goes before a head
of the same tick. Windows of main memory are looked up in the caches when their instruction commits.
What misses is served by a port (bandwidth fidelity) or waits in its channel's queue (dram
fidelity), where younger requests may overtake it: then the end of a transfer is known only when its
last burst has been scheduled, and so is the tick at which its unit is free.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit_uncounted as njit
from accelsim.engine.bank_kernels import Banks, command, decide, next_clock, send_to_banks
from accelsim.engine.cache_kernels import (
    BASE,
    CORE,
    IS_WRITE,
    ROW_BYTES,
    ROWS,
    STRIDE,
    CacheLevels,
    look_up,
    serve,
)
from accelsim.engine.channel_kernels import Channels, live, send
from accelsim.engine.kernels import NEVER, NOBODY
from accelsim.hw.dram.fifo_kernels import ACCEPTANCE
from accelsim.hw.dram.state import ACCEPT_LEFT, DONE_LEFT, EVENTS, IDLE_CLOCK
from accelsim.hw.dram.state import NEVER as NO_CLOCK

READ, WRITTEN = 0, 1  # columns of moved
PAST_HORIZON, POOL_USED_UP = -1, -2
UNKNOWN = -1  # in ended: not committed, or bytes are still under way
NOT_SOON = 1 << 60  # clocks


class Rows(NamedTuple):
    """Columns of the timed program, flat; see ``schedule.TimedProgram``."""

    occupancy: NDArray[np.int64]
    latency: NDArray[np.int64]
    dep: NDArray[np.int32]
    port: NDArray[np.int16]
    hold: NDArray[np.int64]
    unit: NDArray[np.int32]
    following: NDArray[np.int32]
    first_window: NDArray[np.int64]  # [n + 1]
    window: NDArray[np.int64]  # [w, 7]


class Port(NamedTuple):
    """Main memory at bandwidth fidelity: cycles are bytes x numerator / denominator."""

    number: int
    numerator: int
    denominator: int
    tick: int
    latency: int


class Agents(NamedTuple):
    """Where every unit stands, and the tournament that picks who acts next.

    key        [2 * leaves] tick << bits | turn in the tick, NEVER while it cannot act; the leaves
               are units, then channels, but the turns are channels, then units
    head       [u] first instruction that is not committed, -1 none
    retiring   [u] first instruction whose finish is not known, -1 none
    seen       [u] latest of unit free and the finishes that the head knows so far
    missing    [u] what the head lacks: dependencies, and its unit until a memory accepts all
    retired    [u] finish of the last instruction that retired
    waiter     [4 u + k] the next slot that waits for the same instruction
    ended      [n] end of an instruction but for the order of its unit, UNKNOWN before
    least      [n] the same as far as units, ports and caches go, while channels still work on it
    tail       [n] ticks from the last byte of a channel to the end
    served     [k] when the k-th port of the instruction at work has passed it
    transfers  [n, word] what channels have to accept and to do, as in hw.dram.state; so are
    events     [event, (instruction, what, clock)], book
    """

    key: NDArray[np.int64]
    head: NDArray[np.int64]
    retiring: NDArray[np.int64]
    seen: NDArray[np.int64]
    missing: NDArray[np.int64]
    retired: NDArray[np.int64]
    waiter: NDArray[np.int64]
    ended: NDArray[np.int64]
    least: NDArray[np.int64]
    tail: NDArray[np.int64]
    served: NDArray[np.int64]
    transfers: NDArray[np.int64]
    events: NDArray[np.int64]
    book: NDArray[np.int64]


class Outcome(NamedTuple):
    """What the loop finds out, per instruction."""

    start: NDArray[np.int64]
    finish: NDArray[np.int64]
    order: NDArray[np.int64]
    moved: NDArray[np.int64]  # [n, (read, written)] bytes of main memory
    looked: NDArray[np.int64]  # [n, cache] bytes looked up
    served: NDArray[np.int64]  # [n, cache] ticks for which the cache served it


@njit
def merge_agents(
    rows: Rows,
    levels: CacheLevels | None,
    port: Port | None,
    channels: Channels | None,
    banks: Banks | None,
    agents: Agents,
    out: Outcome,
    slots: int,
    bits: int,
    horizon: int,
    port_free: NDArray[np.int64],
) -> int:
    """Commit heads and step channels; return the instructions that retired.

    PAST_HORIZON if a time is negative or too late, POOL_USED_UP if channels need more nodes.
    Fewer than all means deadlock: ``agents.head`` holds the waiting heads.
    """
    units = agents.head.shape[0]
    mask = (1 << bits) - 1
    committed, retired = 0, 0
    for u in range(units):
        _next_head(rows, agents, out, bits, u, agents.head[u], 0, 0)
    while agents.key[1] != NEVER:
        agent = ((agents.key[1] & mask) + units) & mask
        at = agents.key[1] >> bits
        if at > horizon:
            return PAST_HORIZON
        if agent < units:
            i = agents.head[agent]
            out.order[committed] = i
            committed += 1
            sane = _commit(
                rows,
                levels,
                port,
                channels,
                banks,
                agents,
                out,
                slots,
                bits,
                port_free,
                agent,
                i,
                at,
            )
            if sane < 0 or sane > horizon:
                return PAST_HORIZON
            retired += _retire(rows, agents, out, bits, agent)
        elif channels is not None or banks is not None:
            retired += _step_channel(rows, channels, banks, agents, out, bits, agent)
        if channels is not None and channels.full[0]:
            return POOL_USED_UP
        if banks is not None and banks.full[0]:
            return POOL_USED_UP
    return retired


@njit
def _key(agents: Agents, bits: int, agent: int, tick: int) -> int:
    """When an agent may act, and its turn in that tick."""
    turn = (agent - agents.head.shape[0]) & ((1 << bits) - 1)
    return int(tick << bits | turn)


@njit
def _set_key(agents: Agents, bits: int, agent: int, key: int) -> None:
    """Enter an agent's time into the tournament."""
    q = (1 << bits) + agent
    agents.key[q] = key
    while q > 1:
        rival = agents.key[q ^ 1]
        if rival < key:
            key = rival
        q >>= 1
        agents.key[q] = key


@njit
def _next_head(
    rows: Rows, agents: Agents, out: Outcome, bits: int, u: int, i: int, free: int, held: int
) -> None:
    """Instruction i becomes the head of unit u, which is free at ``free`` and lacks ``held``."""
    agents.head[u] = i
    key = NEVER
    if i >= 0:
        lacking = held
        for k in range(3):
            d = rows.dep[3 * i + k]
            if d >= 0:
                t = out.finish[d]
                if t < 0:
                    agents.waiter[4 * u + k] = t
                    out.finish[d] = -2 - (4 * u + k)
                    lacking += 1
                elif t > free:
                    free = t
        agents.seen[u] = free
        agents.missing[u] = lacking
        if lacking == 0:
            key = _key(agents, bits, u, free)
    _set_key(agents, bits, u, key)


@njit
def _supply(agents: Agents, bits: int, u: int, at: int) -> None:
    """The head of unit u has one thing less to wait for, since ``at``."""
    if agents.head[u] < 0:
        return
    if at > agents.seen[u]:
        agents.seen[u] = at
    agents.missing[u] -= 1
    if agents.missing[u] == 0:
        _set_key(agents, bits, u, _key(agents, bits, u, agents.seen[u]))


@njit
def _retire(rows: Rows, agents: Agents, out: Outcome, bits: int, u: int) -> int:
    """Give finishes to what has ended on unit u, in order, and wake whoever waits for it."""
    count = 0
    i = agents.retiring[u]
    while i >= 0 and agents.ended[i] != UNKNOWN:
        end = max(agents.ended[i], agents.retired[u])
        agents.retired[u] = end
        waiting = out.finish[i]
        out.finish[i] = end
        while waiting != NOBODY:
            w = -2 - waiting
            waiting = agents.waiter[w]
            _supply(agents, bits, w >> 2, end)
        count += 1
        i = rows.following[i]
    agents.retiring[u] = i
    return count


@njit
def _commit(
    rows: Rows,
    levels: CacheLevels | None,
    port: Port | None,
    channels: Channels | None,
    banks: Banks | None,
    agents: Agents,
    out: Outcome,
    slots: int,
    bits: int,
    port_free: NDArray[np.int64],
    u: int,
    i: int,
    at: int,
) -> int:
    """Let instruction i join the queues of its ports, caches and channels.

    Returns the bits of all its times, so that a negative one shows.
    """
    first, passed, late = NEVER, at, 0
    sane = rows.latency[i] | rows.occupancy[i]
    for k in range(slots):
        p = rows.port[slots * i + k]
        if p >= 0:
            turn = max(at, port_free[p])
            first = min(first, turn)
            sane |= rows.hold[slots * i + k]
            agents.served[k] = turn + rows.hold[slots * i + k]
            passed = max(passed, agents.served[k])
    # Only now, for a port may be named twice.
    for k in range(slots):
        p = rows.port[slots * i + k]
        if p >= 0:
            port_free[p] = max(port_free[p], agents.served[k])
    if rows.first_window[i] < rows.first_window[i + 1]:
        turn, done, late = _move(
            rows, levels, port, channels, banks, agents, out, bits, port_free, i, at
        )
        first = min(first, turn)
        passed = max(passed, done)
    if banks is not None and command(banks, i, at):
        late = banks.latency
        _set_channels(channels, banks, agents, bits)
    if first != NEVER:
        at = first
    tail = max(0, rows.latency[i] - rows.occupancy[i])
    free = max(at + rows.occupancy[i], passed)
    end = max(at + rows.latency[i], passed + tail) + late
    out.start[i] = at
    agents.tail[i] = tail + late
    held, under_way = 0, 0
    if channels is not None or banks is not None:
        held = 1 if agents.transfers[i, ACCEPT_LEFT] > 0 else 0
        under_way = agents.transfers[i, DONE_LEFT]
    agents.least[i] = end
    agents.ended[i] = UNKNOWN if under_way > 0 else end
    _next_head(rows, agents, out, bits, u, rows.following[i], free, held)
    return int(sane | free | end)


@njit
def _move(
    rows: Rows,
    levels: CacheLevels | None,
    port: Port | None,
    channels: Channels | None,
    banks: Banks | None,
    agents: Agents,
    out: Outcome,
    bits: int,
    port_free: NDArray[np.int64],
    i: int,
    at: int,
) -> tuple[int, int, int]:
    """Move the windows of instruction i: (start, end at the ports, ticks of latency on the way)."""
    first, passed, late, missed = NEVER, at, 0, 0
    for w in range(rows.first_window[i], rows.first_window[i + 1]):
        if levels is not None:
            used = look_up(levels, rows.window[w], out.looked[i])
            for r in range(used):
                nbytes, direction = levels.runs[r, 1], levels.runs[r, 2]
                missed += nbytes
                if channels is not None:
                    nbytes = send(channels, i, levels.runs[r, 0], 1, nbytes, nbytes, direction, at)
                elif banks is not None:
                    base = levels.runs[r, 0]
                    nbytes = send_to_banks(banks, i, base, 1, nbytes, nbytes, direction, at)
                out.moved[i, direction] += nbytes
        elif channels is not None or banks is not None:
            v = rows.window[w]
            base, high, wide, stride = v[BASE], v[ROWS], v[ROW_BYTES], v[STRIDE]
            nbytes = 0
            if channels is not None:
                nbytes = send(channels, i, base, high, wide, stride, v[IS_WRITE], at)
            elif banks is not None:
                nbytes = send_to_banks(banks, i, base, high, wide, stride, v[IS_WRITE], at)
            missed += nbytes
            out.moved[i, v[IS_WRITE]] += nbytes
    if levels is not None:
        first = at
        passed, late = serve(
            levels, rows.window[rows.first_window[i], CORE], out.looked[i], out.served[i], at
        )
    if port is not None and missed > 0:
        cycles = -(-(missed * port.numerator) // port.denominator)
        turn = max(at, port_free[port.number])
        first = min(first, turn)
        port_free[port.number] = turn + cycles * port.tick
        out.served[i, out.served.shape[1] - 1] = cycles * port.tick
        passed = max(passed, port_free[port.number])
        late += port.latency
    if channels is not None and missed > 0:
        late += channels.latency
    if banks is not None and missed > 0:
        late += banks.latency
    _set_channels(channels, banks, agents, bits)
    return first, passed, late


@njit
def _set_channels(
    channels: Channels | None, banks: Banks | None, agents: Agents, bits: int
) -> None:
    """Enter the next decisions of all channels that were given something."""
    if channels is not None:
        for c in range(channels.touched.shape[0]):
            if channels.touched[c]:
                channels.touched[c] = 0
                _set_channel(channels, banks, agents, bits, c)
    elif banks is not None:
        _set_channel(channels, banks, agents, bits, 0)


@njit
def _set_channel(
    channels: Channels | None, banks: Banks | None, agents: Agents, bits: int, c: int
) -> None:
    """Enter the next decision of channel c into the tournament, unless it follows another one; of
    channels whose banks compute, all of which are one agent, the first."""
    agent, clock, tick = agents.head.shape[0] + c, NO_CLOCK, 1
    if channels is not None:
        clock = channels.state.state[c, IDLE_CLOCK] if channels.leader[c] == c else NO_CLOCK
        tick = channels.tick
    elif banks is not None:
        clock, tick = next_clock(banks), banks.tick
    key = NEVER if clock >= NO_CLOCK else _key(agents, bits, agent, clock * tick)
    _set_key(agents, bits, agent, key)


@njit
def _step_channel(
    rows: Rows,
    channels: Channels | None,
    banks: Banks | None,
    agents: Agents,
    out: Outcome,
    bits: int,
    agent: int,
) -> int:
    """Let a channel, or all whose banks compute, decide until somebody else may act; hand on what
    was finished."""
    c, tick = agent - agents.head.shape[0], 1
    _set_key(agents, bits, agent, NEVER)
    other = agents.key[1]
    # The clocks that begin before the other's tick, and with it: heads wait for all channels.
    if channels is not None:
        tick = channels.tick
        limit = NO_CLOCK if other == NEVER else (other >> bits) // tick + 1
        live(channels, c, max(limit, channels.state.state[c, IDLE_CLOCK] + 1), False)
    elif banks is not None:
        tick = banks.tick
        decide(banks, NO_CLOCK if other == NEVER else (other >> bits) // tick + 1)
    count = 0
    for e in range(agents.book[EVENTS]):
        i, clock = agents.events[e, 0], agents.events[e, 2]
        u = rows.unit[i]
        if agents.events[e, 1] == ACCEPTANCE:
            _supply(agents, bits, u, clock * tick)
        else:
            arrived = clock * tick + agents.tail[i]
            agents.ended[i] = max(agents.least[i], arrived)
            count += _retire(rows, agents, out, bits, u)
    agents.book[EVENTS] = 0
    _set_channel(channels, banks, agents, bits, c)
    return count
