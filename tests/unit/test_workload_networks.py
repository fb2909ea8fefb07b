"""The shipped networks: their size as published, their shape, and that they run right."""

from __future__ import annotations

import pytest

from accelsim.api import check, simulate, workload
from accelsim.workload.operators import Conv2d, Gemm

# torchvision's parameters: batch normalisation has four vectors per channel of which two count;
# folded, one is left, the bias.
PUBLISHED = {"resnet18": (11_689_512, 9_600), "resnet50": (25_557_032, 53_120)}


@pytest.mark.parametrize(
    ("name", "macs"), [("resnet18", 1_814_073_344), ("resnet50", 4_089_184_256)]
)
def test_resnets_have_the_published_size(name: str, macs: int) -> None:
    graph = workload(name)
    parameters, normalisation = PUBLISHED[name]
    assert graph.macs == macs
    assert graph.parameters == parameters - normalisation // 2
    assert workload(name, batch=3).macs == 3 * macs


def test_a_resnet_ends_every_block_with_an_addition_and_a_relu() -> None:
    convolutions = [op for op in workload("resnet50").operators if isinstance(op, Conv2d)]
    added = [op for op in convolutions if op.has_residual]
    assert len(added) == 16
    assert all(op.activation == "relu" for op in added)
    plain = [op.name for op in convolutions if not op.activation]
    assert plain == [f"layer{i}_0_downsample" for i in (1, 2, 3, 4)] + ["fc"]
    assert [op.name for op in added if op.operand("residual") == "layer1_0_downsample.out"] == [
        "layer1_0_conv3"
    ]


def test_an_encoder_block_is_four_projections_and_two_layers() -> None:
    graph = workload("encoder-block", hidden=1024, heads=16, ffn=4096)
    products = [op for op in graph.operators if isinstance(op, Gemm)]
    assert sum(op.macs for op in products) == 12 * 1024 * 1024 * 512
    assert {op.operand("residual") for op in products if op.has_residual} == {
        "query.a",
        "norm1.out",
    }


def test_they_run_right_when_small() -> None:
    shape = "tokens=24,hidden=32,heads=4,head=8,ffn=48"
    for machine in ("tpu-v3", "quad-npu"):
        result = check(machine, f"encoder-block:{shape}")
        assert result.ok, result.first


def test_resnet18_takes_every_kind_of_layer_on_the_tpu() -> None:
    result = simulate("tpu-v3", "resnet18")
    used = set(result.mapper.split("+"))
    assert used == {"tapwise-conv", "tapwise-pool"}
    assert sum(op.cycles for op in result.operators) == pytest.approx(result.cycles, abs=1)
