"""Mixtures of experts: the graph means what the papers say, and every machine computes it."""

import numpy as np
import pytest

from accelsim.api import check, simulate
from accelsim.errors import AccelsimError
from accelsim.functional.reference import reference
from accelsim.functional.values import graph_values
from accelsim.mapping import routed_rows
from accelsim.numerics.formats import number_format
from accelsim.program.opcodes import Function
from accelsim.workload import library_folder, read_config, workload
from accelsim.workload.huggingface import parse_config
from accelsim.workload.inline import build_transformer, forward_pass
from accelsim.workload.operators import GroupedGemm

MIXTRAL = "mixtral-8x7b:layers=2,hidden=64,heads=4,kv_heads=2,ffn=48,vocab=50"
DEEPSEEK = (
    "kv_lora_rank=0,layers=2,hidden=64,heads=4,kv_heads=4,head_dim=16,ffn=96,expert_ffn=24,"
    "shared_ffn=40,vocab=50,dense_layers=1"
)
MODELS = (
    f"{MIXTRAL},tokens=37",
    f"{MIXTRAL},tokens=13,batch=2,routing=zipf,skew=3,seed=5",  # most experts without tokens
    f"{MIXTRAL},phase=decode,batch=5,context=9,draw=layer",
    f"{MIXTRAL},tokens=19,zero_experts=2,copy_experts=3,experts_per_token=4,draw=layer",
    f"{MIXTRAL},phase=decode,context=5,experts=1,experts_per_token=1,zero_experts=9",
    f"deepseek-v2-lite:{DEEPSEEK},tokens=21",
    f"deepseek-v3:{DEEPSEEK},expert_groups=4,groups_per_token=2,experts=16,experts_per_token=3,"
    "tokens=21,routing=zipf,skew=1",
)
QWEN = {
    "model_type": "qwen2_moe",
    "vocab_size": 50,
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 40,
    "num_experts": 6,
    "num_experts_per_tok": 2,
}


def qwen_graph():
    config = parse_config(QWEN, name="qwen", where="qwen")
    return build_transformer(config, forward_pass(config, tokens=11))


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("machine", ["edge-npu", "quad-npu", "hbm-npu", "tpu-v3", "a100"])
@pytest.mark.parametrize("model", MODELS)
def test_models_are_computed_exactly_in_clock_order(machine, model, dtype):
    result = check(machine, f"{model},dtype={dtype}")
    assert result.ok, result.first
    assert not result.unchecked
    assert {"expert_gate", "expert_combine"} <= {op.kind for op in result.operators}


def test_a_shared_expert_behind_a_gate_is_computed():
    assert check("edge-npu", qwen_graph()).ok


# -- what the graph means ------------------------------------------------------------------------


def evaluated(graph):
    """Every tensor of a graph in float64, operator by operator."""
    found = {
        name: number_format(graph.tensors[name].dtype).decode(stored).astype(
            np.int64 if graph.tensors[name].dtype == "int32" else np.float64
        )
        for name, stored in graph_values(graph, seed=2).items()
    }  # fmt: skip
    for op in graph.operators:
        found[op.output] = reference(op, [found[name] for name in op.inputs])
    return found


def silu(x):
    return x / (1.0 + np.exp(-x))


def ffn(x, gate, up, down):
    return (silu(x @ gate) * (x @ up)) @ down


def mixture(config, graph, values, layer):
    """A layer's experts token by token, as a model's source would have them."""
    name = f"layer{layer}.ffn"
    ids = graph.tensors[f"{name}.chosen"].values.routing.assignment()
    x = values[f"{name}_norm.out"]
    w = {key.removeprefix(f"{name}."): value for key, value in values.items()}
    projections = [w[f"experts.{p}_proj.weight"] for p in ("gate", "up", "down")]
    out = np.zeros_like(x)
    for t, row in enumerate(x):
        logits = row @ w["router.weight"]
        if config.scoring == "sigmoid":
            scores = 1.0 / (1.0 + np.exp(-logits))
        else:
            scores = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        weights = scores[ids[t]]
        if config.normalise_gates:
            weights = weights / weights.sum()
        for expert, weight in zip(ids[t], weights * config.gate_scale, strict=True):
            if expert < config.experts:
                out[t] += weight * ffn(row, *(p[expert] for p in projections))
            elif expert >= config.experts + config.zero_experts:
                out[t] += weight * row
    if config.shared_ffn:
        shared = ffn(x, *(w[f"shared.{p}_proj.weight"] for p in ("gate", "up", "down")))
        if config.shared_gate:
            shared = shared / (1.0 + np.exp(-x @ w["shared.router.weight"]))
        out += shared
    return out


def layers_agree(config, graph):
    """Whether every layer with experts gives what its definition says, or raises."""
    values = evaluated(graph)
    for layer in range(config.dense_layers, config.layers):
        branch = graph.operator(f"layer{layer}.ffn_residual").inputs[0]
        want = mixture(config, graph, values, layer)
        if not np.allclose(values[branch], want, rtol=1e-12, atol=1e-14):
            return False
    return True


def config_of(model):
    name, text = model.split(":")
    own = {"tokens", "batch", "phase", "context", "routing", "skew", "seed", "draw"}
    pairs = dict(part.split("=") for part in text.split(","))
    changes = {key: value for key, value in pairs.items() if key not in own}
    return read_config(library_folder() / f"{name}.json").overridden(changes)


@pytest.mark.parametrize("model", MODELS)
def test_the_graph_means_what_the_model_says(model):
    assert layers_agree(config_of(model), workload(model))


def test_a_graph_with_a_gated_shared_expert_means_what_the_model_says():
    assert layers_agree(parse_config(QWEN, name="qwen", where="qwen"), qwen_graph())


