"""What the operators of the backward pass mean, in float64 (see reference)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.numerics import functions
from accelsim.workload.operators import (
    ActivationGrad,
    BatchNorm,
    BatchNormGrad,
    Col2im,
    ColumnSum,
    CrossEntropyGrad,
    DropToken,
    EmbeddingGrad,
    HeadProduct,
    NormGrad,
    NormWeightGrad,
    OptimizerStep,
    Pool2dGrad,
    PrependToken,
    ScoreSoftmax,
    SoftmaxGrad,
)

Array = npt.NDArray[Any]

DERIVATIVES: dict[str, Callable[[Array], Array]] = {
    "relu": functions.step,
    "gelu": functions.gelu_grad,
    "gelu_tanh": functions.gelu_tanh_grad,
    "quick_gelu": lambda x: functions.silu_grad(1.702 * x),
    "silu": functions.silu_grad,
    "tanh": functions.tanh_grad,
    "sigmoid": functions.sigmoid_grad,
    "exp": np.exp,
}


def activation_grad(op: ActivationGrad, x: Array, grad: Array) -> Array:
    """grad function'(x)."""
    slope: Array = DERIVATIVES[op.function](x)
    return slope * grad


def softmax_grad(op: SoftmaxGrad, p: Array, grad: Array) -> Array:
    """scale p (grad - sum p grad)."""
    mean = (p * grad).sum(axis=-1, keepdims=True)
    back: Array = op.scale * p * (grad - mean)
    return back


def normalised(op: NormGrad, x: Array) -> tuple[Array, Array]:
    """Rows before the weight, and the factor of each."""
    if op.norm == "layernorm":
        x = x - x.mean(axis=-1, keepdims=True)
    scale = 1.0 / np.sqrt((x**2).mean(axis=-1, keepdims=True) + op.eps)
    return x * scale, scale


def norm_grad(op: NormGrad, x: Array, grad: Array, weight: Array) -> Array:
    """scale (g - mean(g) - y mean(g y)) with g = grad weight."""
    y, scale = normalised(op, x)
    g = grad * weight
    along = y * (g * y).mean(axis=-1, keepdims=True)
    mean: Any = g.mean(axis=-1, keepdims=True) if op.norm == "layernorm" else 0.0
    back: Array = scale * (g - mean - along)
    return back


def norm_weight_grad(op: NormWeightGrad, x: Array, grad: Array) -> Array:
    """Sum over the rows of grad times the normalised row."""
    total: Array = (grad * normalised(op, x)[0]).sum(axis=0)
    return total


def column_sum(op: ColumnSum, x: Array, *others: Array) -> Array:
    """scale times the sum over the rows of what the function says."""
    total: Array = op.scale * column_terms(op, x, *others).sum(axis=0)
    return total


def column_terms(op: ColumnSum, x: Array, *others: Array) -> Array:
    """What a column sum adds up."""
    if op.function == "sum":
        return x
    centred: Array = x - others[0]
    if op.function == "variance":
        return centred**2
    _, variance, grad = others
    terms: Array = centred / np.sqrt(variance + op.eps) * grad
    return terms


def batchnorm(
    op: BatchNorm, x: Array, mean: Array, variance: Array, weight: Array, bias: Array
) -> Array:
    """(x - mean) / sqrt(variance + eps) weight + bias."""
    y: Array = (x - mean) / np.sqrt(variance + op.eps) * weight + bias
    return y


def batchnorm_grad(
    op: BatchNormGrad, x: Array, grad: Array, mean: Array, variance: Array, weight: Array,
    weight_grad: Array, bias_grad: Array,
) -> Array:  # fmt: skip
    """weight r (grad - bias_grad / n - y weight_grad / n)."""
    root = 1.0 / np.sqrt(variance + op.eps)
    along = (x - mean) * root * weight_grad
    back: Array = weight * root * (grad - (bias_grad + along) / op.rows)
    return back


def cross_entropy_grad(op: CrossEntropyGrad, logits: Array, labels: Array) -> Array:
    """(softmax - onehot) / rows."""
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    p = p / p.sum(axis=-1, keepdims=True)
    back: Array = (p - (np.arange(op.cols) == labels[:, None])) / op.rows
    return back


def col2im(op: Col2im, taps: Array) -> Array:
    """Every tap where it lies in the image, added up; what lies in the padding is lost."""
    top, bottom, left, right = op.padding
    down, across = op.stride
    image = np.zeros((op.batch, op.h + top + bottom, op.w + left + right, op.channels))
    apart = taps.reshape(op.batch, op.out_h, op.out_w, op.fh, op.fw, op.channels)
    for i in range(op.fh):
        for j in range(op.fw):
            rows = slice(i, i + down * (op.out_h - 1) + 1, down)
            cols = slice(j, j + across * (op.out_w - 1) + 1, across)
            image[:, rows, cols] += apart[:, :, :, i, j]
    inside: Array = image[:, top : top + op.h, left : left + op.w]
    return inside


