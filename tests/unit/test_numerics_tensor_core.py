"""The tensor-core model: bits of real GPUs, of rational numbers, and of nothing else."""

from dataclasses import replace

import numpy as np
import pytest
import tensor_core_oracle as oracle
from accelsim.validation import tensor_cores

from accelsim.errors import AccelsimError
from accelsim.numerics import dot_kernels, tensor_core
from accelsim.numerics.arithmetic import TENSOR_CORES, arithmetic, types_of
from accelsim.numerics.formats import FORMATS
from accelsim.numerics.rules import EmulatedFp8, TensorCoreRule
from accelsim.numerics.tensor_core import DotStep, parts_of, parts_of_codes

KINDS = ("normal", "patterns", "subnormal", "positive", "cancelling")
COMBINATIONS = [
    (name, kind, accumulator, step)
    for name, one in sorted(TENSOR_CORES.items())
    for kind, accumulator, step in one.table
    if isinstance(step, DotStep)
]
FORMAT_OF = {
    "fp16": "fp16",
    "bf16": "bf16",
    "tf32": "tf32",
    "fp8": "fp8_e4m3",
    "fp8/6/4": "fp6_e3m2",
}


def patterns(fmt, kind, shape, seed):
    """Bit patterns (in memory) of one class of operands."""
    rng = np.random.default_rng(seed)
    field = fmt.exponent_bits + fmt.mantissa_bits
    if kind == "patterns":
        codes = rng.integers(0, 1 << (field + 1), shape)
    elif kind == "subnormal":
        codes = rng.integers(0, 1 << (fmt.mantissa_bits + 1), shape)
        codes |= rng.integers(0, 2, shape) << field
    else:
        x = rng.standard_normal(shape) * 2.0 ** rng.integers(-3, 3, shape)
        x = np.abs(x) if kind == "positive" else x
        if kind == "cancelling":
            x[..., 1::2] = -x[..., ::2]
        codes = fmt.codes(fmt.encode(x)).astype(np.int64) >> fmt.padding
    return codes << fmt.padding


def results(step, kind, count, seed):
    rng = np.random.default_rng(seed + 99)
    if kind == "patterns":
        return rng.integers(0, 1 << step.format.bits, count).astype(np.uint32)
    values = rng.standard_normal(count) * (2.0**-140 if kind == "subnormal" else 1.0)
    values[::3] = 0
    return step.format.codes(step.format.encode(values)).astype(np.uint32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("unit", "operands", "accumulator", "step"),
    COMBINATIONS,
    ids=[f"{n}-{k.replace('/', '')}-{a}" for n, k, a, _ in COMBINATIONS],
)
def test_every_unit_equals_rational_numbers(unit, operands, accumulator, step, kind):
    fmt = FORMATS[FORMAT_OF[operands]]
    n, k = 12, 2 * step.products
    a, b = (patterns(fmt, kind, (n, k), seed) for seed in (1, 2))
    if kind == "cancelling":
        b[..., 1::2] = b[..., ::2]
    c = results(step, kind, n, 3)
    got = step.dots(parts_of_codes(fmt, a), parts_of_codes(fmt, b), c)
    wide = fmt.padding
    want = [
        oracle.chain(
            (a[i] >> wide).tolist(), (b[i] >> wide).tolist(), int(c[i]), step.products,
            (fmt.name, fmt.name), step.fraction_bits, step.result, step.kept_bits,
            step.rounding == "RNE",
        )
        for i in range(n)
    ]  # fmt: skip
    assert got.tolist() == want
    rule = arithmetic(unit).rule(types_of(fmt.name, fmt.name, accumulator))
    assert isinstance(rule, TensorCoreRule)
    assert rule.step is step


def test_mixed_fp8_operands():
    step = DotStep(products=32, fraction_bits=13, kept_bits=13)
    names = ("fp8_e4m3", "fp8_e5m2")
    a, b = (patterns(FORMATS[f], "patterns", (40, 32), s) for s, f in enumerate(names))
    c = results(step, "normal", 40, 5)
    got = step.dots(*(parts_of_codes(FORMATS[f], x) for f, x in zip(names, (a, b), strict=True)), c)
    want = [
        oracle.step(x.tolist(), y.tolist(), int(z), names, 13, kept_bits=13)
        for x, y, z in zip(a, b, c, strict=True)
    ]
    assert got.tolist() == want


