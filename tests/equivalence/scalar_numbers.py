"""Numbers of a machine, one at a time, in whole numbers and fractions of them.

Shares no code with accelsim.numerics. A value of a floating-point format is a Python float, which
holds every one up to fp32 exactly, with signed zeros, infinities and NaN; a value of an integer
format is an int. Results are formed as fractions of whole numbers and rounded once.

The specifications: IEEE 754, OCP FP8 1.0 and the words of accelsim's docstrings, of which the
coefficients of the exponential are repeated here. tanh, the error function and what is made of
``math.exp`` are declared to be the float64 function rounded once to fp32: that of ``math`` is used.
"""

import math
from functools import cache
from typing import NamedTuple


class Layout(NamedTuple):
    """A floating-point format: fields, bias, and whether the largest exponent holds Inf and NaN."""

    exponent_bits: int
    mantissa: int
    bias: int
    ieee: bool = True


LAYOUTS = {
    "fp32": Layout(8, 23, 127), "fp16": Layout(5, 10, 15), "bf16": Layout(8, 7, 127),
    "tf32": Layout(8, 10, 127),
    "fp8_e4m3": Layout(4, 3, 7, ieee=False), "fp8_e5m2": Layout(5, 2, 15),
}  # fmt: skip
INTEGERS = {"int8": 8, "int16": 16, "int32": 32}
# Format codes of a program's operand descriptors.
NAMES = ("fp32", "fp16", "bf16", "int8", "int16", "int32", "fp64", "tf32", "fp8_e4m3", "fp8_e5m2")
NAN, INFINITY = math.nan, math.inf


def size_of(name):
    """Bytes of an element."""
    if name in INTEGERS:
        return INTEGERS[name] // 8
    layout = LAYOUTS[name]
    return (1 + layout.exponent_bits + layout.mantissa) // 8


@cache
def largest(name):
    layout = LAYOUTS[name]
    if layout.ieee:
        return (2 - 2.0**-layout.mantissa) * 2.0**layout.bias
    return (2 - 2 * 2.0**-layout.mantissa) * 2.0 ** (layout.bias + 1)


# -- rounding ----------------------------------------------------------------------------------


def nearest(name, n, d):
    """The fraction n / d, not zero, rounded to nearest, ties to even; d > 0."""
    layout, size = LAYOUTS[name], abs(n)
    exponent = size.bit_length() - d.bit_length()
    if (size < d << exponent) if exponent >= 0 else (size << -exponent < d):
        exponent -= 1
    last = max(exponent, 1 - layout.bias) - layout.mantissa
    size, d = (size << -last, d) if last < 0 else (size, d << last)
    units, rest = divmod(size, d)
    if 2 * rest > d or (2 * rest == d and units % 2):
        units += 1
    result = math.ldexp(units, last) if units.bit_length() + last < 1000 else INFINITY
    if result > largest(name):
        result = INFINITY if layout.ieee else NAN
    return -result if n < 0 else result


def cast(name, value):
    """A number rounded to a format; integers saturate, and NaN becomes 0 there."""
    if name in INTEGERS:
        half = 1 << (INTEGERS[name] - 1)
        if value != value:
            return 0
        if value in (INFINITY, -INFINITY):
            return half - 1 if value > 0 else -half
        return min(max(round(value), -half), half - 1)  # round: to nearest, ties to even
    if value == 0:
        return float(value)
    if value != value or value in (INFINITY, -INFINITY):
        return value if LAYOUTS[name].ieee else NAN
    return nearest(name, *value.as_integer_ratio())


def finite(*values):
    return all(-INFINITY < v < INFINITY for v in values)


def add(a, b):
    """The fp32 sum."""
    if not finite(a, b) or a + b == 0:  # what floats do with zeros and infinities is IEEE's
        return a + b
    (n, d), (m, e) = a.as_integer_ratio(), b.as_integer_ratio()
    return nearest("fp32", n * e + m * d, d * e)


def mul(a, b):
    """The fp32 product."""
    if not finite(a, b) or a == 0 or b == 0:
        return a * b
    (n, d), (m, e) = a.as_integer_ratio(), b.as_integer_ratio()
    return nearest("fp32", n * m, d * e)


def div(a, b):
    """The fp32 quotient."""
    if a != a or b != b or (a == 0 and b == 0) or not (finite(a) or finite(b)):
        return NAN
    if b == 0 or not finite(a) or a == 0 or not finite(b):
        size = INFINITY if b == 0 or not finite(a) else 0.0
        return math.copysign(size, math.copysign(1, a) * math.copysign(1, b))
    (n, d), (m, e) = a.as_integer_ratio(), b.as_integer_ratio()
    return nearest("fp32", n * e if m > 0 else -n * e, d * abs(m))


def fma(a, b, c):
    """a b + c, rounded once to fp32; of finite values."""
    (n, d), (m, e), (o, f) = (x.as_integer_ratio() for x in (a, b, c))
    total = n * m * f + o * d * e
    if total == 0:
        return a * b + c if a == 0 or b == 0 else 0.0
    return nearest("fp32", total, d * e * f)


# -- bit patterns ------------------------------------------------------------------------------


