"""Transformer graphs: parameter counts, shapes, multiply-accumulates and refused passes."""

import csv
from pathlib import Path

import pytest

from accelsim.errors import AccelsimError
from accelsim.workload import library_folder, read_config, workload

with open(Path(__file__).parent / "data" / "model_parameters.csv", encoding="utf-8") as file:
    MODELS = list(csv.DictReader(file))

BUILDABLE = [row for row in MODELS if not row["model"].startswith("deepseek")]
FAMILIES = ["gpt2", "opt-125m", "bert-base", "llama-2-7b", "llama-3-8b", "mistral-7b"]
FAMILIES += ["qwen2.5-0.5b"]
SMALL = {"layers": 3, "hidden": 64, "heads": 4, "kv_heads": 2, "ffn": 96, "vocab": 50}


@pytest.mark.parametrize("row", MODELS, ids=[row["model"] for row in MODELS])
def test_parameter_count_equals_the_published_one(row):
    config = read_config(library_folder() / f"{row['model']}.json")
    assert config.parameters == int(row["parameters"])


@pytest.mark.parametrize("row", BUILDABLE, ids=[row["model"] for row in BUILDABLE])
def test_the_graph_holds_exactly_the_published_weights(row):
    graph = workload(row["model"], tokens=2)
    assert graph.parameters == int(row["parameters"])
    assert graph.weight_bytes == 2 * int(row["parameters"])
    counts = [(segment.count, len(segment.layers)) for segment in graph.segments()]
    assert counts == [(1, 0), (int(row["layers"]), int(row["layers"])), (1, 0)]


def test_llama_2_7b_decode_macs_equal_the_closed_form():
    graph = workload("llama-2-7b", phase="decode", batch=16, context=2048)
    projections = 4 * 4096 * 4096 + 3 * 4096 * 11008
    attention = 2 * 2048 * 4096
    assert graph.macs == 16 * (32 * (projections + attention) + 32000 * 4096)


