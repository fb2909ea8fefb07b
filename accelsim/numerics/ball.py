"""Ball arithmetic: exact values, and how far the values that a datapath computed may be from them.

A ``Ball`` carries the exact result x of some steps (in float64) and a radius r with
|computed - x| <= r. Every operation propagates the radius through the exact operation on any
computed operands inside their balls; ``rounded`` then adds the error of one rounding to nearest.
All rules are true upper bounds, not first-order estimates.

The unit roundoff is inflated by 2**-16, which covers two float64 evaluations of the exact value
(here and in the reference): their relative error is some 2**-29 of the fp32 rounding of the same
step. It also covers the few float64 ulps of a mathematical library behind a function that is
"evaluated in float64, rounded once".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accelsim.numerics.formats import FORMATS, Format

Floats = npt.NDArray[np.float64]

INFLATION = 1.0 + 2.0**-16
FP32 = FORMATS["fp32"]
U32 = FP32.unit_roundoff * INFLATION


def gamma(roundings: int | Floats, u: float = U32) -> Floats:
    """(1 + u)^n - 1: no product of n factors (1 + d), |d| <= u, is further from 1."""
    return np.asarray(np.expm1(np.asarray(roundings) * np.log1p(u)))


@dataclass(frozen=True)
class Ball:
    """Exact ``value`` and ``radius`` >= |computed - value|, float64 arrays that broadcast."""

    value: Floats
    radius: Floats

    @classmethod
    def exact(cls, values: npt.ArrayLike) -> Ball:
        """Values that the datapath holds without error."""
        value = np.asarray(values, dtype=np.float64)
        return cls(value, np.zeros(value.shape))

    @classmethod
    def constant(cls, number: float) -> Ball:
        """A constant that the datapath holds as fp32, rounded from ``number``."""
        held = cls.exact([number])
        return held if float(np.float32(number)) == number else held.rounded(FP32)

    def rounded(self, fmt: Format) -> Ball:
        """After one rounding to nearest in ``fmt``.

        |fl(y) - y| <= max(u |y|, half the subnormal quantum), with |y| <= |x| + r. Overflow is
        not covered: infinite intermediates are errors, and results where they need not be.
        """
        u = fmt.unit_roundoff * INFLATION
        error = np.maximum(u * (np.abs(self.value) + self.radius), 0.5 * fmt.smallest_quantum)
        return Ball(self.value, self.radius + error)

    def unrounded(self, fmt: Format) -> Ball:
        """The ball of which this is ``rounded``, but for subnormals: r of r + u (|x| + r)."""
        u = fmt.unit_roundoff * INFLATION
        return Ball(self.value, np.maximum((self.radius - u * np.abs(self.value)) / (1.0 + u), 0.0))

    def __add__(self, other: Ball) -> Ball:
        return Ball(self.value + other.value, self.radius + other.radius)

    def __sub__(self, other: Ball) -> Ball:
        return Ball(self.value - other.value, self.radius + other.radius)

    def __mul__(self, other: Ball) -> Ball:
        """(x + dx)(y + dy) - xy = x dy + y dx + dx dy; no bound if either operand has none."""
        with np.errstate(invalid="ignore"):
            radius = (
                np.abs(self.value) * other.radius
                + np.abs(other.value) * self.radius
                + self.radius * other.radius
            )
        return Ball(self.value * other.value, np.where(np.isnan(radius), np.inf, radius))

    def scaled(self, factor: float) -> Ball:
        """Times a constant that the datapath holds as fp32, rounded from ``factor``."""
        return self * Ball.constant(factor)

    def maximum(self, other: Ball) -> Ball:
        """The larger of two: max is 1-Lipschitz in the largest change of its operands."""
        radius = np.maximum(self.radius, other.radius)
        return Ball(np.maximum(self.value, other.value), radius)

    def exp(self) -> Ball:
        """|e^(x + d) - e^x| <= e^x (e^r - 1)."""
        value = np.exp(self.value)
        with np.errstate(over="ignore"):
            return Ball(value, value * np.expm1(self.radius))

    def reciprocal(self) -> Ball:
        """|1/(x + d) - 1/x| <= r / (|x| (|x| - r)); no bound if the ball touches zero."""
        size, room = np.abs(self.value), np.abs(self.value) - self.radius
        with np.errstate(divide="ignore", invalid="ignore"):
            radius = np.where(room > 0, self.radius / (size * room), np.inf)
            return Ball(1.0 / self.value, radius)

    def rsqrt(self, least: float = 0.0) -> Ball:
        """y^(-1/2) - x^(-1/2) = (x - y) / (sqrt(x y) (sqrt x + sqrt y)), largest at the smallest y.

        That is x - r, or ``least`` if the computed value is known to be no smaller.
        """
        room = np.maximum(self.value - self.radius, least)
        with np.errstate(divide="ignore", invalid="ignore"):
            low, high = np.sqrt(room), np.sqrt(self.value)
            radius = np.where(room > 0, self.radius / (low * high * (low + high)), np.inf)
            return Ball(1.0 / high, radius)

    def sqrt(self) -> Ball:
        """|sqrt(x + d) - sqrt(x)| <= r / (sqrt(x) + sqrt(x - r)), or sqrt(r)."""
        root, low = np.sqrt(self.value), np.sqrt(np.maximum(self.value - self.radius, 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            off = np.where(root + low > 0, self.radius / (root + low), 0.0)
        return Ball(root, np.maximum(off, np.where(root > 0, 0.0, np.sqrt(self.radius))))

    def through(self, function: Callable[[Floats], Floats], slope: float) -> Ball:
        """A function whose derivative nowhere exceeds ``slope`` in size."""
        return Ball(function(self.value), slope * self.radius)

    def row_max(self) -> Ball:
        """The largest of each row, [..., 1]: as far off as the worst element."""
        return Ball(
            self.value.max(axis=-1, keepdims=True),
            np.broadcast_to(self.radius, self.value.shape).max(axis=-1, keepdims=True),
        )

    def row_sum(self, depth: int) -> Ball:
        """Sum of each row, [..., 1], every value passing at most ``depth`` fp32 additions.

        fl(sum) = sum of y_i prod (1 + d), at most ``depth`` factors each, so the error is within
        sum r_i + gamma(depth) sum (|x_i| + r_i), whatever the order (Higham 2002, §4.2). Additions
        of fp32 numbers do not underflow.
        """
        radius = np.broadcast_to(self.radius, self.value.shape)
        size = np.abs(self.value) + radius
        error = radius.sum(axis=-1, keepdims=True)
        error = error + gamma(depth) * size.sum(axis=-1, keepdims=True)
        return Ball(self.value.sum(axis=-1, keepdims=True), error)

    def masked(self, keep: npt.NDArray[np.bool_]) -> Ball:
        """Exact zeros where ``keep`` is false."""
        return Ball(np.where(keep, self.value, 0.0), np.where(keep, self.radius, 0.0))
