"""Sequencer: the scalar unit of a core that starts compiled kernels one after the other.

An operator is one kernel or several; a kernel starts when everything before it on its core has
finished, ``launch`` cycles later. So the pipelines of a core fill and drain once per kernel: what a
compiler does that does not prefetch across kernels. A core without a sequencer runs into the next
operator as soon as the data allow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from accelsim.hw.block import Cost, Unit, Work, block, require
from accelsim.program.opcodes import Opcode
from accelsim.quantities import Cycles


@block("sequencer")
@dataclass(frozen=True, kw_only=True)
class Sequencer(Unit):
    """Starts kernels; ``launch`` is the cycles from the end of one to the start of the next."""

    opcodes: ClassVar[frozenset[Opcode]] = frozenset({Opcode.LAUNCH})

    launch: Cycles = 0

    def check(self) -> None:
        super().check()
        require(self.count == 1, f"count must be 1, not {self.count}: a core has one sequencer")
        require(self.launch >= 0, f"launch must not be negative, not {self.launch}")

    def cost(self, work: Work) -> Cost:
        cycles = np.full(len(work), self.launch, dtype=np.int64)
        return Cost(cycles, cycles)
