"""Chrome-JSON traces: a run as a file that opens in ui.perfetto.dev or chrome://tracing.

One process per core with one thread per unit and per private port, one with a thread per channel
of a memory whose banks compute, one for the memories and links that the cores share, and one that
names segments and operators. A unit's slice lasts until it can take the next instruction, which
includes waiting for ports; a port's lasts while it serves. Counters tell bytes per second, and how
many of several equal units are at work. Times are whole nanoseconds, written in microseconds; the
exact length of a slice stands in its argument ``cycles``. Segments follow one another, each once.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from accelsim.engine.ports import WRITE
from accelsim.errors import AccelsimError
from accelsim.hw.pim.unit import Pim
from accelsim.program.opcodes import TRANSFERS, Opcode
from accelsim.results.collect import kept_ticks
from accelsim.views.counters import Counter, counters_of
from accelsim.views.lanes import Lane, label, tick_lanes

if TYPE_CHECKING:
    from accelsim.results.result import Result, SegmentRun

MAX_EVENTS = 1_000_000
"""Slices that a trace holds; viewers become slow beyond it. What is cut is said in the file."""

Event = dict[str, Any]


def write_trace(result: Result, path: str | Path, max_events: int = MAX_EVENTS) -> Path:
    """Write the timeline of a run as Chrome JSON, compressed if the name ends in ".gz".

    With more than ``max_events`` slices the first ones are kept, and ``otherData.cut`` says so.
    Raises AccelsimError when the result holds no schedules or the file cannot be written.
    """
    if not result.segments:
        raise AccelsimError("the result holds no schedules; accepted: one that simulate returned")
    path = Path(path)
    try:
        with gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w") as file:
            _write(result, file, max_events)
    except OSError as fault:
        raise AccelsimError(f"{path}: cannot be written ({fault.strerror})") from None
    return path


def _write(result: Result, file: IO[str], max_events: int) -> None:
    encode = json.JSONEncoder(separators=(",", ":")).encode
    trace = _Trace(result, max_events)
    file.write('{"displayTimeUnit":"ns","traceEvents":[\n')
    separator = ""
    for event in trace.events():
        file.write(separator + encode(event))
        separator = ",\n"
    file.write(f'\n],"otherData":{encode(trace.metadata())}}}\n')


@dataclass(frozen=True)
class _Thread:
    pid: int
    tid: int


class _Trace:
    """Events of a run, in order: names, then segment by segment."""

    def __init__(self, result: Result, max_events: int) -> None:
        self.result, self.left = result, max_events
        self.cut = 0
        self.threads: dict[str, _Thread] = {}
        self.names: list[Event] = []
        self.processes: dict[int, int] = {}
        self.segments = self._thread("segments", 1, "workload")
        self.operators = self._thread("operators", 1, "workload")

    def events(self) -> Iterator[Event]:
        """All events; thread names come before the first slice of their thread."""
        per_second = self.result.segments[0].bound.arch.ticks_per_second()
        offset = 0
        for run in self.result.segments:
            yield from self._segment(run, offset, per_second)
            offset += run.schedule.ticks

    def metadata(self) -> dict[str, Any]:
        """What the trace shows and leaves out; complete after the last event."""
        result = self.result
        return {
            "tool": f"accelsim {result.version}",
            "arch": result.arch,
            "workload": result.workload,
            "memory": result.memory,
            "clock_hz": result.clock_hz,
            "segments": [{"name": run.name, "repeat": run.repeat} for run in result.segments],
            "repeats": "every segment is shown once",
            "cut": f"{self.cut} later slices left out" if self.cut else "",
        }

    def _thread(self, name: str, pid: int, process: str) -> _Thread:
        """The thread of this name, made known to the viewer when it is new."""
        if name not in self.threads:
            if pid not in self.processes:
                self.names.append(_name("process_name", pid, 0, process))
                self.names.append(
                    {"ph": "M", "name": "process_sort_index", "pid": pid, "tid": 0,
                     "args": {"sort_index": pid}}
                )  # fmt: skip
            tid = self.processes[pid] = self.processes.get(pid, 0) + 1
            self.threads[name] = _Thread(pid, tid)
            self.names.append(_name("thread_name", pid, tid, name))
        return self.threads[name]

    def _segment(self, run: SegmentRun, offset: int, per_second: int) -> Iterator[Event]:
        lanes = tick_lanes(run)
        places = _places(run)
        threads = [self._thread(lane.name, *places(lane)) for lane in lanes]
        yield from self.names
        self.names = []
        clock = _Clock(offset, per_second)
        yield from self._overview(run, clock)
        yield from self._slices(run, lanes, threads, clock)
        for counter in counters_of(run, lanes):
            yield from _points(counter, clock)

    def _overview(self, run: SegmentRun, clock: _Clock) -> Iterator[Event]:
        name = run.name if run.repeat == 1 else f"{run.name} (one of {run.repeat})"
        yield _slice(self.segments, name, *clock.span(0, run.schedule.ticks), {})
        program = run.bound.program
        end = np.zeros(len(program.operators), dtype=np.int64)
        np.maximum.at(end, program.column("operator"), run.schedule.finish)
        # As in results: an operator's time is that by which it moved the end of the run.
        reached = 0
        for info, last in zip(program.operators, end.tolist(), strict=True):
            if last > reached:
                what = {"kind": info.kind, "mapper": info.mapper}
                yield _slice(self.operators, info.name, *clock.span(reached, last), what)
                reached = last

    def _slices(
        self, run: SegmentRun, lanes: list[Lane], threads: list[_Thread], clock: _Clock
    ) -> Iterator[Event]:
        """Slices of all lanes in order of time, as many as are left."""
        start = np.concatenate([lane.start for lane in lanes]).astype(np.int64)
        stop = np.concatenate([lane.stop for lane in lanes]).astype(np.int64)
        index = np.concatenate([lane.index for lane in lanes])
        which = np.repeat(np.arange(len(lanes)), [len(lane.index) for lane in lanes])
        order = np.argsort(start, kind="stable")
        kept = order[: self.left]
        self.cut += len(order) - len(kept)
        self.left -= len(kept)
        words = _Words(run)
        columns = (which[kept], index[kept], start[kept], stop[kept])
        for lane, i, begin, end in zip(*(column.tolist() for column in columns), strict=True):
            told = words.arguments(i, end - begin, is_port=lanes[lane].is_port)
            yield _slice(threads[lane], words.name(i), *clock.span(begin, end), told)


def _places(run: SegmentRun) -> Callable[[Lane], tuple[int, str]]:
    """The process of a lane, number and name: 1 is the workload, 2 what is shared, from 3 on the
    cores, and behind them the banks of memories that compute."""
    arch = run.bound.arch
    banks = {
        slot.name: unit.memory
        for slot in run.bound.program.units
        if isinstance(unit := arch.units[slot.unit], Pim)
    }
    names = [f"core {core}" for core in range(arch.cores)] if arch.cores > 1 else ["units"]

    def place(lane: Lane) -> tuple[int, str]:
        if lane.core < 0:
            return 2, "memories and links"
        if lane.name in banks:
            return 3 + arch.cores, f"banks of {banks[lane.name]}, a thread per channel"
        return 3 + lane.core, names[lane.core]

    return place


class _Clock:
    """Ticks of a segment to whole nanoseconds of the trace, so that slices never overlap."""

    def __init__(self, offset: int, per_second: int) -> None:
        self.offset, self.per_second = offset, per_second

    def nanoseconds(self, tick: int) -> int:
        return (2 * (self.offset + tick) * 10**9 + self.per_second) // (2 * self.per_second)

    def span(self, start: int, stop: int) -> tuple[float, float]:
        """(begin, length) in microseconds."""
        begin, end = self.nanoseconds(start), self.nanoseconds(stop)
        return begin / 1000, (end - begin) / 1000


class _Words:
    """Names and arguments of instructions, from the tables as plain lists."""

    def __init__(self, run: SegmentRun) -> None:
        bound, program = run.bound, run.bound.program
        self.program = program
        self.tick = bound.arch.ticks_per_cycle("core")
        self.keys = ("opcode", "function", "operator", "m", "n", "k")
        self.rows = list(zip(*(program.column(k).tolist() for k in self.keys), strict=True))
        self.kept = kept_ticks(run).tolist()
        self.read = bound.accesses.nbytes[:, :WRITE].sum(axis=1).tolist()
        self.written = bound.accesses.nbytes[:, WRITE].tolist()
        self.labels: dict[tuple[int, int, int], str] = {}

    def name(self, index: int) -> str:
        key = self.rows[index][:3]
        if key not in self.labels:
            self.labels[key] = label(self.program, index)
        return self.labels[key]

    def arguments(self, index: int, ticks: int, *, is_port: bool) -> dict[str, Any]:
        opcode, _, _, m, n, k = self.rows[index]
        found: dict[str, Any] = {"instruction": index, "cycles": ticks / self.tick}
        waited = ticks - self.kept[index]
        if not is_port and waited > 0:
            found["of them waiting for ports"] = waited / self.tick
        if opcode in TRANSFERS:
            found |= {"bytes": max(self.read[index], self.written[index])}
        elif opcode not in (Opcode.JOIN, Opcode.LAUNCH):
            found |= {"m": m, "n": n} | ({"k": k} if k else {})
            found |= {"read_bytes": self.read[index], "write_bytes": self.written[index]}
        return found


def _slice(thread: _Thread, name: str, begin: float, length: float, args: Event) -> Event:
    return {
        "ph": "X", "name": name, "pid": thread.pid, "tid": thread.tid,
        "ts": begin, "dur": length, "args": args,
    }  # fmt: skip


def _name(kind: str, pid: int, tid: int, name: str) -> Event:
    return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {"name": name}}


def _points(counter: Counter, clock: _Clock) -> Iterator[Event]:
    """The points of a counter, which ends at nothing."""
    values = [*counter.values.tolist(), 0.0]
    for tick, value in zip(counter.edges.tolist(), values, strict=True):
        yield {
            "ph": "C", "name": counter.name, "pid": 2 if counter.memory else 1, "tid": 0,
            "ts": clock.nanoseconds(tick) / 1000, "args": {counter.unit: round(value, 3)},
        }  # fmt: skip
