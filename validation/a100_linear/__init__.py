"""Llama-2 operators on an A100 against silicon, with the constants as they are.

The kernels' own times, as a profiler saw them, at 1 to 4096 tokens and several degrees of tensor
parallelism.

Declared constants are not fitted to them. A few round estimates of the class (instruction slots of
the row kernels, the launch, the H100's tiles) were settled with rows in sight, so
rows that were never looked at are the stricter check.
"""

from __future__ import annotations

from collections.abc import Iterator

from accelsim.results.claims import Claim, Row, truth

from .llama import simulated

CLAIM = Claim(
    name="a100-linear",
    statement="microseconds of Llama-2 kernels on an A100 80 GB, fp16, nothing fitted to them",
    source="Vidur (MIT), MLSys 2024, profiling data of its A100",
    tolerance=0.15,
    mean_of="test",
)


def rows() -> Iterator[Row]:
    """Every measured operator, simulated."""
    yield from simulated("a100", truth(__name__, "measured.csv"))
