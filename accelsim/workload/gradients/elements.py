"""Gradients of row-wise and element-wise operators."""

from __future__ import annotations

from accelsim.workload.gradients.backward import Backward, gradient_of, unknown
from accelsim.workload.operators import (
    Activation,
    ActivationGrad,
    BatchNorm,
    BatchNormGrad,
    ColumnSum,
    Elementwise,
    LayerNorm,
    NormGrad,
    NormWeightGrad,
    RmsNorm,
    Softmax,
    SoftmaxGrad,
)


@gradient_of("activation")
def activation(op: Activation, grad: str, back: Backward) -> None:
    """grad f'(x); of relu the result tells as much as x, and is kept anyway."""
    x = op.inputs[0]
    name = back.grad_name(op, x)
    source = op.output if op.function == "relu" else x
    step = ActivationGrad(name, (source, grad), (name,), op.rows, op.cols, function=op.function)
    back.give(x, back.emit(step, x))


@gradient_of("elementwise", "residual")
def elementwise(op: Elementwise, grad: str, back: Backward) -> None:
    """A sum hands on what it gets; a product gives each factor the other one's."""
    a, b = op.inputs
    if op.function not in ("add", "mul"):
        raise unknown(op, f"function {op.function}", "add or mul")
    if op.function == "add":
        back.give(a, grad)
        back.give(b, _summed(op, grad, back) if op.broadcast_b else grad)
        return
    if op.broadcast_b:
        raise unknown(op, "a product with one row for all", "two matrices")
    for mine, other in ((a, b), (b, a)):
        if back.needs(mine):
            name = back.grad_name(op, mine)
            product = Elementwise(name, (grad, other), (name,), op.rows, op.cols, function="mul")
            back.give(mine, back.emit(product, mine))


def _summed(op: Elementwise, grad: str, back: Backward) -> str:
    """What the rows give to the one row that all of them get."""
    b = op.inputs[1]
    if not back.needs(b):
        return grad
    name = back.grad_name(op, b)
    return back.emit(ColumnSum(name, (grad,), (name,), op.rows, op.cols), b)


@gradient_of("layernorm", "rmsnorm")
def norm(op: LayerNorm | RmsNorm, grad: str, back: Backward) -> None:
    """Statistics of the rows are computed again from the input, which is kept."""
    x, weight, *bias = op.inputs
    if back.needs(weight):
        name = back.grad_name(op, weight)
        sums = NormWeightGrad(name, (x, grad), (name,), op.rows, op.cols, eps=op.eps, norm=op.kind)
        back.give(weight, back.emit(sums, weight))
    for tensor in bias:
        if back.needs(tensor):
            name = back.grad_name(op, tensor)
            total = ColumnSum(name, (grad,), (name,), op.rows, op.cols)
            back.give(tensor, back.emit(total, tensor))
    if back.needs(x):
        name = back.grad_name(op, x)
        rows = NormGrad(
            name, (x, grad, weight), (name,), op.rows, op.cols, eps=op.eps, norm=op.kind
        )
        back.give(x, back.emit(rows, x))


@gradient_of("batchnorm")
def batchnorm(op: BatchNorm, grad: str, back: Backward) -> None:
    """With the part that goes through the statistics of the batch, which get nothing themselves."""
    x, mean, variance, weight, bias = op.inputs
    names = [back.grad_name(op, tensor) for tensor in (weight, bias)]
    normalised = ColumnSum(
        names[0], (x, mean, variance, grad), (names[0],), op.rows, op.cols,
        function="normalised", eps=op.eps,
    )  # fmt: skip
    total = ColumnSum(names[1], (grad,), (names[1],), op.rows, op.cols)
    given = [back.emit(normalised, weight), back.emit(total, bias)]
    back.give(weight, given[0])
    back.give(bias, given[1])
    if back.needs(x):
        name = back.grad_name(op, x)
        operands = (x, grad, mean, variance, weight, *given)
        rows = BatchNormGrad(name, operands, (name,), op.rows, op.cols, eps=op.eps)
        back.give(x, back.emit(rows, x))


@gradient_of("column_sum")
def column_sum(_op: ColumnSum, _grad: str, _back: Backward) -> None:
    """Statistics of a batch: their part is in the gradient of the norm that uses them."""


@gradient_of("softmax")
def softmax(op: Softmax, grad: str, back: Backward) -> None:
    """From the probabilities, which are kept."""
    name = back.grad_name(op, op.inputs[0])
    step = SoftmaxGrad(name, (op.output, grad), (name,), op.rows, op.cols)
    back.give(op.inputs[0], back.emit(step, op.inputs[0]))
