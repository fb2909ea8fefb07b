"""Hugging Face configs: defaults, refused keys and broken files."""

import json

import numpy as np
import pytest

from accelsim.errors import AccelsimError
from accelsim.workload import library_folder, list_workloads, read_config, workload
from accelsim.workload.huggingface import parse_config
from accelsim.workload.transformer_config import FAMILIES

LLAMA = json.loads((library_folder() / "llama-2-7b.json").read_text())


def config(**changes):
    return parse_config({**LLAMA, **changes}, name="test", where="config.json")


WITH_DEFAULTS = [family for family in FAMILIES if family != "deepseek_v2"]  # it lacks a top-k


@pytest.mark.parametrize("family", WITH_DEFAULTS)
def test_absent_keys_take_the_published_defaults(family):
    minimal = parse_config({"model_type": family}, name="default", where="config.json")
    published = {
        "gpt2": 124_439_808,
        "opt": 125_239_296,
        "bert": 109_482_240,
        "llama": 6_738_415_616,
        "mistral": 7_241_732_096,
        "mixtral": 46_702_792_704,
        "qwen2_moe": 14_315_784_192,
        "deepseek_v3": 671_026_419_200,
    }
    if family in published:
        assert minimal.parameters == published[family]
    else:
        assert (minimal.hidden, minimal.ffn, minimal.kv_heads) == (4096, 22016, 32)
        assert minimal.bias_qkv
        assert not minimal.bias_out


def test_harmless_keys_are_accepted():
    extra = {"torch_dtype": "float16", "architectures": ["X"], "use_cache": False}
    extra |= {"transformers_version": "4.31", "bos_token_id": 1, "attention_dropout": 0.1}
    assert config(**extra) == config()


def test_llama_biases_are_built_where_the_keys_ask():
    biased = config(attention_bias=True)
    assert (biased.bias_qkv, biased.bias_out, biased.bias_ffn) == (True, True, False)
    assert config(mlp_bias=True).bias_ffn
    assert biased.parameters - config().parameters == 32 * 4 * 4096


def test_rope_scaling_of_llama_3_1_is_read():
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    read = config(rope_scaling=scaling).rope_scaling
    assert (read.kind, read.factor, read.original_positions) == ("llama3", 8.0, 8192)
    newer = config(rope_parameters={**scaling, "rope_theta": 5e5})
    assert newer.rope_scaling == read
    assert newer.rope_theta == 5e5
    assert config(rope_parameters={"rope_type": "default", "rope_theta": 7.0}).rope_theta == 7.0
    assert config(rope_scaling={"type": "linear", "factor": 2.0}).rope_scaling.factor == 2.0


