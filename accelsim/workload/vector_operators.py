"""Row-wise and element-wise operators: norms, softmax, rotary, activations, gathers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from accelsim.workload._words import listed, whole
from accelsim.workload.operator_base import DtypeRule, Operand, Operator, float_dtypes
from accelsim.workload.tensors import DTYPES, Shape
from accelsim.workload.windows import Windowed

ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "quick_gelu", "silu", "tanh", "sigmoid", "exp")
"""gelu is the erf form, gelu_tanh the tanh approximation, quick_gelu x * sigmoid(1.702 x)."""

GATES = ("silu", "gelu", "gelu_tanh", "sigmoid")
"""Activations of gated linear units: SwiGLU, GEGLU and its approximation, GLU."""

ELEMENTWISE = ("add", "sub", "mul", "max")

SOFTMAX_OPS = 5
"""Element operations of a stable softmax: max, subtract, exp, sum, divide."""


@dataclass(frozen=True)
class RowOperator(Operator):
    """An operator on a matrix of `rows` x `cols` whose result has the same shape."""

    rows: int
    cols: int

    dimensions: ClassVar[tuple[str, ...]] = ("rows", "cols")
    operands: ClassVar[tuple[Operand, ...]] = (Operand("x"),)
    ops_per_element: ClassVar[int] = 1

    def input_shapes(self) -> tuple[Shape, ...]:
        return ((self.rows, self.cols), *[(self.cols,)] * (len(self.inputs) - 1))

    def output_shapes(self) -> tuple[Shape, ...]:
        return ((self.rows, self.cols),)

    @property
    def vector_ops(self) -> int:
        return self.ops_per_element * self.rows * self.cols


@dataclass(frozen=True)
class Softmax(RowOperator):
    """Softmax over the last axis: exp(x - max) / sum. Shapes: x and out [rows, cols]."""

    kind: ClassVar[str] = "softmax"
    ops_per_element: ClassVar[int] = SOFTMAX_OPS


@dataclass(frozen=True)
class Normalisation(RowOperator):
    """A norm over the last axis with learned parameters, which may stay in fp32."""

    eps: float = 1e-5

    def check_fields(self) -> None:
        if not 0.0 <= self.eps < 1.0:
            raise self.error(f"eps is {self.eps}; accepted: at least 0 and below 1")

    def accepted_dtypes(self, main: str) -> tuple[DtypeRule, DtypeRule]:
        return (float_dtypes(), *[(main, "fp32")] * (len(self.inputs) - 1)), ((main,),)


@dataclass(frozen=True)
class LayerNorm(Normalisation):
    """LayerNorm: (x - mean) / sqrt(var + eps) * weight + bias, population variance.

    Shapes: x and out [rows, cols]; weight, bias [cols].
    """

    kind: ClassVar[str] = "layernorm"
    operands: ClassVar[tuple[Operand, ...]] = (
        Operand("x"),
        Operand("weight", "weight"),
        Operand("bias", "weight"),
    )
    # sum, centre, square, sum of squares, normalise, scale, shift
    ops_per_element: ClassVar[int] = 7


@dataclass(frozen=True)
class RmsNorm(Normalisation):
    """RMSNorm: x / sqrt(mean(x^2) + eps) * weight.

    Shapes: x and out [rows, cols]; weight [cols].
    """

    kind: ClassVar[str] = "rmsnorm"
    operands: ClassVar[tuple[Operand, ...]] = (Operand("x"), Operand("weight", "weight"))
    # square, sum of squares, normalise, scale
    ops_per_element: ClassVar[int] = 4


@dataclass(frozen=True)
class Rotary(Operator):
    """Rotary position embedding in the half-split convention: x*cos + rotate_half(x)*sin.

    rotate_half maps each head's (x1, x2), split in the middle, to (-x2, x1).
    Shapes: x and out [tokens, heads*head_dim]; cos, sin [table_rows, head_dim] fp32, whose two
    halves are equal. Row t of x uses table row position + t % q_len.
    """

    heads: int
    head_dim: int
    tokens: int
    q_len: int
    table_rows: int
    position: int = 0

    kind: ClassVar[str] = "rotary"
    operands: ClassVar[tuple[Operand, ...]] = (
        Operand("x"),
        Operand("cos", "constant"),
        Operand("sin", "constant"),
    )
    dimensions: ClassVar[tuple[str, ...]] = ("heads", "head_dim", "tokens", "q_len", "table_rows")

    def check_fields(self) -> None:
        whole(self.position, f"{self}: position", least=0)
        if self.head_dim % 2:
            raise self.error(f"head_dim {self.head_dim}; accepted: an even number")
        if self.tokens % self.q_len:
            raise self.error(f"q_len {self.q_len}; accepted: a divisor of tokens {self.tokens}")
        if self.position + self.q_len > self.table_rows:
            raise self.error(
                f"positions {self.position}..{self.position + self.q_len - 1}; "
                f"accepted: below table_rows {self.table_rows}"
            )

    def input_shapes(self) -> tuple[Shape, ...]:
        table = (self.table_rows, self.head_dim)
        return (self.tokens, self.heads * self.head_dim), table, table

    def output_shapes(self) -> tuple[Shape, ...]:
        return ((self.tokens, self.heads * self.head_dim),)

    def accepted_dtypes(self, main: str) -> tuple[DtypeRule, DtypeRule]:
        return (float_dtypes(), ("fp32",), ("fp32",)), ((main,),)

    @property
    def vector_ops(self) -> int:
        return 3 * self.tokens * self.heads * self.head_dim

    def elements_read(self) -> tuple[int, ...]:
        table = self.q_len * self.head_dim
        return self.tokens * self.heads * self.head_dim, table, table


@dataclass(frozen=True)
class Activation(RowOperator):
    """A scalar function applied to every element. Shapes: x and out [rows, cols]."""

    function: str

    kind: ClassVar[str] = "activation"

    def check_fields(self) -> None:
        if self.function not in ACTIVATIONS:
            raise self.error(f"function {self.function!r}; accepted: {listed(ACTIVATIONS)}")

    def accepted_dtypes(self, main: str) -> tuple[DtypeRule, DtypeRule]:
        return (tuple(DTYPES) if self.function == "relu" else float_dtypes(),), ((main,),)


@dataclass(frozen=True)
class GatedActivation(RowOperator):
    """A gated linear unit's activation: function(gate) * up, both halves of one matrix.

    Shapes: x [rows, 2*cols], gate first; out [rows, cols].
    """

    function: str

    kind: ClassVar[str] = "glu"
    ops_per_element: ClassVar[int] = 2

    def check_fields(self) -> None:
        if self.function not in GATES:
            raise self.error(f"function {self.function!r}; accepted: {listed(GATES)}")

    def input_shapes(self) -> tuple[Shape, ...]:
        return ((self.rows, 2 * self.cols),)

    def accepted_dtypes(self, main: str) -> tuple[DtypeRule, DtypeRule]:
        return (float_dtypes(),), ((main,),)


@dataclass(frozen=True)
class Elementwise(RowOperator):
    """Two operands combined element by element.

    Shapes: a and out [rows, cols]; b the same, or a row vector [cols] with `broadcast_b`.
    """

    function: str
    broadcast_b: bool = False

    kind: ClassVar[str] = "elementwise"
    operands: ClassVar[tuple[Operand, ...]] = (Operand("a"), Operand("b"))

    def check_fields(self) -> None:
        if self.function not in ELEMENTWISE:
            raise self.error(f"function {self.function!r}; accepted: {listed(ELEMENTWISE)}")

    def input_shapes(self) -> tuple[Shape, ...]:
        full = (self.rows, self.cols)
        return full, (self.cols,) if self.broadcast_b else full

    def accepted_dtypes(self, main: str) -> tuple[DtypeRule, DtypeRule]:
        return (tuple(DTYPES), (main,)), ((main,),)


@dataclass(frozen=True)
class Residual(Elementwise):
    """The addition that closes a residual branch, reported under its own kind."""

    function: str = "add"

    kind: ClassVar[str] = "residual"

    def check_fields(self) -> None:
        if self.function != "add" or self.broadcast_b:
            raise self.error("accepted: the sum of two matrices (function add, no broadcast_b)")


POOLINGS = ("max", "mean")


@dataclass(frozen=True)
class Pool2d(Windowed):
    """Largest value or mean of every window of an image, channel by channel.

    Shapes: input [batch, h, w, channels], output [batch, out_h, out_w, channels]. What lies in the
    padding never is the largest; a mean takes no padding.
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

    kind: ClassVar[str] = "pool2d"
    operands: ClassVar[tuple[Operand, ...]] = (Operand("x"),)
    dimensions: ClassVar[tuple[str, ...]] = ("batch", "h", "w", "channels", "fh", "fw")

    def check_fields(self) -> None:
        self.check_window()
        if self.function not in POOLINGS:
            raise self.error(f"function {self.function!r}; accepted: {listed(POOLINGS)}")
        if self.function == "mean" and any(self.padding):
            raise self.error("padding of a mean; accepted: none")
        half = max(self.padding[:2]) >= self.fh or max(self.padding[2:]) >= self.fw
        if half:
            raise self.error(f"padding {self.padding}; accepted: less than the window")

    @property
    def channels_in(self) -> int:
        return self.channels

    def input_shapes(self) -> tuple[Shape, ...]:
        return ((self.batch, self.h, self.w, self.channels),)

    def output_shapes(self) -> tuple[Shape, ...]:
        return ((self.batch, self.out_h, self.out_w, self.channels),)

    def accepted_dtypes(self, main: str) -> tuple[DtypeRule, DtypeRule]:
        known = tuple(DTYPES) if self.function == "max" else float_dtypes()
        return (known,), ((main,),)

    @property
    def vector_ops(self) -> int:
        return math.prod(self.output_shapes()[0]) * self.fh * self.fw


@dataclass(frozen=True)
class EmbeddingGather(Operator):
    """Rows of a table selected by integer ids: out[t] = table[ids[t]].

    Shapes: table [vocab, hidden]; ids [tokens] int32; out [tokens, hidden]. The table may be a
    weight (token or position embedding) or an activation (the last token of each sequence).
    """

    vocab: int
    hidden: int
    tokens: int

    kind: ClassVar[str] = "embedding"
    operands: ClassVar[tuple[Operand, ...]] = (Operand("table", "weight"), Operand("ids"))
    dimensions: ClassVar[tuple[str, ...]] = ("vocab", "hidden", "tokens")

    def input_shapes(self) -> tuple[Shape, ...]:
        return (self.vocab, self.hidden), (self.tokens,)

    def output_shapes(self) -> tuple[Shape, ...]:
        return ((self.tokens, self.hidden),)

    def accepted_dtypes(self, main: str) -> tuple[DtypeRule, DtypeRule]:
        return (tuple(DTYPES), ("int32",)), ((main,),)

    def elements_read(self) -> tuple[int, ...]:
        return min(self.tokens, self.vocab) * self.hidden, self.tokens
