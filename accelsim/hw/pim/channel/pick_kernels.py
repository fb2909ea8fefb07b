"""The compiled PIM channel: which command goes next.

Each choice returns (command, bank, row, place, when): the command to send at this clock, the bank
that it names, its row, what it serves, or NONE and the first clock at which the answer may differ.
"""

from accelsim._jit import njit_in_place as njit
from accelsim.hw.pim.channel.issue_kernels import ready_at, reserve
from accelsim.hw.pim.channel.state import (
    AHEAD,
    BANK,
    BANKS,
    BUFFER,
    CLOSE,
    CLOSES,
    COLUMN,
    COMMAND,
    DEADLINE,
    EST_CLOSE,
    EST_FIRST,
    EST_LEAST,
    EST_PAIR,
    EST_REOPEN,
    EST_RESULT,
    EST_SLOT,
    GROUP_BANKS,
    HEAD,
    HEADER,
    HIT_CAP,
    HOLD,
    HOLD_BANK,
    HOLD_END,
    HOLDING,
    LOOK_AT,
    LOOKED,
    MOVE,
    NEVER,
    NONE,
    OPENS,
    POINTER,
    QUEUED,
    REACH,
    REFRESH_AT,
    REFRESH_CLOSE,
    REFRESH_CLOSE_SECOND,
    REFRESH_KIND,
    REFRESH_STEP,
    REFRESHING,
    REPEAT,
    RESERVED,
    RESULTS,
    ROLE,
    ROW,
    ROW_BUS,
    SECOND,
    SKIPPING,
    SLACK,
    TRCD,
    TRP,
    UNIT_BANKS,
    UNIT_DUE,
    Channels,
    Int64,
)  # fmt: skip

ACT, PRE, RD, WR = 0, 1, 2, 3
ATTEMPTED, UNDER_WAY = 1, 2  # of a command that holds the others back

Choice = tuple[int, int, int, int, int]


@njit
def pick_refresh(k: Channels, c: int, clock: int) -> Choice:
    """The refresh that is owed, or what closes a bank for it."""
    first = k.word[c, UNIT_DUE] * k.setting[UNIT_BANKS]
    kind, soon, is_open = k.setting[REFRESH_KIND], NEVER, False
    for b in range(first, first + k.setting[UNIT_BANKS]):
        if k.rows[c, 0, b] >= 0:
            closing = k.setting[REFRESH_CLOSE]
        elif k.setting[SECOND] > 0 and k.rows[c, 1, b] >= 0:
            closing = k.setting[REFRESH_CLOSE_SECOND]
        else:
            continue
        is_open = True
        at = ready_at(k, c, closing, b)
        if at <= clock:
            return closing, b, NONE, NONE, clock
        soon = min(soon, at)
    if is_open:
        return NONE, NONE, NONE, NONE, soon
    at = ready_at(k, c, kind, first)
    if at <= clock:
        return kind, first, NONE, NONE, clock
    return NONE, NONE, NONE, NONE, at


# --- PIM commands


@njit
def pick_pim(k: Channels, c: int, clock: int) -> Choice:
    """In order: what the first entry of the PIM queue needs next."""
    s = k.word[c]
    at = s[HEAD]
    if at >= s[QUEUED]:
        return NONE, NONE, NONE, NONE, NEVER
    e = k.entry[at]
    kind = e[COMMAND]
    if s[HOLDING] == UNDER_WAY:
        return NONE, NONE, NONE, NONE, s[HOLD_END]
    until = NEVER
    guarded = k.setting[DEADLINE] > 0 and (k.kind[kind, ROLE] == HEADER or k.kind[kind, HOLD] > 0)
    if guarded and s[HOLDING] == 0:
        left = _left(k, c, clock) - _estimate(k, c, at)
        s[SLACK] = max(left, 0)
        if left <= 0:
            s[SKIPPING] = 1
            return NONE, NONE, NONE, NONE, clock
        until = clock + left
        if k.kind[kind, ROLE] == HEADER:
            reserve(k, c, e[ROW])
    if k.kind[kind, HOLD] > 0:
        s[HOLDING] = ATTEMPTED
        s[HOLD_BANK] = e[BANK]
    found, bank, row, place, when = _next_of(k, c, at, clock)
    return found, bank, row, place, min(when, until)


