"""Products of coded weights are as much faster as their bytes are fewer, where memory limits them.

The published ones ran on GPUs and CPUs; what is compared is the ceiling that their formats set and
that they reach for few rows, on a machine whose decoder keeps up.
"""

from __future__ import annotations

from collections.abc import Iterator

from accelsim.api import simulate
from accelsim.results.claims import Claim, Row, truth, within

CLAIM = Claim(
    name="coded-weights",
    statement="speed-up of memory-bound products whose weights are pruned or quantised in memory",
    source="MARLIN, arXiv 2408.11743 (measured); Endor, arXiv 2406.11674; the formats of Flash-LLM"
    " and of 2:4",
    tolerance=0.03,
)
LAYER = "gemm:m=1,n=8192,k=8192"


def rows() -> Iterator[Row]:
    """One row per encoding."""
    dense = {
        dtype: simulate("coded-npu", f"{LAYER},dtype={dtype}").cycles for dtype in ("fp16", "int8")
    }
    for r in truth(__name__, "speedups.csv"):
        cycles = simulate("coded-npu", f"{LAYER},dtype={r['dtype']},{r['words']}").cycles
        yield within(r["case"], float(r["speedup"]), dense[r["dtype"]] / cycles, CLAIM.tolerance)
