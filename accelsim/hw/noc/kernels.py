"""Compiled counting of the bytes that windows have at each node of an interleaved memory."""

import math

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit


@njit
def deal_windows(
    windows: NDArray[np.int64], interleave: int, nodes: int, turns: NDArray[np.int64]
) -> NDArray[np.int64]:
    """int64[n, nodes]: bytes per node of windows (base, rows, row_bytes, stride).

    Block b lies at node sum(b // turn) mod ``nodes``, for all ``turns``: the same again after a
    span of ``interleave * nodes * turns[-1]`` bytes. Rows repeat their phase after span /
    gcd(stride, span) of them, so no more are looked at.
    """
    span = interleave * nodes * turns[turns.shape[0] - 1]
    dealt = np.zeros((windows.shape[0], nodes), np.int64)
    for w in range(windows.shape[0]):
        base, rows, row_bytes, stride = (
            windows[w, 0], windows[w, 1], windows[w, 2], windows[w, 3],
        )  # fmt: skip
        if stride == row_bytes:
            rows, row_bytes = 1, rows * row_bytes
        period = span // math.gcd(stride, span)
        for c in range(nodes):
            dealt[w, c] += rows * (row_bytes // span) * (span // nodes)
        for r in range(min(rows, period)):
            times = rows // period + (1 if r < rows % period else 0)
            at, rest = base + r * stride, row_bytes % span
            while rest > 0:
                b = at // interleave
                node = 0
                for turn in turns:
                    node += b // turn
                piece = min(rest, interleave - at % interleave)
                dealt[w, node % nodes] += times * piece
                at += piece
                rest -= piece
    return dealt
