"""Row-wise operators of the backward pass on a vector unit, and optimizer steps."""

from __future__ import annotations

from accelsim.hw.dma import Dma
from accelsim.hw.vector import Vector
from accelsim.mapping.column_sums import ColumnSums, lower_column_sums
from accelsim.mapping.epilogue import DERIVATIVES
from accelsim.mapping.long_rows import cross_entropy_sweeps, lower_rows, softmax_grad_sweeps
from accelsim.mapping.lowering import Lowering
from accelsim.mapping.registry import mapper
from accelsim.mapping.rowwise import Recipe, Steps, Tile, Vectors, lower_rowwise
from accelsim.program.opcodes import Function
from accelsim.program.storage import View
from accelsim.workload.operators import (
    ActivationGrad,
    BatchNorm,
    BatchNormGrad,
    ColumnSum,
    CrossEntropyGrad,
    NormGrad,
    NormWeightGrad,
    OptimizerStep,
    SoftmaxGrad,
)

F = Function


@mapper("vector-activation-grad", lowers=("activation_grad",), needs=(Vector, Dma))
def vector_activation_grad(op: ActivationGrad, low: Lowering) -> None:
    """The derivative of every element, times what comes back."""

    def steps(v: Vectors, t: Tile) -> None:
        (x, grad), (slope,) = t.inputs, t.wide
        if op.function == "quick_gelu":  # x sigmoid(1.702 x) = silu(1.702 x) / 1.702
            v(F.MUL_IMM, slope, x, imm=1.702)
            v(F.SILU_GRAD, slope, slope)
        else:
            v(DERIVATIVES[op.function], slope, x)
        v(F.MUL, t.out, slope, grad)

    streams = [low.matrix(name, op.rows, op.cols) for name in op.inputs]
    out = low.matrix(op.output, op.rows, op.cols)
    functions = (DERIVATIVES.get(op.function, F.SILU_GRAD), F.MUL)
    lower_rowwise(low, Recipe(steps, streams, out, wide=1, columns_split=True, functions=functions))


@mapper("vector-softmax-grad", lowers=("softmax_grad",), needs=(Vector, Dma))
def vector_softmax_grad(op: SoftmaxGrad, low: Lowering) -> None:
    """p times what comes back less its mean by p."""
    functions = (F.MUL, F.ROW_SUM, F.SUB, F.MUL, F.MUL_IMM)

    def steps(v: Vectors, t: Tile) -> None:
        (p, grad), (product,), (mean,) = t.inputs, t.wide, t.narrow
        v(F.MUL, product, p, grad)
        v(F.ROW_SUM, mean, product)
        v(F.SUB, product, grad, mean)
        v(F.MUL, product, product, p)
        v(F.MUL_IMM, t.out, product, imm=op.scale)

    streams = [low.matrix(name, op.rows, op.cols) for name in op.inputs]
    out = low.matrix(op.output, op.rows, op.cols)
    recipe = Recipe(steps, streams, out, wide=1, narrow=1, functions=functions)
    lower_rows(low, recipe, softmax_grad_sweeps(op.scale))


def _normalised(v: Vectors, op: NormGrad, x: View, y: View, square: View, scale: View) -> None:
    """``scale`` becomes the factor of each row, ``y`` the row before the weight."""
    mean = 1.0 / op.cols
    centred = x
    if op.norm == "layernorm":
        v(F.ROW_SUM, scale, x)
        v(F.MUL_IMM, scale, scale, imm=mean)
        centred = v(F.SUB, y, x, scale)
    v(F.MUL, square, centred, centred)
    v(F.ROW_SUM, scale, square)
    v(F.MUL_IMM, scale, scale, imm=mean)
    v(F.ADD_IMM, scale, scale, imm=op.eps)
    v(F.RSQRT, scale, scale)
    v(F.MUL, y, centred, scale)


@mapper("vector-norm-grad", lowers=("norm_grad",), needs=(Vector, Dma))
def vector_norm_grad(op: NormGrad, low: Lowering) -> None:
    """Statistics of a row again, then what comes back less what the norm takes out of it."""
    functions = (F.ROW_SUM, F.SUB, F.MUL, F.ROW_SUM, F.RSQRT, F.MUL, F.MUL, F.ROW_SUM, F.MUL,
                 F.ROW_SUM, F.MUL, F.SUB, F.SUB, F.MUL)  # fmt: skip

    def steps(v: Vectors, t: Tile) -> None:
        (x, grad), (y, g, rest), (scale, mean) = t.inputs, t.wide, t.narrow
        _normalised(v, op, x, y, g, scale)
        v(F.MUL, g, grad, t.held[0])
        v(F.MUL, rest, g, y)
        v(F.ROW_SUM, mean, rest)
        v(F.MUL_IMM, mean, mean, imm=1.0 / op.cols)
        v(F.MUL, rest, y, mean)
        if op.norm == "layernorm":
            v(F.ROW_SUM, mean, g)
            v(F.MUL_IMM, mean, mean, imm=1.0 / op.cols)
            v(F.SUB, g, g, mean)
        v(F.SUB, g, g, rest)
        v(F.MUL, t.out, g, scale)

    streams = [low.matrix(name, op.rows, op.cols) for name in op.inputs[:2]]
    held = [low.matrix(op.inputs[2], 1, op.cols)]
    out = low.matrix(op.output, op.rows, op.cols)
    lower_rowwise(low, Recipe(steps, streams, out, held, wide=3, narrow=2, functions=functions))


