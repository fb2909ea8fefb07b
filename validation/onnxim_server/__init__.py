"""Four cores of a 128x128 array against ONNXim, which is within 0.23 % of Gemmini RTL."""

from __future__ import annotations

from collections.abc import Iterator

from accelsim.api import simulate
from accelsim.results.claims import Claim, Row, truth, within

CLAIM = Claim(
    name="onnxim-server",
    statement="cycles of GEMMs on four cores of a pipelined 128x128 weight-stationary array",
    source="runs of ONNXim a1e8629 (MIT), simple memory and network; Ham et al., IEEE CAL 2024",
    tolerance=0.10,
)


def rows() -> Iterator[Row]:
    """Every recorded run that finished."""
    for r in truth(__name__, "cycles.csv"):
        shape = f"m={r['m']},n={r['n']},k={r['k']}"
        run = simulate("onnxim-server", f"gemm:{shape}")
        yield within(shape, int(r["cycles"]), run.cycles, CLAIM.tolerance)
