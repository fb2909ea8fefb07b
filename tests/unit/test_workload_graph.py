"""Graphs: what validation refuses, totals, dependencies and repeated segments."""

import pickle
from dataclasses import replace

import pytest

from accelsim.errors import AccelsimError
from accelsim.workload.graph import Graph
from accelsim.workload.operators import Activation, Attention, Gemm, KvAppend, Residual
from accelsim.workload.tensors import DTYPES, TensorSpec, byte_count


def spec(name, *shape, role="activation", dtype="bf16"):
    return TensorSpec(name, shape, dtype, role)


def table(*specs):
    return {item.name: item for item in specs}


def gemm(name, a, b, c, layer=None, n=4):
    return Gemm(name, (a, b), (c,), m=2, n=n, k=4, layer=layer)


def relu(name, x, y, layer=None):
    return Activation(name, (x,), (y,), 2, 4, function="relu", layer=layer)


TENSORS = table(
    spec("x", 2, 4, role="input"),
    spec("w", 4, 4, role="weight"),
    spec("h", 2, 4),
    spec("y", 2, 4, role="output"),
)
OPERATORS = (gemm("first", "x", "w", "h"), relu("second", "h", "y"))


def test_a_consistent_graph_knows_its_totals():
    graph = Graph("g", TENSORS, OPERATORS)
    assert graph.macs == 2 * 4 * 4
    assert graph.flops == 2 * 32 + 8
    assert graph.parameters == 16
    assert graph.weight_bytes == 32
    assert [item.name for item in graph.inputs] == ["x", "w"]
    assert [item.name for item in graph.outputs] == ["y"]
    assert graph.bytes_read(graph.operator("first")) == (8 + 16) * 2
    assert graph.bytes_written(graph.operator("first")) == 16
    assert graph.dependencies == ((), (0,))


def test_a_graph_survives_pickling_with_the_same_digest():
    graph = Graph("g", TENSORS, OPERATORS, {"batch": 1})
    copy = pickle.loads(pickle.dumps(graph))
    assert copy == graph
    assert hash(copy) == hash(graph)
    assert copy.digest() == graph.digest()
    assert graph.renamed("other").digest() != graph.digest()
    wide = Graph("g", {**TENSORS, "w": replace(TENSORS["w"], values=None)}, OPERATORS, {"batch": 1})
    assert wide.digest() == graph.digest()


def broken(tensors=None, operators=OPERATORS):
    Graph("g", {**TENSORS, **(tensors or {})}, operators)


@pytest.mark.parametrize(
    ("tensors", "operators", "message"),
    [
        ({}, (), "it has no operators"),
        ({}, (OPERATORS[0], relu("first", "h", "y")), "two operators are called 'first'"),
        (
            {},
            (gemm("first", "x", "W", "h"),),
            r"'first' \(gemm\): no tensor 'W' \(did you mean 'w'",
        ),
        ({"z": spec("z", 1)}, OPERATORS, "tensor 'z' is used by no operator"),
        ({"h": spec("q", 1)}, OPERATORS, "tensor 'q' is listed under the name 'h'"),
        (
            {"h": spec("h", 2, 5)},
            OPERATORS,
            r"operator 'first' \(gemm\): tensor 'h' has shape \[2, 5\], expected \[2, 4\]",
        ),
        (
            {"w": spec("w", 4, 4, role="weight", dtype="fp16")},
            OPERATORS,
            r"'first' \(gemm\): tensor 'w' has dtype fp16, expected bf16",
        ),
        (
            {"h": spec("h", 2, 4, dtype="int8")},
            OPERATORS,
            "tensor 'h' has dtype int8, expected bf16 or fp32",
        ),
        ({"h": spec("h", 2, 4, role="input")}, OPERATORS, "writes input 'h'; accepted: an activ"),
        (
            {},
            (*OPERATORS, relu("third", "x", "y")),
            "'third' .*writes 'y', which operator 'second' writes too",
        ),
        (
            {},
            (OPERATORS[1], OPERATORS[0]),
            "reads 'h' before operator 'first' writes it; accepted: 'first' listed before 'second'",
        ),
        ({"x": spec("x", 2, 4)}, OPERATORS, "reads activation 'x', which no operator writes"),
    ],
)
def test_an_inconsistent_graph_is_refused_by_name(tensors, operators, message):
    with pytest.raises(AccelsimError, match=f"workload 'g': .*{message}"):
        broken(tensors, operators)


