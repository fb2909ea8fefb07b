"""FR-FCFS over windows, compiled: the input FIFOs, acceptance, and the decisions of a channel.

What happens in a clock, in this order: a refresh falls due, a queue chooses between reads and
writes, a command goes out, requests are accepted. Between two decisions nothing happens, so the
clock jumps.

The interface of an event engine: ``push`` bursts, look at IDLE_CLOCK, let a channel ``advance`` up
to the time at which somebody else may push, read ``events``.

The input FIFO of a queue is a list of rings; a ring gives its bursts in turn, one from each of its
nodes, so that interleaved streams stay a few nodes.
"""

from accelsim._jit import njit_in_place as njit
from accelsim.hw.dram.kernels import (
    access,
    activate,
    choose_candidate,
    choose_mode,
    close,
    free,
    hit_from,
    link,
    precharge,
    ready,
    refresh_rank,
    refreshed,
    tag_of,
    take,
    unlink,
    write_log,
)  # fmt: skip
from accelsim.hw.dram.state import (
    ACCEPT_CLOCK,
    ACCEPT_LEFT,
    ACCEPTED,
    ACCEPTED_AT,
    ACT,
    ACTIVE,
    ACTIVE_LIST,
    AGE,
    AGE_OF_BANK,
    AT,
    AUTO,
    BANK,
    BANK_WORDS,
    BEFORE,
    BLOCKED,
    CLOCK,
    CLOSED_PAGE,
    COLUMN,
    COLUMN_SLOT,
    CURSOR,
    CURSOR_BEFORE,
    DONE_AT,
    DONE_LEFT,
    DUAL,
    DUE,
    EVENTS,
    FIRST_BANK,
    FIRST_QUEUE,
    FIRST_RANK,
    FREE_NODES,
    GROUP,
    HEAD,
    HIT,
    IDLE_CLOCK,
    KIND,
    LANES,
    LAST,
    LAST_DATA,
    LEFT,
    LOGGED,
    MASK,
    MODE,
    NEVER,
    NEXT,
    NONE,
    NUMBER,
    OPEN,
    PENDING,
    PER_CLOCK,
    PERIOD,
    PRE,
    PUSHED,
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
    RESERVE,
    REST,
    REST_OF,
    RING,
    ROW,
    ROW_CLASS,
    ROW_SLOT,
    STEP,
    STRIDE,
    TAG_VALUES,
    TAIL,
    TRANSFER,
    TURN,
    TURNS,
    WAITING,
    WAKE,
    WINDOW,
    WRITE,
    WRITE_BUFFER,
    WRITE_CYCLES,
    WRITES,
    Int64,
    Memory,
)  # fmt: skip

MOST_LANES = 8
ACCEPTANCE, COMPLETION = 0, 1  # what an event says of its transfer


# --- the input FIFO of a queue


@njit
def push(
    m: Memory,
    c: int,
    transfer: int,
    bank: int,
    row: int,
    column: int,
    count: int,
    stride: int,
    write: int,
    at: int,
) -> bool:
    """Append ``count`` bursts of one row to the FIFO of their pseudo-channel.

    ``bank`` is its number in the channel, columns are ``stride`` apart, ``at`` is the clock at
    which the bursts arrive: not before the last ``limit`` of ``advance`` nor any event it gave.
    ``transfer`` counts them, or -1. False, and nothing done, when the pool of nodes is used up.
    """
    s, pool, book = m.state[c], m.pool, m.book
    b = s[FIRST_BANK] + bank * BANK_WORDS
    q = s[b + QUEUE]
    age = book[PUSHED]
    last = s[q + LAST]
    if last >= 0:
        node = pool[last, RING]
        if (
            pool[node, ROW] == row
            and pool[node, BANK] == b
            and pool[node, WRITE] == write
            and pool[node, TRANSFER] == transfer
            and pool[node, AT] == at
            and (count == 1 or node == last)
            and _continues(pool, node, age, column, count, stride)
        ):
            pool[node, WAITING] += count
            s[q + LAST] = node
            s[q + LANES] = 0
            book[PUSHED] = age + count
            return True
    if book[FREE_NODES] <= book[RESERVE]:
        return False
    node = take(pool, book)
    book[PUSHED] = age + count
    pool[node, ROW] = row
    pool[node, COLUMN] = column
    pool[node, STRIDE] = stride if count > 1 else 0
    pool[node, WAITING] = count
    pool[node, LEFT] = 0
    pool[node, AGE] = age
    pool[node, STEP] = 1 if count > 1 else 0
    pool[node, TRANSFER] = transfer
    pool[node, BANK] = b
    pool[node, WRITE] = write
    pool[node, AT] = at
    _append(s, q, pool, node, count)
    if s[q + WAKE] == NEVER and s[q + CURSOR] == node:
        s[q + WAKE] = at
        s[IDLE_CLOCK] = min(s[IDLE_CLOCK], max(at, s[CLOCK]))
    return True


