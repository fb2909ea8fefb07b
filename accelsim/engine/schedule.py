"""What goes into the clock and what comes out: instructions with their ticks, and when they ran.

The rule that turns one into the other is part of the specification. Repeat, until every instruction
is committed:

1. The *head* of a unit is its first instruction, in index order, that is not yet committed. A head
   is a candidate when all its dependencies are committed, wherever in the program they stand.
2. A candidate is ready at ``max(tick at which its unit is free, finish of its dependencies)``.
   Of an *early* dependency not the finish counts, but the tick at which its unit was free again.
   Commit the candidate that is ready earliest; of several, the one of the lowest unit.
3. The instruction joins the queues of all its ports at once. A port is a server: it serves one
   instruction at a time, in commit order, each for the ticks that it is held, and it does not wait
   for other ports. ``served = max(ready, tick at which the port is free) + hold``, and then the
   port is free at ``served``. A port named twice counts once, for the longer hold.
4. ``start`` is when the first of its ports turns to it: ``max(ready, least tick at which a port of
   it is free)``, or ``ready`` without ports. The transfer streams through all its ports, so it is
   ``done`` when the slowest has passed it: the latest ``served``, or ``start`` without ports.
5. The unit is free at ``max(start + occupancy, done)``: it cannot take more while a port keeps it.
6. ``finish = max(start + latency, done + tail, finish of the unit's previous instruction)``. The
   pipeline's tail is ``latency - occupancy`` if that is positive: what has passed the last port
   still flows through the rest of the pipeline. Units retire in order.

Times of zero are legal, so a commit can make heads ready at its own tick; they take part in the
very next choice. Instructions commit in order of their ready times, so a port serves first come,
first served (of equal ready times the lower unit's), never in program order. When no head is a
candidate and instructions are left, the program is deadlocked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import AccelsimError

if TYPE_CHECKING:
    from accelsim.engine.traffic import Activity, Traffic

DEPENDENCIES = 3  # of one instruction; more become explicit joins

Waiting = tuple[int, int, int]  # unit, its head, the instruction that the head waits for


@dataclass(frozen=True, eq=False)
class TimedProgram:
    """Instructions for in-order units, in ticks; a unit's queue is its rows in index order."""

    unit: NDArray[np.int32]  # [n] which unit executes the instruction
    occupancy: NDArray[np.int64]  # [n] ticks until the unit can take its next instruction
    latency: NDArray[np.int64]  # [n] ticks until the result may be used
    dep: NDArray[np.int32]  # [n, 3] instructions that must finish first; -1 none; may point ahead
    port: NDArray[np.int16]  # [n, s] shared resources held: memory ports, links; -1 none
    hold: NDArray[np.int64]  # [n, s] ticks for which each port serves the instruction
    units: int
    ports: int
    traffic: Traffic | None = None  # what caches and channels decide while the clock runs
    early: NDArray[np.bool_] | None = None  # [n, 3] dependencies that wait for the issue only

    def __len__(self) -> int:
        return len(self.unit)


@dataclass(frozen=True, eq=False)
class Schedule:
    """When every instruction ran, in ticks."""

    start: NDArray[np.int64]  # [n] the instruction leaves its queue, or its first port's queue
    finish: NDArray[np.int64]  # [n] the result may be used
    order: NDArray[np.int64]  # [n] order[j] is the instruction committed j-th
    activity: Activity | None = None  # of caches and channels, where they decide

    @property
    def ticks(self) -> int:
        """The tick at which the last result is there and memory is idle; 0 for an empty program."""
        last = int(self.finish.max()) if len(self.finish) else 0
        return max(last, self.activity.idle_tick) if self.activity else last


class DeadlockError(AccelsimError):
    """No head can ever become ready; ``waiting`` lists (unit, instruction, dependency) per unit."""

    def __init__(self, message: str, waiting: Sequence[Waiting] = ()) -> None:
        super().__init__(message)
        self.waiting = list(waiting)


