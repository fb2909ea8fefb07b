"""Pipelined weight-stationary machines against ONNXim, which is within 0.23 % of Gemmini RTL."""

from __future__ import annotations

from collections.abc import Iterator

from accelsim.api import simulate
from accelsim.results.claims import Claim, Row, truth, within

CLAIM = Claim(
    name="onnxim",
    statement="cycles of GEMMs on the 8x8 and 4 x 128x128 machines: 1 % and 10 % per row",
    source="runs of ONNXim a1e8629 (MIT), simple memory and network; Ham et al., IEEE CAL 2024",
    tolerance=0.10,
)
SMALL_ARRAY_TOLERANCE = 0.01


def rows() -> Iterator[Row]:
    """The recorded runs; the 8x8 machine also as the plain ``systolic`` architecture."""
    for r in truth(__name__, "cycles.csv"):
        shape = f"gemm:m={r['m']},n={r['n']},k={r['k']}"
        cycles, machine = int(r["cycles"]), r["machine"]
        case = f"{machine} m={r['m']} k={r['k']} n={r['n']}"
        if machine == "onnxim-server":
            yield within(case, cycles, simulate(machine, shape).cycles, CLAIM.tolerance)
            continue
        # One byte per element throughout, as that configuration has it.
        run = simulate(machine, f"{shape},dtype=int8,out=int8")
        yield within(case, cycles, run.cycles, SMALL_ARRAY_TOLERANCE)
        run = simulate("systolic", shape, overrides={"array.rows": 8, "array.cols": 8})
        plain = case.replace(machine, "systolic 8x8")
        yield within(plain, cycles, run.cycles, SMALL_ARRAY_TOLERANCE)
