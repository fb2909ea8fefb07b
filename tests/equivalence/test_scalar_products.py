"""Whole programs against scalar rationals: every architecture and GEMM mapper, format by format.

What ``check`` executes (in the clock's order) must be, bit for bit, what the words of the
arithmetic say, computed one output at a time by tests/unit/tensor_core_oracle.py, which shares no
code with accelsim.numerics.
"""

import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "unit"))

import tensor_core_oracle as oracle

from accelsim import api
from accelsim.arch.catalog import list_archs
from accelsim.engine.bind import bind
from accelsim.engine.merge import run as run_engine
from accelsim.functional.check import load_image
from accelsim.functional.execute import execute
from accelsim.functional.memory import Memory
from accelsim.functional.values import graph_values
from accelsim.hw.systolic import Systolic
from accelsim.numerics.formats import FORMATS
from accelsim.numerics.orders import order_of, orders_of
from accelsim.simulation import compile_program, plan_memory

MANTISSA = {"fp32": 23, "fp16": 10, "bf16": 7, "fp8_e4m3": 3, "fp8_e5m2": 2}
STEPS = {  # products and fraction bits of a step, delivered fraction bits
    ("a100", 16): (8, 24, 23), ("a10", 16): (8, 24, 23), ("t4", 16): (8, 24, 23),
    ("rtx-2080ti", 16): (8, 24, 23), ("attacc", 16): (8, 24, 23), ("dgx-a100a", 16): (8, 24, 23),
    ("h100", 16): (16, 25, 23), ("h100", 8): (32, 13, 13),
    ("h200", 16): (16, 25, 23), ("h200", 8): (32, 13, 13),
}  # fmt: skip


MERGES = {("forward", "fp32"), ("forward", "bf16"), ("serial", "bf16")}


def executed(arch, workload, mapper=()):
    """(program, captured tensors, initial tensors, graph) of a workload in the clock's order."""
    machine, graph = api.as_arch(arch), api.as_graph(workload)
    plan = plan_memory(graph, machine, "bandwidth")
    program = compile_program(graph, graph.operators, machine, plan, "bandwidth", mapper)
    values = graph_values(graph, 1)
    memory = Memory(program)
    load_image(program, memory, values)
    schedule = run_engine(bind(program, machine, "bandwidth").timed)
    blocks = [machine.units[slot.unit] for slot in program.units]
    return machine, program, execute(program, blocks, memory, schedule), values


def rnd(name, value):
    return oracle.decode(name, oracle.rounded(value, name, MANTISSA[name], True))[0]


def numbers(fmt, stored):
    """Rationals of stored elements, read by the oracle."""
    codes = fmt.codes(stored)
    return [[oracle.decode(fmt.name, int(c))[0] for c in row] for row in codes]


def systolic_dot(array, x, y):
    """One output: chains of rounded products, fold by fold, or in place."""
    if array.operands:
        x, y = ([rnd(array.operands, v) for v in side] for side in (x, y))
    products = [rnd("fp32", u * v) for u, v in zip(x, y, strict=True)]
    fold = len(products) if array.dataflow == "os" else array.rows
    total = Fraction(0)
    for first in range(0, len(products), fold):
        psum = Fraction(0)
        for p in products[first : first + fold]:
            psum = rnd("fp32", psum + p)
        total = rnd("fp32", total + psum)
    return total


def chain_dot(x, y):
    """One output: a chain of fused multiply-adds."""
    total = Fraction(0)
    for u, v in zip(x, y, strict=True):
        total = rnd("fp32", total + u * v)
    return total


def gpu_dot(gpu, fmt, order, x, y):
    """One output from bit patterns: slices, promoted blocks, steps."""
    products, fraction_bits, kept = STEPS[gpu, fmt.bits]
    slices = []
    for cut in order.cuts(len(x)):
        total, length = Fraction(0), order.promote or len(x)
        for first in range(cut.start, cut.stop, length):
            ks = slice(first, min(first + length, cut.stop))
            pad = [0] * (-(ks.stop - ks.start) % products)
            bits = oracle.chain(
                x[ks] + pad, y[ks] + pad, 0, products, (fmt.name, fmt.name), fraction_bits,
                kept_bits=kept,
            )  # fmt: skip
            total = rnd("fp32", total + oracle.decode("fp32", bits)[0])
        slices.append(total)
    if order.merge == "forward" and len(slices) > 1:
        slices = [rnd(order.partials, part) for part in slices]
    total = slices[0]
    for part in slices[1:]:
        before = rnd(order.partials, total) if order.merge == "serial" else total
        total = rnd("fp32", before + part)
    return total


ABSENT = {
    ("a10", "fp8"), ("a100", "fp8"), ("t4", "fp8"), ("t4", "bf1"), ("rtx-2080ti", "fp8"),
    ("rtx-2080ti", "bf1"), ("attacc", "fp8"), ("dgx-a100a", "fp8"),
}  # fmt: skip
"""Formats that tensor cores do not multiply, by their first letters."""


