"""A vector unit of separate adders and multipliers, as the ASIC beside PIM-GPT's memory has.

Every function is so many additions and so many multiplications of each element (numerics.taylor);
adders and multipliers work side by side, so an instruction takes as long as the busier of the two:

    cycles = max(ceil(elements x additions / adders),
                 ceil(elements x multiplications / multipliers))

A comparison, a copy and an element of a row sum are an addition each. The numbers are those of a
vector unit (hw/vector) of as many lanes as there are multipliers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from accelsim.errors import AccelsimError
from accelsim.hw.block import Cost, Ints, Work, block, require
from accelsim.hw.vector import Vector
from accelsim.numerics.taylor import NO_GELU, taylor
from accelsim.program.opcodes import REDUCTIONS, Function

MULTIPLICATIONS = (Function.MUL, Function.MUL_IMM)


@block("adder_array")
@dataclass(frozen=True, kw_only=True)
class AdderArray(Vector):
    """``adders`` adders and ``lanes`` multipliers; ``functions`` must be made of them."""

    adders: int
    functions: str = "taylor-fp32"

    def check(self) -> None:
        super().check()
        require(self.adders >= 1, f"adders must be at least 1, not {self.adders}")
        require(not self.slots, "slots follow from additions and multiplications; accepted: none")
        if taylor(self.functions, self.terms) is None:
            raise AccelsimError(
                "functions correct; accepted: taylor-fp32, taylor-bf16, powers-fp32"
            )

    def operations(self) -> tuple[Ints, Ints]:
        """Additions and multiplications of an element, by function code."""
        adds = np.ones(max(Function) + 1, dtype=np.int64)
        multiplies = np.zeros_like(adds)
        for function in MULTIPLICATIONS:
            adds[function], multiplies[function] = 0, 1
        composed = taylor(self.functions, self.terms)
        for name, counts in (composed.operations if composed else {}).items():
            adds[Function[name.upper()]], multiplies[Function[name.upper()]] = counts
        return adds, multiplies

    def cost(self, work: Work) -> Cost:
        if (work.function == int(Function.GELU)).any():
            raise AccelsimError(NO_GELU)
        reduces = np.isin(work.function, [int(f) for f in REDUCTIONS])
        elements = work.m * np.where(reduces, work.k, work.n)
        adds, multiplies = (elements * table[work.function] for table in self.operations())
        busy = np.maximum(-(-adds // self.adders), -(-multiplies // self.lanes))
        tree = int(np.ceil(np.log2(self.adders))) if self.adders > 1 else 0
        latency = busy + self.latency + np.where(reduces, tree, 0)
        return Cost(busy, latency, {"vector_op": adds + multiplies})
