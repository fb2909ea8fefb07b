"""Row-wise operators in several passes over main memory: a pass ends at every reduction.

A compiler that keeps no tensor on chip from one fusion to the next, as XLA on TPU v3, fuses
element-wise work into its neighbours, but what reads a reduction over the rows is another fusion,
and every fusion streams its operands from main memory:

    softmax     row maximum of x | row sum of exp(x - max) | exp(x - max) / sum
    layernorm   mean | scale from the centred squares | (x - mean) * scale | weight and bias
    rmsnorm     scale from the squares | x * scale * weight

So softmax moves four times its matrix and layernorm six times. Layer normalisation is that of
PyTorch's composite form (aten/src/ATen/native/layer_norm.cpp, math_native_layer_norm): batch
normalisation in training mode over the rows, then one multiply-add with weight and bias. XLA's
programs are not published; the passes are inferred from this, and the cycles per element measured
on a TPU v3, equal for all sizes, bear them out (validation/tpu_v3).

Columns of row statistics lie in main memory as fp32, the normalised matrix in its own format. Rows
that are longer than the scratchpad are swept over instead (mapping/long_rows).
"""

from __future__ import annotations

from collections.abc import Sequence

from accelsim.hw.dma import Dma
from accelsim.hw.vector import Vector
from accelsim.mapping.long_rows import (
    Sweeps,
    layernorm_sweeps,
    rmsnorm_sweeps,
    softmax_sweeps,
    sweep_rows,
)
from accelsim.mapping.lowering import Lowering
from accelsim.mapping.registry import mapper
from accelsim.mapping.rowwise import FP32, Recipe, Tile, Vectors, lower_rowwise, row_fits
from accelsim.program.opcodes import Function
from accelsim.program.storage import View
from accelsim.workload.operators import LayerNorm, RmsNorm, Softmax

F = Function
COLUMNS = 5  # of a pass at most: two statistics in two buffers each, and a temporary


@mapper("multipass-softmax", lowers=("softmax",), needs=(Vector, Dma), preference=-1)
def multipass_softmax(op: Softmax, low: Lowering) -> None:
    """Three passes over main memory: row maxima, sums of exponentials, quotients."""
    x, out = low.matrix(op.inputs[0], op.rows, op.cols), low.matrix(op.output, op.rows, op.cols)
    if _swept(low, x, out, softmax_sweeps()):
        return
    top, total = _column(op, low, "max"), _column(op, low, "sum")
    row_maxima(low, x, top)
    exponential_sums(low, x, top, total)

    def quotients(v: Vectors, t: Tile) -> None:
        (x, top, total), (e,), (inverse,) = t.inputs, t.wide, t.narrow
        v(F.SUB, e, x, top)
        v(F.EXP, e, e)
        v(F.RECIPROCAL, inverse, total)
        v(F.MUL, t.out, e, inverse)

    functions = (F.SUB, F.EXP, F.RECIPROCAL, F.MUL)
    lower_rowwise(low, Recipe(quotients, [x, top, total], out, (), 1, 1, functions=functions))


def row_maxima(low: Lowering, x: View, top: View) -> None:
    """The pass that writes the largest value of every row of ``x``."""

    def steps(v: Vectors, t: Tile) -> None:
        v(F.ROW_MAX, t.out, t.inputs[0])

    lower_rowwise(low, Recipe(steps, [x], top, functions=(F.ROW_MAX,)))


def exponential_sums(low: Lowering, x: View, top: View, total: View) -> None:
    """The pass that writes the sum of exp(x - max) of every row."""

    def steps(v: Vectors, t: Tile) -> None:
        (x, top), (e,) = t.inputs, t.wide
        v(F.SUB, e, x, top)
        v(F.EXP, e, e)
        v(F.ROW_SUM, t.out, e)

    functions = (F.SUB, F.EXP, F.ROW_SUM)
    lower_rowwise(low, Recipe(steps, [x, top], total, wide=1, functions=functions))


