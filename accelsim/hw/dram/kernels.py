"""The compiled channel: what commands do to its timing.

``s`` is a channel's row of ``Memory.state``; b, r and q are the offsets of a bank, a rank and a
queue in it.
"""

from accelsim._jit import njit_in_place as njit
from accelsim.hw.dram.state import (
    ACT,
    ACTS,
    ALL_APART,
    AT_BANK,
    AT_GROUP,
    AT_OTHERS,
    AT_RANK,
    AT_SIBLINGS,
    AUTO,
    BANK_NUMBER,
    BANK_WORDS,
    CLOSED_BY_DEMAND,
    CONFLICTS,
    COST,
    COUNTS,
    FIRST_RANK,
    GROUP,
    GROUP_NUMBER,
    HIT,
    HITS,
    KINDS,
    LARGEST_WINDOW,
    LOGGED,
    MISSES,
    NONE,
    OPEN,
    OPEN_BANKS,
    OPEN_CYCLES,
    OPEN_SINCE,
    OTHERS_HEAR,
    PLAIN_KINDS,
    PRE,
    QUEUE,
    QUEUE_RANK,
    QUEUE_RANKS,
    RANK,
    RANK_BANK,
    RANK_BANKS,
    RANK_QUEUE,
    RANK_WORDS,
    RANKS,
    RD,
    REFAB,
    REFPB,
    REFRESH,
    REFRESH_READY,
    SERVED,
    SIBLINGS_HEAR,
    TURN,
    TURN_GROUPS,
    WINDOWS,
    WR,
    Int64,
    Memory,
)  # fmt: skip

# --- timing


@njit
def push_times(s: Int64, kind: int, b: int, clock: int) -> None:
    """A command to bank b: what may follow in the bank, its group, its rank and other ranks."""
    cost = COST + kind * KINDS
    g, r = s[b + GROUP], s[b + RANK]
    for j in range(PLAIN_KINDS):
        s[b + j] = max(s[b + j], clock + s[cost + AT_BANK * KINDS * KINDS + j])
        s[g + j] = max(s[g + j], clock + s[cost + AT_GROUP * KINDS * KINDS + j])
        s[r + j] = max(s[r + j], clock + s[cost + AT_RANK * KINDS * KINDS + j])
    if (s[SIBLINGS_HEAR] | s[OTHERS_HEAR]) >> kind & 1:
        _push_other_ranks(s, kind, r, clock)


@njit
def _push_other_ranks(s: Int64, kind: int, rank: int, clock: int) -> None:
    cost = COST + kind * KINDS
    r = s[FIRST_RANK]
    for _ in range(s[RANKS]):
        if r != rank:
            sibling = s[r + RANK_QUEUE] == s[rank + RANK_QUEUE]
            if (s[SIBLINGS_HEAR] if sibling else s[OTHERS_HEAR]) >> kind & 1:
                place = cost + (AT_SIBLINGS if sibling else AT_OTHERS) * KINDS * KINDS
                for j in range(PLAIN_KINDS):
                    s[r + j] = max(s[r + j], clock + s[place + j])
        r += RANK_WORDS


@njit
def _push_column(s: Int64, kind: int, b: int, clock: int) -> None:
    """``push_times`` of RD or WR where only PRE of the bank, and other columns, hear of it."""
    cost = COST + kind * KINDS
    g, r = s[b + GROUP], s[b + RANK]
    s[b + PRE] = max(s[b + PRE], clock + s[cost + AT_BANK * KINDS * KINDS + PRE])
    for j in range(RD, WR + 1):
        s[g + j] = max(s[g + j], clock + s[cost + AT_GROUP * KINDS * KINDS + j])
        s[r + j] = max(s[r + j], clock + s[cost + AT_RANK * KINDS * KINDS + j])
    if s[SIBLINGS_HEAR] >> kind & 1:
        sibling = s[s[b + QUEUE] + QUEUE_RANK]
        for _ in range(s[QUEUE_RANKS]):
            if sibling != r:
                for j in range(RD, WR + 1):
                    at = clock + s[cost + AT_SIBLINGS * KINDS * KINDS + j]
                    s[sibling + j] = max(s[sibling + j], at)
            sibling += RANK_WORDS


