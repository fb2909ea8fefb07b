"""Formats: every code of every format, every cast against rationals and against gfloat."""

from __future__ import annotations

from fractions import Fraction

import gfloat
import numpy as np
import pytest
from accelsim.validation import casts
from accelsim.validation.casts import oracle
from gfloat import formats as gf

from accelsim.errors import AccelsimError
from accelsim.numerics import cast, cast_kernels
from accelsim.numerics.formats import FORMATS, floating, integer, register_format
from accelsim.numerics.splitmix import splitmix64

NARROW = [f for f in FORMATS.values() if f.bits <= 16]
FLOATS = [*oracle.LAYOUTS]
GFLOAT = {
    "fp16": gf.format_info_binary16,
    "bf16": gf.format_info_bfloat16,
    "fp8_e4m3": gf.format_info_ocp_e4m3,
    "fp8_e5m2": gf.format_info_ocp_e5m2,
    "fp6_e2m3": gf.format_info_ocp_e2m3,
    "fp6_e3m2": gf.format_info_ocp_e3m2,
    "fp4_e2m1": gf.format_info_ocp_e2m1,
    "e8m0": gf.format_info_ocp_e8m0,
}
MODES = {
    "RNE": gfloat.RoundMode.TiesToEven,
    "RZ": gfloat.RoundMode.TowardZero,
    "RU": gfloat.RoundMode.TowardPositive,
    "RD": gfloat.RoundMode.TowardNegative,
}


def all_codes(fmt):
    return np.arange(1 << fmt.bits)


def wide(values):
    with np.errstate(invalid="ignore"):  # signalling NaNs are among the codes
        return values.astype(np.float64)


@pytest.mark.parametrize("fmt", NARROW, ids=lambda f: f.name)
def test_every_code_keeps_its_bits(fmt):
    """Code to value to code; NaNs have many codes and one value. -2 is no ternary number."""
    codes = all_codes(fmt) if fmt.name != "ternary" else np.array([0, 1, 3])
    values = wide(fmt.decode(fmt.stored(codes)))
    back = fmt.codes(fmt.encode(values))
    assert (np.isnan(values) | (back == codes)).all()
    assert np.array_equal(values, cast.values_of(fmt, codes), equal_nan=True)


@pytest.mark.parametrize("name", [*FLOATS])
def test_every_code_means_what_the_definition_says(name):
    fmt = FORMATS[name]
    finite = oracle.finite_codes(name)
    codes = np.arange(finite)
    got = wide(fmt.decode(fmt.stored(codes << fmt.padding)))
    assert [Fraction(v) for v in got.tolist()] == [oracle.magnitude(name, c) for c in range(finite)]
    sign = 1 << (fmt.bits - fmt.padding - 1)
    negative = wide(fmt.decode(fmt.stored((codes[1:] | sign) << fmt.padding)))
    assert np.array_equal(negative, -got[1:])
    assert fmt.largest == got[-1]
    rest = wide(fmt.decode(fmt.stored(np.arange(finite, sign) << fmt.padding)))
    assert not np.isfinite(rest).any()


@pytest.mark.parametrize("name", sorted(GFLOAT))
def test_every_code_means_what_gfloat_says(name):
    fmt, theirs = FORMATS[name], GFLOAT[name]
    codes = all_codes(fmt)[:: 1 if fmt.bits <= 8 else 7]
    want = [gfloat.decode_float(theirs, int(code)).fval for code in codes]
    assert np.array_equal(wide(fmt.decode(fmt.stored(codes))), want, equal_nan=True)


@pytest.mark.parametrize("name", [*FLOATS, *oracle.SCALES, *oracle.RANGES])
def test_casts_equal_the_rational_oracle(name):
    """Every value, every midpoint and its neighbours, and random float64; all roundings, rules."""
    wrong, cases = casts.mismatches(name, 6_000)
    assert cases > 5_000
    assert wrong == 0


@pytest.mark.parametrize("name", [*oracle.WIDE, *oracle.LONG_RANGES])
def test_wide_casts_equal_rational_numbers(name):
    wrong, cases = casts.rational_mismatches(name, 200)
    assert wrong == 0
    assert cases > 1_000


@pytest.mark.parametrize("name", oracle.WRAPPING)
def test_integers_wrap_as_rational_numbers_do(name):
    wrong, cases = casts.rational_mismatches(name, 200, ("wrap",))
    assert wrong == 0
    assert cases > 1_000


