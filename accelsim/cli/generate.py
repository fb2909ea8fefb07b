"""``accelsim generate``: a text token by token, on PIM-GPT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from accelsim.cli import options, terminal

if TYPE_CHECKING:
    from accelsim.system.generation import Generation


def generate(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A GPT of `accelsim list workloads`, e.g. gpt3-xl."),
    ],
    tokens: Annotated[int, typer.Option(metavar="N", help="Length of the text.")] = 1024,
    channels: Annotated[int, typer.Option(metavar="C", help="Channels of the memory.")] = 8,
    asic_clock: Annotated[
        str, typer.Option(metavar="HZ", help="Clock of the ASIC beside it: 1 GHz, 100 MHz.")
    ] = "1 GHz",
    overlap: Annotated[
        bool, typer.Option("--overlap/--no-overlap", help="The ASIC takes results as they come.")
    ] = True,
    json: options.Json = None,
) -> None:
    """Generate a text on PIM-GPT: memory channels that compute, and an ASIC."""
    terminal.check_files(json)
    terminal.note_first_run()
    from accelsim.api import generate
    from accelsim.arch.model import parse_frequency
    from accelsim.hw.block import require
    from accelsim.system.bank_decoder import BankDecoder

    require(channels >= 1, f"--channels {channels}; accepted: 1 and more")
    hz = parse_frequency("--asic-clock", asic_clock)
    machine = BankDecoder(channels=channels, asic_hz=hz, overlap=overlap)
    found = generate(model, machine, tokens)
    if json is not None:
        terminal.write_json(json, found.to_dict())
    if json != terminal.STDOUT:
        typer.echo(summary(found))


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
