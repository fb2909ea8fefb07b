"""Accumulators against a scalar oracle in plain Python floats: equal bits, visible faults."""

import struct

import numpy as np
import pytest

from accelsim.hw.systolic import Systolic
from accelsim.numerics import accumulate, kernels

DATAFLOWS = ("ws", "is", "os")


def rne(x):
    """A Python float rounded to fp32; a sum or product of two fp32 numbers is rounded once.

    Python rounds to 53 bits first, which is innocuous because 53 >= 2 * 24 + 2 (Figueroa 1995).
    """
    return struct.unpack("<f", struct.pack("<f", x))[0]


def toward_zero(x):
    nearest = np.float32(rne(x))
    if abs(float(nearest)) > abs(x):
        nearest = np.nextafter(nearest, np.float32(0))
    return float(nearest)


def oracle(a, b, acc, dataflow, fold, rounding=rne, reverse=False):
    """The sum of one output at a time, as the module docstring of accumulate says."""
    m, k = a.shape
    out = np.empty((m, b.shape[1]), dtype=np.float32)
    for i in range(m):
        for j in range(b.shape[1]):
            total = 0.0 if acc is None else float(acc[i, j])
            products = [rounding(float(a[i, x]) * float(b[x, j])) for x in range(k)]
            if dataflow == "os":
                for p in products:
                    total = rounding(total + p)
            else:
                starts = range(0, k, fold)
                for first in reversed(starts) if reverse else starts:
                    psum = 0.0
                    for p in products[first : first + fold]:
                        psum = rounding(psum + p)
                    total = rounding(total + psum)
            out[i, j] = total
    return out


def array(dataflow, rows=8):
    return Systolic(rows=rows, cols=8, dataflow=dataflow, inputs="sp", weights="sp", outputs="sp")


def operands(kind, m=5, n=6, k=29, seed=1):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((m, k)), rng.standard_normal((k, n))
    if kind == "wide":
        a, b = a * 2.0 ** rng.integers(-40, 40, a.shape), b * 2.0 ** rng.integers(-40, 40, b.shape)
    if kind == "subnormal":
        a, b = a * 2.0**-70, b * 2.0**-72
    if kind == "fp16":
        a, b = a.astype(np.float16), b.astype(np.float16)
    return a.astype(np.float32), b.astype(np.float32)


@pytest.mark.parametrize("kind", ["normal", "wide", "subnormal", "fp16"])
@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("accumulating", [False, True])
def test_array_equals_scalar_oracle_bit_for_bit(dataflow, kind, accumulating):
    a, b = operands(kind)
    acc = operands(kind, m=5, n=29, k=6, seed=2)[1][:5, :6] if accumulating else None
    got = array(dataflow).multiply(a, b, acc)
    assert got.tobytes() == oracle(a, b, acc, dataflow, fold=8).tobytes()


@pytest.mark.parametrize("k", [1, 7, 8, 9, 16, 31])
@pytest.mark.parametrize("n", [1, 255, 257])
def test_remainder_folds_and_column_blocks(k, n):
    a, b = operands("normal", m=2, n=n, k=k)
    got = array("ws").multiply(a, b, None)
    assert got.tobytes() == oracle(a, b, None, "ws", fold=8).tobytes()


def test_wrong_models_differ():
    """The comparison has power: each plausible fault of the model changes bits."""
    a, b = operands("normal", m=8, n=8, k=64)
    right = array("ws").multiply(a, b, None)
    wrong = {
        "fold order": oracle(a, b, None, "ws", 8, reverse=True),
        "toward zero": oracle(a, b, None, "ws", 8, rounding=toward_zero),
        "one chain": oracle(a, b, None, "os", 8),
        "half the fold": oracle(a, b, None, "ws", 4),
        "float64": (a.astype(float) @ b.astype(float)).astype(np.float32),
    }
    for name, result in wrong.items():
        assert (result != right).mean() > 0.1, name


def test_transposed_operands_need_no_copy_by_the_caller():
    a, b = operands("normal")
    strided_a, strided_b = a.T.copy().T, b.T.copy().T
    assert not strided_a.flags.c_contiguous
    expected = array("ws").multiply(a, b, None)
    assert np.array_equal(array("ws").multiply(strided_a, strided_b, None), expected)


def test_accumulator_is_not_changed_in_place():
    a, b = operands("normal")
    acc = np.ones((5, 6), dtype=np.float32)
    array("ws").multiply(a, b, acc)
    assert np.array_equal(acc, np.ones((5, 6)))


def test_overflow_and_nan_pass_through():
    a = np.array([[3e38, 3e38], [np.nan, 0.0]], dtype=np.float32)
    b = np.array([[1.0], [1.0]], dtype=np.float32)
    got = accumulate.folded_fp32(a, b, 2)
    assert np.isposinf(got[0, 0])
    assert np.isnan(got[1, 0])


def test_chain_of_negative_zeros_is_positive_zero():
    a = np.full((1, 3), -0.0, dtype=np.float32)
    got = accumulate.in_place_fp32(a, np.ones((3, 1), dtype=np.float32))
    assert not np.signbit(got[0, 0])


@pytest.mark.parametrize("magnitude", [127, 2**15, 2**31 - 1])
def test_integers_are_exact_modulo_2_to_the_32(magnitude):
    rng = np.random.default_rng(3)
    a = rng.integers(-magnitude, magnitude, (4, 9)).astype(np.int32)
    b = rng.integers(-magnitude, magnitude, (9, 5)).astype(np.int32)
    acc = rng.integers(-(2**31), 2**31, (4, 5)).astype(np.int32)
    got = array("ws").multiply(a, b, acc)
    for i in range(4):
        for j in range(5):
            exact = int(acc[i, j]) + sum(int(a[i, x]) * int(b[x, j]) for x in range(9))
            assert int(got[i, j]) == (exact + 2**31) % 2**32 - 2**31


@pytest.mark.parametrize("kernel", ["add_folds", "add_chain"])
def test_compiled_kernel_equals_its_source(kernel):
    a, b = operands("normal", m=2, n=3, k=11)
    compiled, plain = (np.ones((2, 3), dtype=np.float32) for _ in range(2))
    extra = (4,) if kernel == "add_folds" else ()
    getattr(kernels, kernel)(a, b, *extra, compiled)
    getattr(kernels, kernel).py_func(a, b, *extra, plain)
    assert compiled.tobytes() == plain.tobytes()


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_summation_depth_is_the_longest_path_of_additions(dataflow):
    """Depth counted on the oracle: each term carries how many roundings it went through."""

    def joined(x, y):
        # +0 joins exactly, so a chain that starts there does not count it.
        return max(x, y) + 1 if x >= 0 and y >= 0 else max(x, y)

    for k in (1, 5, 8, 9, 24, 30):
        for before in (None, 0, 7):
            total = -1 if before is None else before
            for first in range(0, k, k if dataflow == "os" else 8):
                psum = total if dataflow == "os" else -1
                for _ in range(first, k if dataflow == "os" else min(first + 8, k)):
                    psum = joined(psum, 0)
                total = psum if dataflow == "os" else joined(total, psum)
            assert array(dataflow).summation_depth(k, before) >= total
