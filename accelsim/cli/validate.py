"""``accelsim validate``: every claim beside its evidence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accelsim.cli import options, terminal
from accelsim.errors import AccelsimError

if TYPE_CHECKING:
    from accelsim.results.verdict import Verdict

FAILED = 1
FOLDER = Path("validation")
REPORT = "report"


def validate(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Claims; default: all.")
    ] = None,
    rows: Annotated[bool, typer.Option("--rows", help="Print every case.")] = False,
    json: options.Json = None,
    to: Annotated[
        Path,
        typer.Option(
            "--to",
            metavar="FOLDER|-",
            help="Where report.md and report.html are written, with scatter plots; - is nowhere.",
        ),
    ] = FOLDER,
    no_report: Annotated[bool, typer.Option("--no-report", help="Write no report.")] = False,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the report as Markdown here, too.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the report as HTML here, too.")
    ] = None,
) -> None:
    """Check every claim against its evidence and write a report; exit 1 if one fails.

    A claim is "ok" where all that is judged holds, and "partly" where published figures are missed
    beside it, as the claim says: those do not fail it.
    """
    from accelsim.results.claims import claim_names

    wanted = list(dict.fromkeys(names or claim_names()))
    if not wanted:
        raise AccelsimError("this installation holds no claims")
    for name in wanted:
        _known(name)
    folder = None if no_report or str(to) == terminal.STDOUT else to
    terminal.check_folder(folder)
    texts = [one for one in (markdown, folder and folder / f"{REPORT}.md") if one]
    pages = [one for one in (html, folder and folder / f"{REPORT}.html") if one]
    terminal.check_files(json, *texts, *pages)
    verdicts = _judged(wanted)
    _write(verdicts, texts, pages)
    ok = not any(one.fails for one in verdicts)
    if json is not None:
        content = {"schema": 1, "ok": ok, "claims": [one.to_dict() for one in verdicts]}
        terminal.write_json(json, content)
    if json != terminal.STDOUT:
        from accelsim.views.claims import claims_text

        typer.echo(claims_text(verdicts, rows))
        if folder is not None:
            typer.echo(f"\nreport: {texts[-1]}, {pages[-1]}")
    if not ok:
        raise typer.Exit(FAILED)


def _known(name: str) -> None:
    from accelsim.arch.faults import unknown
    from accelsim.results.claims import claim_names

    if name not in claim_names():
        raise AccelsimError(unknown("claim", name, claim_names()))


def _judged(names: list[str]) -> list[Verdict]:
    from accelsim.results.claims import evidence
    from accelsim.results.verdict import judge

    verdicts = []
    with terminal.working() as progress:
        for i, name in enumerate(names):
            if progress:
                progress(name, i, len(names))
            verdicts.append(judge(evidence(name)))
    return verdicts


def _write(verdicts: list[Verdict], texts: list[Path], pages: list[Path]) -> None:
    from accelsim.views.claims import claims_html, claims_markdown

    if texts:
        content = claims_markdown(verdicts)
        for file in texts:
            terminal.write_text(file, content)
    if pages:
        content = claims_html(verdicts)
        for file in pages:
            terminal.write_text(file, content)
