"""Training steps against the second interpreter: forward, backward, weights and optimizer."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from test_scalar_programs import EACH, compiled, executed, scalar, wrong_elements

from accelsim.arch.catalog import list_archs
from accelsim.mapping.registry import MAPPERS, load_builtin_mappers
from accelsim.workload import Graph, workload
from accelsim.workload.coding import Sparsity
from accelsim.workload.networks import ImageBuilder
from accelsim.workload.training import Training, training_step
from accelsim.workload.vision_transformer import VisionSize, vision_transformer

SMALL = "layers=1,hidden=8,ffn=12,vocab=9,context=4,batch=2,heads=2"


def images(dtype):
    """Convolutions with and without strides, batch norm, pooling and a residual branch."""
    build = ImageBuilder(batch=2, dtype=dtype)
    x = build.activated("stem", build.tensor("image", (2, 5, 5, 3), "input"), 4, 3)
    x = build.pool("maxpool", x, "max", 2, 1)
    y = build.conv("second", build.relu("relu", x), 4)
    x = build.conv("strided", build.add("add", x, y), 4, 3, 2, bias=True)
    x = build.pool("mean", x, "mean", build.tensors[x].shape[1])
    build.finish(build.flat("fc", x, 4))
    return Graph("images", build.tensors, tuple(build.operators))


def step_of_images(dtype, sparsity=None, optimizer="sgd"):
    return training_step(images(dtype), Training(optimizer, sparsity))


def step_of_patches(dtype):
    size = VisionSize(hidden=8, layers=1, heads=2)
    return training_step(vision_transformer("vit", size, 2, dtype, 16, trains=True), Training())


STEPS = {
    "images-bf16": ("edge-npu", lambda: step_of_images("bf16")),
    "images-fp16-adam": ("sat", lambda: step_of_images("fp16", optimizer="adam")),
    "images-fp16-2:4": ("sat", lambda: step_of_images("fp16", Sparsity(2, 4))),
    "images-fp32": ("quad-npu", lambda: step_of_images("fp32")),
    "patches-bf16": ("hbm-npu", lambda: step_of_patches("bf16")),
    "gpt2-fp16": ("edge-npu", lambda: workload(f"gpt2:phase=train,positions=8,{SMALL}")),
    "llama-bf16": (
        "a100",
        lambda: workload(f"llama-2-7b:phase=train,kv_heads=1,{SMALL},dtype=bf16"),
    ),
}


@pytest.mark.parametrize(("arch", "step"), STEPS.values(), ids=STEPS.keys())
def test_training_steps_equal_the_scalar_machine(arch, step):
    machine, program, values = compiled(arch, "-", step())
    want = scalar(arch, program, values)
    for clock in (False, True):
        wrong = wrong_elements(program, want, executed(machine, program, values, clock))
        assert next(wrong, None) is None, clock


def test_every_mapper_and_architecture_is_covered():
    load_builtin_mappers()
    built_in = {
        name for name, m in MAPPERS.items() if m.lower.__module__.startswith("accelsim.mappers")
    }
    assert len(built_in) > 20
    programs = [compiled(arch, "-", step())[1] for arch, step in STEPS.values()]
    of_steps = {op.mapper for program in programs for op in program.operators}
    assert built_in <= {mapper for _, mapper, _, _ in EACH} | of_steps
    assert {*list_archs()} <= {arch for arch, _, _, _ in EACH}
