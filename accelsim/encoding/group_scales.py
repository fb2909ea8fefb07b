"""Narrow integers with a scale per group: W4A16 and its neighbours.

    int4:g128    4 bits per element, an fp16 scale for every 128 along k: 4.125 bits
    int4:col     one scale for the whole depth of a line

A group of largest magnitude x has the scale 2 x / (2^B - 1), rounded to fp16; an element is the
nearest multiple of it, ties to even, from -2^(B-1) to 2^(B-1) - 1, stored plus 2^(B-1). Decoding
multiplies code by scale and rounds once to the compute format. A tile is the codes, line after
line, the first in the lowest bits, filled up to a whole byte, then the scales, line after line. A
group that is cut by tiles has its scale in each of them.

Source: Frantar et al., MARLIN, PPoPP 2025, arXiv 2408.11743, and its repository (symmetric codes
stored with an offset of 8, fp16 scales per 128 or per column). The permutation of the codes for
one kernel's fragments does not change their number.
"""

from __future__ import annotations

import math

import numpy as np

from accelsim.encoding.encoding import (
    SMALLEST_TILE,
    Array,
    Bytes,
    Content,
    Encoding,
    Mask,
    bytes_of,
    pack_fields,
    unpack_fields,
    with_alignment,
)
from accelsim.errors import AccelsimError
from accelsim.numerics.formats import Format, number_format

LONGEST_PIECE = 128
"""Tiles are cut at multiples of this where groups are longer."""
NARROWEST, WIDEST = 2, 8


class GroupScales(Encoding):
    """Codes of ``bits`` bits; ``group`` elements along k share an fp16 scale (0: all of them)."""

    sparse = False
    summary = "codes of B bits with an fp16 scale per G of k, or per column (MARLIN's W4A16)"

    def __init__(self, bits: int, group: int) -> None:
        super().__init__(f"int{bits}:g{group}" if group else f"int{bits}:col")
        if not NARROWEST <= bits <= WIDEST:
            raise AccelsimError(
                f"codes of {bits} bits; accepted: int{NARROWEST} to int{WIDEST}, as in int4:g128"
            )
        if group > LONGEST_PIECE and group % LONGEST_PIECE:
            raise AccelsimError(
                f"groups of {group}; accepted: up to {LONGEST_PIECE} elements of k, multiples of"
                f" {LONGEST_PIECE}, or col"
            )
        self.bits, self.group = bits, group
        self.scale = number_format("fp16")
        self.offset = 1 << (bits - 1)

    @property
    def k_granule(self) -> int:
        return min(self.group or LONGEST_PIECE, LONGEST_PIECE)

    def check(self, k: int, fmt: Format) -> None:
        if fmt.is_integer or fmt.bits <= self.bits:
            raise AccelsimError(
                f"{self.name} stands for floating point of more than {self.bits} bits, not"
                f" {fmt.name}; accepted: fp16, bf16, fp32"
            )

    def content(self, elements: Array, fmt: Format, kept: Mask | None) -> Content:
        """Codes and scales of a whole matrix, and the elements that they stand for."""
        lines, k = elements.shape
        group = self.group or k
        groups = math.ceil(k / group)
        values = np.zeros((lines, groups * group))
        values[:, :k] = fmt.decode(elements)
        if not np.isfinite(values).all():
            raise self.fault("a value is not finite")
        blocks = values.reshape(lines, groups, group)
        # Divided once, so that a quotient between two scales is not pushed to one side.
        scales = self.scale.encode(2 * np.abs(blocks).max(axis=2) / (2**self.bits - 1))
        by = self.scale.decode(scales).astype(np.float64)[..., None]
        if not np.isfinite(by).all():
            raise self.fault("the scale of a group is beyond fp16")
        with np.errstate(divide="ignore", invalid="ignore"):
            nearest = np.where(by > 0, np.rint(blocks / by), 0.0)
        codes = np.clip(nearest, -self.offset, self.offset - 1) + 0.0  # no -0
        stands_for = (codes * by).reshape(lines, -1)[:, :k]
        shifted = (codes + self.offset).astype(np.uint8).reshape(lines, -1)[:, :k]
        return Content(fmt.encode(stands_for), None, shifted, scales, group)

    def nbytes(self, lines: int, k: int, fmt: Format, kept: Mask | None = None) -> int:
        self.check(k, fmt)
        return bytes_of(lines * k * self.bits) + lines * self._groups(k) * self.scale.bits // 8

    def _groups(self, k: int) -> int:
        return math.ceil(k / self.group) if self.group else 1

    def encode(self, content: Content, fmt: Format) -> Bytes:
        if content.codes is None or content.scales is None:
            raise self.fault("no codes and scales were found for it")
        scales = np.ascontiguousarray(content.scales).view(np.uint8).reshape(-1)
        return np.concatenate([pack_fields(content.codes, self.bits), scales])

    def decode(self, coded: Bytes, lines: int, k: int, fmt: Format) -> Array:
        self.expect(coded, self.nbytes(lines, k, fmt), f"{lines} lines of {k} {fmt.name}")
        cut, groups = bytes_of(lines * k * self.bits), self._groups(k)
        fields, clean = unpack_fields(coded[:cut], self.bits, lines * k)
        if not clean:
            raise self.fault("bits behind the last code are not zero")
        stored = np.ascontiguousarray(coded[cut:]).view(self.scale.storage_dtype)
        with np.errstate(invalid="ignore"):  # a scale of garbage may be a signalling NaN
            scales = self.scale.decode(stored).astype(np.float64).reshape(lines, groups)
        wrong = ~(np.isfinite(scales) & (scales >= 0))
        if wrong.any():
            line, group = np.argwhere(wrong)[0]
            raise self.fault(f"scale {scales[line, group]} of group {group} of line {line}")
        codes = fields.reshape(lines, k).astype(np.float64) - self.offset
        each = np.repeat(scales, self.group or k, axis=1)[:, :k]
        return fmt.encode(codes * each)

    def mean_bits(self, fmt: Format, density: float) -> float:
        return self.bits + (self.scale.bits / self.group if self.group else 0.0)

    def room(self, lines: int, k: int, fmt: Format, kept: Mask | None = None) -> int:
        pieces = math.ceil(k / self.k_granule)
        scales = lines * pieces * self.scale.bits // 8
        tiles = math.ceil(lines / SMALLEST_TILE) * pieces
        return with_alignment(bytes_of(lines * k * self.bits) + scales + tiles)
