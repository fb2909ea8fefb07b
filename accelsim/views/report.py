"""The report: one HTML page that holds everything about a run and needs no network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.errors import AccelsimError
from accelsim.results.table import CSS, OperatorTable, Table, html_table
from accelsim.views.headline import headline
from accelsim.views.html import (
    approximations_html,
    energy_html,
    resources_html,
    traffic_html,
)
from accelsim.views.summary import main_memory_label

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from accelsim.results.result import Result

_STYLE = """<style>
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; color: #1f2933;
       background: #f4f6f8; margin: 0; }
main { max-width: 68rem; margin: 0 auto; padding: 2rem 1.5rem 4rem; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.15rem; margin: 0 0 .8rem; }
header p { color: #66717e; margin: .2rem 0 1.2rem; }
section { background: #fff; border: 1px solid #e3e8ee; border-radius: 8px;
          padding: 1.2rem 1.4rem; margin: 1rem 0; overflow-x: auto; }
.cards { display: flex; flex-wrap: wrap; gap: 1rem; }
.card { background: #fff; border: 1px solid #e3e8ee; border-radius: 8px; padding: .8rem 1.2rem; }
.card b { font-size: 1.5rem; display: block; font-variant-numeric: tabular-nums; }
.card span { color: #66717e; }
.limit { font-size: 1.05rem; font-weight: 600; margin: 1.2rem 0 .4rem; }
.pair { display: flex; flex-wrap: wrap; gap: 0 4rem; }
table.accelsim tbody tr:hover { background: #f4f6f8; }
pre { font-size: 12.5px; line-height: 1.35; } summary { cursor: pointer; }
footer { color: #66717e; font-size: .85rem; }
</style>"""


def write_report(result: Result, path: str | Path) -> Path:
    """Write one self-contained HTML page: headline, tables, figures, approximations, machine.

    Raises AccelsimError when the file cannot be written.
    """
    path = Path(path)
    try:
        path.write_text(report_html(result), encoding="utf-8")
    except OSError as fault:
        raise AccelsimError(f"{path}: cannot be written ({fault.strerror})") from None
    return path


def report_html(result: Result) -> str:
    """The page of ``write_report`` as text (about 5 MB, nearly all of it plotly)."""
    title = escape(f"{result.workload} on {result.arch}")
    return "\n".join((
        "<!DOCTYPE html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        CSS, _STYLE, "</head><body><main>", *_sections(result), "</main></body></html>\n",
    ))  # fmt: skip


def _sections(result: Result) -> Iterator[str]:
    yield _header(result)
    yield _section("Resources", resources_html(result))
    figures = _figures(result)
    yield "".join(_section("", html) for html in figures)
    operators = OperatorTable(result.operators)
    kinds = operators.by_kind()
    every = f"<details><summary>{len(operators)} operators</summary>{_table(operators)}</details>"
    note = f"<p>read and written: bytes of {escape(main_memory_label(result))}</p>"
    yield _section("Operators", _table(kinds) + note + every)
    pair = f"<div>{traffic_html(result)}</div><div>{energy_html(result)}</div>"
    yield _section("Traffic and energy", f'<div class="pair">{pair}</div>')
    if result.approximations:
        yield _section("Declared approximations", approximations_html(result))
    yield _machine(result)
    yield _footer(result)


def _table(table: Table[Any]) -> str:
    return html_table(table.columns, table)


def _section(title: str, body: str) -> str:
    heading = f"<h2>{title}</h2>" if title else ""
    return f"<section>{heading}{body}</section>"


def _header(result: Result) -> str:
    head = headline(result)
    cards = "".join(
        f'<div class="card"><b>{escape(value)}</b><span>{escape(what) or "&nbsp;"}</span></div>'
        for value, what in head.figures
    )
    return (
        f"<header><h1>{escape(head.workload)}</h1><p>{escape(head.machine)}</p></header>"
        f'<div class="cards">{cards}</div><p class="limit">{escape(head.limit)}</p>'
    )


def _figures(result: Result) -> list[str]:
    """Figures as HTML; the first one carries the plotting library for all."""
    from accelsim.views.breakdown import breakdown
    from accelsim.views.roofline import roofline
    from accelsim.views.timeline import timeline

    drawn: list[Figure] = [breakdown(result)]
    if result.architecture is not None:
        drawn.append(roofline(result))
    if result.segments:
        drawn.append(timeline(result))
    return [
        fig.to_html(full_html=False, include_plotlyjs=i == 0, config={"displaylogo": False})
        for i, fig in enumerate(drawn)
    ]


def _machine(result: Result) -> str:
    if result.architecture is None:
        return ""
    from accelsim.arch.describe import describe

    text = escape(describe(result.architecture))
    return _section(
        "Architecture", f"<details><summary>block diagram and parameters</summary><pre>{text}</pre>"
        "</details>",
    )  # fmt: skip


def _footer(result: Result) -> str:
    digests = ", ".join(f"{name} {digest[:16]}" for name, digest in result.digests.items())
    content = json.dumps(result.to_dict()).replace("</", "<\\/")
    return (
        f"<footer>accelsim {escape(result.version)}, mapper {escape(result.mapper)}; "
        f"digests: {digests}</footer>"
        f'<script type="application/json" id="result">{content}</script>'
    )
