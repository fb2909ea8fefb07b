"""Windows, ALiBi, rope parts, latent keys, pages, common prefixes and narrower caches: the numbers
are right with every mapper, and mappings that get one of them wrong are found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.api import check, simulate, workload
from accelsim.errors import AccelsimError
from accelsim.mapping.attention import heads, online_softmax
from accelsim.mapping.attention import phases as attention_phases
from accelsim.mapping.attention import tiling as attention_tiling
from accelsim.mapping.attention.tiling import AttentionTiling
from accelsim.workload.constants import AlibiTable

MAPPERS = {
    "flash-attention": ("hbm-npu", "quad-npu", "edge-npu"),
    "unfused-attention": ("hbm-npu", "mesh-npu", "systolic"),
    "multipass-attention": ("tpu-v3",),
    "gpu-attention": ("a100",),
    "gpu-flash-attention": ("a100", "h100"),
    "gpu-flash-attention-unsplit": ("a100",),
}
VARIANTS = (
    "heads=4,kv_heads=2,q=45,kv=130,d=16,causal=true,window=20",
    "heads=2,q=70,kv=70,d=24,causal=true,window=1",
    "heads=2,kv_heads=1,q=7,kv=1500,d=16,causal=true,window=900",
    "heads=4,kv_heads=1,q=1,kv=130,d=16,causal=true,window=33,batch=2",
    "heads=6,kv_heads=2,q=21,kv=90,d=16,causal=true,alibi=true",
    "heads=6,kv_heads=2,q=1,kv=90,d=16,causal=true,alibi=true,batch=2",
    "heads=3,q=40,kv=81,d=16,alibi=true,causal=true,window=30",
    "heads=4,kv_heads=2,q=19,kv=60,d=16,rope_dim=8,causal=true",
    "heads=4,kv_heads=1,q=1,kv=60,d=32,rope_dim=8,latent=true,batch=2",
    "heads=4,kv_heads=1,q=7,kv=60,d=32,latent=true,causal=true",
    "heads=4,kv_heads=2,q=9,kv=77,d=16,page=16,page_seed=3,causal=true,batch=2",
    "heads=4,kv_heads=2,q=1,kv=77,d=16,page=8,window=25,causal=true,batch=2",
    "heads=4,kv_heads=2,q=1,kv=77,d=16,page=16,prefix=32,batch=3",
    "heads=4,kv_heads=2,q=6,kv=77,d=16,page=16,prefix=64,batch=3,causal=true,kv_dtype=fp8_e4m3",
    "heads=6,kv_heads=2,q=1,kv=1100,d=32,page=16,prefix=1024,batch=8",
    "heads=2,kv_heads=1,q=9,kv=50,d=16,kv_dtype=int8,dtype=fp16",
    "heads=2,kv_heads=1,q=1,kv=50,d=16,kv_dtype=int4,rope_dim=4,latent=true,page=8",
)


@pytest.mark.parametrize("shape", VARIANTS)
@pytest.mark.parametrize("mapper", MAPPERS)
def test_numbers_are_right(mapper: str, shape: str) -> None:
    for machine in MAPPERS[mapper]:
        for order in ("clock", "program"):
            result = check(machine, f"attention:{shape}", mapper=mapper, order=order)
            assert result.ok, (machine, order, result.first)


@pytest.fixture
def tiles(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call to have small tiles, so that blocks, batches and remainders are many."""

    def choose_tiles(**shape: Any) -> None:
        tiling = AttentionTiling(**{**SMALL, **shape})
        monkeypatch.setattr(attention_phases, "best_attention_tiling", lambda _p, _r: tiling)

    return choose_tiles


SMALL = {
    "heads": 1, "rows": 8, "keys": 16, "ways": 2, "streams": 1, "depth": 2, "double": True,
    "span": 1 << 20,
}  # fmt: skip


