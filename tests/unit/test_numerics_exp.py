"""Exponentials and fused attention in fp32 operations: equal to scalar rationals, bit for bit."""

import math
from fractions import Fraction

import numpy as np
import pytest
import tensor_core_oracle as oracle

from accelsim.errors import AccelsimError
from accelsim.numerics import exp_kernels, functions
from accelsim.numerics.attention import (
    AttentionOrder,
    attention,
    attention_bound,
    exact_attention,
)
from accelsim.numerics.formats import FORMATS
from accelsim.numerics.orders import order_of


def rnd(value, name="fp32"):
    mantissa = {"fp32": 23, "fp16": 10, "bf16": 7}[name]
    return oracle.decode(name, oracle.rounded(Fraction(value), name, mantissa, True))[0]


def exact(values):
    return [Fraction(float(v)) for v in values]


def scalar_exp(x, coefficients, natural, fused_low=True):
    """Horner with one rounding a step, in rationals; x is finite and in range."""
    if natural:
        y = rnd(x * exact([exp_kernels.LOG2_E])[0])
        n = Fraction(round(y))
        r = rnd(x - n * Fraction(float(exp_kernels.LN2_HIGH)))
        low = n * Fraction(float(exp_kernels.LN2_LOW))
        r = rnd(r - (low if fused_low else rnd(low)))
    else:
        n = Fraction(round(x))
        r = x - n
    p = coefficients[-1]
    for c in reversed(coefficients[:-1]):
        p = rnd(p * r + c)
    p = rnd(p * r + 1) * Fraction(2) ** int(n)
    return p if p >= Fraction(2) ** -126 else Fraction(0)


@pytest.mark.parametrize("natural", [False, True], ids=["exp2", "exp"])
def test_exponentials_are_their_declared_steps(natural):
    rng = np.random.default_rng(1)
    x = np.concatenate([
        rng.uniform(-86, 86, 9500), rng.choice([-1, 1], 500) * 2.0 ** rng.uniform(-30, 6, 500),
        np.arange(-86, 86) / 2, [-126.0, -125.5, 0.0],
    ]).astype(np.float32)  # fmt: skip
    x = x[x > -87.9] if natural else x
    function = functions.exp_fp32 if natural else functions.exp2_fp32
    coefficients = exact(exp_kernels.EXP if natural else exp_kernels.EXP2)
    got = function(x)
    for value, y in zip(exact(x), got, strict=True):
        assert Fraction(float(y)) == scalar_exp(value, coefficients, natural), float(value)


# Where n times the low part of ln 2, rounded before it is subtracted, gives other bits of e^x: two
# arguments of a million.
FUSED_LOW_PART = (
    "0x1.01d9dap+6", "-0x1.cc4d88p+5", "-0x1.23260cp+6", "0x1.cc4e10p+5", "-0x1.cc48b0p+5",
    "0x1.8f4c1ep+5", "0x1.cc4da2p+5", "-0x1.231920p+6", "0x1.cc3576p+5", "0x1.2326cep+6",
)  # fmt: skip


def test_the_low_part_of_ln_2_is_fused():
    x = np.array([float.fromhex(text) for text in FUSED_LOW_PART], dtype=np.float32)
    coefficients = exact(exp_kernels.EXP)
    got = functions.exp_fp32(x)
    for value, y in zip(exact(x), got, strict=True):
        fused = scalar_exp(value, coefficients, True)
        assert Fraction(float(y)) == fused
        assert scalar_exp(value, coefficients, True, fused_low=False) != fused


@pytest.mark.parametrize("natural", [False, True], ids=["exp2", "exp"])
def test_exponentials_are_within_their_error(natural):
    rng = np.random.default_rng(2)
    x = rng.uniform(-87 if natural else -126, 88, 1_000_000).astype(np.float32)
    got = (functions.exp_fp32 if natural else functions.exp2_fp32)(x)
    want = (np.exp if natural else np.exp2)(x.astype(np.float64))
    ulps = np.abs(got - want) / np.ldexp(1.0, np.frexp(want)[1] - 24)
    ulps = ulps[want >= 2.0**-126]
    assert 0.5 < ulps.max() < functions.EXP_ULP


