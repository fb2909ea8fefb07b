"""Whole GEMM programs, bit for bit against a scalar oracle that shares no code with them."""

import struct

import numpy as np
import pytest

from accelsim.api import arch, workload
from accelsim.engine.bind import bind
from accelsim.engine.merge import run
from accelsim.functional.check import load_image
from accelsim.functional.execute import execute
from accelsim.functional.memory import Memory
from accelsim.functional.values import graph_values
from accelsim.simulation import compile_program, plan_memory


def fl32(x: float) -> float:
    """One rounding to binary32, nearest even, by the C library's own conversion."""
    return float(struct.unpack("<f", struct.pack("<f", x))[0])


def bits16(x: float, fmt: str) -> int:
    """The 16-bit pattern of a binary32 value, nearest even."""
    if fmt == "fp16":
        return int(struct.unpack("<H", struct.pack("<e", x))[0])
    word = int(struct.unpack("<I", struct.pack("<f", x))[0])
    return (word + 0x7FFF + ((word >> 16) & 1)) >> 16


def oracle(a: list[float], b: list[float], rows: int, dataflow: str) -> float:
    """One element: the order in which a cell or a column of the array adds its products."""
    total = 0.0
    if dataflow == "os":
        for x, y in zip(a, b, strict=True):
            total = fl32(total + fl32(x * y))
        return total
    for first in range(0, len(a), rows):
        partial = 0.0
        for x, y in zip(a[first : first + rows], b[first : first + rows], strict=True):
            partial = fl32(partial + fl32(x * y))
        total = partial if first == 0 else fl32(total + partial)
    return total


def outputs(machine: str, shape: str, overrides: dict[str, object]) -> tuple[np.ndarray, ...]:
    """(a, b, c) of a GEMM executed as the clock scheduled it; c as raw bit patterns."""
    target, graph = arch(machine, overrides), workload(shape)
    program = compile_program(
        graph, graph.operators, target, plan_memory(graph, target, "bandwidth"), "bandwidth"
    )
    values = graph_values(graph, seed=7)
    memory = Memory(program)
    load_image(program, memory, values)
    blocks = [target.units[slot.unit] for slot in program.units]
    captured = execute(program, blocks, memory, run(bind(program, target).timed))
    operator = graph.operators[0]
    c = np.asarray(captured.tensors[operator.name, operator.output])
    a, b = (np.asarray(values[name]).astype(np.float64) for name in operator.inputs)
    shapes = operator.input_shapes()
    return a.reshape(shapes[0]), b.reshape(shapes[1]), c.reshape(operator.output_shapes()[0])


@pytest.mark.parametrize("fmt", ["fp16", "bf16", "fp32"])
@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
@pytest.mark.parametrize(
    ("machine", "rows", "cols", "m", "n", "k"),
    [
        ("systolic", 8, 4, 21, 13, 50),
        ("systolic", 16, 16, 5, 70, 129),
        ("quad-npu", 8, 8, 30, 45, 67),
    ],
)
def test_every_bit_of_a_gemm_is_the_oracles(
    machine: str, rows: int, cols: int, m: int, n: int, k: int, dataflow: str, fmt: str
) -> None:
    settings: dict[str, object] = {
        "array.rows": rows, "array.cols": cols, "array.dataflow": dataflow
    }  # fmt: skip
    a, b, c = outputs(machine, f"gemm:m={m},n={n},k={k},dtype={fmt}", settings)
    raw = c.view(np.uint32 if fmt == "fp32" else np.uint16)
    wrong = 0
    for i in range(m):
        for j in range(n):
            exact = oracle(a[i].tolist(), b[:, j].tolist(), rows, dataflow)
            if fmt == "fp32":
                expected = struct.unpack("<I", struct.pack("<f", exact))[0]
            else:
                expected = bits16(exact, fmt)
            wrong += int(raw[i, j]) != expected
    assert wrong == 0


def test_the_oracle_can_tell_dataflows_apart() -> None:
    """Sums in another order differ somewhere, so equality above means something."""
    settings: dict[str, object] = {"array.rows": 8, "array.cols": 8}
    a, b, c = outputs("systolic", "gemm:m=20,n=20,k=100,dtype=fp32", settings)
    values = c.view(np.float32)
    pairs = [(i, j) for i in range(20) for j in range(20)]
    other = [oracle(a[i].tolist(), b[:, j].tolist(), 8, "os") for i, j in pairs]
    folded = [oracle(a[i].tolist(), b[:, j].tolist(), 16, "ws") for i, j in pairs]
    found = [float(values[i, j]) for i, j in pairs]
    assert found != other
    assert found != folded
