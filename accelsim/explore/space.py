"""Design spaces: a grid of points, each an architecture and what runs on it, as plain data.

Nothing is built or checked here beyond the names of the axes; a point becomes an architecture and
a workload when it is simulated, and one that contradicts itself is skipped there.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from accelsim.arch.catalog import arch as named_arch
from accelsim.arch.model import Architecture
from accelsim.errors import AccelsimError

WORKLOAD = "workload"
SETTING = f"{WORKLOAD}."
RUN_AXES = (WORKLOAD, "memory", "mapper")
"""Axes that name no parameter of the architecture; "workload.KEY" is one as well."""

Value = str | int | float | bool


@dataclass(frozen=True)
class DesignPoint:
    """One design: a base architecture and the value of every axis, in the order of the axes.

    Axes are parameter paths ("mxu.rows"), "workload", "workload.KEY", "memory" and "mapper".
    """

    arch: Architecture
    values: tuple[tuple[str, Value], ...]

    @property
    def parameters(self) -> dict[str, Value]:
        """Value per axis."""
        return dict(self.values)

    @property
    def overrides(self) -> dict[str, Value]:
        """What changes in the architecture."""
        return {axis: value for axis, value in self.values if is_parameter(axis)}

    @property
    def settings(self) -> dict[str, Value]:
        """What changes in the workload: {"batch": 16} for the axis "workload.batch"."""
        return {
            axis.removeprefix(SETTING): value
            for axis, value in self.values
            if axis.startswith(SETTING)
        }

    def key(self, *context: str) -> str:
        """Content hash of the point and of what it runs (digests, version): equal keys, equal
        results."""
        content = [self.arch.digest(), sorted(self.overrides.items()), *context]
        text = json.dumps(content, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:20]


def is_parameter(axis: str) -> bool:
    """Whether an axis names a parameter of the architecture."""
    return axis not in RUN_AXES and not axis.startswith(SETTING)


@dataclass(frozen=True)
class Grid(Sequence[DesignPoint]):
    """Every combination of the axes' values on every base architecture, the last axis fastest."""

    archs: tuple[Architecture, ...]
    axes: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._points)

    def __getitem__(self, index: Any) -> Any:
        return self._points[index]

    def __iter__(self) -> Iterator[DesignPoint]:
        return iter(self._points)

    def __str__(self) -> str:
        sizes = " x ".join(f"{axis} ({len(values)})" for axis, values in self.axes.items())
        archs = ", ".join(arch.name for arch in self.archs)
        return f"{len(self)} points of {archs}: {sizes}" if sizes else f"{len(self)} points"

    @cached_property
    def _points(self) -> tuple[DesignPoint, ...]:
        return tuple(
            DesignPoint(arch, tuple(zip(self.axes, values, strict=True)))
            for arch in self.archs
            for values in itertools.product(*self.axes.values())
        )


def grid(
    arch: str | Architecture | Sequence[str | Architecture],
    axes: Mapping[str, Sequence[Value]] | None = None,
) -> Grid:
    """All combinations of parameter values: ``grid("tpu-v3", {"mxu.rows": [64, 128, 256]})``.

    ``arch`` is one architecture or several. An axis is a parameter path, "workload" or
    "workload.KEY" (a setting such as batch), "memory" (the fidelity) or "mapper". Combinations
    that contradict each other are found when they are simulated, and skipped.

    Raises:
        AccelsimError: an axis without values, or one that names nothing.
    """
    given = [arch] if isinstance(arch, (str, Architecture)) else list(arch)
    archs = tuple(a if isinstance(a, Architecture) else named_arch(a) for a in given)
    if not archs:
        raise AccelsimError("a grid needs an architecture; accepted: a name, a path or several")
    checked = {axis: _values(axis, values) for axis, values in (axes or {}).items()}
    for axis, values in checked.items():
        for base in archs:
            _check_axis(base, axis, values)
    return Grid(archs, checked)


def _values(axis: str, values: object) -> tuple[Value, ...]:
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        values = [values]
    plain = tuple(v.item() if hasattr(v, "item") else v for v in values)
    if not plain:
        raise AccelsimError(f"axis {axis!r} has no values; accepted: at least one")
    for value in plain:
        if not isinstance(value, (str, int, float)):
            kind = type(value).__name__
            raise AccelsimError(f"axis {axis!r}: a {kind} is no value; accepted: numbers and words")
    if len(set(map(repr, plain))) < len(plain):
        raise AccelsimError(f"axis {axis!r} names a value twice; accepted: each value once")
    return plain


def _check_axis(base: Architecture, axis: str, values: tuple[Value, ...]) -> None:
    """Refuse a path that names nothing: no point of the grid could ever run."""
    if not is_parameter(axis):
        return
    try:
        base.override({axis: values[0]})
    except AccelsimError as fault:
        # Everything else may be cured by the value of another axis.
        if "unknown parameter" in str(fault):
            raise
