"""Execution in program order and in the clock's order; races, conversions, gathers."""

import numpy as np
import pytest
import tiny_machine as tiny

from accelsim.errors import AccelsimError
from accelsim.functional.execute import execute
from accelsim.functional.memory import Memory
from accelsim.numerics.formats import number_format
from accelsim.program.opcodes import Function, Opcode
from accelsim.program.table import OperatorInfo, StorageInfo
from accelsim.workload.operators import Gemm

GEMM = Gemm("mm", ("a", "b"), ("c",), m=8, n=8, k=44)
FLOATS = tiny.graph_of(GEMM, ("fp16", "fp16", "fp32"), ("input", "weight", "output"))
FAST_LOADS, SLOW_LOADS = [3, 5, 40, 1], [30, 5, 4, 1]


def run(program, schedule=None, dataflow="ws"):
    units = tiny.arch(dataflow=dataflow).units
    memory = Memory(program)
    rng = np.random.default_rng(5)
    for index, info in enumerate(program.storages):
        if info.role in ("input", "weight"):
            memory.storage(index)[...] = rng.standard_normal(info.shape)
    return execute(program, [units[s.unit] for s in program.units], memory, schedule), memory


@pytest.mark.parametrize("latency", [FAST_LOADS, SLOW_LOADS], ids=["array-bound", "load-bound"])
def test_clock_order_equals_program_order(latency):
    program = tiny.gemm_program(GEMM, FLOATS)
    expected = run(program)[0].tensors["mm", "c"]
    captured = run(program, tiny.clock(program, latency))[0]
    assert captured.order == "clock"
    assert captured.tensors["mm", "c"].tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("opcode", "source", "latency"),
    [
        (Opcode.MATMUL, tiny.LOADER, SLOW_LOADS),  # read before write
        (Opcode.LOAD, tiny.ARRAY, FAST_LOADS),  # overwritten before it is read
        (Opcode.STORE, tiny.ARRAY, SLOW_LOADS),  # stored before it is complete
    ],
    ids=["load-to-use", "use-to-reload", "sum-to-store"],
)
def test_dropped_dependency_changes_the_numbers(opcode, source, latency):
    """The program is right in table order; only the clock shows that it is a race."""
    program = tiny.gemm_program(GEMM, FLOATS)
    broken = tiny.without_dependencies(program, opcode, source)
    assert (broken.deps != program.deps).any()
    expected = run(program)[0].tensors["mm", "c"]
    assert run(broken)[0].tensors["mm", "c"].tobytes() == expected.tobytes()
    raced = run(broken, tiny.clock(broken, latency))[0].tensors["mm", "c"]
    assert raced.tobytes() != expected.tobytes()


def test_result_is_garbage_while_it_is_written():
    """A reader between a writer's start and its finish sees poison, not the old contents."""
    build = tiny.machine()
    build.begin_operator(OperatorInfo("op", "elementwise", "hand", 0))
    x = build.storage(StorageInfo("x", tiny.HBM, 0, 16, "input", (4,), "fp32"))
    y = build.storage(StorageInfo("y", tiny.HBM, 4096, 16, "output", (4,), "fp32", 0))
    pad = build.storage(StorageInfo("pad", tiny.PAD, 0, 16, "buffer")).view(1, 4, tiny.FP32)
    build.fill(tiny.LOADER, pad, 1.0)
    build.load(tiny.LOADER, pad, x.view(1, 4, tiny.FP32))
    build.store(tiny.STORER, y.view(1, 4, tiny.FP32), pad)
    program = tiny.without_dependencies(build.finish(), Opcode.STORE, tiny.LOADER)
    schedule = tiny.clock(program, [10, 1, 1, 1])
    schedule.start[2] = 12  # the fill is over at 10, the load runs from 10 to 20
    schedule.finish[2] = 13
    assert np.isnan(run(program, schedule)[0].tensors["op", "y"]).all()


def test_accumulation_adds_at_the_finish():
    """Two accumulations in flight on different units: none may be lost."""
    build = tiny.machine()
    build.begin_operator(OperatorInfo("op", "gemm", "hand", 0))
    ones = build.storage(StorageInfo("x", tiny.PAD, 0, 64, "input", (4, 4), "fp32"))
    acc = build.storage(StorageInfo("acc", tiny.PAD, 256, 64, "output", (4, 4), "fp32", 0))
    a, c = ones.view(4, 4, tiny.FP32), acc.view(4, 4, tiny.FP32)
    for first in (True, False, False):
        build.matmul(tiny.ARRAY, c, a, a, accumulate=not first)
    program = build.finish()
    schedule = tiny.clock(program, [1, 1, 5, 1])
    schedule.start[:] = [0, 1, 2]  # pipelined: all start before the first finishes
    expected = run(program)[0].tensors["op", "acc"]
    assert run(program, schedule)[0].tensors["op", "acc"].tobytes() == expected.tobytes()


