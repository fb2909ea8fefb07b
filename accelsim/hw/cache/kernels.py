"""The compiled walk of a 2-D window through a chain of caches. ``reference`` specifies it.

Every cache serves the bytes of a window row by row and line by line. What it must ask from behind
it, or send there, joins the request that it has open in that direction if it continues it; else
that request leaves and a new one is opened. So each cache has one open read and one open write,
which close when the window is through, the first cache's first. One that overlaps a new request of
the other direction leaves before it, so that nothing overtakes what it depends on.

A request that leaves waits in a queue for the next cache, or is a *run* of the caller's if it goes
to memory. A cache works in short turns: ``_serve`` looks up lines until it has noted a few dozen
pieces of lines that must move, ``_forward`` makes requests of them, and the caches behind serve
those before it goes on. What any cache sees, and in which order, does not depend on the turns.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit
from accelsim.hw.cache.bits import PLAIN, SUM, XOR, cut_sectors, fold, ones, xorshift

# Columns of Caches.caches: one row per cache. FIRST_* number the first way, instance and bank; then
# come the address and end of the open read and write, and how far the queue behind has been served.
(
    LINE_BITS, SECTOR_BITS, SECTORS, WAYS, BANKS, SETS_PER_BANK, HASH, POLICY,
    WRITE_BACK, ALLOCATE, WIDTH, BEHIND, INSTANCES, FIRST_WAY, FIRST_INSTANCE, FIRST_BANK,
    OPENED, _, _, _, NEXT_ROW, NEXT_ADDRESS, QUEUED, COLUMNS,
) = range(24)  # fmt: skip
TAG, STAMP, SECTORS_HELD = range(3)  # rows of Caches.ways
CLOCK, DRAWN = range(2)  # columns of Caches.instances
LRU, RANDOM, STREAMING = range(3)
MEMORY = -1  # BEHIND the last cache of a chain

# Columns of counts: one row per cache. Bytes are whole sectors, except those that go THROUGH.
(
    LOOKUPS, HITS, READ, READ_HIT, WRITE, WRITE_HIT, FILL, BACK, THROUGH,
) = range(9)  # fmt: skip

DIRTY = 16
ALL_VALID = (1 << DIRTY) - 1
PIECES = 64  # pieces of lines that one turn notes
LINE_PIECES = 3  # that one line adds at most: an eviction, a fill, a write that goes on
QUEUE = PIECES * 8 + 2  # requests of one turn: every other of 16 sectors, and the two that close
MOST_WAYS = 1 << 20  # the low bits of a stamp are the number of the way
NEVER_USED = -(1 << 62)  # stamp of an empty way
NOTHING = -1  # end of a request that is not open
NOWHERE = -2  # no request ends there
NO_QUEUE = -1  # source of the rows of a window
FIRST_ROW = 0
AT_START = -1  # address: where the row begins
ABSENT = -1  # way of a line that is not held
WHOLE = 1 << 62  # past every address
ADDRESS, BYTES, IS_WRITE = range(3)  # columns of runs


class Caches(NamedTuple):
    """All caches of an architecture, all instances stacked.

    The ways of set s of instance i of a cache stand at FIRST_WAY + (i x sets + s) x ways. A way has
    the number of its line (-1: none), a stamp (the lowest of a set makes room; its low bits are
    the number of the way) and its sectors: a valid bit each, and DIRTY places higher a dirty bit.
    An instance has its lookups so far and the state of its random choice. Few arrays, because
    every one costs a compiled call a count of references.
    """

    caches: NDArray[np.int64]  # [cache, column]
    ways: NDArray[np.int64]  # [(tag, stamp, sectors), way]
    instances: NDArray[np.int64]  # [instance, (clock, drawn)]
    pieces: NDArray[np.int64]  # [PIECES, (line, sectors, column of counts, low, high)]
    queues: NDArray[np.int64]  # [cache, QUEUE, (address, end, write)]


@njit
def walk(
    c: Caches,
    entry: int,
    core: int,
    base: int,
    rows: int,
    row_bytes: int,
    stride: int,
    write: int,
    counts: NDArray[np.int64],
    busy: NDArray[np.int64],
    runs: NDArray[np.int64],
    used: int,
) -> int:
    """Read or write a window through the chain that begins at cache ``entry``, on ``core``.

    Adds to ``counts`` [cache, column] and to ``busy``, the cycles of every bank of every instance,
    from which ``slowest_bank`` or ``pass_banks`` take them. What reaches the memory is appended to
    ``runs`` [n, (address, bytes, write)] from ``used`` on. Returns the runs used then; more than
    there is room for means that the last ones are lost, though the caches have moved on
    (``most_runs`` bounds them).
    """
    if stride == row_bytes:
        row_bytes *= rows
        rows = min(rows, 1)
    if row_bytes <= 0:
        return used
    # int(): a constant as an argument would compile a variant of its own.
    row, at, source, moved = int(FIRST_ROW), int(AT_START), int(NO_QUEUE), False
    while row < rows:
        row, at, noted = _serve(
            c, entry, core, source, base, rows, row_bytes, stride, write, row, at, counts, busy
        )
        if noted > 0 or moved:
            moved = True
            used = _forward(c, entry, noted, row == rows, counts, runs, used)
            if c.caches[entry, BEHIND] != MEMORY:
                used = _drain(c, entry, core, row == rows, counts, busy, runs, used)
    return used


@njit
def write_back(
    c: Caches,
    cache: int,
    core: int,
    ways: NDArray[np.int64],
    counts: NDArray[np.int64],
    busy: NDArray[np.int64],
    runs: NDArray[np.int64],
    used: int,
) -> int:
    """Send the dirty sectors of ``ways`` behind, in that order; otherwise as ``walk``."""
    held, pieces, count = c.ways, c.pieces, ways.shape[0]
    for first in range(0, count, PIECES):
        noted = min(PIECES, count - first)
        for i in range(noted):
            way = ways[first + i]
            _note(pieces, i, held[TAG, way], held[SECTORS_HELD, way] >> DIRTY, BACK, 0, WHOLE)
            held[SECTORS_HELD, way] &= ALL_VALID
        last = first + noted == count
        used = _forward(c, cache, noted, last, counts, runs, used)
        used = _drain(c, cache, core, last, counts, busy, runs, used)
    return used


@njit
def drop(c: Caches, cache: int, core: int) -> None:
    """Forget the lines of one instance that hold nothing dirty, as a GPU's L1 between kernels."""
    ways, shape = c.ways, c.caches[cache]
    size = shape[SETS_PER_BANK] * shape[BANKS] * shape[WAYS]
    first = shape[FIRST_WAY] + (core if shape[INSTANCES] > 1 else 0) * size
    for way in range(first, first + size):
        if ways[SECTORS_HELD, way] >> DIRTY == 0:
            ways[TAG, way] = -1
            ways[STAMP, way] = NEVER_USED + (way - first) % shape[WAYS]
            ways[SECTORS_HELD, way] = 0


