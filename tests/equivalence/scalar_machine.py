"""A second interpreter of tile programs: one element at a time, in program order.

Shares no code with accelsim.functional and accelsim.numerics. It reads the tables of a program
(program/table.py says what they mean) and, by the names of its units, the architecture's file.
"""

import math

import scalar_numbers as num
import yaml
from scalar_codes import decoded, encoded
from scalar_powers import functions_of
from scalar_products import product_of

from accelsim.arch.catalog import library_folder
from accelsim.program.opcodes import Flag, Function, Opcode
from accelsim.program.table import COLUMN

CODED = 1 << 16  # format codes from here on: coded bytes

NOBODY_WROTE = b"\xc0\x7f"  # what a read of bytes finds that were never written

SPECIAL = {
    Function.EXP: num.exp, Function.RECIPROCAL: num.reciprocal, Function.RSQRT: num.rsqrt,
    Function.TANH: num.tanh, Function.SIGMOID: num.sigmoid, Function.GELU: num.gelu,
    Function.GELU_TANH: num.gelu_tanh, Function.SILU: num.silu, Function.SQRT: num.sqrt,
    Function.STEP: num.step, Function.TANH_GRAD: num.tanh_grad, Function.GELU_GRAD: num.gelu_grad,
    Function.SIGMOID_GRAD: num.sigmoid_grad, Function.SILU_GRAD: num.silu_grad,
    Function.GELU_TANH_GRAD: num.gelu_tanh_grad,
}  # fmt: skip
FLOATING = (  # of integers, too
    *SPECIAL, Function.CAUSAL_MASK, Function.WINDOW_MASK, Function.ROTATE_HALF,
    Function.DIV, Function.EXP_SUB, Function.UNHOT,
)  # fmt: skip
IMMEDIATE = {
    Function.ADD_IMM: Function.ADD, Function.MUL_IMM: Function.MUL, Function.MAX_IMM: Function.MAX,
}  # fmt: skip


SUMS_OF = {
    "hbm-pim": {"arithmetic": "macs16-fp16"},
    "attacc-bank": {"arithmetic": "banks4-tree16-fp32", "column_arithmetic": "macs16x2-fp16"},
}
"""How banks form sums, by family; of the others by tree16-fp32."""


def units_of(arch):
    """The entries of an architecture's units, by name."""
    units = yaml.safe_load((library_folder() / f"{arch}.yaml").read_text())["units"]
    return {name: {**SUMS_OF.get(one.get("family"), {}), **one} for name, one in units.items()}


