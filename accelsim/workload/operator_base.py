"""What every operator of a workload has in common: operands, shape rule, dtype rule, counts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from accelsim.errors import AccelsimError
from accelsim.workload._words import listed, whole
from accelsim.workload.tensors import DTYPES, Shape

DtypeRule = tuple[tuple[str, ...], ...]
"""For each tensor of a list, the dtypes accepted there; the first is the natural one."""


def float_dtypes() -> tuple[str, ...]:
    """Every floating-point format known now."""
    return tuple(name for name, entry in DTYPES.items() if entry.is_float)


PASSES = ("forward", "backward", "update", "optimizer")
"""Parts of a training step: activations, their gradients, the gradients of weights, new weights."""


@dataclass(frozen=True)
class Operand:
    """One input position of an operator kind, in its documented order."""

    name: str
    role: str = "input"
    """Role of the tensor when no operator produces it."""
    optional: bool = False


@dataclass(frozen=True)
class Operator:
    """One computation of a workload, with the names of the tensors it reads and writes.

    Pure data: the dimensions stand in the fields, the shapes and dtypes of the tensors follow
    from them by rule, and nothing here knows which hardware will run it.

    Attributes:
        name: unique in its graph, e.g. "layer0.attention.q_proj".
        inputs: tensor names in the order of `operands`.
        outputs: tensor names.
        layer: index of the repeated block that it belongs to, None outside of any.
        pass_: the part of a training step that it belongs to (see PASSES).
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layer: int | None = field(default=None, kw_only=True)
    pass_: str = field(default="forward", kw_only=True)

    kind: ClassVar[str] = ""
    operands: ClassVar[tuple[Operand, ...]] = ()
    dimensions: ClassVar[tuple[str, ...]] = ()
    """Fields that must be whole numbers of at least 1."""

    def __post_init__(self) -> None:
        for dimension in self.dimensions:
            size = whole(getattr(self, dimension), f"{self}: {dimension}")
            object.__setattr__(self, dimension, size)
        least = sum(not operand.optional for operand in self.operands)
        if len(self.inputs) < least or len(self.inputs) != len(self.present()):
            names = listed(operand.name for operand in self.operands)
            raise self.error(f"{len(self.inputs)} inputs; accepted: {names}")
        if len(self.outputs) != self.results:
            raise self.error(f"{len(self.outputs)} outputs; accepted: {self.results}")
        if self.pass_ not in PASSES:
            raise self.error(f"pass_ is {self.pass_!r}; accepted: {listed(PASSES)}")
        self.check_fields()

    def __str__(self) -> str:
        return f"operator '{self.name}' ({self.kind})"

    def error(self, problem: str) -> AccelsimError:
        """An error about this operator."""
        return AccelsimError(f"{self}: {problem}")

    @property
    def results(self) -> int:
        """How many tensors it writes."""
        return 1

    def check_fields(self) -> None:
        """Raise AccelsimError when fields contradict each other."""

    @classmethod
    def implied(cls, fields: Mapping[str, object]) -> frozenset[str]:
        """Names of the optional operands that there are with such fields."""
        del fields
        return frozenset()

    def present(self) -> tuple[Operand, ...]:
        """The operands that it has, one per input: optional ones may be left out from the end."""
        return self.operands[: len(self.inputs)]

    def operand(self, name: str) -> str | None:
        """Name of the tensor at an operand position ("a", "bias"), None when left out."""
        positions = [operand.name for operand in self.operands]
        if name not in positions:
            raise self.error(f"no operand '{name}'; accepted: {listed(positions)}")
        held = zip(self.present(), self.inputs, strict=True)
        return next((tensor for item, tensor in held if item.name == name), None)

    @property
    def output(self) -> str:
        """Name of the (first) tensor that it writes."""
        return self.outputs[0]

    def input_shapes(self) -> tuple[Shape, ...]:
        """Shape that each input tensor must have, in elements."""
        raise NotImplementedError("abstract: every kind says its own")

    def output_shapes(self) -> tuple[Shape, ...]:
        """Shape that each output tensor must have, in elements."""
        raise NotImplementedError("abstract: every kind says its own")

    def accepted_dtypes(self, main: str) -> tuple[DtypeRule, DtypeRule]:
        """Accepted dtypes of (inputs, outputs) when the first input has dtype `main`.

        The natural rule of row-wise operators: floating point, the same everywhere.
        """
        return (float_dtypes(), *[(main,)] * (len(self.inputs) - 1)), ((main,),)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of its matrix arithmetic; 0 for row-wise operators."""
        return 0

    @property
    def vector_ops(self) -> int:
        """Element operations beside the multiply-accumulates (add, multiply, exp, ...)."""
        return 0

    @property
    def flops(self) -> int:
        """Arithmetic operations: two for a multiply-accumulate, one for an element operation."""
        return 2 * self.macs + self.vector_ops

    def elements_read(self) -> tuple[int, ...]:
        """Distinct elements of each input that it needs (at most, when ids choose rows)."""
        return tuple(math.prod(shape) for shape in self.input_shapes())

    def elements_written(self) -> tuple[int, ...]:
        """Distinct elements of each output that it writes."""
        return tuple(math.prod(shape) for shape in self.output_shapes())


def natural_dtypes(operator: Operator, dtype: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Dtypes of (inputs, outputs) that an operator gets when a user names one dtype.

    Raises:
        AccelsimError: when the operator cannot compute on `dtype`.
    """
    inputs, outputs = operator.accepted_dtypes(dtype)
    if dtype not in inputs[0]:
        raise operator.error(f"dtype {dtype!r}; accepted: {listed(inputs[0])}")
    return (dtype, *(rule[0] for rule in inputs[1:])), tuple(rule[0] for rule in outputs)


def check_dtypes(operator: Operator, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Raise AccelsimError, naming the tensor, when a dtype breaks the operator's rule."""
    input_rule, output_rule = operator.accepted_dtypes(inputs[0])
    found = [*inputs, *outputs]
    names = [*operator.inputs, *operator.outputs]
    for name, dtype, accepted in zip(names, found, [*input_rule, *output_rule], strict=True):
        if dtype not in accepted:
            raise operator.error(
                f"tensor '{name}' has dtype {dtype}, expected {' or '.join(accepted)}"
            )
