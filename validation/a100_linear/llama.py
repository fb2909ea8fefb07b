"""Operators of a Llama block as Vidur profiles them: one tensor-parallel shard on one GPU.

Vidur runs a whole block and takes the time of each operator's kernels (vidur/profiling/mlp): the
projections are cuBLAS products with weights stored [n, k], the others vLLM's kernels of 2023.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from accelsim.api import simulate
from accelsim.errors import AccelsimError
from accelsim.results.claims import Row


def workload_of(row: Mapping[str, str]) -> str:
    """The workload behind a measured row.

    Raises:
        AccelsimError: an operator that is not known here.
    """
    tokens, shards = int(row["num_tokens"]), int(row["tp"])
    hidden, ffn = int(row["n_embd"]), int(row["n_ffn"])
    heads, kv_heads = int(row["n_head"]), int(row["n_kv_head"])
    head = hidden // heads
    if row["op"] == "attn_pre_proj":
        return _product(tokens, (heads + 2 * kv_heads) * head // shards, hidden)
    if row["op"] == "attn_post_proj":
        return _product(tokens, hidden, hidden // shards)
    if row["op"] == "mlp_up_proj":
        return _product(tokens, 2 * ffn // shards, hidden)
    if row["op"] == "mlp_down_proj":
        return _product(tokens, hidden, ffn // shards)
    if row["op"] == "attn_rope":
        rotated = (heads + kv_heads) // shards
        return f"rotary:heads={rotated},d={head},tokens={tokens},dtype=fp16"
    if row["op"] == "mlp_act":
        return f"glu:function=silu,rows={tokens},cols={ffn // shards},dtype=fp16"
    if row["op"] in ("input_layernorm", "post_attention_layernorm"):
        return f"rmsnorm:rows={tokens},cols={hidden},dtype=fp16"
    if row["op"] == "add":
        return f"residual:rows={tokens},cols={hidden},dtype=fp16"
    raise AccelsimError(f"no workload for measured operator {row['op']!r}")


def _product(m: int, n: int, k: int) -> str:
    return f"gemm:m={m},n={n},k={k},transpose_b=true,dtype=fp16"


def simulated(machine: str, rows: list[dict[str, str]]) -> Iterator[Row]:
    """Every measured operator on a machine; equal shapes are simulated once."""
    known: dict[str, float] = {}
    for row in rows:
        work = workload_of(row)
        if work not in known:
            known[work] = round(simulate(machine, work).seconds * 1e6, 2)
        case = f"{row['model']} {row['op']} tp {row['tp']}, {row['num_tokens']} tokens"
        yield Row(case, float(row["median_us"]), known[work], split=row["split"])