@njit
def _continues(pool: Int64, node: int, age: int, column: int, count: int, stride: int) -> bool:
    """Whether bursts extend the progressions of a node; fixes the steps of a single burst."""
    have = pool[node, WAITING] + pool[node, LEFT]
    if have == 1 and pool[node, STEP] == 0:
        if count > 1 and (age != pool[node, AGE] + 1 or column != pool[node, COLUMN] + stride):
            return False
        pool[node, STEP] = age - pool[node, AGE]
        pool[node, STRIDE] = column - pool[node, COLUMN]
        return True
    if count > 1 and (stride != pool[node, STRIDE] or pool[node, STEP] != 1):
        return False
    return bool(
        age == pool[node, AGE] + have * pool[node, STEP]
        and column == pool[node, COLUMN] + have * pool[node, STRIDE]
    )


@njit
def _append(s: Int64, q: int, pool: Int64, node: int, count: int) -> None:
    """A new node: one more of the last ring while each of it has one burst, or a new ring."""
    last, lanes, tail = s[q + LAST], s[q + LANES], s[q + TAIL]
    bit = 1 << (pool[node, BANK] % 62)
    s[q + LAST] = node
    if last >= 0 and count == 1 and 0 < lanes < MOST_LANES and s[q + MASK] & bit == 0:
        pool[node, RING] = pool[last, RING]
        pool[last, RING] = node
        if tail < 0:
            s[q + CURSOR_BEFORE] = node
        else:
            pool[tail, BEFORE] = node
        s[q + LANES] = lanes + 1
        s[q + MASK] |= bit
        return
    pool[node, RING] = node
    pool[node, BEFORE] = node
    pool[node, REST_OF] = NONE
    if s[q + CURSOR] < 0:
        s[q + CURSOR] = node
        s[q + CURSOR_BEFORE] = node
    else:
        if tail < 0:  # the ring at the head was the last one
            s[q + REST] = node
        else:
            pool[tail, REST_OF] = node
        s[q + TAIL] = node
    s[q + LANES] = 1 if count == 1 else 0
    s[q + MASK] = bit


# --- acceptance: from the FIFO into the window


@njit
def accept(m: Memory, c: int, q: int, clock: int) -> None:
    """Accept in order what has arrived, while there is room; WAKE is when the next may be."""
    s, pool = m.state[c], m.pool
    if s[q + ACCEPT_CLOCK] != clock:
        s[q + ACCEPT_CLOCK] = clock
        s[q + ACCEPTED] = 0
    wake = NEVER
    while True:
        node = s[q + CURSOR]
        if node < 0:
            break
        if pool[node, AT] > clock:
            wake = pool[node, AT]
            break
        d = pool[node, WRITE]
        room = (s[WRITE_BUFFER] - s[q + WRITES]) if d else (s[WINDOW] - s[q + READS])
        if room <= 0:
            break
        if s[PER_CLOCK] > 0:
            room = min(room, s[PER_CLOCK] - s[q + ACCEPTED])
            if room <= 0:
                wake = clock + 1
                break
        n = min(room, pool[node, WAITING]) if pool[node, RING] == node else 1
        tag = tag_of(s, pool, node)
        if d == 1 and pool[node, STRIDE] == 0:
            n = 1  # writes of one address are merged one by one
        if s[tag + TAG_VALUES] > 0 or (d == 1 and s[tag] > 0):
            n = 1
            column = pool[node, COLUMN] + pool[node, LEFT] * pool[node, STRIDE]
            b = pool[node, BANK]
            if d == 1 and _queued(pool, s[b + HEAD], pool[node, ROW], column):
                break  # the older read comes first
            if _queued(pool, s[b + HEAD + 1], pool[node, ROW], column):
                s[q + ACCEPTED] += 1
                _serve_from_buffer(m, s, q, node, clock)
                continue
        s[q + ACCEPTED] += n
        s[q + READS + d] += n
        _account_acceptance(m, node, n, clock)
        if pool[node, LEFT] == 0:
            link(s, pool, node)
        pool[node, LEFT] += n
        pool[node, WAITING] -= n
        _turn(s, q, pool, node)
    s[q + WAKE] = wake


