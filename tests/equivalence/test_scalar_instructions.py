"""Single instructions against the scalar machine, on the numbers that are hard for them.

tests/equivalence/test_scalar_programs.py executes what mappers emit on bell-shaped numbers; here
every vector function, copy and product meets zeros of both signs, subnormals, infinities, NaN, the
largest numbers and those half-way between two others.
"""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "unit")]

import scalar_machine
import scalar_numbers as num
import tiny_machine as tiny

from accelsim import api
from accelsim.functional.execute import execute
from accelsim.functional.memory import Memory
from accelsim.numerics.formats import number_format
from accelsim.program.opcodes import REDUCTIONS, Function
from accelsim.program.table import OperatorInfo, StorageInfo

F = Function
FORMATS = ("fp32", "fp16", "bf16", "fp8_e4m3", "fp8_e5m2", "int8", "int32")
FP8, GPUS = ("fp8_e4m3", "fp8_e5m2"), ("a100", "h100")
ROWS, COLS = 15, 20
UNITS = {
    "lanes": {"kind": "vector", "lanes": 4},
    "array": {"kind": "systolic", "rows": 4, "dataflow": "ws"},
    "dma": {"kind": "dma"},
}
BINARY = (F.ADD, F.SUB, F.MUL, F.MAX, F.DIV, F.EXP_SUB, F.UNHOT)
IMMEDIATES = {
    F.ADD_IMM: (0.1, -3.0, 2.0**31 - 1), F.MUL_IMM: (1 / 3, -7.0), F.MAX_IMM: (0.25, -5.0, 0.0),
    F.CAUSAL_MASK: (-1.0, 3.0), F.WINDOW_MASK: (-2.0, 4.0), F.ROTATE_HALF: (2.0, 10.0, 20.0),
}  # fmt: skip


def patterns(name, count, seed, calm=False):
    """Bit patterns of a format: random ones, so special ones too, the corners, and ordinary
    numbers; if ``calm``, of what is not finite only one in fifty."""
    rng, bits = np.random.default_rng([seed, *name.encode()]), 8 * num.size_of(name)
    codes = rng.integers(0, 1 << bits, count, dtype=np.uint64)
    if name not in num.INTEGERS:
        top = num.encode(name, num.largest(name))
        corners = [0, 1, 2, top, top + 1, top - 1, num.encode(name, 1.0), num.encode(name, 1.5)]
        near = [num.cast(name, x) for x in (0.1, 3.0, 87.2, 88.5, 2.0**-14, num.NAN)]
        corners += [num.encode(name, x) for x in near]
        sign = rng.integers(0, 2, count, dtype=np.uint64) << np.uint64(bits - 1)
        chosen = rng.choice(np.array(corners, dtype=np.uint64), count) | sign
        ordinary = [num.encode(name, num.cast(name, x)) for x in 2.5 * rng.standard_normal(count)]
        ordinary = np.array(ordinary, dtype=np.uint64)
        kind = rng.integers(0, 4, count)
        codes = np.select([kind == 0, kind == 1], [codes, chosen], ordinary)
    if calm:
        hidden = [not num.finite(num.decode(name, int(c))) for c in codes]
        codes[np.array(hidden) & (rng.random(count) < 0.98)] = num.encode(name, 1)
    return codes.astype(f"<u{bits // 8}")


