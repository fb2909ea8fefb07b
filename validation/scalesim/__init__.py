"""Drained arrays with ideal memory take SCALE-Sim's compute cycles exactly."""

from __future__ import annotations

from collections.abc import Iterator

from accelsim.api import simulate
from accelsim.results.claims import Claim, Row, truth, within

CLAIM = Claim(
    name="scalesim",
    statement="compute cycles of dense GEMMs on a drained array with ideal memory",
    source="runs of SCALE-Sim 2.0.2 and 3.0.0 (MIT); Samajdar et al., ISPASS 2020",
    tolerance=0.0,
)


def rows() -> Iterator[Row]:
    """One row per recorded run, CALC and USER modes."""
    for r in truth(__name__, "cycles.csv"):
        run = simulate(
            "systolic",
            f"gemm:m={r['m']},n={r['n']},k={r['k']}",
            memory="ideal",
            overrides={
                "array.rows": int(r["rows"]),
                "array.cols": int(r["cols"]),
                "array.dataflow": r["dataflow"],
                "array.pipelined": False,
            },
        )
        case = f"{r['dataflow']} {r['rows']}x{r['cols']} m={r['m']} n={r['n']} k={r['k']}"
        name = f"{case} {r['mode']} v{r['version']}"
        yield within(name, int(r["compute_cycles"]), run.cycles, CLAIM.tolerance)
