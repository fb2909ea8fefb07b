"""The figure of a sweep: designs as points over two metrics, with their Pareto front."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from accelsim.explore.pareto import costs, front, split_sign
from accelsim.results.text import energy_text, plural, seconds_text
from accelsim.results.theme import ACCENT, PALETTE, figure

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from accelsim.explore.outcome import Row, Sweep

# Shown in units that people read: factor and axis title.
_UNITS = {"energy_pj": (1e-12, "energy", "J"), "seconds": (1.0, "time", "s")}

_DECADE = 30.0  # a range from which on a logarithmic axis shows more


def scatter(sweep: Sweep, x: str, y: str) -> Figure:
    """Designs over two metrics ("-" in front: more is better), hovering shows the design."""
    for objective in (x, y):
        sweep.check_number(objective)
    rows = [row for row in sweep.ok if _value(row, x) is not None and _value(row, y) is not None]
    chosen = front(costs(rows, (x, y)))
    fig = figure(f"{plural(len(rows), 'design')}", f"{len(chosen)} on the Pareto front", height=480)
    _add(fig, rows, x, y, sweep, name="designs", mode="markers",
         marker={"size": 9, "color": PALETTE[0], "opacity": 0.55})  # fmt: skip
    # Between two designs of the front nothing is known to exist, hence steps.
    step = "linear" if x.startswith("-") or y.startswith("-") else "hv"
    _add(fig, [rows[i] for i in chosen], x, y, sweep, name="Pareto front", mode="lines+markers",
         line={"color": ACCENT, "width": 2, "shape": step},
         marker={"size": 10, "color": ACCENT})  # fmt: skip
    for update, objective in ((fig.update_xaxes, x), (fig.update_yaxes, y)):
        values = [float(_value(row, objective)) for row in rows]
        kind = "log" if values and min(values) > 0 and max(values) > _DECADE * min(values) else "-"
        name = split_sign(objective)[0]
        _, title, unit = _UNITS.get(name, (1.0, name, ""))
        update(title=escape(title), type=kind, ticksuffix=unit)
        if unit:
            update(tickformat="~s")  # 200 µs, not 0.0002 s
    return fig


def _add(fig: Figure, rows: list[Row], x: str, y: str, sweep: Sweep, **look: Any) -> None:
    fig.add_scatter(
        x=[_value(row, x) for row in rows],
        y=[_value(row, y) for row in rows],
        text=[_hover(row, sweep) for row in rows],
        hovertemplate="%{text}<extra></extra>",
        **look,
    )


def _value(row: Row, objective: str) -> Any:
    name = split_sign(objective)[0]
    factor = _UNITS.get(name, (1.0,))[0]
    return None if row[name] is None else row[name] * factor


def _hover(row: Row, sweep: Sweep) -> str:
    values = [f"{escape(axis)} = <b>{escape(str(row[axis]))}</b>" for axis in sweep.axes]
    return "<br>".join((
        escape(row["arch"]), *values,
        f"{seconds_text(row['seconds'])}, {energy_text(row['energy_pj'])}, "
        f"bound by {escape(row['bottleneck'])}",
    ))  # fmt: skip
