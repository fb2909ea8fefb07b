"""Drained arrays with ideal memory take SCALE-Sim's compute cycles exactly."""

from __future__ import annotations

from collections.abc import Iterator

from accelsim.api import simulate
from accelsim.results.claims import Claim, Row, truth, within

CLAIM = Claim(
    name="scalesim",
    statement="compute cycles of GEMMs, dense and with layer-wise N:M sparsity, on a drained array",
    source="runs of SCALE-Sim 2.0.2 and 3.0.0 (MIT); Samajdar et al., ISPASS 2020",
    tolerance=0.0,
)


def rows() -> Iterator[Row]:
    """One row per recorded run: dense ones in CALC and USER modes, then sparse ones."""
    for r in truth(__name__, "cycles.csv"):
        yield _row(r, f" {r['mode']} v{r['version']}")
    for r in truth(__name__, "sparse_cycles.csv"):
        yield _row(r, f" {r['sparsity']}", f",sparsity={r['sparsity']}:layer")


def _row(r: dict[str, str], note: str, setting: str = "") -> Row:
    """A recorded run beside ours."""
    run = simulate(
        "systolic",
        f"gemm:m={r['m']},n={r['n']},k={r['k']}{setting}",
        memory="ideal",
        overrides={
            "array.rows": int(r["rows"]),
            "array.cols": int(r["cols"]),
            "array.dataflow": r["dataflow"],
            "array.pipelined": False,
        },
    )
    case = f"{r['dataflow']} {r['rows']}x{r['cols']} m={r['m']} n={r['n']} k={r['k']}"
    return within(case + note, int(r["compute_cycles"]), run.cycles, CLAIM.tolerance)
