"""DMA engine: queues of descriptors that move 2-D windows between memories.

A queue issues transfers in order. A transfer is as slow as the memories and the link at its ends
(engine/bind.py), or as the ``issue`` cycles that the queue needs per descriptor if those are more:
it reads the next descriptor while the bytes of the last one move. Several transfers of one queue
may be in flight: it takes the next one when every port has passed the previous one, and the
memory's latency passes in the background.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from accelsim.hw.block import Cost, Ints, Unit, Work, block, require, whole_cycles
from accelsim.program.opcodes import Opcode
from accelsim.quantities import BytesPerSecond, Cycles


@block("dma")
@dataclass(frozen=True, kw_only=True)
class Dma(Unit):
    """``count`` DMA queues per core. The last one carries the stores when there are several.

    ``issue`` is the cycles a queue needs per descriptor, ``bandwidth`` what one queue can move
    at most (0: only the memories limit it). ``weight_layout`` says how the weights that it fetches
    lie in main memory: packed offline into "panels" as wide as the tiles, so that a tile is one
    run of addresses, or in "rows" of the whole matrix; ``activation_panel`` how wide the panels
    are in which activations lie (0: row-major). See mapping/panels.py.
    """

    opcodes: ClassVar[frozenset[Opcode]] = frozenset(
        {
            Opcode.LOAD,
            Opcode.STORE,
            Opcode.GATHER,
            Opcode.FILL,
            Opcode.MULTICAST,
            Opcode.DELIVER,
        }
    )

    issue: Cycles = 0
    bandwidth: BytesPerSecond = 0
    weight_layout: Literal["panels", "rows"] = "panels"
    activation_panel: int = 0

    def check(self) -> None:
        super().check()
        require(self.issue >= 0, f"issue must not be negative, not {self.issue}")
        require(
            self.activation_panel >= 0 and self.activation_panel % 8 == 0,
            f"activation_panel must be a multiple of 8 columns or 0, not {self.activation_panel}",
        )

    def cost(self, work: Work) -> Cost:
        cycles = np.full(len(work), self.issue, dtype=np.int64)
        return Cost(cycles, cycles)

    def transfer_cycles(self, nbytes: Ints, hz: int) -> Ints:
        """Cycles that one queue needs for ``nbytes`` by its own bandwidth (0: not limited)."""
        if not self.bandwidth:
            return np.zeros_like(nbytes)
        return whole_cycles(nbytes, hz, self.bandwidth)
