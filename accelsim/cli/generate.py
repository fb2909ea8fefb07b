"""``accelsim generate``: a text token by token, on PIM-GPT or TransPIM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from accelsim.cli import options, terminal
from accelsim.errors import AccelsimError

if TYPE_CHECKING:
    from accelsim.system.cell_text import CellText
    from accelsim.system.generation import Generation
    from accelsim.system.token_sharding import TokenSharding

CELL_PARTS = ("weights", "moves", "products", "sums", "functions")


def generate(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A GPT of `accelsim list workloads`, e.g. gpt3-xl."),
    ],
    tokens: Annotated[
        int | None, typer.Option(metavar="N", help="Length of the text; 1024, behind a prompt 0.")
    ] = None,
    on: Annotated[
        str, typer.Option(metavar="MACHINE", help="pim-gpt, or a family: transpim.")
    ] = "pim-gpt",
    channels: Annotated[
        int | None, typer.Option(metavar="C", help="pim-gpt: channels of the memory, 8.")
    ] = None,
    asic_clock: Annotated[
        str | None, typer.Option(metavar="HZ", help="pim-gpt: the ASIC's clock, 1 GHz.")
    ] = None,
    overlap: Annotated[
        bool | None,
        typer.Option(
            "--overlap/--no-overlap", help="pim-gpt: the ASIC takes results as they come."
        ),
    ] = None,
    prompt: Annotated[
        int | None, typer.Option(metavar="L", help="transpim: tokens read first; also an encoder.")
    ] = None,
    batch: Annotated[int | None, typer.Option(metavar="B", help="transpim: texts at once.")] = None,
    dataflow: Annotated[
        str | None, typer.Option(metavar="D", help="transpim: token or layer.")
    ] = None,
    ring: Annotated[
        bool | None,
        typer.Option(
            "--ring/--no-ring", help="transpim: links between banks; layer: not unless given."
        ),
    ] = None,
    acu: Annotated[
        bool | None, typer.Option("--acu/--no-acu", help="transpim: adder trees beside banks.")
    ] = None,
    stacks: Annotated[int | None, typer.Option(metavar="S", help="transpim: stacks, 8.")] = None,
    json: options.Json = None,
) -> None:
    """Generate a text on memory that computes: PIM-GPT, or TransPIM (which also only reads)."""
    terminal.check_files(json)
    terminal.note_first_run()
    beside = {"--channels": channels, "--asic-clock": asic_clock, "--overlap": overlap}
    within = {
        "--prompt": prompt, "--batch": batch, "--dataflow": dataflow, "--ring": ring, "--acu": acu,
        "--stacks": stacks,
    }  # fmt: skip
    refuse(on, within if on == "pim-gpt" else beside)
    if on == "pim-gpt":
        made = _pim_gpt(model, tokens, channels, asic_clock, overlap)
        text, shown = made.to_dict(), summary(made)
    else:
        if tokens is None:
            tokens = 0 if prompt else 1024
        cells = _cells(on, dataflow or "token", ring, acu, stacks)
        read = _read(model, cells, prompt or 0, tokens, 1 if batch is None else batch)
        text, shown = read.to_dict(), cell_summary(read)
    if json is not None:
        terminal.write_json(json, text)
    if json != terminal.STDOUT:
        typer.echo(shown)


def refuse(on: str, given: Mapping[str, object]) -> None:
    """Raise AccelsimError for an option of the other kind of machine."""
    for name, value in given.items():
        if value is not None:
            other = "transpim" if on == "pim-gpt" else "pim-gpt"
            raise AccelsimError(f"{name} goes with --on {other}; accepted on {on}: without it")


def _pim_gpt(
    model: str,
    tokens: int | None,
    channels: int | None,
    asic_clock: str | None,
    overlap: bool | None,
) -> Generation:
    from accelsim.api import generate
    from accelsim.arch.model import parse_frequency
    from accelsim.hw.block import require
    from accelsim.system.bank_decoder import BankDecoder

    count = 8 if channels is None else channels
    require(count >= 1, f"--channels {count}; accepted: 1 and more")
    hz = parse_frequency("--asic-clock", asic_clock or "1 GHz")
    require(hz >= 1, f"--asic-clock {asic_clock}; accepted: 1 Hz and more")
    machine = BankDecoder(channels=count, asic_hz=hz, overlap=overlap is not False)
    return generate(model, machine, 1024 if tokens is None else tokens)


def _cells(
    on: str, dataflow: str, ring: bool | None, acu: bool | None, stacks: int | None
) -> TokenSharding:
    from accelsim.system.token_sharding import TokenSharding

    count = 8 if stacks is None else stacks
    linked, trees = ring is not False, acu is not False
    return TokenSharding(on, dataflow, linked, trees, count, layer_ring=ring is True)


def _read(model: str, machine: TokenSharding, prompt: int, tokens: int, batch: int) -> CellText:
    from accelsim.system.cell_text import read_and_write

    return read_and_write(model, machine, prompt, tokens, batch)


def cell_summary(found: CellText) -> str:
    """What a terminal shows."""
    lines = [f"{found.model}  batch {found.batch}    {found.machine}", ""]
    for name, count, spent in (
        ("read", found.prompt, found.read), ("written", found.tokens, found.written),
    ):  # fmt: skip
        if not count:
            continue
        parts = {part: getattr(spent, part) for part in CELL_PARTS}
        shares = "  ".join(f"{part} {100 * t / spent.seconds:.1f} %" for part, t in parts.items())
        lines += [
            f"{count:,} tokens {name}   {1e3 * spent.seconds:.4g} ms   {spent.joules:.3g} J",
            f"  {shares}",
        ]
    if found.prompt:
        lines.append(f"reading: {100 * found.utilisation:.1f} % of all lanes in products")
    return "\n".join(lines)


def summary(found: Generation) -> str:
    """What a terminal shows."""
    spent = found.spent
    per_token = f"{1e3 * found.seconds_per_token:.4g} ms/token"
    joules = f"{1e3 * found.joules / found.tokens:.4g} mJ/token   {found.watts:.3g} W"
    return "\n".join([
        f"{found.model}  {found.tokens:,} tokens  batch 1    {found.machine}",
        "",
        f"{per_token}   {1 / found.seconds_per_token:,.0f} tokens/s   {joules}",
        f"products {100 * spent.pim_seconds / found.seconds:.1f} % of the time, "
        f"ASIC busy {100 * spent.asic_seconds / found.seconds:.1f} %, "
        f"{100 * spent.row_hits:.1f} % row hits",
    ])  # fmt: skip
