"""Compiled construction of cells: the finest pieces of memory that instructions tell apart.

Within one group of bytes (a storage, or storages that share addresses) every window is a set of
rectangles in rows of one pitch. Cutting the group at all their edges gives cells that lie wholly
inside or wholly outside of every window, so one state per cell is exact for each of its bytes.
"""

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit

# Columns of windows; a window of group -1 is not tracked.
GROUP, OFFSET, ROWS, ROW_BYTES, STRIDE = range(5)
# Columns of operand descriptors (see structure_kernels).
D_STORAGE, D_BASE, D_ROWS, D_ROW_BYTES, D_STRIDE = 0, 2, 3, 4, 5
# Columns of the storage table (see extents.py).
S_SPACE, S_BASE, S_BYTES, S_INITIAL = 0, 1, 2, 5
# Columns of instructions.
FLAGS, OPERATOR, DST = 3, 4, 11
# Columns of grids: one per group.
PITCH, CELL, HEIGHT, WIDTH, CUT = range(5)
ONE_ROW = 1 << 62  # a pitch that no offset reaches: bytes in one line
# Columns of rectangles in cells; ``lines`` of ``width`` cells, ``step`` apart.
R_CELL, R_LINES, R_WIDTH, R_STEP = range(4)


@njit
def written_storages(
    instructions: NDArray[np.int64], operands: NDArray[np.int64], n_storages: int
) -> NDArray[np.int64]:
    """1 for every storage that some instruction writes."""
    written = np.zeros(n_storages, np.int64)
    for i in range(instructions.shape[0]):
        if instructions[i, DST] >= 0:
            written[operands[instructions[i, DST], D_STORAGE]] = 1
    return written


@njit
def find_neighbours(
    storages: NDArray[np.int64],
    order: NDArray[np.int64],
    component: NDArray[np.int64],
    origin: NDArray[np.int64],
    segments: NDArray[np.int64],
    clash: NDArray[np.int64],
) -> tuple[int, int]:
    """Which storages share addresses; return the numbers of components and of segments.

    ``order`` sorts the storages by space and base. Storages that overlap, directly or through
    others, are one ``component`` with the first address ``origin``; its extents cut it into
    segments, numbered through all components, and storage s covers those from ``segments[s, 0]``
    up to ``segments[s, 1]`` (none if it is alone). ``clash`` receives two storages that hold data
    from the start at a common address.
    """
    count, n_segments, k = 0, 0, 0
    while k < order.shape[0]:
        s = order[k]
        space, start = storages[s, S_SPACE], storages[s, S_BASE]
        end, initial_end, initial = start, -1, -1
        j = k
        while j < order.shape[0]:
            t = order[j]
            if storages[t, S_SPACE] != space or (j > k and storages[t, S_BASE] >= end):
                break
            t_end = storages[t, S_BASE] + storages[t, S_BYTES]
            if storages[t, S_INITIAL]:
                if storages[t, S_BASE] < initial_end:
                    clash[0], clash[1] = initial, t
                if t_end > initial_end:
                    initial_end, initial = t_end, t
            end = max(end, t_end)
            component[t], origin[t] = count, start
            segments[t, 0], segments[t, 1] = 0, 0
            j += 1
        if j - k > 1:
            edges = np.empty(2 * (j - k), np.int64)
            for x in range(k, j):
                t = order[x]
                edges[2 * (x - k)] = storages[t, S_BASE]
                edges[2 * (x - k) + 1] = storages[t, S_BASE] + storages[t, S_BYTES]
            ranks = np.empty(2 * (j - k), np.int64)
            cuts = np.empty(2 * (j - k), np.int64)
            n_cuts = _rank(edges, ranks, cuts)
            for x in range(k, j):
                t = order[x]
                segments[t, 0] = n_segments + ranks[2 * (x - k)]
                segments[t, 1] = n_segments + ranks[2 * (x - k) + 1]
            n_segments += n_cuts - 1
        count += 1
        k = j
    return count, n_segments


