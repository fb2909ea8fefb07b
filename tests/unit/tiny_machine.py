"""A tiny machine, programs for it written by hand, and a clock of fifteen lines."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np

from accelsim.hw.dma import Dma
from accelsim.hw.systolic import Systolic
from accelsim.hw.vector import Vector
from accelsim.numerics.formats import number_format
from accelsim.program.builder import Builder
from accelsim.program.table import (
    COLUMN,
    AddressSpace,
    OperatorInfo,
    StorageInfo,
    UnitSlot,
)
from accelsim.workload.graph import Graph
from accelsim.workload.tensors import TensorSpec

LOADER, STORER, ARRAY, LANES = range(4)
HBM, PAD = range(2)
FP32 = number_format("fp32")


def arch(rows=4, dataflow="ws", lanes=4):
    """Two DMA queues, one array, one vector unit, by unit name."""
    memories = {"inputs": "pad", "weights": "pad", "outputs": "pad"}
    return SimpleNamespace(
        units={
            "dma": Dma(count=2),
            "array": Systolic(rows=rows, cols=4, dataflow=dataflow, **memories),
            "lanes": Vector(lanes=lanes, memory=("pad",)),
        }
    )


def machine():
    units = [UnitSlot("dma0", "dma", 0), UnitSlot("dma1", "dma", 0)]
    units += [UnitSlot("array", "array", 0), UnitSlot("lanes", "lanes", 0)]
    return Builder(
        units, [AddressSpace("hbm", "hbm", 1 << 35, -1), AddressSpace("pad", "pad", 1 << 20, 0)]
    )


def tensors(build, graph, producer):
    """Storages of all tensors of a graph, far apart; ``producer`` by tensor name."""
    return {
        spec.name: build.storage(
            StorageInfo(
                spec.name, HBM, (i + 1) << 24, spec.bytes, spec.role, spec.shape, spec.dtype,
                producer.get(spec.name, -1),
            )
        )
        for i, spec in enumerate(graph.tensors.values())
    }  # fmt: skip


@dataclass(frozen=True)
class Mutation:
    """What a faulty mapper might do to the GEMM below."""

    drop_last_k: bool = False
    skip_first_reset: bool = False
    shift_b: int = 0


def gemm_program(op, graph, mutation=Mutation(), tk=8):
    """One output tile, K in double-buffered tiles of ``tk``, accumulated in fp32, stored once."""
    build = machine()
    store = tensors(build, graph, {op.output: 0})
    build.begin_operator(OperatorInfo(op.name, op.kind, "hand", op.macs))
    fmt = number_format(graph.tensors[op.inputs[0]].dtype)
    out = number_format(graph.tensors[op.output].dtype)
    sums = number_format("int32") if fmt.is_integer else FP32
    a, b = store[op.inputs[0]].view(op.m, op.k, fmt), store[op.inputs[1]].view(op.k, op.n, fmt)
    place = iter(range(0, 1 << 20, 1 << 16))

    def buffer(name, rows, cols, form):
        extent = build.storage(StorageInfo(name, PAD, next(place), rows * cols * 4, "buffer"))
        return extent.view(rows, cols, form)

    a_tiles = [buffer(f"a{i}", op.m, tk, fmt) for i in range(2)]
    b_tiles = [buffer(f"b{i}", tk, op.n, fmt) for i in range(2)]
    acc = buffer("acc", op.m, op.n, sums)
    starts = list(range(0, op.k, tk))
    for i, k in enumerate(starts[:-1] if mutation.drop_last_k else starts):
        width = min(tk, op.k - k)
        a_tile, b_tile = a_tiles[i % 2][:, :width], b_tiles[i % 2][:width, :]
        for tile in (a_tile, b_tile):
            tile.storage.renew()
        build.load(LOADER, a_tile, a[:, k : k + width])
        source = b[k : k + width, :]
        source.base += mutation.shift_b if k == 0 else 0
        build.load(LOADER, b_tile, source)
        build.matmul(ARRAY, acc, a_tile, b_tile, accumulate=i > 0 or mutation.skip_first_reset)
    build.store(STORER, store[op.output].view(op.m, op.n, out), acc)
    return build.finish()


def without_dependencies(program, opcode, source_unit):
    """The program whose ``opcode`` instructions do not wait for ``source_unit`` any more."""
    rows = program.instructions.copy()
    unit = rows[:, COLUMN["unit"]]
    first = COLUMN["dep0"]
    for column in range(first, first + 3):
        waits = (rows[:, COLUMN["opcode"]] == opcode) & (rows[:, column] >= 0)
        waits &= unit[rows[:, column]] == source_unit
        rows[waits, column] = -1
    return replace(program, instructions=rows)


def clock(program, latency):
    """In-order units that wait for dependencies; ``latency[unit]`` ticks, one at a time."""
    n = len(program)
    start, finish = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    free = dict.fromkeys(range(len(program.units)), 0)
    for i, row in enumerate(program.instructions.tolist()):
        unit = row[COLUMN["unit"]]
        waits = [finish[d] for d in program.deps[i] if d >= 0]
        start[i] = max([free[unit], *waits])
        finish[i] = free[unit] = start[i] + latency[unit]
    order = np.lexsort((np.arange(n), start))
    return SimpleNamespace(start=start, finish=finish, order=order)


def graph_of(op, dtypes, roles):
    """A graph of one operator; dtypes and roles of its inputs and output, in that order."""
    shapes = (*op.input_shapes(), *op.output_shapes())
    names = (*op.inputs, *op.outputs)
    specs = [TensorSpec(*spec) for spec in zip(names, shapes, dtypes, roles, strict=True)]
    return Graph("tiny", {spec.name: spec for spec in specs}, (op,))
