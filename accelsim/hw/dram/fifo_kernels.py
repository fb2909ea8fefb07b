"""The input FIFO of a queue, compiled: bursts are pushed, and accepted into the window in order.

It is a list of rings; a ring gives its bursts in turn, one from each of its nodes, so that
interleaved streams stay a few nodes.
"""

from accelsim._jit import njit_in_place as njit
from accelsim.hw.dram.bank_kernels import (
    free,
    link,
    tag_of,
    take,
)  # fmt: skip
from accelsim.hw.dram.mapping import MOST_LANES
from accelsim.hw.dram.state import (
    ACCEPT_CLOCK,
    ACCEPT_LEFT,
    ACCEPTED,
    ACCEPTED_AT,
    AGE,
    AT,
    BANK,
    BANK_WORDS,
    BEFORE,
    CLOCK,
    COLUMN,
    CURSOR,
    CURSOR_BEFORE,
    DONE_AT,
    DONE_LEFT,
    EVENTS,
    FIRST_BANK,
    FREE_NODES,
    HEAD,
    IDLE_CLOCK,
    LANES,
    LAST,
    LEFT,
    MASK,
    MEMBERS,
    MODE,
    NEVER,
    NEXT,
    NONE,
    PER_CLOCK,
    PUSHED,
    QUEUE,
    READS,
    RESERVE,
    REST,
    REST_OF,
    RING,
    ROW,
    STEP,
    STRIDE,
    TAG_VALUES,
    TAIL,
    TRANSFER,
    WAITING,
    WAKE,
    WINDOW,
    WRITE,
    WRITE_BUFFER,
    WRITES,
    Int64,
    Memory,
)  # fmt: skip

ACCEPTANCE, COMPLETION = 0, 1  # what an event says of its transfer
UNSETTLED, REFILLED, STEADY = range(3)  # what a refill leaves


# --- pushing


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
        s[IDLE_CLOCK] = min(s[IDLE_CLOCK], max(at, s[CLOCK] - 1))
    return True


@njit
def push_stripe(
    m: Memory,
    c: int,
    transfer: int,
    banks: Int64,
    here: int,
    row: int,
    column: int,
    count: int,
    write: int,
    at: int,
) -> bool:
    """Append ``count`` bursts that take turns over ``banks``, as ``push`` one by one would.

    The first ``here`` of them lie in ``column``, every further round in the next one.
    """
    s, pool, book = m.state[c], m.pool, m.book
    turns = banks.shape[0]
    lanes = min(count, turns)
    if book[FREE_NODES] < book[RESERVE] + lanes:
        return False
    age = book[PUSHED]
    book[PUSHED] = age + count
    first, before = NONE, NONE
    for k in range(lanes):
        node = take(pool, book)
        bursts = (count - k + turns - 1) // turns
        pool[node, ROW] = row
        pool[node, COLUMN] = column if k < here else column + 1
        pool[node, STRIDE] = 1 if bursts > 1 else 0
        pool[node, WAITING] = bursts
        pool[node, LEFT] = 0
        pool[node, AGE] = age + k
        pool[node, STEP] = turns if bursts > 1 else 0
        pool[node, TRANSFER] = transfer
        pool[node, BANK] = s[FIRST_BANK] + banks[k] * BANK_WORDS
        pool[node, WRITE] = write
        pool[node, AT] = at
        if before < 0:
            first = node
        else:
            pool[before, RING] = node
        before = node
    pool[before, RING] = first
    q = s[pool[first, BANK] + QUEUE]
    _append_ring(s, q, pool, first, before)
    for _ in range((count - 1) % turns + 1):
        before = pool[before, RING]
    s[q + LAST] = before
    s[q + LANES] = 0
    if s[q + WAKE] == NEVER and s[q + CURSOR] == first:
        s[q + WAKE] = at
        s[IDLE_CLOCK] = min(s[IDLE_CLOCK], max(at, s[CLOCK] - 1))
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
    _append_ring(s, q, pool, node, node)
    s[q + LANES] = 1 if count == 1 else 0
    s[q + MASK] = bit


@njit
def _append_ring(s: Int64, q: int, pool: Int64, first: int, last: int) -> None:
    """Append a ring, given by its first and its last node, to a FIFO."""
    pool[first, BEFORE] = last
    pool[first, REST_OF] = NONE
    if s[q + CURSOR] < 0:
        s[q + CURSOR] = first
        s[q + CURSOR_BEFORE] = last
        return
    if s[q + TAIL] < 0:  # the ring at the head was the last one
        s[q + REST] = first
    else:
        pool[s[q + TAIL], REST_OF] = first
    s[q + TAIL] = first


# --- acceptance: from the FIFO into the window


