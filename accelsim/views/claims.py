"""Claims beside their evidence as text, Markdown and a page: one line each, errors by split, cases.

The three say the same; a terminal shows cases only where one failed or all are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from accelsim.results.case_table import as_model, markdown_cases, model_names, text_cases
from accelsim.results.claims import Row, mean_error
from accelsim.results.table import Column, text_table
from accelsim.results.verdict import Verdict

Cells = tuple[str, ...]

TITLES = (
    *("claim", "what is compared", "cases", "worst error", "tolerance", "verdict", "truth from"),
)
SPLIT_TITLES = ("split", "cases", "failed", "mean error", "worst error")
_SHOWN_FAILURES = 5

LEGEND = {
    "ok": "everything that is judged holds",
    "partly": "everything that is judged holds; the published figures that are counted do not, "
    "as the claim says: no failure",
    "FAILED": "something that is judged does not hold",
    "outstanding": "nobody has recorded the truth yet",
    "missed": "a published figure that the model does not meet, as the claim says",
    "shown": "told for comparison, not judged",
}
"""What the verdicts of claims and of rows mean."""
ERRORS = (
    "The worst error is that of judged rows, or their mean where it says so; rows with a "
    "limit of their own (faster at all, inside a range) are judged by that, not by the tolerance. "
    '"missed:" is the worst error of the published figures that are not met.'
)


def percent(share: float) -> str:
    """A relative error: "exact", or so many per cent."""
    if share == 0:
        return "exact"
    return f"{100 * share:.3g} %" if math.isfinite(share) else "-"


def claim_cells(one: Verdict) -> Cells:
    """A claim's line in the table of all, as ``TITLES``."""
    failed = sum(not row.ok for row in one.rows)
    return (
        one.claim.name,
        one.claim.statement,
        f"{len(one.rows)}" + (f" ({failed} failed)" if failed else ""),
        error_text(one),
        percent(one.claim.tolerance),
        one.word,
        one.claim.source,
    )


def error_text(one: Verdict) -> str:
    """Error of what a claim is judged by, and the worst of what it says it does not meet."""
    judged = percent(one.worst)
    if one.claim.mean_of:
        # Inside a published range a row has no error, and yet is not exact.
        judged = f"{percent(one.mean) if one.mean else '0 %'} mean of {one.claim.mean_of}"
    return f"{judged}; missed: {percent(one.worst_missed)}" if one.missed else judged


def legend(words: Iterable[str]) -> list[str]:
    """What some verdicts mean, in the order of ``LEGEND``."""
    said = {word.split(",")[0] for word in words}
    return [f"{word}: {meaning}" for word, meaning in LEGEND.items() if word in said]


def split_table(one: Verdict) -> tuple[Cells, list[Cells]]:
    """Titles and lines: errors of a claim split by split, and mean errors of other models."""
    models = model_names(one.rows)
    lines = []
    for found in one.splits():
        others = (mean_error(as_model(found.rows, name)) for name in models)
        lines.append((
            found.split or "all",
            f"{len(found.rows)}",
            f"{sum(not row.ok for row in found.rows)}",
            percent(found.mean),
            percent(found.worst),
            *map(percent, others),
            found.worst_case,
        ))  # fmt: skip
    return (*SPLIT_TITLES, *(f"mean of {name}" for name in models), "worst case"), lines


# --- text


def claims_text(verdicts: Sequence[Verdict], every_row: bool) -> str:
    """What a terminal shows."""
    shown = [(cells[0], *cells[2:6]) for cells in map(claim_cells, verdicts)]
    parts = [text_table(_columns((TITLES[0], *TITLES[2:6]), left=(0, 4)), shown)]
    words = {one.word for one in verdicts} | {row.word for one in verdicts for row in one.rows}
    if words != {"ok"}:
        parts.append("\n".join(legend(words)))
    return "\n\n".join([*parts, *(_claim_text(one, every_row) for one in verdicts)])


def _claim_text(one: Verdict, every_row: bool) -> str:
    lines = [f"{one.claim.name}: {one.claim.statement} ({one.claim.source})"]
    if one.rows:
        titles, splits = split_table(one)
        lines.append(text_table(_columns(titles, (0, len(titles) - 1)), splits, indent="  "))
    shown = [row for row in one.rows if every_row or not row.ok]
    if one.claim.mean_of and one.rows and (every_row or not one.ok):
        lines.append(text_cases(one.rows))
        shown = []
    most = len(shown) if every_row else _SHOWN_FAILURES
    lines += map(_row_text, shown[:most])
    if len(shown) > most:
        lines.append(f"  ... {len(shown) - most} more; --rows shows all")
    if one.problem:
        lines.append(f"  stopped: {one.problem}")
    if one.outstanding:
        lines.append(f"  outstanding: {one.outstanding}")
    return "\n".join(lines)


def _row_text(row: Row) -> str:
    error = f"{100 * row.error:+.3g} %"
    return f"  {row.word:6}  {row.case}: expected {row.expected:g}, got {row.measured:g} ({error})"


def _columns(titles: Sequence[str], left: Sequence[int]) -> list[Column]:
    return [
        Column(title, lambda cells, i=i: str(cells[i]), left=i in left)  # type: ignore[misc]
        for i, title in enumerate(titles)
    ]


# --- Markdown


def claims_markdown(verdicts: Sequence[Verdict]) -> str:
    """The report: all claims in a table, then each with its errors by split and its cases."""
    parts = [
        "# Claims and evidence\n\nWritten by `accelsim validate`. "
        f"Errors are of what was simulated, relative to the truth. {ERRORS}\n\n"
        + "".join(f"- {line}\n" for line in legend(LEGEND)),
        _markdown(TITLES, map(claim_cells, verdicts), left=(0, 1, 5, 6)),
    ]
    for one in verdicts:
        parts.append(f"## {one.claim.name}\n\n{one.claim.statement} ({one.claim.source})\n")
        if one.problem:
            parts.append(f"Stopped: {one.problem}\n")
        if one.outstanding:
            parts.append(f"Outstanding: {one.outstanding}\n")
        if one.rows:
            titles, splits = split_table(one)
            parts.append(_markdown(titles, splits, left=(0, len(titles) - 1)))
            parts.append(markdown_cases(one.rows))
    return "\n".join(parts)


def _markdown(titles: Sequence[str], lines: Iterable[Cells], left: Sequence[int]) -> str:
    rule = ["---" if i in left else "--:" for i in range(len(titles))]
    rows = [titles, rule, *([cell.replace("|", "\\|") for cell in line] for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


# --- HTML


def claims_html(verdicts: Sequence[Verdict]) -> str:
    """The report as a page that needs nothing else, with scatter plots."""
    from accelsim.views.evidence import Shown, evidence_html

    shown = [
        Shown(one.claim, claim_cells(one), *split_table(one), one.rows, one.draw)
        for one in verdicts
    ]
    return evidence_html(TITLES, shown, [ERRORS, *legend(LEGEND)])
