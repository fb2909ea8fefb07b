"""The storages of a program as a table: where they lie, what they hold, who must fill them."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from accelsim.numerics.formats import FORMAT_CODES, FORMATS
from accelsim.program.verify.cells import Cells
from accelsim.program.verify.coded import coded_problem
from accelsim.program.verify.layouts import layout_problem
from accelsim.program.verify.violation import Violation

if TYPE_CHECKING:
    from accelsim.program.table import Ints, Program, Region, StorageInfo

# Tensors of these roles hold their data before the program starts.
ENDURING_ROLES = ("input", "weight", "constant", "cache")
NOBODY, UNCHECKED = -1, -2  # who may write a storage, where it is not an operator

Span = tuple[int, int, int, int]  # first byte, lines, bytes of a line, bytes from line to line


@dataclass(frozen=True)
class Extents:
    """The storage table with columns space, base, bytes, format, tensor, initial, producer.

    ``format`` is -1 where none is declared; ``tensor`` is 0 for buffers; ``initial`` is 1 where
    data lie from the start; ``producer`` is the operator that writes it, NOBODY or UNCHECKED.
    ``initial`` and ``due`` list, as (storage, *Span), what is there from the start and what the
    producer must write, ``fresh`` what of the first is nevertheless not there. ``segments`` and
    ``component`` say which storages share addresses (see cell_kernels.find_neighbours); ``clash``
    are two that both claim the start, or (-1, -1). ``updated`` are pairs (old, new) of which the
    new one is written over the old one, window by window, while that is still read: they are cut
    into the same cells.
    """

    table: Ints
    initial: list[tuple[int, ...]]
    due: list[tuple[int, ...]]
    fresh: list[tuple[int, ...]]
    component: Ints
    origin: Ints
    segments: Ints
    n_components: int
    n_segments: int
    clash: tuple[int, int]
    updated: Ints

    @classmethod
    def of(cls, program: Program) -> Extents:
        """Gather the storages of a program."""
        from accelsim.program.verify.cell_kernels import find_neighbours

        rows = []
        initial, due, fresh = (list[tuple[int, ...]]() for _ in range(3))
        for s, info in enumerate(program.storages):
            held, owed = _held_and_owed(info)
            initial += [(s, *span) for span in held]
            due += [(s, *span) for span in owed]
            fresh += [(s, *span) for span in owed if held and info.regions]
            rows.append(_row(info, bool(held)))
        table = np.array(rows, dtype=np.int64).reshape(len(rows), 7)
        order = np.lexsort((table[:, 1], table[:, 0]))
        component, origin = np.zeros((2, len(rows)), dtype=np.int64)
        segments = np.zeros((len(rows), 2), dtype=np.int64)
        clash = np.full(2, -1, dtype=np.int64)
        counts = find_neighbours(table, order, component, origin, segments, clash)
        pair = (int(clash[0]), int(clash[1]))
        updated = _updated(table, component)
        # Their cells tell who overwrites what; nothing else is at these addresses.
        segments[updated.ravel()] = 0
        return cls(table, initial, due, fresh, component, origin, segments, *counts, pair, updated)

    def cells(self, program: Program, verdicts: Ints, *, exact: bool = False) -> Cells:
        """Memory cut into cells, storage by storage.

        ``exact`` cuts storages that share addresses together, so that their cells coincide: the
        last word on hazards between them, but slower.
        """
        from accelsim.program.verify.cell_kernels import written_storages

        written = written_storages(program.instructions, program.operands, len(self.table))
        alone = self.segments[:, 0] == self.segments[:, 1]
        # What is there from the start, never written and shares no byte cannot be in a hazard.
        quiet = alone & (self.table[:, 5] == 1) & (written == 0) & (self.table[:, 6] < 0)
        if exact:
            group, origin, n_groups = self.component, self.origin, self.n_components
        else:
            group, origin = np.arange(len(self.table)), self.table[:, 1]
            n_groups = len(self.table)
            group[self.updated[:, 0]] = self.updated[:, 1]
        quiet[self.updated[:, 0]] = False
        group = np.where(quiet, -1, group)
        known = [*self.initial, *self.fresh]
        spans = np.array([*known, *self.due], dtype=np.int64).reshape(-1, 5)
        s = spans[:, 0]
        offset = self.table[s, 1] - origin[s] + spans[:, 1]
        extra = np.stack([group[s], offset, *spans.T[2:]], axis=1)
        owners = np.where(np.arange(len(known)) < len(self.initial), s[: len(known)], -1)
        return Cells.build(program, verdicts, group, origin, n_groups, extra, owners)


def _updated(table: Ints, component: Ints) -> Ints:
    """Pairs (old, new) of storages of one extent, one there from the start, one made by an
    operator, where nothing else lies."""
    size = np.bincount(component)
    order = np.lexsort((table[:, 6] >= 0, component))
    first, second = order[:-1], order[1:]
    one = (component[first] == component[second]) & (size[component[first]] == 2)
    equal = (table[first, :3] == table[second, :3]).all(axis=1)
    roles = (table[first, 5] == 1) & (table[first, 6] == NOBODY) & (table[second, 6] >= 0)
    pairs: Ints = np.stack([first, second], axis=1)[one & equal & roles]
    return pairs


def storage_violations(program: Program, extents: Extents, limit: int) -> list[Violation]:
    """Storages that do not fit their memory or whose description contradicts itself."""
    found = []
    for info in program.storages:
        problem = _storage_problem(program, info)
        if problem:
            kind, text = problem
            found.append(Violation(kind, f"{_named(program, info)} {text}", storage=info.name))
    if extents.clash[0] >= 0 and not found:
        a, b = (program.storages[s] for s in extents.clash)
        text = f"and {b.name} hold data from the start at the same addresses"
        found.append(Violation("bounds", f"{_named(program, a)} {text}", storage=a.name))
    return found[:limit]


def _row(info: StorageInfo, initial: bool) -> tuple[int, ...]:
    producer = UNCHECKED
    if info.role != "buffer":
        if info.producer >= 0:
            producer = info.producer
        elif info.role in ENDURING_ROLES:
            producer = NOBODY
    code = -1 if info.encoding else FORMAT_CODES.get(info.format, -1)  # coded bytes have none
    tensor = info.role != "buffer"
    return info.space, info.base, info.nbytes, code, tensor, initial, producer


def _named(program: Program, info: StorageInfo) -> str:
    known = 0 <= info.producer < len(program.operators)
    prefix = f"operator {program.operators[info.producer].name!r}: " if known else ""
    return f"{prefix}{info.role} {info.name}"


def _row_bytes(info: StorageInfo) -> int:
    """Bytes of a row of the 2-D form, whose columns are the last axis."""
    if not info.shape or info.format not in FORMATS:
        return info.nbytes
    return info.shape[-1] * FORMATS[info.format].bits // 8


def _packed_bytes(info: StorageInfo) -> int:
    """Bytes that the elements take, without padding behind them."""
    if not info.shape or info.format not in FORMATS or info.encoding:
        return info.nbytes
    return math.prod(info.shape) * FORMATS[info.format].bits // 8


def _held_and_owed(info: StorageInfo) -> tuple[list[Span], list[Span]]:
    """What a storage holds from the start, and what its producer must write."""
    if info.role == "buffer":
        return [], []
    if info.regions:
        return _held_and_owed_regions(info)
    everything = [_line(0, info.nbytes)]
    if info.producer < 0:
        return (everything if info.role in ENDURING_ROLES else []), []
    if info.encoding:
        return [], [_line(tile.offset, tile.nbytes) for tile in info.tiles]
    if not info.written:
        return [], [_line(0, _packed_bytes(info))]
    pitch = _row_bytes(info)
    owed = [_line(a * pitch, (b - a + 1) * pitch) for a, b in sorted(info.written)]
    held, at = [], 0
    for start, _, length, _ in owed:
        if start > at:
            held.append(_line(at, start - at))
        at = start + length
    if at < info.nbytes:
        held.append(_line(at, info.nbytes - at))
    return (held if info.role in ENDURING_ROLES else []), owed


def _line(first: int, nbytes: int) -> Span:
    return first, 1, nbytes, nbytes


def _held_and_owed_regions(info: StorageInfo) -> tuple[list[Span], list[Span]]:
    """The same of a tensor in banks that compute: all of it is there, but for what is written."""
    element = FORMATS[info.format].bits // 8
    whole = [_lines_of(one, element) for one in info.regions]
    if info.producer < 0:
        return (whole if info.role in ENDURING_ROLES else []), []
    if not info.written:
        return [], whole
    starts = [one.row for one in info.regions]
    owed = []
    for first, last in info.written:
        at = max(0, bisect_right(starts, first) - 1)
        while at and starts[at - 1] + info.regions[at - 1].rows > first:
            at -= 1
        while at < len(starts) and starts[at] <= last:
            if part := _rows_of(info.regions[at], first, last + 1):
                owed.append(_lines_of(part, element))
            at += 1
    return (whole if info.role in ENDURING_ROLES else []), owed


def _rows_of(region: Region, first: int, stop: int) -> Region | None:
    """The part of a region in rows first .. stop - 1 of its tensor."""
    top, end = max(first, region.row), min(stop, region.row + region.rows)
    if end <= top:
        return None
    moved = region.offset + (top - region.row) * region.row_step
    return region._replace(row=top, rows=end - top, offset=moved)


def _lines_of(region: Region, element: int) -> Span:
    """A region as lines of neighbouring bytes: its rows, or its columns."""
    if region.col_step == element or region.cols == 1:
        return region.offset, region.rows, region.cols * element, region.row_step
    return region.offset, region.cols, region.rows * element, region.col_step


def _storage_problem(program: Program, info: StorageInfo) -> tuple[str, str] | None:
    if not 0 <= info.space < len(program.spaces):
        return "structure", f"lies in address space {info.space}, which does not exist"
    space = program.spaces[info.space]
    if info.nbytes < 1 or info.base < 0 or info.base + info.nbytes > space.capacity:
        return "bounds", (
            f"at {info.base} with {info.nbytes} bytes is not inside {space.name},"
            f" which has {space.capacity} bytes"
        )
    if info.format and info.format not in FORMATS:
        return "structure", f"has the unknown number format {info.format!r}"
    if problem := layout_problem(info) or coded_problem(info):
        return "layout", problem
    if _packed_bytes(info) > info.nbytes:
        shape = "x".join(map(str, info.shape))
        return "bounds", f"has {info.nbytes} bytes, too few for {shape} {info.format}"
    if info.producer >= len(program.operators):
        return "structure", f"is produced by operator {info.producer}, which does not exist"
    return _written_problem(info)


def _written_problem(info: StorageInfo) -> tuple[str, str] | None:
    rows = _packed_bytes(info) // max(1, _row_bytes(info))
    end = -1
    for first, last in sorted(info.written):
        if not end < first <= last < rows:
            return "structure", (
                f"must be written in rows {first} to {last}, which are not distinct rows"
                f" of its {rows}"
            )
        end = last
    return None
