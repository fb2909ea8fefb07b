"""The tensors and operators of a backward pass, as rules of differentiation add to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from accelsim.errors import AccelsimError
from accelsim.workload._words import listed
from accelsim.workload.constants import ConstantValues
from accelsim.workload.graph import Graph
from accelsim.workload.operators import Elementwise, Operator
from accelsim.workload.tensors import Shape, TensorSpec

Rule = Callable[[Any, str, "Backward"], None]
RULES: dict[str, Rule] = {}
"""By operator kind: how the gradient of its result becomes those of its inputs."""


def gradient_of(*kinds: str) -> Callable[[Rule], Rule]:
    """Register a rule for operator kinds."""

    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(kinds, rule))
        return rule

    return register


class Backward:
    """The backward pass of a graph while it is made, from the last operator to the first.

    Gradients are added up as they come: what a tensor has got so far is one tensor.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.tensors = dict(graph.tensors)
        self.operators: list[Operator] = []
        self.gradients: dict[str, str] = {}
        self.layer: int | None = None
        self._needed = _leading_from_weights(graph)
        self._names: dict[str, int] = {}

    def differentiate(self, op: Operator) -> None:
        """Add what an operator gives back, if the loss depends on it and weights on that."""
        grad = self.gradients.get(op.output)
        if grad is None or not any(self.needs(name) for name in op.inputs):
            return
        if op.kind not in RULES:
            raise op.error(f"no rule for its gradient; accepted: {listed(sorted(RULES))}")
        self.layer = op.layer
        RULES[op.kind](op, grad, self)

    def needs(self, tensor: str) -> bool:
        """Whether anything is to be learned from the gradient of a tensor."""
        return tensor in self._needed

    def is_weight(self, tensor: str) -> bool:
        """Whether a tensor is a learned parameter."""
        return self.tensors[tensor].role == "weight"

    def shape(self, tensor: str) -> Shape:
        """The shape of a tensor."""
        return self.tensors[tensor].shape

    def grad_name(self, op: Operator, tensor: str) -> str:
        """A free name for what an operator gives to the gradient of one of its inputs."""
        operand = next(
            item.name for item, name in zip(op.present(), op.inputs, strict=True) if name == tensor
        )
        return self.free(f"{op.name}.{operand}.grad")

    def free(self, name: str) -> str:
        """``name``, numbered if it is taken."""
        count = self._names.get(name, 0)
        self._names[name] = count + 1
        return f"{name}{count + 1}" if count else name

    def emit(self, operator: Operator, like: str, *, dtype: str = "", final: bool = True) -> str:
        """Append an operator and declare its result, shaped ``like`` a tensor if it is ``final``.

        What is given to a weight is fp32, whatever the format of the weight.
        """
        spec = self.tensors[like]
        weight = spec.role == "weight"
        if operator.pass_ == "forward":
            operator = replace(operator, pass_="update" if weight else "backward")
        self.operators.append(replace(operator, layer=self.layer))
        kept = dtype or ("fp32" if weight and final else spec.dtype)
        shape = spec.shape if final else operator.output_shapes()[0]
        name = operator.output
        self.tensors[name] = TensorSpec(name, shape, kept, "activation")
        return name

    def constant(self, name: str, shape: Shape, dtype: str, values: ConstantValues) -> str:
        """Declare a constant once."""
        self.tensors.setdefault(name, TensorSpec(name, shape, dtype, "constant", values))
        return name

    def give(self, tensor: str, grad: str) -> None:
        """Add to the gradient of a tensor."""
        if not self.needs(tensor):
            return
        before = self.gradients.get(tensor)
        if before is None:
            self.gradients[tensor] = grad
            return
        *_, cols = self.shape(tensor)
        rows = self.tensors[tensor].elements // cols
        name = self.free(f"{tensor}.grad_sum")
        total = Elementwise(name, (before, grad), (name,), rows, cols, function="add")
        self.gradients[tensor] = self.emit(total, tensor)


def _leading_from_weights(graph: Graph) -> frozenset[str]:
    """Floating-point tensors that depend on a weight, the weights among them."""
    found = {spec.name for spec in graph.weights}
    for op in graph.operators:
        if found.intersection(op.inputs):
            found.update(op.outputs)
    return frozenset(found)


def unknown(op: Operator, what: str, accepted: Iterable[str] | str) -> AccelsimError:
    """The error for a form of an operator whose gradient no rule gives."""
    told = accepted if isinstance(accepted, str) else listed(accepted)
    return op.error(f"no rule for the gradient of {what}; accepted: {told}")
