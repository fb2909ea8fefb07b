"""Off-chip memory at bandwidth fidelity: a latency and a bandwidth that all requesters share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from accelsim.hw.block import Ints, Memory, block, require, whole_cycles
from accelsim.quantities import Bytes, BytesPerSecond, PicojoulesPerByte, Seconds


@block("memory")
@dataclass(frozen=True, kw_only=True)
class MainMemory(Memory):
    """Main memory with a peak ``bandwidth`` (bytes/s) behind one port and an access ``latency``.

    ``granule`` is the bytes of one access: shorter rows cost a whole one. A transfer holds the
    port for its bytes / bandwidth and its first byte arrives ``latency`` seconds after it starts.
    """

    shared: ClassVar[bool] = True

    capacity: Bytes
    bandwidth: BytesPerSecond
    latency: Seconds = 0.0
    granule: Bytes = 1
    read_pj_per_byte: PicojoulesPerByte = 0.0
    write_pj_per_byte: PicojoulesPerByte = 0.0

    def check(self) -> None:
        super().check()
        require(self.bandwidth > 0, f"bandwidth must be positive, not {self.bandwidth}")
        require(self.latency >= 0, f"latency must not be negative, not {self.latency}")
        require(self.granule >= 1, f"granule must be at least 1 byte, not {self.granule}")

    def moved_bytes(self, rows: Ints, row_bytes: Ints, contiguous: npt.NDArray[np.bool_]) -> Ints:
        lines = np.where(contiguous, 1, rows)
        line_bytes = np.where(contiguous, rows * row_bytes, row_bytes)
        moved: Ints = lines * -(-line_bytes // self.granule) * self.granule
        return moved

    def transfer_cycles(self, nbytes: Ints, hz: int) -> Ints:
        return whole_cycles(nbytes, hz, self.bandwidth)

    def latency_cycles(self, hz: int) -> int:
        return math.ceil(self.latency * hz - 1e-9)

    def energy_pj_per_action(self) -> dict[str, float]:
        return {"read_byte": self.read_pj_per_byte, "write_byte": self.write_pj_per_byte}
