"""What every operator means: plain float64 (int64 for integers) on the operator's own inputs.

Independent of programs, mappers and executors. Floating-point results are not rounded to the
output format; integers wrap modulo 2**32 where 32-bit hardware does and saturate to a narrower
output. Inputs are the operands in the operator's documented order and shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.errors import AccelsimError
from accelsim.functional import gradients
from accelsim.functional.attention import attention, kv_append
from accelsim.functional.linear_attention import linear_attention, state_update
from accelsim.numerics.pruning import keep_largest
from accelsim.workload.layer_sparsity import kept_steps
from accelsim.workload.operators import (
    Activation,
    Attention,
    Conv2d,
    ConvWeightGrad,
    Elementwise,
    EmbeddingGather,
    ExpertCombine,
    ExpertGate,
    GatedActivation,
    Gemm,
    GroupedGemm,
    KvAppend,
    LayerNorm,
    LayerSparseConv2d,
    LayerSparseGemm,
    LinearAttention,
    Operator,
    Pool2d,
    PruneWeight,
    Residual,
    RmsNorm,
    Rotary,
    Softmax,
    StateUpdate,
)

Array = npt.NDArray[Any]

INT32 = np.iinfo(np.int32)


def reference(operator: Operator, inputs: Sequence[Array]) -> Any:
    """The exact output of ``operator`` in its documented shape, float64 or int64; a tuple of them
    for an operator that has several.

    ``inputs`` hold the values as float64 or int64.
    """
    try:
        meaning = MEANINGS[operator.kind]
    except KeyError:
        known = ", ".join(MEANINGS)
        raise AccelsimError(f"{operator}: no reference semantics; known: {known}") from None
    return meaning(operator, *inputs)


def saturated(op: Gemm | Conv2d, inputs: Sequence[Array]) -> Array:
    """``reference`` of integers whose sums of products saturate to int32 instead of wrapping."""
    a, b, *added = inputs
    sums = np.clip(products(op, a, b), INT32.min, INT32.max)
    return _finished(op, sums, tuple(added))


def products(op: Gemm | Conv2d, a: Array, b: Array) -> Array:
    """The sums of products alone, neither wrapped nor finished."""
    return _gemm_sums(op, a, b) if isinstance(op, Gemm) else _conv2d_sums(op, a, b)


def gemm(op: Gemm, a: Array, b: Array, *added: Array) -> Array:
    """activation(a @ b + bias + residual), over the batch or the groups of columns."""
    return _finished(op, _gemm_sums(op, a, b), added)


def _gemm_sums(op: Gemm, a: Array, b: Array) -> Array:
    a = np.swapaxes(a, -1, -2) if op.transpose_a else a
    b = _all_rows(op, np.swapaxes(b, -1, -2) if op.transpose_b else b)
    if op.groups > 1:
        apart = a.reshape(op.m, op.groups, op.k).swapaxes(0, 1) @ b
        joined: Array = apart.swapaxes(0, 1).reshape(op.m, op.groups * op.n)
        return joined
    sums: Array = a @ b
    return sums


def _all_rows(op: Gemm | Conv2d, weight: Array) -> Array:
    """A weight with zeros where layer-wise sparsity has pruned its rows [..., k, n]."""
    steps = kept_steps(op)
    if steps is None:
        return weight
    whole = np.zeros((*weight.shape[:-2], steps.whole, weight.shape[-1]), dtype=weight.dtype)
    for kept, place in steps.runs(slice(0, steps.length)):
        whole[..., place, :] = weight[..., kept, :]
    return whole


def prune_weight(op: PruneWeight, weight: Array) -> Array:
    """The largest of every group of a weight, turned if it is, zeros elsewhere."""
    if op.turned:
        weight = weight.reshape(op.taps, op.cols, op.rows)[::-1].swapaxes(1, 2)
    lines = weight.reshape(op.taps * op.rows, op.cols)
    lines = lines if op.along_cols else lines.T
    kept = np.where(keep_largest(lines, op.kept, op.group), lines, 0)
    copy: Array = kept if op.along_cols else kept.T
    return copy


def grouped_gemm(op: GroupedGemm, a: Array, b: Array) -> Array:
    """a[rows of g] @ b[g], group after group."""
    return _wrapped(np.concatenate([a[rows] @ w for rows, w in zip(op.spans, b, strict=True)]))


def _finished(op: Gemm | Conv2d, sums: Array, added: tuple[Array, ...]) -> Array:
    """Sums with their bias and residual, wrapped if they are integers, and the activation."""
    total = _wrapped(sum(added, start=sums))
    return scalar(op.activation, total) if op.activation else total


def conv2d(op: Conv2d, x: Array, weight: Array, *added: Array) -> Array:
    """Sum over filter taps and channels of each group, zero padding, NHWC; then as gemm."""
    return _finished(op, _conv2d_sums(op, x, weight), added)


def _conv2d_sums(op: Conv2d, x: Array, weight: Array) -> Array:
    top, bottom, left, right = op.padding
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    if op.flipped:
        weight = _exchanged(weight, op.groups)
    down, across = op.stride
    weight = _all_rows(op, weight).reshape(op.fh, op.fw, op.cin // op.groups, op.cout)
    out = np.zeros((op.batch, op.out_h, op.out_w, op.cout), dtype=x.dtype)
    cin, cout = op.cin // op.groups, op.cout // op.groups
    for row in range(op.fh):
        for col in range(op.fw):
            rows = slice(row, row + down * (op.out_h - 1) + 1, down)
            cols = slice(col, col + across * (op.out_w - 1) + 1, across)
            pixels = x[:, rows, cols, :]
            for g in range(op.groups):
                taps = weight[row, col, :, g * cout : (g + 1) * cout]
                out[..., g * cout : (g + 1) * cout] += pixels[..., g * cin : (g + 1) * cin] @ taps
    return out


def conv2d_wgrad(op: ConvWeightGrad, x: Array, grad: Array) -> Array:
    """For every tap, the pixels that it meets times the gradient of the result."""
    top, bottom, left, right = op.padding
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    down, across = op.stride
    cin, cout = op.cin // op.groups, op.cout // op.groups
    out = np.zeros(op.output_shapes()[0], dtype=x.dtype)
    for row in range(op.fh):
        for col in range(op.fw):
            rows = slice(row, row + down * (op.out_h - 1) + 1, down)
            cols = slice(col, col + across * (op.out_w - 1) + 1, across)
            for g in range(op.groups):
                pixels = x[:, rows, cols, g * cin : (g + 1) * cin].reshape(-1, cin)
                mine = slice(g * cout, (g + 1) * cout)
                out[row, col, :, mine] = pixels.T @ grad[..., mine].reshape(-1, cout)
    return out


def _exchanged(weight: Array, groups: int) -> Array:
    """Filters [fh, fw, out/groups, in] with taps in reverse, as [fh, fw, in/groups, out]."""
    fh, fw, out, into = weight.shape
    apart = weight[::-1, ::-1].reshape(fh, fw, out, groups, into // groups)
    turned: Array = apart.transpose(0, 1, 4, 3, 2)
    return turned.reshape(fh, fw, into // groups, groups * out)


def pool2d(op: Pool2d, x: Array) -> Array:
    """Largest value or mean of every window, NHWC."""
    lowest = np.iinfo(x.dtype).min if x.dtype.kind == "i" else -np.inf
    outside = lowest if op.function == "max" else 0
    top, bottom, left, right = op.padding
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=outside)
    windows = np.lib.stride_tricks.sliding_window_view(x, (op.fh, op.fw), axis=(1, 2))
    windows = windows[:, :: op.stride[0], :: op.stride[1]]
    result: Array = windows.max(axis=(4, 5)) if op.function == "max" else windows.mean(axis=(4, 5))
    return result


def softmax(_op: Softmax, x: Array) -> Array:
    """exp(x) / sum exp(x) over the last axis."""
    return _softmax(x)


def layernorm(op: LayerNorm, x: Array, weight: Array, bias: Array) -> Array:
    """(x - mean) / sqrt(var + eps) * weight + bias."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    y: Array = centred / np.sqrt(variance + op.eps) * weight + bias
    return y


