"""Gradients of matrix products: two more products each, for the input and for the weight."""

from __future__ import annotations

from dataclasses import replace

from accelsim.workload.gradients.backward import Backward, gradient_of, unknown
from accelsim.workload.operators import (
    ActivationGrad,
    Col2im,
    ColumnSum,
    Conv2d,
    ConvWeightGrad,
    Gemm,
)


def _finished(op: Gemm | Conv2d, grad: str, back: Backward) -> str:
    """What comes back to the sums of a product; bias and residual get theirs."""
    cols = op.output_shapes()[0][-1]
    rows = back.tensors[op.output].elements // cols
    if op.activation:
        if op.activation != "relu":  # of the others the input would have to be kept
            raise unknown(op, f"a fused {op.activation}", "relu, or an operator of its own")
        name = back.free(f"{op.name}.sums.grad")
        step = ActivationGrad(name, (op.output, grad), (name,), rows, cols, function="relu")
        grad = back.emit(step, op.output)
    if op.has_residual:
        back.give(op.inputs[3], grad)
    if op.has_bias and back.needs(op.inputs[2]):
        name = back.grad_name(op, op.inputs[2])
        total = ColumnSum(name, (grad,), (name,), rows, cols)
        back.give(op.inputs[2], back.emit(total, op.inputs[2]))
    return grad


@gradient_of("gemm")
def gemm(op: Gemm, grad: str, back: Backward) -> None:
    """dA = dC B^T and dB = A^T dC, B as it is stored."""
    if op.groups > 1 or op.transpose_a:
        raise unknown(op, "groups or transpose_a", "neither")
    grad = _finished(op, grad, back)
    a, b = op.inputs[:2]
    m, n, k = op.m, op.n, op.k
    if back.needs(b):
        name = back.grad_name(op, b)
        # One b for all: their rows are rows of one product.
        shared = op.broadcast_b or op.batch == 1
        rows, batch = (op.batch * m, 1) if shared else (m, op.batch)
        first, second, height, width = (grad, a, n, k) if op.transpose_b else (a, grad, k, n)
        product = Gemm(
            name, (first, second), (name,), height, width, rows, batch, transpose_a=True,
            accumulator=op.accumulator,
        )  # fmt: skip
        back.give(b, back.emit(product, b))
    if back.needs(a):
        name = back.grad_name(op, a)
        product = replace(
            op, name=name, inputs=(grad, b), outputs=(name,), m=m, n=k, k=n,
            transpose_b=not op.transpose_b, activation="",
        )  # fmt: skip
        back.give(a, back.emit(product, a))


@gradient_of("conv2d")
def conv2d(op: Conv2d, grad: str, back: Backward) -> None:
    """The gradient of the image is a convolution, too, or with a stride a product whose taps are
    added up in the image; that of the filters is a product over all pixels."""
    grad = _finished(op, grad, back)
    x, weight = op.inputs[:2]
    if back.needs(weight):
        back.give(weight, _filters(op, grad, back))
    if back.needs(x):
        back.give(x, _image(op, grad, back))


def _is_product(op: Conv2d) -> bool:
    return op.fh == op.fw == 1 and op.stride == (1, 1) and not any(op.padding) and op.groups == 1


def _filters(op: Conv2d, grad: str, back: Backward) -> str:
    x, weight = op.inputs[:2]
    name = back.grad_name(op, weight)
    if _is_product(op):
        product = Gemm(name, (x, grad), (name,), op.gemm_k, op.gemm_n, op.gemm_m, transpose_a=True)
        return back.emit(product, weight)
    sums = ConvWeightGrad(
        name, (x, grad), (name,), op.batch, op.h, op.w, op.cin, op.fh, op.fw, op.cout,
        op.stride, op.padding, op.groups,
    )  # fmt: skip
    return back.emit(sums, weight)


def _image(op: Conv2d, grad: str, back: Backward) -> str:
    x, weight = op.inputs[:2]
    name = back.grad_name(op, x)
    if op.stride == (1, 1) and not _is_product(op):
        top, bottom, left, right = op.padding
        down, across = op.fh - 1, op.fw - 1
        if max(top, bottom) > down or max(left, right) > across:
            raise unknown(op, "padding beyond the filter", "padding below its size")
        turned = Conv2d(
            name, (grad, weight), (name,), op.batch, op.out_h, op.out_w, op.cout, op.fh, op.fw,
            op.cin, padding=(down - top, down - bottom, across - left, across - right),
            groups=op.groups, flipped=True,
        )  # fmt: skip
        return back.emit(turned, x)
    if op.groups > 1:
        raise unknown(op, "groups with a stride", "stride 1")
    taps = name if _is_product(op) else back.free(f"{op.name}.taps.grad")
    product = Gemm(taps, (grad, weight), (taps,), op.gemm_m, op.gemm_k, op.cout, transpose_b=True)
    if _is_product(op):
        return back.emit(product, x)
    back.emit(product, x, final=False)
    image = Col2im(
        name, (taps,), (name,), op.batch, op.h, op.w, op.cin, op.fh, op.fw, op.stride, op.padding
    )
    return back.emit(image, x)
