"""What waits in the banks of a channel, compiled, and what each of them needs next.

Waiting requests are nodes of ``pool``: ``WAITING + LEFT`` bursts of one row whose columns and ages
are arithmetic progressions. A node with accepted bursts (LEFT) stands in its bank's list. A bank
with requests of the direction that its queue has chosen is a *candidate* for a column or for a row
command, unless it waits for a refresh. The candidates of a queue stand in the order of the ages of
their requests, so that the first one that is ready is the oldest.
"""

from accelsim._jit import njit_in_place as njit
from accelsim.hw.dram import state as w
from accelsim.hw.dram.kernels import ready
from accelsim.hw.dram.state import Int64

ROWS, COLUMNS = 0, 1  # classes of candidates


# --- candidates


@njit
def choose_candidate(s: Int64, pool: Int64, b: int, d: int) -> None:
    """What a bank needs next for its oldest eligible request of direction d."""
    head, hit = s[b + w.HEAD + d], s[b + w.HIT + d]
    if head < 0 or s[b + w.BLOCKED] > 0:
        _leave(s, b)
    elif s[b + w.OPEN] >= 0 and hit >= 0 and (hit == head or s[b + w.SERVED] < s[w.HIT_CAP]):
        _enter(s, b, w.RD + d, pool[hit, w.AGE])
    else:
        _enter(s, b, w.ACT if s[b + w.OPEN] < 0 else w.PRE, pool[head, w.AGE])


@njit
def _leave(s: Int64, b: int) -> None:
    """A bank needs nothing."""
    kind, q = s[b + w.KIND], s[b + w.QUEUE]
    if kind < 0:
        return
    which = COLUMNS if kind >= w.RD else ROWS
    s[b + w.KIND] = w.NONE
    best = q + w.BEST + w.BEST_WORDS * which
    if s[best + w.BANK_OF_BEST] == b:
        s[best + w.READY] = w.NONE
    k = s[q + w.CANDIDATE_LIST + which]
    last = k + s[q + w.CANDIDATES + which] - 1
    s[q + w.CANDIDATES + which] -= 1
    while s[k] != b:
        k += 1
    while k < last:
        s[k] = s[k + 1]
        k += 1


@njit
def _enter(s: Int64, b: int, kind: int, age: int) -> None:
    """A bank needs a command, for a request of this age."""
    q = s[b + w.QUEUE]
    which = COLUMNS if kind >= w.RD else ROWS
    best = q + w.BEST + w.BEST_WORDS * which
    before = s[b + w.KIND]
    if before >= 0 and age == s[b + w.AGE_OF_BANK] and (before >= w.RD) == (kind >= w.RD):
        if s[best + w.BANK_OF_BEST] == b:
            s[best + w.READY] = w.NONE
    else:
        _leave(s, b)
        first = s[q + w.CANDIDATE_LIST + which]
        k = first + s[q + w.CANDIDATES + which]
        s[q + w.CANDIDATES + which] += 1
        while k > first and s[s[k - 1] + w.AGE_OF_BANK] > age:
            s[k] = s[k - 1]
            k -= 1
        s[k] = b
        s[b + w.AGE_OF_BANK] = age
    s[b + w.KIND] = kind
    if s[best + w.READY] >= 0:  # a clock that has passed by the time it is asked for is found again
        at = ready(s, kind, b)
        tie = at == s[best + w.READY] and age < s[best + w.AGE_OF_BEST]
        if at < s[best + w.READY] or tie:
            s[best + w.BANK_OF_BEST], s[best + w.AGE_OF_BEST], s[best + w.READY] = b, age, at


@njit
def next_hit(s: Int64, q: int, b: int, age: int) -> None:
    """A candidate for a column command has had one; its next hit is younger."""
    k = s[q + w.CANDIDATE_LIST + COLUMNS]
    last = k + s[q + w.CANDIDATES + COLUMNS] - 1
    while s[k] != b:
        k += 1
    while k < last and s[s[k + 1] + w.AGE_OF_BANK] < age:
        s[k] = s[k + 1]
        k += 1
    s[k] = b
    s[b + w.AGE_OF_BANK] = age
    s[q + w.COLUMN_READY] = w.NONE


@njit
def find_column(s: Int64, q: int, earliest: int) -> None:
    """The column command of a queue that is ready first, ties to the oldest request.

    It stays that until a candidate changes, or until its clock has passed: then others may be as
    ready, and older.
    """
    kind = w.RD + s[q + w.MODE]
    r = s[q + w.QUEUE_RANK]
    least = s[r + kind]
    for k in range(1, s[w.QUEUE_RANKS]):
        least = min(least, s[r + k * w.RANK_WORDS + kind])
    _find(s, q, COLUMNS, max(earliest, least))


@njit
def find_row(s: Int64, q: int, earliest: int) -> None:
    """The row command of a queue that is ready first, as ``find_column``."""
    _find(s, q, ROWS, earliest)


@njit
def _find(s: Int64, q: int, which: int, earliest: int) -> None:
    """Note the candidate of a class that is ready first; none is before ``earliest``."""
    first = s[q + w.CANDIDATE_LIST + which]
    at, bank = w.NEVER, w.NONE
    for k in range(first, first + s[q + w.CANDIDATES + which]):
        b = s[k]
        since = ready(s, s[b + w.KIND], b)
        if since < at:
            at, bank = since, b
            if since <= earliest:
                at = earliest
                break
    best = q + w.BEST + w.BEST_WORDS * which
    s[best + w.BANK_OF_BEST], s[best + w.READY] = bank, at
    s[best + w.AGE_OF_BEST] = s[bank + w.AGE_OF_BANK] if bank >= 0 else w.NEVER


