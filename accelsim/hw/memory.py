"""Off-chip memory: what tensors lie in. Here the plain kind, a latency and a shared bandwidth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from accelsim.errors import AccelsimError
from accelsim.hw.block import Ints, Memory, block, require, whole_cycles
from accelsim.quantities import Bytes, BytesPerSecond, PicojoulesPerByte, Seconds

LONGEST_LATENCY = 1.0
"""Seconds; far beyond any memory, and few enough clocks to simulate."""


def check_latency(seconds: float) -> None:
    """Refuse a latency that no memory has."""
    require(seconds >= 0, f"latency must not be negative, not {seconds}")
    longest = f"latency must be at most {LONGEST_LATENCY:g} s, not {seconds:g} s"
    require(seconds <= LONGEST_LATENCY, longest)


@dataclass(frozen=True, kw_only=True)
class OffChipMemory(Memory):
    """Main memory of all cores: a transfer holds its port for the bytes over ``peak_bandwidth``,
    and its first byte arrives ``access_seconds`` after it starts.

    ``access_bytes`` is the smallest access: shorter rows cost a whole one.
    """

    shared: ClassVar[bool] = True

    @property
    def peak_bandwidth(self) -> int:
        """Bytes/s that no stream can exceed."""
        raise AccelsimError(f"a {self.kind} memory has no bandwidth")

    @property
    def access_bytes(self) -> int:
        return 1

    @property
    def access_seconds(self) -> float:
        """From a request to its first byte when nobody else uses the memory."""
        return 0.0

    def moved_bytes(self, rows: Ints, row_bytes: Ints, contiguous: npt.NDArray[np.bool_]) -> Ints:
        lines = np.where(contiguous, 1, rows)
        line_bytes = np.where(contiguous, rows * row_bytes, row_bytes)
        moved: Ints = lines * -(-line_bytes // self.access_bytes) * self.access_bytes
        return moved

    def transfer_cycles(self, nbytes: Ints, hz: int) -> Ints:
        return whole_cycles(nbytes, hz, self.peak_bandwidth)

    def latency_cycles(self, hz: int) -> int:
        return math.ceil(self.access_seconds * hz - 1e-9)

    def peak_bytes_per_second(self, hz: int) -> int:
        return self.peak_bandwidth


@block("memory")
@dataclass(frozen=True, kw_only=True)
class MainMemory(OffChipMemory):
    """Main memory with a peak ``bandwidth`` (bytes/s) behind one port and an access ``latency``.

    ``granule`` is the bytes of one access: shorter rows cost a whole one. ``efficiency`` is the
    share of the bandwidth that streams sustain: what this fidelity knows of banks, rows,
    refresh and turnarounds.
    """

    capacity: Bytes
    bandwidth: BytesPerSecond
    efficiency: float = 1.0
    latency: Seconds = 0.0
    granule: Bytes = 1
    read_pj_per_byte: PicojoulesPerByte = 0.0
    write_pj_per_byte: PicojoulesPerByte = 0.0

    def check(self) -> None:
        super().check()
        require(self.bandwidth > 0, f"bandwidth must be positive, not {self.bandwidth}")
        require(
            0 < self.efficiency <= 1,
            f"efficiency must be above 0, at most 1, not {self.efficiency}",
        )
        check_latency(self.latency)
        require(self.granule >= 1, f"granule must be at least 1 byte, not {self.granule}")

    @property
    def peak_bandwidth(self) -> int:
        if self.efficiency == 1.0:
            return self.bandwidth
        # Whole MB/s, so that bytes x clock stays far inside 64 bits (whole_cycles).
        return max(1, round(self.bandwidth * self.efficiency / 10**6)) * 10**6

    def peak_bytes_per_second(self, hz: int) -> int:
        return self.bandwidth

    @property
    def access_bytes(self) -> int:
        return self.granule

    @property
    def access_seconds(self) -> float:
        return self.latency

    def energy_pj_per_action(self) -> dict[str, float]:
        return {"read_byte": self.read_pj_per_byte, "write_byte": self.write_pj_per_byte}
