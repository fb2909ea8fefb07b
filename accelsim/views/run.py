"""A Run: the result of a simulation that can show itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.results.result import Result
from accelsim.results.table import OperatorTable

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True, eq=False, repr=False)
class Run(Result):
    """What ``simulate`` returns: a Result that prints as a summary and draws its own figures."""

    operators: OperatorTable

    @classmethod
    def of(cls, result: Result) -> Run:
        """The same result, able to show itself."""
        if isinstance(result, cls):
            return result
        values = {field.name: getattr(result, field.name) for field in fields(Result)}
        return cls(**{**values, "operators": OperatorTable(result.operators)})

    def timeline(
        self, segment: str | int | None = None, *, start: float = 0.0, stop: float | None = None
    ) -> Figure:
        """Which unit did what, when: a Gantt chart in core cycles.

        ``segment`` is a slice of the workload by name or index, by default the one that takes
        longest; ``start`` and ``stop`` choose a window in its cycles.
        """
        from accelsim.views.timeline import timeline

        return timeline(self, segment, start=start, stop=stop)

    def roofline(self) -> Figure:
        """Operators on the architecture's roofline: MAC/s over MAC per byte of main memory."""
        from accelsim.views.roofline import roofline

        return roofline(self)

    def breakdown(self) -> Figure:
        """Shares of operator kinds in time, MACs, traffic and energy."""
        from accelsim.views.breakdown import breakdown

        return breakdown(self)

    def save_trace(self, path: str | Path) -> Path:
        """Write a timeline that opens in ui.perfetto.dev or chrome://tracing."""
        from accelsim.views.trace import write_trace

        return write_trace(self, path)

    def save_report(self, path: str | Path) -> Path:
        """Write one self-contained HTML page with summary, tables and figures."""
        from accelsim.views.report import write_report

        return write_report(self, path)

    def __str__(self) -> str:
        from accelsim.views.summary import summary

        return summary(self)

    def __repr__(self) -> str:
        return f"<Run of {self.workload} on {self.arch}: {self.cycles:,} cycles>"

    def _repr_html_(self) -> str:
        from accelsim.views.html import run_html

        return run_html(self)

    def _repr_mimebundle_(self, **_: Any) -> Mapping[str, str]:
        return {"text/plain": str(self), "text/html": self._repr_html_()}
