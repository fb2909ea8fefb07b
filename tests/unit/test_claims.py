"""What rows and claims are called: what is judged and holds, what is missed, what is shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from accelsim.cli.main import app
from accelsim.results import claims
from accelsim.results.claims import Claim, Row
from accelsim.results.verdict import Verdict
from accelsim.views.claims import (
    LEGEND,
    claim_cells,
    claims_html,
    claims_markdown,
    claims_text,
    error_text,
)

HELD = Row("held", 2.0, 2.1, split="gain")
MISSED = Row("missed by far", 3.0, 0.75, split="gain: missed")
TOLD = Row("told beside", 1.0, 9.0, split="shown: others")
FAILS = Row("fails", 1.0, 2.0, ok=False, split="gain")


def verdict(*rows: Row, mean_of: str = "") -> Verdict:
    return Verdict(Claim("one", "what is claimed", "a paper", 0.1, mean_of), rows)


def lines(text: str) -> dict[str, str]:
    """First words of the lines that tell a row, by its case."""
    told = [line.strip() for line in text.splitlines() if ": expected" in line]
    return {line.split(":")[0].split("  ")[-1].strip(): line.split()[0] for line in told}


def test_a_row_that_is_missed_or_not_judged_is_never_ok() -> None:
    assert [row.word for row in (HELD, MISSED, TOLD, FAILS)] == ["ok", "missed", "shown", "FAILED"]
    text = claims_text([verdict(HELD, MISSED, TOLD)], every_row=True)
    assert lines(text) == {"held": "ok", "missed by far": "missed", "told beside": "shown"}
    for word in ("ok", "missed", "shown", "partly"):
        assert f"\n{word}: {LEGEND[word]}" in text


def test_the_verdict_of_a_claim_with_misses_is_partly() -> None:
    assert verdict(HELD, MISSED, MISSED).word == "partly, 2 missed"
    assert verdict(HELD, TOLD).word == "ok"
    assert verdict(HELD, MISSED, FAILS).word == "FAILED"
    assert verdict(HELD, MISSED).ok
    assert not verdict(HELD, MISSED).fails
    assert "partly" not in claims_text([verdict(HELD)], every_row=True)


@pytest.mark.parametrize(
    ("rows", "mean_of", "said"),
    [
        ((HELD, TOLD), "", "5 %"),
        ((HELD, MISSED, TOLD), "", "5 %; missed: 75 %"),
        ((HELD, MISSED), "gain", "5 % mean of gain; missed: 75 %"),
        # The nearest figure of a published range is no exact one.
        ((Row("inside", 2.0, 2.0, split="gain"), MISSED), "gain", "0 % mean of gain; missed: 75 %"),
        ((Row("equal", 2.0, 2.0), Row("equal", 1.0, 1.0)), "", "exact"),
    ],
)
def test_the_error_is_that_of_what_is_judged_and_says_what_is_missed(
    rows: tuple[Row, ...], mean_of: str, said: str
) -> None:
    one = verdict(*rows, mean_of=mean_of)
    assert error_text(one) == said
    assert claim_cells(one)[3] == said


def test_every_report_says_what_the_words_mean() -> None:
    one = verdict(HELD, MISSED)
    for report in (claims_markdown([one]), claims_html([one])):
        assert "partly, 1 missed" in report
        assert LEGEND["partly"] in report
        assert LEGEND["missed"] in report


def test_missed_figures_do_not_fail_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows() -> Iterator[Row]:
        yield from (HELD, MISSED, TOLD)

    one = SimpleNamespace(CLAIM=verdict().claim, rows=rows)
    monkeypatch.setattr(claims, "evidence", lambda _: one)
    done = CliRunner().invoke(app, ["validate", "neupims", "--no-report", "--json", "-"])
    assert done.exit_code == 0, done.output
    content = json.loads(done.stdout)
    told = content["claims"][0]
    assert (content["ok"], told["ok"]) == (True, True)
    assert (told["verdict"], told["missed"]) == ("partly, 1 missed", 1)
    assert told["worst_error"] == pytest.approx(0.05)
    assert told["worst_missed_error"] == pytest.approx(0.75)
    assert [row["verdict"] for row in told["rows"]] == ["ok", "missed", "shown"]
