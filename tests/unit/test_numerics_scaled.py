"""Block formats on Blackwell's tensor cores: equal to rationals that share no code with them."""

from fractions import Fraction

import numpy as np
import pytest
import tensor_core_oracle as oracle

from accelsim.errors import AccelsimError
from accelsim.numerics.arithmetic import arithmetic
from accelsim.numerics.blocks import BLOCK_FORMATS, Blocks
from accelsim.numerics.scaled import ScaledRule
from accelsim.numerics.tensor_core import DotStep

UNIT = arithmetic("blackwell-tcgen05")


def scale_of(name, code):
    """(significand, exponent) of a scale; None for NaN."""
    if name == "e8m0":
        return None if code == 255 else (Fraction(1), code - 127)
    value, exponent = oracle.decode(name, code & 0x7F)
    return None if value == oracle.NAN else (value / oracle.power(exponent), exponent)


def scalar(fmt, a, b, scales_a, scales_b):
    """One output of the kind mxf4nvf4 from codes, by the words of numerics.scaled."""
    bits = 0
    for first in range(0, len(a), 64):
        c, exponent_c = oracle.decode("fp32", bits)
        terms, nan = [(c, exponent_c if c else -126)], c == oracle.NAN
        for group in range(first, min(first + 64, len(a)), 16):
            ks = range(group, group + 16)
            dot = sum(oracle.decode(fmt.element, a[k])[0] * oracle.decode(fmt.element, b[k])[0]
                      for k in ks)  # fmt: skip
            pair = [scale_of(fmt.scale, s[group // fmt.block]) for s in (scales_a, scales_b)]
            if None in pair:
                nan = True
                continue
            (u, e), (v, f) = pair
            if dot * u * v:
                terms.append((dot * u * v * oracle.power(e + f), e + f))
        if nan:
            bits = 0x7FFFFFFF
            continue
        if isinstance(c, str):
            continue  # infinities stay
        quantum = oracle.power(max(e for _, e in terms) - 35)
        total = sum(oracle.truncated(t, quantum) for t, _ in terms)
        bits = oracle.rounded(total, "fp32", 23, False)
    return bits


def operands(name, kind, rows, k, seed):
    """Blocks with elements of all patterns, and scales near, far apart, tiny or anything."""
    fmt, rng = BLOCK_FORMATS[name], np.random.default_rng(seed)
    elements = rng.integers(0, 16, (rows, k))
    low, high = {
        ("e8m0", "near"): (124, 131), ("e8m0", "far"): (95, 160), ("e8m0", "tiny"): (50, 80),
        ("e8m0", "any"): (0, 256), ("fp8_e4m3", "near"): (0x30, 0x40),
        ("fp8_e4m3", "far"): (0, 0x7F), ("fp8_e4m3", "tiny"): (0, 9), ("fp8_e4m3", "any"): (0, 256),
    }[fmt.scale, kind]  # fmt: skip
    scales = rng.integers(low, high, (rows, k // fmt.block))
    if kind == "far":
        elements[:, ::3] = 0
    return Blocks(fmt, fmt.elements.stored(elements), fmt.scales.stored(scales)), elements, scales


@pytest.mark.parametrize("kind", ["near", "far", "tiny", "any"])
@pytest.mark.parametrize("name", ["mxfp4_e2m1", "nvfp4"])
@pytest.mark.parametrize("k", [64, 192, 96])
def test_groups_of_fp4_equal_rational_numbers(name, kind, k):
    (a, ea, sa), (b, eb, sb) = (operands(name, kind, 6, k, seed) for seed in (1, 2))
    got = UNIT.scaled_rule(name).multiply(a, b).view(np.uint32)
    fmt = BLOCK_FORMATS[name]
    for i in range(6):
        for j in range(6):
            want = scalar(fmt, ea[i].tolist(), eb[j].tolist(), sa[i].tolist(), sb[j].tolist())
            found = int(got[i, j])
            both_nan = want == 0x7FFFFFFF and np.isnan(got.view(np.float32)[i, j])
            assert found == want or both_nan, (i, j)


@pytest.mark.parametrize(
    "wrong",
    [
        ScaledRule(DotStep(products=4, fraction_bits=25), 16, BLOCK_FORMATS["mxfp4_e2m1"]),
        ScaledRule(DotStep(products=2, fraction_bits=35), 16, BLOCK_FORMATS["mxfp4_e2m1"]),
        ScaledRule(DotStep(products=32, fraction_bits=25), 1, BLOCK_FORMATS["mxfp4_e2m1"]),
    ],
    ids=["F = 25", "K = 32", "mxf8f6f4"],
)
def test_wrong_steps_differ(wrong):
    rows = [operands("mxfp4_e2m1", kind, 40, 256, seed)[0]
            for seed, kind in enumerate(("far", "far"))]  # fmt: skip
    right = UNIT.scaled_rule("mxfp4_e2m1").multiply(*rows)
    assert (wrong.multiply(*rows) != right).any()


def test_tensor_scales_multiply_the_result():
    rng = np.random.default_rng(5)
    a, b = (BLOCK_FORMATS["nvfp4"].quantize(1e-3 * rng.standard_normal((8, 64))) for _ in "ab")
    plain = [Blocks(x.format, x.elements, x.scales) for x in (a, b)]
    rule = UNIT.scaled_rule("nvfp4")
    by = np.float32(a.tensor_scale) * np.float32(b.tensor_scale)
    assert by < 1e-6
    assert np.array_equal(rule.multiply(a, b), rule.multiply(*plain) * by)
    exact = a.dequantize() @ b.dequantize().T
    size = np.abs(a.dequantize()) @ np.abs(b.dequantize()).T
    assert (np.abs(rule.multiply(a, b) - exact) <= 2.0**-22 * size).all()


def test_units_without_scales_say_who_has_them():
    with pytest.raises(AccelsimError, match="ampere-mma takes no scales of nvfp4; blackwell-tcg"):
        arithmetic("ampere-mma").scaled_rule("nvfp4")
    a = BLOCK_FORMATS["nvfp4"].quantize(np.ones((1, 64)))
    with pytest.raises(AccelsimError, match="operands in nvfp4, not mxfp4_e2m1"):
        UNIT.scaled_rule("mxfp4_e2m1").multiply(a, a)
