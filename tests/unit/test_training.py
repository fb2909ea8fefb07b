"""Training steps: gradients against finite differences, counts, traffic, layers, error lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from accelsim import AccelsimError, arch, check, simulate
from accelsim.functional.reference import reference
from accelsim.functional.values import graph_values
from accelsim.numerics.formats import number_format
from accelsim.workload import Graph, TensorSpec, workload
from accelsim.workload.networks import NETWORKS, ImageBuilder, image_network
from accelsim.workload.operators import KINDS, Gemm, OptimizerStep
from accelsim.workload.training import Training, training_step
from accelsim.workload.vision_transformer import VisionSize, vision_transformer

Array = npt.NDArray[Any]
SMALL = "layers=2,hidden=16,ffn=24,vocab=30,batch=2,context=6"


def little_network() -> Graph:
    """Every operator of the convolutional networks, with and without strides."""
    build = ImageBuilder(batch=2, dtype="bf16")
    x = build.activated("stem", build.tensor("image", (2, 9, 9, 3), "input"), 4, 3)
    x = build.pool("maxpool", x, "max", 3, 2, 1)
    skipped = build.convolved("skip", x, 6, 1, 2)
    y = build.convolved("second", build.activated("first", x, 6, 3, 2), 6)
    x = build.relu("relu", build.add("add", y, skipped))
    x = build.conv("point", x, 8, 1, bias=True)
    x = build.pool("mean", x, "mean", build.tensors[x].shape[1])
    build.finish(build.flat("fc", x, 5))
    return Graph("little", build.tensors, tuple(build.operators))


def little_transformer() -> Graph:
    """A vision transformer of two layers and five tokens."""
    sizes = VisionSize(hidden=16, layers=2, heads=2)
    return vision_transformer("vit", sizes, 2, "bf16", 32, trains=True)


def forward_of(step: Graph) -> Graph:
    """The forward pass of a training step, whose operators come first."""
    ops = tuple(op for op in step.operators if op.pass_ == "forward")
    used = {name for op in ops for name in (*op.inputs, *op.outputs)}
    return Graph("forward", {n: s for n, s in step.tensors.items() if n in used}, ops)


def evaluate(graph: Graph, given: dict[str, Array]) -> dict[str, Array]:
    """All tensors of a graph by the float64 references."""
    values = dict(given)
    for op in graph.operators:
        shapes = op.input_shapes()
        inputs = [values[n].reshape(s) for n, s in zip(op.inputs, shapes, strict=True)]
        found = reference(op, inputs)
        for name, value in zip(op.outputs, found if isinstance(found, tuple) else (found,),
                               strict=True):  # fmt: skip
            values[name] = value.reshape(graph.tensors[name].shape)
    return values


def initial(graph: Graph) -> dict[str, Array]:
    """Seeded inputs as float64 or int64."""
    stored = graph_values(graph, seed=3)
    found = {}
    for name, value in stored.items():
        fmt = number_format(graph.tensors[name].dtype)
        found[name] = fmt.decode(value).astype(np.int64 if fmt.is_integer else np.float64)
    return found


def loss(forward: Graph, values: dict[str, Array], labels: Array) -> float:
    logits = evaluate(forward, values)["logits"].reshape(len(labels), -1)
    top = logits.max(axis=-1, keepdims=True)
    logsum = np.log(np.exp(logits - top).sum(axis=-1)) + top[:, 0]
    return float((logsum - logits[np.arange(len(labels)), labels]).mean())


@pytest.mark.parametrize(
    "make",
    [
        lambda: training_step(little_network(), Training("sgd")),
        lambda: workload(f"gpt2:phase=train,{SMALL},heads=2,positions=8"),
        lambda: workload(f"llama-2-7b:phase=train,{SMALL},heads=4,kv_heads=2"),
        lambda: training_step(little_transformer(), Training("sgd")),
    ],
    ids=["images", "gpt2", "llama", "vit"],
)
def test_gradients_equal_finite_differences(make: Callable[[], Graph]) -> None:
    step = make()
    forward, values = forward_of(step), initial(step)
    after = evaluate(step, values)
    labels = values["logits.labels"]
    rng = np.random.default_rng(1)
    grads = {op.inputs[1]: op.inputs[0] for op in step.operators if op.pass_ == "optimizer"}
    # A direction through all weights at once, and some weights alone.
    weights = [spec.name for spec in step.weights]
    assert len(grads) == len(weights)
    chosen = [weights, *([name] for name in rng.choice(weights, min(6, len(weights)), False))]
    for names in chosen:
        ways = {name: rng.standard_normal(values[name].shape) for name in names}
        told = sum(float((ways[n] * after[grads[f"{n}.master"]]).sum()) for n in names)
        size = 1e-6 * min(1.0, 1.0 / np.sqrt(sum(w.size for w in ways.values())))
        both = [
            loss(forward, {**values, **{n: values[n] + s * ways[n] for n in names}}, labels)
            for s in (size, -size)
        ]
        assert told == pytest.approx((both[0] - both[1]) / (2 * size), rel=2e-4, abs=1e-6), names


def test_a_maximum_of_equals_gives_all_to_the_first() -> None:
    pool = KINDS["pool2d_grad"](
        "p", ("g", "x", "y"), ("t",), batch=1, h=2, w=2, channels=1, fh=2, fw=2, function="max"
    )  # type: ignore[call-arg]
    x, y = np.zeros((1, 2, 2, 1)), np.zeros((1, 1, 1, 1))
    given = reference(pool, [np.full((1, 1, 1, 1), 3.0), x, y])
    assert given.ravel().tolist() == [3.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnet18", 11_689_512),  # torchvision.models, table of weights
        ("resnet50", 25_557_032),
        ("vgg19", 143_667_240),
        ("vit-base", 86_567_656),
        ("vit-large", 304_326_632),
        ("vit-small", 22_050_664),  # DeiT-S, 22 M
        ("resnet18-cifar", 11_173_962),
        ("resnet9", 6_573_120),
    ],
)
def test_networks_have_the_published_number_of_parameters(name: str, count: int) -> None:
    assert image_network(name, 1, "bf16").parameters == count


@pytest.mark.parametrize("name", [*NETWORKS, "gpt2", "llama-2-7b"])
def test_backward_and_update_take_as_many_products_as_forward(name: str) -> None:
    kinds = ("gemm", "conv2d", "conv2d_wgrad")
    step = workload(name, phase="train", batch=2)
    ops = [op for op in step.operators if op.kind in kinds]
    macs = {
        p: sum(op.macs for op in ops if op.pass_ == p) for p in ("forward", "backward", "update")
    }
    # Nobody needs the gradient of an image; that of an embedding there is.
    unneeded = sum(op.macs for op in ops if op.inputs[0] == "image" and op.pass_ == "forward")
    assert macs["update"] == macs["forward"] > 0
    assert macs["backward"] == macs["forward"] - unneeded


@pytest.mark.parametrize(
    ("optimizer", "read", "written"),
    [("adam", 4 + 4 + 4 + 4, 2 + 4 + 4 + 4), ("sgd", 4 + 4 + 4, 2 + 4 + 4)],
)
def test_an_optimizer_moves_its_bytes_per_parameter(
    optimizer: str, read: int, written: int
) -> None:
    even = "layers=1,hidden=32,ffn=64,vocab=32,heads=2,positions=8,context=8"  # whole accesses
    graph = workload(f"gpt2:phase=train,optimizer={optimizer},{even}")
    result = simulate("edge-npu", graph)
    rows = [row for row in result.operators if row.kind == "optimizer_step"]
    assert sum(row.traffic_bytes["read"] for row in rows) == read * graph.parameters
    assert sum(row.traffic_bytes["write"] for row in rows) == written * graph.parameters


def test_new_weights_take_the_place_of_the_old_ones() -> None:
    from accelsim.simulation import plan_memory

    graph = workload(f"gpt2:phase=train,{SMALL},heads=2,positions=8")
    base = plan_memory(graph, arch("edge-npu"), "bandwidth").base
    updated = {s.name: s.place_of for s in graph.tensors.values() if s.place_of}
    assert len(updated) == 4 * len(graph.weights)
    assert all(base[new] == base[old] for new, old in updated.items())


def test_what_takes_a_place_is_as_large_and_comes_last() -> None:
    step = OptimizerStep("s", ("g", "w", "m"), ("n", "k"), 8, "sgd", copy=False)
    specs = {n: TensorSpec(n, (8,), "fp32", "input") for n in "gwm"}
    specs |= {n: TensorSpec(n, (8,), "fp32", "output") for n in "nk"}
    narrow = TensorSpec("n", (8,), "fp32", "output", place_of="x")
    with pytest.raises(AccelsimError, match="'n' takes the place of 'x'; accepted: an input or"):
        Graph("t", {**specs, "n": narrow}, (step,))
    later = Gemm("late", ("a", "w"), ("o",), 2, 2, 4)
    more = {n: TensorSpec(n, s, "fp32", r) for n, s, r in (("a", (2, 4), "input"),
                                                         ("o", (2, 2), "output"))}  # fmt: skip
    place = TensorSpec("n", (8,), "fp32", "output", place_of="w")
    with pytest.raises(AccelsimError, match="which is read later; accepted: written last"):
        Graph("t", {**specs, **more, "n": place, "w": TensorSpec("w", (4, 2), "fp32", "input")},
              (step, later))  # fmt: skip


def test_layers_of_every_pass_are_simulated_once() -> None:
    graph = workload("gpt2:phase=train,layers=5,batch=1,context=64")
    counts = [(s.operators[0].pass_, s.layers) for s in graph.segments() if s.count > 1]
    assert counts == [
        ("forward", (0, 1, 2, 3, 4)),
        ("update", (4, 3, 2, 1, 0)),  # begins with the gradient of a bias
        ("optimizer", (0, 1, 2, 3, 4)),
    ]


def test_composed_passes_take_what_their_layers_take() -> None:
    graph = workload(
        f"gpt2:phase=train,{SMALL},heads=2,positions=8".replace("layers=2", "layers=3")
    )
    cut = [tuple(op for op in s.operators) for s in graph.segments()]
    assert sum(len(ops) * s.count for ops, s in zip(cut, graph.segments(), strict=True)) == len(
        graph
    )
    composed = simulate("edge-npu", graph)
    single = simulate("edge-npu", graph, compose=False)
    assert composed.macs == single.macs
    assert composed.traffic_bytes["dram"] == single.traffic_bytes["dram"]


@pytest.mark.parametrize("machine", ["edge-npu", "quad-npu", "systolic", "a100"])
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_steps_of_transformers_are_right(machine: str, dtype: str) -> None:
    overrides = {"cores": 2} if machine == "a100" else {}
    optimizer = "adam" if dtype == "bf16" else "sgd"
    what = f"phase=train,optimizer={optimizer},dtype={dtype},{SMALL}"
    result = check(machine, f"llama-2-7b:{what},heads=4,kv_heads=2", overrides=overrides)
    assert result.ok, result.first
    assert not result.unchecked
    assert result.max_error_over_bound > 0.5


@pytest.mark.parametrize("machine", ["edge-npu", "quad-npu", "systolic", "tpu-v3"])
def test_steps_of_networks_over_images_are_right(machine: str) -> None:
    result = check(machine, training_step(little_network(), Training("sgd")))
    assert result.ok, result.first
    kinds = {row.kind for row in result.operators}
    assert {"conv2d_wgrad", "col2im", "pool2d_grad", "batchnorm_grad"} <= kinds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpt2:phase=trian", r"phase is 'trian' \(did you mean 'train'\?\); accepted: prefill"),
        ("gpt2:optimizer=sgd", "optimizer; accepted: with phase=train"),
        ("gpt2:phase=train,optimizer=lamb", "optimizer is 'lamb'.*; accepted: adam, sgd"),
        ("gpt2:phase=train,page=16", "training has no cache; accepted: batch="),
        ("gpt2:phase=train,contexts=3+4", "training has no cache; accepted: batch="),
        ("gpt2:phase=train,dataset=alpaca", "training has no cache; accepted: batch="),
        ("gpt2:phase=train,tp=2", "tp or pp with phase=train; accepted for training: 1"),
        ("gpt2:phase=train,pp=2", "tp or pp with phase=train; accepted for training: 1"),
        ("gpt2:phase=train,tokens=3,context=4", "tokens and context; accepted for training: one"),
        (
            "gpt2:phase=train,weights=int4:g64",
            "is stored as int4:g64; accepted for training: weights",
        ),
        ("gpt2:phase=train,logits=last", "logits is 'last'; accepted for training: all"),
        ("mixtral-8x7b:phase=train", "experts; accepted for training: grouped attention, dense"),
        ("resnet18:phase=decode", "phase is 'decode'; accepted: forward, train, or none for inf"),
        ("resnet9:phase=train,dtype=int8", "dtype is 'int8'; accepted: fp32, fp16, bf16"),
        ("resnet9:depth=3", "unknown key 'depth'.*; accepted: phase, batch"),
        ("vit-base:size=100", "size is 100; accepted: a multiple of 16"),
        ("ffn-block:phase=prefill", "phase is 'prefill'; accepted: train, or none"),
        ("alexnet:phase=train", "unknown|phase"),
    ],
)
def test_bad_words_get_one_line(text: str, message: str) -> None:
    with pytest.raises(AccelsimError, match=message) as caught:
        workload(text)
    assert "\n" not in str(caught.value)
