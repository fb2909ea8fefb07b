"""The program that was timed computes the right numbers, executed in the clock's order."""

from __future__ import annotations

import random
from collections.abc import Iterator

from accelsim.api import check
from accelsim.results.claims import Claim, Row

CLAIM = Claim(
    name="exactness",
    statement="wrong elements when timed programs are executed (integers exact, floats in bound)",
    source="float64 and integer references, derived error bounds",
    tolerance=0.0,
)

SMALL = "layers=2,hidden=64,ffn=96,vocab=100,batch=2"
MODELS = (
    f"gpt2:{SMALL},heads=4,positions=64,tokens=12",
    f"opt-125m:{SMALL},heads=4,tokens=12",
    f"bert-base:{SMALL},heads=4,tokens=12",
    f"llama-2-7b:{SMALL},heads=4,kv_heads=4,tokens=12",
    f"llama-2-7b:{SMALL},heads=4,kv_heads=4,phase=decode,context=17",
    f"mistral-7b:{SMALL},heads=4,kv_heads=1,tokens=12",
    f"qwen2.5-7b:{SMALL},heads=4,kv_heads=2,phase=decode,context=17",
    f"mixtral-8x7b:{SMALL},heads=4,kv_heads=2,tokens=12,routing=zipf",
    f"deepseek-v3:{SMALL},heads=4,kv_heads=4,kv_lora_rank=0,head_dim=16,expert_ffn=24,"
    "shared_ffn=40,dense_layers=1,tokens=12",
)


def rows() -> Iterator[Row]:
    """Seeded random integer GEMMs in every dataflow, then small models of every family."""
    generator = random.Random(2026)
    for dataflow in ("ws", "os", "is"):
        wrong = sum(_random_gemm(generator, dataflow) for _ in range(20))
        yield Row(f"20 random int8 GEMMs, {dataflow}", 0, wrong, wrong == 0)
    for arch in ("tpu-v3", "quad-npu"):
        for model in MODELS:
            result = check(arch, model)
            yield Row(f"{model} on {arch}", 0, result.mismatches + result.unjudged, result.ok)


def _random_gemm(generator: random.Random, dataflow: str) -> int:
    m, n, k = (generator.randint(1, 300) for _ in range(3))
    arch = generator.choice(("systolic", "quad-npu"))
    overrides = {"array.dataflow": dataflow, "array.rows": generator.choice((4, 8, 20, 32))}
    result = check(arch, f"gemm:m={m},n={n},k={k},dtype=int8", overrides=overrides)
    return result.mismatches
