"""Executable specification of one channel under policy ``window``: every clock in turn, slowly.

A channel has one queue per pseudo-channel: a FIFO of requests that arrived, a read window and a
write buffer. In a clock the following happens, in this order:

1. Refreshes fall due. A rank owes one more, and the banks whose turn it is serve nobody until the
   rank owes none.
2. Each queue chooses between its reads and its writes.
3. Commands go out: the first column command that is ready, else a row command that is ready (in
   the same clock where the device has two command buses). First come those of the first
   pseudo-channel, and of its own those for the oldest request. Both are chosen by what was true
   when the clock began. A refresh's row commands come before those of requests.
4. Each queue accepts requests in order. What is accepted may have its command in the next clock.

A command is ready when every constraint in the device's list allows it: the list itself is
consulted, nothing is derived from it. Nothing here is shared with the compiled kernels, which must
give the same commands and the same times.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from accelsim.hw.dram.commands import Command, Scope
from accelsim.hw.dram.controller import Controller
from accelsim.hw.dram.device import Device

Place = tuple[int, ...]  # pseudo-channel, rank, bank group, bank: or fewer, for a larger part

DEPTH_OF_SCOPE = {
    Scope.BANK: 4,
    Scope.BANK_GROUP: 3,
    Scope.RANK: 2,
    Scope.PSEUDO_CHANNEL: 1,
    Scope.CHANNEL: 0,
}


class Request(NamedTuple):
    """A burst that arrives at a clock; ``bank`` is counted through the channel."""

    bank: int
    row: int
    column: int
    write: bool = False
    clock: int = 0


class Entry(NamedTuple):
    """A command of the log. ``row`` is the one opened, closed or used; 0 for a refresh."""

    clock: int
    command: Command
    bank: int
    row: int
    column: int


class _Waiting(NamedTuple):
    """A request in a queue; its age is its place in the stream of the channel."""

    age: int
    request: Request


@dataclass
class _Bank:
    number: int
    place: Place
    row: int | None = None  # the open one
    served: int = 0  # column commands since the row was opened


@dataclass
class _Rank:
    place: Place
    banks: list[_Bank]
    due: int | None  # the next refresh; None: never refreshed
    owed: int = 0
    turn: int = 0  # of the banks that the next refresh concerns


@dataclass
class _Queue:
    fifo: deque[_Waiting] = field(default_factory=deque)
    reads: list[_Waiting] = field(default_factory=list)  # both from the oldest
    writes: list[_Waiting] = field(default_factory=list)
    draining: bool = False
    writing: bool = False  # the direction chosen
    accepted: int = 0  # requests in this clock

    def chosen(self) -> list[_Waiting]:
        return self.writes if self.writing else self.reads


class Channel:
    """One channel in plain Python. ``offer`` requests, ``tick`` clock by clock, read the log.

    Under a clock of somebody else: ``begin`` a clock, then ``accept`` once and again whenever
    requests arrive while it lasts.
    """

    def __init__(self, device: Device, controller: Controller) -> None:
        self.device, self.controller = device, controller
        self.clock = -1  # the last one that has begun
        self.log: list[Entry] = []
        self.accepted: dict[int, int] = {}  # clocks by age
        self.finished: dict[int, int] = {}
        self.history: dict[tuple[Command, Place], list[int]] = defaultdict(list)
        self.queues = [_Queue() for _ in range(device.organization.pseudo_channels)]
        self.ranks = self._all_ranks()
        self.banks = [bank for rank in self.ranks for bank in rank.banks]
        self.offered = 0

    def _all_ranks(self) -> list[_Rank]:
        """All ranks of the channel, their first refreshes staggered."""
        parts = self.device.organization
        places = [(p, r) for p in range(parts.pseudo_channels) for r in range(parts.ranks)]
        self.refresh_step = max(1, self._refresh_interval() // len(places))
        ranks = []
        for n, (p, r) in enumerate(places):
            first = n * parts.banks_per_rank
            spots = [(p, r, g, b) for g in range(parts.bank_groups) for b in range(parts.banks)]
            banks = [_Bank(first + k, spot) for k, spot in enumerate(spots)]
            due = (n + 1) * self.refresh_step if self.controller.refresh else None
            ranks.append(_Rank((p, r), banks, due))
        return ranks

    def offer(self, request: Request) -> int:
        """A request joins the FIFO of its pseudo-channel; returns its age."""
        age, self.offered = self.offered, self.offered + 1
        pseudo_channel = self.banks[request.bank].place[0]
        self.queues[pseudo_channel].fifo.append(_Waiting(age, request))
        return age

    def busy(self) -> bool:
        """Whether a request waits, or a refresh."""
        waiting = any(queue.fifo or queue.reads or queue.writes for queue in self.queues)
        return waiting or any(rank.owed for rank in self.ranks)

    def tick(self) -> None:
        """One clock."""
        self.begin(self.clock + 1)
        self.accept()

    def begin(self, clock: int) -> None:
        """Live up to a clock and through all of it but acceptance; nothing if it has begun."""
        while self.clock < clock:
            if self.clock >= 0:
                self.accept()
            self.clock += 1
            self._let_refreshes_fall_due()
            for queue in self.queues:
                queue.accepted = 0
                self._choose_direction(queue)
            self._issue()

    def accept(self) -> None:
        """The last part of a clock; again, if more arrives while the clock lasts."""
        for queue in self.queues:
            self._accept(queue)

    # --- 1. refreshes

    def _refresh_interval(self) -> int:
        refresh = self.device.refresh
        if refresh.kind == "per-bank":
            return refresh.per_bank_interval_cycles
        return refresh.interval_cycles

    def _let_refreshes_fall_due(self) -> None:
        """The ranks of the channel fall due in turn, ``refresh_step`` after one another."""
        for rank in self.ranks:
            if rank.due is not None and rank.due <= self.clock:
                rank.owed += 1
                rank.due += self.refresh_step * len(self.ranks)

    def _refreshed(self, rank: _Rank) -> list[_Bank]:
        """The banks that the next refresh of a rank concerns: all, or those whose turn it is.

        Turns go through the bank groups first; one command refreshes its bank in every
        ``groups_per_command`` groups that are equal modulo the others.
        """
        refresh = self.device.refresh
        if refresh.kind == "all-bank":
            return rank.banks
        step = self.device.organization.bank_groups // refresh.groups_per_command
        number, group = divmod(rank.turn, step)
        return [b for b in rank.banks if b.place[3] == number and b.place[2] % step == group]

    def _barred(self) -> set[int]:
        """Numbers of the banks that wait for a refresh and serve nobody."""
        return {b.number for rank in self.ranks if rank.owed for b in self._refreshed(rank)}

    # --- 2. reads or writes

    def _choose_direction(self, queue: _Queue) -> None:
        """Reads first; writes from the high watermark to the low one, and while no read waits."""
        if len(queue.writes) >= self.controller.high_watermark:
            queue.draining = True
        elif len(queue.writes) <= self.controller.low_watermark:
            queue.draining = False
        queue.writing = queue.draining or (not queue.reads and bool(queue.writes))

    # --- 3. commands

    def _issue(self) -> None:
        """One command; a row and a column command where the device has two command buses."""
        columns, rows = self._wanted()
        column = next((one for one in columns if self._ready(one[0], [one[1].place])), None)
        refresh = self._wanted_by_refresh()
        row = next((one for one in rows if self._ready(one[0], [one[1].place])), None)
        if column is not None:
            self._serve(*column)
            if not self.device.dual_command:
                return
        if refresh is not None:
            self._towards_refresh(*refresh)
        elif row is not None:
            self._open_or_close(*row)

    def _wanted(self) -> tuple[list[tuple[Command, _Bank, _Waiting]], ...]:
        """What each bank needs next in the chosen direction: columns and rows, in their order.

        A closed bank needs ACT for its oldest request. An open one serves its oldest hit, unless an
        older request waits for another row and ``hit_cap`` columns have been served: then PRE.
        """
        columns, rows, barred = [], [], self._barred()
        for queue in self.queues:
            of_bank: dict[int, list[_Waiting]] = defaultdict(list)
            for one in queue.chosen():
                of_bank[one.request.bank].append(one)
            for number, waiting in of_bank.items():
                bank, oldest = self.banks[number], waiting[0]
                hits = [one for one in waiting if one.request.row == bank.row]
                if number in barred:
                    continue
                if bank.row is None:
                    rows.append((Command.ACT, bank, oldest))
                elif hits and (hits[0] is oldest or bank.served < self.controller.hit_cap):
                    columns.append((self._column_command(queue, hits[0]), bank, hits[0]))
                else:
                    rows.append((Command.PRE, bank, oldest))
        return tuple(
            sorted(some, key=lambda one: (one[1].place[0], one[2].age)) for some in (columns, rows)
        )

    def _column_command(self, queue: _Queue, mine: _Waiting) -> Command:
        """RD or WR; with page ``closed`` the last queued access to a row precharges its bank."""
        same_row = [
            one
            for one in (*queue.reads, *queue.writes)
            if (one.request.bank, one.request.row) == (mine.request.bank, mine.request.row)
        ]
        if self.controller.page == "closed" and len(same_row) == 1:
            return Command.WRA if mine.request.write else Command.RDA
        return Command.WR if mine.request.write else Command.RD

    def _wanted_by_refresh(self) -> tuple[Command, _Rank, _Bank] | None:
        """The first ready one of: PRE of an open bank, a refresh when all its banks are closed."""
        for rank in self.ranks:
            if not rank.owed:
                continue
            banks = self._refreshed(rank)
            opened = [bank for bank in banks if bank.row is not None]
            for bank in opened:
                if self._ready(Command.PRE, [bank.place]):
                    return Command.PRE, rank, bank
            all_banks = self.device.refresh.kind == "all-bank"
            command = Command.REFAB if all_banks else Command.REFPB
            if not opened and self._ready(command, [bank.place for bank in banks]):
                return command, rank, banks[0]
        return None

    def _serve(self, command: Command, bank: _Bank, one: _Waiting) -> None:
        """A read's data are there CL and a burst later; a write was done when it was accepted."""
        queue, t = self.queues[bank.place[0]], self.device.timings
        self._record(command, [bank.place])
        self.log.append(Entry(self.clock, command, bank.number, bank.row or 0, one.request.column))
        queue.chosen().remove(one)
        bank.served += 1
        if not one.request.write:
            self.finished[one.age] = self.clock + t["CL"] + t["burst_cycles"]
        if command in (Command.RDA, Command.WRA):
            bank.row = None

    def _open_or_close(self, command: Command, bank: _Bank, one: _Waiting) -> None:
        """ACT or PRE for a request."""
        self._record(command, [bank.place])
        row = one.request.row if command is Command.ACT else bank.row or 0
        self.log.append(Entry(self.clock, command, bank.number, row, 0))
        bank.row, bank.served = (row, 0) if command is Command.ACT else (None, bank.served)

    def _towards_refresh(self, command: Command, rank: _Rank, bank: _Bank) -> None:
        """PRE of a bank that waits for a refresh, or the refresh, named after its first bank."""
        if command is Command.PRE:
            self._record(command, [bank.place])
            self.log.append(Entry(self.clock, command, bank.number, bank.row or 0, 0))
            bank.row = None
            return
        self._record(command, [one.place for one in self._refreshed(rank)])
        self.log.append(Entry(self.clock, command, bank.number, 0, 0))
        rank.owed -= 1
        turns = len(rank.banks) // self.device.refresh.groups_per_command
        rank.turn = (rank.turn + 1) % turns

    # --- constraints

    def _ready(self, command: Command, places: Sequence[Place]) -> bool:
        """Whether every constraint allows a command to these banks in this clock."""
        for one in self.device.constraints:
            if one.after is not command:
                continue
            for part in self._parts(one.scope, places):
                earlier = self.history.get((one.before, part), ())
                if len(earlier) >= one.window and self.clock < earlier[-one.window] + one.cycles:
                    return False
        return True

    def _parts(self, scope: Scope, places: Iterable[Place]) -> set[Place]:
        """The parts of the channel in which a constraint on these banks looks for commands."""
        if scope is Scope.OTHER_RANKS:
            siblings = range(self.device.organization.ranks)
            return {(place[0], r) for place in places for r in siblings if r != place[1]}
        return {place[: DEPTH_OF_SCOPE[scope]] for place in places}

    def _record(self, command: Command, places: Sequence[Place]) -> None:
        for scope in DEPTH_OF_SCOPE:
            for part in self._parts(scope, places):
                self.history[command, part].append(self.clock)

    # --- 4. acceptance

    def _accept(self, queue: _Queue) -> None:
        """In order, until one has not arrived, finds no room, or would overtake an older read.

        A request needs room in its window or buffer even if it will not stay there: a write to an
        address that waits in the write buffer is merged into it, a read of one is served from it.
        A write is done one clock after it is accepted, and so is a read served from the buffer.
        """
        most = self.controller.accepts_per_clock or queue.accepted + len(queue.fifo)
        while queue.accepted < most:
            if not queue.fifo or queue.fifo[0].request.clock > self.clock:
                return
            one = queue.fifo[0]
            write, mine = one.request.write, queue.writes if one.request.write else queue.reads
            room = self.controller.write_buffer if write else self.controller.window
            if len(mine) >= room or (write and _holds(queue.reads, one)):
                return
            queue.fifo.popleft()
            queue.accepted += 1
            self.accepted[one.age] = self.clock
            buffered = _holds(queue.writes, one)
            if write or buffered:
                self.finished[one.age] = self.clock + 1
            if not buffered:
                mine.append(one)


def _holds(waiting: Iterable[_Waiting], one: _Waiting) -> bool:
    """Whether a burst of the same address waits."""
    return any(other.request[:3] == one.request[:3] for other in waiting)


class Result(NamedTuple):
    """Commands in their order, and the clocks of the requests in the order of the stream."""

    log: list[Entry]
    accepted: list[int]
    finished: list[int]


def run(device: Device, controller: Controller, requests: Sequence[Request]) -> Result:
    """Serve a stream whose clocks do not decrease, until no request waits and no refresh."""
    channel = Channel(device, controller)
    for request in requests:
        channel.offer(request)
    while channel.busy():
        channel.tick()
    ages = range(len(requests))
    accepted, finished = ([of[n] for n in ages] for of in (channel.accepted, channel.finished))
    return Result(channel.log, accepted, finished)
