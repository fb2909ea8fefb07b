"""FR-FCFS over windows, compiled: the decisions of a channel.

What happens in a clock, in this order: a refresh falls due, a queue chooses between reads and
writes, a command goes out, requests are accepted. Between two decisions nothing happens, so the
clock jumps.

The interface of an event engine: ``push`` bursts (``fifo_kernels``), look at IDLE_CLOCK, let a
channel ``advance`` up to the time at which somebody else may push, read ``events``.
"""

from accelsim._jit import njit_in_place as njit
from accelsim.hw.dram.bank_kernels import (
    choose_candidate,
    choose_mode,
    find_column,
    find_row,
    forget_best,
    hit_from,
    next_hit,
    unlink,
)
from accelsim.hw.dram.fifo_kernels import STEADY, UNSETTLED, accept, complete, refill
from accelsim.hw.dram.kernels import (
    access,
    activate,
    close,
    precharge,
    ready,
    refresh_rank,
    refreshed,
    turn_of,
    write_log,
)
from accelsim.hw.dram.state import (
    ACT,
    AGE,
    ALL_APART,
    APART,
    AUTO,
    BANK_WORDS,
    BEST_COLUMN,
    BEST_ROW,
    BLOCKED,
    CLOCK,
    CLOSED_PAGE,
    COLUMN,
    COLUMN_READY,
    CURSOR,
    DUAL,
    DUE,
    EVENTS,
    FIRST_QUEUE,
    FIRST_RANK,
    HEAD,
    HIT,
    HIT_CAP,
    IDLE_CLOCK,
    KIND,
    LAST_DATA,
    LEFT,
    LOGGED,
    MODE,
    NEVER,
    NEXT,
    NONE,
    NUMBER,
    OPEN,
    PENDING,
    PERIOD,
    PRE,
    QUEUE,
    QUEUE_WORDS,
    QUEUES,
    RANK_BANK,
    RANK_BANKS,
    RANK_QUEUE,
    RANK_WORDS,
    RANKS,
    RD,
    READ_CYCLES,
    READS,
    REFAB,
    REFRESH,
    REFRESH_DUE,
    REFRESH_KIND,
    REFRESH_PENDING,
    REFRESH_PLACE,
    REFRESH_READY,
    ROW,
    ROW_READY,
    SERVED,
    STEP,
    STRIDE,
    TRANSFER,
    TURN,
    TURNS,
    WAKE,
    WRITE_CYCLES,
    Int64,
    Memory,
)  # fmt: skip


@njit
def _best_column(s: Int64) -> tuple[int, int]:
    """Clock and bank of the column command that is ready first; NEVER for none.

    Ties go to the first pseudo-channel, and in it to the oldest request.
    """
    earliest = s[CLOCK]
    at, bank = NEVER, NONE
    q = s[FIRST_QUEUE]
    for _ in range(s[QUEUES]):
        if s[q + COLUMN_READY] < earliest:
            find_column(s, q, earliest)
        if s[q + COLUMN_READY] < at:
            at, bank = s[q + COLUMN_READY], s[q + BEST_COLUMN]
        q += QUEUE_WORDS
    return at, bank


@njit
def _best_row(s: Int64) -> tuple[int, int, int]:
    """Clock, bank and kind of the row command that is ready first; NEVER for none.

    One for a refresh comes before others; its kind is negative, and the bank is the rank for REF.
    """
    earliest = s[CLOCK]
    at, bank = NEVER, NONE
    q = s[FIRST_QUEUE]
    for _ in range(s[QUEUES]):
        if s[q + ROW_READY] < earliest:
            find_row(s, q, earliest)
        if s[q + ROW_READY] < at:
            at, bank = s[q + ROW_READY], s[q + BEST_ROW]
        q += QUEUE_WORDS
    kind = s[bank + KIND] if bank >= 0 else 0
    if s[PENDING] > 0:
        if s[REFRESH_READY] < earliest:
            _find_refresh(s, earliest)
        if s[REFRESH_READY] <= at:
            at, bank, kind = s[REFRESH_READY], s[REFRESH_PLACE], s[REFRESH_KIND]
    return at, bank, kind


