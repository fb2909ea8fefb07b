"""The compiled channel: what commands do to its timing, and the lists of waiting requests.

``s`` is a channel's row of ``Memory.state``; b, r and q are the offsets of a bank, a rank and a
queue in it. Waiting requests are nodes of ``pool``: ``WAITING + LEFT`` bursts of one row whose
columns and ages are arithmetic progressions. A node with accepted bursts (LEFT) stands in its
bank's list.
"""

from accelsim._jit import njit_in_place as njit
from accelsim.hw.dram.state import (
    ACT,
    ACTIVE,
    ACTIVE_LIST,
    ACTS,
    AGE,
    AGE_OF_BANK,
    AT_BANK,
    AT_GROUP,
    AT_OTHERS,
    AT_RANK,
    AT_SIBLINGS,
    BANK,
    BANK_NUMBER,
    BANK_WORDS,
    BEFORE,
    BLOCKED,
    CHOICE_CLOCK,
    CLOSED_BY_DEMAND,
    COLUMN_BANK,
    COLUMN_READY,
    COLUMN_SLOT,
    CONFLICTS,
    COST,
    COUNTS,
    DRAIN,
    DRAINED,
    DUAL,
    END,
    FIRST_QUEUE,
    FIRST_RANK,
    FREE,
    FREE_NODES,
    GROUP,
    GROUP_NUMBER,
    HEAD,
    HIGH,
    HIT,
    HIT_CAP,
    HITS,
    KIND,
    KINDS,
    LARGEST_WINDOW,
    LOGGED,
    LOW,
    MISSES,
    MODE,
    NEXT,
    NONE,
    NUMBER,
    OPEN,
    OPEN_BANKS,
    OPEN_CYCLES,
    OPEN_SINCE,
    OTHERS_HEAR,
    PLACE,
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
    READS,
    REFAB,
    REFPB,
    REFRESH,
    ROW,
    ROW_BANK,
    ROW_CLASS,
    ROW_READY,
    ROW_SLOT,
    SERVED,
    SIBLINGS_HEAR,
    TAG_VALUES,
    TAGS,
    TURN,
    TURN_GROUPS,
    WAITING,
    WINDOWS,
    WRITE,
    WRITES,
    Int64,
    Memory,
)  # fmt: skip

# --- timing


@njit
def push_times(s: Int64, kind: int, b: int, clock: int) -> None:
    """A command to bank b: what may follow in the bank, its group, its rank and other ranks."""
    cost = COST + kind * KINDS
    g, r = s[b + GROUP], s[b + RANK]
    for j in range(KINDS):
        s[b + j] = max(s[b + j], clock + s[cost + AT_BANK * KINDS * KINDS + j])
    for j in range(KINDS):
        s[g + j] = max(s[g + j], clock + s[cost + AT_GROUP * KINDS * KINDS + j])
    for j in range(KINDS):
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
                for j in range(KINDS):
                    s[r + j] = max(s[r + j], clock + s[place + j])
        r += RANK_WORDS


@njit
def push_rank(s: Int64, kind: int, r: int, clock: int) -> None:
    """A command to all banks of a rank."""
    for k in range(s[RANK_BANKS]):
        push_times(s, kind, s[r + RANK_BANK] + k * BANK_WORDS, clock)


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
def ready_rank(s: Int64, kind: int, r: int) -> int:
    """First clock at which a command may go to all banks of a rank."""
    clock = s[r + kind]
    for k in range(s[RANK_BANKS]):
        clock = max(clock, ready(s, kind, s[r + RANK_BANK] + k * BANK_WORDS))
    return int(clock)


@njit
def refreshed(s: Int64, r: int, b: int) -> bool:
    """Whether the refresh whose turn it is in a rank concerns this bank of it."""
    if s[REFRESH] == REFAB:
        return True
    turn, groups = s[r + TURN], s[TURN_GROUPS]
    return bool(
        turn // groups == s[b + BANK_NUMBER] and turn % groups == s[b + GROUP_NUMBER] % groups
    )


