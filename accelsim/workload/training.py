"""A training step from any forward graph: backward pass, gradients of weights, optimizer.

    forward     the graph as it is; what the backward pass reads is kept until then
    backward    from the gradient of the loss, operator by operator from the last to the first
    update      gradients of the weights, fp32, made on the way
    optimizer   new weights, layer by layer, when all gradients are there

The loss is the mean cross-entropy of the output called "logits" against labels, which are an input.
Its gradient is computed from the logits; the number itself is not. The gradient of any other output
is an input.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from accelsim.errors import AccelsimError
from accelsim.workload._words import did_you_mean, listed, shown
from accelsim.workload.bidirectional import bidirectional, pattern_of_step
from accelsim.workload.coding import Sparsity
from accelsim.workload.gradients import Backward
from accelsim.workload.graph import Graph
from accelsim.workload.operators import CrossEntropyGrad, Operator, OptimizerStep
from accelsim.workload.tensors import TensorSpec

OPTIMIZERS = ("adam", "sgd")
TRAINED_DTYPES = ("bf16", "fp16", "fp32")


@dataclass(frozen=True)
class Training:
    """What a training step does with its gradients.

    Attributes:
        optimizer: "adam" (AdamW) or "sgd" (with momentum).
        sparsity: N:M to which weights are pruned for both passes (workload.bidirectional), or None.
    """

    optimizer: str = "adam"
    sparsity: Sparsity | None = None

    @classmethod
    def parse(cls, optimizer: object, where: str, sparsity: object = None) -> Training:
        """From a user's words; AccelsimError if they are none of the known ones."""
        if optimizer in OPTIMIZERS:
            pattern = None if sparsity is None else pattern_of_step(sparsity, where)
            return cls(str(optimizer), pattern)
        hint = did_you_mean(str(optimizer), OPTIMIZERS)
        raise AccelsimError(
            f"{where}: optimizer is {shown(optimizer)}{hint}; accepted: {listed(OPTIMIZERS)}"
        )

    def step(
        self, name: str, inputs: tuple[str, ...], outputs: tuple[str, ...], elements: int
    ) -> OptimizerStep:
        """The step of one weight; its constants are the defaults of the published networks."""
        copy = len(outputs) == len(inputs)
        if self.optimizer == "sgd":
            return OptimizerStep(
                name, inputs, outputs, elements, "sgd", rate=0.1, decay=1e-4, copy=copy
            )
        return OptimizerStep(name, inputs, outputs, elements, "adam", decay=0.01, copy=copy)

    @property
    def kept(self) -> tuple[str, ...]:
        """What it keeps of every weight beside the weight itself, in fp32."""
        return ("momentum", "variance") if self.optimizer == "adam" else ("momentum",)


def training_step(graph: Graph, training: Training) -> Graph:
    """Forward, backward and optimizer of a graph with weights.

    Raises:
        AccelsimError: an operator without a rule for its gradient, or nothing to learn.
    """
    weights = graph.weights
    if not weights or not graph.outputs:
        raise AccelsimError(f"{graph.name}: nothing to train; accepted: weights and an output")
    for spec in weights:
        if spec.coding:
            raise AccelsimError(
                f"{graph.name}: weight '{spec.name}' is stored as {spec.coding}; accepted for"
                " training: weights as they are computed with, pruned by sparsity=N:M alone"
            )
        if spec.dtype not in TRAINED_DTYPES:
            raise AccelsimError(
                f"{graph.name}: weight '{spec.name}' is {spec.dtype}; accepted for training:"
                f" {listed(TRAINED_DTYPES)}"
            )
    back = Backward(graph)
    for spec in graph.outputs:
        _loss(spec, back)
    for op in reversed(graph.operators):
        back.differentiate(op)
    back.operators += _optimizer(graph, back, training)
    settings = {**graph.settings, "phase": "train", "optimizer": training.optimizer}
    step = Graph(
        graph.name, back.tensors, (*graph.operators, *back.operators), settings,
        (*graph.assumptions, *_assumptions(back)),
    )  # fmt: skip
    return step if training.sparsity is None else bidirectional(step, training.sparsity)


def _loss(spec: TensorSpec, back: Backward) -> None:
    """The gradient of an output: cross-entropy of logits with labels, or it is given."""
    *_, cols = spec.shape
    rows = spec.elements // cols
    labels, name = f"{spec.name}.labels", back.free(f"{spec.name}.grad")
    if not back.needs(spec.name):
        return
    if spec.name != "logits":
        back.tensors[name] = replace(spec, name=name, role="input")
        back.give(spec.name, name)
        return
    back.tensors[labels] = TensorSpec(labels, (rows,), "int32", "input")
    back.give(
        spec.name,
        back.emit(CrossEntropyGrad(name, (spec.name, labels), (name,), rows, cols), spec.name),
    )


def _optimizer(graph: Graph, back: Backward, training: Training) -> list[Operator]:
    """The steps of all weights that have a gradient, layer by layer."""
    layers: dict[str, int | None] = {}
    for op in graph.operators:
        for name in op.inputs:
            layers.setdefault(name, op.layer)
    found = [w for w in graph.weights if w.name in back.gradients]
    found.sort(key=lambda spec: -1 if (layer := layers[spec.name]) is None else layer)
    return [replace(_step(spec, back, training), layer=layers[spec.name]) for spec in found]


def _step(spec: TensorSpec, back: Backward, training: Training) -> OptimizerStep:
    """One weight's step: on its fp32 copy and that of the products, or on the weight alone."""
    copy = spec.dtype != "fp32"
    kept = [f"{spec.name}.{what}" for what in training.kept]
    master = f"{spec.name}.master"
    for name in (*([master] if copy else []), *kept):
        back.tensors[name] = TensorSpec(name, spec.shape, "fp32", "input")
    updated = (spec.name, *([master] if copy else []), *kept)
    for name in updated:
        new, dtype = f"{name}.next", back.tensors[name].dtype
        back.tensors[new] = TensorSpec(new, spec.shape, dtype, "output", place_of=name)
    inputs = (back.gradients[spec.name], master if copy else spec.name, *kept)
    outputs = tuple(f"{name}.next" for name in updated)
    step = training.step(f"{spec.name}.step", inputs, outputs, spec.elements)
    return replace(step, pass_="optimizer")


def _assumptions(back: Backward) -> tuple[str, ...]:
    """What is kept for the backward pass, and what a step leaves out."""
    made = {op.output for op in back.graph.operators}
    read = {name for op in back.operators for name in op.inputs}
    kept = sum(
        spec.bytes
        for spec in back.graph.tensors.values()
        if spec.name in made & read and spec.role == "activation"
    )
    return (
        f"training: {kept / 1e9:.3g} GB of activations are kept for the backward pass, none is"
        " computed again but the statistics of norms; gradients of weights are fp32; no value of"
        " the loss, no clipping, no data loading",
    )
