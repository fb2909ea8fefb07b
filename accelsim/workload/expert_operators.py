"""Operators of a mixture of experts: the gate, products of several experts, the weighted sum.

Which experts a token visits is an input of a workload (workload.routing), not a result of its
numbers: the sizes of the products follow from it. What is computed is everything else, the gate's
weights among it, from the router's scores of the experts that were chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

from accelsim.workload._words import shown, whole
from accelsim.workload.matrix_operators import MatrixProduct
from accelsim.workload.operator_base import DtypeRule, Operand, Operator, float_dtypes
from accelsim.workload.tensors import Shape


@dataclass(frozen=True)
class GroupedGemm(MatrixProduct):
    """Matrix products of one weight each on neighbouring rows: group g has ``m[g]`` rows.

    Shapes: a [sum m, k], whose rows are sorted by group; b [groups, k, n]; c [sum m, n]. A group
    without rows costs nothing: its weight is not read.
    """

    m: tuple[int, ...]
    n: int
    k: int

    kind: ClassVar[str] = "grouped_gemm"
    operands: ClassVar[tuple[Operand, ...]] = MatrixProduct.operands[:2]
    dimensions: ClassVar[tuple[str, ...]] = ("n", "k")

    def check_fields(self) -> None:
        super().check_fields()
        if self.activation:
            raise self.error(f"activation {self.activation!r}; accepted: none")
        if not isinstance(self.m, tuple) or not self.m:
            raise self.error(f"m is {shown(self.m)}; accepted: the rows of each group")
        for group, rows in enumerate(self.m):
            whole(rows, f"{self}: rows of group {group}", least=0)
        if not self.rows:
            raise self.error("no group has rows; accepted: at least one row")

    @property
    def rows(self) -> int:
        """Rows of all groups together."""
        return sum(self.m)

    @property
    def spans(self) -> tuple[slice, ...]:
        """The rows of each group; those of a group without any are an empty slice."""
        return tuple(
            slice(end - rows, end) for end, rows in zip(accumulate(self.m), self.m, strict=True)
        )

    @property
    def imbalance(self) -> float:
        """Rows of the largest group over the mean of all groups."""
        return max(self.m) * len(self.m) / self.rows

    def input_shapes(self) -> tuple[Shape, ...]:
        return (self.rows, self.k), (len(self.m), self.k, self.n)

    def output_shapes(self) -> tuple[Shape, ...]:
        return ((self.rows, self.n),)

    @property
    def macs(self) -> int:
        return self.rows * self.n * self.k

    def elements_read(self) -> tuple[int, ...]:
        used = sum(rows > 0 for rows in self.m)
        return self.rows * self.k, used * self.k * self.n


@dataclass(frozen=True)
class ExpertGate(Operator):
    """The weights of the ``top_k`` experts that each token visits, from the router's scores.

    weights[t, j] = scale * scores.ravel()[chosen[t * top_k + j]], with `normalise` divided by the
    token's sum of the chosen scores. Shapes: scores [tokens, experts], after the softmax or
    sigmoid; chosen [tokens*top_k] int32, places t * experts + expert in the scores; bias [experts],
    which is added to the scores for the selection only (DeepSeek-V3, arXiv 2412.19437, §2.1.2);
    out [tokens, top_k].

    The selection is one maximum and one comparison per choice over the row of scores; it is timed,
    and what it finds is given as `chosen`.
    """

    tokens: int
    experts: int
    top_k: int
    normalise: bool = False
    scale: float = 1.0

    kind: ClassVar[str] = "expert_gate"
    operands: ClassVar[tuple[Operand, ...]] = (
        Operand("scores"),
        Operand("chosen"),
        Operand("bias", "weight", optional=True),
    )
    dimensions: ClassVar[tuple[str, ...]] = ("tokens", "experts", "top_k")

    def check_fields(self) -> None:
        if self.top_k > self.experts:
            raise self.error(f"top_k {self.top_k}; accepted: up to experts {self.experts}")
        if not 0.0 < self.scale < 1e6:
            raise self.error(f"scale is {self.scale}; accepted: above 0 and below 1e6")

    @property
    def has_bias(self) -> bool:
        """Whether a correction is added for the selection."""
        return len(self.inputs) > 2

    def input_shapes(self) -> tuple[Shape, ...]:
        shapes = (self.tokens, self.experts), (self.tokens * self.top_k,), (self.experts,)
        return shapes[: len(self.inputs)]

    def output_shapes(self) -> tuple[Shape, ...]:
        return ((self.tokens, self.top_k),)

    def accepted_dtypes(self, main: str) -> tuple[DtypeRule, DtypeRule]:
        inputs: DtypeRule = (float_dtypes(), ("int32",), (main, "fp32", "fp16", "bf16"))
        return inputs[: len(self.inputs)], ((main,),)

    @property
    def vector_ops(self) -> int:
        selection = self.tokens * self.experts * (2 * self.top_k + self.has_bias)
        return selection + self.tokens * self.top_k * (2 * self.normalise + 1)


@dataclass(frozen=True)
class ExpertCombine(Operator):
    """What the experts made of each token, weighted and summed, in the order of its choices.

    out[t] = sum over j of weights[t, j] * rows[places[j * tokens + t]]
             + (sum over j of copies[t, j]) * x[t]

    Shapes: rows [table_rows, hidden]; weights [tokens, top_k]; places [top_k*tokens] int32, choice
    after choice; out [tokens, hidden]. The last line, with x [tokens, hidden] and copies [tokens,
    top_k], belongs to experts that copy their input (MoE++, arXiv 2410.07348, §3.1).
    """

    tokens: int
    hidden: int
    top_k: int
    table_rows: int

    kind: ClassVar[str] = "expert_combine"
    operands: ClassVar[tuple[Operand, ...]] = (
        Operand("rows"),
        Operand("weights"),
        Operand("places"),
        Operand("x", optional=True),
        Operand("copies", optional=True),
    )
    dimensions: ClassVar[tuple[str, ...]] = ("tokens", "hidden", "top_k", "table_rows")

    def check_fields(self) -> None:
        if len(self.inputs) == 4:
            raise self.error("x without copies; accepted: both")

    @property
    def copies(self) -> bool:
        """Whether part of each token is passed on as it is."""
        return len(self.inputs) > 3

    def input_shapes(self) -> tuple[Shape, ...]:
        weights = (self.tokens, self.top_k)
        shapes = (
            *((self.table_rows, self.hidden), weights, (self.top_k * self.tokens,)),
            *((self.tokens, self.hidden), weights),
        )
        return shapes[: len(self.inputs)]

    def output_shapes(self) -> tuple[Shape, ...]:
        return ((self.tokens, self.hidden),)

    def accepted_dtypes(self, main: str) -> tuple[DtypeRule, DtypeRule]:
        weights = ("fp32", main)
        inputs: DtypeRule = (float_dtypes(), weights, ("int32",), (main,), weights)
        return inputs[: len(self.inputs)], ((main,),)

    @property
    def vector_ops(self) -> int:
        terms = self.top_k + self.copies
        return self.tokens * (self.hidden * (2 * terms - 1) + self.copies * self.top_k)

    def elements_read(self) -> tuple[int, ...]:
        weights = self.tokens * self.top_k
        table = min(weights, self.table_rows) * self.hidden
        sizes = (table, weights, weights, self.tokens * self.hidden, weights)
        return sizes[: len(self.inputs)]
