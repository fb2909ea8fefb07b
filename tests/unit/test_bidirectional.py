"""Training steps whose weights are pruned along both reductions, and the copies made of them."""

import pytest

import accelsim.api as xs
from accelsim.errors import AccelsimError
from accelsim.workload.operators import Conv2d, Gemm, PruneWeight

NET = """name: net
dtype: fp16
operators:
  - {name: first, kind: conv2d, h: 6, w: 6, cin: 8, cout: 16, fh: 3, fw: 3, padding: 1}
  - {name: relu, kind: activation, function: relu, rows: 36, cols: 16, inputs: {x: first}}
  - {name: second, kind: conv2d, h: 6, w: 6, cin: 16, cout: 8, fh: 3, fw: 3, padding: 1,
     inputs: {x: relu}}
  - {name: flat, kind: gemm, m: 36, n: 24, k: 8, inputs: {a: second}}
  - {name: last, kind: gemm, m: 36, n: 10, k: 24, inputs: {a: flat}}
"""


@pytest.fixture
def net(tmp_path):
    file = tmp_path / "net.yaml"
    file.write_text(NET)
    return lambda **settings: xs.workload(str(file), phase="train", optimizer="sgd", **settings)


def weights_read(graph):
    """(operator, its weight) of every product that reads one."""
    return {
        op.name: graph.tensors[op.inputs[1]]
        for op in graph.operators
        if isinstance(op, Gemm | Conv2d) and graph.tensors[op.inputs[1]].role == "weight"
    }


def test_each_pass_reads_a_copy_pruned_along_its_own_reduction(net):
    read = weights_read(net(sparsity="2:8"))
    forward = read["second"]
    (backward,) = (spec for spec in read.values() if spec.name == "second.weight.backward")
    assert forward.name == "second.weight.forward"
    assert (forward.coding.encoding, forward.coding.axis) == ("nm:2:8", -2)
    assert forward.shape == (3, 3, 16, 8)  # reduced over 3 x 3 x 16 inputs
    assert backward.shape == (3, 3, 8, 16)  # and over 3 x 3 x 8 outputs
    assert forward.bytes == 3 * 3 * 16 * 8 * 2 // 8 * (16 + 3) // 8


def test_products_that_cannot_be_pruned_stay_dense(net):
    graph = net(sparsity="2:8")
    dense = {name for name, spec in weights_read(graph).items() if spec.coding is None}
    # The layer that reads the images, and the gradient through 10 outputs: no groups of 8.
    assert dense == {"first", "last.a.grad"}
    assert "first, last.a.grad stay dense" in graph.assumptions[-1]
    update = [op for op in graph.operators if op.pass_ == "update"]
    assert update
    assert all(graph.tensors[name].coding is None for op in update for name in op.inputs)


def test_copies_are_made_when_the_optimizer_has_made_a_weight(net):
    graph = net(sparsity="2:8")
    order = [op.name for op in graph.operators]
    prunings = [op for op in graph.operators if isinstance(op, PruneWeight)]
    read = [spec for spec in weights_read(graph).values() if spec.coding]
    assert sorted(op.output for op in prunings) == sorted(f"{spec.name}.next" for spec in read)
    for op in prunings:
        maker = graph.producers[op.inputs[0]].name
        assert order.index(maker) < order.index(op.name)
        copy, old = graph.tensors[op.output], graph.tensors[op.output.removesuffix(".next")]
        assert (copy.shape, copy.coding, copy.bytes) == (old.shape, old.coding, old.bytes)


@pytest.mark.parametrize("sparsity", ["2:8", "1:4"])
def test_the_numbers_of_a_step(net, sparsity):
    found = xs.check("sat", net(sparsity=sparsity))
    assert found.ok, found.first
    assert sum(row.kind == "prune_weight" for row in found.operators) >= 5


def test_a_step_gains_and_less_than_its_products(net):
    dense, sparse = (xs.simulate("sat", net(**s)) for s in ({}, {"sparsity": "2:8"}))
    assert sparse.macs < dense.macs
    assert sparse.cycles < dense.cycles
    traffic = [run.traffic_bytes["ddr"]["read"] for run in (dense, sparse)]
    assert traffic[1] != traffic[0]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sparsity": "0.5"}, "sparsity is 0.5; accepted for training: N:M"),
        ({"sparsity": "5:4"}, "5:4 keeps 5 of 4; accepted: N:M"),
        ({"sparsity": "half"}, "accepted: N:M"),
    ],
)
def test_other_patterns_are_refused(net, settings, said):
    with pytest.raises(AccelsimError, match=said):
        net(**settings)


def test_sparsity_is_for_training():
    with pytest.raises(AccelsimError, match="resnet9: sparsity; accepted: with phase=train"):
        xs.workload("resnet9", sparsity="2:8")


@pytest.mark.parametrize(
    ("workload", "said"),
    [
        ("prune_weight:rows=10,cols=4,kept=2,group=4", "10 weights along the groups"),
        ("prune_weight:rows=8,cols=4,kept=5,group=4", "5:4; accepted: N:M"),
        ("prune_weight:rows=64,cols=4,kept=2,group=32", "groups of at most 16, not nm:2:32"),
    ],
)
def test_what_a_pruning_unit_does_not_take_is_refused(workload, said):
    with pytest.raises(AccelsimError, match=said):
        xs.simulate("sat", workload)


@pytest.mark.parametrize("rate", [8, 32])
def test_a_pruning_unit_takes_its_rate(rate):
    text = "prune_weight:rows=512,cols=256,kept=2,group=8,dtype=fp16"
    run = xs.simulate("sat", text, overrides={"pruner.elements_per_cycle": rate})
    assert run.cycles == pytest.approx(512 * 256 / rate, rel=0.5 if rate == 32 else 0.1)
    assert run.cycles >= 512 * 256 / rate
