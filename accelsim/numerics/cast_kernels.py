"""Compiled casts of float64 to narrower formats. Import inside the function that needs them: numba
is slow to load.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim._jit import njit

Words = npt.NDArray[np.uint64]
Codes = npt.NDArray[np.uint32]
Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]

# Places in cast.ROUNDINGS and cast.OVERFLOWS.
RNE, RZ, RU, RD, SR = 0, 1, 2, 3, 4
NAN, SATURATE = 1, 2

FRACTION = 52
BIAS = 1023


@njit
def random_word(key: np.uint64, index: int) -> np.uint64:
    """Word ``index`` of splitmix64 (Steele, Lea, Flood, OOPSLA 2014) keyed by ``key``."""
    z = np.uint64(index + 1) * np.uint64(0x9E3779B97F4A7C15) + key
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit
def keep(significand: Any, drop: Any, mode: int, negative: Any, key: np.uint64, index: int) -> Any:
    """``significand`` / 2**``drop`` rounded to an integer; ``drop`` >= 0.

    Of 53 bits, or of 64 if no more than 53 are dropped.
    """
    if drop == 0:
        return significand
    if drop > FRACTION + 1:
        kept, rest = np.uint64(0), significand
    else:
        kept = significand >> np.uint64(drop)
        rest = significand & ((np.uint64(1) << np.uint64(drop)) - np.uint64(1))
    if rest == np.uint64(0):
        return kept
    up: Any = False
    if mode == RNE:
        if drop <= FRACTION + 1:
            half = np.uint64(1) << np.uint64(drop - 1)
            up = rest > half or (rest == half and (kept & np.uint64(1)) == np.uint64(1))
    elif mode == RU:
        up = not negative
    elif mode == RD:
        up = negative
    elif mode == SR:
        # The first 64 bits of what is cut off, against 64 random ones.
        if drop <= 64:
            share = rest << np.uint64(64 - drop)
        elif drop < 128:
            share = rest >> np.uint64(drop - 64)
        else:
            share = np.uint64(0)
        up = share > random_word(key, index)
    return kept + np.uint64(1) if up else kept


@njit
def to_floats(
    x: Words,
    out: Codes,
    mode: int,
    key: np.uint64,
    mantissa: int,
    min_exponent: int,
    top: int,
    beyond: int,
    infinity: int,
    nan: int,
    sign: int,
    padding: int,
    overflow: int,
    no_negative_zero: int,
    scale: int,
) -> None:
    """Codes ``out[n]`` of the float64 words ``x[n]``; the other arguments are cast._layout's.

    Of a scale (no sign, no zero) negative numbers are NaN and 0 is the smallest value.
    """
    for i in range(len(x)):
        word: Any = x[i]
        code: Any = 0
        negative = (word >> np.uint64(63)) == np.uint64(1)
        field: Any = np.int64((word >> np.uint64(FRACTION)) & np.uint64(0x7FF))
        significand = word & np.uint64(0xFFFFFFFFFFFFF)
        if field == 0x7FF:
            if significand != np.uint64(0) or (scale and negative):
                code = nan
            elif overflow == SATURATE:
                code = top
            else:
                code = nan if overflow == NAN else infinity
        elif field == 0 and significand == np.uint64(0):
            code = 0
        elif scale and negative:
            code = nan
        else:
            if field == 0:
                field = 1
                while significand < np.uint64(1) << np.uint64(FRACTION):
                    significand <<= np.uint64(1)
                    field -= 1
            else:
                significand |= np.uint64(1) << np.uint64(FRACTION)
            exponent = field - BIAS
            at = exponent if exponent > min_exponent else min_exponent
            if scale:
                code = np.int64(_scale_code(significand, exponent, mode, key, i)) - min_exponent
                code = 0 if code < 0 else code
            else:
                drop = at - mantissa - exponent + FRACTION
                kept = keep(significand, drop, mode, negative, key, i)
                code = np.int64(kept) + ((at - min_exponent) << mantissa)
            if code > top:
                inward = mode == RZ or (mode == RU and negative) or (mode == RD and not negative)
                code = top if inward else beyond
        if negative and not (code == 0 and no_negative_zero) and not (code == nan and sign == nan):
            code |= sign
        out[i] = np.uint32(code << padding)


@njit
def _scale_code(significand: Any, exponent: Any, mode: int, key: np.uint64, i: int) -> Any:
    """Exponent of the power of two that a positive number is rounded to."""
    rest = significand & np.uint64(0xFFFFFFFFFFFFF)
    if rest == np.uint64(0):
        return exponent
    half = np.uint64(1) << np.uint64(FRACTION - 1)
    up: Any = False
    if mode == RNE:
        # A tie goes to the even code; the bias of 127 makes that the odd exponent.
        up = rest > half or (rest == half and exponent % 2 == 0)
    elif mode == RU:
        up = True
    elif mode == SR:
        up = (rest << np.uint64(64 - FRACTION)) > random_word(key, i)
    return exponent + 1 if up else exponent


@njit
def to_doubles(sizes: Words, negative: Bools, out: Doubles, mode: int, key: np.uint64) -> None:
    """``out[n]`` = the whole number ``sizes[n]``, negated where ``negative[n]``, as float64."""
    for i in range(len(sizes)):
        drop: Any = 0
        while sizes[i] >> np.uint64(drop) >= np.uint64(1) << np.uint64(FRACTION + 1):
            drop += 1
        value = math.ldexp(float(keep(sizes[i], drop, mode, negative[i], key, i)), drop)
        out[i] = -value if negative[i] else value


@njit
def to_integers(
    x: Words, out: Codes, mode: int, key: np.uint64, low: int, high: int, mask: int, wraps: bool
) -> None:
    """Two's complement codes ``out[n]`` of the float64 words ``x[n]``; NaN becomes 0."""
    for i in range(len(x)):
        word: Any = x[i]
        negative = (word >> np.uint64(63)) == np.uint64(1)
        field: Any = np.int64((word >> np.uint64(FRACTION)) & np.uint64(0x7FF))
        significand = word & np.uint64(0xFFFFFFFFFFFFF)
        if field == 0x7FF and significand != np.uint64(0):
            out[i] = np.uint32(0)
            continue
        if field > 0:
            significand |= np.uint64(1) << np.uint64(FRACTION)
        else:
            field = 1
        exponent = field - BIAS
        if exponent > 62:
            # Only the low bits matter where integers wrap; beyond 2**116 they are all 0.
            lift = exponent - FRACTION
            whole = significand << np.uint64(lift) if wraps and lift < 64 else np.uint64(0)
            value: Any = np.int64(whole & np.uint64(0xFFFFFFFF))
            if not wraps:
                value = np.int64(1) << np.int64(62)
        elif exponent >= FRACTION:
            value = np.int64(significand << np.uint64(exponent - FRACTION))
        else:
            value = np.int64(keep(significand, FRACTION - exponent, mode, negative, key, i))
        value = -value if negative else value
        if not wraps:
            value = low if value < low else (high if value > high else value)
        out[i] = np.uint32(value & mask)
