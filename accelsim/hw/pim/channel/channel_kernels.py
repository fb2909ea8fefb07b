"""The compiled PIM channel: one clock of it, and from one event to the next.

A clock: what ended is returned, refreshes fall due, one command goes out (two where rows and
columns have a bus each), and one entry or request moves into a command queue. Clocks in which
nothing can happen are left out; runs of columns are sent at once while nothing can come between.
"""

from accelsim._jit import njit_in_place as njit
from accelsim._jit import njit_uncounted
from accelsim.hw.dram.state import EVENTS
from accelsim.hw.pim.channel.fifo_kernels import (
    accepted_entry,
    done,
    done_entry,
    fenced,
    from_bank,
    offer,
    serve,
    to_bank,
)
from accelsim.hw.pim.channel.issue_kernels import issue, reserve
from accelsim.hw.pim.channel.pick_kernels import (
    UNDER_WAY,
    pick_looked,
    pick_pim,
    pick_refresh,
    pick_request,
)
from accelsim.hw.pim.channel.state import (
    BEGUN,
    CLOCK,
    COMMAND,
    CONCURRENT,
    CONFLICTS,
    DEPTH,
    DONE_READS,
    DRAIN,
    DUAL,
    END,
    GUARD,
    HEAD,
    HEADER,
    HITS,
    HOLD,
    HOLD_END,
    HOLDING,
    IN_TILE,
    LAST,
    LAST_DATA,
    LATENCY,
    LIMIT,
    LOOK_AT,
    LOOKED,
    MISSES,
    NEVER,
    NODE_MASK,
    NONE,
    OFFERED,
    OUTSTANDING,
    PENDING,
    PIM_FINISH,
    PIM_QUEUE,
    QUEUED,
    R_BANK,
    R_SENDER,
    READ_CYCLES,
    READS,
    REFRESH_ALONE,
    REFRESH_AT,
    REFRESH_BATCH,
    REFRESH_KIND,
    REFRESH_STEP,
    REFRESH_UNITS,
    REFRESHING,
    REPEAT,
    RETURNED,
    RETURNS,
    ROLE,
    ROW_BUS,
    SKIPPING,
    SLACK,
    STEP,
    TOTAL,
    UNIT_DUE,
    WAITING,
    WRITE_BUFFER,
    WRITE_CYCLES,
    WRITES,
    Channels,
)  # fmt: skip

RD, WR = 2, 3
IDLE_WRITES = 8  # more of them are drained once all command queues are empty
DONE, FILLED, STUCK = 0, 1, 2
UNTIL_DONE, UNTIL_READ, UNTIL_TOLD, ASLEEP = range(4)
LOG_MARGIN = 4096


def finish(k: Channels, c: int, until_read: bool) -> int:
    """Live until the stream of a channel is done, and all its requests with ``until_read``."""
    return live(k, c, NEVER, UNTIL_READ if until_read else UNTIL_DONE)


@njit_uncounted
def live(k: Channels, c: int, limit: int, until: int) -> int:
    """Live the clocks before ``limit``; compiled once, for whoever lets channels live on.

    UNTIL_DONE, UNTIL_READ: until the stream is done, with all requests; DONE, FILLED or STUCK.
    UNTIL_TOLD: all channels that are due, whatever c is, in the order of their clocks until
    somebody is to be told something. ASLEEP: although nothing waits.
    """
    told, alone, own = until == UNTIL_TOLD, until in (UNTIL_DONE, UNTIL_READ), limit
    if told:
        c, own = _next_due(k, limit)
    while c >= 0:
        s = k.word[c]
        s[LIMIT] = own
        while s[CLOCK] < own:
            if alone and k.log.shape[0] > 0 and k.logged[0] + LOG_MARGIN > k.log.shape[0]:
                return FILLED
            clock = s[CLOCK]
            following = tick(k, c, clock)
            if alone and s[HEAD] == s[END] and s[LOOKED] == 0 and clock >= s[PIM_FINISH]:
                reads = s[DONE_READS] + s[WRITES] + s[WAITING]
                if until == UNTIL_DONE or (_all_served(k, c) and reads >= 0):
                    return DONE
            if alone and following == NEVER:
                return STUCK
            s[CLOCK] = following
            if told and (k.book[EVENTS] > 0 or idle(k, c)):
                break
        if not told:
            return DONE
        k.due[c] = NEVER if idle(k, c) else s[CLOCK]
        if k.book[EVENTS] > 0:
            return DONE
        c, own = _next_due(k, limit)
    return DONE


