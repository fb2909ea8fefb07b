"""CPU time of whole simulations in a warm process, beside what other tools took.

Reported, never asserted. ONNXim's seconds are those of validation/onnxim_* (a compiled simulator,
CPU time); SCALE-Sim's are measured in the same run by ``make bench-scalesim``.
"""

import time

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from accelsim.api import simulate
from accelsim.mapping import tiling
from accelsim.results.claims import truth

pytestmark = pytest.mark.bench

ONNXIM = [
    pytest.param(f"onnxim-{size}", r, id=f"{size}-{r['m']}x{r['k']}x{r['n']}")
    for size in ("mobile", "server")
    for r in truth(f"accelsim.validation.onnxim_{size}", "cycles.csv")
]


def _cold_tiling() -> None:
    """Tile choices are cached; a first simulation of a shape has to make them."""
    tiling.promising_tilings.cache_clear()


@pytest.mark.benchmark(group="onnxim rows", timer=time.process_time)
@pytest.mark.parametrize(("machine", "row"), ONNXIM)
def test_onnxim_rows(benchmark: BenchmarkFixture, machine: str, row: dict[str, str]) -> None:
    shape = f"gemm:m={row['m']},n={row['n']},k={row['k']}"
    simulate(machine, shape)
    benchmark.pedantic(
        lambda: simulate(machine, shape), setup=_cold_tiling, rounds=20, iterations=1
    )
    seconds = benchmark.stats.stats.median
    benchmark.extra_info["onnxim_cpu_s"] = float(row["cpu_s"])
    benchmark.extra_info["times_faster"] = round(float(row["cpu_s"]) / max(seconds, 1e-9), 1)


@pytest.mark.benchmark(group="scalesim row", timer=time.process_time)
def test_scalesim_row(benchmark: BenchmarkFixture) -> None:
    settings: dict[str, object] = {
        "array.rows": 128, "array.cols": 128, "array.dataflow": "ws", "array.pipelined": False
    }  # fmt: skip
    shape = "gemm:m=128,n=768,k=768"
    simulate("systolic", shape, memory="ideal", overrides=settings)
    benchmark.pedantic(
        lambda: simulate("systolic", shape, memory="ideal", overrides=settings),
        setup=_cold_tiling, rounds=50, iterations=1,
    )  # fmt: skip


@pytest.mark.benchmark(group="llama-2-7b on tpu-v3", timer=time.process_time)
@pytest.mark.parametrize("phase", ["prefill,tokens=2048", "decode,batch=16,context=2048"])
def test_llama(benchmark: BenchmarkFixture, phase: str) -> None:
    work = f"llama-2-7b:phase={phase}"
    simulate("tpu-v3", work)
    benchmark.pedantic(lambda: simulate("tpu-v3", work), setup=_cold_tiling, rounds=5, iterations=1)


@pytest.mark.benchmark(group="attention on a100", timer=time.process_time)
@pytest.mark.parametrize("mapper", ["gpu-flash-attention", "gpu-attention"])
def test_gpu_attention(benchmark: BenchmarkFixture, mapper: str) -> None:
    shape = "attention:heads=8,q=2048,kv=2048,d=128,causal=true,dtype=fp16"
    run = simulate("a100", shape, mapper=mapper)
    benchmark.pedantic(lambda: simulate("a100", shape, mapper=mapper), rounds=3, iterations=1)
    benchmark.extra_info["instructions"] = run.instructions
