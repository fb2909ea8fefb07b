"""Special functions made of additions and multiplications alone, as a small ASIC computes them.

    exp          n = rint(x log2 e), r = x - n ln 2 in parts whose products with n are exact, Taylor
                 series of e^r up to ``exp`` terms by Horner, n added to the exponent
    reciprocal   exponent and significand subtracted from a constant, then ``reciprocal`` steps of
                 Newton and Raphson, y (2 - x y)
    rsqrt        half the bits subtracted from a constant, then ``rsqrt`` steps y (1.5 - x/2 y y)
    tanh, sigmoid, silu, gelu_tanh   from exp and reciprocal

``powers-fp32`` takes fewer: exp is 2^(x log2 e), n the nearest integer, and the series of 2^f by
Horner has its factors in its coefficients; gelu_tanh has log2 e in those of its polynomial. The
product with log2 e is rounded, which costs exp up to 128 units of its last place.

Every addition and multiplication is rounded to one format, fp32 or bf16, to which arguments are
rounded first. Finding n and adding it to an exponent are integer operations. Results below 2^-126
are 0; arguments below that count as 0.

Sources: Wu et al., PIM-GPT, npj Unconventional Computing 2024 (which functions, and by what);
Lomont, Fast inverse square root, 2003 (the constant 5F3759DF). How many terms and steps its ASIC
takes, and in which format, is not published: parameters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.errors import AccelsimError, unknown
from accelsim.numerics.bank_macs import held
from accelsim.numerics.formats import FORMATS, Format
from accelsim.numerics.functions import EXP_LEAST, FunctionErrors

Float32 = npt.NDArray[np.float32]
FP32, BF16 = FORMATS["fp32"], FORMATS["bf16"]
LN2 = math.log(2.0)
# n has 8 bits: a part of 16 bits is exact times n in fp32, one of a bit in bf16.
LN2_PARTS = {
    "fp32": (0.693145751953125, 1.42860682030941723e-06),
    "bf16": tuple(2.0**-e for e in (1, 3, 4, 8, 10, 11, 12)),
}
FAR = 104.0  # e^104 overflows and e^-104 underflows
RECIPROCAL_BITS, RSQRT_BITS = 0x7EF311C3, 0x5F3759DF
FIRST_RECIPROCAL, FIRST_RSQRT = 0.05052, 0.03438
"""Largest relative errors of the first guesses over all significands (of rsqrt, of two binades);
in bf16 FIRST_GUESS_BF16 more, whose constants are cut off."""
FIRST_GUESS_BF16 = 0.002
MOST = 16
POWERS = tuple(LN2**k / math.factorial(k) for k in range(MOST + 1))
"""Coefficients of the series of 2^f."""
GELU_A = -2.0 * math.sqrt(2.0 / math.pi) / LN2
GELU_B = 0.044715 * GELU_A
DEFAULTS = {"exp": 7, "reciprocal": 3, "rsqrt": 3}


@dataclass(frozen=True)
class Taylor:
    """Functions of one format with so many terms and steps."""

    fmt: Format
    exp_terms: int = DEFAULTS["exp"]
    reciprocal_steps: int = DEFAULTS["reciprocal"]
    rsqrt_steps: int = DEFAULTS["rsqrt"]

    def __str__(self) -> str:
        return (
            f"Taylor {self.exp_terms}, Newton {self.reciprocal_steps} and {self.rsqrt_steps} in"
            f" {self.fmt.name}"
        )

    def _r(self, x: Any) -> Float32:
        return held(np.asarray(x, dtype=np.float32), self.fmt)

    def exp(self, x: Float32) -> Float32:
        """e^x; 0 below 2^-126, infinite beyond the largest fp32."""
        with np.errstate(all="ignore"):
            r, n = self._reduced(self._r(x))
            p = np.ones_like(r)
            for k in range(self.exp_terms, 0, -1):
                step = self._r(r * self._r(1.0 / k))
                p = self._r(np.float32(1) + self._r(step * p))
            whole = np.nan_to_num(n).astype(np.int64)
            wide = np.ldexp(p.astype(np.float64), whole)
            y = np.where(wide < EXP_LEAST, 0.0, wide).astype(np.float32)
            return np.where(np.isnan(x), np.float32(np.nan), y)

    def _reduced(self, x: Float32) -> tuple[Float32, Float32]:
        """(r, n): x without the nearest multiple n of ln 2."""
        near = np.clip(x, np.float32(-FAR), np.float32(FAR))
        n = np.rint(self._r(near * self._r(1.0 / LN2)))
        r = near
        for part in LN2_PARTS[self.fmt.name]:
            r = self._r(r - self._r(n * np.float32(part)))
        return r, n

    def reciprocal(self, x: Float32) -> Float32:
        """1 / x; infinite at zero."""
        with np.errstate(all="ignore"):
            x = self._r(x)
            size = np.abs(x)
            y = self._guess(RECIPROCAL_BITS, size, 0)
            for _ in range(self.reciprocal_steps):
                y = self._r(y * self._r(np.float32(2) - self._r(size * y)))
            y = np.where(size >= np.float32(2.0**126), np.float32(0), y)
            y = np.where(size < np.float32(EXP_LEAST), np.float32(np.inf), y)
            y = np.where(np.isnan(x), x, np.copysign(y, x))
            return np.asarray(y, dtype=np.float32)

    def rsqrt(self, x: Float32) -> Float32:
        """1 / sqrt(x); infinite at zero, NaN below."""
        with np.errstate(all="ignore"):
            x = self._r(x)
            y, half = self._guess(RSQRT_BITS, x, 1), self._r(x * np.float32(0.5))
            for _ in range(self.rsqrt_steps):
                square = self._r(y * y)
                y = self._r(y * self._r(np.float32(1.5) - self._r(half * square)))
            y = np.where(np.isposinf(x), np.float32(0), y)
            y = np.where(np.abs(x) < np.float32(EXP_LEAST), np.float32(np.inf), y)
            y = np.where((x <= -np.float32(EXP_LEAST)) | np.isnan(x), np.float32(np.nan), y)
            return np.asarray(y, dtype=np.float32)

    def _guess(self, constant: int, x: Float32, shift: int) -> Float32:
        """The bits of a constant less those of x; in bf16 both have 16 of them."""
        bits = np.ascontiguousarray(x).view(np.int32)
        if self.fmt is BF16:
            left = np.left_shift(np.int32(constant >> 16) - (bits >> 16 >> shift), 16)
        else:
            left = np.int32(constant) - (bits >> shift)
        guess: Float32 = left.astype(np.int32).view(np.float32)
        return guess

    def sigmoid(self, x: Float32) -> Float32:
        """1 / (1 + e^-x)."""
        return self.reciprocal(self._r(np.float32(1) + self.exp(-self._r(x))))

    def tanh(self, x: Float32) -> Float32:
        """(1 - e) / (1 + e) with e = e^(-2 |x|), and the sign of x."""
        with np.errstate(all="ignore"):
            x = self._r(x)
            e = self.exp(self._r(np.abs(x) * np.float32(-2)))
            over = self.reciprocal(self._r(np.float32(1) + e))
            return np.copysign(self._r(self._r(np.float32(1) - e) * over), x)

    def silu(self, x: Float32) -> Float32:
        """x / (1 + e^-x)."""
        with np.errstate(all="ignore"):
            return self._r(self._r(x) * self.sigmoid(x))

    def gelu_tanh(self, x: Float32) -> Float32:
        """x / (1 + e^(-2 z)), z = sqrt(2/pi) (x + 0.044715 x^3)."""
        with np.errstate(all="ignore"):
            x = self._r(x)
            cube = self._r(self._r(x * x) * x)
            inner = self._r(x + self._r(cube * self._r(0.044715)))
            z = self._r(inner * self._r(2.0 * math.sqrt(2.0 / math.pi)))
            return self._r(x * self.sigmoid(z))

    @cached_property
    def operations(self) -> dict[str, tuple[int, int]]:
        """(additions, multiplications) of each function."""
        parts = len(LN2_PARTS[self.fmt.name])
        exp = (parts + self.exp_terms, 1 + parts + 2 * self.exp_terms)
        reciprocal = (1 + self.reciprocal_steps, 2 * self.reciprocal_steps)
        rsqrt = (1 + self.rsqrt_steps, 1 + 3 * self.rsqrt_steps)
        sigmoid = _sum(exp, (1, 0), reciprocal)
        return {
            "exp": exp,
            "exp_sub": _sum(exp, (1, 0)),
            "reciprocal": reciprocal,
            "div": _sum(reciprocal, (0, 1)),
            "rsqrt": rsqrt,
            "sigmoid": sigmoid,
            "tanh": _sum(sigmoid, (1, 2)),
            "silu": _sum(sigmoid, (0, 1)),
            "gelu_tanh": _sum(sigmoid, (1, 5)),
        }

    @cached_property
    def errors(self) -> FunctionErrors:
        """Relative errors, and of tanh and gelu_tanh absolute ones, behind the rounding of the
        argument: derived, but that of exp in bf16, which is the largest of all arguments."""
        u = self.fmt.unit_roundoff
        exp = self.exp_error()
        reciprocal, rsqrt = self._reciprocal_error(u), self._rsqrt_error(u)
        sigmoid = 1.01 * (exp + u + reciprocal)
        return FunctionErrors(
            exp=exp,
            reciprocal=reciprocal,
            rsqrt=rsqrt,
            smooth={
                "sigmoid": (sigmoid, 2 * EXP_LEAST),
                "tanh": (0.0, 1.01 * (2 * exp + reciprocal + 4 * u)),
                # z is off by 7 u of it, which moves x sigmoid(2 z) by 0.3 times that at most.
                "silu": (1.01 * (sigmoid + u), 2.0**-100),
                "gelu_tanh": (1.01 * (sigmoid + u), 0.3 * 7 * u + 2.0**-100),
            },
            entering=self.fmt,
        )

    def exp_error(self) -> float:
        """Relative error of exp."""
        return _exp_error(self.exp_terms) if self.fmt is FP32 else _all_of_bf16(self)

    def _reciprocal_error(self, u: float) -> float:
        """e' = e^2 + roundings: of x y, 2 - x y and the product."""
        e = FIRST_RECIPROCAL + (FIRST_GUESS_BF16 if self.fmt is BF16 else 0.0)
        for _ in range(self.reciprocal_steps):
            e = e * e + u * (1 + e) * ((1 + e) + (1 + e) + 1) * 1.01
        return e

    def _rsqrt_error(self, u: float) -> float:
        """e' = 1.5 e^2 + 0.5 e^3 + roundings: of y^2 and its product with x / 2, of the difference
        and the product."""
        e = FIRST_RSQRT + (FIRST_GUESS_BF16 if self.fmt is BF16 else 0.0)
        for _ in range(self.rsqrt_steps):
            inner = (1 + e) ** 2
            e = 1.5 * e * e + 0.5 * e**3 + u * (1 + e) * (inner + (1 + e) + 1) * 1.01
        return e


