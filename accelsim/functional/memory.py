"""Address spaces as bytes: only the extents that a program's storages occupy exist.

A space of 32 GiB of which a program uses 3 MiB takes 3 MiB. Storages that overlap or touch share
one segment, so an address means the same byte through whichever storage it is reached.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.encoding.encoding import Bytes
from accelsim.encoding.encodings import CODED, CodedForm, Tile
from accelsim.errors import AccelsimError
from accelsim.numerics.formats import FORMAT_NAMES, FORMATS, Format, number_format, row_bytes
from accelsim.program.table import Ints, Program

Values = npt.NDArray[Any]

# Little-endian 0x7FC0 in every 16 bits: NaN as fp16, bf16, fp32 and fp64, and far outside the
# usual range as int16 and int32, so that a read of bytes nobody wrote shows in the result.
POISON = np.uint16(0x7FC0)

DEFAULT_LIMIT_BYTES = 8 << 30
_ALIGNMENT = 64


class Segments:
    """The used extents of one address space and where each lies in the compact byte array."""

    def __init__(self, extents: Ints) -> None:
        """``extents`` is int64[e, 2]: (first, end) byte addresses, in any order, overlapping."""
        merged: list[list[int]] = []
        for first, end in sorted(extents.tolist()):
            if merged and first <= merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], end)
            else:
                merged.append([first, end])
        self.first = np.array([m[0] for m in merged], dtype=np.int64)
        self.end = np.array([m[1] for m in merged], dtype=np.int64)
        # Segments keep their alignment, so that the halves of the poison stay in phase.
        room = self.end - self.first + self.first % _ALIGNMENT
        room += -room % _ALIGNMENT
        starts = np.concatenate([[0], np.cumsum(room)]).astype(np.int64)
        self.offset = starts[:-1] + self.first % _ALIGNMENT
        self.nbytes = int(starts[-1])

    def locate(self, first: Ints, end: Ints) -> Ints:
        """Compact offset of each byte range [first, end); -1 where it is not inside a segment."""
        if not len(self.first):
            return np.full(len(first), -1, dtype=np.int64)
        i = np.maximum(np.searchsorted(self.first, first, side="right") - 1, 0)
        inside = (first >= self.first[i]) & (end <= self.end[i])
        return np.where(inside, self.offset[i] + first - self.first[i], -1)


class Memory:
    """The bytes of every address space of a program, all poisoned at first.

    Windows are numpy views of stored elements, [rows, cols], one per operand descriptor; of formats
    narrower than a byte they are views of the packed bytes, [rows, row_bytes], of coded operands
    views of the coded bytes, [1, row_bytes].
    """

    def __init__(self, program: Program, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self.program = program
        self._segments = [Segments(_extents(program, s)) for s in range(len(program.spaces))]
        needed = sum(segments.nbytes for segments in self._segments)
        if needed > limit_bytes:
            raise AccelsimError(
                f"a functional run of this program needs {needed / 2**30:.1f} GiB of host memory,"
                f" more than the limit of {limit_bytes / 2**30:.1f} GiB: check a smaller workload"
            )
        self._bytes = [
            np.full(s.nbytes // 2, POISON, dtype="<u2").view(np.uint8) for s in self._segments
        ]
        self._offset = _operand_offsets(program, self._segments).tolist()
        self._rows = program.operands.tolist()
        self._windows: dict[int, Values] = {}

    def format(self, operand: int) -> Format:
        """Number format of the elements of an operand descriptor, of coded bytes as they decode."""
        form = self._form(operand)
        return form.fmt if form else FORMATS[FORMAT_NAMES[self._rows[operand][6]]]

    def _form(self, operand: int) -> CodedForm | None:
        """What a coded operand stands for, None of others."""
        code = self._rows[operand][6]
        return self.program.forms[code - CODED] if code >= CODED else None

    def encoding(self, operand: int) -> str:
        """How an operand is coded, "" if it is not."""
        form = self._form(operand)
        return form.encoding if form else ""

    def window(self, operand: int) -> Values:
        """The stored elements of an operand descriptor as a writable view [rows, cols]."""
        found = self._windows.get(operand)
        if found is None:
            found = self._windows[operand] = self._view(operand)
        return found

    def read(self, operand: int) -> Values:
        """The values of an operand in its format's carrier, a copy [rows, cols]."""
        return self.values(operand, self.window(operand))

    def values(self, operand: int, held: Values) -> Values:
        """What a copy of an operand's window holds, in its format's carrier; coded bytes are
        decoded, and AccelsimError says what is wrong with them."""
        fmt, form = self.format(operand), self._form(operand)
        if form is not None:
            return fmt.decode(form.decode(np.ascontiguousarray(held[0])))
        return fmt.decode(fmt.unpack(held) if fmt.bits % 8 else held)

    def write(self, operand: int, values: Values) -> None:
        """Round carrier values [rows, cols] to the operand's format and store them."""
        fmt, window = self.format(operand), self.window(operand)
        stored = fmt.encode(values)
        if fmt.bits % 8:
            columns = window.shape[1] * 8 // fmt.bits
            stored = fmt.pack(np.broadcast_to(stored, (len(window), columns)))
        window[...] = stored

    def encode(self, operand: int, values: Values) -> None:
        """Store carrier values [rows, cols] as a coded operand, pruned as its encoding says."""
        form = self._form(operand)
        if form is None:
            raise AccelsimError(f"operand {operand} is not coded")
        self.window(operand)[0] = form.encode(form.fmt.encode(values))

    def poison(self, operand: int) -> None:
        """Make the elements of an operand garbage again."""
        window = self.window(operand)
        window[...] = poisoned(window.dtype)

    def fill(self, index: int, values: Values) -> None:
        """Put a tensor's elements, in its shape, where its storage has them."""
        fmt = number_format(self.program.storages[index].format)
        for held, rows, columns in self._regions(index):
            held[...] = values.reshape(-1, values.shape[-1])[rows, columns]
        if self.program.storages[index].regions:
            return
        for held, columns in self._panels(index):
            part = values.reshape(held.shape[0], -1)[:, columns]
            held[...] = fmt.pack(part) if fmt.bits % 8 else part

    def fill_tile(self, index: int, tile: Tile, coded: Bytes) -> None:
        """Put the bytes of one tile of a coded tensor where they lie."""
        if len(coded) != tile.nbytes:
            name = self.program.storages[index].name
            raise AccelsimError(f"a tile of {name} has {len(coded)} bytes, its place {tile.nbytes}")
        self._coded(index, tile)[...] = coded

    def _coded(self, index: int, tile: Tile) -> Bytes:
        """The bytes of a tile, a writable view."""
        info = self.program.storages[index]
        address = np.array([info.base + tile.offset], dtype=np.int64)
        offset = int(self._segments[info.space].locate(address, address + tile.nbytes)[0])
        return self._bytes[info.space][offset : offset + tile.nbytes]

    def tensor(self, index: int) -> Values:
        """A copy of a tensor's elements in its shape, however they are stored."""
        info = self.program.storages[index]
        fmt = number_format(info.format)
        if info.encoding:
            return self._decoded(index)
        if info.regions:
            found = np.empty((int(np.prod(info.shape[:-1])), info.shape[-1]), fmt.storage_dtype)
            for held, rows, columns in self._regions(index):
                found[rows, columns] = held
            return found.reshape(info.shape)
        whole = np.concatenate([held for held, _ in self._panels(index)], axis=1)
        if fmt.bits % 8:
            whole = fmt.unpack(whole)
        return whole.reshape(info.shape or (whole.size,))

    def _decoded(self, index: int) -> Values:
        """A coded tensor's elements in its shape, tile by tile."""
        info = self.program.storages[index]
        fmt = number_format(info.format)
        whole = np.zeros((math.prod(info.shape[:-1]), info.shape[-1]), dtype=fmt.storage_dtype)
        codes = {row[6] for row in self._rows if row[0] == index and row[6] >= CODED}
        down = self.program.forms[min(codes) - CODED].k_rows
        for tile in info.tiles:
            form = CodedForm(info.encoding, info.format, tile.rows, tile.cols, down)
            part = form.decode(np.ascontiguousarray(self._coded(index, tile)))
            whole[tile.row : tile.row + tile.rows, tile.col : tile.col + tile.cols] = part
        return whole.reshape(info.shape)

    def _regions(self, index: int) -> list[tuple[Values, slice, slice]]:
        """(view of the elements, their rows, their columns) of all regions of a tensor."""
        info = self.program.storages[index]
        dtype = number_format(info.format).storage_dtype
        found = []
        for one in info.regions:
            address = np.array([info.base + one.offset], dtype=np.int64)
            offset = int(self._segments[info.space].locate(address, address + 1)[0])
            held: Values = np.ndarray(
                (one.rows, one.cols), dtype, self._bytes[info.space].data, offset,
                (one.row_step, one.col_step),
            )  # fmt: skip
            rows = slice(one.row, one.row + one.rows)
            found.append((held, rows, slice(one.col, one.col + one.cols)))
        return found

    def _panels(self, index: int) -> list[tuple[Values, slice]]:
        """(view [rows, columns of the panel], those columns) of all panels of a tensor; of narrow
        formats the view is of bytes."""
        stored, info = self.storage(index), self.program.storages[index]
        fmt = number_format(info.format)
        # Elements per column of the view: whole bytes of several, if they are narrow.
        share = fmt.bits / 8 if fmt.bits % 8 else 1
        columns = round(stored.shape[-1] / share)
        rows, flat = stored.size // stored.shape[-1], stored.reshape(-1)
        starts = info.panels or (0,)
        return [
            (
                flat[rows * int(first * share) : rows * int(end * share)].reshape(rows, -1),
                slice(first, end),
            )
            for first, end in zip(starts, (*starts[1:], columns), strict=True)
        ]

    def storage(self, index: int) -> Values:
        """The stored elements of a tensor as a writable view in its shape, in the order in which
        they lie: of a tensor in panels, panel by panel; of a narrow format, packed bytes."""
        info = self.program.storages[index]
        fmt = number_format(info.format)
        dtype = np.dtype(np.uint8) if fmt.bits % 8 else fmt.storage_dtype
        shape = info.shape or (info.nbytes * 8 // fmt.bits,)
        if fmt.bits % 8:
            shape = (*shape[:-1], row_bytes(shape[-1], fmt))
        if int(np.prod(shape)) * dtype.itemsize > info.nbytes:
            raise AccelsimError(
                f"storage {info.name} has {info.nbytes} bytes, too few for {info.format} of shape"
                f" {list(shape)}"
            )
        address = np.array([info.base], dtype=np.int64)
        offset = self._segments[info.space].locate(address, address + info.nbytes)
        return np.ndarray(shape, dtype, self._bytes[info.space].data, int(offset[0]))

    def _view(self, operand: int) -> Values:
        _, space, _, rows, width, stride, _ = self._rows[operand]
        fmt, coded = self.format(operand), self._form(operand) is not None
        dtype = np.dtype(np.uint8) if coded or fmt.bits % 8 else fmt.storage_dtype
        shape = (rows, width // dtype.itemsize)
        strides = (stride, dtype.itemsize)
        return np.ndarray(shape, dtype, self._bytes[space].data, self._offset[operand], strides)


def poisoned(dtype: np.dtype[Any]) -> Values:
    """One element whose bytes are the poison pattern, as a scalar array."""
    pattern = np.full(max(dtype.itemsize // 2, 1), POISON, dtype="<u2")
    element: Values = pattern.view(dtype)[0]
    return element


def _extents(program: Program, space: int) -> Ints:
    found = [(s.base, s.base + s.nbytes) for s in program.storages if s.space == space]
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def _operand_offsets(program: Program, segments: list[Segments]) -> Ints:
    """Compact offset of every operand's first byte; refuses one that leaves the storages."""
    first = program.operand_column("base")
    last_row = (program.operand_column("rows") - 1) * program.operand_column("stride")
    low = first + np.minimum(last_row, 0)
    end = first + np.maximum(last_row, 0) + program.operand_column("row_bytes")
    space = program.operand_column("space")
    offset = np.full(len(first), -1, dtype=np.int64)
    for index, used in enumerate(segments):
        here = space == index
        located = used.locate(low[here], end[here])
        offset[here] = np.where(located < 0, -1, located + (first - low)[here])
    if (offset < 0).any():
        i = int(np.argmax(offset < 0))
        name = program.storages[program.operand_column("storage")[i]].name
        raise AccelsimError(
            f"operand {i} ({name}) covers addresses {low[i]}..{end[i] - 1}, where no storage lies"
        )
    return offset
