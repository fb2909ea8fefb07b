"""Compiled channels that give the oldest request whose next command is ready that command.

What happens in a clock, in this order: refreshes fall due, a command goes out (a column and a row
command where the device has two command buses), requests are accepted. Clocks in which nothing can
happen are left out. All channels run in lockstep, since one full queue holds up every later
request.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit_in_place
from accelsim.hw.dram.run_kernels import DONE, FILLED, Places

Int64 = NDArray[np.int64]

NEVER = 1 << 62
NONE = -1
ACT, PRE, RD, WR, REFAB, _, PREAB = range(7)
KINDS = 7  # numbered as ``Command``; REFPB is never issued
MOST_WINDOW = 32  # activations that are remembered
ANY_BUS, COLUMN_BUS, ROW_BUS = range(3)
READ, WRITE = 0, 1

# Settings
ROOM, HIGH, LOW, PER_CLOCK, DUAL, ONE_BY_ONE = 0, 2, 3, 4, 5, 6  # ROOM by direction: two words
RANK_BANKS, READ_CYCLES, WRITE_CYCLES, REFRESH_STEP, SETTINGS = range(7, 12)
# Words of a channel; WAITING by direction: two words
WAITING, DIRECTION, OPENED, DUE, HITS, MISSES, CONFLICTS, COUNTS = 0, 2, 3, 4, 5, 6, 7, 8
CHANNEL_WORDS = COUNTS + KINDS
# Words of a rank: open banks, since when, clocks with one, activations
OPEN_BANKS, OPEN_SINCE, OPEN_CYCLES, ACTS, RANK_WORDS = range(5)
# Words of a bank: open row, whether it waits for who opened it, closed for another row
OPEN, RESERVED, DEMANDED, BANK_WORDS = range(4)
# Words of the run; UNSERVED counts what was accepted and has not had its column command
CLOCK, OFFERED, UNSERVED, LAST_FINISHED, LAST_DATA, LOGGED, REFRESH_AT, BOOK_WORDS = range(8)


class Channels(NamedTuple):
    """State of all channels; c is a channel, b a bank of it, i the number of a request."""

    setting: Int64
    delay: Int64  # [relation of two banks, before, after]
    relation: Int64  # [b, b]
    windows: Int64  # [window, (cycles, activations)]
    book: Int64
    channel: Int64  # [c, word]
    rank: Int64  # [c, rank, word]
    acts: Int64  # [c, rank, MOST_WINDOW]: clocks of the last activations
    bank: Int64  # [c, b, word]
    ready: Int64  # [c, b, kind]: first clock of a command
    waiting: Int64  # [c, direction, place]: requests, the oldest first
    opened: Int64  # [c, place]: requests that opened their row
    due: Int64  # [c, place]: ranks that wait for a refresh, the oldest first
    same: Int64  # by i: what other requests to the same burst are numbered
    pending: Int64  # [direction, burst]: requests that wait for their column command
    accepted: Int64  # by i: clocks
    finished: Int64
    log: Int64  # [command, (clock, command, channel, bank, row, column)]


@njit_in_place
def drive(k: Channels, p: Places, queues: int) -> int:
    """Run until all requests are done and all writes written, or the log is full."""
    book, step = k.book, k.setting[REFRESH_STEP]
    while True:
        clock = book[CLOCK]
        if k.log.shape[0] > 0 and book[LOGGED] + 2 * k.channel.shape[0] > k.log.shape[0]:
            return FILLED
        if step > 0 and clock >= book[REFRESH_AT]:
            book[REFRESH_AT] += step
            _let_refreshes_fall_due(k)
        following = NEVER
        for c in range(k.channel.shape[0]):
            following = min(following, _tick(k, p, c, clock))
        following = min(following, _accept(k, p, queues, clock))
        if book[OFFERED] == k.same.shape[0] and book[UNSERVED] == 0:
            end = max(book[LAST_FINISHED], book[LAST_DATA])
            if clock >= end:
                return DONE
            following = min(following, end)
        if step > 0:
            following = min(following, book[REFRESH_AT])
        book[CLOCK] = max(clock + 1, following)


@njit_in_place
def _let_refreshes_fall_due(k: Channels) -> None:
    """All ranks of all channels at once; a rank that still waits is not asked twice."""
    ranks = k.rank.shape[1]
    for c in range(k.channel.shape[0]):
        s = k.channel[c]
        for rank in range(ranks):
            if s[DUE] < k.due.shape[1]:
                k.due[c, s[DUE]] = rank
                s[DUE] += 1


# --- acceptance


@njit_in_place
def _accept(k: Channels, p: Places, queues: int, clock: int) -> int:
    """Take requests in order until one finds its queue full; returns when to look again."""
    book, taken, soon = k.book, 0, NEVER
    while book[OFFERED] < k.same.shape[0]:
        i = book[OFFERED]
        arrival = p.clock[i] if p.clock.shape[0] > 0 else 0
        if k.setting[ONE_BY_ONE] and i > 0:
            if k.finished[i - 1] < 0:
                break
            arrival = max(arrival, k.finished[i - 1])
        if arrival > clock:
            soon = arrival
            break
        if k.setting[PER_CLOCK] > 0 and taken >= k.setting[PER_CLOCK]:
            break
        if not _take(k, p.queue[i] // queues, i, p.write[i], clock):
            break  # what makes room is a command
        k.accepted[i] = clock
        book[OFFERED] += 1
        taken += 1
    return clock + 1 if taken > 0 else soon


@njit_in_place
def _take(k: Channels, c: int, i: int, write: bool, clock: int) -> bool:
    """Put one request into its queue; False if that is full, or an older read comes first.

    A write to a burst that waits to be written is merged into it, a read of one served from it.
    """
    s, burst, direction = k.channel[c], k.same[i], WRITE if write else READ
    merged = k.pending[WRITE, burst] > 0
    if not merged:
        if s[WAITING + direction] >= k.setting[ROOM + direction]:
            return False
        if write and k.pending[READ, burst] > 0:
            return False
        k.waiting[c, direction, s[WAITING + direction]] = i
        s[WAITING + direction] += 1
        k.pending[direction, burst] += 1
        k.book[UNSERVED] += 1
    if merged or write:
        _finish(k, i, clock + 1)
    return True


@njit_in_place
def _finish(k: Channels, i: int, clock: int) -> None:
    k.finished[i] = clock
    k.book[LAST_FINISHED] = max(k.book[LAST_FINISHED], clock)


# --- commands


@njit_in_place
def _tick(k: Channels, p: Places, c: int, clock: int) -> int:
    """The commands of a clock; returns the first clock in which the next thing may happen."""
    if not k.setting[DUAL]:
        return _command(k, p, c, clock, ANY_BUS)
    soon = _command(k, p, c, clock, COLUMN_BUS)
    return min(soon, _command(k, p, c, clock, ROW_BUS))


@njit_in_place
def _command(k: Channels, p: Places, c: int, clock: int, bus: int) -> int:
    """One command on a bus: of who opened a row, else of a refresh, else of who waits."""
    soon = NEVER
    if bus != ROW_BUS:
        soon = _serve_opened(k, p, c, clock)
        if soon <= clock:
            return clock + 1
    if k.channel[c, DUE] > 0:  # until it is done, nothing else begins
        return min(soon, _refresh(k, c, clock)) if bus != COLUMN_BUS else soon
    return min(soon, _first_ready(k, p, c, clock, bus))


@njit_in_place
def _serve_opened(k: Channels, p: Places, c: int, clock: int) -> int:
    """The column of the oldest request that opened its row and may have it; when, if not now."""
    best, soon = NONE, NEVER
    for place in range(k.channel[c, OPENED]):
        i = k.opened[c, place]
        at = k.ready[c, p.bank[i], WR if p.write[i] else RD]
        if at > clock:
            soon = min(soon, at)
        elif best == NONE or i < k.opened[c, best]:
            best = place
    if best == NONE:
        return soon
    i = k.opened[c, best]
    _drop(k.opened[c], best, k.channel[c, OPENED])
    k.channel[c, OPENED] -= 1
    bank = k.bank[c, p.bank[i]]
    k.channel[c, CONFLICTS if bank[DEMANDED] else MISSES] += 1
    bank[RESERVED] = 0
    _serve(k, p, c, i, clock)
    return clock


@njit_in_place
def _refresh(k: Channels, c: int, clock: int) -> int:
    """Close all banks of the rank that is due, or refresh it; returns when, if not now."""
    s, rank = k.channel[c], k.due[c, 0]
    first, command, late = rank * k.setting[RANK_BANKS], REFAB, 0
    if k.rank[c, rank, OPEN_BANKS] > 0:
        command = PREAB
    for b in range(first, first + k.setting[RANK_BANKS]):
        if k.bank[c, b, RESERVED]:
            return NEVER  # who opened it comes first
        late = max(late, k.ready[c, b, command])
    if late > clock:
        return late
    if command == PREAB:
        for b in range(first, first + k.setting[RANK_BANKS]):
            k.bank[c, b, OPEN], k.bank[c, b, DEMANDED] = NONE, 0
        k.rank[c, rank, OPEN_BANKS] = 0
        k.rank[c, rank, OPEN_CYCLES] += clock - k.rank[c, rank, OPEN_SINCE]
    else:
        _drop(k.due[c], 0, s[DUE])
        s[DUE] -= 1
    _issue(k, c, first, command, NONE, NONE, clock)
    return clock + 1


@njit_in_place
def _first_ready(k: Channels, p: Places, c: int, clock: int, bus: int) -> int:
    """The next command of the oldest request for which it is ready; when, if there is none."""
    s, soon = k.channel[c], NEVER
    _turn_around(k, c)
    direction = s[DIRECTION]
    for place in range(s[WAITING + direction]):
        i = k.waiting[c, direction, place]
        b = p.bank[i]
        row, command = k.bank[c, b, OPEN], ACT
        if row != NONE:
            command = PRE if p.row[i] != row else WR if direction == WRITE else RD
        column = command in (RD, WR)
        if (bus == COLUMN_BUS and not column) or (bus == ROW_BUS and column):
            continue
        if command == PRE and k.bank[c, b, RESERVED]:
            continue
        at = k.ready[c, b, command]
        if command == ACT:
            at = max(at, _window(k, c, b // k.setting[RANK_BANKS]))
        if at > clock:
            soon = min(soon, at)
            continue
        _advance(k, p, c, place, command, clock)
        return clock + 1
    return soon


@njit_in_place
def _turn_around(k: Channels, c: int) -> None:
    """Write from the high watermark, or when no read waits, to the low one, if a read waits."""
    s = k.channel[c]
    if s[DIRECTION] == READ:
        if s[WAITING + WRITE] >= k.setting[HIGH] or s[WAITING + READ] == 0:
            s[DIRECTION] = WRITE
    elif s[WAITING + WRITE] <= k.setting[LOW] and s[WAITING + READ] > 0:
        s[DIRECTION] = READ


@njit_in_place
def _window(k: Channels, c: int, rank: int) -> int:
    """First clock that tFAW and its like leave for an activation."""
    acts, at = k.rank[c, rank, ACTS], 0
    for w in range(k.windows.shape[0]):
        if acts >= k.windows[w, 1]:
            last = k.acts[c, rank, (acts - k.windows[w, 1]) % MOST_WINDOW]
            at = max(at, last + k.windows[w, 0])
    return at


@njit_in_place
def _advance(k: Channels, p: Places, c: int, place: int, command: int, clock: int) -> None:
    """Issue a command for a waiting request, which leaves its queue when it opens or is served."""
    s = k.channel[c]
    direction = s[DIRECTION]
    i = k.waiting[c, direction, place]
    b = p.bank[i]
    bank, rank = k.bank[c, b], k.rank[c, b // k.setting[RANK_BANKS]]
    if command == PRE:
        rank[OPEN_BANKS] -= 1
        if rank[OPEN_BANKS] == 0:
            rank[OPEN_CYCLES] += clock - rank[OPEN_SINCE]
        row, bank[OPEN], bank[DEMANDED] = bank[OPEN], NONE, 1
        _issue(k, c, b, PRE, row, NONE, clock)
        return
    _drop(k.waiting[c, direction], place, s[WAITING + direction])
    s[WAITING + direction] -= 1
    if command != ACT:
        s[HITS] += 1
        _serve(k, p, c, i, clock)
        return
    k.acts[c, b // k.setting[RANK_BANKS], rank[ACTS] % MOST_WINDOW] = clock
    rank[ACTS] += 1
    if rank[OPEN_BANKS] == 0:
        rank[OPEN_SINCE] = clock
    rank[OPEN_BANKS] += 1
    bank[OPEN], bank[RESERVED] = p.row[i], 1
    k.opened[c, s[OPENED]] = i
    s[OPENED] += 1
    _issue(k, c, b, ACT, p.row[i], NONE, clock)


@njit_in_place
def _serve(k: Channels, p: Places, c: int, i: int, clock: int) -> None:
    """The column command of a request."""
    write = p.write[i]
    end = clock + k.setting[WRITE_CYCLES if write else READ_CYCLES]
    k.book[LAST_DATA] = max(k.book[LAST_DATA], end)
    k.book[UNSERVED] -= 1
    k.pending[WRITE if write else READ, k.same[i]] -= 1
    if not write:
        _finish(k, i, end)
    _issue(k, c, p.bank[i], WR if write else RD, p.row[i], p.column[i], clock)


@njit_in_place
def _issue(k: Channels, c: int, b: int, command: int, row: int, column: int, clock: int) -> None:
    """Account for a command: when others may follow, how many there were, the log."""
    k.channel[c, COUNTS + command] += 1
    for other in range(k.bank.shape[1]):
        relation = k.relation[b, other]
        for kind in range(KINDS):
            at = clock + k.delay[relation, command, kind]
            if at > k.ready[c, other, kind]:
                k.ready[c, other, kind] = at
    if k.log.shape[0] > 0:
        entry = k.log[k.book[LOGGED]]
        entry[0], entry[1], entry[2], entry[3] = clock, command, c, b
        entry[4], entry[5] = max(row, 0), max(column, 0)
        k.book[LOGGED] += 1


@njit_in_place
def _drop(queue: Int64, place: int, length: int) -> None:
    """Take an entry out of a queue; the younger ones move up."""
    for after in range(place + 1, length):
        queue[after - 1] = queue[after]
