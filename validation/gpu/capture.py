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
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from accelsim.errors import AccelsimError

from .cases import CaptureSet, Case, capture_sets
from .golden import (
    DROPPED,
    FAILED,
    SKIPPED,
    Array,
    Folder,
    array_digest,
    digest,
    entry_of,
    positions,
)
from .inputs import Codes
from .operands import Operands, exact_outputs, operands, order_free, output_shape
from .provenance import Logger, Reads, commit, source_digests

TURNS = (0, 0, 7)
"""By how much blocks are shifted in each run of a case."""
BUDGET_SECONDS, SILENT_SECONDS = 420, 120
LAST = ".last"
"""Names the set in progress, for the process that watches."""

Say = Callable[[str], None]


class Device(Protocol):
    """Something that runs kernels and says what it is."""

    capability: str

    def machine(self) -> dict[str, Any]:
        """Its provenance."""

    def refusal(self, kernel: str) -> str:
        """Why it has not got a kernel, "" if it has."""

    def run(self, case: Case, given: Operands, turn: int) -> tuple[Codes, dict[str, Any]]:
        """A case's outputs as bit patterns, and what the kernel says of itself."""

    def built(self, sources: Sequence[str]) -> dict[str, Any]:
        """Machine code made of some sources: its digest and its instructions."""


class InexactError(Exception):
    """A kernel that is wrong on order-free operands."""


class UnrepeatableError(Exception):
    """A kernel whose bits change from run to run."""


def record(
    folder: Folder, sets: Sequence[CaptureSet], device: Device, say: Say = print,
    deadline: float = float("inf"), passed_over: Sequence[str] = (),
) -> None:  # fmt: skip
    """Record what is not there yet; ``passed_over`` sets failed before."""
    sources = source_digests()
    for one in sets:
        recipe = one.recipe(sources)
        if folder.complete(one.name, recipe):
            say(f"{one.name}: recorded before")
            continue
        if one.name in passed_over:
            continue
        if time.time() > deadline:
            folder.note(one.name, SKIPPED, reason="the time was used up; run the same again")
            say(f"{one.name}: not reached")
            continue
        (folder.path / LAST).write_text(one.name, encoding="utf-8")
        say(f"{one.name}: {_recorded(folder, one, device, recipe)}")


def _recorded(folder: Folder, one: CaptureSet, device: Device, recipe: str) -> str:
    """Record a set, or note why not; says what became of it."""
    reason = one.refusal(device.capability) or device.refusal(one.cases[0].kernel)
    if reason:
        folder.note(one.name, SKIPPED, reason=reason)
        return f"skipped: {reason}"
    began = time.time()
    entries, kept, left_out = {}, {}, {}
    try:
        notes = checked(one.cases, device)
        for case in one.cases:
            given = operands(case)
            try:
                output, said = repeated_runs(case, given, device)
            except (UnrepeatableError, ValueError) as fault:
                left_out[case.name] = str(fault)
                continue
            entries[case.name] = entry_of(
                output, recorded_inputs(given), case.order, {**notes, **said}
            )
            kept[case.name] = output.reshape(-1)[positions(case.name, output.size)]
            kept |= table_of(case, output)
    except InexactError as fault:
        folder.note(one.name, FAILED, reason=str(fault))
        return f"FAILED: {fault}"
    except Exception as fault:  # a set that breaks must not take the others along
        folder.note(one.name, FAILED, reason=f"{type(fault).__name__}: {fault}"[:500])
        return f"FAILED: {type(fault).__name__}: {fault}"
    if not entries:
        folder.note(one.name, DROPPED, reason="no case gave the same bits twice", dropped=left_out)
        return "dropped: no case gave the same bits twice"
    whole = {
        "dropped": left_out, "capability": device.capability, "kernels": device.built(one.sources)
    }  # fmt: skip
    folder.record(one.name, recipe, entries, kept, whole)
    outputs = sum(entry["count"] for entry in entries.values())
    dropped = f", {len(left_out)} dropped" if left_out else ""
    return f"{len(entries)} cases, {outputs:,} outputs, {time.time() - began:.1f} s{dropped}"


def checked(cases: Sequence[Case], device: Device) -> dict[str, Any]:
    """Run every shape of a set on order-free operands; raises InexactError.

    What was found on the way, a layout of metadata, is returned."""
    found: dict[str, Any] = {}
    seen = set()
    for case in cases:
        shape = (case.m, case.n, case.k, case.order)
        if shape in seen or case.kernel == "unary":
            continue
        seen.add(shape)
        free = order_free(case)
        given = operands(free)
        output, said = device.run(free, given, 0)
        wrong = output.reshape(-1) != exact_outputs(free, given).reshape(-1)
        if wrong.any():
            raise InexactError(
                f"{case.name}: {int(wrong.sum())} of {wrong.size} order-free outputs are not exact,"
                f" the first at {int(wrong.argmax())}"
            )
        found |= {f"check_{key}": value for key, value in said.items() if key == "metadata"}
    return found


def repeated_runs(case: Case, given: Operands, device: Device) -> tuple[Codes, dict[str, Any]]:
    """Outputs that are the same in every run; raises UnrepeatableError."""
    first, said = device.run(case, given, TURNS[0])
    if first.shape != output_shape(case):
        raise ValueError(f"{case.name}: outputs {first.shape}, not {output_shape(case)}")
    for number, turn in enumerate(TURNS[1:], 2):
        again, _ = device.run(case, given, turn)
        differ = int((again != first).sum())
        if differ:
            raise UnrepeatableError(f"run {number} differs from run 1 in {differ} outputs")
    return first, said


TABLE = "table"


def table_of(case: Case, output: Codes) -> dict[str, Array]:
    """The whole of EX2, as steps from word to word: what software needs to imitate it."""
    if case.kernel != "unary" or case.values != "ex2":
        return {}
    steps = np.diff(output.reshape(-1).astype(np.int64))
    if np.abs(steps).max() > 127:
        raise ValueError("neighbouring results of ex2 are far apart")
    first = np.array([output.reshape(-1)[0]], dtype="<u4")
    return {f"{TABLE}-first": first, f"{TABLE}-steps": steps.astype(np.int8)}


def recorded_inputs(given: Operands) -> str:
    """The digest of a case's operands."""
    return digest(*(f"{name}:{array_digest(given[name])}" for name in sorted(given)))


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
    try:
        if given.worker is not None:
            return work(given.out, sets, given.budget, given.worker)
        return watch(given)
    except AccelsimError as fault:
        return _refused(str(fault))


def _refused(reason: str) -> int:
    print(f"capture: error: {reason}", file=sys.stderr)
    return 2


def work(out: Path, sets: Sequence[CaptureSet], budget: float, passed_over: Sequence[str]) -> int:
    """Record in this process, on this machine's GPU."""
    from .cuda import CudaDevice

    device = CudaDevice(out / ".build")
    about = device.machine()
    folder = Folder.fresh(out / slug(about["name"]), about)
    with Logger(device.readings) as log:
        record(folder, sets, device, _say, time.time() + budget, passed_over)
    runs = folder.manifest.setdefault("runs", [])
    runs.append({"commit": commit(), "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                 "clocks": log.summary()})  # fmt: skip
    folder.write()
    (folder.path / LAST).unlink(missing_ok=True)
    return 0


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
        folder.note(name, FAILED, reason=f"{how} while it was recorded")
        _say(f"{name}: FAILED: {how}; going on without it")
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


__all__ = ["Device", "Reads", "checked", "main", "plan", "record"]
