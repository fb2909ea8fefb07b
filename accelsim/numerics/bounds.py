"""Derived error bounds: how far a simulated result may be from the exact one.

Every bound takes the actual operands (float64 copies of exactly known inputs) and returns an
elementwise upper bound; none contains a tolerance that somebody picked. What a bound assumes
about the lowering is stated in it: the roundings between steps are those of ``mid``, the format
in which the vector unit's intermediates are kept (fp32 if they never leave it).

Sources: Wilkinson, Rounding Errors in Algebraic Processes, 1963 (running analysis); Higham,
Accuracy and Stability of Numerical Algorithms, 2nd ed. 2002, §3.1 and §4.2 (gamma_n, any order).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accelsim.numerics import functions
from accelsim.numerics.ball import FP32, U32, Ball, gamma
from accelsim.numerics.cuts import Sliced
from accelsim.numerics.formats import Format
from accelsim.numerics.functions import CORRECT, FunctionErrors
from accelsim.numerics.rules import Levels, Rule, StepError, TensorCoreRule

Floats = npt.NDArray[np.float64]

_U64 = 2.0**-53


@dataclass(frozen=True)
class Summation:
    """How a matrix unit sums products, as far as an error bound needs to know.

    ``depth`` additions with a rounding to ``adder``, at most, lie on the way of any product to the
    result, and ``steps`` fused ones (tensor cores), each of which errs as ``step`` says.
    ``accumulator`` is the format in which a running sum is kept between instructions, and
    ``rests`` how often it is put there. ``operands`` is the format to which factors are rounded, or
    cut off if ``truncates``, as they enter the unit. ``rescales`` is how often a vector unit
    multiplies a running sum by a factor of at most 1 (in fp32), at most.
    """

    depth: int
    accumulator: Format = FP32
    rests: int = 0
    operands: Format = FP32
    steps: int = 0
    step: StepError | None = None
    adder: Format = FP32
    truncates: bool = False
    rescales: int = 0

    def error(self, size: Floats, length: int, largest: float = 0.0) -> Floats:
        """Bound on |computed - exact| of sums of ``length`` products with ``size`` = sum |a||b|.

        Each product is rounded once (exactly, if its factors have 16 bits and it does not
        underflow) and passes at most ``depth`` additions and ``rests`` stores:

            |err| <= ((1 + u)^(depth+1) (1 + u_acc)^rests - 1) size + underflows

        in any order of summation; a product that underflows is off by at most half the smallest
        fp32 quantum, a store by half the accumulator's. Where the factors are rounded on entry,
        (1 + u_in)^2 comes in, and half the smallest quantum of that format times the other factor,
        whose magnitude is at most ``largest`` (needed then, and for fused steps). A fused step adds
        at most K 2^-F M + 2^-p |d| <= (K 2^-F + 2^-p) (what has been added so far), since products
        in it are exact and no term or sum is larger than that; so

            |err| <= ((1 + K 2^-F + 2^-p)^steps ... - 1) size

        and sums do not grow with the root of their length: truncation is biased. Every
        multiplication of a running sum rounds what is in it once more, (1 + u)^rescales, and
        underflows by half a quantum at most; ``size`` is that of the products as they end up. The
        float64 reference itself may be off by gamma_length(2^-53) size, which is added.
        """
        depth = min(self.depth, length)
        store = 0.0 if self.accumulator is FP32 else self.accumulator.unit_roundoff
        u = U32 if self.adder is FP32 else self.adder.unit_roundoff * (1.0 + 2.0**-16)
        growth = depth * np.log1p(u) + self.rests * np.log1p(store)
        growth += self.rescales * np.log1p(U32)
        underflow = length * self.adder.smallest_quantum + self.rests * self._store_floor()
        underflow += self.rescales * FP32.smallest_quantum
        if self.step is None:
            growth += np.log1p(u)
        else:
            growth += self.steps * np.log1p(self.step.relative)
            underflow += self.steps * (self.step.absolute * largest + self.step.floor)
        if self.operands is not FP32:
            entry = self.operands.unit_roundoff * (2.0 if self.truncates else 1.0)
            growth += 2 * np.log1p(entry)
            underflow += length * self.operands.smallest_quantum * 2.0 * (largest + 1.0)
        reference = gamma(length + 4, _U64)
        # What was lost early on grows with what comes later.
        error: Floats = (np.expm1(growth) + reference) * size + 2.0 * np.exp(growth) * underflow
        return error

    @classmethod
    def by(cls, rule: Rule, k: int, before: Levels | None = None) -> Summation:
        """The sums of ``k`` products as a rule forms them, onto one that has been through more."""
        levels = rule.levels(k, before)
        return cls(
            depth=levels.additions,
            accumulator=rule.partials if isinstance(rule, Sliced) else FP32,
            rests=levels.rests,
            operands=rule.entering,
            steps=levels.steps,
            step=rule.step_error,
            adder=rule.adder,
            truncates=rule.entering is not FP32,
        )

    def _store_floor(self) -> float:
        return 0.0 if self.accumulator is FP32 else self.accumulator.smallest_quantum


def product(a: Floats, b: Floats, rule: Rule, acc: Floats | None = None) -> Floats:
    """How far ``rule.multiply(a, b, acc)`` may be from the exact ``a[m, k] @ b[k, n] + acc``.

    Operands are float64 copies of what is multiplied; the result is float64 [m, n], an upper bound
    before any test is run: (K 2^-F + 2^-p) for each step of a tensor core, u for each addition.
    Overflow is not covered: an infinite sum is an error.
    """
    size = np.abs(a) @ np.abs(b)
    before = None
    if acc is not None:
        size, before = size + np.abs(acc), Levels()
    largest = largest_of(a, b)
    return Summation.by(rule, a.shape[1], before).error(size, a.shape[1] + 1, largest)


def running_steps(a: Floats, b: Floats, rule: TensorCoreRule) -> Floats:
    """Running bound of ``a[m, k] @ b[k, n]`` by a chain of fused steps: sharper, in one order.

    Along the exact prefixes s_j with |computed - s_j| <= e_j, a step cuts each of its K + 1 terms
    off below 2^-F times the largest, P or what has been summed so far, and delivers p bits:

        e_j = (e_(j-1) + K 2^-F max(P_j, |s_(j-1)| + e_(j-1)) + 2^-p |s_j|) / (1 - 2^-p)

    Operands that the unit cuts off on entry (tf32) are bounded as cut off. O(m n k) float64.
    """
    step, error = rule.step, rule.step_error
    cut = step.products * 2.0**-step.fraction_bits
    p = 2.0 ** -(step.kept_bits + (step.rounding == "RNE"))
    shape = (a.shape[0], b.shape[1])
    total, off = np.zeros(shape), np.zeros(shape)
    rest = error.absolute * largest_of(a, b) + error.floor
    for first in range(0, a.shape[1], step.products):
        products = a[:, first : first + step.products, None] * b[first : first + step.products]
        largest = np.maximum(np.abs(products).max(axis=1), np.abs(total) + off)
        total = total + products.sum(axis=1)
        off = (off + cut * largest + p * np.abs(total) + rest) / (1.0 - p)
    reference: Floats = gamma(a.shape[1] + 4, _U64) * (np.abs(a) @ np.abs(b))
    return off + reference


def running_folds(a: Floats, b: Floats, fold: int) -> Floats:
    """Running bound of ``a[m, k] @ b[k, n]`` by folded_fp32: sharper, for one known order.

    Along a chain s_j = s_(j-1) + p_j with exact prefixes s_j and |computed - s_j| <= e_j,

        e_j = (1 + u)(e_(j-1) + u |p_j| + eta) + u |s_j|

    because one addition rounds a number that is within e_(j-1) + u |p_j| + eta of s_j. The folds
    are added the same way. Costs O(m n k) float64; ``fold`` >= k is the in-place chain.
    """
    shape = (a.shape[0], b.shape[1])
    total, error = np.zeros(shape), np.zeros(shape)
    for first in range(0, a.shape[1], fold):
        psum, off = np.zeros(shape), np.zeros(shape)
        for k in range(first, min(first + fold, a.shape[1])):
            product = a[:, k, None] * b[k]
            psum += product
            off = (1.0 + U32) * (off + U32 * np.abs(product) + FP32.smallest_quantum)
            off += U32 * np.abs(psum)
        total += psum
        error = (1.0 + U32) * (error + off) + U32 * np.abs(total)
    return error


def softmax(x: Ball, depth: int, mid: Format = FP32, errors: FunctionErrors = CORRECT) -> Ball:
    """exp(x - max) * (1 / sum), as: row max, subtract, exp, row sum, reciprocal, multiply.

    The row maximum cancels in exact arithmetic, so its own error only shifts all exponents alike;
    the bound does not use that and counts it.
    """
    p, inverse = softmax_parts(x, depth, mid, errors=errors)
    return one_step(p * inverse, mid)


def softmax_parts(
    x: Ball,
    depth: int,
    mid: Format,
    visible: npt.NDArray[np.bool_] | None = None,
    summed: Format = FP32,
    rescales: int = 0,
    shifted: bool = True,
    errors: FunctionErrors = CORRECT,
) -> tuple[Ball, Ball]:
    """(exp(x - max), 1 / sum) over the last axis; invisible elements count as exact zeros.

    Without the maximum (not ``shifted``) nothing is subtracted, hence nothing rounded there, and
    exponentials are as large as the scores make them: what underflows counts for more of a small
    sum, and an overflow is an error.

    The sum reads the exponentials in ``summed``, and is multiplied by a factor ``rescales`` times
    (see ``rescaled``) as it runs.
    """
    if not shifted:
        exponent = x
    elif visible is None:
        exponent = one_step(x - x.row_max(), mid)
    else:
        top = Ball(np.where(visible, x.value, -np.inf), x.radius).row_max()
        exponent = one_step(x - top, mid)
    if visible is not None:
        exponent = exponent.masked(visible)
    p = _exponential(exponent, mid, errors)
    if visible is not None:
        p = p.masked(visible)
    added = rescaled(kept(p, summed), rescales, errors)
    if visible is not None:
        added = added.masked(visible)
    total = added.row_sum(depth + rescales)
    total = Ball(total.value, total.radius + rescales * FP32.smallest_quantum)
    inverse = _reciprocal(one_step(total, mid), mid, errors)
    return p, inverse


def rescaled(p: Ball, rescales: int, errors: FunctionErrors = CORRECT) -> Ball:
    """exp(x - max) of an online softmax: from the running maximum of x's own block to the last.

    Block b takes exp(x - m_b), and every later block that knows a maximum m_t multiplies what it
    finds by exp(m_(t-1) - m_t). In exact arithmetic the product telescopes to exp(x - m_n). As
    computed,

        p' = exp((x - m_b)(1 + d_0))(1 + e_0) prod_t exp((m_(t-1) - m_t)(1 + d_t))(1 + e_t)

    with |d|, |e| <= u: every difference and every exponential is rounded once. Running maxima only
    grow and x <= m_b, so all differences are <= 0 and their sizes add up to m_n - x, whatever the
    blocks: the roundings of the differences shift the exponent by at most u (m_n - x), exactly what
    one difference x - m_n rounds. That, and e_0, are in ``p``. What is left is (1 + u)^rescales,
    and factors that underflow: each is off by half a quantum, and neither p' nor a factor exceeds
    1, so that a quantum per factor covers it. Maxima are exact: a maximum rounds nothing.

    The multiplications by the factors are rounded where they happen: in the running sum
    (``softmax_parts``) and in the accumulators (``Summation.rescales``).

    Source: Milakov and Gimelshein, Online normalizer calculation for softmax, 2018
    (arXiv 1805.02867), §3; Dao, FlashAttention-2, 2023 (arXiv 2307.08691), Algorithm 1. The bound
    is ours.
    """
    if not rescales:
        return p
    size = np.abs(p.value) + p.radius
    growth, floor = gamma(rescales), rescales * FP32.smallest_quantum
    if errors is not CORRECT:
        # Arguments that are rounded to a narrower format shift exponents as differences do.
        growth = gamma(rescales, U32 + errors.exp)
        floor += rescales * functions.EXP_LEAST
    return Ball(p.value, p.radius + growth * size + floor)


def layernorm(
    x: Ball, weight: Ball, bias: Ball, eps: float, depth: int, mid: Format = FP32,
    errors: FunctionErrors = CORRECT,
) -> Ball:  # fmt: skip
    """(x - mean) rsqrt(var + eps) weight + bias, two-pass.

    As: row sum, times 1/n, subtract; square, row sum, times 1/n, add eps, rsqrt; then three
    multiplications/additions. Multiplying by weight before or after rsqrt gives the same bound.
    """
    n = x.value.shape[-1]
    mean = one_step(one_step(x.row_sum(depth), mid).scaled(1.0 / n), mid)
    centred = one_step(x - mean, mid)
    y = _normalised(centred, eps, depth, mid, errors)
    return one_step(one_step(y * weight, mid) + bias, mid)


def rmsnorm(
    x: Ball, weight: Ball, eps: float, depth: int, mid: Format = FP32,
    errors: FunctionErrors = CORRECT,
) -> Ball:  # fmt: skip
    """x rsqrt(mean(x^2) + eps) weight, as: square, row sum, times 1/n, add eps, rsqrt, multiply."""
    return one_step(_normalised(x, eps, depth, mid, errors) * weight, mid)


def _normalised(x: Ball, eps: float, depth: int, mid: Format, errors: FunctionErrors) -> Ball:
    squares = one_step(x * x, mid)
    total = one_step(squares.row_sum(depth), mid)
    variance = one_step(total.scaled(1.0 / x.value.shape[-1]), mid)
    return one_step(x * inverse_root(variance, eps, mid, errors), mid)


def inverse_root(variance: Ball, eps: float, mid: Format, errors: FunctionErrors) -> Ball:
    """1 / sqrt(variance + eps) of a computed variance."""
    shift = Ball.constant(eps)
    # Rounding is monotonic and a computed sum of squares is not negative: variance + eps, as
    # computed, is no smaller than eps rounded, however large the error of the variance.
    alone = one_step(shift, mid)
    least = max(float((alone.value - alone.radius)[0]), 0.0)
    inside = _entering(one_step(variance + shift, mid), errors)
    least *= 1.0 - errors.entering.unit_roundoff
    return one_step(_off(inside.rsqrt(least), errors.rsqrt), mid)


def activation(
    function: str, x: Ball, mid: Format = FP32, errors: FunctionErrors = CORRECT
) -> Ball:
    """One scalar function, as exact as a set of functions is.

    quick_gelu is x sigmoid(1.702 x) in three steps.
    """
    if function == "exp":
        return _exponential(x, mid, errors)
    if function == "quick_gelu":
        inner = _entering(one_step(x.scaled(1.702), mid), errors)
        gate = _off(inner.through(functions.sigmoid, 0.25), *errors.smooth.get("sigmoid", ()))
        return one_step(x * one_step(gate, mid), mid)
    if function == "relu":
        return Ball(np.maximum(x.value, 0.0), x.radius)
    evaluate, slope = _SMOOTH[function]
    computed = _entering(x, errors).through(evaluate, slope)
    return one_step(_off(computed, *errors.smooth.get(function, ())), mid)


# Largest slopes: of x Phi(x) 1.1290 at sqrt 2, of its tanh form 1.1290, of x sigmoid(x) 1.0998.
_SMOOTH: dict[str, tuple[Callable[..., Floats], float]] = {
    "tanh": (np.tanh, 1.0),
    "sigmoid": (functions.sigmoid, 0.25),
    "gelu": (functions.gelu, 1.13),
    "gelu_tanh": (functions.gelu_tanh, 1.13),
    "silu": (functions.silu, 1.1),
}


# Largest slopes of the derivatives: second derivatives of the functions above.
DERIVATIVES: dict[str, tuple[Callable[..., Floats], float]] = {
    "tanh": (functions.tanh_grad, 0.7699),
    "sigmoid": (functions.sigmoid_grad, 0.0963),
    "gelu": (functions.gelu_grad, 0.7979),
    "gelu_tanh": (functions.gelu_tanh_grad, 0.7980),
    "silu": (functions.silu_grad, 0.5001),
}


def elementwise(function: str, a: Ball, b: Ball, mid: Format = FP32) -> Ball:
    """One addition, subtraction, multiplication or maximum."""
    if function == "max":
        return a.maximum(b)
    return one_step({"add": a + b, "sub": a - b, "mul": a * b}[function], mid)


def gate(
    scores: Ball, scale: float, depth: int, normalise: bool, mid: Format = FP32,
    errors: FunctionErrors = CORRECT,
) -> Ball:  # fmt: skip
    """Scores [tokens, chosen] times a factor, unless that is 1, divided by their row sum if asked
    for: multiplied with its reciprocal times the factor."""
    if not normalise:
        return scores if scale == 1.0 else one_step(scores.scaled(scale), mid)
    total = one_step(scores.row_sum(depth), mid)
    factor = _reciprocal(total, mid, errors)
    return one_step(scores * (factor if scale == 1.0 else one_step(factor.scaled(scale), mid)), mid)


def weighted_sum(terms: Sequence[tuple[Ball, Ball]], mid: Format = FP32) -> Ball:
    """w_0 x_0 + w_1 x_1 + ... in this order: a multiplication and an addition for each term."""
    products = [one_step(weight * x, mid) for weight, x in terms]
    total = products[0]
    for term in products[1:]:
        total = one_step(total + term, mid)
    return total


def mean_in_any_order(mean: Floats, size: Floats, terms: int, mid: Format = FP32) -> Ball:
    """Mean of ``terms`` values added in any order, then multiplied by 1/terms; ``size`` is the mean
    of their absolute values. A sum kept in ``mid`` is rounded again at every addition."""
    growth = (terms - 1) * (np.log1p(U32) + (0.0 if mid is FP32 else np.log1p(mid.unit_roundoff)))
    floor = 0.0 if mid is FP32 else terms * mid.smallest_quantum
    error = terms * (np.expm1(growth) + gamma(terms + 4, _U64)) * size + floor
    return one_step(Ball(terms * mean, error).scaled(1.0 / terms), mid)


def rotary(x: Ball, rotated: Ball, cos: Ball, sin: Ball, mid: Format = FP32) -> Ball:
    """x cos + rotate_half(x) sin: two products and a sum, each rounded."""
    return one_step(one_step(x * cos, mid) + one_step(rotated * sin, mid), mid)


def largest_of(*values: Floats) -> float:
    """The largest finite magnitude, 0 if there is none: sums with other factors have no bound."""
    sizes = (np.abs(x) for x in values)
    return max(float(np.max(x, initial=0.0, where=np.isfinite(x))) for x in sizes)


def one_step(ball: Ball, mid: Format) -> Ball:
    """One result of the vector unit: rounded to fp32, and again if it is kept in less."""
    return kept(ball.rounded(FP32), mid)


def _exponential(x: Ball, mid: Format, errors: FunctionErrors = CORRECT) -> Ball:
    """e^x as a set of functions gives it: within a relative error, or flushed."""
    return kept(_off(_entering(x, errors).exp(), errors.exp, functions.EXP_LEAST), mid)


def _reciprocal(x: Ball, mid: Format, errors: FunctionErrors) -> Ball:
    """1 / x; no bound where a set of functions flushes it."""
    inverse = _off(_entering(x, errors).reciprocal(), errors.reciprocal)
    if errors is not CORRECT:
        flushed = (np.abs(inverse.value) >= 2.0**125) | (np.abs(inverse.value) <= 2.0**-125)
        inverse = Ball(inverse.value, np.where(flushed, np.inf, inverse.radius))
    return one_step(inverse, mid)


def _entering(x: Ball, errors: FunctionErrors) -> Ball:
    """An argument as a set of functions takes it."""
    return x if errors.entering is FP32 else x.rounded(errors.entering)


def _off(ball: Ball, relative: float = 0.0, absolute: float = 0.0) -> Ball:
    """A result that is off by so much more."""
    if not (relative or absolute):
        return ball
    size = np.abs(ball.value) + ball.radius
    return Ball(ball.value, ball.radius + relative * size + absolute)


def kept(ball: Ball, fmt: Format) -> Ball:
    """An fp32 result stored in ``fmt``."""
    return ball if fmt is FP32 else ball.rounded(fmt)
