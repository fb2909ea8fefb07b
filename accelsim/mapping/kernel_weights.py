"""The second operand of a GPU's matrix kernels: stored as it is multiplied, or coded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import lcm

from accelsim.hw.expansion import Weights
from accelsim.hw.tensor_core import TensorCore
from accelsim.mapping.coded import CodedMatrix, Window
from accelsim.mapping.lowering import Lowering
from accelsim.mapping.products import Product

WHOLE = slice(None)
WAYS = {
    "multiplied": "{name} weights as the sparse operand of a transposed product",
    "registers": "{name} weights expanded in registers",
    "scattered": "{name} weights scattered into shared memory",
}


@dataclass(frozen=True)
class KernelWeights:
    """How the weights of a kernel's products are read, None as they are.

    K is cut at multiples of ``granule``. Where another operator has cut the same weights, its
    tiles are ``columns`` wide and ``step`` deep; 0: free.
    """

    granule: int
    reading: Weights | None = None
    name: str = ""
    columns: int = 0
    step: int = 0

    @classmethod
    def of(cls, low: Lowering, tensor: TensorCore, products: Sequence[Product]) -> KernelWeights:
        """Of products of one shape; raises AccelsimError if no kernel reads such weights."""
        fmt = products[0].b.fmt
        granule = tensor.k_granule(fmt)
        matrices = [low.coded.of(product.b) for product in products]
        first = matrices[0]
        if first is None:
            return cls(granule)
        reading = Weights(
            tensor.expansion(first.encoding.name, fmt.bits), first.mean_bits, first.share
        )
        cuts = {_cut(m, p) for m, p in zip(matrices, products, strict=True) if m} - {(0, 0)}
        columns, step = next(iter(cuts), (0, 0))
        granule = step or lcm(granule, first.encoding.k_granule)
        return cls(granule, reading, first.encoding.name, columns, step)

    @property
    def speedup(self) -> int:
        """How many times faster than dense ones they are multiplied."""
        return self.reading.expansion.speedup if self.reading else 1

    def cut(self, low: Lowering, products: Sequence[Product], columns: int, step: int) -> None:
        """Remember the tiles in which coded weights are read."""
        for product in products:
            if matrix := low.coded.of(product.b):
                matrix.cuts[_window(matrix, product)] = columns, step

    def __str__(self) -> str:
        way = WAYS[self.reading.expansion.way] if self.reading else ""
        return f", {way.format(name=self.name)}" if way else ""


def _window(matrix: CodedMatrix, product: Product) -> Window:
    return matrix.window(product.b_window(WHOLE, WHOLE))


def _cut(matrix: CodedMatrix, product: Product) -> tuple[int, int]:
    return matrix.cuts.get(_window(matrix, product), (0, 0))
