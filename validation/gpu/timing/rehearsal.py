"""The whole run on a processor: every torch call at small sizes, no graphs, no evidence."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from typing import Any

from accelsim.errors import AccelsimError

from .grid import Case, Row
from .method import Timing, UnavailableError, first_line
from .operators import kernel
from .spread import spread

LAUNCHES = 3
LIMITS = {"bytes": 4096, "batch": 2, "d": 64, "causal": 1}
LIMIT = 64
SHARE = 8


class Rehearsal:
    """torch on the host in place of a GPU; what it gives is marked, and refused as evidence."""

    capability = (9, 0)

    def __init__(self) -> None:
        try:
            import torch
        except ImportError as fault:
            raise AccelsimError(f"{fault}; accepted: python with torch, or --dry-run") from None
        self._torch = torch

    def provenance(self) -> dict[str, Any]:
        return {"kind": "rehearsal", "name": "processor", "torch": self._torch.__version__}

    def anchor(self) -> tuple[float, float]:
        return 1.0, 1.0

    def kernels(self, case: Case) -> str:
        return ""

    def time(self, row: Row) -> Timing:
        try:
            run = kernel(self._torch, small(row.case), "cpu")
            given = run.operands()
            readings = []
            for _ in range(LAUNCHES):
                began = time.perf_counter()
                run.launch(given)
                readings.append(1e6 * (time.perf_counter() - began))
        except (RuntimeError, AttributeError, NotImplementedError, TypeError) as fault:
            raise UnavailableError(first_line(fault)) from fault
        return Timing(spread(readings), statistics.median(readings), LAUNCHES, 1)


def small(case: Case) -> Case:
    """A case of the same kind that a processor finishes at once."""
    sizes = tuple(
        (key, max(1, value // SHARE))
        if key in ("heads", "kv_heads")
        else (key, min(value, LIMITS.get(key, LIMIT)))
        for key, value in case.sizes
    )
    return replace(case, sizes=sizes)
