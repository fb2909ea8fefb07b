"""FR-FCFS over windows, compiled: the decisions of a channel.

What happens in a clock, in this order: a refresh falls due, a queue chooses between reads and
writes, a command goes out, requests are accepted. Between two decisions nothing happens, so the
clock jumps.

The interface of an event engine: ``push`` bursts (``fifo_kernels``), look at IDLE_CLOCK, let a
channel ``advance`` up to the time at which somebody else may push, read ``events``.
"""

from accelsim._jit import njit_in_place as njit
from accelsim.hw.dram.fifo_kernels import accept, complete
from accelsim.hw.dram.kernels import (
    access,
    activate,
    choose_candidate,
    choose_mode,
    close,
    forget_best,
    hit_from,
    precharge,
    ready,
    refresh_rank,
    refreshed,
    unlink,
    write_log,
)  # fmt: skip
from accelsim.hw.dram.state import (
    ACT,
    ACTIVE,
    ACTIVE_LIST,
    AGE,
    AGE_OF_BANK,
    APART,
    AUTO,
    BANK_WORDS,
    BLOCKED,
    CLOCK,
    CLOSED_PAGE,
    COLUMN,
    COLUMN_AGE,
    COLUMN_BANK,
    COLUMN_READY,
    COLUMN_SLOT,
    CURSOR,
    DUAL,
    DUE,
    EVENTS,
    FIRST_QUEUE,
    FIRST_RANK,
    GROUP,
    HEAD,
    HIT,
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
    PAUSE,
    PENDING,
    PERIOD,
    PRE,
    QUEUE,
    QUEUE_WORDS,
    QUEUES,
    RANK,
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
    REFRESH_PENDING,
    ROW,
    ROW_AGE,
    ROW_BANK,
    ROW_READY,
    ROW_SLOT,
    STEP,
    STRIDE,
    TRAINS_FREE,
    TRANSFER,
    TURN,
    TURNS,
    WAKE,
    WRITE_CYCLES,
    Int64,
    Memory,
)  # fmt: skip
from accelsim.hw.dram.train_kernels import (
    form_trains,
    link_next,
    next_link,
    run_trains,
    sort_log,
)

FEW = 3  # clocks in which trains are not worth their forming
PAUSED = 4  # column commands after which another attempt is worth it


@njit
def _best(s: Int64) -> tuple[int, int, int, int, int]:
    """The column command and the row command that are ready first.

    Ties go to the first pseudo-channel, and in it to the oldest request.

    Clock and bank of the column command; clock, bank and kind of the row command; NEVER for none.
    A row command for a refresh comes before others; its kind is negative, and ``bank`` is the rank
    for REF.
    """
    column_from = max(s[CLOCK], s[COLUMN_SLOT])
    column_at, column_bank = NEVER, NONE
    q = s[FIRST_QUEUE]
    for _ in range(s[QUEUES]):
        if s[q + COLUMN_READY] < column_from:
            _find_column(s, q, column_from)
        if s[q + COLUMN_READY] < column_at:
            column_at, column_bank = s[q + COLUMN_READY], s[q + COLUMN_BANK]
        q += QUEUE_WORDS
    row_at, row_bank, row_kind = _best_row(s)
    return column_at, column_bank, row_at, row_bank, row_kind


@njit
def _best_row(s: Int64) -> tuple[int, int, int]:
    """Clock, bank (of a refresh, the rank) and kind of the row command that is ready first."""
    row_from = max(s[CLOCK], s[ROW_SLOT])
    row_at, row_bank = NEVER, NONE
    q = s[FIRST_QUEUE]
    for _ in range(s[QUEUES]):
        if s[q + ROW_READY] < row_from:
            _find_row(s, q, row_from)
        if s[q + ROW_READY] < row_at:
            row_at, row_bank = s[q + ROW_READY], s[q + ROW_BANK]
        q += QUEUE_WORDS
    row_kind = s[row_bank + KIND] if row_bank >= 0 else 0
    if s[PENDING] > 0:
        at, where, kind = _best_refresh(s, row_from)
        if at <= row_at:
            row_at, row_bank, row_kind = at, where, kind
    return row_at, row_bank, row_kind


@njit
def _find_column(s: Int64, q: int, earliest: int) -> None:
    """The column command of a queue that is ready first, ties to the oldest request.

    It stays that until a candidate changes, or until its clock has passed: then others may be as
    ready, and older.
    """
    d = s[q + MODE]
    kind = RD + d
    first, end = s[q + ACTIVE_LIST + d], s[q + ACTIVE_LIST + d] + s[q + ACTIVE + d]
    best, best_age, best_bank = NEVER, NEVER, NONE
    for k in range(first, end):
        b = s[k]
        if s[b + KIND] == kind:
            at = max(earliest, s[b + kind], s[s[b + GROUP] + kind], s[s[b + RANK] + kind])
            age = s[b + AGE_OF_BANK]
            if at < best or (at == best and age < best_age):
                best, best_age, best_bank = at, age, b
    s[q + COLUMN_BANK], s[q + COLUMN_AGE], s[q + COLUMN_READY] = best_bank, best_age, best


@njit
def _find_row(s: Int64, q: int, earliest: int) -> None:
    """The row command of a queue that is ready first, as ``_find_column``."""
    d = s[q + MODE]
    first, end = s[q + ACTIVE_LIST + d], s[q + ACTIVE_LIST + d] + s[q + ACTIVE + d]
    best, best_age, best_bank = NEVER, NEVER, NONE
    for k in range(first, end):
        b = s[k]
        kind = s[b + KIND]
        if 0 <= kind <= PRE:
            at = max(earliest, s[b + kind], s[s[b + GROUP] + kind], s[s[b + RANK] + kind])
            age = s[b + AGE_OF_BANK]
            if at < best or (at == best and age < best_age):
                best, best_age, best_bank = at, age, b
    s[q + ROW_BANK], s[q + ROW_AGE], s[q + ROW_READY] = best_bank, best_age, best


