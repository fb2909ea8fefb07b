"""``accelsim check``: execute the program that would be timed, and compare every number."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from accelsim.cli import options, reference, terminal
from accelsim.errors import AccelsimError

if TYPE_CHECKING:
    from accelsim.functional.check import Check, OperatorCheck

FAILED = 1
_ORDERS = {"clock": ("clock",), "program": ("program",), "both": ("program", "clock")}


def check(
    arch: options.Arch,
    workload: options.Workload,
    sets: options.Sets = None,
    mapper: options.Mappers = None,
    memory: options.Memory = "bandwidth",
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of the random tensors.")] = 0,
    scale: Annotated[
        float,
        typer.Option(metavar="X", help="Multiplies the values: 16 and 0.015 find other mistakes."),
    ] = 1.0,
    order: Annotated[
        str,
        typer.Option(
            metavar="clock|program|both",
            help="Execute as the engine scheduled it, as the mapper wrote it, or both.",
        ),
    ] = "clock",
    against: Annotated[
        str,
        typer.Option(
            "--reference",
            metavar="float64|golden|gpu",
            help="Compare with float64 inside bounds, or bit for bit with recorded outputs of a"
            " GPU, or with this machine's.",
        ),
    ] = reference.FLOAT64,
    json: options.Json = None,
) -> None:
    """Execute a workload on numbers and compare with a reference; exit 1 on any mismatch, and where
    no finite bound is known of what differs (softmax at a large --scale)."""
    from accelsim import api

    terminal.check_files(json)
    reference.known(against)
    if against != reference.FLOAT64 and (seed or scale != 1.0):
        raise AccelsimError(f"--seed and --scale: operands of --reference {against} are its own")
    if order not in _ORDERS:
        raise AccelsimError(f"unknown order {order!r}; accepted: {', '.join(_ORDERS)}")
    fidelity = options.fidelity(memory)
    machine, mappers = api.as_arch(arch, options.overrides(sets)), options.mapper_names(mapper)
    graph = api.as_graph(workload)
    if against != reference.FLOAT64:
        if not reference.check(machine, graph, against, mappers, fidelity, _ORDERS[order], json):
            raise typer.Exit(FAILED)
        return
    checks = []
    with terminal.working() as progress:
        for i, one in enumerate(_ORDERS[order]):
            if progress:
                progress(f"checking in {one} order", i, len(_ORDERS[order]))
            checks.append(
                api.check(
                    machine,
                    graph,
                    seed=seed,
                    order=one,
                    mapper=mappers,
                    memory=fidelity,
                    scale=scale,
                )
            )
    ok = all(one.ok for one in checks)
    if json is not None:
        terminal.write_json(json, _content(machine.name, workload, seed, checks))
    if json != terminal.STDOUT:
        typer.echo(_text(checks))
    if not ok:
        raise typer.Exit(FAILED)


def _content(arch: str, workload: str, seed: int, checks: list[Check]) -> dict[str, object]:
    return {
        "schema": 1,
        "arch": arch,
        "workload": workload,
        "seed": seed,
        "ok": all(one.ok for one in checks),
        "checks": [asdict(one) for one in checks],
    }


def _text(checks: list[Check]) -> str:
    return "\n\n".join(part for one in checks for part in (_table(one), _verdict(one)))


def _table(one: Check) -> str:
    from accelsim.results.table import Column, text_table

    columns = (
        Column("operator", lambda row: row.name, left=True),
        Column("kind", lambda row: row.kind, left=True),
        Column("compared", lambda row: f"{row.compared:,}"),
        Column("mismatches", lambda row: f"{row.mismatches:,}"),
        Column("max error/bound", _ratio),
        Column("arithmetic", lambda row: row.arithmetic, left=True),
        Column("reduction", lambda row: row.reduction, left=True),
    )
    return text_table(columns, one.operators)


def _ratio(row: OperatorCheck) -> str:
    return f"{row.max_error_over_bound:.2g}" if row.max_error_over_bound else "exact"


def _verdict(one: Check) -> str:
    compared = sum(row.compared for row in one.operators)
    word = "OK" if one.ok else "NOT JUDGED" if one.unjudged and not one.mismatches else "WRONG"
    lines = [
        f"{word}: {one.mismatches:,} of {compared:,} elements differ, executed in {one.order} order"
    ]
    if one.unjudged:
        lines.append(
            f"not judged: {one.unjudged:,} elements of which no finite bound is known with these"
            " values; accepted: a smaller --scale, or a mapper that keeps its sums in fp32"
        )
    if one.first is not None:
        lines.append(f"first: {one.first}")
    if overflowed := sum(row.overflowed for row in one.operators):
        lines.append(
            f"note: {overflowed:,} elements are infinite, as they should be of such values: they"
            " test little, and what follows them less; accepted: a smaller --scale"
        )
    if one.loose:
        lines.append("note: nothing came within 1 % of its bound, so the bounds test little here")
    if one.unchecked:
        lines.append(f"not checked: {', '.join(one.unchecked)}")
    return "\n".join(lines)
