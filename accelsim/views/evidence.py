"""Claims as a page: the table of all; of each its errors by split, a scatter plot of what was
simulated over the truth or its own figure, and its cases. The page holds all that it needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

UNFOLDED = 60
"""Cases that the page shows at once."""

_STYLE = "<style>body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto}</style>"


@dataclass(frozen=True)
class Shown:
    """One claim as the page shows it: its line of the table, its splits, its cases and, if it has
    one, its own figure instead of a scatter plot of them."""

    claim: Claim
    cells: Cells
    split_titles: Cells
    splits: Sequence[Cells]
    rows: tuple[Row, ...]
    draw: Callable[[], Figure] | None = None

    def figure(self) -> Figure | None:
        """Its own figure, or the scatter plot if some rows have a place on one."""
        if self.draw is not None:
            return self.draw()
        return scatter(self.claim, self.rows) if plotted(self.rows) else None


def evidence_html(titles: Sequence[str], claims: Sequence[Shown], notes: Sequence[str]) -> str:
    """The whole page as text; ``notes`` say how the table of claims is read."""
    sections = ["".join(f"<p>{escape(note)}</p>" for note in notes)]
    sections += [_table(titles, [one.cells for one in claims], left=(0, 1, len(titles) - 1))]
    drawn = False
    for one in claims:
        if not one.rows:
            continue
        drawing = ""
        plot = one.figure()
        if plot is not None:
            drawing = plot.to_html(
                full_html=False, include_plotlyjs=not drawn, config={"displaylogo": False}
            )
            drawn = True
        splits = _table(one.split_titles, one.splits, left=(0, len(one.split_titles) - 1))
        sections.append(
            f"<h2>{escape(one.claim.name)}</h2><p>{escape(one.claim.statement)}"
            f" ({escape(one.claim.source)})</p>{splits}{drawing}{_cases(one.rows)}"
        )
    return "\n".join((
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8"><title>accelsim: claims and evidence</title>',
        CSS, _STYLE,
        "</head><body><h1>Claims and evidence</h1>", *sections, "</body></html>\n",
    ))  # fmt: skip


def _table(titles: Sequence[str], lines: Sequence[Cells], left: Sequence[int]) -> str:
    columns = [
        Column(title, lambda cells, i=i: str(cells[i]), left=i in left)  # type: ignore[misc]
        for i, title in enumerate(titles)
    ]
    return html_table(columns, lines)


def _cases(rows: Sequence[Row]) -> str:
    """The table of cases; a long one is folded."""
    table = html_cases(rows)
    if len(rows) <= UNFOLDED:
        return table
    return f"<details><summary>{len(rows)} cases</summary>{table}</details>"


def plotted(rows: Sequence[Row]) -> list[Row]:
    """The rows that have a place on logarithmic axes."""
    return [row for row in rows if row.expected > 0 and row.measured > 0]


def scatter(claim: Claim, rows: Sequence[Row]) -> Figure:
    """What was simulated over the truth, on logarithmic axes, beside what others predict."""
    rows = plotted(rows)
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
