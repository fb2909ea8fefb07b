"""Decode batches whose requests have contexts of their own: drawn, given, over several devices."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.api import check, simulate, workload
from accelsim.errors import AccelsimError
from accelsim.functional.reference import rotary_rows
from accelsim.mapping.attention import heads as attention_heads
from accelsim.mapping.attention import partials
from accelsim.workload import KvAppend, Operator, Rotary
from accelsim.workload.attention_operators import Attention
from accelsim.workload.requests import ALPACA, DATA_SETS, SHAREGPT, contexts, requests

MAPPERS = {
    "flash-attention": "hbm-npu",
    "unified-max-attention": "quad-npu",
    "unfused-attention": "hbm-npu",
    "multipass-attention": "tpu-v3",
    "gpu-attention": "a100",
    "gpu-flash-attention": "a100",
    "gpu-flash-attention-unsplit": "a100",
    "gpu-unified-max-attention": "h100",
}
SHAPES = (
    "heads=4,kv_heads=2,q=1,kv=70,d=32,batch=3,contexts=5+70+33",
    "heads=4,q=1,kv=300,d=16,batch=4,contexts=1+300+33+33,causal=true,window=40",
    "heads=4,kv_heads=1,q=1,kv=300,d=16,batch=3,contexts=20+300+17,page=16,prefix=16",
    "heads=2,kv_heads=1,q=1,kv=2500,d=16,batch=2,contexts=2500+20",
    "heads=4,kv_heads=1,q=1,kv=90,d=16,batch=2,contexts=90+7,rope_dim=8,latent=true,kv_dtype=fp16",
)
SMALL = "layers=2,hidden=64,heads=4,ffn=96,vocab=121,phase=decode"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mapper", MAPPERS)
def test_numbers_are_right(mapper: str, shape: str) -> None:
    result = check(MAPPERS[mapper], f"attention:{shape}", mapper=mapper)
    assert result.ok, result.first


def test_a_bias_is_that_of_each_length() -> None:
    shape = "heads=2,kv_heads=1,q=1,kv=90,d=16,batch=2,contexts=90+20,alibi=true"
    for machine in ("hbm-npu", "tpu-v3", "a100"):
        assert check(machine, f"attention:{shape}").ok


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=2, max_size=5), st.sampled_from(list(MAPPERS)))
def test_any_lengths_are_right(lengths: list[int], mapper: str) -> None:
    text = "+".join(str(n) for n in lengths)
    shape = f"heads=2,q=1,kv={max(lengths)},d=16,batch={len(lengths)},contexts={text}"
    assert check(MAPPERS[mapper], f"attention:{shape}", mapper=mapper).ok


@pytest.mark.parametrize("page", [0, 8])
def test_an_append_goes_to_the_end_of_each_sequence(page: int) -> None:
    shape = f"kv_heads=2,q=1,d=16,batch=3,capacity=40,contexts=3+40+9,page={page}"
    operator = workload(f"kv_append:{shape}").operators[0]
    assert isinstance(operator, KvAppend)
    if not page:
        assert operator.rows_written() == ((2, 2), (5, 5), (45, 45), (85, 85), (94, 94), (103, 103))
    for machine in ("hbm-npu", "a100"):
        assert check(machine, f"kv_append:{shape}").ok


def test_a_sequence_takes_the_room_and_the_work_of_its_own_length() -> None:
    ragged = operator_of("heads=4,q=1,kv=300,d=16,batch=3,contexts=10+300+20")
    longest = operator_of("heads=4,q=1,kv=300,d=16,batch=3")
    assert ragged.macs * 900 == longest.macs * 330
    assert ragged.cache_shape(16, 4) == (4 * 330, 16)
    assert sum(ragged.elements_read()[1:]) * 900 == sum(longest.elements_read()[1:]) * 330
    moved = [
        simulate("hbm-npu", f"attention:heads=8,q=1,kv=900,d=64,batch=4{more}").traffic_bytes["hbm"]
        for more in (",contexts=900+100+100+100", "")
    ]
    assert moved[0]["read"] < 0.36 * moved[1]["read"]


def test_equal_lengths_cost_what_one_length_costs() -> None:
    shape = "attention:heads=8,q=1,kv=500,d=64,batch=4"
    for machine in ("hbm-npu", "a100", "tpu-v3"):
        same, alike = (
            simulate(machine, shape + more) for more in ("", ",contexts=500+500+500+500")
        )
        assert same.cycles == alike.cycles


def operator_of(shape: str) -> Attention:
    operator: Operator = workload(f"attention:{shape}").operators[0]
    assert isinstance(operator, Attention)
    return operator


def test_a_key_too_many_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Attention.keys_seen

    def longer(self: Attention, query: int, sequence: int = 0) -> range:
        seen = honest(self, query, sequence)
        return range(seen.start, seen.stop + (sequence == 0))

    shape = "attention:heads=2,q=1,kv=70,d=16,batch=3,contexts=5+70+33"
    original = attention_heads._query_tile

    def wrong(*given: object) -> object:
        with monkeypatch.context() as patch:
            patch.setattr(Attention, "keys_seen", longer)
            return original(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(attention_heads, "_query_tile", wrong)
    assert not check("hbm-npu", shape).ok


def test_a_range_that_a_short_sequence_lacks_is_not_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = "attention:heads=2,kv_heads=1,q=1,kv=2500,d=16,batch=2,contexts=2500+20"
    honest = partials.ranges_of
    monkeypatch.setattr(
        partials, "ranges_of", lambda op, split: [max(honest(op, split))] * op.batch * op.heads
    )
    with pytest.raises(AccelsimError, match="no instruction writes"):
        check("hbm-npu", shape)


@pytest.mark.parametrize("name", DATA_SETS)
def test_drawn_lengths_have_the_published_means(name: str) -> None:
    data, count = DATA_SETS[name], 40_000
    drawn = np.array(requests(data, count, seed=7), dtype=np.float64)
    error = drawn.std(axis=0) / math.sqrt(count)
    published = [data.prompt.mean, data.answer.mean]
    assert (np.abs(drawn.mean(axis=0) - published) < 3 * error).all()
    logs = np.log(drawn[:, 1]).std()
    assert logs == pytest.approx(data.answer.spread, rel=0.03)


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_moment_of_decoding_sees_long_answers_more_often(name: str) -> None:
    """The closed form against a simulation of places that requests take one after the other."""
    data = DATA_SETS[name]
    seen = np.array(contexts(data, 20_000, 3, limit=10**9), dtype=np.float64)
    error = seen.std() / math.sqrt(len(seen))
    assert abs(seen.mean() - data.mean_context) < 3 * error
    steps = np.array([(r.prompt, r.answer) for r in requests(data, 20_000, 11)], dtype=np.float64)
    prompt, answer = steps.T
    held = (answer * (prompt + (answer + 1) / 2)).sum() / answer.sum()
    assert held == pytest.approx(data.mean_context, rel=0.04)


def test_sharegpt_batches_hold_what_the_published_one_holds() -> None:
    """299.9 tokens per request over 512 requests, within the spread of such batches."""
    means = [np.mean(contexts(SHAREGPT, 512, seed, 2048)) for seed in range(20)]
    assert abs(np.mean(means) - 299.9) < 2 * np.std(means)
    assert max(contexts(SHAREGPT, 5000, 1, 2048)) == 2048
    assert np.mean(contexts(ALPACA, 512, 0, 2048)) < 75


def test_the_seed_is_the_draw() -> None:
    assert contexts(ALPACA, 9, 5, 2048) == contexts(ALPACA, 9, 5, 2048)
    assert contexts(ALPACA, 9, 5, 2048) != contexts(ALPACA, 9, 6, 2048)
    graph = workload(f"gpt2:{SMALL},dataset=alpaca,batch=9,seed=5")
    attend = graph.operator("layer0.attention.attend")
    assert isinstance(attend, Attention)
    assert attend.contexts == contexts(ALPACA, 9, 5, 1024)
    assert graph.settings["dataset"] == "Alpaca"
    told = " ".join(graph.assumptions)
    assert "Alpaca (seed 5)" in told
    assert f"{min(attend.contexts)} to {max(attend.contexts)}" in told


@pytest.mark.parametrize(
    "text",
    [
        f"gpt2:{SMALL},dataset=sharegpt,batch=4,seed=2",
        f"llama-2-7b:{SMALL},contexts=5+40+17",
        f"mixtral-8x7b:{SMALL},kv_heads=2,dataset=alpaca,batch=3,seed=1",
        f"mistral-7b:{SMALL},kv_heads=2,sliding_window=16,contexts=9+40,page=8",
        f"gpt2:{SMALL},contexts=5+40+17,tp=2",
        f"gpt2:{SMALL},contexts=5+40+17,tp=4,pp=2",
        f"gpt2:{SMALL},contexts=5+40+17,pp=2,stage=0",
    ],
)
def test_layers_of_ragged_batches_are_right(text: str) -> None:
    for machine in ("hbm-npu", "a100"):
        assert check(machine, text).ok


def test_positions_are_those_of_each_sequence() -> None:
    graph = workload(f"opt-125m:{SMALL},contexts=5+40+17")
    ids = graph.tensors["position_ids"]
    assert ids.values is not None
    assert ids.values.array((3,)).tolist() == [4 + 2, 39 + 2, 16 + 2]
    graph = workload(f"llama-2-7b:{SMALL},contexts=5+40+17")
    table, turn = graph.tensors["rotary.cos"], graph.operator("layer0.attention.k_rotary")
    assert isinstance(turn, Rotary)
    assert rotary_rows(turn).tolist() == [0, 1, 2]
    whole = workload(f"llama-2-7b:{SMALL},context=40").tensors["rotary.cos"]
    assert table.values is not None
    assert whole.values is not None
    rows = whole.values.array(whole.shape)[[4, 39, 16]]
    assert np.array_equal(table.values.array(table.shape), rows)


def test_contexts_from_files(tmp_path: Path) -> None:
    files = {
        "a.csv": "seq_len,ch_idx\n7,0\n12,1\n",
        "b.csv": "7\n12\n",
        "c.json": "[7, 12]",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        graph = workload("gpt2", phase="decode", contexts=str(tmp_path / name))
        attend = graph.operator("layer0.attention.attend")
        assert isinstance(attend, Attention)
        assert attend.contexts == (7, 12)
    assert workload("gpt2", phase="decode", contexts=[7, 12]).settings["context"] == (
        "7 to 12, mean 9.5"
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gpt2:dataset=alpaca", "not dataset="),
        ("gpt2:phase=decode,dataset=alpca", "did you mean 'alpaca'"),
        ("gpt2:phase=decode,contexts=5+x", "request 1 is 'x'"),
        ("gpt2:phase=decode,contexts=5+6,batch=3", "batch 3 with 2 contexts"),
        ("gpt2:phase=decode,contexts=none.csv", "cannot read none.csv"),
        ("gpt2:phase=decode,contexts=5+6,context=4", "context and contexts"),
        ("gpt2:phase=decode,contexts=5+6000", "6000 tokens; accepted: up to its 1024"),
        ("gpt2:phase=decode,seed=3", "or with dataset="),
        ("attention:heads=2,q=2,kv=9,d=8,batch=2,contexts=9+3", "accepted: 1 token per sequence"),
        ("attention:heads=2,q=1,kv=8,d=8,batch=2,contexts=9+3", "the longest of 8"),
        ("attention:heads=2,q=1,kv=9,d=8,contexts=9,cached=false", "cached false"),
        ("gpt2:tp=5", "accepted: a divisor of heads 12"),
        ("gpt2:pp=5", "accepted: a divisor of layers 12"),
        ("gpt2:pp=2,stage=2", "accepted: 0 to 1"),
        ("bert-base:pp=2", "an encoder"),
    ],
)
def test_bad_words_get_one_line(text: str, says: str) -> None:
    with pytest.raises(AccelsimError) as caught:
        workload(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("model", "tp", "pp"), [("7b", 4, 1), ("13b", 4, 1), ("30b", 4, 2)])
def test_a_device_holds_its_part(model: str, tp: int, pp: int) -> None:
    text = f"gpt3-{model}:phase=decode,context=64"
    whole, part = workload(text), workload(f"{text},tp={tp},pp={pp}")
    attend = [g.operator("layer0.attention.attend") for g in (whole, part)]
    assert attend[0].heads == tp * attend[1].heads  # type: ignore[attr-defined]
    widths = [g.operator("layer0.ffn.up_proj").n for g in (whole, part)]  # type: ignore[attr-defined]
    assert widths[0] == tp * widths[1]
    assert part.weight_bytes < 1.1 * whole.weight_bytes / (tp * pp)
    reduced = [op for op in part.operators if "all_reduce" in op.name]
    layers = max(op.layer or 0 for op in part.operators) + 1
    assert len(reduced) == 2 * layers + (pp == 1)
    assert f"{len(reduced)} all-reduces" in " ".join(part.assumptions)


def test_parts_of_all_devices_add_up() -> None:
    """Two devices' output projections, of half the heads each, sum to that of all heads."""
    whole = workload(f"gpt2:{SMALL},context=9")
    part = workload(f"gpt2:{SMALL},context=9,tp=2")
    for name in ("layer0.attention.o_proj", "layer0.ffn.down_proj"):
        full, half = whole.operator(name), part.operator(name)
        assert (full.k, full.n) == (2 * half.k, half.n)  # type: ignore[attr-defined]
    assert 2 * part.macs == pytest.approx(whole.macs, rel=0.01)
