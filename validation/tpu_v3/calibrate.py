"""Fits the calibrated constants of tpu-v3 on the rows marked ``fit``, and on nothing else.

    python -m accelsim.validation.tpu_v3.calibrate

Least squares of the relative errors, by coordinate descent on ever finer grids: the cycles of a
run are no smooth function of a constant, because the mapper may choose other tiles.
"""

from __future__ import annotations

from accelsim.results.claims import truth

from . import predicted

# Where the search starts, its first step, and the range that is physically possible.
SEARCH: dict[str, tuple[float, float, float, float]] = {
    "hbm.efficiency": (0.85, 0.04, 0.5, 1.0),
    "mxu.switch": (32, 16, 0, 128),
}
FINEST = {"hbm.efficiency": 0.005, "mxu.switch": 1}

Constants = dict[str, float]


def squared_errors(constants: Constants) -> float:
    """Sum of squared relative errors over the rows to fit."""
    total = 0.0
    for row in truth(__package__ or "", "cycles.csv"):
        if row["split"] == "fit":
            measured = int(row["tpuv3_measured_cycles_940MHz"])
            total += (predicted(row["workload"], dict(constants)) / measured - 1) ** 2
    return total


def calibrate() -> Constants:
    """The constants that fit best."""
    best = {name: start for name, (start, *_) in SEARCH.items()}
    steps = {name: step for name, (_, step, *_) in SEARCH.items()}
    least = squared_errors(best)
    while True:
        improved = False
        for name in SEARCH:
            for change in (steps[name], -steps[name]):
                other = best | {name: _inside(name, best[name] + change)}
                if other != best and (error := squared_errors(other)) < least:
                    best, least, improved = other, error, True
        if not improved:
            if all(steps[name] <= FINEST[name] for name in SEARCH):
                return best
            steps = {name: max(FINEST[name], step / 2) for name, step in steps.items()}


def _inside(name: str, value: float) -> float:
    """A value on the finest grid and in the possible range."""
    _, _, low, high = SEARCH[name]
    finest = FINEST[name]
    value = min(high, max(low, round(value / finest) * finest))
    return round(value, 6) if finest < 1 else int(value)


if __name__ == "__main__":
    for name, value in calibrate().items():
        print(f"{name} = {value:g}")