class Hand:
    """A program written by hand: tensors of bit patterns, and what is done to them."""

    def __init__(self, order=""):
        self.build, self.values, self.places = tiny.machine(), {}, [0, 0]
        self.build.begin_operator(OperatorInfo("op", "elementwise", "hand", 0, order=order))

    def storage(self, space, role, name, rows, cols):
        index = len(self.places)
        self.places.append(0)
        fmt, base = number_format(name), self.places[space]
        nbytes = rows * cols * num.size_of(name)
        self.places[space] += nbytes + -nbytes % 64
        producer = 0 if role == "output" else -1
        info = StorageInfo(
            f"t{index}", space, base, nbytes, role, (rows, cols), name, producer
        )  # fmt: skip
        return info, self.build.storage(info).view(rows, cols, fmt)

    def given(self, name, rows=ROWS, cols=COLS, calm=False):
        """An operand on chip, and the tensor that it was loaded from."""
        info, source = self.storage(tiny.HBM, "input", name, rows, cols)
        self.values[info.name] = patterns(name, rows * cols, len(self.places), calm)
        _, held = self.storage(tiny.PAD, "buffer", name, rows, cols)
        self.build.load(tiny.LOADER, held, source)
        return held

    def buffer(self, name, rows, cols):
        return self.storage(tiny.PAD, "buffer", name, rows, cols)[1]

    def keep(self, held, name):
        target = self.storage(tiny.HBM, "output", name, held.rows, held.cols)[1]
        self.build.store(tiny.STORER, target, held)

    def compare(self, block=None, settings=None):
        """How many numbers agree; asserts that all do, NaN with any NaN. ``block`` is the matrix
        unit, if it is not the tiny machine's, and ``settings`` its entry in a file."""
        program = self.build.finish()
        known = {**UNITS, "array": settings or UNITS["array"]}
        want = scalar_machine.Machine(program, known).run(self.values)
        units, memory = tiny.arch().units, Memory(program)
        units["array"] = block or units["array"]
        for index, info in enumerate(program.storages):
            if info.name in self.values:
                fmt = number_format(info.format)
                memory.fill(index, fmt.stored(self.values[info.name]).reshape(info.shape))
        got = execute(program, [units[s.unit] for s in program.units], memory).tensors
        formats = {s.name: s.format for s in program.storages}
        compared = 0
        assert want.keys() == got.keys()
        for key, right in want.items():
            name = formats[key[1]]
            size, found = num.size_of(name), got[key].tobytes()
            for i in range(0, len(right), size):
                a, b = (int.from_bytes(raw[i : i + size], "little") for raw in (right, found))
                x, y = num.decode(name, a), num.decode(name, b)
                assert a == b or (x != x and y != y), (key, name, i // size, x, y)
                compared += x == x
        return compared


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("function", [f for f in F if f != F.NONE], ids=lambda f: f.name.lower())
def test_vector_functions(function, name):
    hand = Hand()
    wide = "int32" if name in num.INTEGERS else "fp32"
    a = hand.given(name, calm=function in REDUCTIONS)
    cols = 1 if function in REDUCTIONS else COLS
    seconds = [(ROWS, COLS), (ROWS, 1), (1, COLS)] if function in BINARY else [None]
    for shape in seconds:
        for other in (name, wide) if shape else (name,):
            b = hand.given(other, *shape) if shape else None
            for imm in IMMEDIATES.get(function, (0.0,)):
                for result in (name, "fp32"):
                    out = hand.buffer(result, ROWS, cols)
                    hand.build.vector(tiny.LANES, function, out, a, b, imm=imm)
                    hand.keep(out, result)
    assert hand.compare() >= ROWS * cols / 2


@pytest.mark.parametrize("source", FORMATS)
def test_copies_between_all_formats(source):
    hand = Hand()
    held = hand.given(source, 16, 16)
    for name in FORMATS:
        hand.keep(held, name)
    assert hand.compare() > 150 * len(FORMATS)


@pytest.mark.parametrize("source", FORMATS)
def test_fills(source):
    hand = Hand()
    for value in (0.1, -0.0, 1e-9, -1e9, np.inf, -np.inf, np.nan, 464.0, 2.5):
        held = hand.buffer(source, 1, 3)
        hand.build.fill(tiny.LOADER, held, value)
        hand.keep(held, source)
    assert hand.compare() >= 15


def product(name, accumulator, flags, shape, order=""):
    """One MATMUL of hard numbers: bit 0 and 1 of ``flags`` transpose, bit 2 accumulates."""
    hand, (m, n, k) = Hand(order), shape
    across, down, held = (bool(flags & bit) for bit in (1, 2, 4))
    a = hand.given(name, *((k, m) if across else (m, k)), calm=True)
    b = hand.given(name, *((n, k) if down else (k, n)), calm=True)
    sums = hand.given(accumulator, m, n, calm=True)
    hand.build.matmul(
        tiny.ARRAY, sums, a, b, accumulate=held, transpose_a=across, transpose_b=down
    )  # fmt: skip
    hand.keep(sums, accumulator)
    return hand


@pytest.mark.parametrize("flags", range(8))
@pytest.mark.parametrize("dataflow", ["ws", "is", "os"])
@pytest.mark.parametrize("name", FORMATS)
def test_products_of_arrays(name, dataflow, flags):
    sums = "int32" if name in num.INTEGERS else "fp32"
    hand = product(name, sums, flags, (6, 7, 11))
    settings = {**UNITS["array"], "dataflow": dataflow}
    assert hand.compare(tiny.arch(dataflow=dataflow).units["array"], settings) > 10


@pytest.mark.parametrize("held", [0, 4], ids=["new", "onto"])
@pytest.mark.parametrize(
    ("arch", "name", "accumulator", "order"),
    [
        (arch, name, accumulator, order)
        for arch, name, accumulator in (
            *((arch, name, "fp32") for arch in GPUS for name in ("fp16", "bf16", "fp32")),
            *((arch, "fp16", "fp16") for arch in GPUS),
            *((arch, "int8", "int32") for arch in GPUS),
            *(("h100", name, sums) for name in FP8 for sums in ("fp32", "fp16")),
        )
        for order in ("chain", "promote:32")
        if accumulator == "fp32" or order == "chain"
    ],
)
def test_products_of_tensor_cores(arch, name, accumulator, order, held):
    hand = product(name, accumulator, held, (8, 9, 75), order)
    settings = scalar_machine.units_of(arch)["tensor"]
    assert hand.compare(api.arch(arch).units["tensor"], settings) > 10
