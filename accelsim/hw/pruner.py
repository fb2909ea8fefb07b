"""Pruning unit: makes compact N:M weights of dense ones while training.

It sorts every group of M weights along the reduction by magnitude and puts out the N largest with
their places. A group passes in as many cycles as its weights take at ``elements_per_cycle``; the
first result is there after the ``latency`` of the sorting network. That is how SAT makes the copies
that its forward and backward passes read, once per step, when the optimizer has made a weight
(pre-generation; Fang, Sun, Zhou, Wang, arXiv 2309.13015, 2023).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from accelsim.encoding.encodings import encoding
from accelsim.encoding.nm import NofM
from accelsim.hw.block import Cost, Unit, Work, block, require
from accelsim.program.opcodes import Opcode
from accelsim.quantities import Cycles, Picojoules


@block("pruner")
@dataclass(frozen=True, kw_only=True)
class Pruner(Unit):
    """Sorting network over ``elements_per_cycle`` weights in groups of at most ``largest_group``.

    ``memory`` names the scratchpad from which it takes dense tiles and where it leaves coded ones.
    """

    opcodes: ClassVar[frozenset[Opcode]] = frozenset({Opcode.ENCODE})

    memory: str
    elements_per_cycle: int
    largest_group: int = 16
    latency: Cycles = 8
    element_pj: Picojoules = 0.0

    def check(self) -> None:
        super().check()
        for name in ("elements_per_cycle", "largest_group"):
            rate = getattr(self, name)
            require(rate >= 1, f"{name} must be at least 1, not {rate}")
        require(self.latency >= 0, f"latency must not be negative, not {self.latency}")

    def memories(self) -> tuple[str, ...]:
        return (self.memory,)

    def energy_pj_per_action(self) -> dict[str, float]:
        return {"pruned": self.element_pj}

    def encodes(self, name: str) -> bool:
        code = encoding(name)
        return isinstance(code, NofM) and code.m <= self.largest_group

    def cost(self, work: Work) -> Cost:
        elements = work.m * work.n
        cycles = -(-elements // self.elements_per_cycle)
        return Cost(cycles, cycles + self.latency, {"pruned": elements})