@njit
def _left(k: Channels, c: int, clock: int) -> int:
    """Clocks until the next refresh falls due, seen from the end of this one."""
    if k.setting[REFRESH_STEP] == 0:
        return NEVER
    left = k.word[c, REFRESH_AT] - (clock + 1)
    return int(left if left > 0 else left + k.setting[REFRESH_STEP])


@njit
def _estimate(k: Channels, c: int, at: int) -> int:
    """What the controller believes that an entry takes."""
    s, e = k.setting, k.entry[at]
    kind, row = e[COMMAND], e[ROW]
    if k.kind[kind, ROLE] != HEADER:
        open_row = k.rows[c, k.kind[kind, BUFFER], e[BANK]]
        reopen = s[EST_REOPEN] - s[EST_CLOSE] if open_row < 0 else s[EST_REOPEN]
        return int(k.kind[kind, HOLD] + (0 if open_row == row else reopen))
    rows, groups, closings = k.rows[c, k.kind[kind, BUFFER]], 0, 0
    for first in range(0, s[BANKS], s[GROUP_BANKS]):
        right, wrong = 0, 0
        for b in range(first, first + s[GROUP_BANKS]):
            right += rows[b] == row
            wrong += rows[b] >= 0 and rows[b] != row
        if right < s[GROUP_BANKS]:
            groups += 1
            closings += wrong
    pairs = groups // 2 - 1
    columns = s[EST_SLOT] * max(e[REPEAT], s[EST_LEAST])
    opening = closings * s[EST_CLOSE] + pairs * s[EST_PAIR] + s[EST_FIRST]
    return int(opening + columns + s[EST_RESULT] * (e[RESULTS] - 1))


@njit
def _next_of(k: Channels, c: int, at: int, clock: int) -> Choice:
    """The command itself, or the first one that is ready of those that its banks need before."""
    e = k.entry[at]
    kind, row = e[COMMAND], e[ROW]
    role, buffer = k.kind[kind, ROLE], k.kind[kind, BUFFER]
    soon, missing = NEVER, False
    if role == COLUMN and _opens_together(k, kind):
        need, b = _needed_together(k, c, kind, buffer, row, e[BANK])
        if need != NONE:
            when = ready_at(k, c, need, b)
            if when <= clock:
                return need, b, row, NONE, clock
            return NONE, NONE, NONE, NONE, when
    elif role in (COLUMN, HEADER):
        banks = k.reached[k.kind[kind, REACH], e[BANK]]
        for n in range(banks.shape[0]):
            b = banks[n]
            if b < 0:
                break
            need = _needed(k, c, kind, role, buffer, row, b)
            if need == NONE:
                continue
            missing = True
            when = ready_at(k, c, need, b)
            if when <= clock:
                return need, b, row, NONE, clock
            soon = min(soon, when)
    if missing:
        return NONE, NONE, NONE, NONE, soon
    when = clock if role == HEADER else ready_at(k, c, kind, e[BANK])
    if when <= clock:
        return kind, e[BANK], row, at, clock
    return NONE, NONE, NONE, NONE, when


@njit
def _opens_together(k: Channels, kind: int) -> bool:
    """Whether one command opens, and one closes, all banks that a column works on."""
    same = k.kind[k.kind[kind, OPENS], REACH] == k.kind[kind, REACH]
    return bool(same and k.setting[SECOND] == 0)


