"""Llama-2 operators on an H100 against silicon, with the constants as they are.

The class is that of the A100, and the one calibrated constant was fitted on an A100.

Declared constants are not fitted to them. A few round estimates of the class (instruction slots of
the row kernels, the launch, the H100's tiles) were settled with rows in sight, so
rows that were never looked at are the stricter check.
"""

from __future__ import annotations

from collections.abc import Iterator

from accelsim.results.claims import Claim, Row, truth

from ..a100_linear.llama import simulated

CLAIM = Claim(
    name="h100-linear",
    statement="microseconds of Llama-2 kernels on an H100 SXM, fp16, nothing fitted to them",
    source="Vidur (MIT), MLSys 2024, profiling data of its H100",
    tolerance=0.15,
    mean_of="test",
)


def rows() -> Iterator[Row]:
    """Every measured operator, simulated."""
    yield from simulated("h100", truth(__name__, "measured.csv"))
