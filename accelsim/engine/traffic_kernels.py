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
from accelsim.engine.channel_kernels import Channels, live, send
from accelsim.engine.kernels import NEVER, NOBODY
from accelsim.hw.cache import kernels as cache_kernels
from accelsim.hw.cache.kernels import Caches, pass_banks, walk
from accelsim.hw.dram.fifo_kernels import ACCEPTANCE
from accelsim.hw.dram.state import ACCEPT_LEFT, DONE_LEFT, EVENTS, IDLE_CLOCK
from accelsim.hw.dram.state import NEVER as NO_CLOCK

BASE, ROWS, ROW_BYTES, STRIDE, IS_WRITE, CORE, OPERAND = range(7)  # columns of a window
READ, WRITTEN = 0, 1  # columns of moved
PAST_HORIZON, POOL_USED_UP = -1, -2
UNKNOWN = -1  # in ended: not committed, or bytes are still under way
# Columns of the cache counts, as plain numbers for the compiler.
LOOKUPS, READS, WRITES = cache_kernels.LOOKUPS, cache_kernels.READ, cache_kernels.WRITE
READ_HITS, FILLS = cache_kernels.READ_HIT, cache_kernels.FILL
BANKS, WIDTH, INSTANCES = cache_kernels.BANKS, cache_kernels.WIDTH, cache_kernels.INSTANCES
FIRST_BANK = cache_kernels.FIRST_BANK
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
                rows, levels, port, channels, agents, out, slots, bits, port_free, agent, i, at
            )
            if sane < 0 or sane > horizon:
                return PAST_HORIZON
            retired += _retire(rows, agents, out, bits, agent)
        elif channels is not None:
            retired += _step_channel(rows, channels, agents, out, bits, agent)
        if channels is not None and channels.full[0]:
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
        turn, done, late = _move(rows, levels, port, channels, agents, out, bits, port_free, i, at)
        first = min(first, turn)
        passed = max(passed, done)
    if first != NEVER:
        at = first
    tail = max(0, rows.latency[i] - rows.occupancy[i])
    free = max(at + rows.occupancy[i], passed)
    end = max(at + rows.latency[i], passed + tail) + late
    out.start[i] = at
    agents.tail[i] = tail + late
    held, under_way = 0, 0
    if channels is not None:
        held = 1 if channels.state.transfers[i, ACCEPT_LEFT] > 0 else 0
        under_way = channels.state.transfers[i, DONE_LEFT]
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
            used = _look_up(levels, rows.window[w], out, i)
            for r in range(used):
                nbytes, direction = levels.runs[r, 1], levels.runs[r, 2]
                missed += nbytes
                if channels is not None:
                    nbytes = send(channels, i, levels.runs[r, 0], 1, nbytes, nbytes, direction, at)
                out.moved[i, direction] += nbytes
        elif channels is not None:
            v = rows.window[w]
            nbytes = send(channels, i, v[BASE], v[ROWS], v[ROW_BYTES], v[STRIDE], v[IS_WRITE], at)
            missed += nbytes
            out.moved[i, v[IS_WRITE]] += nbytes
    if levels is not None:
        first = at
        passed, late = _serve(levels, rows, out, i, at)
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
        for c in range(channels.touched.shape[0]):
            if channels.touched[c]:
                channels.touched[c] = 0
                _set_channel(channels, agents, bits, c)
    return first, passed, late


@njit
def _look_up(levels: CacheLevels, window: NDArray[np.int64], out: Outcome, i: int) -> int:
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
        out.looked[i, levels.entry] += nbytes
        levels.trusting[0] += nbytes
        return 0
    caches = counts.shape[0]
    for c in range(caches):
        out.looked[i, c] -= counts[c, READS] + counts[c, WRITES]
    used = walk(
        levels.state, levels.entry, window[CORE], window[BASE], window[ROWS], window[ROW_BYTES],
        window[STRIDE], window[IS_WRITE], counts, levels.busy, levels.runs, 0,
    )  # fmt: skip
    for c in range(caches):
        out.looked[i, c] += counts[c, READS] + counts[c, WRITES]
    if window[IS_WRITE] == 0:
        levels.walked[operand] = counts[levels.entry, FILLS]
    return used


@njit
def _serve(levels: CacheLevels, rows: Rows, out: Outcome, i: int, at: int) -> tuple[int, int]:
    """Queue at the banks that instruction i has work for: (end, latency) in ticks."""
    passed, late = at, 0
    core = rows.window[rows.first_window[i], CORE]
    for c in range(levels.tick.shape[0]):
        if out.looked[i, c] == 0:
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
            out.served[i, c] = max(out.served[i, c], levels.busy[bank] * levels.tick[c])
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


@njit
def _set_channel(channels: Channels, agents: Agents, bits: int, c: int) -> None:
    """Enter the next decision of channel c into the tournament, unless it follows another one."""
    agent = channels.first + c
    clock = channels.state.state[c, IDLE_CLOCK] if channels.leader[c] == c else NO_CLOCK
    key = NEVER if clock >= NO_CLOCK else _key(agents, bits, agent, clock * channels.tick)
    _set_key(agents, bits, agent, key)


@njit
def _step_channel(
    rows: Rows, channels: Channels, agents: Agents, out: Outcome, bits: int, agent: int
) -> int:
    """Let a channel decide until somebody else may act; hand on what it finished."""
    m, c = channels.state, agent - channels.first
    _set_key(agents, bits, agent, NEVER)
    other = agents.key[1]
    # The clocks that begin before the other's tick, and with it: heads wait for all channels.
    limit = NO_CLOCK if other == NEVER else (other >> bits) // channels.tick + 1
    live(channels, c, max(limit, m.state[c, IDLE_CLOCK] + 1), False)
    count = 0
    for e in range(m.book[EVENTS]):
        i, clock = m.events[e, 0], m.events[e, 2]
        u = rows.unit[i]
        if m.events[e, 1] == ACCEPTANCE:
            _supply(agents, bits, u, clock * channels.tick)
        else:
            arrived = clock * channels.tick + agents.tail[i]
            agents.ended[i] = max(agents.least[i], arrived)
            count += _retire(rows, agents, out, bits, u)
    m.book[EVENTS] = 0
    _set_channel(channels, agents, bits, c)
    return count
