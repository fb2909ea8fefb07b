"""``accelsim sweep``: run every point of a design space."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from accelsim.cli import options, terminal
from accelsim.errors import AccelsimError

if TYPE_CHECKING:
    from accelsim.explore.outcome import Sweep


def sweep(
    spec: Annotated[
        Path,
        typer.Argument(
            metavar="SPEC.yaml",
            help="arch, workload, set (lists of values by path), pareto (a list of metrics).",
        ),
    ],
    executor: Annotated[str, typer.Option(metavar="NAME", help="Where points run.")] = "local",
    jobs: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Processes; default: all cores, if worth it."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR|FILE.csv", help="Keep results as they arrive.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Skip the points that --out holds.")
    ] = False,
    json: options.Json = None,
) -> None:
    """Simulate every point of a design space and show the Pareto front."""
    from accelsim.explore.spec import run_spec

    if resume and out is None:
        raise AccelsimError("--resume needs the results of an earlier sweep; accepted: --out DIR")
    terminal.check_files(json)
    terminal.note_first_run()
    found = run_spec(spec, out, resume=resume, executor=executor, jobs=jobs)
    if json is not None:
        terminal.write_json(json, _content(found))
    if json != terminal.STDOUT:
        typer.echo(f"{found}\n\n{found.pareto()}" if found.ok else str(found))
    if not found.ok:
        raise AccelsimError(f"no design ran; the first: {found.rows[0]['error']}")


def _content(found: Sweep) -> dict[str, Any]:
    return {
        "schema": 1,
        "axes": found.axes,
        "objectives": found.objectives,
        "rows": found.rows,
        "pareto": found.pareto().rows if found.ok else [],
        "wall_seconds": found.wall_seconds,
        "workers": found.workers,
    }
