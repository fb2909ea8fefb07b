"""Accumulators: how a datapath sums products. The order and every rounding are part of it.

``sequential-fp32``: operands are widened exactly to fp32; each product is rounded to fp32 (products
of two 16-bit floats are exact) and then added with one more rounding; nothing is fused.

    folded    psum = fl(psum + fl(a_k b_k)) from +0 down each fold of R reduction rows, ascending k;
              acc = fl(acc + psum) after each fold                        (ws and is arrays)
    in place  acc = fl(acc + fl(a_k b_k)) for all k                       (os arrays)

The first fold of a sum that accumulates onto nothing is stored as it is; starting from acc = +0
gives the same bits, because a chain that starts at +0 never ends at -0.

    trees     acc = fl(acc + tree of W products), fl after every addition      (MAC trees, PIM)
    fused     acc = fl(acc + a_k b_k), one rounding for both                   (SIMT lanes)

Values of a row are added by lanes, without products (``row_sums``).

The same in fp16 or bf16 (``narrow_*``): what PIM units with 16-bit adders do. Integers are summed
exactly and wrap modulo 2**32, as a 32-bit two's complement adder does, or saturate. Tensor cores
are in numerics.tensor_core.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.numerics.formats import Format

Array = npt.NDArray[Any]
DType = np.dtype[Any]
Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

FP32: DType = np.dtype(np.float32)


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


def trees_fp32(a: Float32, b: Float32, width: int, acc: Float32 | None = None) -> Float32:
    """``a[m, k] @ b[k, n]`` by adder trees over ``width`` products, each added to ``acc[m, n]``.

    Returns a new fp32 array [m, n]; ``width`` is a power of two.
    """
    from accelsim.numerics.kernels import add_trees

    sums = _start(a, b, acc)
    with np.errstate(all="ignore"):
        add_trees(_fp32(a), _fp32(b), width, sums)
    return sums


def fused_chain(
    a: Array, b: Array, lanes: int = 1, acc: Array | None = None, carrier: DType = FP32
) -> Array:
    """``a[m, k] @ b[k, n]`` by fused multiply-adds: one chain from ``acc``, or ``lanes`` of them.

    ``carrier`` is fp32 or float64. Several lanes are a power of two and end in a butterfly.
    """
    from accelsim.numerics.kernels import add_fused

    shape = (a.shape[0], b.shape[1])
    sums = np.zeros(shape, carrier) if acc is None else np.array(acc, carrier, order="C")
    with np.errstate(all="ignore"):
        add_fused(_as(a, carrier), _as(b, carrier), lanes, sums)
    return sums


def narrow_chain(a: Float32, b: Float32, acc: Float32 | None, adder: Format) -> Float32:
    """As ``in_place_fp32``, but product and sum are rounded to ``adder``: 11 bits at most.

    Rounding an fp32 result again is innocuous: 24 >= 2 x 11 + 2 (Figueroa, 1995).
    """
    sums = _start(a, b, acc)
    with np.errstate(all="ignore"):
        for k in range(a.shape[1]):
            product = _held(_fp32(a[:, k, None]) * _fp32(b[k]), adder)
            sums = _held(sums + product, adder)
    return sums


def narrow_trees(a: Float32, b: Float32, width: int, acc: Float32 | None, adder: Format) -> Float32:
    """As ``trees_fp32``, with every product and sum rounded to ``adder``."""
    sums = _start(a, b, acc)
    with np.errstate(all="ignore"):
        for first in range(0, a.shape[1], width):
            leaves = [
                _held(_fp32(a[:, k, None]) * _fp32(b[k]), adder)
                for k in range(first, min(first + width, a.shape[1]))
            ]
            leaves += [np.zeros_like(sums)] * (width - len(leaves))
            while len(leaves) > 1:
                pairs = zip(leaves[::2], leaves[1::2], strict=True)
                leaves = [_held(x + y, adder) for x, y in pairs]
            sums = _held(sums + leaves[0], adder)
    return sums


def exact_int32(a: Int32, b: Int32, acc: Int32 | None = None, *, saturates: bool = False) -> Int32:
    """``a[m, k] @ b[k, n] + acc`` exactly, modulo 2**32 or, at the end, saturated to int32.

    Returns a new int32 array [m, n].
    """
    sums = _int_product(a, b, exact=saturates)
    if acc is not None:
        sums = sums + acc.astype(sums.dtype)
    if saturates:
        sums = np.clip(sums, -(2**31), 2**31 - 1)
    return sums.astype(np.int32)


def row_sums(a: Array, lanes: int = 0) -> Array:
    """Sums of the rows of ``a[rows, cols]`` as [rows, 1], in the carrier of ``a``.

    Column c goes to lane c mod ``lanes`` (0: one lane for each column); each lane adds its columns
    in ascending order from +0; then neighbouring lanes are added pairwise, (0+1), (2+3), ..., until
    one is left.
    """
    rows, cols = a.shape
    lanes = min(lanes or cols, cols)
    chunks = -(-cols // lanes)
    padded = np.zeros((rows, chunks * lanes), dtype=a.dtype)
    padded[:, :cols] = a
    partial = np.zeros((rows, lanes), dtype=a.dtype)
    for chunk in range(chunks):
        partial += padded[:, chunk * lanes : (chunk + 1) * lanes]
    while partial.shape[1] > 1:
        if partial.shape[1] % 2:
            partial = np.pad(partial, ((0, 0), (0, 1)))
        partial = partial[:, 0::2] + partial[:, 1::2]
    return partial


def row_sum_depth(cols: int, lanes: int = 0) -> int:
    """Additions with a rounding that a value passes through in ``row_sums``, at most."""
    lanes = min(lanes or cols, cols)
    return -(-cols // lanes) - 1 + int(lanes - 1).bit_length()


def _int_product(a: Int32, b: Int32, *, exact: bool) -> Array:
    largest = float(_magnitude(a)) * float(_magnitude(b)) * a.shape[1]
    if largest < 2.0**53:
        # Every partial sum is an integer that float64 holds, so any order is exact, and BLAS fast.
        return (a.astype(np.float64) @ b.astype(np.float64)).astype(np.int64)
    if exact and largest >= 2.0**62:
        return np.asarray(a.astype(object) @ b.astype(object))
    # int64 wraps modulo 2**64, which leaves the low 32 bits right.
    return np.asarray(a.astype(np.int64) @ b.astype(np.int64))


def _magnitude(values: Int32) -> int:
    return max(abs(int(values.max(initial=0))), abs(int(values.min(initial=0))))


def _start(a: Float32, b: Float32, acc: Float32 | None) -> Float32:
    if acc is None:
        return np.zeros((a.shape[0], b.shape[1]), dtype=np.float32)
    return np.array(acc, dtype=np.float32, order="C")


def _fp32(values: Float32) -> Float32:
    return np.ascontiguousarray(values, dtype=np.float32)


def _as(values: Array, carrier: DType) -> Array:
    return np.ascontiguousarray(values, dtype=carrier)


def _held(values: Float32, adder: Format) -> Float32:
    rounded: Float32 = adder.decode(adder.encode(values)).astype(np.float32)
    return rounded