@mapper("multipass-layernorm", lowers=("layernorm",), needs=(Vector, Dma), preference=-1)
def multipass_layernorm(op: LayerNorm, low: Lowering) -> None:
    """Four passes over main memory: mean, scale, normalisation, weight and bias."""
    x, out = low.matrix(op.inputs[0], op.rows, op.cols), low.matrix(op.output, op.rows, op.cols)
    held = [low.matrix(name, 1, op.cols) for name in op.inputs[1:]]
    if _swept(low, x, out, layernorm_sweeps(op.cols, op.eps), held):
        return
    mean, scale = _column(op, low, "mean"), _column(op, low, "scale")
    normal = low.scratch(f"{op.name}.normal", op.rows, op.cols, low.format(op.output))

    def means(v: Vectors, t: Tile) -> None:
        (total,) = t.narrow
        v(F.ROW_SUM, total, t.inputs[0])
        v(F.MUL_IMM, t.out, total, imm=1.0 / op.cols)

    def scales(v: Vectors, t: Tile) -> None:
        (x, mean), (square,), (variance,) = t.inputs, t.wide, t.narrow
        v(F.SUB, square, x, mean)
        v(F.MUL, square, square, square)
        _inverse_root(v, t, square, variance, op.cols, op.eps)

    def normalised(v: Vectors, t: Tile) -> None:
        (x, mean, scale), (centred,) = t.inputs, t.wide
        v(F.SUB, centred, x, mean)
        v(F.MUL, t.out, centred, scale)

    def affine(v: Vectors, t: Tile) -> None:
        (weight, bias), (scaled,) = t.held, t.wide
        v(F.MUL, scaled, t.inputs[0], weight)
        v(F.ADD, t.out, scaled, bias)

    lower_rowwise(low, Recipe(means, [x], mean, (), 0, 1, functions=(F.ROW_SUM, F.MUL_IMM)))
    functions = (F.SUB, F.MUL, F.ROW_SUM, F.MUL_IMM, F.ADD_IMM, F.RSQRT)
    lower_rowwise(low, Recipe(scales, [x, mean], scale, (), 1, 1, functions=functions))
    lower_rowwise(
        low, Recipe(normalised, [x, mean, scale], normal, wide=1, functions=(F.SUB, F.MUL))
    )
    lower_rowwise(low, Recipe(affine, [normal], out, held, wide=1, functions=(F.MUL, F.ADD)))


@mapper("multipass-rmsnorm", lowers=("rmsnorm",), needs=(Vector, Dma), preference=-1)
def multipass_rmsnorm(op: RmsNorm, low: Lowering) -> None:
    """Two passes over main memory: scale, normalisation with weight."""
    x, out = low.matrix(op.inputs[0], op.rows, op.cols), low.matrix(op.output, op.rows, op.cols)
    held = [low.matrix(op.inputs[1], 1, op.cols)]
    if _swept(low, x, out, rmsnorm_sweeps(op.cols, op.eps), held):
        return
    scale = _column(op, low, "scale")

    def scales(v: Vectors, t: Tile) -> None:
        (square,), (mean,) = t.wide, t.narrow
        v(F.MUL, square, t.inputs[0], t.inputs[0])
        _inverse_root(v, t, square, mean, op.cols, op.eps)

    def normalised(v: Vectors, t: Tile) -> None:
        (x, scale), (weight,), (scaled,) = t.inputs, t.held, t.wide
        v(F.MUL, scaled, x, scale)
        v(F.MUL, t.out, scaled, weight)

    functions = (F.MUL, F.ROW_SUM, F.MUL_IMM, F.ADD_IMM, F.RSQRT)
    lower_rowwise(low, Recipe(scales, [x], scale, (), 1, 1, functions=functions))
    lower_rowwise(low, Recipe(normalised, [x, scale], out, held, wide=1, functions=(F.MUL, F.MUL)))


def _swept(low: Lowering, x: View, out: View, sweeps: Sweeps, held: Sequence[View] = ()) -> bool:
    """Sweep over rows if they do not fit on chip with all that a pass has there at most."""
    most = Recipe(lambda _v, _t: None, [x], out, held, wide=1, narrow=COLUMNS)
    if row_fits(low, most):
        return False
    sweep_rows(low, most, sweeps)
    return True


def _inverse_root(v: Vectors, t: Tile, square: View, mean: View, cols: int, eps: float) -> None:
    """1 / sqrt(mean of the squares + eps) of every row into the tile's result."""
    v(F.ROW_SUM, mean, square)
    v(F.MUL_IMM, mean, mean, imm=1.0 / cols)
    v(F.ADD_IMM, mean, mean, imm=eps)
    v(F.RSQRT, t.out, mean)


def _column(op: Softmax | LayerNorm | RmsNorm, low: Lowering, name: str) -> View:
    """A statistic of every row, in main memory."""
    return low.scratch(f"{op.name}.{name}", op.rows, 1, FP32)