@pytest.mark.parametrize(
    ("a", "b", "c", "want"),
    [
        ([1.0, np.inf], [1.0, 0.0], 0.0, 0x7FFFFFFF),  # Inf x 0
        ([np.inf, 1.0], [1.0, 1.0], -np.inf, 0x7FFFFFFF),  # Inf - Inf
        ([np.inf, -np.inf], [1.0, -1.0], 1.0, 0x7F800000),
        ([np.nan, 0.0], [1.0, 0.0], 1.0, 0x7FFFFFFF),
        ([0.0, 0.0], [1.0, 1.0], np.nan, 0x7FFFFFFF),
        ([-0.0, -0.0], [1.0, 1.0], -0.0, 0x00000000),  # a sum of nothing is +0
        ([2.0**127, -(2.0**127)], [2.0, 2.0], 1.0, 0x00000000),  # cancels, and E hides c
        ([2.0**127, 2.0**127], [1.0, 1.0], 0.0, 0x7F800000),  # not the largest finite number
        ([2.0**-126, 0.0], [2.0**-20, 0.0], 0.0, 0x00000008),  # a subnormal result
    ],
)
def test_corners(a, b, c, want):
    fmt = FORMATS["bf16"]
    step = DotStep(products=2, fraction_bits=25)
    operands = (parts_of(fmt, np.array([x], dtype=np.float32)) for x in (a, b))
    bits = np.array([c], dtype=np.float32).view(np.uint32)
    assert step.dots(*operands, bits).tolist() == [want]


def one(step, a, b, c=0, fmt="bf16"):
    rows = (parts_of(FORMATS[fmt], np.array([x], dtype=np.float32)) for x in (a, b))
    return int(step.dots(*rows, np.array([c], dtype=np.uint32))[0])


def test_parameters_settle_the_corners_where_published_models_differ():
    """Each corner once on either side: MMA-Sim's and MATLAB-tensor-core's."""
    step = DotStep(products=8, fraction_bits=25)
    far = ([0.0, 1.0] + [0.0] * 6, [2.0**127, 2.0**-30] + [0.0] * 6)
    assert one(step, *far) == np.float32(2.0**-30).view(np.uint32)
    assert one(replace(step, zero_products=True), *far) == 0
    tiny = ([2.0**-76] * 8, [2.0**-76] * 8)
    assert one(step, *tiny) == 0
    assert one(replace(step, zero_c_exponent=-133), *tiny) == 1  # 2^-149
    assert one(replace(step, zero_c_exponent=None), *tiny) == 1
    assert one(replace(step, zero_c_exponent=None, least_exponent=-126), *tiny) == 0
    half = DotStep(products=4, fraction_bits=25, result="fp16", kept_bits=10, rounding="RNE")
    lone = ([-(2.0**-13), 0, 0, 0], [2.0**-13, 0, 0, 0])
    assert one(half, *lone, fmt="fp16") == 0x8000
    assert one(replace(half, signed_underflow=False), *lone, fmt="fp16") == 0
    # A subnormal c of 2^-24: with its own exponent it hides less of what is added to it.
    short = replace(half, fraction_bits=11, zero_c_exponent=None)
    small = ([2.0**-14, 0, 0, 0], [2.0**-12, 0, 0, 0])
    assert one(short, *small, c=1, fmt="fp16") == 1
    assert one(replace(short, normalizes_c=True), *small, c=1, fmt="fp16") == 1
    assert one(replace(half, fraction_bits=9, normalizes_c=True), *small, c=1, fmt="fp16") == 1
    assert one(replace(half, fraction_bits=9), *small, c=1, fmt="fp16") == 0


CAPTURES = tensor_cores.captures()


@pytest.mark.parametrize("capture", CAPTURES, ids=str)
def test_captured_bits(capture):
    assert capture.mismatches(capture.rule) == 0


@pytest.mark.parametrize("capture", CAPTURES[::5], ids=str)
def test_wrong_models_are_found_out(capture):
    wrong = tensor_cores.wrong_rules(capture)
    assert wrong
    for what, rule in wrong.items():
        assert capture.mismatches(rule) > 10, what


def test_a_matrix_product_is_its_dot_products_whatever_the_threads(monkeypatch):
    step, fmt = DotStep(products=16, fraction_bits=25), FORMATS["bf16"]
    rng = np.random.default_rng(8)
    a, b = (parts_of(fmt, rng.standard_normal((s, 200)).astype(np.float32)) for s in (37, 41))
    c = rng.standard_normal((37, 41)).astype(np.float32).view(np.uint32)
    monkeypatch.setattr(tensor_core, "PARALLEL_MACS", 1)
    threaded = step.multiply(a, b, c)
    monkeypatch.setattr(tensor_core, "_processors", lambda: 1)
    assert np.array_equal(step.multiply(a, b, c), threaded)
    rows = np.repeat(np.arange(37), 41), np.tile(np.arange(41), 37)
    flat = [
        tensor_core.Parts(x.significand[i], x.exponent[i], x.fraction, x.least_exponent)
        for x, i in zip((a, b), rows, strict=True)
    ]
    assert np.array_equal(step.dots(*flat, c.ravel()).reshape(37, 41), threaded)


