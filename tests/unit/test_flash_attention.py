"""Attention with an online softmax: right on every machine and shape, moves what it must and no
more, and wrong variants of it are found."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.api import arch, check, simulate, workload
from accelsim.errors import AccelsimError, CapacityError
from accelsim.mapping.attention import online_softmax, partials
from accelsim.mapping.attention import phases as attention_phases
from accelsim.mapping.attention import tiling as attention_tiling
from accelsim.mapping.attention.tiling import AttentionTiling
from accelsim.mapping.registry import choose
from accelsim.program.opcodes import Function
from accelsim.program.verify.violation import VerificationError

MACHINES = ("hbm-npu", "quad-npu", "mesh-npu", "edge-npu", "systolic", "onnxim-mobile")
SHAPES = (
    "heads=4,kv_heads=4,q=130,kv=130,d=64",
    "heads=4,kv_heads=4,q=130,kv=130,d=64,causal=true",
    "heads=8,kv_heads=1,q=37,kv=211,d=16,causal=true",
    "heads=6,kv_heads=2,q=40,kv=300,d=33,causal=true,cached=false,batch=2",
    "heads=8,kv_heads=2,q=1,kv=333,d=128,batch=3",
    "heads=8,kv_heads=8,q=1,kv=70,d=17,cached=false",
    "heads=8,kv_heads=2,q=3,kv=50,d=32,causal=true,dtype=fp16",
    "heads=2,kv_heads=1,q=65,kv=65,d=48,causal=true,dtype=fp32",
    "heads=1,kv_heads=1,q=1,kv=1,d=1",
)


@pytest.fixture
def tiles(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call to have small tiles, so that blocks, batches and remainders are many."""

    def choose_tiles(**shape: Any) -> None:
        tiling = AttentionTiling(**{**SMALL, **shape})
        monkeypatch.setattr(attention_phases, "best_attention_tiling", lambda _p, _r: tiling)

    return choose_tiles


SMALL = {
    "heads": 1,
    "rows": 8,
    "keys": 16,
    "ways": 2,
    "streams": 1,
    "depth": 2,
    "double": True,
    "span": 1 << 20,
}


@pytest.mark.parametrize("order", ["program", "clock"])
@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("shape", SHAPES)
def test_numbers_are_right(machine: str, shape: str, order: str) -> None:
    result = check(machine, f"attention:{shape}", mapper="flash-attention", order=order)
    assert result.ok, result.first


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_random_shapes_are_right(data: st.DataObject) -> None:
    """Any ratio of heads, length, head size and layout, with every tiling that fits."""
    draw = data.draw
    kv_heads, ratio = draw(st.integers(1, 3)), draw(st.integers(1, 8))
    kv = draw(st.integers(1, 120))
    causal = draw(st.booleans())
    q = draw(st.one_of(st.just(1), st.integers(1, kv if causal else 60)))
    q = min(q, kv) if causal else q
    shape = (
        f"heads={kv_heads * ratio},kv_heads={kv_heads},q={q},kv={kv}"
        f",d={draw(st.integers(1, 64))},batch={draw(st.integers(1, 3))}"
        f",causal={str(causal).lower()},cached={str(draw(st.booleans())).lower()}"
        f",dtype={draw(st.sampled_from(['fp16', 'bf16', 'fp32']))}"
    )
    picked = draw(st.integers(0, 10_000))
    machine = draw(st.sampled_from(MACHINES))

    def any_tiling(p: Any, r: Any) -> AttentionTiling:
        fitting = [
            t
            for t in attention_tiling.attention_tilings(p, r)
            if t.height * t.keys >= 16 or q * kv < 200
        ]
        return fitting[picked % len(fitting)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_phases, "best_attention_tiling", any_tiling)
        for order in ("clock", "program"):
            result = check(machine, f"attention:{shape}", mapper="flash-attention", order=order)
            assert result.ok, (machine, shape, result.first)


