"""A machine without a GPU that says so: everything around the kernels runs on it, in tests.

What is recorded from it is marked ``kind: fake``, and refused as evidence.
"""

from __future__ import annotations

from typing import Any

from .provenance import Sample


def machine(name: str = "fake", capability: str = "9.0") -> dict[str, Any]:
    """Provenance as provenance.machine gives it, of no machine."""
    return {
        "kind": "fake", "name": name, "id": "0" * 16, "capability": capability,
        "multiprocessors": 132, "l2_bytes": 50 << 20, "memory_bytes": 80 << 30, "driver": "none",
        "cuda": "none", "python": "none", "numpy": "none", "torch": "none", "triton": "none",
        "cudnn": 0, "cusparselt": 0,
    }  # fmt: skip


class SteadyNvml:
    """Readings of a GPU whose clocks never move, unless told to."""

    def __init__(self, sm_mhz: float = 1980.0, watts: float = 300.0) -> None:
        self.sm_mhz, self.watts = sm_mhz, watts
        self.second = 0.0

    def driver(self) -> str:
        return "none"

    def sample(self) -> Sample:
        """The next reading, a fifth of a second after the last."""
        self.second += 0.2
        return Sample(self.second, self.sm_mhz, 2619.0, self.watts, 40.0, 0)
