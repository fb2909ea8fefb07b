"""Functions of additions and multiplications: step by step as stated, within their derived errors,
and used by a vector unit, its issue cycles and `check`."""

import math

import numpy as np
import pytest

from accelsim.api import arch, check, simulate
from accelsim.errors import AccelsimError
from accelsim.hw.vector import Vector
from accelsim.numerics import functions
from accelsim.numerics import taylor as made
from accelsim.numerics.formats import FORMATS
from accelsim.numerics.taylor import DEFAULTS, FIRST_RECIPROCAL, FIRST_RSQRT, Taylor, taylor
from accelsim.program.opcodes import Function

FP32, BF16 = FORMATS["fp32"], FORMATS["bf16"]
FEW = {"exp": 3, "reciprocal": 1, "rsqrt": 1}
SETS = [
    ("taylor-fp32", {}),
    ("taylor-fp32", FEW),
    ("taylor-bf16", {}),
    ("taylor-bf16", FEW),
    ("powers-fp32", {}),
    ("powers-fp32", FEW),
]
ALL_BF16 = np.asarray(BF16.decode(BF16.stored(np.arange(1 << 16, dtype=np.uint16))), np.float32)
NUMBERS = ALL_BF16[np.isfinite(ALL_BF16)]


def arguments(functions_of, least, most):
    """All bf16 numbers of a range, or many fp32 ones."""
    if functions_of.fmt is BF16:
        return NUMBERS[(least <= NUMBERS) & (most >= NUMBERS)]
    rng = np.random.default_rng(5)
    spread = rng.uniform(least, most, 200_000)
    small = np.sign(spread) * np.abs(spread) ** rng.uniform(0, 3, spread.size) / 1e2
    return np.concatenate([spread, small, NUMBERS]).astype(np.float32).clip(least, most)


@pytest.mark.parametrize(("name", "terms"), SETS)
def test_exponentials_are_within_their_error(name, terms):
    one = taylor(name, terms)
    x = arguments(one, -87.0, 88.0)
    exact = np.exp(x.astype(np.float64))
    off = np.abs(one.exp(x) / exact - 1.0)
    assert off.max() <= one.errors.exp
    assert off.max() > 0.2 * one.errors.exp, "the bound is idle"