@cache
def decode(name, code):
    """What a bit pattern means."""
    if name in INTEGERS:
        bits = INTEGERS[name]
        return code - (1 << bits) if code >> (bits - 1) else code
    exponent_bits, mantissa, bias, ieee = LAYOUTS[name]
    sign = -1.0 if code >> (exponent_bits + mantissa) else 1.0
    field, low = code >> mantissa & ((1 << exponent_bits) - 1), code & ((1 << mantissa) - 1)
    if field == (1 << exponent_bits) - 1:
        if ieee:
            return NAN if low else sign * INFINITY
        if low == (1 << mantissa) - 1:
            return NAN
    units = low + (1 << mantissa if field else 0)
    return sign * math.ldexp(units, max(field, 1) - bias - mantissa)


def encode(name, value):
    """The bit pattern of a value of the format."""
    if name in INTEGERS:
        return value % (1 << INTEGERS[name])
    exponent_bits, mantissa, bias, ieee = LAYOUTS[name]
    top = ((1 << exponent_bits) - 1) << mantissa
    if value != value:
        return top | (1 << (mantissa - 1) if ieee else (1 << mantissa) - 1)
    sign = (math.copysign(1.0, value) < 0) << (exponent_bits + mantissa)
    if value in (INFINITY, -INFINITY):
        return sign | top
    units = math.ldexp(abs(value), mantissa - exponent_of(name, value))
    assert units == int(units) < 2 << mantissa, (name, value)
    field = exponent_of(name, value) + bias if units >= 1 << mantissa else 0
    return sign | field << mantissa | int(units) & ((1 << mantissa) - 1)


def exponent_of(name, value):
    """The exponent that the bit pattern of a number has: that of subnormals is the smallest."""
    return max(math.frexp(value)[1] - 1, 1 - LAYOUTS[name].bias)


# -- functions ---------------------------------------------------------------------------------

LOG2_E = decode("fp32", 0x3FB8AA3B)
LN2_HIGH, LN2_LOW = 0.693145751953125, 1.42860682030941723e-06
EXP = [
    float.fromhex(c)
    for c in (
        "0x1.000000p+0", "0x1.000000p-1", "0x1.555406p-3",
        "0x1.555432p-5", "0x1.126ee0p-7", "0x1.6dcf20p-10",
    )
]  # fmt: skip


def exp(x):
    """e^x in fp32 operations: x = n ln 2 + r, a polynomial of r, times 2^n; +0 below 2^-126."""
    if x != x:
        return x
    if not -88 <= x < 89:
        return INFINITY if x > 0 else 0.0
    n = float(round(mul(x, LOG2_E)))
    r = fma(-n, cast("fp32", LN2_LOW), fma(-n, LN2_HIGH, x))
    p = EXP[-1]
    for c in (*reversed(EXP[:-1]), 1.0):
        p = fma(p, r, c)
    wide = math.ldexp(p, int(n))
    return cast("fp32", wide) if wide >= 2.0**-126 else 0.0


def reciprocal(x):
    if x == 0 or not finite(x):
        return math.copysign(INFINITY if x == 0 else 0.0, x) if x == x else x
    n, d = x.as_integer_ratio()
    return nearest("fp32", d if n > 0 else -d, abs(n))


def rsqrt(x):
    if x == 0:
        return math.copysign(INFINITY, x)
    if not x > 0:
        return NAN
    return cast("fp32", 1.0 / math.sqrt(x))


def _sigmoid(x):
    return 0.0 if x < -700 else 1.0 / (1.0 + math.exp(-x))


def tanh(x):
    return cast("fp32", math.tanh(x))


def sigmoid(x):
    return cast("fp32", _sigmoid(x))


def silu(x):
    return cast("fp32", x * _sigmoid(x))


def gelu(x):
    return cast("fp32", 0.5 * x * math.erfc(-x / math.sqrt(2.0)))


def gelu_tanh(x):
    z = math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)
    return cast("fp32", x * _sigmoid(2.0 * z))


def sqrt(x):
    return cast("fp32", math.sqrt(x)) if x >= 0 else NAN


def step(x):
    return x if x != x else float(x > 0)


def tanh_grad(x):
    return cast("fp32", 4.0 * _sigmoid(2.0 * x) * _sigmoid(-2.0 * x))


def sigmoid_grad(x):
    return cast("fp32", _sigmoid(x) * _sigmoid(-x))


def silu_grad(x):
    return cast("fp32", _sigmoid(x) + x * (_sigmoid(x) * _sigmoid(-x)))


def gelu_grad(x):
    density = math.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
    return cast("fp32", 0.5 * math.erfc(-x / math.sqrt(2.0)) + x * density)


def gelu_tanh_grad(x):
    z = 2.0 * math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)
    slope = 2.0 * math.sqrt(2.0 / math.pi) * (1.0 + 3.0 * 0.044715 * x * x)
    return cast("fp32", _sigmoid(z) + x * slope * (_sigmoid(z) * _sigmoid(-z)))


def wrapped(n):
    """A whole number modulo 2^32, as int32 reads it."""
    return (n + (1 << 31)) % (1 << 32) - (1 << 31)