def test_llama_3_8b_prefill_macs_count_the_causal_triangle_and_grouped_keys():
    graph = workload("llama-3-8b", batch=2, tokens=100)
    projections = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336
    triangle = 2 * (100 * 101 // 2) * 4096
    assert graph.macs == 2 * (32 * (100 * projections + triangle) + 128256 * 4096)
    everything = workload("llama-3-8b", batch=2, tokens=100, logits="all")
    assert everything.macs - graph.macs == 2 * 99 * 128256 * 4096


def test_bert_macs_count_the_full_square_and_the_pooler():
    graph = workload("bert-base", batch=3, tokens=128)
    layer = 128 * (4 * 768**2 + 2 * 768 * 3072) + 2 * 128 * 128 * 768
    assert graph.macs == 3 * (12 * layer + 768**2)
    assert {spec.name: spec.shape for spec in graph.outputs} == {
        "sequence": (384, 768),
        "pooled": (3, 768),
    }


def test_decode_equals_prefill_for_the_last_token():
    """The MACs of token t in decode sum over t to those of the prefill of all tokens."""
    prefill = workload("llama-2-7b", tokens=5, logits="all", **SMALL)
    steps = [workload("llama-2-7b", phase="decode", context=t, **SMALL) for t in range(1, 6)]
    assert sum(step.macs for step in steps) == prefill.macs


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_every_family_builds_scaled_down(name, dtype):
    passes = [{"tokens": 7, "batch": 2}]
    if name != "bert-base":
        passes += [{"phase": "decode", "context": 9, "batch": 2}, {"tokens": 1}]
    for settings in passes:
        graph = workload(name, dtype=dtype, **settings, **SMALL)
        assert [segment.count for segment in graph.segments()] == [1, 3, 1]
        if name != "bert-base":
            (logits,) = graph.outputs
            assert logits.shape == (settings.get("batch", 1), 50)
            assert logits.dtype == dtype


def test_prefill_fills_the_cache_and_decode_appends_its_last_row():
    prefill = workload("llama-2-7b", tokens=7, batch=2, **SMALL)
    append = prefill.operator("layer1.attention.k_append")
    assert (append.position, append.q_len, append.kv_capacity) == (0, 7, 7)
    decode = workload("llama-2-7b", phase="decode", context=7, batch=2, **SMALL)
    append = decode.operator("layer1.attention.v_append")
    assert (append.position, append.q_len, append.kv_capacity) == (6, 1, 7)
    attend = decode.operator("layer1.attention.attend")
    assert (attend.kv_len, attend.q_len, attend.causal) == (7, 1, True)
    assert decode.tensors["layer1.attention.k_cache"].shape == (2, 2, 7, 16)
    index = decode.operators.index(attend)
    kinds = {decode.operators[i].kind for i in decode.dependencies[index]}
    assert kinds == {"rotary", "kv_append"}


def test_constant_tensors_hold_positions_and_last_rows():
    graph = workload("opt-125m", tokens=3, batch=2, **SMALL)
    positions = graph.tensors["position_ids"]
    assert positions.values.array(positions.shape).tolist() == [2, 3, 4, 2, 3, 4]
    last = graph.tensors["last_token_rows"]
    assert last.values.array(last.shape).tolist() == [2, 5]
    decode = workload("gpt2", phase="decode", context=9, batch=2, **SMALL)
    positions = decode.tensors["position_ids"]
    assert positions.values.array(positions.shape).tolist() == [8, 8]
    rotary = workload("llama-3-8b", phase="decode", context=9, **SMALL).tensors["rotary.cos"]
    assert rotary.shape == (9, 16)
    assert rotary.values.theta == 500000.0


def test_tied_head_reads_the_embedding_table_transposed():
    head = workload("gpt2", tokens=2, **SMALL).operator("lm_head")
    assert head.inputs[1] == "embedding.weight"
    assert head.transpose_b
    untied = workload("llama-2-7b", tokens=2, **SMALL).operator("lm_head")
    assert untied.inputs[1] == "lm_head.weight"
    assert not untied.transpose_b


def kinds_of_first_layer(name):
    graph = workload(name, tokens=2, **SMALL)
    return [op.kind for op in graph.operators if op.layer == 0]


def test_layers_follow_the_published_order():
    llama = ["rmsnorm", "gemm", "gemm", "gemm", "rotary", "rotary", "kv_append", "kv_append"]
    llama += ["attention", "gemm", "residual", "rmsnorm", "gemm", "gemm", "activation"]
    llama += ["elementwise", "gemm", "residual"]
    assert kinds_of_first_layer("llama-2-7b") == llama
    bert = ["gemm", "gemm", "gemm", "kv_append", "kv_append", "attention", "gemm", "residual"]
    bert += ["layernorm", "gemm", "activation", "gemm", "residual", "layernorm"]
    assert kinds_of_first_layer("bert-base") == bert
    assert kinds_of_first_layer("opt-125m") == ["layernorm", *bert[:8], *bert[8:-1]]


def test_biases_are_where_the_family_has_them():
    def biased(name):
        graph = workload(name, tokens=2, **SMALL)
        gemms = [op for op in graph.operators if op.layer == 0 and op.kind == "gemm"]
        return {op.name.rsplit(".", 1)[1] for op in gemms if op.has_bias}

    assert biased("llama-2-7b") == set()
    assert biased("qwen2.5-0.5b") == {"q_proj", "k_proj", "v_proj"}
    everything = {"q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"}
    assert biased("gpt2") == biased("opt-125m") == biased("bert-base") == everything


def test_norms_use_the_epsilon_of_the_model():
    assert workload("bert-base", tokens=2, **SMALL).operator("embedding_norm").eps == 1e-12
    assert workload("qwen2.5-7b", tokens=2, **SMALL).operator("final_norm").eps == 1e-6
    assert workload("llama-2-7b", tokens=2, **SMALL).operator("layer0.ffn_norm").eps == 1e-5


def test_overrides_scale_head_width_and_are_recorded_in_the_name():
    graph = workload("llama-2-7b", tokens=2, layers=1, hidden=64, heads=4)
    assert graph.name == "llama-2-7b:layers=1,hidden=64,heads=4"
    attend = graph.operator("layer0.attention.attend")
    assert (attend.heads, attend.kv_heads, attend.head_dim) == (4, 4, 16)
    grouped = workload("llama-2-70b", tokens=2, layers=1, hidden=128)
    attend = grouped.operator("layer0.attention.attend")
    assert (attend.heads, attend.kv_heads, attend.head_dim) == (64, 8, 2)
    wide = workload("gpt2", tokens=2, layers=1, hidden=60, heads=4, head_dim=32)
    assert wide.operator("layer0.attention.q_proj").n == 128


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("llama-2-7b:phase=deocde", r"phase is 'deocde' \(did you mean 'decode'\?\); accepted:"),
        ("llama-2-7b:phase=encode", "phase is 'encode'; accepted for it: prefill, decode"),
        ("bert-base:phase=prefill", "phase is 'prefill'; accepted for it: encode"),
        ("llama-2-7b:phase=decode,tokens=4", "decode takes one token per sequence"),
        ("llama-2-7b:context=4", "prefill starts from an empty cache; accepted: tokens="),
        ("llama-2-7b:batch=0", "batch is 0; accepted: a whole number from 1"),
        ("llama-2-7b:tokens=1.5", r"tokens is '1\.5'"),
        ("llama-2-7b:dtype=int8", "dtype is 'int8'; accepted: fp32, fp16, bf16"),
        ("llama-2-7b:logits=first", "logits is 'first'; accepted: last, all"),
        ("gpt2:tokens=1025", "1025 tokens; accepted: up to its 1024 learned positions"),
        ("bert-base:tokens=513", "accepted: up to its 512 learned positions"),
        ("deepseek-v3:v_head_dim=64", "v_head_dim is 64; accepted: qk_nope_head_dim 128"),
        ("llama-2-7b:hidden=100", "hidden 100 is not a multiple of heads 32"),
        ("llama-2-7b:kv_heads=3", "kv_heads is 3; accepted: a divisor of heads 32"),
        ("llama-2-7b:layers=10001", "layers is 10001; accepted: up to 10000"),
        ("llama-2-7b:layers=0", "layers is 0"),
        ("llama-2-7b:head_dim=3", "head_dim is 3; accepted with rotary positions: even"),
        ("llama-2-7b:activation=swish", "activation is 'swish'; accepted: relu"),
        ("llama-2-7b:gated=yes", "gated is 'yes'; accepted: true or false"),
        ("llama-2-7b:norm_eps=tiny", "norm_eps is 'tiny'; accepted: a finite number"),
        ("llama-2-7b:norm_eps=2", r"norm_eps is 2\.0"),
        ("llama-2-7b:rope_theta=-1", "rope_theta is -1.0; accepted: above 0"),
        ("llama-2-7b:experts=4", "experts_per_token is 0; accepted: 1 to experts 4"),
        ("llama-2-7b:shared_ffn=4", "shared_ffn is 4; accepted without experts: 0"),
        ("mixtral-8x7b:experts_per_token=9", "experts_per_token is 9; accepted: up to experts 8"),
        ("mixtral-8x7b:dense_layers=33", "dense_layers is 33; accepted: up to layers 32"),
        ("mixtral-8x7b:gate_scale=0", "gate_scale is 0.0; accepted: above 0"),
        ("gpt2:experts=4,experts_per_token=2", "bias_ffn is True; accepted with experts: false"),
        ("llama-2-7b:kv_lora_rank=8", "with kv_lora_rank, qk_nope_head_dim is 0; accepted: a who"),
        ("mixtral-8x7b:scoring=tanh", "scoring is 'tanh'; accepted: softmax, sigmoid"),
        (
            "mixtral-8x7b:expert_groups=3,groups_per_token=1",
            "1 of 3 groups of 8 experts, 2 per to",
        ),
        ("mixtral-8x7b:expert_groups=8,groups_per_token=1", "accepted: groups of equal size"),
        ("llama-2-7b:experts_per_token=4", "experts_per_token is 4; accepted: up to experts 0"),
        ("llama-2-7b:hiden=64", r"unknown key 'hiden' \(did you mean 'hidden'\?\)"),
    ],
)
def test_a_pass_that_cannot_be_is_refused_in_one_line(text, message):
    with pytest.raises(AccelsimError, match=message) as caught:
        workload(text)
    assert "\n" not in str(caught.value)


def test_rotary_models_run_beyond_their_trained_length():
    graph = workload("llama-2-7b", phase="decode", context=10_000, **SMALL)
    assert graph.tensors["rotary.cos"].shape[0] == 10_000
