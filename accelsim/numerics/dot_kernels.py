"""Compiled fused dot products of tensor cores. Import inside the function that needs them: numba is
slow to load.

Operands come apart: ``significand`` (signed integers) and ``exponent`` (int32), so that a value is
significand 2**(exponent - fraction bits of its format). What is not a number lies far outside the
exponents: sums of two of these constants still tell zero, Inf and NaN apart.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from accelsim._jit import njit

Significands = npt.NDArray[np.int32]
Exponents = npt.NDArray[np.int32]
Bits = npt.NDArray[np.uint32]

ZERO = -(1 << 20)
INFINITE = 1 << 22
NOT_A_NUMBER = 1 << 24
SPECIAL_ABOVE = 1 << 21
NAN_ABOVE = 9 << 20
# Inf * 0 is INFINITE + ZERO = 3 << 20, Inf * finite is near 4 << 20, Inf * Inf is 8 << 20.
INFINITE_ABOVE = 7 << 19


class StepNumbers(NamedTuple):
    """tensor_core.DotStep as the kernels take it: plain numbers.

    ``lift`` is fraction_bits - the fraction bits of a product; ``mantissa``, ``bias`` and ``top``
    (the code of Inf) belong to the format of c and d.
    """

    products: int
    fraction_bits: int
    lift: int
    kept_bits: int
    nearest: bool
    zero_c_exponent: int
    least_exponent: int
    normalizes_c: bool
    signed_underflow: bool
    mantissa: int
    bias: int
    top: int


@njit
def products(
    sa: Significands, ea: Exponents, sb: Significands, eb: Exponents, c: Bits, d: Bits,
    step: StepNumbers,
) -> None:  # fmt: skip
    """``d[m, n]`` = the chain of steps over ``a[m, k]`` and ``b[n, k]`` that starts from ``c``.

    k must be whole steps; c and d hold bit patterns of the step's result format.
    """
    for i in range(c.shape[0]):
        for j in range(c.shape[1]):
            d[i, j] = _chain(sa[i], ea[i], sb[j], eb[j], c[i, j], step)


@njit
def dots(
    sa: Significands, ea: Exponents, sb: Significands, eb: Exponents, c: Bits, d: Bits,
    step: StepNumbers,
) -> None:  # fmt: skip
    """``d[n]`` = the chain over the pairs of rows ``a[n, k]`` and ``b[n, k]`` from ``c[n]``."""
    for i in range(c.shape[0]):
        d[i] = _chain(sa[i], ea[i], sb[i], eb[i], c[i], step)


@njit
def _chain(
    sa: Significands, ea: Exponents, sb: Significands, eb: Exponents, c: np.uint32,
    step: StepNumbers,
) -> np.uint32:  # fmt: skip
    width = step.products
    mantissa, bias, top = step.mantissa, step.bias, step.top
    hidden = np.int64(1) << mantissa
    sign_bit = np.int64(1) << (31 if top > 0x7C00 else 15)
    word: Any = np.int64(c)
    up, down = (step.lift, 0) if step.lift >= 0 else (0, -step.lift)
    for first in range(0, sa.shape[0], width):
        # c
        negative = (word & sign_bit) != 0
        magnitude = word & (sign_bit - 1)
        field: Any = magnitude >> mantissa
        cm = magnitude & (hidden - 1)
        if field > 0:
            cm |= hidden
        else:
            field = np.int64(1)
        ce = field - bias
        if cm == 0:
            ce = np.int64(step.zero_c_exponent)
        elif step.normalizes_c:
            while cm < hidden:
                cm <<= 1
                ce -= 1
        # the largest exponent
        largest: Any = np.int32(ZERO * 2)
        for k in range(first, first + width):
            e = ea[k] + eb[k]
            largest = max(largest, e)
        if largest > SPECIAL_ABOVE or magnitude >= top:
            word = _special(sa, ea, sb, eb, first, width, word, top, sign_bit)
            continue
        emax: Any = max(np.int64(largest), ce, np.int64(step.least_exponent))
        # align, truncate, add
        total = np.int64(0)
        for k in range(first, first + width):
            p = np.int64(sa[k]) * np.int64(sb[k])
            drop: Any = min(emax - np.int64(ea[k] + eb[k]) + down, np.int64(62))
            term = (abs(p) << up) >> drop
            total += term if p >= 0 else -term
        r = step.fraction_bits - mantissa - emax + ce
        aligned = cm << r if r >= 0 else (cm >> -r if r > -63 else np.int64(0))
        total += -aligned if negative else aligned
        word = _rounded(total, emax, step, sign_bit)
    return np.uint32(word)


@njit
def _rounded(total: Any, emax: Any, step: StepNumbers, sign_bit: Any) -> Any:
    """Bits of total 2**(emax - fraction_bits), normalised and rounded once."""
    if total == 0:
        return np.int64(0)
    negative = total < 0
    magnitude = -total if negative else total
    length: Any = np.int64(0)
    rest = magnitude
    for jump in (32, 16, 8, 4, 2, 1):
        if rest >> jump:
            length += jump
            rest >>= jump
    exponent = length + emax - step.fraction_bits
    least = 1 - step.bias
    at: Any = max(exponent, least)
    drop = at - step.kept_bits - (emax - step.fraction_bits)
    if drop <= 0:
        code: Any = magnitude << -drop
    elif drop > 62:
        code = np.int64(0)
    else:
        code = magnitude >> drop
        if step.nearest:
            lost = magnitude & ((np.int64(1) << drop) - 1)
            half = np.int64(1) << (drop - 1)
            if lost > half or (lost == half and code & 1):
                code += 1
    code <<= step.mantissa - step.kept_bits
    code += (at - least) << step.mantissa
    code = min(code, np.int64(step.top))
    if negative and (code != 0 or step.signed_underflow):
        code |= sign_bit
    return code


@njit
def _special(
    sa: Significands, ea: Exponents, sb: Significands, eb: Exponents, first: int, width: int,
    word: Any, top: int, sign_bit: Any,
) -> Any:  # fmt: skip
    """Bits of a step that has Inf or NaN among its terms; NaN has all bits set but the sign."""
    nan = sign_bit - 1
    plus, minus = False, False
    magnitude = word & nan
    if magnitude > top:
        return nan
    if magnitude == top:
        plus, minus = (word & sign_bit) == 0, (word & sign_bit) != 0
    for k in range(first, first + width):
        e = np.int64(ea[k] + eb[k])
        if e > NAN_ABOVE or (SPECIAL_ABOVE < e < INFINITE_ABOVE):
            return nan
        if e > INFINITE_ABOVE:
            if (sa[k] < 0) == (sb[k] < 0):
                plus = True
            else:
                minus = True
    if plus and minus:
        return nan
    return top if plus else top | sign_bit
