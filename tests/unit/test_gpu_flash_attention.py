"""Attention with an online softmax on GPUs: right on every shape, full multiprocessors in decoding,
and wrong variants of it are found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from accelsim.mappers import gpu_flash_attention
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.api import arch, check, simulate, workload
from accelsim.errors import AccelsimError, CapacityError
from accelsim.mapping.attention import cta_tiling as cta_attention
from accelsim.mapping.attention import online_softmax
from accelsim.mapping.attention.cta_tiling import (
    CtaTiling,
    Multiprocessor,
    onchip_bytes,
    splittable,
)
from accelsim.mapping.attention.score_traffic import score_bytes
from accelsim.mapping.registry import choose
from accelsim.program.opcodes import Function

SMALL = {"cores": 4, "tensor.tiles": ["8x16", "16x16", "16x8"]}
"""A GPU of four multiprocessors with tiles so small that a short attention has many of them."""
SHAPES = (
    "heads=4,q=130,kv=130,d=64",
    "heads=4,q=130,kv=130,d=64,causal=true",
    "heads=8,kv_heads=1,q=37,kv=211,d=16,causal=true",
    "heads=6,kv_heads=2,q=40,kv=300,d=33,causal=true,cached=false,batch=2",
    "heads=8,kv_heads=2,q=1,kv=1333,d=128,batch=3",
    "heads=8,q=1,kv=70,d=17,cached=false",
    "heads=8,kv_heads=2,q=3,kv=700,d=32,causal=true",
    "heads=1,q=1,kv=1,d=1",
)
DECODE = "attention:heads=64,kv_heads=8,q=1,kv=32768,d=128,dtype=fp16"
MAPPERS = ("gpu-flash-attention", "gpu-flash-attention-unsplit")


@pytest.mark.parametrize("order", ["program", "clock"])
@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("machine", ["a100", "h100"])
def test_numbers_are_right(machine: str, shape: str, dtype: str, order: str) -> None:
    for mapper in MAPPERS:
        result = check(machine, f"attention:{shape},dtype={dtype}", mapper=mapper, order=order)
        assert result.ok, (mapper, result.first)


@pytest.mark.parametrize(("machine", "dtype"), [("h100", "fp8_e4m3"), ("a100", "fp32")])
def test_other_formats_are_right(machine: str, dtype: str) -> None:
    for shape in ("heads=4,kv_heads=2,q=70,kv=150,d=160,causal=true", "heads=2,q=1,kv=900,d=64"):
        result = check(machine, f"attention:{shape},dtype={dtype}")
        assert result.ok, result.first


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_random_shapes_are_right(data: st.DataObject) -> None:
    """Any ratio of heads, length, head size and layout, with every grid that fits."""
    draw = data.draw
    kv_heads, ratio = draw(st.integers(1, 3)), draw(st.integers(1, 8))
    kv, causal, cached = draw(st.integers(1, 120)), draw(st.booleans()), draw(st.booleans())
    q = draw(st.one_of(st.just(1), st.integers(1, kv if causal else 60)))
    shape = (
        f"heads={kv_heads * ratio},kv_heads={kv_heads},q={q},kv={kv}"
        f",d={draw(st.integers(1, 64))},batch={draw(st.integers(1, 3))}"
        f",causal={str(causal).lower()},cached={str(cached).lower()}"
        f",dtype={draw(st.sampled_from(['fp16', 'bf16']))}"
    )
    if cached:
        shape += draw(st.sampled_from(["", ",alibi=true", ",rope_dim=3", ",latent=true"]))
    shape += f",window={draw(st.integers(1, kv))}" if causal and draw(st.booleans()) else ""
    picked = draw(st.integers(0, 10_000))

    def any_grid(p: Any, m: Any, splits: bool) -> CtaTiling:
        grids = list(cta_attention.cta_tilings(p, m, splits))
        return grids[picked % len(grids)]

    machine = arch(draw(st.sampled_from(["a100", "h100"])), SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_flash_attention, "best_cta_tiling", any_grid)
        for order in ("clock", "program"):
            result = check(machine, f"attention:{shape}", mapper=MAPPERS[0], order=order)
            assert result.ok, (shape, result.first)


def test_large_scores_need_the_running_maximum() -> None:
    """Scores in the hundreds: without it exponentials overflow."""
    shape = "attention:heads=2,q=20,kv=90,d=16,causal=true,dtype=fp16"
    result = check(arch("a100", SMALL), shape, scale=16.0)
    assert result.ok, result.first


# -- wrong programs ------------------------------------------------------------------------------


def without_rescaling(patch: pytest.MonkeyPatch) -> None:
    plain = online_softmax.Stream._softmax

    def softmax(self: Any, step: Any, ways: Any) -> Any:
        results = {id(way.result) for way in ways if way.started}
        vector = self.build.vector

        def skip(unit: int, function: Function, dst: Any, *operands: Any, **rest: Any) -> Any:
            return None if id(dst) in results else vector(unit, function, dst, *operands, **rest)

        patch.setattr(self.build, "vector", skip, raising=False)
        weights = plain(self, step, ways)
        patch.setattr(self.build, "vector", vector, raising=False)
        return weights

    patch.setattr(online_softmax.Stream, "_softmax", softmax)


def with_a_block_less(patch: pytest.MonkeyPatch) -> None:
    plain = online_softmax.Stream._steps

    def steps(self: Any, index: int, batch: Any) -> Any:
        whole = plain(self, index, batch)
        return [step for i, step in enumerate(whole) if i != 1 or len(whole) < 3]

    patch.setattr(online_softmax.Stream, "_steps", steps)


def with_a_mask_off_by(keys: int) -> Callable[[pytest.MonkeyPatch], None]:
    def apply(patch: pytest.MonkeyPatch) -> None:
        plain = online_softmax.Stream._mask
        patch.setattr(
            online_softmax.Stream,
            "_mask",
            lambda self, tile, score, first: plain(self, tile, score, first + keys),
        )

    return apply


def with_a_range_less(patch: pytest.MonkeyPatch) -> None:
    """The merge forgets the last range."""
    plain = online_softmax.Partials.merge

    def merge(self: Any, low: Any, pieces: Any) -> None:
        ranges = self.maxima.cols - 1
        width = self.results.cols // self.maxima.cols

        def cut(kept: Any, cols: int) -> Any:
            return replace(kept, views=tuple(view[:, :cols] for view in kept.views))

        fewer = replace(
            self,
            results=cut(self.results, ranges * width),
            maxima=cut(self.maxima, ranges),
            sums=cut(self.sums, ranges),
        )
        plain(fewer, low, pieces)

    patch.setattr(online_softmax.Partials, "merge", merge)


PREFILL = "attention:heads=2,q=33,kv=70,d=16,causal=true,dtype=fp16"
SPLIT = "attention:heads=2,q=1,kv=1500,d=16,dtype=fp16"
WRONG = {
    "no rescaling": (without_rescaling, PREFILL),
    "no rescaling in a range": (without_rescaling, SPLIT),
    "a block skipped": (with_a_block_less, PREFILL),
    "a key too many": (with_a_mask_off_by(-1), PREFILL),
    "a key too few": (with_a_mask_off_by(1), PREFILL),
    "a range not merged": (with_a_range_less, SPLIT),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_program_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil, shape = WRONG[name]
    machine = arch("a100", SMALL)
    assert check(machine, shape).ok
    spoil(monkeypatch)
    assert not check(machine, shape).ok


# -- speed ---------------------------------------------------------------------------------------


def test_split_keys_fill_the_multiprocessors() -> None:
    """One sequence of 32k keys: nearly the bandwidth of memory, instead of eight busy ones."""
    split, whole = (simulate("a100", DECODE, mapper=mapper) for mapper in MAPPERS)
    assert "104 CTAs on 104 of 108 multiprocessors" in split.operators[0].mapping
    assert "8 CTAs on 8 of 108 multiprocessors" in whole.operators[0].mapping
    assert split.cycles < whole.cycles / 4
    assert split.cycles < 1.15 * max(split.bounds.values())


def test_prefill_keeps_its_scores_on_chip() -> None:
    shape = "attention:heads=32,q=1024,kv=1024,d=128,dtype=fp16"
    fused, unfused = (simulate("a100", shape, mapper=m) for m in (MAPPERS[0], "gpu-attention"))
    operands = 4 * 32 * 1024 * 128 * 2
    assert sum(fused.traffic_bytes["hbm"].values()) <= operands
    assert sum(unfused.traffic_bytes["hbm"].values()) > 2 * operands
    assert fused.cycles < 0.6 * unfused.cycles


def test_tensor_cores_work_while_the_lanes_do() -> None:
    run = simulate("a100", "attention:heads=27,q=2048,kv=2048,d=128,dtype=fp16")
    busy = run.utilization
    assert busy["tensor"] > 0.7
    assert busy["simt"] > 0.7


def test_hidden_blocks_are_skipped() -> None:
    shape = "attention:heads=27,q=2048,kv=2048,d=128,dtype=fp16"
    whole, causal = (simulate("a100", f"{shape},causal={c}").cycles for c in ("false", "true"))
    assert causal < 0.6 * whole


def test_the_note_says_what_was_saved() -> None:
    operator = workload("attention:heads=2,q=64,kv=512,d=64,dtype=fp16").operators[0]
    assert score_bytes(operator, 16) == 2 * 64 * 512 * (4 + 4 + 2 + 2)
    run = simulate("a100", "attention:heads=2,q=64,kv=512,d=64,dtype=fp16")
    assert "scores stay on chip: unfused, they and the weights would move 768 KiB more" in (
        run.operators[0].mapping
    )


def test_what_a_window_is_said_to_save_is_what_an_unfused_one_moves() -> None:
    """Keys that no query sees have no scores: neither mapping touches them."""
    shape = "attention:heads=8,kv_heads=2,q=256,kv=1024,d=64,window=128,causal=true"
    saved = score_bytes(workload(shape).operators[0], 16)
    fused, unfused = (
        sum(simulate("hbm-npu", shape, mapper=mapper).traffic_bytes["hbm"].values())
        for mapper in ("flash-attention", "unfused-attention")
    )
    assert unfused - fused == pytest.approx(saved, rel=0.1)


def grids(shape: str, machine: str = "a100", splits: bool = True) -> list[CtaTiling]:
    found: list[CtaTiling] = []

    def all_of_them(p: Any, m: Multiprocessor, _splits: bool) -> CtaTiling:
        found.extend(cta_attention.cta_tilings(p, m, splits))
        registers = m.gpu.register_bytes
        assert all(onchip_bytes(p, (g.tile_rows, g.keys), g.depth)[0] <= registers for g in found)
        return cta_attention.best_cta_tiling(p, m, splits)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_flash_attention, "best_cta_tiling", all_of_them)
        simulate(machine, f"attention:{shape}")
    return found


@pytest.mark.parametrize(
    "shape",
    [
        "heads=8,q=1024,kv=1024,d=128,dtype=fp16",
        "heads=12,q=700,kv=700,d=64,causal=true,dtype=fp16",
        "heads=16,kv_heads=4,q=1,kv=16384,d=128,dtype=fp16",
    ],
)
def test_the_choice_is_near_the_best(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The closed form against the simulation of every grid that it thinks no worse than twice."""
    chosen = simulate("a100", f"attention:{shape}").cycles
    offered = grids(shape)
    least = min(grid.cycles for grid in offered)
    cycles = []
    for grid in offered:
        if grid.cycles < 1.5 * least:
            monkeypatch.setattr(gpu_flash_attention, "best_cta_tiling", lambda *_, g=grid: g)
            cycles.append(simulate("a100", f"attention:{shape}").cycles)
    assert len(cycles) >= 3
    assert chosen <= 1.12 * min(cycles)


