"""Accumulators: how a datapath sums products. The order and every rounding are part of it.

``sequential-fp32``: operands are widened exactly to fp32; each product is rounded to fp32 (products
of two 16-bit floats are exact) and then added with one more rounding; nothing is fused.

    folded    psum = fl(psum + fl(a_k b_k)) from +0 down each fold of R reduction rows, ascending k;
              acc = fl(acc + psum) after each fold                        (ws and is arrays)
    in place  acc = fl(acc + fl(a_k b_k)) for all k                       (os arrays)

The first fold of a sum that accumulates onto nothing is stored as it is; starting from acc = +0
gives the same bits, because a chain that starts at +0 never ends at -0.

Integers are summed exactly and wrap modulo 2**32, as a 32-bit two's complement adder does.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]


def folded_fp32(a: Float32, b: Float32, fold: int, acc: Float32 | None = None) -> Float32:
    """``a[m, k] @ b[k, n]`` summed in folds of ``fold`` reduction rows onto ``acc[m, n]``.

    Returns a new fp32 array [m, n]; ``acc`` None stands for +0.
    """
    from accelsim.numerics.kernels import add_folds

    sums = _start(a, b, acc)
    with np.errstate(all="ignore"):  # compiled, it is silent; uncompiled, it must be too
        add_folds(_fp32(a), _fp32(b), fold, sums)
    return sums


def in_place_fp32(a: Float32, b: Float32, acc: Float32 | None = None) -> Float32:
    """``a[m, k] @ b[k, n]`` as one chain over k that continues from ``acc[m, n]``.

    Returns a new fp32 array [m, n]; ``acc`` None stands for +0.
    """
    from accelsim.numerics.kernels import add_chain

    sums = _start(a, b, acc)
    with np.errstate(all="ignore"):
        add_chain(_fp32(a), _fp32(b), sums)
    return sums


def exact_int32(a: Int32, b: Int32, acc: Int32 | None = None) -> Int32:
    """``a[m, k] @ b[k, n] + acc`` exactly, modulo 2**32. Returns a new int32 array [m, n]."""
    sums = _int_product(a, b)
    if acc is not None:
        sums = sums + acc.astype(np.int64)
    return sums.astype(np.int32)


def _int_product(a: Int32, b: Int32) -> npt.NDArray[np.int64]:
    largest = float(_magnitude(a)) * float(_magnitude(b)) * a.shape[1]
    if largest < 2.0**53:
        # Every partial sum is an integer that float64 holds, so any order is exact, and BLAS fast.
        return (a.astype(np.float64) @ b.astype(np.float64)).astype(np.int64)
    # int64 wraps modulo 2**64, which leaves the low 32 bits right.
    return a.astype(np.int64) @ b.astype(np.int64)


def _magnitude(values: Int32) -> int:
    return max(abs(int(values.max(initial=0))), abs(int(values.min(initial=0))))


def _start(a: Float32, b: Float32, acc: Float32 | None) -> Float32:
    if acc is None:
        return np.zeros((a.shape[0], b.shape[1]), dtype=np.float32)
    return np.array(acc, dtype=np.float32, order="C")


def _fp32(values: Float32) -> Float32:
    return np.ascontiguousarray(values, dtype=np.float32)