class Machine:
    """The bytes of a program's address spaces and what its instructions do to them."""

    def __init__(self, program, units):
        self.program = program
        self.units = [units[slot.unit] for slot in program.units]
        ends = [2] * len(program.spaces)
        for info in program.storages:
            ends[info.space] = max(ends[info.space], info.base + info.nbytes)
        self.bytes = [bytearray(NOBODY_WROTE * (-(-end // 2))) for end in ends]
        self.operands = [tuple(row) for row in program.operands.tolist()]
        self.kept = {}  # vectors of the last product in banks, by unit
        self.held = {}  # sums that banks keep for their next product, by unit

    # -- bytes ---------------------------------------------------------------------------------

    def shape(self, operand):
        _, _, _, rows, row_bytes, _, code = self.operands[operand]
        if form := self.form(operand):
            return form.rows, form.cols
        return rows, row_bytes // num.size_of(num.NAMES[code])

    def format(self, operand):
        form = self.form(operand)
        return form.format if form else num.NAMES[self.operands[operand][6]]

    def form(self, operand):
        """What coded bytes stand for, None of other operands."""
        code = self.operands[operand][6]
        return self.program.forms[code - CODED] if code >= CODED else None

    def read(self, operand):
        """Rows of values; coded bytes are decoded."""
        _, space, base, _, width, stride, _ = self.operands[operand]
        if form := self.form(operand):
            lines, k = (form.cols, form.rows) if form.k_rows else (form.rows, form.cols)
            raw = bytes(self.bytes[space][base : base + width])
            values = decoded(form.encoding, form.format, raw, lines, k)
            return list(zip(*values, strict=True)) if form.k_rows else values
        name, (rows, cols) = self.format(operand), self.shape(operand)
        size, memory = num.size_of(name), self.bytes[space]
        return [
            [
                num.decode(name, int.from_bytes(memory[at : at + size], "little"))
                for at in range(base + r * stride, base + r * stride + cols * size, size)
            ]
            for r in range(rows)
        ]

    def write(self, operand, value):
        """``value(row, column)``, rounded to the operand's format."""
        _, space, base, _, _, stride, _ = self.operands[operand]
        name, (rows, cols) = self.format(operand), self.shape(operand)
        size, memory = num.size_of(name), self.bytes[space]
        for r in range(rows):
            for c in range(cols):
                at = base + r * stride + c * size
                code = num.encode(name, num.cast(name, value(r, c)))
                memory[at : at + size] = code.to_bytes(size, "little")

    def copy(self, target, source, rows=None):
        """Elements as they are, or rounded if the formats differ; ``rows`` says which."""
        if self.form(source):
            _, space, base, _, width, _, _ = self.operands[source]
            to = self.operands[target]
            self.bytes[to[1]][to[2] : to[2] + width] = self.bytes[space][base : base + width]
            return
        name, values = self.format(source), self.read(source)
        if rows is not None:
            values = [values[r] for r in rows]
        if name != self.format(target):
            self.write(target, lambda r, c: values[r][c])
            return
        (_, space, base, _, width, stride, _), to = self.operands[source], self.operands[target]
        chosen = range(len(values)) if rows is None else rows
        starts = [base + r * stride for r in chosen]
        lines = [bytes(self.bytes[space][start : start + width]) for start in starts]
        for r, line in enumerate(lines):
            at = to[2] + r * to[5]
            self.bytes[to[1]][at : at + width] = line

    # -- tensors -------------------------------------------------------------------------------

    def places(self, info):
        """Byte address of every element of a tensor, row after row of its 2-D form."""
        size = num.size_of(info.format)
        cols = info.shape[-1] if info.shape else info.nbytes // size
        rows = 1
        for extent in info.shape[:-1]:
            rows *= extent
        if info.regions:
            for r in range(rows):
                for c in range(cols):
                    yield info.base + next(
                        one.offset + (r - one.row) * one.row_step + (c - one.col) * one.col_step
                        for one in info.regions
                        if 0 <= r - one.row < one.rows and 0 <= c - one.col < one.cols
                    )
            return
        first = info.panels or (0,)
        panels = list(zip(first, (*first[1:], cols), strict=True))
        for r in range(rows):
            for start, end in panels:
                for c in range(start, end):
                    yield info.base + (rows * start + r * (end - start) + c - start) * size

    def fill(self, info, raw):
        """Put a tensor's bytes where its storage has its elements."""
        size, memory = num.size_of(info.format), self.bytes[info.space]
        for i, at in enumerate(self.places(info)):
            memory[at : at + size] = raw[i * size : (i + 1) * size]

    def fill_coded(self, info, raw, coding, kept):
        """Put a weight's tiles, each encoded by itself, where its storage has them."""
        size, cols = num.size_of(info.format), info.shape[-1]
        for tile in info.tiles:
            lines = [
                [
                    int.from_bytes(raw[(r * cols + c) * size :][:size], "little")
                    for c in range(tile.col, tile.col + tile.cols)
                ]
                for r in range(tile.row, tile.row + tile.rows)
            ]
            matrix, row = divmod(tile.row, info.shape[-2])
            down = coding.axis == -2
            lines = list(zip(*lines, strict=True)) if down else lines
            part = None
            if kept is not None:
                first, start = (tile.col, row) if down else (row, tile.col)
                first += matrix * (cols if down else info.shape[-2])
                k = len(lines[0])
                part = [line[start : start + k] for line in kept[first : first + len(lines)]]
            coded = encoded(info.encoding, info.format, lines, part)
            assert len(coded) == tile.nbytes
            at = info.base + tile.offset
            self.bytes[info.space][at : at + len(coded)] = coded

    def decoded_tensor(self, info):
        """The elements of a tensor that was written in coded tiles, groups down its rows or not."""
        size, cols = num.size_of(info.format), info.shape[-1]
        whole = bytearray(math.prod(info.shape) * size)
        index = self.program.storages.index(info)
        codes = {row[6] for row in self.operands if row[0] == index and row[6] >= CODED}
        down = self.program.forms[min(codes) - CODED].k_rows
        for tile in info.tiles:
            count, k = (tile.cols, tile.rows) if down else (tile.rows, tile.cols)
            at = info.base + tile.offset
            raw = bytes(self.bytes[info.space][at : at + tile.nbytes])
            lines = decoded(info.encoding, info.format, raw, count, k)
            lines = list(zip(*lines, strict=True)) if down else lines
            for r, line in enumerate(lines, tile.row):
                for c, v in enumerate(line, tile.col):
                    code = num.encode(info.format, v).to_bytes(size, "little")
                    whole[(r * cols + c) * size : (r * cols + c + 1) * size] = code
        return bytes(whole)

    def tensor(self, info):
        if info.encoding:
            return self.decoded_tensor(info)
        size, memory = num.size_of(info.format), self.bytes[info.space]
        return b"".join(bytes(memory[at : at + size]) for at in self.places(info))

    # -- instructions --------------------------------------------------------------------------

    def run(self, values):
        """Execute everything; bytes of all tensors that operators wrote, by (operator, tensor)."""
        program = self.program
        for info in program.storages:
            if info.role not in ("buffer", "scratch") and info.name in values:
                raw = values[info.name].tobytes()
                if info.encoding:
                    self.fill_coded(info, raw, *values.codings[info.name])
                else:
                    self.fill(info, raw)
        rows = [dict(zip(COLUMN, row, strict=True)) for row in program.instructions.tolist()]
        last = {}
        for i, row in enumerate(rows):
            if row["dst"] >= 0:
                last[row["operator"], self.operands[row["dst"]][0]] = i
        results = {}
        for i, row in enumerate(rows):
            self.execute(row, float(program.immediate[i]))
            storage = self.operands[row["dst"]][0] if row["dst"] >= 0 else -1
            info = program.storages[storage]
            if last.get((row["operator"], storage)) == i and info.role not in ("buffer", "scratch"):
                name = program.operators[row["operator"]].name
                results[name, info.name] = self.tensor(info)
        return results

    def execute(self, row, imm):
        dst, src0, src1 = row["dst"], row["src0"], row["src1"]
        match row["opcode"]:
            case Opcode.JOIN | Opcode.LAUNCH:
                pass
            case Opcode.LOAD | Opcode.STORE | Opcode.MULTICAST | Opcode.DELIVER:
                self.copy(dst, src0)
            case Opcode.GATHER:
                self.copy(dst, src0, [line[0] for line in self.read(src1)])
            case Opcode.FILL:
                self.write(dst, lambda r, c: imm)
            case Opcode.DECODE:
                values = self.read(src0)
                self.write(dst, lambda r, c: values[r][c])
            case Opcode.ENCODE:
                self.encode(dst, src0, row["flags"] & Flag.TRANSPOSE_A)
            case Opcode.PIM:
                self.in_banks(row, dst, src0, src1)
            case Opcode.MATMUL:
                self.multiply(row, dst, src0, src1, imm)
            case Opcode.VECTOR:
                operands = [self.read(s) for s in (src0, src1) if s >= 0]
                formats = [self.format(s) for s in (src0, src1) if s >= 0]
                unit = self.units[row["unit"]]
                lanes = unit.get("lanes")  # streaming nodes have none
                made = functions_of(unit) if unit.get("functions") == "powers-fp32" else {}
                result = vector(Function(row["function"]), operands, formats, imm, lanes, made)
                self.write(dst, lambda r, c: at(result, r, c))
            case other:
                raise AssertionError(f"opcode {other}")

    def encode(self, dst, src, turned):
        """Codes of values, line by line along the reduction, as coded bytes."""
        form, values = self.form(dst), self.read(src)
        if bool(turned) != form.k_rows:  # rows are the lines, or columns are
            values = list(zip(*values, strict=True))
        lines = [[num.encode(form.format, v) for v in line] for line in values]
        coded = encoded(form.encoding, form.format, lines, None)
        _, space, base, _, width, _, _ = self.operands[dst]
        assert len(coded) == width
        self.bytes[space][base : base + width] = coded

    def in_banks(self, row, dst, src0, src1):
        """m vectors, each with n rows of its own, or with its part of the same n rows."""
        vectors, matrix, k = self.read(src0), self.read(src1), row["k"]
        formats = [self.format(d) for d in (src0, src1, dst)]
        unit, columns = self.units[row["unit"]], row["flags"] & Flag.COLUMNS
        if row["flags"] & Flag.KEPT:
            vectors = self.kept[row["unit"]]
        self.kept[row["unit"]] = vectors
        if columns:
            unit = {**unit, "arithmetic": unit["column_arithmetic"]}
            matrix = list(zip(*matrix, strict=True))
        elif not row["flags"] & Flag.ABREAST:
            flat = [v for line in matrix for v in line]
            matrix = [flat[first : first + k] for first in range(0, len(flat), k)]
        dot = product_of(unit, "", formats)
        before = self.held.pop(row["unit"], {}) if row["flags"] & Flag.ACCUMULATE else {}

        def element(i, j):
            acc = before.get((i, j))
            if row["flags"] & Flag.ABREAST:
                part = slice(i * k, (i + 1) * k)
                return dot(matrix[j][part], vectors[0][part], acc)
            return dot(matrix[i * row["n"] + j], vectors[i], acc)

        if row["flags"] & Flag.HELD:
            self.held[row["unit"]] = {
                (i, j): element(i, j) for i in range(row["m"]) for j in range(row["n"])
            }
        else:
            self.write(dst, element)

    def multiply(self, row, dst, src0, src1, imm):
        a, b, flags = self.read(src0), self.read(src1), row["flags"]
        if flags & Flag.TRANSPOSE_A:
            a = list(zip(*a, strict=True))
        if not flags & Flag.TRANSPOSE_B:
            b = list(zip(*b, strict=True))  # its columns
        held = self.read(dst) if flags & Flag.ACCUMULATE else None
        if flags & Flag.RESCALE:
            factor = self.read(row["src2"])
            held = [[num.mul(v, factor[i][0]) for v in line] for i, line in enumerate(held)]
        order = self.program.operators[row["operator"]].order if row["operator"] >= 0 else ""
        formats = [self.format(d) for d in (src0, src1, dst)]
        form = self.form(src1)
        dot = product_of(self.units[row["unit"]], order, formats, form.encoding if form else "")
        sums = [
            [dot(x, y, None if held is None else held[i][j]) for j, y in enumerate(b)]
            for i, x in enumerate(a)
        ]
        if imm:
            sums = [[num.mul(v, num.cast("fp32", imm)) for v in line] for line in sums]
        if row["function"]:
            sums = [[SPECIAL[Function(row["function"])](v) for v in line] for line in sums]
        self.write(dst, lambda r, c: sums[r][c])


def at(matrix, r, c):
    """An element, where a single row or column stands for all."""
    row = matrix[r if len(matrix) > 1 else 0]
    return row[c if len(row) > 1 else 0]


def vector(function, operands, formats, imm, lanes, made):
    """Rows of results of a vector function, in fp32 or int32; ``made``: those that the unit makes
    of additions and multiplications."""
    whole = all(name in num.INTEGERS for name in formats)
    whole = whole and function not in FLOATING and imm.is_integer()
    if not whole:
        operands = [[[num.cast("fp32", v) for v in row] for row in o] for o in operands]
    a = operands[0]
    if function in made:
        return [[made[function](v) for v in row] for row in a]
    if function in SPECIAL:
        assert not made, function
        return [[SPECIAL[function](v) for v in row] for row in a]
    if function in IMMEDIATE:
        constant = num.wrapped(int(imm)) if whole else num.cast("fp32", imm)
        operands, function = [a, [[constant]]], IMMEDIATE[function]
    match function:
        case Function.COPY:
            return a
        case Function.RELU:
            return [[largest(v, 0 if whole else 0.0) for v in row] for row in a]
        case Function.ROW_MAX:
            return [[row_max(row)] for row in a]
        case Function.ROW_SUM:
            return [[row_sum(row, lanes, whole)] for row in a]
        case Function.CAUSAL_MASK:
            return [
                [-num.INFINITY if c > r + int(imm) else v for c, v in enumerate(row)]
                for r, row in enumerate(a)
            ]
        case Function.WINDOW_MASK:
            return [
                [-num.INFINITY if c < r + int(imm) else v for c, v in enumerate(row)]
                for r, row in enumerate(a)
            ]
        case Function.ROTATE_HALF:
            return [rotate_half(row, int(imm)) for row in a]
    b = operands[1]
    if function == Function.UNHOT:
        return [
            [num.add(v, -1.0) if c + imm == at(b, r, c) else v for c, v in enumerate(row)]
            for r, row in enumerate(a)
        ]
    combine = (whole_binary if whole else float_binary)[function]
    if made and function == Function.EXP_SUB:

        def combine(x, y):
            return made[Function.EXP](num.add(x, -y))

    rows, cols = max(len(a), len(b)), max(len(a[0]), len(b[0]))
    return [[combine(at(a, r, c), at(b, r, c)) for c in range(cols)] for r in range(rows)]


def largest(x, y):
    """The larger; NaN if either is; a zero is +0."""
    if x != x or y != y:
        return num.NAN
    return max(x, y) or type(x)(0)


float_binary = {
    Function.ADD: num.add,
    Function.SUB: lambda x, y: num.add(x, -y),
    Function.MUL: num.mul,
    Function.MAX: largest,
    Function.DIV: num.div,
    Function.EXP_SUB: lambda x, y: num.exp(num.add(x, -y)),
}
whole_binary = {
    Function.ADD: lambda x, y: num.wrapped(x + y),
    Function.SUB: lambda x, y: num.wrapped(x - y),
    Function.MUL: lambda x, y: num.wrapped(x * y),
    Function.MAX: largest,
}


def row_max(row):
    top = row[0]
    for v in row:
        top = largest(top, v)
    return top


def row_sum(row, lanes, whole):
    """Column c to lane c mod lanes, each in ascending order; then neighbours pairwise."""
    if whole:
        return num.wrapped(sum(row))
    sums = [0.0] * min(lanes, len(row))
    for c, v in enumerate(row):
        sums[c % lanes] = num.add(sums[c % lanes], v)
    while len(sums) > 1:
        sums += [0.0] * (len(sums) % 2)
        sums = [num.add(x, y) for x, y in zip(sums[::2], sums[1::2], strict=True)]
    return sums[0]


def rotate_half(row, head):
    turned = []
    for first in range(0, len(row), head):
        middle = first + head // 2
        turned += [-v for v in row[middle : first + head]] + row[first:middle]
    return turned