@pytest.mark.parametrize(("name", "terms"), SETS)
@pytest.mark.parametrize("function", ["reciprocal", "rsqrt"])
def test_every_significand_is_within_its_error(name, terms, function):
    """Powers of four scale both functions exactly, so that two binades stand for all."""
    one = taylor(name, terms)
    stride = 1 if one.fmt is FP32 else 1 << 16
    bits = np.arange(127 << 23, 129 << 23, stride, dtype=np.int64).astype(np.int32)
    x = bits.view(np.float32)
    wide = x.astype(np.float64)
    exact = 1.0 / wide if function == "reciprocal" else 1.0 / np.sqrt(wide)
    off = np.abs(getattr(one, function)(x) / exact - 1.0)
    assert off.max() <= getattr(one.errors, function)
    assert off.max() > 0.2 * getattr(one.errors, function)
    some = x[:: max(1, len(x) // 999)]
    for scale in (2.0**-80, 2.0**80):
        moved = getattr(one, function)((some * np.float32(scale)).astype(np.float32))
        back = scale if function == "reciprocal" else math.sqrt(scale)
        assert np.array_equal(moved * np.float32(back), getattr(one, function)(some))


def test_first_guesses_are_as_stated():
    x = np.arange(127 << 23, 129 << 23, dtype=np.int64).astype(np.int32).view(np.float32)
    one, wide = Taylor(FP32), x.astype(np.float64)
    for constant, shift, exact, stated in (
        (made.RECIPROCAL_BITS, 0, 1.0 / wide, FIRST_RECIPROCAL),
        (made.RSQRT_BITS, 1, 1.0 / np.sqrt(wide), FIRST_RSQRT),
    ):
        off = np.abs(one._guess(constant, x, shift) / exact - 1.0).max()
        assert 0.999 * stated < off <= stated
        narrow = x[:: 1 << 16]
        there = Taylor(BF16)._guess(constant, narrow, shift) / exact[:: 1 << 16]
        assert np.abs(there - 1.0).max() <= stated + made.FIRST_GUESS_BF16


@pytest.mark.parametrize(("name", "terms"), SETS)
@pytest.mark.parametrize("function", ["sigmoid", "tanh", "silu", "gelu_tanh"])
def test_smooth_functions_are_within_their_error(name, terms, function):
    one = taylor(name, terms)
    x = arguments(one, -60.0, 60.0)
    exact = {"tanh": np.tanh}.get(function) or getattr(functions, function)
    with np.errstate(over="ignore"):
        value = exact(x.astype(np.float64))
    relative, absolute = one.errors.smooth[function]
    ratio = np.abs(getattr(one, function)(x) - value) / (relative * np.abs(value) + absolute)
    assert ratio.max() <= 1.0
    # That of a product with log2 e matters where tanh is 1.
    assert ratio.max() > (0.005 if name == "powers-fp32" else 0.02)


@pytest.mark.parametrize("name", ["taylor-fp32", "taylor-bf16", "powers-fp32"])
def test_ends_of_the_range(name):
    one, inf = taylor(name, {}), np.float32(np.inf)
    x = np.array([-inf, -1000, 1000, inf, 0, np.nan], dtype=np.float32)
    got = one.exp(x)
    assert got[:5].tolist() == [0, 0, inf, inf, 1]
    assert np.isnan(got[5])
    ends = one.reciprocal(np.array([0, -0.0, inf, -inf, np.nan, -4], dtype=np.float32))
    assert ends[:2].tolist() == [inf, -inf]
    assert ends[2:4].tolist() == [0, 0]
    assert np.isnan(ends[4])
    assert ends[5] == pytest.approx(-0.25, rel=0.02)
    roots = one.rsqrt(np.array([0, inf, -1, np.nan], dtype=np.float32))
    assert roots[:2].tolist() == [inf, 0]
    assert np.isnan(roots[2:]).all()
    assert one.sigmoid(np.array([-inf, inf], np.float32)).tolist()[0] == 0
    assert one.tanh(np.array([-inf, inf], np.float32)) == pytest.approx([-1, 1], abs=0.02)


def scalar_exp(x, terms):
    """e^x of one fp32 number, operation by operation."""
    f = np.float32
    n = f(np.rint(f(x * f(1.4426950408889634))))
    r = f(x - f(n * f(0.693145751953125)))
    r = f(r - f(n * f(1.42860682030941723e-06)))
    p = f(1)
    for k in range(terms, 0, -1):
        p = f(f(1) + f(f(r * f(1.0 / k)) * p))
    return f(math.ldexp(float(p), int(n)))


def scalar_power(x, terms):
    """e^x by 2^t, likewise."""
    f = np.float32
    t = f(x * f(1.4426950408889634))
    n = f(np.rint(t))
    p = f(math.log(2.0) ** terms / math.factorial(terms))
    for k in range(terms - 1, -1, -1):
        p = f(f(math.log(2.0) ** k / math.factorial(k)) + f(p * f(t - n)))
    return f(math.ldexp(float(p), int(n)))


def scalar_reciprocal(x, steps):
    f = np.float32
    y = np.array([0x7EF311C3 - int(x.view(np.int32))], np.int32).view(f)[0]
    for _ in range(steps):
        y = f(y * f(f(2) - f(x * y)))
    return y


def scalar_rsqrt(x, steps):
    f = np.float32
    y = np.array([0x5F3759DF - (int(x.view(np.int32)) >> 1)], np.int32).view(f)[0]
    for _ in range(steps):
        y = f(y * f(f(1.5) - f(f(x * f(0.5)) * f(y * y))))
    return y


@pytest.mark.parametrize("terms", [{}, FEW])
def test_bits_are_those_of_scalar_additions_and_multiplications(terms):
    one, counts = taylor("taylor-fp32", terms), {**DEFAULTS, **terms}
    x = np.random.default_rng(3).uniform(-80, 80, 300).astype(np.float32)
    assert one.exp(x).tolist() == [scalar_exp(v, counts["exp"]) for v in x]
    two = taylor("powers-fp32", terms)
    assert two.exp(x).tolist() == [scalar_power(v, counts["exp"]) for v in x]
    x = np.abs(x) + np.float32(1e-3)
    assert one.reciprocal(x).tolist() == [scalar_reciprocal(v, counts["reciprocal"]) for v in x]
    assert one.rsqrt(x).tolist() == [scalar_rsqrt(v, counts["rsqrt"]) for v in x]


def test_fewer_terms_break_the_bound_of_more():
    x = arguments(Taylor(FP32), -80.0, 80.0)
    exact = np.exp(x.astype(np.float64))
    off = np.abs(Taylor(FP32, exp_terms=5).exp(x) / exact - 1.0).max()
    assert off > Taylor(FP32, exp_terms=7).errors.exp


WORK = [
    "softmax:rows=7,cols=130", "layernorm:rows=5,cols=96", "rmsnorm:rows=5,cols=96",
    "activation:function=gelu_tanh,rows=8,cols=64", "activation:function=silu,rows=8,cols=64",
    "activation:function=tanh,rows=8,cols=64", "activation:function=exp,rows=8,cols=64",
    "attention:heads=2,q=9,kv=300,d=16,causal=true",
    "linear_attention:heads=2,q=40,d=16,decay=gated",
    "gpt2:layers=1,hidden=64,heads=4,ffn=96,vocab=120,phase=decode,contexts=9+30",
    "opt-125m:layers=1,hidden=64,heads=4,ffn=96,vocab=120,phase=train,optimizer=sgd,context=20",
]  # fmt: skip


@pytest.mark.parametrize("name", ["taylor-fp32", "taylor-bf16", "powers-fp32"])
@pytest.mark.parametrize("work", WORK)
def test_check_knows_their_error(name, work):
    machine = arch("edge-npu", {"vpu.functions": name})
    result = check(machine, f"{work},dtype=fp32")
    assert result.ok, result.first


@pytest.mark.parametrize("work", WORK[:3])
def test_check_finds_a_step_too_few(work, monkeypatch):
    machine = arch("edge-npu", {"vpu.functions": "taylor-fp32"})
    honest = taylor("taylor-fp32", {}).errors
    machine = arch(
        "edge-npu", {"vpu.functions": "taylor-fp32", **{f"vpu.terms.{k}": 1 for k in FEW}}
    )
    monkeypatch.setattr(Taylor, "errors", honest)
    assert not check(machine, f"{work},dtype=fp32").ok


def test_issue_cycles_count_operations():
    one = Vector(lanes=16, memory=("spad",), functions="taylor-fp32")
    slots = one.slots_by_function()
    # Two parts of ln 2 and seven terms: 9 additions; the product with log2 e, 2 and 2 a term.
    assert slots[Function.EXP] == 9 + 17
    assert slots[Function.RECIPROCAL] == 1 + 3 * 3
    assert slots[Function.RSQRT] == 2 + 4 * 3
    assert slots[Function.ADD] == 1
    few = Vector(lanes=16, memory=("spad",), functions="taylor-fp32", terms={"exp": 3})
    assert few.slots_by_function()[Function.EXP] == 5 + 9
    # The product with log2 e and one a term; three additions and multiplications for x (a + b x^2).
    few = Vector(lanes=16, memory=("spad",), functions="powers-fp32", terms={"exp": 3})
    assert few.slots_by_function()[Function.EXP] == 4 + 4
    assert few.slots_by_function()[Function.GELU_TANH] == (1 + 3) + (4 + 3) + 1 + 10 + 1
    given = Vector(lanes=16, memory=("spad",), functions="taylor-fp32", slots={"exp": 4})
    assert given.slots_by_function()[Function.EXP] == 4
    plain, made_up = (
        simulate(arch("edge-npu", {"vpu.functions": name}), "softmax:rows=64,cols=512").cycles
        for name in ("correct", "taylor-fp32")
    )
    assert made_up > 1.5 * plain


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"vpu.functions": "tailor-fp32"}, "did you mean 'taylor-fp32'"),
        ({"vpu.functions": "taylor-fp32", "vpu.terms.exp": 40}, "1 to 16, not 40"),
        ({"vpu.functions": "taylor-fp32", "vpu.terms.log": 4}, "terms of log"),
        ({"vpu.terms.exp": 4}, "without terms"),
    ],
)
def test_bad_words_get_one_line(change, says):
    with pytest.raises(AccelsimError, match=says) as caught:
        arch("edge-npu", change)
    assert "\n" not in str(caught.value)


TRAINED = "layers=1,hidden=64,heads=4,ffn=96,vocab=120,phase=train,context=20"


@pytest.mark.parametrize(
    ("work", "says"),
    [
        ("activation:function=gelu,rows=8,cols=64", "accepted: gelu_tanh"),
        (f"opt-125m:{TRAINED},optimizer=adam", "have no sqrt; accepted: exp, "),
        (f"gpt2:{TRAINED},optimizer=sgd", "have no gelu_tanh_grad; accepted: exp, "),
    ],
)
def test_what_they_do_not_make_is_refused(work, says):
    machine = arch("edge-npu", {"vpu.functions": "taylor-fp32"})
    for call in (simulate, check):
        with pytest.raises(AccelsimError, match=says) as caught:
            call(machine, work)
        assert "\n" not in str(caught.value)
