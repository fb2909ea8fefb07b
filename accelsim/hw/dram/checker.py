"""Independent checker of command logs: is this what the device allows?

Every constraint of the device's flat list is looked for on every command of the log, straight from
its definition. Beyond the list: a command has its clock of the command bus (a row and a column
command may share one on devices with two buses), bursts do not overlap on the data bus, banks are
in the state that a command needs, and refreshes come in time. Nothing here is shared with a
scheduler.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from accelsim.hw.dram.commands import COLUMN_COMMANDS, READS, Command
from accelsim.hw.dram.device import Constraint, Device
from accelsim.hw.dram.log import CommandLog

if TYPE_CHECKING:
    from accelsim.hw.dram.checker_kernels import Columns, Rules, Shape

Ints = NDArray[np.int64]

STATE_RULES = (
    "ACT needs a precharged bank",
    "RD and WR need an open row",
    "RD and WR need the open row",
    "REF needs precharged banks",
)
ORDER, RANGE, BUS, DATA = (
    "commands in the order of their clocks",
    "an address inside the device",
    "one command per clock on a command bus",
    "one burst at a time on the data bus",
)
INTERVAL, DEBT = (
    "no bank waits longer than 9 tREFI for a refresh",
    "at most 8 refreshes of a bank are postponed",
)
POSTPONED = 8
"""Refresh commands that may be postponed: JESD79-4B 4.26, JESD79-5B, JESD209-4B, JESD235D."""


@dataclass(frozen=True)
class Violation:
    """A broken rule: a constraint of the device, or one of the rules named in this module.

    ``first`` and ``second`` are indices into the log (the later command is ``second``), -1 where
    there is none.
    """

    rule: str
    first: int
    second: int
    text: str
    constraint: Constraint | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Verdict:
    """What the checker found: the first violations of each pass, and how many there were."""

    violations: list[Violation]
    total: int
    commands: int
    rules: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.total == 0


def check_log(
    device: Device,
    log: CommandLog,
    *,
    refresh: bool = True,
    end_cycle: int | None = None,
    limit: int = 1000,
) -> Verdict:
    """Check a log of one channel against its device.

    ``refresh``: whether refreshes must come in time, from clock 0 to ``end_cycle`` (default: the
    last command). Of each kind of rule the first ``limit`` violations are kept.
    """
    check = _Check(device, log, limit)
    if not check.in_order() or not check.in_range():
        return check.verdict()  # neither the state nor the history of a bank would mean anything
    check.constraints_and_states()
    check.command_bus()
    check.data_bus()
    if refresh:
        last = int(log.cycle[-1]) if len(log) else 0
        check.refreshes(last if end_cycle is None else end_cycle)
    return check.verdict()


class _Check:
    def __init__(self, device: Device, log: CommandLog, limit: int) -> None:
        self.device, self.log, self.limit = device, log, limit
        self.found: list[Violation] = []
        self.total = 0

    def verdict(self) -> Verdict:
        return Verdict(
            sorted(self.found, key=lambda one: one.second),
            self.total,
            len(self.log),
            sorted({one.rule for one in self.found}),
        )

    def report(self, rule: str, first: Ints, second: Ints, why: str = "") -> None:
        self.total += len(second)
        for a, b in zip(first[: self.limit].tolist(), second[: self.limit].tolist(), strict=True):
            self.found.append(Violation(rule, a, b, f"{rule}: {self.pair(a, b)}{why}"))

    def pair(self, first: int, second: int) -> str:
        later = self.log.entry(second) if second >= 0 else "end of the log"
        return later if first < 0 else f"{self.log.entry(first)}, then {later}"

    def in_order(self) -> bool:
        late = np.flatnonzero(np.diff(self.log.cycle) < 0)
        self.report(ORDER, late, late + 1)
        return not len(late)

    def in_range(self) -> bool:
        parts, log = self.device.organization, self.log
        no_bank = np.isin(log.command, (Command.PREAB, Command.REFAB))
        column = np.isin(log.command, COLUMN_COMMANDS)
        limits = (
            (log.command, len(Command), None), (log.pseudo_channel, parts.pseudo_channels, None),
            (log.rank, parts.ranks, None), (log.bank_group, parts.bank_groups, ~no_bank),
            (log.bank, parts.banks, ~no_bank), (log.column, parts.columns, column),
            (log.row, parts.rows, column | (log.command == Command.ACT)),
        )  # fmt: skip
        outside = np.zeros(len(log), np.bool_)
        for values, limit, where in limits:
            wrong = (values < 0) | (values >= limit)
            outside |= wrong if where is None else wrong & where
        at = np.flatnonzero(outside)
        self.report(RANGE, np.full(len(at), -1), at)
        return not len(at)

    def constraints_and_states(self) -> None:
        from accelsim.hw.dram import checker_kernels as kernels

        columns, rules, shape = self.columns(), self.rules(), self.shape()
        found = np.zeros((self.limit, 3), np.int64)
        broken = kernels.check_constraints(columns, rules, shape, found)
        for number, first, second in found[: min(broken, self.limit)].tolist():
            self.found.append(self.of_constraint(number, first, second))
        wrong = kernels.check_states(columns, shape, found)
        for number, first, second in found[: min(wrong, self.limit)].tolist():
            rule = STATE_RULES[number]
            text = f"{rule}: {self.pair(first, second)}"
            self.found.append(Violation(rule, first, second, text))
        self.total += broken + wrong

    def of_constraint(self, number: int, first: int, second: int) -> Violation:
        constraint = self.device.constraints[number]
        gap = int(self.log.cycle[second] - self.log.cycle[first])
        text = f"{constraint}: {gap} cycles between {self.pair(first, second)}"
        return Violation(constraint.name or str(constraint), first, second, text, constraint)

    def columns(self) -> Columns:
        from accelsim.hw.dram.checker_kernels import Columns

        log = self.log
        return Columns(
            log.cycle, log.command, log.pseudo_channel, log.rank, log.bank_group, log.bank, log.row
        )

    def shape(self) -> Shape:
        from accelsim.hw.dram.checker_kernels import Shape

        parts = self.device.organization
        groups = self.device.refresh.groups_per_command
        return Shape(parts.pseudo_channels, parts.ranks, parts.bank_groups, parts.banks, groups)

    def rules(self) -> Rules:
        from accelsim.hw.dram.checker_kernels import Rules

        listed = self.device.constraints
        order = sorted(range(len(listed)), key=lambda number: listed[number].after)
        after = [int(listed[number].after) for number in order]

        def column(name: str) -> Ints:
            return np.array([int(getattr(listed[n], name)) for n in order], np.int64)

        return Rules(
            np.searchsorted(after, np.arange(len(Command) + 1)).astype(np.int64),
            column("before"),
            column("scope"),
            column("cycles"),
            column("window"),
            np.array(order, np.int64),
            max((one.window for one in listed), default=1),
        )

    def command_bus(self) -> None:
        log, everything = self.log, np.ones(len(self.log), np.bool_)
        column = np.isin(log.command, COLUMN_COMMANDS)
        buses = (column, ~column) if self.device.dual_command else (everything,)
        for bus in buses:
            at = np.flatnonzero(bus)
            same = np.flatnonzero(np.diff(log.cycle[at]) == 0)
            self.report(BUS, at[same], at[same + 1])

    def data_bus(self) -> None:
        log, timings = self.log, self.device.timings
        latency = np.where(np.isin(log.command, READS), timings["CL"], timings["CWL"])
        for bus in range(self.device.organization.pseudo_channels):
            column = np.isin(log.command, COLUMN_COMMANDS) & (log.pseudo_channel == bus)
            at = np.flatnonzero(column)
            begin = log.cycle[at] + latency[at]
            order = np.argsort(begin, kind="stable")
            clash = np.flatnonzero(np.diff(begin[order]) < timings["burst_cycles"])
            a, b = at[order[clash]], at[order[clash + 1]]
            self.report(DATA, np.minimum(a, b), np.maximum(a, b))

    def refreshes(self, end_cycle: int) -> None:
        """Each bank's n-th refresh by (n + 8) intervals, and none 9 intervals after the one before.

        The interval is tREFI, or where banks are refreshed one by one the time of a round of all of
        them. An all-bank refresh counts for every bank of the rank, so ranks that know no other are
        checked as one bank.
        """
        for interval, at in self.refreshed_units():
            times = np.append(self.log.cycle[at], end_cycle)
            index = np.append(at, -1)
            before = np.append(0, times[:-1])
            late = np.flatnonzero(times - before > (POSTPONED + 1) * interval)
            earlier = np.append(-1, at)
            why = f"; the interval is {interval} cycles"
            self.report(INTERVAL, earlier[late], index[late], why)
            # Entry n stands n refreshes after the first interval; the end is no refresh.
            due = (np.arange(len(times)) + POSTPONED + 1) * interval
            owed = np.flatnonzero(times > due)
            self.report(DEBT, earlier[owed], index[owed], why)

    def refreshed_units(self) -> Iterator[tuple[int, Ints]]:
        """(interval, indices of the refreshes) of each rank, or of each bank where banks are
        refreshed."""
        parts, log, refresh = self.device.organization, self.log, self.device.refresh
        step = parts.bank_groups // refresh.groups_per_command
        round_of_banks = step * parts.banks * refresh.per_bank_interval_cycles
        whole, single = log.command == Command.REFAB, log.command == Command.REFPB
        for bus in range(parts.pseudo_channels):
            for rank in range(parts.ranks):
                here = (log.pseudo_channel == bus) & (log.rank == rank)
                if not np.any(here & single):
                    yield refresh.interval_cycles, np.flatnonzero(here & whole)
                    continue
                for group in range(step):
                    for bank in range(parts.banks):
                        mine = single & (log.bank_group % step == group) & (log.bank == bank)
                        yield round_of_banks, np.flatnonzero(here & (whole | mine))
