"""SIMT lanes and the load/store path of one streaming multiprocessor.

A multiprocessor has no DMA engine: its threads load, convert and store. They do it in two pipes
that issue side by side. The lanes compute (``Simt``). The load/store path (``LoadStore``) forms
addresses and moves *packets*, the elements of one thread's access: ``access_slots`` issue slots of
its ``lanes`` for each packet. A kernel that addresses element by element (Flag.SCALAR) pays them
for every element. The port to the caches moves ``fetch_width`` bytes per cycle at most.

LAUNCH is the start of a kernel: ``launch`` cycles from the last thread of one kernel to the first
of the next.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np

from accelsim.hw.block import Cost, Ints, Work, block, require
from accelsim.hw.dma import Dma
from accelsim.hw.vector import Vector
from accelsim.numerics.formats import FORMATS
from accelsim.program.opcodes import Flag, Opcode
from accelsim.quantities import Bytes, Cycles


@block("simt")
@dataclass(frozen=True, kw_only=True)
class Simt(Vector):
    """Vector unit of a multiprocessor, which also starts kernels.

    ``call_us`` says, by kind of call, how many microseconds a framework's call takes beside its
    kernel until the host sees the end. Simulated time is the kernels' own and holds none of it;
    who compares it with a host's clock adds it.
    """

    opcodes: ClassVar[frozenset[Opcode]] = frozenset({Opcode.VECTOR, Opcode.LAUNCH})

    launch: Cycles = 0
    call_us: dict[str, float] = field(default_factory=dict)

    def check(self) -> None:
        super().check()
        require(self.launch >= 0, f"launch must not be negative, not {self.launch}")
        for call, microseconds in self.call_us.items():
            require(microseconds >= 0, f"call_us.{call} must not be negative, not {microseconds}")

    def cost(self, work: Work) -> Cost:
        """Vector functions as in a vector unit; a launch takes its own time."""
        computed = super().cost(work)
        launches = work.opcode == Opcode.LAUNCH
        return replace(
            computed,
            occupancy_cycles=np.where(launches, self.launch, computed.occupancy_cycles),
            latency_cycles=np.where(launches, self.launch, computed.latency_cycles),
        )


@block("lsu")
@dataclass(frozen=True, kw_only=True)
class LoadStore(Dma):
    """Load/store path of a multiprocessor: ``lanes`` threads' accesses issue per cycle."""

    lanes: int
    packet: Bytes = 16
    access_slots: int = 1
    fetch_width: Bytes = 64
    weight_layout: Literal["rows"] = "rows"

    def check(self) -> None:
        super().check()
        for name in ("lanes", "packet", "access_slots", "fetch_width"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be at least 1, not {value}")

    def slots_per_element(self, bits: int, scalar: bool = False) -> float:
        """Issue slots that loading or storing an element of ``bits`` bits takes."""
        return self.access_slots * (1.0 if scalar else bits / (8 * self.packet))

    def cost(self, work: Work) -> Cost:
        """Issue cycles of the accesses, or the port's if those are more."""
        stores = work.opcode == Opcode.STORE
        code = np.where(stores | (work.source_format < 0), work.target_format, work.source_format)
        bits = np.array([f.bits for f in FORMATS.values()], dtype=np.int64)[code]
        scalar = (work.flags & Flag.SCALAR) != 0
        slots = self.access_slots * np.where(scalar, 1.0, bits / (8 * self.packet))
        issue = np.ceil(work.m * work.n * slots / self.lanes) + self.issue
        moved = np.where(stores, work.write_bytes, work.read_bytes) / self.fetch_width
        cycles: Ints = np.maximum(issue, np.ceil(moved)).astype(np.int64)
        return Cost(cycles, cycles)