def test_a_cycle_is_named_by_its_operators():
    operators = (
        Residual("p", ("x", "r"), ("h",), 2, 4),
        relu("q", "h", "y"),
        relu("s", "y", "r"),
    )
    tensors = table(spec("x", 2, 4, role="input"), *(spec(n, 2, 4) for n in "hyr"))
    with pytest.raises(
        AccelsimError, match=r"form a cycle: (p -> q -> s -> p|q -> s -> p -> q|s -> p -> q -> s)"
    ):
        Graph("g", tensors, operators)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("t", (), "bf16", "input"), "the shape is empty"),
        (("t", (0,), "bf16", "input"), "dimension 0 is 0"),
        (("t", (1,), "bf61", "input"), r"unknown dtype 'bf61' \(did you mean 'bf16'\?\)"),
        (("t", (1,), "bf16", "wieght"), "unknown role 'wieght'; accepted: input"),
    ],
)
def test_tensor_specs_are_checked(fields, message):
    with pytest.raises(AccelsimError, match=message):
        TensorSpec(*fields)


def test_byte_counts_round_up_to_whole_bytes(monkeypatch):
    assert byte_count(3, "bf16") == 6
    monkeypatch.setitem(DTYPES, "int4", replace(DTYPES["int8"], name="int4", bits=4))
    assert byte_count(3, "int4") == 2


def cache_graph():
    """A cache that is read before and after it is updated."""
    attend = {"batch": 1, "heads": 1, "kv_heads": 1, "q_len": 1, "kv_len": 3, "head_dim": 4}
    append = {"batch": 1, "kv_heads": 1, "q_len": 1, "head_dim": 4, "kv_capacity": 3}
    tensors = table(
        spec("q", 1, 4, role="input"),
        spec("new", 1, 4, role="input"),
        spec("k", 1, 1, 3, 4, role="cache"),
        spec("v", 1, 1, 3, 4, role="cache"),
        spec("before", 1, 4, role="output"),
        spec("after", 1, 4, role="output"),
    )
    operators = (
        Attention("before", ("q", "k", "v"), ("before",), **attend),
        KvAppend("append", ("new", "k"), ("k",), **append, position=2),
        Attention("after", ("q", "k", "v"), ("after",), **attend),
    )
    return Graph("cache", tensors, operators)


def test_cache_updates_are_ordered_after_readers_and_before_later_ones():
    graph = cache_graph()
    assert graph.dependencies == ((), (0,), (1,))
    flow = graph.networkx()
    assert list(flow.edges(data="tensors")) == [
        ("before", "append", ()),
        ("append", "after", ("k",)),
    ]
    assert flow.nodes["append"]["operator"].kind == "kv_append"


def test_only_in_place_operators_may_write_a_cache():
    tensors = {**TENSORS, "y": spec("y", 2, 4, role="cache")}
    with pytest.raises(AccelsimError, match="overwrites cache 'y'; accepted: an in-place update"):
        Graph("g", tensors, OPERATORS)


def chain(layers, *, twist=None):
    """x -> layers of (gemm, relu) -> tail, with one layer changed by `twist`."""
    tensors = [spec("x0", 2, 4, role="input")]
    operators = []
    for i in range(layers):
        tensors += [
            spec(f"w{i}", 4, 4, role="weight"),
            spec(f"h{i}", 2, 4),
            spec(f"x{i + 1}", 2, 4),
        ]
        operators += [
            gemm(f"g{i}", f"x{i}", f"w{i}", f"h{i}", layer=i),
            relu(f"r{i}", f"h{i}", f"x{i + 1}", layer=i),
        ]
    tensors.append(spec("y", 2, 4, role="output"))
    operators.append(relu("tail", f"x{layers}", "y"))
    tensors, operators = table(*tensors), list(operators)
    if twist:
        twist(tensors, operators)
    return Graph("chain", tensors, tuple(operators))


def shape_of(graph):
    return [(segment.start, len(segment.operators), segment.count) for segment in graph.segments()]


def test_equal_layers_are_one_segment():
    graph = chain(5)
    assert shape_of(graph) == [(0, 2, 5), (10, 1, 1)]
    body, tail = graph.segments()
    assert body.layers == (0, 1, 2, 3, 4)
    assert body.name == "layer0 x5"
    assert tail.name == "tail"
    assert tail.layers == ()


def change_function(tensors, operators):
    operators[5] = replace(operators[5], function="tanh")


def share_weight(tensors, operators):
    operators[4] = replace(operators[4], inputs=("x2", "w1"))
    del tensors["w2"]


def skip_a_layer(tensors, operators):
    operators[4] = replace(operators[4], inputs=("x1", "w2"))


def publish_an_inner_result(tensors, operators):
    operators[-1] = replace(operators[-1], inputs=("h2",))
    tensors["x5"] = replace(tensors["x5"], role="output")


