"""Row-wise operators and attention in passes over main memory: what they move, and that they are
right where tiles, masks and memories are awkward."""

from __future__ import annotations

import pytest

from accelsim.api import check, simulate
from accelsim.errors import AccelsimError

FP32 = 4


@pytest.mark.parametrize(
    ("operator", "reads", "writes"),
    [("softmax", 3, 1), ("layernorm", 4, 2), ("rmsnorm", 2, 1)],
)
def test_passes_over_the_matrix(operator: str, reads: int, writes: int) -> None:
    """Row statistics (a column each) and row vectors come on top."""
    rows, cols = 256, 512
    moved = simulate("tpu-v3", f"{operator}:rows={rows},cols={cols},dtype=fp32").traffic_bytes
    matrix = rows * cols * FP32
    assert moved["hbm"]["read"] / matrix == pytest.approx(reads, abs=0.04)
    assert moved["hbm"]["write"] / matrix == pytest.approx(writes, abs=0.02)


def test_scores_are_written_once_and_read_twice() -> None:
    heads, tokens, d = 4, 256, 64
    shape = f"heads={heads},q={tokens},kv={tokens},d={d}"
    moved = simulate("tpu-v3", f"attention:{shape},dtype=fp32").traffic_bytes["hbm"]
    scores, io = heads * tokens * tokens * FP32, heads * tokens * d * FP32
    columns = heads * tokens * FP32
    assert moved["write"] == scores + io + 2 * columns
    assert moved["read"] == 2 * scores + 3 * io + 3 * columns


@pytest.mark.parametrize("vmem", ["24 KiB", "40 KiB", "200 KiB"])
@pytest.mark.parametrize(
    "shape",
    [
        "heads=4,kv_heads=2,q=70,kv=90,d=16,causal=true",
        "heads=8,kv_heads=2,q=1,kv=300,d=16,batch=2",
        "heads=2,q=33,kv=33,d=24,causal=true,cached=false",
    ],
)
def test_attention_is_right_however_its_keys_are_cut(shape: str, vmem: str) -> None:
    small = {"vmem.capacity": vmem, "mxu.rows": 16, "mxu.cols": 16}
    for dtype in ("fp32", "bf16"):
        result = check("tpu-v3", f"attention:{shape},dtype={dtype}", overrides=small)
        assert result.ok, result.first


def test_large_scores_need_the_maximum_over_all_keys() -> None:
    """Scores in the hundreds: a maximum over some of the keys lets the others overflow."""
    small = {"vmem.capacity": "24 KiB", "mxu.rows": 16, "mxu.cols": 16}
    for overrides in ({}, small):
        result = check(
            "tpu-v3",
            "attention:heads=2,q=20,kv=90,d=16",
            overrides=overrides,
            scale=16.0,
        )
        assert result.ok, result.first


def test_attention_that_cannot_fit_says_so() -> None:
    with pytest.raises(AccelsimError, match="does not fit into vmem"):
        simulate("tpu-v3", "attention:heads=2,q=8,kv=8,d=64", overrides={"vmem.capacity": "2 KiB"})


def test_attention_needs_one_scratchpad() -> None:
    with pytest.raises(AccelsimError, match=r"needs one scratchpad .* not ifmap, filter, ofmap"):
        simulate("systolic", "attention:heads=2,q=8,kv=8,d=8", mapper="multipass-attention")


def test_a_column_of_statistics_is_all_that_a_reduction_stores() -> None:
    """Rows that are no multiple of the tile, and a single column."""
    for shape in ("rows=37,cols=1", "rows=1,cols=700", "rows=129,cols=65"):
        for operator in ("softmax", "layernorm", "rmsnorm"):
            result = check("tpu-v3", f"{operator}:{shape},dtype=fp32")
            assert result.ok, result.first


def test_time_grows_with_rows_and_not_with_the_way_they_are_tiled() -> None:
    """Passes stream: four times the rows take four times as long, but for the ends."""
    few, many = (
        simulate("tpu-v3", f"layernorm:rows={rows},cols=768,dtype=fp32").cycles
        for rows in (512, 2048)
    )
    assert 3.6 < many / few < 4.0
