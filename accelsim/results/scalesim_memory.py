"""What SCALE-Sim's memories do in CALC mode: prefetch epochs and ofmap drains.

An operand SRAM is split into 100 sets of floor(bytes / 100) words (a word is one byte); half of
them are the active buffer. Words are fetched in the order of demand, and when the active buffer is
full all of it is forgotten: an *epoch* ends. So an operand that is smaller than an epoch is read
once from DRAM, and one that is not is read again on every pass. The first epoch is prefetched at
10 words per cycle, every later one while the epoch before it is in use.

The ofmap SRAM drains its half, C words a cycle, when it is full. Lines of C words are cut at every
drain; SCALE-Sim counts the unused slots of a cut line as written unless the drain ends with it, and
so does this.

GEMM operands are counted in closed form. The windows of a convolution overlap, so its ifmap is
walked word by word where it does not fit.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from accelsim.results.scalesim_demand import Layer, Tile

SETS, ACTIVE_SETS = 100, 50
FIRST_PREFETCH_WORDS_PER_CYCLE = 10
MOST_DRAINS = 100_000
"""Beyond this many drains only their sum is known: slots of cut lines are then not counted."""

Tiles = Callable[[int], Tile]


@dataclass(frozen=True)
class Access:
    """Words that moved, and the first and last cycle (negative before the array starts)."""

    start: int
    stop: int
    words: float

    @property
    def words_per_cycle(self) -> float:
        return self.words / (self.stop - self.start + 1)


@dataclass(frozen=True)
class Misses:
    """Words read from DRAM, and the cycle in which the last epoch filled up (None: never)."""

    words: int
    flushed_at: int | None = None


def epoch_words(capacity: int) -> int:
    """Words of an SRAM's active buffer."""
    return ACTIVE_SETS * (capacity // SETS)


def prefetches(misses: Misses, capacity: int, first_request: int) -> Access:
    """DRAM reads of an operand; the first epoch is there when the array first asks for it."""
    if misses.flushed_at is None:
        set_words = capacity // SETS
        filled = -(-misses.words // set_words) * set_words
        return Access(-filled // FIRST_PREFETCH_WORDS_PER_CYCLE, -1, misses.words)
    lead = -epoch_words(capacity) // FIRST_PREFETCH_WORDS_PER_CYCLE
    return Access(first_request + lead, misses.flushed_at + 1, misses.words)


def swept_along_rows(layer: Layer, epoch: int) -> Misses:
    """The operand along the rows: all of it once per column fold."""
    along_rows, _, time = layer.mapped
    return _sweeps(
        layer,
        epoch,
        time * along_rows,
        layer.along_rows,
        lambda fold: time * min(fold * layer.rows, along_rows),
    )


def loaded_once(layer: Layer, epoch: int) -> Misses:
    """The stationary operand (ws, is): every word once."""
    along_rows, along_cols, _ = layer.mapped

    def before(fold: int) -> int:
        col, row = divmod(fold, layer.row_folds)
        done = min(col * layer.cols, along_cols)
        width = min(layer.cols, along_cols - done)
        return done * along_rows + width * min(row * layer.rows, along_rows)

    return _sweeps(layer, epoch, along_rows * along_cols, layer.along_columns, before)


def _sweeps(
    layer: Layer, epoch: int, sweep: int, tiles: Tiles, before: Callable[[int], int]
) -> Misses:
    """An operand whose distinct words, ``sweep`` of them, are asked for again in the same order.

    If they fit, the first sweep misses. Otherwise every word of every sweep does: the last epoch's
    worth of words before it never holds it. ``before``: words of a sweep before one of its folds.
    """
    if sweep < epoch:
        return Misses(sweep)
    folds = bisect_left(range(layer.folds), sweep, key=before)
    total = sweep * (layer.folds // folds)
    sweeps, word = divmod(total // epoch * epoch - 1, sweep)
    fold = bisect_left(range(folds), word + 1, key=before) - 1
    cycle = tiles(fold).cycle_of(word + 1 - before(fold))
    return Misses(total, (sweeps * folds + fold) * layer.fold_cycles + cycle)


def held_in_place(layer: Layer, epoch: int) -> Misses:
    """The filter of an os array: its tile is asked for again in every row fold of a column fold.

    A tile smaller than an epoch misses once, and what an epoch's end in the middle of its first
    pass forgets misses once more on the second. A larger tile misses on every pass.
    """
    words, filled, flushed_at = 0, 0, None
    for first in range(0, layer.folds, layer.row_folds):
        tile = layer.along_columns(first)
        size = tile.words
        missing = size if size < epoch else size * layer.row_folds
        if filled + missing < epoch:
            filled, words = filled + missing, words + missing
            continue
        full = (filled + missing) // epoch * epoch - filled  # the word that ends the last epoch
        fold, word = divmod(full - 1, size)
        flushed_at = (first + fold) * layer.fold_cycles + tile.cycle_of(word + 1)
        filled = missing - full
        if size < epoch and layer.row_folds > 1:
            missing, filled = missing + full, size
        words += missing
    return Misses(words, flushed_at)


class _Writes:
    """The sequence of ofmap words of a layer: which cycle the x-th one leaves the array in."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        along_rows, along_cols, time = layer.mapped
        per_column = along_rows if layer.dataflow == "os" else time * layer.row_folds
        self.total = along_cols * per_column
        self._column_fold_words = layer.cols * per_column

    def cycle_of(self, word: int) -> int:
        """The cycle of the ``word``-th word, from 1."""
        col, word = divmod(word - 1, self._column_fold_words)
        first = col * self.layer.row_folds
        row, word = divmod(word, self.layer.ofmap(first).words)
        fold = first + row
        return fold * self.layer.fold_cycles + self.layer.ofmap(fold).cycle_of(word + 1)

    def first_from(self, cycle: int, after: int) -> int:
        """The first word beyond ``after`` that leaves in ``cycle`` or later."""
        words = range(after + 1, self.total + 1)
        return after + 1 + bisect_left(words, cycle, key=self.cycle_of)


class _Lines:
    """Words that wait in the ofmap SRAM, as lines of ``width`` slots: runs of [lines, words]."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.runs: deque[list[int]] = deque()
        self.open_words = 0

    def store(self, words: int) -> None:
        """Append words; only whole lines are closed."""
        full, self.open_words = divmod(self.open_words + words, self.width)
        if full:
            self.runs.append([full, self.width])

    def cut(self) -> None:
        """Close the line that is being filled."""
        if self.open_words:
            self.runs.append([1, self.open_words])
            self.open_words = 0

    def take(self, lines: int) -> tuple[int, int]:
        """Remove the oldest lines: (lines, words that count: only the last line shows gaps)."""
        taken, words = 0, self.width
        while self.runs and taken < lines:
            run = self.runs[0]
            now = min(run[0], lines - taken)
            taken, words = taken + now, run[1]
            run[0] -= now
            if not run[0]:
                self.runs.popleft()
        return taken, taken * self.width - (self.width - words)


def drains(layer: Layer, capacity: int) -> Access:
    """DRAM writes of the ofmap with their first and last cycle."""
    writes = _Writes(layer)
    if writes.total // (capacity - capacity // 2) > MOST_DRAINS:
        return _long_drain(layer, writes, capacity // 2)
    buffer = _OfmapBuffer(layer, capacity)
    due = buffer.due()
    while due <= writes.total:
        if writes.cycle_of(due) < buffer.drained:
            due = writes.first_from(buffer.drained, due)
            if due > writes.total:
                break
        buffer.store(due)
        buffer.drain(writes.cycle_of(due))
        due = buffer.due()
    buffer.store(writes.total)
    cycle = layer.total_cycles
    while buffer.lines.runs:
        cycle = buffer.drain(cycle) + 1
    # The last drain of a full buffer may outlast the rest, which leaves beside it.
    return Access(buffer.start, buffer.stop, buffer.counted)


class _OfmapBuffer:
    """The ofmap SRAM while it fills and drains: words stored, counted as drained, and when."""

    def __init__(self, layer: Layer, capacity: int) -> None:
        self.keep = -(-capacity // 2)
        self.batch = -(-(capacity - self.keep) // layer.cols)
        self.lines = _Lines(layer.cols)
        self.free = capacity
        self.stored = self.counted = 0
        self.start, self.stop, self.drained = -1, 0, 0

    def due(self) -> int:
        """The word that makes the next drain start, if the one before has ended."""
        return self.stored + max(self.free - self.keep + 1, 1)

    def store(self, through: int) -> None:
        """Take in all words up to one, and cut the line that it ends in."""
        self.lines.store(through - self.stored)
        self.lines.cut()
        self.free -= through - self.stored
        self.stored = through

    def drain(self, cycle: int) -> int:
        """Send half a buffer to DRAM, a line per cycle; returns the last of these cycles."""
        taken, words = self.lines.take(self.batch)
        self.start = cycle if self.start < 0 else self.start
        self.drained = cycle + taken - 1
        self.stop = max(self.stop, self.drained)
        self.free += words
        self.counted += words
        return self.drained


def _long_drain(layer: Layer, writes: _Writes, half: int) -> Access:
    """Drains too many to follow: every word once, and half a buffer left at the end."""
    rest = -(-(writes.total % half or half) // layer.cols)
    return Access(writes.cycle_of(half + 1), layer.total_cycles + rest - 1, writes.total)
