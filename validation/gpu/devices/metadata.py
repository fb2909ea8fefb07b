"""Metadata of mma.sp: which lane's word says which two of each four of k a row keeps.

A group of four has a nibble, the lower index in its low two bits. Which lanes hold the nibbles of
which row is a figure of the PTX ISA; here are the arrangements that it can be read as, and the GPU
itself says which is right: only that one gives exact results on order-free operands.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ..inputs import Codes

Words = npt.NDArray[np.uint32]
Halves = npt.NDArray[np.uint64]


def metadata(layout: str, pairs: Codes) -> Words:
    """One word for each lane [tiles, 32] from kept indices [tiles, 16, k / 4, 2]."""
    nibbles = pairs[..., 0].astype(np.uint64) | pairs[..., 1].astype(np.uint64) << np.uint64(2)
    groups = nibbles.shape[-1]
    shifts = np.arange(0, 4 * groups, 4, dtype=np.uint64)
    rows = (nibbles << shifts).sum(axis=-1, dtype=np.uint64)  # [tiles, 16], 32 or 64 bits each
    words = np.zeros((len(rows), 32), dtype=np.uint32)
    sharing = groups // 4  # lanes of a group of four that matter: 2 or 4
    for lane in range(32):
        g, t = lane // 4, lane % 4 % sharing
        words[:, lane] = LAYOUTS[layout](rows, g, t, sharing) & np.uint64(0xFFFFFFFF)
    return words


def _piece(row: Halves, bits: int, number: int) -> Halves:
    return row >> np.uint64(bits * number) & np.uint64((1 << bits) - 1)


def _split_rows(rows: Halves, g: int, t: int, sharing: int) -> Halves:
    """16 bits of row g below 16 bits of row g + 8, further along k in the next lane."""
    return _piece(rows[:, g], 16, t) | _piece(rows[:, g + 8], 16, t) << np.uint64(16)


def _rows_together(rows: Halves, g: int, t: int, sharing: int) -> Halves:
    """Lanes of row g first, then those of row g + 8, 32 bits each."""
    half = sharing // 2
    return _piece(rows[:, g + 8 * (t // half)], 32, t % half)


def _rows_in_turn(rows: Halves, g: int, t: int, sharing: int) -> Halves:
    """Rows g and g + 8 in turn, 32 bits each."""
    return _piece(rows[:, g + 8 * (t % 2)], 32, t // 2)


LAYOUTS: dict[str, Callable[[Halves, int, int, int], Halves]] = {
    "split rows": _split_rows,
    "rows together": _rows_together,
    "rows in turn": _rows_in_turn,
}
