"""Fused attention as a program and as a function: the tag says enough to give the same bits."""

import numpy as np
import pytest

from accelsim import api
from accelsim.engine.bind import bind
from accelsim.engine.merge import run as run_engine
from accelsim.functional.attention import visible_keys
from accelsim.functional.check import load_image
from accelsim.functional.execute import execute
from accelsim.functional.lowering import lowerings
from accelsim.functional.memory import Memory
from accelsim.functional.values import graph_values
from accelsim.numerics.attention import AttentionOrder, attention
from accelsim.numerics.formats import FORMATS
from accelsim.numerics.orders import order_of
from accelsim.simulation import compile_program, plan_memory


def executed(work):
    """(result, operands as [rows, d], operator, the order that check reports), one head on
    hbm-npu, in the clock's order."""
    machine, graph = api.as_arch("hbm-npu"), api.as_graph(work)
    plan = plan_memory(graph, machine, "bandwidth")
    program = compile_program(
        graph, graph.operators, machine, plan, "bandwidth", ("flash-attention",)
    )
    values, memory = graph_values(graph, 1), Memory(program)
    load_image(program, memory, values)
    schedule = run_engine(bind(program, machine, "bandwidth").timed)
    blocks = [machine.units[slot.unit] for slot in program.units]
    (got,) = execute(program, blocks, memory, schedule).tensors.values()
    (op,) = graph.operators
    assert op.heads == op.batch == 1
    fmt = FORMATS[graph.tensors[op.inputs[0]].dtype]
    q, k, v = (fmt.decode(values[n]).reshape(-1, op.head_dim) for n in op.inputs[:3])
    return got, (q, k, v), op, lowerings(program, blocks)[0].order


def replayed(operands, op, tag, fmt):
    order = AttentionOrder("sequential-fp32", fmt, order_of(tag))
    return FORMATS[fmt].encode(attention(*operands, op.scale, order, visible_keys(op)))


def shapes(count, seed):
    rng = np.random.default_rng(seed)
    for i in range(count):
        q = int(rng.integers(2, 40))
        keys = int(rng.integers(q, 40) if i % 4 == 0 else rng.integers(400, 1300))
        yield q, max(q, keys), int(rng.integers(2, 70))


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("causal", ["false", "true"])
def test_a_program_and_its_tag_give_the_same_bits(causal, dtype):
    blocks = set()
    for q, kv, d in shapes(8, seed=len(causal) + len(dtype)):
        work = f"attention:heads=1,q={q},kv={kv},d={d},causal={causal},dtype={dtype}"
        got, operands, op, tag = executed(work)
        want = replayed(operands, op, tag, dtype)
        assert got.tobytes() == want.tobytes(), (work, tag)
        blocks.add(-(-kv // order_of(tag).online.keys))
    assert max(blocks) > 1


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("kv", [4000, 2777])
def test_ranges_of_keys_are_merged_as_the_tag_says(kv, dtype):
    got, operands, op, tag = executed(f"attention:heads=1,q=1,kv={kv},d=24,dtype={dtype}")
    assert order_of(tag).online.span < kv
    assert got.tobytes() == replayed(operands, op, tag, dtype).tobytes()


def test_every_word_of_the_tag_counts():
    """The same operands by another tag are other bits."""
    got, operands, op, tag = executed("attention:heads=1,q=30,kv=900,d=64,dtype=fp32")
    assert got.tobytes() == replayed(operands, op, tag, "fp32").tobytes()
    assert tag == "online:384;exp;p:fp32;sums:fp32:1024;reciprocal;fold:128"
    for word, other in (
        ("online:384", "online:256"), ("exp;", "ranges:450;exp;"), ("exp;", "exp2;"),
        ("p:fp32", "p:bf16"), ("sums:fp32", "sums:fp16"), ("1024", "64"), ("reciprocal", "divide"),
        ("fold:128", "fold:32"),
    ):  # fmt: skip
        wrong = replayed(operands, op, tag.replace(word, other), "fp32")
        assert (got.reshape(wrong.shape) != wrong).any(), other