def rmsnorm(op: RmsNorm, x: Array, weight: Array) -> Array:
    """x / sqrt(mean(x^2) + eps) * weight."""
    y: Array = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + op.eps) * weight
    return y


def rotary(op: Rotary, x: Array, cos: Array, sin: Array) -> Array:
    """x cos + rotate_half(x) sin."""
    table = rotary_rows(op)
    cos, sin = np.tile(cos[table], op.heads), np.tile(sin[table], op.heads)
    y: Array = x * cos + rotate_half(x, op.head_dim) * sin
    return y


def rotary_rows(op: Rotary) -> npt.NDArray[np.int64]:
    """int64 [tokens]: table row of every token."""
    return op.position + np.arange(op.tokens, dtype=np.int64) % op.q_len


def rotate_half(x: Array, head_dim: int) -> Array:
    """Each head (x1, x2), split in the middle, as (-x2, x1)."""
    heads = x.reshape(len(x), -1, head_dim)
    first, second = np.split(heads, 2, axis=-1)
    rotated: Array = np.concatenate([-second, first], axis=-1)
    return rotated.reshape(x.shape)


def activation(op: Activation, x: Array) -> Array:
    """One scalar function of every element."""
    return scalar(op.function, x)


def scalar(function: str, x: Array) -> Array:
    """The function called ``function`` of every element."""
    if function == "relu":
        return np.maximum(x, 0)
    with np.errstate(over="ignore"):
        result: Array = _SCALAR[function](x)
    return result


