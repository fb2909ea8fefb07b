"""How measured rows become workloads, without running all of them."""

import pytest
from accelsim.validation.a100 import kernel_us, predicted_us
from accelsim.validation.a100.calibrate import best_overheads, squared_error
from accelsim.validation.a100.workloads import Measured, measured, twice
from accelsim.validation.a100_linear.llama import workload_of

from accelsim.errors import AccelsimError
from accelsim.results.claims import truth
from accelsim.workload import workload

LLAMA_2_70B = {"n_embd": "8192", "n_ffn": "28672", "n_head": "64", "n_kv_head": "8"}


@pytest.mark.parametrize(
    ("op", "macs"),
    [
        ("attn_pre_proj", 7 * (64 + 16) * 128 // 8 * 8192),
        ("attn_post_proj", 7 * 8192 * 8192 // 8),
        ("mlp_up_proj", 7 * 2 * 28672 // 8 * 8192),
        ("mlp_down_proj", 7 * 8192 * 28672 // 8),
    ],
)
def test_shards_of_llama_2_70b(op, macs):
    row = {"op": op, "tp": "8", "num_tokens": "7", **LLAMA_2_70B}
    assert workload(workload_of(row)).macs == macs


def test_rows_of_llama_2_70b():
    def shape(op):
        graph = workload(workload_of({"op": op, "tp": "8", "num_tokens": "7", **LLAMA_2_70B}))
        return graph.tensors[graph.operators[0].inputs[0]].shape

    assert shape("mlp_act") == (7, 2 * 28672 // 8)
    assert shape("attn_rope") == (7, (64 + 8) * 128 // 8)
    assert shape("input_layernorm") == shape("add") == (7, 8192)


def test_every_measured_row_is_understood():
    for machine in ("a100", "h100"):
        for row in truth(f"accelsim.validation.{machine}_linear", "measured.csv"):
            workload(workload_of(row))
    for row in truth("accelsim.validation.a100", "measured.csv"):
        workload(measured(row["op"], row["shape"]).text)


@pytest.mark.parametrize("name", ["Q_mul_K", "Wo_proj", "W2_proj", "Softmax", "LayerNorm_MHA"])
@pytest.mark.parametrize("phase", ["prefill b=8 s=2048", "decode b=8 s_ctx=3072"])
def test_operators_of_a_gpt3_layer_that_have_no_row(name, phase):
    call = measured(f"GPT3-175B layer TP4 {phase} / {name}", "")
    assert workload(call.text).operators


def test_what_is_no_kernel_of_one_gpu_is_refused():
    with pytest.raises(AccelsimError, match=r"no workload for 'AllReduce_MHA' of a layer"):
        measured("GPT3-175B layer TP4 prefill b=8 s=2048 / AllReduce_MHA", "")
    with pytest.raises(AccelsimError, match=r"no workload for measured operator 'all-reduce'"):
        measured("all-reduce", "bytes=32")
    with pytest.raises(AccelsimError, match=r"no workload for measured operator 'emb'"):
        workload_of({"op": "emb", "tp": "1", "num_tokens": "1", **LLAMA_2_70B})


def test_the_second_kernel_finds_its_input_in_the_cache():
    text = "activation:function=gelu_tanh,rows=1,cols=4194304,dtype=fp16"
    first, again = twice(text).operators
    assert first.inputs == again.inputs
    assert first.outputs != again.outputs
    from accelsim.api import simulate

    cold = simulate("a100", text).seconds * 1e6
    assert kernel_us(text) < 0.9 * cold


def test_calls_that_are_added_up_pay_their_overhead_each():
    one = Measured("gemm:m=64,n=64,k=64,dtype=fp16", "matmul")
    three = Measured(one.text, one.call, 3)
    overhead = {"matmul": 20.0}
    assert predicted_us(three, None, overhead) == pytest.approx(
        3 * predicted_us(one, None, overhead)
    )


def test_overheads_are_the_least_squares():
    rows = [(Measured("", "matmul"), 30.0, 10.0), (Measured("", "matmul"), 200.0, 170.0)]
    best = best_overheads(rows)
    rest = dict.fromkeys(best, 0.0)
    least = squared_error(rows, {**rest, "matmul": best["matmul"]})
    for step in (-1.0, 1.0):
        assert least < squared_error(rows, {**rest, "matmul": best["matmul"] + step})
