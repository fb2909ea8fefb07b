"""The mixture-of-experts keys of Hugging Face `config.json` files, as fields of a config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from accelsim.workload._words import listed, whole

if TYPE_CHECKING:
    from accelsim.workload.huggingface import Values

Fields = dict[str, Any]

GROUPED = ("group_limited_greedy", "noaux_tc")
"""Ways of DeepSeek to choose within some groups of experts."""


def mixtral(v: Values) -> Fields:
    """Mixtral: every layer routes; the chosen experts' softmax scores are normalised (Jiang et al.,
    Mixtral of Experts, arXiv 2401.04088, §2.1)."""
    return {
        "experts": v.count("num_local_experts"),
        "experts_per_token": v.count("num_experts_per_tok"),
        "normalise_gates": True,
    }


def qwen2_moe(v: Values) -> Fields:
    """Qwen1.5-MoE and Qwen2-MoE: one wide shared expert behind a sigmoid gate."""
    if v["decoder_sparse_step"] != 1:
        raise v.error("decoder_sparse_step", "1 (every layer routes)")
    if v["mlp_only_layers"] not in (None, []):
        raise v.error("mlp_only_layers", "none")
    return {
        "experts": v.count("num_experts"),
        "experts_per_token": v.count("num_experts_per_tok"),
        "expert_ffn": v.count("moe_intermediate_size"),
        "shared_ffn": v.count("shared_expert_intermediate_size"),
        "shared_gate": True,
        "normalise_gates": v.flag("norm_topk_prob"),
    }


def deepseek(v: Values) -> Fields:
    """DeepSeek-V2 and V3: shared experts beside many small ones, groups, latent attention.

    V2 scales the gates only where it does not normalise them (modeling_deepseek.py of its release);
    V3 scores with sigmoids, chooses with a correction and scales what it has normalised.
    """
    third = v.family == "deepseek_v3"
    per_token, width = v.count("num_experts_per_tok"), v.count("moe_intermediate_size")
    normalise = v.flag("norm_topk_prob") and (third or per_token > 1)
    if v["topk_method"] not in (*GROUPED, "greedy"):
        raise v.error("topk_method", listed((*GROUPED, "greedy")))
    grouped = v["topk_method"] in GROUPED
    nope, rope = v.count("qk_nope_head_dim"), v.count("qk_rope_head_dim")
    shared = whole(v["n_shared_experts"] or 0, f"{v.where}: n_shared_experts", least=0)
    return {
        "experts": v.count("n_routed_experts"),
        "experts_per_token": per_token,
        "expert_ffn": width,
        "shared_ffn": shared * width,
        "dense_layers": whole(
            v["first_k_dense_replace"], f"{v.where}: first_k_dense_replace", least=0
        ),
        "scoring": "sigmoid" if third else "softmax",
        "normalise_gates": normalise,
        "gate_scale": v.number("routed_scaling_factor") if third or not normalise else 1.0,
        "gate_bias": third,
        "expert_groups": (v.count_or_none("n_group") or 0) if grouped else 0,
        "groups_per_token": (v.count_or_none("topk_group") or 0) if grouped else 0,
        "kv_heads": v.count("num_attention_heads"),
        "head_dim": nope + rope,
        "q_lora_rank": v.count_or_none("q_lora_rank") or 0,
        "kv_lora_rank": v.count("kv_lora_rank"),
        "qk_nope_head_dim": nope,
        "qk_rope_head_dim": rope,
        "v_head_dim": v.count("v_head_dim"),
    }
