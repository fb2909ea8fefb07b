"""Channels that are alike, compiled: one record stands for several channels that get the same.

Traffic that is spread over all channels evenly leaves them all in the same state, so one of them is
simulated and the others follow. A channel that gets something of its own goes its own way with a
copy of the record; it joins again when nothing waits in either, and both would answer all that may
come in the same way. What they have counted until then may differ, and is kept beside the record.
"""

from accelsim._jit import njit_in_place as njit
from accelsim.hw.dram import state as w
from accelsim.hw.dram.bank_kernels import take
from accelsim.hw.dram.state import Int64, Memory

ACCOUNT = w.KINDS + 3  # words of an account before those of the ranks


# --- accounts: what a channel has counted


@njit
def tally(s: Int64, account: Int64, times: int) -> None:
    """Add ``times`` what a channel has counted to an account: commands, row outcomes, and clocks
    that banks of each rank were open, up to clock 0 if they still are."""
    for kind in range(w.KINDS):
        account[kind] += times * s[w.COUNTS + kind]
    account[w.KINDS] += times * s[w.HITS]
    account[w.KINDS + 1] += times * s[w.MISSES]
    account[w.KINDS + 2] += times * s[w.CONFLICTS]
    r = s[w.FIRST_RANK]
    for k in range(s[w.RANKS]):
        since = s[r + w.OPEN_SINCE] if s[r + w.OPEN_BANKS] > 0 else 0
        account[ACCOUNT + k] += times * (s[r + w.OPEN_CYCLES] - since)
        r += w.RANK_WORDS


@njit
def add_account(s: Int64, account: Int64) -> None:
    """Let a channel have counted so much more."""
    for kind in range(w.KINDS):
        s[w.COUNTS + kind] += account[kind]
    s[w.HITS] += account[w.KINDS]
    s[w.MISSES] += account[w.KINDS + 1]
    s[w.CONFLICTS] += account[w.KINDS + 2]
    r = s[w.FIRST_RANK]
    for k in range(s[w.RANKS]):
        s[r + w.OPEN_CYCLES] += account[ACCOUNT + k]
        r += w.RANK_WORDS


# --- likeness


@njit
def alike(s: Int64, t: Int64, clock: int) -> bool:
    """Whether two channels in which no request waits answer all that comes from a clock on in the
    same way."""
    if s[w.DUE] != t[w.DUE] or s[w.PENDING] != t[w.PENDING]:
        return False
    if max(s[w.CLOCK], clock) != max(t[w.CLOCK], clock):
        return False
    b = s[w.FIRST_BANK]
    for _ in range(s[w.BANKS]):
        for word in (w.OPEN, w.SERVED, w.CLOSED_BY_DEMAND, w.BLOCKED):
            if s[b + word] != t[b + word]:
                return False
        if not _same_times(s, t, b, clock) or not _same_times(s, t, s[b + w.GROUP], clock):
            return False
        b += w.BANK_WORDS
    return _alike_queues(s, t, clock) and _alike_ranks(s, t, clock)


@njit
def _same_times(s: Int64, t: Int64, place: int, clock: int) -> bool:
    """Whether a part of the channel is ready for every kind of command at the same time."""
    same = True
    for kind in range(w.KINDS):
        same = same and max(s[place + kind], clock) == max(t[place + kind], clock)
    return same


@njit
def _alike_queues(s: Int64, t: Int64, clock: int) -> bool:
    q = s[w.FIRST_QUEUE]
    for _ in range(s[w.QUEUES]):
        if s[q + w.DRAIN] != t[q + w.DRAIN] or s[q + w.MODE] != t[q + w.MODE]:
            return False
        if max(s[q + w.ACCEPT_CLOCK], t[q + w.ACCEPT_CLOCK]) >= clock:
            return False  # it may have accepted requests in this clock
        if max(s[q + w.CHOICE_CLOCK], t[q + w.CHOICE_CLOCK]) >= clock:
            return False
        q += w.QUEUE_WORDS
    return True


