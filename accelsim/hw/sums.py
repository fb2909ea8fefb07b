"""Matrix units whose products are summed as one of their parameters names it."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from accelsim.numerics.arithmetic import FP32_TYPES, ProductTypes, arithmetic
from accelsim.numerics.orders import CHAIN, Order
from accelsim.numerics.rules import Rule

Operand = npt.NDArray[Any]


class NamedSums:
    """A unit that sums as its parameter ``arithmetic`` says (numerics.arithmetic)."""

    arithmetic: str

    @property
    def sums(self) -> str:
        """The name of its arithmetic."""
        return self.arithmetic

    def rule(self, types: ProductTypes, order: Order = CHAIN) -> Rule:
        """How products of some formats are formed; raises AccelsimError naming those there are."""
        return arithmetic(self.sums).rule(types, order)

    def multiply(
        self,
        a: Operand,
        b: Operand,
        acc: Operand | None,
        types: ProductTypes | None = None,
        order: Order = CHAIN,
    ) -> Operand:
        """``a[m, k] @ b[k, n]`` onto ``acc[m, n]`` or nothing, carriers of ``types`` (fp32)."""
        return self.rule(types or FP32_TYPES, order).multiply(a, b, acc)
