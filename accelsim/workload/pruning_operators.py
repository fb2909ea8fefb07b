"""The operator that makes a compact copy of a weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from accelsim.workload.coding import Coding, Sparsity
from accelsim.workload.operator_base import DtypeRule, Operand, Operator
from accelsim.workload.tensors import DTYPES, Shape


@dataclass(frozen=True)
class PruneWeight(Operator):
    """A copy of a weight with the ``kept`` largest of every ``group``, stored as nm:N:M.

    The copy is [taps * rows, cols], its groups along the rows, or along the columns with
    ``along_cols``. With ``turned`` the weight is that of the convolution whose gradient reads the
    copy: [taps * cols, rows], its taps in reverse and each of them transposed.
    """

    taps: int
    rows: int
    cols: int
    kept: int
    group: int
    along_cols: bool = False
    turned: bool = False

    kind: ClassVar[str] = "prune_weight"
    operands: ClassVar[tuple[Operand, ...]] = (Operand("weight", "weight"),)
    dimensions: ClassVar[tuple[str, ...]] = ("taps", "rows", "cols", "kept", "group")

    def check_fields(self) -> None:
        depth = self.cols if self.along_cols else self.rows
        if self.kept > self.group:
            raise self.error(f"sparsity {self.kept}:{self.group}; accepted: N:M with N <= M")
        if depth % self.group:
            raise self.error(f"{depth} weights along the groups; accepted: multiples of the group")
        if self.along_cols and self.turned:
            raise self.error("groups along the columns of a turned weight; accepted: one of both")

    @property
    def copy_coding(self) -> Coding:
        """How the copy is stored."""
        sparsity = Sparsity(self.kept, self.group)
        return Coding(f"nm:{sparsity}", sparsity, -1 if self.along_cols else -2)

    def input_shapes(self) -> tuple[Shape, ...]:
        one = (self.cols, self.rows) if self.turned else (self.rows, self.cols)
        return ((self.taps * one[0], one[1]),)

    def output_shapes(self) -> tuple[Shape, ...]:
        return ((self.taps * self.rows, self.cols),)

    def accepted_dtypes(self, main: str) -> tuple[DtypeRule, DtypeRule]:
        return (tuple(DTYPES),), ((main,),)
