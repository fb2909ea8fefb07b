"""Recording sets of cases on some device: checked, run three times, and written set by set."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from .cases import CaptureSet, Case
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
from .provenance import source_digests

TURNS = (0, 0, 7)
"""By how much blocks are shifted in each run of a case."""
LAST = ".last"
"""Names the set in progress, for the process that watches."""

Say = Callable[[str], None]


UNCHECKED = ("unary", "sweep_unary", "sweep_cast")
"""Kernels without order-free operands: the device compares them with what else it knows."""


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

    def answers(self) -> bool:
        """Whether it still runs kernels: after some faults a process never does again."""


class InexactError(Exception):
    """A kernel that is wrong on order-free operands."""


class UnrepeatableError(Exception):
    """A kernel whose bits change from run to run."""


class LostError(Exception):
    """The device does not answer in this process any more; a new one may go on."""


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
        if folder.sets[one.name]["status"] == FAILED and not device.answers():
            raise LostError(folder.sets[one.name]["reason"])


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
        if shape in seen or case.kernel in UNCHECKED:
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
