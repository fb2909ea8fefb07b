"""Attention without running maxima: right where exponentials hold, cheaper, and what it leaves out
is found."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from accelsim.api import check, simulate
from accelsim.errors import AccelsimError
from accelsim.mapping.attention import partials, unified_max
from accelsim.program.opcodes import Function

SHAPES = (
    "heads=4,kv_heads=2,q=45,kv=130,d=16,causal=true,window=20",
    "heads=4,kv_heads=1,q=1,kv=3000,d=16,batch=2",
    "heads=4,kv_heads=2,q=1,kv=77,d=16,page=16,prefix=32,batch=3,dtype=fp16",
    "heads=4,kv_heads=1,q=7,kv=60,d=32,rope_dim=4,latent=true,causal=true",
)
PLACES = (
    ("hbm-npu", "unified-max-attention"),
    ("quad-npu", "unified-max-attention"),
    ("a100", "gpu-unified-max-attention"),
)


@pytest.mark.parametrize("order", ["clock", "program"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("machine", "mapper"), PLACES)
def test_numbers_are_right(machine: str, mapper: str, shape: str, order: str) -> None:
    result = check(machine, f"attention:{shape}", mapper=mapper, order=order)
    assert result.ok, result.first


def test_what_waits_for_no_maximum_is_faster() -> None:
    """Seven passes less per score or column: where the vector unit limits, a third and more."""
    shape = "attention:heads=8,q=1024,kv=1024,d=64"
    plain, unified = (
        simulate("hbm-npu", shape, mapper=name)
        for name in ("flash-attention", "unified-max-attention")
    )
    assert max(plain.bounds, key=lambda name: plain.bounds[name]) == "vpu"
    assert unified.cycles < 0.85 * plain.cycles
    assert any("without a maximum" in text for text in unified.approximations)


def test_large_scores_are_found_out() -> None:
    """Scores of some hundreds overflow without their maximum, and not with it."""
    shape = "attention:heads=2,q=20,kv=90,d=16"
    assert check("hbm-npu", shape, mapper="flash-attention", scale=16.0).ok
    assert not check("hbm-npu", shape, mapper="unified-max-attention", scale=16.0).ok


@pytest.mark.parametrize("function", [Function.ADD, Function.ROW_SUM])
def test_sums_that_miss_a_block_are_found(
    function: Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = "attention:heads=2,q=40,kv=900,d=16"
    plain = unified_max.UnifiedStream._softmax

    def softmax(self: Any, step: Any, ways: Any) -> Any:
        vector = self.build.vector
        later = [way for way in ways if way.started]

        def skip(unit: int, f: Function, *operands: Any, **rest: Any) -> Any:
            return None if f is function and later else vector(unit, f, *operands, **rest)

        monkeypatch.setattr(self.build, "vector", skip, raising=False)
        weights = plain(self, step, ways)
        monkeypatch.setattr(self.build, "vector", vector, raising=False)
        return weights

    tiny = {"vmem.capacity": "128 KiB"}
    assert check("hbm-npu", shape, mapper="unified-max-attention", overrides=tiny).ok
    monkeypatch.setattr(unified_max.UnifiedStream, "_softmax", softmax)
    with suppress(AccelsimError):  # where a sum is read that nobody wrote the verifier says so
        assert not check("hbm-npu", shape, mapper="unified-max-attention", overrides=tiny).ok


def test_ranges_are_merged_by_adding(monkeypatch: pytest.MonkeyPatch) -> None:
    """No maximum is stored or loaded, and a range that is left out is found."""
    shape = "attention:heads=16,kv_heads=1,q=1,kv=4096,d=64"
    run = simulate("mesh-npu", shape, mapper="unified-max-attention")
    assert "ranges, then merged" in run.operators[0].mapping
    plain = partials._Merge._merge

    def merge(self: Any, piece: Any, rows: slice) -> None:
        vector, met = self.low.build.vector, []

        def skip(unit: int, f: Function, *operands: Any, **rest: Any) -> Any:
            met.append(f)
            assert f not in (Function.ROW_MAX, Function.EXP)
            left_out = f is Function.ADD and met.count(f) == 2
            return None if left_out else vector(unit, f, *operands, **rest)

        monkeypatch.setattr(self.low.build, "vector", skip, raising=False)
        plain(self, piece, rows)
        monkeypatch.setattr(self.low.build, "vector", vector, raising=False)

    monkeypatch.setattr(partials._Merge, "_merge", merge)
    assert not check("mesh-npu", shape, mapper="unified-max-attention").ok


@pytest.mark.parametrize(("machine", "mapper"), PLACES)
def test_alibi_is_refused(machine: str, mapper: str) -> None:
    with pytest.raises(AccelsimError, match=r"\(attention\): ALiBi spreads scores over more than"):
        simulate(machine, "attention:heads=2,q=3,kv=9,d=8,alibi=true", mapper=mapper)
