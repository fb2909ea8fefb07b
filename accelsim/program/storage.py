"""Storages and the 2-D windows through which instructions see them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from accelsim.encoding.encodings import CODED, CodedForm
from accelsim.errors import AccelsimError
from accelsim.numerics.formats import FORMAT_CODES, Format, row_bytes


class Storage:
    """An extent of an address space with the hazards that the builder tracks on it.

    Hazards are kept per unit, because units retire in order: the latest writer on a unit stands
    for all earlier ones. ``writers`` and ``readers`` belong to the current contents; ``pending``
    are the accesses to what lay here before, which the first write must wait for. ``after`` are
    earlier storages at this place whose accesses join them at the first write, not before: they
    may still be in use when this one is registered. ``settled`` are the units that have waited for
    all that is pending.
    """

    __slots__ = (
        "after", "base", "index", "name", "nbytes", "newest",
        "parts", "pending", "readers", "settled", "space", "writers",
    )  # fmt: skip

    def __init__(self, index: int, name: str, space: int, base: int, nbytes: int) -> None:
        self.index = index
        self.name = name
        self.space = space
        self.base = base
        self.nbytes = nbytes
        self.after: tuple[Storage, ...] = ()
        self.pending: dict[int, int] = {}
        self.settled: set[int] = set()
        self.writers: dict[int, int] = {}
        self.readers: dict[int, int] = {}
        self.parts: set[int] = set()  # units that wrote only parts of the current contents
        self.newest = -1  # the latest instruction in any of these

    def renew(self) -> Self:
        """Forget the contents: what touched them becomes what the next write waits for."""
        if self.writers or self.readers:
            for hazard in (self.writers, self.readers):
                merge_latest(self.pending, hazard)
                hazard.clear()
            self.parts.clear()
            self.settled.clear()
        return self

    def inherit(self) -> None:
        """Make every access to the storages that lay here before one that the next write awaits."""
        # Not recursive: buffers that nobody wrote pass on the ones before them, in long chains;
        # what lay elsewhere in such a buffer is no matter of this one.
        start, stop = self.base, self.base + self.nbytes
        waiting, known = list(self.after), {self.index}
        while waiting:
            earlier = waiting.pop()
            if earlier.index in known:
                continue
            known.add(earlier.index)
            if earlier.base >= stop or earlier.base + earlier.nbytes <= start:
                continue
            waiting.extend(earlier.after)
            for hazard in (earlier.pending, earlier.writers, earlier.readers):
                merge_latest(self.pending, hazard)
            self.newest = max(self.newest, earlier.newest)
        self.after = ()
        self.settled.clear()

    def hazards(self, unit: int, part: bool, readers: bool) -> list[tuple[int, int]]:
        """(unit, instruction) of all that a write by ``unit`` must come after, itself included.

        ``part``: other units may write other parts at the same time. ``readers``: those of the
        current contents count as well.
        """
        found: list[tuple[int, int]] = []
        if unit not in self.settled:
            self.settled.add(unit)
            found += self.pending.items()
        if not part:
            found += self.writers.items()
        elif not self.parts.issuperset(self.writers):
            found += [one for one in self.writers.items() if one[0] not in self.parts]
        if readers:
            found += self.readers.items()
        return found

    def view(
        self, rows: int, cols: int, fmt: Format, *, offset: int = 0, stride: int | None = None
    ) -> View:
        """A [rows, cols] window ``offset`` bytes in, rows ``stride`` bytes apart or packed."""
        stride = row_bytes(cols, fmt) if stride is None else stride
        return View(self, self.base + offset, rows, cols, stride, fmt)


def merge_latest(into: dict[int, int], other: dict[int, int]) -> None:
    """Keep, per unit, the latest instruction of both."""
    for unit, instruction in other.items():
        if into.get(unit, -1) < instruction:
            into[unit] = instruction


class View:
    """A [rows, cols] window of a storage; slicing gives smaller windows of the same storage."""

    __slots__ = ("base", "cols", "fmt", "operand", "rows", "storage", "stride")

    def __init__(
        self, storage: Storage, base: int, rows: int, cols: int, stride: int, fmt: Format
    ) -> None:
        self.storage = storage
        self.base = base
        self.rows = rows
        self.cols = cols
        self.stride = stride
        self.fmt = fmt
        self.operand = -1  # descriptor index, given by the builder on first use

    @property
    def nbytes(self) -> int:
        """Payload bytes (gaps between rows not counted)."""
        return self.rows * row_bytes(self.cols, self.fmt)

    def __getitem__(self, window: tuple[slice, slice]) -> View:
        """``view[r0:r1, c0:c1]``; bounds beyond the edge are cut, as numpy does."""
        rows, cols = window
        r0, r1, _ = rows.indices(self.rows)
        c0, c1, _ = cols.indices(self.cols)
        height, width = r1 - r0, c1 - c0
        if height == self.rows and width == self.cols:
            return self
        if height <= 0 or width <= 0:
            raise AccelsimError(
                f"empty window of {self.storage.name}: rows {r0}:{r1}, columns {c0}:{c1}"
            )
        base = self.base + r0 * self.stride + row_bytes(c0, self.fmt)
        return View(self.storage, base, height, width, self.stride, self.fmt)

    def like(self, other: View) -> View:
        """This window as ``other`` has it: a row whose elements lie apart there is a column."""
        if self.rows == 1 and other.cols == 1 and other.rows == self.cols:
            step = row_bytes(1, self.fmt)
            return View(self.storage, self.base, self.cols, 1, step, self.fmt)
        return self

    def row(self) -> tuple[int, ...]:
        """The operand-descriptor row of this window (see table.OPERAND_COLUMNS)."""
        return (
            self.storage.index,
            self.storage.space,
            self.base,
            self.rows,
            row_bytes(self.cols, self.fmt),
            self.stride,
            FORMAT_CODES[self.fmt.name],
        )


@dataclass(frozen=True)
class Use:
    """The last row of a unit that writes a storage, or reads it."""

    storage: Storage
    unit: int
    last: int
    writes: bool


class CodedView(View):
    """A run of ``nbytes`` coded bytes, seen as the dense window that it decodes to.

    ``number`` is the place of its form among the program's forms. It has no smaller windows.
    """

    __slots__ = ("coded_bytes", "form", "number")

    def __init__(
        self, storage: Storage, base: int, nbytes: int, form: CodedForm, number: int
    ) -> None:
        super().__init__(storage, base, form.rows, form.cols, nbytes, form.fmt)
        self.coded_bytes = nbytes
        self.form = form
        self.number = number

    @property
    def nbytes(self) -> int:
        return self.coded_bytes

    def __getitem__(self, window: tuple[slice, slice]) -> View:
        r0, r1, _ = window[0].indices(self.rows)
        c0, c1, _ = window[1].indices(self.cols)
        if (r0, c0, r1, c1) != (0, 0, self.rows, self.cols):
            raise AccelsimError(
                f"rows {r0}:{r1}, columns {c0}:{c1} of {self.storage.name}, whose tile of"
                f" [{self.rows}, {self.cols}] is coded ({self.form.encoding}): only whole tiles are"
                " operands"
            )
        return self

    def row(self) -> tuple[int, ...]:
        nbytes = self.coded_bytes
        place = self.storage.index, self.storage.space, self.base
        return (*place, 1, nbytes, nbytes, CODED + self.number)


Piece = tuple[slice, slice, View]
"""Rows and columns of a window, and where they lie."""


def wrote(storage: Storage, unit: int, instruction: int, part: bool) -> None:
    """Note a write; a unit counts as a sibling only as long as it wrote nothing but parts."""
    if not part:
        storage.parts.discard(unit)
    elif unit not in storage.writers:
        storage.parts.add(unit)
    storage.writers[unit] = instruction
    storage.newest = instruction


def whole(view: View) -> list[Piece]:
    """A window that lies row by row is one piece."""
    return [(slice(0, view.rows), slice(0, view.cols), view)]


def same_shape(dst: View, src: View) -> None:
    if (dst.rows, dst.cols) != (src.rows, src.cols):
        raise AccelsimError(
            f"copy of [{src.rows}, {src.cols}] from {src.storage.name} into"
            f" [{dst.rows}, {dst.cols}] of {dst.storage.name}"
        )