def _sum(*counts: tuple[int, int]) -> tuple[int, int]:
    return sum(a for a, _ in counts), sum(m for _, m in counts)


def _exp_error(terms: int) -> float:
    """Relative error of exp in fp32.

    With |r| <= R, p_k = 1 + r/k p_(k+1) is off by E_k = R/k (E_(k+1) + 3 u P) + u (1 + R/k P): r
    times a rounded 1/k, times p, and the addition. What is cut off the series is at most
    R^(t+1) / (t+1)! e^R; r itself is off by its last two roundings and by what n times the low part
    and the rest of ln 2 leave.
    """
    u = FP32.unit_roundoff
    most = LN2 * (0.5 + 128 * 3 * u)
    size, off = 1.0, 0.0
    for k in range(terms, 0, -1):
        off = most / k * (off + 3.01 * u * (size + off)) + u * (1 + most / k * (size + off))
        size = 1 + most / k * size
    cut = most ** (terms + 1) / math.factorial(terms + 1) * math.exp(most)
    high, low = LN2_PARTS["fp32"]
    shift = 2.0 * u * most + 150 * (abs(LN2 - high - float(np.float32(low))) + u * low)
    return 1.001 * ((off + cut) * math.exp(most) + math.expm1(shift))


@lru_cache(maxsize=64)
def _all_of_bf16(functions: Taylor) -> float:
    """The largest relative error of exp over all bf16 arguments whose results are in range."""
    codes = np.arange(1 << 16, dtype=np.uint16)
    x = np.asarray(BF16.decode(BF16.stored(codes)), dtype=np.float32)
    x = x[np.isfinite(x) & (np.abs(x) < FAR)]
    exact = np.exp(x.astype(np.float64))
    inside = (exact >= 2 * EXP_LEAST) & (exact < 2.0**127)
    got = functions.exp(x)[inside]
    return float(np.max(np.abs(got / exact[inside] - 1.0))) * (1 + 2.0**-20)