@pytest.mark.parametrize("machine", ["hbm-npu", "quad-npu"])
def test_large_scores_need_the_running_maximum(machine: str, tiles: Any) -> None:
    """Scores in the hundreds: without it exponentials overflow."""
    tiles()
    result = check(machine, "attention:heads=2,q=20,kv=90,d=16,causal=true", scale=16.0)
    assert result.ok, result.first


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_a_result_that_is_not_rescaled_is_found(
    dtype: str, tiles: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles()
    plain = online_softmax.Stream._softmax

    def without_rescaling(self: Any, step: Any, ways: Any) -> Any:
        results = {id(way.result) for way in ways if way.started}
        vector = self.build.vector

        def skip(unit: int, function: Function, dst: Any, *operands: Any, **rest: Any) -> Any:
            return None if id(dst) in results else vector(unit, function, dst, *operands, **rest)

        monkeypatch.setattr(self.build, "vector", skip, raising=False)
        weights = plain(self, step, ways)
        monkeypatch.setattr(self.build, "vector", vector, raising=False)
        return weights

    shape = f"attention:heads=2,q=20,kv=90,d=16,dtype={dtype}"
    assert check("hbm-npu", shape).ok
    monkeypatch.setattr(online_softmax.Stream, "_softmax", without_rescaling)
    assert not check("hbm-npu", shape).ok


@pytest.mark.parametrize("off", [-1, 1])
def test_a_mask_one_key_off_is_found(off: int, tiles: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles()
    plain = online_softmax.Stream._mask
    monkeypatch.setattr(
        online_softmax.Stream,
        "_mask",
        lambda self, tile, score, first: plain(self, tile, score, first + off),
    )
    assert not check("hbm-npu", "attention:heads=2,q=33,kv=70,d=16,causal=true").ok


def test_a_block_skipped_too_many_is_found(tiles: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles()
    plain = online_softmax.Stream._steps

    def one_less(self: Any, index: int, batch: Any) -> Any:
        steps = plain(self, index, batch)
        return [step for i, step in enumerate(steps) if i != 1 or len(steps) < 3]

    monkeypatch.setattr(online_softmax.Stream, "_steps", one_less)
    assert not check("hbm-npu", "attention:heads=2,q=33,kv=70,d=16,causal=true").ok


def test_a_sum_without_its_factor_is_found(tiles: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles()
    plain = online_softmax.Stream._sums

    def sums(self: Any, ways: Any, weights: Any) -> None:
        vector = self.build.vector

        def skip(unit: int, function: Function, *operands: Any, **rest: Any) -> Any:
            return None if function is Function.MUL else vector(unit, function, *operands, **rest)

        monkeypatch.setattr(self.build, "vector", skip, raising=False)
        plain(self, ways, weights)
        monkeypatch.setattr(self.build, "vector", vector, raising=False)

    monkeypatch.setattr(online_softmax.Stream, "_sums", sums)
    assert not check("hbm-npu", "attention:heads=2,q=20,kv=90,d=16").ok


@pytest.mark.parametrize("causal", [False, True])
def test_traffic_is_that_of_the_closed_form(causal: bool, tiles: Any) -> None:
    """Queries and results once; keys and values once per batch of query tiles, as far as seen."""
    tiles(rows=16, keys=32, ways=4)
    heads, kv_heads, q, kv, d = 4, 2, 72, 104, 16
    shape = f"attention:heads={heads},kv_heads={kv_heads},q={q},kv={kv},d={d}"
    moved = simulate("hbm-npu", f"{shape},causal={str(causal).lower()}").traffic_bytes["hbm"]
    element, shared = 2, heads // kv_heads
    # Tiles of a key head in the order (position, head), four at a time.
    ends = [min(r + 16, q) for r in range(0, q, 16) for _ in range(shared)]
    seen = [kv - q + end if causal else kv for end in ends]
    keys = sum(max(seen[i : i + 4]) for i in range(0, len(seen), 4))
    assert moved["write"] == heads * q * d * element
    assert moved["read"] == heads * q * d * element + 2 * kv_heads * keys * d * element


@pytest.mark.parametrize("machine", ["hbm-npu", "quad-npu", "mesh-npu", "systolic"])
@pytest.mark.parametrize("span", [7, 20, 64])
@pytest.mark.parametrize("order", ["program", "clock"])
def test_split_keys_are_merged(machine: str, span: int, order: str, tiles: Any) -> None:
    """Ranges that divide the keys and that do not, of one sequence and of several."""
    tiles(heads=3, rows=1, span=span)
    for shape in ("heads=6,kv_heads=1,q=1,kv=90,d=16", "heads=8,kv_heads=2,q=1,kv=71,d=17,batch=2"):
        for dtype in ("bf16", "fp32"):
            result = check(machine, f"attention:{shape},dtype={dtype}", order=order)
            assert result.ok, result.first


def _is_found(shape: str) -> bool:
    """Whether the verifier or the numbers say that a program is wrong."""
    try:
        return not check("hbm-npu", shape).ok
    except VerificationError:
        return True


@pytest.mark.parametrize("function", [Function.MUL, Function.ADD, Function.EXP])
def test_a_merge_that_leaves_something_out_is_found(
    function: Function, tiles: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles(heads=3, rows=1, span=30)
    plain = partials._Merge._merge

    def merge(self: Any, piece: Any, rows: slice) -> None:
        vector, met = self.low.build.vector, []

        def skip(unit: int, f: Function, *operands: Any, **rest: Any) -> Any:
            met.append(f)
            # The second of its kind: a factor of a part, or the addition of one.
            left_out = f is function and met.count(f) == (1 if f is Function.EXP else 2)
            return None if left_out else vector(unit, f, *operands, **rest)

        monkeypatch.setattr(self.low.build, "vector", skip, raising=False)
        plain(self, piece, rows)
        monkeypatch.setattr(self.low.build, "vector", vector, raising=False)

    shape = "attention:heads=6,kv_heads=1,q=1,kv=90,d=16"
    assert check("hbm-npu", shape).ok
    monkeypatch.setattr(partials._Merge, "_merge", merge)
    assert _is_found(shape)


def test_arrays_without_a_query_tile_take_keys() -> None:
    """One key head on sixteen cores: nearly all of the memory's bandwidth, scores not stored."""
    shape = "attention:heads=16,kv_heads=1,q=1,kv=4096,d=128"
    run = simulate("mesh-npu", shape)
    assert "keys split into 16 ranges" in run.operators[0].mapping
    assert run.cycles < 0.6 * simulate("mesh-npu", shape, mapper="unfused-attention").cycles
    assert max(run.bounds.values()) > 0.7 * run.cycles


def test_blocks_above_the_diagonal_cost_nothing() -> None:
    """Half of the scores of a causal prefill: nearly half of the cycles."""
    shape = "attention:heads=8,kv_heads=8,q=1024,kv=1024,d=64"
    full, causal = (simulate("hbm-npu", f"{shape},causal={c}").cycles for c in ("false", "true"))
    assert causal < 0.66 * full


@pytest.mark.parametrize("memory", ["bandwidth", "dram"])
def test_scores_that_stay_on_chip_are_faster(memory: str) -> None:
    shape = "attention:heads=8,kv_heads=2,q=1024,kv=1024,d=128"
    fused = simulate("hbm-npu", shape, memory=memory)
    unfused = simulate("hbm-npu", shape, memory=memory, mapper="unfused-attention")
    assert fused.mapper == "flash-attention"
    assert "online softmax" in fused.operators[0].mapping
    assert fused.cycles < 0.5 * unfused.cycles
    assert fused.traffic_bytes["hbm"]["write"] * 10 < unfused.traffic_bytes["hbm"]["write"]
    # The vector unit is what limits it, and it is busy nearly all the time.
    assert max(fused.bounds.values()) == fused.bounds["vpu"] > 0.95 * fused.cycles


@pytest.mark.parametrize(
    ("machine", "shape"),
    [
        ("hbm-npu", "heads=4,kv_heads=2,q=512,kv=512,d=64,causal=true"),
        ("quad-npu", "heads=8,kv_heads=2,q=256,kv=256,d=64"),
        ("hbm-npu", "heads=32,kv_heads=8,q=1,kv=2048,d=128"),
        ("neupims", "heads=64,kv_heads=8,q=1,kv=512,d=128,batch=8"),  # all keys are one block
        ("tpu-v3", "heads=12,kv_heads=12,q=128,kv=128,d=64,causal=true"),
    ],
)
def test_the_choice_is_near_the_best(
    machine: str, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulated cycles of the chosen tiles beside those of every tenth candidate, or five, that are
    said to take at most twice as long."""
    work = f"attention:{shape}"
    offered: list[AttentionTiling] = []
    plain = attention_tiling.attention_tilings

    def remember(p: Any, r: Any) -> Any:
        offered[:] = plain(p, r)
        return iter(offered)

    monkeypatch.setattr(attention_tiling, "attention_tilings", remember)
    attention_tiling.best_attention_tiling.cache_clear()
    chosen = simulate(machine, work, mapper="flash-attention").cycles
    cheapest = min(t.cycles for t in offered)
    near = [t for t in offered if t.cycles < 2 * cheapest]
    others = near[:: max(1, min(10, len(near) // 5))]
    cycles = []
    for tiling in others:
        monkeypatch.setattr(attention_phases, "best_attention_tiling", lambda _p, _r, t=tiling: t)
        cycles.append(simulate(machine, work, mapper="flash-attention").cycles)
    assert len(cycles) >= 5
    assert chosen <= 1.05 * min(cycles)


def test_what_does_not_fit_says_so_and_names_the_way_out() -> None:
    tiny = {"spad.capacity": "1 KiB"}
    with pytest.raises(CapacityError, match=r"query tile of one row.*--mapper unfused-attention"):
        simulate("edge-npu", "attention:heads=2,q=8,kv=8,d=512", overrides=tiny)


def test_a_vector_unit_apart_from_the_weights_keeps_the_scores_in_memory() -> None:
    machine = arch("systolic", {"vpu.memory": ["ofmap"]})
    operator = workload("attention:heads=2,q=8,kv=8,d=8").operators[0]
    assert choose(operator, arch("systolic")).name == "flash-attention"
    assert choose(operator, machine).name == "unfused-attention"
    assert check(machine, "attention:heads=2,q=8,kv=8,d=8").ok
    with pytest.raises(AccelsimError, match="a vector unit that works on ifmap and ofmap"):
        simulate(machine, "attention:heads=2,q=8,kv=8,d=8", mapper="flash-attention")
