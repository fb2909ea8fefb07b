"""Trains, compiled: column commands that follow each other at one pace, issued all at once.

While a queue's oldest bursts are hits that take turns over banks of different groups (a stripe),
FR-FCFS has nothing to decide: every ``pace`` clocks the oldest one goes, and its place in the
window is taken by the next burst of the FIFO. Such a train runs up to the clock at which anything
else may matter: a row command that it could meet, a new row in the window, a change of direction,
the end of a transfer, a refresh. It leaves behind what its commands one by one would have left.
"""

from accelsim._jit import njit_in_place as njit
from accelsim.hw.dram import state as w
from accelsim.hw.dram.fifo_kernels import (
    accept,
    account_transfer,
    complete,
    turn,
)
from accelsim.hw.dram.kernels import (
    choose_candidate,
    choose_mode,
    count_accesses,
    link,
    push_times,
    ready,
    tag_of,
    unlink,
    write_log,
)
from accelsim.hw.dram.mapping import MOST_LANES
from accelsim.hw.dram.state import Int64, Memory

NO_TRAIN, NO_HITS = 0, -1  # what forming says where there is none


# --- forming


@njit
def form_trains(m: Memory, s: Int64, limit: int, row_at: int) -> int:
    """Form a train in every queue that has requests; returns the clock before which they run.

    That is 0 where a queue of the channel has something to decide first. With TRAINS_FREE row
    commands may go between the commands of the trains; otherwise they end before ``row_at``.
    """
    if s[w.TRAINS] == 0 or (s[w.PENDING] > 0 and s[w.REFRESH_APART] == 0):
        return 0
    horizon, free = min(limit, s[w.DUE]), s[w.ROWS_FREE] > 0
    trains, start, pace = 0, 0, 0
    q = s[w.FIRST_QUEUE]
    for _ in range(s[w.QUEUES]):
        s[q + w.TRAIN_COUNT] = 0
        horizon = min(horizon, s[q + w.WAKE])
        if s[q + w.ACTIVE + s[q + w.MODE]] > 0:
            end = _form(m, s, q)
            if end == NO_TRAIN:
                return 0
            free = free and s[q + w.TRAIN_ROWS] > 0
            if end != NO_HITS:
                meeting = s[q + w.TRAIN_PACE] != pace or (s[q + w.TRAIN_CLOCK] - start) % pace == 0
                if trains > 1 or (trains == 1 and meeting):
                    return 0
                horizon = min(horizon, end)
                start, pace = s[q + w.TRAIN_CLOCK], s[q + w.TRAIN_PACE]
                trains += 1
        q += w.QUEUE_WORDS
    s[w.TRAINS_FREE] = 1 if free else 0
    if trains == 0:
        return 0
    return int(horizon) if free else int(min(horizon, row_at))


@njit
def _form(m: Memory, s: Int64, q: int) -> int:
    """Form the train of a queue with requests; the clock at which it has ended."""
    pool = m.pool
    kind = w.RD + s[q + w.MODE]
    s[q + w.TRAIN_ROWS] = 0
    lead = _oldest_hit(s, q, kind)
    if lead < 0:
        return NO_HITS
    oldest = s[lead + w.AGE_OF_BANK]
    start = max(s[w.CLOCK], s[w.COLUMN_SLOT], ready(s, kind, lead))
    if not _note_lanes(s, pool, q, kind, oldest, start):
        return NO_TRAIN
    cost = w.COST + kind * w.KINDS + kind
    pace = max(1, s[cost + w.AT_RANK * w.KINDS * w.KINDS])
    again = max(s[cost + w.AT_BANK * w.KINDS * w.KINDS], s[cost + w.AT_GROUP * w.KINDS * w.KINDS])
    lanes, count = _lanes(s, pool, q, kind, start, pace)
    s[q + w.TRAIN_ALONE] = 0
    s[q + w.TRAIN_ACCEPTED] = 0
    if lanes == 0:
        return NO_TRAIN  # an older burst of the bank waits for another row
    if lanes * pace < again:
        if s[q + w.ACTIVE + s[q + w.MODE]] > 1:
            return NO_TRAIN  # others go in between
        s[q + w.TRAIN_ALONE] = 1
        pace = again
    count = _bounded(m, s, q, lanes, count)
    if count <= 0:
        return NO_TRAIN
    s[q + w.TRAIN_LANES] = lanes
    s[q + w.TRAIN_CLOCK] = start
    s[q + w.TRAIN_PACE] = pace
    s[q + w.TRAIN_COUNT] = count
    return int(start + (count - 1) * pace + 1)


