"""The text summary of a request stream on a memory: what ``accelsim memory`` shows."""

from __future__ import annotations

from dataclasses import dataclass, fields

from accelsim.hw.dram.run import MemoryRun
from accelsim.hw.pim.run import PimRun
from accelsim.quantities import HERTZ
from accelsim.results.table import Column, text_table
from accelsim.results.text import (
    bytes_text,
    count_text,
    energy_text,
    percent_text,
    plural,
    scaled,
    seconds_text,
)
from accelsim.views.summary import bar, energy_table

_INDENT = "  "
_CHANNELS = 16  # channels that are shown one by one
_VIOLATIONS = 5


@dataclass(frozen=True, eq=False, repr=False)
class StreamRun(MemoryRun):
    """What ``memory_stream`` returns: a MemoryRun that prints as a summary."""

    @classmethod
    def of(cls, run: MemoryRun) -> StreamRun:
        """The same run, able to show itself."""
        return cls(**{field.name: getattr(run, field.name) for field in fields(MemoryRun)})

    def __str__(self) -> str:
        return summary(self)

    def __repr__(self) -> str:
        return f"<StreamRun of {self.stream} on {self.device}: {self.cycles:,} cycles>"


def summary(run: MemoryRun) -> str:
    """A run as plain text: how long, how fast, and where the time and the energy went."""
    parts = (
        _head(run), _latency(run), _rows(run), _commands(run), _channels(run), _energy(run),
        checked(run), _effort(run),
    )  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(run: MemoryRun) -> str:
    share = run.bytes_per_second / run.peak_bytes_per_second
    hashing = "  hashed" if run.hashing else ""
    return (
        f"{run.stream}  {run.inject}  {plural(run.requests, 'request')} of {run.burst_bytes} B\n"
        f"{run.device} @ {HERTZ.format(run.clock_hz)}  {plural(run.channels, 'channel')}  "
        f"{run.mapping}{hashing}  policy {run.controller.policy}\n\n"
        f"{seconds_text(run.seconds)}   {run.cycles:,} clocks   {bytes_text(run.bytes)}   "
        f"{scaled(run.bytes_per_second, 'B/s')} of {scaled(run.peak_bytes_per_second, 'B/s')} "
        f"({percent_text(share)})"
    )


def _latency(run: MemoryRun) -> str:
    one = run.read_latency
    if one is None:
        return ""
    nanoseconds = 1e9 / run.clock_hz
    columns = [
        Column("", lambda row: row[0], left=True),
        Column("mean", lambda row: row[1]),
        Column("min", lambda row: row[2]),
        Column("p50", lambda row: row[3]),
        Column("p90", lambda row: row[4]),
        Column("p99", lambda row: row[5]),
        Column("max", lambda row: row[6]),
    ]
    values = (one.mean, one.min, one.p50, one.p90, one.p99, one.max)
    rows = [
        ("clocks", f"{one.mean:,.1f}", *(f"{value:,}" for value in values[1:])),
        ("ns", *(f"{value * nanoseconds:,.1f}" for value in values)),
    ]
    return "Read latency\n" + text_table(columns, rows, _INDENT)


def _rows(run: MemoryRun) -> str:
    listed = [
        ("hits", run.row_hits, "of an open row"),
        ("misses", run.row_misses, "of a closed bank"),
        ("conflicts", run.row_conflicts, "another row was open"),
        ("merged", run.merged, "with the write buffer"),
    ]
    columns = [
        Column("rows", lambda row: row[0], left=True),
        Column("requests", lambda row: count_text(row[1])),
        Column("share", lambda row: percent_text(row[1] / run.requests)),
        Column("", lambda row: bar(row[1] / run.requests), left=True),
        Column("", lambda row: row[2], left=True),
    ]
    shown = [row for row in listed if row[1] or row[0] != "merged"]
    return "Rows\n" + text_table(columns, shown, _INDENT)


def _commands(run: MemoryRun) -> str:
    used = (f"{name} {count:,}" for name, count in run.commands.items() if count)
    return f"Commands\n{_INDENT}{'   '.join(used)}"


def _channels(run: MemoryRun) -> str:
    if run.channels == 1:
        return ""
    columns = [
        Column("channel", lambda row: str(row[0])),
        Column("requests", lambda row: count_text(row[1].requests)),
        Column("moved", lambda row: bytes_text(row[1].bytes)),
        Column("data bus", lambda row: percent_text(row[1].bus_share)),
        Column("", lambda row: bar(row[1].bus_share), left=True),
    ]
    numbered = list(enumerate(run.channel_loads))
    more = len(numbered) - _CHANNELS
    rest = f"\n{_INDENT}… and {plural(more, 'more channel')}" if more > 0 else ""
    return "Channels\n" + text_table(columns, numbered[:_CHANNELS], _INDENT) + rest


def _energy(run: MemoryRun) -> str:
    total = run.energy_pj["total"]
    if not total:
        return f"Energy\n{_INDENT}{run.device} gives no energy numbers"
    per_bit = f"{total / (8 * run.bytes):.3g} pJ/bit"
    power = f"{scaled(total * 1e-12 / run.seconds, 'W')} mean power"
    table = energy_table(run.energy_pj)
    return f"Energy\n{table}\n{_INDENT}total {energy_text(total)}   {per_bit}   {power}"


def checked(run: MemoryRun | PimRun) -> str:
    """What the checker says of the commands, if it was asked."""
    if not run.verdicts:
        return ""
    commands = sum(verdict.commands for verdict in run.verdicts)
    found = [one for verdict in run.verdicts for one in verdict.violations]
    lines = [f"{plural(commands, 'command')} checked, {plural(run.violations, 'violation')}"]
    lines += [f"{_INDENT}{one}" for one in found[:_VIOLATIONS]]
    if run.violations > _VIOLATIONS:
        lines.append(f"{_INDENT}… and {run.violations - _VIOLATIONS:,} more")
    return "\n".join(lines)


def _effort(run: MemoryRun) -> str:
    return (
        f"{plural(run.requests, 'request')} in {seconds_text(run.wall_seconds)}   "
        f"accelsim {run.version}"
    )