@dataclass(frozen=True)
class Powers(Taylor):
    """The same by powers of two, in fp32."""

    def __str__(self) -> str:
        return (
            f"powers of two {self.exp_terms}, Newton {self.reciprocal_steps} and"
            f" {self.rsqrt_steps} in {self.fmt.name}"
        )

    def exp(self, x: Float32) -> Float32:
        """e^x; 0 below 2^-126, infinite beyond the largest fp32."""
        with np.errstate(all="ignore"):
            near = np.clip(self._r(x), np.float32(-FAR), np.float32(FAR))
            y = self._power(self._r(near * np.float32(1.0 / LN2)))
            return np.where(np.isnan(x), np.float32(np.nan), y)

    def _power(self, t: Float32) -> Float32:
        """2^t for |t| far below 1000."""
        n = np.nan_to_num(np.rint(t))
        f = self._r(t - n)
        p = np.full_like(f, POWERS[self.exp_terms])
        for k in range(self.exp_terms - 1, -1, -1):
            p = self._r(np.float32(POWERS[k]) + self._r(p * f))
        wide = np.ldexp(p.astype(np.float64), n.astype(np.int64))
        return np.where(wide < EXP_LEAST, 0.0, wide).astype(np.float32)

    def gelu_tanh(self, x: Float32) -> Float32:
        """x / (1 + 2^(x (a + b x^2)))."""
        with np.errstate(all="ignore"):
            x = self._r(x)
            inner = self._r(np.float32(GELU_A) + self._r(np.float32(GELU_B) * self._r(x * x)))
            most = np.float32(FAR / LN2)
            t = np.clip(self._r(x * inner), -most, most)
            return self._r(x * self.reciprocal(self._r(np.float32(1) + self._power(t))))

    @cached_property
    def operations(self) -> dict[str, tuple[int, int]]:
        """(additions, multiplications) of each function."""
        power = (1 + self.exp_terms, self.exp_terms)
        exp = _sum(power, (0, 1))
        found = super().operations
        over = _sum((1, 0), found["reciprocal"])
        sigmoid = _sum(exp, over)
        return {
            **found,
            "exp": exp,
            "exp_sub": _sum(exp, (1, 0)),
            "sigmoid": sigmoid,
            "tanh": _sum(sigmoid, (1, 2)),
            "silu": _sum(sigmoid, (0, 1)),
            "gelu_tanh": _sum((1, 3), power, over, (0, 1)),
        }

    def exp_error(self) -> float:
        """Relative error: p_k = c_k + f p_(k+1) with |f| <= 1/2, coefficients, products and sums
        rounded; the cut of the series; and the product with log2 e, rounded as that is."""
        u, size, off = self.fmt.unit_roundoff, POWERS[self.exp_terms], 0.0
        off = u * size
        for k in range(self.exp_terms - 1, -1, -1):
            product = 0.5 * (size + off)
            off = 0.5 * off + u * product + u * POWERS[k] + u * (POWERS[k] + product * (1 + u))
            size = POWERS[k] + 0.5 * size
        half = LN2 / 2
        cut = half ** (self.exp_terms + 1) / math.factorial(self.exp_terms + 1) * math.exp(half)
        shift = LN2 * 128 * 2.0 * u
        return 1.001 * ((off + cut) * math.sqrt(2.0) + math.expm1(shift))


NO_GELU = (
    "gelu needs the error function, which additions and multiplications do not make here;"
    " accepted: gelu_tanh"
)
NAMES = ("correct", "taylor-fp32", "taylor-bf16", "powers-fp32")


def taylor(name: str, terms: dict[str, int]) -> Taylor | None:
    """The functions of a name with so many terms, None for correctly rounded ones.

    Raises AccelsimError for an unknown name, or terms that it does not have.
    """
    if name not in NAMES:
        raise AccelsimError(unknown("functions", name, NAMES))
    for key, count in terms.items():
        if key not in DEFAULTS or name == "correct":
            what = "without terms" if name == "correct" else ", ".join(DEFAULTS)
            raise AccelsimError(f"functions {name} with terms of {key}; accepted: {what}")
        if not 1 <= count <= MOST:
            raise AccelsimError(f"terms.{key} must be 1 to {MOST}, not {count}")
    if name == "correct":
        return None
    chosen = {**DEFAULTS, **terms}
    kind = Powers if name == "powers-fp32" else Taylor
    return kind(
        FORMATS[name.partition("-")[2]],
        exp_terms=chosen["exp"],
        reciprocal_steps=chosen["reciprocal"],
        rsqrt_steps=chosen["rsqrt"],
    )