@njit
def take_slot(s: Int64, column: bool, clock: int) -> None:
    """One command per clock; a row and a column command where the device allows both."""
    if column or s[DUAL] == 0:
        s[COLUMN_SLOT] = clock + 1
    if not column or s[DUAL] == 0:
        s[ROW_SLOT] = clock + 1


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
    take_slot(s, False, clock)
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
    take_slot(s, False, clock)
    s[COUNTS + PRE] += 1
    s[b + CLOSED_BY_DEMAND] = 1 if demanded else 0
    close(s, b, clock)


@njit
def access(s: Int64, kind: int, b: int, clock: int) -> None:
    """RD, WR or their auto-precharging forms."""
    push_times(s, kind, b, clock)
    take_slot(s, True, clock)
    count_accesses(s, kind, b, 1)


@njit
def count_accesses(s: Int64, kind: int, b: int, times: int) -> None:
    """Count columns of an open row: all hits but for the first one, a miss or a conflict."""
    s[COUNTS + kind] += times
    s[HITS] += times
    if s[b + SERVED] == 0:
        s[HITS] -= 1
        s[CONFLICTS if s[b + CLOSED_BY_DEMAND] > 0 else MISSES] += 1
        s[b + CLOSED_BY_DEMAND] = 0
    s[b + SERVED] += times


@njit
def refresh_rank(s: Int64, r: int, clock: int) -> int:
    """REFAB or REFPB of a rank's turn; returns the bank that the command names."""
    named = NONE
    for k in range(s[RANK_BANKS]):
        b = s[r + RANK_BANK] + k * BANK_WORDS
        if refreshed(s, r, b):
            push_times(s, s[REFRESH], b, clock)
            if named < 0:
                named = b
    take_slot(s, False, clock)
    s[COUNTS + s[REFRESH]] += 1
    return named


# --- lists of the banks


@njit
def choose_candidate(s: Int64, pool: Int64, b: int, d: int) -> None:
    """What a bank needs next for its oldest eligible request of direction d, and its age."""
    q = s[b + QUEUE]
    if s[q + COLUMN_BANK] == b:
        s[q + COLUMN_READY] = NONE
    if s[q + ROW_BANK] == b:
        s[q + ROW_READY] = NONE
    head, hit = s[b + HEAD + d], s[b + HIT + d]
    if head < 0 or s[b + BLOCKED] > 0:
        s[b + KIND] = NONE
        return
    if s[b + OPEN] >= 0 and hit >= 0 and (hit == head or s[b + SERVED] < s[HIT_CAP]):
        kind, age = RD + d, pool[hit, AGE]
        _compare(s, q + COLUMN_BANK, b, kind, age)
    else:
        kind, age = ACT if s[b + OPEN] < 0 else PRE, ROW_CLASS + pool[head, AGE]
        _compare(s, q + ROW_BANK, b, kind, age)
    s[b + KIND] = kind
    s[b + AGE_OF_BANK] = age


@njit
def _compare(s: Int64, best: int, b: int, kind: int, age: int) -> None:
    """A new candidate beside the one that was ready first: bank, age and clock at place ``best``.

    A clock that has passed by the time it is asked for is found again.
    """
    at = ready(s, kind, b)
    if at < s[best + 2] or (at == s[best + 2] and age < s[best + 1]):
        s[best], s[best + 1], s[best + 2] = b, age, at


@njit
def forget_best(s: Int64, columns: bool, rows: bool) -> None:
    """All queues must look again which column or row command is ready first."""
    q = s[FIRST_QUEUE]
    for _ in range(s[QUEUES]):
        if columns:
            s[q + COLUMN_READY] = NONE
        if rows:
            s[q + ROW_READY] = NONE
        q += QUEUE_WORDS


@njit
def hit_from(pool: Int64, node: int, row: int) -> int:
    """The first node of a bank's list, from this one on, that wants a row."""
    while node >= 0 and pool[node, ROW] != row:
        node = pool[node, NEXT]
    return node