@mapper("vector-norm-weight-grad", lowers=("norm_weight_grad",), needs=(Vector, Dma))
def vector_norm_weight_grad(op: NormWeightGrad, low: Lowering) -> None:
    """Normalised rows again, times what comes back, summed over the rows."""

    def terms(v: Vectors, t: Tile) -> View:
        (x, grad), (y, square), (scale,) = t.inputs, t.wide, t.narrow
        _normalised(v, op, x, y, square, scale)
        return v(F.MUL, y, y, grad)

    streams = [low.matrix(name, op.rows, op.cols) for name in op.inputs]
    out = low.matrix(op.output, 1, op.cols)
    sums = ColumnSums(terms, streams, out, wide=2, narrow=1, columns_split=False, instructions=9)
    lower_column_sums(low, sums)


@mapper("vector-column-sum", lowers=("column_sum",), needs=(Vector, Dma))
def vector_column_sum(op: ColumnSum, low: Lowering) -> None:
    """Sums over the rows, lanes along the columns."""

    def inverse_root(v: Vectors, t: Tile) -> View:
        (row,) = t.wide[1:]
        v(F.ADD_IMM, row[:1, :], t.held[1], imm=op.eps)
        return v(F.RSQRT, row[:1, :], row[:1, :])

    def terms(v: Vectors, t: Tile) -> View:
        x = t.inputs[0]
        if op.function == "sum":
            return x
        v(F.SUB, t.wide[0], x, t.held[0])
        if op.function == "variance":
            return v(F.MUL, t.wide[0], t.wide[0], t.wide[0])
        v(F.MUL, t.wide[0], t.wide[0], inverse_root(v, t))
        return v(F.MUL, t.wide[0], t.wide[0], t.inputs[1])

    streams = [low.matrix(op.inputs[i], op.rows, op.cols) for i in (0, 3) if i < len(op.inputs)]
    held = [low.matrix(name, 1, op.cols) for name in op.inputs[1:3]]
    wide = {"sum": 0, "variance": 1, "normalised": 2}[op.function]
    out = low.matrix(op.output, 1, op.cols)
    lower_column_sums(
        low, ColumnSums(terms, streams, out, held, wide, scale=op.scale, instructions=2 * wide + 1)
    )


@mapper("vector-batchnorm", lowers=("batchnorm",), needs=(Vector, Dma))
def vector_batchnorm(op: BatchNorm, low: Lowering) -> None:
    """One row of means, factors, weights and biases for all pixels."""
    functions = (F.SUB, F.MUL, F.MUL, F.ADD)

    def steps(v: Vectors, t: Tile) -> None:
        (x,), (mean, variance, weight, bias), (y, root) = t.inputs, t.held, t.wide
        factor = root[:1, :]
        v(F.ADD_IMM, factor, variance, imm=op.eps)
        v(F.RSQRT, factor, factor)
        v(F.SUB, y, x, mean)
        v(F.MUL, y, y, factor)
        v(F.MUL, y, y, weight)
        v(F.ADD, t.out, y, bias)

    x, out = (low.matrix(name, op.rows, op.cols) for name in (op.inputs[0], op.output))
    held = [low.matrix(name, 1, op.cols) for name in op.inputs[1:]]
    recipe = Recipe(
        steps, [x], out, held, wide=2, columns_split=True, functions=functions, instructions=6
    )
    lower_rowwise(low, recipe)


@mapper("vector-batchnorm-grad", lowers=("batchnorm_grad",), needs=(Vector, Dma))
def vector_batchnorm_grad(op: BatchNormGrad, low: Lowering) -> None:
    """What comes back less what the statistics of the batch take out of it."""
    functions = (F.SUB, F.MUL, F.MUL, F.SUB, F.SUB, F.MUL, F.MUL)

    def steps(v: Vectors, t: Tile) -> None:
        (x, grad), (y, root) = t.inputs, t.wide
        mean, variance, weight, weight_grad, bias_grad = t.held
        row = root[:1, :]
        v(F.ADD_IMM, row, variance, imm=op.eps)
        v(F.RSQRT, row, row)
        v(F.SUB, y, x, mean)
        v(F.MUL, y, y, row)
        v(F.MUL_IMM, row, weight_grad, imm=1.0 / op.rows)
        v(F.MUL, y, y, row)
        v(F.SUB, y, grad, y)
        v(F.MUL_IMM, row, bias_grad, imm=1.0 / op.rows)
        v(F.SUB, y, y, row)
        v(F.ADD_IMM, row, variance, imm=op.eps)
        v(F.RSQRT, row, row)
        v(F.MUL, y, y, row)
        v(F.MUL, t.out, y, weight)

    streams = [low.matrix(name, op.rows, op.cols) for name in op.inputs[:2]]
    held = [low.matrix(name, 1, op.cols) for name in op.inputs[2:]]
    out = low.matrix(op.output, op.rows, op.cols)
    recipe = Recipe(
        steps, streams, out, held, wide=2, columns_split=True, functions=functions, instructions=13
    )
    lower_rowwise(low, recipe)


