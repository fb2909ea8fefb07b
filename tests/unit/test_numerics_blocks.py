"""MX and NVFP4 blocks against the specifications in rational numbers."""

from fractions import Fraction

import numpy as np
import pytest
from accelsim.validation.casts import oracle

from accelsim.errors import AccelsimError
from accelsim.numerics.blocks import BLOCK_FORMATS, block_format

ELEMENTS = {
    "mxfp8_e4m3": ("fp8_e4m3", 8), "mxfp8_e5m2": ("fp8_e5m2", 15), "mxfp6_e2m3": ("fp6_e2m3", 2),
    "mxfp6_e3m2": ("fp6_e3m2", 4), "mxfp4_e2m1": ("fp4_e2m1", 2),
}  # fmt: skip


def data(kind, n=256, seed=3):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((3, n)).astype(np.float32)
    if kind == "wide":
        x = x * 2.0 ** rng.integers(-60, 60, x.shape)
    if kind == "zeros":
        x[:, :64] = 0
    return x.astype(np.float64)


def exact_log2(value):
    """floor(log2) of a positive rational."""
    n = 0
    while Fraction(2) ** (n + 1) <= value:
        n += 1
    while Fraction(2) ** n > value:
        n -= 1
    return n


@pytest.mark.parametrize("kind", ["normal", "wide", "zeros"])
@pytest.mark.parametrize("name", sorted(ELEMENTS))
def test_mx_blocks_follow_the_specification(name, kind):
    element, emax = ELEMENTS[name]
    x = data(kind)
    got = block_format(name).quantize(x)
    for row in range(3):
        for first in range(0, 256, 32):
            block = x[row, first : first + 32]
            top = Fraction(float(np.abs(block).max()))
            shared = max(-127, min(127, exact_log2(top) - emax)) if top else -127
            assert got.scales[row, first // 32] == shared + 127
            scaled = np.array([float(Fraction(v) / Fraction(2) ** shared) for v in block.tolist()])
            want = oracle.cast(element, scaled, "RNE", "saturate")
            have = got.format.elements.decode(got.elements[row, first : first + 32])
            assert np.array_equal(have.astype(np.float64), want)
            values = got.dequantize()[row, first : first + 32]
            assert [Fraction(v) for v in values.tolist()] == [
                Fraction(v) * Fraction(2) ** shared for v in want.tolist()
            ]


@pytest.mark.parametrize("kind", ["normal", "wide", "zeros"])
def test_nvfp4_has_two_levels(kind):
    x = data(kind) if kind != "wide" else data("normal") * 1e-20
    got = block_format("nvfp4").quantize(x)
    assert got.tensor_scale == float(np.float32(np.abs(x).max() / 2688))
    tops = np.abs(x).reshape(3, -1, 16).max(axis=-1)
    wanted = np.array(
        [[float(Fraction(t) / Fraction(got.tensor_scale) / 6) for t in r] for r in tops.tolist()]
    )
    scales = oracle.cast("fp8_e4m3", wanted.ravel(), "RNE", "saturate").reshape(wanted.shape)
    assert np.array_equal(got.format.scales.decode(got.scales).astype(float), scales)
    for row in range(3):
        for i, value in enumerate(x[row].tolist()):
            by = Fraction(scales[row, i // 16]) * Fraction(got.tensor_scale)
            ratio = np.array([float(Fraction(value) / by)]) if by else np.zeros(1)
            want = oracle.cast("fp4_e2m1", ratio, "RNE", "saturate")[0]
            have = float(got.format.elements.decode(got.elements[row, i : i + 1])[0])
            assert have == want
            assert Fraction(got.dequantize()[row, i]) == Fraction(want) * by
    error = np.abs(got.dequantize() - x).max(axis=-1) / np.abs(x).max(axis=-1)
    assert (error < 0.2).all()


def test_mxint8_has_steps_of_a_64th():
    x = np.linspace(-2, 1.98, 32)
    got = block_format("mxint8").quantize(x)
    assert got.scales.tolist() == [128]  # 2^1: the largest element is below 2
    assert np.array_equal(got.dequantize(), np.clip(np.rint(x * 32), -128, 127) / 32)


@pytest.mark.parametrize("name", sorted(BLOCK_FORMATS))
def test_what_is_not_finite_spoils_its_block_only(name):
    fmt = block_format(name)
    x = data("normal")[0]
    x[3], x[100] = np.nan, np.inf
    got = fmt.quantize(x).dequantize().reshape(-1, fmt.block)
    spoilt = {3 // fmt.block, 100 // fmt.block}
    for i, block in enumerate(got):
        assert np.isnan(block).all() == (i in spoilt)
        assert np.isnan(block).any() == (i in spoilt)


@pytest.mark.parametrize("name", sorted(BLOCK_FORMATS))
def test_quantizing_again_changes_nothing(name):
    fmt = block_format(name)
    once = fmt.quantize(data("normal")).dequantize()
    assert np.array_equal(fmt.quantize(once).dequantize(), once) or fmt.tensor_scale


def test_bits_and_faults():
    assert block_format("mxfp4_e2m1").bits_per_value == 4.25
    assert block_format("nvfp4").bits_per_value == 4.5
    with pytest.raises(AccelsimError, match="did you mean 'nvfp4'"):
        block_format("nvfp")
    with pytest.raises(AccelsimError, match="whole blocks of 32 values, not 33"):
        block_format("mxint8").quantize(np.ones(33))
