"""Pareto fronts: the designs that nothing else beats in every respect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.errors import AccelsimError
from accelsim.quantities import closest


def split_sign(objective: str) -> tuple[str, float]:
    """Metric and factor of an objective: "seconds" is minimised, "-macs" maximised."""
    return (objective[1:], -1.0) if objective.startswith("-") else (objective, 1.0)


def check_objective(objective: str, accepted: Iterable[str]) -> None:
    """Raise AccelsimError unless the objective names a metric."""
    names = list(accepted)
    metric = split_sign(objective)[0]
    if metric not in names:
        nearest = closest(metric, names)
        hint = f"did you mean {nearest!r}? " if nearest else ""
        raise AccelsimError(
            f"unknown metric {metric!r}; {hint}accepted: {', '.join(names)}, each with - in front "
            "to be maximised"
        )


def costs(rows: Sequence[Mapping[str, Any]], objectives: Sequence[str]) -> npt.NDArray[np.float64]:
    """What is to be minimised, [rows, objectives]; nan where a row has no value."""
    table = np.full((len(rows), len(objectives)), np.nan)
    for j, objective in enumerate(objectives):
        metric, sign = split_sign(objective)
        for i, row in enumerate(rows):
            value = row.get(metric)
            if value is not None:
                table[i, j] = sign * float(value)
    return table


def front(table: npt.NDArray[np.float64]) -> list[int]:
    """Rows that no other row dominates, in order of the first column.

    A row dominates another if it is no worse in every column and better in one, so equal rows
    stand together. Rows with a nan are never on the front.
    """
    rows = np.flatnonzero(~np.isnan(table).any(axis=1))
    # A row can only be dominated by one that sorts before it.
    order = rows[np.lexsort(table[rows].T[::-1])]
    kept: list[int] = []
    for i in order.tolist():
        if kept:
            others = table[kept]
            no_worse = (others <= table[i]).all(axis=1)
            if (no_worse & (others < table[i]).any(axis=1)).any():
                continue
        kept.append(i)
    return kept
