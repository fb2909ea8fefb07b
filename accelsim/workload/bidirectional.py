"""Bidirectional weight pruning: N:M sparse forward and backward passes of a training step.

A training step multiplies three times: activations with weights (forward), gradients with weights
(backward) and activations with gradients (update). Pruning weights to N:M along the forward
reduction does not prune them along the backward one, so there are two copies, each pruned along its
own (BDWP: Fang, Sun, Zhou, Wang, arXiv 2309.13015, 2023):

    forward    weight.forward     groups along the inputs of the layer
    backward   weight.backward    groups along its outputs
    update     activations and gradients are dense, and so are the weights that the optimizer keeps

The copies are made when the optimizer has made a weight, so that both passes read them compact. The
layer that reads the network's input stays dense, and so do products whose reduction is no whole
number of groups; the graph's assumptions name them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from accelsim.errors import AccelsimError
from accelsim.workload.coding import Coding, Sparsity, parse_sparsity
from accelsim.workload.graph import Graph
from accelsim.workload.operators import Conv2d, Gemm, Operator, OptimizerStep, PruneWeight
from accelsim.workload.tensors import TensorSpec


def pattern_of_step(value: object, where: str) -> Sparsity:
    """The N:M pattern that a user's word names.

    Raises:
        AccelsimError: beginning with `where`, for anything else.
    """
    try:
        sparsity = parse_sparsity(value)
    except AccelsimError as fault:
        raise AccelsimError(f"{where}: {fault}") from None
    if not sparsity.m:
        raise AccelsimError(f"{where}: sparsity is {value}; accepted for training: N:M (2:8)")
    return sparsity


def bidirectional(step: Graph, sparsity: Sparsity) -> Graph:
    """A training step whose forward and backward products read N:M weights."""
    pruning = _Pruning(step, sparsity)
    operators = tuple(made for op in step.operators for made in pruning.pruned(op))
    used = {name for op in operators for name in (*op.inputs, *op.outputs)}
    known = {**step.tensors, **pruning.copies}
    tensors = {name: _placed(spec, used) for name, spec in known.items() if name in used}
    settings = {**step.settings, "sparsity": str(sparsity)}
    return Graph(
        step.name, tensors, operators, settings, (*step.assumptions, *pruning.assumptions())
    )


def _placed(spec: TensorSpec, used: set[str]) -> TensorSpec:
    """A tensor with a place of its own where nobody reads what it was to take the place of."""
    return spec if spec.place_of in used else replace(spec, place_of="")


@dataclass
class _Pruning:
    """Copies of the weights of one training step."""

    step: Graph
    sparsity: Sparsity
    copies: dict[str, TensorSpec] = field(default_factory=dict)
    makers: dict[str, list[PruneWeight]] = field(default_factory=dict)
    dense: list[str] = field(default_factory=list)

    def pruned(self, op: Operator) -> Iterator[Operator]:
        """An operator that reads what it is to read, and what follows it: new copies of a weight
        when the optimizer has made it."""
        yield self.read_sparse(op)
        if isinstance(op, OptimizerStep):
            yield from self.makers.get(op.outputs[0], ())

    def read_sparse(self, op: Operator) -> Operator:
        """A product that reads the copy of its weight; every other operator as it is."""
        if not isinstance(op, Gemm | Conv2d) or len(op.inputs) < 2:
            return op
        weight = self.step.tensors[op.inputs[1]]
        if weight.role != "weight":
            return op
        sparse, depth = _upright(op)
        if self._reads_the_input(op) or depth % self.sparsity.m:
            self.dense.append(op.name)
            return op
        name = f"{weight.name}.{op.pass_}"
        axis = -1 if isinstance(op, Gemm) and op.transpose_b else -2
        coding = Coding(f"nm:{self.sparsity}", self.sparsity, axis)
        inputs = (op.inputs[0], name, *op.inputs[2:])
        sparse = replace(sparse, inputs=inputs)
        shape = sparse.input_shapes()[1]
        self.copies[name] = TensorSpec(name, shape, weight.dtype, "weight", coding=coding)
        self._make(op, name, f"{weight.name}.next")
        return sparse

    def _make(self, op: Gemm | Conv2d, name: str, new: str) -> None:
        """The copy for the next step."""
        *_, cols = shape = self.copies[name].shape
        along_cols, turned = isinstance(op, Gemm) and op.transpose_b, _is_turned(op)
        taps = math.prod(shape[:-2]) if turned else 1
        rows = math.prod(shape[:-1]) // taps
        prune = PruneWeight(
            f"{name}.prune", (new,), (f"{name}.next",), taps, rows, cols,
            self.sparsity.n, self.sparsity.m, along_cols, turned, pass_="optimizer",
        )  # fmt: skip
        copy = replace(self.copies[name], name=prune.output, role="output")
        self.copies[prune.output] = copy
        self.makers.setdefault(new, []).append(prune)

    def _reads_the_input(self, op: Operator) -> bool:
        return self.step.tensors[op.inputs[0]].role == "input" and op.pass_ == "forward"

    def assumptions(self) -> tuple[str, ...]:
        """What is pruned, and what is not."""
        left = f"; {', '.join(self.dense)} stay dense" if self.dense else ""
        return (
            f"weights of forward and backward products are pruned by magnitude to {self.sparsity},"
            f" each along its own reduction{left}",
        )


def _is_turned(op: Gemm | Conv2d) -> bool:
    return isinstance(op, Conv2d) and op.flipped


def _upright(op: Gemm | Conv2d) -> tuple[Gemm | Conv2d, int]:
    """A product with its weight as it is read, and how deep its reduction is.

    The copy of a flipped filter is stored turned, so that groups run along its reduction.
    """
    if isinstance(op, Gemm):
        return op, op.k
    return replace(op, flipped=False), op.gemm_k