@pytest.mark.parametrize(
    ("name", "rounding", "rule", "as_if"),
    [
        ("fp32", "SR", "infinity", ("RZ", "infinity")),
        ("fp32", "RNE", "infinity", ("RNE", "saturate")),
        ("fp64", "RNE", "infinity", ("RZ", "infinity")),
        ("int32", "RNE", "saturate", ("RU", "saturate")),
        ("int8", "RNE", "wrap", ("RNE", "saturate")),
    ],
)
def test_wrong_wide_casts_are_noticed(name, rounding, rule, as_if, monkeypatch):
    right = oracle.rational
    monkeypatch.setattr(oracle, "rational", lambda n, v, _r, _o, word: right(n, v, *as_if, word))
    monkeypatch.setattr(casts, "ROUNDINGS", (rounding,))
    assert casts.rational_mismatches(name, 200, (rule,))[0] > 0


def test_fp32_casts_equal_the_oracle():
    wrong, cases = casts.fp32_mismatches(50_000)
    assert (wrong, cases > 100_000) == (0, True)


@pytest.mark.parametrize("mode", sorted(MODES))
@pytest.mark.parametrize("name", sorted(GFLOAT))
def test_casts_equal_gfloat(name, mode):
    fmt, theirs = FORMATS[name], GFLOAT[name]
    x = casts.random_doubles(fmt, 1_500, f"gfloat {mode}")
    x = np.abs(x) if fmt.is_scale else x
    x = x[np.isfinite(x)]
    if fmt.is_scale:  # gfloat has no value below the smallest scale; here that is the smallest
        x = x[x >= 2.0**-127]
    for saturate in (False, True):
        if not saturate and not fmt.has_nan:
            continue
        rule = "saturate" if saturate else ("infinity" if fmt.has_infinity else "nan")
        got = wide(fmt.decode(fmt.encode(x, mode, rule)))
        want = [gfloat.round_float(theirs, float(v), MODES[mode], saturate) for v in x]
        assert np.array_equal(got, want, equal_nan=True)


def test_garbage_is_cast_silently():
    """Signalling NaNs, which poisoned memory may hold, warn nobody (warnings are errors here)."""
    signalling = np.array([0x7F800001, 0xFFBFFFFF], dtype=np.uint32).view(np.float32)
    for fmt in FORMATS.values():
        assert len(fmt.encode(signalling)) == 2
    half = np.array([0x7C01], dtype=np.uint16).view(np.float16)
    assert np.isnan(FORMATS["fp16"].decode(half)).all()


@pytest.mark.parametrize(
    ("name", "value", "want"),
    [
        ("bf16", 1 + 2.0**-8 + 2.0**-45, 1.0078125),  # through fp32 it would be 1
        ("fp8_e4m3", 1 + 2.0**-4 + 2.0**-45, 1.125),
        ("fp16", 1 + 2.0**-11 + 2.0**-45, 1 + 2.0**-10),
        ("fp8_e4m3", 464.0, 448.0),
        ("fp8_e4m3", 464.0000001, np.nan),
        ("fp8_e5m2", 61440.0, np.inf),
        ("fp4_e2m1", 10.0, 6.0),
        ("fp4_e2m1", np.nan, 6.0),
        ("fp8_e4m3fnuz", 1e6, np.nan),
        ("int8", np.nan, 0),
        ("int8", -np.inf, -128),
    ],
)
def test_known_traps(name, value, want):
    fmt = FORMATS[name]
    got = fmt.decode(fmt.encode(np.array([value])))
    assert np.array_equal(got, [want], equal_nan=True)


def test_wrong_casts_are_noticed(monkeypatch):
    """The oracle has power: truncation for rounding, ties away, double rounding all fail."""
    fmt, grid = FORMATS["bf16"], oracle.float_grid("bf16")
    x = np.concatenate([casts.halfway(grid), casts.random_doubles(fmt, 2_000, "power")])
    assert not casts.differs(fmt, grid, x, "RNE", "infinity").any()
    right = cast.encode

    def through_fp32(fmt, values, *rest):
        return right(fmt, values.astype(np.float32), *rest)

    def ties_away(fmt, values, *rest):
        return right(fmt, np.nextafter(values, np.copysign(np.inf, values)), *rest)

    def truncated(fmt, values, _rounding, *rest):
        return right(fmt, values, "RZ", *rest)

    for wrong in (through_fp32, ties_away, truncated):
        monkeypatch.setattr(cast, "encode", wrong)
        with np.errstate(over="ignore", invalid="ignore"):
            assert casts.differs(fmt, grid, x, "RNE", "infinity").any(), wrong.__name__