@njit
def slowest_bank(c: Caches, cache: int, core: int, busy: NDArray[np.int64]) -> int:
    """Cycles of the bank that has most to do in one instance; its banks are idle then.

    For a cache that is one port: a window holds it as long as its slowest bank works.
    """
    shape, most = c.caches[cache], 0
    first = shape[FIRST_BANK] + (core if shape[INSTANCES] > 1 else 0) * shape[BANKS]
    for bank in range(first, first + shape[BANKS]):
        most = max(most, busy[bank])
        busy[bank] = 0
    return most


@njit
def pass_banks(
    c: Caches,
    cache: int,
    core: int,
    at: int,
    tick: int,
    busy: NDArray[np.int64],
    free: NDArray[np.int64],
) -> int:
    """When the last bank of one instance is through with its work, which begins at ``at``.

    For a cache whose banks serve different windows at once: ``free`` is when each bank is, in
    ticks, ``tick`` of them per cycle. The work is taken from ``busy``.
    """
    shape, last = c.caches[cache], at
    first = shape[FIRST_BANK] + (core if shape[INSTANCES] > 1 else 0) * shape[BANKS]
    for bank in range(first, first + shape[BANKS]):
        if busy[bank] > 0:
            free[bank] = max(free[bank], at) + busy[bank] * tick
            last = max(last, free[bank])
            busy[bank] = 0
    return last


