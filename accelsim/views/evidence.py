"""Claims as a page: the table of all, and for those judged by a mean, cases and a scatter plot of
what was simulated over the truth. The page holds all that it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from accelsim.results.case_table import html_cases
from accelsim.results.table import CSS, Column, html_table
from accelsim.results.theme import FAINT, INK, PALETTE, figure

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from accelsim.results.claims import Claim, Row

Cells = tuple[str, ...]

_STYLE = "<style>body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto}</style>"


@dataclass(frozen=True)
class Shown:
    """One claim as the page shows it: its line of the table and its cases."""

    claim: Claim
    cells: Cells
    rows: tuple[Row, ...]


def evidence_html(titles: Sequence[str], claims: Sequence[Shown]) -> str:
    """The whole page as text."""
    columns = [
        Column(title, lambda cells, i=i: str(cells[i]), left=i in (0, 1, len(titles) - 1))  # type: ignore[misc]
        for i, title in enumerate(titles)
    ]
    sections = [html_table(columns, [one.cells for one in claims])]
    plotted = [one for one in claims if one.claim.mean_of and one.rows]
    for i, one in enumerate(plotted):
        drawing = scatter(one.claim, one.rows).to_html(
            full_html=False, include_plotlyjs=i == 0, config={"displaylogo": False}
        )
        sections.append(
            f"<h2>{escape(one.claim.name)}</h2><p>{escape(one.claim.statement)}"
            f" ({escape(one.claim.source)})</p>{drawing}{html_cases(one.rows)}"
        )
    return "\n".join((
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8"><title>accelsim: claims and evidence</title>',
        CSS, _STYLE,
        "</head><body><h1>Claims and evidence</h1>", *sections, "</body></html>\n",
    ))  # fmt: skip


def scatter(claim: Claim, rows: Sequence[Row]) -> Figure:
    """What was simulated over the truth, on logarithmic axes, beside what others predict."""
    fig = figure(escape(claim.name), escape(claim.statement), height=560)
    low = 0.5 * min(row.expected for row in rows)
    high = 2 * max(row.expected for row in rows)
    for factor, dash in (
        (1.0, "solid"),
        (1 + claim.tolerance, "dot"),
        (1 - claim.tolerance, "dot"),
    ):
        fig.add_scatter(
            x=[low, high], y=[low * factor, high * factor], mode="lines", hoverinfo="skip",
            line={"color": INK if dash == "solid" else FAINT, "dash": dash, "width": 1},
            showlegend=False,
        )  # fmt: skip
    for i, split in enumerate(dict.fromkeys(row.split for row in rows)):
        mine = [row for row in rows if row.split == split]
        _points(fig, split or "cases", [(r.case, r.expected, r.measured) for r in mine], 11, i)
    for i, name in enumerate(dict.fromkeys(name for row in rows for name in row.others)):
        theirs = [(r.case, r.expected, r.others[name]) for r in rows if name in r.others]
        _points(fig, name, theirs, 6, i + 4)
    fig.update_xaxes(type="log", title="truth")
    fig.update_yaxes(type="log", title="simulated")
    return fig


def _points(
    fig: Figure, name: str, points: Sequence[tuple[str, float, float]], size: int, color: int
) -> None:
    text = [
        f"{escape(case)}<br>truth {truth:,g}, {escape(name)} {value:,g} ({value / truth - 1:+.1%})"
        for case, truth, value in points
    ]
    fig.add_scatter(
        x=[truth for _, truth, _ in points], y=[value for _, _, value in points],
        name=escape(name), mode="markers", text=text, hovertemplate="%{text}<extra></extra>",
        marker={"size": size, "color": PALETTE[color % len(PALETTE)]},
    )  # fmt: skip
