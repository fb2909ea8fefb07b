"""What the recorded layers say: gains of NeuPIMs and their geometric means."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from accelsim.results.claims import truth

from .systems import NEUPIMS, POINTS, Layer, Point, System

Table = Mapping[tuple[str, Point], Layer]


def read(rows: Iterable[Mapping[str, str]]) -> Table:
    """Recorded layers by system and point."""
    return {
        (r["system"], Point(r["model"], r["data"], int(r["batch"]), int(r["tp"]), int(r["seed"]))):
        Layer(*(float(r[name]) for name in Layer.__dataclass_fields__))
        for r in rows
    }  # fmt: skip


def recorded() -> Table:
    """The layers of points.csv."""
    return read(truth(__package__ or "", "points.csv"))


def gain(table: Table, over: System, point: Point, of: System = NEUPIMS) -> float:
    """How many times as fast a system is as another."""
    return table[over.name, point].seconds / table[of.name, point].seconds


def geometric_mean(values: Iterable[float]) -> float:
    """The n-th root of the product; nan if there are none."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def mean_gain(
    table: Table, over: System, of: System = NEUPIMS, points: Sequence[Point] = POINTS
) -> float:
    """Geometric mean of the gains over all points."""
    return geometric_mean(gain(table, over, point, of) for point in points)