@njit
def push_activation(s: Int64, r: int, clock: int) -> None:
    """Windows of activations: the next ACT of a rank waits for the window-th last one."""
    n = s[r + ACTS] + 1
    s[r + ACTS] = n
    s[r + ACTS + 1 + n % LARGEST_WINDOW] = clock
    for w in range(s[WINDOWS]):
        cycles, window = s[WINDOWS + 1 + 2 * w], s[WINDOWS + 2 + 2 * w]
        if n >= window:
            since = s[r + ACTS + 1 + (n - window + 1) % LARGEST_WINDOW]
            s[r + ACT] = max(s[r + ACT], since + cycles)


@njit
def ready(s: Int64, kind: int, b: int) -> int:
    """First clock at which a command may go to a bank."""
    return int(max(s[b + kind], s[s[b + GROUP] + kind], s[s[b + RANK] + kind]))


@njit
def turn_of(s: Int64, r: int) -> tuple[int, int]:
    """Whose turn a rank's next refresh is: number of the banks, and what it says of their groups.

    The number is NONE if it concerns all banks.
    """
    if s[REFRESH] == REFAB:
        return NONE, 0
    return int(s[r + TURN] // s[TURN_GROUPS]), int(s[r + TURN] % s[TURN_GROUPS])


@njit
def refreshed(s: Int64, b: int, number: int, group: int) -> bool:
    """Whether a refresh concerns a bank of its rank, given ``turn_of`` it."""
    if number < 0:
        return True
    return bool(s[b + BANK_NUMBER] == number and s[b + GROUP_NUMBER] % s[TURN_GROUPS] == group)


# --- commands


@njit
def write_log(m: Memory, clock: int, kind: int, c: int, b: int, row: int, column: int) -> None:
    """A command of channel c to bank number b."""
    n = m.book[LOGGED]
    m.book[LOGGED] = n + 1
    m.log[n, 0] = clock
    m.log[n, 1] = kind if kind <= REFPB else kind + 1  # Command has PREAB between
    m.log[n, 2] = c
    m.log[n, 3] = b
    m.log[n, 4] = row
    m.log[n, 5] = column


@njit
def activate(s: Int64, b: int, row: int, clock: int) -> None:
    """ACT."""
    r = s[b + RANK]
    push_times(s, ACT, b, clock)
    push_activation(s, r, clock)
    s[COUNTS + ACT] += 1
    s[b + OPEN] = row
    s[b + SERVED] = 0
    if s[r + OPEN_BANKS] == 0:
        s[r + OPEN_SINCE] = clock
    s[r + OPEN_BANKS] += 1


@njit
def close(s: Int64, b: int, clock: int) -> None:
    """What PRE and an auto-precharge do to a bank, its timing apart."""
    r = s[b + RANK]
    s[b + OPEN] = NONE
    s[b + HIT] = NONE
    s[b + HIT + 1] = NONE
    s[r + OPEN_BANKS] -= 1
    if s[r + OPEN_BANKS] == 0:
        s[r + OPEN_CYCLES] += clock - s[r + OPEN_SINCE]


@njit
def precharge(s: Int64, b: int, clock: int, demanded: bool) -> None:
    """PRE, for a request (demanded) or for a refresh."""
    push_times(s, PRE, b, clock)
    s[COUNTS + PRE] += 1
    s[b + CLOSED_BY_DEMAND] = 1 if demanded else 0
    close(s, b, clock)


@njit
def access(s: Int64, kind: int, b: int, clock: int) -> None:
    """RD, WR or their auto-precharging forms: a hit, unless it is the first one of an open row."""
    if s[ALL_APART] > 0 and kind < RD + AUTO:
        _push_column(s, kind, b, clock)
    else:
        push_times(s, kind, b, clock)
        s[REFRESH_READY] = NONE
    s[COUNTS + kind] += 1
    if s[b + SERVED] > 0:
        s[HITS] += 1
    else:
        s[CONFLICTS if s[b + CLOSED_BY_DEMAND] > 0 else MISSES] += 1
        s[b + CLOSED_BY_DEMAND] = 0
    s[b + SERVED] += 1


@njit
def refresh_rank(s: Int64, r: int, clock: int) -> int:
    """REFAB or REFPB of a rank's turn; returns the bank that the command names."""
    named = NONE
    number, group = turn_of(s, r)
    for k in range(s[RANK_BANKS]):
        b = s[r + RANK_BANK] + k * BANK_WORDS
        if refreshed(s, b, number, group):
            push_times(s, s[REFRESH], b, clock)
            if named < 0:
                named = b
    s[COUNTS + s[REFRESH]] += 1
    return named
