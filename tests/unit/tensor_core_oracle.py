"""A tensor-core step in rational numbers, from the words of numerics.tensor_core's docstring.

Shares no code with it: operands are exact values with the exponent that their bit pattern has,
truncation is a floor of a fraction, the final rounding looks for neighbours.
"""

import math
from fractions import Fraction

LAYOUTS = {
    "fp32": (8, 23, 127, "ieee"), "tf32": (8, 10, 127, "ieee"), "bf16": (8, 7, 127, "ieee"),
    "fp16": (5, 10, 15, "ieee"), "fp8_e5m2": (5, 2, 15, "ieee"), "fp8_e4m3": (4, 3, 7, "fn"),
    "fp6_e3m2": (3, 2, 3, "finite"), "fp6_e2m3": (2, 3, 1, "finite"),
    "fp4_e2m1": (2, 1, 1, "finite"),
}  # fmt: skip
NAN, PLUS, MINUS = "nan", "+inf", "-inf"


def decode(name, code):
    """(value or special, exponent of the pattern) of a bit pattern."""
    exponent_bits, mantissa_bits, bias, specials = LAYOUTS[name]
    sign = -1 if code >> (exponent_bits + mantissa_bits) & 1 else 1
    field = code >> mantissa_bits & ((1 << exponent_bits) - 1)
    mantissa = code & ((1 << mantissa_bits) - 1)
    full = field == (1 << exponent_bits) - 1
    if specials == "ieee" and full:
        return (NAN if mantissa else (PLUS if sign > 0 else MINUS)), None
    if specials == "fn" and full and mantissa == (1 << mantissa_bits) - 1:
        return NAN, None
    exponent = max(field, 1) - bias
    fraction = Fraction(mantissa, 1 << mantissa_bits) + (1 if field else 0)
    return sign * fraction * Fraction(2) ** exponent, exponent


def power(exponent):
    return Fraction(2) ** exponent


def truncated(value, quantum):
    return math.trunc(value / quantum) * quantum


def floor_log2(value):
    n = value.numerator.bit_length() - value.denominator.bit_length()
    while power(n) > value:
        n -= 1
    while power(n + 1) <= value:
        n += 1
    return n


def rounded(value, result, kept_bits, nearest):
    """Bits of ``value`` rounded once to ``result`` with ``kept_bits`` of its fraction."""
    exponent_bits, mantissa_bits, bias, _ = LAYOUTS[result]
    if value == 0:
        return 0
    sign, size = (1 << (exponent_bits + mantissa_bits) if value < 0 else 0), abs(value)
    exponent = max(floor_log2(size), 1 - bias)
    quantum = power(exponent - kept_bits)
    units = size / quantum
    whole = math.floor(units)
    if nearest:
        rest = units - whole
        whole += rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole % 2)
    size = whole * quantum
    if size >= power(bias + 1):
        return sign | ((1 << exponent_bits) - 1) << mantissa_bits
    if size == 0:
        return sign
    exponent = max(floor_log2(size), 1 - bias)
    units = int(size / power(exponent - mantissa_bits))
    field = exponent + bias if units >= 1 << mantissa_bits else 0
    return sign | field << mantissa_bits | units & ((1 << mantissa_bits) - 1)


def step(a, b, c, formats, fraction_bits, result="fp32", kept_bits=23, nearest=False):
    """Bits of T(c + sum a_i b_i) from bit patterns."""
    exponent_bits, mantissa_bits, _, _ = LAYOUTS[result]
    nan = (1 << (exponent_bits + mantissa_bits)) - 1
    infinity = ((1 << exponent_bits) - 1) << mantissa_bits
    terms, seen = [], set()
    for x, y in zip(a, b, strict=True):
        (u, e), (v, f) = decode(formats[0], x), decode(formats[1], y)
        if NAN in (u, v) or (isinstance(u, str) and v == 0) or (isinstance(v, str) and u == 0):
            return nan
        if isinstance(u, str) or isinstance(v, str):
            negative = (u == MINUS or (not isinstance(u, str) and u < 0)) != (
                v == MINUS or (not isinstance(v, str) and v < 0)
            )
            seen.add(MINUS if negative else PLUS)
        elif u * v != 0:
            terms.append((u * v, e + f))
    w, g = decode(result, c)
    if w == NAN:
        return nan
    if isinstance(w, str):
        seen.add(w)
    else:
        terms.append((w, g if w else -126))
    if seen:
        sign = 1 << (exponent_bits + mantissa_bits)
        return nan if len(seen) == 2 else infinity | (sign if MINUS in seen else 0)
    quantum = power(max(e for _, e in terms) - fraction_bits)
    return rounded(sum(truncated(t, quantum) for t, _ in terms), result, kept_bits, nearest)


def chain(a, b, c, products, *settings, **more):
    """A chain of steps over rows of bit patterns."""
    for k in range(0, len(a), products):
        c = step(a[k : k + products], b[k : k + products], c, *settings, **more)
    return c
