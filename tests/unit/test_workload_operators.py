"""Operators: shapes, counts and the contradictions they refuse."""

import math

import numpy as np
import pytest

from accelsim.errors import AccelsimError
from accelsim.workload.constants import IndexPattern, RopeScaling, RotaryTable
from accelsim.workload.operators import (
    ACTIVATIONS,
    KINDS,
    Activation,
    Attention,
    Conv2d,
    Elementwise,
    EmbeddingGather,
    Gemm,
    KvAppend,
    LayerNorm,
    Residual,
    RmsNorm,
    Rotary,
    Softmax,
    natural_dtypes,
)


def attention(**changes):
    dims = {"batch": 2, "heads": 8, "kv_heads": 2, "q_len": 3, "kv_len": 5, "head_dim": 16}
    return Attention("att", ("q", "k", "v"), ("o",), **{**dims, **changes})


def conv(**changes):
    dims = {"batch": 1, "h": 8, "w": 9, "cin": 4, "fh": 3, "fw": 3, "cout": 6}
    return Conv2d("conv", ("x", "w"), ("y",), **{**dims, **changes})


def test_gemm_shapes_follow_batch_transpose_and_broadcast():
    plain = Gemm("g", ("a", "b"), ("c",), m=2, n=3, k=4)
    assert plain.input_shapes() == ((2, 4), (4, 3))
    assert plain.output_shapes() == ((2, 3),)
    batched = Gemm("g", ("a", "b", "d"), ("c",), m=2, n=3, k=4, batch=5, transpose_b=True)
    assert batched.input_shapes() == ((5, 2, 4), (5, 3, 4), (3,))
    assert batched.output_shapes() == ((5, 2, 3),)
    shared = Gemm("g", ("a", "b"), ("c",), m=2, n=3, k=4, batch=5, broadcast_b=True)
    assert shared.input_shapes() == ((5, 2, 4), (4, 3))


def test_gemm_counts_bias_additions_beside_macs():
    gemm = Gemm("g", ("a", "b", "bias"), ("c",), m=2, n=3, k=4, batch=5)
    assert gemm.macs == 2 * 3 * 4 * 5
    assert gemm.flops == 2 * gemm.macs + 2 * 3 * 5
    assert gemm.operand("bias") == "bias"
    assert Gemm("g", ("a", "b"), ("c",), m=1, n=3, k=4).operand("bias") is None
    assert Gemm("g", ("a", "b"), ("c",), m=1, n=3, k=4).is_gemv
    with pytest.raises(AccelsimError, match="no operand 'x'; accepted: a, b, bias"):
        gemm.operand("x")


def test_numpy_sizes_are_accepted_and_become_plain_integers():
    gemm = Gemm("g", ("a", "b"), ("c",), m=np.int64(2), n=3, k=4)
    assert type(gemm.m) is int


@pytest.mark.parametrize("value", [0, -1, 1.5, "3", True, None, 2**31])
def test_a_dimension_must_be_a_whole_number(value):
    with pytest.raises(AccelsimError, match=r"operator 'g' \(gemm\): m is .*accepted: a whole"):
        Gemm("g", ("a", "b"), ("c",), m=value, n=3, k=4)


def test_operand_count_is_checked():
    with pytest.raises(AccelsimError, match="1 inputs; accepted: a, b, bias"):
        Gemm("g", ("a",), ("c",), m=1, n=1, k=1)
    with pytest.raises(AccelsimError, match="2 outputs; accepted: 1"):
        Gemm("g", ("a", "b"), ("c", "d"), m=1, n=1, k=1)


def test_int8_products_accumulate_to_int32_and_floats_stay():
    gemm = Gemm("g", ("a", "b", "bias"), ("c",), m=1, n=1, k=1)
    assert natural_dtypes(gemm, "int8") == (("int8", "int8", "int32"), ("int32",))
    assert natural_dtypes(gemm, "bf16") == (("bf16",) * 3, ("bf16",))
    with pytest.raises(AccelsimError, match="dtype 'int8'; accepted: fp32, fp16, bf16"):
        natural_dtypes(Softmax("s", ("x",), ("y",), 2, 3), "int8")


