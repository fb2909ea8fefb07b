"""Operators of the backward pass that no forward pass has: derivatives, and sums over rows.

Every gradient is that of one number, the loss, by a tensor; it has the tensor's shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from accelsim.workload._words import listed
from accelsim.workload.operator_base import DtypeRule, Operand, Operator, float_dtypes
from accelsim.workload.tensors import Shape
from accelsim.workload.vector_operators import (
    ACTIVATIONS,
    POOLINGS,
    SOFTMAX_OPS,
    Normalisation,
    RowOperator,
)
from accelsim.workload.windows import Windowed

NORMS = ("layernorm", "rmsnorm")
COLUMN_SUMS = {"sum": 1, "variance": 2, "normalised": 4}
"""What is summed over the rows, and how many operands that takes."""


@dataclass(frozen=True)
class ActivationGrad(RowOperator):
    """Gradient of an activation: grad * function'(x). Shapes: x, grad and out [rows, cols]."""

    function: str

    kind: ClassVar[str] = "activation_grad"
    operands: ClassVar[tuple[Operand, ...]] = (Operand("x"), Operand("grad"))
    ops_per_element: ClassVar[int] = 2

    def check_fields(self) -> None:
        if self.function not in ACTIVATIONS:
            raise self.error(f"function {self.function!r}; accepted: {listed(ACTIVATIONS)}")

    def input_shapes(self) -> tuple[Shape, ...]:
        return ((self.rows, self.cols),) * 2


@dataclass(frozen=True)
class SoftmaxGrad(RowOperator):
    """Gradient of softmax(scale x) from its result p: scale * p * (grad - sum(p * grad)).

    Shapes: p, grad and out [rows, cols].
    """

    scale: float = 1.0

    kind: ClassVar[str] = "softmax_grad"
    operands: ClassVar[tuple[Operand, ...]] = (Operand("p"), Operand("grad"))
    # multiply, sum, subtract, multiply, scale
    ops_per_element: ClassVar[int] = 5

    def input_shapes(self) -> tuple[Shape, ...]:
        return ((self.rows, self.cols),) * 2


@dataclass(frozen=True)
class NormGrad(Normalisation):
    """Gradient of a norm's input, its statistics computed again from the input.

    With y the normalised row before the weight, r its factor 1/sqrt(...) and g = grad * weight:
    r * (g - mean(g) - y * mean(g * y)); a rmsnorm has no mean(g). Shapes: x, grad and out
    [rows, cols]; weight [cols].
    """

    norm: str = "layernorm"

    kind: ClassVar[str] = "norm_grad"
    operands: ClassVar[tuple[Operand, ...]] = (
        Operand("x"),
        Operand("grad"),
        Operand("weight", "weight"),
    )
    ops_per_element: ClassVar[int] = 12

    def check_fields(self) -> None:
        super().check_fields()
        if self.norm not in NORMS:
            raise self.error(f"norm {self.norm!r}; accepted: {listed(NORMS)}")

    def input_shapes(self) -> tuple[Shape, ...]:
        full = (self.rows, self.cols)
        return full, full, (self.cols,)

    def accepted_dtypes(self, main: str) -> tuple[DtypeRule, DtypeRule]:
        return (float_dtypes(), (main,), (main, "fp32")), ((main,),)


@dataclass(frozen=True)
class NormWeightGrad(NormGrad):
    """Gradient of a norm's weight: the sum over the rows of grad times the normalised row.

    Shapes: x, grad [rows, cols]; out [cols].
    """

    kind: ClassVar[str] = "norm_weight_grad"
    operands: ClassVar[tuple[Operand, ...]] = (Operand("x"), Operand("grad"))
    ops_per_element: ClassVar[int] = 8

    def input_shapes(self) -> tuple[Shape, ...]:
        return ((self.rows, self.cols),) * 2

    def output_shapes(self) -> tuple[Shape, ...]:
        return ((self.cols,),)

    def accepted_dtypes(self, main: str) -> tuple[DtypeRule, DtypeRule]:
        return (float_dtypes(), (main,)), (("fp32", main),)


