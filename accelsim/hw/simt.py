"""SIMT lanes: the ordinary threads of one streaming multiprocessor, which also load and store.

There is no DMA engine: every byte that is not fetched for the tensor cores is loaded, converted
and stored by threads, whose instructions compete for the same lanes. A thread's access moves a
*packet* of elements at once; it costs ``access_slots`` issue slots for addressing and the load or
store itself, and one more per element that must be converted to or from fp32. A kernel that
addresses element by element (Flag.SCALAR) pays the slots for each. The multiprocessor's port to
the caches and main memory moves ``fetch_width`` bytes per cycle at most.

LAUNCH is the start of a kernel: ``launch`` cycles from the last thread of one kernel to the first
of the next.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from accelsim.hw.block import Cost, Ints, Work, block, require
from accelsim.hw.vector import Vector
from accelsim.numerics.formats import FORMATS
from accelsim.program.opcodes import TRANSFERS, Flag, Opcode
from accelsim.quantities import Bytes, Cycles

ACCUMULATOR_BITS = 32


@block("simt")
@dataclass(frozen=True, kw_only=True)
class Simt(Vector):
    """Vector unit whose threads reach ``main``, the main memory, by their own loads and stores."""

    opcodes: ClassVar[frozenset[Opcode]] = frozenset({Opcode.VECTOR, Opcode.LAUNCH, *TRANSFERS})
    reads_main_memory: ClassVar[bool] = True

    main: str
    packet: Bytes = 16
    access_slots: int = 8
    fetch_width: Bytes = 64
    launch: Cycles = 0

    def check(self) -> None:
        super().check()
        for name in ("packet", "access_slots", "fetch_width"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be at least 1, not {value}")
        require(self.launch >= 0, f"launch must not be negative, not {self.launch}")

    def memories(self) -> tuple[str, ...]:
        return (*self.memory, self.main)

    def access_slots_per_element(self, bits: int, scalar: bool) -> float:
        """Issue slots that loading or storing one element of ``bits`` bits takes."""
        if scalar:
            return float(self.access_slots)
        return self.access_slots * bits / (8 * self.packet) + (bits < ACCUMULATOR_BITS)

    def cost(self, work: Work) -> Cost:
        """Vector functions as in a vector unit; accesses by packets or elements; launches."""
        moves = np.isin(work.opcode, TRANSFERS)
        computed = super().cost(replace(work, m=np.where(moves, 0, work.m)))
        access = self._access_cycles(work)
        launches = np.where(work.opcode == Opcode.LAUNCH, self.launch, 0)
        own = np.where(moves, access, launches)
        vector = work.opcode == Opcode.VECTOR
        return Cost(
            np.where(vector, computed.occupancy_cycles, own),
            np.where(vector, computed.latency_cycles, own),
            computed.actions,
        )

    def _access_cycles(self, work: Work) -> Ints:
        """Issue cycles of loads and stores, or the port's if those are more."""
        stores = work.opcode == Opcode.STORE
        code = np.where(stores | (work.source_format < 0), work.target_format, work.source_format)
        bits = np.array([f.bits for f in FORMATS.values()], dtype=np.int64)[code]
        scalar = (work.flags & Flag.SCALAR) != 0
        packets = self.access_slots * bits / (8 * self.packet) + (bits < ACCUMULATOR_BITS)
        slots = np.where(scalar, self.access_slots, packets)
        issue = np.ceil(work.m * work.n * slots / self.lanes)
        moved = np.where(stores, work.write_bytes, work.read_bytes) / self.fetch_width
        cycles: Ints = np.maximum(issue, np.ceil(moved)).astype(np.int64)
        return cycles
