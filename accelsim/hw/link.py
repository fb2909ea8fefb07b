"""Link: a point-to-point connection between two blocks, used in both directions.

One link is one shared resource: all transfers between its ends, whichever way they go, take turns
on it. Where an end exists once per core, so does the link.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from accelsim.hw.block import Block, Ints, block, require, whole_cycles
from accelsim.quantities import BytesPerSecond, Seconds

ENDS = {"from": "source", "to": "target"}
"""How architecture files spell the ends of a link."""


@block("link")
@dataclass(frozen=True)
class Link(Block):
    """Connection of ``source`` and ``target``, named as in the architecture.

    A transfer holds it for its bytes / ``bandwidth`` (bytes/s); its first byte arrives
    ``latency`` seconds after it starts. Architecture files spell the ends ``from`` and ``to``.
    """

    source: str
    target: str
    bandwidth: BytesPerSecond
    latency: Seconds = 0.0

    def check(self) -> None:
        require(self.source != self.target, f"source and target are both {self.source!r}")
        require(self.bandwidth > 0, f"bandwidth must be positive, not {self.bandwidth}")
        require(self.latency >= 0, f"latency must not be negative, not {self.latency}")

    def transfer_cycles(self, nbytes: Ints, hz: int) -> Ints:
        """Cycles of the link's clock (``hz``) that ``nbytes`` keep it busy."""
        return whole_cycles(nbytes, hz, self.bandwidth)

    def latency_cycles(self, hz: int) -> int:
        """Cycles of the link's clock from one end to the other."""
        return math.ceil(self.latency * hz - 1e-9)
