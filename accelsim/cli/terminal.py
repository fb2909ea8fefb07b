"""What a command prints and where: results on stdout, everything else on stderr of a terminal."""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelsim.errors import AccelsimError

STDOUT = "-"

Progress = Callable[[str, int, int], None]


def check_files(*files: str | Path | None) -> None:
    """Raise AccelsimError if one of the files cannot be written; to be called before the work."""
    given = [str(file) for file in files if file is not None]
    for file in given:
        if given.count(file) > 1:
            raise AccelsimError(f"two outputs are called {file}; accepted: different files")
        if file != STDOUT:
            _try_file(Path(file))


def channel_files(file: Path, channels: int) -> list[Path]:
    """A file, or one per channel: commands.log becomes commands.ch0.log, commands.ch1.log."""
    if channels == 1:
        return [file]
    first = file.name.find(".", 1)
    stem, suffix = (file.name, "") if first < 0 else (file.name[:first], file.name[first:])
    names = [file.with_name(f"{stem}.ch{n}{suffix}") for n in range(channels)]
    check_files(*names)
    return names


def _try_file(file: Path) -> None:
    try:
        if file.exists() and not file.is_file() and not file.is_dir():
            return  # a device or a pipe: opening it now would be seen by its reader
        new = not file.exists()
        with file.open("ab"):
            pass
        if new:
            file.unlink()
    except (OSError, ValueError) as fault:
        raise AccelsimError(f"cannot write {file}: {_reason(fault)}") from None


def check_folder(folder: str | Path | None) -> None:
    """Raise AccelsimError if a folder cannot be made or written to; makes it."""
    if folder is None:
        return
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as fault:
        raise AccelsimError(f"cannot write to folder {folder}: {_reason(fault)}") from None


def _reason(fault: Exception) -> str:
    return (fault.strerror if isinstance(fault, OSError) else None) or str(fault)


def write_text(file: str | Path, text: str) -> None:
    """Write a file, or stdout for "-"."""
    if str(file) == STDOUT:
        sys.stdout.write(text)
        return
    try:
        Path(file).write_text(text, encoding="utf-8")
    except OSError as fault:
        raise AccelsimError(f"cannot write {file}: {_reason(fault)}") from None


def write_json(file: str, content: Mapping[str, Any]) -> None:
    """Write plain values as JSON; numbers that JSON has not (infinities) become null."""
    write_text(file, json.dumps(_plain(content), indent=1, ensure_ascii=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def note(text: str) -> None:
    """Say something about the work itself, on a terminal only."""
    if sys.stderr.isatty():
        sys.stderr.write(f"{text}\n")


def note_first_run() -> None:
    """Explain why the first simulation on a machine starts slowly."""
    from accelsim._jit import kernels_are_cached

    if not kernels_are_cached():
        note("compiling the engine (first run only)...")


@contextmanager
def working() -> Iterator[Progress | None]:
    """A progress bar on a terminal; None, and silence, elsewhere."""
    note_first_run()
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=None)
        yield lambda what, done, of: bars.update(task, description=what, completed=done, total=of)
