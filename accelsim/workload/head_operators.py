"""Attention as it is trained without fusion: products of heads, and softmax of their scores.

Matrices of queries, keys, values and results are *wide*, [batch*tokens, heads*head_dim] as
projections leave them; scores and probabilities are *stacked*, [batch*heads*q_len, kv_len], head by
head. Query head h goes with key head h // (heads/kv_heads).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from accelsim.workload._words import listed, whole
from accelsim.workload.operator_base import DtypeRule, Operand, Operator, float_dtypes
from accelsim.workload.tensors import Shape
from accelsim.workload.vector_operators import SOFTMAX_OPS, RowOperator

FORMS = ("scores", "values", "back")


@dataclass(frozen=True)
class HeadProduct(Operator):
    """A matrix product for every head of every sequence. Shapes, by ``form``:

        scores   a wide, of queries;  b wide, of keys;     output stacked: a b^T
        values   a stacked;           b wide, of keys;     output wide, of queries: a b
        back     a stacked;           b wide, of queries;  output wide, of keys: a^T b, summed over
                 the query heads of a key head

    Masked scores are computed like all others.
    """

    form: str
    batch: int
    heads: int
    kv_heads: int
    q_len: int
    kv_len: int
    head_dim: int

    kind: ClassVar[str] = "head_gemm"
    operands: ClassVar[tuple[Operand, ...]] = (Operand("a"), Operand("b"))
    dimensions: ClassVar[tuple[str, ...]] = (
        *("batch", "heads", "kv_heads", "q_len", "kv_len", "head_dim"),
    )

    def check_fields(self) -> None:
        if self.form not in FORMS:
            raise self.error(f"form {self.form!r}; accepted: {listed(FORMS)}")
        if self.heads % self.kv_heads:
            raise self.error(f"kv_heads {self.kv_heads}; accepted: a divisor of heads {self.heads}")

    @property
    def group(self) -> int:
        """Query heads of a key head."""
        return self.heads // self.kv_heads

    @property
    def depth(self) -> int:
        """Products in the sum of one result."""
        return {
            "scores": self.head_dim,
            "values": self.kv_len,
            "back": self.group * self.q_len,
        }[self.form]

    def _shapes(self) -> tuple[Shape, Shape, Shape]:
        queries = (self.batch * self.q_len, self.heads * self.head_dim)
        keys = (self.batch * self.kv_len, self.kv_heads * self.head_dim)
        stacked = (self.batch * self.heads * self.q_len, self.kv_len)
        found = {
            "scores": (queries, keys, stacked),
            "values": (stacked, keys, queries),
            "back": (stacked, queries, keys),
        }
        return found[self.form]

    def input_shapes(self) -> tuple[Shape, ...]:
        return self._shapes()[:2]

    def output_shapes(self) -> tuple[Shape, ...]:
        return self._shapes()[2:]

    def accepted_dtypes(self, main: str) -> tuple[DtypeRule, DtypeRule]:
        return (float_dtypes(), (main,)), ((main, "fp32"),)

    @property
    def macs(self) -> int:
        return self.batch * self.heads * self.q_len * self.kv_len * self.head_dim


@dataclass(frozen=True)
class ScoreSoftmax(RowOperator):
    """Softmax of stacked scores: softmax(scale x), where ``causal`` row i of q_len sees the first
    cols - q_len + i + 1 columns, and with ``window`` only the last so many of them.

    Shapes: x and out [rows, cols]; rows a multiple of q_len.
    """

    q_len: int
    scale: float = 1.0
    causal: bool = False
    window: int = 0

    kind: ClassVar[str] = "score_softmax"
    dimensions: ClassVar[tuple[str, ...]] = ("rows", "cols", "q_len")
    ops_per_element: ClassVar[int] = SOFTMAX_OPS + 1

    def check_fields(self) -> None:
        whole(self.window, f"{self}: window", least=0)
        if self.rows % self.q_len:
            raise self.error(f"q_len {self.q_len}; accepted: a divisor of rows {self.rows}")
        if self.causal and self.q_len > self.cols:
            raise self.error(f"q_len {self.q_len}; accepted with causal: at most cols {self.cols}")
        if self.window and not self.causal:
            raise self.error(f"window {self.window}; accepted: with causal=true")

    @property
    def masked(self) -> bool:
        """Whether rows see different columns, so that a mask is needed."""
        return self.causal and self.q_len > 1


@dataclass(frozen=True)
class EmbeddingGrad(Operator):
    """Gradient of a table of which rows were gathered: for every row the sum of what comes back to
    the tokens that took it.

    Shapes: grad [tokens, hidden]; ids [tokens] int32; output [vocab, hidden].
    """

    vocab: int
    hidden: int
    tokens: int

    kind: ClassVar[str] = "embedding_grad"
    operands: ClassVar[tuple[Operand, ...]] = (Operand("grad"), Operand("ids"))
    dimensions: ClassVar[tuple[str, ...]] = ("vocab", "hidden", "tokens")

    def input_shapes(self) -> tuple[Shape, ...]:
        return (self.tokens, self.hidden), (self.tokens,)

    def output_shapes(self) -> tuple[Shape, ...]:
        return ((self.vocab, self.hidden),)

    def accepted_dtypes(self, main: str) -> tuple[DtypeRule, DtypeRule]:
        return (float_dtypes(), ("int32",)), (("fp32", main),)

    @property
    def vector_ops(self) -> int:
        return self.tokens * self.hidden


@dataclass(frozen=True)
class PrependToken(Operator):
    """A learned token before the first of every sequence (the class token of a ViT).

    Shapes: x [batch*q_len, hidden]; token [hidden]; output [batch*(q_len+1), hidden].
    """

    batch: int
    q_len: int
    hidden: int

    kind: ClassVar[str] = "prepend_token"
    operands: ClassVar[tuple[Operand, ...]] = (Operand("x"), Operand("token", "weight"))
    dimensions: ClassVar[tuple[str, ...]] = ("batch", "q_len", "hidden")

    def input_shapes(self) -> tuple[Shape, ...]:
        return (self.batch * self.q_len, self.hidden), (self.hidden,)

    def output_shapes(self) -> tuple[Shape, ...]:
        return ((self.batch * (self.q_len + 1), self.hidden),)


@dataclass(frozen=True)
class DropToken(PrependToken):
    """All but the first token of every sequence: what goes back through a PrependToken.

    Shapes: x [batch*(q_len+1), hidden]; output [batch*q_len, hidden].
    """

    kind: ClassVar[str] = "drop_token"
    operands: ClassVar[tuple[Operand, ...]] = (Operand("x"),)

    def input_shapes(self) -> tuple[Shape, ...]:
        return ((self.batch * (self.q_len + 1), self.hidden),)

    def output_shapes(self) -> tuple[Shape, ...]:
        return ((self.batch * self.q_len, self.hidden),)
