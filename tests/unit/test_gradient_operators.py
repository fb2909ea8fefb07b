"""Operators of the backward pass one by one: bit-level on small machines, and what breaks them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from accelsim import AccelsimError, arch, check
from accelsim.functional.reference import reference
from accelsim.simulation import check_graph
from accelsim.workload import Graph, TensorSpec
from accelsim.workload.operators import (
    ACTIVATIONS,
    ActivationGrad,
    BatchNorm,
    BatchNormGrad,
    Col2im,
    ColumnSum,
    Conv2d,
    ConvWeightGrad,
    CrossEntropyGrad,
    DropToken,
    EmbeddingGrad,
    Gemm,
    HeadProduct,
    NormGrad,
    NormWeightGrad,
    Operator,
    OptimizerStep,
    Pool2dGrad,
    PrependToken,
    ScoreSoftmax,
    SoftmaxGrad,
)

ROWS, COLS = 70, 200
FORM = (2, 9, 10, 16, 3, 3)  # batch, h, w, channels, window
IMAGE = {"stride": (2, 2), "padding": (1, 1, 1, 1)}
HEADS = {"batch": 2, "heads": 4, "q_len": 20, "kv_len": 20, "head_dim": 16}

ROWWISE: tuple[Operator, ...] = (
    *(ActivationGrad("o", ("x", "g"), ("y",), ROWS, COLS, function=f) for f in ACTIVATIONS),
    SoftmaxGrad("o", ("p", "g"), ("y",), ROWS, COLS, scale=0.125),
    *(NormGrad("o", ("x", "g", "w"), ("y",), ROWS, COLS, norm=n) for n in ("layernorm", "rmsnorm")),
    *(
        NormWeightGrad("o", ("x", "g"), ("y",), ROWS, COLS, norm=n)
        for n in ("layernorm", "rmsnorm")
    ),
    ColumnSum("o", ("x",), ("y",), ROWS, COLS, scale=0.1),
    ColumnSum("o", ("x", "m"), ("y",), ROWS, COLS, function="variance"),
    ColumnSum("o", ("x", "m", "v", "g"), ("y",), ROWS, COLS, function="normalised"),
    BatchNorm("o", ("x", "m", "v", "w", "b"), ("y",), ROWS, COLS),
    BatchNormGrad("o", ("x", "g", "m", "v", "w", "dw", "db"), ("y",), ROWS, COLS),
    CrossEntropyGrad("o", ("x", "l"), ("y",), ROWS, COLS),
    CrossEntropyGrad("o", ("x", "l"), ("y",), 5, 60_000),  # in sweeps
    SoftmaxGrad("o", ("p", "g"), ("y",), 5, 60_000, scale=0.5),
    OptimizerStep("o", ("g", "w", "m", "v"), ("c", "w2", "m2", "v2"), 9000, "adam", decay=0.01),
    OptimizerStep("o", ("g", "w", "m", "v"), ("c", "m2", "v2"), 9000, "adam", step=7, copy=False),
    OptimizerStep("o", ("g", "w", "m"), ("c", "w2", "m2"), 9000, "sgd", decay=0.1),
)
WINDOWS: tuple[Operator, ...] = (
    Col2im("o", ("t",), ("y",), *FORM, **IMAGE),
    Col2im("o", ("t",), ("y",), 2, 8, 8, 16, 1, 1, stride=(2, 2)),
    Pool2dGrad("o", ("g", "x", "y"), ("t",), *FORM, "max", **IMAGE),
    Pool2dGrad("o", ("g",), ("t",), 2, 7, 7, 16, 7, 7, "mean"),
)
PRODUCTS: tuple[Operator, ...] = (
    Gemm("o", ("a", "b"), ("c",), 70, 90, 300, transpose_a=True),
    Gemm("o", ("a", "b"), ("c",), 20, 33, 40, batch=3, transpose_a=True),
    *(
        HeadProduct("o", ("a", "b"), ("c",), form, kv_heads=kv, **HEADS)
        for form in ("scores", "values", "back")
        for kv in (4, 2)
    ),
    ScoreSoftmax("o", ("x",), ("y",), 160, 20, q_len=20, scale=0.25, causal=True),
    ScoreSoftmax("o", ("x",), ("y",), 160, 20, q_len=20, scale=0.25, causal=True, window=5),
    EmbeddingGrad("o", ("g", "ids"), ("y",), 130, 48, 70),
    PrependToken("o", ("x", "t"), ("y",), 3, 10, 48),
    DropToken("o", ("x",), ("y",), 3, 10, 48),
)
CONVOLUTIONS: tuple[Operator, ...] = (
    Conv2d("o", ("x", "w"), ("y",), 2, 9, 8, 12, 3, 3, 20, padding=(1, 1, 1, 1), flipped=True),
    Conv2d("o", ("x", "w"), ("y",), 2, 9, 8, 12, 1, 1, 20, flipped=True),
    Conv2d(
        "o", ("x", "w"), ("y",), 2, 9, 8, 12, 3, 2, 18, padding=(1, 1, 0, 1), groups=3,
        flipped=True,
    ),
    ConvWeightGrad("o", ("x", "g"), ("w",), 2, 9, 8, 12, 3, 3, 20, padding=(1, 1, 1, 1)),
    ConvWeightGrad("o", ("x", "g"), ("w",), 2, 9, 8, 12, 3, 3, 18, groups=3, **IMAGE),
)  # fmt: skip


def alone(op: Operator, dtype: str = "bf16") -> Graph:
    """An operator with tensors of its own."""
    read, written = op.accepted_dtypes(dtype)
    specs = {}
    for name, shape, known, operand in zip(
        op.inputs, op.input_shapes(), read, op.present(), strict=True
    ):
        specs[name] = TensorSpec(name, shape, dtype if dtype in known else known[0], operand.role)
    for name, shape, known in zip(op.outputs, op.output_shapes(), written, strict=True):
        kept = dtype if dtype in known else known[0]
        specs[name] = TensorSpec(name, shape, kept, "output")
    return Graph("alone", specs, (op,))


@pytest.mark.parametrize("machine", ["edge-npu", "quad-npu", "systolic"])
@pytest.mark.parametrize("op", [*ROWWISE, *WINDOWS, *PRODUCTS, *CONVOLUTIONS], ids=str)
def test_every_operator_is_right(machine: str, op: Operator) -> None:
    found = check_graph(alone(op), arch(machine))
    assert found.ok, found.first
    assert len(found.operators) == len(op.outputs)


@pytest.mark.parametrize("op", [*ROWWISE, *WINDOWS, *PRODUCTS], ids=str)
def test_every_operator_is_right_on_a_gpu(op: Operator) -> None:
    found = check("a100", alone(op), overrides={"cores": 3})
    assert found.ok, found.first


@pytest.mark.parametrize("op", [o for o in CONVOLUTIONS if o.kind == "conv2d"], ids=str)
def test_flipped_filters_tap_by_tap(op: Operator) -> None:
    found = check_graph(alone(op), arch("tpu-v3"), mappers=("tapwise-conv",))
    assert found.ok, found.first


def test_a_flipped_convolution_is_the_gradient_of_the_other() -> None:
    # <conv(x, w), g> = <x, flipped(g, w)> for all x and g.
    rng = np.random.default_rng(0)
    forward = Conv2d("f", ("x", "w"), ("y",), 2, 7, 6, 6, 3, 2, 4, (1, 1), (2, 1, 0, 1), groups=2)
    back = Conv2d(
        "b", ("g", "w"), ("d",), 2, forward.out_h, forward.out_w, 4, 3, 2, 6,
        padding=(0, 1, 1, 0), groups=2, flipped=True,
    )  # fmt: skip
    x, w = (rng.standard_normal(s) for s in forward.input_shapes())
    g = rng.standard_normal(forward.output_shapes()[0])
    direct, returned = (reference(forward, (x, w)) * g).sum(), (reference(back, (g, w)) * x).sum()
    assert direct == pytest.approx(returned, rel=1e-12)
    weights = ConvWeightGrad(
        "u", ("x", "g"), ("w",), 2, 7, 6, 6, 3, 2, 4, (1, 1), (2, 1, 0, 1), groups=2
    )
    assert direct == pytest.approx((reference(weights, (x, g)) * w).sum(), rel=1e-12)


def test_new_weights_are_those_of_adamw() -> None:
    op = next(o for o in ROWWISE if isinstance(o, OptimizerStep) and o.step == 7)
    op = replace(op, elements=1, decay=0.1, rate=0.5)
    new, m, v = reference(op, [np.array([x]) for x in (2.0, 3.0, 1.0, 4.0)])
    assert m[0] == pytest.approx(0.9 + 0.2)
    assert v[0] == pytest.approx(0.999 * 4 + 0.001 * 4)
    size = (m[0] / (1 - 0.9**7)) / (np.sqrt(v[0] / (1 - 0.999**7)) + 1e-8)
    assert new[0] == pytest.approx(3.0 * (1 - 0.05) - 0.5 * size)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ColumnSum("o", ("x",), ("y",), 2, 3, function="mean"), "accepted: sum, variance"),
        (lambda: ColumnSum("o", ("x",), ("y",), 2, 3, function="variance"), "1 inputs; accepted"),
        (lambda: NormGrad("o", ("x", "g", "w"), ("y",), 2, 3, norm="batch"), "accepted: layernorm"),
        (lambda: OptimizerStep("o", ("g", "w", "m"), ("c", "k"), 3, "adam"), "3 inputs|outputs"),
        (lambda: HeadProduct("o", ("a", "b"), ("c",), "both", kv_heads=4, **HEADS), "form 'both'"),
        (lambda: Gemm("o", ("a", "b"), ("c",), 2, 2, 2, groups=2, transpose_a=True), "without"),
        (lambda: Gemm("o", ("a", "b"), ("c",), 2, 2, 2, pass_="sideways"), "accepted: forward"),
    ],
)
def test_contradictions_are_named(make: object, message: str) -> None:
    with pytest.raises(AccelsimError, match=message):
        make()  # type: ignore[operator]