@njit
def _oldest_hit(s: Int64, q: int, kind: int) -> int:
    """The bank of the oldest hit of a queue, or NONE."""
    d = s[q + w.MODE]
    first = s[q + w.ACTIVE_LIST + d]
    lead, oldest = w.NONE, w.NEVER
    for k in range(first, first + s[q + w.ACTIVE + d]):
        b = s[k]
        if s[b + w.KIND] == kind and s[b + w.AGE_OF_BANK] < oldest:
            lead, oldest = b, s[b + w.AGE_OF_BANK]
    return int(lead)


@njit
def _note_lanes(s: Int64, pool: Int64, q: int, kind: int, oldest: int, start: int) -> bool:
    """Note in LANE the banks whose hits are the oldest ones, in their order.

    False if a younger hit goes before the oldest one. TRAIN_ROWS: no bank waits for the row of an
    older burst. TRAIN_RIVAL: the oldest hit that is not noted.
    """
    d = s[q + w.MODE]
    for k in range(MOST_LANES):
        s[q + w.LANE + k] = w.NONE
    s[q + w.TRAIN_ROWS] = 1
    s[q + w.TRAIN_RIVAL] = w.NEVER
    earliest = max(s[w.CLOCK], s[w.COLUMN_SLOT])
    first = s[q + w.ACTIVE_LIST + d]
    for k in range(first, first + s[q + w.ACTIVE + d]):
        b = s[k]
        age = s[b + w.AGE_OF_BANK]
        if s[b + w.KIND] < 0:  # it waits for a refresh
            age = pool[s[b + w.HEAD + d], w.AGE] + w.ROW_CLASS
        if s[b + w.KIND] != kind:
            if age - w.ROW_CLASS < oldest:
                s[q + w.TRAIN_ROWS] = 0
            continue
        if max(earliest, ready(s, kind, b)) < start:
            return False
        if age - oldest < MOST_LANES and s[b + w.HIT + d] == s[b + w.HEAD + d]:
            s[q + w.LANE + age - oldest] = b
        else:
            s[q + w.TRAIN_RIVAL] = min(s[q + w.TRAIN_RIVAL], age)
    return True


@njit
def _lanes(s: Int64, pool: Int64, q: int, kind: int, start: int, pace: int) -> tuple[int, int]:
    """How many banks take turns, and how many of their bursts may go before any other one.

    Banks of a stripe that cannot serve leave gaps in the ages of those that do. What waits in them
    must not come between: their rows stay closed, and no other hit is as old.
    """
    d = s[q + w.MODE]
    lead = s[q + w.LANE]
    transfer = pool[s[lead + w.HIT + d], w.TRANSFER]
    lanes, groups, slot, step = 0, 0, 0, 0
    regular = True
    while slot < MOST_LANES:
        b = s[q + w.LANE + slot]
        if b >= 0:
            group = 1 << s[b + w.GROUP_NUMBER]
            since = max(s[b + kind], s[s[b + w.GROUP] + kind])
            if s[b + w.RANK] != s[lead + w.RANK] or groups & group or since > start + lanes * pace:
                break
            node = s[b + w.HIT + d]
            if pool[node, w.TRANSFER] != transfer:
                break
            if pool[node, w.LEFT] + pool[node, w.WAITING] > 1:
                step = pool[node, w.STEP] if step == 0 else step
                regular = regular and pool[node, w.STEP] == step
            s[q + w.LANE + lanes] = b
            groups |= group
            lanes += 1
        elif step == 0:
            break
        slot += 1
        if slot == step:
            break
    if slot == lanes:  # no gap
        return lanes, w.NEVER if regular and step in (0, lanes) else lanes
    if not regular or slot < step:
        return 0, 0
    s[q + w.TRAIN_ROWS] = 0
    rival = s[q + w.TRAIN_RIVAL] - s[lead + w.AGE_OF_BANK]
    for k in range(slot, MOST_LANES):
        if s[q + w.LANE + k] >= 0:
            rival = min(rival, k)
    return lanes, rival // step * lanes


