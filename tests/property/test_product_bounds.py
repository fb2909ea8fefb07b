"""Bounds of matrix products hold, and are not far from what can happen."""

import numpy as np
import pytest
from accelsim.validation.bounds import KINDS, UNITS, operands, ratios

from accelsim.numerics import bounds
from accelsim.numerics.arithmetic import arithmetic, types_of
from accelsim.numerics.orders import order_of
from accelsim.numerics.rules import StepError, TensorCoreRule


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("unit", "name", "accumulator", "order"), UNITS)
def test_no_sum_leaves_its_bound(unit, name, accumulator, order, kind):
    types = types_of(name, name, accumulator)
    for k in (5, 130):
        rule = arithmetic(unit).reduction(types, order_of(order), k)
        assert ratios(rule, types, kind, 12, k, seed=k).max() <= 1


def cut_off(step):
    """One step whose small terms all lie just below what is kept beside the largest."""
    small = 2.0 ** -((step.fraction_bits + 1) // 2), 2.0 ** -(step.fraction_bits // 2)
    a, b = (
        np.full((1, step.products), small[0]),
        np.full((step.products, 1), small[1] * (1 - 2**-3)),
    )
    a[0, 0] = b[0, 0] = 1.0
    return a, b


@pytest.mark.parametrize(
    ("unit", "name"),
    [("ampere-mma", "bf16"), ("hopper-wgmma", "bf16"), ("hopper-wgmma", "fp8_e5m2")],
)
def test_the_bound_of_a_step_is_nearly_reached(unit, name):
    rule = arithmetic(unit).rule(types_of(name, name, "fp32"))
    a, b = cut_off(rule.step)
    got = rule.multiply(a.astype(np.float32), b.astype(np.float32), None)
    ratio = (np.abs(got - a @ b) / bounds.running_steps(a, b, rule)).item()
    assert 0.4 < ratio <= 1


def test_a_smaller_bound_would_be_left(monkeypatch):
    """The test has power: a third of K 2^-F, or a bound without truncation, does not hold."""
    rule = arithmetic("hopper-wgmma").rule(types_of("bf16", "bf16", "fp32"))
    a, b = cut_off(rule.step)
    got = rule.multiply(a.astype(np.float32), b.astype(np.float32), None)
    right = rule.step_error
    for part in (0.3, 0.0):
        less = StepError(2.0**-23 + part * (right.relative - 2.0**-23), 0.0, 0.0)
        monkeypatch.setattr(TensorCoreRule, "step_error", less)
        assert (np.abs(got - a @ b) > bounds.product(a, b, rule)).all()


def test_bounds_that_assume_fp32_additions_fail_for_fp8():
    """All-positive e4m3, K = 4096 in one chain is 7 % low: gamma_K would allow 0.02 %."""
    types = types_of("fp8_e4m3", "fp8_e4m3", "fp32")
    rng = np.random.default_rng(1)
    a, b = (np.abs(rng.standard_normal(s)) for s in ((8, 4096), (4096, 8)))
    a, b = (types.a.decode(types.a.encode(v)) for v in (a, b))
    exact = a.astype(np.float64) @ b.astype(np.float64)
    chain = arithmetic("hopper-wgmma").rule(types)
    low = ((chain.multiply(a, b, None) - exact) / exact).mean()
    assert -0.075 < low < -0.065
    classical = bounds.Summation(4096).error(exact, 4096)
    assert (np.abs(chain.multiply(a, b, None) - exact) > 100 * classical).all()
    assert (np.abs(chain.multiply(a, b, None) - exact) <= bounds.product(a, b, chain)).all()
    promoted = arithmetic("hopper-wgmma").rule(types, order_of("promote:128"))
    assert abs(((promoted.multiply(a, b, None) - exact) / exact).mean()) < 0.003


def test_accumulators_count():
    types = types_of("fp16", "fp16", "fp32")
    rule = arithmetic("hopper-wgmma").rule(types)
    a, b = operands(types.a, types.accumulator, "normal", (6, 64), 3)
    acc = np.float32(2.0**12) * np.ones((6, 6), dtype=np.float32)
    wide = a.astype(float), b.astype(float)
    error = np.abs(rule.multiply(a, b, acc) - (wide[0] @ wide[1] + acc))
    assert (error <= bounds.product(*wide, rule, acc.astype(float))).all()
    assert (error > bounds.product(*wide, rule)).any()
