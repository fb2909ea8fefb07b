"""Executes a tile program on bytes, in program order or in the order that a clock found.

In program order every instruction reads, computes and writes before the next one. In clock order
an instruction reads its operands at its start (what its pipeline forwards, at its finish) and
writes its result at its finish; in between, the bytes it will write are poisoned, because hardware
promises nothing about them. Events happen in
the order (tick, commit position, read before write), so a dependency that is missing in the program
lets a reader see stale bytes or poison: the numbers change, and a race is found without looking
for one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from accelsim.errors import AccelsimError
from accelsim.functional.memory import Memory, Values, poisoned
from accelsim.numerics.arithmetic import ProductTypes
from accelsim.numerics.orders import CHAIN, Order, within_instruction
from accelsim.program.opcodes import COPIES, Flag, Function, Opcode
from accelsim.program.table import COLUMN, Ints, Program

# Storages whose contents are a workload tensor's.
NOT_TENSORS = ("buffer", "scratch")


@runtime_checkable
class MatrixArithmetic(Protocol):
    """What the executor needs of a unit that executes MATMUL."""

    def multiply(self, a: Values, b: Values, acc: Values | None) -> Values:
        """``a[m, k] @ b[k, n]`` onto ``acc``, carriers in and out.

        A unit whose sums depend on the number formats, or that knows reduction orders, takes two
        more: ``types: ProductTypes | None = None`` and ``order: Order = CHAIN``.
        """


@runtime_checkable
class ColumnArithmetic(Protocol):
    """What the executor needs of a unit that executes PIM on the columns of a matrix."""

    def multiply_columns(
        self, a: Values, b: Values, acc: Values | None, types: ProductTypes, order: Order
    ) -> Values:
        """``a[m, k] @ b[k, n]`` onto ``acc``, where the rows of ``a`` are stored as columns."""


@runtime_checkable
class VectorArithmetic(Protocol):
    """What the executor needs of a unit that executes VECTOR."""

    def apply(self, function: Function, a: Values, b: Values | None, imm: float) -> Values:
        """``function(a, b)``, carriers in and out."""


def takes_types(unit: MatrixArithmetic) -> bool:
    """Whether a unit's ``multiply`` wants to know number formats and the reduction order."""
    return {"types", "order"} <= {*inspect.signature(unit.multiply).parameters}


class Clocked(Protocol):
    """When instructions ran (engine.schedule.Schedule): ticks, and which committed j-th."""

    @property
    def start(self) -> Ints: ...
    @property
    def finish(self) -> Ints: ...
    @property
    def order(self) -> Ints: ...


@dataclass
class Captures:
    """What every operator left in memory: stored elements by (operator name, tensor name)."""

    order: str
    tensors: dict[tuple[str, str], Values] = field(default_factory=dict)


def execute(
    program: Program,
    blocks: Sequence[object],
    memory: Memory,
    schedule: Clocked | None = None,
) -> Captures:
    """Run ``program`` on ``memory`` and keep every operator's output tensors.

    ``blocks[u]`` is the hardware block of unit slot u, which supplies the arithmetic. Without a
    schedule the rows run in table order, with one in clock order. An output is copied when the
    last instruction of its operator that writes it retires; its memory may be reused afterwards.

    Raises:
        AccelsimError: if a unit cannot execute an instruction, naming the instruction.
    """
    machine = _Machine(program, blocks, memory)
    captures = Captures("program" if schedule is None else "clock")
    retired = np.arange(len(program)) if schedule is None else _retirement(schedule)
    final = _last_writers(program, retired)
    if schedule is None:
        for i in range(len(program)):
            machine.write(i, machine.read(i))
            _capture(captures, program, memory, final.get(i, ()))
        return captures
    waiting: dict[int, list[Values]] = {}
    for event in _events(schedule).tolist():
        i, writes = divmod(event, 2)
        if not writes:
            waiting[i] = machine.read(i)
            machine.invalidate(i)
        else:
            machine.write(i, waiting.pop(i))
            _capture(captures, program, memory, final.get(i, ()))
    return captures


