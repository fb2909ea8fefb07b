"""Fits the calibrated constants of h200 on the rows marked ``fit``, and on nothing else.

    python -m accelsim.validation.h200.calibrate

Least squares of the logarithms of simulated over measured times, within bounds that the constants
cannot leave for reasons of their own: a share of a peak, a latency of some hundred cycles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.errors import AccelsimError

from . import measured as records
from .measured import Measured
from .workloads import simulated_us

Floats = npt.NDArray[np.float64]
Simulated = Callable[[Measured, Mapping[str, object]], float]

STEP = 0.05
"""Step of the numerical derivatives, relative: less would drown in whole cycles."""
ENOUGH = 1e-3
MOST_STEPS = 12


@dataclass(frozen=True)
class Constant:
    """A constant of the architecture: where it begins, and between which values it must lie."""

    path: str
    start: float
    least: float
    most: float
    whole: bool = False

    def value(self, x: float) -> float | int:
        return round(x) if self.whole else round(float(x), 4)


CONSTANTS = (
    Constant("hbm.efficiency", 0.80, 0.5, 1.0),
    Constant("tensor.efficiency", 0.806, 0.4, 1.0),
    Constant("tensor.prologue", 1500, 200, 6000, whole=True),
    Constant("simt.launch", 2200, 200, 8000, whole=True),
)
JUDGED = ("gemm", "gemv", "attention", "2:4", "softmax and norms")
"""Blocks whose error is judged, and which therefore also decide the constants."""


def fitted_rows(rows: Sequence[Measured]) -> list[Measured]:
    """The rows to fit: those of the split, in blocks that are judged."""
    return [m for m in rows if m.row.case.split == "fit" and m.row.case.block in JUDGED]


def simulate_row(one: Measured, constants: Mapping[str, object]) -> float:
    """Simulated microseconds of a measured row."""
    return simulated_us(one.row, constants)


def fit(
    rows: Sequence[Measured],
    simulated: Simulated = simulate_row,
    constants: Sequence[Constant] = CONSTANTS,
    say: Callable[[str], None] = print,
    jobs: int = 1,
) -> dict[str, float | int]:
    """The constants with which the rows are simulated best, ``jobs`` rows at a time (-1: as many
    as there are cores)."""
    from joblib import Parallel, delayed
    from scipy.optimize import least_squares

    starts = np.array([one.start for one in constants])

    def settings(x: Floats) -> dict[str, float | int]:
        values = zip(constants, x * starts, strict=True)
        return {one.path: one.value(v) for one, v in values}

    def residuals(x: Floats) -> Floats:
        chosen: dict[str, Any] = settings(x)
        times = Parallel(n_jobs=jobs)(delayed(simulated)(one, chosen) for one in rows)
        found: Floats = np.log(np.array(times) / np.array([one.microseconds for one in rows]))
        say(f"{chosen}  mean error {np.abs(np.expm1(found)).mean():.4f}")
        return found

    limits = [(one.least / one.start, one.most / one.start) for one in constants]
    best = least_squares(
        residuals, np.ones(len(constants)), bounds=tuple(np.array(limits).T), diff_step=STEP,
        xtol=ENOUGH, ftol=ENOUGH**2, max_nfev=MOST_STEPS,
    )  # fmt: skip
    return settings(best.x)


def main() -> None:
    """Print every step and the best constants."""
    if not records.is_there():
        raise AccelsimError(f"{records.RECORDED} holds no latencies yet")
    rows = fitted_rows(records.measured())
    best = fit(rows, jobs=-1)
    print(f"{len(rows)} rows: " + ", ".join(f"{path} {value}" for path, value in best.items()))


if __name__ == "__main__":
    main()
