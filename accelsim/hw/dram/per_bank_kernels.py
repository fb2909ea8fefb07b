"""Compiled channels with a short command queue per bank, served round robin.

The rules are those of DRAMsim3's controller, clock by clock. All channels run in lockstep, since
one full queue holds up every later request. Clocks in which nothing can happen are left out.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit_in_place
from accelsim.hw.dram.run_kernels import DONE, FILLED, Places

Int64 = NDArray[np.int64]
Int8 = NDArray[np.int8]

NEVER = 1 << 62
NONE = -1
ACT, PRE, RD, WR, REFAB = range(5)
KINDS = 5
FIRST_CLOCK = 1  # DRAMsim3 is offered the first request after one clock
MOST_WINDOW = 32  # activations that are remembered
IDLE_WRITES = 8  # more of them are drained once all command queues are empty

# Settings
DEPTH, READ_QUEUE, WRITE_BUFFER, HIT_CAP, PER_CLOCK, DUAL, ONE_BY_ONE = range(7)
RANK_BANKS, READ_CYCLES, WRITE_CYCLES, REFRESH_STEP = range(7, 11)
# Words of a channel
READS, WRITES, DRAIN, POINTER, QUEUED, PENDING, RANK_DUE = range(7)
HITS, MISSES, CONFLICTS, COUNTS = 7, 8, 9, 10  # commands from COUNTS on, by kind
CHANNEL_WORDS = COUNTS + KINDS
# Words of a rank: open banks, since when, clocks with one, activations
OPEN_BANKS, OPEN_SINCE, OPEN_CYCLES, ACTS, RANK_WORDS = range(5)
# Words of a bank: open row, columns since its activation, closed for another row, queued
OPEN, SERVED, DEMANDED, LENGTH, BANK_WORDS = range(5)
# Words of the run
CLOCK, OFFERED, LAST_FINISHED, LAST_DATA, LOGGED, REFRESH_AT = range(6)
UNREAD, UNWRITTEN, BOOK_WORDS = 6, 7, 8


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
    queue: Int64  # [c, b, place]: requests
    reads: Int64  # [c, place]: requests
    writes: Int64
    same: Int64  # by i: what other requests to the same burst are numbered
    writing: Int8  # by burst: whether a write of it waits
    reading: Int64  # by burst: the last read of it that waits
    before: Int64  # by i: the read of the same burst that waited before it
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
        following = _accept(k, p, queues, clock)
        done = book[OFFERED] == k.same.shape[0]
        flush = done and book[UNREAD] == 0 and clock >= book[LAST_FINISHED]
        if flush and book[UNWRITTEN] == 0:
            return DONE
        due = step > 0 and clock >= book[REFRESH_AT]
        if due:
            book[REFRESH_AT] += step
        for c in range(k.channel.shape[0]):
            if due:
                k.channel[c, PENDING] += 1
            following = min(following, _tick(k, p, c, clock, flush))
        if step > 0:
            following = min(following, book[REFRESH_AT])
        if done and clock < book[LAST_FINISHED]:
            following = min(following, book[LAST_FINISHED])
        book[CLOCK] = max(clock + 1, following)


@njit_in_place
def _accept(k: Channels, p: Places, queues: int, clock: int) -> int:
    """Take requests in order until one finds its queue full; returns when to try again."""
    book, taken = k.book, 0
    while book[OFFERED] < k.same.shape[0]:
        i = book[OFFERED]
        arrival = p.clock[i] if p.clock.shape[0] > 0 else 0
        if k.setting[ONE_BY_ONE] and i > 0:
            if k.finished[i - 1] < 0:
                return NEVER
            arrival = max(arrival, k.finished[i - 1])
        if arrival > clock:
            return arrival
        if k.setting[PER_CLOCK] > 0 and taken >= k.setting[PER_CLOCK]:
            return clock + 1
        c = p.queue[i] // queues
        if not _take(k, c, i, p.write[i], clock):
            return NEVER  # what makes room is an event of the channel
        k.accepted[i] = clock
        book[OFFERED] += 1
        taken += 1
    return NEVER


@njit_in_place
def _take(k: Channels, c: int, i: int, write: bool, clock: int) -> bool:
    """Put one request into the read queue or the write buffer; False if that is full."""
    s, burst = k.channel[c], k.same[i]
    waiting, room = (WRITES, WRITE_BUFFER) if write else (READS, READ_QUEUE)
    if s[waiting] >= k.setting[room]:
        return False
    if write:
        if k.writing[burst] == 0:
            k.writing[burst] = 1
            k.writes[c, s[WRITES]] = i
            s[WRITES] += 1
            k.book[UNWRITTEN] += 1
        _finish(k, i, clock + 2)
    elif k.writing[burst]:
        _finish(k, i, clock + 2)
    else:
        if k.reading[burst] == NONE:
            k.reads[c, s[READS]] = i
            s[READS] += 1
            k.book[UNREAD] += 1
        k.before[i] = k.reading[burst]
        k.reading[burst] = i
    return True


@njit_in_place
def _finish(k: Channels, i: int, clock: int) -> None:
    k.finished[i] = clock
    k.book[LAST_FINISHED] = max(k.book[LAST_FINISHED], clock)


@njit_in_place
def _tick(k: Channels, p: Places, c: int, clock: int, flush: bool) -> int:
    """One clock of a channel; returns the first clock in which the next thing may happen."""
    s = k.channel[c]
    held, soon, bank, place, command = NONE, NEVER, NONE, NONE, NONE
    if s[PENDING] > 0:
        held = s[RANK_DUE]
        bank, command, soon = _pick_refresh(k, c, held, clock)
    if command != NONE:
        _issue(k, p, c, bank, NONE, command, clock)
        if command == REFAB:
            held = NONE
    else:
        bank, place, command, later = _pick(k, p, c, held, clock)
        soon = min(soon, later)
        if command != NONE:
            _issue(k, p, c, bank, place, command, clock)
    if command != NONE:
        soon = clock + 1
        if k.setting[DUAL]:
            bank, place, second, _ = _pick(k, p, c, held, clock)
            if second != NONE and _is_column(second) != _is_column(command):
                _issue(k, p, c, bank, place, second, clock)
    return clock + 1 if _schedule(k, p, c, flush) else soon


@njit_in_place
def _is_column(command: int) -> bool:
    return bool(command in (RD, WR))


@njit_in_place
def _pick_refresh(k: Channels, c: int, rank: int, clock: int) -> tuple[int, int, int]:
    """(bank, command, when): the first open bank that can be closed, or the refresh."""
    first, soon, late = rank * k.setting[RANK_BANKS], NEVER, 0
    is_open = False
    for b in range(first, first + k.setting[RANK_BANKS]):
        if k.bank[c, b, OPEN] == NONE:
            late = max(late, k.ready[c, b, REFAB])
            continue
        is_open = True
        at = k.ready[c, b, PRE]
        if at <= clock:
            return b, PRE, clock
        soon = min(soon, at)
    if is_open:
        return NONE, NONE, soon
    return (first, REFAB, clock) if late <= clock else (NONE, NONE, late)


@njit_in_place
def _pick(k: Channels, p: Places, c: int, held: int, clock: int) -> tuple[int, int, int, int]:
    """(bank, place, command, when) of the first command that is ready, round robin over banks."""
    s, soon, banks = k.channel[c], NEVER, k.bank.shape[1]
    for _ in range(banks):
        b = s[POINTER] + 1
        if b == banks:
            b = 0
        s[POINTER] = b
        if b // k.setting[RANK_BANKS] == held:
            continue
        row = k.bank[c, b, OPEN]
        for place in range(k.bank[c, b, LENGTH]):
            i = k.queue[c, b, place]
            command = ACT
            if row != NONE:
                command = PRE if p.row[i] != row else WR if p.write[i] else RD
            at = k.ready[c, b, command]
            if command == ACT:
                at = max(at, _window(k, c, b // k.setting[RANK_BANKS]))
            if at > clock:
                soon = min(soon, at)
            elif command != PRE or _may_close(k, p, c, b, place):
                return b, place, command, clock
    return NONE, NONE, NONE, soon


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
def _may_close(k: Channels, p: Places, c: int, b: int, place: int) -> bool:
    """Only the oldest entry of a bank closes it: no hit is queued, or the row has had its share."""
    if place > 0:
        return False
    if k.bank[c, b, SERVED] >= k.setting[HIT_CAP]:
        return True
    for other in range(k.bank[c, b, LENGTH]):
        if p.row[k.queue[c, b, other]] == k.bank[c, b, OPEN]:
            return False
    return True


@njit_in_place
def _issue(k: Channels, p: Places, c: int, b: int, place: int, command: int, clock: int) -> None:
    s, bank, rank = k.channel[c], k.bank[c, b], b // k.setting[RANK_BANKS]
    row, column = NONE, NONE
    if place != NONE:
        i = k.queue[c, b, place]
        row, column = p.row[i], p.column[i]
    if command == ACT:
        _open(k, c, b, rank, row, clock)
    elif command == PRE:
        r = k.rank[c, rank]
        r[OPEN_BANKS] -= 1
        if r[OPEN_BANKS] == 0:
            r[OPEN_CYCLES] += clock - r[OPEN_SINCE]
        bank[OPEN], bank[DEMANDED] = NONE, place != NONE
    elif command == REFAB:
        s[PENDING] -= 1
        s[RANK_DUE] = (s[RANK_DUE] + 1) % k.rank.shape[1]
    else:
        _serve(k, c, b, place, command, clock)
    s[COUNTS + command] += 1
    for other in range(k.bank.shape[1]):
        relation = k.relation[b, other]
        for kind in range(KINDS):
            at = clock + k.delay[relation, command, kind]
            if at > k.ready[c, other, kind]:
                k.ready[c, other, kind] = at
    if k.log.shape[0] > 0:
        entry = k.log[k.book[LOGGED]]
        entry[0], entry[1], entry[2], entry[3] = clock, command, c, b
        entry[4], entry[5] = row, column
        k.book[LOGGED] += 1


@njit_in_place
def _open(k: Channels, c: int, b: int, rank: int, row: int, clock: int) -> None:
    r, bank = k.rank[c, rank], k.bank[c, b]
    k.acts[c, rank, r[ACTS] % MOST_WINDOW] = clock
    r[ACTS] += 1
    if r[OPEN_BANKS] == 0:
        r[OPEN_SINCE] = clock
    r[OPEN_BANKS] += 1
    bank[OPEN], bank[SERVED] = row, 0


@njit_in_place
def _serve(k: Channels, c: int, b: int, place: int, command: int, clock: int) -> None:
    """Take a column out of its queue; all reads of the burst finish with it."""
    s, bank = k.channel[c], k.bank[c, b]
    i = k.queue[c, b, place]
    for after in range(place + 1, bank[LENGTH]):
        k.queue[c, b, after - 1] = k.queue[c, b, after]
    bank[LENGTH] -= 1
    s[QUEUED] -= 1
    k.book[UNWRITTEN if command == WR else UNREAD] -= 1
    if bank[SERVED] > 0:
        s[HITS] += 1
    elif bank[DEMANDED]:
        s[CONFLICTS] += 1
    else:
        s[MISSES] += 1
    bank[SERVED] += 1
    burst = k.same[i]
    end = clock + k.setting[WRITE_CYCLES if command == WR else READ_CYCLES]
    k.book[LAST_DATA] = max(k.book[LAST_DATA], end)
    if command == WR:
        k.writing[burst] = 0
        return
    while k.reading[burst] != NONE:
        one = k.reading[burst]
        k.reading[burst] = k.before[one]
        _finish(k, one, end + 1)


@njit_in_place
def _schedule(k: Channels, p: Places, c: int, flush: bool) -> bool:
    """Move the first request whose bank has room into its command queue."""
    s = k.channel[c]
    if s[DRAIN] == 0:
        idle = s[QUEUED] == 0 and s[WRITES] > IDLE_WRITES
        if s[WRITES] >= k.setting[WRITE_BUFFER] or idle or flush:
            s[DRAIN] = s[WRITES]
    write = s[DRAIN] > 0
    waiting = WRITES if write else READS
    for at in range(s[waiting]):
        i = k.writes[c, at] if write else k.reads[c, at]
        if k.bank[c, p.bank[i], LENGTH] >= k.setting[DEPTH]:
            continue
        if write:
            if k.reading[k.same[i]] != NONE:
                return _read_instead(k, p, c, k.same[i])
            s[DRAIN] -= 1
        _move(k, p, c, at, write)
        return True
    return False


@njit_in_place
def _read_instead(k: Channels, p: Places, c: int, burst: int) -> bool:
    """A write whose burst is still to be read ends the drain: look at the reads again.

    If the buffer is full, the drain begins anew before that, and DRAMsim3 waits forever for a read
    that is in no command queue yet; so that read is moved now.
    """
    s = k.channel[c]
    s[DRAIN] = 0
    if s[WRITES] >= k.setting[WRITE_BUFFER]:
        for at in range(s[READS]):
            if k.same[k.reads[c, at]] == burst:
                _move(k, p, c, at, False)
                break
    return bool(s[READS] > 0)


@njit_in_place
def _move(k: Channels, p: Places, c: int, at: int, write: bool) -> None:
    """Take a request out of its queue or buffer into the command queue of its bank."""
    s, waiting = k.channel[c], WRITES if write else READS
    queue = k.writes[c] if write else k.reads[c]
    i = queue[at]
    b = p.bank[i]
    k.queue[c, b, k.bank[c, b, LENGTH]] = i
    k.bank[c, b, LENGTH] += 1
    s[QUEUED] += 1
    for after in range(at + 1, s[waiting]):
        queue[after - 1] = queue[after]
    s[waiting] -= 1
