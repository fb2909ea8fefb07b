"""Bitmap: one bit per element says whether it is stored; the stored ones follow.

    line . a b . c . . .    bits 0 1 1 0 1 0 0 0 -> byte 0x16, then a b c

A tile is the bits, line after line, the first in the lowest bit of the first byte, filled up to a
whole byte, then the kept elements in the same order. The length is 1 bit per element and the kept
elements: (1 - s) + 1/16 of fp16 at sparsity s.

Sources: Endor, arXiv 2406.11674 (weights); SparAMX, IntelLabs/HAAML (the same for tiles of a
matrix engine, expanded into a dense buffer before it computes).
"""

from __future__ import annotations

import numpy as np

from accelsim.encoding.encoding import (
    Array,
    Bytes,
    Content,
    Encoding,
    Mask,
    bytes_of,
    pack_elements,
    unpack_elements,
    zeros,
)
from accelsim.numerics.formats import Format


class Bitmap(Encoding):
    """One bit for every element, and the elements that are kept."""

    fixed = False
    summary = "a bit per element, then the kept elements; any positions"

    def __init__(self) -> None:
        super().__init__("bitmap")

    def content(self, elements: Array, fmt: Format, kept: Mask | None) -> Content:
        kept = elements != 0 if kept is None else kept
        return Content(np.where(kept, elements, zeros(1, 1, fmt)), kept)

    def nbytes(self, lines: int, k: int, fmt: Format, kept: Mask | None = None) -> int:
        count = lines * k if kept is None else int(np.count_nonzero(kept))
        return bytes_of(lines * k) + bytes_of(count * fmt.bits)

    def encode(self, content: Content, fmt: Format) -> Bytes:
        kept = content.elements != 0 if content.kept is None else content.kept
        bits = np.packbits(kept.reshape(-1), bitorder="little")
        return np.concatenate([bits, pack_elements(fmt, content.elements[kept])])

    def decode(self, coded: Bytes, lines: int, k: int, fmt: Format) -> Array:
        cut = bytes_of(lines * k)
        if len(coded) < cut:
            raise self.fault(f"{len(coded)} coded bytes, fewer than the bitmap of {cut}")
        bits = np.unpackbits(coded[:cut], bitorder="little")
        kept, spare = bits[: lines * k].astype(bool), bits[lines * k :]
        if spare.any():
            raise self.fault("bits behind the last element are not zero")
        count = int(kept.sum())
        nbytes = cut + bytes_of(count * fmt.bits)
        self.expect(coded, nbytes, f"a bitmap with {count} bits set and as many {fmt.name}")
        found = zeros(lines, k, fmt)
        found[kept.reshape(lines, k)] = unpack_elements(fmt, coded[cut:], count)
        return found

    def stored(self, elements: Array, nbytes: Array, fmt: Format) -> Array:
        kept: Array = (nbytes + elements // -8) * 8 // fmt.bits
        return kept

    def mean_bits(self, fmt: Format, density: float) -> float:
        return 1 + fmt.bits * density
