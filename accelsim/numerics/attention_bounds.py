"""How far attention may be from the exact one: a derived bound (see bounds for what that means).

A matrix unit may be given its operands rounded, if queries and cache are kept in different formats.
Numbers and rounding (to nearest even) are known, hence so is what it reads, x'. With A the exact
attention and y the computed one, the triangle inequality gives

    |y - A(x)| <= |y - A(x')| + |A(x') - A(x)|

where the first term is the bound of an attention to x', and the second is evaluated. That is much
less than half an ulp of every number would give: errors of scores add up in their exponents.

Where not every copy rounds alike, x' is known to within r_q, r_k and r_v; sums are then off by

    |q'' k'' - q' k'| <= r_q (|k'| + r_k) + |q'| r_k

before any rounding of their own, which are those of sums of size (|q'| + r_q)(|k'| + r_k). The same
holds of probabilities times values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accelsim.numerics.ball import FP32, Ball
from accelsim.numerics.bounds import (
    Floats,
    Summation,
    kept,
    largest_of,
    one_step,
    rescaled,
    softmax_parts,
)
from accelsim.numerics.formats import Format
from accelsim.numerics.functions import CORRECT, FunctionErrors


@dataclass(frozen=True)
class AttentionSteps:
    """Roundings of an attention: scores, softmax, probabilities, weighted sum.

    ``mid`` holds scores and softmax intermediates, ``operand`` the probabilities as the matrix
    unit reads them, ``summed`` the exponentials as their sum reads them; ``row_depth`` are the
    additions of a row sum over the keys. ``summation.rescales`` counts the blocks of an online
    softmax after the first; running maxima and sums are then kept in fp32. ``shifted``: scores are
    exponentiated with their maximum taken off, else as they are.
    """

    summation: Summation
    row_depth: int
    mid: Format = FP32
    operand: Format = FP32
    summed: Format = FP32
    shifted: bool = True
    errors: FunctionErrors = CORRECT


def as_read(x: Floats, ways: Sequence[tuple[Format, ...]]) -> Ball:
    """Exactly known numbers as a matrix unit reads them, each after one of several ways, on which
    it is rounded to one format after the other: those of the first way, and how far off others are.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        read = [_after(x, formats) for formats in ways] or [x]
        off = [np.abs(other - read[0]) for other in read]
        return Ball(read[0], np.maximum.reduce(off))


def _after(x: Floats, formats: tuple[Format, ...]) -> Floats:
    """Rounded as a copy rounds, to nearest even."""
    for fmt in formats:
        x = fmt.decode(fmt.encode(x)).astype(np.float64)
    return x


def attention(
    q: Ball,
    k: Ball,
    v: Ball,
    scale: float,
    visible: npt.NDArray[np.bool_],
    steps: AttentionSteps,
    bias: Floats | float = 0.0,
) -> Ball:
    """softmax(scale q k^T + bias) v for one head: q [q, d], k [kv, d], v [kv, e] as the matrix unit
    reads them, visible [q, kv], bias [kv] as it is stored.

    Scores are products rounded to ``mid``, scaled; probabilities are rounded to ``operand`` either
    after the division by their sum or before it (then the result is divided): the radius is the
    larger of both. Before it, if the sum reads them as they are rounded, or they are rescaled. No
    bound is known of rescaling in less than fp32: the radius is infinite.
    """
    rescales = steps.summation.rescales
    dots = _product(q, Ball(k.value.T, k.radius.T), steps)
    scores = one_step(dots.scaled(scale), steps.mid)
    if np.any(bias):
        scores = one_step(scores + Ball.exact(np.broadcast_to(bias, scores.value.shape)), steps.mid)
    p, inverse = softmax_parts(
        scores, steps.row_depth, steps.mid, visible, steps.summed, rescales, steps.shifted,
        steps.errors,
    )  # fmt: skip
    weights = rescaled(kept(p, steps.operand), rescales, steps.errors).masked(visible)
    late = one_step(_product(weights, v, steps) * inverse, steps.mid)
    if rescales and steps.mid is not FP32:
        return Ball(late.value, np.full_like(late.value, np.inf))
    if rescales or steps.summed is not steps.mid:
        return late
    early = _product(kept(one_step(p * inverse, steps.mid), steps.operand), v, steps)
    return Ball(early.value, np.maximum(early.radius, late.radius))


def _product(a: Ball, b: Ball, steps: AttentionSteps) -> Ball:
    """a @ b as the matrix unit sums it, of operands that may be off themselves."""
    most_a, most_b = np.abs(a.value) + a.radius, np.abs(b.value) + b.radius
    largest = largest_of(most_a, most_b)
    error = steps.summation.error(most_a @ most_b, b.value.shape[0], largest)
    inherited = a.radius @ most_b + np.abs(a.value) @ b.radius
    return kept(Ball(a.value @ b.value, inherited + error), steps.mid)
