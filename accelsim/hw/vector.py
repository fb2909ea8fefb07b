"""Vector unit: lanes that apply one function to many elements per cycle.

An instruction over e elements takes ceil(e / lanes) x (cycles of the function) cycles of issue,
and its result may be used ``latency`` cycles later. A row reduction first folds each row onto the
lanes, element by element, and then adds a tree of log2(lanes) steps at the end; rows narrower than
the lanes share them.

The numbers. Floating-point operands are widened to fp32 and every function rounds once to fp32, to
nearest even, but exp, which is made of fp32 operations (numerics.functions). When all operands are
integers, and the immediate is whole, add, sub, mul, max, copy, relu and the row functions are
integer arithmetic modulo 2**32; every other function of integers first rounds them to fp32. The
result is rounded, or saturated, to the format of the destination when it is written.

    max         the larger; NaN if either is NaN, so that garbage stays visible; zero results are +0
    row_sum     lane by lane, then neighbouring lanes pairwise (numerics.accumulate.row_sums)

``functions: taylor-fp32``, ``taylor-bf16`` or ``powers-fp32``: exp, reciprocal, rsqrt and what is
made of them are additions and multiplications (numerics.taylor), as many issue cycles as there are
of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from accelsim.errors import AccelsimError, shown
from accelsim.hw.block import Cost, Unit, Work, block, require
from accelsim.numerics import accumulate, functions
from accelsim.numerics.functions import FunctionErrors
from accelsim.numerics.taylor import NO_GELU, Taylor, taylor
from accelsim.program.opcodes import REDUCTIONS, Function, Opcode
from accelsim.quantities import Cycles, Picojoules

# Issue cycles of one function over one full set of lanes: 1 for what an ALU does in a slot. The
# others are round choices, not a datasheet's: about four slots for a table look-up with a short
# polynomial (exp, reciprocal, rsqrt), more for what is composed of several. An architecture that
# knows better says so in ``slots``.
SLOTS: dict[str, int] = {
    "copy": 1, "add": 1, "sub": 1, "mul": 1, "max": 1,
    "div": 6, "add_imm": 1, "mul_imm": 1, "max_imm": 1, "relu": 1,
    "exp": 4, "exp_sub": 5, "reciprocal": 4, "rsqrt": 4, "tanh": 6, "sigmoid": 6,
    "gelu": 10, "gelu_tanh": 10, "silu": 7,
    "sqrt": 4, "step": 1, "tanh_grad": 7, "sigmoid_grad": 7, "gelu_grad": 12,
    "gelu_tanh_grad": 12, "silu_grad": 8, "unhot": 1,
    "row_max": 1, "row_sum": 1, "causal_mask": 1, "window_mask": 1, "rotate_half": 1,
}  # fmt: skip

Operand = npt.NDArray[Any]  # fp32 or int32 carriers, [rows, cols]

_SPECIAL: dict[Function, Callable[..., Any]] = {
    Function.RECIPROCAL: functions.reciprocal,
    Function.RSQRT: functions.rsqrt,
    Function.TANH: np.tanh,
    Function.SIGMOID: functions.sigmoid,
    Function.GELU: functions.gelu,
    Function.GELU_TANH: functions.gelu_tanh,
    Function.SILU: functions.silu,
    Function.SQRT: np.sqrt,
    Function.STEP: functions.step,
    Function.TANH_GRAD: functions.tanh_grad,
    Function.SIGMOID_GRAD: functions.sigmoid_grad,
    Function.GELU_GRAD: functions.gelu_grad,
    Function.GELU_TANH_GRAD: functions.gelu_tanh_grad,
    Function.SILU_GRAD: functions.silu_grad,
}
_IMMEDIATE = {
    Function.ADD_IMM: Function.ADD,
    Function.MUL_IMM: Function.MUL,
    Function.MAX_IMM: Function.MAX,
}
_INTEGER = frozenset(
    {Function.COPY, Function.ADD, Function.SUB, Function.MUL, Function.MAX, Function.ADD_IMM,
     Function.MUL_IMM, Function.MAX_IMM, Function.RELU, Function.ROW_MAX, Function.ROW_SUM}
)  # fmt: skip

MOST_SLOTS = 1 << 20
"""Issue cycles of one function: far beyond any routine, and products with elements stay whole."""


@block("vector")
@dataclass(frozen=True, kw_only=True)
class Vector(Unit):
    """Vector unit of ``lanes`` lanes.

    ``memory`` names the scratchpads it works on; row-wise operators are staged in the largest.
    ``slots`` overrides the issue cycles of single functions, e.g. ``{exp: 1}``. ``functions`` names
    how special ones are computed, ``terms`` how many terms or steps those of numerics.taylor take.
    """

    opcodes: ClassVar[frozenset[Opcode]] = frozenset({Opcode.VECTOR})

    lanes: int
    memory: tuple[str, ...]
    latency: Cycles = 8
    slots: dict[str, int] = field(default_factory=dict)
    functions: str = "correct"
    terms: dict[str, int] = field(default_factory=dict)
    op_pj: Picojoules = 0.0

    def check(self) -> None:
        super().check()
        require(self.lanes >= 1, f"lanes must be at least 1, not {self.lanes}")
        require(self.latency >= 0, f"latency must not be negative, not {self.latency}")
        require(len(self.memory) >= 1, "memory must name at least one memory")
        for name, cycles in self.slots.items():
            if name not in SLOTS:
                raise AccelsimError(f"slots names {name!r}; known functions: {', '.join(SLOTS)}")
            require(
                1 <= cycles <= MOST_SLOTS,
                f"slots.{name} must be at least 1 and at most {MOST_SLOTS}, not {shown(cycles)}",
            )
        taylor(self.functions, self.terms)

    def memories(self) -> tuple[str, ...]:
        return self.memory

    def energy_pj_per_action(self) -> dict[str, float]:
        return {"vector_op": self.op_pj}

    def slots_by_function(self) -> np.ndarray:
        """int64 array indexed by Function code."""
        table = np.ones(max(Function) + 1, dtype=np.int64)
        composed = self._taylor.operations if self._taylor else {}
        counted = {name: adds + multiplies for name, (adds, multiplies) in composed.items()}
        for name, cycles in {**SLOTS, **counted, **self.slots}.items():
            table[Function[name.upper()]] = cycles
        return table

    def cost(self, work: Work) -> Cost:
        for function in np.unique(work.function):
            self._check_composed(int(function))
        reduces = np.isin(work.function, [int(f) for f in REDUCTIONS])
        elements = work.m * np.where(reduces, work.k, work.n)
        slots = self.slots_by_function()[work.function]
        tree = int(np.ceil(np.log2(self.lanes))) if self.lanes > 1 else 0
        occupancy = -(-elements // self.lanes) * slots
        latency = occupancy + self.latency + np.where(reduces, tree, 0)
        return Cost(occupancy, latency, {"vector_op": elements * slots})

    # -- arithmetic ------------------------------------------------------------------------------

    def apply(self, function: Function, a: Operand, b: Operand | None, imm: float) -> Operand:
        """``function(a, b)`` as the lanes compute it: fp32, or int32 as the module says.

        ``a`` is [rows, cols], ``b`` broadcasts to it; the result has the shape of ``a``, or
        [rows, 1] for a row function.
        """
        if np.float64 in (a.dtype, None if b is None else b.dtype):
            raise AccelsimError("the lanes compute in fp32, which does not hold fp64")
        if not _is_integer_work(function, a, b, imm):
            a = a.astype(np.float32, copy=False)
            b = None if b is None else b.astype(np.float32, copy=False)
        if function == Function.EXP:
            return self._exp(a)
        self._check_composed(function)
        if function in _SPECIAL and function != Function.STEP and self._taylor:
            composed: Operand = getattr(self._taylor, function.name.lower())(a)
            return composed
        if function in _SPECIAL:
            return functions.to_fp32(_SPECIAL[function], a)
        with np.errstate(all="ignore"):
            return self._apply(function, a, b, imm)

    def _apply(self, function: Function, a: Operand, b: Operand | None, imm: float) -> Operand:
        match function:
            case Function.ADD_IMM | Function.MUL_IMM | Function.MAX_IMM:
                return binary(_IMMEDIATE[function], a, _constant(imm, a.dtype))
            case Function.ROW_MAX:
                return _plus_zero(a.max(axis=1, keepdims=True))
            case Function.ROW_SUM:
                return self.row_sum(a)
            case Function.COPY:
                return a.copy()
            case Function.RELU:
                return _maximum(a, _constant(0.0, a.dtype))
            case Function.CAUSAL_MASK:
                return _masked(a, int(imm), np.greater)
            case Function.WINDOW_MASK:
                return _masked(a, int(imm), np.less)
            case Function.ROTATE_HALF:
                return _rotate_half(a, int(imm))
        if b is None:
            raise AccelsimError(f"vector function {function.name} needs a second operand")
        if function == Function.UNHOT:
            hot = np.arange(a.shape[1]) + np.float32(imm) == b
            cold: Operand = a - hot.astype(a.dtype)
            return cold
        if function == Function.EXP_SUB:
            return self._exp(a - b)
        if function == Function.DIV and self._taylor:
            quotient: Operand = a * self._taylor.reciprocal(b)
            return quotient
        return binary(function, a, b)

    @cached_property
    def _taylor(self) -> Taylor | None:
        return taylor(self.functions, self.terms)

    def _check_composed(self, function: int) -> None:
        """Raise for a special function that additions and multiplications do not make here."""
        if self._taylor is None or function not in _SPECIAL or function == Function.STEP:
            return
        if function == Function.GELU:
            raise AccelsimError(NO_GELU)
        name, made = Function(function).name.lower(), self._taylor.operations
        if name not in made:
            raise AccelsimError(
                f"functions {self.functions} have no {name}; accepted: {', '.join(made)}"
            )

    def _exp(self, x: Operand) -> Operand:
        return self._taylor.exp(x) if self._taylor else functions.exp_fp32(x)

    def function_errors(self) -> FunctionErrors:
        """How exact the special functions are."""
        return self._taylor.errors if self._taylor else functions.CORRECT

    def row_sum(self, a: Operand) -> Operand:
        """Sums of the rows of ``a[rows, cols]`` as [rows, 1], in the order the module states."""
        return accumulate.row_sums(a, self.lanes)

    def row_sum_depth(self, cols: int) -> int:
        """Additions with a rounding that a value passes through in a row sum, at most."""
        return accumulate.row_sum_depth(cols, self.lanes)

    def arithmetic_name(self) -> str:
        """How values are computed, in words, for reports."""
        return f"fp32 ({self.lanes} lanes{f', {self._taylor}' if self._taylor else ''})"


def _is_integer_work(function: Function, a: Operand, b: Operand | None, imm: float) -> bool:
    kinds = a.dtype.kind + ("" if b is None else b.dtype.kind)
    return "f" not in kinds and function in _INTEGER and float(imm).is_integer()


def _constant(value: float, dtype: np.dtype[Any]) -> Operand:
    if dtype.kind == "i":
        return np.array(int(value), dtype=np.int64).astype(dtype)
    return np.array(value, dtype=dtype)


def binary(function: Function, a: Operand, b: Operand) -> Operand:
    """One operation of two operands of a kind, rounded once."""
    result: Operand
    match function:
        case Function.ADD:
            result = a + b
        case Function.SUB:
            result = a - b
        case Function.MUL:
            result = a * b
        case Function.DIV:
            result = a / b
        case Function.MAX:
            result = _maximum(a, b)
        case _:
            raise AccelsimError(f"the vector unit has no function {function.name}")
    return result


def _maximum(a: Operand, b: Operand) -> Operand:
    return _plus_zero(np.maximum(a, b))


def _plus_zero(values: Operand) -> Operand:
    # Which of -0 and +0 numpy returns depends on the host; adding +0 settles it.
    zero = values.dtype.type(0)
    result: Operand = values + zero
    return result


def _masked(a: Operand, diagonal: int, side: Callable[..., npt.NDArray[np.bool_]]) -> Operand:
    """-inf in the columns on one side of row + diagonal."""
    rows, cols = a.shape
    hidden = side(np.arange(cols), np.arange(rows)[:, None] + diagonal)
    return np.where(hidden, a.dtype.type(-np.inf), a)


def _rotate_half(a: Operand, head: int) -> Operand:
    rows, cols = a.shape
    if head < 2 or head % 2 or cols % head:
        raise AccelsimError(f"rotate_half of {cols} columns by heads of {head}: not whole heads")
    halves = a.reshape(rows, cols // head, 2, head // 2)
    rotated: Operand = np.stack([-halves[:, :, 1], halves[:, :, 0]], axis=2)
    return rotated.reshape(rows, cols)
