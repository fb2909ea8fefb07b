"""How far linear attention in chunks may be from its recurrence: derived bounds.

Unrolled, o_i is a sum over earlier tokens j, and over the state that the sequence begins with:

    o_i = scale (sum_(j<=i) (q_i . k_j) e^(G_i - G_j) v_j + e^(G_i) q_i S_0),   G_i = g_1 + .. g_i

However tokens are cut into chunks of at most C, every term of it is multiplied out: products of two
nested sums (scores times values, or queries times sums of keys and values), times the exponentials
of at most (i - j) / C + 3 partial sums of g, with a few roundings to fp32 in between and at most
two to the format of the operands (the weights; or the decayed keys and the state). All of that is
linear in the term, so that relative errors add to one growth per pair (i, j), and sums of absolute
values bound what is lost (Higham 2002, §3.1; the argument is that of attention_bounds).

The exponents of a term are sums over parts of the chunks: their sizes add up to |G_i - G_j| and
twice what the chunk of j has before it, at most w_j, the sum of |g| over the C tokens up to j. A
sum of C numbers of one sign errs by gamma(C) of itself in any order (§4.2), so exponents are off by

    a_ij = (gamma(C + 1) + u) (|G_i - G_j| + 2 w_j)

where one of the C + 1 roundings is that of a constant g. What falls below a format's smallest
number is counted by its quanta, with the decay that follows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accelsim.numerics import functions
from accelsim.numerics.ball import FP32, INFLATION, U32, Ball, gamma
from accelsim.numerics.bounds import Summation
from accelsim.numerics.formats import Format

Floats = npt.NDArray[np.float64]

STEPS = 6
"""Roundings of a term to fp32 beside sums and decays: weight or key, result, the addition of what
comes from within the chunk and from before it, scale."""


@dataclass(frozen=True)
class RecurrenceSteps:
    """Roundings of a linear attention: its sums, the tokens of its ``chunk`` (most exponentials
    that one instruction forms of a row; 0: nothing decays), the format ``mid`` in which running
    states and results wait for the vector unit, ``operand`` that of what the matrix unit reads."""

    summation: Summation
    chunk: int
    mid: Format = FP32
    operand: Format = FP32
    exponential: float = functions.CORRECT.exp
    """Relative error of an exponential."""
    entering: Format = FP32
    """The format to which its argument is rounded."""


@dataclass(frozen=True)
class _Pairs:
    """Of every query i and token j, [q, t]: the exact ``decay``; the most that it may be as
    ``computed``, with the fp32 and operand roundings of the term; the decay ``after`` the chunk of
    j at the latest; ``exponentials`` on the way. Column 0 is the first state, 1 the first token."""

    decay: Floats
    computed: Floats
    after: Floats
    exponentials: Floats


def outputs(q: Floats, k: Floats, v: Floats, g: Floats, s: Floats, steps: RecurrenceSteps) -> Ball:
    """q_i^T S_i of one head, not scaled: q, k [t, d], v [t, e], g [t] <= 0, s [d, e]."""
    n, d = q.shape
    pairs = _pairs(g, np.arange(1, n + 1), steps, 1 + (steps.chunk > 0))
    scores = np.abs(q) @ np.abs(k).T
    first = np.abs(q) @ np.abs(s)
    exact = (q @ k.T * pairs.decay[:, 1:]) @ v + pairs.decay[:, :1] * (q @ s)

    def weighed(by: Floats) -> Floats:
        total: Floats = (scores * by[:, 1:]) @ np.abs(v) + by[:, :1] * first
        return total

    size = weighed(pairs.computed)
    inner, quanta = np.abs(q).sum(axis=1, keepdims=True), _quantum(steps)
    seen = pairs.computed[:, 1:] @ np.abs(v)
    floor = quanta * (inner * (pairs.after[:, 1:] @ np.abs(v) + n) + seen + 1.0)
    floor = floor + functions.EXP_LEAST * weighed(pairs.exponentials)
    off = weighed(pairs.computed - pairs.decay) + 2.0 * floor
    largest = max(_most(q), _most(k), _most(v), _most(scores), _most(np.abs(k).T @ np.abs(v)))
    largest = max(largest, _most(s))
    for sums, below in ((steps.summation, seen + inner), (steps.summation, 1.0)):
        least = sums.error(np.zeros_like(size), n + d + 1, largest)
        off = off + (sums.error(size + off, n + d + 1, largest) - least) + least * below
    return _bounded(exact, off, steps)


def last_state(k: Floats, v: Floats, g: Floats, s: Floats, steps: RecurrenceSteps) -> Ball:
    """S_n of one head: k [n, d], v [n, e], g [n] <= 0, s [d, e]."""
    n = len(k)
    pairs = _pairs(g, np.array([n]), steps, int(steps.chunk > 0))

    def weighed(by: Floats, x: Floats, y: Floats, z: Floats) -> Floats:
        total: Floats = (x * by[0, 1:, None]).T @ y + by[0, 0] * z
        return total

    exact = weighed(pairs.decay, k, v, s)
    sizes = np.abs(k), np.abs(v), np.abs(s)
    size = weighed(pairs.computed, *sizes)
    floor = _quantum(steps) * (pairs.after[0, 1:] @ np.abs(v) + n)
    floor = floor + functions.EXP_LEAST * weighed(pairs.exponentials, *sizes)
    off = weighed(pairs.computed - pairs.decay, *sizes) + 2.0 * floor
    largest = max(_most(k), _most(v), _most(s))
    off = off + steps.summation.error(size + off, n + 1, largest)
    return _bounded(exact, off, steps)


def _pairs(
    g: Floats, queries: npt.NDArray[np.int64], steps: RecurrenceSteps, roundings: int
) -> _Pairs:
    """``queries`` counts tokens from 1: state i is that after token i; ``roundings`` are those of a
    term to the format of the operands."""
    n, chunk = len(g), max(1, steps.chunk)
    prefix = np.concatenate([[0.0], np.cumsum(g)])
    token = np.arange(n + 1)
    seen = token[None, :] <= queries[:, None]
    distance = np.where(seen, prefix[None, :] - prefix[queries][:, None], 0.0)  # |G_i - G_j|
    decay = np.where(seen, np.exp(-distance), 0.0)
    before = prefix[np.maximum(token - chunk, 0)] - prefix
    rounded = U32 if steps.entering is FP32 else U32 + steps.entering.unit_roundoff
    exponent = (gamma(chunk + 1) + rounded) * (distance + 2.0 * before[None, :])
    spans = (queries[:, None] - token[None, :]) // chunk + 3.0
    exponentials = np.where(seen, spans, 0.0) if steps.chunk else np.zeros(decay.shape)
    growth = exponent * INFLATION + exponentials * np.log1p(steps.exponential)
    # Between chunks, a state is multiplied and added to where it is not a running sum.
    growth = growth + (STEPS + 2.0 * exponentials) * np.log1p(U32)
    if steps.operand is not FP32:
        growth = growth + roundings * np.log1p(steps.operand.unit_roundoff * INFLATION)
    ends = np.minimum(np.minimum(token + chunk, n)[None, :], queries[:, None])
    after = np.where(seen, np.exp(prefix[queries][:, None] - prefix[ends]), 0.0)
    return _Pairs(decay, decay * np.exp(growth), after, exponentials)


def _quantum(steps: RecurrenceSteps) -> float:
    """What a rounding may lose of a number too small for its format."""
    operand = 0.0 if steps.operand is FP32 else steps.operand.smallest_quantum
    return operand + FP32.smallest_quantum


def _bounded(exact: Floats, off: Floats, steps: RecurrenceSteps) -> Ball:
    """No bound is known of states that are kept in less than fp32."""
    if steps.mid is not FP32:
        return Ball(exact, np.full_like(exact, np.inf))
    return Ball(exact, off)


def _most(values: Floats) -> float:
    return float(np.max(np.abs(values), initial=0.0))