def cases():
    small, whole = (3, 5, 200), (64, 64, 256)
    for arch in list_archs():
        # Nodes for attention only; banks alone (test_scalar_programs has them).
        if arch in ("stream-sdpa", "aim", "pim-gpt"):
            continue
        for dtype in ("fp16", "bf16", "fp8_e4m3", "fp8_e5m2", "int8"):
            if (arch, dtype[:3]) not in ABSENT:
                yield arch, dtype, small, ()
    yield "edge-npu", "bf16", small, ("gemmini-gemm",)
    yield "quad-npu", "fp8_e4m3", small, ("gemmini-gemm",)
    # K is not split here, so promotion happens within instructions.
    yield "h100", "fp8_e4m3", whole, ()
    yield "a100", "bf16", whole, ()


@pytest.mark.parametrize(("arch", "dtype", "shape", "mapper"), list(cases()))
def test_programs_equal_scalar_rationals(arch, dtype, shape, mapper):
    m, n, k = shape
    work = f"gemm:m={m},n={n},k={k},dtype={dtype}"
    machine, program, captures, values = executed(arch, work, mapper)
    fmt = FORMATS[dtype]
    (got,) = captures.tensors.values()
    a, b = values["gemm.a"], values["gemm.b"]
    if fmt.is_integer:
        want = a.astype(object) @ b.astype(object)
        assert [[int(v) for v in row] for row in got] == want.tolist()
        return
    result = FORMATS[fmt.result]
    codes = result.codes(got)
    arrays = [u for u in machine.units.values() if isinstance(u, Systolic)]
    order = orders_of(program.operators[0].order)
    if (arch, dtype, m) == ("h100", "fp8_e4m3", 64):
        assert str(order[0]) == "promote:128"
    for i in range(0, m, -(-m // 3)):
        for j in range(0, n, -(-n // 5)):
            if arrays or arch == "xeon-6154":
                x, y = numbers(fmt, a[i : i + 1])[0], numbers(fmt, b[:, j][None])[0]
                total = systolic_dot(arrays[0], x, y) if arrays else chain_dot(x, y)
            else:
                x, y = fmt.codes(a[i]).tolist(), fmt.codes(b[:, j].copy()).tolist()
                total = gpu_dot(machine.name, fmt, order[0], x, y)
            bits = oracle.rounded(total, result.name, MANTISSA[result.name], True)
            assert int(codes[i, j]) == bits, (i, j)


@pytest.mark.parametrize("merge", ["compute-type", "output-type", "inplace"])
@pytest.mark.parametrize(
    ("arch", "dtype", "k"), [("a100", "bf16", 1100), ("h100", "fp8_e4m3", 2600)]
)
def test_slices_merge_as_the_program_declares(arch, dtype, k, merge):
    """Another merge of the same slices would give other bits."""
    machine = api.as_arch(arch, {"tensor.merge": merge})
    fmt, m, n = FORMATS[dtype], 2, 16
    _, program, captures, values = executed(machine, f"gemm:m={m},n={n},k={k},dtype={dtype}")
    order = order_of(program.operators[0].order)
    result = FORMATS[fmt.result]
    assert order.slices > 2
    words = {"compute-type": ("forward", "fp32"), "output-type": ("forward", result.name)}
    assert (order.merge, order.partials) == words.get(merge, ("serial", result.name))
    (got,) = captures.tensors.values()
    codes, differs = result.codes(got), 0
    a, b = (fmt.codes(values[f"gemm.{x}"]) for x in "ab")
    for i in range(m):
        for j in range(n):
            x, y = a[i].tolist(), b[:, j].tolist()
            bits = {
                how: oracle.rounded(
                    gpu_dot(arch, fmt, replace(order, merge=how[0], partials=how[1]), x, y),
                    result.name, MANTISSA[result.name], True,
                )
                for how in MERGES
            }  # fmt: skip
            right = bits.pop((order.merge, order.partials))
            assert int(codes[i, j]) == right, (i, j)
            differs += right not in bits.values()
    assert differs > 2


@pytest.mark.parametrize("wrong", ["ampere-mma", "sequential-fp32", "tree16-fp32"])
def test_another_arithmetic_is_another_number(wrong):
    """The comparison has power: other units give other bits for the same program."""
    work = "gemm:m=3,n=5,k=200,dtype=bf16,out=fp32"
    right = executed("h100", work)[2].tensors
    machine = api.as_arch("h100", {"tensor.arithmetic": wrong})
    (got,), (other,) = right.values(), executed(machine, work)[2].tensors.values()
    assert (got != other).any()


def test_another_order_is_another_number():
    work = "gemm:m=3,n=5,k=512,dtype=fp8_e4m3,out=fp32"
    right = executed("h100", work)[2].tensors
    machine = api.as_arch("h100", {"tensor.promote_fp8": 0})
    _, program, captures, _ = executed(machine, work)
    assert program.operators[0].order == "chain"
    (got,), (other,) = right.values(), captures.tensors.values()
    assert (got != other).any()