@njit
def _queued(pool: Int64, node: int, row: int, column: int) -> bool:
    """Whether a bank's list holds a burst of this address."""
    while node >= 0:
        if pool[node, ROW] == row:
            at, stride = pool[node, COLUMN], pool[node, STRIDE]
            for _ in range(pool[node, LEFT]):
                if at == column:
                    return True
                at += stride
        node = pool[node, NEXT]
    return False


@njit
def _turn(s: Int64, q: int, pool: Int64, node: int) -> None:
    """The ring at the head turns on; a node that gave its last burst leaves it."""
    if pool[node, WAITING] > 0:
        s[q + CURSOR_BEFORE] = node
        s[q + CURSOR] = pool[node, RING]
    elif pool[node, RING] != node:
        pool[s[q + CURSOR_BEFORE], RING] = pool[node, RING]
        s[q + CURSOR] = pool[node, RING]
    else:
        first = s[q + REST]
        s[q + CURSOR] = first
        if first >= 0:
            s[q + CURSOR_BEFORE] = pool[first, BEFORE]
            s[q + REST] = pool[first, REST_OF]
            if s[q + TAIL] == first:
                s[q + TAIL] = NONE
        else:
            s[q + LAST] = NONE


@njit
def _account_acceptance(m: Memory, node: int, n: int, clock: int) -> None:
    pool = m.pool
    if m.accepted.shape[0] > 0:
        age = pool[node, AGE] + pool[node, LEFT] * pool[node, STEP]
        for k in range(n):
            m.accepted[age + k * pool[node, STEP]] = clock
            if pool[node, WRITE]:
                m.finished[age + k * pool[node, STEP]] = clock + 1
    transfer = pool[node, TRANSFER]
    if transfer >= 0:
        m.transfers[transfer, ACCEPT_LEFT] -= n
        m.transfers[transfer, ACCEPTED_AT] = max(m.transfers[transfer, ACCEPTED_AT], clock)
        if m.transfers[transfer, ACCEPT_LEFT] == 0:
            _tell(m, transfer, ACCEPTANCE, m.transfers[transfer, ACCEPTED_AT])
        if pool[node, WRITE]:
            _complete(m, transfer, n, clock + 1)


@njit
def _complete(m: Memory, transfer: int, n: int, clock: int) -> None:
    """Bursts of a transfer are done at a clock."""
    m.transfers[transfer, DONE_LEFT] -= n
    m.transfers[transfer, DONE_AT] = max(m.transfers[transfer, DONE_AT], clock)
    if m.transfers[transfer, DONE_LEFT] == 0:
        _tell(m, transfer, COMPLETION, m.transfers[transfer, DONE_AT])


@njit
def _tell(m: Memory, transfer: int, what: int, clock: int) -> None:
    n = m.book[EVENTS]
    m.book[EVENTS] = n + 1
    m.events[n, 0] = transfer
    m.events[n, 1] = what
    m.events[n, 2] = clock


