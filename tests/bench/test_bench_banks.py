"""Speed of a layer on channels whose banks compute, every command simulated."""

import time

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from accelsim.api import simulate

pytestmark = pytest.mark.bench

LAYER = "gpt3-7b:phase=decode,batch=256,dataset=sharegpt,tp=4,layers=1"


@pytest.mark.benchmark(group="a layer on neupims", timer=time.process_time)
@pytest.mark.parametrize("memory", ["bandwidth", "dram"])
def test_layer(benchmark: BenchmarkFixture, memory: str) -> None:
    run = simulate("neupims", LAYER, memory=memory)
    benchmark.pedantic(lambda: simulate("neupims", LAYER, memory=memory), rounds=3, iterations=1)
    benchmark.extra_info["cycles"] = run.cycles
    benchmark.extra_info["instructions"] = run.instructions
