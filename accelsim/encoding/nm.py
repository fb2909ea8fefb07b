"""N:M sparsity: of every M neighbouring elements along k at most N are stored, with their places.

    nm:2:4, fp16, one line of 8 elements, zeros where "."
        a . . b | . c d .        kept values   a b c d         4 x 16 bits
                                 their places  0 3 1 2         4 x 2 bits: nibbles 0xC, 0x9

A tile is the kept elements, line after line and group after group in the order of their places,
then the places in as many bits as M needs, the first in the lowest bits: with 2:4 a nibble
place0 | place1 << 2 per group, place0 < place1, the lower group in the low nibble (the metadata of
Ampere's sparse tensor cores, before the permutation that a kernel's own layout adds). A group with
fewer than N elements other than zero takes zeros along, from place M - N on, as torch's packing of
2:4 does.
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
    depth_of,
    pack_elements,
    pack_fields,
    unpack_elements,
    unpack_fields,
    zeros,
)
from accelsim.errors import AccelsimError
from accelsim.numerics.formats import Format
from accelsim.numerics.pruning import keep_largest

LARGEST_GROUP = 256


class NofM(Encoding):
    """N of every M elements along k, and an index of log2 M bits for each."""

    summary = "N of every M along k are kept, each with an index of log2 M bits"

    def __init__(self, n: int, m: int) -> None:
        super().__init__(f"nm:{n}:{m}")
        if not 1 <= n <= m <= LARGEST_GROUP:
            raise AccelsimError(
                f"sparsity {n}:{m} keeps {n} of {m}; accepted: N:M with 1 <= N <= M <="
                f" {LARGEST_GROUP}"
            )
        self.n, self.m = n, m

    @property
    def index_bits(self) -> int:
        """Bits that say where in its group an element stands."""
        return (self.m - 1).bit_length()

    @property
    def k_granule(self) -> int:
        return self.m

    def check(self, k: int, fmt: Format) -> None:
        if k % self.m:
            raise AccelsimError(
                f"k {k} is not a whole number of groups of {self.m} ({self.name}); accepted: k"
                f" padded with zeros to {depth_of(k, self.m)}"
            )

    def content(self, elements: Array, fmt: Format, kept: Mask | None) -> Content:
        """The N largest of each group unless ``kept`` says which, zeros in place of the others."""
        if kept is None:
            kept = keep_largest(fmt.decode(elements), self.n, self.m)
        return Content(np.where(kept, elements, zeros(1, 1, fmt)), kept)

    def nbytes(self, lines: int, k: int, fmt: Format, kept: Mask | None = None) -> int:
        self.check(k, fmt)
        count = lines * k // self.m * self.n
        return bytes_of(count * fmt.bits) + bytes_of(count * self.index_bits)

    def encode(self, content: Content, fmt: Format) -> Bytes:
        elements = content.elements
        places = self.places(elements != 0 if content.kept is None else content.kept)
        groups = elements.reshape(*places.shape[:2], self.m)
        values = np.take_along_axis(groups, places, axis=2)
        return np.concatenate([pack_elements(fmt, values), pack_fields(places, self.index_bits)])

    def places(self, kept: Mask) -> Array:
        """int64 [lines, groups, n]: where the stored elements of each group stand, ascending."""
        groups = kept.reshape(len(kept), -1, self.m)
        missing = self.n - groups.sum(axis=2, keepdims=True)
        if (missing < 0).any():
            line, group = np.argwhere(missing[..., 0] < 0)[0]
            raise self.fault(
                f"group {group} of line {line} keeps {self.n - missing[line, group, 0]} elements;"
                f" accepted: at most {self.n}"
            )
        spare = ~groups & (np.arange(self.m) >= self.m - self.n)
        stored = groups | (spare & (np.cumsum(spare, axis=2) <= missing))
        found: Array = np.nonzero(stored)[2].reshape(*groups.shape[:2], self.n)
        return found

    def decode(self, coded: Bytes, lines: int, k: int, fmt: Format) -> Array:
        values, places = self.split(coded, lines, k, fmt)
        found = np.zeros((lines, k // self.m, self.m), dtype=fmt.storage_dtype)
        np.put_along_axis(found, places.astype(np.int64), values, axis=2)
        return found.reshape(lines, k)

    def split(self, coded: Bytes, lines: int, k: int, fmt: Format) -> tuple[Array, Array]:
        """(kept elements, their places), both [lines, groups, n], of a tile's bytes, validated."""
        self.expect(coded, self.nbytes(lines, k, fmt), f"{lines} lines of {k} {fmt.name}")
        shape = lines, k // self.m, self.n
        count = lines * k // self.m * self.n
        cut = bytes_of(count * fmt.bits)
        fields, clean = unpack_fields(coded[cut:], self.index_bits, count)
        places = fields.reshape(shape)
        self._judge(places, clean)
        return unpack_elements(fmt, coded[:cut], count).reshape(shape), places

    def _judge(self, places: Array, clean: bool) -> None:
        """Every index lies in its group and behind the one before it."""
        beyond = places >= self.m
        if beyond.any():
            line, group, i = np.argwhere(beyond)[0]
            raise self.fault(
                f"index {places[line, group, i]} of group {group} of line {line} points past its"
                f" group of {self.m}"
            )
        late = places[..., 1:] <= places[..., :-1]
        if late.any():
            line, group, _ = np.argwhere(late)[0]
            listed = ", ".join(map(str, places[line, group]))
            raise self.fault(f"indices {listed} of group {group} of line {line} do not ascend")
        if not clean:
            raise self.fault("bits behind the last index are not zero")

    def stored(self, elements: Array, nbytes: Array, fmt: Format) -> Array:
        return elements // self.m * self.n

    def mean_bits(self, fmt: Format, density: float) -> float:
        return (fmt.bits + self.index_bits) * self.n / self.m
