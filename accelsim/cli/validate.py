"""``accelsim validate``: every claim beside its evidence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from accelsim.cli import options, terminal
from accelsim.errors import AccelsimError

if TYPE_CHECKING:
    from accelsim.results.claims import Claim, Row

FAILED = 1
_SHOWN_FAILURES = 5


@dataclass(frozen=True)
class Verdict:
    """One claim and its rows; ``problem`` says why rows are missing, if some are."""

    claim: Claim
    rows: tuple[Row, ...]
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Whether there is evidence and none of it contradicts the claim."""
        from accelsim.results.claims import holds

        return not self.problem and holds(self.claim, self.rows)

    @property
    def worst(self) -> float:
        """Largest absolute relative error of its rows."""
        return max((abs(row.error) for row in self.rows), default=math.nan)

    @property
    def mean(self) -> float:
        """Mean absolute relative error of the rows that the claim is judged by."""
        from accelsim.results.claims import mean_error

        return mean_error(self.rows, self.claim.mean_of)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        rows = [{**row.__dict__, "error": row.error} for row in self.rows]
        verdict = {"ok": self.ok, "problem": self.problem, "mean_error": self.mean}
        return {**self.claim.__dict__, **verdict, "rows": rows}


def validate(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Claims; default: all.")
    ] = None,
    rows: Annotated[bool, typer.Option("--rows", help="Print every case.")] = False,
    json: options.Json = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the table as Markdown.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write tables and scatter plots.")
    ] = None,
) -> None:
    """Check every claim against its evidence; exit 1 if one fails."""
    from accelsim.results.claims import claim_names, evidence

    terminal.check_files(json, markdown, html)
    wanted = list(dict.fromkeys(names or claim_names()))
    if not wanted:
        raise AccelsimError("this installation holds no claims")
    for name in wanted:
        _known(name)
    verdicts = []
    with terminal.working() as progress:
        for i, name in enumerate(wanted):
            if progress:
                progress(name, i, len(wanted))
            verdicts.append(_judge(evidence(name)))
    ok = all(one.ok for one in verdicts)
    if json is not None:
        content = {"schema": 1, "ok": ok, "claims": [one.to_dict() for one in verdicts]}
        terminal.write_json(json, content)
    if markdown is not None:
        terminal.write_text(markdown, markdown_table(verdicts))
    if html is not None:
        terminal.write_text(html, html_page(verdicts))
    if json != terminal.STDOUT:
        typer.echo(_text(verdicts, rows))
    if not ok:
        raise typer.Exit(FAILED)


def _known(name: str) -> None:
    from accelsim.arch.faults import unknown
    from accelsim.results.claims import claim_names

    if name not in claim_names():
        raise AccelsimError(unknown("claim", name, claim_names()))


def _judge(evidence: Any) -> Verdict:
    rows: list[Row] = []
    try:
        rows.extend(evidence.rows())
    except AccelsimError as fault:
        return Verdict(evidence.CLAIM, tuple(rows), str(fault))
    return Verdict(evidence.CLAIM, tuple(rows))


def _percent(share: float) -> str:
    if share == 0:
        return "exact"
    return f"{100 * share:.3g} %" if math.isfinite(share) else "-"


def _cells(one: Verdict) -> tuple[str, str, str, str, str, str]:
    failed = sum(not row.ok for row in one.rows)
    mean = f"{_percent(one.mean)} mean of {one.claim.mean_of}" if one.claim.mean_of else ""
    return (
        one.claim.name,
        one.claim.statement,
        f"{len(one.rows)}" + (f" ({failed} failed)" if failed else ""),
        mean or _percent(one.worst),
        _percent(one.claim.tolerance),
        "ok" if one.ok else "FAILED",
    )


def _text(verdicts: list[Verdict], every_row: bool) -> str:
    from accelsim.results.case_table import text_cases
    from accelsim.results.table import Column, text_table

    titles = ("claim", "cases", "worst error", "tolerance", "verdict")
    columns = [
        Column(title, lambda cells, i=i: str(cells[i]), left=i in (0, 4))  # type: ignore[misc]
        for i, title in enumerate(titles)
    ]
    parts = [text_table(columns, [(c[0], *c[2:]) for c in map(_cells, verdicts)])]
    for one in verdicts:
        shown = [row for row in one.rows if every_row or not row.ok]
        lines = [f"{one.claim.name}: {one.claim.statement} ({one.claim.source})"]
        if one.claim.mean_of and one.rows and (every_row or not one.ok):
            lines.append(text_cases(one.rows))
            shown = []
        lines += [_row(row) for row in shown[: None if every_row else _SHOWN_FAILURES]]
        if len(shown) >= len(lines):
            lines.append(f"  ... {len(shown) - len(lines) + 1} more; --rows shows all")
        if one.problem:
            lines.append(f"  stopped: {one.problem}")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _row(row: Row) -> str:
    verdict = "ok" if row.ok else "FAILED"
    error = f"{100 * row.error:+.3g} %"
    return f"  {verdict:6}  {row.case}: expected {row.expected:g}, got {row.measured:g} ({error})"


TITLES = (
    *("claim", "what is compared", "cases", "worst error", "tolerance", "verdict", "truth from"),
)


def html_page(verdicts: list[Verdict]) -> str:
    """The claims as a page that needs nothing else."""
    from accelsim.views.evidence import Shown, evidence_html

    shown = [Shown(one.claim, (*_cells(one), one.claim.source), one.rows) for one in verdicts]
    return evidence_html(TITLES, shown)


def markdown_table(verdicts: list[Verdict]) -> str:
    """The claims as a Markdown table, then the cases of those judged by their mean."""
    from accelsim.results.case_table import markdown_cases

    lines = [f"| {' | '.join(TITLES)} |", "|---|---|--:|--:|--:|---|---|"]
    for one in verdicts:
        cells = (text.replace("|", "\\|") for text in (*_cells(one), one.claim.source))
        lines.append(f"| {' | '.join(cells)} |")
    tables = [
        f"\n{one.claim.name}: {one.claim.statement}\n\n{markdown_cases(one.rows)}"
        for one in verdicts
        if one.claim.mean_of and one.rows
    ]
    return "\n".join(lines) + "\n" + "".join(tables)