@njit
def _find_refresh(s: Int64, earliest: int) -> None:
    """What due refreshes need first: PRE of an open bank, or REF when none is open."""
    best, where, kind = NEVER, NONE, 0
    r = s[FIRST_RANK] - RANK_WORDS
    for _ in range(s[RANKS]):
        r += RANK_WORDS
        if s[r + REFRESH_PENDING] == 0:
            continue
        closed, at = True, earliest
        for k in range(s[RANK_BANKS]):
            b = s[r + RANK_BANK] + k * BANK_WORDS
            if s[b + BLOCKED] == 0:
                continue
            if s[b + OPEN] < 0:
                at = max(at, ready(s, s[REFRESH], b))
                continue
            closed = False
            pre = max(earliest, ready(s, PRE, b))
            if pre < best:
                best, where, kind = pre, b, -1 - PRE
        if closed and at < best:
            best, where, kind = at, r, -1 - REFAB
    s[REFRESH_READY], s[REFRESH_PLACE], s[REFRESH_KIND] = best, where, kind


@njit
def _fall_due(s: Int64, pool: Int64, clock: int) -> None:
    """Refreshes that are due: their banks serve nobody until they are done."""
    due = NEVER
    s[REFRESH_READY] = NONE
    r = s[FIRST_RANK]
    for _ in range(s[RANKS]):
        while s[r + REFRESH_DUE] <= clock:
            s[r + REFRESH_DUE] += s[PERIOD]
            s[r + REFRESH_PENDING] += 1
            s[PENDING] += 1
            if s[r + REFRESH_PENDING] == 1:
                _block(s, pool, r, 1)
        due = min(due, s[r + REFRESH_DUE])
        r += RANK_WORDS
    s[DUE] = due


@njit
def _block(s: Int64, pool: Int64, r: int, blocked: int) -> None:
    """Close the banks of a rank's turn to requests, or open them again."""
    mode = s[s[r + RANK_QUEUE] + MODE]
    number, group = turn_of(s, r)
    for k in range(s[RANK_BANKS]):
        b = s[r + RANK_BANK] + k * BANK_WORDS
        if refreshed(s, b, number, group):
            s[b + BLOCKED] = blocked
            choose_candidate(s, pool, b, mode)


@njit
def _refresh(m: Memory, s: Int64, c: int, r: int, clock: int) -> None:
    """REF, and the requests of its banks may go on."""
    forget_best(s, True, True)
    b = refresh_rank(s, r, clock)
    if m.log.shape[0] > 0:
        write_log(m, clock, s[REFRESH], c, s[b + NUMBER], 0, 0)
    _block(s, m.pool, r, 0)
    s[r + TURN] = (s[r + TURN] + 1) % s[TURNS]
    s[r + REFRESH_PENDING] -= 1
    s[PENDING] -= 1
    if s[r + REFRESH_PENDING] > 0:
        _block(s, m.pool, r, 1)


@njit
def _row_command(m: Memory, s: Int64, c: int, b: int, kind: int, clock: int) -> None:
    """ACT or PRE of bank b for its oldest request, PRE or REF for a refresh (negative kind)."""
    if kind == -1 - REFAB:
        _refresh(m, s, c, b, clock)
        return
    forget_best(s, s[APART] == 0, True)
    pool = m.pool
    d = s[s[b + QUEUE] + MODE]
    row = pool[s[b + HEAD + d], ROW] if kind == ACT else s[b + OPEN]
    if m.log.shape[0] > 0:
        write_log(m, clock, ACT if kind == ACT else PRE, c, s[b + NUMBER], row, 0)
    if kind == ACT:
        activate(s, b, row, clock)
        s[b + HIT] = hit_from(pool, s[b + HEAD], row)
        s[b + HIT + 1] = hit_from(pool, s[b + HEAD + 1], row)
    else:
        precharge(s, b, clock, kind == PRE)
    choose_candidate(s, pool, b, d)


@njit
def _column_command(m: Memory, s: Int64, c: int, b: int, clock: int) -> bool:
    """RD or WR of the oldest hit of bank b; whether this changes nothing but when hits are ready.

    So it is while the bank has more hits to serve, and other commands hear of its own alone.
    """
    pool, q = m.pool, s[b + QUEUE]
    d = s[q + MODE]
    node = s[b + HIT + d]
    kind = RD + d
    left = pool[node, LEFT] - 1
    alone = s[CLOSED_PAGE] > 0 and left == 0 and s[b + HIT + 1 - d] < 0
    if alone and hit_from(pool, pool[node, NEXT], s[b + OPEN]) < 0:
        kind += AUTO
    if m.log.shape[0] > 0:
        write_log(m, clock, kind, c, s[b + NUMBER], s[b + OPEN], pool[node, COLUMN])
    access(s, kind, b, clock)
    end = clock + (s[WRITE_CYCLES] if d else s[READ_CYCLES])
    s[LAST_DATA] = max(s[LAST_DATA], end)
    if d == 0:
        if m.finished.shape[0] > 0:
            m.finished[pool[node, AGE]] = end
        if pool[node, TRANSFER] >= 0:
            complete(m, s, pool[node, TRANSFER], 1, end)
    s[q + READS + d] -= 1
    pool[node, LEFT] = left
    pool[node, COLUMN] += pool[node, STRIDE]
    pool[node, AGE] += pool[node, STEP]
    if s[APART] == 0:
        forget_best(s, True, True)
    if left > 0 and (node == s[b + HEAD + d] or s[b + SERVED] < s[HIT_CAP]):
        next_hit(s, q, b, pool[node, AGE])
        return bool(s[ALL_APART] > 0)
    if left == 0:
        unlink(s, pool, m.book, node)
    if kind >= RD + AUTO:
        close(s, b, clock)
    choose_candidate(s, pool, b, d)
    return False