def test_zeros_at_the_end_of_k_change_nothing():
    step, fmt = DotStep(products=16, fraction_bits=25), FORMATS["fp16"]
    rng = np.random.default_rng(9)
    a, b = (rng.standard_normal((20, 24)).astype(np.float32) for _ in "ab")
    c = np.zeros(20, dtype=np.uint32)
    short = step.dots(parts_of(fmt, a), parts_of(fmt, b), c)
    padded = (np.pad(x, ((0, 0), (0, 40))) for x in (a, b))
    assert np.array_equal(step.dots(*(parts_of(fmt, x) for x in padded), c), short)


def test_fp32_words_enter_as_tf32_with_their_low_bits_ignored():
    rule = arithmetic("ampere-mma").rule(types_of("fp32", "fp32", "fp32"))
    rng = np.random.default_rng(10)
    a, b = rng.standard_normal((5, 16)), rng.standard_normal((16, 6))
    a, b = a.astype(np.float32), b.astype(np.float32)
    cut = [(x.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32) for x in (a, b)]
    got = rule.multiply(a, b, None)
    assert np.array_equal(got, rule.multiply(*cut, None))
    assert rule.entering.name == "tf32"


def test_emulated_fp8_of_a_matrix_is_that_of_its_instructions():
    fmt = FORMATS["fp8_e4m3"]
    for accumulator in ("fp16", "fp32"):
        rule = EmulatedFp8(FORMATS[accumulator], fmt, fmt)
        rng = np.random.default_rng(11)
        a, b = (fmt.decode(fmt.encode(rng.standard_normal(s))) for s in ((6, 64), (64, 6)))
        got = np.diagonal(rule.multiply(a, b, None))
        want = np.zeros(6, dtype=np.float32)
        for first in (0, 32):
            ks = slice(first, first + 32)
            want = rule.dots(parts_of(fmt, a[:, ks]), parts_of(fmt, b.T[:, ks]), want)
        assert np.array_equal(got, want)


def test_mx_scales_move_exponents():
    step, fmt = DotStep(products=32, fraction_bits=25), FORMATS["fp8_e4m3"]
    rng = np.random.default_rng(12)
    a, b = (fmt.decode(fmt.encode(rng.standard_normal((9, 64)))) for _ in "ab")
    scales = rng.integers(-8, 8, (9, 2)).astype(np.int32)
    c = np.zeros(9, dtype=np.uint32)
    got = step.dots(parts_of(fmt, a).scaled(scales, 32), parts_of(fmt, b), c)
    wide = FORMATS["bf16"]
    scaled = a * np.exp2(np.repeat(scales, 32, axis=1)).astype(np.float32)
    assert np.array_equal(got, step.dots(parts_of(wide, scaled), parts_of(fmt, b), c))


def test_compiled_steps_equal_their_source():
    step, fmt = DotStep(products=8, fraction_bits=24), FORMATS["fp16"]
    a, b = (parts_of_codes(fmt, patterns(fmt, "patterns", (5, 16), s)) for s in (1, 2))
    c = results(step, "normal", 5, 3)
    d = [np.zeros(5, dtype=np.uint32) for _ in range(2)]
    numbers = step.numbers(20)
    for run, out in zip((dot_kernels.dots, dot_kernels.dots.py_func), d, strict=True):
        run(a.significand, a.exponent, b.significand, b.exponent, c, out, numbers)
    assert np.array_equal(*d)


def test_unsupported_combinations_name_the_supported_ones():
    with pytest.raises(AccelsimError) as fault:
        arithmetic("hopper-wgmma").rule(types_of("bf16", "bf16", "fp16"))
    assert str(fault.value) == (
        "hopper-wgmma has no bf16 x bf16 -> fp16; supported: fp16 -> fp32, fp16 -> fp16,"
        " bf16 -> fp32, tf32 -> fp32, fp8 -> fp32, fp8 -> fp16, int8 -> int32"
    )
    with pytest.raises(AccelsimError, match="did you mean 'hopper-wgmma'"):
        arithmetic("hoper-wgmma")
    with pytest.raises(AccelsimError, match="a dot step of 0 products"):
        DotStep(products=0, fraction_bits=25)
