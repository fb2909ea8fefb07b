"""Derived bounds hold: on random, cancelling, wide-ranging and subnormal operands alike.

The simulated side is the arrays' and lanes' own arithmetic, the exact side rational numbers or
80-bit floats. The worst error/bound of ordinary data must also not vanish: a bound that nothing
comes near proves nothing.
"""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.hw.systolic import Systolic
from accelsim.hw.vector import Vector
from accelsim.numerics import attention_bounds, bounds
from accelsim.numerics.ball import FP32, Ball, gamma
from accelsim.numerics.formats import FORMATS
from accelsim.program.opcodes import Function

F = Function
FP16, BF16 = FORMATS["fp16"], FORMATS["bf16"]
KINDS = ("normal", "positive", "cancelling", "wide", "subnormal", "one large")
LANES = 4

bounded = settings(deadline=None, max_examples=60, derandomize=True)

seeds = st.integers(0, 2**32 - 1)


def numbers(kind, shape, seed):
    """fp32 operands of one family; sums of them stay finite in fp32."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    if kind == "positive":
        x = np.abs(x)
    elif kind == "cancelling":
        half = x[..., : shape[-1] // 2] * 1e4
        x[..., : half.shape[-1]] = half
        x[..., half.shape[-1] : 2 * half.shape[-1]] = -half[..., ::-1]
    elif kind == "wide":
        x = x * 2.0 ** rng.integers(-30, 30, shape)
    elif kind == "subnormal":
        x = x * 2.0 ** rng.integers(-76, -70, shape)
    elif kind == "one large":
        x[..., seed % shape[-1]] *= 2.0**25
    return x.astype(np.float32)


def array(dataflow, rows):
    return Systolic(rows=rows, cols=8, dataflow=dataflow, inputs="sp", weights="sp", outputs="sp")


def exact_dots(a, b):
    """a @ b in rationals, as a list of lists."""
    columns = [[Fraction(float(v)) for v in column] for column in b.T]
    rows = [[Fraction(float(v)) for v in row] for row in a]
    return [[sum(x * y for x, y in zip(r, c, strict=True)) for c in columns] for r in rows]


def error_of(simulated, exact):
    """|simulated - exact| in float64, rounded up."""
    return np.array(
        [
            [float(abs(Fraction(float(s)) - e)) for s, e in zip(row, exacts, strict=True)]
            for row, exacts in zip(simulated, exact, strict=True)
        ]
    ) * (1 + 2.0**-50)


@bounded
@given(
    kind=st.sampled_from(KINDS),
    dataflow=st.sampled_from(("ws", "os")),
    rows=st.integers(1, 9),
    k=st.integers(1, 40),
    halves=st.booleans(),
    seed=seeds,
)
def test_sums_of_products(kind, dataflow, rows, k, halves, seed):
    a, b = numbers(kind, (3, k), seed), numbers(kind, (2, k), seed + 1).T
    if halves:
        a, b = (np.clip(x, -6e4, 6e4).astype(np.float16).astype(np.float32) for x in (a, b))
    block = array(dataflow, rows)
    error = error_of(block.multiply(a, b, None), exact_dots(a, b))
    wide_a, wide_b = a.astype(float), b.astype(float)
    depth = block.summation_depth(k, None)
    apriori = bounds.Summation(depth).error(np.abs(wide_a) @ np.abs(wide_b), k)
    running = bounds.running_folds(wide_a, wide_b, rows if dataflow == "ws" else k)
    assert (error <= apriori).all()
    assert (error <= running).all()


@bounded
@given(kind=st.sampled_from(KINDS), pieces=st.integers(1, 5), seed=seeds)
def test_sums_kept_in_a_coarse_accumulator(kind, pieces, seed):
    """Between instructions the running sum rests in fp16: the bound counts every store."""
    a = np.clip(numbers(kind, (3, 8 * pieces), seed), -50, 50)
    b = np.clip(numbers(kind, (2, 8 * pieces), seed + 1).T, -50, 50)
    block, acc, depth = array("ws", 4), None, None
    for first in range(0, 8 * pieces, 8):
        part = slice(first, first + 8)
        depth = block.summation_depth(8, depth)
        acc = FP16.decode(FP16.encode(block.multiply(a[:, part], b[part], acc)))
    size = np.abs(a).astype(float) @ np.abs(b).astype(float)
    bound = bounds.Summation(depth, FP16, pieces).error(size, 8 * pieces)
    assert (error_of(acc, exact_dots(a, b)) <= bound).all()


@bounded
@given(
    kind=st.sampled_from(KINDS),
    fmt=st.sampled_from((FP16, BF16, FP32)),
    exponent=st.integers(-40, 10),
    seed=seeds,
)
def test_rounding_to_a_format(kind, fmt, exponent, seed):
    x = numbers(kind, (1, 16), seed) * np.float32(2.0**exponent)
    x = np.clip(x, -6e4, 6e4)
    stored = fmt.decode(fmt.encode(x)).astype(float)
    assert (np.abs(stored - x) <= Ball.exact(x).rounded(fmt).radius).all()


@bounded
@given(kind=st.sampled_from(KINDS), lanes=st.integers(1, 20), cols=st.integers(1, 50), seed=seeds)
def test_row_sums(kind, lanes, cols, seed):
    unit = Vector(lanes=lanes, memory=("sp",))
    x = numbers(kind, (3, cols), seed)
    exact = [[sum((Fraction(float(v)) for v in row), Fraction(0))] for row in x]
    bound = Ball.exact(x).row_sum(unit.row_sum_depth(cols)).radius
    assert (error_of(unit.row_sum(x), exact) <= bound * (1 + 2.0**-40)).all()


def lane(function, *operands, imm=0.0, mid=FP32):
    """One vector instruction whose result is kept in ``mid``."""
    unit = Vector(lanes=LANES, memory=("sp",))
    a, b = (*operands, None)[:2]
    return mid.decode(mid.encode(unit.apply(function, a, b, imm)))


def depth_of(cols):
    return Vector(lanes=LANES, memory=("sp",)).row_sum_depth(cols)


def simulated_softmax(x, mid, visible=None):
    e = lane(F.SUB, x, lane(F.ROW_MAX, x), mid=mid)
    e = lane(F.EXP, e, mid=mid)
    inverse = lane(F.RECIPROCAL, lane(F.ROW_SUM, e, mid=mid), mid=mid)
    return lane(F.MUL, e, inverse, mid=mid)


def exact_softmax(x):
    p = np.exp(x - x.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


@bounded
@given(
    kind=st.sampled_from(("normal", "positive", "wide", "subnormal")),
    scale=st.sampled_from((0.1, 1.0, 30.0)),
    cols=st.integers(1, 30),
    mid=st.sampled_from((FP32, FP16, BF16)),
    seed=seeds,
)
def test_softmax(kind, scale, cols, mid, seed):
    x = np.clip(numbers(kind, (3, cols), seed) * np.float32(scale), -1e3, 1e3)
    x = mid.decode(mid.encode(x))
    bound = bounds.softmax(Ball.exact(x), depth_of(cols), mid).radius
    error = np.abs(simulated_softmax(x, mid) - exact_softmax(x.astype(np.longdouble)))
    assert (error <= bound).all()


def simulated_norm(x, weight, bias, eps, mid):
    cols = x.shape[1]
    if bias is not None:
        mean = lane(F.MUL_IMM, lane(F.ROW_SUM, x, mid=mid), imm=1 / cols, mid=mid)
        x = lane(F.SUB, x, mean, mid=mid)
    s = lane(F.ROW_SUM, lane(F.MUL, x, x, mid=mid), mid=mid)
    s = lane(F.ADD_IMM, lane(F.MUL_IMM, s, imm=1 / cols, mid=mid), imm=eps, mid=mid)
    y = lane(F.MUL, x, lane(F.RSQRT, s, mid=mid), mid=mid)
    y = lane(F.MUL, y, weight, mid=mid)
    return y if bias is None else lane(F.ADD, y, bias, mid=mid)


@bounded
@given(
    kind=st.sampled_from(KINDS),
    offset=st.sampled_from((0.0, 1.0, 1000.0)),
    cols=st.integers(1, 40),
    centred=st.booleans(),
    mid=st.sampled_from((FP32, BF16)),
    seed=seeds,
)
def test_norms(kind, offset, cols, centred, mid, seed):
    """Rows far from zero cancel in the mean; the bound must grow with them."""
    x = np.clip(numbers(kind, (3, cols), seed), -1e6, 1e6) + np.float32(offset)
    x = mid.decode(mid.encode(x))
    weight, bias = numbers("normal", (1, cols), seed + 1), numbers("normal", (1, cols), seed + 2)
    wide, w, b = (v.astype(np.longdouble) for v in (x, weight, bias))
    balls = [Ball.exact(v) for v in (x, weight, bias)]
    if centred:
        wide = wide - wide.mean(axis=1, keepdims=True)
        bound = bounds.layernorm(*balls, 1e-5, depth_of(cols), mid).radius
    else:
        b, bias = 0, None
        bound = bounds.rmsnorm(*balls[:2], 1e-5, depth_of(cols), mid).radius
    exact = wide / np.sqrt((wide**2).mean(axis=1, keepdims=True) + np.longdouble(1e-5)) * w + b
    error = np.abs(simulated_norm(x, weight, bias, 1e-5, mid) - exact)
    assert np.isfinite(bound).all()
    assert (error <= bound).all()


ACTIVATIONS = {
    "gelu": (F.GELU, lambda x: x * math.erfc(-x / math.sqrt(2)) / 2),
    "silu": (F.SILU, lambda x: x / (1 + math.exp(-x))),
    "tanh": (F.TANH, math.tanh),
    "sigmoid": (F.SIGMOID, lambda x: 1 / (1 + math.exp(-x))),
    "exp": (F.EXP, math.exp),
}


@bounded
@given(name=st.sampled_from(sorted(ACTIVATIONS)), kind=st.sampled_from(KINDS), seed=seeds)
def test_activations(name, kind, seed):
    function, exact = ACTIVATIONS[name]
    x = np.clip(numbers(kind, (2, 8), seed), -80, 80)
    expected = np.array([[exact(float(v)) for v in row] for row in x])
    error = np.abs(lane(function, x) - expected)
    assert (error <= bounds.activation(name, Ball.exact(x)).radius).all()


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "silu", "tanh", "sigmoid"])
def test_slopes_cover_the_derivative(name):
    evaluate, slope = bounds._SMOOTH[name]
    x = np.linspace(-12, 12, 400_001)
    y = evaluate(x)
    assert np.abs(np.diff(y) / np.diff(x)).max() <= slope


def simulated_attention(q, k, v, scale, visible, operand, late):
    block = array("ws", 4)
    scores = lane(F.MUL_IMM, block.multiply(q, k.T, None), imm=scale)
    scores = np.where(visible, scores, np.float32(-np.inf))
    e = lane(F.EXP, lane(F.SUB, scores, lane(F.ROW_MAX, scores)))
    inverse = lane(F.RECIPROCAL, lane(F.ROW_SUM, e))
    p = e if late else lane(F.MUL, e, inverse)
    out = block.multiply(operand.decode(operand.encode(p)), v, None)
    return lane(F.MUL, out, inverse) if late else out


@bounded
@given(
    kind=st.sampled_from(("normal", "positive", "one large")),
    q_len=st.integers(1, 4),
    kv=st.integers(4, 20),
    late=st.booleans(),
    operand=st.sampled_from((FP16, BF16, FP32)),
    seed=seeds,
)
def test_attention(kind, q_len, kv, late, operand, seed):
    d = 8
    q, k, v = (
        operand.decode(operand.encode(np.clip(numbers(kind, (n, d), seed + i), -100, 100)))
        for i, n in enumerate((q_len, kv, kv))
    )
    visible = np.arange(kv) <= kv - q_len + np.arange(q_len)[:, None]
    block = array("ws", 4)
    steps = attention_bounds.AttentionSteps(
        bounds.Summation(block.summation_depth(max(d, kv), None)), depth_of(kv), operand=operand
    )
    wide = [x.astype(float) for x in (q, k, v)]
    bound = attention_bounds.attention(*map(Ball.exact, wide), 0.25, visible, steps).radius
    scores = wide[0].astype(np.longdouble) @ wide[1].T.astype(np.longdouble) * 0.25
    exact = exact_softmax(np.where(visible, scores, -np.inf)) @ wide[2]
    got = simulated_attention(q, k, v, 0.25, visible, operand, late)
    assert (np.abs(got - exact) <= bound).all()


@bounded
@given(st.integers(2, 30), st.floats(-87.5, 80.0), st.floats(0.0, 6.0), st.booleans(), seeds)
def test_attention_without_a_maximum(kv, level, spread, late, seed):
    """Exponentials of scores as they are, down to where they are flushed to zero."""
    rng = np.random.default_rng(seed)
    k, v = ((spread * x).astype(np.float32) for x in rng.standard_normal((2, kv, 1)))
    k = np.clip(k + np.float32(level), -87.5, 80).astype(np.float32)
    q, visible = np.ones((1, 1), np.float32), np.ones((1, kv), bool)
    sums = bounds.Summation(kv)
    steps = attention_bounds.AttentionSteps(sums, depth_of(kv), shifted=False)
    wide = [x.astype(float) for x in (q, k, v)]
    bound = attention_bounds.attention(*map(Ball.exact, wide), 1.0, visible, steps).radius
    exact = exact_softmax(k.T.astype(np.longdouble)) @ v.astype(np.longdouble)
    e = lane(F.EXP, k.T)
    total = lane(F.ROW_SUM, e)
    block = array("os", 4)
    if late:
        got = lane(F.DIV, block.multiply(e, v, None), total)
    else:
        got = block.multiply(lane(F.DIV, e, total), v, None)
    assert (np.abs(got - exact) <= bound).all() or not total.all()


def test_small_exponentials_need_the_bound_without_a_maximum():
    """What is flushed to zero counts for much of a small sum, and for little of one around 1."""
    q, v, visible = np.ones((1, 1)), np.array([[1.0], [0.0]]), np.ones((1, 2), bool)
    k = np.array([[-87.2], [-87.4]])
    steps = attention_bounds.AttentionSteps(bounds.Summation(2), 1)
    shifted, plain = (
        attention_bounds.attention(
            *map(Ball.exact, (q, k, v)), 1.0, visible, replace(steps, shifted=how)
        ).radius.item()
        for how in (True, False)
    )
    assert shifted < 1e-4 < 0.1 < plain


def simulated_online(q, k, v, scale, visible, operand, keys, rescale=True):
    """FlashAttention-2 on lanes and an array, in blocks of ``keys`` keys."""
    block, out, top, total = array("ws", 4), None, None, None
    for first in range(0, len(k), keys):
        some = slice(first, first + keys)
        scores = lane(F.MUL_IMM, block.multiply(q, k[some].T, None), imm=scale)
        scores = np.where(visible[:, some], scores, np.float32(-np.inf))
        higher = lane(F.ROW_MAX, scores)
        higher = higher if top is None else lane(F.MAX, higher, top)
        p = operand.decode(operand.encode(lane(F.EXP, lane(F.SUB, scores, higher))))
        fresh = lane(F.ROW_SUM, p)
        if top is not None:
            factor = lane(F.EXP, lane(F.SUB, top, higher))
            fresh = lane(F.ADD, lane(F.MUL, total, factor), fresh)
            out = lane(F.MUL, out, factor) if rescale else out
        top, total, out = higher, fresh, block.multiply(p, v[some], out)
    return lane(F.MUL, out, lane(F.RECIPROCAL, total))


@bounded
@given(
    kind=st.sampled_from(("normal", "positive", "one large", "rising")),
    q_len=st.integers(1, 4),
    kv=st.integers(4, 40),
    keys=st.integers(1, 12),
    operand=st.sampled_from((FP16, BF16, FP32)),
    seed=seeds,
)
def test_online_softmax(kind, q_len, kv, keys, operand, seed):
    d = 8
    q, k, v = (
        operand.decode(
            operand.encode(
                np.clip(
                    numbers("normal" if kind == "rising" else kind, (n, d), seed + i), -100, 100
                )
            )
        )
        for i, n in enumerate((q_len, kv, kv))
    )
    if kind == "rising":  # every block brings a new maximum
        q, k = np.abs(q), np.sort(np.abs(k), axis=0)
    visible = np.arange(kv) <= kv - q_len + np.arange(q_len)[:, None]
    rescales = -(-kv // keys) - 1
    sums = bounds.Summation(max(d, kv) + rescales, rescales=rescales)
    depth = depth_of(min(keys, kv)) + rescales
    steps = attention_bounds.AttentionSteps(sums, depth, operand=operand, summed=operand)
    wide = [x.astype(float) for x in (q, k, v)]
    bound = attention_bounds.attention(*map(Ball.exact, wide), 0.25, visible, steps).radius
    scores = wide[0].astype(np.longdouble) @ wide[1].T.astype(np.longdouble) * 0.25
    exact = exact_softmax(np.where(visible, scores, -np.inf)) @ wide[2]
    got = simulated_online(q, k, v, 0.25, visible, operand, keys)
    assert (np.abs(got - exact) <= bound).all()


def test_the_online_bound_is_not_met_without_rescaling():
    q, k, v = (np.abs(numbers("normal", (n, 8), n)) for n in (3, 30, 31))
    k, visible = np.sort(k, axis=0), np.ones((3, 30), dtype=bool)
    steps = attention_bounds.AttentionSteps(bounds.Summation(40, rescales=5), 10)
    wide = [x.astype(float) for x in (q, k, v[:30])]
    ball = attention_bounds.attention(*map(Ball.exact, wide), 0.25, visible, steps)
    right, wrong = (
        simulated_online(q, k, v[:30], 0.25, visible, FP32, 5, rescale) for rescale in (True, False)
    )
    assert (np.abs(right - ball.value) <= ball.radius).all()
    assert not (np.abs(wrong - ball.value) <= ball.radius).any()


def test_no_bound_for_rescaling_in_less_than_fp32():
    x = Ball.exact(np.ones((2, 4)))
    steps = attention_bounds.AttentionSteps(bounds.Summation(4, rescales=1), 4, mid=FP16)
    assert np.isinf(
        attention_bounds.attention(x, x, x, 1.0, np.ones((2, 2), dtype=bool), steps).radius
    ).all()


@bounded
@given(kind=st.sampled_from(KINDS), mid=st.sampled_from((FP32, FP16)), seed=seeds)
def test_rotary(kind, mid, seed):
    x = np.clip(numbers(kind, (4, 8), seed), -1e4, 1e4)
    angle = np.random.default_rng(seed).uniform(0, 7, (4, 4))
    cos, sin = (np.tile(f(angle), 2).astype(np.float32) for f in (np.cos, np.sin))
    turned = lane(F.ROTATE_HALF, x, imm=8)
    balls = [Ball.exact(v) for v in (x, turned, cos, sin)]
    got = lane(F.ADD, lane(F.MUL, x, cos, mid=mid), lane(F.MUL, turned, sin, mid=mid), mid=mid)
    wide = [v.astype(np.longdouble) for v in (x, turned, cos, sin)]
    exact = wide[0] * wide[2] + wide[1] * wide[3]
    assert (np.abs(got - exact) <= bounds.rotary(*balls, mid).radius).all()


# -- balls: every rule against the ends of its ball -----------------------------------------------

RULES = {
    "add": (lambda x, y: x + y, lambda x, y: x + y),
    "sub": (lambda x, y: x - y, lambda x, y: x - y),
    "mul": (lambda x, y: x * y, lambda x, y: x * y),
    "max": (lambda x, y: x.maximum(y), np.maximum),
    "exp": (lambda x, y: x.exp(), lambda x, y: np.exp(x)),
    "reciprocal": (lambda x, y: x.reciprocal(), lambda x, y: 1 / x),
    "rsqrt": (lambda x, y: (x * x).rsqrt(), lambda x, y: 1 / np.abs(x)),
}


@bounded
@given(name=st.sampled_from(sorted(RULES)), seed=seeds)
def test_ball_rules_contain_every_computed_value(name, seed):
    rng = np.random.default_rng(seed)
    of_balls, of_numbers = RULES[name]
    x, y = (Ball(rng.uniform(-3, 3, 50), rng.choice([0.0, 1e-6, 0.1, 1.0], 50)) for _ in range(2))
    result = of_balls(x, y)
    for side_x in (-1.0, 0.3, 1.0):
        for side_y in (-1.0, 1.0):
            moved = of_numbers(x.value + side_x * x.radius, y.value + side_y * y.radius)
            assert (np.abs(moved - result.value) <= result.radius * (1 + 1e-9) + 1e-12).all()


@bounded
@given(n=st.integers(0, 10**6))
def test_gamma_is_an_upper_bound(n):
    u = Fraction(1, 2**24)
    # n u / (1 - n u) bounds (1 + u)^n - 1 from above, n u from below.
    assert n * u <= Fraction(float(gamma(n))) <= n * u / (1 - n * u) * (1 + Fraction(1, 2**15))


# -- tightness ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fmt", "least"), [(FP16, 0.3), (BF16, 0.3), (FP32, 0.004)])
def test_bounds_of_ordinary_products_are_not_vacuous(fmt, least):
    a, b = (
        fmt.decode(fmt.encode(numbers("normal", s, i))).astype(np.float32)
        for i, s in enumerate(((32, 256), (256, 32)))
    )
    block = array("ws", 32)
    size = np.abs(a).astype(float) @ np.abs(b).astype(float)
    exact = a.astype(np.longdouble) @ b.astype(np.longdouble)
    ball = Ball(
        exact.astype(float), bounds.Summation(block.summation_depth(256, None)).error(size, 256)
    )
    got = block.multiply(a, b, None)
    if fmt is not FP32:
        ball, got = ball.rounded(fmt), fmt.decode(fmt.encode(got))
    assert least < (np.abs(got - exact) / ball.radius).max() <= 1


def test_running_bound_is_ten_times_sharper():
    a, b = numbers("normal", (32, 256), 0), numbers("normal", (256, 32), 1)
    block = array("ws", 32)
    wide_a, wide_b = a.astype(float), b.astype(float)
    exact = a.astype(np.longdouble) @ b.astype(np.longdouble)
    error = np.abs(block.multiply(a, b, None) - exact)
    running = bounds.running_folds(wide_a, wide_b, 32)
    apriori = bounds.Summation(block.summation_depth(256, None)).error(
        np.abs(wide_a) @ np.abs(wide_b), 256
    )
    assert (error <= running).all()
    assert (apriori / running).min() > 4
    assert (error / running).max() > 0.04
