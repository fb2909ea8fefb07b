"""The vector unit's functions, row sums, masks and integer arithmetic."""

import math
import struct

import numpy as np
import pytest

from accelsim.errors import AccelsimError
from accelsim.hw.vector import Vector
from accelsim.numerics.ball import FP32, Ball
from accelsim.program.opcodes import Function

F = Function


def unit(lanes=8):
    return Vector(lanes=lanes, memory=("sp",))


def fp32(values):
    return np.asarray(values, dtype=np.float32)


SCALAR = {
    F.EXP: math.exp,
    F.RECIPROCAL: lambda x: 1 / x,
    F.RSQRT: lambda x: 1 / math.sqrt(x),
    F.TANH: math.tanh,
    F.SIGMOID: lambda x: 1 / (1 + math.exp(-x)),
    F.GELU: lambda x: x * math.erfc(-x / math.sqrt(2)) / 2,
    F.GELU_TANH: lambda x: x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    F.SILU: lambda x: x / (1 + math.exp(-x)),
}


@pytest.mark.parametrize("function", [f for f in SCALAR if f != F.EXP], ids=lambda f: f.name)
def test_special_functions_are_within_half_an_ulp(function):
    rng = np.random.default_rng(1)
    x = fp32(rng.standard_normal((50, 40)) * np.exp(rng.uniform(-8, 1, (50, 40))))
    if function in (F.RSQRT, F.RECIPROCAL):
        x = np.abs(x) + fp32(1e-20)
    got = unit().apply(function, x, None, 0.0)
    exact = np.array([[SCALAR[function](float(v)) for v in row] for row in x])
    slack = 1e-10 if function == F.GELU_TANH else 0.0  # 1 + tanh cancels in this scalar form
    bound = Ball.exact(exact).rounded(FP32).radius + slack * np.abs(x)
    assert got.dtype == np.float32
    assert (np.abs(got - exact) <= bound).all()
    assert (np.abs(got - exact) / bound).max() > 0.9


@pytest.mark.parametrize("function", list(SCALAR), ids=lambda f: f.name)
def test_special_values_are_silent(function):
    x = fp32([[0.0, -0.0, np.inf, -np.inf, np.nan, 3e38, -3e38, 1e-45]])
    assert unit().apply(function, x, None, 0.0).shape == x.shape


def test_gelu_keeps_its_tail():
    got = unit().apply(F.GELU, fp32([[-10.0]]), None, 0.0)
    assert got[0, 0] == pytest.approx(-7.619853e-23, rel=1e-6)


@pytest.mark.parametrize(
    ("function", "expected"),
    [(F.ADD, [[5, 7]]), (F.SUB, [[-3, -3]]), (F.MUL, [[4, 10]]), (F.MAX, [[4, 5]])],
)
def test_binary_functions(function, expected):
    got = unit().apply(function, fp32([[1, 2]]), fp32([[4, 5]]), 0.0)
    assert got.tolist() == expected


def test_binary_functions_broadcast_rows_and_columns():
    a = fp32([[1, 2], [3, 4]])
    assert unit().apply(F.ADD, a, fp32([[10, 20]]), 0.0).tolist() == [[11, 22], [13, 24]]
    assert unit().apply(F.MUL, a, fp32([[10], [20]]), 0.0).tolist() == [[10, 20], [60, 80]]


def test_immediates_are_fp32_constants():
    got = unit().apply(F.MUL_IMM, fp32([[3.0]]), None, 0.1)
    assert got[0, 0] == np.float32(3.0) * np.float32(0.1)
    assert unit().apply(F.ADD_IMM, fp32([[3.0]]), None, 0.5).tolist() == [[3.5]]
    assert unit().apply(F.MAX_IMM, fp32([[-3.0, 3.0]]), None, 0.0).tolist() == [[0.0, 3.0]]


def test_max_propagates_nan_and_gives_positive_zero():
    a, b = fp32([[np.nan, 1.0, -0.0]]), fp32([[1.0, np.nan, -0.0]])
    got = unit().apply(F.MAX, a, b, 0.0)
    assert np.isnan(got[0, :2]).all()
    assert not np.signbit(got[0, 2])
    assert np.isnan(unit().apply(F.ROW_MAX, a, None, 0.0))[0, 0]
    assert np.isnan(unit().apply(F.RELU, a, None, 0.0))[0, 0]


def scalar_row_sum(row, lanes):
    """Lane by lane, then neighbours in pairs, in plain Python floats."""

    def rounded(x):
        return struct.unpack("<f", struct.pack("<f", x))[0]

    partial = []
    for lane in range(min(lanes, len(row))):
        total = 0.0
        for value in row[lane::lanes]:
            total = rounded(total + float(value))
        partial.append(total)
    while len(partial) > 1:
        pairs = [partial[i : i + 2] for i in range(0, len(partial), 2)]
        partial = [rounded(sum(pair)) for pair in pairs]
    return partial[0]


@pytest.mark.parametrize("cols", [1, 3, 8, 9, 37, 64])
@pytest.mark.parametrize("lanes", [1, 4, 6, 8, 100])
def test_row_sum_order(cols, lanes):
    x = fp32(np.random.default_rng(cols).standard_normal((4, cols)))
    got = unit(lanes).apply(F.ROW_SUM, x, None, 0.0)
    assert got[:, 0].tolist() == [scalar_row_sum(row, lanes) for row in x]


def test_row_sum_order_matters():
    x = fp32(np.random.default_rng(0).standard_normal((64, 200)))
    assert (unit(8).row_sum(x) != unit(16).row_sum(x)).any()


def test_causal_mask_hides_later_columns():
    got = unit().apply(F.CAUSAL_MASK, fp32(np.zeros((2, 4))), None, 1.0)
    assert np.isneginf(got).tolist() == [[False, False, True, True], [False, False, False, True]]


def test_rotate_half_works_head_by_head():
    got = unit().apply(F.ROTATE_HALF, fp32([[1, 2, 3, 4, 5, 6, 7, 8]]), None, 4)
    assert got.tolist() == [[-3, -4, 1, 2, -7, -8, 5, 6]]
    with pytest.raises(AccelsimError, match="not whole heads"):
        unit().apply(F.ROTATE_HALF, fp32([[1, 2, 3]]), None, 4)


def test_integers_wrap_like_32_bit_adders():
    big = np.array([[2**31 - 1]], dtype=np.int32)
    one = np.array([[1]], dtype=np.int32)
    assert unit().apply(F.ADD, big, one, 0.0).tolist() == [[-(2**31)]]
    assert unit().apply(F.ROW_SUM, np.hstack([big, one]), None, 0.0).tolist() == [[-(2**31)]]
    assert unit().apply(F.RELU, -one, None, 0.0).dtype == np.int32


def test_fractional_constants_take_integers_to_fp32():
    got = unit().apply(F.MUL_IMM, np.array([[3]], dtype=np.int32), None, 0.5)
    assert got.dtype == np.float32
    assert got.tolist() == [[1.5]]


def test_missing_operand_and_unknown_function():
    with pytest.raises(AccelsimError, match="second operand"):
        unit().apply(F.ADD, fp32([[1]]), None, 0.0)
    with pytest.raises(AccelsimError, match="no function NONE"):
        unit().apply(F.NONE, fp32([[1]]), fp32([[1]]), 0.0)