@mapper("vector-cross-entropy-grad", lowers=("cross_entropy_grad",), needs=(Vector, Dma))
def vector_cross_entropy_grad(op: CrossEntropyGrad, low: Lowering) -> None:
    """Softmax of a row, less one at its label, over the number of rows."""
    functions = (F.ROW_MAX, F.SUB, F.EXP, F.ROW_SUM, F.MUL, F.UNHOT, F.MUL_IMM)

    def steps(v: Vectors, t: Tile) -> None:
        (x, label), (p,), (top, total) = t.inputs, t.wide, t.narrow
        v(F.ROW_MAX, top, x)
        v(F.SUB, p, x, top)
        v(F.EXP, p, p)
        v(F.ROW_SUM, total, p)
        v(F.RECIPROCAL, total, total)
        v(F.MUL, p, p, total)
        v(F.UNHOT, p, p, label, imm=0.0)
        v(F.MUL_IMM, t.out, p, imm=1.0 / op.rows)

    streams = [low.matrix(op.inputs[0], op.rows, op.cols), low.matrix(op.inputs[1], op.rows, 1)]
    out = low.matrix(op.output, op.rows, op.cols)
    recipe = Recipe(steps, streams, out, wide=1, narrow=2, functions=functions, instructions=8)
    lower_rows(low, recipe, cross_entropy_sweeps(op.rows))


@mapper("vector-optimizer", lowers=("optimizer_step",), needs=(Vector, Dma))
def vector_optimizer(op: OptimizerStep, low: Lowering) -> None:
    """Gradient, weights and what the optimizer keeps are read once, and written once."""
    adam = op.optimizer == "adam"
    # In place, and the weights for the products; or the weights elsewhere, the rest in place.
    outputs = [low.matrix(name) for name in op.outputs]
    wide, steps = (2, _adam(op)) if adam else (1, _sgd(op))
    functions = (F.MUL_IMM,) * 8 + (F.SQRT, F.DIV) if adam else (F.MUL_IMM,) * 4
    recipe = Recipe(
        steps, [low.matrix(name) for name in op.inputs], outputs[0], wide=wide,
        columns_split=True, functions=functions, more=outputs[1:],
        instructions=16 if adam else 6,
    )  # fmt: skip
    lower_rowwise(low, recipe)


def _weights(op: OptimizerStep, t: Tile) -> tuple[list[View], View]:
    """(where the new weights go, in fp32 and in the format of the products; new momentum)."""
    return ([t.more[0], t.out], t.more[1]) if op.copy else ([t.out], t.more[0])


def _sgd(op: OptimizerStep) -> Steps:
    def steps(v: Vectors, t: Tile) -> None:
        (grad, weight, momentum), (work,) = t.inputs, t.wide
        (new, *copies), kept = _weights(op, t)
        v(F.MUL_IMM, kept, momentum, imm=op.beta1)
        v(F.ADD, kept, kept, grad)
        if op.decay:
            v(F.MUL_IMM, work, weight, imm=op.decay)
            v(F.ADD, kept, kept, work)
        v(F.MUL_IMM, work, kept, imm=op.rate)
        v(F.SUB, new, weight, work)
        for copy in copies:
            v(F.COPY, copy, new)

    return steps


def _adam(op: OptimizerStep) -> Steps:
    def steps(v: Vectors, t: Tile) -> None:
        (grad, weight, momentum, variance), (work, root) = t.inputs, t.wide
        (new, *copies), kept = _weights(op, t)
        squares = t.more[-1]
        v(F.MUL_IMM, work, grad, imm=1.0 - op.beta1)
        v(F.MUL_IMM, kept, momentum, imm=op.beta1)
        v(F.ADD, kept, kept, work)
        v(F.MUL, work, grad, grad)
        v(F.MUL_IMM, work, work, imm=1.0 - op.beta2)
        v(F.MUL_IMM, squares, variance, imm=op.beta2)
        v(F.ADD, squares, squares, work)
        v(F.MUL_IMM, root, squares, imm=1.0 / (1.0 - op.beta2**op.step))
        v(F.SQRT, root, root)
        v(F.ADD_IMM, root, root, imm=op.eps)
        v(F.MUL_IMM, work, kept, imm=op.rate / (1.0 - op.beta1**op.step))
        v(F.DIV, work, work, root)
        v(F.MUL_IMM, root, weight, imm=1.0 - op.rate * op.decay)
        v(F.SUB, new, root, work)
        for copy in copies:
            v(F.COPY, copy, new)

    return steps