@njit
def _accept_next(m: Memory, s: Int64, c: int, q: int, clock: int) -> bool:
    """Accept what may take the place of a burst; whether this changes nothing but their number."""
    done = refill(m, c, q, clock)
    if done != UNSETTLED:
        return done == STEADY
    empty = s[q + CURSOR] < 0
    if not empty:
        accept(m, c, q, clock)
    return not choose_mode(s, m.pool, q, clock) and empty


@njit
def _wake(s: Int64) -> tuple[int, bool]:
    """Clock of the next acceptance, and whether every queue has requests not accepted yet."""
    wake, backlog = NEVER, True
    q = s[FIRST_QUEUE]
    for _ in range(s[QUEUES]):
        wake = min(wake, s[q + WAKE])
        backlog = backlog and s[q + CURSOR] >= 0
        q += QUEUE_WORDS
    return wake, backlog


@njit
def _accept_arrivals(m: Memory, s: Int64, c: int, clock: int) -> None:
    """Queues whose next request arrives at a clock."""
    q = s[FIRST_QUEUE]
    for _ in range(s[QUEUES]):
        if s[q + WAKE] <= clock:
            accept(m, c, q, clock)
            choose_mode(s, m.pool, q, clock)
        q += QUEUE_WORDS


@njit
def advance(m: Memory, c: int, limit: int, idle: bool) -> int:
    """Let channel c decide what it does before clock ``limit``; returns its next time, or NEVER.

    It stops earlier at the time of an event, because somebody may answer it, and goes beyond
    ``limit`` while its backlog makes what arrives later irrelevant. ``idle`` lets it refresh up to
    ``limit`` without requests. It stops when the log is full, too: LOGGED tells.

    Most column commands leave everything but hits as it was: until ``quiet`` nothing else is to be
    looked at.
    """
    s, pool = m.state[c], m.pool
    bound, told = limit, m.book[EVENTS]
    had, quiet = told, 0
    row_at, row_bank, row_kind = NEVER, NONE, 0
    while m.log.shape[0] == 0 or m.book[LOGGED] + 2 <= m.log.shape[0]:
        column_at, column_bank = _best_column(s)
        if column_at >= quiet or told < m.book[EVENTS]:
            quiet = 0
            row_at, row_bank, row_kind = _best_row(s)
            at = min(column_at, row_at)
            wake, backlog = _wake(s)
            while told < m.book[EVENTS]:
                bound = min(bound, m.events[told, 2])
                told += 1
            until = bound if told > had or not backlog else NEVER
            first = min(at, wake)
            if idle:
                first = min(first, s[DUE])
            if first >= until or first == NEVER:
                s[IDLE_CLOCK] = first
                return first
            if s[DUE] <= first:
                s[CLOCK] = max(s[CLOCK], s[DUE])
                _fall_due(s, pool, s[CLOCK])
                continue
            if wake < at:
                clock = max(wake, s[CLOCK] - 1)
                _accept_arrivals(m, s, c, clock)
                s[CLOCK] = clock + 1
                continue
            if row_at < column_at:
                s[CLOCK] = row_at
                _row_command(m, s, c, row_bank, row_kind, row_at)
                s[CLOCK] = row_at + 1
                continue
            quiet = min(min(row_at, wake), min(s[DUE], until))
        s[CLOCK] = column_at
        q = s[column_bank + QUEUE]
        steady = _column_command(m, s, c, column_bank, column_at)
        if s[DUAL] > 0 and row_at == column_at:
            _row_command(m, s, c, row_bank, row_kind, row_at)
        steady = _accept_next(m, s, c, q, column_at) and steady
        s[CLOCK] = column_at + 1
        if not steady:
            quiet = 0
    return int(s[CLOCK])
