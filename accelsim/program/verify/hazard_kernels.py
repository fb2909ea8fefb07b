"""The compiled happens-before pass: one walk over the program in its own order.

Units issue and retire in order, so "everything of unit u up to instruction j has finished" is one
number, and what is known to be over when instruction i starts is one vector with an entry per
unit: its clock. A same-unit successor inherits the clock; a dependency on d adds d's own clock and
everything of d's unit up to d. Hence for j before i in program order

    j has finished before i starts   iff   clock_i[unit of j] >= j
    j comes before i                 iff   that, or both are on one unit

Where instructions wait for the issue of others, a second clock says what has been issued, hence
has read its operands: an overwrite needs no more. What is forwarded within a pipeline is read when
the result leaves it, so its overwrite must wait for the finish.
"""

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit

# Columns of instructions, operands, rectangles (see the other kernels; a test compares them).
UNIT, OPCODE, FLAGS, DEPENDENCY, DST = 0, 1, 3, 8, 11
D_STORAGE = 0
R_CELL, R_LINES, R_WIDTH, R_STEP = range(4)
# What can be wrong; hazards.py words it.
NEVER_WRITTEN, OVERWRITTEN, READ_EARLY, OVERTAKES_READ, OVERTAKES_WRITE, UNDECIDED = range(1, 7)


@njit
def scan(
    instructions: NDArray[np.int64],
    operands: NDArray[np.int64],
    n_units: int,
    matmul: int,
    pim: int,
    accumulate: int,
    forward: int,
    early: int,
    first: NDArray[np.int64],
    rectangles: NDArray[np.int64],
    owner: NDArray[np.int32],
    keep: int,
    segments: NDArray[np.int64],
    n_segments: int,
    found: NDArray[np.int64],
) -> int:
    """Fill ``found`` with (what, instruction, operand 0..3, other instruction); return how many.

    ``matmul``, ``pim`` and ``accumulate`` are opcodes and flag of the instruction that may read its
    own unit's earlier result without a wait, ``forward`` the flag of others that may (their src1).
    ``early`` is the flag of a dep0 that waits for the issue, 0 if the program has no such waits.
    ``first`` and ``rectangles`` map operand descriptors to cells; ``owner[cell]`` is the storage
    whose data the cell holds at the start, -1 for none. ``keep`` readers are remembered per cell.
    With ``segments`` (see find_neighbours) storages may share addresses without sharing cells; what
    then cannot be decided is reported as UNDECIDED.

    clock[u]         what is known to have finished when the next instruction of unit u starts, per
                     unit; from entry ``known`` on, what is known to have been issued
    saved[row[i]]    clock of instruction i, kept until its last dependent has seen it
    writer[cell]     latest writer, -1 before; ``owner`` is then the storage it wrote through
    readers[cell]    readers of the current contents, front to back, as 2 x instruction, + 1 if
                     it reads as late as its finish; at most one of each kind per unit
    last[cell]       the last instruction that writes it; who reads after it need not be remembered
    tenant[segment]  the storage that was accessed there last, -1 if none
    retired[segment] per unit the latest access by storages that are no longer tenants
    latest[s]        per unit the latest access to storage s
    pending[s]       per unit the accesses that every write to s must come after
    epoch[s]         when s became tenant, -1 if nothing had been there before; -2 if it is not
    """
    n = instructions.shape[0]
    unit, last_use = _dependents(instructions)
    row = np.full(n, -1, np.int32)
    # Without such waits both clocks are one.
    known = n_units if early else 0
    width = known + n_units
    saved = np.empty((16, width), np.int32)
    free = np.arange(16)
    n_free = 16
    clock = np.full((n_units, width), -1, np.int32)
    writer = np.full(owner.shape[0], -1, np.int32)
    last = _last_writes(instructions, first, rectangles, owner.shape[0])
    readers = np.full((owner.shape[0], keep), -1, np.int32)
    shared = segments.shape[0] if n_segments else 0
    tenant = np.full(n_segments, -1, np.int32)
    retired = np.full((n_segments, n_units), -1, np.int32)
    latest = np.full((shared, n_units), -1, np.int32)
    pending = np.full((shared, n_units), -1, np.int32)
    epoch = np.full(segments.shape[0], -1, np.int64)
    if shared:
        for s in range(shared):
            if segments[s, 0] < segments[s, 1]:
                epoch[s] = -2
    blame = np.zeros(1, np.int64)
    count = 0
    for i in range(n):
        u = unit[i]
        own = clock[u]
        for c in range(DEPENDENCY, DEPENDENCY + 3):
            d = instructions[i, c]
            if d < 0:
                continue
            v = unit[d]
            only_issued = instructions[i, FLAGS] & (early << (c - DEPENDENCY)) != 0
            if own[known + v if only_issued else v] < d:
                before = saved[row[d]]
                for x in range(width):
                    if before[x] > own[x]:
                        own[x] = before[x]
                own[known + v] = max(own[known + v], d)
                if not only_issued:
                    own[v] = d
            if last_use[d] == i and row[d] >= 0:
                free[n_free] = row[d]
                n_free += 1
                row[d] = -1
        if last_use[i] > i:
            if n_free == 0:
                size = saved.shape[0]
                grown = np.empty((2 * size, width), np.int32)
                grown[:size] = saved
                saved = grown
                free = np.arange(size, 3 * size)
                n_free = size
            n_free -= 1
            row[i] = free[n_free]
            saved[row[i]] = own
        updates = (
            instructions[i, OPCODE] == matmul or instructions[i, OPCODE] == pim
        ) and instructions[i, FLAGS] & accumulate != 0
        reported = False
        for slot in (1, 2, 3, 4, 0):
            # Slot 4 is the read of what an accumulating product adds to.
            if slot == 4 and not updates:
                continue
            d = instructions[i, DST + slot % 4]
            if d < 0 or first[d] == first[d + 1]:
                continue
            s = operands[d, D_STORAGE]
            if epoch[s] == -2:
                _enter(i, s, segments, tenant, retired, latest, pending, epoch)
            if slot:
                late = slot == 4 or (slot == 2 and instructions[i, FLAGS] & forward != 0)
                what = _read(
                    i, s, u, late, own, known, unit, instructions, first[d], first[d + 1],
                    rectangles, owner, writer, readers, last, epoch[s], blame,
                )  # fmt: skip
            else:
                what = _write(
                    i, s, u, own, known, unit, first[d], first[d + 1], rectangles, owner, writer,
                    readers, blame,
                )  # fmt: skip
                if epoch[s] > -1 and what == 0:
                    for x in range(n_units):
                        if x != u and pending[s, x] > own[x]:
                            what = UNDECIDED
            if shared:
                latest[s, u] = i
            if what and not reported:
                reported = True
                found[count, 0], found[count, 1] = what, i
                found[count, 2], found[count, 3] = slot % 4, blame[0]
                count += 1
                if count == found.shape[0]:
                    return count
    return count


