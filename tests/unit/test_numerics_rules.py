"""Adder trees, chains, lanes, narrow adders, promotion, split-K: equal to scalar rationals."""

from fractions import Fraction

import numpy as np
import pytest
import tensor_core_oracle as oracle

from accelsim._intrinsics import fma
from accelsim._jit import njit
from accelsim.errors import AccelsimError
from accelsim.numerics import accumulate, kernels
from accelsim.numerics.arithmetic import arithmetic, types_of
from accelsim.numerics.cuts import Promoted
from accelsim.numerics.formats import FORMATS
from accelsim.numerics.orders import Order, order_of
from accelsim.numerics.rules import Levels

MANTISSA = {"fp32": 23, "fp16": 10, "bf16": 7}


def rnd(name, value):
    """A rational rounded to nearest even, as a rational; zero loses its sign."""
    return oracle.decode(name, oracle.rounded(value, name, MANTISSA[name], True))[0]


def tree(name, leaves):
    while len(leaves) > 1:
        leaves = [rnd(name, x + y) for x, y in zip(leaves[::2], leaves[1::2], strict=True)]
    return leaves[0]


def scalar(unit, name, x, y, start):
    """One dot product of rationals as ``unit`` is named."""
    if unit == "fma":
        for u, v in zip(x, y, strict=True):
            start = rnd(name, start + u * v)
        return start
    if unit.startswith("lanes"):
        lanes = [Fraction(0)] * int(unit[5:])
        for k, (u, v) in enumerate(zip(x, y, strict=True)):
            lanes[k % len(lanes)] = rnd(name, lanes[k % len(lanes)] + u * v)
        while len(lanes) > 1:
            half = len(lanes) // 2
            lanes = [rnd(name, lanes[i] + lanes[i + half]) for i in range(half)]
        return rnd(name, start + lanes[0])
    products = [rnd(name, u * v) for u, v in zip(x, y, strict=True)]
    if unit == "sequential":
        for p in products:
            start = rnd(name, start + p)
        return start
    width = int(unit[4:])
    for first in range(0, len(products), width):
        leaves = products[first : first + width]
        leaves += [Fraction(0)] * (width - len(leaves))
        start = rnd(name, start + tree(name, leaves))
    return start


