"""Operators made of multiply-accumulates: GEMM, convolution, attention and its KV cache."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from accelsim.workload._words import listed, whole
from accelsim.workload.operator_base import DtypeRule, Operand, Operator, float_dtypes
from accelsim.workload.tensors import DTYPES, Shape
from accelsim.workload.windows import Windowed

SOFTMAX_OPS = 5
"""Element operations of a stable softmax: max, subtract, exp, sum, divide."""


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
    `accumulator` is the format in which a unit is asked to sum ("": fp32, int32, fp64).
    """

    m: int
    n: int
    k: int
    batch: int = 1
    broadcast_b: bool = False
    transpose_b: bool = False
    accumulator: str = ""

    kind: ClassVar[str] = "gemm"
    dimensions: ClassVar[tuple[str, ...]] = ("m", "n", "k", "batch")

    @property
    def is_gemv(self) -> bool:
        """Whether a is a single row, so that no b element is used twice."""
        return self.m == 1

    def _batched(self, *shape: int) -> Shape:
        return shape if self.batch == 1 else (self.batch, *shape)

    def input_shapes(self) -> tuple[Shape, ...]:
        matrix = (self.n, self.k) if self.transpose_b else (self.k, self.n)
        b = matrix if self.broadcast_b else self._batched(*matrix)
        return (self._batched(self.m, self.k), b, *self.added_shapes(self.n))

    def output_shapes(self) -> tuple[Shape, ...]:
        return (self._batched(self.m, self.n),)

    @property
    def macs(self) -> int:
        return self.batch * self.m * self.n * self.k


@dataclass(frozen=True)
class Conv2d(MatrixProduct, Windowed):
    """2-D convolution in NHWC layout, grouped (groups > 1) or depthwise (groups == cin), with an
    optional bias, residual and activation.

    Shapes: input [batch, h, w, cin], weight [fh, fw, cin/groups, cout], bias [cout], residual
    and output [batch, out_h, out_w, cout] with out = floor((in + padding - filter) / stride) + 1.
    `stride` is (vertical, horizontal), `padding` zeros at (top, bottom, left, right).
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
        image = (self.batch, self.h, self.w, self.cin)
        return (image, weight, *self.added_shapes(self.cout))

    def output_shapes(self) -> tuple[Shape, ...]:
        return ((self.batch, self.out_h, self.out_w, self.cout),)

    @property
    def macs(self) -> int:
        return self.groups * self.gemm_m * self.gemm_n * self.gemm_k


@dataclass(frozen=True)
class Attention(Operator):
    """Scaled dot-product attention over keys and values: softmax(scale q k^T) v.

    Shapes: q [batch*q_len, heads*head_dim]; k, v [batch, kv_heads, kv_len, head_dim] as a cache
    holds them, or [batch*kv_len, kv_heads*head_dim] as a projection leaves them (`cached` false);
    output [batch*q_len, heads*head_dim]. Query head h reads key head h // (heads/kv_heads):
    kv_heads == heads is multi-head, 1 is multi-query, between is grouped-query attention.
    With `causal`, query i stands at position kv_len - q_len + i and sees keys 0..that position.
    `scale` defaults to 1/sqrt(head_dim).
    """

    batch: int
    heads: int
    kv_heads: int
    q_len: int
    kv_len: int
    head_dim: int
    causal: bool = False
    scale: float = 0.0
    cached: bool = True

    kind: ClassVar[str] = "attention"
    operands: ClassVar[tuple[Operand, ...]] = (
        Operand("q"),
        Operand("k", "cache"),
        Operand("v", "cache"),
    )
    dimensions: ClassVar[tuple[str, ...]] = (
        *("batch", "heads", "kv_heads", "q_len", "kv_len", "head_dim"),
    )

    def check_fields(self) -> None:
        if self.heads % self.kv_heads:
            raise self.error(f"kv_heads {self.kv_heads}; accepted: a divisor of heads {self.heads}")
        if self.causal and self.q_len > self.kv_len:
            raise self.error(
                f"q_len {self.q_len}; accepted with causal: at most kv_len {self.kv_len}"
            )
        if self.scale == 0.0:
            object.__setattr__(self, "scale", 1.0 / math.sqrt(self.head_dim))

    @property
    def scores(self) -> int:
        """Query-key pairs that may see each other, over all heads and sequences."""
        pairs = self.q_len * self.kv_len
        if self.causal:
            pairs -= self.q_len * (self.q_len - 1) // 2
        return self.batch * self.heads * pairs

    def input_shapes(self) -> tuple[Shape, ...]:
        keys: Shape = (self.batch * self.kv_len, self.kv_heads * self.head_dim)
        if self.cached:
            keys = (self.batch, self.kv_heads, self.kv_len, self.head_dim)
        return (self.batch * self.q_len, self.heads * self.head_dim), keys, keys

    def output_shapes(self) -> tuple[Shape, ...]:
        return ((self.batch * self.q_len, self.heads * self.head_dim),)

    @property
    def macs(self) -> int:
        return 2 * self.scores * self.head_dim

    @property
    def vector_ops(self) -> int:
        return (1 + SOFTMAX_OPS) * self.scores


@dataclass(frozen=True)
class KvAppend(Operator):
    """New key or value rows written into their cache, head by head, in place.

    Shapes: new [batch*q_len, kv_heads*head_dim]; cache [batch, kv_heads, kv_capacity, head_dim],
    which is the second input and also the output. Only positions [position, position + q_len)
    are written; the rest keeps what it held.
    """

    batch: int
    kv_heads: int
    q_len: int
    head_dim: int
    kv_capacity: int
    position: int = 0

    kind: ClassVar[str] = "kv_append"
    operands: ClassVar[tuple[Operand, ...]] = (Operand("new"), Operand("cache", "cache"))
    dimensions: ClassVar[tuple[str, ...]] = (
        *("batch", "kv_heads", "q_len", "head_dim", "kv_capacity"),
    )

    def check_fields(self) -> None:
        whole(self.position, f"{self}: position", least=0)
        if self.position + self.q_len > self.kv_capacity:
            raise self.error(
                f"positions {self.position}..{self.position + self.q_len - 1}; "
                f"accepted: below kv_capacity {self.kv_capacity}"
            )
        if self.inputs[1] != self.outputs[0]:
            raise self.error(
                f"writes '{self.outputs[0]}'; accepted: its own cache input '{self.inputs[1]}'"
            )

    @property
    def _new_elements(self) -> int:
        return self.batch * self.q_len * self.kv_heads * self.head_dim

    def input_shapes(self) -> tuple[Shape, ...]:
        return (self.batch * self.q_len, self.kv_heads * self.head_dim), self.output_shapes()[0]

    def output_shapes(self) -> tuple[Shape, ...]:
        return ((self.batch, self.kv_heads, self.kv_capacity, self.head_dim),)

    def accepted_dtypes(self, main: str) -> tuple[DtypeRule, DtypeRule]:
        return (tuple(DTYPES), (main,)), ((main,),)

    def elements_read(self) -> tuple[int, ...]:
        return self._new_elements, 0

    def elements_written(self) -> tuple[int, ...]:
        return (self._new_elements,)
