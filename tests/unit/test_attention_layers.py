"""Attention of whole layers: windows, latent attention, pages and prefixes mean what they say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from accelsim.api import check, simulate, workload
from accelsim.errors import AccelsimError
from accelsim.functional.attention import tokens_of
from accelsim.functional.reference import reference
from accelsim.functional.values import graph_values
from accelsim.numerics.formats import number_format
from accelsim.workload.graph import Graph
from accelsim.workload.operators import Attention, KvAppend

LATENT = (
    "deepseek-v2-lite:layers=1,hidden=48,heads=3,ffn=40,experts=0,experts_per_token=0,shared_ffn=0,"
    "dense_layers=0,kv_lora_rank=20,qk_nope_head_dim=12,qk_rope_head_dim=8,v_head_dim=12,vocab=50"
)
MISTRAL = "mistral-7b:layers=2,hidden=64,heads=4,kv_heads=2,ffn=96,vocab=50,sliding_window=10"
MODELS = (
    f"{MISTRAL},tokens=37",
    f"{MISTRAL},phase=decode,batch=3,context=37,page=8,prefix=8",
    f"{MISTRAL},tokens=9,batch=2,page=4,prefix=12,kv_dtype=fp8_e4m3",
    f"{LATENT},tokens=19,batch=2",
    f"{LATENT},q_lora_rank=24,phase=decode,batch=2,context=19",
    f"{LATENT},phase=decode,batch=2,context=21,page=4,prefix=8,kv_dtype=fp8_e5m2",
    f"{LATENT},tokens=5,batch=2,page=4,prefix=8",
)


@pytest.mark.parametrize("machine", ["edge-npu", "hbm-npu", "tpu-v3", "a100"])
@pytest.mark.parametrize("model", MODELS)
def test_models_are_computed_in_clock_order(machine: str, model: str) -> None:
    result = check(machine, model)
    assert result.ok, result.first


def evaluated(graph: Graph) -> dict[str, Any]:
    """Every tensor of a graph in float64, operator by operator."""
    found: dict[str, Any] = {}
    for name, stored in graph_values(graph, seed=2).items():
        spec = graph.tensors[name]
        kind = np.int64 if spec.dtype == "int32" else np.float64
        found[name] = number_format(spec.dtype).decode(stored).astype(kind)
    for op in graph.operators:
        found[op.output] = reference(op, [found[name] for name in op.inputs])
    return found


def turned(x: Any, positions: Any, size: int) -> Any:
    """Rotary positions on rows of heads of ``size``, with YaRN's frequencies as the graph has."""
    graph = workload(f"{LATENT},tokens={positions.max() + 1}")
    tables = evaluated(graph)
    cos, sin = (tables[f"rotary.{f}"][positions] for f in ("cos", "sin"))
    heads = x.reshape(len(x), -1, size)
    first, second = np.split(heads, 2, axis=-1)
    moved = np.concatenate([-second, first], axis=-1)
    return (heads * cos[:, None] + moved * sin[:, None]).reshape(x.shape)


def norm(x: Any, weight: Any) -> Any:
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6) * weight


def latent_attention(graph: Graph, values: dict[str, Any], context: int, new: int) -> Any:
    """DeepSeek-V2's equations (37) to (47), token by token, keys and values expanded."""
    name = "layer0.attention"
    w = {k.removeprefix(f"{name}."): v for k, v in values.items()}
    x = values[f"{name}_norm.out"]
    heads, nope, rope = 3, 12, 8
    batch = len(x) // new
    positions = np.tile(np.arange(context - new, context), batch)
    source = x
    if "q_down.weight" in w:
        source = norm(x @ w["q_down.weight"], w["q_norm.weight"])
    q, q_rope = source @ w["q_proj.weight"], turned(source @ w["q_rope.weight"], positions, rope)
    c = norm(x @ w["kv_down.weight"], w["kv_norm.weight"])
    key = turned(x @ w["k_rope.weight"], positions, rope)
    caches = []
    for cache, fresh in (("latent", c), ("k", key)):
        append = graph.operator(f"{name}.{cache}_append")
        assert isinstance(append, KvAppend)
        whole = np.stack(tokens_of(append, w[f"{cache}_cache"]))[:, 0].copy()
        if not append.kv_dtype:
            whole[:, context - new :] = fresh.reshape(batch, new, -1)
        caches.append(whole)
    up = {label: w[f"{label}.weight"] for label in ("k_up", "v_up")}
    if up["k_up"].ndim == 2:  # expanded: [rank, heads * d]
        rank = up["k_up"].shape[0]
        k_up = up["k_up"].reshape(rank, heads, nope).transpose(1, 2, 0)
        v_up = up["v_up"].reshape(rank, heads, nope).transpose(1, 0, 2)
    else:
        k_up, v_up = up["k_up"], up["v_up"]  # [heads, nope, rank], [heads, rank, v]
    stretch = (0.1 * 0.707 * math.log(40) + 1.0) ** 2
    out = np.zeros((len(x), heads * nope))
    for t in range(len(x)):
        s, seen = t // new, context - new + t % new + 1
        for h in range(heads):
            cols = slice(h * nope, (h + 1) * nope)
            keys = caches[0][s, :seen] @ k_up[h].T
            scores = keys @ q[t, cols] + caches[1][s, :seen] @ q_rope[t, h * rope : (h + 1) * rope]
            scores = scores * stretch / math.sqrt(nope + rope)
            p = np.exp(scores - scores.max())
            out[t, cols] = p / p.sum() @ (caches[0][s, :seen] @ v_up[h])
    return out @ w["o_proj.weight"]