def test_transposed_operands():
    build = tiny.machine()
    build.begin_operator(OperatorInfo("op", "gemm", "hand", 0))
    a = build.storage(StorageInfo("a", tiny.PAD, 0, 60, "input", (5, 3), "fp32"))
    b = build.storage(StorageInfo("b", tiny.PAD, 256, 40, "input", (2, 5), "fp32"))
    c = build.storage(StorageInfo("c", tiny.PAD, 512, 24, "output", (3, 2), "fp32", 0))
    views = (c.view(3, 2, tiny.FP32), a.view(5, 3, tiny.FP32), b.view(2, 5, tiny.FP32))
    build.matmul(tiny.ARRAY, *views, accumulate=False, transpose_a=True, transpose_b=True)
    captures, memory = run(build.finish())
    exact = memory.storage(0).astype(float).T @ memory.storage(1).astype(float).T
    assert captures.tensors["op", "c"] == pytest.approx(exact, rel=1e-5)


def test_copies_round_once_to_the_target_format():
    build = tiny.machine()
    build.begin_operator(OperatorInfo("op", "elementwise", "hand", 0))
    x = build.storage(StorageInfo("x", tiny.HBM, 0, 16, "input", (4,), "fp32"))
    y = build.storage(StorageInfo("y", tiny.HBM, 4096, 8, "output", (4,), "bf16", 0))
    bf16 = number_format("bf16")
    build.store(tiny.STORER, y.view(1, 4, bf16), x.view(1, 4, tiny.FP32))
    captures, memory = run(build.finish())
    assert captures.tensors["op", "y"].tobytes() == bf16.encode(memory.storage(0)).tobytes()


@pytest.mark.parametrize("ids", [[2, 0, 2], [0, 5, 1]], ids=["legal", "outside"])
def test_gather(ids):
    build = tiny.machine()
    build.begin_operator(OperatorInfo("op", "embedding", "hand", 0))
    table = build.storage(StorageInfo("table", tiny.HBM, 0, 24, "input", (3, 4), "fp16"))
    index = build.storage(StorageInfo("ids", tiny.HBM, 4096, 12, "constant", (3,), "int32"))
    out = build.storage(StorageInfo("out", tiny.PAD, 0, 24, "output", (3, 4), "fp16", 0))
    fp16, int32 = number_format("fp16"), number_format("int32")
    build.gather(tiny.LOADER, out.view(3, 4, fp16), table.view(3, 4, fp16), index.view(3, 1, int32))
    program = build.finish()
    memory = Memory(program)
    memory.storage(0)[...] = np.arange(12).reshape(3, 4)
    memory.storage(1)[...] = ids
    blocks = [tiny.arch().units[s.unit] for s in program.units]
    got = execute(program, blocks, memory).tensors["op", "out"]
    for row, i in zip(got.tolist(), ids, strict=True):
        assert row == [4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3] if i < 3 else np.isnan(row).all()


def test_output_is_captured_before_its_memory_is_reused():
    build = tiny.machine()
    tensors = [
        build.storage(StorageInfo(name, tiny.PAD, 0, 16, "activation", (4,), "fp32", i))
        for i, name in enumerate(("first", "second"))
    ]
    for i, tensor in enumerate(tensors):
        build.begin_operator(OperatorInfo(f"op{i}", "elementwise", "hand", 0))
        build.fill(tiny.LOADER, tensor.view(1, 4, tiny.FP32), float(i + 1))
    captures, _ = run(build.finish())
    assert captures.tensors["op0", "first"].tolist() == [1] * 4
    assert captures.tensors["op1", "second"].tolist() == [2] * 4


def test_faults_name_the_instruction():
    build = tiny.machine()
    build.begin_operator(OperatorInfo("norm", "rmsnorm", "hand", 0))
    x = build.storage(StorageInfo("x", tiny.PAD, 0, 16, "input", (4,), "fp32")).view(
        1, 4, tiny.FP32
    )
    build.vector(tiny.ARRAY, Function.EXP, x, x)
    with pytest.raises(AccelsimError, match="instruction 0 of norm on array: the unit has no vec"):
        run(build.finish())
