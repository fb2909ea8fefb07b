"""Which scores of a block are hidden: the corners that masks have to cover, and no more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from accelsim.program.opcodes import Function
from accelsim.workload.operators import Attention, ScoreSoftmax


class Mask(NamedTuple):
    """A masking function, the columns of the block that it works on, and its immediate."""

    function: Function
    cols: slice
    imm: int


def masks(
    op: Attention | ScoreSoftmax, position: int, rows: int, first: int, cols: int
) -> Iterator[Mask]:
    """What hides scores [rows, cols] of neighbouring queries, the first of them at ``position``,
    and of the keys from ``first`` on."""
    if not op.masked:
        return
    seen_by_all = max(0, position + 1 - first)
    if seen_by_all < cols:
        reach = position - first - seen_by_all
        yield Mask(Function.CAUSAL_MASK, slice(seen_by_all, cols), reach)
    if not op.window:
        return
    hidden = position + rows - op.window - first  # from the last row
    if hidden > 0:
        start = position + 1 - op.window - first
        yield Mask(Function.WINDOW_MASK, slice(0, min(hidden, cols)), start)


def sees_nothing(op: Attention, position: int, rows: int, stop: int) -> bool:
    """Whether one of these queries sees only keys from ``stop`` on."""
    return op.masked and op.window > 0 and position + rows - op.window >= stop
