"""PIM channels that are alike, compiled: one record stands for several that get the same requests.

As ``hw.dram.twin_kernels``: traffic over all channels leaves them in one state, so one of them is
simulated and the others follow; products are always a channel's own. A channel that gets something
of its own goes its own way with a copy of the record, and joins again when nothing waits in either
and both would answer all that may come in the same way.
"""

from accelsim._jit import njit_in_place as njit
from accelsim.hw.dram.state import FREE_NODES
from accelsim.hw.pim.channel.fifo_kernels import take
from accelsim.hw.pim.channel.state import (
    BANKS,
    CONFLICTS,
    END,
    HEAD,
    HITS,
    HOLD_BANK,
    HOLD_END,
    HOLDING,
    IN_TILE,
    LAST_DATA,
    LAST_NODE,
    MISSES,
    MOST_WINDOW,
    NEVER,
    NODE_MASK,
    NONE,
    OFFERED,
    OPEN_BANKS,
    OPEN_CYCLES,
    OPEN_SINCE,
    PENDING,
    PIM_FINISH,
    POINTER,
    QUEUED,
    R_COPY,
    R_LEFT,
    R_NEXT,
    READS,
    REFRESH_AT,
    REFRESHING,
    RESERVED,
    SKIPPING,
    SLACK,
    UNIT_DUE,
    WORDS,
    WRITES,
    Channels,
    Int64,
)  # fmt: skip

SAME = (
    PENDING, UNIT_DUE, REFRESH_AT, REFRESHING, SKIPPING, SLACK, RESERVED, HOLDING, POINTER,
    IN_TILE,
)  # fmt: skip
"""Words that twins have in common."""
OUTCOMES = 3  # words of an account behind those of the commands, before those of the ranks


# --- accounts: what a channel has counted


@njit
def tally(k: Channels, c: int, account: Int64, times: int) -> None:
    """Add ``times`` what a channel has counted to an account: commands, row outcomes, and clocks
    that banks of each rank were open, by row buffer, up to clock 0 if they still are."""
    kinds = k.sent.shape[1]
    for kind in range(kinds):
        account[kind] += times * k.sent[c, kind]
    account[kinds] += times * k.word[c, HITS]
    account[kinds + 1] += times * k.word[c, MISSES]
    account[kinds + 2] += times * k.word[c, CONFLICTS]
    at = kinds + OUTCOMES
    for buffer in range(k.rank.shape[1]):
        for r in range(k.rank.shape[2]):
            rank = k.rank[c, buffer, r]
            since = rank[OPEN_SINCE] if rank[OPEN_BANKS] > 0 else 0
            account[at] += times * (rank[OPEN_CYCLES] - since)
            at += 1


@njit
def add_account(k: Channels, c: int, account: Int64) -> None:
    """Let a channel have counted so much more."""
    kinds = k.sent.shape[1]
    for kind in range(kinds):
        k.sent[c, kind] += account[kind]
    k.word[c, HITS] += account[kinds]
    k.word[c, MISSES] += account[kinds + 1]
    k.word[c, CONFLICTS] += account[kinds + 2]
    at = kinds + OUTCOMES
    for buffer in range(k.rank.shape[1]):
        for r in range(k.rank.shape[2]):
            k.rank[c, buffer, r, OPEN_CYCLES] += account[at]
            at += 1


@njit
def keep_last(k: Channels, c: int, other: int) -> None:
    """The record of ``other`` stands for channel c, too: it is done when both are."""
    for word in (LAST_DATA, PIM_FINISH):
        k.word[other, word] = max(k.word[other, word], k.word[c, word])


# --- likeness


@njit
def alike(k: Channels, c: int, other: int, clock: int) -> bool:
    """Whether two channels in which nothing waits, and which have lived up to a clock, answer all
    that comes from then on in the same way."""
    s, t = k.word[c], k.word[other]
    for word in SAME:
        if s[word] != t[word]:
            return False
    if s[HOLDING] > 0 and (s[HOLD_END] != t[HOLD_END] or s[HOLD_BANK] != t[HOLD_BANK]):
        return False
    for b in range(k.setting[BANKS]):
        if k.rows[c, 0, b] != k.rows[other, 0, b] or k.rows[c, 1, b] != k.rows[other, 1, b]:
            return False
        if k.served[c, b] != k.served[other, b] or k.demanded[c, b] != k.demanded[other, b]:
            return False
    for place in range(k.ready.shape[1]):
        for kind in range(k.ready.shape[2]):
            if max(k.ready[c, place, kind], clock) != max(k.ready[other, place, kind], clock):
                return False
    return _alike_windows(k, c, other, clock)


@njit
def _alike_windows(k: Channels, c: int, other: int, clock: int) -> bool:
    """Whether the last activations of all ranks hold the next ones up in the same way."""
    for r in range(k.acts.shape[1]):
        for w in range(k.windows.shape[0]):
            cycles, window = k.windows[w, 0], k.windows[w, 1]
            for back in range(min(window, MOST_WINDOW)):
                until = _activated(k, c, r, back) + cycles
                if max(until, clock) != max(_activated(k, other, r, back) + cycles, clock):
                    return False
    return True