@njit
def _drain(
    c: Caches,
    top: int,
    core: int,
    closing: bool,
    counts: NDArray[np.int64],
    busy: NDArray[np.int64],
    runs: NDArray[np.int64],
    used: int,
) -> int:
    """Serve what waits behind cache ``top``, the deepest queue first, until nothing waits.

    If ``closing``, every cache closes its open requests when nothing more can come from above.
    """
    caches, closed = c.caches, top
    while True:
        cache, waiting = top, MEMORY
        while cache != MEMORY:
            if caches[cache, QUEUED] > 0:
                waiting = cache
            cache = caches[cache, BEHIND]
        noted = 0
        if waiting != MEMORY:
            behind, rows = caches[waiting, BEHIND], caches[waiting, QUEUED]
            row, at = caches[waiting, NEXT_ROW], caches[waiting, NEXT_ADDRESS]
            row, at, noted = _serve(
                c, behind, core, waiting, rows, rows, rows, rows, rows, row, at, counts, busy
            )
            caches[waiting, NEXT_ROW], caches[waiting, NEXT_ADDRESS] = row, at
            if row == rows:
                caches[waiting, NEXT_ROW] = caches[waiting, QUEUED] = 0
        else:
            behind = closed = caches[closed, BEHIND]
            if not closing or closed == MEMORY:
                return used
        if noted > 0 or waiting == MEMORY:
            used = _forward(c, behind, noted, waiting == MEMORY, counts, runs, used)


