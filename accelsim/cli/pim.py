"""``accelsim memory FAMILY OPERATOR``: an operator that is computed in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from accelsim.cli import terminal
from accelsim.errors import AccelsimError

if TYPE_CHECKING:
    from accelsim.hw.pim.channel.log import PimLog

FAILED = 1


def compute(
    family: str,
    operator: str,
    background: int,
    refresh: bool,
    others: Mapping[str, object],
    log: Path | None,
    check: bool,
    json: str | None,
) -> None:
    """Run, write the files, print the summary; exit 1 on a violation.

    ``others`` are options of request streams, which an operator has none of.
    """
    for name, value in others.items():
        if value is not None:
            raise AccelsimError(
                f"--{name.replace('_', '-')} goes with a request stream; "
                "accepted with an operator: --background, --refresh, --log, --check, --json"
            )
    terminal.note_first_run()
    from accelsim.api import pim_run

    run = pim_run(
        family, operator, background=background, refresh=refresh, log=log is not None, check=check
    )
    if log is not None:
        _write_log(run.logs, log, family)
    if json is not None:
        terminal.write_json(json, run.to_dict())
    if json != terminal.STDOUT:
        typer.echo(str(run), nl=False)
    if run.violations:
        raise typer.Exit(FAILED)


def _write_log(logs: tuple[PimLog, ...], file: Path, family: str) -> None:
    """One file, or one per simulated channel."""
    from accelsim.hw.pim.catalog import family as find_family
    from accelsim.hw.pim.channel.log import write_log

    for name, one in zip(terminal.channel_files(file, len(logs)), logs, strict=True):
        write_log(name, one, find_family(family))