@njit
def forget_best(s: Int64, columns: bool, rows: bool) -> None:
    """All queues must look again which column or row command is ready first."""
    q = s[w.FIRST_QUEUE]
    for _ in range(s[w.QUEUES]):
        if columns:
            s[q + w.COLUMN_READY] = w.NONE
        if rows:
            s[q + w.ROW_READY] = w.NONE
        q += w.QUEUE_WORDS
    if rows:
        s[w.REFRESH_READY] = w.NONE


@njit
def choose_mode(s: Int64, pool: Int64, q: int, clock: int) -> bool:
    """Reads first; writes drain from the high to the low watermark, and while no read waits.

    Chosen by what is queued at the end of a clock: requests of one clock may come in pieces.
    Says whether the direction of the queue changed.
    """
    if s[q + w.CHOICE_CLOCK] != clock:
        s[q + w.CHOICE_CLOCK] = clock
        s[q + w.DRAINED] = s[q + w.DRAIN]
    s[q + w.DRAIN] = s[q + w.DRAINED]
    if s[q + w.WRITES] >= s[w.HIGH]:
        s[q + w.DRAIN] = 1
    elif s[q + w.WRITES] <= s[w.LOW]:
        s[q + w.DRAIN] = 0
    mode = 1 if s[q + w.DRAIN] > 0 or (s[q + w.READS] == 0 and s[q + w.WRITES] > 0) else 0
    if mode == s[q + w.MODE]:
        return False
    for which in range(2):
        first = s[q + w.CANDIDATE_LIST + which]
        for k in range(first, first + s[q + w.CANDIDATES + which]):
            s[s[k] + w.KIND] = w.NONE
        s[q + w.CANDIDATES + which] = 0
    s[q + w.MODE] = mode
    s[q + w.COLUMN_READY] = w.NONE
    s[q + w.ROW_READY] = w.NONE
    for k in range(s[q + w.ACTIVE + mode]):
        choose_candidate(s, pool, s[s[q + w.ACTIVE_LIST + mode] + k], mode)
    return True


# --- lists of the banks


@njit
def hit_from(pool: Int64, node: int, row: int) -> int:
    """The first node of a bank's list, from this one on, that wants a row."""
    while node >= 0 and pool[node, w.ROW] != row:
        node = pool[node, w.NEXT]
    return node


@njit
def tag_of(s: Int64, pool: Int64, node: int) -> int:
    """Where the nodes that may want the same row are counted, for reads."""
    number = pool[node, w.ROW] * 61 + s[pool[node, w.BANK] + w.NUMBER]
    return int(w.TAGS + (number & (w.TAG_VALUES - 1)))


@njit
def link(s: Int64, pool: Int64, node: int) -> None:
    """A node's first accepted bursts: append it to its bank's list."""
    b, d = pool[node, w.BANK], pool[node, w.WRITE]
    q, end = s[b + w.QUEUE], s[b + w.END + d]
    pool[node, w.NEXT] = w.NONE
    pool[node, w.BEFORE] = end
    s[b + w.END + d] = node
    if end >= 0:
        pool[end, w.NEXT] = node
    else:
        n = s[q + w.ACTIVE + d]
        s[q + w.ACTIVE + d] = n + 1
        s[s[q + w.ACTIVE_LIST + d] + n] = b
        s[b + w.PLACE + d] = n
        s[b + w.HEAD + d] = node
    s[tag_of(s, pool, node) + d * w.TAG_VALUES] += 1
    if s[b + w.HIT + d] < 0 and s[b + w.OPEN] == pool[node, w.ROW]:
        s[b + w.HIT + d] = node
    if s[q + w.MODE] == d:
        choose_candidate(s, pool, b, d)


@njit
def unlink(s: Int64, pool: Int64, book: Int64, node: int) -> None:
    """The hit of a bank whose accepted bursts are all issued: take it out of the bank's list."""
    b, d = pool[node, w.BANK], pool[node, w.WRITE]
    before, after = pool[node, w.BEFORE], pool[node, w.NEXT]
    if before >= 0:
        pool[before, w.NEXT] = after
    else:
        s[b + w.HEAD + d] = after
    if after >= 0:
        pool[after, w.BEFORE] = before
    else:
        s[b + w.END + d] = before
    s[b + w.HIT + d] = hit_from(pool, after, pool[node, w.ROW])
    s[tag_of(s, pool, node) + d * w.TAG_VALUES] -= 1
    if s[b + w.HEAD + d] < 0:
        q = s[b + w.QUEUE]
        n = s[q + w.ACTIVE + d] - 1
        s[q + w.ACTIVE + d] = n
        moved, place = s[s[q + w.ACTIVE_LIST + d] + n], s[b + w.PLACE + d]
        s[s[q + w.ACTIVE_LIST + d] + place] = moved
        s[moved + w.PLACE + d] = place
    if pool[node, w.WAITING] == 0:
        free(pool, book, node)


@njit
def free(pool: Int64, book: Int64, node: int) -> None:
    """Give a node back to the pool."""
    pool[node, w.NEXT] = book[w.FREE]
    book[w.FREE] = node
    book[w.FREE_NODES] += 1


@njit
def take(pool: Int64, book: Int64) -> int:
    """A node out of the pool, which must not be empty."""
    node = book[w.FREE]
    book[w.FREE] = pool[node, w.NEXT]
    book[w.FREE_NODES] -= 1
    return int(node)