@njit
def _serve(
    c: Caches,
    cache: int,
    core: int,
    source: int,
    base: int,
    rows: int,
    row_bytes: int,
    stride: int,
    write: int,
    row: int,
    at: int,
    counts: NDArray[np.int64],
    busy: NDArray[np.int64],
) -> tuple[int, int, int]:
    """Look up lines from byte ``at`` of ``row`` on; return where it stopped and the pieces noted.

    Rows are those of a window, or what waits in the queue of cache ``source``. It stops at the end
    (row ``rows``) or when there is no room for the pieces of another line.
    """
    shape, queues, pieces, lines = c.caches[cache], c.queues, c.pieces, c.ways
    line_bits, sector_bits = shape[LINE_BITS], shape[SECTOR_BITS]
    line_bytes, ways, banks = 1 << line_bits, shape[WAYS], shape[BANKS]
    sets_per_bank, hashed = shape[SETS_PER_BANK], shape[HASH]
    policy, back, allocate = shape[POLICY], shape[WRITE_BACK], shape[ALLOCATE]
    every = (1 << shape[SECTORS]) - 1
    width = shape[WIDTH]
    line_cycles = (line_bytes + width - 1) // width if width else 0
    instance = core if shape[INSTANCES] > 1 else 0
    first = shape[FIRST_WAY] + instance * sets_per_bank * banks * ways
    first_bank = shape[FIRST_BANK] + instance * banks
    instance += shape[FIRST_INSTANCE]
    clock = c.instances[instance, CLOCK]
    began, hits, noted = clock, 0, 0
    hint = 0  # neighbouring lines came together, so they are likely in the same way of their sets
    while row < rows and noted <= PIECES - LINE_PIECES:
        start, end = base + row * stride, base + row * stride + row_bytes
        if source != NO_QUEUE:
            start, end = queues[source, row, 0], queues[source, row, 1]
            write = queues[source, row, 2]
        if at == AT_START:
            at = start
        asked, found = 0, 0
        line = at >> line_bits
        high = line // banks
        low = line - high * banks
        lane = high % sets_per_bank
        folded = fold(high, banks, hashed)
        while at < end and noted <= PIECES - LINE_PIECES:
            edge = (line + 1) << line_bits
            stop = min(edge, end)
            want, nbytes, cycles = every, line_bytes, line_cycles
            if stop - at != line_bytes:
                s0 = (at - edge + line_bytes) >> sector_bits
                s1 = ((stop - 1 - edge + line_bytes) >> sector_bits) + 1
                want = (1 << s1) - (1 << s0)
                nbytes = (s1 - s0) << sector_bits
                cycles = (nbytes + width - 1) // width if width else 0
            bank = low
            if hashed == XOR:
                bank = low ^ folded
            elif hashed == SUM:
                bank = low + folded - (banks if low + folded >= banks else 0)
            busy[first_bank + bank] += cycles
            ways_from = first + (lane * banks + bank) * ways
            way = ways_from + hint
            if lines[TAG, way] != line:
                way = _find(lines, ways_from, ways, line)
            clock += 1
            asked += nbytes
            held = want & lines[SECTORS_HELD, way] if way != ABSENT else 0
            if held == want:
                hits += 1
                found += nbytes
                lines[STAMP, way] = clock * MOST_WAYS + (way - ways_from)
                if write:
                    if back:
                        lines[SECTORS_HELD, way] |= want << DIRTY
                    else:
                        noted = _note(pieces, noted, line, want, THROUGH, at, stop)
            else:
                found += ones(held) << sector_bits
                if way != ABSENT:
                    if write or policy != STREAMING:
                        lines[STAMP, way] = clock * MOST_WAYS + (way - ways_from)
                elif allocate or not write:
                    way = ways_from + (_lowest_stamp(lines, ways_from, ways) & (MOST_WAYS - 1))
                    if policy == RANDOM and lines[TAG, way] >= 0:
                        drawn = xorshift(c.instances[instance, DRAWN])
                        c.instances[instance, DRAWN] = drawn
                        way = ways_from + ((drawn * ways) >> 32)
                    gone = lines[SECTORS_HELD, way] >> DIRTY
                    if gone:
                        noted = _note(pieces, noted, lines[TAG, way], gone, BACK, 0, WHOLE)
                    lines[TAG, way], lines[SECTORS_HELD, way] = line, 0
                    age = -clock if policy == STREAMING and not write else clock
                    lines[STAMP, way] = age * MOST_WAYS + (way - ways_from)
                fill = want & ~held
                if write and allocate:
                    fill = ~held & cut_sectors(at, stop, edge - line_bytes, sector_bits)
                if allocate or not write:
                    lines[SECTORS_HELD, way] |= want
                    if fill:
                        noted = _note(pieces, noted, line, fill, FILL, 0, WHOLE)
                if write:
                    gone = want & ~held
                    if back and way != ABSENT:
                        gone = want & ~lines[SECTORS_HELD, way]
                        lines[SECTORS_HELD, way] |= (want & ~gone) << DIRTY
                    elif not back:
                        gone = want
                    if gone:
                        noted = _note(pieces, noted, line, gone, THROUGH, at, stop)
            if way != ABSENT:
                hint = way - ways_from
            at = stop
            line += 1
            low += 1
            if low == banks:
                low = 0
                high += 1
                lane += 1
                if lane == sets_per_bank:
                    lane = 0
                if hashed != PLAIN:
                    folded = fold(high, banks, hashed)
        counts[cache, WRITE if write else READ] += asked
        counts[cache, WRITE_HIT if write else READ_HIT] += found
        if at == end:
            row += 1
            at = AT_START
    c.instances[instance, CLOCK] = clock
    counts[cache, LOOKUPS] += clock - began
    counts[cache, HITS] += hits
    return row, at, noted