def test_ranges_that_a_query_would_not_see_are_not_made() -> None:
    found = grids("heads=2,kv_heads=1,q=40,kv=600,d=32,causal=true,dtype=fp16")
    assert any(grid.span < 600 for grid in found)
    for grid in found:
        assert (600 - 1) // grid.span * grid.span <= 600 - 40
    assert not any(grid.span < 600 for grid in grids("heads=1,q=600,kv=600,d=32,causal=true"))


# -- which mapper --------------------------------------------------------------------------------


def test_a_row_of_many_ranges_can_be_merged() -> None:
    """Latent attention: 512 elements of every range, of as many ranges as registers hold."""
    shape = "attention:heads=16,kv_heads=1,q=1,kv=8192,d=512,rope_dim=64,latent=true,dtype=fp16"
    split, whole = (simulate("a100", shape, mapper=mapper) for mapper in MAPPERS)
    assert split.cycles < whole.cycles / 4
    result = check("a100", shape.replace("8192", "5000"))
    assert result.ok, result.first


def test_it_is_the_default_and_the_others_can_be_asked_for() -> None:
    (operator,) = workload("attention:heads=2,q=8,kv=8,d=8").operators
    for machine in ("a100", "h100"):
        assert choose(operator, arch(machine)).name == "gpu-flash-attention"
    for name in (*MAPPERS, "gpu-attention"):
        assert choose(operator, arch("a100"), (name,)).name == name


def test_tensor_cores_that_read_no_shared_memory_keep_to_unfused_kernels() -> None:
    machine = arch("a100", {"tensor.shared": ""})
    (operator,) = workload("attention:heads=2,q=8,kv=8,d=8").operators
    assert choose(operator, machine).name == "gpu-attention"
    with pytest.raises(AccelsimError, match="tensor cores that read shared memory"):
        simulate(machine, "attention:heads=2,q=8,kv=8,d=8", mapper="gpu-flash-attention")


def test_heads_too_large_for_the_registers_are_refused() -> None:
    with pytest.raises(CapacityError, match=r"head_dim 8192, needs .*--mapper gpu-attention"):
        simulate("a100", "attention:heads=2,q=8,kv=8,d=8192,dtype=fp16")


@pytest.mark.parametrize("head_dim", [576, 1000])
def test_large_heads_get_small_tiles(head_dim: int) -> None:
    shape = f"attention:heads=3,q=20,kv=45,d={head_dim},causal=true,dtype=bf16"
    result = check("a100", shape)
    assert result.ok, result.first


def test_whole_ranges_need_no_check() -> None:
    assert splittable(cta_attention.AttentionProblem(1, 1, 4, 100, 8, False, 16), 7)
