"""Cases of a claim, beside what other models published for them.

One line per case: truth, what was simulated, the error, and the error of every other model; below
them the mean absolute error of each split and of each model over the cases that it covers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from accelsim.results.claims import Row, mean_error
from accelsim.results.table import Column, html_table, text_table

Cells = tuple[str, ...]


def text_cases(rows: Sequence[Row]) -> str:
    """The cases as an aligned table, indented below the claim."""
    return text_table(_columns(rows), [*_lines(rows), *_means(rows)], indent="  ")


def html_cases(rows: Sequence[Row]) -> str:
    """The cases as an HTML table."""
    return html_table(_columns(rows), [*_lines(rows), *_means(rows)])


def markdown_cases(rows: Sequence[Row]) -> str:
    """The cases as a Markdown table."""
    titles = _titles(rows)
    rule = ["---", "---", *["--:"] * (len(titles) - 2)]
    lines = [titles, rule, *_lines(rows), *_means(rows)]
    return "\n".join(f"| {' | '.join(_escaped(line))} |" for line in lines) + "\n"


def _escaped(line: Iterable[str]) -> list[str]:
    return [cell.replace("|", "\\|") for cell in line]


def _columns(rows: Sequence[Row]) -> list[Column]:
    return [
        Column(title, lambda cells, i=i: str(cells[i]), left=i < 2)  # type: ignore[misc]
        for i, title in enumerate(_titles(rows))
    ]


def model_names(rows: Sequence[Row]) -> list[str]:
    """Names of the other models, in the order in which the rows name them."""
    return list(dict.fromkeys(name for row in rows for name in row.others))


def _titles(rows: Sequence[Row]) -> Cells:
    return ("case", "split", "truth", "simulated", "error", *model_names(rows))


def _lines(rows: Sequence[Row]) -> list[Cells]:
    models = model_names(rows)
    return [
        (
            row.case, row.split, number(row.expected), number(row.measured), _signed(row.error),
            *(_prediction(row, name) for name in models),
        )
        for row in rows
    ]  # fmt: skip


def _means(rows: Sequence[Row]) -> list[Cells]:
    """Mean absolute errors, one line per split."""
    models = model_names(rows)
    lines = []
    for split in dict.fromkeys(row.split for row in rows):
        mine = [row for row in rows if row.split == split]
        means = [mean_error(mine), *(mean_error(as_model(mine, name)) for name in models)]
        lines.append(
            ("mean absolute error", split, "", f"{len(mine)} cases", *map(_percent, means))
        )
    return lines


def as_model(rows: Sequence[Row], name: str) -> list[Row]:
    """The rows that another model predicted, as it did."""
    return [
        Row(row.case, row.expected, row.others[name], split=row.split)
        for row in rows
        if name in row.others
    ]


def _prediction(row: Row, name: str) -> str:
    return " ".join(_signed(one.error) for one in as_model([row], name)) or "-"


def number(value: float) -> str:
    """Counts in full, other numbers to six digits."""
    return f"{int(value):,}" if math.isfinite(value) and value == int(value) else f"{value:,.6g}"


def _signed(error: float) -> str:
    return f"{100 * error:+.1f} %"


def _percent(error: float) -> str:
    return "-" if math.isnan(error) else f"{100 * error:.1f} %"
