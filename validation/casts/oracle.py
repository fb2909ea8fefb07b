"""What a cast should give, from the definitions of the formats alone, in rational numbers.

Shares no code with accelsim.numerics. Of narrow formats the grid of all magnitudes is built from
their bit fields as fractions, a value lies between two neighbours of the grid, and which of them it
becomes is decided by comparing it with them and with their midpoint. Grid and midpoints are float64
exactly, which is checked, so that the comparisons can be made on whole arrays. Of wide formats, and
where integers wrap, every value is a fraction of its own (``rational``).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

LAYOUTS: dict[str, tuple[int, int, int, str]] = {
    "fp16": (5, 10, 15, "ieee"),
    "bf16": (8, 7, 127, "ieee"),
    "tf32": (8, 10, 127, "ieee"),
    "fp8_e4m3": (4, 3, 7, "fn"),
    "fp8_e5m2": (5, 2, 15, "ieee"),
    "fp8_e4m3fnuz": (4, 3, 8, "fnuz"),
    "fp8_e5m2fnuz": (5, 2, 16, "fnuz"),
    "fp6_e2m3": (2, 3, 1, "finite"),
    "fp6_e3m2": (3, 2, 3, "finite"),
    "fp4_e2m1": (2, 1, 1, "finite"),
}
"""Exponent bits, mantissa bits, bias and special codes (OCP FP8 1.0, OCP MX 1.0, IEEE 754)."""

SCALES = {"e8m0": 127}
"""Powers of two from the code 0 on, without sign and zero, and their bias (OCP MX 1.0)."""

WIDE: dict[str, tuple[int, int]] = {"fp32": (23, 127), "fp64": (52, 1023)}
"""Mantissa bits and bias of formats whose grid is too long (IEEE 754)."""

RANGES: dict[str, tuple[int, int]] = {
    "int16": (-32768, 32767),
    "int8": (-128, 127),
    "int4": (-8, 7),
    "int2": (-2, 1),
    "ternary": (-1, 1),
    "uint8": (0, 255),
    "uint4": (0, 15),
    "uint2": (0, 3),
    "uint1": (0, 1),
}

LONG_RANGES: dict[str, tuple[int, int]] = {"int32": (-(2**31), 2**31 - 1)}
WRAPPING = {
    "int32": 32, "int16": 16, "int8": 8, "int4": 4, "int2": 2, "uint8": 8, "uint4": 4, "uint2": 2,
    "uint1": 1,
}  # fmt: skip
"""Integers that use all their bits."""

SPLITMIX = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def magnitude(name: str, code: int) -> Fraction:
    """The value of the code without its sign bit."""
    _, mantissa_bits, bias, _ = LAYOUTS[name]
    exponent, mantissa = divmod(code, 1 << mantissa_bits)
    if exponent:
        mantissa += 1 << mantissa_bits
    return Fraction(mantissa) * Fraction(2) ** (max(exponent, 1) - bias - mantissa_bits)


def finite_codes(name: str) -> int:
    """How many codes from 0 upwards are finite magnitudes."""
    exponent_bits, mantissa_bits, _, specials = LAYOUTS[name]
    every = 1 << (exponent_bits + mantissa_bits)
    return every - {"ieee": 1 << mantissa_bits, "fn": 1, "fnuz": 0, "finite": 0}[specials]


@dataclass(frozen=True)
class Grid:
    """Magnitudes that rounding chooses from: all finite ones and the one that would follow."""

    points: Floats
    midpoints: Floats
    signed: bool
    low: float
    high: float

    @property
    def top(self) -> int:
        return len(self.points) - 2


def float_grid(name: str) -> Grid:
    """The grid of a floating-point format; every number in it is a float64 exactly."""
    exact = [magnitude(name, code) for code in range(finite_codes(name) + 1)]
    return _grid(exact, float(-exact[-2]), float(exact[-2]))


def scale_grid(name: str) -> Grid:
    """The grid of a format of scales: the last code is NaN, 2^128 would follow."""
    exact = [Fraction(2) ** (code - SCALES[name]) for code in range(256)]
    return _grid(exact, 0.0, float(exact[-2]))


def integer_grid(name: str) -> Grid:
    """The grid of an integer format, one further than its larger limit."""
    low, high = RANGES[name]
    exact = [Fraction(v) for v in range(max(-low, high) + 2)]
    return _grid(exact, float(low), float(high))


def _grid(exact: list[Fraction], low: float, high: float) -> Grid:
    middle = [(a + b) / 2 for a, b in pairwise(exact)]
    points, midpoints = (np.array([float(v) for v in which]) for which in (exact, middle))
    for which, held in ((exact, points), (middle, midpoints)):
        assert all(Fraction(h) == v for h, v in zip(held.tolist(), which, strict=True))
    return Grid(points, midpoints, low < 0, low, high)


def chosen(grid: Grid, x: Floats, rounding: str, seed: int) -> Codes:
    """Index in the grid of the magnitude that every finite ``x`` is rounded to.

    The last index stands for anything beyond the largest value.
    """
    size = np.abs(x)
    beyond = size >= grid.points[-1]
    below = np.clip(np.searchsorted(grid.points, size, "right") - 1, 0, grid.top)
    inexact = size != grid.points[below]
    if rounding == "RNE":
        middle = grid.midpoints[below]
        up = (size > middle) | ((size == middle) & (below % 2 == 1))
    elif rounding == "SR":
        up = _stochastic(grid, size, below, seed)
    else:
        outwards = {"RZ": np.zeros_like(beyond), "RU": x > 0, "RD": x < 0}
        up = outwards[rounding]
    # What lies below the smallest scale becomes it.
    index = below + (up & inexact & (size >= grid.points[0]))
    return np.asarray(np.where(beyond, grid.top + 1, index))


def _stochastic(grid: Grid, size: Floats, below: Codes, seed: int) -> npt.NDArray[np.bool_]:
    up = np.zeros(len(size), dtype=bool)
    for i, (value, at) in enumerate(zip(size.tolist(), below.tolist(), strict=True)):
        low, high = Fraction(grid.points[at]), Fraction(grid.points[at + 1])
        share = (Fraction(value) - low) / (high - low)
        up[i] = (share * 2**64).__floor__() > random_word(seed, i)
    return up


def random_word(seed: int, index: int) -> int:
    """Word ``index`` of splitmix64."""
    z = ((index + 1) * SPLITMIX[0] + seed) % 2**64
    z = (z ^ (z >> 30)) * SPLITMIX[1] % 2**64
    z = (z ^ (z >> 27)) * SPLITMIX[2] % 2**64
    return z ^ (z >> 31)


def cast(name: str, x: Floats, rounding: str, overflow: str, seed: int = 0) -> Floats:
    """The values, as float64, that ``x`` (finite, infinite, NaN) becomes in the format."""
    grid = float_grid(name) if name in LAYOUTS else integer_grid(name)
    return on_grid(grid, name, x, rounding, overflow, seed)


def on_scales(grid: Grid, x: Floats, rounding: str, overflow: str, seed: int) -> Floats:
    """Scales of what is not negative."""
    index = chosen(grid, np.where(np.isfinite(x), x, 0.0), rounding, seed)
    edge = grid.high if overflow == "saturate" else np.nan
    inward = np.isfinite(x) & (rounding in ("RZ", "RD"))
    outside = (index > grid.top) | np.isinf(x)
    value = np.where(outside, np.where(inward, grid.high, edge), grid.points[index])
    return np.where(np.isnan(x), np.nan, value)


def rational(name: str, value: float, rounding: str, overflow: str, word: int) -> float:
    """What one number (float or int) becomes; ``word`` decides where the rounding is stochastic."""
    whole = name not in WIDE
    if value != value:
        return 0.0 if whole else value
    low, high = {**RANGES, **LONG_RANGES}[name] if whole else (0, _largest(name))
    if abs(value) == np.inf:
        if whole:
            return 0.0 if overflow == "wrap" else float(high if value > 0 else low)
        edge = {"infinity": np.inf, "nan": np.nan, "saturate": high}[overflow]
        return float(np.copysign(edge, value))
    size = abs(Fraction(value))
    quantum = Fraction(1) if whole else _quantum(name, size)
    units, rest = divmod(size, quantum)
    units += _goes_up(rest / quantum, units % 2 == 1, value < 0, rounding, word)
    size = units * quantum
    if whole:
        found = int(-size if value < 0 else size)
        if overflow == "wrap":
            return float((found - low) % (1 << WRAPPING[name]) + low)
        return float(min(max(found, low), high))
    if size > high:
        inward = rounding == "RZ" or rounding == ("RU" if value < 0 else "RD")
        edge = {"infinity": np.inf, "nan": np.nan, "saturate": high}[overflow]
        return float(np.copysign(high if inward else edge, value))
    return float(np.copysign(float(size), value))


def _goes_up(share: Fraction, odd: bool, negative: bool, rounding: str, word: int) -> bool:
    """Whether what is ``share`` of the way to the next multiple is rounded away from zero."""
    if rounding == "RNE":
        return share > Fraction(1, 2) or (share == Fraction(1, 2) and odd)
    if rounding == "SR":
        return (share * 2**64).__floor__() > word
    return share > 0 and rounding == ("RD" if negative else "RU")


def _largest(name: str) -> float:
    mantissa_bits, bias = WIDE[name]
    return float((2 - Fraction(1, 1 << mantissa_bits)) * Fraction(2) ** bias)


def _quantum(name: str, size: Fraction) -> Fraction:
    """Distance of the numbers of a format around ``size``."""
    mantissa_bits, bias = WIDE[name]
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    if Fraction(2) ** exponent > size:
        exponent -= 1
    return Fraction(2) ** (max(exponent, 1 - bias) - mantissa_bits)


def on_grid(grid: Grid, name: str, x: Floats, rounding: str, overflow: str, seed: int) -> Floats:
    """``cast`` with a grid that was made before."""
    if name in SCALES:
        positive = on_scales(grid, np.abs(x), rounding, overflow, seed)
        return np.where(x < 0, np.nan, positive)
    finite = np.isfinite(x)
    index = chosen(grid, np.where(finite, x, 0.0), rounding, seed)
    value = np.copysign(grid.points[index], x)
    if name in RANGES:
        value = np.where(finite, value, x)
        return np.where(np.isnan(x), 0.0, np.clip(value, grid.low, grid.high)) + 0.0
    outside = (index > grid.top) | np.isinf(x)
    inward = {"RZ": np.ones_like(finite), "RU": x < 0, "RD": x > 0}.get(rounding, ~np.isfinite(0.0))
    edge: Any = {"infinity": np.inf, "nan": np.nan, "saturate": grid.high}[overflow]
    kept = np.where(inward & finite, grid.high, edge)
    value = np.where(outside, np.copysign(kept, x), value)
    nothing = grid.high if LAYOUTS[name][3] == "finite" else np.nan
    value = np.where(np.isnan(x), np.copysign(nothing, x), value)
    return value + 0.0 if LAYOUTS[name][3] == "fnuz" else value