def glu(op: GatedActivation, x: Array) -> Array:
    """function(gate) * up."""
    gated: Array = _SCALAR[op.function](x[:, : op.cols]) * x[:, op.cols :]
    return gated


def elementwise(op: Elementwise, a: Array, b: Array) -> Array:
    """Two operands combined; a row vector b serves every row."""
    return _wrapped(_BINARY[op.function](a, b))


def embedding(_op: EmbeddingGather, table: Array, ids: Array) -> Array:
    """Rows of the table by index."""
    chosen: Array = table[ids]
    return chosen


def expert_gate(op: ExpertGate, scores: Array, chosen: Array, *_bias: Array) -> Array:
    """The chosen scores, divided by their sum if asked for, times a factor."""
    weights: Array = scores.ravel()[chosen].reshape(op.tokens, op.top_k)
    if op.normalise:
        weights = weights / weights.sum(axis=-1, keepdims=True)
    return weights * op.scale


def expert_combine(
    op: ExpertCombine, rows: Array, weights: Array, places: Array, *copied: Array
) -> Array:
    """Weighted rows of each token, and the part of it that is copied."""
    visited = rows[places.reshape(op.top_k, op.tokens)]
    total: Array = (weights.T[:, :, None] * visited).sum(axis=0)
    if copied:
        x, copies = copied
        total = total + copies.sum(axis=-1, keepdims=True) * x
    return total


def _softmax(x: Array) -> Array:
    p = np.exp(x - x.max(axis=-1, keepdims=True))
    result: Array = p / p.sum(axis=-1, keepdims=True)
    return result


def _wrapped(values: Array) -> Array:
    """Integers modulo 2**32; floating point as it is."""
    if values.dtype.kind == "f":
        return values
    return values.astype(np.int32).astype(np.int64)


def _gelu(x: Array) -> Array:
    from scipy.special import ndtr

    result: Array = x * ndtr(x)
    return result


def _sigmoid(x: Array) -> Array:
    result: Array = 1.0 / (1.0 + np.exp(-x))
    return result


_SCALAR: dict[str, Callable[[Array], Array]] = {
    "gelu": _gelu,
    # (1 + tanh z) / 2 = sigmoid(2 z), which does not cancel for negative z
    "gelu_tanh": lambda x: x * _sigmoid(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)),
    "quick_gelu": lambda x: x * _sigmoid(1.702 * x),
    "silu": lambda x: x * _sigmoid(x),
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "exp": np.exp,
}

_BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "max": np.maximum,
}

MEANINGS: dict[str, Callable[..., Any]] = {
    **gradients.MEANINGS,
    Gemm.kind: gemm,
    Conv2d.kind: conv2d,
    LayerSparseGemm.kind: gemm,
    LayerSparseConv2d.kind: conv2d,
    PruneWeight.kind: prune_weight,
    ConvWeightGrad.kind: conv2d_wgrad,
    Pool2d.kind: pool2d,
    Attention.kind: attention,
    KvAppend.kind: kv_append,
    LinearAttention.kind: linear_attention,
    StateUpdate.kind: state_update,
    Softmax.kind: softmax,
    LayerNorm.kind: layernorm,
    RmsNorm.kind: rmsnorm,
    Rotary.kind: rotary,
    Activation.kind: activation,
    GatedActivation.kind: glu,
    Elementwise.kind: elementwise,
    Residual.kind: elementwise,
    EmbeddingGather.kind: embedding,
    GroupedGemm.kind: grouped_gemm,
    ExpertGate.kind: expert_gate,
    ExpertCombine.kind: expert_combine,
}
