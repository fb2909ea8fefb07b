"""Compiled exponentials in fp32. Import inside the function that needs them: numba is slow to load.

Every operation is one IEEE fp32 operation, fused multiply-adds included, so that the bits are the
same on every machine. Coefficients: minimax fits (Lawson's weighting) of (2^f - 1)/f on
[-1/2, 1/2] and of (e^r - 1)/r on [-ln 2 / 2, ln 2 / 2], rounded to fp32; their own relative error
is 2^-28.9. The reduction of e^x: Cody and Waite, Software Manual for the Elementary Functions,
1980, §6, with ln 2 in two parts.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from accelsim._intrinsics import fma
from accelsim._jit import njit

Float32 = npt.NDArray[np.float32]

EXP2 = tuple(
    np.float32(float.fromhex(c))
    for c in (
        "0x1.62e430p-1", "0x1.ebfbe0p-3", "0x1.c6aed0p-5",
        "0x1.3b29aap-7", "0x1.5f47b0p-10", "0x1.448fbcp-13",
    )
)  # fmt: skip
EXP = tuple(
    np.float32(float.fromhex(c))
    for c in (
        "0x1.000000p+0", "0x1.000000p-1", "0x1.555406p-3",
        "0x1.555432p-5", "0x1.126ee0p-7", "0x1.6dcf20p-10",
    )
)  # fmt: skip
ONE = np.float32(1.0)
ZERO = np.float32(0.0)
# Adding 1.5 x 2^23 leaves the nearest whole number in the low bits, for sizes below 2^22.
SHIFT = np.float32(12582912.0)
LOG2_E = np.float32(1.4426950408889634)
LN2_HIGH = np.float32(0.693145751953125)
LN2_LOW = np.float32(1.42860682030941723e-06)
LEAST = 2.0**-126


@njit
def exp2(x: Float32, out: Float32) -> None:
    """``out[n]`` = 2^x: n = rint(x), f = x - n exactly, degree 6 in f by Horner, times 2^n.

    Results below 2^-126 are +0, as MUFU.EX2 flushes them; whole x give powers of two.
    """
    for i in range(len(x)):
        v = x[i]
        if not (np.float32(-127.0) <= v < np.float32(128.0)):
            out[i] = _beyond(v)
            continue
        n = (v + SHIFT) - SHIFT
        f = v - n
        out[i] = _scaled(_polynomial(EXP2, f), int(n))


@njit
def exp(x: Float32, out: Float32) -> None:
    """``out[n]`` = e^x: n = rint(x log2 e), r = x - n ln 2 by two FMAs, degree 6 in r, times 2^n.

    Results below 2^-126 are +0.
    """
    for i in range(len(x)):
        v = x[i]
        if not (np.float32(-88.0) <= v < np.float32(89.0)):
            out[i] = _beyond(v)
            continue
        n = (v * LOG2_E + SHIFT) - SHIFT
        r = fma(-n, LN2_HIGH, v)
        r = fma(-n, LN2_LOW, r)
        out[i] = _scaled(_polynomial(EXP, r), int(n))


@njit
def _polynomial(coefficients: tuple[np.float32, ...], r: np.float32) -> np.float32:
    """1 + c1 r + ... + c6 r^6 by Horner."""
    c1, c2, c3, c4, c5, c6 = coefficients
    p = fma(c6, r, c5)
    p = fma(p, r, c4)
    p = fma(p, r, c3)
    p = fma(p, r, c2)
    p = fma(p, r, c1)
    return np.float32(fma(p, r, ONE))


@njit
def _scaled(y: np.float32, n: int) -> np.float32:
    # float64 holds y 2^n exactly, whatever n.
    wide = math.ldexp(np.float64(y), n)
    return np.float32(wide) if wide >= LEAST else ZERO


@njit
def _beyond(v: np.float32) -> np.float32:
    if v != v:
        return v
    return np.float32(np.inf) if v > ZERO else ZERO
