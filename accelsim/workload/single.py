"""One operator with tensors of its own: what an inline workload or a topology row becomes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from accelsim.errors import AccelsimError
from accelsim.workload.coding import CODED_OPERANDS, Coding
from accelsim.workload.constants import AlibiTable, ConstantValues, RotaryTable
from accelsim.workload.operators import Operand, Operator, natural_dtypes
from accelsim.workload.pruning_operators import PruneWeight
from accelsim.workload.tensors import TensorSpec

Form = tuple[type[Operator], Mapping[str, object]]
"""An operator class and the values of its fields."""


def bind(
    form: Form, name: str, tensors: Mapping[str, str], *, extras: Collection[str], layer: int | None
) -> Operator:
    """An operator of the given form whose operands are the named tensors.

    Args:
        tensors: tensor name by operand name; an absent operand is called `<name>.<operand>`.
        extras: optional operands that are present; so are those in `tensors`.
    """
    cls, fields = form
    implied = cls.implied(fields)
    present = {item.name for item in cls.operands if not item.optional} | {*extras, *tensors}
    wanted = [item for item in cls.operands if item.name in present | implied]
    if not implied and wanted != list(cls.operands[: len(wanted)]):
        missing = next(item.name for item in cls.operands if item.name not in present)
        raise AccelsimError(f"{name}: {wanted[-1].name} without {missing}; accepted: both")
    if fields.get("latent") and "v" not in tensors:
        tensors = {**tensors, "v": tensors.get("k", f"{name}.k")}
    inputs = tuple(tensors.get(item.name, f"{name}.{item.name}") for item in wanted)
    in_place = cls.kind == "kv_append"
    output = inputs[1] if in_place else f"{name}.out"
    values: dict[str, Any] = dict(fields)
    return cls(name, inputs, (output,), layer=layer, **values)


def declare(
    operator: Operator,
    dtype: str,
    result_role: str,
    out: str | None = None,
    coding: Coding | None = None,
) -> list[TensorSpec]:
    """Specs of an operator's tensors under the natural dtype rule; repeated names once.

    ``out`` is the format of the result where it is not the natural one, ``coding`` how the weight
    of a product is stored.
    """
    input_dtypes, output_dtypes = natural_dtypes(operator, dtype)
    specs = {
        name: TensorSpec(name, shape, kind, operand.role, _values(operand))
        for name, shape, kind, operand in zip(
            operator.inputs,
            operator.input_shapes(),
            input_dtypes,
            operator.present(),
            strict=True,
        )
    }
    if coding is not None:
        weight = operator.inputs[CODED_OPERANDS[operator.kind]]
        specs[weight] = replace(specs[weight], coding=coding)
    if operator.output not in specs:
        shape = operator.output_shapes()[0]
        stored = operator.copy_coding if isinstance(operator, PruneWeight) else None
        specs[operator.output] = TensorSpec(
            operator.output, shape, out or output_dtypes[0], result_role, coding=stored
        )
    return list(specs.values())


def _values(operand: Operand) -> ConstantValues | None:
    """What a constant operand holds: a rotary table, or the slopes of ALiBi."""
    if operand.role != "constant":
        return None
    return AlibiTable() if operand.name == "bias" else RotaryTable(operand.name, 10000.0)


def standalone(
    form: Form,
    name: str,
    dtype: str,
    layer: int | None = None,
    *,
    extras: Collection[str] = (),
    out: str | None = None,
    coding: Coding | None = None,
) -> tuple[Operator, list[TensorSpec]]:
    """An operator that reads and writes tensors of its own, its result being an output."""
    operator = bind(form, name, {}, extras=extras, layer=layer)
    return operator, declare(operator, dtype, "output", out, coding)