@pytest.mark.parametrize(
    ("function", "exact", "at", "ulps"),
    [
        (functions.exp2_fp32, np.exp2, "0x1.0113a6p-1", 0.962553),
        (functions.exp_fp32, np.exp, "0x1.2e3816p+5", 1.084160),
    ],
)
def test_the_worst_of_all_arguments_are_where_they_are_said_to_be(function, exact, at, ulps):
    x = float.fromhex(at)
    want = exact(x)
    error = abs(float(function(np.float32(x))) - want) / np.ldexp(1.0, np.frexp(want)[1] - 24)
    assert abs(error - ulps) < 1e-6
    assert 0.8 * functions.EXP_ULP < max(ulps, 0.9) < functions.EXP_ULP


def test_whole_arguments_give_powers_of_two_and_the_ends_are_sharp():
    n = np.arange(-126, 128)
    assert np.array_equal(functions.exp2_fp32(n), np.ldexp(1.0, n))
    odd = [-126.01, -1e30, -np.inf, 128.0, np.inf, np.nan, -0.0]
    want = [0, 0, 0, np.inf, np.inf, np.nan, 1]
    assert np.array_equal(functions.exp2_fp32(odd), np.float32(want), equal_nan=True)
    assert np.array_equal(functions.exp_fp32([-np.inf, 0.0, 89.0]), np.float32([0, 1, np.inf]))
    assert functions.exp_fp32(np.float32(-88.0)) == 0


@pytest.mark.parametrize("kernel", ["exp2", "exp"])
def test_compiled_exponentials_equal_their_source(kernel):
    x = np.random.default_rng(3).uniform(-100, 100, 200).astype(np.float32)
    out = [np.empty_like(x) for _ in range(2)]
    with np.errstate(all="ignore"):
        for run, y in zip(
            (getattr(exp_kernels, kernel), getattr(exp_kernels, kernel).py_func), out, strict=True
        ):
            run(x, y)
    assert out[0].tobytes() == out[1].tobytes()


# -- attention ---------------------------------------------------------------------------------

STEPS = {"hopper-wgmma": (16, 25), "ampere-mma": (8, 24)}


def scalar_attention(q, k, v, scale, unit, fmt, tile, causal):
    """One row of attention at a time, in rationals and bit patterns."""
    products, fraction_bits = STEPS[unit]
    names = (fmt.name, fmt.name)

    def dot(x, y, c):
        pad = [0] * (-len(x) % products)
        return oracle.chain(x + pad, y + pad, c, products, names, fraction_bits)

    def bits(values):
        return fmt.codes(fmt.encode(np.asarray(values, dtype=np.float64))).tolist()

    def number(code):
        return oracle.decode("fp32", code)[0]

    def encode(value):
        return oracle.rounded(value, "fp32", 23, True)

    factor = rnd(scale * 1.4426950408889634)
    exp2 = exact(exp_kernels.EXP2)
    out = np.zeros((len(q), v.shape[1]), dtype=np.float32)
    for row in range(len(q)):
        top, total, sums = None, Fraction(0), [0] * v.shape[1]
        for first in range(0, len(k), tile):
            keys = [j for j in range(first, min(first + tile, len(k))) if not causal or j <= row]
            if not keys:
                continue
            x = [rnd(number(dot(bits(q[row]), bits(k[j]), 0)) * factor) for j in keys]
            new = max(x) if top is None else max(top, *x)
            p = [scalar_exp(rnd(y - new), exp2, False) for y in x]
            alpha = Fraction(0) if top is None else scalar_exp(rnd(top - new), exp2, False)
            width = min(tile, len(k) - first)
            leaves = p + [Fraction(0)] * (width - len(p))
            while len(leaves) > 1:
                leaves += [Fraction(0)] * (len(leaves) % 2)
                leaves = [rnd(a + b) for a, b in zip(leaves[::2], leaves[1::2], strict=True)]
            total = rnd(rnd(total * alpha) + leaves[0])
            held = bits([float(rnd(y, fmt.name)) for y in p]) + [0] * (width - len(p))
            for c in range(v.shape[1]):
                column = bits(v[first : first + width, c])
                sums[c] = dot(held, column, encode(rnd(number(sums[c]) * alpha)))
            top = new
        out[row] = [float(rnd(number(s) / total)) for s in sums]
    return out


def fused(unit, name, tile=64, rest="exp2;sums:fp32;divide"):
    return AttentionOrder(unit, name, order_of(f"online:{tile};{rest}"))