@njit
def _dependents(
    instructions: NDArray[np.int64],
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The unit of every instruction, and the last instruction that waits for it (-1: none)."""
    n = instructions.shape[0]
    unit = np.empty(n, np.int32)
    last_use = np.full(n, -1, np.int32)
    for i in range(n):
        unit[i] = instructions[i, UNIT]
        for c in range(DEPENDENCY, DEPENDENCY + 3):
            if instructions[i, c] >= 0:
                last_use[instructions[i, c]] = i
    return unit, last_use


@njit
def _last_writes(
    instructions: NDArray[np.int64],
    first: NDArray[np.int64],
    rectangles: NDArray[np.int64],
    cells: int,
) -> NDArray[np.int32]:
    """The last instruction that writes each cell, -1 if none does."""
    last = np.full(cells, -1, np.int32)
    for i in range(instructions.shape[0]):
        d = instructions[i, DST]
        if d < 0:
            continue
        for q in range(first[d], first[d + 1]):
            for line in range(rectangles[q, R_LINES]):
                start = rectangles[q, R_CELL] + line * rectangles[q, R_STEP]
                last[start : start + rectangles[q, R_WIDTH]] = i
    return last


@njit
def _enter(
    i: int,
    s: int,
    segments: NDArray[np.int64],
    tenant: NDArray[np.int32],
    retired: NDArray[np.int32],
    latest: NDArray[np.int32],
    pending: NDArray[np.int32],
    epoch: NDArray[np.int64],
) -> None:
    """Storage s takes over its addresses: earlier tenants leave, their accesses become pending."""
    n_units = retired.shape[1]
    epoch[s] = -1
    for g in range(segments[s, 0], segments[s, 1]):
        t = tenant[g]
        if t >= 0:
            epoch[t] = -2
            for h in range(segments[t, 0], segments[t, 1]):
                tenant[h] = -1
                for x in range(n_units):
                    retired[h, x] = max(retired[h, x], latest[t, x])
        for x in range(n_units):
            if retired[g, x] >= 0:
                epoch[s] = i
                pending[s, x] = max(pending[s, x], retired[g, x])
    for g in range(segments[s, 0], segments[s, 1]):
        tenant[g] = s


@njit
def _read(
    i: int,
    s: int,
    u: int,
    late: bool,
    own: NDArray[np.int32],
    known: int,
    unit: NDArray[np.int32],
    instructions: NDArray[np.int64],
    begin: int,
    end: int,
    rectangles: NDArray[np.int64],
    owner: NDArray[np.int32],
    writer: NDArray[np.int32],
    readers: NDArray[np.int32],
    last: NDArray[np.int32],
    epoch: int,
    blame: NDArray[np.int64],
) -> int:
    """Read cells through storage s: what is wrong (0: nothing), with the culprit in ``blame``.

    ``late``: the unit's own pipeline hands on what instructions of this opcode wrote.
    """
    keep = readers.shape[1]
    what = 0
    for q in range(begin, end):
        for line in range(rectangles[q, R_LINES]):
            start = rectangles[q, R_CELL] + line * rectangles[q, R_STEP]
            for cell in range(start, start + rectangles[q, R_WIDTH]):
                w = writer[cell]
                if owner[cell] != s:
                    blame[0] = w
                    what = NEVER_WRITTEN if owner[cell] < 0 else OVERWRITTEN
                elif w < epoch:
                    what = UNDECIDED
                elif (
                    w >= 0
                    and own[unit[w]] < w
                    and not (
                        late and unit[w] == u and instructions[w, OPCODE] == instructions[i, OPCODE]
                    )
                ):
                    blame[0] = w
                    what = READ_EARLY
                if last[cell] < i:
                    continue
                # A reader that this one comes after need not be remembered: who waits for this
                # one waits for it. One entry per unit and kind, so there are never more than these:
                # that a younger reader was issued does not say that an older, late one is through.
                place, mark = -1, 1 if late and known else 0
                for x in range(keep):
                    r = readers[cell, x] >> 1
                    if r < 0 or (unit[r] == u and readers[cell, x] & 1 == mark):
                        if r >= 0 or place < 0:
                            place = x
                        break
                    if place < 0 and _has_read(readers[cell, x], own, known, unit):
                        place = x
                if place < 0:
                    what = UNDECIDED
                else:
                    readers[cell, place] = 2 * i + mark
    return what


@njit
def _write(
    i: int,
    s: int,
    u: int,
    own: NDArray[np.int32],
    known: int,
    unit: NDArray[np.int32],
    begin: int,
    end: int,
    rectangles: NDArray[np.int64],
    owner: NDArray[np.int32],
    writer: NDArray[np.int32],
    readers: NDArray[np.int32],
    blame: NDArray[np.int64],
) -> int:
    """Write cells through storage s: what is wrong (0: nothing), with the culprit in ``blame``."""
    keep = readers.shape[1]
    what = 0
    for q in range(begin, end):
        for line in range(rectangles[q, R_LINES]):
            start = rectangles[q, R_CELL] + line * rectangles[q, R_STEP]
            for cell in range(start, start + rectangles[q, R_WIDTH]):
                w = writer[cell]
                if w >= 0 and unit[w] != u and own[unit[w]] < w:
                    blame[0] = w
                    what = OVERTAKES_WRITE
                for x in range(keep):
                    r = readers[cell, x] >> 1
                    if r < 0:
                        break
                    if unit[r] != u and not _has_read(readers[cell, x], own, known, unit):
                        blame[0] = r
                        what = OVERTAKES_READ
                    readers[cell, x] = -1
                writer[cell] = i
                owner[cell] = s
    return what


@njit
def _has_read(reader: int, own: NDArray[np.int32], known: int, unit: NDArray[np.int32]) -> bool:
    """Whether a remembered reader is known to have read: issued, or finished if it reads late."""
    r = reader >> 1
    return bool(own[unit[r] + (0 if reader & 1 else known)] >= r)
