"""Fits the calibrated constants of a100 on the rows marked ``fit``, and on nothing else.

    python -m accelsim.validation.a100.calibrate

Least squares of the relative errors: a grid over the efficiency of main memory, and for each of
its values the best overhead of every kind of call, which is linear.
"""

from __future__ import annotations

from collections.abc import Mapping

from accelsim.results.claims import truth

from . import kernel_us, overheads_us
from .workloads import Measured, measured

EFFICIENCIES = [round(0.76 + 0.02 * i, 2) for i in range(11)]


def fitted_rows() -> list[tuple[Measured, float]]:
    """Calls and measured microseconds of the rows to fit."""
    rows = truth(__package__ or "", "measured.csv")
    return [
        (measured(r["op"], r["shape"]), float(r["latency_us"])) for r in rows if r["split"] == "fit"
    ]


def best_overheads(kernels: list[tuple[Measured, float, float]]) -> dict[str, float]:
    """Per kind of call the overhead x that minimises sum ((n (kernel + x) - t) / t)^2."""
    found = {}
    for call in overheads_us():
        mine = [row for row in kernels if row[0].call == call]
        weight = sum((m.calls / t) ** 2 for m, t, _ in mine)
        missing = sum(m.calls / t * (1 - m.calls * kernel / t) for m, t, kernel in mine)
        found[call] = max(0.0, round(missing / weight, 1)) if mine else 0.0
    return found


def squared_error(
    kernels: list[tuple[Measured, float, float]], overhead_us: Mapping[str, float]
) -> float:
    """Sum of squared relative errors."""
    return sum((m.calls * (kernel + overhead_us[m.call]) / t - 1) ** 2 for m, t, kernel in kernels)


def main() -> None:
    """Print every point of the grid and the best."""
    points = []
    for efficiency in EFFICIENCIES:
        constants = {"hbm.efficiency": efficiency}
        kernels = [(m, t, kernel_us(m.text, constants)) for m, t in fitted_rows()]
        overheads = best_overheads(kernels)
        points.append((squared_error(kernels, overheads), efficiency, overheads))
        print(f"{efficiency:.2f}  {points[-1][0]:.5f}  {overheads}", flush=True)
    least, efficiency, overheads = min(points, key=lambda point: point[0])
    print(f"hbm.efficiency {efficiency}, overheads {overheads} (squared error {least:.5f})")


if __name__ == "__main__":
    main()