@njit
def _next_due(k: Channels, limit: int) -> tuple[int, int]:
    """The channel that acts first before a clock, and up to which one it may: the others have their
    turn then. NONE if there is no such channel."""
    c, first, second = NONE, limit, limit
    for other in range(k.due.shape[0]):
        at = k.due[other]
        if at < first:
            c, first, second = other, at, first
        elif at < second:
            second = at
    return c, min(limit, second + 1)


@njit
def idle(k: Channels, c: int) -> bool:
    """Whether nothing waits: refreshes do not count."""
    s = k.word[c]
    waits = s[READS] + s[WRITES] + s[WAITING] + s[LOOKED] + s[END] - s[HEAD]
    return bool(s[OFFERED] == NONE and waits == 0)


@njit
def _all_served(k: Channels, c: int) -> bool:
    s = k.word[c]
    waits = s[READS] + s[WRITES] + s[WAITING] + s[RETURNS] - s[RETURNED]
    return bool(s[OFFERED] == NONE and waits == 0)


@njit
def tick(k: Channels, c: int, clock: int) -> int:
    """One clock; returns the next one in which something may happen."""
    s = k.word[c]
    offered = offer(k, c, clock)
    soon = _return(k, c, clock)
    if k.setting[REFRESH_STEP] > 0:
        if clock >= s[REFRESH_AT]:
            s[PENDING] += k.setting[REFRESH_BATCH]
            s[REFRESH_AT] += k.setting[REFRESH_STEP]
        soon = min(soon, s[REFRESH_AT])
    if offered:
        soon = min(soon, clock + 1)
    head = s[HEAD]
    sent, last, later = _send(k, c, clock)
    soon = min(soon, later)
    if sent != NONE:
        soon = min(soon, last + 1)
        if k.setting[DUAL] > 0:
            _send_second(k, c, clock, 1 - k.kind[sent, ROW_BUS])
    moves = False
    for now in range(clock, last + 1):
        # An entry keeps its place in the PIM queue until its last command.
        running = now < last
        moves = _move(k, c, now, head if running else s[HEAD], running)
    if moves:
        soon = last + 1
    return int(max(soon, last + 1) if last > clock else max(soon, clock + 1))


@njit
def _return(k: Channels, c: int, clock: int) -> int:
    """Reads and held commands that have ended; when the next of them will."""
    s, soon = k.word[c], NEVER
    if s[HOLDING] == UNDER_WAY:
        if clock >= s[HOLD_END]:
            s[HOLDING] = 0
            s[SLACK] = 0
        else:
            soon = s[HOLD_END]
    ring, limited = k.returns.shape[1], s[OUTSTANDING] < NEVER
    while s[RETURNED] < s[RETURNS] and k.returns[c, s[RETURNED] % ring] <= clock:
        s[RETURNED] += 1
        s[DONE_READS] += 1
        if limited:
            soon = clock + 1  # room for another one
    if limited and s[RETURNED] < s[RETURNS] and s[OFFERED] >= 0:
        soon = min(soon, k.returns[c, s[RETURNED] % ring])
    if s[HEAD] == s[END] and clock < s[PIM_FINISH]:
        soon = min(soon, s[PIM_FINISH])
    return int(soon)


@njit
def _send(k: Channels, c: int, clock: int) -> tuple[int, int, int]:
    """Choose and send one command: which, the clock of its last, and when to look again."""
    s, soon = k.word[c], NEVER
    if s[PENDING] > 0:
        s[REFRESHING] = 1
        kind, bank, row, _, soon = pick_refresh(k, c, clock)
        if kind != NONE:
            _refreshes(k, c, kind, bank, clock)
            return kind, clock, clock + 1
        if k.setting[REFRESH_ALONE] > 0:
            return NONE, clock, soon
    pim_first, blocks = s[SKIPPING] == 0, False
    if k.setting[CONCURRENT] > 0:
        pim_first = pim_first and s[REFRESHING] == 0
    elif pim_first and (s[WAITING] == 0 or s[IN_TILE] > 0):
        if s[REFRESHING] > 0:
            return NONE, clock, soon
        blocks = True
    else:
        pim_first = False
    if pim_first:
        kind, last, later = _send_pim(k, c, clock, NONE)
        soon = min(soon, later)
        if blocks:
            return kind, last, soon
        queued = s[HEAD] < s[QUEUED] and k.setting[LOOK_AT] == 1
        if kind != NONE or (queued and s[SKIPPING] == 0 and s[SLACK] < k.setting[GUARD]):
            return kind, last, soon
        if queued and s[SKIPPING] > 0 and s[SLACK] < k.setting[GUARD]:
            return NONE, clock, clock + 1
    kind, bank, row, place, later = pick_request(k, c, clock, s[HEAD] < s[QUEUED])
    if kind != NONE:
        _serve(k, c, kind, bank, row, place, clock)
    return kind, clock, min(soon, later)