@njit
def _needed_together(
    k: Channels, c: int, kind: int, buffer: int, row: int, bank: int
) -> tuple[int, int]:
    """What these banks need before: none may be open, whoever opened it, where all are opened."""
    banks, is_open, wrong = k.reached[k.kind[kind, REACH], bank], NONE, False
    for n in range(banks.shape[0]):
        b = banks[n]
        if b < 0:
            break
        if k.rows[c, buffer, b] != row:
            wrong = True
        if k.rows[c, buffer, b] >= 0 and is_open < 0:
            is_open = b
    if not wrong:
        return NONE, NONE
    if is_open >= 0:
        return int(k.kind[kind, CLOSES]), int(is_open)
    return int(k.kind[kind, OPENS]), int(banks[0])


@njit
def _needed(k: Channels, c: int, kind: int, role: int, buffer: int, row: int, b: int) -> int:
    """What bank b needs before a command: NONE, or to be opened or closed."""
    open_row = k.rows[c, buffer, b]
    if k.setting[SECOND] > 0 and open_row < 0 and k.rows[c, 1 - buffer, b] == row:
        # A row is never open in both buffers.
        if buffer == 0:
            return int(k.setting[REFRESH_CLOSE_SECOND])
        return PRE
    if open_row == row:
        return NONE
    if open_row < 0:
        return NONE if role == HEADER else int(k.kind[kind, OPENS])
    return int(k.kind[kind, CLOSES])


@njit
def pick_looked(k: Channels, c: int, clock: int, bus: int) -> Choice:
    """Out of order: the oldest entry that is ready, not beyond a barrier, other than for rows.

    ``bus``: only commands of that bus (0 columns, 1 rows), or any (NONE). A row is closed when no
    entry that is looked at needs it any more; nor does what moves overtake columns of its bank.
    """
    s = k.word[c]
    soon, beyond, before = NEVER, False, NONE
    for n in range(min(s[LOOKED], k.setting[LOOK_AT])):
        at = k.looked[c, n]
        e = k.entry[at]
        kind = e[COMMAND]
        if kind < 0:
            if not k.setting[AHEAD]:
                break
            beyond = True
            continue
        column = k.kind[kind, ROLE] == COLUMN
        if beyond and not column:
            continue
        if column:
            if before != NONE and _same_row(k, before, at):
                continue  # its older twin was not ready
            before = at
        found, bank, row, place, when = _next_of(k, c, at, clock)
        if found < 0:
            soon = min(soon, when)
        elif n > 0 and k.kind[found, ROLE] in (CLOSE, MOVE) and _still_needed(k, c, at):
            continue
        elif (bus == NONE or k.kind[found, ROW_BUS] == bus) and not (beyond and place >= 0):
            return found, bank, row, n if place >= 0 else NONE, clock
    return NONE, NONE, NONE, NONE, soon


@njit
def _same_row(k: Channels, one: int, other: int) -> bool:
    a, b = k.entry[one], k.entry[other]
    return bool(a[COMMAND] == b[COMMAND] and a[ROW] == b[ROW] and a[BANK] == b[BANK])


@njit
def _still_needed(k: Channels, c: int, at: int) -> bool:
    """Whether an entry that is looked at works on the row that another one wants to close."""
    bank = k.entry[at, BANK]
    for n in range(min(k.word[c, LOOKED], k.setting[LOOK_AT])):
        e = k.entry[k.looked[c, n]]
        if e[COMMAND] < 0 or e[BANK] != bank or k.kind[e[COMMAND], ROLE] != COLUMN:
            continue
        if k.rows[c, k.kind[e[COMMAND], BUFFER], bank] == e[ROW]:
            return True
    return False


# --- reads and writes of the host


