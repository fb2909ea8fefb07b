"""The closed-form choice of tiles against simulating the alternatives."""

import random

import pytest

from accelsim.api import arch, simulate
from accelsim.errors import CapacityError
from accelsim.mapping import products, tiling
from accelsim.mapping.tile_sizes import extents
from accelsim.mapping.tiling import Tiling, all_tilings, best_tiling

CASES = (
    ("tpu-v3", "gemm:m=16,n=1024,k=1024", {}),
    ("tpu-v3", "gemm:m=512,n=512,k=512", {}),
    ("systolic", "gemm:m=64,n=64,k=64", {"array.rows": 8, "array.cols": 8}),
    ("systolic", "gemm:m=100,n=150,k=100", {"array.dataflow": "os"}),
    ("systolic", "gemm:m=150,n=90,k=100", {"array.dataflow": "is", "array.pipelined": False}),
    ("quad-npu", "gemm:m=200,n=300,k=256", {}),
    ("coded-npu", "gemm:m=16,n=1024,k=1024,sparsity=2:4", {}),
    ("coded-npu", "gemm:m=512,n=512,k=512,sparsity=0.3", {}),
    ("coded-npu", "gemm:m=512,n=1024,k=1024,sparsity=1:8,dtype=fp16", {}),
    ("coded-npu", "gemm:m=64,n=512,k=512,encoding=int4:g128", {"decoder.elements_per_cycle": 64}),
)


def _force(monkeypatch: pytest.MonkeyPatch, choice: Tiling) -> None:
    monkeypatch.setattr(products, "best_tiling", lambda problem, resources, limit: choice)


@pytest.mark.parametrize(("machine", "shape", "overrides"), CASES)
def test_chosen_tiling_is_near_the_best_of_all(
    machine: str, shape: str, overrides: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[Tiling]] = {}

    def spy(problem: tiling.Problem, resources: tiling.Resources, limit: int) -> Tiling:
        seen["all"] = [
            t for t in all_tilings(problem, resources, every=True) if t.instructions < 3000
        ]
        return best_tiling(problem, resources, limit)

    target = arch(machine, overrides)
    monkeypatch.setattr(products, "best_tiling", spy)
    chosen = simulate(target, shape).cycles
    promising = sorted(seen["all"], key=lambda t: t.cycles)[:40]
    others = random.Random(0).sample(seen["all"], min(40, len(seen["all"])))
    best = chosen
    for candidate in (*promising, *others):
        _force(monkeypatch, candidate)
        best = min(best, simulate(target, shape).cycles)
    assert chosen <= 1.06 * best


@pytest.mark.parametrize(
    ("machine", "shape"),
    [
        ("tpu-v3", "gemm:m=2048,n=2048,k=2048"), ("tpu-v3", "gemm:m=16,n=4096,k=4096"),
        ("coded-npu", "gemm:m=16,n=4096,k=4096,encoding=int4:g128"),
        ("coded-npu", "gemm:m=64,n=4096,k=4096,sparsity=2:4,dtype=int8"),
    ],
)  # fmt: skip
def test_estimate_is_close_to_the_clock_on_large_products(
    machine: str, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tiling] = []

    def spy(problem: tiling.Problem, resources: tiling.Resources, limit: int) -> Tiling:
        seen.append(best_tiling(problem, resources, limit))
        return seen[-1]

    monkeypatch.setattr(products, "best_tiling", spy)
    assert simulate(machine, shape).cycles == pytest.approx(seen[0].cycles, rel=0.02)


def test_extents_cover_the_dimension_in_array_granules() -> None:
    assert extents(300, 128) == [128, 256, 300]
    assert extents(5, 16) == [5]
    assert all(size % 16 == 0 or size == 1000 for size in extents(1000, 16))


def test_a_buffer_too_small_for_one_tile_says_what_is_needed() -> None:
    with pytest.raises(CapacityError, match=r"smallest tile .* needs buffers of"):
        simulate("systolic", "gemm:m=64,n=64,k=64", overrides={"filter.capacity": 100})


def test_ideal_memory_lifts_capacities() -> None:
    run = simulate(
        "systolic", "gemm:m=64,n=64,k=64", memory="ideal", overrides={"filter.capacity": 100}
    )
    assert run.cycles > 0
