"""The compiled PIM channel: what a command does to rows, times and counts."""

from accelsim._jit import njit_in_place as njit
from accelsim.hw.pim.channel.state import (
    BUFFER,
    CLOSE,
    MOST_WINDOW,
    NONE,
    OPEN,
    OPEN_BANKS,
    OPEN_CYCLES,
    OPEN_SINCE,
    RANK_BANKS,
    REACH,
    RESERVED,
    ROLE,
    SECOND,
    STEP,
    Channels,
)  # fmt: skip

ACT = 0


@njit
def ready_at(k: Channels, c: int, kind: int, bank: int) -> int:
    """First clock at which a command may go to all banks that it reaches."""
    places, at = k.asked[k.kind[kind, REACH], bank], 0
    for n in range(places.shape[0]):
        p = places[n]
        if p < 0:
            break
        if k.ready[c, p, kind] > at:
            at = k.ready[c, p, kind]
    if kind == ACT:
        at = max(at, _window(k, c, bank // k.setting[RANK_BANKS]))
    return int(at)


@njit
def _window(k: Channels, c: int, rank: int) -> int:
    """First clock that tFAW and its like leave for an activation by the host's command."""
    acts, at = k.acts[c, rank, MOST_WINDOW], 0
    for w in range(k.windows.shape[0]):
        if acts >= k.windows[w, 1]:
            last = k.acts[c, rank, (acts - k.windows[w, 1]) % MOST_WINDOW]
            at = max(at, last + k.windows[w, 0])
    return at


@njit
def issue(
    k: Channels, c: int, kind: int, bank: int, row: int, repeat: int, left: int, total: int,
    begun: int, clock: int,
) -> int:  # fmt: skip
    """Send a command, or ``repeat`` of the ``left`` of a run; returns the clock of the last one.

    The run has ``total``, the first of which went at ``begun``.
    """
    step = k.kind[kind, STEP]
    last = clock + (repeat - 1) * step if step > 0 else clock
    k.sent[c, kind] += repeat if step > 0 else 1
    _push(k, c, kind, bank, total, begun, last)
    role = k.kind[kind, ROLE]
    if role in (OPEN, CLOSE):
        _drive_rows(k, c, kind, bank, row if role == OPEN else NONE, clock)
    if kind == ACT:
        rank = bank // k.setting[RANK_BANKS]
        k.acts[c, rank, k.acts[c, rank, MOST_WINDOW] % MOST_WINDOW] = clock
        k.acts[c, rank, MOST_WINDOW] += 1
    if k.log.shape[0] > 0:
        _write_log(k, c, kind, bank, row, repeat, left, clock)
    return last


@njit
def _push(k: Channels, c: int, kind: int, bank: int, total: int, first: int, last: int) -> None:
    """What may follow, and when, at every place that hears of a command."""
    heard, several = k.heard[k.kind[kind, REACH], bank], k.several[kind] > 0
    for n in range(heard.shape[0]):
        if heard[n, 0] < 0:
            break
        how = heard[n, 1]
        times, costs = k.ready[c, heard[n, 0]], k.delay[how, kind]
        for after in range(times.shape[0]):
            times[after] = max(times[after], last + costs[after])
        if several:
            for after in range(times.shape[0]):
                rule = k.each[how, kind, after]
                times[after] = max(times[after], first + rule[0] + rule[1] * max(total, rule[2]))


@njit
def _drive_rows(k: Channels, c: int, kind: int, bank: int, row: int, clock: int) -> None:
    """Open a row in, or close, the row buffers of all banks that the command reaches."""
    both = k.setting[SECOND] > 0 and k.kind[kind, REACH] > 1 and k.kind[kind, ROLE] == CLOSE
    buffer, banks = k.kind[kind, BUFFER], k.reached[k.kind[kind, REACH], bank]
    for n in range(banks.shape[0]):
        b = banks[n]
        if b < 0:
            break
        _set_row(k, c, buffer, b, row, clock)
        if both:
            _set_row(k, c, 1 - buffer, b, row, clock)
        if buffer == 0:
            k.served[c, b] = 0


@njit
def _set_row(k: Channels, c: int, buffer: int, b: int, row: int, clock: int) -> None:
    was = k.rows[c, buffer, b]
    k.quiet[c, b] = 0
    k.rows[c, buffer, b] = row
    rank = k.rank[c, buffer, b // k.setting[RANK_BANKS]]
    if was < 0 and row >= 0:
        if rank[OPEN_BANKS] == 0:
            rank[OPEN_SINCE] = clock
        rank[OPEN_BANKS] += 1
    elif was >= 0 and row < 0:
        rank[OPEN_BANKS] -= 1
        if rank[OPEN_BANKS] == 0:
            rank[OPEN_CYCLES] += clock - rank[OPEN_SINCE]


@njit
def reserve(k: Channels, c: int, row: int) -> None:
    """Requests to a row wait; NONE: to none any more."""
    if k.word[c, RESERVED] != row:
        k.word[c, RESERVED] = row
        for b in range(k.quiet.shape[1]):
            k.quiet[c, b] = 0


@njit
def _write_log(
    k: Channels, c: int, kind: int, bank: int, row: int, repeat: int, left: int, clock: int
) -> None:
    step, n = k.kind[kind, STEP], k.logged[0]
    for i in range(repeat if step > 0 else 1):
        entry = k.log[n]
        entry[0], entry[1], entry[2] = clock + i * step, kind, c
        entry[3], entry[4], entry[5] = bank, row, left - i
        n += 1
    k.logged[0] = n
