"""Is the mapping right? Executes a program and judges every operator by itself.

Each operator's simulated output is compared with the float64 reference of its *simulated* inputs,
so an error is reported where it arises, and the bound needs no assumption about what came before.
Integers and copies must be equal; floating point must lie inside a derived bound, or, beyond the
largest number of its format, become what the format makes of such values. NaN, poison and
infinities that the reference does not have are mismatches. Where no finite bound is known (the
scores of a softmax are so large that roundings swamp its exponents; an operand has overflowed),
only equality proves anything, and NaN nowhere, as nobody knows whose it is: other elements are not
judged, neither right nor wrong, and the check is not ok.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from accelsim.errors import AccelsimError
from accelsim.functional.coded import NOTHING_CODED, CodedWeight, coded_weights
from accelsim.functional.execute import Captures, Clocked, execute
from accelsim.functional.lowering import Lowering, lowerings
from accelsim.functional.memory import Memory
from accelsim.functional.reference import reference, saturated
from accelsim.functional.tolerance import radius
from accelsim.functional.values import graph_values
from accelsim.numerics.ball import Ball
from accelsim.numerics.formats import Format, number_format
from accelsim.program.table import Program
from accelsim.workload.graph import Graph
from accelsim.workload.operators import Conv2d, Gemm, Operator

Stored = npt.NDArray[Any]

LOOSE_BELOW = 0.01  # a bound that nothing comes near tests little


class HasUnits(Protocol):
    """An architecture, as far as the executor needs it: hardware blocks by unit name."""

    @property
    def units(self) -> Any: ...


@dataclass(frozen=True)
class Mismatch:
    """One element that is wrong, or cannot be judged: where, what was found, what was expected,
    and how near it had to be (infinity: nobody knows)."""

    operator: str
    tensor: str
    index: tuple[int, ...]
    got: float
    expected: float
    bound: float

    def __str__(self) -> str:
        where = f"{self.tensor}[{', '.join(map(str, self.index))}]"
        found = f"{self.operator}: {where} is {self.got:.9g}, expected {self.expected:.9g}"
        if np.isfinite(self.bound):
            return f"{found} within {self.bound:.3g}"
        return f"{found}, of which no finite bound is known"


@dataclass(frozen=True)
class OperatorCheck:
    """The verdict on one operator's output.

    ``reduction`` is the order in which its products were declared and summed (numerics.orders);
    ``bounded`` says whether some elements were judged by an error bound, not by equality;
    ``unjudged`` counts those that differ where no finite bound is known, ``overflowed`` those that
    are infinite and should be. ``first`` is the first wrong element, or else the first
    that is not judged.
    """

    name: str
    kind: str
    compared: int
    mismatches: int
    max_error_over_bound: float
    arithmetic: str
    reduction: str = ""
    bounded: bool = False
    unjudged: int = 0
    overflowed: int = 0
    first: Mismatch | None = None


@dataclass(frozen=True)
class Check:
    """The verdict on a program: ``ok`` if every element of every operator is known to be right,
    that is, none is wrong (``mismatches``) and none ``unjudged``.

    ``max_error_over_bound`` is the largest |simulated - exact| / bound of the elements that are
    not exact by nature (0 if there are none): at most 1 if all is well. ``loose`` warns that
    there are bounds and nothing came within 1 % of its own. ``order`` is "program" or "clock".
    ``unchecked`` names operators of the workload that the program does not contain.
    """

    ok: bool
    mismatches: int
    max_error_over_bound: float
    order: str
    operators: tuple[OperatorCheck, ...]
    loose: bool
    unchecked: tuple[str, ...] = ()
    unjudged: int = 0

    @property
    def first(self) -> Mismatch | None:
        """The first wrong element of the first wrong operator; if none is, the first unjudged."""
        told = sorted(self.operators, key=lambda o: o.mismatches == 0)
        return next((o.first for o in told if o.first is not None), None)


def check(
    arch: HasUnits,
    graph: Graph,
    program: Program,
    schedule: Clocked | None = None,
    seed: int = 0,
    scale: float = 1.0,
) -> Check:
    """Execute ``program`` on seeded values and compare every operator with its reference.

    With a ``schedule`` the instructions take effect in the clock's order, else in program order.
    ``scale`` multiplies the floating-point values: a softmax that forgets to subtract the maximum
    shows only on large ones, a forgotten epsilon only on small ones.
    """
    blocks = [arch.units[slot.unit] for slot in program.units]
    values = graph_values(graph, seed, _produced_elsewhere(graph, program), scale)
    coded = coded_weights(graph, values)
    values |= {name: weight.elements() for name, weight in coded.items()}
    memory = Memory(program)
    load_image(program, memory, values, coded)
    captures = execute(program, blocks, memory, schedule)
    return compare(graph, program, captures, values, lowerings(program, blocks))


def _produced_elsewhere(graph: Graph, program: Program) -> set[str]:
    """Tensors that the program reads and an operator outside it creates."""
    created = {s.name for s in graph.tensors.values() if s.role in ("activation", "output")}
    return {s.name for s in program.storages if s.producer < 0 and s.name in created}


def load_image(
    program: Program,
    memory: Memory,
    values: dict[str, Stored],
    coded: Mapping[str, CodedWeight] = NOTHING_CODED,
) -> None:
    """Put the initial tensors into every storage that holds one of them, coded ones as bytes."""
    for index, info in enumerate(program.storages):
        if info.role in ("buffer", "scratch") or info.name not in values:
            continue
        if info.encoding:
            for tile in info.tiles:
                memory.fill_tile(index, tile, coded[info.name].tile(tile))
        else:
            memory.fill(index, values[info.name])


def compare(
    graph: Graph,
    program: Program,
    captures: Captures,
    values: dict[str, Stored],
    facts: Sequence[Lowering],
) -> Check:
    """Judge captured outputs; an input is what its last producer before the operator left.

    Inputs that no executed operator produced come from ``values``.
    """
    lowered = {info.name: fact for info, fact in zip(program.operators, facts, strict=True)}
    present: dict[str, Stored] = dict(values)
    verdicts = []
    for operator in graph.operators:
        if operator.name not in lowered:
            continue
        inputs = [_present(present, name, operator) for name in operator.inputs]
        judged = _Judge(graph, operator, inputs, lowered[operator.name])
        for index, name in enumerate(operator.outputs):
            found = captures.tensors.get((operator.name, name))
            verdicts.append(judged.verdict(index, found))
            if found is not None:
                present[name] = found
    unchecked = tuple(o.name for o in graph.operators if o.name not in lowered)
    return _verdict(verdicts, captures.order, unchecked)


def _present(present: dict[str, Stored], name: str, operator: Operator) -> Stored:
    if name not in present:
        raise AccelsimError(f"{operator}: its input '{name}' is written by no executed operator")
    return present[name]


def _verdict(operators: list[OperatorCheck], order: str, unchecked: tuple[str, ...]) -> Check:
    mismatches = sum(o.mismatches for o in operators)
    unjudged = sum(o.unjudged for o in operators)
    ratio = max((o.max_error_over_bound for o in operators), default=0.0)
    return Check(
        ok=mismatches == 0 and unjudged == 0 and bool(operators),
        mismatches=mismatches,
        max_error_over_bound=ratio,
        order=order,
        operators=tuple(operators),
        loose=any(o.bounded for o in operators) and ratio < LOOSE_BELOW,
        unchecked=unchecked,
        unjudged=unjudged,
    )


class _Judge:
    """What an operator should have written, given its inputs as they were."""

    def __init__(
        self, graph: Graph, operator: Operator, inputs: Sequence[Stored], lowering: Lowering
    ) -> None:
        self.graph, self.operator, self.lowering = graph, operator, lowering
        operands = [
            _operand(graph, name, stored).reshape(shape)
            for name, stored, shape in zip(
                operator.inputs, inputs, operator.input_shapes(), strict=True
            )
        ]
        self.unbounded = not all(np.isfinite(x).all() for x in operands)
        self.formats = [number_format(graph.tensors[name].dtype) for name in operator.outputs]
        with np.errstate(invalid="ignore", over="ignore"):
            if lowering.saturates and isinstance(operator, Gemm | Conv2d):
                exact: Any = saturated(operator, operands)
            else:
                exact = reference(operator, operands)
            bound: Any = radius(operator, operands, lowering, self.formats)
        self.exact = exact if isinstance(exact, tuple) else (exact,)
        self.bound = bound if isinstance(bound, tuple) else (bound,)

    def verdict(self, index: int, found: Stored | None) -> OperatorCheck:
        """Whether the output of that number is what it should be."""
        name, output = self.operator.outputs[index], self.formats[index]
        shape = self.graph.tensors[name].shape
        with np.errstate(invalid="ignore", over="ignore"):
            exact = _in_range(self.exact[index], output).astype(np.float64).reshape(shape)
        bound = self.bound[index].reshape(shape)
        if found is None:
            got, exact = np.full(shape, np.nan), np.nan_to_num(exact)
            return _count(self.operator, name, got, exact, np.zeros(shape), self.lowering)
        got = _wide(output, found).reshape(shape).astype(np.float64)
        exact = np.where(_overflows(output, got, exact, bound), got, exact)
        return _count(self.operator, name, got, exact, bound, self.lowering, self.unbounded)


def _overflows(output: Format, got: Stored, exact: Stored, bound: Stored) -> Stored:
    """Where a computed value is beyond the largest of its format, and was rounded as the format
    says: to infinity, to the largest, or to NaN. The ``bound`` holds that rounding."""
    right = np.zeros(got.shape, np.bool_)
    if output.is_integer:
        return right
    with np.errstate(invalid="ignore", over="ignore"):
        near = Ball(exact, bound).unrounded(output).radius
        near = np.where(np.isfinite(near), near, 0.0)
        if not (np.abs(exact) + near > output.largest).any():
            return right
        for end in (exact - near, exact + near):
            rounded = _wide(output, output.encode(end))
            same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
            right |= (np.abs(end) > output.largest) & same
    return right


def _count(
    operator: Operator,
    tensor: str,
    got: Stored,
    exact: Stored,
    bound: Stored,
    lowering: Lowering,
    unbounded: bool = False,
) -> OperatorCheck:
    """Compare an output; ``unbounded``: operands hold infinities, or NaN."""
    with np.errstate(invalid="ignore"):
        error = np.where(got == exact, 0.0, np.abs(got - exact))
        bound = np.where(np.isnan(bound), np.inf, bound)
        # A bound that is not finite proves nothing of what is not equal. NaN and infinities must
        # not pass even then, unless operands brought them.
        unknown = np.isinf(bound) & (np.isfinite(error) | unbounded)
        unknown |= np.isnan(got) & np.isnan(exact)
        wrong = ~((error <= bound) & np.isfinite(error)) & ~unknown
        unjudged = unknown & (error != 0)
        bounding = (bound > 0) & ~unknown
        ratio = np.where(bounding, error / np.where(bounding, bound, 1.0), 0.0)
    first = None
    told = wrong if wrong.any() else unjudged
    if told.any():
        at = tuple(int(i) for i in np.argwhere(told)[0])
        first = Mismatch(
            operator.name, tensor, at, float(got[at]), float(exact[at]), float(bound[at])
        )
    return OperatorCheck(
        name=operator.name,
        kind=operator.kind,
        compared=got.size,
        mismatches=int(wrong.sum()),
        max_error_over_bound=float(np.nan_to_num(ratio, nan=np.inf).max()),
        arithmetic=lowering.arithmetic,
        reduction=lowering.order,
        bounded=bool((bound > 0).any()),
        unjudged=int(unjudged.sum()),
        overflowed=int((np.isinf(got) & (error == 0)).sum()),
        first=first,
    )


def _operand(graph: Graph, name: str, stored: Stored) -> Stored:
    spec = graph.tensors[name]
    return _wide(number_format(spec.dtype), stored).reshape(spec.shape)


def _wide(fmt: Format, stored: Stored) -> Stored:
    """Stored elements as float64 or int64, exactly."""
    with np.errstate(invalid="ignore"):  # garbage may hold signalling NaNs
        return fmt.decode(stored).astype(np.int64 if fmt.is_integer else np.float64)


def _in_range(exact: Stored, output: Format) -> Stored:
    """Integers saturated to the output format, as the vector unit and the copies do."""
    return _wide(output, output.encode(exact)) if output.is_integer else exact
