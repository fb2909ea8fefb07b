"""Operands as bit patterns, from integers alone: the same with every version of every library.

A class of values says which patterns are drawn, uniformly within each field:

    narrow         exponents within 4 of one, all significands
    small          exponents from -6 to -1, likewise
    wide           every finite exponent
    subnormal      three quarters subnormal, the rest just above
    patterns       every bit pattern, NaN and Inf among them
    cancellation   neighbours in k of opposite sign that nearly cancel
    positive       as narrow, without signs: errors of truncation add up
    integers       whole numbers so small that every order of summation is exact
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from accelsim.numerics.splitmix import key_of, splitmix64

Codes = npt.NDArray[Any]
Words = npt.NDArray[np.uint64]
Values = Literal[
    "narrow", "small", "wide", "subnormal", "patterns", "cancellation", "positive", "integers"
]  # fmt: skip

VERSION = 1
"""Goes up when a class draws other patterns: what was recorded before is then refused."""
CLASSES: tuple[Values, ...] = (
    "narrow", "wide", "subnormal", "patterns", "cancellation", "positive", "integers"
)  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """The fields of a floating-point word, from the top: sign, exponent, mantissa, padding.

    ``nan_only`` formats have no Inf: only the word of all ones is not a number (fp8 e4m3).
    """

    bits: int
    exponent_bits: int
    mantissa_bits: int
    padding: int = 0
    nan_only: bool = False

    @property
    def bias(self) -> int:
        return (1 << (self.exponent_bits - 1)) - 1

    @property
    def top(self) -> int:
        """The largest exponent field that holds finite numbers."""
        return (1 << self.exponent_bits) - (1 if self.nan_only else 2)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(f"<u{self.bits // 8}")


LAYOUTS = {
    "fp32": Layout(32, 8, 23),
    "tf32": Layout(32, 8, 10, padding=13),
    "bf16": Layout(16, 8, 7),
    "fp16": Layout(16, 5, 10),
    "fp8_e4m3": Layout(8, 4, 3, nan_only=True),
    "fp8_e5m2": Layout(8, 5, 2),
}
INTEGERS: dict[str, np.dtype[Any]] = {
    "int8": np.dtype("<i1"),
    "uint8": np.dtype("<u1"),
    "int32": np.dtype("<i4"),
}

EXACT_BITS = {"fp32": 24, "fp16": 11, "int32": 31}
"""Whole numbers below two to this are exact in an accumulator, whatever their order."""
NARROW, SMALL = 4, 6


def dtype_of(fmt: str) -> np.dtype[Any]:
    """The type in which bit patterns of a format are kept."""
    return INTEGERS[fmt] if fmt in INTEGERS else LAYOUTS[fmt].dtype


def draw(fmt: str, values: Values, shape: tuple[int, ...], key: str, limit: int = 0) -> Codes:
    """Bit patterns of a format; the last axis is k. ``limit`` bounds whole numbers."""
    count = int(np.prod(shape, dtype=np.int64))
    words = splitmix64(key_of(f"{key}:{fmt}:{values}"), count).reshape(shape)
    if values == "integers":
        return encode_integers(fmt, _whole(words, limit))
    if fmt in INTEGERS:
        return _integers(fmt, values, words)
    if values == "cancellation":
        return _cancelling(fmt, words)
    return _floats(LAYOUTS[fmt], values, words)


def whole_limit(k: int, accumulator_bits: int, *formats: str) -> int:
    """The largest |whole number| of operands whose sums over k are exact in any order."""
    bound = isqrt(((1 << accumulator_bits) - 1) // (k + 1))
    for fmt in formats:
        most = 127 if fmt in INTEGERS else 1 << (LAYOUTS[fmt].mantissa_bits + 1)
        bound = min(bound, most)
    return bound


def encode_integers(fmt: str, values: npt.NDArray[np.int64]) -> Codes:
    """Whole numbers as bit patterns of a format that holds them exactly."""
    if fmt in INTEGERS:
        return values.astype(INTEGERS[fmt])
    layout = LAYOUTS[fmt]
    size = np.abs(values)
    exponent = np.zeros_like(size)
    for bit in range(1, 40):
        exponent += size >> bit > 0
    shift = layout.mantissa_bits - exponent
    kept = np.where(shift >= 0, size << np.maximum(shift, 0), size >> np.maximum(-shift, 0))
    if (np.where(shift < 0, kept << np.maximum(-shift, 0), size) != size).any():
        raise ValueError(f"{fmt} does not hold every one of these whole numbers")
    field = (exponent + layout.bias) << layout.mantissa_bits
    code = field | (kept & ((1 << layout.mantissa_bits) - 1))
    signed = code | ((values < 0).astype(np.int64) << (layout.bits - layout.padding - 1))
    return (np.where(size == 0, 0, signed) << layout.padding).astype(layout.dtype)


def _whole(words: Words, limit: int) -> npt.NDArray[np.int64]:
    return (words % np.uint64(2 * limit + 1)).astype(np.int64) - limit


def _integers(fmt: str, values: Values, words: Words) -> Codes:
    dtype = INTEGERS[fmt]
    drawn = (words >> np.uint64(32)).astype(f"<u{dtype.itemsize}").view(dtype)
    if values == "positive":
        return np.asarray(np.abs(drawn.astype(np.int64)) % (1 << (8 * dtype.itemsize - 1))).astype(
            dtype
        )
    return drawn


def _floats(layout: Layout, values: Values, words: Words) -> Codes:
    """Sign, exponent and mantissa, each from bits of its own of a random word."""
    man = layout.mantissa_bits
    mantissa = words & np.uint64((1 << man) - 1)
    pick = (words >> np.uint64(32)) & np.uint64(0xFFFF)
    sign = words >> np.uint64(63)
    if values == "patterns":
        return (words >> np.uint64(24)).astype(layout.dtype)
    if values == "subnormal":
        field = np.where(pick % np.uint64(4) == 0, 1 + (pick >> np.uint64(2)) % np.uint64(2), 0)
    elif values == "wide":
        field = pick % np.uint64(layout.top + 1)
    elif values == "small":
        field = np.uint64(layout.bias - SMALL) + pick % np.uint64(SMALL)
    else:
        low = layout.bias - NARROW
        field = np.uint64(low) + pick % np.uint64(2 * NARROW)
    if values == "positive":
        sign = np.zeros_like(sign)
    field = field.astype(np.uint64)
    if layout.nan_only:  # the word of all ones is no number
        ones = (field == layout.top) & (mantissa == (1 << man) - 1)
        mantissa = np.where(ones, mantissa - np.uint64(1), mantissa)
    code = sign << np.uint64(layout.exponent_bits + man) | field << np.uint64(man) | mantissa
    return np.asarray(code << np.uint64(layout.padding)).astype(layout.dtype)


def _cancelling(fmt: str, words: Words) -> Codes:
    """Odd k repeat the even one before, signs flipped, every fourth with its last bit changed.

    Operands that are not to change sign are drawn with ``repeated``.
    """
    layout = LAYOUTS[fmt]
    codes = _floats(layout, "narrow", words)
    even = codes[..., 0::2][..., : codes.shape[-1] // 2]
    odd = slice(1, 2 * even.shape[-1], 2)
    nudged = (words[..., odd] >> np.uint64(20)) % np.uint64(4) == 0
    sign = layout.dtype.type(1 << (layout.bits - 1))
    last = layout.dtype.type(1 << layout.padding)
    codes[..., odd] = (even ^ sign) ^ np.where(nudged, last, layout.dtype.type(0))
    return codes


def repeated(codes: Codes) -> Codes:
    """B of a cancellation: odd k repeat the even one before."""
    out = codes.copy()
    half = codes.shape[-1] // 2
    out[..., 1 : 2 * half : 2] = out[..., 0 : 2 * half : 2]
    return out
