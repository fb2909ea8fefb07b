"""Independent checker of PIM command logs: is this what the family's rules allow?

Every constraint of device and family is looked for on every command of the log, straight from its
definition. Beyond the list: a command has its clock of its bus, rows are open where columns work
and closed where rows are opened or refreshed, no row is open in both buffers of a bank, bursts do
not overlap, and refreshes come in time. Nothing here is shared with the scheduler.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from accelsim.hw.dram.commands import Command, Scope
from accelsim.hw.pim.channel.log import PimLog
from accelsim.hw.pim.family import Family, PimConstraint, Reach, Role

Ints = NDArray[np.int64]

ORDER = "commands in the order of their clocks"
BUS = "one command per clock on a command bus"
DATA = "one burst at a time on the data bus"
NEEDS_ROW = "columns need their row open in all banks"
NEEDS_CLOSED = "a row is opened in banks that hold no other"
REFRESH_CLOSED = "a refresh needs closed banks"
CELLS_CLOSED = "operations in the cells need closed banks"
TWICE = "no row is open in both buffers of a bank"
LATE = "at most 8 refreshes are postponed"
POSTPONED = 8
KEPT = 100


@dataclass
class PimVerdict:
    """What the checker found: the first violations of every rule, and how many there were."""

    total: int = 0
    commands: int = 0
    violations: list[str] = field(default_factory=list)
    rules: set[str] = field(default_factory=set)

    @property
    def ok(self) -> bool:
        return self.total == 0


def check_log(
    family: Family, log: PimLog, *, refresh: bool = True, end_cycle: int = 0
) -> PimVerdict:
    """Check the log of one channel against its family."""
    check = _Check(family, log)
    if np.any(np.diff(log.cycle) < 0):
        late = int(np.flatnonzero(np.diff(log.cycle) < 0)[0])
        check.report(ORDER, late, late + 1)
        return check.verdict
    for one in family.all_constraints():
        check.constraint(one)
    check.states()
    check.buses()
    check.data()
    if refresh and family.rules.refresh:
        check.refreshes(max(end_cycle, int(log.cycle[-1]) if len(log) else 0))
    return check.verdict


class _Check:
    def __init__(self, family: Family, log: PimLog) -> None:
        self.family, self.log = family, log
        self.verdict = PimVerdict(commands=len(log))
        parts = family.device.organization
        bank = np.arange(family.banks)
        self.rank = bank // (parts.bank_groups * parts.banks)
        self.unit = {
            Scope.BANK: bank,
            Scope.BANK_GROUP: bank // parts.banks,
            Scope.RANK: self.rank,
            Scope.OTHER_RANKS: self.rank,
            Scope.PSEUDO_CHANNEL: self.rank // parts.ranks,
            Scope.CHANNEL: np.zeros_like(bank),
        }
        half = parts.ranks * parts.bank_groups * parts.banks
        self.alike = {
            Reach.BANK: bank,
            Reach.BANK_GROUP: self.unit[Scope.BANK_GROUP],
            Reach.RANK: self.rank,
            Reach.PSEUDO_CHANNEL: self.unit[Scope.PSEUDO_CHANNEL],
            Reach.CHANNEL: self.unit[Scope.CHANNEL],
            Reach.SAME_BANK: bank % parts.banks,
            Reach.TWIN_BANKS: bank % half,
            Reach.EVERY_OTHER: self.rank * family.banks + bank % 2,
        }

    def report(self, rule: str, first: int, second: int, why: str = "") -> None:
        self.verdict.total += 1
        self.verdict.rules.add(rule)
        if len(self.verdict.violations) < KEPT:
            pair = f"{self.log.entry(first, self.family)}, then "
            pair += self.log.entry(second, self.family)
            self.verdict.violations.append(f"{rule}: {pair}{why}")

    def banks_of(self, command: int, bank: int) -> Ints:
        """Banks that a command touches."""
        unit = self.alike[self.family.commands[command].reach]
        return np.flatnonzero(unit == unit[bank])

    def instances(self, scope: Scope, command: int, bank: int) -> list[int]:
        """Instances of a scope that a command touches."""
        return sorted(set(self.unit[scope][self.banks_of(command, bank)].tolist()))

    def placed(self, command: int, scope: Scope, others: bool = False) -> tuple[Ints, Ints]:
        """(instance, index in the log) of all such commands, once per instance they touch."""
        at = np.flatnonzero(self.log.command == command)
        instance: list[Ints] = []
        index: list[Ints] = []
        for bank in np.unique(self.log.bank[at]).tolist():
            mine = at[self.log.bank[at] == bank]
            touched = self.instances(scope, command, bank)
            if others:
                rank = self.unit[scope]
                bus = self.unit[Scope.PSEUDO_CHANNEL]
                here = set(bus[self.banks_of(command, bank)].tolist())
                touched = sorted(
                    {int(r) for r, b in zip(rank, bus, strict=True) if b in here} - set(touched)
                )
            for one in touched:
                instance.append(np.full(len(mine), one, np.int64))
                index.append(mine)
        if not instance:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        return np.concatenate(instance), np.concatenate(index)

    def constraint(self, one: PimConstraint) -> None:
        """``after`` against the ``window``-th last ``before`` in each instance of the scope."""
        log = self.log
        where, when = self.placed(one.before, one.scope)
        if one.each and self.family.commands[one.before].repeat == "run":
            begins = self.begins(one.before)
            keep = np.isin(when, begins)
            where, when = where[keep], when[keep]
        others = one.scope is Scope.OTHER_RANKS
        there, then = self.placed(one.after, one.scope, others)
        if not len(where) or not len(there):
            return
        key = np.sort(where * (len(log) + 1) + when)
        asked = there * (len(log) + 1) + then
        place = np.searchsorted(key, asked) - one.window
        last = key[np.maximum(place, 0)]
        found = (place >= 0) & (last // (len(log) + 1) == there)
        earlier = last % (len(log) + 1)
        least = one.cycles + one.each * np.maximum(log.repeat[earlier], one.least)
        wrong = found & (log.cycle[then] - log.cycle[earlier] < least)
        seen: set[tuple[int, int]] = set()
        for n in np.flatnonzero(wrong).tolist():
            pair = (int(earlier[n]), int(then[n]))
            if pair not in seen:
                seen.add(pair)
                self.report(one.name, *pair, f"; {int(least[n])} cycles are asked")

    def begins(self, command: int) -> Ints:
        """Where runs of a command begin: the first of it, and each after one that ended a run."""
        at = np.flatnonzero(self.log.command == command)
        before = np.append(1, self.log.repeat[at])[: len(at)]
        found: Ints = at[before == 1]
        return found

    def states(self) -> None:
        """Row buffers, command by command."""
        opened = np.full((2, self.family.banks), -1, np.int64)
        log = self.log
        columns = (log.command, log.bank, log.row)
        for n, (number, bank, row) in enumerate(np.stack(columns, axis=1).tolist()):
            command = self.family.commands[number]
            banks, mine = self.banks_of(number, bank), opened[int(command.second_buffer)]
            if command.role is Role.OPEN:
                if np.any((mine[banks] >= 0) & (mine[banks] != row)):
                    self.report(NEEDS_CLOSED, -1, n)
                if np.any(opened[1 - int(command.second_buffer)][banks] == row):
                    self.report(TWICE, -1, n)
                mine[banks] = row
            elif command.role is Role.CLOSE:
                mine[banks] = -1
            elif command.role is Role.COLUMN and np.any(mine[banks] != row):
                self.report(NEEDS_ROW, -1, n)
            elif command.role is Role.REFRESH and np.any(opened[:, banks] >= 0):
                self.report(REFRESH_CLOSED, -1, n)
            elif command.needs_closed and np.any(opened[:, banks] >= 0):
                self.report(CELLS_CLOSED, -1, n)

    def buses(self) -> None:
        over_rows = np.array([one.row_bus for one in self.family.commands])[self.log.command]
        everything = np.ones(len(self.log), np.bool_)
        dual = self.family.rules.dual_command
        for mine in (over_rows, ~over_rows) if dual else (everything,):
            at = np.flatnonzero(mine)
            for n in np.flatnonzero(np.diff(self.log.cycle[at]) == 0).tolist():
                self.report(BUS, int(at[n]), int(at[n + 1]))

    def data(self) -> None:
        """Bursts of the host on the data bus of each pseudo-channel."""
        log, t = self.log, self.family.device.timings
        moves = np.isin(log.command, (Command.RD, Command.WR))
        latency = np.where(log.command == Command.RD, t["CL"], t["CWL"])
        bus = self.unit[Scope.PSEUDO_CHANNEL][log.bank]
        for one in range(self.family.device.organization.pseudo_channels):
            at = np.flatnonzero(moves & (bus == one))
            begin = log.cycle[at] + latency[at]
            order = np.argsort(begin, kind="stable")
            for n in np.flatnonzero(np.diff(begin[order]) < t["burst_cycles"]).tolist():
                self.report(DATA, int(at[order[n]]), int(at[order[n + 1]]))

    def refreshes(self, end_cycle: int) -> None:
        """The n-th refresh of each rank comes by (n + 8) intervals."""
        interval = self.family.device.refresh.interval_cycles
        where, when = self.placed(Command.REFAB, Scope.RANK)
        for rank in range(int(self.rank.max()) + 1):
            times = np.append(np.sort(self.log.cycle[when[where == rank]]), end_cycle)
            due = (np.arange(len(times)) + POSTPONED + 1) * interval
            for _ in np.flatnonzero(times > due).tolist():
                self.report(LATE, -1, -1)