@dataclass(frozen=True)
class ColumnSum(RowOperator):
    """Sums over the rows, times ``scale``: the gradient of a bias, statistics of batch norm.

        sum          x
        variance     (x - mean)^2
        normalised   grad * (x - mean) / sqrt(variance + eps)

    Shapes: x, grad [rows, cols]; mean, variance and out [cols].
    """

    function: str = "sum"
    scale: float = 1.0
    eps: float = 1e-5

    kind: ClassVar[str] = "column_sum"
    operands: ClassVar[tuple[Operand, ...]] = (
        Operand("x"),
        Operand("mean", optional=True),
        Operand("variance", optional=True),
        Operand("grad", optional=True),
    )

    def check_fields(self) -> None:
        if self.function not in COLUMN_SUMS:
            raise self.error(f"function {self.function!r}; accepted: {listed(COLUMN_SUMS)}")
        if len(self.inputs) != COLUMN_SUMS[self.function]:
            raise self.error(
                f"{len(self.inputs)} inputs; accepted for {self.function}:"
                f" {COLUMN_SUMS[self.function]}"
            )

    def input_shapes(self) -> tuple[Shape, ...]:
        full, row = (self.rows, self.cols), (self.cols,)
        return (full, row, row, full)[: len(self.inputs)]

    def output_shapes(self) -> tuple[Shape, ...]:
        return ((self.cols,),)

    def accepted_dtypes(self, main: str) -> tuple[DtypeRule, DtypeRule]:
        rest: DtypeRule = (("fp32",), ("fp32",), (main,))
        return (float_dtypes(), *rest[: len(self.inputs) - 1]), (("fp32", main),)

    @property
    def vector_ops(self) -> int:
        return {"sum": 1, "variance": 3, "normalised": 4}[self.function] * self.rows * self.cols


@dataclass(frozen=True)
class BatchNorm(Normalisation):
    """Batch norm with given statistics: (x - mean) / sqrt(variance + eps) * weight + bias.

    Shapes: x and out [rows, cols], a row for each pixel; the others [cols].
    """

    kind: ClassVar[str] = "batchnorm"
    operands: ClassVar[tuple[Operand, ...]] = (
        Operand("x"),
        Operand("mean"),
        Operand("variance"),
        Operand("weight", "weight"),
        Operand("bias", "weight"),
    )
    ops_per_element: ClassVar[int] = 4

    def accepted_dtypes(self, main: str) -> tuple[DtypeRule, DtypeRule]:
        learned = (main, "fp32")
        return (float_dtypes(), ("fp32",), ("fp32",), learned, learned), ((main,),)


@dataclass(frozen=True)
class BatchNormGrad(Normalisation):
    """Gradient of a batch norm's input, whose statistics are those of the batch.

    With y = (x - mean) r, r = 1/sqrt(variance + eps) and n rows:
    weight * r * (grad - bias_grad / n - y * weight_grad / n). Shapes: x, grad and out
    [rows, cols]; the others [cols].
    """

    kind: ClassVar[str] = "batchnorm_grad"
    operands: ClassVar[tuple[Operand, ...]] = (
        Operand("x"),
        Operand("grad"),
        Operand("mean"),
        Operand("variance"),
        Operand("weight", "weight"),
        Operand("weight_grad"),
        Operand("bias_grad"),
    )
    ops_per_element: ClassVar[int] = 7

    def input_shapes(self) -> tuple[Shape, ...]:
        full = (self.rows, self.cols)
        return (full, full, *[(self.cols,)] * 5)

    def accepted_dtypes(self, main: str) -> tuple[DtypeRule, DtypeRule]:
        either = (main, "fp32")
        statistics: DtypeRule = (("fp32",), ("fp32",))
        return (float_dtypes(), (main,), *statistics, either, either, either), ((main,),)


@dataclass(frozen=True)
class CrossEntropyGrad(RowOperator):
    """Gradient of the mean cross-entropy of softmax(logits): (softmax(logits) - onehot) / rows.

    Shapes: logits and out [rows, cols]; labels int32 [rows], columns that should have been chosen.
    """

    kind: ClassVar[str] = "cross_entropy_grad"
    operands: ClassVar[tuple[Operand, ...]] = (Operand("logits"), Operand("labels"))
    ops_per_element: ClassVar[int] = SOFTMAX_OPS + 2

    def input_shapes(self) -> tuple[Shape, ...]:
        return (self.rows, self.cols), (self.rows,)

    def accepted_dtypes(self, main: str) -> tuple[DtypeRule, DtypeRule]:
        return (float_dtypes(), ("int32",)), ((main,),)


class WindowGradient(Windowed):
    """What goes back through a window over images of ``channels`` channels, tap by tap."""

    channels: int

    @property
    def channels_in(self) -> int:
        return self.channels

    @property
    def image(self) -> Shape:
        """The images that the windows slide over."""
        return (self.batch, self.h, self.w, self.channels)

    @property
    def pixels(self) -> Shape:
        """One value per window and channel."""
        return (self.batch, self.out_h, self.out_w, self.channels)

    @property
    def taps(self) -> Shape:
        """All taps of every window, side by side."""
        return (*self.pixels[:3], self.fh * self.fw * self.channels)


