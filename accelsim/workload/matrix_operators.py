"""Operators that are one matrix product: GEMM and convolution."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from accelsim.workload._words import listed
from accelsim.workload.operator_base import DtypeRule, Operand, Operator, float_dtypes
from accelsim.workload.tensors import DTYPES, Shape
from accelsim.workload.windows import Windowed

FUSED_ACTIVATIONS = ("", "relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid")
"""What a product may apply to its sums before it stores them ("": nothing)."""


@dataclass(frozen=True)
class MatrixProduct(Operator):
    """A product whose finished sums may take a bias, a residual and an activation before they are
    stored: the fusion that compilers do to what follows a product.

    result = activation(a * b + bias + residual); a residual comes only with a bias.
    """

    activation: str = field(default="", kw_only=True)

    operands: ClassVar[tuple[Operand, ...]] = (
        Operand("a"),
        Operand("b", "weight"),
        Operand("bias", "weight", optional=True),
        Operand("residual", optional=True),
    )

    def check_fields(self) -> None:
        if self.activation not in FUSED_ACTIVATIONS:
            accepted = listed(name for name in FUSED_ACTIVATIONS if name)
            raise self.error(f"activation {self.activation!r}; accepted: {accepted} or none")

    @property
    def has_bias(self) -> bool:
        """Whether a value per output column is added."""
        return len(self.inputs) > 2

    @property
    def has_residual(self) -> bool:
        """Whether a tensor of the result's shape is added."""
        return len(self.inputs) > 3

    @property
    def is_plain(self) -> bool:
        """Whether it is the product alone."""
        return len(self.inputs) == 2 and not self.activation

    def added_shapes(self, columns: int) -> list[Shape]:
        """Shapes of the bias and the residual, as far as they are there."""
        return [(columns,), *self.output_shapes()][: len(self.inputs) - 2]

    def accepted_dtypes(self, main: str) -> tuple[DtypeRule, DtypeRule]:
        """Equal factors; a float sum may stay in fp32, a sum of either may be rounded to the format
        of its factors."""
        entry = DTYPES.get(main)
        result = entry.result if entry else main
        also: tuple[str, ...] = (main,)
        if entry and entry.is_float and main != "fp64":
            # What is narrower than 16 bits has a result of another format, and may be kept in it.
            also = ("fp32", "fp16", "bf16", main) if result != main else ("fp32",)
        sums = tuple(dict.fromkeys((result, *also)))
        # Of the functions only relu means something for integers.
        known = tuple(DTYPES) if self.activation in ("", "relu") else float_dtypes()
        return (known, (main,), *[sums] * (len(self.inputs) - 2)), (sums,)

    @property
    def vector_ops(self) -> int:
        passes = len(self.inputs) - 2 + bool(self.activation)
        return passes * math.prod(self.output_shapes()[0])


@dataclass(frozen=True)
class Gemm(MatrixProduct):
    """Matrix product c = a @ b (+ bias + residual, activation), repeated `batch` times.

    Shapes, with the batch dimension present only when batch > 1:
        a [batch, m, k]; b [batch, k, n], or [batch, n, k] with `transpose_b`, without its batch
        dimension with `broadcast_b` (one b for every a); bias [n]; residual and c [batch, m, n].
    With `transpose_a` a is [batch, k, m].
    With `groups` (and no batch) columns are multiplied group by group, as heads are:
        a [m, groups*k]; b [groups, k, n] (or [groups, n, k]); c [m, groups*n]; bias [groups*n].
    `accumulator` is the format in which a unit is asked to sum ("": fp32, int32, fp64).
    """

    m: int
    n: int
    k: int
    batch: int = 1
    broadcast_b: bool = False
    transpose_b: bool = False
    accumulator: str = ""
    groups: int = 1
    transpose_a: bool = False

    kind: ClassVar[str] = "gemm"
    dimensions: ClassVar[tuple[str, ...]] = ("m", "n", "k", "batch", "groups")

    def check_fields(self) -> None:
        super().check_fields()
        if self.groups > 1 and (self.batch > 1 or self.broadcast_b):
            raise self.error(f"groups {self.groups}; accepted: without batch and broadcast_b")
        if self.groups > 1 and self.transpose_a:
            raise self.error(f"groups {self.groups}; accepted: without transpose_a")

    @property
    def is_gemv(self) -> bool:
        """Whether a is a single row, so that no b element is used twice."""
        return self.m == 1

    @property
    def b_k(self) -> int:
        """Steps of the reduction that b holds: all of them."""
        return self.k

    def _batched(self, *shape: int) -> Shape:
        return shape if self.batch == 1 else (self.batch, *shape)

    def input_shapes(self) -> tuple[Shape, ...]:
        matrix = (self.n, self.b_k) if self.transpose_b else (self.b_k, self.n)
        b = matrix if self.broadcast_b else self._batched(*matrix)
        if self.groups > 1:
            b = (self.groups, *matrix)
        a = self._batched(self.m, self.groups * self.k)
        if self.transpose_a:
            a = self._batched(self.k, self.m)
        return (a, b, *self.added_shapes(self.groups * self.n))

    def output_shapes(self) -> tuple[Shape, ...]:
        return (self._batched(self.m, self.groups * self.n),)

    @property
    def macs(self) -> int:
        return self.batch * self.groups * self.m * self.n * self.b_k


