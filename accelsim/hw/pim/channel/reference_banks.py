"""Banks and times of the specification of a PIM channel: rows, and what the constraints say.

The list of device and family is consulted on every question; nothing is derived from it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

from accelsim.hw.dram.commands import Command, Scope
from accelsim.hw.pim.family import Family, PimCommand, PimConstraint, Reach, Role


class Sent(NamedTuple):
    """A command of the log."""

    clock: int
    command: int
    bank: int
    row: int
    repeat: int


class HostRequest(NamedTuple):
    """A burst of the host; ``sender`` is told of it."""

    bank: int
    row: int
    column: int
    write: bool
    sender: object = None


@dataclass
class Entry:
    command: int
    row: int
    bank: int
    repeat: int
    results: int
    last: bool
    begun: int = -1  # clock of the first of a run
    total: int = 0
    sender: object = None
    after: tuple[HostRequest, ...] = ()  # writes that the banks have before


@dataclass
class Issue:
    """When a command was last sent: the first and the last of a run, and how many."""

    first: int
    last: int
    repeat: int


class Banks:
    """Row buffers of a channel, and when every command was sent last."""

    def __init__(self, family: Family) -> None:
        self.family = family
        parts = family.device.organization
        self.clock, self.log = 0, list[Sent]()
        self.rows: list[list[int | None]] = [[None] * family.banks for _ in range(2)]
        self.hits = [0] * family.banks
        self.rank_of = [b // parts.banks_per_rank for b in range(family.banks)]
        self.latest: dict[tuple[int, Scope, int], Issue] = {}
        self.acts: dict[int, list[int]] = defaultdict(list)
        self.rules_of: dict[int, list[PimConstraint]] = defaultdict(list)
        for one in family.all_constraints():
            self.rules_of[one.after].append(one)

    def instance(self, scope: Scope, bank: int) -> int:
        parts = self.family.device.organization
        if scope is Scope.BANK:
            return bank
        if scope is Scope.BANK_GROUP:
            return bank // parts.banks
        if scope in (Scope.RANK, Scope.OTHER_RANKS):
            return self.rank_of[bank]
        return self.rank_of[bank] // parts.ranks if scope is Scope.PSEUDO_CHANNEL else 0

    def reached(self, reach: Reach, bank: int) -> list[int]:
        parts = self.family.device.organization
        half = parts.ranks * parts.banks_per_rank
        banks = range(self.family.banks)
        key = {
            Reach.BANK: list(banks),
            Reach.BANK_GROUP: [b // parts.banks for b in banks],
            Reach.RANK: self.rank_of,
            Reach.PSEUDO_CHANNEL: [b // half for b in banks],
            Reach.CHANNEL: [0 for _ in banks],
            Reach.SAME_BANK: [b % parts.banks for b in banks],
            Reach.TWIN_BANKS: [b % half for b in banks],
            Reach.EVERY_OTHER: [2 * self.rank_of[b] + b % 2 for b in banks],
        }[reach]
        return [b for b in range(self.family.banks) if key[b] == key[bank]]

    # --- timing

    def ready(self, number: int, bank: int) -> bool:
        """Whether the list lets a command go to all banks that it reaches, in this clock."""
        command = self.family.commands[number]
        banks = self.reached(command.reach, bank)
        return all(self.allowed(one, b) for one in self.rules_of[number] for b in banks)

    def allowed(self, one: PimConstraint, bank: int) -> bool:
        if one.window > 1:
            acts = self.acts[self.rank_of[bank]]
            return len(acts) < one.window or self.clock >= acts[-one.window] + one.cycles
        for place in self.places(one.scope, bank):
            before = self.latest.get((one.before, one.scope, place))
            if before is None:
                continue
            least = one.cycles + one.each * max(before.repeat, one.least)
            if self.clock < (before.first if one.each else before.last) + least:
                return False
        return True

    def places(self, scope: Scope, bank: int) -> list[int]:
        if scope is not Scope.OTHER_RANKS:
            return [self.instance(scope, bank)]
        ranks = self.family.device.organization.ranks
        own = self.rank_of[bank]
        first = own // ranks * ranks
        return [rank for rank in range(first, first + ranks) if rank != own]

    def send(self, number: int, bank: int, row: int, entry: Entry | None = None) -> None:
        command = self.family.commands[number]
        repeat = 1 if entry is None else entry.repeat
        issued = Issue(self.clock, self.clock, 1)
        if entry is not None and command.repeat == "run":
            issued = Issue(entry.begun, self.clock, entry.total)
        elif entry is not None and command.repeat == "composite":
            issued = Issue(self.clock, self.clock, repeat)
        for b in self.reached(command.reach, bank):
            for scope in Scope:
                self.latest[number, scope, self.instance(scope, b)] = issued
            self.drive(command, b, row)
        if number == Command.ACT:
            self.acts[self.rank_of[bank]].append(self.clock)
        self.log.append(Sent(self.clock, number, bank, row, repeat))

    def drive(self, command: PimCommand, bank: int, row: int) -> None:
        buffer = int(command.second_buffer)
        if command.role is Role.OPEN:
            self.rows[buffer][bank] = row
        elif command.role is Role.CLOSE:
            self.rows[buffer][bank] = None
        else:
            return
        if buffer == 0:
            self.hits[bank] = 0