def pool2d_grad(op: Pool2dGrad, grad: Array, *pooled: Array) -> Array:
    """What comes back, at the first of the largest taps, or shared by all."""
    taps = op.fh * op.fw
    if op.function == "mean":
        return np.tile(grad / taps, taps)
    x, y = pooled
    top, bottom, left, right = op.padding
    around = ((0, 0), (top, bottom), (left, right), (0, 0))
    padded = np.pad(x, around, constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (op.fh, op.fw), axis=(1, 2))
    windows = windows[:, :: op.stride[0], :: op.stride[1]]
    flat = windows.reshape(*windows.shape[:4], taps)
    reached = flat >= y[..., None]
    chosen = reached & (np.cumsum(reached, axis=-1) == 1)
    given: Array = np.where(chosen, grad[..., None], 0.0)
    return np.moveaxis(given, -1, -2).reshape(op.output_shapes()[0])


def optimizer_step(
    op: OptimizerStep, grad: Array, weight: Array, momentum: Array, *variance: Array
) -> tuple[Array, ...]:
    """New weights (twice, if there is a copy) and what the optimizer keeps."""
    if op.optimizer == "sgd":
        kept = [op.beta1 * momentum + grad + op.decay * weight]
        new = weight - op.rate * kept[0]
    else:
        m = op.beta1 * momentum + (1 - op.beta1) * grad
        v = op.beta2 * variance[0] + (1 - op.beta2) * grad**2
        kept = [m, v]
        root = np.sqrt(v / (1 - op.beta2**op.step)) + op.eps
        new = (1 - op.rate * op.decay) * weight - op.rate / (1 - op.beta1**op.step) * m / root
    return (*([new, new] if op.copy else [new]), *kept)


def head_gemm(op: HeadProduct, a: Array, b: Array) -> Array:
    """a b^T, a b or a^T b of every head."""
    wide_b = _heads(op, b, op.heads if op.form == "back" else op.kv_heads)
    if op.form == "scores":
        q = _heads(op, a, op.heads)
        k = np.repeat(wide_b, op.group, axis=1)
        scores: Array = q @ k.swapaxes(-1, -2)
        return scores.reshape(-1, op.kv_len)
    stacked = a.reshape(op.batch, op.heads, op.q_len, op.kv_len)
    if op.form == "values":
        return _wide(stacked @ np.repeat(wide_b, op.group, axis=1))
    back = stacked.swapaxes(-1, -2) @ wide_b
    apart = back.reshape(op.batch, op.kv_heads, op.group, op.kv_len, op.head_dim)
    return _wide(apart.sum(axis=2))


def _heads(op: HeadProduct, wide: Array, heads: int) -> Array:
    """[batch*tokens, heads*head_dim] as [batch, heads, tokens, head_dim]."""
    return wide.reshape(op.batch, -1, heads, op.head_dim).swapaxes(1, 2)


def _wide(heads: Array) -> Array:
    """The other way round."""
    batch, count, tokens, dim = heads.shape
    joined: Array = heads.swapaxes(1, 2).reshape(batch * tokens, count * dim)
    return joined


def visible_columns(op: ScoreSoftmax) -> npt.NDArray[np.bool_]:
    """[q_len, cols]: which scores a row of a head sees."""
    if not op.causal:
        return np.ones((op.q_len, op.cols), dtype=bool)
    position = op.cols - op.q_len + np.arange(op.q_len)[:, None]
    column = np.arange(op.cols)
    seen: npt.NDArray[np.bool_] = column <= position
    return seen & (column > position - op.window) if op.window else seen


def score_softmax(op: ScoreSoftmax, x: Array) -> Array:
    """Softmax of the scaled scores that a row sees."""
    seen = np.tile(visible_columns(op), (op.rows // op.q_len, 1))
    scaled = np.where(seen, op.scale * x, -np.inf)
    p = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    result: Array = p / p.sum(axis=-1, keepdims=True)
    return result


def embedding_grad(op: EmbeddingGrad, grad: Array, ids: Array) -> Array:
    """Rows of the tokens, added where they were taken."""
    table = np.zeros((op.vocab, op.hidden))
    np.add.at(table, ids, grad)
    return table


def prepend_token(op: PrependToken, x: Array, token: Array) -> Array:
    """A token before every sequence."""
    first = np.broadcast_to(token, (op.batch, 1, op.hidden))
    joined = np.concatenate([first, x.reshape(op.batch, op.q_len, op.hidden)], axis=1)
    return joined.reshape(-1, op.hidden)


def drop_token(op: DropToken, x: Array) -> Array:
    """Every sequence without its first token."""
    rest: Array = x.reshape(op.batch, op.q_len + 1, op.hidden)[:, 1:]
    return rest.reshape(-1, op.hidden)


MEANINGS: dict[str, Callable[..., Any]] = {
    ActivationGrad.kind: activation_grad,
    SoftmaxGrad.kind: softmax_grad,
    NormGrad.kind: norm_grad,
    NormWeightGrad.kind: norm_weight_grad,
    ColumnSum.kind: column_sum,
    BatchNorm.kind: batchnorm,
    BatchNormGrad.kind: batchnorm_grad,
    CrossEntropyGrad.kind: cross_entropy_grad,
    Col2im.kind: col2im,
    Pool2dGrad.kind: pool2d_grad,
    OptimizerStep.kind: optimizer_step,
    HeadProduct.kind: head_gemm,
    ScoreSoftmax.kind: score_softmax,
    EmbeddingGrad.kind: embedding_grad,
    PrependToken.kind: prepend_token,
    DropToken.kind: drop_token,
}
