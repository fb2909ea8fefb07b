"""Layer-wise sparsity in a mapping: only the kept columns of the first operand come on chip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from accelsim.numerics.formats import Format
from accelsim.program.builder import Builder
from accelsim.program.storage import View
from accelsim.workload.layer_sparsity import KeptSteps, kept_steps
from accelsim.workload.operators import Operator

if TYPE_CHECKING:
    from accelsim.mapping.operands import Operand


@dataclass(frozen=True)
class Kept:
    """The columns of another operand that layer-wise sparsity keeps, side by side."""

    whole: Operand
    steps: KeptSteps

    @property
    def rows(self) -> int:
        return self.whole.rows

    @property
    def cols(self) -> int:
        return self.steps.length

    @property
    def fmt(self) -> Format:
        return self.whole.fmt

    def fetch(
        self, build: Builder, queue: int, dst: View, rows: slice, cols: slice, *, part: bool = False
    ) -> None:
        for kept, place in self.steps.runs(cols):
            window = dst[:, kept.start - cols.start : kept.stop - cols.start]
            self.whole.fetch(build, queue, window, rows, place, part=part or window is not dst)

    def fetches(self, rows: int, cols: int) -> int:
        runs = -(-cols // self.steps.kept)
        return runs * self.whole.fetches(rows, min(cols, self.steps.kept))


def kept_columns(op: Operator, a: Operand) -> Operand:
    """The first operand of a product: all of its columns, or those of a layer-wise sparsity."""
    steps = kept_steps(op)
    return a if steps is None else Kept(a, steps)