@njit
def _best_refresh(s: Int64, earliest: int) -> tuple[int, int, int]:
    """What a due refresh needs next: PRE of an open bank, or REF when none is open."""
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
    return best, where, kind


@njit
def _fall_due(s: Int64, pool: Int64, clock: int) -> None:
    """Refreshes that are due: their banks serve nobody until they are done."""
    due = NEVER
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
    for k in range(s[RANK_BANKS]):
        b = s[r + RANK_BANK] + k * BANK_WORDS
        if refreshed(s, r, b):
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
def _column_command(m: Memory, s: Int64, c: int, b: int, clock: int) -> None:
    """RD or WR of the oldest hit of bank b."""
    pool, q = m.pool, s[b + QUEUE]
    d = s[q + MODE]
    node = s[b + HIT + d]
    kind = RD + d
    last = pool[node, LEFT] == 1
    alone = s[CLOSED_PAGE] > 0 and last and s[b + HIT + 1 - d] < 0
    if alone and hit_from(pool, pool[node, NEXT], s[b + OPEN]) < 0:
        kind += AUTO
    if m.log.shape[0] > 0:
        write_log(m, clock, kind, c, s[b + NUMBER], s[b + OPEN], pool[node, COLUMN])
    access(s, kind, b, clock)
    if s[APART] == 0:
        forget_best(s, True, True)
    end = clock + (s[WRITE_CYCLES] if d else s[READ_CYCLES])
    s[LAST_DATA] = max(s[LAST_DATA], end)
    if d == 0:
        if m.finished.shape[0] > 0:
            m.finished[pool[node, AGE]] = end
        if pool[node, TRANSFER] >= 0:
            complete(m, s, pool[node, TRANSFER], 1, end)
    s[q + READS + d] -= 1
    pool[node, LEFT] -= 1
    pool[node, COLUMN] += pool[node, STRIDE]
    pool[node, AGE] += pool[node, STEP]
    if last:
        unlink(s, pool, m.book, node)
    if kind >= RD + AUTO:
        close(s, b, clock)
    choose_candidate(s, pool, b, d)


@njit
def _takes_turns(s: Int64, pool: Int64, b: int) -> bool:
    """Whether the next column command is to a bank whose bursts may go as a train."""
    if s[PAUSE] > 0:
        s[PAUSE] -= 1
        return False
    node = s[b + HIT + s[s[b + QUEUE] + MODE]]
    return bool(pool[node, LEFT] > 1 or pool[node, STEP] > 1)


@njit
def _issue_trains(
    m: Memory, s: Int64, c: int, limit: int, at: int, row_at: int, row_bank: int, row_kind: int
) -> bool:
    """Issue column commands from clock ``at`` on as trains, and the row commands between them."""
    horizon = form_trains(m, s, limit, row_at)
    if horizon <= at + FEW:
        s[PAUSE] = PAUSED
        return False
    begin = m.book[LOGGED]
    if m.log.shape[0] > 0 and begin + 2 * (horizon - s[CLOCK]) + 2 > m.log.shape[0]:
        return False
    while True:
        link_at, q = next_link(s, m.pool)
        if min(row_at, link_at) >= horizon:
            break
        if row_at <= link_at:
            _row_command(m, s, c, row_bank, row_kind, row_at)
            s[CLOCK] = row_at + 1
            if row_kind == -1 - REFAB:  # its banks serve again, others no more
                horizon = min(horizon, row_at + 1)
        else:
            horizon = link_next(m, s, q, link_at, horizon)
        row_at, row_bank, row_kind = _best_row(s)
        if s[TRAINS_FREE] == 0:
            horizon = min(horizon, row_at)
    run_trains(m, s, c, horizon)
    if m.log.shape[0] > 0:
        sort_log(m, begin)
    return True


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
    """
    s, pool = m.state[c], m.pool
    bound, told = limit, m.book[EVENTS]
    had = told
    while m.log.shape[0] == 0 or m.book[LOGGED] + 2 <= m.log.shape[0]:
        column_at, column_bank, row_at, row_bank, row_kind = _best(s)
        at = min(column_at, row_at)
        wake, backlog = _wake(s)
        first = min(at, wake)
        while told < m.book[EVENTS]:
            bound = min(bound, m.events[told, 2])
            told += 1
        if idle:
            first = min(first, s[DUE])
        if first >= bound and (told > had or not backlog or first == NEVER):
            s[IDLE_CLOCK] = first
            return first
        if s[DUE] <= first:
            s[CLOCK] = max(s[CLOCK], s[DUE])
            _fall_due(s, pool, s[CLOCK])
            continue
        if column_at < wake and _takes_turns(s, pool, column_bank):
            until = bound if told > had or not backlog else NEVER
            if _issue_trains(m, s, c, until, column_at, row_at, row_bank, row_kind):
                continue
        if wake < at:
            clock = max(wake, s[CLOCK] - 1)
            _accept_arrivals(m, s, c, clock)
            s[CLOCK] = clock + 1
            continue
        s[CLOCK] = at
        if column_at == at:
            _column_command(m, s, c, column_bank, at)
            if s[DUAL] > 0 and row_at == at:
                _row_command(m, s, c, row_bank, row_kind, at)
            q = s[column_bank + QUEUE]
            accept(m, c, q, at)
            choose_mode(s, pool, q, at)
        else:
            _row_command(m, s, c, row_bank, row_kind, at)
        s[CLOCK] = at + 1
    return int(s[CLOCK])
