"""Record what a GPU gives: ``python -m accelsim.validation.gpu.capture --out DIR``.

Needs numpy, torch, triton and nvcc, nothing of accelsim that is compiled; in a checkout that is not
installed, ``python -m validation.gpu.capture`` is the same. Sets that were recorded before from the
same sources are not recorded again, so a run that was cut short is continued by the same command.

Every set goes this way, and says which step it failed:

    1. the GPU has the instruction, and the library is there
    2. each kernel gives the exact result on operands that every order sums exactly
    3. each case runs three times, the third with its blocks shifted: all bits are the same

The work is done by a second process, watched by the first: should a kernel hang or fault, its set
is noted as failed and the rest goes on in a new one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from accelsim.errors import AccelsimError

from .cases import CaptureSet, capture_sets
from .golden import DROPPED, FAILED, Folder
from .provenance import Logger, commit
from .recording import LAST, LostError, record

BUDGET_SECONDS, SILENT_SECONDS = 420, 120
LOST = 5
"""Exit code of a worker whose GPU does not answer any more; the set at fault has been noted."""


# --- the command


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    words = argparse.ArgumentParser(
        prog="python -m accelsim.validation.gpu.capture",
        description="Record the bits of reference kernels on the GPU of this machine.",
    )
    words.add_argument("--out", type=Path, metavar="DIR", help="writes DIR/GPU/manifest.json, ...")
    words.add_argument("--only", metavar="PATTERN", default="*", help="sets by name, e.g. mma-*")
    words.add_argument("--dry-run", action="store_true", help="list the sets; needs no GPU")
    words.add_argument(
        "--budget", type=float, metavar="SECONDS", default=BUDGET_SECONDS,
        help=f"sets not begun by then are left for the next run (default {BUDGET_SECONDS})",
    )  # fmt: skip
    words.add_argument("--worker", action="append", metavar="SET", help=argparse.SUPPRESS)
    return words


def plan(sets: Sequence[CaptureSet]) -> str:
    """All sets with their cases, outputs, bytes and seconds."""
    title = f"{'set':26}{'cases':>6}{'outputs':>13}{'bytes <=':>11}{'seconds':>9}  needs"
    lines = [title]
    for one in sets:
        needs = f"capability {one.only}" if one.only else f"capability {one.least} or later"
        lines.append(
            f"{one.name:26}{len(one.cases):6}{one.outputs:13,}{one.bytes:11,}{one.seconds:9.1f}"
            f"  {needs}"
        )
    totals = (
        sum(len(one.cases) for one in sets), sum(one.outputs for one in sets),
        sum(one.bytes for one in sets), sum(one.seconds for one in sets),
    )  # fmt: skip
    lines.append(f"{'all':26}{totals[0]:6}{totals[1]:13,}{totals[2]:11,}{totals[3]:9.1f}")
    lines.append("unary-ex2 keeps its whole table besides, about 1,600,000 bytes compressed")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> int:
    """The command; 0 when every set was recorded or skipped for a reason, 1 when some failed."""
    given = parser().parse_args(words)
    sets = [one for one in capture_sets() if fnmatch(one.name, given.only)]
    if not sets:
        return _refused(f"no set is called {given.only!r}; --dry-run lists them")
    if given.dry_run:
        print(plan(sets))
        return 0
    if given.out is None:
        return _refused("--out DIR is missing: where to record")
    if not given.budget >= 0:
        return _refused(f"--budget is {given.budget:g}; accepted: seconds, 0 or more")
    try:
        if given.worker is not None:
            return work(given.out, sets, given.budget, given.worker)
        return watch(given)
    except (AccelsimError, OSError) as fault:  # also a full disk, or a folder not to be written
        return _refused(str(fault))


def _refused(reason: str) -> int:
    print(f"capture: error: {reason}", file=sys.stderr)
    return 2


def work(out: Path, sets: Sequence[CaptureSet], budget: float, passed_over: Sequence[str]) -> int:
    """Record in this process, on this machine's GPU."""
    from .devices.cuda import CudaDevice

    with TemporaryDirectory(prefix="accelsim-gpu-") as build:
        try:
            _worked(out, sets, CudaDevice(Path(build)), budget, passed_over)
        except LostError:
            return LOST
    return 0