@njit
def place_windows(
    operands: NDArray[np.int64],
    verdicts: NDArray[np.int64],
    group: NDArray[np.int64],
    origin: NDArray[np.int64],
    extra: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Operand descriptors as windows of the groups of their storages, ``extra`` ones behind."""
    n = operands.shape[0]
    windows = np.empty((n + extra.shape[0], 5), np.int64)
    for d in range(n):
        windows[d, GROUP] = -1
        s = operands[d, D_STORAGE]
        if verdicts[d] == 0 and group[s] >= 0:
            windows[d, GROUP] = group[s]
            windows[d, OFFSET] = operands[d, D_BASE] - origin[s]
            windows[d, ROWS] = operands[d, D_ROWS]
            windows[d, ROW_BYTES] = operands[d, D_ROW_BYTES]
            windows[d, STRIDE] = operands[d, D_STRIDE]
    windows[n:] = extra
    return windows


@njit
def build_cells(
    windows: NDArray[np.int64], n_groups: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], int]:
    """Cut groups into cells; return (first, rectangles, grids, cuts, number of cells).

    Window w covers ``rectangles[first[w] : first[w + 1]]``. ``grids[g]`` says how group g is cut:
    its pitch, first cell, cells down and across, and where its row cuts begin in ``cuts`` (height
    + 1 row numbers, then width + 1 byte columns).
    """
    pitch = _pitches(windows, n_groups)
    n = windows.shape[0]
    first = np.zeros(n + 1, np.int64)
    nothing = np.empty((0, 4), np.int64)
    per_group = np.zeros(n_groups + 1, np.int64)
    for w in range(n):
        first[w + 1] = first[w]
        if windows[w, GROUP] >= 0:
            first[w + 1] = _cover(windows[w], pitch[windows[w, GROUP]], nothing, first[w])
            per_group[windows[w, GROUP] + 1] += first[w + 1] - first[w]
    total = first[n]
    edges = np.empty((total, 4), np.int64)
    for w in range(n):
        if windows[w, GROUP] >= 0:
            _cover(windows[w], pitch[windows[w, GROUP]], edges, first[w])
    for g in range(n_groups):
        per_group[g + 1] += per_group[g]
    members = np.empty(total, np.int64)
    place = per_group.copy()
    for w in range(n):
        for q in range(first[w], first[w + 1]):
            members[place[windows[w, GROUP]]] = q
            place[windows[w, GROUP]] += 1
    grids = np.zeros((n_groups, 5), np.int64)
    cuts = np.empty(4 * total, np.int64)
    cells, at = 0, 0
    for g in range(n_groups):
        own = members[per_group[g] : per_group[g + 1]]
        if own.shape[0]:
            height = _cut(edges, own, 0, cuts[at:]) - 1
            width = _cut(edges, own, 2, cuts[at + height + 1 :]) - 1
            grids[g, PITCH], grids[g, CELL], grids[g, CUT] = pitch[g], cells, at
            grids[g, HEIGHT], grids[g, WIDTH] = height, width
            for q in own:
                top, bottom, left, right = edges[q, 0], edges[q, 1], edges[q, 2], edges[q, 3]
                edges[q, R_CELL] = cells + top * width + left
                edges[q, R_LINES] = bottom - top
                edges[q, R_WIDTH] = right - left
                edges[q, R_STEP] = width
            cells += height * width
            at += height + width + 2
    return first, edges, grids, cuts[:at].copy(), cells


@njit
def _pitches(windows: NDArray[np.int64], n_groups: int) -> NDArray[np.int64]:
    """The stride that most rows of a group have (majority vote), ONE_ROW if none is strided."""
    pitch = np.full(n_groups, ONE_ROW, np.int64)
    lead = np.zeros(n_groups, np.int64)
    for w in range(windows.shape[0]):
        g = windows[w, GROUP]
        if g >= 0 and windows[w, ROWS] > 1 and windows[w, STRIDE] > windows[w, ROW_BYTES]:
            if windows[w, STRIDE] == pitch[g]:
                lead[g] += windows[w, ROWS]
            elif lead[g] < windows[w, ROWS]:
                pitch[g] = windows[w, STRIDE]
                lead[g] = windows[w, ROWS] - lead[g]
            else:
                lead[g] -= windows[w, ROWS]
    return pitch


@njit
def _cover(window: NDArray[np.int64], pitch: int, edges: NDArray[np.int64], at: int) -> int:
    """Write the (top, bottom, left, right) rectangles of a window from ``at``; return the end.

    Without room in ``edges`` it only counts.
    """
    offset, rows, row_bytes, stride = (
        window[OFFSET], window[ROWS], window[ROW_BYTES], window[STRIDE],
    )  # fmt: skip
    if rows == 1 or stride == row_bytes:
        return _span(offset, rows * row_bytes, pitch, edges, at)
    if stride == pitch and row_bytes <= pitch:
        top, left = offset // pitch, offset % pitch
        if left + row_bytes <= pitch:
            return _put(edges, at, top, top + rows, left, left + row_bytes)
        at = _put(edges, at, top, top + rows, left, pitch)
        return _put(edges, at, top + 1, top + 1 + rows, 0, left + row_bytes - pitch)
    for r in range(rows):
        at = _span(offset + r * stride, row_bytes, pitch, edges, at)
    return at


@njit
def _span(offset: int, length: int, pitch: int, edges: NDArray[np.int64], at: int) -> int:
    """Contiguous bytes: a partial row, whole rows, a partial row."""
    top, left = offset // pitch, offset % pitch
    if left + length <= pitch:
        return _put(edges, at, top, top + 1, left, left + length)
    if left:
        at = _put(edges, at, top, top + 1, left, pitch)
        length -= pitch - left
        top += 1
    whole, rest = length // pitch, length % pitch
    if whole:
        at = _put(edges, at, top, top + whole, 0, pitch)
    if rest:
        at = _put(edges, at, top + whole, top + whole + 1, 0, rest)
    return at


@njit
def _put(edges: NDArray[np.int64], at: int, top: int, bottom: int, left: int, right: int) -> int:
    if at < edges.shape[0]:
        edges[at, 0], edges[at, 1], edges[at, 2], edges[at, 3] = top, bottom, left, right
    return at + 1


@njit
def _cut(
    edges: NDArray[np.int64], own: NDArray[np.int64], column: int, cuts: NDArray[np.int64]
) -> int:
    """Replace two edge columns by their ranks among the distinct values; return how many cuts."""
    values = np.empty(2 * own.shape[0], np.int64)
    for x in range(own.shape[0]):
        values[2 * x] = edges[own[x], column]
        values[2 * x + 1] = edges[own[x], column + 1]
    ranks = np.empty(values.shape[0], np.int64)
    count = _rank(values, ranks, cuts)
    for x in range(own.shape[0]):
        edges[own[x], column] = ranks[2 * x]
        edges[own[x], column + 1] = ranks[2 * x + 1]
    return count


@njit
def _rank(values: NDArray[np.int64], ranks: NDArray[np.int64], cuts: NDArray[np.int64]) -> int:
    """Distinct values in order into ``cuts``, their positions into ``ranks``; return how many."""
    low, high = values.min(), values.max()
    count = 0
    if high - low <= 8 * values.shape[0] + 64:
        seen = np.zeros(high - low + 1, np.int64)
        for v in values:
            seen[v - low] = 1
        for v in range(low, high + 1):
            if seen[v - low]:
                cuts[count] = v
                seen[v - low] = count
                count += 1
        for x in range(values.shape[0]):
            ranks[x] = seen[values[x] - low]
        return count
    ordered = values.copy()
    _sort(ordered)
    for v in ordered:
        if count == 0 or cuts[count - 1] != v:
            cuts[count] = v
            count += 1
    for x in range(values.shape[0]):
        first, last = 0, count - 1
        while first < last:
            middle = (first + last) >> 1
            if cuts[middle] < values[x]:
                first = middle + 1
            else:
                last = middle
        ranks[x] = first
    return count


@njit
def _sort(values: NDArray[np.int64]) -> None:
    """Shell sort in place: numba's own sort takes ten times longer to compile than this room."""
    gap = 1
    while gap < values.shape[0] // 3:
        gap = 3 * gap + 1
    while gap > 0:
        for x in range(gap, values.shape[0]):
            v = values[x]
            y = x
            while y >= gap and values[y - gap] > v:
                values[y] = values[y - gap]
                y -= gap
            values[y] = v
        gap //= 3


@njit
def paint(
    first: NDArray[np.int64],
    rectangles: NDArray[np.int64],
    windows: NDArray[np.int64],
    values: NDArray[np.int64],
    cells: NDArray[np.int32],
) -> None:
    """Set the cells of every listed window to its value."""
    for x in range(windows.shape[0]):
        for q in range(first[windows[x]], first[windows[x] + 1]):
            for line in range(rectangles[q, R_LINES]):
                cell = rectangles[q, R_CELL] + line * rectangles[q, R_STEP]
                cells[cell : cell + rectangles[q, R_WIDTH]] = values[x]


@njit
def count_writes(
    instructions: NDArray[np.int64],
    operands: NDArray[np.int64],
    producers: NDArray[np.int64],
    accumulate: int,
    first: NDArray[np.int64],
    rectangles: NDArray[np.int64],
    due: NDArray[np.int32],
    found: NDArray[np.int64],
) -> int:
    """Whether every due cell is written once by its producer; return the number of faults.

    ``producers[s]`` is the operator that writes storage s, -1 if none may, -2 if it is not
    checked. ``due`` is 1 where something must be written, else 0. ``accumulate`` is the flag of
    instructions that update what is there. A fault is (what, instruction, other, cell): 0 written
    by another operator, 1 not due, 2 written twice, 3 never written.

    State: ``writer[cell]`` is the instruction that wrote the cell, -1 before.
    """
    writer = np.full(due.shape[0], -1, np.int32)
    count = 0
    for i in range(instructions.shape[0]):
        d = instructions[i, DST]
        if d < 0 or instructions[i, FLAGS] & accumulate:
            continue
        s = operands[d, D_STORAGE]
        if producers[s] == -2:
            continue
        what, other, where = -1, -1, -1
        if instructions[i, OPERATOR] != producers[s]:
            what = 0
        for q in range(first[d], first[d + 1]):
            for line in range(rectangles[q, R_LINES]):
                start = rectangles[q, R_CELL] + line * rectangles[q, R_STEP]
                for cell in range(start, start + rectangles[q, R_WIDTH]):
                    if what < 0 and (due[cell] == 0 or writer[cell] >= 0):
                        what = 1 if due[cell] == 0 else 2
                        other, where = writer[cell], cell
                    writer[cell] = i
        if what >= 0:
            found[count, 0], found[count, 1], found[count, 2], found[count, 3] = (
                what, i, other, where,
            )  # fmt: skip
            count += 1
            if count == found.shape[0]:
                return count
    for cell in range(due.shape[0]):
        if due[cell] and writer[cell] < 0:
            found[count, 0], found[count, 1], found[count, 2], found[count, 3] = 3, -1, -1, cell
            count += 1
            if count == found.shape[0]:
                return count
    return count