def brute_force_conv_macs(op):
    """Count the window positions that fit into the padded input, one by one."""
    top, bottom, left, right = op.padding
    rows = sum(
        y % op.stride[0] == 0 and y + op.fh <= op.h + top + bottom
        for y in range(op.h + top + bottom)
    )
    cols = sum(
        x % op.stride[1] == 0 and x + op.fw <= op.w + left + right
        for x in range(op.w + left + right)
    )
    return op.batch * rows * cols * op.cout * op.fh * op.fw * (op.cin // op.groups)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"stride": (2, 3)},
        {"padding": (1, 1, 1, 1), "batch": 3},
        {"padding": (0, 2, 0, 1), "stride": (4, 1)},
        {"groups": 2},
        {"cin": 6, "groups": 6},
    ],
)
def test_convolution_macs_equal_its_window_positions(changes):
    op = conv(**changes)
    assert op.macs == brute_force_conv_macs(op)
    assert op.macs == op.groups * op.gemm_m * op.gemm_n * op.gemm_k
    assert op.output_shapes() == ((op.batch, op.out_h, op.out_w, op.cout),)
    assert op.input_shapes()[1] == (3, 3, op.cin // op.groups, op.cout)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": 3}, "groups 3; accepted: a divisor of cin 4 and cout 6"),
        ({"fh": 9}, "filter 9x3 is larger than the padded input 8x9"),
        ({"stride": (0, 1)}, "stride is 0"),
        ({"padding": (0, -1, 0, 0)}, "padding is -1"),
    ],
)
def test_convolution_refuses_impossible_geometry(changes, message):
    with pytest.raises(AccelsimError, match=message):
        conv(**changes)


@pytest.mark.parametrize(("q_len", "kv_len"), [(1, 1), (1, 7), (3, 5), (6, 6)])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_macs_count_every_visible_pair_twice(q_len, kv_len, causal):
    op = attention(q_len=q_len, kv_len=kv_len, causal=causal)
    visible = sum(
        not causal or key <= kv_len - q_len + query
        for query in range(q_len)
        for key in range(kv_len)
    )
    assert op.scores == 2 * 8 * visible
    assert op.macs == 2 * 16 * op.scores


def test_attention_shapes_and_default_scale():
    op = attention()
    assert op.scale == 1 / math.sqrt(16)
    assert attention(scale=0.5).scale == 0.5
    assert op.input_shapes() == ((6, 128), (2, 2, 5, 16), (2, 2, 5, 16))
    assert op.output_shapes() == ((6, 128),)


def test_attention_refuses_uneven_groups_and_queries_before_the_cache():
    with pytest.raises(AccelsimError, match="kv_heads 3; accepted: a divisor of heads 8"):
        attention(kv_heads=3)
    with pytest.raises(AccelsimError, match="q_len 6; accepted with causal: at most kv_len 5"):
        attention(q_len=6, causal=True)


def append(**changes):
    dims = {"batch": 2, "kv_heads": 3, "q_len": 1, "head_dim": 4, "kv_capacity": 9, "position": 8}
    return KvAppend("app", ("new", "cache"), ("cache",), **{**dims, **changes})


def test_kv_append_moves_only_the_new_rows():
    op = append()
    assert op.input_shapes() == ((2, 12), (2, 3, 9, 4))
    assert op.elements_read() == (24, 0)
    assert op.elements_written() == (24,)
    with pytest.raises(AccelsimError, match=r"positions 8\.\.9; accepted: below kv_capacity 9"):
        append(q_len=2)
    with pytest.raises(AccelsimError, match="accepted: its own cache input 'cache'"):
        KvAppend("app", ("new", "cache"), ("other",), 1, 1, 1, 4, 9)