def heads(fmt, rows, keys, d, seed=4, size=1.0):
    rng = np.random.default_rng(seed)
    return [fmt.decode(fmt.encode(size * rng.standard_normal((n, d)))) for n in (rows, keys, keys)]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("unit", "name", "tile"),
    [("hopper-wgmma", "fp16", 16), ("ampere-mma", "bf16", 8), ("hopper-wgmma", "bf16", 40)],
)
def test_attention_equals_scalar_rationals(unit, name, tile, causal):
    fmt = FORMATS[name]
    q, k, v = heads(fmt, 3, 29, 20, size=2.0)
    visible = np.arange(29) <= np.arange(3)[:, None] if causal else None
    order = fused(unit, name, tile)
    got = attention(q, k, v, 0.25, order, visible)
    assert got.tobytes() == scalar_attention(q, k, v, 0.25, unit, fmt, tile, causal).tobytes()


ORDERS = [
    "exp2;sums:fp32;divide",
    "exp;sums:fp32;divide",
    "exp2;sums:bf16:4;reciprocal",
    "ranges:33;exp;sums:fp16;reciprocal",
]


@pytest.mark.parametrize("rest", ORDERS)
@pytest.mark.parametrize("size", [0.2, 1.0, 4.0])
@pytest.mark.parametrize("unit", ["hopper-wgmma", "ampere-mma", "sequential-fp32", "tree16-fp32"])
def test_attention_stays_in_its_bound(unit, size, rest):
    for name, tile in (("fp16", 32), ("bf16", 7)):
        q, k, v = heads(FORMATS[name], 40, 100, 32, size=size)
        order = fused(unit, name, tile, rest)
        visible = np.arange(100) <= 60 + np.arange(40)[:, None]
        error = np.abs(
            attention(q, k, v, 32**-0.5, order, visible)
            - exact_attention(q, k, v, 32**-0.5, visible)
        )
        ratio = (error / attention_bound(q, k, v, 32**-0.5, order, visible)).max()
        assert 0.01 < ratio <= 1


def test_every_field_of_an_order_changes_bits():
    fmt = FORMATS["fp16"]
    q, k, v = heads(fmt, 20, 200, 64)
    base = fused("hopper-wgmma", "fp16")
    right = attention(q, k, v, 0.125, base)
    others = [
        fused("ampere-mma", "fp16"),
        fused("hopper-wgmma", "fp16", 32),
        *(
            fused("hopper-wgmma", "fp16", 64, rest)
            for rest in (
                "exp;sums:fp32;divide", "exp2;sums:fp16;divide", "exp2;sums:fp32:8;divide",
                "exp2;sums:fp32;reciprocal", "ranges:100;exp2;sums:fp32;divide",
                "exp2;sums:fp32;divide;promote:16", "exp2;sums:fp32;divide;fold:16",
            )
        ),
    ]  # fmt: skip
    for other in others:
        assert (attention(q, k, v, 0.125, other) != right).any(), str(other)
    in_fp32 = fused("sequential-fp32", "fp16", 64, "exp2;p:fp32;sums:fp32;divide")
    in_fp16 = fused("sequential-fp32", "fp16")
    assert (attention(q, k, v, 0.125, in_fp32) != attention(q, k, v, 0.125, in_fp16)).any()
    assert str(base) == "hopper-wgmma fp16; online:64;exp2;sums:fp32;divide"
    assert str(AttentionOrder("hopper-wgmma")) == str(base)


def test_orders_that_no_unit_has_are_refused():
    q, k, v = heads(FORMATS["fp16"], 2, 4, 8)
    with pytest.raises(AccelsimError, match="volta-mma has no bf16 x bf16 -> fp32"):
        attention(q, k, v, 1.0, AttentionOrder("volta-mma", "bf16"))
    with pytest.raises(AccelsimError, match="an attention needs online:KEYS in its order, not ch"):
        AttentionOrder("volta-mma", order=order_of("chain"))
    with pytest.raises(AccelsimError, match="not cut into slices"):
        AttentionOrder("volta-mma", order=order_of("online:8;split:2:8"))


def test_a_row_that_sees_nothing_is_nan():
    q, k, v = heads(FORMATS["fp16"], 2, 4, 8)
    visible = np.array([[False] * 4, [True] * 4])
    got = attention(q, k, v, 1.0, fused("hopper-wgmma", "fp16", 2), visible)
    assert np.isnan(got[0]).all()
    assert math.isfinite(got[1, 0])
