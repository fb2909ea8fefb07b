"""The text summary of a run: what ``accelsim run`` and ``print(run)`` show."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from accelsim.results.table import Column, KindResult, OperatorTable, Table, text_table
from accelsim.results.text import (
    bytes_text,
    count_text,
    energy_text,
    percent_text,
    plural,
    scaled,
    seconds_text,
)
from accelsim.views.headline import headline
from accelsim.views.overlap import COLUMNS, at_work

if TYPE_CHECKING:
    from accelsim.results.result import Result

WIDTH = 88
_BAR = 26
_WAYS = 3  # ways in which attention was mapped that are told
_EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")
_INDENT = "  "


def summary(result: Result) -> str:
    """A run as plain text of at most 88 columns: what it took, what limits it, and why."""
    parts = [
        _head(result),
        _resources(result),
        _at_work(result),
        _passes(result),
        _operators(result),
        _attention(result),
        _traffic(result),
        _energy(result),
        _approximations(result),
        _effort(result),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(result: Result) -> str:
    head = headline(result)
    figures = "   ".join(" ".join(filter(None, figure)) for figure in head.figures)
    return "\n".join((*_sides(head.workload, head.machine), "", figures, head.limit))


def _sides(left: str, right: str) -> tuple[str, ...]:
    gap = WIDTH - len(left) - len(right)
    if gap >= 2:
        return (left + " " * gap + right,)
    return (*textwrap.wrap(left, WIDTH, subsequent_indent=_INDENT), right)


def bar(share: float, width: int = _BAR) -> str:
    """A share as a bar of blocks, in eighths of a character."""
    eighths = round(max(0.0, min(share, 1.0)) * width * 8)
    if share > 0 and not eighths:
        eighths = 1
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8]


_CORE = re.compile(r"core\d+\.")


@dataclass(frozen=True)
class Resource:
    """How much of a unit, memory or link a run used; ``bound`` is its lower bound in cycles."""

    name: str
    share: float
    meaning: str
    bound: float | None


def resources(result: Result) -> list[Resource]:
    """Everything that could limit the run, what limits it most first.

    Ports that exist once per core are shown as one, the busiest.
    """
    found = {
        name: Resource(name, share, _meaning(result, name), result.bounds.get(name))
        for name, share in result.utilization.items()
    }
    for name, bound in sorted(result.bounds.items(), key=lambda one: one[1]):
        short = _CORE.sub("", name)  # "dram-core0.spad" is a link, "core0.spad" a scratchpad
        if name not in found and result.cycles:
            label = short if short == name else f"{short} (busiest core)"
            found[label] = Resource(label, bound / result.cycles, "of its port's time", bound)
    return sorted(found.values(), key=lambda one: -one.share)


def _meaning(result: Result, name: str) -> str:
    arch = result.architecture
    if arch is not None and name in arch.memories:
        return "of peak bandwidth"
    if arch is not None and name in arch.networks:
        return "of the busiest link"
    peak = arch is not None and name in arch.units and arch.units[name].peak_macs_per_cycle()
    return "of peak MACs" if peak else "of time issuing"


def _resources(result: Result) -> str:
    columns = [
        Column("resource", lambda one: one.name, left=True),
        Column("used", lambda one: percent_text(one.share)),
        Column("", lambda one: bar(one.share).ljust(_BAR), left=True),
        Column("", lambda one: one.meaning, left=True),
        Column("lower bound", lambda one: f"{round(one.bound):,}" if one.bound else "-"),
    ]
    return "Resources\n" + text_table(columns, resources(result), _INDENT)


def _at_work(result: Result) -> str:
    """Arrays and banks that compute, where there are both."""
    rows = at_work(result)
    return "Arrays and banks\n" + text_table(COLUMNS, rows, _INDENT) if rows else ""


def _passes(result: Result) -> str:
    """What the parts of a training step took; nothing for a workload of one part."""
    passes = {op.name: op.pass_ for op in result.graph.operators} if result.graph else {}
    if len(set(passes.values())) < 2:
        return ""
    return "Training step\n" + _sums(result, OperatorTable(result.operators).by_pass(passes))


def _operators(result: Result) -> str:
    return "Operators\n" + _sums(result, OperatorTable(result.operators).by_kind())


def _sums(result: Result, kinds: Table[KindResult]) -> str:
    columns = [column for column in kinds.columns if column.title not in ("read", "written")]
    traffic = Column(
        f"{main_memory_label(result)} traffic",
        lambda row: bytes_text(row.traffic_bytes["read"] + row.traffic_bytes["write"]),
    )
    columns.insert(5, traffic)
    return text_table(columns, kinds, _INDENT)


def _attention(result: Result) -> str:
    """How attention was mapped, and what that saved: each way once, the most frequent first."""
    ways: Counter[str] = Counter()
    for one in result.operators:
        if one.kind == "attention":
            ways[f"{one.mapper}: {one.mapping}" if one.mapping else one.mapper] += one.repeat
    told = [_item(f"{count} x {way}") for way, count in ways.most_common(_WAYS)]
    if len(ways) > _WAYS:
        told.append(_item(f"{plural(len(ways) - _WAYS, 'other way')}"))
    return "\n".join(("Attention", *told)) if told else ""


def main_memory_label(result: Result) -> str:
    """Name of the memory that holds the tensors, or what several of them are called."""
    arch = result.architecture
    shared = [name for name, m in arch.memories.items() if m.shared] if arch else []
    return shared[0] if len(shared) == 1 else "memory"


def _traffic(result: Result) -> str:
    columns = [
        Column("memory", lambda row: row[0], left=True),
        Column("read", lambda row: bytes_text(row[1]["read"])),
        Column("written", lambda row: bytes_text(row[1]["write"])),
        Column("mean rate", lambda row: _rate(sum(row[1].values()), result.seconds)),
    ]
    return "Traffic\n" + text_table(columns, result.traffic_bytes.items(), _INDENT)


def _rate(nbytes: int, seconds: float) -> str:
    return scaled(nbytes / seconds, "B/s") if seconds else "-"


def _energy(result: Result) -> str:
    total = result.energy_pj["total"]
    if not total:
        return f"Energy\n{_INDENT}{result.arch} gives no energy numbers"
    per_mac = f"   {total / result.macs:.3g} pJ/MAC" if result.macs else ""
    power = f"   {scaled(total * 1e-12 / result.seconds, 'W')} mean power" if result.cycles else ""
    return "\n".join((
        "Energy", energy_table(result.energy_pj),
        f"{_INDENT}total {energy_text(total)}{per_mac}{power}",
    ))  # fmt: skip


def energy_table(energy_pj: Mapping[str, float]) -> str:
    """Components of a total, the largest first."""
    total = energy_pj["total"]
    columns = [
        Column("component", lambda row: row[0], left=True),
        Column("energy", lambda row: energy_text(row[1])),
        Column("share", lambda row: percent_text(row[1] / total)),
        Column("", lambda row: bar(row[1] / total), left=True),
    ]
    parts = [(name, pj) for name, pj in energy_pj.items() if name != "total"]
    return text_table(columns, sorted(parts, key=lambda part: -part[1]), _INDENT)


def _approximations(result: Result) -> str:
    if not result.approximations:
        return ""
    return "\n".join(("Approximations", *map(_item, result.approximations)))


def _item(text: str) -> str:
    """A line of a list, wrapped."""
    return textwrap.fill(
        text, WIDTH, initial_indent="  - ", subsequent_indent="    ", break_on_hyphens=False
    )


def _effort(result: Result) -> str:
    simulated = sum(len(run.bound.program) for run in result.segments) or result.instructions
    text = f"{plural(simulated, 'instruction')} in {seconds_text(result.wall_seconds)}"
    if simulated != result.instructions:
        text += f" ({count_text(result.instructions)} with repeated layers)"
    return f"{text}   accelsim {result.version}"
