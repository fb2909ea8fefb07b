"""Every cast rounds once: all formats, all roundings, all overflow rules, against rationals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.numerics.cast import OVERFLOWS, ROUNDINGS
from accelsim.numerics.formats import Format, Overflow, Rounding, number_format
from accelsim.numerics.splitmix import splitmix64
from accelsim.results.claims import Claim, Row

from . import oracle

CLAIM = Claim(
    name="casts",
    statement="wrong casts of random float64, all values, all halfway points and their neighbours"
    " (of fp32, fp64, int32 and wrapping integers those around the ends)",
    source="the formats' definitions (IEEE 754, OCP FP8 1.0, OCP MX 1.0) in rational numbers",
    tolerance=0.0,
)

Floats = npt.NDArray[np.float64]

RANDOM = 130_000
"""Random float64 for each format and each rounding that is not stochastic: 1.04e7 in all."""
STOCHASTIC = 3_000
RATIONAL = 2_000
"""Random numbers for each format, rounding and rule that are compared one by one."""
SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324, -5e-324, 1.7e308, -1.7e308])


def rows() -> Iterator[Row]:
    """Wrong casts of each format, all roundings and rules together, and how many there were."""
    for name in (*oracle.LAYOUTS, *oracle.SCALES, *oracle.RANGES):
        wrong, cases = mismatches(name, RANDOM)
        yield Row(f"{name}, {cases:,} casts", 0, wrong, wrong == 0)
    wrong, cases = fp32_mismatches(RANDOM)
    yield Row(f"fp32, {cases:,} casts", 0, wrong, wrong == 0)
    for name in (*oracle.WIDE, *oracle.LONG_RANGES):
        wrong, cases = rational_mismatches(name, RATIONAL)
        yield Row(f"{name}, all rules, {cases:,} casts", 0, wrong, wrong == 0)
    found = [rational_mismatches(name, RATIONAL, ("wrap",)) for name in oracle.WRAPPING]
    wrong, cases = (sum(column) for column in zip(*found, strict=True))
    yield Row(f"integers that wrap, {cases:,} casts", 0, wrong, wrong == 0)


def mismatches(name: str, count: int) -> tuple[int, int]:
    """(wrong casts, casts) of one format by every rounding and overflow rule."""
    fmt = number_format(name)
    grid = grid_of(name)
    corners = halfway(grid)
    wrong = cases = 0
    for rounding in ROUNDINGS:
        for rule in rules(fmt):
            x = np.concatenate([corners, random_doubles(fmt, count // len(rules(fmt)), rounding)])
            if rounding == "SR":
                x = x[:: max(1, len(x) // STOCHASTIC)]
            wrong += int(differs(fmt, grid, x, rounding, rule).sum())
            cases += len(x)
    return wrong, cases


def grid_of(name: str) -> oracle.Grid:
    """The grid of a format that has one."""
    if name in oracle.SCALES:
        return oracle.scale_grid(name)
    return oracle.float_grid(name) if name in oracle.LAYOUTS else oracle.integer_grid(name)


def rules(fmt: Format) -> list[Overflow]:
    """The overflow rules that a format can follow, but for wrapping."""
    can = {"infinity": fmt.has_infinity, "nan": fmt.has_nan, "saturate": True}
    return [rule for rule in OVERFLOWS if can.get(rule, False)]


def differs(
    fmt: Format, grid: oracle.Grid, x: Floats, rounding: Rounding, rule: Overflow, seed: int = 7
) -> npt.NDArray[np.bool_]:
    """Where a cast gives another value, or another sign of zero, than the oracle."""
    with np.errstate(invalid="ignore"):
        got = fmt.decode(fmt.encode(x, rounding, rule, seed)).astype(np.float64)
    want = oracle.on_grid(grid, fmt.name, x, rounding, rule, seed)
    same = (got == want) & (np.signbit(got) == np.signbit(want))
    return np.asarray(~(same | (np.isnan(got) & np.isnan(want))))


def halfway(grid: oracle.Grid) -> Floats:
    """All values and midpoints of a format, both signs, with the doubles just beside them."""
    exact = np.concatenate([grid.points, grid.midpoints])
    near = [np.nextafter(exact, np.inf), np.nextafter(exact, -np.inf)]
    both = np.concatenate([exact, *near])
    return np.concatenate([SPECIAL, both, -both])


def random_doubles(fmt: Format, count: int, key: str) -> Floats:
    """Random float64, three quarters of them with exponents that the format has or nearly has."""
    words = splitmix64(hash_of(f"{fmt.name} {key}"), 2 * count)
    bits, pick = words[:count], words[count:]
    low, high = exponents(fmt)
    field = 1023 + low + (pick % np.uint64(high - low + 1)).astype(np.int64)
    field = np.clip(field, 1, 2046).astype(np.uint64)
    shaped = (bits & np.uint64(0x800FFFFFFFFFFFFF)) | field << np.uint64(52)
    # Half of the significands are short, so that ties and exact values are among them.
    short = shaped & ~np.uint64((1 << max(52 - fmt.mantissa_bits - 2, 0)) - 1)
    shaped = np.where(pick >> np.uint64(63) == 1, short, shaped)
    values: Any = np.where(pick >> np.uint64(62) == 0, bits, shaped).view(np.float64)
    return np.asarray(values)


def exponents(fmt: Format) -> tuple[int, int]:
    """Exponents from below half the smallest value to above the largest."""
    if fmt.is_integer:
        return -3, fmt.bits + 2
    top = int(np.floor(np.log2(fmt.largest)))
    return fmt.min_exponent - fmt.mantissa_bits - 3, top + 2


def hash_of(text: str) -> int:
    """A key from a text, the same in every run."""
    key = 0
    for byte in text.encode():
        key = (key * 1_000_003 + byte) % 2**64
    return key


def rational_mismatches(
    name: str, count: int, only: tuple[Overflow, ...] = (), seed: int = 7
) -> tuple[int, int]:
    """(wrong casts, casts), number by number, by every rounding and overflow rule."""
    fmt = number_format(name)
    wrong = cases = 0
    for rounding in ROUNDINGS:
        for rule in only or rules(fmt):
            given: list[Any] = [np.concatenate([ends(name), random_doubles(fmt, count, rounding)])]
            given += [long_integers(count)] if name == "fp64" else []
            for x in given:
                with np.errstate(invalid="ignore"):
                    got = fmt.decode(fmt.encode(x, rounding, rule, seed)).astype(np.float64)
                want = np.array([
                    oracle.rational(name, v, rounding, rule, oracle.random_word(seed, i))
                    for i, v in enumerate(x.tolist())
                ])  # fmt: skip
                same = (got == want) & (np.signbit(got) == np.signbit(want))
                wrong += int((~(same | (np.isnan(got) & np.isnan(want)))).sum())
                cases += len(x)
    return wrong, cases


def ends(name: str) -> Floats:
    """Numbers around the largest and the smallest, ties among them, and what is special."""
    around = np.arange(-6, 7) / 4
    if name in oracle.WIDE:
        mantissa, bias = oracle.WIDE[name]
        top, least = 2.0**bias, 2.0 ** (1 - bias)
        quantum = least * 2.0**-mantissa
        with np.errstate(over="ignore"):
            large = 2 * (top - top * 2.0 ** -(mantissa + 1) * (1 + around))
        exact = np.concatenate([large, least + quantum * around, quantum * np.abs(around)])
    else:
        low, high = {**oracle.RANGES, **oracle.LONG_RANGES}[name]
        wholes = [low, high, 0.0, 2.0 * high + 2.0, 3.0 * high + 3.0, 2.0**60, 2.0**70]
        exact = np.concatenate([whole + around for whole in wholes])
    with np.errstate(over="ignore", under="ignore"):
        near = [np.nextafter(exact, np.inf), np.nextafter(exact, -np.inf)]
    both = np.concatenate([exact, *near])
    return np.concatenate([SPECIAL, both, -both])


def long_integers(count: int) -> npt.NDArray[np.int64]:
    """Whole numbers of up to 63 bits, which float64 does not hold, ties among them."""
    words = splitmix64(hash_of("int64"), 2 * count)
    values = (words[:count] >> (words[count:] % np.uint64(60))).view(np.int64)
    ties = np.array([(n << 10) + (1 << 9) + d for n in (2**52, 2**52 + 1) for d in (-1, 0, 1)])
    return np.concatenate([values, ties, -ties, np.array([0, -(2**63), 2**63 - 1])])


def fp32_mismatches(count: int) -> tuple[int, int]:
    """fp32 has no table: its neighbours come from nextafter, its midpoints are exact float64."""
    fmt = number_format("fp32")
    wrong = cases = 0
    for rounding in ROUNDINGS[:4]:
        x = random_doubles(fmt, count, rounding)
        x = x[np.abs(x) < 2.0**127]
        low = x.astype(np.float32)
        with np.errstate(over="ignore"):
            outside = np.abs(low.astype(np.float64)) > np.abs(x)
            low = np.where(outside, np.nextafter(low, np.float32(0)), low)
            high = np.nextafter(low, np.copysign(np.float32(np.inf), x.astype(np.float32)))
        lower, upper = low.astype(np.float64), high.astype(np.float64)
        middle = (lower + upper) / 2
        even = low.view(np.uint32) % 2 == 0
        nearer = (np.abs(x) < np.abs(middle)) | ((x == middle) & even)
        inner = {"RNE": nearer, "RZ": x == x, "RU": x < 0, "RD": x > 0}[rounding]
        want = np.where(inner | (lower == x), low, high)
        got = fmt.encode(x, rounding)
        wrong += int((got.view(np.uint32) != want.view(np.uint32)).sum())
        cases += len(x)
    return wrong, cases