def _worked(
    out: Path, sets: Sequence[CaptureSet], device: Any, budget: float, passed_over: Sequence[str]
) -> None:
    about = device.machine()
    folder = Folder.fresh(out / slug(about["name"]), about)
    try:
        with Logger(device.readings) as log:
            record(folder, sets, device, _say, time.time() + budget, passed_over)
    finally:
        runs = folder.manifest.setdefault("runs", [])
        runs.append({"commit": commit(), "clocks": log.summary(),
                     "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})  # fmt: skip
        folder.write()
    (folder.path / LAST).unlink(missing_ok=True)


def _say(line: str) -> None:
    print(line, flush=True)


def slug(name: str) -> str:
    """A folder's name for a GPU: "NVIDIA H100 80GB" becomes nvidia-h100-80gb."""
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


def watch(given: argparse.Namespace) -> int:
    """Run workers until one ends by itself; note the sets that killed one."""
    deadline = time.time() + given.budget
    passed_over: list[str] = []
    given.out.mkdir(parents=True, exist_ok=True)
    for mark in given.out.glob(f"*/{LAST}"):
        mark.unlink()  # of a run that was ended from outside
    while True:
        left = max(0.0, deadline - time.time())
        code = _watched(worker_command(given, left, passed_over))
        if code == 0:
            break
        lost = _lost(given.out)
        if lost is None:
            return code if code > 0 else 1
        folder, name = lost
        how = "no answer" if code == HUNG else f"the process ended with {code}"
        if code == LOST:
            how = "the GPU does not answer that process any more"
        else:
            folder.note(name, FAILED, reason=f"{how} while it was recorded")
        _say(f"{name}: FAILED: {how}; going on without it")
        if name in passed_over:
            return 1
        passed_over.append(name)
    return _summary(given.out)


def worker_command(given: argparse.Namespace, left: float, passed_over: Sequence[str]) -> list[str]:
    """The command line of a worker."""
    words = [sys.executable, "-m", __spec__.name if __spec__ else __name__]
    words += ["--out", str(given.out), "--only", given.only, "--budget", f"{left:.0f}"]
    for name in ("", *passed_over):
        words += ["--worker", name]
    return words


HUNG = -1000


def _watched(command: Sequence[str]) -> int:
    """A process's exit code, ``HUNG`` if it said nothing for SILENT_SECONDS and was ended."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        heard = [time.time()]

        def listen() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                heard[0] = time.time()
                print(line, end="", flush=True)

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        hung = False
        while process.poll() is None:
            if time.time() - heard[0] > SILENT_SECONDS:
                process.kill()
                hung = True
            time.sleep(0.05)
        thread.join(timeout=5)
        return HUNG if hung else process.returncode


def _lost(out: Path) -> tuple[Folder, str] | None:
    """The set that a worker was at when it died, and its folder."""
    for mark in out.glob(f"*/{LAST}"):
        name = mark.read_text(encoding="utf-8")
        mark.unlink()
        return Folder.opened(mark.parent), name
    return None


def _summary(out: Path) -> int:
    """Say what became of all sets."""
    bad = 0
    for file in sorted(out.glob("*/manifest.json")):
        folder = Folder.read(file.parent, allow_fake=True)
        counts: dict[str, int] = {}
        for entry in folder.sets.values():
            counts[entry["status"]] = counts.get(entry["status"], 0) + 1
        bad += counts.get(FAILED, 0) + counts.get(DROPPED, 0)
        size = sum(one.stat().st_size for one in file.parent.glob("*.*"))
        said = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        _say(f"{file.parent}: {said}; {size / 1e6:.2f} MB")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
