"""Softmax, norms and unfused attention whose rows are longer than the scratchpad: right on awkward
shapes, and moving no more than the sweeps over main memory that they are."""

from __future__ import annotations

from typing import Any

import pytest

from accelsim.api import check, simulate
from accelsim.errors import AccelsimError
from accelsim.mapping import long_rows
from accelsim.program.opcodes import Function

FP32 = 4
TINY = {"spad.capacity": 4 << 10}
NARROW = {"array.rows": 4, "array.cols": 4}


@pytest.mark.parametrize("order", ["program", "clock"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("operator", ["softmax", "layernorm", "rmsnorm"])
@pytest.mark.parametrize("shape", ["rows=5,cols=1000", "rows=1,cols=3001", "rows=21,cols=513"])
def test_numbers_are_right(operator: str, shape: str, dtype: str, order: str) -> None:
    work = f"{operator}:{shape},dtype={dtype}"
    result = check("edge-npu", work, overrides=TINY, order=order)
    assert result.ok, result.first
    assert "sweeps in blocks" in simulate("edge-npu", work, overrides=TINY).operators[0].mapping


@pytest.mark.parametrize("kib", [2, 3, 5, 40])
def test_blocks_of_any_size_fit(kib: int) -> None:
    """Also blocks of several rows (40 KiB), which share what is held; with the passes of a compiler
    that keeps no tensor on chip, too."""
    for operator in ("softmax", "layernorm", "rmsnorm"):
        work, small = f"{operator}:rows=11,cols=5000,dtype=fp32", kib << 10
        for machine, memory in (("edge-npu", "spad"), ("tpu-v3", "vmem")):
            result = check(machine, work, overrides={f"{memory}.capacity": small})
            assert result.ok, result.first


def test_a_scratchpad_of_nothing_but_boundaries_is_refused() -> None:
    with pytest.raises(
        AccelsimError, match=r"one row of 5000 elements does not fit into spad \(512"
    ):
        simulate("edge-npu", "softmax:rows=11,cols=5000", overrides={"spad.capacity": 512})


@pytest.mark.parametrize(("operator", "held"), [("softmax", 0), ("rmsnorm", 1), ("layernorm", 2)])
def test_passes_end_where_sweeps_begin(operator: str, held: int) -> None:
    """A row fits with everything that any pass has on chip, or is swept over: never a refusal."""
    cols = 1000
    row = (5 + held) * FP32 * cols  # operand and result twice, a temporary, row vectors
    swept = set()
    for nbytes in range(row, row + 2048, 32):
        work, small = f"{operator}:rows=3,cols={cols},dtype=fp32", {"vmem.capacity": nbytes}
        swept.add("sweeps" in simulate("tpu-v3", work, overrides=small).operators[0].mapping)
    assert swept == {True, False}


@pytest.mark.parametrize(
    ("operator", "reads"), [("softmax", 3), ("layernorm", 3 + 2 / 8), ("rmsnorm", 2 + 1 / 8)]
)
def test_every_reduction_is_one_more_reading(operator: str, reads: float) -> None:
    """Eight rows at a time share what is held; statistics stay on chip."""
    rows, cols = 64, 4096
    small = {"spad.capacity": 64 << 10}
    work = f"{operator}:rows={rows},cols={cols},dtype=fp32"
    moved = simulate("edge-npu", work, overrides=small).traffic_bytes["dram"]
    assert moved["write"] == rows * cols * FP32
    assert moved["read"] == reads * rows * cols * FP32


SHAPES = (
    "heads=2,q=33,kv=700,d=16",
    "heads=2,q=70,kv=600,d=16,causal=true",
    "heads=2,q=50,kv=640,d=16,causal=true,window=500",
    "heads=4,kv_heads=2,q=1,kv=900,d=16,batch=2",
    "heads=3,q=20,kv=650,d=16,alibi=true,causal=true",
    "heads=4,kv_heads=2,q=1,kv=900,d=16,alibi=true",
)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_scores_longer_than_the_scratchpad(shape: str, dtype: str) -> None:
    work = f"attention:{shape},dtype={dtype}"
    for scale in (1.0, 16.0):  # scores in the hundreds need the maximum over all blocks
        result = check(
            "edge-npu", work, mapper="unfused-attention", overrides=TINY | NARROW, scale=scale
        )
        assert result.ok, result.first
    plain = simulate("edge-npu", work, mapper="unfused-attention", overrides=TINY | NARROW)
    assert "3 sweeps" in plain.operators[0].mapping


@pytest.mark.parametrize("wrong", ["maximum", "sum"])
def test_a_statistic_of_the_last_block_alone_is_found(
    wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    join = Function.MAX if wrong == "maximum" else Function.ADD
    right = long_rows._combined

    def forgets(v: Any, b: Any, reduction: Any, joining: Any, x: Any, to: int) -> None:
        if joining is join:
            v(reduction, b.columns[to], x)
        else:
            right(v, b, reduction, joining, x, to)

    monkeypatch.setattr(long_rows, "_combined", forgets)
    work, mapper = "attention:heads=2,q=33,kv=700,d=16", "unfused-attention"
    assert not check("edge-npu", work, mapper=mapper, overrides=TINY | NARROW, scale=16.0).ok


def test_rows_that_fit_are_read_once() -> None:
    moved = simulate("edge-npu", "softmax:rows=64,cols=1000,dtype=fp32").traffic_bytes["dram"]
    assert moved["read"] == moved["write"] == 64 * 1000 * FP32
