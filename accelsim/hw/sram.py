"""Scratchpad SRAM: software-managed on-chip memory of a core, banked, with one or two ports."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from accelsim.hw.banks import busiest_bank
from accelsim.hw.block import Ints, Memory, block, require
from accelsim.quantities import Bytes, Cycles, PicojoulesPerByte


@block("sram")
@dataclass(frozen=True, kw_only=True)
class Sram(Memory):
    """Scratchpad of ``banks`` banks, each ``width`` bytes wide, one access per bank and cycle.

    ``ports: 1`` shares the bandwidth between reads and writes, ``ports: 2`` gives each its own.
    Words of ``width`` bytes are interleaved over the banks, so a contiguous transfer uses them
    all; the rows of a strided one may fall on few (``hw/banks.py``). ``width: 0`` means that the
    memory never limits anything (its bandwidth is matched to the units). ``latency`` is what a
    transfer pays; the units' own pipelines contain theirs. With ``activations`` it is no
    scratchpad: activations that have room lie in it, not in main memory.
    """

    capacity: Bytes
    banks: int = 1
    width: Bytes = 0
    ports: int = 2
    latency: Cycles = 0
    activations: bool = False
    read_pj_per_byte: PicojoulesPerByte = 0.0
    write_pj_per_byte: PicojoulesPerByte = 0.0

    def check(self) -> None:
        super().check()
        require(self.banks >= 1, f"banks must be at least 1, not {self.banks}")
        require(self.width >= 0, f"width must not be negative, not {self.width}")
        require(self.ports in (1, 2), f"ports must be 1 or 2, not {self.ports}")
        require(self.latency >= 0, f"latency must not be negative, not {self.latency}")

    @property
    def bytes_per_cycle(self) -> int:
        """Bytes per cycle of one port; 0 if unlimited."""
        return self.banks * self.width

    @property
    def port_count(self) -> int:
        return self.ports if self.bytes_per_cycle else 0

    def transfer_cycles(self, nbytes: Ints, hz: int) -> Ints:
        if not self.bytes_per_cycle:
            return np.zeros_like(nbytes)
        return -(-nbytes // self.bytes_per_cycle)

    def conflict_cycles(self, base: Ints, rows: Ints, row_bytes: Ints, stride: Ints) -> Ints:
        """Words on the busiest bank beyond an even share; contiguous windows are streams."""
        cycles = np.zeros_like(rows)
        strided = (rows > 1) & (stride != row_bytes)
        if self.bytes_per_cycle and strided.any():
            window = (base[strided], rows[strided], row_bytes[strided], stride[strided])
            even = -(-window[1] * window[2] // self.bytes_per_cycle)
            cycles[strided] = busiest_bank(*window, self.banks, self.width) - even
        return cycles

    def latency_cycles(self, hz: int) -> int:
        return self.latency

    def peak_bytes_per_second(self, hz: int) -> int:
        return self.bytes_per_cycle * self.ports * hz

    def energy_pj_per_action(self) -> dict[str, float]:
        return {"read_byte": self.read_pj_per_byte, "write_byte": self.write_pj_per_byte}
