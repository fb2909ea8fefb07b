"""What every encoding of a matrix gives, and what it is given."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from accelsim.errors import AccelsimError
from accelsim.numerics.formats import Format

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

ALIGNMENT, ALIGNED_FROM = 16, 256
"""Coded tiles of ALIGNED_FROM bytes or more begin at a multiple of ALIGNMENT, a DMA beat."""
SMALLEST_TILE = 8
"""Lines and depth of the smallest tile that room is set aside for."""


@dataclass(frozen=True)
class Content:
    """A matrix [lines, k] before it is coded, its groups, indices and scales found.

    ``elements`` are stored elements of the compute format, as decoding gives them back. ``kept``
    says which are stored (None: all), ``codes`` [lines, k] and ``scales`` [lines, groups] what
    stands for them in an encoding that has such, ``group`` the elements that share a scale.
    """

    elements: Array
    kept: Mask | None = None
    codes: Bytes | None = None
    scales: Array | None = None
    group: int = 0

    def tile(self, lines: slice, ks: slice) -> Content:
        """Some lines and some of k; groups that the cut goes through are in both parts."""
        scales = None
        if self.scales is not None:
            stop = -(-ks.stop // self.group)
            scales = self.scales[lines, ks.start // self.group : stop]
        return Content(
            self.elements[lines, ks],
            None if self.kept is None else self.kept[lines, ks],
            None if self.codes is None else self.codes[lines, ks],
            scales,
            self.group,
        )


class Encoding:
    """One way to store matrices. Elements are [lines, k], groups run along k."""

    fixed: ClassVar[bool] = True
    """Whether the shape of a tile decides its length; else the positions of its elements do."""
    sparse: ClassVar[bool] = True
    """Whether elements are left out."""
    slack_bytes: ClassVar[int] = 2
    """Bytes by which a tile may be longer than its share of the whole matrix."""
    summary: ClassVar[str] = ""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def k_granule(self) -> int:
        """What tiles are cut at along k: multiples of this many elements."""
        return 1

    def check(self, k: int, fmt: Format) -> None:
        """Raise AccelsimError if matrices of this depth and format cannot be stored so."""

    def content(self, elements: Array, fmt: Format, kept: Mask | None) -> Content:
        """A whole matrix ready to be coded, with what is left out as zeros."""
        raise NotImplementedError("abstract: every encoding says its own")

    def nbytes(self, lines: int, k: int, fmt: Format, kept: Mask | None = None) -> int:
        """Bytes of a tile; ``kept`` [lines, k] is asked for unless ``fixed``."""
        raise NotImplementedError("abstract: every encoding says its own")

    def encode(self, content: Content, fmt: Format) -> Bytes:
        """The bytes of a tile."""
        raise NotImplementedError("abstract: every encoding says its own")

    def decode(self, coded: Bytes, lines: int, k: int, fmt: Format) -> Array:
        """Stored elements [lines, k] of a tile's bytes; raises AccelsimError if these are none."""
        raise NotImplementedError("abstract: every encoding says its own")

    def mean_bits(self, fmt: Format, density: float) -> float:
        """Bits per element of a large matrix of which this share is kept."""
        raise NotImplementedError("abstract: every encoding says its own")

    def stored(self, elements: Array, nbytes: Array, fmt: Format) -> Array:
        """How many elements are stored in tiles of ``nbytes`` for so many of the dense matrix."""
        return elements

    def room(self, lines: int, k: int, fmt: Format, kept: Mask | None = None) -> int:
        """Bytes that suffice for a matrix however it is cut into tiles."""
        depth = max(SMALLEST_TILE, self.k_granule)
        tiles = -(-lines // SMALLEST_TILE) * -(-k // depth)
        return with_alignment(self.nbytes(lines, k, fmt, kept) + tiles * self.slack_bytes)

    def fault(self, problem: str) -> AccelsimError:
        """An error about coded bytes."""
        return AccelsimError(f"{self.name}: {problem}")

    def expect(self, coded: Bytes, nbytes: int, why: str) -> None:
        """Raise unless a run of bytes is as long as it must be."""
        if len(coded) != nbytes:
            raise self.fault(f"{len(coded)} coded bytes, but {why} make {nbytes}")


def tile_offset(used: int, nbytes: int) -> int:
    """Where a tile of ``nbytes`` begins behind ``used`` bytes of others."""
    return -(-used // ALIGNMENT) * ALIGNMENT if nbytes >= ALIGNED_FROM else used


def with_alignment(nbytes: int) -> int:
    """Bytes that suffice for tiles of so many together, and what lies between them."""
    return nbytes + ALIGNMENT * (nbytes // ALIGNED_FROM)


def bytes_of(bits: int) -> int:
    """Whole bytes that hold so many bits."""
    return -(-bits // 8)


def pack_elements(fmt: Format, elements: Array) -> Bytes:
    """Stored elements one behind the other, in order, as bytes."""
    return fmt.pack(np.ascontiguousarray(elements).reshape(-1))


def unpack_elements(fmt: Format, packed: Bytes, count: int) -> Array:
    """The first ``count`` stored elements of bytes."""
    return fmt.unpack(packed)[:count]


def pack_fields(values: Array, bits: int) -> Bytes:
    """Numbers of at most 8 bits one behind the other, the first in the lowest bits."""
    fields = values.reshape(-1).astype(np.uint8)
    spread = np.unpackbits(fields[:, None], axis=1, count=bits, bitorder="little")
    return np.packbits(spread.reshape(-1), bitorder="little")


def unpack_fields(packed: Bytes, bits: int, count: int) -> tuple[Bytes, bool]:
    """``count`` numbers of ``bits`` bits each, and whether all bits behind them are zero."""
    spread = np.unpackbits(packed, bitorder="little")
    used, spare = spread[: count * bits], spread[count * bits :]
    if not bits:
        return np.zeros(count, dtype=np.uint8), True
    numbers = np.packbits(used.reshape(count, bits), axis=1, bitorder="little")
    return numbers.reshape(count), not spare.any()


def zeros(lines: int, k: int, fmt: Format) -> Array:
    """A matrix of +0 as stored elements."""
    return np.zeros((lines, k), dtype=fmt.storage_dtype)


def depth_of(k: int, granule: int) -> int:
    """``k`` rounded up to whole groups."""
    return math.ceil(k / granule) * granule
