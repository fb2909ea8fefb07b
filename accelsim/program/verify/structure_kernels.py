"""Compiled checks of one row at a time: operand descriptors and instruction shapes.

The numbers returned for a fault index ``structure.OPERAND_FAULTS`` and ``structure.ROW_FAULTS``.
"""

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit

# Columns of table.INSTRUCTION_COLUMNS and table.OPERAND_COLUMNS, and the bits of Flag. Literals,
# because the kernel cache does not see changes in other files; a test compares them.
UNIT, OPCODE, FUNCTION, FLAGS, OPERATOR, M, N, K, DEPENDENCY, DST, SOURCE = (
    *(0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 12),
)
STORAGE, SPACE, BASE, ROWS, ROW_BYTES, STRIDE, FORMAT = range(7)
ACCUMULATE, TRANSPOSE_A, TRANSPOSE_B, SCALAR, FORWARD, RESCALE = (*(1, 2, 4, 8, 32, 64),)
ABREAST, HELD, KEPT, COLUMNS = 1024, 2048, 4096, 8192
MATMUL_FLAGS, ISSUED = 87, 128  # ISSUED << c: dependency c waits for the issue only
CODED = 1 << 16  # format codes from here on: coded bytes
EXP = 16  # of Function, the one that a MATMUL can go on with
# Columns of the storage table (see extents.py).
S_SPACE, S_BASE, S_BYTES, S_FORMAT, S_TENSOR = range(5)
# How an opcode uses its operands (see structure.SHAPES).
NOTHING, COPY, GATHER, FILL, MATMUL, VECTOR, DECODE, ENCODE, PIM = range(9)
# Columns of the table of coded forms.
F_ROWS, F_COLS, F_FORMAT = range(3)
# How a vector function uses its sources (see structure.FUNCTION_FORMS).
UNARY, BINARY, REDUCTION, HEADS = range(4)


