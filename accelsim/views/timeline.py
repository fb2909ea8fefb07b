"""The timeline of a run: which unit executed what, when, as a Gantt chart."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from accelsim.errors import AccelsimError
from accelsim.results.text import percent_text, plural, scaled, seconds_text
from accelsim.results.theme import figure, kind_colors
from accelsim.views.lanes import Lane, lanes_of

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from accelsim.results.result import Result, SegmentRun

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MAX_BARS = 4000
"""Bars that a browser draws and zooms without delay."""

_FINEST = 2.0**-20  # of the window: where the search for the gap to close begins


def timeline(
    result: Result,
    segment: str | int | None = None,
    *,
    start: float = 0.0,
    stop: float | None = None,
    max_bars: int = MAX_BARS,
) -> Figure:
    """A Gantt chart of the units and shared memory ports of one slice of the workload.

    ``segment`` is its name or index, by default the slice that takes longest; ``start`` and
    ``stop`` are core cycles from the start of that slice. More than ``max_bars`` instructions
    are merged with their neighbours into bars, and the subtitle says so. Raises AccelsimError for
    an unknown segment or an empty window.
    """
    run = pick_segment(result, segment)
    tick = run.bound.arch.ticks_per_cycle("core")
    end = run.schedule.ticks / tick
    stop = end if stop is None else min(stop, end)
    if not 0 <= start < stop:
        raise AccelsimError(
            f"the window {start:g}..{stop:g} is empty; accepted: cycles within 0..{end:g}"
        )
    lanes = [_visible(lane, start, stop) for lane in lanes_of(run)]
    shown = sum(len(lane.start) for lane in lanes)
    bars, coarsest = merged(lanes, stop - start, max_bars)
    fig = figure(
        f"Timeline of {escape(run.name)}",
        _subtitle(result, run, start, stop, shown, sum(map(len, bars)), coarsest),
        height=150 + 30 * len(lanes),
        barmode="overlay",
        bargap=0.25,
    )
    _draw(fig, run, lanes, bars)
    fig.update_xaxes(title="core cycles", range=[start, stop], tickformat=",")
    fig.update_yaxes(
        categoryorder="array", categoryarray=[escape(lane.name) for lane in reversed(lanes)]
    )
    return fig


def pick_segment(result: Result, segment: str | int | None) -> SegmentRun:
    """The slice of the workload with this name or index; None for the one that takes longest."""
    runs = result.segments
    if not runs:
        raise AccelsimError("the result holds no schedules; accepted: one that simulate returned")
    if segment is None:
        return max(runs, key=lambda run: run.repeat * run.schedule.ticks)
    if isinstance(segment, int) and -len(runs) <= segment < len(runs):
        return runs[segment]
    for run in runs:
        if segment in (run.name, run.name.split(" ")[0]):
            return run
    known = ", ".join(repr(run.name) for run in runs)
    raise AccelsimError(f"no segment {segment!r}; accepted: 0..{len(runs) - 1} or {known}")


@dataclass(frozen=True)
class Bar:
    """Neighbouring instructions of one unit, drawn as one; times in core cycles."""

    start: float
    stop: float
    busy: float
    count: int
    first: int  # instruction


def merged(lanes: list[Lane], window: float, max_bars: int) -> tuple[list[list[Bar]], float]:
    """Bars per lane, and the gap in cycles up to which neighbours were merged (0: none were).

    Instructions of different operators stay apart as long as the cap allows it.
    """
    if sum(len(lane.start) for lane in lanes) <= max_bars:
        return [_bars(lane, -1.0) for lane in lanes], 0.0
    gap, by_operator = window * _FINEST, True
    while True:
        bars = [_bars(lane, gap, by_operator) for lane in lanes]
        if sum(map(len, bars)) <= max_bars or gap > window:
            return bars, gap
        gap *= 2
        by_operator = gap < window / 64


def _bars(lane: Lane, gap: float, by_operator: bool = True) -> list[Bar]:
    """Instructions whose gaps are at most ``gap`` cycles as one bar; a negative gap merges none."""
    if not len(lane.start):
        return []
    apart = np.ones(len(lane.start), dtype=bool)
    apart[1:] = lane.start[1:] - lane.stop[:-1] > gap
    if by_operator:
        apart[1:] |= lane.operator[1:] != lane.operator[:-1]
    first = np.flatnonzero(apart)
    last = np.append(first[1:], len(apart)) - 1
    busy = np.add.reduceat(lane.stop - lane.start, first)
    columns = (lane.start[first], lane.stop[last], busy, last - first + 1, lane.index[first])
    return [Bar(*one) for one in zip(*(column.tolist() for column in columns), strict=True)]


def _visible(lane: Lane, start: float, stop: float) -> Lane:
    return lane.where((lane.stop > start) & (lane.start < stop))


def _subtitle(
    result: Result, run: SegmentRun, start: float, stop: float, shown: int, drawn: int, gap: float
) -> str:
    tick_hz = run.bound.arch.clocks["core"]
    parts = [f"{seconds_text((stop - start) / tick_hz)} on {escape(result.arch)}"]
    if run.repeat > 1:
        parts.append(f"one of {run.repeat} repetitions")
    if gap:
        parts.append(
            f"{plural(shown, 'instruction')} merged into {plural(drawn, 'bar')}: "
            f"gaps up to {scaled(gap)} cycles are closed, choose a window to see more"
        )
    return "; ".join(parts)


def _draw(fig: Figure, run: SegmentRun, lanes: list[Lane], bars: list[list[Bar]]) -> None:
    """One trace per operator kind, so that the legend switches kinds on and off."""
    program = run.bound.program
    operator = program.column("operator").tolist()
    by_kind: dict[str, list[tuple[str, Bar]]] = {}
    for lane, mine in zip(lanes, bars, strict=True):
        for one in mine:
            kind = program.operators[operator[one.first]].kind
            by_kind.setdefault(kind, []).append((escape(lane.name), one))
    colors = kind_colors(info.kind for info in program.operators)
    for info in program.operators:
        placed = by_kind.pop(info.kind, None)
        if not placed:
            continue
        fig.add_bar(
            base=[one.start for _, one in placed],
            x=[one.stop - one.start for _, one in placed],
            y=[name for name, _ in placed],
            orientation="h",
            name=escape(info.kind),
            marker={
                "color": colors[info.kind],
                "line": {"width": 0},
                "opacity": [_opacity(one) for _, one in placed],
            },
            text=[_hover(run, one) for _, one in placed],
            textposition="none",
            hovertemplate="%{text}<extra></extra>",
        )
    for lane in lanes:  # an idle unit keeps its lane
        fig.add_scatter(x=[None], y=[escape(lane.name)], showlegend=False, hoverinfo="skip")


def _opacity(one: Bar) -> float:
    """Merged bars are the fainter the more of their time the unit was idle."""
    length = one.stop - one.start
    return round(0.3 + 0.7 * min(one.busy / length, 1.0), 2) if length else 1.0


def _hover(run: SegmentRun, one: Bar) -> str:
    from accelsim.views.lanes import label

    many = f" and {one.count - 1:,} more" if one.count > 1 else ""
    length = one.stop - one.start
    busy = f", busy {percent_text(one.busy / length)}" if one.count > 1 and length else ""
    return (
        f"<b>{escape(label(run.bound.program, one.first))}</b>{many}<br>"
        f"cycles {one.start:,.10g} to {one.stop:,.10g} ({length:,.10g}{busy})"
    )