@njit
def _activated(k: Channels, c: int, rank: int, back: int) -> int:
    """Clock of the activation of a rank that came ``back`` before the last one, or long ago."""
    n = k.acts[c, rank, MOST_WINDOW] - 1 - back
    return int(k.acts[c, rank, n % MOST_WINDOW]) if n >= 0 else -NEVER // 2


# --- copying


@njit
def copy_channel(k: Channels, source: int, target: int, nodes: Int64) -> bool:
    """Make a channel's record one of its own like another one's, with all requests that wait in
    it; its entries stay its own, none of which waits.

    ``nodes`` is scratch, as long as the pool. False, and nothing done, when the pool is used up.
    """
    count = _waiting(k, source, nodes)
    if k.book[FREE_NODES] < count:
        _forget(k, nodes, count)
        return False
    for n in range(count):
        copy = take(k)
        for field in range(R_COPY):
            k.node[copy, field] = k.node[nodes[n], field]
        k.node[nodes[n], R_COPY] = copy
    for n in range(count):
        copy = k.node[nodes[n], R_COPY]
        if k.node[copy, R_LEFT] > 0:
            k.node[copy, R_NEXT] = _copy_of(k, k.node[copy, R_NEXT])
    _copy_words(k, source, target)
    _copy_tables(k, source, target)
    _copy_queues(k, source, target)
    _forget(k, nodes, count)
    return True


@njit
def _copy_words(k: Channels, source: int, target: int) -> None:
    """All words but the places of entries."""
    for word in range(WORDS):
        if word not in (HEAD, QUEUED, END):
            k.word[target, word] = k.word[source, word]
    for word in (OFFERED, LAST_NODE):
        k.word[target, word] = _copy_of(k, k.word[source, word])


@njit
def _copy_tables(k: Channels, source: int, target: int) -> None:
    """Rows, times and counts."""
    for b in range(k.setting[BANKS]):
        k.rows[target, 0, b], k.rows[target, 1, b] = k.rows[source, 0, b], k.rows[source, 1, b]
        k.served[target, b], k.demanded[target, b] = k.served[source, b], k.demanded[source, b]
        k.quiet[target, b] = k.quiet[source, b]
    for kind in range(k.sent.shape[1]):
        k.sent[target, kind] = k.sent[source, kind]
        for place in range(k.ready.shape[1]):
            k.ready[target, place, kind] = k.ready[source, place, kind]
    for r in range(k.acts.shape[1]):
        for n in range(k.acts.shape[2]):
            k.acts[target, r, n] = k.acts[source, r, n]
        for buffer in range(k.rank.shape[1]):
            for word in range(k.rank.shape[3]):
                k.rank[target, buffer, r, word] = k.rank[source, buffer, r, word]
    for n in range(k.returns.shape[1]):
        k.returns[target, n] = k.returns[source, n]


@njit
def _copy_queues(k: Channels, source: int, target: int) -> None:
    """Requests in the read queue, in the write buffer and in the queues of the banks."""
    for at in range(k.word[source, READS]):
        k.reads[target, at] = _place_of_copy(k, k.reads[source, at])
    for at in range(k.word[source, WRITES]):
        k.writes[target, at] = _place_of_copy(k, k.writes[source, at])
    for b in range(k.setting[BANKS]):
        k.length[target, b], k.held[target, b] = k.length[source, b], k.held[source, b]
        for run in range(k.length[source, b]):
            k.queue[target, b, run] = _place_of_copy(k, k.queue[source, b, run])
            k.bursts[target, b, run] = k.bursts[source, b, run]
            k.wish[target, b, run] = k.wish[source, b, run]


@njit
def _place_of_copy(k: Channels, place: int) -> int:
    """A place in a queue, with the number of its write, for the copy of its node."""
    node = place & NODE_MASK
    return int(place - node + k.node[node, R_COPY])


@njit
def _copy_of(k: Channels, node: int) -> int:
    return int(k.node[node, R_COPY]) if node >= 0 else NONE


@njit
def _waiting(k: Channels, c: int, nodes: Int64) -> int:
    """All nodes of a channel, each once and marked: those that wait outside, then the others."""
    count, i = 0, k.word[c, OFFERED]
    while i >= 0:
        count = _mark(k, i, nodes, count)
        i = k.node[i, R_NEXT]
    for at in range(k.word[c, READS]):
        count = _mark(k, k.reads[c, at], nodes, count)
    for at in range(k.word[c, WRITES]):
        count = _mark(k, k.writes[c, at] & NODE_MASK, nodes, count)
    for b in range(k.setting[BANKS]):
        for run in range(k.length[c, b]):
            count = _mark(k, k.queue[c, b, run] & NODE_MASK, nodes, count)
    return count


@njit
def _mark(k: Channels, node: int, nodes: Int64, count: int) -> int:
    """Note a node unless it is; how many are noted."""
    if k.node[node, R_COPY] >= 0:
        return count
    k.node[node, R_COPY] = node
    nodes[count] = node
    return count + 1


@njit
def _forget(k: Channels, nodes: Int64, count: int) -> None:
    """Nodes have no copies any more."""
    for n in range(count):
        k.node[nodes[n], R_COPY] = NONE
