"""Bias, residual and activation fused into products: what they mean, save, and refuse."""

from __future__ import annotations

import numpy as np
import pytest

from accelsim.api import check, simulate, workload
from accelsim.errors import AccelsimError
from accelsim.functional.reference import reference
from accelsim.workload.operators import Gemm

FUSED = "bias=true,residual=true,activation=relu"


def test_the_meaning_is_activation_of_product_plus_bias_plus_residual() -> None:
    op = Gemm("g", ("a", "b", "bias", "residual"), ("c",), m=2, n=2, k=1, activation="relu")
    a, b = np.array([[1.0], [-1.0]]), np.array([[2.0, 3.0]])
    bias, residual = np.array([1.0, -10.0]), np.array([[0.5, 0.0], [0.0, 20.0]])
    found = reference(op, (a, b, bias, residual))
    assert found.tolist() == [[3.5, 0.0], [0.0, 7.0]]
    assert (op.vector_ops, op.macs, op.has_bias, op.has_residual) == (12, 4, True, True)


@pytest.mark.parametrize("machine", ["tpu-v3", "edge-npu", "quad-npu", "onnxim-server"])
@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid"])
def test_every_activation_is_right_on_every_mapper(machine: str, activation: str) -> None:
    extras = f"bias=true,residual=true,activation={activation}"
    result = check(machine, f"gemm:m=70,n=50,k=40,{extras},dtype=fp32")
    assert result.ok, result.first


@pytest.mark.parametrize("machine", ["tpu-v3", "edge-npu", "quad-npu"])
def test_a_residual_passes_through_a_small_memory(machine: str) -> None:
    """The residual comes a few rows at a time where it does not fit beside the sums."""
    result = check(machine, f"gemm:m=500,n=300,k=200,{FUSED}")
    assert result.ok, result.first


def test_integers_keep_their_exact_sums() -> None:
    assert check("quad-npu", f"gemm:m=33,n=65,k=97,{FUSED},dtype=int8,out=int8").ok
    with pytest.raises(AccelsimError, match="dtype 'int8'"):
        simulate("quad-npu", "gemm:m=8,n=8,k=8,activation=gelu,dtype=int8")


def test_fusion_saves_the_way_to_memory_and_back(tmp_path) -> None:
    apart = tmp_path / "apart.yaml"
    apart.write_text(
        "operators:\n"
        "  - {name: product, kind: gemm, m: 256, n: 256, k: 256, bias: true}\n"
        "  - {name: sum, kind: residual, rows: 256, cols: 256, inputs: {a: product}}\n"
        "  - {name: relu, kind: activation, function: relu, rows: 256, cols: 256,"
        " inputs: {x: sum}}\n"
    )
    whole = simulate("tpu-v3", f"gemm:m=256,n=256,k=256,{FUSED}").traffic_bytes["hbm"]
    parts = simulate("tpu-v3", workload(apart)).traffic_bytes["hbm"]
    matrix = 256 * 256 * 2
    assert parts["read"] - whole["read"] == 2 * matrix
    assert parts["write"] - whole["write"] == 2 * matrix


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("gemm:m=8,n=8,k=8,residual=true", "residual without bias; accepted: both"),
        ("gemm:m=8,n=8,k=8,activation=exp", "activation 'exp'; accepted: relu, gelu, "),
        ("conv2d:h=8,w=8,cin=2,cout=2,fh=3,fw=3,activation=max", "activation 'max'"),
    ],
)
def test_what_cannot_be_fused_is_one_line(text: str, problem: str) -> None:
    with pytest.raises(AccelsimError, match=problem):
        workload(text)


def test_reports_of_scalesim_refuse_what_it_does_not_know() -> None:
    from accelsim.results.scalesim_reports import write_reports

    fused = simulate("systolic", "gemm:m=8,n=8,k=8,activation=relu,dtype=int8", memory="ideal")
    with pytest.raises(AccelsimError, match="no SCALE-Sim report"):
        write_reports(fused, "/nonexistent")