def test_sliding_windows_are_used_only_where_the_family_says():
    qwen = {"model_type": "qwen2", "sliding_window": 4096, "num_hidden_layers": 28}
    read = lambda **more: parse_config({**qwen, **more}, name="q", where="c").sliding_window  # noqa: E731
    assert read() is None
    assert read(use_sliding_window=True) is None
    assert read(use_sliding_window=True, max_window_layers=27) == 4096
    mistral = parse_config({"model_type": "mistral", "sliding_window": None}, name="m", where="c")
    assert mistral.sliding_window is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model_type": "lama"},
            r"model_type is 'lama' \(did you mean 'llama'\?\); accepted: gpt2",
        ),
        ({"model_type": None}, "model_type is missing; accepted: gpt2"),
        ({"model_type": ["llama"]}, r"model_type is \['llama'\]"),
        ({"hiddn_size": 1}, r"key 'hiddn_size' .* \(did you mean 'hidden_size'\?\)"),
        ({"alibi": True}, "key 'alibi' is not understood for model_type 'llama'"),
        ({"hidden_size": "4096"}, "hidden_size is '4096'; accepted: a whole number"),
        ({"hidden_size": 4096.0}, "hidden_size is 4096.0"),
        ({"hidden_size": True}, "hidden_size is True"),
        ({"hidden_size": None}, "hidden_size is None"),
        ({"hidden_size": 4095}, "hidden_size 4095 is not a multiple of num_attention_heads 32"),
        ({"num_key_value_heads": 5}, "kv_heads is 5; accepted: a divisor of heads 32"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"hidden_act": "gelu_nwe"}, r"hidden_act is 'gelu_nwe'; .*\(did you mean 'gelu_new'\?\)"),
        ({"hidden_act": ["silu"]}, r"hidden_act is \['silu'\]"),
        (
            {"quantization_config": {"bits": 4}},
            r"quantization_config is \{'bits': 4\}; accepted: null",
        ),
        (
            {"rope_scaling": {"type": "yarn", "factor": 4.0}},
            "rope_scaling of type 'yarn'; accepted",
        ),
        ({"rope_scaling": "linear"}, "rope_scaling is 'linear'; accepted: null or an object"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling of type 'linear' lacks 'factor'"),
        (
            {"rope_scaling": {"type": "linear", "factr": 2}},
            "unknown key 'factr' .*did you mean 'fac",
        ),
        (
            {"rope_scaling": {"type": "linear", "factor": 0}},
            "factor is 0; accepted: a number above",
        ),
        ({"rope_scaling": {"type": "linear", "factor": "x"}}, "factor is 'x'; accepted: a number"),
        ({"rope_theta": 0}, "rope_theta is 0.0; accepted: above 0"),
        ({"rope_theta": "big"}, "rope_theta is 'big'; accepted: a number"),
        ({"rms_norm_eps": None}, "rms_norm_eps is None; accepted: a finite number"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
        ({"attention_bias": 1}, "attention_bias is 1; accepted: true or false"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types is"),
        ({"layer_types": 3}, "layer_types is 3"),
        ({"head_dim": 7}, "head_dim is 7; accepted with rotary positions: even"),
    ],
)
def test_what_is_not_understood_is_refused_with_the_file(changes, message):
    with pytest.raises(AccelsimError, match=message) as caught:
        config(**changes)
    assert str(caught.value).startswith("config.json: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "gpt2", "scale_attn_weights": False}, "accepted: true"),
        ({"model_type": "gpt2", "reorder_and_upcast_attn": True}, "accepted: false"),
        ({"model_type": "opt", "word_embed_proj_dim": 512}, "accepted: hidden_size 768"),
        ({"model_type": "bert", "position_embedding_type": "relative_key"}, 'accepted: "absolute"'),
        ({"model_type": "bert", "is_decoder": True}, "is_decoder is True; accepted: false"),
        ({"model_type": "bert", "head_dim": 64}, "key 'head_dim' is not understood"),
        ({"model_type": "mixtral", "num_experts_per_tok": 9}, "experts_per_token is 9"),
        ({"model_type": "qwen2", "use_sliding_window": "no"}, "use_sliding_window is 'no'"),
        (
            {"model_type": "qwen2_moe", "mlp_only_layers": [0]},
            "mlp_only_layers is .*accepted: no",
        ),
        (
            {"model_type": "qwen2_moe", "decoder_sparse_step": 2},
            "decoder_sparse_step is 2; accept",
        ),
        ({"model_type": "deepseek_v2"}, "num_experts_per_tok is None; accepted: a whole number"),
        ({"model_type": "deepseek_v3", "scoring_func": "softmax"}, 'accepted: "sigmoid"'),
        ({"model_type": "deepseek_v3", "topk_group": 9}, "9 of 8 groups of 256 experts, 8 per tok"),
        ({"model_type": "deepseek_v3", "n_group": 7}, "accepted: groups of equal size"),
        (
            {"model_type": "deepseek_v3", "topk_method": "best"},
            "topk_method is 'best'; accepted: ",
        ),
        ({"model_type": "deepseek_v3", "moe_layer_freq": 2}, "moe_layer_freq is 2; accepted: 1"),
        ({"model_type": "deepseek_v3", "kv_lora_rank": None}, "kv_lora_rank is None"),
        (
            {"model_type": "deepseek_v3", "first_k_dense_replace": 62},
            "dense_layers is 62; accept",
        ),
    ],
)
def test_family_keys_with_unsupported_values_are_refused(values, message):
    with pytest.raises(AccelsimError, match=message):
        parse_config(values, name="test", where="config.json")