@njit
def pick_request(k: Channels, c: int, clock: int, pim_waits: bool) -> Choice:
    """Round robin over banks: the first request whose next command is ready."""
    s, quiet = k.word[c], k.quiet[c]
    last, first, end = s[POINTER], s[POINTER] + 1, quiet.shape[0]
    for _ in range(2):
        b = _awake(quiet, first, end, clock)
        while b < end:
            refreshing = s[REFRESHING] > 0 and b // k.setting[UNIT_BANKS] == s[UNIT_DUE]
            if not refreshing and (s[HOLDING] == 0 or b != s[HOLD_BANK]):
                if k.rows[c, 0, b] >= 0:
                    command, row, run = _of_open(k, c, b, clock, pim_waits)
                else:
                    command, row, run = _of_closed(k, c, b, clock, pim_waits)
                if command != NONE:
                    s[POINTER] = b
                    return command, b, row, run, clock
            b = _awake(quiet, b + 1, end, clock)
        first, end = 0, last + 1
    soon = NEVER
    for b in range(quiet.shape[0]):
        soon = min(soon, quiet[b] if quiet[b] > clock else NEVER)
    return NONE, NONE, NONE, NONE, soon


@njit
def _awake(quiet: Int64, first: int, end: int, clock: int) -> int:
    """The next bank whose requests need to be looked at."""
    for b in range(first, end):
        if quiet[b] <= clock:
            return b
    return end


@njit
def _of_open(k: Channels, c: int, b: int, clock: int, pim_waits: bool) -> tuple[int, int, int]:
    """(command, row, run) of the first request of an open bank whose next command is ready, or
    NONE: its first reads or writes of the row, or its oldest request, which closes the bank if no
    hit waits or the row has had its share."""
    s, wish, n, row = k.word[c], k.wish[c, b], k.length[c, b], k.rows[c, 0, b]
    reads, writes = _find(wish, n, row << 1), _find(wish, n, row << 1 | 1)
    hit, later = min(reads, writes), NEVER
    closes = hit == n or k.served[c, b] >= k.setting[HIT_CAP]
    if hit > 0 and closes and wish[0] >> 1 != s[RESERVED]:
        at = ready_at(k, c, PRE, b)
        if at <= clock and (not pim_waits or _fits(k, c, PRE)):
            return PRE, wish[0] >> 1, 0
        later = at
    if row != s[RESERVED]:
        for run in (hit, max(reads, writes)):
            if run < n:
                command = WR if run == writes else RD
                at = ready_at(k, c, command, b)
                if at <= clock:
                    return command, row, run
                later = min(later, at)
    # Until then nothing changes by itself: times only move away.
    k.quiet[c, b] = later
    return NONE, NONE, NONE


@njit
def _of_closed(k: Channels, c: int, b: int, clock: int, pim_waits: bool) -> tuple[int, int, int]:
    """The same of a bank that is closed to the host: its first request to a row that the second
    buffer holds has it closed there, the first to another one opens it."""
    s, wish, n = k.word[c], k.wish[c, b], k.length[c, b]
    other = k.rows[c, 1, b] if k.setting[SECOND] > 0 else NONE
    held, later = n, NEVER
    if other >= 0 and other != s[RESERVED]:
        held = min(_find(wish, n, other << 1), _find(wish, n, other << 1 | 1))
    opened = 0
    while opened < n and (wish[opened] >> 1 == s[RESERVED] or wish[opened] >> 1 == other):
        opened += 1
    for run in (min(held, opened), max(held, opened)):
        if run < n:
            command = k.setting[REFRESH_CLOSE_SECOND] if run == held else ACT
            at = ready_at(k, c, command, b)
            if at <= clock and (not pim_waits or _fits(k, c, command)):
                return command, wish[run] >> 1, run
            later = min(later, at)
    k.quiet[c, b] = later
    return NONE, NONE, NONE


@njit
def _find(wish: Int64, n: int, wanted: int) -> int:
    """The first of n runs with this row and direction, n if there is none."""
    for run in range(n):
        if wish[run] == wanted:
            return run
    return n


@njit
def _fits(k: Channels, c: int, command: int) -> bool:
    """Whether the slack before a refresh leaves time for a row command; takes it."""
    s = k.word[c]
    if s[SLACK] <= 0:
        return True
    needed = k.setting[TRCD] if command == ACT else k.setting[TRP] + k.setting[TRCD]
    if s[SLACK] <= needed:
        return False
    s[SLACK] -= k.setting[TRCD] if command == ACT else k.setting[TRP]
    return True
