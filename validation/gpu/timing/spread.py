"""What is said of repeated readings: a median, the tenths at both ends, and drift of an anchor."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Median, and the values below which a tenth and nine tenths of the readings lie."""

    median: float
    p10: float
    p90: float


def spread(readings: Sequence[float]) -> Spread:
    """The spread of some readings, linear between neighbours; raises ValueError without any."""
    if not readings:
        raise ValueError("no readings")
    ranked = sorted(readings)
    return Spread(statistics.median(ranked), _quantile(ranked, 0.1), _quantile(ranked, 0.9))


def drift(before: Sequence[float], after: Sequence[float]) -> float:
    """By how much the anchors of a stretch moved, as a share: the worst of them."""
    return max(abs(b / a - 1) for a, b in zip(before, after, strict=True))


def _quantile(ranked: Sequence[float], share: float) -> float:
    place = share * (len(ranked) - 1)
    below = int(place)
    above = min(below + 1, len(ranked) - 1)
    return ranked[below] + (place - below) * (ranked[above] - ranked[below])