def shapes(draw: Any) -> str:
    """Any attention."""
    kv_heads, ratio = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    kv, batch = draw(st.integers(1, 110)), draw(st.integers(1, 3))
    q = min(kv, draw(st.one_of(st.just(1), st.integers(1, 50))))
    causal = draw(st.booleans())
    given = {
        "heads": kv_heads * ratio, "kv_heads": kv_heads, "q": q, "kv": kv, "batch": batch,
        "d": draw(st.integers(1, 40)), "causal": causal,
        "dtype": draw(st.sampled_from(["fp16", "bf16", "fp32"])),
        "alibi": draw(st.booleans()), "rope_dim": draw(st.sampled_from([0, 0, 2, 9])),
        "kv_dtype": draw(st.sampled_from(["int8", "fp8_e4m3"])) if draw(st.booleans()) else None,
        "latent": draw(st.booleans()),
    }  # fmt: skip
    if causal and draw(st.booleans()):
        given["window"] = draw(st.integers(1, kv))
    if draw(st.booleans()):
        page = given["page"] = draw(st.integers(1, 40))
        given["prefix"] = draw(st.integers(0, kv // page)) * page
        given["page_seed"] = draw(st.integers(0, 5))
    return ",".join(f"{key}={str(x).lower()}" for key, x in given.items() if x is not None)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_random_attentions_are_right_with_any_tiling(data: st.DataObject) -> None:
    shape = shapes(data.draw)
    machine = data.draw(st.sampled_from(["hbm-npu", "quad-npu", "edge-npu"]))
    picked = data.draw(st.integers(0, 10_000))

    def any_tiling(p: Any, r: Any) -> AttentionTiling:
        fitting = [
            t
            for t in attention_tiling.attention_tilings(p, r)
            if t.height * t.keys >= 16 or p.q_len * p.kv_len < 200
        ]
        return fitting[picked % len(fitting)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_phases, "best_attention_tiling", any_tiling)
        for order in ("clock", "program"):
            result = check(machine, f"attention:{shape}", mapper="flash-attention", order=order)
            assert result.ok, (machine, shape, result.first)


@pytest.mark.parametrize("mapper", [name for name in MAPPERS if name != "flash-attention"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_random_attentions_are_right_with_other_mappers(mapper: str, data: st.DataObject) -> None:
    shape = shapes(data.draw)
    machine = MAPPERS[mapper][0]
    result = check(machine, f"attention:{shape}", mapper=mapper)
    assert result.ok, (machine, shape, result.first)


# -- what it costs ---------------------------------------------------------------------------------


def read(shape: str, machine: str = "hbm-npu", **options: Any) -> int:
    return simulate(machine, f"attention:{shape}", **options).traffic_bytes["hbm"]["read"]


def test_a_window_reads_and_computes_only_what_it_shows() -> None:
    """4096 queries that see 512 keys each: about an eighth of the causal half."""
    shape = "heads=8,q=4096,kv=4096,d=64,causal=true"
    whole, window = (simulate("hbm-npu", f"attention:{s}") for s in (shape, f"{shape},window=512"))
    assert window.operators[0].macs < 0.24 * whole.operators[0].macs
    assert window.cycles < 0.4 * whole.cycles
    assert window.traffic_bytes["hbm"]["read"] < whole.traffic_bytes["hbm"]["read"]


def test_decoding_in_a_window_reads_the_window() -> None:
    shape = "heads=8,kv_heads=8,q=1,kv=4096,d=64,causal=true"
    queries = 8 * 64 * 2
    assert read(f"{shape},window=1000") == queries + 2 * 8 * 1000 * 64 * 2


@pytest.mark.parametrize("machine", ["hbm-npu", "a100"])
@pytest.mark.parametrize("window", [2000, 4096])
def test_a_window_costs_no_more_than_none(machine: str, window: int) -> None:
    """A few queries per sequence, whose keys a GPU splits."""
    shape = "heads=8,kv_heads=2,q=4,kv=4096,d=64,causal=true"
    whole, some = (simulate(machine, f"attention:{s}") for s in (shape, f"{shape},window={window}"))
    assert some.cycles <= whole.cycles


def test_a_common_prefix_is_read_once() -> None:
    shape = "heads=8,kv_heads=8,q=1,kv=2048,d=64,batch=16,page=64"
    keys, queries = 2 * 8 * 64 * 2, 16 * 8 * 64 * 2
    assert read(shape) == queries + 16 * 2048 * keys
    # Queries come once more, and of every row two parts are merged.
    extra = queries + 16 * 8 * (64 + 2) * 4 * 2
    expected = queries + (1536 + 16 * 512) * keys + extra
    assert read(f"{shape},prefix=1536") == pytest.approx(expected, abs=extra / 2)


PREFIXES = {
    "heads=8,kv_heads=8,q=1,kv=2048,d=64,batch=16,page=64": (1536, True),
    "heads=8,kv_heads=2,q=37,kv=320,d=64,batch=2,page=16,causal=true": (192, False),
    "heads=8,kv_heads=2,q=256,kv=768,d=64,batch=2,page=16,causal=true": (512, False),
}


@pytest.mark.parametrize("shape", PREFIXES)
@pytest.mark.parametrize("machine", ["hbm-npu", "a100"])
def test_a_common_prefix_costs_no_more_than_prefixes_of_their_own(machine: str, shape: str) -> None:
    prefix, apart = PREFIXES[shape]
    own, common = (
        simulate(machine, f"attention:{shape}{more}") for more in ("", f",prefix={prefix}")
    )
    assert ("read once for" in common.operators[0].mapping) is apart
    assert common.cycles <= 1.02 * own.cycles


def test_latent_keys_are_read_once_for_both_products() -> None:
    shape = "heads=16,kv_heads=1,q=1,kv=1024,d=512,rope_dim=64"
    # The splits that suit them differ a little.
    saved = read(shape) - read(f"{shape},latent=true")
    assert saved == pytest.approx(1024 * 512 * 2, rel=0.15)


def test_a_narrower_cache_is_read_in_its_own_width() -> None:
    shape = "heads=8,kv_heads=8,q=1,kv=4096,d=64"
    queries = 8 * 64 * 2
    assert read(f"{shape},kv_dtype=fp8_e4m3") - queries == (read(shape) - queries) // 2
    assert read(f"{shape},kv_dtype=int4") - queries == (read(shape) - queries) // 4


def test_pages_are_scattered_and_cost_little() -> None:
    shape = "heads=8,kv_heads=8,q=1,kv=4096,d=128"
    operator = workload(f"attention:{shape},page=16,batch=2").operators[0]
    tables = operator.pages.table
    assert sorted(p for table in tables for p in table) == list(range(2 * 256))
    assert sum(abs(a - b) == 1 for a, b in zip(tables[0], tables[0][1:], strict=False)) < 30
    assert read(f"{shape},page=16") == read(shape)
    whole, paged = (simulate("hbm-npu", f"attention:{s}") for s in (shape, f"{shape},page=64"))
    assert paged.cycles < 1.3 * whole.cycles


def test_alibi_slopes() -> None:
    """Eight heads: 1/2, 1/4, ...; twelve: then every second of sixteen."""
    table = AlibiTable().array((12, 3))
    assert table[:8, 1].tolist() == [-(2.0 ** -(h + 1)) for h in range(8)]
    assert table[8:, 0] == pytest.approx([-2 * 2.0 ** -(h + 0.5) for h in range(4)])
    assert not np.any(table[:, 2])


# -- wrong mappings are found ----------------------------------------------------------------------

WINDOW = "attention:heads=2,q=33,kv=70,d=16,causal=true,window=11"


@pytest.mark.parametrize("off", [-1, 1])
def test_a_window_one_key_off_is_found(
    off: int, tiles: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles()
    plain = online_softmax.masks

    def shifted(op: Any, position: int, *rest: int) -> Any:
        for mask in plain(op, position, *rest):
            window = mask.function.name == "WINDOW_MASK"
            yield mask._replace(imm=mask.imm + off) if window else mask

    assert check("hbm-npu", WINDOW).ok
    monkeypatch.setattr(online_softmax, "masks", shifted)
    assert not check("hbm-npu", WINDOW).ok


def test_rows_that_have_seen_nothing_yet_need_a_finite_maximum(
    tiles: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles(rows=24, keys=8)
    assert check("hbm-npu", WINDOW).ok
    monkeypatch.setattr(online_softmax, "sees_nothing", lambda *_: False)
    assert not check("hbm-npu", WINDOW).ok


@pytest.mark.parametrize("mapper", ["flash-attention", "unfused-attention"])
def test_a_page_in_the_wrong_place_is_found(mapper: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = "attention:heads=2,q=4,kv=70,d=16,page=8"
    plain = heads.cache_runs

    def swapped(op: Any, low: Any, group: int, name: str, first: int, stop: int) -> Any:
        runs = plain(op, low, group, name, first, stop)
        if name == "k" and len(runs) > 3:
            runs[1], runs[2] = (
                heads.Run(runs[1].first, runs[2].view),
                heads.Run(runs[2].first, runs[1].view),
            )
        return runs

    from accelsim.mapping.attention import gathered

    assert check("hbm-npu", shape, mapper=mapper).ok
    monkeypatch.setattr(online_softmax, "cache_runs", swapped)
    monkeypatch.setattr(gathered, "cache_runs", swapped)
    assert not check("hbm-npu", shape, mapper=mapper).ok


def test_the_bias_of_another_head_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = "attention:heads=4,q=9,kv=40,d=16,alibi=true"
    plain = online_softmax.Stream._add_bias

    def other(self: Any, tile: Any, score: Any, first: int) -> None:
        plain(self, tile, score, max(0, first - 1) if first else 0)

    assert check("hbm-npu", shape).ok
    monkeypatch.setattr(online_softmax.Stream, "_add_bias", lambda self, tile, score, first: None)
    assert not check("hbm-npu", shape).ok


# -- wrong inputs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("window=51,causal=true", "window 51; accepted: up to the context, kv_len 50"),
        ("window=5", "window 5; accepted: with causal=true"),
        ("kv_heads=3", "kv_heads 3; accepted: a divisor of heads 4"),
        ("prefix=16", "prefix 16; accepted: 0, or with page="),
        ("prefix=20,page=16", "prefix 20; accepted: whole pages of 16"),
        ("prefix=64,page=16", "prefix 64; accepted: whole pages of 16, at most 50 tokens"),
        ("cached=false,page=16", "cached false; accepted: without page"),
        ("kv_dtype=fp9", "unknown dtype 'fp9'"),
        ("page=-1", "page"),
    ],
)
def test_wrong_attentions_are_refused(more: str, says: str) -> None:
    with pytest.raises(AccelsimError, match="attention") as fault:
        workload(f"attention:heads=4,q=10,kv=50,d=16,{more}")
    assert says in str(fault.value)
    assert "\n" not in str(fault.value)


def test_an_append_into_the_prefix_is_refused() -> None:
    with pytest.raises(AccelsimError, match="position 8; accepted: behind the common prefix of 16"):
        workload("kv_append:kv_heads=2,q=3,d=16,capacity=50,position=8,page=8,prefix=16,batch=2")


def test_what_is_saved_counts_the_keys_that_are_seen_at_all() -> None:
    """4096 of 16384: 2 x 8 heads x 4096 scores in fp32 and weights in bf16."""
    run = simulate("hbm-npu", "attention:heads=8,q=1,kv=16384,d=64,causal=true,window=4096")
    assert "would move 384 KiB more" in run.operators[0].mapping
