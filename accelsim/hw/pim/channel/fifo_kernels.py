"""What a PIM channel is given, compiled: runs of bursts, and whom it tells what became of them.

A run waits outside until queue or buffer have room for its bursts, one after the other. Senders are
counted down: bursts and entries that are not accepted yet, and those that are not done.
"""

from accelsim._jit import njit_in_place as njit
from accelsim.hw.dram.fifo_kernels import ACCEPTANCE, COMPLETION
from accelsim.hw.dram.state import (
    ACCEPT_LEFT,
    ACCEPTED_AT,
    DONE_AT,
    DONE_LEFT,
    EVENTS,
    FREE,
    FREE_NODES,
)
from accelsim.hw.pim.channel.state import (
    AFTER,
    BANKS,
    LAST_NODE,
    MEMBERS,
    NODE_MASK,
    NONE,
    NUMBER_BITS,
    OFFERED,
    OUTSTANDING,
    R_BANK,
    R_LEFT,
    R_LIVE,
    R_NEXT,
    R_ROW,
    R_SENDER,
    R_WRITE,
    READ_QUEUE,
    READS,
    RETURNED,
    RETURNS,
    SENDER,
    WAITING,
    WRITE_BUFFER,
    WRITES,
    WRITTEN,
    Channels,
)  # fmt: skip


@njit
def push(k: Channels, c: int, sender: int, bank: int, row: int, count: int, write: int) -> bool:
    """Let ``count`` bursts of a row wait outside; False, and nothing done, without a free node."""
    s, last = k.word[c], k.word[c, LAST_NODE]
    if last >= 0:
        q = k.node[last]
        same = q[R_BANK] == bank and q[R_ROW] == row
        if same and q[R_WRITE] == write and q[R_SENDER] == sender:
            q[R_LEFT] += count
            q[R_LIVE] += count
            return True
    if k.book[FREE_NODES] == 0:
        return False
    i = take(k)
    q = k.node[i]
    q[R_BANK], q[R_ROW], q[R_WRITE], q[R_SENDER] = bank, row, write, sender
    q[R_LEFT] = q[R_LIVE] = count
    q[R_NEXT] = NONE
    if last >= 0:
        k.node[last, R_NEXT] = i
    else:
        s[OFFERED] = i
    s[LAST_NODE] = i
    return True


@njit
def take(k: Channels) -> int:
    """A free node."""
    i = k.book[FREE]
    k.book[FREE] = k.node[i, R_NEXT]
    k.book[FREE_NODES] -= 1
    return int(i)


@njit
def serve(k: Channels, i: int) -> None:
    """One burst of a node has been sent; the last one leaves it free."""
    k.node[i, R_LIVE] -= 1
    if k.node[i, R_LIVE] == 0:
        k.node[i, R_NEXT] = k.book[FREE]
        k.book[FREE] = i
        k.book[FREE_NODES] += 1


@njit
def offer(k: Channels, c: int, clock: int) -> bool:
    """Take requests of the host into the read queue and the write buffer, in their order."""
    s, taken = k.word[c], False
    while s[OFFERED] >= 0:
        i = s[OFFERED]
        q = k.node[i]
        if q[R_WRITE] > 0:
            if s[WRITES] >= k.setting[WRITE_BUFFER]:
                break
            s[WRITTEN] += 1
            k.writes[c, s[WRITES]] = i + (s[WRITTEN] << NUMBER_BITS)
            s[WRITES] += 1
            accepted(k, c, q[R_SENDER], clock)
            done(k, c, q[R_SENDER], clock + 1)
        else:
            under_way = s[READS] + s[RETURNS] - s[RETURNED] + s[WAITING]
            if s[READS] >= k.setting[READ_QUEUE] or under_way >= s[OUTSTANDING]:
                break
            k.reads[c, s[READS]] = i
            s[READS] += 1
            accepted(k, c, q[R_SENDER], clock)
        q[R_LEFT] -= 1
        if q[R_LEFT] == 0:
            s[OFFERED] = q[R_NEXT]
            if s[OFFERED] < 0:
                s[LAST_NODE] = NONE
        taken = True
    return taken


@njit
def to_bank(k: Channels, c: int, bank: int, place: int) -> None:
    """A request joins the queue of its bank: its node's run there, if that is the last one."""
    k.quiet[c, bank] = 0
    k.held[c, bank] += 1
    last = k.length[c, bank] - 1
    if last >= 0 and (k.queue[c, bank, last] ^ place) & NODE_MASK == 0:
        k.bursts[c, bank, last] += 1
        return
    k.queue[c, bank, last + 1] = place
    k.bursts[c, bank, last + 1] = 1
    q = k.node[place & NODE_MASK]
    k.wish[c, bank, last + 1] = q[R_ROW] << 1 | q[R_WRITE]
    k.length[c, bank] += 1


@njit
def from_bank(k: Channels, c: int, bank: int, run: int) -> int:
    """The first request of a run leaves the queue of its bank; its node."""
    i = k.queue[c, bank, run] & NODE_MASK
    k.held[c, bank] -= 1
    k.bursts[c, bank, run] -= 1
    k.queue[c, bank, run] += 1 << NUMBER_BITS  # of the next one, if these are writes
    if k.bursts[c, bank, run] == 0:
        k.length[c, bank] -= 1
        for column in (k.queue[c, bank], k.bursts[c, bank], k.wish[c, bank]):
            for at in range(run, k.length[c, bank]):
                column[at] = column[at + 1]
    return int(i)


@njit
def fenced(k: Channels, c: int, at: int) -> bool:
    """Whether an entry waits for writes that the channel had accepted before it came."""
    number = k.entry[at, AFTER]
    if number == 0:
        return False
    s = k.word[c]
    if s[WRITES] > 0 and k.writes[c, 0] >> NUMBER_BITS <= number:
        return True
    for b in range(k.setting[BANKS]):
        for run in range(k.length[c, b]):
            if k.wish[c, b, run] & 1 and k.queue[c, b, run] >> NUMBER_BITS <= number:
                return True
    k.entry[at, AFTER] = 0
    return False


# --- senders


@njit
def accepted_entry(k: Channels, c: int, at: int, clock: int) -> None:
    """An entry of the stream has its place in the PIM queue."""
    accepted(k, c, k.entry[at, SENDER], clock)


@njit
def done_entry(k: Channels, c: int, at: int, clock: int) -> None:
    """What an entry gives is there at a clock."""
    done(k, c, k.entry[at, SENDER], clock)


@njit
def accepted(k: Channels, c: int, sender: int, clock: int) -> None:
    """One of a sender's is accepted."""
    if sender < 0:
        return
    t = k.transfers[sender]
    t[ACCEPT_LEFT] -= k.word[c, MEMBERS]
    t[ACCEPTED_AT] = max(t[ACCEPTED_AT], clock)
    if t[ACCEPT_LEFT] == 0:
        _tell(k, sender, ACCEPTANCE, t[ACCEPTED_AT])


@njit
def done(k: Channels, c: int, sender: int, clock: int) -> None:
    """One of a sender's is done at a clock."""
    if sender < 0:
        return
    t = k.transfers[sender]
    t[DONE_LEFT] -= k.word[c, MEMBERS]
    t[DONE_AT] = max(t[DONE_AT], clock)
    if t[DONE_LEFT] == 0:
        _tell(k, sender, COMPLETION, t[DONE_AT])


@njit
def _tell(k: Channels, sender: int, what: int, clock: int) -> None:
    n = k.book[EVENTS]
    k.book[EVENTS] = n + 1
    k.events[n, 0], k.events[n, 1], k.events[n, 2] = sender, what, clock
