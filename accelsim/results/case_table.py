"""Cases of a claim that is judged by its mean error, beside what other models published for them.

One line per case: truth, what was simulated, the error, and the error of every other model; below
them the mean absolute error of each split and of each model over the cases that it covers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _columns(rows: Sequence[Row]) -> list[Column]:
    return [
        Column(title, lambda cells, i=i: str(cells[i]), left=i < 2)  # type: ignore[misc]
        for i, title in enumerate(_titles(rows))
    ]


def _models(rows: Sequence[Row]) -> list[str]:
    """Names of the other models, in the order in which the rows name them."""
    return list(dict.fromkeys(name for row in rows for name in row.others))


def _titles(rows: Sequence[Row]) -> Cells:
    return ("case", "split", "truth", "simulated", "error", *_models(rows))


def _lines(rows: Sequence[Row]) -> list[Cells]:
    models = _models(rows)
    return [
        (
            row.case, row.split, f"{row.expected:,g}", f"{row.measured:,g}", _signed(row.error),
            *(_signed(one.error) if (one := _as_model(row, name)) else "-" for name in models),
        )
        for row in rows
    ]  # fmt: skip


def _means(rows: Sequence[Row]) -> list[Cells]:
    """Mean absolute errors, one line per split."""
    models = _models(rows)
    lines = []
    for split in dict.fromkeys(row.split for row in rows):
        mine = [row for row in rows if row.split == split]
        others = [[one for row in mine if (one := _as_model(row, name))] for name in models]
        means = [mean_error(mine), *(mean_error(cases) for cases in others)]
        lines.append(
            ("mean absolute error", split, "", f"{len(mine)} cases", *map(_percent, means))
        )
    return lines


def _as_model(row: Row, name: str) -> Row | None:
    """The row as another model predicted it, None if it did not."""
    if name not in row.others:
        return None
    return Row(row.case, row.expected, row.others[name], split=row.split)


def _signed(error: float) -> str:
    return f"{100 * error:+.1f} %"


def _percent(error: float) -> str:
    return "-" if math.isnan(error) else f"{100 * error:.1f} %"
