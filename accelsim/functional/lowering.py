"""How a program computes an operator, as far as its error bound depends on it.

Everything here is read off the instruction table: how deep the sums are, in which formats
intermediates are kept, which arithmetic the units have. A bound then holds for what was actually
executed, and a mapper that keeps its scores in fp16 gets the wider bound that it deserves.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, Protocol, runtime_checkable

import numpy as np

from accelsim.numerics.arithmetic import ProductTypes
from accelsim.numerics.bounds import Summation
from accelsim.numerics.formats import FORMAT_NAMES, FORMATS, Format, number_format
from accelsim.numerics.functions import CORRECT, FunctionErrors
from accelsim.numerics.orders import CHAIN, Order, orders_of, within_instruction
from accelsim.numerics.rules import Levels, Rule, StepError
from accelsim.program.opcodes import COPIES, PRODUCTS, Flag, Function, Opcode
from accelsim.program.table import COLUMN, OPERAND_COLUMN, Program

FP32 = FORMATS["fp32"]
_COPIES = (*COPIES, Opcode.GATHER)


@runtime_checkable
class SummingUnit(Protocol):
    """A matrix unit that knows how deep its sums are (see hw.systolic.Systolic)."""

    def summation_depth(self, k: int, before: int | None) -> int: ...


@runtime_checkable
class RuledUnit(Protocol):
    """A matrix unit that tells the rule of its sums (see hw.tensor_core.TensorCore)."""

    def rule(self, types: ProductTypes, order: Order) -> Rule: ...


@runtime_checkable
class ColumnUnit(Protocol):
    """One that sums the columns of a matrix in a way of their own (see hw.pim.unit.Pim)."""

    def columns_rule(self, types: ProductTypes, order: Order) -> Rule: ...


@runtime_checkable
class RowUnit(Protocol):
    """A vector unit that knows how deep its row sums are (see hw.vector.Vector)."""

    def row_sum_depth(self, cols: int) -> int: ...


@runtime_checkable
class FunctionUnit(Protocol):
    """A vector unit that says how exact its functions are (see hw.vector.Vector)."""

    def function_errors(self) -> FunctionErrors: ...


@dataclass(frozen=True)
class Lowering:
    """Facts about the instructions of one operator.

    ``depth``: most additions on the way of any product (None: unknown, any order is possible), in
    ``adder``; ``steps``: most fused steps of a tensor core, each of which errs as ``step`` says.
    ``vector_format``, ``operand_format``: coarsest format in which a computed intermediate waits
    for the vector unit, for the matrix unit. ``accumulator``, ``rests``: format of running sums in
    memory and how often one is stored, ``rescales``: how often one is multiplied before it grows,
    ``merges``: how often it adds sums that went through main memory, each multiplied first;
    ``entering``: format to which the matrix unit rounds its operands, which ``truncates`` them or
    not. ``summed_format``, ``lane_format``: of the vector unit's intermediates, those that row sums
    read and those that other functions read. ``row_piece``: shortest row sum (0: none),
    ``row_depth`` the additions in the deepest. ``shifted``: nothing exponentiates products as they
    are, without a maximum taken off. ``saturates``: integer products do. ``exponential_cols``: most
    exponentials of a row that one instruction forms (0: none). ``errors``: of the functions of the
    vector units. ``converted``: of inputs that copies bring to other formats before a matrix unit
    reads them, by name, the formats one after the other, of each way. ``arithmetic``: the units'
    own words; ``order``: the declared order of reduction with what the units' adders do, "" for an
    operator without products.
    """

    depth: int | None = None
    steps: int = 0
    step: StepError | None = None
    adder: Format = FP32
    truncates: bool = False
    accumulator: Format = FP32
    rests: int = 0
    rescales: int = 0
    merges: int = 0
    entering: Format = FP32
    vector_format: Format = FP32
    operand_format: Format = FP32
    summed_format: Format = FP32
    lane_format: Format = FP32
    row_piece: int = 0
    row_depth: int = 0
    shifted: bool = True
    saturates: bool = False
    exponential_cols: int = 0
    errors: FunctionErrors = CORRECT
    converted: Mapping[str, tuple[tuple[Format, ...], ...]] = field(default_factory=dict)
    arithmetic: str = "copy"
    order: str = ""

    def summation(self, length: int) -> Summation:
        """The sums of ``length`` products."""
        known = self.depth is not None
        return Summation(
            depth=min(self.depth + self.merges, length) if self.depth is not None else length,
            accumulator=self.accumulator,
            rests=self.rests,
            operands=self.entering,
            # Sums that meet elsewhere went through no more steps than there are products.
            steps=self.steps if known else max(self.steps, length if self.step else 0),
            step=self.step,
            adder=self.adder,
            truncates=self.truncates,
            rescales=self.rescales + (self.merges > 0),
        )

    def row_sum_depth(self, length: int) -> int:
        """Additions in a row sum over ``length`` values, possibly put together from pieces."""
        if not self.row_piece:
            return length - 1
        if self.row_piece >= length:
            return self.row_depth
        return min(length - 1, self.row_depth + -(-length // self.row_piece))


def lowerings(program: Program, blocks: Sequence[object]) -> list[Lowering]:
    """One Lowering per operator of the program, by operator index."""
    owner = program.column("operator")
    order = np.argsort(owner, kind="stable")
    bounds = np.searchsorted(owner[order], np.arange(len(program.operators) + 1))
    return [
        _Reader(program, blocks, order[first:end].tolist(), info.order).lowering()
        for first, end, info in zip(
            bounds[:-1].tolist(), bounds[1:].tolist(), program.operators, strict=True
        )
    ]


class _Reader:
    """Reads the rows of one operator."""

    def __init__(
        self, program: Program, blocks: Sequence[object], rows: list[int], order: str
    ) -> None:
        self._blocks = blocks
        self._declared = order
        self._order = within_instruction(order)
        self._known: dict[tuple[int, ProductTypes, bool], Rule] = {}
        self._rows: list[list[int]] = program.instructions[rows].tolist()
        used = sorted({d for row in self._rows for d in row[_DST : _DST + 4] if d >= 0})
        self._operand = dict(zip(used, program.operands[used].tolist(), strict=True))
        self._encodings = {d: program.encoding_of(d) for d in used}
        self._storages = program.storages
        self._formats = dict(zip(used, program.element_formats()[used].tolist(), strict=True))

    def lowering(self) -> Lowering:
        rules = self._rules()
        levels, rests = self._matmul_levels()
        entering = self._entering(rules)
        sums = [row for row in self._rows if row[_FUNCTION] == Function.ROW_SUM]
        exponentials = [row for row in self._rows if row[_FUNCTION] in _EXPONENTIALS]
        lane, summed, operand = self._intermediates()
        products = self._of(*PRODUCTS)
        running = [self._format(r[_DST]) for r in products if _accumulates(r) and self._rounds(r)]
        splits = [order for order in orders_of(self._declared) if order.slices > 1]
        partials = [number_format(order.partials) for order in splits]
        stores = max((order.roundings for order in splits), default=0)
        errors = [rule.step_error for rule in rules if rule.step_error is not None]
        return Lowering(
            depth=None if levels is None else levels.additions + self._partial_sums(),
            steps=0 if levels is None else levels.steps,
            step=max(errors, key=lambda e: e.relative, default=None),
            adder=_coarsest(rule.adder for rule in rules),
            truncates=any(rule.entering is not FP32 for rule in rules),
            accumulator=_coarsest([*running, *partials]),
            rests=(rests if running else 0) + stores,
            rescales=self._rescales(),
            merges=self._merges(),
            entering=entering,
            vector_format=_coarsest((lane, summed)),
            operand_format=operand,
            summed_format=summed,
            lane_format=lane,
            row_piece=min((row[_K] for row in sums), default=0),
            row_depth=max((self._row_depth(row) for row in sums), default=0),
            shifted=not any(row[_FUNCTION] == Function.EXP for row in products)
            and any(row[_FUNCTION] in _MAXIMA for row in self._rows),
            saturates=any(getattr(rule, "saturates", False) for rule in rules),
            exponential_cols=max((row[_N] for row in exponentials), default=0),
            errors=self._function_errors(),
            converted=self._converted(),
            arithmetic=self._arithmetic(),
            order=self._reduction(rules) if products else "",
        )

    def _reduction(self, rules: Sequence[Rule]) -> str:
        """The declared orders, each with what the units' adders do in it."""
        declared = orders_of(self._declared) or (CHAIN,)
        how = [(getattr(rule, "fold", 0), rule.adders) for rule in rules] or [(0, "")]
        told = [
            replace(order, fold=fold, adders=adders) for order in declared for fold, adders in how
        ]
        return " | ".join(str(order) for order in dict.fromkeys(told))

    def _of(self, *opcodes: Opcode) -> list[list[int]]:
        return [row for row in self._rows if row[_OPCODE] in opcodes]

    def _format(self, descriptor: int) -> Format:
        return FORMATS[FORMAT_NAMES[self._formats[descriptor]]]

    def _storage(self, descriptor: int) -> int:
        row: list[int] = self._operand[descriptor]
        return row[_STORAGE]

    def _rule(self, row: list[int]) -> Rule | None:
        """How a unit forms a product; None if it does not say."""
        unit = self._blocks[row[_UNIT]]
        if not isinstance(unit, RuledUnit):
            return None
        a, b, sums = (self._format(d) for d in (row[_SRC], row[_SRC + 1], row[_DST]))
        types = ProductTypes(a, b, sums, self._encodings[row[_SRC + 1]])
        columns = row[_OPCODE] == Opcode.PIM and row[_FLAGS] & Flag.COLUMNS
        key = (row[_UNIT], types, bool(columns))
        if key not in self._known:
            by = unit.columns_rule if columns and isinstance(unit, ColumnUnit) else unit.rule
            self._known[key] = by(types, self._order)
        return self._known[key]

    def _rules(self) -> list[Rule]:
        """The rules of all products, each once."""
        found = [self._rule(row) for row in self._of(*PRODUCTS)]
        return [*dict.fromkeys(rule for rule in found if rule is not None)]

    def _rounds(self, row: list[int]) -> bool:
        """Whether a product is rounded once more when it is stored."""
        rule = self._rule(row)
        return rule is None or rule.result is not self._format(row[_DST])

    def _matmul_levels(self) -> tuple[Levels | None, int]:
        """(deepest sum, most stores of a running sum), following each result window in order.

        The depth is unknown if sums meet elsewhere: a window that is accumulated onto without
        having been started, or two results of the matrix unit added by the vector unit.
        """
        levels: dict[tuple[int, ...], Levels] = {}
        rests: dict[tuple[int, ...], int] = {}
        known = not self._adds_products()
        for row in self._of(*PRODUCTS):
            window = tuple(self._operand[row[_DST]][1:])
            joins = _accumulates(row)
            after = self._levels(row, levels.get(window) if joins else None)
            if after is None or (joins and window not in levels):
                known = False
                continue
            levels[window] = after
            rests[window] = rests[window] + 1 if joins else 1
        deepest = reduce(operator.or_, levels.values(), Levels())
        return (deepest if known else None), max(rests.values(), default=0)

    def _partial_sums(self) -> int:
        """Additions of the partial sums of a split K."""
        return max((order.slices - 1 for order in orders_of(self._declared)), default=0)

    def _levels(self, row: list[int], before: Levels | None) -> Levels | None:
        """Roundings after a product; None if its unit does not say."""
        rule, unit = self._rule(row), self._blocks[row[_UNIT]]
        if rule is not None:
            return rule.levels(row[_K], before)
        if not isinstance(unit, SummingUnit):
            return None
        return Levels(unit.summation_depth(row[_K], None if before is None else before.additions))

    def _entering(self, rules: Sequence[Rule]) -> Format:
        """Coarsest format that a matrix unit gives operands which are wider than it."""
        found = [rule.entering for rule in rules]
        for row in self._of(*PRODUCTS):
            entry = getattr(self._blocks[row[_UNIT]], "operand_format", FP32)
            operands = [self._format(d) for d in row[_SRC : _SRC + 2]]
            if any(f.significand_bits > entry.significand_bits for f in operands):
                found.append(entry)
        return _coarsest(found)

    def _adds_products(self) -> bool:
        products = {self._storage(row[_DST]) for row in self._of(*PRODUCTS)}
        return any(
            row[_FUNCTION] == Function.ADD
            and all(self._storage(d) in products for d in row[_SRC : _SRC + 2] if d >= 0)
            for row in self._of(Opcode.VECTOR)
        )

    def _rescales(self) -> int:
        """Most multiplications on the way of a running sum of products: by the vector unit, those
        of its storage between the product that starts it and the last one added to it; by the
        matrix unit itself, those of its window."""
        met: dict[int, dict[tuple[int, ...], int]] = {}
        most = 0
        for row in self._rows:
            if row[_DST] < 0:
                continue
            descriptor = self._operand[row[_DST]]
            windows = met.setdefault(descriptor[_STORAGE], {})
            if row[_OPCODE] in PRODUCTS:
                window = tuple(descriptor[1:])
                if row[_FLAGS] & Flag.RESCALE:
                    windows[window] = windows.get(window, 0) + 1
                if _accumulates(row):
                    most = max(most, windows.get(window, max(windows.values(), default=0)))
                else:
                    windows[window] = 0
            elif row[_FUNCTION] in (Function.MUL, Function.MUL_IMM):
                for window in windows:
                    windows[window] += 1
        return most

    def _merges(self) -> int:
        """Most additions onto one window of sums that were multiplied after they were loaded.

        Such are the products of the vector unit with what copies brought from products' results.
        """
        products = {self._storage(row[_DST]) for row in self._of(*PRODUCTS)}
        copies = {(self._storage(r[_DST]), self._storage(r[_SRC])) for r in self._of(*_COPIES)}
        carried = set(products)
        while more := {target for target, source in copies if source in carried} - carried:
            carried |= more
        carried -= products
        added: dict[tuple[int, ...], int] = {}
        most = 0
        for row in self._of(Opcode.VECTOR):
            window = tuple(self._operand[row[_DST]])
            if row[_FUNCTION] == Function.ADD:
                added[window] = added.get(window, 0) + 1
                if any(self._storage(d) in carried for d in row[_SRC : _SRC + 2] if d >= 0):
                    most = max(most, added[window])
            elif row[_SRC] < 0 or self._storage(row[_SRC]) != self._storage(row[_DST]):
                added[window] = 0
        return most

    def _intermediates(self) -> tuple[Format, Format, Format]:
        """Coarsest formats of computed values that the vector unit reads again, in row sums and
        otherwise, and that the matrix unit reads."""
        written = [row[_DST] for row in self._of(*PRODUCTS, Opcode.VECTOR)]
        written += [r[_DST] for r in self._of(*_COPIES) if self._narrows(r)]
        sums = [r for r in self._of(Opcode.VECTOR) if r[_FUNCTION] == Function.ROW_SUM]
        lanes = [r for r in self._of(Opcode.VECTOR) if r[_FUNCTION] != Function.ROW_SUM]
        found = []
        for readers in (lanes, sums, self._of(*PRODUCTS)):
            read = self._read_by(readers)
            found.append(_coarsest(self._format(d) for d in written if self._storage(d) in read))
        lane, summed, operand = found
        entering = self._entering(self._rules())
        return lane, summed, max(operand, entering, key=lambda f: f.unit_roundoff)

    def _narrows(self, row: list[int]) -> bool:
        return self._format(row[_DST]) is not self._format(row[_SRC])

    def _converted(self) -> dict[str, tuple[tuple[Format, ...], ...]]:
        """The formats that tensors take on their ways to a matrix unit (see Lowering).

        A format is named once on a way: rounding to another one only makes a number's last digits
        zero, so that what was rounded to a format stays in it.
        """
        ways: dict[int, dict[tuple[str, tuple[Format, ...]], None]] = {}
        found: dict[str, dict[tuple[Format, ...], None]] = {}
        for row in self._rows:
            if row[_OPCODE] in _COPIES:
                source, target = self._storage(row[_SRC]), self._format(row[_DST])
                came = ways.get(source) or {(self._storages[source].name, ()): None}
                for name, way in came:
                    new = self._narrows(row) and target not in way
                    met = ways.setdefault(self._storage(row[_DST]), {})
                    met[name, (*way, target) if new else way] = None
            elif row[_OPCODE] in PRODUCTS:
                for d in row[_SRC : _SRC + 2]:
                    for name, way in ways.get(self._storage(d), ()):
                        if way:
                            found.setdefault(name, {})[way] = None
        return {name: tuple(several) for name, several in found.items()}

    def _read_by(self, readers: Iterable[list[int]]) -> set[int]:
        """Storages that these instructions read, directly or through copies."""
        read = {self._storage(d) for r in readers for d in r[_SRC : _SRC + 3] if d >= 0}
        copies = {(self._storage(r[_DST]), self._storage(r[_SRC])) for r in self._of(*_COPIES)}
        while more := {source for target, source in copies if target in read} - read:
            read |= more
        return read

    def _row_depth(self, row: list[int]) -> int:
        unit = self._blocks[row[_UNIT]]
        return unit.row_sum_depth(row[_K]) if isinstance(unit, RowUnit) else row[_K] - 1

    def _function_errors(self) -> FunctionErrors:
        """Of the vector units that compute here."""
        units = {row[_UNIT] for row in self._of(Opcode.VECTOR)}
        found = [self._blocks[unit] for unit in sorted(units)]
        sets = [b.function_errors() for b in found if isinstance(b, FunctionUnit)]
        return reduce(operator.or_, sets) if len({*map(id, sets)}) > 1 else (sets or [CORRECT])[0]

    def _arithmetic(self) -> str:
        """The arithmetic of each unit that computes, matrix units first."""
        names = {
            self._arithmetic_of(row): None
            for opcode in (*PRODUCTS, Opcode.VECTOR)
            for row in self._of(opcode)
        }
        return "; ".join(names) or "copy"

    def _arithmetic_of(self, row: list[int]) -> str:
        rule = self._rule(row) if row[_OPCODE] in PRODUCTS else None
        if self._format(row[_SRC]).is_integer:
            return "exact int32" if rule is None else rule.tag
        name = _arithmetic_name(self._blocks[row[_UNIT]])
        return name if rule is None or rule.tag in name else f"{name} ({rule.tag})"


def _accumulates(row: list[int]) -> bool:
    return bool(row[_FLAGS] & Flag.ACCUMULATE)


def _coarsest(formats: Iterable[Format]) -> Format:
    return max(formats, key=lambda f: f.unit_roundoff, default=FP32)


def _arithmetic_name(unit: Any) -> str:
    name = getattr(unit, "arithmetic_name", None)
    return str(name()) if callable(name) else type(unit).__name__


_OPCODE, _UNIT, _FUNCTION, _FLAGS = (
    COLUMN[name] for name in ("opcode", "unit", "function", "flags")
)
_EXPONENTIALS = (Function.EXP, Function.EXP_SUB)
_MAXIMA = (Function.ROW_MAX, Function.MAX, Function.EXP_SUB)
_N, _K, _DST, _SRC = COLUMN["n"], COLUMN["k"], COLUMN["dst"], COLUMN["src0"]
_STORAGE = OPERAND_COLUMN["storage"]
