"""Special functions of a vector datapath.

Exponentials are fp32 operations only (numerics.exp_kernels), with the same bits everywhere. The
others are evaluated in float64, then rounded once to fp32: the declared semantics of a correctly
rounded function unit. Their float64 value may differ in its last bits between mathematical
libraries, which reaches the fp32 result only where it lies that close to a rounding boundary
(about one argument in 2**28).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from accelsim.numerics.formats import FORMATS, Format

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

EXP_ULP = 1.09
"""No error of exp2_fp32 and exp_fp32 is larger, in units of the last place. The largest of all fp32
arguments whose results are neither flushed nor infinite are 0.962553 (2^x at 0x1.0113a6p-1) and
1.084160 (e^x at 0x1.2e3816p+5): tests/bench/exponentials.py tries every one."""
EXP_LEAST = 2.0**-126
"""Results below this are flushed to zero."""


@dataclass(frozen=True)
class FunctionErrors:
    """What a set of functions may be off by, behind a rounding of the argument to ``entering`` and
    before the one that a lane's result has anyway: relative to the result, and of ``smooth`` ones
    by name also absolute."""

    exp: float = EXP_ULP * 2.0**-23
    reciprocal: float = 0.0
    rsqrt: float = 0.0
    smooth: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    entering: Format = FORMATS["fp32"]

    def __or__(self, other: FunctionErrors) -> FunctionErrors:
        """The larger of both."""
        names = {*self.smooth, *other.smooth}
        pairs = {n: (self.smooth.get(n, (0, 0)), other.smooth.get(n, (0, 0))) for n in names}
        coarse = max(self.entering, other.entering, key=lambda fmt: fmt.unit_roundoff)
        return FunctionErrors(
            max(self.exp, other.exp),
            max(self.reciprocal, other.reciprocal),
            max(self.rsqrt, other.rsqrt),
            {n: (max(a[0], b[0]), max(a[1], b[1])) for n, (a, b) in pairs.items()},
            coarse,
        )


CORRECT = FunctionErrors()
"""Functions rounded once, and the exponential of this module."""

_ROOT_TWO = float(np.sqrt(2.0))
_ROOT_TWO_OVER_PI = float(np.sqrt(2.0 / np.pi))


def reciprocal(x: Float64) -> Float64:
    """1 / x; infinite at zero."""
    return 1.0 / x


def rsqrt(x: Float64) -> Float64:
    """1 / sqrt(x); infinite at zero, NaN below."""
    return 1.0 / np.sqrt(x)


def sigmoid(x: Float64) -> Float64:
    """1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + np.exp(-x))


def gelu(x: Float64) -> Float64:
    """x Phi(x) = x erfc(-x / sqrt 2) / 2, which does not cancel for negative x."""
    from scipy.special import erfc

    result: Float64 = 0.5 * x * erfc(x / -_ROOT_TWO)
    return result


def gelu_tanh(x: Float64) -> Float64:
    """x (1 + tanh z) / 2 with z = sqrt(2/pi) (x + 0.044715 x^3), as x sigmoid(2 z)."""
    return x * sigmoid(2.0 * _ROOT_TWO_OVER_PI * (x + 0.044715 * x * x * x))


def silu(x: Float64) -> Float64:
    """x sigmoid(x)."""
    return x * sigmoid(x)


def exp2_fp32(x: npt.ArrayLike) -> Float32:
    """2^x of fp32 in fp32 operations alone: the same bits on every machine, within EXP_ULP.

    Results below 2^-126 are +0. See numerics.exp_kernels for the steps.
    """
    from accelsim.numerics.exp_kernels import exp2

    return _elementwise(exp2, x)


def exp_fp32(x: npt.ArrayLike) -> Float32:
    """e^x of fp32, as ``exp2_fp32``."""
    from accelsim.numerics.exp_kernels import exp

    return _elementwise(exp, x)


def _elementwise(kernel: Callable[[Float32, Float32], None], x: npt.ArrayLike) -> Float32:
    given = np.asarray(x, dtype=np.float32)
    flat = np.ascontiguousarray(given).reshape(-1)
    out = np.empty_like(flat)
    with np.errstate(all="ignore"):
        kernel(flat, out)
    return out.reshape(given.shape)


def to_fp32(function: Callable[[Float64], Float64], x: Float32) -> Float32:
    """``function`` of fp32 values, rounded once to fp32 (nearest even).

    A lane is silent about overflow, division by zero and invalid arguments: they give infinities
    and NaN.
    """
    with np.errstate(all="ignore"):
        return function(x.astype(np.float64)).astype(np.float32)
