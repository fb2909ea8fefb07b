"""A new hardware block in one file: a systolic array whose operands are broadcast, not passed on.

Every cell of a row hears its operand in the same cycle, so there is no skew to fill or drain. The
arithmetic stays that of the systolic array.
"""

from dataclasses import dataclass

from accelsim.hw.block import block
from accelsim.hw.systolic import Systolic


@block("broadcast_array")
@dataclass(frozen=True, kw_only=True)
class BroadcastArray(Systolic):
    """Systolic array with broadcast wires; ``wire_cycles`` is their latency."""

    wire_cycles: int = 1

    @property
    def fill_drain_cycles(self) -> int:
        load = 0 if self.dataflow == "os" else self.rows
        return load + self.wire_cycles