@njit
def _serve_from_buffer(m: Memory, s: Int64, q: int, node: int, clock: int) -> None:
    """A burst whose address waits in the write buffer: a read is forwarded, a write merged."""
    pool = m.pool
    _account_acceptance(m, node, 1, clock)
    if pool[node, WRITE] == 0:
        if m.finished.shape[0] > 0:
            m.finished[pool[node, AGE] + pool[node, LEFT] * pool[node, STEP]] = clock + 1
        if pool[node, TRANSFER] >= 0:
            _complete(m, pool[node, TRANSFER], 1, clock + 1)
    if pool[node, LEFT] == 0:
        pool[node, COLUMN] += pool[node, STRIDE]
        pool[node, AGE] += pool[node, STEP]
        pool[node, WAITING] -= 1
        _turn(s, q, pool, node)
        if pool[node, WAITING] == 0:
            free(pool, m.book, node)
    elif pool[node, WAITING] == 1:
        pool[node, WAITING] = 0
        _turn(s, q, pool, node)
    else:
        _split(m, s, q, node)


@njit
def _split(m: Memory, s: Int64, q: int, node: int) -> None:
    """Drop the next waiting burst of a node that has accepted ones: the rest becomes a new node."""
    pool = m.pool
    rest = take(pool, m.book)
    for field in range(pool.shape[1]):
        pool[rest, field] = pool[node, field]
    skipped = pool[node, LEFT] + 1
    pool[rest, COLUMN] += skipped * pool[node, STRIDE]
    pool[rest, AGE] += skipped * pool[node, STEP]
    pool[rest, WAITING] -= 1
    pool[rest, LEFT] = 0
    pool[node, WAITING] = 0
    if pool[node, RING] == node:
        pool[rest, RING] = rest
        s[q + CURSOR_BEFORE] = rest
    else:
        pool[s[q + CURSOR_BEFORE], RING] = rest
    if s[q + LAST] == node:
        s[q + LAST] = rest
    _turn(s, q, pool, rest)


# --- decisions


@njit
def _best(s: Int64) -> tuple[int, int, int, int, int]:
    """The column command and the row command that are ready first, ties to the oldest request.

    Clock and bank of the column command; clock, bank and kind of the row command; NEVER for none.
    A row command for a refresh comes before others; its kind is negative, and ``bank`` is the rank
    for REF.
    """
    column_from, row_from = max(s[CLOCK], s[COLUMN_SLOT]), max(s[CLOCK], s[ROW_SLOT])
    column_at, column_age, column_bank = NEVER, NEVER, NONE
    row_at, row_age, row_bank = NEVER, NEVER, NONE
    q = s[FIRST_QUEUE]
    for _ in range(s[QUEUES]):
        d = s[q + MODE]
        first = s[q + ACTIVE_LIST + d]
        for k in range(first, first + s[q + ACTIVE + d]):
            b = s[k]
            kind = s[b + KIND]
            if kind < 0:
                continue
            age = s[b + AGE_OF_BANK]
            at = max(s[b + kind], s[s[b + GROUP] + kind], s[s[b + RANK] + kind])
            if age < ROW_CLASS:
                at = max(at, column_from)
                if at < column_at or (at == column_at and age < column_age):
                    column_at, column_age, column_bank = at, age, b
            else:
                at = max(at, row_from)
                if at < row_at or (at == row_at and age < row_age):
                    row_at, row_age, row_bank = at, age, b
        q += QUEUE_WORDS
    row_kind = s[row_bank + KIND] if row_bank >= 0 else 0
    if s[PENDING] > 0:
        at, where, kind = _best_refresh(s, row_from)
        if at <= row_at:
            row_at, row_bank, row_kind = at, where, kind
    return column_at, column_bank, row_at, row_bank, row_kind


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
    end = clock + (s[WRITE_CYCLES] if d else s[READ_CYCLES])
    s[LAST_DATA] = max(s[LAST_DATA], end)
    if d == 0:
        if m.finished.shape[0] > 0:
            m.finished[pool[node, AGE]] = end
        if pool[node, TRANSFER] >= 0:
            _complete(m, pool[node, TRANSFER], 1, end)
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
