"""Structure and bounds: does every instruction, taken by itself, mean something?"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from accelsim.numerics.formats import FORMAT_CODES, FORMATS
from accelsim.program.opcodes import REDUCTIONS, Function, Opcode
from accelsim.program.table import COLUMN
from accelsim.program.verify.violation import Violation, at_instruction

if TYPE_CHECKING:
    from accelsim.program.table import Ints, Program
    from accelsim.program.verify.extents import Extents

# Opcode -> how it uses its operands (the numbers of structure_kernels).
SHAPES: dict[Opcode, int] = {
    Opcode.JOIN: 0,
    Opcode.LAUNCH: 0,
    Opcode.LOAD: 1,
    Opcode.STORE: 1,
    Opcode.MULTICAST: 1,
    Opcode.DELIVER: 1,
    Opcode.GATHER: 2,
    Opcode.FILL: 3,
    Opcode.MATMUL: 4,
    Opcode.VECTOR: 5,
    Opcode.DECODE: 6,
    Opcode.ENCODE: 7,
    Opcode.PIM: 8,
}
# Vector functions that are not plain unary ones: 1 takes two sources, 2 reduces, 3 works on heads.
FUNCTION_FORMS: dict[Function, int] = {
    Function.ADD: 1,
    Function.SUB: 1,
    Function.MUL: 1,
    Function.MAX: 1,
    Function.DIV: 1,
    Function.EXP_SUB: 1,
    Function.UNHOT: 1,
    **dict.fromkeys(REDUCTIONS, 2),
    Function.ROTATE_HALF: 3,
}

OPERAND_NAMES = ("destination", "source 0", "source 1", "source 2")

ROW_FAULTS: dict[int, str] = {
    1: "is on a unit that does not exist",
    2: "has an unknown opcode",
    3: "belongs to an operator that does not exist",
    4: "has flags that mean nothing here",
    5: "has a function that is unknown here",
    6: "waits for instruction {value}, which is not an earlier one",
    7: "has operand descriptor {value} as {operand}, which does not exist",
    8: "has no {operand}",
    9: "has a {operand} it does not use: {window}",
    10: "writes rows that overlap each other: {operand} {window}",
    11: "has {operand} {window}, which does not agree with m={m}, n={n}, k={k} and its flags",
    12: "takes row numbers that are not integers: {operand} {window}",
    13: "has the empty shape m={m}, n={n}, k={k}",
    14: "rotates heads that do not divide its {n} columns",
    15: "multiplies different formats: {operand} {window}",
    16: "sums in a format of another kind: {operand} {window}",
    17: "copies coded bytes of another form or length than the other end: {operand} {window}",
    18: "has a coded {operand}, which only copies, DECODE, ENCODE and products take: {window}",
    19: "decodes what is not coded: {operand} {window}",
    20: "decodes into another format than its source has: {operand} {window}",
    21: "encodes into what is not coded: {operand} {window}",
    22: "encodes another format than its destination stands for: {operand} {window}",
}
# Faults of the operand descriptors themselves: kind, problem.
OPERAND_FAULTS: dict[int, tuple[str, str]] = {
    1: ("structure", "has {operand} in a storage that does not exist"),
    2: ("structure", "has {operand} {window} in another address space than its storage"),
    3: ("structure", "has an empty {operand} {window}"),
    4: ("structure", "has {operand} {window} of an unknown format"),
    5: ("structure", "has {operand} {window} whose rows are not whole elements"),
    6: ("structure", "has {operand} {window} of another format than the tensor"),
    7: ("bounds", "has {operand} {window}, which starts inside an element"),
    8: ("bounds", "has {operand} {window}, which is not inside {storage}"),
    9: ("structure", "has {operand} {window} of coded bytes that are not one run"),
}


def judge(program: Program, extents: Extents) -> Ints:
    """The fault of every operand descriptor, 0 if it has none."""
    from accelsim.program.verify.structure_kernels import judge_operands

    return judge_operands(program.operands, extents.table, _formats()[0], _coded(program))


def structure_violations(program: Program, verdicts: Ints, limit: int) -> list[Violation]:
    """Instructions whose columns, operands or shapes break a rule."""
    from accelsim.program.verify.structure_kernels import judge_instructions

    found = np.empty((limit, 3), dtype=np.int64)
    count = judge_instructions(
        program.instructions,
        program.immediate,
        program.operands,
        verdicts,
        *_formats(),
        *_forms(),
        _coded(program),
        len(program.units),
        len(program.operators),
        found,
    )
    return [_worded(program, *map(int, row)) for row in found[:count]]


def _formats() -> tuple[Ints, Ints]:
    """(bits, whether integer) by format code, of all formats registered by now."""
    formats = FORMATS.values()
    bits = np.array([f.bits for f in formats], dtype=np.int64)
    return bits, np.array([f.is_integer for f in formats], dtype=np.int64)


def _coded(program: Program) -> Ints:
    """Rows, columns and number format of every coded form."""
    rows = [(form.rows, form.cols, FORMAT_CODES[form.format]) for form in program.forms]
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


@cache
def _forms() -> tuple[Ints, Ints]:
    """(operand use by opcode, source use by vector function), -1 where there is no such code."""
    shapes = np.full(max(Opcode) + 1, -1, dtype=np.int64)
    shapes[list(SHAPES)] = list(SHAPES.values())
    forms = np.full(max(Function) + 1, -1, dtype=np.int64)
    for function in Function:
        if function is not Function.NONE:
            forms[function] = FUNCTION_FORMS.get(function, 0)
    return shapes, forms


def _worded(program: Program, i: int, fault: int, which: int) -> Violation:
    from accelsim.program.listing import operand_text

    row = program.instructions[i]
    kind, text = OPERAND_FAULTS[fault - 32] if fault > 32 else ("structure", ROW_FAULTS[fault])
    window = storage = ""
    if fault > 7:
        d = int(row[COLUMN["dst"] + which])
        window = operand_text(program, d) if d >= 0 else ""
        s = int(program.operands[d, 0])
        storage = program.storages[s].name if 0 <= s < len(program.storages) else ""
    problem = text.format(
        value=int(row[COLUMN["dep0" if fault == 6 else "dst"] + which]) if fault in (6, 7) else "",
        operand=OPERAND_NAMES[which],
        window=window,
        storage=storage,
        **{name: int(row[COLUMN[name]]) for name in "mnk"},
    )
    return at_instruction(program, kind, i, problem, storage)
