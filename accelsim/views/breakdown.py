"""Where time, work, traffic and energy go, by kind of operator."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from accelsim.results.table import KindResult, OperatorTable
from accelsim.results.text import bytes_text, count_text, energy_text, percent_text
from accelsim.results.theme import PALETTE, figure, kind_colors

if TYPE_CHECKING:
    from collections.abc import Callable

    from plotly.graph_objects import Figure

    from accelsim.results.result import Result

Measure = tuple[str, "Callable[[KindResult], float]", "Callable[[float], str]"]

# Drawn from the bottom, so time, what one looks at first, comes last.
_MEASURES: tuple[Measure, ...] = (
    ("energy", lambda row: row.energy_pj, energy_text),
    ("traffic", lambda row: sum(row.traffic_bytes.values()), bytes_text),
    ("MACs", lambda row: row.macs, count_text),
    ("time", lambda row: row.cycles, lambda cycles: f"{count_text(round(cycles))} cycles"),
)


def breakdown(result: Result) -> Figure:
    """Four bars, each divided among the operator kinds: time, MACs, main-memory traffic, energy.

    A kind with a long piece of time and a short piece of MACs is where the arrays wait. A measure
    that is zero for the whole run is left out.
    """
    kinds = OperatorTable(result.operators).by_kind()
    measures = [m for m in _MEASURES if sum(m[1](row) for row in kinds) > 0]
    totals = [sum(value(row) for row in kinds) for _, value, _ in measures]
    colors = kind_colors(op.kind for op in result.operators)
    fig = figure(
        "Where it goes",
        "by kind of operator, of each total",
        height=360,
        barmode="stack",
        legend={"traceorder": "normal"},
    )
    for row in kinds:
        values = [value(row) for _, value, _ in measures]
        fig.add_bar(
            x=[100 * v / total for v, total in zip(values, totals, strict=True)],
            y=[name for name, _, _ in measures],
            orientation="h",
            name=escape(row.kind),
            marker={"color": colors[row.kind], "line": {"width": 1, "color": "white"}},
            text=[
                f"{escape(row.kind)}: {show(v)}, {percent_text(v / total)}"
                for v, total, (_, _, show) in zip(values, totals, measures, strict=True)
            ],
            textposition="none",
            hovertemplate="%{text}<extra></extra>",
        )
    fig.update_xaxes(range=[0, 100], ticksuffix=" %")
    return fig


def energy_bars(result: Result) -> Figure:
    """Energy per unit and memory, the largest on top."""
    parts = sorted(
        ((name, pj) for name, pj in result.energy_pj.items() if name != "total"),
        key=lambda part: part[1],
    )
    total = result.energy_pj["total"]
    fig = figure("Energy", f"{energy_text(total)} in total", height=150 + 34 * len(parts))
    fig.add_bar(
        x=[pj * 1e-12 for _, pj in parts],
        y=[escape(name) for name, _ in parts],
        orientation="h",
        marker={"color": PALETTE[0]},
        text=[f"{energy_text(pj)}, {percent_text(pj / total)}" for _, pj in parts] if total else [],
        textposition="auto",
        hoverinfo="skip",
    )
    fig.update_xaxes(title="joules", exponentformat="SI", ticksuffix="J")
    return fig
