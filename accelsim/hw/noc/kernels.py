"""Compiled counting of the bytes that windows have at each node of an interleaved memory."""

import math

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit


@njit
def deal_windows(windows: NDArray[np.int64], interleave: int, nodes: int) -> NDArray[np.int64]:
    """int64[n, nodes]: bytes per node of windows (base, rows, row_bytes, stride).

    Rows repeat their phase after span / gcd(stride, span) of them, so no more are looked at.
    """
    span = interleave * nodes
    dealt = np.zeros((windows.shape[0], nodes), np.int64)
    for w in range(windows.shape[0]):
        base, rows, row_bytes, stride = (
            windows[w, 0], windows[w, 1], windows[w, 2], windows[w, 3],
        )  # fmt: skip
        if stride == row_bytes:
            rows, row_bytes = 1, rows * row_bytes
        period = span // math.gcd(stride, span)
        for r in range(min(rows, period)):
            times = rows // period + (1 if r < rows % period else 0)
            turns, rest = row_bytes // span, row_bytes % span
            for c in range(nodes):
                dealt[w, c] += times * turns * interleave
            at = (base + r * stride) % span
            while rest > 0:
                piece = min(rest, interleave - at % interleave)
                dealt[w, at // interleave] += times * piece
                at = (at + piece) % span
                rest -= piece
    return dealt