def test_stochastic_rounding_is_seeded_and_unbiased():
    fmt = FORMATS["fp8_e4m3"]
    x = np.full(40_000, 1 + 0.3 * 2.0**-3)
    once, again = (fmt.decode(fmt.encode(x, "SR", seed=5)) for _ in range(2))
    assert np.array_equal(once, again)
    assert not np.array_equal(once, fmt.decode(fmt.encode(x, "SR", seed=6)))
    up = (once > 1).mean()
    # Five standard deviations of the mean of 40 000 draws.
    assert abs(up - 0.3) < 5 * np.sqrt(0.3 * 0.7 / len(x))


def test_random_words_are_splitmix64():
    words = [cast_kernels.random_word(np.uint64(99), i) for i in range(4)]
    assert words == splitmix64(99, 4).tolist()


@pytest.mark.parametrize("name", ["to_floats", "to_integers"])
def test_compiled_casts_equal_their_source(name):
    fmt = FORMATS["fp8_e5m2" if name == "to_floats" else "int8"]
    x = casts.random_doubles(fmt, 300, "compiled").view(np.uint64)
    extra = cast._layout(fmt, fmt.overflow) if name == "to_floats" else (-128, 127, 255, False)
    kernel = getattr(cast_kernels, name)
    out = [np.empty(len(x), dtype=np.uint32) for _ in range(2)]
    with np.errstate(over="ignore"):
        for run, codes in zip((kernel, kernel.py_func), out, strict=True):
            run(x, codes, 4, np.uint64(3), *extra)
    assert np.array_equal(*out)


def test_integers_saturate_or_wrap():
    fmt = FORMATS["int8"]
    assert fmt.encode(np.array([300, -300, 5], dtype=np.int32)).tolist() == [127, -128, 5]
    assert fmt.encode(np.array([2.5, 3.5, -1e9, np.nan])).tolist() == [2, 4, -128, 0]
    assert FORMATS["int32"].encode(np.array([3e9, -3e9])).tolist() == [2**31 - 1, -(2**31)]
    assert FORMATS["uint4"].encode(np.array([-1, 99])).tolist() == [0, 15]
    wide = [300, -300, 2**40 + 5, -(2**61)]
    wrapped = [(v + 128) % 256 - 128 for v in wide]
    for given in (np.array(wide), np.array(wide, dtype=np.float64)):
        assert fmt.encode(given, overflow="wrap").tolist() == wrapped
    assert fmt.encode(np.array([2.0**70 + 2.0**20]), overflow="wrap").tolist() == [0]


def test_fp64_overflows_by_its_rule_and_keeps_everything_else():
    fmt = FORMATS["fp64"]
    x = casts.random_doubles(FORMATS["fp32"], 100, "fp64")
    for rounding in cast.ROUNDINGS:
        for rule, edge in (("infinity", np.inf), ("nan", np.nan), ("saturate", fmt.largest)):
            assert np.array_equal(fmt.encode(x, rounding, rule), x, equal_nan=rule == "nan")
            got = fmt.encode(np.array([np.inf, -np.inf]), rounding, rule)
            assert np.array_equal(got, [edge, -edge], equal_nan=True)


LONG = ["fp64", "fp32", "tf32", "bf16", "fp16"]


def nearest_below(value, bits):
    """(multiple, unit): the largest multiple, in size, of what so many bits resolve."""
    unit = 1 << max(abs(value).bit_length() - bits, 0)
    return abs(value) // unit, unit


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
@pytest.mark.parametrize("name", LONG)
def test_long_integers_are_rounded_once(name, dtype):
    """2^62 + 2^54 + 1 is just above halfway in bf16; through float64 it would be a tie."""
    fmt = FORMATS[name]
    bits = fmt.significand_bits
    words = splitmix64(21, 4000).tolist()
    near = [(w >> 64 - bits << 10) + 512 + w % 3 - 1 for w in words[:1000]]
    given = [*(w >> w % 61 for w in words), *near, 2**62 + 2**54 + 1, 2**63 - 1]
    given = [v for v in given if v <= np.iinfo(dtype).max and v < fmt.largest]
    given += [-(2**63), *(-v for v in given)] if dtype is np.int64 else [2**64 - 1]
    given = [v for v in given if abs(v) < fmt.largest]
    for rounding in ("RNE", "RZ", "RU", "RD"):
        got = wide(fmt.decode(fmt.encode(np.array(given, dtype=dtype), rounding)))
        for value, found in zip(given, got.tolist(), strict=True):
            low, unit = nearest_below(value, bits)
            rest = abs(value) - low * unit
            up = {"RZ": False, "RU": value > 0, "RD": value < 0}.get(
                rounding, 2 * rest > unit or (2 * rest == unit and low % 2 == 1)
            )
            want = (low + (up and rest > 0)) * unit
            assert int(abs(found)) == want, (value, rounding)
            assert (found < 0) == (value < 0)


