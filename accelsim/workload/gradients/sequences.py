"""Gradients of what belongs to sequences of tokens: attention in parts, positions, tables."""

from __future__ import annotations

from dataclasses import replace

from accelsim.workload.constants import IndexPattern, RotaryTable
from accelsim.workload.gradients.backward import Backward, gradient_of, unknown
from accelsim.workload.operators import (
    ColumnSum,
    DropToken,
    EmbeddingGather,
    EmbeddingGrad,
    HeadProduct,
    PrependToken,
    Rotary,
    ScoreSoftmax,
    SoftmaxGrad,
)


@gradient_of("head_gemm")
def head_gemm(op: HeadProduct, grad: str, back: Backward) -> None:
    """Scores q k^T give dS k and dS^T q; values p v give dO v^T and p^T dO."""
    a, b = op.inputs
    forms = {"scores": ("values", "back"), "values": ("scores", "back")}
    if op.form not in forms:
        raise unknown(op, f"form {op.form}", forms)
    to_a, to_b = forms[op.form]
    pairs = {"scores": (grad, a), "values": (a, grad)}
    for tensor, form, operands in ((a, to_a, (grad, b)), (b, to_b, pairs[op.form])):
        name = back.grad_name(op, tensor)
        product = replace(op, name=name, inputs=operands, outputs=(name,), form=form)
        back.give(tensor, back.emit(product, tensor))


@gradient_of("score_softmax")
def score_softmax(op: ScoreSoftmax, grad: str, back: Backward) -> None:
    """From the probabilities, which are kept; what is masked has none."""
    x = op.inputs[0]
    name = back.grad_name(op, x)
    step = SoftmaxGrad(name, (op.output, grad), (name,), op.rows, op.cols, scale=op.scale)
    back.give(x, back.emit(step, x))


@gradient_of("rotary")
def rotary(op: Rotary, grad: str, back: Backward) -> None:
    """The rotation backwards: the same with the other sign of the sine."""
    x, cos, sin = op.inputs
    spec = back.tensors[sin]
    if not isinstance(spec.values, RotaryTable):
        raise unknown(op, "a table that is given", "a rotary table")
    values = replace(spec.values, function="minus_sin")
    table = back.constant(f"{sin}.minus", spec.shape, spec.dtype, values)
    name = back.grad_name(op, x)
    turned = replace(op, name=name, inputs=(grad, cos, table), outputs=(name,))
    back.give(x, back.emit(turned, x))


@gradient_of("embedding")
def embedding(op: EmbeddingGather, grad: str, back: Backward) -> None:
    """What comes back to the tokens, added up row by row of the table."""
    table, ids = op.inputs
    name = back.grad_name(op, table)
    sums = EmbeddingGrad(name, (grad, ids), (name,), op.vocab, op.hidden, op.tokens)
    back.give(table, back.emit(sums, table))


@gradient_of("prepend_token")
def prepend_token(op: PrependToken, grad: str, back: Backward) -> None:
    """The first rows of all sequences go to the token, the others back."""
    x, token = op.inputs
    pattern = IndexPattern(0, op.q_len + 1, op.batch)
    ids = back.constant(f"{op.name}.rows", (op.batch,), "int32", pattern)
    total = op.batch * (op.q_len + 1)
    first = back.free(f"{op.name}.firsts.grad")
    gather = EmbeddingGather(first, (grad, ids), (first,), total, op.hidden, op.batch)
    back.emit(gather, x, final=False)
    name = back.grad_name(op, token)
    back.give(token, back.emit(ColumnSum(name, (first,), (name,), op.batch, op.hidden), token))
    if back.needs(x):
        rest = back.grad_name(op, x)
        drop = DropToken(rest, (grad,), (rest,), op.batch, op.q_len, op.hidden)
        back.give(x, back.emit(drop, x))
