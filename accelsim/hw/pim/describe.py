"""A PIM family as text: one line for lists, a page for reading."""

from __future__ import annotations

from collections.abc import Iterator

from accelsim.hw.dram.commands import Command
from accelsim.hw.pim.family import Family, Units
from accelsim.quantities import HERTZ


def summary(family: Family) -> str:
    """What it is, on what, e.g. "a second row buffer ...: 32 banks x 16 macs, newton-hbm2"."""
    units = family.banks // family.units.banks_per_unit
    return (
        f"{family.description}: {units} units of {family.units.macs} macs a channel, "
        f"{family.device.name}"
    )


def describe(family: Family) -> str:
    """Units, rules, commands and constraints, with sources."""
    return "\n".join([*_head(family), *_commands(family), *_constraints(family), ""])


def _head(family: Family) -> Iterator[str]:
    units, rules = family.units, family.rules
    yield f"{family.name}  {family.description}"
    yield (
        f"{family.channels} channels of {family.device.name} @ "
        f"{HERTZ.format(family.device.clock_hz)}  {family.banks} banks a channel"
    )
    yield (
        f"units: one for {units.banks_per_unit} bank(s), {units.macs} macs of "
        f"{units.operand_bits} bits, {_sums(units)}; "
        f"{units.row_buffer} row buffer"
    )
    traffic = "in the slots between" if rules.concurrent else "only between tiles"
    order = "in order" if rules.window == 1 else f"among {rules.window}, up to a barrier"
    refresh = "refreshed in time" if rules.refresh else "no refresh"
    yield f"controller: PIM commands {order}; reads and writes {traffic}; {refresh}"
    for name, text in family.sources.items():
        yield f"source of {name}: {text}"


def _sums(units: Units) -> str:
    """How they add, by the names of numerics.arithmetic."""
    if not units.arithmetic:
        return f"{units.order} sums in {units.accumulate}"
    columns = f", of columns by {units.column_arithmetic}" if units.column_arithmetic else ""
    return f"sums by {units.arithmetic}{columns}"


def _commands(family: Family) -> Iterator[str]:
    yield "\ncommands"
    for one in family.commands[len(Command) :]:
        notes = [one.role.name.lower(), one.reach.name.lower().replace("_", " ")]
        for word, other in (("opens with", one.opens), ("closes with", one.closes)):
            notes += [f"{word} {family.commands[other].name}"] if other >= 0 else []
        notes += [f"in runs, {one.step} clocks apart"] if one.repeat == "run" else []
        notes += ["a composite"] if one.repeat == "composite" else []
        notes += [f"holds for {one.hold} clocks"] if one.hold else []
        notes += [f"{one.energy_pj:,.0f} pJ"] if one.energy else []
        yield f"  {one.name:14} {', '.join(notes)}"


def _constraints(family: Family) -> Iterator[str]:
    yield "\nconstraints beside the device's: at least so many clocks from one to the other"
    rules: dict[tuple[str, str, str], list[str]] = {}
    for one in family.constraints:
        more = f" + {one.each} x max(k, {one.least})" if one.each else ""
        key = (f"{one.cycles}{more}", one.scope.name.lower(), one.name)
        before, after = family.commands[one.before].name, family.commands[one.after].name
        rules.setdefault(key, []).append(f"{before} to {after}")
    for (cycles, scope, name), pairs in rules.items():
        yield f"  {cycles:>5}  {', '.join(pairs)}, {scope}  ({name})"