def deadlock(
    timed: TimedProgram, heads: Sequence[int], committed: NDArray[np.bool_]
) -> DeadlockError:
    """The report of a stuck machine: each waiting head and the first dependency it lacks."""
    waiting = [
        (int(timed.unit[i]), i, next(int(d) for d in timed.dep[i] if d >= 0 and not committed[d]))
        for i in heads
    ]
    named = ", ".join(f"unit {u} at instruction {i} for {d}" for u, i, d in waiting[:4])
    more = f" and {len(waiting) - 4} more" if len(waiting) > 4 else ""
    return DeadlockError(
        f"deadlock after {int(committed.sum())} of {len(timed)} instructions; "
        f"waiting: {named}{more}",
        waiting,
    )


def port_service(
    timed: TimedProgram, schedule: Schedule, port: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(instructions, begin, end) of what one port served, in the order in which it did.

    An instruction may begin on this port later than on another, hence after its start.
    """
    named = timed.port == port
    index = schedule.order[named.any(axis=1)[schedule.order]]
    hold = np.where(named[index], timed.hold[index], 0).max(axis=1, initial=0)
    # begin = max(start, end of the previous); in ticks less all holds before, a running maximum.
    before = np.cumsum(hold) - hold
    begin = np.maximum.accumulate(schedule.start[index] - before) + before
    return index, begin, begin + hold


def check_layout(timed: TimedProgram) -> None:
    """Refuse arrays of the wrong type, shape or index range: what no engine could even read."""
    n = np.size(timed.unit)
    slots = np.shape(timed.port)[-1] if np.ndim(timed.port) == 2 else DEPENDENCIES
    for name, dtype, width in (
        ("unit", "int32", None),
        ("occupancy", "int64", None),
        ("latency", "int64", None),
        ("dep", "int32", DEPENDENCIES),
        ("port", "int16", slots),
        ("hold", "int64", slots),
    ):
        column = getattr(timed, name)
        shape = (n,) if width is None else (n, width)
        if not isinstance(column, np.ndarray):
            raise AccelsimError(f"{name} must be {dtype}{list(shape)}, got {type(column).__name__}")
        if column.dtype != dtype or column.shape != shape:
            raise AccelsimError(
                f"{name} must be {dtype}{list(shape)}, got {column.dtype}{list(column.shape)}"
            )
    early = timed.early
    if early is not None and (early.dtype != np.bool_ or early.shape != (n, DEPENDENCIES)):
        raise AccelsimError(
            f"early must be bool{[n, DEPENDENCIES]}, got {early.dtype}{list(early.shape)}"
        )
    if early is not None and timed.traffic is not None:
        raise AccelsimError(
            "instructions wait for the issue of others (streaming nodes), which is not modelled"
            " behind caches or DRAM channels; accepted: --memory ideal or bandwidth, no caches"
        )
    if timed.units < 0 or timed.ports < 0:
        raise AccelsimError(f"{timed.units} units and {timed.ports} ports, accepted: 0 or more")
    _check_range("unit", timed.unit, 0, timed.units, "units")
    _check_range("dependency", timed.dep, -1, n, "instructions")
    _check_range("port", timed.port, -1, timed.ports, "ports")


def check_values(timed: TimedProgram) -> None:
    """Refuse negative times and instructions that wait for themselves."""
    for name, ticks in (
        ("occupancy", timed.occupancy),
        ("latency", timed.latency),
        ("hold", np.where(timed.port >= 0, timed.hold, 0)),
    ):
        if len(ticks) and ticks.min() < 0:
            i = int(np.argwhere(ticks < 0)[0, 0])
            raise AccelsimError(
                f"instruction {i}: {name} is {ticks[i].min()} ticks, accepted: 0 or more"
            )
    selfish = np.flatnonzero((timed.dep == np.arange(len(timed))[:, None]).any(axis=1))
    if len(selfish):
        raise AccelsimError(f"instruction {selfish[0]}: depends on itself")


def _check_range(name: str, column: NDArray[np.signedinteger], low: int, end: int, of: str) -> None:
    if not column.size or (column.min() >= low and column.max() < end):
        return
    where = np.argwhere((column < low) | (column >= end))[0]
    none = "-1 (none) or " if low < 0 else ""
    accepted = f"{none}0..{end - 1}" if end > 0 else f"{none}nothing: there are no {of}"
    raise AccelsimError(
        f"instruction {where[0]}: {name} {column[tuple(where)]} does not exist, "
        f"accepted: {accepted}"
    )