def test_row_operators_shapes():
    assert Softmax("s", ("x",), ("y",), 2, 3).input_shapes() == ((2, 3),)
    norm = LayerNorm("n", ("x", "w", "b"), ("y",), 2, 3)
    assert norm.input_shapes() == ((2, 3), (3,), (3,))
    assert RmsNorm("n", ("x", "w"), ("y",), 2, 3).vector_ops == 4 * 6
    row = Elementwise("e", ("a", "b"), ("c",), 2, 3, function="max", broadcast_b=True)
    assert row.input_shapes() == ((2, 3), (3,))
    assert Residual("r", ("a", "b"), ("c",), 2, 3).input_shapes() == ((2, 3), (2, 3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Activation("a", ("x",), ("y",), 2, 3, function="gleu"), "accepted: relu, gelu"),
        (lambda: Elementwise("e", ("a", "b"), ("c",), 2, 3, function="div"), "accepted: add, sub"),
        (lambda: Residual("r", ("a", "b"), ("c",), 2, 3, function="mul"), "accepted: the sum"),
        (lambda: LayerNorm("n", ("x", "w", "b"), ("y",), 2, 3, eps=-1.0), "eps is -1.0"),
        (lambda: RmsNorm("n", ("x", "w"), ("y",), 2, 3, eps=math.nan), "eps is nan"),
        (lambda: rotary(head_dim=5), "head_dim 5; accepted: an even number"),
        (lambda: rotary(q_len=4), "q_len 4; accepted: a divisor of tokens 6"),
        (lambda: rotary(position=8), r"positions 8\.\.10; accepted: below table_rows 10"),
    ],
)
def test_vector_operators_refuse_bad_fields(make, message):
    with pytest.raises(AccelsimError, match=message):
        make()


def rotary(**changes):
    dims = {"heads": 2, "head_dim": 4, "tokens": 6, "q_len": 3, "table_rows": 10}
    return Rotary("r", ("x", "cos", "sin"), ("y",), **{**dims, **changes})


def test_rotary_reads_only_the_table_rows_of_its_positions():
    op = rotary(position=7)
    assert op.input_shapes() == ((6, 8), (10, 4), (10, 4))
    assert op.elements_read() == (48, 12, 12)


def test_embedding_reads_one_row_per_token():
    op = EmbeddingGather("e", ("t", "ids"), ("y",), vocab=100, hidden=8, tokens=5)
    assert op.input_shapes() == ((100, 8), (5,))
    assert op.elements_read() == (40, 5)
    assert op.macs == 0


def test_every_kind_has_its_own_name():
    assert {cls.kind for cls in KINDS.values()} == set(KINDS)
    assert len(KINDS) == 39
    assert len(set(ACTIVATIONS)) == len(ACTIVATIONS)


def test_index_pattern_counts_positions_and_picks_last_tokens():
    assert IndexPattern(2, period=3).array((6,)).tolist() == [2, 3, 4, 2, 3, 4]
    assert IndexPattern(2, step=3, period=2).array((2,)).tolist() == [2, 5]
    assert IndexPattern(0).array((3,)).tolist() == [0, 0, 0]


def test_rotary_table_holds_the_published_angles():
    cos = RotaryTable("cos", 10000.0).array((50, 8))
    sin = RotaryTable("sin", 10000.0).array((50, 8))
    assert cos.dtype == np.float32
    angles = np.outer(np.arange(50), 10000.0 ** (-np.arange(0, 8, 2) / 8))
    # The power, its reciprocal and the product with the position are rounded to fp32, u = 2^-24
    # each; no slope is above 1; the function is rounded once, and float64 errs in its own digits.
    bound = ((1 + 2.0**-24) ** 3 - 1) * angles * (1 + 2.0**-20) + 2.0**-25 + 2.0**-44
    assert (np.abs(cos[:, :4] - np.cos(angles)) <= bound).all()
    assert (np.abs(sin[:, 4:] - np.sin(angles)) <= bound).all()
    assert (np.abs(cos[:, :4] - np.cos(angles)) > bound / 10).any()


def test_llama3_scaling_keeps_short_wavelengths_and_stretches_long_ones():
    frequencies = np.array([1.0, 2 * np.pi / 4096, 1e-5], np.float32)
    scaled = RopeScaling("llama3", 8.0, 1.0, 4.0, 8192).apply(frequencies)
    assert scaled[0] == frequencies[0]
    assert scaled[2] == frequencies[2] / 8
    blend = (8192 * float(frequencies[1]) / (2 * np.pi) - 1) / 3
    middle = float(frequencies[1]) * ((1 - blend) / 8 + blend)
    assert abs(scaled[1] - middle) <= 2.0**-24 * (1 + 2.0**-20) * middle  # rounded once
    linear = RopeScaling("linear", 4.0).apply(frequencies)
    assert np.array_equal(linear, frequencies / 4)


def test_a_scaled_rotary_table_uses_the_scaled_frequencies():
    halved = RotaryTable("cos", 10000.0, RopeScaling("linear", 2.0)).array((9, 8))
    plain = RotaryTable("cos", 10000.0).array((5, 8))
    np.testing.assert_array_equal(halved[::2], plain)
