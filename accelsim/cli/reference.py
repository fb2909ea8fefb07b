"""``accelsim check --reference golden|gpu``: a program's bits beside those of a real GPU."""

from __future__ import annotations

from dataclasses import asdict
from importlib import import_module
from typing import TYPE_CHECKING, Any

import typer

from accelsim.cli import terminal
from accelsim.errors import AccelsimError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from accelsim.arch.model import Architecture
    from accelsim.workload.graph import Graph

MODULE = "accelsim.validation.gpu.reference"
FLOAT64, REFERENCES = "float64", ("float64", "golden", "gpu")


def known(reference: str) -> str:
    """The reference asked for; AccelsimError naming those that there are."""
    if reference not in REFERENCES:
        raise AccelsimError(f"unknown reference {reference!r}; accepted: {', '.join(REFERENCES)}")
    return reference


def check(
    arch: Architecture, graph: Graph, reference: str, mappers: Sequence[str], fidelity: str,
    orders: Sequence[str], json: str | None,
) -> bool:  # fmt: skip
    """Compare, say what was found, and whether all bits are the same."""
    compare = import_module(MODULE).check
    found: list[Any] = []
    for order in orders:
        found += compare(arch, graph, reference, mappers, fidelity, order)
    ok = all(one.ok for one in found)
    if json is not None:
        content = {"schema": 1, "arch": arch.name, "reference": reference, "ok": ok}
        terminal.write_json(json, {**content, "operators": [asdict(one) for one in found]})
    if json != terminal.STDOUT:
        typer.echo(_text(found, ok))
    return ok


def _text(found: Sequence[Any], ok: bool) -> str:
    from accelsim.results.table import Column, text_table

    columns = (
        Column("operator", lambda row: row.operator, left=True),
        Column("reference", lambda row: row.reference, left=True),
        Column("compared", lambda row: f"{row.compared:,}"),
        Column("differing", lambda row: f"{row.differing:,}"),
        Column("arithmetic", lambda row: row.arithmetic, left=True),
        Column("order", lambda row: row.order, left=True),
    )
    compared, differing = (sum(getattr(one, x) for one in found) for x in ("compared", "differing"))
    lines = [f"{'OK' if ok else 'WRONG'}: {differing:,} of {compared:,} outputs differ in bits"]
    lines += [f"first: {one.first}" for one in found if one.first][:1]
    return text_table(columns, found) + "\n\n" + "\n".join(lines)