def test_stochastic_rounding_of_long_integers_is_fair():
    x = np.full(20_000, 2**60 + 2**6)  # a quarter of the way between two float64
    up = (FORMATS["fp64"].encode(x, "SR", seed=3) > 2.0**60).mean()
    assert abs(up - 0.25) < 5 * np.sqrt(0.25 * 0.75 / len(x))


@pytest.mark.parametrize("name", ["bf16", "fp32", "fp8_e4m3", "int8", "fp4_e2m1", "fp64"])
def test_a_single_number_stays_one(name):
    fmt = FORMATS[name]
    stored = fmt.encode(np.float64(1.25), "RZ")
    assert stored.shape == fmt.decode(stored).shape == fmt.codes(stored).shape == ()


@pytest.mark.parametrize("name", ["fp4_e2m1", "fp6_e2m3", "int4", "int2", "uint1", "fp16"])
def test_packed_rows_give_their_elements_back(name):
    fmt = FORMATS[name]
    rng = np.random.default_rng(4)
    stored = fmt.stored(rng.integers(0, 1 << fmt.bits, (3, 16)))
    packed = fmt.pack(stored)
    assert packed.shape == (3, 2 * fmt.bits)
    assert fmt.unpack(packed).tobytes() == stored.tobytes()


def test_the_first_element_lies_lowest():
    """As PTX packs e2m1x2 and as numpy packs little bit order."""
    fmt = FORMATS["fp4_e2m1"]
    assert fmt.pack(fmt.stored([[0x1, 0xF]])).tolist() == [[0xF1]]


def test_a_scale_has_neither_sign_nor_zero():
    fmt = FORMATS["e8m0"]
    x = np.array([0.0, 2.0**-140, 1.0, 1.5, 3.0, -1.0, np.inf])
    assert fmt.codes(fmt.encode(x)).tolist() == [0, 0, 127, 128, 128, 255, 254]


@pytest.mark.parametrize(
    ("name", "rounding", "overflow", "says"),
    [
        ("fp16", "nearest", "infinity", "unknown rounding 'nearest'; accepted: RNE, RZ, RU"),
        ("fp8_e4m3", "RNE", "infinity", "cannot overflow by 'infinity'; accepted: nan, saturate"),
        ("fp4_e2m1", "RNE", "nan", "accepted: saturate"),
        ("fp16", "RNE", "wrap", "accepted: infinity, nan, saturate"),
        ("ternary", "RNE", "wrap", "accepted: saturate"),
    ],
)
def test_rules_that_a_format_cannot_follow_are_refused(name, rounding, overflow, says):
    with pytest.raises(AccelsimError, match=says):
        FORMATS[name].encode(np.ones(3), rounding, overflow)


def test_entries_that_contradict_themselves_are_refused():
    with pytest.raises(AccelsimError, match="need more than 4 bits"):
        register_format(floating("wide", 3, 3, "u1", bits=4))
    with pytest.raises(AccelsimError, match="not below"):
        register_format(integer("none", 4, "<i1", 3, 3))
    with pytest.raises(AccelsimError, match="fp24: 24 bits in elements of 32; accepted"):
        floating("fp24", 8, 15, "<u4").encode(np.ones(3))
    with pytest.raises(AccelsimError, match="cannot cast complex128"):
        FORMATS["fp16"].encode(np.ones(3, dtype=complex))


@pytest.mark.parametrize("name", ["fp16", "bf16", "fp32", "tf32", "fp8_e5m2"])
def test_overflow_is_infinite_and_silent(name):
    huge = np.array([3.4e38, -3.4e38]) * 1e3
    assert np.isinf(FORMATS[name].encode(huge).astype(float)).all()