@njit
def _find(lines: NDArray[np.int64], ways_from: int, ways: int, line: int) -> int:
    """The way of a set that holds a line, or ABSENT."""
    # No early exit, so that the host compares several tags at once.
    found = 0
    for w in range(ways):
        found += w + 1 if lines[TAG, ways_from + w] == line else 0
    return ways_from + found - 1 if found else ABSENT


@njit
def _lowest_stamp(lines: NDArray[np.int64], ways_from: int, ways: int) -> int:
    lowest = WHOLE
    for way in range(ways_from, ways_from + ways):
        lowest = min(lowest, lines[STAMP, way])
    return lowest


@njit
def _note(
    pieces: NDArray[np.int64], i: int, line: int, sectors: int, column: int, low: int, high: int
) -> int:
    """Note sectors of a line to be moved, cut to bytes ``low`` to ``high``; the pieces noted."""
    pieces[i, 0], pieces[i, 1], pieces[i, 2] = line, sectors, column
    pieces[i, 3], pieces[i, 4] = low, high
    return i + 1


@njit
def _forward(
    c: Caches,
    cache: int,
    noted: int,
    closing: bool,
    counts: NDArray[np.int64],
    runs: NDArray[np.int64],
    used: int,
) -> int:
    """Make requests of the pieces noted; close those that stay open if ``closing``."""
    pieces, caches = c.pieces, c.caches
    line_bits, sector_bits = caches[cache, LINE_BITS], caches[cache, SECTOR_BITS]
    for i in range(noted + 2 if closing else noted):
        start, sectors, column, write = 0, 1, 0, i - noted
        if i < noted:
            start, sectors, column = pieces[i, 0] << line_bits, pieces[i, 1], pieces[i, 2]
            write = 0 if column == FILL else 1
        first = 0
        while sectors >> first:
            if sectors >> first & 1 == 0:
                first += 1
                continue
            last = first
            while sectors >> last & 1:
                last += 1
            at, end = NOWHERE, NOTHING
            if i < noted:
                at = max(start + (first << sector_bits), pieces[i, 3])
                end = min(start + (last << sector_bits), pieces[i, 4])
                counts[cache, column] += end - at
            first = last
            # A line is not sent back before it came, nor fetched before it was sent back.
            other = OPENED + 2 * (1 - write)
            if i < noted and caches[cache, other] < end and at < caches[cache, other + 1]:
                used = _leave(c, cache, 1 - write, runs, used)
                caches[cache, other + 1] = NOTHING
            # It continues what is open in this direction; else that leaves.
            till = caches[cache, OPENED + 2 * write + 1]
            if till != at:
                if till != NOTHING:
                    used = _leave(c, cache, write, runs, used)
                caches[cache, OPENED + 2 * write] = at
            caches[cache, OPENED + 2 * write + 1] = end
    caches[cache, NEXT_ADDRESS] = AT_START
    return used


@njit
def _leave(c: Caches, cache: int, write: int, runs: NDArray[np.int64], used: int) -> int:
    """The open request of a direction leaves: a run of the memory, or in the queue behind."""
    opened = OPENED + 2 * write
    was, till = c.caches[cache, opened], c.caches[cache, opened + 1]
    if c.caches[cache, BEHIND] == MEMORY:
        if used < runs.shape[0]:
            runs[used, ADDRESS], runs[used, BYTES], runs[used, IS_WRITE] = was, till - was, write
        return used + 1
    queued = c.caches[cache, QUEUED]
    c.queues[cache, queued, 0], c.queues[cache, queued, 1] = was, till
    c.queues[cache, queued, 2] = write
    c.caches[cache, QUEUED] = queued + 1
    return used