def _events(schedule: Clocked) -> Ints:
    """Codes 2 * instruction (+ 1 for its write) in the order in which they happen."""
    n = len(schedule.start)
    position = np.empty(n, dtype=np.int64)
    position[schedule.order] = np.arange(n)
    tick = np.column_stack([schedule.start, schedule.finish]).ravel()
    code = np.arange(2 * n, dtype=np.int64)
    order: Ints = np.lexsort((code, np.repeat(position, 2), tick))
    return order


def _retirement(schedule: Clocked) -> Ints:
    events = _events(schedule)
    writes: Ints = events[events % 2 == 1]
    return writes // 2


def _last_writers(program: Program, retired: Ints) -> dict[int, list[tuple[int, int]]]:
    """By instruction: the (operator, tensor storage) pairs it is the last to write."""
    dst = program.column("dst")[retired]
    written = retired[dst >= 0]
    storage = program.operand_column("storage")[dst[dst >= 0]]
    operator = program.column("operator")[written]
    tensor = np.array([s.role not in NOT_TENSORS for s in program.storages], dtype=bool)
    keep = tensor[storage] & (operator >= 0) if len(tensor) else np.zeros(0, dtype=bool)
    pairs = zip(operator[keep].tolist(), storage[keep].tolist(), strict=True)
    last = dict(zip(pairs, written[keep].tolist(), strict=True))
    final: dict[int, list[tuple[int, int]]] = {}
    for pair, instruction in last.items():
        final.setdefault(instruction, []).append(pair)
    return final


def _capture(
    captures: Captures, program: Program, memory: Memory, pairs: Sequence[tuple[int, int]]
) -> None:
    for operator, storage in pairs:
        key = (program.operators[operator].name, program.storages[storage].name)
        captures.tensors[key] = memory.tensor(storage)