def operands(fmt, kind, k, seed=1):
    rng = np.random.default_rng(seed)
    x = [rng.standard_normal(s) for s in ((3, k), (k, 4), (3, 4))]
    if kind == "wide":
        x = [v * 2.0 ** rng.integers(-6, 6, v.shape) for v in x]
    if kind == "subnormal":
        x = [v * 2.0 ** (FORMATS[fmt].min_exponent // 2) for v in x]
    return [FORMATS[fmt].decode(FORMATS[fmt].encode(v)) for v in x]


CASES = [
    ("sequential", "fp16"), ("sequential", "bf16"), ("sequential", "fp32"), ("tree16", "fp32"),
    ("tree4", "fp32"), ("tree16", "fp16"), ("tree8", "bf16"), ("fma", "fp32"), ("lanes4", "fp32"),
    ("lanes32", "fp32"),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["normal", "wide", "subnormal"])
@pytest.mark.parametrize(("unit", "adder"), CASES)
@pytest.mark.parametrize("accumulates", [False, True])
def test_simple_units_equal_rational_numbers(unit, adder, kind, accumulates):
    operand = "fp16" if adder == "fp16" else "bf16"
    a, b, acc = operands(operand, kind, 37)
    acc = FORMATS[adder].decode(FORMATS[adder].encode(acc)) if accumulates else None
    rule = arithmetic(f"{unit}-{adder}").rule(types_of(operand, operand, adder))
    got = rule.multiply(a, b, acc)
    exact = [[[Fraction(float(v)) for v in row] for row in m] for m in (a, b.T)]
    for i in range(3):
        for j in range(4):
            start = Fraction(float(acc[i, j])) if accumulates else Fraction(0)
            assert Fraction(float(got[i, j])) == scalar(
                unit, adder, exact[0][i], exact[1][j], start
            )


@pytest.mark.parametrize("kind", ["normal", "wide", "subnormal"])
def test_wrong_trees_differ(kind):
    a, b, _ = operands("bf16", kind, 64)
    right = accumulate.trees_fp32(a, b, 16)
    for wrong in (
        accumulate.trees_fp32(a, b, 8),
        accumulate.trees_fp32(a, b, 32),
        accumulate.in_place_fp32(a, b),
        accumulate.trees_fp32(a[:, ::-1].copy(), b[::-1].copy(), 16),
        accumulate.fused_chain(a, b, 16),
    ):
        assert (wrong != right).any()


@njit
def fused(x, y, z, out):
    for i in range(len(x)):
        out[i] = fma(x[i], y[i], z[i])


@pytest.mark.parametrize("kind", ["fp32", "fp64"])
def test_fma_rounds_once_compiled_or_not(kind):
    """Operands whose product nearly cancels the addend, and whose sum lies near halfway."""
    dtype = np.float32 if kind == "fp32" else np.float64
    rng = np.random.default_rng(3)
    x, y = (rng.standard_normal(3000).astype(dtype) for _ in "xy")
    z = (-(x * y)).astype(dtype)
    z[::3] = rng.standard_normal(1000)
    z[1::3] *= dtype(2.0**12)
    x[2::3] *= dtype(2.0**-60)
    out, plain = np.empty_like(x), np.empty_like(x)
    fused(x, y, z, out)
    fused.py_func(x, y, z, plain)
    assert out.tobytes() == plain.tobytes()
    exact = [
        Fraction(float(u)) * Fraction(float(v)) + Fraction(float(w))
        for u, v, w in zip(x, y, z, strict=True)
    ]
    if kind == "fp32":
        assert [Fraction(float(v)) for v in out] == [rnd("fp32", e) for e in exact]
    else:
        assert out.tolist() == [float(e) for e in exact]
    assert (x * y + z != out).any()  # the unfused sum is another number


def test_fma_of_what_is_not_finite():
    for x, y, z in (
        (np.inf, 1, -np.inf),
        (0, np.inf, 1),
        (np.nan, 1, 1),
        (3e38, 3e38, -1),
        (-0.0, 1, -0.0),
    ):
        got = np.empty(2, dtype=np.float32)
        for i, run in enumerate((fused, fused.py_func)):
            one = [np.array([v], dtype=np.float32) for v in (x, y, z)]
            run(*one, got[i : i + 1])
        assert np.array_equal(got[:1], got[1:], equal_nan=True)
        assert np.signbit(got[0]) == np.signbit(got[1]) or np.isnan(got[0])


@pytest.mark.parametrize("magnitude", [100, 2**15, 2**31 - 1])
def test_integers_saturate_at_the_end(magnitude):
    rng = np.random.default_rng(5)
    a = rng.integers(-magnitude, magnitude, (4, 9)).astype(np.int32)
    b = rng.integers(-magnitude, magnitude, (9, 5)).astype(np.int32)
    acc = rng.integers(-(2**31), 2**31, (4, 5)).astype(np.int32)
    got = accumulate.exact_int32(a, b, acc, saturates=True)
    for i in range(4):
        for j in range(5):
            exact = int(acc[i, j]) + sum(int(a[i, x]) * int(b[x, j]) for x in range(9))
            assert got[i, j] == max(-(2**31), min(2**31 - 1, exact))


@pytest.mark.parametrize("unit", ["ampere-mma", "sequential-fp32"])
def test_saturating_integers_have_a_name(unit):
    types = types_of("int8", "int8", "int32")
    a, b = np.full((1, 9), 127, np.int32), np.full((9, 1), 127, np.int32)
    acc = np.array([[2**31 - 100]], np.int32)
    assert arithmetic(f"{unit}-satfinite").rule(types).multiply(a, b, acc) == 2**31 - 1
    assert arithmetic(unit).rule(types).multiply(a, b, acc) == -(2**31) - 100 + 9 * 127**2
    floats = types_of("fp16", "fp16", "fp32")
    assert arithmetic(f"{unit}-satfinite").rule(floats) == arithmetic(unit).rule(floats)


def test_what_has_no_integers_does_not_saturate():
    with pytest.raises(AccelsimError, match="volta-mma has no integers that could saturate"):
        arithmetic("volta-mma-satfinite")
    with pytest.raises(AccelsimError, match="unknown arithmetic 'hoper'"):
        arithmetic("hoper-satfinite")


def test_promotion_starts_afresh_and_adds_in_fp32():
    types = types_of("fp8_e4m3", "fp8_e4m3", "fp32")
    a, b, acc = operands("fp8_e4m3", "normal", 300)
    unit = arithmetic("hopper-wgmma")
    promoted = unit.rule(types, order_of("promote:128"))
    chain = unit.rule(types)
    want = acc
    for first in (0, 128, 256):
        ks = slice(first, first + 128)
        want = want + chain.multiply(a[:, ks], b[ks], None)
    assert promoted.multiply(a, b, acc).tobytes() == want.tobytes()
    assert (promoted.multiply(a, b, acc) != chain.multiply(a, b, acc)).any()
    assert promoted.levels(300, None) == Levels(2, 4)
    assert promoted.levels(300, Levels(2, 4)) == Levels(5, 4)


def test_promotion_needs_an_fp32_accumulator():
    types = types_of("fp16", "fp16", "fp16")
    for unit in ("hopper-wgmma", "sequential-fp16"):
        with pytest.raises(AccelsimError, match="promotion adds in fp32"):
            arithmetic(unit).rule(types, Order(promote=128))
    exact = arithmetic("hopper-wgmma").rule(types_of("int8", "int8", "int32"), Order(promote=128))
    assert not isinstance(exact, Promoted)


@pytest.mark.parametrize(
    ("tag", "k", "cuts"),
    [
        ("chain", 100, [100]),
        ("split:3:64:forward:fp32", 1000, [384, 384, 232]),
        ("split:4:64:serial:fp16", 100, [64, 36]),
        ("split:2:128:forward:bf16;promote:128", 512, [256, 256]),
    ],
)
def test_orders_cut_k_as_their_tags_say(tag, k, cuts):
    order = order_of(tag)
    assert str(order) == tag
    assert [c.stop - c.start for c in order.cuts(k)] == cuts


@pytest.mark.parametrize(
    "tag",
    ["split", "split:2", "promote:x", "chain:x", "promote:0", "tree", "promote:1;promote:2",
     "split:2:8:forward", "split:2:8:backward:fp32", "split:2:8:fp32:forward", "tree:4;lanes:4",
     "exp", "online:8;exp;exp2", "fold", "lanes:4:4:4", "p:fp16:2", "promote:\u0663"],
)  # fmt: skip
def test_unknown_orders_are_refused(tag):
    with pytest.raises(AccelsimError, match=r"reduction order .*accepted: chain\[:PRODUCTS\], sp"):
        order_of(tag)


@pytest.mark.parametrize(
    "tag",
    ["chain", "chain:8", "fold:128;tree:16", "promote:128;chain:32", "lanes:32", "lanes:16:2",
     "banks:4:16", "exact",
     "split:2:8:serial:bf16;promote:128;chain:32",
     "online:64;ranges:512;exp2;p:bf16;sums:fp32:32;divide;fold:128",
     "online:64;exp;p:fp16;sums:fp16;reciprocal"],
)  # fmt: skip
def test_tags_are_read_as_they_are_written(tag):
    assert str(order_of(tag)) == tag


def test_a_slice_without_words_is_merged_forward_in_fp32():
    assert order_of("split:3:64") == order_of("split:3:64:forward:fp32")


@pytest.mark.parametrize(
    ("tag", "says"),
    [
        ("split:4:16", "split:4:16:forward:fp32 takes several products, of which ampere-mma forms"),
        ("online:4", "takes several products"),
        ("tree:8", "ampere-mma sums fp16 x fp16 -> fp32 by chain:8, not tree:8"),
        ("chain:16", "by chain:8, not chain:16"),
    ],
)
def test_orders_that_a_unit_does_not_execute_are_refused(tag, says):
    with pytest.raises(AccelsimError, match=says):
        arithmetic("ampere-mma").rule(types_of("fp16", "fp16", "fp32"), order_of(tag))


@pytest.mark.parametrize("tag", ["split:2:8:forward:int8", "split:2:8:serial:e8m0"])
def test_partial_sums_are_floating_point(tag):
    with pytest.raises(AccelsimError, match="they are floating point here"):
        arithmetic("ampere-mma").reduction(types_of("fp16", "fp16", "fp32"), order_of(tag), 64)


MERGES = ["forward:fp32", "forward:bf16", "forward:fp16", "serial:bf16", "serial:fp32"]


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("k", [20, 100, 130])
def test_slices_equal_rational_numbers(merge, k):
    """Every merge by its words, one output at a time; the others give other bits."""
    a, b, _ = operands("bf16", "normal", k)
    types = types_of("bf16", "bf16", "fp32")
    order = order_of(f"split:4:16:{merge}")
    got = arithmetic("tree4-fp32").reduction(types, order, k).multiply(a, b, None)
    how, fmt = merge.split(":")
    exact = [[[Fraction(float(v)) for v in row] for row in m] for m in (a, b.T)]
    for i in range(3):
        for j in range(4):
            total = None
            for cut in order.cuts(k):
                part = scalar("tree4", "fp32", exact[0][i][cut], exact[1][j][cut], Fraction(0))
                if how == "forward":
                    part = rnd(fmt, part)
                    total = part if total is None else rnd("fp32", total + part)
                else:
                    total = part if total is None else rnd("fp32", rnd(fmt, total) + part)
            assert Fraction(float(got[i, j])) == total
    if k > 20:
        others = {
            arithmetic("tree4-fp32").reduction(types, order_of(f"split:4:16:{m}"), k)
            .multiply(a, b, None).tobytes()
            for m in MERGES if m != merge and {m, merge} != {"forward:fp32", "serial:fp32"}
        }  # fmt: skip
        assert got.tobytes() not in others


@pytest.mark.parametrize(
    ("name", "types", "says"),
    [
        ("sequential-fp16", ("fp32", "fp32", "fp16"), "at most fp16 -> fp16, integers -> int32"),
        ("sequential-fp32", ("fp64", "fp64", "fp64"), "at most fp32 -> fp32"),
        ("sequential-fp32", ("int8", "fp16", "fp32"), "at most fp32"),
        ("volta-mma", ("bf16", "bf16", "fp32"), "supported: fp16 -> fp32, fp16 -> fp16$"),
        ("ampere-mma", ("fp8_e4m3", "fp8_e4m3", "fp32"), "tf32 -> fp32, int8/4 -> int32, fp64"),
        ("fma-fp64", ("fp32", "fp32", "fp32"), "at most fp64 -> fp64"),
    ],
)
def test_formats_that_a_unit_lacks_are_refused(name, types, says):
    with pytest.raises(AccelsimError, match=says):
        arithmetic(name).rule(types_of(*types))


@pytest.mark.parametrize(
    "name",
    [
        "tree3-fp32",
        "tree16",
        "lanes5-fp32",
        "fma-fp16",
        "lanes4-fp16",
        "tree16-fp64",
        "sequential7-fp32",
        "tree99999-fp32",
    ],
)
def test_arithmetics_that_are_none_are_refused(name):
    with pytest.raises(AccelsimError, match="unknown arithmetic"):
        arithmetic(name)


def test_fp64_units_chain_fused_in_fp64():
    a, b, acc = (np.random.default_rng(6).standard_normal(s) for s in ((2, 9), (9, 3), (2, 3)))
    rule = arithmetic("ampere-mma").rule(types_of("fp64", "fp64", "fp64"))
    got = rule.multiply(a, b, acc)
    for i in range(2):
        for j in range(3):
            total = acc[i, j]
            for k in range(9):
                total = float(Fraction(a[i, k]) * Fraction(b[k, j]) + Fraction(total))
            assert got[i, j] == total


@pytest.mark.parametrize(
    ("kernel", "extra"), [("add_trees", 4), ("add_fused", 1), ("add_fused", 8)]
)
def test_compiled_kernels_equal_their_source(kernel, extra):
    a, b, _ = operands("bf16", "normal", 19)
    out = [np.ones((3, 4), dtype=np.float32) for _ in range(2)]
    for run, sums in zip(
        (getattr(kernels, kernel), getattr(kernels, kernel).py_func), out, strict=True
    ):
        run(a, np.ascontiguousarray(b), extra, sums)
    assert out[0].tobytes() == out[1].tobytes()
