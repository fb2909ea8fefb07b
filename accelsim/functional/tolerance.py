"""The error bound of every operator kind, for the arithmetic that a program used on it.

The radius says how far the simulated output may be from the exact one, element by element,
given the operator's own (simulated) inputs. It is derived (numerics.bounds), not chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.functional import gradient_bounds, reference
from accelsim.functional.attention import heads
from accelsim.functional.linear_attention import recurrent_heads
from accelsim.functional.lowering import Lowering
from accelsim.numerics import attention_bounds, bounds, recurrence
from accelsim.numerics.ball import FP32, Ball
from accelsim.numerics.formats import Format
from accelsim.workload.linear_attention import Recurrence
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
    PrependToken,
    PruneWeight,
    Residual,
    RmsNorm,
    Rotary,
    Softmax,
    StateUpdate,
)

Floats = npt.NDArray[np.float64]
Inputs = Sequence[npt.NDArray[Any]]


def radius(
    operator: Operator, inputs: Inputs, lowering: Lowering, outputs: Sequence[Format]
) -> tuple[Floats, ...]:
    """Largest |simulated - exact| of every element of each output, float64 in its shape.

    ``inputs`` are the operands as float64. Integer outputs, copies, relu and max are exact, but for
    integers that saturate on the way.
    """
    shapes, output = operator.output_shapes(), outputs[0]
    if lowering.saturates and isinstance(operator, Gemm | Conv2d) and output.is_integer:
        return (_overshoot(operator, *inputs[:2]),)
    if output.is_integer or _is_exact(operator):
        return (np.zeros(shapes[0]),)
    with np.errstate(invalid="ignore", over="ignore"):
        found = RULES[operator.kind](operator, lowering, *inputs)
        balls = found if isinstance(found, tuple) else (found,)
        kept = [b if f is FP32 else b.rounded(f) for b, f in zip(balls, outputs, strict=True)]
    return tuple(
        np.broadcast_to(ball.radius, shape) for ball, shape in zip(kept, shapes, strict=True)
    )


def _overshoot(operator: Gemm | Conv2d, a: Floats, b: Floats) -> Floats:
    """How far a sum that saturates after each instruction may be from one that does at the end.

    With x the running sum as it would be and s as it is, x - s grows only where s is put to the
    largest int32 L, to x - L <= o, and falls only where s is put to the smallest, to no less than
    -o, if no |x| passes L by more than o: so |x - s| <= o always, and s, which is in range, is as
    near to what x saturates to. And o <= sum |a||b| - L: nothing, where no order can saturate.
    """
    sizes = reference.products(operator, np.abs(a), np.abs(b))
    return np.asarray(np.maximum(sizes - float(reference.INT32.max), 0.0))


def _is_exact(operator: Operator) -> bool:
    if isinstance(operator, EmbeddingGather | KvAppend | PrependToken | PruneWeight):
        return True
    if isinstance(operator, Activation):
        return operator.function == "relu"
    if isinstance(operator, Pool2d):
        return operator.function == "max"
    return isinstance(operator, Elementwise) and operator.function == "max"


def _product(
    operator: Gemm | GroupedGemm | Conv2d,
    lowering: Lowering,
    length: int,
    inputs: tuple[Floats, ...],
) -> Ball:
    """A matrix product with what is added to it, as more terms of the sum or later, and with its
    activation."""
    a, b, *added = inputs
    alone = _product_alone(operator)
    exact = reference.reference(alone, (a, b))
    size = reference.reference(alone, (np.abs(a), np.abs(b)))
    largest = bounds.largest_of(a, b)
    sums = lowering.summation(length)
    later = replace(sums, depth=sums.depth + len(added))
    for term in added:
        size = size + np.abs(term)
    ball = Ball(exact, later.error(size, length + len(added), largest))
    for term in added:
        ball = _resting(ball, lowering) + Ball.exact(term)
    if not operator.activation:
        return ball
    ball = _resting(ball, lowering)
    return bounds.activation(operator.activation, ball, lowering.vector_format, lowering.errors)


def _resting(ball: Ball, lowering: Lowering) -> Ball:
    """An intermediate as it waits for the vector unit."""
    waits_in = lowering.vector_format
    return ball if waits_in is FP32 else ball.rounded(waits_in).rounded(FP32)


def _product_alone(operator: Gemm | GroupedGemm | Conv2d) -> Operator:
    return replace(operator, inputs=operator.inputs[:2], activation="")


def _gemm(op: Gemm | GroupedGemm, lowering: Lowering, *inputs: Floats) -> Ball:
    return _product(op, lowering, op.k, inputs)


def _conv2d(op: Conv2d, lowering: Lowering, *inputs: Floats) -> Ball:
    return _product(op, lowering, op.gemm_k, inputs)


def _conv2d_wgrad(op: ConvWeightGrad, lowering: Lowering, *inputs: Floats) -> Ball:
    return _product(op, lowering, op.gemm_m, inputs)


def _attention(op: Attention, lowering: Lowering, *inputs: Floats) -> Ball:
    steps = attention_bounds.AttentionSteps(
        summation=lowering.summation(max(op.head_dim + op.rope_dim, op.kv_len)),
        row_depth=lowering.row_sum_depth(op.kv_len),
        mid=lowering.lane_format,
        operand=lowering.operand_format,
        summed=lowering.summed_format,
        shifted=lowering.shifted,
        errors=lowering.errors,
    )
    value = np.empty(op.output_shapes()[0])
    error = np.empty_like(value)
    read = [
        attention_bounds.as_read(x, lowering.converted.get(name, ()))
        for x, name in zip(inputs, op.inputs, strict=True)
    ]
    centres, radii = [ball.value for ball in read], [ball.radius for ball in read]
    for head, off in zip(heads(op, centres), heads(op, radii), strict=True):
        q, k, v = Ball(head.q, off.q), Ball(head.k, off.k), Ball(head.v, off.v)
        ball = attention_bounds.attention(q, k, v, op.scale, head.visible, steps, head.bias)
        value[head.rows, head.cols], error[head.rows, head.cols] = ball.value, ball.radius
    if all(np.array_equal(x, y) for x, y in zip(inputs, centres, strict=True)):
        return Ball(value, error)
    exact = reference.reference(op, inputs)  # of what was there before it was converted
    return Ball(exact, error + np.abs(value - exact))


def _linear_attention(op: LinearAttention, lowering: Lowering, *inputs: Floats) -> Ball:
    steps = _recurrence_steps(op, lowering)
    value = np.empty(op.output_shapes()[0])
    error = np.empty_like(value)
    for head in recurrent_heads(op, inputs):
        ball = recurrence.outputs(head.q, head.k, head.v, head.g, head.s, steps).scaled(op.scale)
        value[head.rows, head.cols], error[head.rows, head.cols] = ball.value, ball.radius
    return Ball(value, error)


def _state_update(op: StateUpdate, lowering: Lowering, *inputs: Floats) -> Ball:
    steps = _recurrence_steps(op, lowering)
    value = np.empty(op.state_shape)
    error = np.empty_like(value)
    for head in recurrent_heads(op, inputs):
        ball = recurrence.last_state(head.k, head.v, head.g, head.s, steps)
        value[head.sequence, head.head] = ball.value
        error[head.sequence, head.head] = ball.radius
    return Ball(value, error)


def _recurrence_steps(op: Recurrence, lowering: Lowering) -> recurrence.RecurrenceSteps:
    return recurrence.RecurrenceSteps(
        summation=lowering.summation(op.q_len + op.head_dim + 1),
        chunk=lowering.exponential_cols,
        mid=lowering.lane_format,
        operand=lowering.operand_format,
        exponential=lowering.errors.exp,
        entering=lowering.errors.entering,
    )


def _softmax(op: Softmax, lowering: Lowering, x: Floats) -> Ball:
    depth = lowering.row_sum_depth(op.cols)
    return bounds.softmax(Ball.exact(x), depth, lowering.vector_format, lowering.errors)


def _layernorm(op: LayerNorm, lowering: Lowering, x: Floats, weight: Floats, bias: Floats) -> Ball:
    x_, weight_, bias_ = (Ball.exact(values) for values in (x, weight, bias))
    depth = lowering.row_sum_depth(op.cols)
    return bounds.layernorm(
        x_, weight_, bias_, op.eps, depth, lowering.vector_format, lowering.errors
    )


def _rmsnorm(op: RmsNorm, lowering: Lowering, x: Floats, weight: Floats) -> Ball:
    depth = lowering.row_sum_depth(op.cols)
    x_, weight_ = Ball.exact(x), Ball.exact(weight)
    return bounds.rmsnorm(x_, weight_, op.eps, depth, lowering.vector_format, lowering.errors)


def _rotary(op: Rotary, lowering: Lowering, x: Floats, cos: Floats, sin: Floats) -> Ball:
    rows = reference.rotary_rows(op)
    return bounds.rotary(
        Ball.exact(x),
        Ball.exact(reference.rotate_half(x, op.head_dim)),
        Ball.exact(np.tile(cos[rows], op.heads)),
        Ball.exact(np.tile(sin[rows], op.heads)),
        lowering.vector_format,
    )


def _activation(op: Activation, lowering: Lowering, x: Floats) -> Ball:
    return bounds.activation(op.function, Ball.exact(x), lowering.vector_format, lowering.errors)


def _glu(op: GatedActivation, lowering: Lowering, x: Floats) -> Ball:
    entering = Ball.exact(x[:, : op.cols])
    gate = bounds.activation(op.function, entering, lowering.vector_format, lowering.errors)
    up = Ball.exact(x[:, op.cols :])
    return bounds.elementwise("mul", gate, up, lowering.vector_format)


def _elementwise(op: Elementwise, lowering: Lowering, a: Floats, b: Floats) -> Ball:
    exact_a, exact_b = Ball.exact(a), Ball.exact(b)
    return bounds.elementwise(op.function, exact_a, exact_b, lowering.vector_format)


def _pool2d(op: Pool2d, lowering: Lowering, x: Floats) -> Ball:
    mean, size = (reference.reference(op, (values,)) for values in (x, np.abs(x)))
    window = op.fh * op.fw
    return bounds.mean_in_any_order(mean, size, window, lowering.vector_format)


def _expert_gate(
    op: ExpertGate,
    lowering: Lowering,
    scores: Floats,
    chosen: npt.NDArray[np.int64],
    *_bias: Floats,
) -> Ball:
    picked = Ball.exact(scores.ravel()[chosen].reshape(op.tokens, op.top_k))
    depth = lowering.row_sum_depth(op.top_k) if op.normalise else 0
    return bounds.gate(
        picked, op.scale, depth, op.normalise, lowering.vector_format, lowering.errors
    )


def _expert_combine(
    op: ExpertCombine,
    lowering: Lowering,
    rows: Floats,
    weights: Floats,
    places: npt.NDArray[np.int64],
    *copied: Floats,
) -> Ball:
    visited = rows[places.reshape(op.top_k, op.tokens)]
    terms = [(Ball.exact(weights[:, [j]]), Ball.exact(visited[j])) for j in range(op.top_k)]
    if copied:
        share = Ball.exact(copied[1]).row_sum(lowering.row_sum_depth(op.top_k))
        terms.append((share.rounded(lowering.vector_format), Ball.exact(copied[0])))
    return bounds.weighted_sum(terms, lowering.vector_format)


RULES: dict[str, Callable[..., Ball | tuple[Ball, ...]]] = {
    **gradient_bounds.RULES,
    Gemm.kind: _gemm,
    Conv2d.kind: _conv2d,
    LayerSparseGemm.kind: _gemm,
    LayerSparseConv2d.kind: _conv2d,
    ConvWeightGrad.kind: _conv2d_wgrad,
    Attention.kind: _attention,
    LinearAttention.kind: _linear_attention,
    StateUpdate.kind: _state_update,
    Softmax.kind: _softmax,
    LayerNorm.kind: _layernorm,
    RmsNorm.kind: _rmsnorm,
    Rotary.kind: _rotary,
    Activation.kind: _activation,
    GatedActivation.kind: _glu,
    Elementwise.kind: _elementwise,
    Residual.kind: _elementwise,
    Pool2d.kind: _pool2d,
    GroupedGemm.kind: _gemm,
    ExpertGate.kind: _expert_gate,
    ExpertCombine.kind: _expert_combine,
}
