"""Sweep files: SPEC.yaml says which designs, which workloads and what counts as good.

arch: systolic                  # a name, a path (from the file's folder), or a list of them
workload: "gemm:m=512,n=512,k=512"            # one, or a list
memory: bandwidth               # fidelity; one, or a list
set:                            # parameter paths, and workload.KEY, with lists of values
  array.rows: [16, 32, 64]
  array.dataflow: [ws, os]
pareto: [seconds, energy_pj]    # what to minimise, or with "-" in front to maximise
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from accelsim.arch.faults import unknown
from accelsim.arch.parameters import shown
from accelsim.errors import AccelsimError
from accelsim.explore.evaluate import objective_names
from accelsim.explore.pareto import check_objective
from accelsim.explore.space import RUN_AXES, Grid, Value, grid
from accelsim.explore.sweep import sweep
from accelsim.yaml_lines import Item, read_yaml

if TYPE_CHECKING:
    from accelsim.explore.executors import Executor
    from accelsim.explore.outcome import Sweep

KEYS = {
    "arch": "an architecture or a list of them",
    "workload": "a workload or a list of them",
    "memory": "a fidelity or a list of them",
    "mapper": "a mapper or a list of them",
    "set": "a list of values per parameter",
    "pareto": "a list of metrics, or of axes that are numbers",
}
"""Keys of a sweep file and what they hold."""

_REQUIRED = ("arch", "workload")


@dataclass(frozen=True)
class Spec:
    """A sweep file that was read: the points, and what runs on each unless an axis says so."""

    points: Grid
    workload: str
    memory: str
    mapper: str
    objectives: tuple[str, ...]


def run_spec(
    path: str | Path,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    executor: str | Executor = "local",
    jobs: int | None = None,
) -> Sweep:
    """Run the sweep that a file describes; arguments as for ``sweep``.

    Raises:
        AccelsimError: ``FILE:LINE: ...`` for what is wrong in the file, else as ``sweep``.
    """
    spec = read_spec(path)
    return sweep(
        spec.points, spec.workload, out=out, resume=resume, executor=executor, jobs=jobs,
        memory=spec.memory, mapper=spec.mapper, objectives=spec.objectives,
    )  # fmt: skip


def read_spec(path: str | Path) -> Spec:
    """Read a sweep file.

    Raises:
        AccelsimError: ``FILE:LINE: what was wrong; what would be accepted``.
    """
    return _File(Path(path)).spec()


class _File:
    """A sweep file while it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        root = read_yaml(path)
        if not isinstance(root.value, dict):
            raise self.fail(root.line, f"is no sweep; accepted: a mapping with {', '.join(KEYS)}")
        self.sections: Mapping[str, Item] = root.value
        for key, item in self.sections.items():
            if key not in KEYS:
                raise self.fail(item.line, unknown("key", key, KEYS))
        for key in _REQUIRED:
            if key not in self.sections:
                raise self.fail(root.line, f"{key} is missing; accepted: {KEYS[key]}")

    def fail(self, line: int, message: str) -> AccelsimError:
        return AccelsimError(f"{self.path}:{line}: {message}")

    def spec(self) -> Spec:
        # One value runs everywhere, several become an axis.
        runs = {key: self.words(key) for key in RUN_AXES}
        axes: dict[str, tuple[Value, ...]] = {k: v for k, v in runs.items() if len(v) > 1}
        lines = {key: self.sections[key].line for key in axes}
        for name, item in self.axes().items():
            if name in axes:
                raise self.fail(item.line, f"{name} is given twice; accepted: once")
            axes[name], lines[name] = self.values(name, item), item.line
        points = self.grid(axes, lines)
        one = {key: values[0] if len(values) == 1 else "" for key, values in runs.items()}
        return Spec(
            points, one["workload"], one["memory"] or "bandwidth", one["mapper"],
            self.objectives(points),
        )  # fmt: skip

    def grid(self, axes: Mapping[str, tuple[Value, ...]], lines: Mapping[str, int]) -> Grid:
        """The points; a fault stands on the line of the axis that causes it."""
        archs = [self.located(name) for name in self.words("arch")]
        try:
            base = grid(archs)
        except AccelsimError as fault:
            raise self.fail(self.sections["arch"].line, str(fault)) from None
        for name, values in axes.items():
            try:
                grid(base.archs, {name: values})
            except AccelsimError as fault:
                raise self.fail(lines[name], str(fault)) from None
        return grid(base.archs, axes)

    def located(self, name: str) -> str:
        """An architecture file beside the sweep file, else the name as it is."""
        beside = self.path.parent / name
        is_path = name.endswith((".yaml", ".yml")) or "/" in name
        return str(beside) if is_path and beside.is_file() else name

    def words(self, key: str) -> tuple[str, ...]:
        """One word or a list of words."""
        item = self.sections.get(key)
        if item is None:
            return ()
        found = item.value if isinstance(item.value, list) else [item]
        for one in found:
            if not isinstance(one.value, str) or not one.value:
                raise self.fail(one.line, f"{key}: {shown(one.plain())}; accepted: {KEYS[key]}")
        if not found:
            raise self.fail(item.line, f"{key} is empty; accepted: {KEYS[key]}")
        return tuple(str(one.value) for one in found)

    def axes(self) -> Mapping[str, Item]:
        item = self.sections.get("set")
        if item is None or item.value is None:
            return {}
        if not isinstance(item.value, dict):
            raise self.fail(item.line, f"set: {shown(item.plain())}; accepted: {KEYS['set']}")
        return item.value

    def values(self, name: str, item: Item) -> tuple[Value, ...]:
        found = item.value if isinstance(item.value, list) else [item]
        for one in found:
            if not isinstance(one.value, (str, int, float)):
                raise self.fail(
                    one.line, f"{name}: {shown(one.plain())}; accepted: numbers or words"
                )
        return tuple(one.value for one in found)  # type: ignore[misc]  # checked above

    def objectives(self, points: Grid) -> tuple[str, ...]:
        """Metrics of "pareto", checked against those that the points will have."""
        chosen = self.words("pareto") or ("seconds", "energy_pj")
        accepted = objective_names(points)
        for objective in chosen:
            try:
                check_objective(objective, accepted)
            except AccelsimError as fault:
                raise self.fail(self.sections["pareto"].line, str(fault)) from None
        return chosen
