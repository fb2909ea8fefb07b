"""What a sweep found: a table of designs, its Pareto front, and a figure of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.errors import AccelsimError
from accelsim.explore.evaluate import FAILED, OK, SKIPPED
from accelsim.explore.pareto import check_objective, costs, front, split_sign
from accelsim.explore.store import write_csv
from accelsim.results.table import CSS, MAX_ROWS, Column, html_table, text_table
from accelsim.results.text import (
    count_text,
    energy_text,
    percent_text,
    plural,
    scaled,
    seconds_text,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Row = dict[str, Any]


@dataclass(frozen=True, eq=False, repr=False)
class Sweep:
    """Designs and what they took, in the order of the grid.

    A row holds "arch", "workload", "memory", the value of every axis, "status" ("ok", "skipped"
    for a design that contradicts itself, "failed" for a defect), "error", and the ``metrics``
    (None where there are none). ``objectives`` are what ``pareto()`` weighs by default.
    ``busy_seconds`` sums what all processes spent on points.
    """

    rows: list[Row]
    axes: tuple[str, ...]
    metrics: tuple[str, ...]
    objectives: tuple[str, ...] = ("seconds", "energy_pj")
    wall_seconds: float = 0.0
    busy_seconds: float = 0.0
    workers: int = 1
    resumed: int = 0
    heading: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ok(self) -> list[Row]:
        """Rows of designs that ran."""
        return [row for row in self.rows if row["status"] == OK]

    @property
    def skipped(self) -> list[Row]:
        """Rows of designs that did not run; "error" says why."""
        return [row for row in self.rows if row["status"] != OK]

    def pareto(self, *objectives: str) -> Sweep:
        """The designs that no other beats in all objectives, e.g. ("seconds", "energy_pj").

        Objectives are metrics, or axes that are numbers (as "array.rows", for size); they are
        minimised, or maximised with "-" in front. Raises AccelsimError for
        an unknown one.
        """
        chosen = objectives or self.objectives
        for objective in chosen:
            self.check_number(objective)
        rows = self.ok
        kept = [rows[i] for i in front(costs(rows, chosen))]
        heading = f"{plural(len(kept), 'design')} of {len(self.rows)} on the Pareto front of "
        return replace(
            self, rows=kept, objectives=tuple(chosen), heading=heading + " and ".join(chosen)
        )

    def best(self, metric: str) -> Row:
        """The row with the smallest value of a metric (largest with "-" in front).

        Raises:
            AccelsimError: an unknown metric, or no design ran.
        """
        self.check_number(metric)
        name, sign = split_sign(metric)
        rows = [row for row in self.ok if row[name] is not None]
        if not rows:
            raise AccelsimError(f"no design of this sweep has {name}")
        return min(rows, key=lambda row: sign * row[name])

    def check_number(self, objective: str) -> None:
        """Raise AccelsimError unless this sweep has a number of that name."""
        numbers = [
            axis
            for axis in self.axes
            if all(isinstance(row[axis], (int, float)) for row in self.rows)
        ]
        metrics = [name for name in self.metrics if name != "bottleneck"]
        check_objective(objective, metrics + numbers)

    def to_csv(self, path: str | Path) -> Path:
        """Write the rows as a CSV."""
        return write_csv(path, self.columns, self.rows)

    @property
    def columns(self) -> tuple[str, ...]:
        """Keys of the rows."""
        context = dict.fromkeys(("arch", "workload", "memory", *self.axes))
        return (*context, "status", "error", *self.metrics)

    def to_pandas(self) -> Any:
        """The rows as a pandas DataFrame. Raises AccelsimError when pandas is not installed."""
        try:
            pandas = import_module("pandas")  # optional: the extra [data]
        except ImportError:
            raise AccelsimError(
                "to_pandas needs pandas; install it with: pip install 'accelsim[data]'"
            ) from None
        return pandas.DataFrame(self.rows, columns=list(self.columns))

    def figure(self, x: str = "", y: str = "") -> Figure:
        """All designs as points over two metrics, with their Pareto front."""
        from accelsim.explore.figure import scatter

        return scatter(self, x or self.objectives[0], y or self.objectives[-1])

    # -- how it shows itself ---------------------------------------------------------------------

    @property
    def title(self) -> str:
        """How many designs there are and how it went, in one line."""
        if self.heading:
            return self.heading
        counts = [plural(len(self.rows), "design")]
        for status in (SKIPPED, FAILED):
            count = sum(row["status"] == status for row in self.rows)
            counts += [f"{count} {status}"] * bool(count)
        counts += [f"{self.resumed} resumed"] * bool(self.resumed)
        return f"{', '.join(counts)}, in {seconds_text(self.wall_seconds)}"

    def __str__(self) -> str:
        table = text_table(self._shown(), self.rows[:MAX_ROWS])
        return "\n".join((self.title, "", table, *self._rest()))

    def __repr__(self) -> str:
        return f"<Sweep: {self.title}>"

    def _repr_html_(self) -> str:
        table = html_table(self._shown(), self.rows[:MAX_ROWS])
        rest = "".join(f"<p>{line}</p>" for line in self._rest())
        return f"{CSS}<p>{self.title}</p>{table}{rest}"

    def _rest(self) -> list[str]:
        more = len(self.rows) - MAX_ROWS
        return [f"… and {more:,} more; all are in .rows and .to_csv(path)"] if more > 0 else []

    def _shown(self) -> Sequence[Column]:
        """Axes, what differs, objectives and the main metrics; a reason where it did not run."""
        differing = [
            name
            for name in ("arch", "workload", "memory")
            if name not in self.axes and len({row[name] for row in self.rows}) > 1
        ]
        known = [split_sign(one)[0] for one in self.objectives]
        names = dict.fromkeys(("cycles", "seconds", "energy_pj", *known, "bottleneck"))
        columns = [_plain(name) for name in (*differing, *self.axes)]
        columns += [_metric(name) for name in names if name in self.metrics]
        if self.skipped:
            columns.append(Column("why not", lambda row: shorten(row["error"]), left=True))
        return columns


def _plain(name: str) -> Column:
    return Column(name, lambda row: str(row[name]))


def _metric(name: str) -> Column:
    show = _FORMATS.get(name.partition(".")[0], str)

    def text(row: Row) -> str:
        return "-" if row[name] is None else show(row[name])

    return Column(_TITLES.get(name, name), text, left=name == "bottleneck")


_TITLES = {"seconds": "time", "energy_pj": "energy", "bottleneck": "bound by"}
_FORMATS: dict[str, Callable[[Any], str]] = {
    "cycles": lambda value: f"{value:,}",
    "seconds": seconds_text,
    "energy_pj": energy_text,
    "macs": count_text,
    "instructions": count_text,
    "bound_cycles": lambda value: f"{round(value):,}",
    "utilization": percent_text,
    "read_bytes": lambda value: scaled(value, "B"),
    "write_bytes": lambda value: scaled(value, "B"),
}


def shorten(text: str, limit: int = 60) -> str:
    """A reason as a table shows it."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
