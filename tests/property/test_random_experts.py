"""Random mixtures of experts and random grouped products, executed in the clock's order: exact."""

import random

import pytest

from accelsim.api import check

MACHINES = ("edge-npu", "quad-npu", "hbm-npu", "tpu-v3", "systolic", "mesh-npu")


@pytest.mark.parametrize("block", range(6))
def test_random_grouped_products_are_exact(block: int) -> None:
    generator = random.Random(f"groups {block}")
    for _ in range(6):
        groups = generator.randint(1, 9)
        rows = [generator.choice((0, 1, generator.randint(1, 200))) for _ in range(groups)]
        rows[generator.randrange(groups)] += 1
        sizes = f"n={generator.randint(1, 200)},k={generator.randint(1, 200)}"
        machine = generator.choice((*MACHINES, "a100"))
        work = f"grouped_gemm:m={'+'.join(map(str, rows))},{sizes},dtype=int8"
        result = check(machine, work)
        assert result.ok, (machine, work, result.first)


@pytest.mark.parametrize("block", range(6))
def test_random_mixtures_are_exact(block: int) -> None:
    generator = random.Random(f"experts {block}")
    for _ in range(3):
        experts, zero, copy = (generator.randint(low, 5) for low in (1, 0, 0))
        top_k = generator.randint(1, experts + zero + copy)
        heads = generator.choice((1, 2, 4))
        words = {
            "layers": 1,
            "heads": heads,
            "kv_heads": heads,
            "vocab": 30,
            "hidden": heads * 2 * generator.randint(4, 40),
            "ffn": generator.randint(1, 90),
            "experts": experts,
            "zero_experts": zero,
            "copy_experts": copy,
            "experts_per_token": top_k,
            "shared_ffn": generator.choice((0, 17)),
            "scoring": generator.choice(("softmax", "sigmoid")),
            "normalise_gates": generator.choice(("true", "false")),
            "gate_bias": generator.choice(("true", "false")),
            "gate_scale": generator.choice((1.0, 2.5)),
            "routing": "zipf",
            "skew": generator.choice((0, 1, 3)),
            "seed": block,
            "tokens": generator.randint(1, 70),
            "dtype": generator.choice(("bf16", "fp16")),
        }
        machine = generator.choice((*MACHINES, "a100"))
        work = "mixtral-8x7b:" + ",".join(f"{key}={value}" for key, value in words.items())
        result = check(machine, work)
        assert result.ok, (machine, work, result.first)
