"""``accelsim import``: bring an existing configuration or model, see what was read, and run it."""

from __future__ import annotations

import shlex
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from accelsim.cli import terminal
from accelsim.errors import AccelsimError

if TYPE_CHECKING:
    from accelsim.arch.model import Architecture
    from accelsim.results.scalesim_reports import LayerReport
    from accelsim.results.scalesim_sparse import Representation
    from accelsim.workload.graph import Graph
    from accelsim.workload.scalesim import ScaleSimConfig
    from accelsim.workload.transformer_config import TransformerConfig

app = typer.Typer(
    help="Bring an existing configuration or model.", no_args_is_help=True, add_completion=False
)

FORMS = ("auto", "conv", "gemm")


@app.command("scalesim")
def scalesim(
    cfg: Annotated[Path, typer.Argument(metavar="CFG", help="A .cfg file of SCALE-Sim v2 or v3.")],
    topology: Annotated[Path, typer.Argument(metavar="TOPOLOGY", help="Its topology CSV.")],
    input_type: Annotated[
        str, typer.Option("--input-type", "-i", metavar="gemm|conv", help="Default: by header.")
    ] = "auto",
    layout: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Accepted and not read.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.yaml", help="Write the architecture.")
    ] = None,
    run: Annotated[bool, typer.Option("--run/--no-run", help="Run as SCALE-Sim would.")] = True,
    scalesim_reports: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write its reports to DIR/run_name.")
    ] = None,
) -> None:
    """Read a SCALE-Sim configuration and topology, and run them as SCALE-Sim does."""
    from accelsim.results.scalesim_reports import check_reportable
    from accelsim.workload import read_scalesim_config, read_topology

    if input_type not in FORMS:
        raise AccelsimError(f"unknown input type {input_type!r}; accepted: {', '.join(FORMS)}")
    config = read_scalesim_config(cfg)
    arch = scalesim_arch(config)
    layer_wise = config.sparsity_support and not config.optimized_mapping
    graph = read_topology(topology, form=input_type, sparse=layer_wise)
    terminal.check_files(out)
    folder = _report_folder(scalesim_reports, config)
    if folder is not None and run:
        check_reportable(graph, arch, "ideal")
        terminal.check_folder(folder)
    typer.echo(_machine_text(config, arch, graph))
    if out is not None:
        _write_arch(arch, out, cfg)
        typer.echo(f"wrote {out}")
        typer.echo(f"  accelsim run {_quoted(out)} {_quoted(topology)} --memory ideal")
    if run:
        representation = cast("Representation", config.sparse_rep)
        typer.echo(f"\n{_run(graph, arch, folder, representation)}")


def scalesim_arch(config: ScaleSimConfig) -> Architecture:
    """The architecture ``systolic`` with the parameters of a SCALE-Sim configuration.

    Folds are drained one by one; words are bytes, a kB is 1024 of them; a given bandwidth in words
    per cycle becomes that of the main memory.
    """
    from accelsim.api import as_arch

    overrides: dict[str, object] = {
        "array.rows": config.array_height,
        "array.cols": config.array_width,
        "array.dataflow": config.dataflow,
        "array.pipelined": False,
        "ifmap.capacity": config.ifmap_sram_kb * 1024,
        "filter.capacity": config.filter_sram_kb * 1024,
        "ofmap.capacity": config.ofmap_sram_kb * 1024,
    }
    arch = as_arch("systolic")
    if config.bandwidths:
        overrides["dram.bandwidth"] = round(config.bandwidths[0] * arch.clocks["core"])
    return arch.override(overrides)


def _report_folder(given: Path | None, config: ScaleSimConfig) -> Path | None:
    """Where SCALE-Sim would write: a folder of the run's name."""
    if given is None:
        return None
    if Path(config.run_name).name != config.run_name:
        raise AccelsimError(f"run_name {config.run_name!r} is no folder name; accepted: one word")
    return given / config.run_name


