"""Which accesses of a program nothing keeps apart: plain, quadratic, no code of the verifier.

Every instruction is compared with every other one: who is known to have finished before it starts,
and who touches the same bytes. Fit for programs of a few thousand instructions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from accelsim.program.opcodes import Flag, Opcode
from accelsim.program.table import COLUMN, OPERAND_COLUMN, Ints, Program

Bools = npt.NDArray[np.bool_]

_SPACE, _BASE, _ROWS, _ROW_BYTES, _STRIDE = (
    OPERAND_COLUMN[name] for name in ("space", "base", "rows", "row_bytes", "stride")
)


def races(program: Program) -> list[tuple[int, int]]:
    """Pairs of instructions that touch the same bytes, one writing, in no certain order.

    An accumulating product may follow a product of its own unit without a wait: the pipeline keeps
    their order. Raises ValueError if an instruction waits for a later one.
    """
    before, finished = ordered(program)
    instruction, operand, writes, sums = _accesses(program)
    low, high = _extents(program, operand)
    space = program.operands[operand, _SPACE]
    unit, opcode = program.column("unit"), program.column("opcode")
    found = []
    for x, i in enumerate(instruction.tolist()):
        earlier = instruction[:x]
        near = (low[:x] < high[x]) & (low[x] < high[:x]) & (space[:x] == space[x])
        if writes[x]:
            apart = before[i, earlier]
        else:
            follows = (unit[earlier] == unit[i]) & (opcode[earlier] == Opcode.MATMUL)
            apart = finished[i, earlier] | (follows & sums[x])
        near &= (writes[:x] | writes[x]) & ~apart & (earlier != i)
        for y in np.flatnonzero(near).tolist():
            if np.intersect1d(_bytes(program, operand[x]), _bytes(program, operand[y])).size:
                found.append((int(earlier[y]), i))
    return found


def ordered(program: Program) -> tuple[Bools, Bools]:
    """bool[i, j]: instruction j comes before i; and j has finished before i starts."""
    n = len(program)
    before, finished = np.zeros((2, n, n), dtype=bool)
    last: dict[int, int] = {}
    units, deps = program.column("unit").tolist(), program.deps.tolist()
    for i in range(n):
        previous = last.get(units[i], -1)
        if previous >= 0:
            before[i] |= before[previous]
            before[i, previous] = True
            finished[i] |= finished[previous]
        for d in deps[i]:
            if d >= i:
                raise ValueError(f"instruction {i} waits for {d}, which is not an earlier one")
            if d >= 0:
                finished[i] |= before[d]
                finished[i, d] = True
        before[i] |= finished[i]
        last[units[i]] = i
    return before, finished


def _accesses(program: Program) -> tuple[Ints, Ints, Bools, Bools]:
    """Instruction, operand, whether it writes, whether it reads its own sum, in program order.

    An accumulating product reads its destination before it writes it.
    """
    rows = []
    for i, row in enumerate(program.instructions.tolist()):
        dst, flags = row[COLUMN["dst"]], row[COLUMN["flags"]]
        sources = row[COLUMN["src0"] :]
        rows += [(i, d, False, False) for d in sources if d >= 0]
        if dst >= 0 and flags & Flag.ACCUMULATE:
            rows.append((i, dst, False, True))
        if dst >= 0:
            rows.append((i, dst, True, False))
    table = np.array(rows, dtype=np.int64).reshape(-1, 4)
    return table[:, 0], table[:, 1], table[:, 2] == 1, table[:, 3] == 1


def _extents(program: Program, operand: Ints) -> tuple[Ints, Ints]:
    """First byte and end of what lies between the corners of operands."""
    windows = program.operands[operand]
    low = windows[:, _BASE]
    last = (windows[:, _ROWS] - 1) * windows[:, _STRIDE]
    high: Ints = low + last + windows[:, _ROW_BYTES]
    return low, high


def _bytes(program: Program, operand: int) -> Ints:
    """Every byte address of an operand."""
    window = program.operands[operand]
    starts = window[_BASE] + window[_STRIDE] * np.arange(window[_ROWS])
    addresses: Ints = (starts[:, None] + np.arange(window[_ROW_BYTES])).ravel()
    return addresses
