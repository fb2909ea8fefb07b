"""An 8x8 pipelined weight-stationary array against ONNXim (within 0.23 % of Gemmini RTL)."""

from __future__ import annotations

from collections.abc import Iterator

from accelsim.api import simulate
from accelsim.results.claims import Claim, Row, truth, within

CLAIM = Claim(
    name="onnxim-mobile",
    statement="cycles of GEMMs on a pipelined 8x8 weight-stationary array",
    source="runs of ONNXim a1e8629 (MIT), simple memory and network; Ham et al., IEEE CAL 2024",
    tolerance=0.01,
)


def rows() -> Iterator[Row]:
    """The recorded runs, on ONNXim's machine and on the plain ``systolic`` architecture."""
    for r in truth(__name__, "cycles.csv"):
        shape, cycles = f"m={r['m']},n={r['n']},k={r['k']}", int(r["cycles"])
        # One byte per element throughout, as that configuration has it.
        run = simulate("onnxim-mobile", f"gemm:{shape},dtype=int8,out=int8")
        yield within(f"onnxim-mobile {shape}", cycles, run.cycles, CLAIM.tolerance)
        run = simulate("systolic", f"gemm:{shape}", overrides={"array.rows": 8, "array.cols": 8})
        yield within(f"systolic 8x8 {shape}", cycles, run.cycles, CLAIM.tolerance)