def _machine_text(config: ScaleSimConfig, arch: Architecture, graph: Graph) -> str:
    lines = [
        f"{config.array_height} x {config.array_width} array, {config.dataflow}, drained per fold;"
        f" SRAM ifmap {config.ifmap_sram_kb} kB, filter {config.filter_sram_kb} kB,"
        f" ofmap {config.ofmap_sram_kb} kB",
        f"{graph.name}: {len(graph)} layers, {graph.macs:,} multiply-accumulates",
    ]
    ignored = {
        "InterfaceBandwidth USER (stalls)": config.interface_bandwidth == "USER",
        "custom layouts": config.ifmap_custom_layout or config.filter_custom_layout,
        "the Ramulator trace": config.use_ramulator_trace,
        "row-wise sparsity": config.sparsity_support and config.optimized_mapping,
    }
    lines += [f"not modelled: {what}" for what, given in ignored.items() if given]
    return "\n".join(lines)


def _write_arch(arch: Architecture, out: Path, cfg: Path) -> None:
    import yaml

    content = {key: value for key, value in arch.to_dict().items() if value not in ({}, [], "")}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    terminal.write_text(out, f"# Imported from {cfg.name} (SCALE-Sim).\n{text}")


def _run(
    graph: Graph, arch: Architecture, folder: Path | None, representation: Representation
) -> str:
    from accelsim.results.scalesim_reports import layer_reports, write_reports
    from accelsim.simulation import simulate_graph

    with terminal.working() as progress:
        result = simulate_graph(graph, arch, "ideal", progress=progress)
    if folder is None:
        try:
            return _layers_text(layer_reports(result))
        except AccelsimError as fault:  # batches, groups: what SCALE-Sim has no report for
            cycles = "\n".join(f"{op.name}  {op.cycles:,.0f} cycles" for op in result.operators)
            return f"{cycles}\nall layers  {result.cycles:,} cycles ({fault})"
    layers = write_reports(result, folder, representation)
    return f"{_layers_text(layers)}\nreports in {folder}"


def _layers_text(layers: list[LayerReport]) -> str:
    from accelsim.results.table import Column, text_table

    columns = (
        Column("LayerID", lambda row: f"{row[0]}"),
        Column("layer", lambda row: row[1].name, left=True),
        Column("Total Cycles", lambda row: f"{row[1].total_cycles}"),
        Column("Overall Util %", lambda row: f"{row[1].overall_utilization:.2f}"),
        Column("Mapping Efficiency %", lambda row: f"{row[1].mapping_efficiency:.2f}"),
        Column("Compute Util %", lambda row: f"{row[1].compute_utilization:.2f}"),
    )
    total = sum(layer.total_cycles for layer in layers)
    return f"{text_table(columns, list(enumerate(layers)))}\nTotal Cycles of all layers: {total}"


@app.command("hf")
def huggingface(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG_JSON", help="A config.json, or its folder.")
    ],
) -> None:
    """Read a Hugging Face configuration: what the model is, and how to run it."""
    from accelsim.workload import read_config

    file = config / "config.json" if config.is_dir() else config
    model = read_config(file)
    typer.echo(_model_text(model))
    typer.echo("\nto run it:")
    for settings in _passes(model):
        typer.echo(f"  accelsim run tpu-v3 {_quoted(file)}:{settings}")


def _model_text(model: TransformerConfig) -> str:
    size = f"{model.parameters:,} parameters, {model.layer_parameters:,} per layer"
    lines = [f"{model.name}: {model.family}, {size}"]
    width = max(len(field.name) for field in fields(model))
    lines += [
        f"  {field.name:{width}}  {_value(getattr(model, field.name))}"
        for field in fields(model)
        if field.name not in ("name", "family")
    ]
    return "\n".join(lines)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def _passes(model: TransformerConfig) -> tuple[str, ...]:
    """Settings of the passes that the model knows, within its length."""
    length = min(model.positions, model.sliding_window or model.positions)
    if not model.causal:
        return (f"batch=8,tokens={min(512, length)}",)
    return (
        f"phase=prefill,tokens={min(2048, length)}",
        f"phase=decode,batch=16,context={min(2048, length)}",
    )


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