@dataclass(frozen=True)
class Conv2d(MatrixProduct, Windowed):
    """2-D convolution in NHWC layout, grouped (groups > 1) or depthwise (groups == cin), with an
    optional bias, residual and activation.

    Shapes: input [batch, h, w, cin], weight [fh, fw, cin/groups, cout], bias [cout], residual
    and output [batch, out_h, out_w, cout] with out = floor((in + padding - filter) / stride) + 1.
    `stride` is (vertical, horizontal), `padding` zeros at (top, bottom, left, right).

    With `flipped` the weight is that of the convolution whose gradient this is, [fh, fw,
    cout/groups, cin]: its taps are taken in reverse and its channels are exchanged.
    """

    batch: int
    h: int
    w: int
    cin: int
    fh: int
    fw: int
    cout: int
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1
    flipped: bool = False

    kind: ClassVar[str] = "conv2d"
    operands: ClassVar[tuple[Operand, ...]] = (
        Operand("x"),
        Operand("weight", "weight"),
        *MatrixProduct.operands[2:],
    )
    dimensions: ClassVar[tuple[str, ...]] = (
        *("batch", "h", "w", "cin", "fh", "fw", "cout", "groups"),
    )

    def check_fields(self) -> None:
        super().check_fields()
        self.check_window()
        if self.cin % self.groups or self.cout % self.groups:
            raise self.error(
                f"groups {self.groups}; accepted: a divisor of cin {self.cin} and cout {self.cout}"
            )

    @property
    def channels_in(self) -> int:
        return self.cin

    @property
    def gemm_m(self) -> int:
        """Rows of the im2col matrix product of one group: output pixels of the whole batch."""
        return self.batch * self.out_h * self.out_w

    @property
    def gemm_n(self) -> int:
        """Columns of the im2col matrix product of one group: its filters."""
        return self.cout // self.groups

    @property
    def gemm_k(self) -> int:
        """Depth of the im2col matrix product of one group: one filter window."""
        return self.fh * self.fw * self.cin // self.groups

    def input_shapes(self) -> tuple[Shape, ...]:
        weight = (self.fh, self.fw, self.cin // self.groups, self.cout)
        if self.flipped:
            weight = (self.fh, self.fw, self.cout // self.groups, self.cin)
        image = (self.batch, self.h, self.w, self.cin)
        return (image, weight, *self.added_shapes(self.cout))

    def output_shapes(self) -> tuple[Shape, ...]:
        return ((self.batch, self.out_h, self.out_w, self.cout),)

    @property
    def macs(self) -> int:
        return self.groups * self.gemm_m * self.gemm_n * self.gemm_k


@dataclass(frozen=True)
class ConvWeightGrad(Conv2d):
    """What a loss changes with the filters of a convolution of these dimensions: for each tap, its
    pixels of the input times the gradient of the result, summed over all pixels and images.

    Shapes: x [batch, h, w, cin]; the result's gradient [batch, out_h, out_w, cout]; output
    [fh, fw, cin/groups, cout]. It is the product of the transposed im2col matrix with that
    gradient.
    """

    kind: ClassVar[str] = "conv2d_wgrad"
    operands: ClassVar[tuple[Operand, ...]] = (Operand("x"), Operand("grad"))

    def check_fields(self) -> None:
        super().check_fields()
        if self.activation or self.flipped:
            raise self.error("accepted: without activation and flipped")

    def input_shapes(self) -> tuple[Shape, ...]:
        image = (self.batch, self.h, self.w, self.cin)
        return image, (self.batch, self.out_h, self.out_w, self.cout)

    def output_shapes(self) -> tuple[Shape, ...]:
        return ((self.fh, self.fw, self.cin // self.groups, self.cout),)