@njit
def _refreshes(k: Channels, c: int, kind: int, bank: int, clock: int) -> None:
    s = k.word[c]
    issue(k, c, kind, bank, NONE, 1, 1, 1, clock, clock)
    if kind == k.setting[REFRESH_KIND]:
        s[PENDING] -= 1
        s[UNIT_DUE] = (s[UNIT_DUE] + 1) % k.setting[REFRESH_UNITS]
        s[REFRESHING] = 0
        s[SKIPPING] = 0
        s[SLACK] = 0
        reserve(k, c, NONE)


@njit
def _send_pim(k: Channels, c: int, clock: int, bus: int) -> tuple[int, int, int]:
    """The next command of the PIM queue: which, the clock of its last, when to look again."""
    s = k.word[c]
    if k.setting[LOOK_AT] > 1:
        _look(k, c, clock)
        kind, bank, row, place, later = pick_looked(k, c, clock, bus)
        at = k.looked[c, place] if place >= 0 else NONE
    else:
        kind, bank, row, at, later = pick_pim(k, c, clock)
        place = NONE
        if at >= 0 and k.kind[kind, ROLE] == HEADER:
            s[HEAD] += 1
            s[IN_TILE] = 1
            done_entry(k, c, at, clock)
            return kind, clock, clock + 1
    if kind == NONE:
        return NONE, clock, later
    if at < 0:
        issue(k, c, kind, bank, row, 1, 1, 1, clock, clock)
        return kind, clock, clock + 1
    e, repeat = k.entry[at], _repeats(k, c, at, kind, clock)
    if e[BEGUN] < 0:
        e[BEGUN] = clock
    last = issue(k, c, kind, bank, row, repeat, e[REPEAT], e[TOTAL], e[BEGUN], clock)
    _take(k, c, at, place, kind, repeat, last)
    return kind, last, last + 1


