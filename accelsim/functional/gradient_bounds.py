"""The error bound of every operator of the backward pass (see tolerance)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.functional import gradients
from accelsim.functional.lowering import Lowering
from accelsim.numerics.ball import Ball, gamma
from accelsim.numerics.bounds import (
    DERIVATIVES,
    activation,
    inverse_root,
    largest_of,
    one_step,
    softmax_parts,
)
from accelsim.numerics.formats import Format
from accelsim.workload.operators import (
    ActivationGrad,
    BatchNorm,
    BatchNormGrad,
    Col2im,
    ColumnSum,
    CrossEntropyGrad,
    EmbeddingGrad,
    HeadProduct,
    NormGrad,
    NormWeightGrad,
    OptimizerStep,
    Pool2dGrad,
    ScoreSoftmax,
    SoftmaxGrad,
)

Floats = npt.NDArray[np.float64]


def _activation_grad(op: ActivationGrad, lowering: Lowering, x: Floats, grad: Floats) -> Ball:
    mid, at, slope = lowering.vector_format, Ball.exact(x), DERIVATIVES.get(op.function)
    if op.function == "quick_gelu":
        at, slope = one_step(at.scaled(1.702), mid), DERIVATIVES["silu"]
    if op.function == "relu":
        return Ball.exact(gradients.activation_grad(op, x, grad))
    if slope is None:
        factor = activation(op.function, at, mid, lowering.errors)
    else:
        factor = one_step(at.through(*slope), mid)
    return one_step(factor * Ball.exact(grad), mid)


def _softmax_grad(op: SoftmaxGrad, lowering: Lowering, p: Floats, grad: Floats) -> Ball:
    mid, p_, grad_ = lowering.vector_format, Ball.exact(p), Ball.exact(grad)
    mean = one_step(one_step(p_ * grad_, mid).row_sum(lowering.row_sum_depth(op.cols)), mid)
    back = one_step(one_step(grad_ - mean, mid) * p_, mid)
    return one_step(back.scaled(op.scale), mid)


def _mean(x: Ball, op: NormGrad, lowering: Lowering) -> Ball:
    mid = lowering.vector_format
    total = one_step(x.row_sum(lowering.row_sum_depth(op.cols)), mid)
    return one_step(total.scaled(1.0 / op.cols), mid)


def _normalised(op: NormGrad, lowering: Lowering, x: Floats) -> tuple[Ball, Ball]:
    """(rows before the weight, their factors), as mapped: mean, squares, root."""
    mid, centred = lowering.vector_format, Ball.exact(x)
    if op.norm == "layernorm":
        centred = one_step(centred - _mean(centred, op, lowering), mid)
    variance = _mean(one_step(centred * centred, mid), op, lowering)
    scale = inverse_root(variance, op.eps, mid, lowering.errors)
    return one_step(centred * scale, mid), scale


def _norm_grad(op: NormGrad, lowering: Lowering, x: Floats, grad: Floats, weight: Floats) -> Ball:
    mid = lowering.vector_format
    y, scale = _normalised(op, lowering, x)
    g = one_step(Ball.exact(grad) * Ball.exact(weight), mid)
    along = one_step(y * _mean(one_step(g * y, mid), op, lowering), mid)
    if op.norm == "layernorm":
        g = one_step(g - _mean(g, op, lowering), mid)
    return one_step(one_step(g - along, mid) * scale, mid)


def _summed(terms: Ball, scale: float, mid: Format) -> Ball:
    """Sums over the rows in any order, times a factor."""
    size = np.abs(terms.value) + terms.radius
    off = np.broadcast_to(terms.radius, terms.value.shape).sum(axis=0)
    total = Ball(terms.value.sum(axis=0), off + gamma(len(terms.value)) * size.sum(axis=0))
    return one_step(total.scaled(scale), mid)


def _norm_weight_grad(op: NormWeightGrad, lowering: Lowering, x: Floats, grad: Floats) -> Ball:
    y, _ = _normalised(op, lowering, x)
    mid = lowering.vector_format
    return _summed(one_step(y * Ball.exact(grad), mid), 1.0, mid)


def _column_sum(op: ColumnSum, lowering: Lowering, x: Floats, *others: Floats) -> Ball:
    mid, terms = lowering.vector_format, Ball.exact(x)
    if others:
        terms = one_step(terms - Ball.exact(others[0]), mid)
    if op.function == "variance":
        terms = one_step(terms * terms, mid)
    elif op.function == "normalised":
        root = inverse_root(Ball.exact(others[1]), op.eps, mid, lowering.errors)
        terms = one_step(one_step(terms * root, mid) * Ball.exact(others[2]), mid)
    return _summed(terms, op.scale, mid)


def _batchnorm(
    op: BatchNorm, lowering: Lowering, x: Floats, mean: Floats, variance: Floats,
    weight: Floats, bias: Floats,
) -> Ball:  # fmt: skip
    mid = lowering.vector_format
    root = inverse_root(Ball.exact(variance), op.eps, mid, lowering.errors)
    y = one_step(one_step(Ball.exact(x) - Ball.exact(mean), mid) * root, mid)
    return one_step(one_step(y * Ball.exact(weight), mid) + Ball.exact(bias), mid)


def _batchnorm_grad(
    op: BatchNormGrad, lowering: Lowering, x: Floats, grad: Floats, mean: Floats,
    variance: Floats, weight: Floats, weight_grad: Floats, bias_grad: Floats,
) -> Ball:  # fmt: skip
    mid, share = lowering.vector_format, 1.0 / op.rows
    root = inverse_root(Ball.exact(variance), op.eps, mid, lowering.errors)
    y = one_step(one_step(Ball.exact(x) - Ball.exact(mean), mid) * root, mid)
    y = one_step(y * one_step(Ball.exact(weight_grad).scaled(share), mid), mid)
    back = one_step(Ball.exact(grad) - y, mid)
    back = one_step(back - one_step(Ball.exact(bias_grad).scaled(share), mid), mid)
    return one_step(one_step(back * root, mid) * Ball.exact(weight), mid)


def _cross_entropy_grad(
    op: CrossEntropyGrad, lowering: Lowering, logits: Floats, labels: npt.NDArray[np.int64]
) -> Ball:
    mid, depth = lowering.vector_format, lowering.row_sum_depth(op.cols)
    p, inverse = softmax_parts(Ball.exact(logits), depth, mid, errors=lowering.errors)
    hot = Ball.exact((np.arange(op.cols) == labels[:, None]).astype(np.float64))
    return one_step(one_step(one_step(p * inverse, mid) - hot, mid).scaled(1.0 / op.rows), mid)


def _col2im(op: Col2im, _lowering: Lowering, taps: Floats) -> Ball:
    """Sums of at most as many taps as meet one pixel, in any order."""
    terms = -(-op.fh // op.stride[0]) * -(-op.fw // op.stride[1])
    size = gradients.col2im(op, np.abs(taps))
    return Ball(gradients.col2im(op, taps), gamma(terms) * size)


def _pool2d_grad(op: Pool2dGrad, lowering: Lowering, grad: Floats, *pooled: Floats) -> Ball:
    if op.function == "max":
        return Ball.exact(gradients.pool2d_grad(op, grad, *pooled))
    taps = op.fh * op.fw
    return one_step(Ball.exact(np.tile(grad, taps)).scaled(1.0 / taps), lowering.vector_format)


def _optimizer_step(
    op: OptimizerStep, lowering: Lowering, grad: Floats, weight: Floats, momentum: Floats,
    *variance: Floats,
) -> tuple[Ball, ...]:  # fmt: skip
    mid = lowering.vector_format
    g, w, m = (Ball.exact(values) for values in (grad, weight, momentum))

    def times(x: Ball, factor: float) -> Ball:
        return one_step(x.scaled(factor), mid)

    if op.optimizer == "sgd":
        m = one_step(times(m, op.beta1) + g, mid)
        if op.decay:
            m = one_step(m + times(w, op.decay), mid)
        new, kept = one_step(w - times(m, op.rate), mid), [m]
    else:
        m = one_step(times(m, op.beta1) + times(g, 1.0 - op.beta1), mid)
        squares = times(one_step(g * g, mid), 1.0 - op.beta2)
        v = one_step(times(Ball.exact(variance[0]), op.beta2) + squares, mid)
        root = one_step(times(v, 1.0 / (1.0 - op.beta2**op.step)).sqrt(), mid)
        root = one_step(root + Ball.constant(op.eps), mid)
        move = one_step(times(m, op.rate / (1.0 - op.beta1**op.step)) * root.reciprocal(), mid)
        new = one_step(times(w, 1.0 - op.rate * op.decay) - move, mid)
        kept = [m, v]
    return (*([new, new] if op.copy else [new]), *kept)


def _head_gemm(op: HeadProduct, lowering: Lowering, a: Floats, b: Floats) -> Ball:
    size = gradients.head_gemm(op, np.abs(a), np.abs(b))
    largest = largest_of(a, b)
    error = lowering.summation(op.depth).error(size, op.depth, largest)
    return Ball(gradients.head_gemm(op, a, b), error)


def _score_softmax(op: ScoreSoftmax, lowering: Lowering, x: Floats) -> Ball:
    mid, depth = lowering.vector_format, lowering.row_sum_depth(op.cols)
    seen = np.tile(gradients.visible_columns(op), (op.rows // op.q_len, 1))
    scaled = one_step(Ball.exact(x).scaled(op.scale), mid)
    p, inverse = softmax_parts(scaled, depth, mid, seen, errors=lowering.errors)
    return one_step(p * inverse, mid).masked(seen)


def _embedding_grad(
    op: EmbeddingGrad, lowering: Lowering, grad: Floats, ids: npt.NDArray[np.int64]
) -> Ball:
    """A product with a matrix of ones and zeros: only terms that are not zero can round."""
    size = gradients.embedding_grad(op, np.abs(grad), ids)
    terms = int(np.bincount(ids).max())
    largest = max(largest_of(grad), 1.0)
    error = lowering.summation(op.tokens).error(size, max(terms, 1), largest)
    return Ball(gradients.embedding_grad(op, grad, ids), error)


RULES: dict[str, Callable[..., Any]] = {
    ActivationGrad.kind: _activation_grad,
    SoftmaxGrad.kind: _softmax_grad,
    NormGrad.kind: _norm_grad,
    NormWeightGrad.kind: _norm_weight_grad,
    ColumnSum.kind: _column_sum,
    BatchNorm.kind: _batchnorm,
    BatchNormGrad.kind: _batchnorm_grad,
    CrossEntropyGrad.kind: _cross_entropy_grad,
    Col2im.kind: _col2im,
    Pool2dGrad.kind: _pool2d_grad,
    OptimizerStep.kind: _optimizer_step,
    HeadProduct.kind: _head_gemm,
    ScoreSoftmax.kind: _score_softmax,
    EmbeddingGrad.kind: _embedding_grad,
}