@njit
def _bounded(m: Memory, s: Int64, q: int, lanes: int, count: int) -> int:
    """How many of ``count`` bursts may go before the queue has something to decide."""
    pool, d = m.pool, s[q + w.MODE]
    accepts = False
    cursor = s[q + w.CURSOR]
    arrived = cursor >= 0 and pool[cursor, w.AT] <= s[w.CLOCK]
    if arrived and s[q + w.WAKE] == w.NEVER:
        write = pool[cursor, w.WRITE]
        if (s[w.WRITE_BUFFER] - s[q + w.WRITES] if write else s[w.WINDOW] - s[q + w.READS]) > 0:
            return 0  # it waits for something else than room
        accepts = write == d
    s[q + w.TRAIN_ACCEPTS] = 1 if accepts else 0
    if accepts:
        count = min(count, _acceptable(m, s, q))
    elif d == 1:
        count = min(count, s[q + w.WRITES] - s[w.LOW] - 1)
    elif s[q + w.WRITES] > 0:
        count = min(count, s[q + w.READS] - 1)
    for k in range(lanes):
        node = s[s[q + w.LANE + k] + w.HIT + d]
        left = pool[node, w.LEFT]
        if accepts and pool[node, w.WAITING] > 0:
            count = min(count, (left - 1) * lanes + k)
        elif pool[node, w.NEXT] >= 0:
            count = min(count, (left - 1) * lanes + k + 1)
        else:
            count = min(count, left * lanes + k)
    transfer = pool[s[s[q + w.LANE] + w.HIT + d], w.TRANSFER]
    if d == 0 and transfer >= 0:
        count = min(count, m.transfers[transfer, w.DONE_LEFT] // s[w.MEMBERS])
    return int(count)


@njit
def _acceptable(m: Memory, s: Int64, q: int) -> int:
    """How many bursts the two rings at the head of the FIFO give to the window, one by one.

    One more for the ring behind them: it is not accepted in the same clock.
    """
    pool = m.pool
    cursor, rest = s[q + w.CURSOR], s[q + w.REST]
    d, transfer = pool[cursor, w.WRITE], pool[cursor, w.TRANSFER]
    total, behind = _of_ring(s, pool, cursor), rest
    if total == 0:
        return 1
    if rest >= 0 and pool[rest, w.TRANSFER] == transfer:
        more = _of_ring(s, pool, rest)
        if more > 0 and pool[rest, w.WRITE] == d and pool[rest, w.AT] <= s[w.CLOCK]:
            total, behind = total + more, pool[rest, w.REST_OF]
    if behind >= 0 and pool[behind, w.WRITE] == d and pool[behind, w.AT] <= s[w.CLOCK]:
        total += 1
    return int(
        total if transfer < 0 else min(total, m.transfers[transfer, w.ACCEPT_LEFT] // s[w.MEMBERS])
    )


@njit
def _of_ring(s: Int64, pool: Int64, first: int) -> int:
    """Bursts of a ring that enter the window for nothing but room; 0 if any needs another look."""
    d, total, node = pool[first, w.WRITE], 0, first
    while True:
        tag = tag_of(s, pool, node)
        own = d if pool[node, w.LEFT] > 0 else 0
        if (
            pool[node, w.WRITE] != d
            or pool[node, w.AT] != pool[first, w.AT]
            or pool[node, w.TRANSFER] != pool[first, w.TRANSFER]
            or s[tag + w.TAG_VALUES] > own
            or (d == 1 and (s[tag] > 0 or pool[node, w.STRIDE] == 0))
        ):
            return 0
        total += pool[node, w.WAITING]
        node = pool[node, w.RING]
        if node == first:
            return int(total)


# --- running


@njit
def run_trains(m: Memory, s: Int64, c: int, horizon: int) -> None:
    """Issue the commands of all trains before a clock."""
    q = s[w.FIRST_QUEUE]
    for _ in range(s[w.QUEUES]):
        start, count = s[q + w.TRAIN_CLOCK], s[q + w.TRAIN_COUNT]
        if count > 0 and start < horizon:
            _run(m, s, c, q, min(count, (horizon - 1 - start) // s[q + w.TRAIN_PACE] + 1))
        q += w.QUEUE_WORDS


@njit
def _run(m: Memory, s: Int64, c: int, q: int, count: int) -> None:
    d = s[q + w.MODE]
    last = s[q + w.TRAIN_CLOCK] + (count - 1) * s[q + w.TRAIN_PACE]
    transfer = m.pool[s[s[q + w.LANE] + w.HIT + d], w.TRANSFER]
    for k in range(min(count, s[q + w.TRAIN_LANES])):
        _run_lane(m, s, c, q, k, count)
    s[w.CLOCK] = max(s[w.CLOCK], last + 1)
    s[w.COLUMN_SLOT] = max(s[w.COLUMN_SLOT], last + 1)
    if s[w.DUAL] == 0:
        s[w.ROW_SLOT] = s[w.COLUMN_SLOT]
    end = last + (s[w.WRITE_CYCLES] if d else s[w.READ_CYCLES])
    s[w.LAST_DATA] = max(s[w.LAST_DATA], end)
    if d == 0 and transfer >= 0:
        complete(m, s, transfer, count, end)
    s[q + w.READS + d] -= count
    if s[q + w.TRAIN_ACCEPTS]:
        _refill(m, s, q, count - 1 - s[q + w.TRAIN_ACCEPTED])
        accept(m, c, q, last)
        choose_mode(s, m.pool, q, last)


@njit
def _run_lane(m: Memory, s: Int64, c: int, q: int, k: int, count: int) -> None:
    """The commands of one bank of a train of ``count`` commands."""
    pool, d, lanes = m.pool, s[q + w.MODE], s[q + w.TRAIN_LANES]
    b = s[q + w.LANE + k]
    node, kind = s[b + w.HIT + d], w.RD + d
    times, step = (count - k + lanes - 1) // lanes, lanes * s[q + w.TRAIN_PACE]
    first = s[q + w.TRAIN_CLOCK] + k * s[q + w.TRAIN_PACE]
    if m.log.shape[0] > 0:
        for i in range(times):
            column = pool[node, w.COLUMN] + i * pool[node, w.STRIDE]
            write_log(m, first + i * step, kind, c, s[b + w.NUMBER], s[b + w.OPEN], column)
    if d == 0 and m.finished.shape[0] > 0:
        for i in range(times):
            age = pool[node, w.AGE] + i * pool[node, w.STEP]
            m.finished[age] = first + i * step + s[w.READ_CYCLES]
    push_times(s, kind, b, first + (times - 1) * step)
    count_accesses(s, kind, b, times)
    pool[node, w.LEFT] -= times
    pool[node, w.COLUMN] += times * pool[node, w.STRIDE]
    pool[node, w.AGE] += times * pool[node, w.STEP]
    if pool[node, w.LEFT] == 0:
        unlink(s, pool, m.book, node)
    choose_candidate(s, pool, b, d)


@njit
def next_link(s: Int64, pool: Int64) -> tuple[int, int]:
    """When a train next brings a new row into the window, and its queue; NEVER if none does."""
    best, where = w.NEVER, w.NONE
    q = s[w.FIRST_QUEUE]
    for _ in range(s[w.QUEUES]):
        if s[q + w.TRAIN_COUNT] > 0 and s[q + w.TRAIN_ACCEPTS] and s[q + w.CURSOR] >= 0:
            nth = s[q + w.TRAIN_ACCEPTED] + _before_link(s, pool, q)
            at = s[q + w.TRAIN_CLOCK] + nth * s[q + w.TRAIN_PACE]
            if nth < s[q + w.TRAIN_COUNT] - 1 and at < best:
                best, where = at, q
        q += w.QUEUE_WORDS
    return best, where


@njit
def _before_link(s: Int64, pool: Int64, q: int) -> int:
    """Bursts that a FIFO gives to nodes in the window before it comes to a new one."""
    cursor = s[q + w.CURSOR]
    node, before, total = cursor, 0, 0
    while pool[node, w.LEFT] > 0:
        before += 1
        total += pool[node, w.WAITING]
        node = pool[node, w.RING]
        if node == cursor:
            return int(total)
    return before


@njit
def link_next(m: Memory, s: Int64, q: int, at: int, horizon: int) -> int:
    """Accept bursts up to the next new row, at a clock; the clock before which trains end."""
    pool, d = m.pool, s[q + w.MODE]
    before = _before_link(s, pool, q)
    _refill(m, s, q, before)
    b = pool[s[q + w.CURSOR], w.BANK]
    ends = s[q + w.TRAIN_ALONE] > 0 or s[b + w.KIND] == w.RD + d
    _refill(m, s, q, 1)
    s[w.CLOCK] = at + 1
    return int(min(horizon, at + 1) if ends else horizon)


@njit
def _refill(m: Memory, s: Int64, q: int, count: int) -> None:
    """Accept the next bursts of a train, one for each that goes."""
    if count <= 0:
        return
    pool, pace = m.pool, s[q + w.TRAIN_PACE]
    cursor = s[q + w.CURSOR]
    d, transfer = pool[cursor, w.WRITE], pool[cursor, w.TRANSFER]
    begin = s[q + w.TRAIN_CLOCK] + s[q + w.TRAIN_ACCEPTED] * pace
    wanted = m.accepted.shape[0] > 0
    left = count if wanted else count - _whole_rounds(pool, cursor, count)
    clock = begin + (count - left) * pace
    for _ in range(left):
        node = s[q + w.CURSOR]
        if wanted:
            age = pool[node, w.AGE] + pool[node, w.LEFT] * pool[node, w.STEP]
            m.accepted[age] = clock
            if d == 1:
                m.finished[age] = clock + 1
        if pool[node, w.LEFT] == 0:
            link(s, pool, node)
        pool[node, w.LEFT] += 1
        pool[node, w.WAITING] -= 1
        turn(s, q, pool, node)
        clock += pace
    s[q + w.TRAIN_ACCEPTED] += count
    s[q + w.READS + d] += count
    account_transfer(m, s, transfer, d, count, begin + (count - 1) * pace)


@njit
def _whole_rounds(pool: Int64, cursor: int, count: int) -> int:
    """Accept whole rounds of a ring that leave none of its nodes empty; how many bursts."""
    lanes, least, node = 0, w.NEVER, cursor
    while True:
        least = min(least, pool[node, w.WAITING] - 1 if pool[node, w.LEFT] > 0 else 0)
        lanes += 1
        node = pool[node, w.RING]
        if node == cursor:
            break
    rounds = min(count // lanes, least)
    for _ in range(lanes):
        pool[node, w.WAITING] -= rounds
        pool[node, w.LEFT] += rounds
        node = pool[node, w.RING]
    return int(rounds * lanes)


@njit
def sort_log(m: Memory, begin: int) -> None:
    """Bring logged commands from a place on into the order of their clocks, columns first."""
    log = m.log
    for n in range(begin + 1, m.book[w.LOGGED]):
        k = n
        while k > begin and _key(log, k - 1) > _key(log, k):
            for field in range(log.shape[1]):
                log[k, field], log[k - 1, field] = log[k - 1, field], log[k, field]
            k -= 1


@njit
def _key(log: Int64, k: int) -> int:
    column = log[k, 1] == w.RD or log[k, 1] == w.WR
    return int(2 * log[k, 0] + (0 if column else 1))
