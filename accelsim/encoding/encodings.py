"""The encodings by name, as users type them, and the forms of coded operands."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from accelsim.encoding.bitmap import Bitmap
from accelsim.encoding.encoding import Array, Bytes, Encoding
from accelsim.encoding.group_scales import GroupScales
from accelsim.encoding.nm import NofM
from accelsim.encoding.tiled_csl import TiledCsl
from accelsim.errors import AccelsimError
from accelsim.numerics.formats import Format, number_format

CODED = 1 << 16
"""Format codes of operand descriptors from here on are coded: Program.forms[code - CODED]."""


class Family(NamedTuple):
    """Encodings of one kind: how their names look, and how one is made from its numbers."""

    shown: str
    pattern: str
    make: Callable[..., Encoding]
    summary: str


FAMILIES: list[Family] = [
    Family("nm:N:M", r"nm:(\d+):(\d+)", NofM, NofM.summary),
    Family("bitmap", "bitmap", Bitmap, Bitmap.summary),
    Family("tiled-csl", "tiled-csl", TiledCsl, TiledCsl.summary),
    Family("intB:gG", r"int(\d+):g(\d+)", GroupScales, GroupScales.summary),
    Family("intB:col", r"int(\d+):col", lambda bits: GroupScales(bits, 0), GroupScales.summary),
]


def register_encoding(family: Family) -> Family:
    """Make encodings known under the names that a family's pattern matches."""
    if not any(known.pattern == family.pattern for known in FAMILIES):
        FAMILIES.append(family)
    return family


@lru_cache(maxsize=256)
def encoding(name: str) -> Encoding:
    """The encoding called ``name``; raises AccelsimError saying what there is."""
    for family in FAMILIES:
        if found := re.fullmatch(family.pattern, name):
            numbers = [int(text) for text in found.groups()]
            if family.make is GroupScales and not numbers[1]:
                break
            return family.make(*numbers)
    accepted = ", ".join(family.shown for family in FAMILIES)
    raise AccelsimError(
        f"unknown encoding {name!r}; accepted: {accepted} (as in nm:2:4, int4:g128)"
    )


@dataclass(frozen=True)
class CodedForm:
    """What a run of coded bytes is: its encoding, and the dense [rows, cols] that it stands for.

    ``format`` names the number format of its elements. ``k_rows``: groups run down the rows, as in
    the [k, n] operand of a product; else along the columns.
    """

    encoding: str
    format: str
    rows: int
    cols: int
    k_rows: bool

    @property
    def lines(self) -> int:
        return self.cols if self.k_rows else self.rows

    @property
    def k(self) -> int:
        return self.rows if self.k_rows else self.cols

    @property
    def fmt(self) -> Format:
        return number_format(self.format)

    @property
    def code(self) -> Encoding:
        return encoding(self.encoding)

    def decode(self, coded: Bytes) -> Array:
        """Stored elements [rows, cols]; raises AccelsimError if the bytes are malformed."""
        found = self.code.decode(coded, self.lines, self.k, self.fmt)
        return found.T if self.k_rows else found

    def encode(self, elements: Array) -> Bytes:
        """The bytes of stored elements [rows, cols], pruned as the encoding does by itself."""
        lines = elements.T if self.k_rows else elements
        return self.code.encode(self.code.content(lines, self.fmt, None), self.fmt)

    def __str__(self) -> str:
        return f"{self.encoding} {self.format}"


class Tile(NamedTuple):
    """Rows and columns of a coded tensor's 2-D form, and where their bytes lie in its storage."""

    row: int
    rows: int
    col: int
    cols: int
    offset: int
    nbytes: int
