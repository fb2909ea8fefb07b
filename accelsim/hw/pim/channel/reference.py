"""Executable specification of a PIM channel: every clock in turn, slowly.

In a clock the following happens, in this order:

1. Requests of the host enter the read queue and the write buffer, while there is room.
2. A held command that has ended lets the others go; reads that have ended make room.
3. Refreshes fall due.
4. One command goes out. First what an owed refresh needs, then the PIM queue, then the host, bank
   by bank in turn. Rules of the family say who keeps whom waiting. Where rows and columns have a
   bus each, another PIM command may go over the other one.
5. One entry moves into the PIM queue, or one request to the queue of its bank. An entry that
   begins a product waits until what was written before is in the banks; writes are drained then.

A command is ready when every constraint in the list of device and family allows it: the list itself
is consulted. A run of columns is sent one by one. Nothing here is shared with the compiled kernels,
which must give the same commands at the same clocks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from accelsim.hw.dram.commands import Command
from accelsim.hw.pim.channel.reference_banks import Banks, Entry, HostRequest
from accelsim.hw.pim.channel.stream import BARRIER, PimStream
from accelsim.hw.pim.family import Family, PimCommand, Reach, Role

IDLE_WRITES = 8
ENDLESS = 1 << 62


class PimChannel(Banks):
    """One channel in plain Python: ``tick`` clock by clock, read the log."""

    def __init__(
        self,
        family: Family,
        stream: PimStream,
        requests: Iterable[HostRequest] = (),
        outstanding: int = 0,
        refresh: bool = True,
    ) -> None:
        super().__init__(family)
        self.outstanding, rules = outstanding, family.rules
        self.offered = deque[Entry]()
        self.accepted = list[object]()  # senders, of entries and requests, once each
        self.given = list[tuple[object, int]]()  # (sender, clock) of what is done
        self.queue: deque[Entry] = deque()
        self.looked: list[Entry] = []
        self.host = deque(requests)
        self.reads: list[HostRequest] = []
        self.writes: list[HostRequest] = []
        self.banks: list[list[HostRequest]] = [[] for _ in range(self.family.banks)]
        self.ends: deque[int] = deque()
        self.draining = self.turn = 0
        interval = self.family.device.refresh.interval_cycles
        self.unit = self.family.commands[Command.REFAB].reach
        self.units = len({self.unit_of(b) for b in range(self.family.banks)})
        self.interval = interval if rules.refresh_together else interval // self.units
        if not (refresh and rules.refresh):
            self.interval = ENDLESS
        self.due, self.owed, self.next_unit = self.interval, 0, 0
        self.refreshing = self.skipping = self.in_tile = False
        self.slack, self.reserved = 0, -1
        self.holding: Entry | None = None
        self.hold_end: int | None = None
        self.finish = 0
        self.command(stream)

    def unit_of(self, bank: int) -> int:
        parts = self.family.device.organization
        rank = bank // parts.banks_per_rank
        return rank // parts.ranks if self.unit is Reach.PSEUDO_CHANNEL else rank

    # --- a clock

    def tick(self) -> None:
        self.clock += 1
        self.offer()
        self.return_ended()
        if self.clock >= self.due:
            self.owed += self.units if self.family.rules.refresh_together else 1
            self.due += self.interval
        sent = self.choose()
        if sent is not None and self.family.rules.dual_command and self.family.rules.window > 1:
            alone = self.owed > 0 and self.family.rules.refresh_alone
            hosts_turn = not self.family.rules.concurrent and self.waiting()
            if not (alone or hosts_turn):
                self.from_looked(not self.family.commands[sent].row_bus)
        self.move()

    def command(self, stream: PimStream, sender: object = None) -> None:
        """A product to compute after those that came before."""
        after = tuple(self.writes) + tuple(r for bank in self.banks for r in bank if r.write)
        for c, r, b, n, k, e in stream.table().tolist():
            self.offered.append(Entry(c, r, b, n, k, bool(e), -1, n, sender, after))
            after = ()

    def busy(self) -> bool:
        """Whether anything waits."""
        host = self.host or self.reads or self.writes or self.waiting()
        return bool(host or self.offered or self.queue or self.looked)

    def fenced(self) -> bool:
        """Whether the next entry waits for writes."""
        if not self.offered:
            return False
        held = [*self.writes, *(r for bank in self.banks for r in bank)]
        return any(one is other for one in self.offered[0].after for other in held)

    @property
    def done(self) -> bool:
        waits = self.offered or self.queue or self.looked
        return not waits and self.clock >= self.finish

    def offer(self) -> None:
        rules = self.family.rules
        while self.host:
            if self.host[0].write:
                if len(self.writes) >= rules.write_buffer:
                    return
                self.writes.append(self.host.popleft())
                self.accepted.append(self.writes[-1].sender)
                self.given.append((self.writes[-1].sender, self.clock + 1))
                continue
            under_way = len(self.reads) + len(self.ends) + self.waiting()
            if len(self.reads) >= rules.read_queue:
                return
            if self.outstanding and under_way >= self.outstanding:
                return
            self.reads.append(self.host.popleft())
            self.accepted.append(self.reads[-1].sender)

    def waiting(self) -> int:
        """Requests in the queues of the banks."""
        return sum(len(queue) for queue in self.banks)

    def return_ended(self) -> None:
        if self.hold_end is not None and self.clock >= self.hold_end:
            self.hold_end = self.holding = None
            self.slack = 0
        while self.ends and self.ends[0] <= self.clock:
            self.ends.popleft()

    def choose(self) -> int | None:
        """Send one command."""
        rules = self.family.rules
        if self.owed:
            self.refreshing = True
            sent = self.for_refresh()
            if sent is not None or rules.refresh_alone:
                return sent
        pim = not self.skipping
        if rules.concurrent:
            pim = pim and not self.refreshing
        elif pim and (not self.waiting() or self.in_tile):
            return None if self.refreshing else self.from_pim()
        else:
            pim = False
        if pim:
            sent = self.from_pim()
            held_back = rules.window == 1 and bool(self.queue) and self.slack < rules.guard
            if sent is not None or held_back:
                return sent
        return self.from_host(bool(self.queue))

    def for_refresh(self) -> int | None:
        mine = [b for b in range(self.family.banks) if self.unit_of(b) == self.next_unit]
        refresh = self.family.commands[Command.REFAB]
        closed = True
        for bank in mine:
            closing = self.closing_for_refresh(bank, refresh)
            if closing is None:
                continue
            closed = False
            if self.ready(closing, bank):
                self.send(closing, bank, -1)
                return closing
        if not closed or not self.ready(refresh.number, mine[0]):
            return None
        self.send(refresh.number, mine[0], -1)
        self.owed -= 1
        self.next_unit = (self.next_unit + 1) % self.units
        self.refreshing = self.skipping = False
        self.slack, self.reserved = 0, -1
        return refresh.number

    def closing_for_refresh(self, bank: int, refresh: PimCommand) -> int | None:
        if self.rows[0][bank] is not None:
            return refresh.closes if refresh.closes >= 0 else Command.PRE
        return self.second_close() if self.rows[1][bank] is not None else None

    def second_close(self) -> int:
        """What closes the row buffer of the units."""
        return next(c.closes for c in self.family.commands if c.second_buffer and c.closes >= 0)

    # --- PIM commands

    def from_pim(self) -> int | None:
        if self.family.rules.window > 1:
            return self.from_looked(None)
        if not self.queue:
            return None
        entry = self.queue[0]
        command = self.family.commands[entry.command]
        if self.hold_end is not None:
            return None
        guarded = command.role is Role.HEADER or command.hold > 0
        if self.family.rules.deadline is not None and guarded and self.holding is None:
            left = self.left() - self.estimate(entry, command)
            self.slack = max(left, 0)
            if left <= 0:
                self.skipping = True
                return None
            if command.role is Role.HEADER:
                self.reserved = entry.row
        if command.hold:
            self.holding = entry
        return self.serve(entry)

    def left(self) -> int:
        """Clocks from the end of this one to the next refresh."""
        if self.interval == ENDLESS:
            return ENDLESS
        return (self.due - self.clock - 2) % self.interval + 1

    def estimate(self, entry: Entry, command: PimCommand) -> int:
        deadline = self.family.rules.deadline
        assert deadline is not None
        rows = self.rows[int(command.second_buffer)]
        if command.role is not Role.HEADER:
            held = rows[entry.bank]
            if held == entry.row:
                return command.hold
            return command.hold + deadline.reopen - (deadline.close if held is None else 0)
        banks = self.family.device.organization.banks
        groups = [rows[first : first + banks] for first in range(0, len(rows), banks)]
        wrong = [group for group in groups if any(row != entry.row for row in group)]
        closings = sum(row not in (None, entry.row) for group in wrong for row in group)
        time = closings * deadline.close + (len(wrong) // 2 - 1) * deadline.open_pair
        time += deadline.first + deadline.slot * max(entry.repeat, deadline.least)
        return time + deadline.result * (entry.results - 1)

    def steps(self, entry: Entry) -> Iterator[tuple[int, int]]:
        """(command, bank) that its banks need before an entry, in the order of banks."""
        command = self.family.commands[entry.command]
        if command.role not in (Role.COLUMN, Role.HEADER):
            return
        banks = self.reached(command.reach, entry.bank)
        opens = self.family.commands[command.opens].reach
        single = self.family.units.row_buffer == "single"
        if command.role is Role.COLUMN and opens is command.reach and single:
            # All are opened by one command, and so none may be open before.
            held = [self.rows[0][bank] for bank in banks]
            if any(row != entry.row for row in held):
                still = [b for b, row in zip(banks, held, strict=True) if row is not None]
                yield (command.closes, still[0]) if still else (command.opens, banks[0])
            return
        for bank in banks:
            need = self.need(command, entry.row, bank)
            if need is not None:
                yield need, bank

    def need(self, command: PimCommand, row: int, bank: int) -> int | None:
        buffer = int(command.second_buffer)
        held = self.rows[buffer][bank]
        if held is None and self.rows[1 - buffer][bank] == row:
            return Command.PRE if buffer else self.second_close()
        if held == row:
            return None
        if held is None:
            return None if command.role is Role.HEADER else command.opens
        return command.closes

    def serve(self, entry: Entry) -> int | None:
        """Send what an entry needs next, or itself."""
        step = self.next_of(entry)
        if step is None:
            return None
        number, bank = step
        if number != entry.command:
            self.send(number, bank, entry.row)
            return number
        command = self.family.commands[number]
        if command.role is not Role.HEADER:
            entry.begun = self.clock if entry.begun < 0 else entry.begun
            self.send(number, bank, entry.row, entry)
        if command.repeat == "run" and entry.repeat > 1:
            entry.repeat -= 1
        else:
            self.complete(entry, command)
        return number

    def next_of(self, entry: Entry) -> tuple[int, int] | None:
        """The first of its steps that is ready, or itself; None if nothing is."""
        steps = list(self.steps(entry))
        for number, bank in steps:
            if self.ready(number, bank):
                return number, bank
        command = self.family.commands[entry.command]
        if steps or (command.role is not Role.HEADER and not self.ready(entry.command, entry.bank)):
            return None
        return entry.command, entry.bank

    def complete(self, entry: Entry, command: PimCommand) -> None:
        if self.looked:
            self.looked.remove(entry)
        else:
            self.queue.popleft()
        self.given.append((entry.sender, self.clock + command.latency))
        if command.role is Role.HEADER:
            self.in_tile = True
            return
        self.finish = max(self.finish, self.clock + command.latency)
        if command.hold:
            self.hold_end = self.clock + command.hold
        if entry.last:
            self.in_tile, self.reserved = False, -1
            if not self.family.rules.concurrent:
                self.slack = 0

    def from_looked(self, rows_only: bool | None) -> int | None:
        """Out of order, up to a barrier: the oldest entry that is ready. ``rows_only``: over the
        bus of rows (True) or of columns (False)."""
        self.fill()
        tried: list[Entry] = []
        beyond = False
        for n, entry in enumerate(list(self.looked)):
            if entry.command == BARRIER:
                if not self.family.rules.rows_ahead:
                    return None
                beyond = True
                continue
            command = self.family.commands[entry.command]
            if command.role is Role.COLUMN:
                if tried and self.same(tried[-1], entry):
                    continue
                tried.append(entry)
            elif beyond:
                continue
            step = self.next_of(entry)
            if step is None:
                continue
            role = self.family.commands[step[0]].role
            if n > 0 and role in (Role.CLOSE, Role.MOVE) and self.still_needed(entry):
                continue
            row_bus = self.family.commands[step[0]].row_bus
            itself = step[0] == entry.command
            if (rows_only is None or row_bus == rows_only) and not (beyond and itself):
                return self.serve(entry)
        return None

    @staticmethod
    def same(one: Entry, other: Entry) -> bool:
        return (one.command, one.row, one.bank) == (other.command, other.row, other.bank)

    def still_needed(self, entry: Entry) -> bool:
        for other in self.looked:
            if other.command == BARRIER or other.bank != entry.bank:
                continue
            command = self.family.commands[other.command]
            held = self.rows[int(command.second_buffer)][other.bank]
            if command.role is Role.COLUMN and held == other.row:
                return True
        return False

    def fill(self) -> None:
        while True:
            room = self.family.rules.window - len(self.looked)
            while room and self.offered and not self.fenced():
                self.looked.append(self.offered.popleft())
                self.accepted.append(self.looked[-1].sender)
                room -= 1
            if not self.looked or self.looked[0].command != BARRIER:
                return
            self.given.append((self.looked.pop(0).sender, self.clock))

    # --- reads and writes of the host

    def from_host(self, pim_waits: bool) -> int | None:
        for _ in range(self.family.banks):
            self.turn = (self.turn + 1) % self.family.banks
            bank = self.turn
            if self.holding is not None and bank == self.holding.bank:
                continue
            if self.refreshing and self.unit_of(bank) == self.next_unit:
                continue
            for request in self.banks[bank]:
                if request.row == self.reserved:
                    continue
                number = self.host_step(request)
                if number == Command.PRE and not self.may_close(request):
                    continue
                if self.ready(number, bank) and (not pim_waits or self.fits(number)):
                    return self.send_host(number, request)
        return None

    def host_step(self, request: HostRequest) -> int:
        held = self.rows[0][request.bank]
        if held is None:
            other = self.rows[1][request.bank]
            return self.second_close() if other == request.row else Command.ACT
        if held != request.row:
            return Command.PRE
        return Command.WR if request.write else Command.RD

    def may_close(self, request: HostRequest) -> bool:
        queue = self.banks[request.bank]
        if queue[0] is not request:
            return False
        if self.hits[request.bank] >= self.family.rules.hit_cap:
            return True
        return all(other.row != self.rows[0][request.bank] for other in queue)

    def fits(self, number: int) -> bool:
        """Whether the slack before a refresh leaves time for a row command; takes it."""
        t = self.family.device.timings
        if self.slack <= 0 or number in (Command.RD, Command.WR):
            return True
        opening = number == Command.ACT
        if self.slack <= t["tRCDWR"] + (0 if opening else t["tRP"]):
            return False
        self.slack -= t["tRCDWR"] if opening else t["tRP"]
        return True

    def send_host(self, number: int, request: HostRequest) -> int:
        self.send(number, request.bank, request.row)
        if number in (Command.RD, Command.WR):
            self.hits[request.bank] += 1
            queue = self.banks[request.bank]
            del queue[next(n for n, one in enumerate(queue) if one is request)]
        if number == Command.RD:
            t = self.family.device.timings
            self.ends.append(self.clock + t["CL"] + t["burst_cycles"])
            self.given.append((request.sender, self.ends[-1]))
        return number

    def move(self) -> None:
        """One entry into the PIM queue, or one request to its bank."""
        rules, fenced = self.family.rules, self.fenced()
        if not self.draining:
            waits = self.waiting()
            flush = not self.reads and not waits and not self.host
            idle = not waits and len(self.writes) > IDLE_WRITES
            if len(self.writes) >= rules.write_buffer or idle or flush or fenced:
                self.draining = len(self.writes)
        if rules.window == 1 and self.offered and not fenced:
            nothing_else = not self.reads and not self.draining
            if not rules.concurrent or len(self.queue) < 2 or nothing_else:
                if len(self.queue) < rules.pim_queue:
                    self.queue.append(self.offered.popleft())
                    self.accepted.append(self.queue[-1].sender)
                return
        pim = self.queue or self.looked or (rules.window > 1 and self.offered and not fenced)
        if not rules.concurrent and pim:
            return
        queue = self.writes if self.draining else self.reads
        for n, request in enumerate(queue):
            if len(self.banks[request.bank]) < rules.command_queue:
                self.banks[request.bank].append(queue.pop(n))
                self.draining -= 1 if request.write else 0
                return
