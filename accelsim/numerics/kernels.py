"""Compiled loops of the accumulators. Import inside the function that needs them: numba is slow
to load.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from accelsim._intrinsics import fma
from accelsim._jit import njit

Float32 = npt.NDArray[np.float32]

# One block of partial sums (1 KiB) stays in registers and first-level cache while k runs.
COLUMNS = 256


@njit
def add_folds(a: Float32, b: Float32, fold: int, sums: Float32) -> None:
    """Add to ``sums[m, n]``, fold by fold, the chain of each ``fold`` reduction rows.

    ``a[m, k]`` and ``b[k, n]`` are C-contiguous fp32. Every chain starts at +0 and runs in
    ascending k; each product and each sum is rounded to fp32 on its own (no contraction to FMA).
    """
    m, k = a.shape
    n = b.shape[1]
    psum = np.empty(COLUMNS, dtype=np.float32)
    for left in range(0, n, COLUMNS):
        width = min(COLUMNS, n - left)
        for i in range(m):
            for first in range(0, k, fold):
                psum[:] = np.float32(0.0)
                for step in range(first, min(first + fold, k)):
                    x = a[i, step]
                    for j in range(width):
                        psum[j] += x * b[step, left + j]
                for j in range(width):
                    sums[i, left + j] += psum[j]


@njit
def add_chain(a: Float32, b: Float32, sums: Float32) -> None:
    """Continue, in every cell of ``sums[m, n]``, one chain over all k: the sum stays in place.

    Operands as in ``add_folds``.
    """
    m, k = a.shape
    n = b.shape[1]
    psum = np.empty(COLUMNS, dtype=np.float32)
    for left in range(0, n, COLUMNS):
        width = min(COLUMNS, n - left)
        for i in range(m):
            for j in range(width):
                psum[j] = sums[i, left + j]
            for step in range(k):
                x = a[i, step]
                for j in range(width):
                    psum[j] += x * b[step, left + j]
            for j in range(width):
                sums[i, left + j] = psum[j]


@njit
def add_trees(a: Float32, b: Float32, width: int, sums: Float32) -> None:
    """Add to ``sums[m, n]``, one after the other, adder trees over ``width`` products each.

    Products of a tree are rounded to fp32; neighbours are added pairwise, (0+1), (2+3), ..., until
    one is left. ``width`` is a power of two; a last tree of fewer products is filled up with +0.
    Operands as in ``add_folds``.
    """
    m, k = a.shape
    n = b.shape[1]
    leaves = np.empty((width, COLUMNS), dtype=np.float32)
    for left in range(0, n, COLUMNS):
        columns = min(COLUMNS, n - left)
        for i in range(m):
            for first in range(0, k, width):
                used = min(width, k - first)
                for leaf in range(used):
                    x = a[i, first + leaf]
                    for j in range(columns):
                        leaves[leaf, j] = x * b[first + leaf, left + j]
                leaves[used:] = np.float32(0.0)
                level = width // 2
                while level >= 1:
                    for leaf in range(level):
                        for j in range(columns):
                            leaves[leaf, j] = leaves[2 * leaf, j] + leaves[2 * leaf + 1, j]
                    level //= 2
                for j in range(columns):
                    sums[i, left + j] += leaves[0, j]


@njit
def add_fused(a: Float32, b: Float32, lanes: int, sums: Float32) -> None:
    """Add to ``sums[m, n]`` what ``lanes`` SIMT lanes find, each a chain of fused multiply-adds.

    Lane l takes k = l, l + lanes, ... from +0; then lane l adds lane l + lanes / 2, and so on by
    halves (a butterfly of shuffles), and lane 0 adds its sum to the accumulator. One lane continues
    from the accumulator instead. Operands as in ``add_folds``; float64 works as well.
    """
    m, k = a.shape
    n = b.shape[1]
    held = np.empty((lanes, COLUMNS), dtype=a.dtype)
    for left in range(0, n, COLUMNS):
        columns = min(COLUMNS, n - left)
        for i in range(m):
            held[:] = 0.0
            if lanes == 1:
                for j in range(columns):
                    held[0, j] = sums[i, left + j]
            for step in range(k):
                x = a[i, step]
                lane = step % lanes
                for j in range(columns):
                    held[lane, j] = fma(x, b[step, left + j], held[lane, j])
            half = lanes // 2
            while half >= 1:
                for lane in range(half):
                    for j in range(columns):
                        held[lane, j] += held[lane + half, j]
                half //= 2
            for j in range(columns):
                sums[i, left + j] = held[0, j] if lanes == 1 else sums[i, left + j] + held[0, j]