@njit
def _repeats(k: Channels, c: int, at: int, kind: int, clock: int) -> int:
    """How many of a run go at once: as many as nothing comes between."""
    s, wanted, step = k.word[c], k.entry[at, REPEAT], k.kind[kind, STEP]
    alone = s[LIMIT] == NEVER
    if step == 0 or (alone and k.setting[REFRESH_STEP] == 0):
        return int(wanted)
    if k.setting[CONCURRENT] > 0:
        return 1
    room = (s[LIMIT] - 1 - clock) // step + 1
    if k.setting[REFRESH_STEP] > 0:
        room = min(room, (s[REFRESH_AT] - 1 - clock) // step + 1)
    if not alone and s[QUEUED] < s[END] and s[QUEUED] - s[HEAD] < k.setting[PIM_QUEUE]:
        room = 1  # whoever waits for room in the PIM queue is told in time
    return int(max(1, min(wanted, room)))


@njit
def _take(k: Channels, c: int, at: int, place: int, kind: int, repeat: int, last: int) -> None:
    """Account for an entry that was sent, or as much of its run as was."""
    s, e = k.word[c], k.entry[at]
    if k.kind[kind, STEP] > 0 and repeat < e[REPEAT]:
        e[REPEAT] -= repeat
        return
    end = last + k.kind[kind, LATENCY]
    s[PIM_FINISH] = max(s[PIM_FINISH], end)
    done_entry(k, c, at, end)
    if place >= 0:
        for n in range(place + 1, s[LOOKED]):
            k.looked[c, n - 1] = k.looked[c, n]
        s[LOOKED] -= 1
    else:
        s[HEAD] += 1
    if k.kind[kind, HOLD] > 0:
        s[HOLDING] = UNDER_WAY
        s[HOLD_END] = last + k.kind[kind, HOLD]
    if e[LAST] > 0:
        s[IN_TILE] = 0
        reserve(k, c, NONE)
        if k.setting[CONCURRENT] == 0:
            s[SLACK] = 0


@njit
def _look(k: Channels, c: int, clock: int) -> None:
    """Fill the entries that are looked at; a barrier at the front has done its work."""
    s, limit = k.word[c], k.setting[LOOK_AT]
    while True:
        while s[LOOKED] < limit and s[HEAD] < s[END] and not fenced(k, c, s[HEAD]):
            k.looked[c, s[LOOKED]] = s[HEAD]
            accepted_entry(k, c, s[HEAD], clock)
            s[LOOKED] += 1
            s[HEAD] += 1
        s[QUEUED] = max(s[QUEUED], s[HEAD])
        if s[LOOKED] == 0 or k.entry[k.looked[c, 0], COMMAND] >= 0:
            return
        done_entry(k, c, k.looked[c, 0], clock)
        for n in range(1, s[LOOKED]):
            k.looked[c, n - 1] = k.looked[c, n]
        s[LOOKED] -= 1


@njit
def _send_second(k: Channels, c: int, clock: int, bus: int) -> None:
    """A command on the other bus in the same clock."""
    s = k.word[c]
    if s[PENDING] > 0 and k.setting[REFRESH_ALONE] > 0:
        return
    if k.setting[CONCURRENT] == 0 and s[WAITING] > 0:
        return  # the host's turn
    if k.setting[LOOK_AT] > 1:
        _send_pim(k, c, clock, bus)


@njit
def _serve(k: Channels, c: int, kind: int, bank: int, row: int, place: int, clock: int) -> None:
    """Send a command of the host; a read or a write leaves its queue."""
    s = k.word[c]
    k.quiet[c, bank] = 0
    demanded = k.served[c, bank] == 0 and k.demanded[c, bank] > 0
    issue(k, c, kind, bank, row, 1, 1, 1, clock, clock)
    if kind not in (RD, WR):
        k.demanded[c, bank] = 1 if k.kind[kind, ROLE] == 1 else k.demanded[c, bank]
        return
    if k.served[c, bank] > 0:
        s[HITS] += 1
    else:
        s[CONFLICTS if demanded else MISSES] += 1
        k.demanded[c, bank] = 0
    k.served[c, bank] += 1
    i = from_bank(k, c, bank, place)
    s[WAITING] -= 1
    end = clock + k.setting[WRITE_CYCLES if kind == WR else READ_CYCLES]
    s[LAST_DATA] = max(s[LAST_DATA], end)
    if kind == RD:
        done(k, c, k.node[i, R_SENDER], end)
        k.returns[c, s[RETURNS] % k.returns.shape[1]] = end
        s[RETURNS] += 1
    serve(k, i)


@njit
def _move(k: Channels, c: int, clock: int, head: int, running: bool) -> bool:
    """Move one entry into the PIM queue, or one request to its bank; whether one moved.

    ``head`` is the first entry that is in the PIM queue; one whose run is not over (``running``)
    is there, too.
    """
    s, in_order = k.word[c], k.setting[LOOK_AT] == 1
    following = s[QUEUED] if in_order else head
    waits = following < s[END] and fenced(k, c, following)
    if s[DRAIN] == 0 and s[WRITES] > 0:
        flush = s[READS] + s[WAITING] == 0 and s[OFFERED] == NONE
        idle = s[WAITING] == 0 and s[WRITES] > IDLE_WRITES
        if s[WRITES] >= k.setting[WRITE_BUFFER] or idle or flush or waits:
            s[DRAIN] = s[WRITES]
    if in_order and s[QUEUED] < s[END] and not waits:
        held = s[QUEUED] - head
        own_turn = k.setting[CONCURRENT] == 0 or held < 2 or (s[READS] == 0 and s[DRAIN] == 0)
        if own_turn:
            if held >= k.setting[PIM_QUEUE]:
                return False
            accepted_entry(k, c, s[QUEUED], clock)
            s[QUEUED] += 1
            return True
    offered = s[QUEUED] if in_order or waits else s[END]
    if k.setting[CONCURRENT] == 0 and (running or head < offered or s[LOOKED] > 0):
        return False
    write = s[DRAIN] > 0
    waiting = WRITES if write else READS
    for at in range(s[waiting]):
        i = k.writes[c, at] if write else k.reads[c, at]
        bank = k.node[i & NODE_MASK, R_BANK]
        if k.held[c, bank] >= k.setting[DEPTH]:
            continue
        _to_bank(k, c, at, i, write)
        return True
    return False


@njit
def _to_bank(k: Channels, c: int, at: int, i: int, write: bool) -> None:
    """Take a request out of its queue or buffer into the queue of its bank."""
    s, waiting = k.word[c], WRITES if write else READS
    queue = k.writes[c] if write else k.reads[c]
    to_bank(k, c, k.node[i & NODE_MASK, R_BANK], i)
    s[WAITING] += 1
    for after in range(at + 1, s[waiting]):
        queue[after - 1] = queue[after]
    s[waiting] -= 1
    if write:
        s[DRAIN] -= 1