def test_post_norm_opt_has_no_final_norm():
    post = parse_config({"model_type": "opt", "do_layer_norm_before": False}, name="o", where="c")
    assert (post.pre_norm, post.final_norm) == (False, False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{\n "model_type": "llama",\n "hidden_size": 40', r"config\.json:3: invalid JSON"),
        (b"", r"config\.json:1: invalid JSON"),
        (b"[1, 2]", r"config\.json: the top level is not an object"),
        (b"\xff\xfe\x00", r"config\.json: not a JSON text"),
        (b"[" * 100_000, r"config\.json: not a JSON text"),
        (b'{"model_type": "llama", "hidden_size": ' + b"9" * 5000 + b"}", r"not a JSON text"),
        (
            b'{"model_type": "llama", "vocab_size": 3, "vocab_size": 4}',
            "'vocab_size' is given twice",
        ),
        (b'{"model_type": "llama", "vocab_size": 1e999}', "vocab_size is inf"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path, content, message):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    for source in (path, tmp_path):
        with pytest.raises(AccelsimError, match=message) as caught:
            read_config(source)
        assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(AccelsimError, match=r"none\.json: cannot read it \(No such file"):
        read_config(tmp_path / "none.json")
    with pytest.raises(AccelsimError, match=r"config\.json: cannot read it"):
        read_config(tmp_path)


def test_a_model_folder_gives_its_name_and_builds(tmp_path):
    folder = tmp_path / "my-llama"
    folder.mkdir()
    small = {**LLAMA, "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4}
    small |= {"num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 100}
    text = json.dumps(small)
    (folder / "config.json").write_text("\ufeff" + text, encoding="utf-8")
    assert read_config(folder).name == "my-llama"
    assert workload(folder, tokens=4) == workload(str(folder / "config.json") + ":tokens=4")


def test_deepseek_keys_are_read():
    lite, v2, v3 = (
        read_config(library_folder() / f"deepseek-{name}.json") for name in ("v2-lite", "v2", "v3")
    )
    assert (v3.experts, v3.experts_per_token, v3.expert_ffn, v3.shared_ffn) == (256, 8, 2048, 2048)
    assert (v3.scoring, v3.normalise_gates, v3.gate_scale, v3.gate_bias) == (
        *("sigmoid", True, 2.5, True),
    )
    assert (v3.expert_groups, v3.groups_per_token, v3.dense_layers) == (8, 4, 3)
    assert (v3.q_lora_rank, v3.kv_lora_rank, v3.head_dim, v3.v_head_dim) == (1536, 512, 192, 128)
    assert (v2.scoring, v2.normalise_gates, v2.gate_scale, v2.gate_bias) == (
        *("softmax", False, 16.0, False),
    )
    assert (v2.expert_groups, v2.groups_per_token, v2.shared_ffn) == (8, 3, 2 * 1536)
    assert (lite.expert_groups, lite.groups_per_token, lite.q_lora_rank) == (0, 0, 0)
    # Scaling replaces normalisation in V2, and comes after it in V3.
    both = {"norm_topk_prob": True, "routed_scaling_factor": 4.0, "num_experts_per_tok": 2}
    scales = [
        parse_config({"model_type": family, **both}, name="d", where="c").gate_scale
        for family in ("deepseek_v2", "deepseek_v3")
    ]
    assert scales == [1.0, 4.0]


def test_yarn_blends_between_two_dimensions():
    """Against the formulas of the paper's code: dimension of a number of turns, linear ramp."""
    scaling = read_config(library_folder() / "deepseek-v3.json").rope_scaling
    assert (scaling.kind, scaling.factor, scaling.mscale) == ("yarn", 40, 1.0)
    dim, base, length = 64, 10000.0, 4096
    plain = base ** (-np.arange(0, dim, 2) / dim)

    def dimension(turns):
        return dim * np.log(length / (turns * 2 * np.pi)) / (2 * np.log(base))

    low, high = np.floor(dimension(32)), np.ceil(dimension(1))
    ramp = np.clip((np.arange(dim // 2) - low) / (high - low), 0, 1)
    want = plain / 40 * ramp + plain * (1 - ramp)
    assert 0 < low < high < dim / 2
    np.testing.assert_allclose(scaling.apply(plain.astype(np.float32)), want, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mscale": 0.7}, "mscale is 0.7; accepted: the value of mscale_all_dim"),
        ({"beta_fast": 0.5}, "beta_fast is 0.5; accepted: a number above beta_slow"),
    ],
)
def test_yarn_that_is_not_understood_is_refused(change, message):
    values = json.loads((library_folder() / "deepseek-v3.json").read_text())
    values["rope_scaling"] |= change
    with pytest.raises(AccelsimError, match=message):
        parse_config(values, name="d", where="config.json")


@pytest.mark.parametrize(("name", "also"), [("gpt2-small", "gpt2"), ("gpt3-7b", "gpt3-6.7b")])
def test_a_model_of_two_names_is_one_model(name, also):
    one, other = workload(name, tokens=8), workload(also, tokens=8)
    assert one.operators == other.operators
    assert one.tensors == other.tensors
    assert name in dict(list_workloads())
