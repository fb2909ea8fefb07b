"""Arrays and banks that compute: how long each are at work, and how long both at the same time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from accelsim.hw.pim.unit import Pim
from accelsim.results.collect import kept_ticks
from accelsim.results.table import Column
from accelsim.results.text import percent_text

if TYPE_CHECKING:
    from accelsim.results.result import Result, SegmentRun

Ints = npt.NDArray[np.int64]
Spans = tuple[Ints, Ints]
"""First ticks and the ticks behind the last ones."""


@dataclass(frozen=True)
class AtWork:
    """Units of a machine: shares of the run's time in which any of them works, and in which one of
    them does on average. ``count`` and ``each`` are None for units that work together."""

    name: str
    count: int | None
    some: float
    each: float | None


COLUMNS = (
    Column("units", lambda one: one.name, left=True),
    Column("count", lambda one: str(one.count or "-")),
    Column("some at work", lambda one: percent_text(one.some)),
    Column("each", lambda one: "-" if one.each is None else percent_text(one.each)),
)


def at_work(result: Result) -> list[AtWork]:
    """Units that multiply on a machine whose banks do, one by one and all together.

    Empty for other machines, and for a result without schedules. A unit is at work from the start
    of an instruction until it may take the next.
    """
    arch = result.architecture
    units = {n: u for n, u in arch.units.items() if u.peak_macs_per_cycle()} if arch else {}
    banks = [name for name, unit in units.items() if isinstance(unit, Pim)]
    ticks = sum(run.repeat * run.schedule.ticks for run in result.segments)
    if arch is None or not banks or not ticks:
        return []
    some, each = dict.fromkeys(units, 0), dict.fromkeys(units, 0)
    together = 0
    for run in result.segments:
        spans = {name: _spans(run, name) for name in units}
        for name, (start, stop) in spans.items():
            some[name] += run.repeat * covered([(start, stop)])
            each[name] += run.repeat * int((stop - start).sum())
        sides = (
            [span for name, span in spans.items() if (name in banks) == wanted]
            for wanted in (True, False)
        )
        together += run.repeat * _both(*sides)
    count = {name: arch.instances(name) for name in units}
    rows = [
        AtWork(name, count[name], some[name] / ticks, each[name] / count[name] / ticks)
        for name in units
    ]
    others = [name for name in units if name not in banks]
    both = f"{' or '.join(others)} beside {' or '.join(banks)}"
    every = AtWork(both, None, together / ticks, None)
    return [*rows, every] if others else rows


def _spans(run: SegmentRun, unit: str) -> Spans:
    """When the instances of a unit work."""
    mine = run.bound.unit_index == [*run.bound.arch.units].index(unit)
    start = run.schedule.start[mine]
    return start, start + kept_ticks(run)[mine]


def _both(first: Sequence[Spans], second: Sequence[Spans]) -> int:
    """Ticks in which one of the first works and one of the second."""
    return covered(first) + covered(second) - covered([*first, *second])


def covered(spans: Sequence[Spans]) -> int:
    """Ticks that lie in any of the spans."""
    if not sum(len(start) for start, _ in spans):
        return 0
    start, stop = (np.concatenate(ends) for ends in zip(*spans, strict=True))
    order = np.argsort(start, kind="stable")
    start, stop = start[order], np.maximum.accumulate(stop[order])
    before = np.concatenate([start[:1], stop[:-1]])
    return int((stop - np.maximum(start, before)).sum())
