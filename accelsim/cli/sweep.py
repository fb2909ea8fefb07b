"""``accelsim sweep``: run every point of a design space."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from accelsim.cli import options
from accelsim.errors import AccelsimError


def sweep(
    spec: Annotated[Path, typer.Argument(metavar="SPEC.yaml", help="The design space.")],
    executor: Annotated[str, typer.Option(metavar="NAME", help="Where points run.")] = "local",
    jobs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Points at a time; default: all cores.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Keep every result here.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Skip points that DIR has.")] = False,
    json: options.Json = None,
) -> None:
    """Simulate every point of a design space and show the Pareto front."""
    raise AccelsimError("sweeps are not part of this version")
