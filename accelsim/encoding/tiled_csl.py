"""Tiled-CSL: per tile of 128 x 64 a list of words, a value and its place in the tile.

A run begins with int32 offsets in words, one for each CSL tile and one for the end, tiles in order
of lines, then of k. A word is 32 bits: the element in the low half, its place in the high one. A
place is 64 x line + (k XOR 8 x (line mod 8)), both counted within the CSL tile: the columns are
swizzled, so that words that follow each other go to different banks of a scratchpad. Words ascend
by line and k; a list is filled up to a multiple of four with words of place 0xFFFF and value 0.

Source: Xia et al., Flash-LLM, VLDB 2024, arXiv 2309.10285, and its repository (tile, word, padding,
offsets, swizzle). Its further reordering of the words of a tile does not change their number.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from accelsim.encoding.encoding import Array, Bytes, Content, Encoding, Mask, zeros
from accelsim.errors import AccelsimError
from accelsim.numerics.formats import Format

LINES, DEPTH = 128, 64
WORDS = 4  # a list is a multiple of this
NOWHERE = 0xFFFF  # the place of a word that only fills up
ELEMENT_BITS = 16

Words = npt.NDArray[np.uint32]


class TiledCsl(Encoding):
    """Words of a 16-bit value and a 16-bit place, per tile of 128 lines by 64 of k."""

    fixed = False
    slack_bytes = 4 * (WORDS - 1) + 8
    summary = "words of a 16-bit value and its place, per tile of 128 x 64; any positions"

    def __init__(self) -> None:
        super().__init__("tiled-csl")

    @property
    def k_granule(self) -> int:
        return DEPTH

    def check(self, k: int, fmt: Format) -> None:
        if fmt.bits != ELEMENT_BITS:
            raise AccelsimError(
                f"{self.name} holds values of {ELEMENT_BITS} bits, not {fmt.name}; accepted: fp16,"
                " bf16, int16"
            )

    def content(self, elements: Array, fmt: Format, kept: Mask | None) -> Content:
        kept = elements != 0 if kept is None else kept
        return Content(np.where(kept, elements, zeros(1, 1, fmt)), kept)

    def nbytes(self, lines: int, k: int, fmt: Format, kept: Mask | None = None) -> int:
        self.check(k, fmt)
        kept = np.ones((lines, k), dtype=bool) if kept is None else kept
        return 4 * (_tiles(lines, k) + 1 + int(_words(kept).sum()))

    def encode(self, content: Content, fmt: Format) -> Bytes:
        elements = content.elements
        kept = elements != 0 if content.kept is None else content.kept
        lines, k = elements.shape
        counts = _words(kept)
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype("<i4")
        words = np.full(int(offsets[-1]), NOWHERE << 16, dtype="<u4")
        bits = fmt.codes(np.ascontiguousarray(elements)).astype(np.uint32)
        for tile, (line, depth) in enumerate(_corners(lines, k)):
            window = slice(line, line + LINES), slice(depth, depth + DEPTH)
            found = _place(*np.nonzero(kept[window])) << 16 | bits[window][kept[window]]
            words[offsets[tile] : offsets[tile] + len(found)] = found
        return np.concatenate([offsets.view(np.uint8), words.view(np.uint8)])

    def decode(self, coded: Bytes, lines: int, k: int, fmt: Format) -> Array:
        self.check(k, fmt)
        offsets, words = self._lists(coded, _tiles(lines, k))
        found = zeros(lines, k, fmt)
        for tile, (line, depth) in enumerate(_corners(lines, k)):
            one = self._trimmed(words[offsets[tile] : offsets[tile + 1]], tile)
            row, column = _unplace(one >> 16)
            height, width = min(LINES, lines - line), min(DEPTH, k - depth)
            self._judge(row, column, height, width, tile)
            values = fmt.stored((one & 0xFFFF).astype(np.uint16))
            found[line + row, depth + column] = values
        return found

    def _lists(self, coded: Bytes, tiles: int) -> tuple[Array, Words]:
        """Offsets in words, and the words."""
        head = 4 * (tiles + 1)
        if len(coded) < head:
            raise self.fault(f"{len(coded)} coded bytes, fewer than {tiles + 1} tile offsets need")
        offsets = np.ascontiguousarray(coded[:head]).view("<i4").astype(np.int64)
        steps = np.diff(offsets)
        if offsets[0] or (steps < 0).any() or (steps % WORDS).any():
            listed = ", ".join(map(str, offsets[:8].tolist()))
            raise self.fault(
                f"tile offsets {listed}{', ...' if tiles > 7 else ''} are not multiples of {WORDS}"
                " that begin at 0 and ascend"
            )
        self.expect(coded, head + 4 * int(offsets[-1]), f"offsets up to {offsets[-1]} words")
        return offsets, np.ascontiguousarray(coded[head:]).view("<u4")

    def _trimmed(self, words: Words, tile: int) -> Words:
        """The words of a tile without those that fill it up."""
        real = words >> 16 != NOWHERE
        count = int(real.sum())
        if (
            not real[:count].all()
            or len(words) - count >= WORDS
            or words[count:].astype(np.uint16).any()
        ):
            raise self.fault(f"tile {tile} is not filled up with empty words at its end alone")
        return words[:count]

    def _judge(self, row: Array, column: Array, height: int, width: int, tile: int) -> None:
        """Places lie within the tile and ascend."""
        outside = (row >= height) | (column >= width)
        if outside.any():
            i = int(np.argmax(outside))
            raise self.fault(
                f"word {i} of tile {tile} points to line {row[i]}, k {column[i]}, outside of its"
                f" {height} x {width}"
            )
        if (np.diff(row * DEPTH + column) <= 0).any():
            raise self.fault(f"places of tile {tile} do not ascend")

    def stored(self, elements: Array, nbytes: Array, fmt: Format) -> Array:
        return nbytes // 4

    def mean_bits(self, fmt: Format, density: float) -> float:
        filled = 32 * (WORDS - 1) / 2 + 32
        return 32 * density + filled / (LINES * DEPTH)


def _tiles(lines: int, k: int) -> int:
    return -(-lines // LINES) * -(-k // DEPTH)


def _corners(lines: int, k: int) -> list[tuple[int, int]]:
    return [(line, depth) for line in range(0, lines, LINES) for depth in range(0, k, DEPTH)]


def _words(kept: Mask) -> Array:
    """Words of each CSL tile, those that fill it up included."""
    lines, k = kept.shape
    tall = np.add.reduceat(kept, range(0, lines, LINES), axis=0, dtype=np.int64)
    counts = np.add.reduceat(tall, range(0, k, DEPTH), axis=1).reshape(-1)
    filled: Array = -(-counts // WORDS) * WORDS
    return filled


def _place(row: Array, column: Array) -> Words:
    found: Words = (row * DEPTH + (column ^ ((row % 8) << 3))).astype(np.uint32)
    return found


def _unplace(place: Array) -> tuple[Array, Array]:
    row, swizzled = np.divmod(place.astype(np.int64), DEPTH)
    return row, swizzled ^ ((row % 8) << 3)