@dataclass(frozen=True)
class Col2im(WindowGradient):
    """Taps of windows added up where they lie in the image: the transpose of im2col.

    Shapes: taps [batch, out_h, out_w, fh*fw*channels], as rows of the im2col matrix; output
    [batch, h, w, channels].
    """

    batch: int
    h: int
    w: int
    channels: int
    fh: int
    fw: int
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)

    kind: ClassVar[str] = "col2im"
    operands: ClassVar[tuple[Operand, ...]] = (Operand("taps"),)
    dimensions: ClassVar[tuple[str, ...]] = ("batch", "h", "w", "channels", "fh", "fw")

    def check_fields(self) -> None:
        self.check_window()

    def input_shapes(self) -> tuple[Shape, ...]:
        return (self.taps,)

    def output_shapes(self) -> tuple[Shape, ...]:
        return (self.image,)

    @property
    def vector_ops(self) -> int:
        return math.prod(self.taps)


@dataclass(frozen=True)
class Pool2dGrad(WindowGradient):
    """What a pooling gives back to every tap of its windows (col2im then adds them up).

    A maximum gives the gradient to the first pixel of its window that is not below y, a mean gives
    every pixel its share. Shapes: x [batch, h, w, channels], the pooled y and its gradient
    [batch, out_h, out_w, channels], of which a mean needs the gradient alone; output
    [batch, out_h, out_w, fh*fw*channels].
    """

    batch: int
    h: int
    w: int
    channels: int
    fh: int
    fw: int
    function: str
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)

    kind: ClassVar[str] = "pool2d_grad"
    operands: ClassVar[tuple[Operand, ...]] = (
        Operand("grad"),
        Operand("x", optional=True),
        Operand("y", optional=True),
    )
    dimensions: ClassVar[tuple[str, ...]] = ("batch", "h", "w", "channels", "fh", "fw")

    def check_fields(self) -> None:
        self.check_window()
        if self.function not in POOLINGS:
            raise self.error(f"function {self.function!r}; accepted: {listed(POOLINGS)}")
        if len(self.inputs) != (3 if self.function == "max" else 1):
            raise self.error(f"{len(self.inputs)} inputs; accepted: grad, and x and y for max")

    def input_shapes(self) -> tuple[Shape, ...]:
        return (self.pixels, self.image, self.pixels)[: len(self.inputs)]

    def output_shapes(self) -> tuple[Shape, ...]:
        return (self.taps,)

    @property
    def vector_ops(self) -> int:
        return math.prod(self.taps) * (5 if self.function == "max" else 1)


OPTIMIZERS = ("sgd", "adam")


@dataclass(frozen=True)
class OptimizerStep(Operator):
    """New weights from their gradient: SGD with momentum, or AdamW.

        sgd    m = momentum * m + grad + decay * w;  w = w - rate * m
        adam   m = b1 m + (1 - b1) grad;  v = b2 v + (1 - b2) grad^2
               w = (1 - rate * decay) w - rate * (m / c1) / (sqrt(v / c2) + eps)

    with c1 = 1 - b1^step and c2 = 1 - b2^step. All but ``grad`` is fp32, and the new weights are
    written in the format of the products, too, if there is a ``copy``: then that is the first
    output, before w, m and v. Shapes: all [elements].

    Sources: Sutskever et al., ICML 2013, in the form of torch.optim.SGD; Loshchilov and Hutter,
    Decoupled weight decay regularization, ICLR 2019, Algorithm 2.
    """

    elements: int
    optimizer: str
    rate: float = 1e-3
    decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    step: int = 1
    copy: bool = True

    kind: ClassVar[str] = "optimizer_step"
    operands: ClassVar[tuple[Operand, ...]] = (
        Operand("grad"),
        Operand("weight"),
        Operand("momentum"),
        Operand("variance", optional=True),
    )
    dimensions: ClassVar[tuple[str, ...]] = ("elements", "step")

    def check_fields(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise self.error(f"optimizer {self.optimizer!r}; accepted: {listed(OPTIMIZERS)}")
        if len(self.inputs) != 3 + (self.optimizer == "adam"):
            raise self.error(f"{len(self.inputs)} inputs; accepted: variance for adam alone")

    @property
    def results(self) -> int:
        """New weights, as they are multiplied and as they are kept, and what is kept beside."""
        return 2 + (self.optimizer == "adam") + self.copy

    def input_shapes(self) -> tuple[Shape, ...]:
        return ((self.elements,),) * len(self.inputs)

    def output_shapes(self) -> tuple[Shape, ...]:
        return ((self.elements,),) * self.results

    def accepted_dtypes(self, main: str) -> tuple[DtypeRule, DtypeRule]:
        kept = ("fp32",)
        first = float_dtypes() if self.copy else kept
        return (float_dtypes(), *[kept] * (len(self.inputs) - 1)), (
            first,
            *[kept] * (self.results - 1),
        )

    @property
    def vector_ops(self) -> int:
        return (14 if self.optimizer == "adam" else 5) * self.elements
