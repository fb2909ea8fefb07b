"""What an instruction can be: opcodes, vector functions and flags."""

from __future__ import annotations

from enum import IntEnum, IntFlag
from functools import cache


class Opcode(IntEnum):
    """Operation of an instruction; ``dst``/``src`` are operand descriptors (see table.py)."""

    JOIN = 0  # waits for its dependencies and does nothing
    LOAD = 1  # dst[r, c] = src0[r, c], off-chip to on-chip, converting the format if it differs
    STORE = 2  # dst[r, c] = src0[r, c], on-chip to off-chip, converting the format if it differs
    GATHER = 3  # dst[r, :] = src0[src1[r], :], rows chosen by an index column
    FILL = 4  # dst[r, c] = immediate
    LAUNCH = 5  # waits for its dependencies and starts a kernel: its unit says how long that takes
    MULTICAST = 6  # a LOAD into k scratchpads at once: this row's and those of the DELIVERs behind
    DELIVER = 7  # dst[r, c] = src0[r, c], one more destination of the MULTICAST before it
    # dst[m, n] (+)= src0[m, k] @ src1[k, n], or function(imm x that) if a pipeline goes on so
    MATMUL = 8
    DECODE = 9  # dst[m, n] = what the coded bytes of src0 stand for
    ENCODE = 10  # dst = coded bytes that stand for src0[m, n], its pruned elements left out
    # dst[m, n] = m vectors (src0) times n rows of a matrix each (src1), by the banks that hold
    # them: src0[m, k] and src1[m * n, k], or with Flag.ABREAST src0[1, m * k] and src1[n, m * k];
    # with Flag.COLUMNS one vector with n columns, src0[1, k] and src1[k, n]. A row of the matrix
    # may be cut in equal parts, one after the other: src1[m * n * parts, k / parts].
    # src0 lies in the banks, too, or in a scratchpad, whichever the unit's family has.
    PIM = 11
    VECTOR = 16  # dst = function(src0, src1), elementwise with broadcast, or a row reduction


PRODUCTS = (Opcode.MATMUL, Opcode.PIM)
COPIES = (Opcode.LOAD, Opcode.STORE, Opcode.MULTICAST, Opcode.DELIVER)
TRANSFERS = (*COPIES, Opcode.GATHER, Opcode.FILL)


class Function(IntEnum):
    """Function of a VECTOR instruction, or of a MATMUL's results (NONE, EXP). ``imm`` is the
    immediate operand; a MATMUL that has one multiplies its results by it first.

    Binary functions broadcast src1: a [rows, 1] column, a [1, cols] row, or the full shape.
    Row functions reduce [rows, cols] to [rows, 1].
    """

    NONE = 0
    COPY = 1
    ADD = 2
    SUB = 3
    MUL = 4
    MAX = 5
    ADD_IMM = 6
    MUL_IMM = 7
    MAX_IMM = 8
    DIV = 9
    EXP = 16
    RECIPROCAL = 17
    RSQRT = 18
    TANH = 19
    SIGMOID = 20
    RELU = 21
    GELU = 22  # x * Phi(x), by erf
    GELU_TANH = 23  # the tanh approximation
    SILU = 24
    EXP_SUB = 25  # e^(src0 - src1)
    SQRT = 26
    STEP = 27  # 1 where src0 > 0, else 0: the derivative of relu
    TANH_GRAD = 28  # derivatives of the functions above
    SIGMOID_GRAD = 29
    GELU_GRAD = 30
    GELU_TANH_GRAD = 31
    ROW_MAX = 32
    ROW_SUM = 33
    CAUSAL_MASK = 40  # columns beyond row + imm become -inf
    WINDOW_MASK = 42  # columns before row + imm become -inf
    SILU_GRAD = 34
    ROTATE_HALF = 41  # each head of imm columns: (-second half, first half)
    UNHOT = 43  # src0 less 1 in the column whose number, plus imm, is that of src1's row


REDUCTIONS = (Function.ROW_MAX, Function.ROW_SUM)


class Flag(IntFlag):
    """Modifiers of an instruction."""

    NONE = 0
    # MATMUL adds to dst instead of overwriting it; PIM goes on with the sums that its banks hold
    ACCUMULATE = 1
    TRANSPOSE_A = 2  # src0 is stored as [k, m]
    TRANSPOSE_B = 4  # src1 is stored as [n, k]
    SCALAR = 8  # LOAD, STORE: each thread moves one element at a time, not a packet of several
    STATIONARY_A = 16  # MATMUL: src0 stays in the array and src1 streams, where operands are held
    FORWARD = 32  # VECTOR: src1 is a result of this unit, handed on in its pipeline without a wait
    RESCALE = 64  # MATMUL+acc: what it adds to is first multiplied by src2, a column [m, 1]
    # dep0, dep1, dep2 wait until that instruction has been issued: its operands are read and its
    # unit is free again, whether or not its result has left the pipeline.
    ISSUED0 = 128
    ISSUED1 = 256
    ISSUED2 = 512
    ABREAST = 1024  # PIM: the m vectors lie side by side, and so do parts of a row of the matrix
    HELD = 2048  # PIM: sums stay in the banks for the next PIM of the unit, dst is not written yet
    KEPT = 4096  # PIM: the vectors are still where the unit's product before had them
    COLUMNS = 8192  # PIM: results are of the matrix's columns, not its rows


ISSUED = (Flag.ISSUED0, Flag.ISSUED1, Flag.ISSUED2)


# Members of enumerations take a while to be looked up; instructions are many, their flags few.
@cache
def matmul_flags(accumulate: bool, stationary_a: bool, transpose_a: bool, transpose_b: bool) -> int:
    """Flags of a MATMUL."""
    flags = Flag.ACCUMULATE * accumulate | Flag.STATIONARY_A * stationary_a
    return flags | Flag.TRANSPOSE_A * transpose_a | Flag.TRANSPOSE_B * transpose_b


@cache
def pim_flags(abreast: bool, columns: bool, kept: bool, goes_on: bool, held: bool) -> int:
    """Flags of a PIM."""
    flags = Flag.ABREAST * abreast | Flag.COLUMNS * columns | Flag.KEPT * kept
    return flags | Flag.ACCUMULATE * goes_on | Flag.HELD * held