@pytest.mark.parametrize("what", ["places", "gathered", "chosen", "computing", "copying"])
def test_a_wrong_list_of_ids_is_noticed(what, monkeypatch):
    from accelsim.workload.routing import RoutedIds

    right = RoutedIds.array

    def wrong(self, shape):
        values = right(self, shape)
        return np.roll(values, 1) if self.what == what else values

    model = MODELS[3]
    monkeypatch.setattr(RoutedIds, "array", wrong)
    assert not layers_agree(config_of(model), workload(model))


# -- what a wrong program does -------------------------------------------------------------------


def test_a_forgotten_weight_is_noticed(monkeypatch):
    right = routed_rows.Lanes.do

    def unweighted(self, function, dst, a, b=None, imm=0.0):
        if function == Function.MUL and b is not None and b.cols == 1 and a.cols > 3:
            return right(self, Function.COPY, dst, a)
        return right(self, function, dst, a, b, imm)

    monkeypatch.setattr(routed_rows.Lanes, "do", unweighted)
    assert not check("edge-npu", "expert_combine:tokens=9,hidden=40,top_k=2,rows=9").ok


def test_a_wrong_row_is_noticed(monkeypatch):
    right = routed_rows.Lanes.gather

    def shifted(self, dst, table, ids):
        return right(self, dst, table[: table.rows - 1, :], ids)

    monkeypatch.setattr(routed_rows.Lanes, "gather", shifted)
    assert not check("edge-npu", "expert_combine:tokens=40,hidden=40,top_k=2,rows=9").ok
    assert not check("a100", "expert_gate:tokens=60,experts=3,top_k=3").ok


def test_a_choice_that_is_left_out_is_noticed(monkeypatch):
    right = routed_rows.Lanes.do

    def without(self, function, dst, a, b=None, imm=0.0):
        if function == Function.ADD:
            return right(self, Function.COPY, dst, a)
        return right(self, function, dst, a, b, imm)

    monkeypatch.setattr(routed_rows.Lanes, "do", without)
    assert not check("tpu-v3", "expert_combine:tokens=9,hidden=40,top_k=2,rows=9").ok


# -- counts and times ----------------------------------------------------------------------------


def test_macs_count_what_is_visited_and_weights_what_there_is():
    graph = workload("mixtral-8x7b", tokens=100, layers=1, vocab=100)
    grouped = [op for op in graph.operators if isinstance(op, GroupedGemm)]
    assert sum(op.macs for op in grouped) == 100 * 2 * 3 * 4096 * 14336
    assert sum(graph.tensors[op.inputs[1]].elements for op in grouped) == 8 * 3 * 4096 * 14336
    assert graph.macs - sum(op.macs for op in grouped) == (
        100 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 4096 * 8) + 2 * 5050 * 4096 + 4096 * 100
    )


def test_experts_that_compute_nothing_cost_no_product():
    plain = workload(f"{MIXTRAL},tokens=64,routing=balanced")
    half = workload(f"{MIXTRAL},tokens=64,routing=balanced,zero_experts=4,copy_experts=4")
    rows = [
        sum(op.rows for op in graph.operators if isinstance(op, GroupedGemm))
        for graph in (plain, half)
    ]
    assert rows[0] == 2 * rows[1]


def test_experts_without_tokens_are_not_read():
    few = {"counts": [64, 64, 0, 0, 0, 0, 0, 0]}
    all_ = {"counts": [16] * 8}
    small = {"layers": 1, "hidden": 256, "heads": 4, "kv_heads": 2, "ffn": 512, "vocab": 50}
    read = {}
    for name, routing in (("few", few), ("all", all_)):
        work = workload("mixtral-8x7b", tokens=64, routing=routing, **small)
        run = simulate("hbm-npu", work)
        read[name] = sum(
            op.traffic_bytes["read"] for op in run.operators if op.kind == "grouped_gemm"
        )
    assert read["all"] > read["few"] + 6 * 3 * 256 * 512 * 2 * 0.9


def test_the_result_tells_the_imbalance():
    run = simulate("quad-npu", f"{MIXTRAL},tokens=37,routing=zipf,skew=2")
    grouped = [op for op in run.operators if op.kind == "grouped_gemm"]
    op = workload(f"{MIXTRAL},tokens=37,routing=zipf,skew=2").operator("layer0.ffn.experts.up_proj")
    assert all(f"{op.imbalance:.2f} times the mean" in one.mapping for one in grouped)
    assert any(f"the busiest {op.imbalance:.2f} times the mean" in a for a in run.approximations)
    assert "routing=zipf" in str(run)


def test_more_experts_cores_share_the_work():
    """Whole experts go to cores where that is even; one busy expert is cut for all of them."""
    even = simulate("quad-npu", "grouped_gemm:m=64+64+64+64,n=512,k=512")
    alone = simulate("quad-npu", "grouped_gemm:m=256+0+0+0,n=512,k=512")
    plain = simulate("quad-npu", "gemm:m=256,n=512,k=512")
    assert even.cycles < 4 * plain.cycles
    assert alone.cycles == pytest.approx(plain.cycles, rel=0.05)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grouped_gemm:m=0+0,n=3,k=3", "no group has rows; accepted: at least one row"),
        ("grouped_gemm:m=2+x,n=3,k=3", "m is 'x'; accepted: a whole number from 0"),
        ("expert_gate:tokens=2,experts=3,top_k=4", "top_k 4; accepted: up to experts 3"),
        ("expert_gate:tokens=2,experts=3,top_k=1,scale=0", "scale is 0.0; accepted: above 0"),
        ("expert_combine:tokens=2,hidden=3,top_k=1", "missing 'rows'"),
    ],
)
def test_operators_that_cannot_be_are_refused(text, message):
    with pytest.raises(AccelsimError, match=message):
        workload(text)