@njit
def tag_of(s: Int64, pool: Int64, node: int) -> int:
    """Where the nodes that may want the same row are counted, for reads."""
    return int(TAGS + (pool[node, ROW] * 61 + s[pool[node, BANK] + NUMBER]) % TAG_VALUES)


@njit
def link(s: Int64, pool: Int64, node: int) -> None:
    """A node's first accepted bursts: append it to its bank's list."""
    b, d = pool[node, BANK], pool[node, WRITE]
    q, end = s[b + QUEUE], s[b + END + d]
    pool[node, NEXT] = NONE
    pool[node, BEFORE] = end
    s[b + END + d] = node
    if end >= 0:
        pool[end, NEXT] = node
    else:
        n = s[q + ACTIVE + d]
        s[q + ACTIVE + d] = n + 1
        s[s[q + ACTIVE_LIST + d] + n] = b
        s[b + PLACE + d] = n
        s[b + HEAD + d] = node
    s[tag_of(s, pool, node) + d * TAG_VALUES] += 1
    if s[b + HIT + d] < 0 and s[b + OPEN] == pool[node, ROW]:
        s[b + HIT + d] = node
    if s[q + MODE] == d:
        choose_candidate(s, pool, b, d)


@njit
def unlink(s: Int64, pool: Int64, book: Int64, node: int) -> None:
    """The hit of a bank whose accepted bursts are all issued: take it out of the bank's list."""
    b, d = pool[node, BANK], pool[node, WRITE]
    before, after = pool[node, BEFORE], pool[node, NEXT]
    if before >= 0:
        pool[before, NEXT] = after
    else:
        s[b + HEAD + d] = after
    if after >= 0:
        pool[after, BEFORE] = before
    else:
        s[b + END + d] = before
    s[b + HIT + d] = hit_from(pool, after, pool[node, ROW])
    s[tag_of(s, pool, node) + d * TAG_VALUES] -= 1
    if s[b + HEAD + d] < 0:
        q = s[b + QUEUE]
        n = s[q + ACTIVE + d] - 1
        s[q + ACTIVE + d] = n
        moved, place = s[s[q + ACTIVE_LIST + d] + n], s[b + PLACE + d]
        s[s[q + ACTIVE_LIST + d] + place] = moved
        s[moved + PLACE + d] = place
    if pool[node, WAITING] == 0:
        free(pool, book, node)


@njit
def free(pool: Int64, book: Int64, node: int) -> None:
    """Give a node back to the pool."""
    pool[node, NEXT] = book[FREE]
    book[FREE] = node
    book[FREE_NODES] += 1


@njit
def take(pool: Int64, book: Int64) -> int:
    """A node out of the pool, which must not be empty."""
    node = book[FREE]
    book[FREE] = pool[node, NEXT]
    book[FREE_NODES] -= 1
    return int(node)


@njit
def choose_mode(s: Int64, pool: Int64, q: int, clock: int) -> bool:
    """Reads first; writes drain from the high to the low watermark, and while no read waits.

    Chosen by what is queued at the end of a clock: requests of one clock may come in pieces.
    Says whether the direction of the queue changed.
    """
    if s[q + CHOICE_CLOCK] != clock:
        s[q + CHOICE_CLOCK] = clock
        s[q + DRAINED] = s[q + DRAIN]
    s[q + DRAIN] = s[q + DRAINED]
    if s[q + WRITES] >= s[HIGH]:
        s[q + DRAIN] = 1
    elif s[q + WRITES] <= s[LOW]:
        s[q + DRAIN] = 0
    mode = 1 if s[q + DRAIN] > 0 or (s[q + READS] == 0 and s[q + WRITES] > 0) else 0
    if mode == s[q + MODE]:
        return False
    s[q + MODE] = mode
    s[q + COLUMN_READY] = NONE
    s[q + ROW_READY] = NONE
    for k in range(s[q + ACTIVE + mode]):
        choose_candidate(s, pool, s[s[q + ACTIVE_LIST + mode] + k], mode)
    return True
