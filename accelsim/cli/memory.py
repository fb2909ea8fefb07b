"""``accelsim memory``: a request stream on a DRAM device, or an operator that is computed in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accelsim.cli import options, terminal
from accelsim.errors import AccelsimError

if TYPE_CHECKING:
    from accelsim.hw.dram.run import MemoryRun

FAILED = 1
STREAM, INJECT, SEED = "seq_read", "saturating", 42
"""Of a request stream for which nothing else is said."""
_SWITCH = {"on": True, "off": False}


def memory(
    device: Annotated[
        str,
        typer.Argument(
            metavar="DEVICE",
            help="A device from `accelsim list memories`, FILE.yaml:NAME, or DRAMsim3's FILE.ini; "
            "or a PIM family.",
        ),
    ],
    operator: Annotated[
        str | None,
        typer.Argument(
            metavar="[OPERATOR]",
            help="In a PIM family: gemv:m=1024,n=512, logit:tokens=256,heads=8, attend:..., "
            "attention:..., add:n=4096, mul:, relu:, mad: (hbm-pim), "
            "ewmul:, ewadd:, af:, copy: (aim).",
        ),
    ] = None,
    stream: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="seq_read, seq_write, rand_read, strided, mix21_seq, mix21_rand, or a trace file.",
            show_default=STREAM,
        ),
    ] = None,
    requests: Annotated[
        int | None,
        typer.Option(metavar="N", help="Bursts: 100,000, or the whole trace, if not given."),
    ] = None,
    inject: Annotated[
        str | None,
        typer.Option(
            metavar="saturating|qd1",
            help="All requests at once, or one after the other.",
            show_default=INJECT,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", help="Of random streams.", show_default=str(SEED)),
    ] = None,
    mapping: Annotated[
        str | None,
        typer.Option(
            metavar="FIELDS", help="Address fields from the top, e.g. RoBaRaCoCh, RoRaBaCoBgCh."
        ),
    ] = None,
    hashing: Annotated[
        bool, typer.Option("--hashing", help="Permute banks and channels by the row.")
    ] = False,
    channels: Annotated[
        int | None, typer.Option(metavar="C", help="Channels of the device.")
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Queues: window, per-bank (DRAMsim3) or first-ready (Ramulator)."
        ),
    ] = None,
    page: Annotated[
        str | None, typer.Option(metavar="open|closed", help="Keep rows open, or precharge.")
    ] = None,
    window: Annotated[
        int | None, typer.Option(metavar="N", help="Reads among which is reordered.")
    ] = None,
    hit_cap: Annotated[
        int | None,
        typer.Option(metavar="N", help="Hits of a row before an older request (window, per-bank)."),
    ] = None,
    refresh: Annotated[str, typer.Option(metavar="on|off", help="Refresh in time.")] = "on",
    log: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write every command; compressed if FILE ends in .gz."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Check every command; exit 1 on a violation.")
    ] = False,
    background: Annotated[
        int, typer.Option(metavar="N", help="Reads under way beside a PIM operator.")
    ] = 0,
    json: options.Json = None,
) -> None:
    """Drive a memory by a request stream, or compute an operator in it."""
    if log is not None and str(log) == terminal.STDOUT:
        raise AccelsimError("only --json writes to stdout (-); accepted: the name of a file")
    terminal.check_files(json, log)
    if refresh not in _SWITCH:
        raise AccelsimError(f"unknown refresh {refresh!r}; accepted: {', '.join(_SWITCH)}")
    settings = {"policy": policy, "page": page, "window": window, "hit_cap": hit_cap}
    if operator is not None:
        others = {
            "stream": stream, "requests": requests, "inject": inject, "seed": seed,
            "mapping": mapping, "hashing": hashing or None, "channels": channels, **settings,
        }  # fmt: skip
        from accelsim.cli.pim import compute

        compute(device, operator, background, _SWITCH[refresh], others, log, check, json)
        return
    _check_stream(device, background)
    terminal.note_first_run()
    from accelsim.api import memory_stream

    run = memory_stream(
        device,
        STREAM if stream is None else stream,
        requests,
        inject=inject or INJECT,
        seed=SEED if seed is None else seed,
        mapping=mapping,
        hashing=hashing,
        channels=channels,
        log=log is not None,
        check=check,
        refresh=_SWITCH[refresh],
        **{name: value for name, value in settings.items() if value is not None},
    )
    if log is not None:
        _write_logs(run, log)
    if json is not None:
        terminal.write_json(json, run.to_dict())
    if json != terminal.STDOUT:
        typer.echo(str(run), nl=False)
    if run.violations:
        raise typer.Exit(FAILED)


def _check_stream(device: str, background: int) -> None:
    """What only an operator in memory has does not go with a stream."""
    from accelsim.hw.pim.catalog import list_families

    if device in list_families():
        raise AccelsimError(
            f"{device} computes in memory; accepted: an operator after it, gemv:m=1024,n=512"
        )
    if background:
        raise AccelsimError("--background goes with an operator; accepted: --stream, --requests")


def _write_logs(run: MemoryRun, file: Path) -> None:
    """One file, or one per channel."""
    from accelsim.hw.dram.log import write_log

    for name, log in zip(terminal.channel_files(file, run.channels), run.logs, strict=True):
        write_log(name, log)