@pytest.mark.parametrize(
    ("settings", "context", "new"),
    [
        ("tokens=19,batch=2", 19, 19),
        ("q_lora_rank=24,tokens=7", 7, 7),
        ("phase=decode,batch=2,context=19", 19, 1),
        ("q_lora_rank=24,phase=decode,context=9", 9, 1),
        ("tokens=5,batch=2,page=4,prefix=8", 13, 5),
        ("phase=decode,batch=2,context=21,page=4,prefix=8", 21, 1),
    ],
)
def test_latent_attention_means_what_the_paper_says(settings: str, context: int, new: int) -> None:
    """Expanded and absorbed: both against the equations, to the last bits of float64."""
    graph = workload(f"{LATENT},{settings}")
    values = evaluated(graph)
    got = values["layer0.attention.o_proj.out"]
    expected = latent_attention(graph, values, context, new)
    size = np.abs(expected).max()
    assert np.abs(got - expected).max() <= 2.0**-40 * size


def test_a_latent_cache_is_small() -> None:
    """576 numbers per token and layer, whatever the heads: DeepSeek-V2, table 1."""
    graph = workload("deepseek-v3:layers=4,phase=decode,context=1000")
    caches = [spec for spec in graph.tensors.values() if spec.role == "cache"]
    assert sum(spec.elements for spec in caches) == 4 * 1000 * 576


def attention_of(text: str) -> Attention:
    return next(op for op in workload(text).operators if isinstance(op, Attention))


def test_windows_are_used_where_the_context_is_longer() -> None:
    assert attention_of("mistral-7b:tokens=4096,layers=1").window == 0
    assert attention_of("mistral-7b:tokens=5000,layers=1").window == 4096
    assert attention_of("mistral-7b:phase=decode,context=9000,layers=1").window == 4096
    assert attention_of("mistral-7b:tokens=5000,layers=1,sliding_window=none").window == 0


def test_what_is_kept_in_fewer_bits_is_read_in_fewer() -> None:
    text = "llama-2-7b:phase=decode,context=2048,batch=4,layers=1"
    narrow = f"{text},kv_dtype=fp8_e4m3"
    whole, half = (simulate("hbm-npu", t).traffic_bytes["hbm"]["read"] for t in (text, narrow))
    assert whole - half == 2 * 4 * 4096 * 2048
    assert simulate("hbm-npu", f"{text},kv_dtype=bf16").cycles == simulate("hbm-npu", text).cycles


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("prefix=16,tokens=8", "prefix 16; accepted: with page=, tokens of a page"),
        ("prefix=10,page=16,tokens=8", "prefix 10; accepted: whole pages of 16"),
        ("phase=decode,context=9,prefix=16,page=16", "at most the 8 tokens before the new ones"),
        ("kv_dtype=fp9,tokens=8", "kv_dtype: unknown dtype 'fp9'"),
        ("page=-1,tokens=8", "page"),
    ],
)
def test_wrong_caches_are_refused(more: str, says: str) -> None:
    with pytest.raises(AccelsimError) as fault:
        workload(f"llama-2-7b:{more}")
    assert says in str(fault.value)
    assert "\n" not in str(fault.value)