@njit
def judge_operands(
    operands: NDArray[np.int64],
    storages: NDArray[np.int64],
    bits: NDArray[np.int64],
    coded: NDArray[np.int64],
) -> NDArray[np.int64]:
    """The fault of every operand descriptor, 0 if it has none.

    ``storages`` is the storage table, ``bits`` the width of each number format, ``coded`` the rows,
    columns and number format of each coded form.
    """
    verdicts = np.zeros(operands.shape[0], np.int64)
    for d in range(operands.shape[0]):
        s = operands[d, STORAGE]
        rows, row_bytes, stride = operands[d, ROWS], operands[d, ROW_BYTES], operands[d, STRIDE]
        code = operands[d, FORMAT]
        if s < 0 or s >= storages.shape[0]:
            verdicts[d] = 1
            continue
        first = operands[d, BASE] - storages[s, S_BASE]
        nbytes = storages[s, S_BYTES]
        if operands[d, SPACE] != storages[s, S_SPACE]:
            verdicts[d] = 2
        elif rows < 1 or row_bytes < 1 or stride < 0:
            verdicts[d] = 3
        elif code < 0 or (code >= bits.shape[0] and code < CODED) or code >= CODED + coded.shape[0]:
            verdicts[d] = 4
        elif code >= CODED and rows != 1:
            verdicts[d] = 9
        elif code < CODED and row_bytes * 8 % bits[code] != 0:
            verdicts[d] = 5
        elif (
            first < 0
            or first >= nbytes
            or row_bytes > nbytes - first
            or (rows > 1 and stride > 0 and rows - 1 > (nbytes - first - row_bytes) // stride)
        ):
            verdicts[d] = 8
        elif storages[s, S_TENSOR] and storages[s, S_FORMAT] >= 0:
            # Tensors are packed elements of their own format; buffers are just bytes.
            if storages[s, S_FORMAT] != code:
                verdicts[d] = 6
            elif first * 8 % bits[code] != 0 or (rows > 1 and stride * 8 % bits[code] != 0):
                verdicts[d] = 7
    return verdicts


@njit
def judge_instructions(
    instructions: NDArray[np.int64],
    immediate: NDArray[np.float64],
    operands: NDArray[np.int64],
    verdicts: NDArray[np.int64],
    bits: NDArray[np.int64],
    integers: NDArray[np.int64],
    shapes: NDArray[np.int64],
    forms: NDArray[np.int64],
    coded: NDArray[np.int64],
    n_units: int,
    n_operators: int,
    found: NDArray[np.int64],
) -> int:
    """Fill ``found`` with (instruction, fault, which operand or dependency); return how many.

    ``shapes`` and ``forms`` say per opcode and per vector function how operands are used (-1:
    there is no such code), ``integers`` which formats are integer, ``coded`` the coded forms.
    """
    count = 0
    for i in range(instructions.shape[0]):
        row = instructions[i]
        fault = _form_fault(i, row, operands.shape[0], shapes, forms, n_units, n_operators)
        if fault == 0:
            fault = _operand_fault(row, verdicts, operands)
        if fault == 0:
            fault = _coded_fault(row, operands, shapes[row[OPCODE]], coded)
        if fault == 0:
            fault = _shape_fault(row, immediate[i], operands, bits, shapes, forms, coded)
        if fault == 0 and shapes[row[OPCODE]] in (MATMUL, PIM):
            fault = _format_fault(row, operands, integers, coded)
        if (
            fault == 0
            and shapes[row[OPCODE]] == GATHER
            and integers[operands[row[SOURCE + 1], FORMAT]] == 0
        ):
            fault = 12 * 8 + 2
        if fault:
            found[count, 0] = i
            found[count, 1] = fault // 8
            found[count, 2] = fault % 8
            count += 1
            if count == found.shape[0]:
                break
    return count


@njit
def _form_fault(
    i: int,
    row: NDArray[np.int64],
    n_operands: int,
    shapes: NDArray[np.int64],
    forms: NDArray[np.int64],
    n_units: int,
    n_operators: int,
) -> int:
    """Indices in range, operands present as the opcode needs them: fault * 8 + which, or 0."""
    if row[UNIT] < 0 or row[UNIT] >= n_units:
        return 1 * 8
    opcode = row[OPCODE]
    if opcode < 0 or opcode >= shapes.shape[0] or shapes[opcode] < 0:
        return 2 * 8
    shape = shapes[opcode]
    if row[OPERATOR] < -1 or row[OPERATOR] >= n_operators:
        return 3 * 8
    function = row[FUNCTION]
    sources = 0
    if shape == VECTOR:
        if function < 0 or function >= forms.shape[0] or forms[function] < 0:
            return 5 * 8
        sources = 2 if forms[function] == BINARY else 1
    elif shape == MATMUL:
        if function not in (0, EXP):
            return 5 * 8
        sources = 3 if row[FLAGS] & RESCALE else 2
    elif shape == PIM:
        if function != 0:
            return 5 * 8
        sources = 2
    elif shape == GATHER:
        sources = 2
    elif shape in (COPY, DECODE, ENCODE):
        sources = 1
    if _flags_mean_nothing(row, shape, sources):
        return 4 * 8
    for c in range(3):
        if row[DEPENDENCY + c] < -1 or row[DEPENDENCY + c] >= i:
            return 6 * 8 + c
    for c in range(4):
        if row[DST + c] < -1 or row[DST + c] >= n_operands:
            return 7 * 8 + c
        needed = shape != NOTHING if c == 0 else c <= sources
        if needed != (row[DST + c] >= 0):
            return (8 if needed else 9) * 8 + c
    return 0


@njit
def _flags_mean_nothing(row: NDArray[np.int64], shape: int, sources: int) -> bool:
    """Whether an instruction has flags that its opcode, function or dependencies do not know."""
    flags = row[FLAGS]
    allowed = 0
    if shape == MATMUL:
        allowed = MATMUL_FLAGS
        # A sum that still grows is not a result to be gone on with, and only one is rescaled.
        if flags & ACCUMULATE:
            if row[FUNCTION] != 0:
                return True
        elif flags & RESCALE:
            return True
    elif shape == COPY:
        allowed = SCALAR
    elif shape == ENCODE:
        allowed = TRANSPOSE_A
    elif shape == PIM:
        allowed = ABREAST | ACCUMULATE | HELD | KEPT
        # One vector at a time meets columns.
        if row[M] == 1 and not flags & ABREAST:
            allowed |= COLUMNS
    elif shape == VECTOR and sources == 2:
        allowed = FORWARD
    for c in range(3):
        if row[DEPENDENCY + c] >= 0:
            allowed |= ISSUED << c
    return bool(flags & ~allowed)


@njit
def _operand_fault(
    row: NDArray[np.int64], verdicts: NDArray[np.int64], operands: NDArray[np.int64]
) -> int:
    """Faults of the descriptors that an instruction uses, from 32 on."""
    for c in range(4):
        d = row[DST + c]
        if d >= 0 and verdicts[d]:
            return int(32 + verdicts[d]) * 8 + c
    d = row[DST]
    if d >= 0 and operands[d, ROWS] > 1 and operands[d, STRIDE] < operands[d, ROW_BYTES]:
        return 10 * 8
    return 0


@njit
def _coded_fault(
    row: NDArray[np.int64], operands: NDArray[np.int64], shape: int, coded: NDArray[np.int64]
) -> int:
    """Coded operands where they may stand: copied as they are, decoded, or multiplied."""
    for c in range(4):
        d = row[DST + c]
        if d < 0 or operands[d, FORMAT] < CODED:
            continue
        if shape == COPY:
            other = row[SOURCE] if c == 0 else row[DST]
            same = operands[other, FORMAT] == operands[d, FORMAT]
            if not same or operands[other, ROW_BYTES] != operands[d, ROW_BYTES]:
                return 17 * 8 + c
        elif not (
            (shape == DECODE and c == 1)
            or (shape == ENCODE and c == 0)
            or (shape == MATMUL and 1 <= c <= 2)
        ):
            return 18 * 8 + c
    if shape == DECODE:
        code = operands[row[SOURCE], FORMAT]
        if code < CODED:
            return 19 * 8 + 1
        if coded[code - CODED, F_FORMAT] != operands[row[DST], FORMAT]:
            return 20 * 8
    if shape == ENCODE:
        code = operands[row[DST], FORMAT]
        if code < CODED:
            return 21 * 8
        if coded[code - CODED, F_FORMAT] != operands[row[SOURCE], FORMAT]:
            return 22 * 8 + 1
    return 0


@njit
def _fits(
    operands: NDArray[np.int64],
    d: int,
    rows: int,
    cols: int,
    bits: NDArray[np.int64],
    coded: NDArray[np.int64],
) -> bool:
    """Whether descriptor d is a [rows, cols] window; rows -1 stands for any."""
    code = operands[d, FORMAT]
    if code >= CODED:
        form = coded[code - CODED]
        return bool(form[F_COLS] == cols and (rows < 0 or form[F_ROWS] == rows))
    columns = operands[d, ROW_BYTES] * 8 // bits[code]
    return columns == cols and (rows < 0 or operands[d, ROWS] == rows)


@njit
def _matrix_fits(
    row: NDArray[np.int64],
    operands: NDArray[np.int64],
    bits: NDArray[np.int64],
    coded: NDArray[np.int64],
) -> bool:
    """Whether a PIM's second operand is the matrix that m, n, k and flags tell."""
    d, m, n, k = row[SOURCE + 1], row[M], row[N], row[K]
    if row[FLAGS] & ABREAST:
        return _fits(operands, d, n, m * k, bits, coded)
    if row[FLAGS] & COLUMNS:
        return _fits(operands, d, k, n, bits, coded)
    columns = max(1, operands[d, ROW_BYTES] * 8 // bits[operands[d, FORMAT]])
    pieces = max(1, k // columns)
    return k % pieces == 0 and _fits(operands, d, m * n * pieces, k // pieces, bits, coded)


@njit
def _shape_fault(
    row: NDArray[np.int64],
    immediate: float,
    operands: NDArray[np.int64],
    bits: NDArray[np.int64],
    shapes: NDArray[np.int64],
    forms: NDArray[np.int64],
    coded: NDArray[np.int64],
) -> int:
    """Operand shapes against m, n, k and flags: fault * 8 + operand, or 0."""
    shape = shapes[row[OPCODE]]
    if shape == NOTHING:
        return 0
    m, n, k = row[M], row[N], row[K]
    reduces = shape == VECTOR and forms[row[FUNCTION]] == REDUCTION
    if m < 1 or n < 1 or ((shape in (MATMUL, PIM) or reduces) and k < 1):
        return 13 * 8
    if not _fits(operands, row[DST], m, n, bits, coded) or (reduces and n != 1):
        return 11 * 8
    a, b = row[SOURCE], row[SOURCE + 1]
    if shape == MATMUL:
        swap_a, swap_b = row[FLAGS] & TRANSPOSE_A, row[FLAGS] & TRANSPOSE_B
        if not _fits(operands, a, k if swap_a else m, m if swap_a else k, bits, coded):
            return 11 * 8 + 1
        if not _fits(operands, b, n if swap_b else k, k if swap_b else n, bits, coded):
            return 11 * 8 + 2
        if row[FLAGS] & RESCALE and not _fits(operands, row[SOURCE + 2], m, 1, bits, coded):
            return 11 * 8 + 3
    elif shape == PIM:
        side = row[FLAGS] & ABREAST
        if not _fits(operands, a, 1 if side else m, m * k if side else k, bits, coded):
            return 11 * 8 + 1
        if not _matrix_fits(row, operands, bits, coded):
            return 11 * 8 + 2
    elif shape == GATHER:
        if not _fits(operands, a, -1, n, bits, coded):
            return 11 * 8 + 1
        if not _fits(operands, b, m, 1, bits, coded):
            return 11 * 8 + 2
    elif shape == ENCODE:
        turned = row[FLAGS] & TRANSPOSE_A
        if not _fits(operands, a, n if turned else m, m if turned else n, bits, coded):
            return 11 * 8 + 1
    elif shape in (COPY, VECTOR, DECODE):
        cols = k if reduces else n
        if not _fits(operands, a, m, cols, bits, coded):
            return 11 * 8 + 1
        if b >= 0 and operands[b, ROWS] != 1 and operands[b, ROWS] != m:
            return 11 * 8 + 2
        if (
            b >= 0
            and not _fits(operands, b, -1, 1, bits, coded)
            and not _fits(operands, b, -1, n, bits, coded)
        ):
            return 11 * 8 + 2
        if shape == VECTOR and forms[row[FUNCTION]] == HEADS:
            head = np.int64(immediate)
            if head != immediate or head < 2 or head % 2 != 0 or n % head != 0:
                return 14 * 8
    return 0


@njit
def _format_fault(
    row: NDArray[np.int64],
    operands: NDArray[np.int64],
    integers: NDArray[np.int64],
    coded: NDArray[np.int64],
) -> int:
    """A product multiplies equal formats and sums integers in integers."""
    a = _element_format(operands[row[SOURCE], FORMAT], coded)
    if a != _element_format(operands[row[SOURCE + 1], FORMAT], coded):
        return 15 * 8 + 2
    if integers[a] != integers[operands[row[DST], FORMAT]]:
        return 16 * 8
    return 0


@njit
def _element_format(code: int, coded: NDArray[np.int64]) -> int:
    """The number format of an operand's elements, of coded bytes that of what they stand for."""
    return int(coded[code - CODED, F_FORMAT]) if code >= CODED else code
