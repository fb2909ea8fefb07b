"""Tiles for DRAM channels: where windows lie, and the choice against simulated alternatives."""

from __future__ import annotations

import random

import numpy as np
import pytest

from accelsim.api import arch, simulate
from accelsim.hw.dram.block import Dram
from accelsim.hw.dram.service import slowdown
from accelsim.mapping import products, tiling
from accelsim.mapping.tiling import Tiling, all_tilings, best_tiling


def hbm(**changes: object) -> Dram:
    found = arch("hbm-npu", {f"hbm.{key}": value for key, value in changes.items()})
    memory = found.memories["hbm"]
    assert isinstance(memory, Dram)
    return memory


def one(memory: Dram, rows: int, row_bytes: int, stride: int) -> float:
    return float(slowdown(memory, np.array([rows]), np.array([row_bytes]), stride)[0])


def test_whole_rows_take_the_time_of_their_bytes() -> None:
    assert one(hbm(), 64, 4096, 4096) == 1.0
    # A burst for each of 32 pseudo-channels.
    assert one(hbm(mapping="RoRaBaBgCoPcCh"), 64, 1024, 8192) == 1.0


def test_rows_that_begin_inside_a_burst_move_more() -> None:
    # 64 bytes lie in two bursts, in three where they begin in the middle of one: every other row.
    memory = hbm(channels=1, capacity="1 GiB", mapping="RoRaBaCoPcBgCh", hashing=False)
    assert one(memory, 64, 64, 80) == pytest.approx(2.5 / 2)


def test_a_stride_may_leave_channels_out() -> None:
    # 16 channels of 32 bytes below everything else: rows 512 bytes apart all begin in channel 0.
    memory = hbm(mapping="RoRaBaBgCoPcCh", hashing=False)
    assert one(memory, 256, 32, 512) >= 16
    assert one(memory, 256, 32, 544) < 3


def test_activations_can_cost_more_than_bytes() -> None:
    # One burst of every row of a bank: tRC each, where 32 pseudo-channels could move a burst in 2.
    memory = hbm(mapping="RoRaBaBgChPcCo", hashing=False)
    t = memory.part.timings
    row_to_row = memory.part.organization.capacity_bytes * 16 // memory.part.organization.rows
    assert one(memory, 64, 32, row_to_row) == pytest.approx(32 * t["tRC"] / t["burst_cycles"])


CASES = (
    ("hbm-npu", "gemm:m=200,n=300,k=256"),
    ("hbm-npu", "gemm:m=64,n=2048,k=512"),
    ("hbm-npu", "gemm:m=16,n=1024,k=1024"),
    ("tpu-v3", "gemm:m=16,n=1024,k=1024"),
    ("tpu-v3", "gemm:m=512,n=512,k=512"),
    ("tpu-v3", "gemm:m=256,n=768,k=768"),
    ("quad-npu", "gemm:m=16,n=1024,k=1024"),
    ("edge-npu", "gemm:m=256,n=768,k=768"),
)


@pytest.mark.parametrize(("machine", "shape"), CASES)
def test_chosen_tiling_is_near_the_best_of_many_on_channels(
    machine: str, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tiling] = []

    def spy(problem: tiling.Problem, resources: tiling.Resources, limit: int) -> Tiling:
        every = all_tilings(problem, resources, every=True)
        seen[:] = [t for t in every if t.instructions < 2000]
        return best_tiling(problem, resources, limit)

    monkeypatch.setattr(products, "best_tiling", spy)
    best = chosen = simulate(machine, shape, memory="dram").cycles
    candidates = sorted(seen, key=lambda t: t.cycles)[:15]
    candidates += random.Random(0).sample(seen, min(15, len(seen)))
    for candidate in candidates:
        monkeypatch.setattr(products, "best_tiling", lambda *_, tiles=candidate: tiles)
        best = min(best, simulate(machine, shape, memory="dram").cycles)
    assert chosen <= 1.08 * best  # microseconds: ends and refreshes count for some per cent


def test_tiles_for_a_plain_bandwidth_are_worse_on_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    work, row_major = "gemm:m=192,n=640,k=768", {"dma.activation_panel": 0}
    chosen = simulate("tpu-v3", work, memory="dram", overrides=row_major).cycles
    blind = np.ones
    monkeypatch.setattr(tiling, "slowdown", lambda dram, rows, *_: blind(len(rows)))
    tiling.promising_tilings.cache_clear()
    worse = simulate("tpu-v3", work, memory="dram", overrides=row_major).cycles
    assert worse > 1.05 * chosen
    tiling.promising_tilings.cache_clear()