@njit
def _alike_ranks(s: Int64, t: Int64, clock: int) -> bool:
    r = s[w.FIRST_RANK]
    for _ in range(s[w.RANKS]):
        for word in (w.REFRESH_DUE, w.REFRESH_PENDING, w.TURN):
            if s[r + word] != t[r + word]:
                return False
        if not _same_times(s, t, r, clock):
            return False
        for k in range(s[w.WINDOWS]):
            cycles, window = s[w.WINDOWS + 1 + 2 * k], s[w.WINDOWS + 2 + 2 * k]
            for back in range(min(window, w.LARGEST_WINDOW)):
                until = _activated(s, r, back) + cycles
                if max(until, clock) != max(_activated(t, r, back) + cycles, clock):
                    return False
        r += w.RANK_WORDS
    return True


@njit
def _activated(s: Int64, r: int, back: int) -> int:
    """Clock of the activation of a rank that came ``back`` before the last one, or long ago."""
    n = s[r + w.ACTS] - back
    return int(s[r + w.ACTS + 1 + n % w.LARGEST_WINDOW]) if n > 0 else -w.NEVER // 2


# --- copying


@njit
def copy_channel(m: Memory, source: int, target: int, nodes: Int64) -> bool:
    """Make a channel's record one of its own like another one's, with all that waits in it.

    ``nodes`` is scratch, as long as the pool. False, and nothing done, when the pool is used up.
    """
    s, pool, book = m.state[source], m.pool, m.book
    count = _waiting(s, pool, nodes)
    if book[w.FREE_NODES] - count < book[w.RESERVE]:
        return False
    for k in range(count):
        copy = take(pool, book)
        for field in range(w.COPY):
            pool[copy, field] = pool[nodes[k], field]
        pool[nodes[k], w.COPY] = copy
    for k in range(count):
        copy = pool[nodes[k], w.COPY]
        for field in (w.NEXT, w.BEFORE, w.RING, w.REST_OF):
            pool[copy, field] = _copy_of(pool, pool[copy, field])
    t = m.state[target]
    for word in range(s.shape[0]):
        t[word] = s[word]
    q = t[w.FIRST_QUEUE]
    for _ in range(t[w.QUEUES]):
        for word in (w.CURSOR, w.CURSOR_BEFORE, w.LAST, w.REST, w.TAIL):
            t[q + word] = _copy_of(pool, t[q + word])
        q += w.QUEUE_WORDS
    b = t[w.FIRST_BANK]
    for _ in range(t[w.BANKS]):
        for word in (w.HEAD, w.END, w.HIT):
            for d in range(2):
                t[b + word + d] = _copy_of(pool, t[b + word + d])
        b += w.BANK_WORDS
    for k in range(count):
        pool[nodes[k], w.COPY] = w.NONE
    return True


@njit
def _copy_of(pool: Int64, node: int) -> int:
    """The copy of a node that was copied; of others, whom nobody follows, themselves."""
    if node >= 0 and pool[node, w.COPY] >= 0:
        return int(pool[node, w.COPY])
    return node


@njit
def _waiting(s: Int64, pool: Int64, nodes: Int64) -> int:
    """All nodes of a channel, each once: those in the windows, then the others of the FIFOs."""
    count = 0
    b = s[w.FIRST_BANK]
    for _ in range(s[w.BANKS]):
        for d in range(2):
            node = s[b + w.HEAD + d]
            while node >= 0:
                nodes[count] = node
                count += 1
                node = pool[node, w.NEXT]
        b += w.BANK_WORDS
    q = s[w.FIRST_QUEUE]
    for _ in range(s[w.QUEUES]):
        ring, behind = s[q + w.CURSOR], s[q + w.REST]
        while ring >= 0:
            node = ring
            while True:
                if pool[node, w.LEFT] == 0:  # else it is in a window, too
                    nodes[count] = node
                    count += 1
                node = pool[node, w.RING]
                if node == ring:
                    break
            ring = behind
            behind = pool[behind, w.REST_OF] if behind >= 0 else w.NONE
        q += w.QUEUE_WORDS
    return count
