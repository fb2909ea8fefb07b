"""The program ``accelsim``: its commands, its exit codes, and every error as one line.

Exit codes: 0 done, 1 a check or claim failed, 2 bad input, 70 a defect of accelsim, 130
interrupted, 141 nobody reads the output any more.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from accelsim import AccelsimError, __version__, _jit
from accelsim.cli import check, generate, importing, library, memory, run, sweep, validate

BAD_INPUT, DEFECT, INTERRUPTED, BROKEN_PIPE = 2, 70, 130, 141
TRACEBACK = "ACCELSIM_TRACEBACK"


class _Commands(TyperGroup):
    """All commands behind one boundary: what goes wrong becomes one line and an exit code."""

    def make_context(self, *args: Any, **extra: Any) -> Any:
        try:
            return super().make_context(*args, **extra)
        except Exception as fault:
            if not _is_usage_error(fault):
                raise
            raise typer.Exit(_usage(fault)) from None

    def invoke(self, ctx: Any) -> Any:
        try:
            done = super().invoke(ctx)
            sys.stdout.flush()  # a reader that is gone shows here, not while Python shuts down
        except BaseException as fault:
            code = _exit_code(fault)
            if code is None:
                raise
            raise typer.Exit(code) from None
        return done


def _exit_code(fault: BaseException) -> int | None:
    """Say what went wrong and return the exit code; None for what the command parser handles."""
    if _is_usage_error(fault):
        return _usage(fault)
    if isinstance(fault, (typer.Abort, SystemExit, GeneratorExit)) or hasattr(fault, "exit_code"):
        return None
    if isinstance(fault, BrokenPipeError):
        _discard_output()
        return BROKEN_PIPE
    if isinstance(fault, KeyboardInterrupt):
        sys.stderr.write(f"accelsim: {fault}\n" if str(fault) else "")
        return INTERRUPTED
    if os.environ.get(TRACEBACK, "") not in ("", "0"):
        traceback.print_exception(fault)
    message, code = _explain(fault)
    sys.stderr.write(f"accelsim: error: {' '.join(message.split())}\n")
    return code


def _is_usage_error(fault: BaseException) -> bool:
    """An unknown option or a missing argument, as the parser raises it (help on no arguments is
    no error)."""
    return hasattr(fault, "format_message") and "NoArgsIsHelp" not in type(fault).__name__


def _usage(fault: Any) -> int:
    context = getattr(fault, "ctx", None)
    command = context.command_path if context is not None else "accelsim"
    message = " ".join(str(fault.format_message()).split()).rstrip(".")
    sys.stderr.write(f"accelsim: error: {message}; see `{command} --help`\n")
    return BAD_INPUT


def _explain(fault: BaseException) -> tuple[str, int]:
    if isinstance(fault, AccelsimError):
        return str(fault), BAD_INPUT
    if isinstance(fault, OSError) and fault.strerror:
        if fault.filename is None:  # stdout, which would fail once more when Python shuts down
            _discard_output()
        return f"{fault.filename or 'output'}: {fault.strerror}", BAD_INPUT
    if isinstance(fault, MemoryError):
        return "not enough memory for this workload on this machine", BAD_INPUT
    told = f"{type(fault).__name__}: {fault}" if str(fault) else type(fault).__name__
    return f"a defect of accelsim, please report it ({told}); {TRACEBACK}=1 shows where", DEFECT


def _discard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


app = typer.Typer(
    name="accelsim",
    cls=_Commands,
    help="Cycle-approximate simulator and co-design explorer for AI accelerators.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"accelsim {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
    ] = False,
    plugin: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE.py", help="Load blocks, mappers or formats of your own."),
    ] = None,
) -> None:
    if plugin:
        from accelsim.mapping.registry import load_plugin

        for file in plugin:
            load_plugin(file)


app.command("list")(library.list_library)
app.command("show")(library.show)
app.command("run")(run.run)
app.command("check")(check.check)
app.command("sweep")(sweep.sweep)
app.command("generate")(generate.generate)
app.command("memory")(memory.memory)
app.command("validate")(validate.validate)
app.add_typer(importing.app, name="import")
app.command("warmup")(run.warmup)


def main() -> None:
    """Entry point of the console script."""
    _jit.stay_lean()
    try:
        app(prog_name="accelsim")
    except KeyboardInterrupt:  # before the boundary stands
        sys.exit(INTERRUPTED)