def change_dtype(tensors, operators):
    for name in ("h2", "x3", "w3", "h3", "x4", "w4", "h4", "x5", "y"):
        tensors[name] = replace(tensors[name], dtype="fp32")


@pytest.mark.parametrize(
    ("twist", "expected"),
    [
        (change_function, [(0, 2, 2), (4, 2, 1), (6, 2, 2), (10, 1, 1)]),
        (share_weight, [(0, 2, 1), (2, 2, 2), (6, 2, 2), (10, 1, 1)]),
        (skip_a_layer, [(0, 2, 1), (2, 2, 1), (4, 2, 3), (10, 1, 1)]),
        (publish_an_inner_result, [(0, 2, 2), (4, 2, 1), (6, 2, 2), (10, 1, 1)]),
        (change_dtype, [(0, 2, 2), (4, 2, 1), (6, 2, 2), (10, 1, 1)]),
    ],
)
def test_a_layer_that_differs_in_any_respect_breaks_the_segment(twist, expected):
    assert shape_of(chain(5, twist=twist)) == expected


def two_paths(layers, *, crossed):
    """Layers of residual(p, q) -> p, q; the crossed one takes the two paths in swapped order."""
    tensors = [spec("p0", 2, 4, role="input"), spec("q0", 2, 4, role="input")]
    operators = []
    for i in range(layers):
        entering = (f"q{i}", f"p{i}") if i == crossed else (f"p{i}", f"q{i}")
        tensors += [
            spec(f"{name}{i + suffix}", 2, 4) for name, suffix in (("s", 0), ("p", 1), ("q", 1))
        ]
        operators += [
            Residual(f"sum{i}", entering, (f"s{i}",), 2, 4, layer=i),
            relu(f"left{i}", f"s{i}", f"p{i + 1}", layer=i),
            relu(f"right{i}", f"s{i}", f"q{i + 1}", layer=i),
        ]
    tensors.append(spec("y", 2, 4, role="output"))
    operators.append(Residual("tail", (f"p{layers}", f"q{layers}"), ("y",), 2, 4))
    return Graph("paths", table(*tensors), tuple(operators))


def test_a_layer_fed_from_other_places_breaks_the_segment():
    assert shape_of(two_paths(5, crossed=None)) == [(0, 3, 5), (15, 1, 1)]
    assert shape_of(two_paths(5, crossed=3)) == [(0, 3, 3), (9, 3, 2), (15, 1, 1)]
    assert shape_of(two_paths(5, crossed=1)) == [(0, 3, 2), (6, 3, 3), (15, 1, 1)]


def test_layers_fed_from_different_fixed_tensors_are_not_repetitions():
    tensors = table(
        spec("x", 2, 4, role="input"),
        *(spec(name, 2, 4) for name in ("e0", "e1")),
        *(spec(name, 2, 4, role="output") for name in ("y0", "y1")),
    )
    before = (relu("a", "x", "e0"), relu("b", "x", "e1"))
    separate = (relu("l0", "e0", "y0", layer=0), relu("l1", "e1", "y1", layer=1))
    assert shape_of(Graph("g", tensors, before + separate)) == [(0, 2, 1), (2, 1, 1), (3, 1, 1)]
    tensors["e1"] = replace(tensors["e1"], role="output")
    same = (separate[0], relu("l1", "e0", "y1", layer=1))
    assert shape_of(Graph("g", tensors, before + same)) == [(0, 2, 1), (2, 1, 2)]


def test_an_input_shared_with_the_outside_is_not_a_layers_own():
    inputs = [spec(name, 2, 4, role="input") for name in ("x", "z")]
    results = [spec(name, 2, 4, role="output") for name in ("y0", "y1", "y2")]
    layers = (relu("l0", "x", "y0", layer=0), relu("l1", "z", "y1", layer=1))
    own = Graph("g", table(*inputs, *results[:2]), layers)
    assert shape_of(own) == [(0, 1, 2)]
    shared = Graph("g", table(*inputs, *results), (*layers, relu("tail", "z", "y2")))
    assert shape_of(shared) == [(0, 1, 1), (1, 1, 1), (2, 1, 1)]


def test_operators_outside_of_layers_are_never_merged():
    tensors = table(spec("x", 2, 4, role="input"), spec("h", 2, 4), spec("y", 2, 4, role="output"))
    graph = Graph("g", tensors, (relu("a", "x", "h"), relu("b", "h", "y")))
    assert shape_of(graph) == [(0, 2, 1)]
    assert graph.segments()[0].name == "a..b"


def test_unknown_operator_name_is_refused_with_a_suggestion():
    with pytest.raises(AccelsimError, match=r"no operator 'frist' \(did you mean 'first'\?\)"):
        Graph("g", TENSORS, OPERATORS).operator("frist")
