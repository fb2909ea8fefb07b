"""HTML fragments of a run: for notebooks, and for the report to put together."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

from accelsim.results.table import CSS, Column, OperatorTable, html_table
from accelsim.results.text import bytes_text, energy_text, percent_text, scaled
from accelsim.views.headline import headline
from accelsim.views.overlap import COLUMNS, at_work
from accelsim.views.summary import resources

if TYPE_CHECKING:
    from accelsim.results.result import Result


def run_html(result: Result) -> str:
    """A run as a notebook shows it: headline, operator kinds, resources."""
    kinds = OperatorTable(result.operators).by_kind()
    return (
        f'{CSS}<div class="accelsim-run">{headline_html(result)}'
        f"{html_table(kinds.columns, kinds)}<br>{resources_html(result)}"
        f"{approximations_html(result, folded=True)}</div>"
    )


def headline_html(result: Result) -> str:
    """Workload and machine, the main figures, and what limits the run."""
    head = headline(result)
    first, *others = (f"<b>{escape(value)}</b> {escape(what)}" for value, what in head.figures)
    figures = " &ensp; ".join((f'<span style="font-size:1.5em">{first}</span>', *others))
    return (
        f"<p>{escape(head.workload)}<br>{escape(head.machine)}</p>"
        f"<p>{figures}</p><p>{escape(head.limit)}</p>"
    )


def resources_html(result: Result) -> str:
    """Use of every unit, memory and link, with bars and lower bounds."""
    head = "".join(
        f"<th{' class=left' if left else ''}>{title}</th>"
        for title, left in (
            ("resource", True), ("used", False), ("", True), ("", True), ("lower bound, cycles", 0)
        )
    )  # fmt: skip
    rows = "".join(
        f"<tr><td class=left>{escape(one.name)}</td><td>{percent_text(one.share)}</td>"
        f"<td class=left>{_bar(one.share)}</td><td class=left>{one.meaning}</td>"
        f"<td>{f'{round(one.bound):,}' if one.bound else '-'}</td></tr>"
        for one in resources(result)
    )
    table = f'<table class="accelsim"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    working = at_work(result)
    return f"{table}<br>{html_table(COLUMNS, working)}" if working else table


def _bar(share: float) -> str:
    width = 100 * max(0.0, min(share, 1.0))
    return (
        '<div style="width:12em;height:.7em;background:#8882;border-radius:2px">'
        f'<div style="width:{width:.1f}%;height:100%;background:#4e79a7;border-radius:2px">'
        "</div></div>"
    )


def traffic_html(result: Result) -> str:
    """Bytes per memory and their mean rate."""
    seconds = result.seconds
    columns = [
        Column("memory", lambda row: row[0], left=True),
        Column("read", lambda row: bytes_text(row[1]["read"])),
        Column("written", lambda row: bytes_text(row[1]["write"])),
        Column(
            "mean rate",
            lambda row: scaled(sum(row[1].values()) / seconds, "B/s") if seconds else "-",
        ),
    ]
    return html_table(columns, result.traffic_bytes.items())


def energy_html(result: Result) -> str:
    """Energy per component; a sentence where the architecture gives no numbers."""
    total = result.energy_pj["total"]
    if not total:
        return f"<p>{escape(result.arch)} gives no energy numbers.</p>"
    columns = [
        Column("component", lambda row: row[0], left=True),
        Column("energy", lambda row: energy_text(row[1])),
        Column("share", lambda row: percent_text(row[1] / total)),
    ]
    return html_table(columns, sorted(result.energy_pj.items(), key=lambda row: -row[1]))


def approximations_html(result: Result, *, folded: bool = False) -> str:
    """What the numbers leave out, as a list; ``folded`` hides it behind a click."""
    if not result.approximations:
        return ""
    listed = f"<ul>{_items(result.approximations)}</ul>"
    if not folded:
        return listed
    count = len(result.approximations)
    return f"<details><summary>{count} declared approximations</summary>{listed}</details>"


def _items(texts: Iterable[str]) -> str:
    return "".join(f"<li>{escape(text)}</li>" for text in texts)