@njit
def refill(m: Memory, c: int, q: int, clock: int) -> int:
    """``accept`` where a burst has left a full window: the next one takes its place, and no other.

    UNSETTLED if more may enter, or something else; STEADY if all that changed are numbers of
    bursts, and so it may go on.
    """
    s, pool = m.state[c], m.pool
    node, d = s[q + CURSOR], s[q + MODE]
    if node < 0 or pool[node, AT] > clock or pool[node, WRITE] != d:
        return UNSETTLED
    if s[WRITE_BUFFER if d else WINDOW] - s[q + READS + d] != 1:
        return UNSETTLED
    if s[PER_CLOCK] > 0 and s[q + ACCEPT_CLOCK] == clock:
        return UNSETTLED
    linked = pool[node, LEFT] > 0
    if d == 1 or s[q + WRITES] > 0:
        tag = tag_of(s, pool, node)
        own = d if linked and pool[node, STRIDE] != 0 else 0
        if s[tag + TAG_VALUES] > own or (d == 1 and s[tag] > 0):
            return UNSETTLED
    s[q + ACCEPT_CLOCK] = clock
    s[q + ACCEPTED] = 1
    s[q + READS + d] += 1
    account_acceptance(m, s, node, 1, clock)
    if not linked:
        link(s, pool, node)
    pool[node, LEFT] += 1
    pool[node, WAITING] -= 1
    turn(s, q, pool, node)
    following = s[q + CURSOR]
    if following >= 0 and pool[following, AT] > clock:
        s[q + WAKE] = pool[following, AT]
        return REFILLED
    if following >= 0 and pool[following, WRITE] != d:
        return UNSETTLED
    s[q + WAKE] = NEVER
    return STEADY if linked and following >= 0 else REFILLED


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
        own = 0  # whether a node is counted whose bursts are none of the next ones
        if d == 1 and pool[node, STRIDE] == 0:
            n = 1  # writes of one address are merged one by one
        elif d == 1 and pool[node, LEFT] > 0:
            own = 1
        if s[tag + TAG_VALUES] > own or (d == 1 and s[tag] > 0):
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
        account_acceptance(m, s, node, n, clock)
        if pool[node, LEFT] == 0:
            link(s, pool, node)
        pool[node, LEFT] += n
        pool[node, WAITING] -= n
        turn(s, q, pool, node)
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
def turn(s: Int64, q: int, pool: Int64, node: int) -> None:
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
def account_acceptance(m: Memory, s: Int64, node: int, n: int, clock: int) -> None:
    """The next ``n`` bursts of a node are accepted at a clock."""
    pool = m.pool
    if m.accepted.shape[0] > 0:
        age = pool[node, AGE] + pool[node, LEFT] * pool[node, STEP]
        for k in range(n):
            m.accepted[age + k * pool[node, STEP]] = clock
            if pool[node, WRITE]:
                m.finished[age + k * pool[node, STEP]] = clock + 1
    account_transfer(m, s, pool[node, TRANSFER], pool[node, WRITE], n, clock)


@njit
def account_transfer(m: Memory, s: Int64, transfer: int, write: int, n: int, clock: int) -> None:
    """Bursts of a transfer are accepted, the last one at a clock; what is written is then done."""
    if transfer >= 0:
        m.transfers[transfer, ACCEPT_LEFT] -= n * s[MEMBERS]
        m.transfers[transfer, ACCEPTED_AT] = max(m.transfers[transfer, ACCEPTED_AT], clock)
        if m.transfers[transfer, ACCEPT_LEFT] == 0:
            _tell(m, transfer, ACCEPTANCE, m.transfers[transfer, ACCEPTED_AT])
        if write:
            complete(m, s, transfer, n, clock + 1)


@njit
def complete(m: Memory, s: Int64, transfer: int, n: int, clock: int) -> None:
    """Bursts of a transfer are done at a clock, in each channel of a record as many."""
    m.transfers[transfer, DONE_LEFT] -= n * s[MEMBERS]
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
    account_acceptance(m, s, node, 1, clock)
    if pool[node, WRITE] == 0:
        if m.finished.shape[0] > 0:
            m.finished[pool[node, AGE] + pool[node, LEFT] * pool[node, STEP]] = clock + 1
        if pool[node, TRANSFER] >= 0:
            complete(m, s, pool[node, TRANSFER], 1, clock + 1)
    if pool[node, LEFT] == 0:
        pool[node, COLUMN] += pool[node, STRIDE]
        pool[node, AGE] += pool[node, STEP]
        pool[node, WAITING] -= 1
        turn(s, q, pool, node)
        if pool[node, WAITING] == 0:
            free(pool, m.book, node)
    elif pool[node, WAITING] == 1:
        pool[node, WAITING] = 0
        turn(s, q, pool, node)
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
    turn(s, q, pool, rest)
