"""500 random integer GEMMs, every dataflow, executed in the clock's order: all exact."""

import random

import pytest

from accelsim.api import check

CASES = 500


@pytest.mark.parametrize("block", range(10))
@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
def test_random_gemms_are_exact(dataflow: str, block: int) -> None:
    generator = random.Random(f"{dataflow} {block}")
    for _ in range(-(-CASES // 30)):
        m, n, k = (generator.randint(1, 300) for _ in range(3))
        machine = generator.choice(("systolic", "quad-npu"))
        overrides = {
            "array.dataflow": dataflow,
            "array.rows": generator.choice((4, 8, 16, 20, 32)),
            "array.cols": generator.choice((4, 8, 16, 24, 32)),
            "array.pipelined": generator.random() < 0.7,
        }
        result = check(machine, f"gemm:m={m},n={n},k={k},dtype=int8", overrides=overrides)
        assert result.ok, (machine, m, n, k, overrides, result.first)