class _Machine:
    """Reads, computes and writes single instructions."""

    def __init__(self, program: Program, blocks: Sequence[object], memory: Memory) -> None:
        if len(blocks) != len(program.units):
            raise AccelsimError(
                f"{len(blocks)} blocks for the {len(program.units)} units of the program"
            )
        self._matrix = [b if isinstance(b, MatrixArithmetic) else None for b in blocks]
        self._lanes = [b if isinstance(b, VectorArithmetic) else None for b in blocks]
        self._typed = [b is not None and takes_types(b) for b in self._matrix]
        self._orders = [within_instruction(info.order) for info in program.operators]
        self._memory = memory
        self._program = program
        self._held: dict[int, Values] = {}  # sums that banks keep for their next product
        self._kept: dict[int, Values] = {}  # the vectors of their last product
        # Plain lists: indexing them is several times faster than indexing arrays.
        self._row: list[list[int]] = program.instructions.tolist()
        self._immediate: list[float] = program.immediate.tolist()
        self._write: dict[int, Callable[[int, list[Values]], None]] = {
            Opcode.LOAD: self._copy,
            Opcode.STORE: self._copy,
            Opcode.MULTICAST: self._copy,
            Opcode.DELIVER: self._copy,
            Opcode.GATHER: self._copy,
            Opcode.FILL: self._fill,
            Opcode.MATMUL: self._matmul,
            Opcode.VECTOR: self._vector,
            Opcode.DECODE: self._decode,
            Opcode.ENCODE: self._encode,
            Opcode.PIM: self._pim,
        }

    def read(self, i: int) -> list[Values]:
        """Operands of instruction ``i`` as they are now: carriers, or stored bits of a copy."""
        try:
            return self._read(self._row[i])
        except AccelsimError as error:
            raise self._fault(i, str(error)) from None

    def _read(self, row: list[int]) -> list[Values]:
        opcode, memory = row[_OPCODE], self._memory
        if opcode in COPIES:
            return [memory.window(row[_SRC]).copy()]
        if opcode == Opcode.GATHER:
            return [_pick(memory.window(row[_SRC]), memory.read(row[_SRC + 1])[:, 0])]
        late = _SRC + 1 if row[_FLAGS] & Flag.FORWARD else -1
        places = (c for c in range(_SRC, _SRC + 3) if row[c] >= 0 and c != late)
        return [memory.read(row[c]) for c in places]

    def invalidate(self, i: int) -> None:
        """Poison what instruction ``i`` is about to overwrite, a multicast everywhere at once."""
        row = self._row[i]
        count = row[_K] if row[_OPCODE] == Opcode.MULTICAST else 1
        for one in self._row[i : i + count]:
            if one[_DST] >= 0 and not _updates(one):
                self._memory.poison(one[_DST])

    def write(self, i: int, operands: list[Values]) -> None:
        """Compute instruction ``i`` from its operands and store the result."""
        opcode = self._row[i][_OPCODE]
        if opcode in (Opcode.JOIN, Opcode.LAUNCH):
            return
        action = self._write.get(opcode)
        if action is None:
            raise self._fault(i, f"opcode {opcode} is unknown")
        try:
            action(i, operands)
        except AccelsimError as error:
            raise self._fault(i, str(error)) from None

    def _copy(self, i: int, operands: list[Values]) -> None:
        row, memory = self._row[i], self._memory
        source, target = memory.format(row[_SRC]), memory.format(row[_DST])
        if source is target:
            memory.window(row[_DST])[...] = operands[0]
        else:
            memory.write(row[_DST], memory.values(row[_SRC], operands[0]))

    def _decode(self, i: int, operands: list[Values]) -> None:
        self._memory.write(self._row[i][_DST], operands[0])

    def _encode(self, i: int, operands: list[Values]) -> None:
        row = self._row[i]
        dense = operands[0].T if row[_FLAGS] & Flag.TRANSPOSE_A else operands[0]
        self._memory.encode(row[_DST], dense)

    def _fill(self, i: int, _operands: list[Values]) -> None:
        self._memory.write(self._row[i][_DST], np.float64(self._immediate[i]) + np.zeros((1, 1)))

    def _matmul(self, i: int, operands: list[Values]) -> None:
        row, memory = self._row[i], self._memory
        flags = row[_FLAGS]
        unit = self._matrix[row[_UNIT]]
        if unit is None:
            raise AccelsimError("the unit has no matrix arithmetic (no method multiply)")
        a = operands[0].T if flags & Flag.TRANSPOSE_A else operands[0]
        b = operands[1].T if flags & Flag.TRANSPOSE_B else operands[1]
        acc = memory.read(row[_DST]) if flags & Flag.ACCUMULATE else None
        if acc is not None and flags & Flag.RESCALE:
            acc = self._lanes_of(row).apply(Function.MUL, acc, operands[2], 0.0)
        how: tuple[Any, ...] = ()
        if self._typed[row[_UNIT]]:
            a_format, b_format, sums = (
                memory.format(d) for d in (row[_SRC], row[_SRC + 1], row[_DST])
            )
            operator, encoding = row[_OPERATOR], memory.encoding(row[_SRC + 1])
            order = self._orders[operator] if operator >= 0 else CHAIN
            how = ProductTypes(a_format, b_format, sums, encoding), order
        memory.write(row[_DST], self._gone_on(i, unit.multiply(a, b, acc, *how)))

    def _pim(self, i: int, operands: list[Values]) -> None:
        """Products of the banks: each row of the matrix as it lies there, with its vector."""
        row, memory = self._row[i], self._memory
        unit = self._matrix[row[_UNIT]]
        if unit is None:
            raise AccelsimError("the unit has no matrix arithmetic (no method multiply)")
        (vectors, matrix), m, k = operands, row[_M], row[_K]
        if row[_FLAGS] & Flag.KEPT:
            before = self._kept.get(row[_UNIT])
            lost = before is None or before.shape != vectors.shape
            vectors = np.full_like(vectors, np.nan) if lost or before is None else before
        self._kept[row[_UNIT]] = vectors
        if row[_FLAGS] & Flag.COLUMNS:
            parts = [matrix.T]
        elif row[_FLAGS] & Flag.ABREAST:
            vectors = vectors.reshape(m, k)
            parts = np.split(matrix, m, axis=1)
        else:
            parts = np.split(matrix.reshape(-1, k), m)
        types = ProductTypes(
            memory.format(row[_SRC]), memory.format(row[_SRC + 1]), memory.format(row[_DST])
        )
        how: tuple[Any, ...] = (types, self._orders[row[_OPERATOR]])
        sums = self._begun(row, self._held.pop(row[_UNIT], None))
        multiply: Callable[..., Values] = unit.multiply
        if row[_FLAGS] & Flag.COLUMNS:
            assert isinstance(unit, ColumnArithmetic)
            multiply = unit.multiply_columns
        rows = [
            multiply(np.ascontiguousarray(part), vector[:, None], acc, *how)[:, 0]
            for vector, part, acc in zip(vectors, parts, sums, strict=True)
        ]
        if row[_FLAGS] & Flag.HELD:
            self._held[row[_UNIT]] = np.stack(rows)
            memory.poison(row[_DST])
        else:
            memory.write(row[_DST], np.stack(rows))

    def _begun(self, row: list[int], before: Values | None) -> list[Values | None]:
        """What the sums of each vector begin with: columns that the banks held, or nothing."""
        if not row[_FLAGS] & Flag.ACCUMULATE:
            return [None] * row[_M]
        shape = row[_M], row[_N]
        if before is None or before.shape != shape:
            before = np.full(shape, np.nan, np.float32)  # whatever the accumulators held
        return [one[:, None] for one in before]

    def _gone_on(self, i: int, result: Values) -> Values:
        """Results of a product after the rest of the pipeline, if it does not end there."""
        row, factor = self._row[i], self._immediate[i]
        if factor:
            result = self._lanes_of(row).apply(Function.MUL_IMM, result, None, factor)
        if row[_FUNCTION]:
            result = self._lanes_of(row).apply(Function(row[_FUNCTION]), result, None, 0.0)
        return result

    def _vector(self, i: int, operands: list[Values]) -> None:
        row = self._row[i]
        b = operands[1] if len(operands) > 1 else None
        if row[_FLAGS] & Flag.FORWARD:
            b = self._memory.read(row[_SRC + 1])
        function = Function(row[_FUNCTION])
        result = self._lanes_of(row).apply(function, operands[0], b, self._immediate[i])
        self._memory.write(row[_DST], result)

    def _lanes_of(self, row: list[int]) -> VectorArithmetic:
        unit = self._lanes[row[_UNIT]]
        if unit is None:
            raise AccelsimError("the unit has no vector arithmetic (no method apply)")
        return unit

    def _fault(self, i: int, reason: str) -> AccelsimError:
        row, program = self._row[i], self._program
        operator = program.operators[row[_OPERATOR]].name if row[_OPERATOR] >= 0 else "no operator"
        unit = program.units[row[_UNIT]].name
        return AccelsimError(f"instruction {i} of {operator} on {unit}: {reason}")


_OPCODE, _UNIT, _FUNCTION = COLUMN["opcode"], COLUMN["unit"], COLUMN["function"]
_FLAGS, _OPERATOR, _M, _N, _K = (COLUMN[c] for c in ("flags", "operator", "m", "n", "k"))
_DST, _SRC = COLUMN["dst"], COLUMN["src0"]


def _updates(row: list[int]) -> bool:
    """Whether an instruction works on what an earlier one leaves in its destination."""
    in_place = row[_FLAGS] & Flag.FORWARD and row[_SRC + 1] == row[_DST]
    return bool(row[_FLAGS] & Flag.ACCUMULATE or in_place)


def _pick(table: Values, ids: npt.NDArray[Any]) -> Values:
    """Rows of ``table`` by index; an index outside the table (garbage) gives poison."""
    legal = (ids >= 0) & (ids < len(table))
    rows: Values = table[np.where(legal, ids, 0)]
    rows[~legal] = poisoned(table.dtype)
    return rows
