"""Multipliers and adders beside banks: equal to scalar rationals, within their bounds."""

from fractions import Fraction

import numpy as np
import pytest
import tensor_core_oracle as oracle

from accelsim.errors import AccelsimError
from accelsim.numerics import bounds
from accelsim.numerics.arithmetic import arithmetic, types_of
from accelsim.numerics.formats import FORMATS
from accelsim.numerics.orders import order_of

MANTISSA = {"fp32": 23, "fp16": 10, "bf16": 7}
HALF = types_of("fp16", "fp16", "fp32")
UNITS = [
    "tree16-bf16-fp32", "tree16-fp16-fp16", "tree8-fp32-bf16", "tree16-fp16-fp32-fp16",
    "tree4-fp32-fp16-fp32", "tree16-fp32-fp32", "macs16-fp16", "macs4-bf16", "macs16-fp32",
]  # fmt: skip


def rnd(name, value):
    return oracle.decode(name, oracle.rounded(value, name, MANTISSA[name], True))[0]


def scalar(unit, x, y, start):
    """One dot product of rationals as ``unit`` is named."""
    word, *names = unit.split("-")
    if word.startswith("macs"):
        lanes = [Fraction(0)] * int(word[4:])
        for k, (u, v) in enumerate(zip(x, y, strict=True)):
            lanes[k % len(lanes)] = rnd(names[0], lanes[k % len(lanes)] + rnd(names[0], u * v))
        while len(lanes) > 1:
            half = len(lanes) // 2
            lanes = [rnd("fp32", lanes[i] + lanes[i + half]) for i in range(half)]
        return rnd("fp32", start + lanes[0])
    products, sums, accumulator = names if names[2:] else (names[0], *names)
    width = int(word[4:])
    for first in range(0, len(x), width):
        pairs = list(zip(x, y, strict=True))[first : first + width]
        leaves = [rnd(products, u * v) for u, v in pairs]
        leaves += [Fraction(0)] * (width - len(leaves))
        while len(leaves) > 1:
            leaves = [rnd(sums, a + b) for a, b in zip(leaves[::2], leaves[1::2], strict=True)]
        start = rnd(accumulator, start + leaves[0])
    return start


def operands(fmt, k, accumulator, seed=1):
    rng = np.random.default_rng(seed)
    drawn = [rng.standard_normal(s) for s in ((3, k), (k, 4), (3, 4))]
    formats = (FORMATS[fmt], FORMATS[fmt], FORMATS[accumulator])
    return [f.decode(f.encode(v)) for f, v in zip(formats, drawn, strict=True)]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("accumulates", [False, True])
def test_units_equal_rational_numbers(unit, accumulates):
    operand = "fp16" if "fp16" in unit else "bf16"
    a, b, acc = operands(operand, 37, "fp32" if "macs" in unit else unit.split("-")[-1])
    rule = arithmetic(unit).rule(types_of(operand, operand, "fp32"))
    got = rule.multiply(a, b, acc if accumulates else None)
    for i in range(3):
        for j in range(4):
            start = Fraction(float(acc[i, j])) if accumulates else Fraction(0)
            row, col = ([Fraction(float(v)) for v in w] for w in (a[i], b[:, j]))
            assert Fraction(float(got[i, j])) == scalar(unit, row, col, start)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("k", [1, 16, 37, 300])
def test_bounds_hold_and_are_not_idle(unit, k):
    operand = "fp16" if "fp16" in unit else "bf16"
    rule = arithmetic(unit).rule(types_of(operand, operand, "fp32"))
    worst = 0.0
    for seed in range(20):
        a, b, acc = operands(operand, k, "bf16", seed)
        got = rule.multiply(a, b, acc)
        wide = [x.astype(np.float64) for x in (a, b, acc)]
        bound = bounds.product(wide[0], wide[1], rule, wide[2])
        error = np.abs(got - (wide[0] @ wide[1] + wide[2]))
        assert (error <= bound).all()
        worst = max(worst, float((error / bound).max()))
    assert worst > 1e-3 or "fp32" in unit.split("-")[1:] or k == 1


def test_formats_of_a_tree_are_told_apart():
    a, b, _ = operands("bf16", 64, "fp32")
    types = types_of("bf16", "bf16", "fp32")
    names = ("tree16-fp32", "tree16-bf16-fp32", "tree16-fp32-bf16", "tree16-fp32-bf16-fp32")
    results = [arithmetic(n).rule(types).multiply(a, b, None).tobytes() for n in names]
    assert len({*results}) == len(names)
    same = arithmetic("tree16-fp32-fp32").rule(types).multiply(a, b, None)
    assert same.tobytes() == results[0]


def test_a_sum_in_slices_is_bounded_by_the_coarsest_adder():
    a, b, _ = operands("bf16", 256, "fp32")
    unit = arithmetic("tree16-bf16-fp32")
    rule = unit.reduction(types_of("bf16", "bf16", "fp32"), order_of("split:4:64"), 256)
    error = np.abs(rule.multiply(a, b, None) - a.astype(np.float64) @ b)
    assert (error <= bounds.product(a.astype(np.float64), b.astype(np.float64), rule)).all()
    assert error.max() > 1e-3


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: arithmetic("tree17-bf16-fp32"), "unknown arithmetic 'tree17-bf16-fp32'"),
        (lambda: arithmetic("macs3-fp16"), "macsLANES-FORMAT"),
        (lambda: arithmetic("macs16-fp16").rule(HALF, order_of("fold:8")), "adds no folds"),
        (
            lambda: arithmetic("tree16-bf16-fp32").rule(types_of("fp32", "fp32", "fp32")),
            "floating point of at most fp16",
        ),
    ],
)
def test_bad_units_get_one_line(call, says):
    with pytest.raises(AccelsimError, match=says):
        call()
