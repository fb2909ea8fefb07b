"""A run of the grid: stretches between anchors, those that drift timed again, all of it kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..provenance import Logger, Reads, Sample
from .grid import Row
from .method import (
    ATTEMPTS,
    MOST_DRIFT,
    SAMPLE_SECONDS,
    STRETCH,
    Device,
    LostError,
    Timing,
    UnavailableError,
    lacking,
)
from .record import Record
from .spread import drift

Line = dict[str, object]
Say = Callable[[str], None]


@dataclass
class Attempt:
    """One pass over a stretch: its lines, and how far the anchors moved meanwhile."""

    rows: list[Line] = field(default_factory=list)
    skipped: list[Line] = field(default_factory=list)
    before: tuple[float, float] = (0.0, 0.0)
    after: tuple[float, float] = (0.0, 0.0)
    samples: list[Sample] = field(default_factory=list)

    @property
    def drift(self) -> float:
        return drift(self.before, self.after)


def stretches(rows: Sequence[Row]) -> list[Sequence[Row]]:
    """The rows in pieces with an anchor before and behind each."""
    return [rows[i : i + STRETCH] for i in range(0, len(rows), STRETCH)]


def run(
    device: Device,
    state: Reads,
    rows: Sequence[Row],
    record: Record,
    say: Say,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Time what the record lacks; False if the time was up before all was done.

    The kernels' names are the record's last piece, behind the stretches.
    """
    began, longest = clock(), 0.0
    pieces = stretches(rows)
    device.anchor()  # the first one after idling is slow
    for number, piece in enumerate(pieces):
        if number in record.finished:
            continue
        started = clock()
        if started - began + longest > seconds:
            say(f"time is up with {len(record.finished)} of {len(pieces)} stretches finished")
            return False
        _stretch(device, state, number, piece, record, say)
        longest = max(longest, clock() - started)
        say(f"stretch {number + 1} of {len(pieces)}: {clock() - started:.1f} s")
    if len(pieces) not in record.finished:
        record.add(len(pieces), {"kernels.csv": _names(device, rows, record)})
    return True


def _names(device: Device, rows: Sequence[Row], record: Record) -> list[Line]:
    """What each case ran, asked last: a profiler slows what is timed after it."""
    faulty = {row.case for row in rows if row.name in record.faults}
    cases = dict.fromkeys(row.case for row in rows if not lacking(row.case, device.capability))
    return [
        {"case": case.name, "kernels": device.kernels(case)} for case in cases if case not in faulty
    ]


def _stretch(
    device: Device, state: Reads, number: int, piece: Sequence[Row], record: Record, say: Say
) -> None:
    """Time a stretch until its anchors agree; the steadiest attempt is kept, the last of equals."""
    attempts: list[Attempt] = []
    for again in range(ATTEMPTS):
        attempts.append(_attempt(device, state, number, piece, record))
        if attempts[-1].drift <= MOST_DRIFT:
            break
        say(f"stretch {number + 1}, attempt {again + 1}: anchors moved {attempts[-1].drift:.1%}")
    best = min(reversed(attempts), key=lambda one: one.drift)
    for line in best.skipped:
        say(f"skipped: {line['case']} {line['cache']}: {line['reason']}")
    record.add(
        number,
        {
            "latency.csv": [{**line, "drift": f"{best.drift:.5f}"} for line in best.rows],
            "skipped.csv": best.skipped,
            "anchors.csv": [_anchor_line(number, i, a, a is best) for i, a in enumerate(attempts)],
            "state.csv": [_state_line(s) for a in attempts for s in a.samples],
        },
    )


def _attempt(
    device: Device, state: Reads, number: int, piece: Sequence[Row], record: Record
) -> Attempt:
    """One pass; a row that ended an earlier run is passed over, with that reason."""
    attempt = Attempt()
    with Logger(state, SAMPLE_SECONDS) as log:
        attempt.before = device.anchor()
        for row in piece:
            where: Line = {"stretch": number, "case": row.case.name, "cache": row.cache}
            reason = lacking(row.case, device.capability) or record.faults.get(row.name, "")
            if not reason:
                try:
                    timing = device.time(row)
                except UnavailableError as fault:
                    reason = str(fault)
                except LostError as fault:
                    record.fault(row.name, str(fault))
                    raise
            if reason:
                attempt.skipped.append({**where, "reason": reason})
            else:
                attempt.rows.append({**where, **_timing_line(row, timing, state.sample())})
        attempt.after = device.anchor()
    attempt.samples = log.samples
    return attempt


def _timing_line(row: Row, timing: Timing, now: Sample) -> Line:
    per_launch = timing.per_launch_us
    return {
        "block": row.case.block,
        "split": row.case.split,
        "median_us": f"{per_launch.median:.4f}",
        "p10_us": f"{per_launch.p10:.4f}",
        "p90_us": f"{per_launch.p90:.4f}",
        "eager_us": f"{timing.eager_us:.2f}",
        "launches": timing.launches,
        "sets": timing.sets,
        "sm_mhz": f"{now.sm_mhz:.0f}",
        "watts": f"{now.watts:.0f}",
    }


def _anchor_line(number: int, index: int, attempt: Attempt, kept: bool) -> Line:
    return {
        "stretch": number,
        "attempt": index,
        "gemm_before_us": f"{attempt.before[0]:.3f}",
        "gemm_after_us": f"{attempt.after[0]:.3f}",
        "copy_before_us": f"{attempt.before[1]:.3f}",
        "copy_after_us": f"{attempt.after[1]:.3f}",
        "drift": f"{attempt.drift:.5f}",
        "kept": int(kept),
    }


def _state_line(sample: Sample) -> Line:
    return {name: f"{value:.10g}" for name, value in sample.row().items()}
