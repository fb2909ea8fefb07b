"""The bits of banks that compute in their cells, and products as their commands form them.

As in bank_memory, a layout says where every bit of an element is stored, and what a product reads
is the command sequence: which rows take part in which order, in which stripes, and what the trees
then add up. It does not ask the layout, so a product is right only if both agree. Row operations
are executed as they are: rows that are raised together settle at their majority, and so lose what
they held.

Operands are integers with signs, stored with an offset (8 bits: plus 128), so that products in the
cells have none. What that adds is taken off by who reads a sum, from the sums of both operands:

    sum x w = sum u v - 2^7 (sum u + sum v) + 2^14 n     u = x + 2^7, v = w + 2^7

Sums of integers are exact in any order. What nobody wrote holds a pattern of ones and zeros, so
that a product that reads it is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from accelsim.errors import AccelsimError
from accelsim.hw.pim.layouts.bits import BitPlanes
from accelsim.hw.pim.layouts.layout import Layout
from accelsim.hw.pim.programs.cell_sequences import CELLS, WORDLINES, Reserved, RowOp, multiply

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

UNWRITTEN = 0xA5
ORDER: Literal["little"] = "little"
"""A row's lane 0 is the lowest bit of its first byte."""


class BitMemory:
    """All rows of all banks of a grid, a bit for each lane."""

    def __init__(self, planes: BitPlanes) -> None:
        self.planes, grid = planes, planes.grid
        stripes = grid.rows // planes.stripe_rows
        shape = (grid.channels, grid.banks, stripes, planes.stripe_rows, grid.row_bytes)
        self.rows: Bytes = np.full(shape, UNWRITTEN, dtype=np.uint8)
        cells = (grid.channels, grid.banks, stripes, grid.row_bytes)
        self.cells = {name: np.full(cells, UNWRITTEN, dtype=np.uint8) for name in CELLS}

    def store(self, layout: Layout, values: Any) -> None:
        """Write a matrix of integers, bit by bit; bits of an element are neighbours in a row of
        the layout's matrix."""
        bits = self._bits(values, layout.cols // values.shape[1])
        place = layout.place(*np.indices(bits.shape))
        byte, bit = np.divmod(place.column, 8)
        stripe, row = np.divmod(place.row, self.planes.stripe_rows)
        at = (place.channel, place.bank, stripe, row, byte)
        np.bitwise_and.at(self.rows, at, ~(np.uint8(1) << bit.astype(np.uint8)))
        np.bitwise_or.at(self.rows, at, bits << bit.astype(np.uint8))

    def load(self, layout: Layout) -> Ints:
        """A matrix as it lies there."""
        size = self.planes.bits
        place = layout.place(*np.indices((layout.rows, layout.cols)))
        stripe, row = np.divmod(place.row, self.planes.stripe_rows)
        byte, bit = np.divmod(place.column, 8)
        bits = self.rows[place.channel, place.bank, stripe, row, byte] >> bit.astype(np.uint8) & 1
        weights = 1 << np.arange(size, dtype=np.int64)
        found = (bits.reshape(layout.rows, -1, size) * weights).sum(axis=2)
        return np.asarray(found - (1 << size - 1), dtype=np.int64)

    def _bits(self, values: Any, size: int) -> Bytes:
        """[rows, elements x bits], with the offset, lowest bits first."""
        check_range(values, size)
        offset = np.asarray(values, dtype=np.int64) + (1 << size - 1)
        bits = offset[:, :, None] >> np.arange(size) & 1
        return np.asarray(bits.reshape(len(offset), -1), dtype=np.uint8)

    def write_lanes(self, stripes: Any, row: int, lanes: Any) -> None:
        """The same row of some stripes in all banks; ``lanes`` [..., lanes] broadcasts."""
        self.rows[:, :, stripes, row] = np.packbits(lanes, axis=-1, bitorder=ORDER)

    def lanes(self, stripe: int, row: int) -> Bytes:
        """The bits of a row of all banks [channels, banks, lanes]."""
        return np.unpackbits(self.rows[:, :, stripe, row], axis=-1, bitorder=ORDER)

    # --- operations on rows

    def execute(self, operations: Iterable[RowOp], first: int, stripes: slice) -> None:
        """Row operations in all banks, in some stripes; data rows count from ``first``."""
        for one in operations:
            sensed = self._activate(one.source, stripes)
            if one.target is not None:
                self._drive(one.target, sensed, stripes)

    def _activate(self, address: int, stripes: slice) -> Bytes:
        """What the sense amplifiers settle at; the rows that were raised take it."""
        if address >= 0:
            return self.rows[:, :, stripes, address]
        if address in (Reserved.ZEROS, Reserved.ONES):
            value = 0 if address == Reserved.ZEROS else 255
            return np.full_like(self.cells["T0"][:, :, stripes], value)
        raised = WORDLINES[Reserved(address)]
        held: list[Bytes] = [
            self.cells[cell][:, :, stripes] ^ np.uint8(255 * flip) for cell, flip in raised
        ]
        if len(held) == 2:
            raise AccelsimError(f"{Reserved(address).name}: two rows settle at nothing certain")
        settled = held[0].copy()
        if len(held) == 3:
            a, b, c = held
            settled = (a & b) | (b & c) | (a & c)
        self._drive(address, settled, stripes)
        return settled

    def _drive(self, address: int, value: Bytes, stripes: slice) -> None:
        """Rows that are raised while the amplifiers hold a value take it."""
        if address >= 0:
            self.rows[:, :, stripes, address] = value
            return
        if address not in WORDLINES:
            raise AccelsimError(f"{Reserved(address).name} is a constant; accepted: rows of data")
        for cell, flip in WORDLINES[Reserved(address)]:
            self.cells[cell][:, :, stripes] = value ^ np.uint8(255 * flip)


def check_range(values: Any, bits: int) -> None:
    """Raise AccelsimError unless all values are integers of so many bits."""
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1
    given = np.asarray(values)
    if given.dtype.kind not in "iu" or given.min() < low or given.max() > high:
        raise AccelsimError(f"operands of {bits} bits; accepted: integers from {low} to {high}")


def product(memory: BitMemory, x: Any, outputs: int) -> Ints:
    """W x of a matrix stored by ``BitPlanes.matrix``, as the family's commands form it."""
    planes = memory.planes
    given = np.asarray(x, dtype=np.int64)
    check_range(given, planes.bits)
    shared = np.broadcast_to(given, (planes.grid.channels, planes.grid.banks, len(given)))
    each = -(-outputs // planes.all_banks)
    sums = _bank_sums(memory, shared, each)
    # Outputs take turns over banks, then channels.
    return np.moveaxis(sums, 2, 0).reshape(-1)[:outputs]


def product_by_tokens(memory: BitMemory, x: Any, outputs: int) -> Ints:
    """W x of a matrix stored by ``BitPlanes.by_tokens``: each bank with its own tokens' weights,
    then around the ring of a channel, then channel by channel."""
    planes = memory.planes
    given = np.asarray(x, dtype=np.int64)
    check_range(given, planes.bits)
    own = -(-len(given) // planes.all_banks)
    # Tokens that are not there weigh 0; what lies in their lanes was never written.
    padded = np.zeros(own * planes.all_banks, dtype=np.int64)
    padded[: len(given)] = given
    mine = np.moveaxis(padded.reshape(own, planes.grid.channels, planes.grid.banks), 0, 2)
    present = np.arange(own * planes.all_banks) < len(given)
    there = np.moveaxis(present.reshape(own, planes.grid.channels, planes.grid.banks), 0, 2)
    sums = _bank_sums(memory, mine, outputs, there)
    return np.asarray(sums.sum(axis=(0, 1)), dtype=np.int64)


def _bank_sums(memory: BitMemory, x: Ints, each: int, there: Any = None) -> Ints:
    """[channels, banks, each]: what the trees of every bank add up; ``x`` [channels, banks, n]."""
    planes, elements = memory.planes, x.shape[2]
    abreast, chunks = planes.abreast(elements), planes.chunks(elements)
    tiles = planes.tiles(each, elements)
    sums = np.zeros((*x.shape[:2], tiles * abreast), dtype=np.int64)
    lanes = _vector_lanes(planes, x, there)
    for first in range(0, tiles, planes.at_once):
        count = min(planes.at_once, tiles - first)
        for chunk in range(chunks):
            _multiply(memory, lanes, elements, first, count, chunk)
            for tile in range(first, first + count):
                part = _tree(memory, lanes, tile, elements, chunk)
                sums[:, :, tile * abreast : (tile + 1) * abreast] += part
    return sums[:, :, :each]


def _vector_lanes(planes: BitPlanes, x: Ints, there: Any) -> tuple[Ints, Any]:
    """The vector with its offset as it lies along the lanes of each chunk, repeated for outputs
    side by side, and which lanes hold elements; [channels, banks, chunks, lanes]."""
    count = x.shape[2]
    chunks, abreast = planes.chunks(count), planes.abreast(count)
    lanes = np.zeros((*x.shape[:2], chunks * planes.lanes), dtype=np.int64)
    used = np.zeros(lanes.shape, dtype=bool)
    offset = x + (1 << planes.bits - 1)
    held = np.ones(x.shape, dtype=bool) if there is None else there
    lanes[:, :, : abreast * count] = np.tile(np.where(held, offset, 0), abreast)
    used[:, :, : abreast * count] = np.tile(held, abreast)
    shape = (*x.shape[:2], chunks, planes.lanes)
    return lanes.reshape(shape), used.reshape(shape)


def _multiply(
    memory: BitMemory, lanes: tuple[Ints, Any], elements: int, first: int, count: int, chunk: int
) -> None:
    """The vector beside a round's tiles, and their products, in all its stripes at once."""
    planes = memory.planes
    start, base = planes.row(first, elements)
    stripe = start // planes.stripe_rows
    stripes = slice(stripe, stripe + count)
    shared = planes.first_shared(elements) + chunk * planes.bits
    for bit in range(planes.bits):
        plane = (lanes[0][:, :, chunk] >> bit & 1).astype(np.uint8)
        memory.write_lanes(stripes, shared + bit, plane[:, :, None])
    held = base - start + chunk * planes.bits
    result = planes.first_product(elements)
    memory.execute(
        multiply(
            range(held, held + planes.bits),
            range(shared, shared + planes.bits),
            range(result, result + 2 * planes.bits),
        ),
        0,
        stripes,
    )


def _tree(memory: BitMemory, lanes: tuple[Ints, Any], tile: int, elements: int, chunk: int) -> Ints:
    """Planes of a tile's products through the trees, and the offsets taken off."""
    planes, half = memory.planes, 1 << memory.planes.bits - 1
    start, base = planes.row(tile, elements)
    stripe = start // planes.stripe_rows
    held = base - start + chunk * planes.bits
    result = planes.first_product(elements)
    u, used = lanes[0][:, :, chunk], lanes[1][:, :, chunk]
    products = _value(memory, stripe, result, 2 * planes.bits)
    v = np.where(used, _value(memory, stripe, held, planes.bits), 0)
    signed = products - half * (u + v) + half * half * used
    count = min(elements, planes.lanes)
    abreast = planes.abreast(elements)
    found = np.where(used, signed, 0)[:, :, : abreast * count]
    return np.asarray(found.reshape(*found.shape[:2], abreast, count).sum(axis=3), dtype=np.int64)


def _value(memory: BitMemory, stripe: int, first: int, count: int) -> Ints:
    """Numbers along the lanes of so many rows, lowest first."""
    planes = [memory.lanes(stripe, first + bit).astype(np.int64) << bit for bit in range(count)]
    return np.asarray(np.sum(planes, axis=0), dtype=np.int64)
