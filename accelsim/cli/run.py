"""``accelsim run``: simulate one workload on one architecture. ``accelsim warmup``: compile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accelsim.cli import options, terminal
from accelsim.errors import AccelsimError

if TYPE_CHECKING:
    from accelsim.results.result import Result


def run(
    arch: options.Arch,
    workload: options.Workload,
    sets: options.Sets = None,
    mapper: options.Mappers = None,
    memory: options.Memory = "bandwidth",
    json: options.Json = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write an HTML report.")
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="Write a timeline for ui.perfetto.dev."),
    ] = None,
    listing: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the tile program as text.")
    ] = None,
    scalesim_reports: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write SCALE-Sim's report files.")
    ] = None,
    max_instructions: options.MaxInstructions = None,
    compose: Annotated[
        bool,
        typer.Option(" /--no-compose", help="Simulate identical layers one by one."),
    ] = True,
) -> None:
    """Simulate a workload: time, traffic, energy, and what limits it."""
    from accelsim.api import as_arch, as_graph
    from accelsim.program.builder import DEFAULT_INSTRUCTION_LIMIT
    from accelsim.simulation import simulate_graph

    for file in (report, trace, listing):
        if file is not None and str(file) == terminal.STDOUT:
            raise AccelsimError("only --json writes to stdout (-); accepted: the name of a file")
    terminal.check_files(json, report, trace, listing)
    terminal.check_folder(scalesim_reports)
    fidelity = options.fidelity(memory)
    machine, mappers = as_arch(arch, options.overrides(sets)), options.mapper_names(mapper)
    graph = as_graph(workload)
    if scalesim_reports is not None:
        from accelsim.results.scalesim_reports import check_reportable

        check_reportable(graph, machine, fidelity)
    with terminal.working() as progress:
        result = simulate_graph(
            graph,
            machine,
            fidelity,
            mappers,
            compose=compose,
            instruction_limit=max_instructions or DEFAULT_INSTRUCTION_LIMIT,
            progress=progress,
        )
    _write_files(result, report, trace, listing, scalesim_reports)
    _print(result, json)


def _write_files(
    result: Result,
    report: Path | None,
    trace: Path | None,
    listing: Path | None,
    scalesim_reports: Path | None,
) -> None:
    if report is not None:
        from accelsim.views.report import write_report

        write_report(result, report)
    if trace is not None:
        from accelsim.views.trace import write_trace

        write_trace(result, trace)
    if listing is not None:
        _write_listing(result, listing)
    if scalesim_reports is not None:
        from accelsim.results.scalesim_reports import write_reports

        write_reports(result, scalesim_reports)


def _write_listing(result: Result, file: Path) -> None:
    """The programs of all segments, one after the other."""
    from accelsim.program.listing import lines

    with file.open("w", encoding="utf-8") as out:
        for run in result.segments:
            times = f", {run.repeat} times" if run.repeat > 1 else ""
            out.write(f"# segment {run.name}{times}\n")
            out.writelines(f"{line}\n" for line in lines(run.bound.program))


def _print(result: Result, json: str | None) -> None:
    if json is not None:
        terminal.write_json(json, result.to_dict())
    if json != terminal.STDOUT:
        from accelsim.views.summary import summary

        typer.echo(summary(result), nl=False)


def warmup(memory: options.Memory = "bandwidth") -> None:
    """Compile what simulations need, so that the first one starts at once.

    With --memory dram the channels of DRAM are compiled, too, and those whose banks compute:
    minutes.
    """
    import time

    from accelsim.api import check, simulate
    from accelsim.results.scalesim_reports import layer_reports

    began, fidelity = time.perf_counter(), options.fidelity(memory)
    for dtype in ("bf16", "int8"):
        check("systolic", f"gemm:m=8,n=8,k=8,dtype={dtype}")
    drained = simulate(
        "systolic",
        "conv2d:h=4,w=4,cin=2,fh=2,fw=2,cout=2",
        memory="ideal",
        overrides={"array.pipelined": False},
    )
    layer_reports(drained)
    if fidelity == "dram":
        simulate("hbm-npu", "gemm:m=8,n=8,k=8", memory=fidelity)
        simulate("neupims", "gemv:n=64,k=64", memory=fidelity, mapper="pim-gemv")
    typer.echo(f"compiled in {time.perf_counter() - began:.1f} s")
