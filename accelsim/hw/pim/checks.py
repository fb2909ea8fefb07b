"""What must hold between the parts of one family."""

from __future__ import annotations

from collections.abc import Iterator

from accelsim.errors import AccelsimError
from accelsim.hw.dram.commands import Command, Scope
from accelsim.hw.dram.controller import LARGEST_QUEUE
from accelsim.hw.pim.family import Family, PimCommand, Role, Units
from accelsim.numerics.arithmetic import arithmetic

FLOATS = ("fp32", "fp16", "bf16")
WORDS = {
    "row_buffer": ("single", "dual"),
    "order": ("tree", "lanes", "exact"),
    "accumulate": (*FLOATS, "int32"),
    "column_accumulate": FLOATS,
}
"""What units may be, where it is a word."""
WIDEST_WINDOW = 32
WIDEST_OPERAND = 64
IN_ORDER = {
    "newton": "rows and columns belong to the header before them",
    "banks": "columns take the vector that was written before them",
    "hbm-pim": "columns take the instructions of one microprogram, in order",
    "bit-serial": "operations take the rows that those before them left and closed",
}
"""Programs without barriers, and what goes wrong where a command overtakes another."""
WITH_BARRIERS = ("attacc",)
"""Programs of independent commands between barriers."""


def check(family: Family) -> None:
    """Raise AccelsimError for the first contradiction."""
    for message in _faults(family):
        raise AccelsimError(message)


def _faults(family: Family) -> Iterator[str]:
    units, rules = family.units, family.rules
    yield from _unit_faults(units, family.banks)
    yield from _window_faults(rules.window, family.programs)
    for name in ("pim_queue", "read_queue", "write_buffer", "command_queue", "hit_cap"):
        if not 1 <= getattr(rules, name) <= LARGEST_QUEUE:
            yield f"rules.{name} = {getattr(rules, name)}; accepted: 1 to {LARGEST_QUEUE}"
    yield from _command_faults(family)
    yield from _constraint_faults(family)
    yield from _run_faults(family)


def _window_faults(window: int, programs: str) -> Iterator[str]:
    if not 1 <= window <= WIDEST_WINDOW:
        yield f"rules.window = {window}; accepted: 1 to {WIDEST_WINDOW}"
    if window == 1 and programs in WITH_BARRIERS:
        yield (
            f"rules.window = 1, but programs {programs} part their steps by barriers, which"
            f" a queue in order has not; accepted: 2 to {WIDEST_WINDOW}"
        )
    if window > 1 and programs in IN_ORDER:
        why = IN_ORDER[programs]
        yield (
            f"rules.window = {window}, but in programs {programs} {why};"
            " accepted: 1, commands in order"
        )


def _unit_faults(units: Units, banks: int) -> Iterator[str]:
    if not 1 <= units.operand_bits <= WIDEST_OPERAND:
        yield f"units.operand_bits = {units.operand_bits}; accepted: 1 to {WIDEST_OPERAND}"
    for name in ("banks_per_unit", "sum_banks"):
        count = getattr(units, name)
        if count < 1 or banks % count:
            yield f"units.{name} = {count}; accepted: a divisor of the {banks} banks of a channel"
    if units.macs < 1 or units.macs & (units.macs - 1):
        yield f"units.macs = {units.macs}; accepted: a power of two"
    if (units.order == "exact") != (units.accumulate == "int32"):
        yield (
            f"units.order {units.order} in units.accumulate {units.accumulate}; accepted: exact"
            f" sums in int32, trees and lanes in {', '.join(FLOATS)}"
        )
    elif units.sum_banks > 1 and units.order != "tree":
        yield f"units.sum_banks = {units.sum_banks} with order {units.order}; accepted: order tree"
    else:
        for name in filter(None, (units.arithmetic, units.column_arithmetic)):
            try:
                _ = arithmetic(name)
            except AccelsimError as fault:
                yield f"units: {fault}"


def _command_faults(family: Family) -> Iterator[str]:
    for one in family.commands:
        if one.role is Role.COLUMN and (one.opens < 0 or one.closes < 0):
            yield f"{one.name} needs an open row; accepted: opens: and closes: name commands"
        if one.role is Role.HEADER and one.closes < 0:
            yield f"{one.name} closes other rows; accepted: closes: names a command"
        if one.repeat == "run" and one.step < 1:
            yield f"{one.name} comes in runs; accepted: step: cycles from one to the next"
        if one.second_buffer and family.units.row_buffer == "single":
            yield f"{one.name} works on a second row buffer, and row_buffer is single"
        for other, role in ((one.opens, Role.OPEN), (one.closes, Role.CLOSE)):
            if other < 0:
                continue
            found = family.commands[other]
            if found.role is not role:
                yield f"{one.name}: {found.name} is no command of role {role.name.lower()}"
            if one.role is not Role.REFRESH and found.second_buffer != one.second_buffer:
                yield (
                    f"{one.name} {_buffer(one)}, and {found.name}, which it"
                    f" {role.name.lower()}s rows by, {_buffer(found)}; accepted: the same"
                    " second_buffer for both"
                )


def _buffer(command: PimCommand) -> str:
    return f"works on the {'second' if command.second_buffer else 'first'} row buffer"


def _constraint_faults(family: Family) -> Iterator[str]:
    for rule in family.constraints:
        plain = (rule.before, rule.after, rule.scope) == (Command.ACT, Command.ACT, Scope.RANK)
        if rule.window > 1 and not plain:
            yield f"{rule.name}: a window of a PIM command; accepted: window 1"
    present = {(one.before, one.after) for one in family.all_constraints()}
    for one in family.commands[len(Command) :]:
        if one.role is Role.COLUMN and (one.opens, one.number) not in present:
            opening = family.commands[one.opens].name
            yield f"no constraint from {opening} to {one.name}; accepted: tRCD"
        if one.role is Role.OPEN and (Command.REFAB, one.number) not in present:
            yield f"no constraint from REFAB to {one.name}; accepted: tRFC"


def _run_faults(family: Family) -> Iterator[str]:
    """Commands of a run go to one bank, ``step`` apart, whatever holds between them."""
    for rule in family.all_constraints():
        one = family.commands[rule.after]
        plain = rule.each == 0 and rule.window == 1 and rule.scope is not Scope.OTHER_RANKS
        if one.repeat == "run" and rule.before == rule.after and plain and one.step < rule.cycles:
            yield (
                f"{one.name}: step {one.step} of its runs, but {rule.name or 'a constraint'} asks"
                f" {rule.cycles} from one {one.name} to the next; accepted: step {rule.cycles}"
                " or more"
            )
