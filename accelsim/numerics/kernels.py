"""Compiled loops of the accumulators. Import inside the function that needs them: numba is slow
to load.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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
