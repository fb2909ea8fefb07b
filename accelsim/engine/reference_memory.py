"""The executable specification of the clock where caches and DRAM channels decide.

The machine of ``reference`` with what stands behind its units. What an instruction moves in main
memory is looked up in the caches at the tick at which it is admitted, window by window, in the
order of admission. Then:

- The banks of the caches are ports: each serves the instruction for the lines that it looked up.
  Such an instruction starts when it is admitted, whoever else its ports serve.
- At bandwidth fidelity main memory is a port, held for the bytes that no cache had.
- At dram fidelity these bytes are bursts that join the FIFOs of their channels. The unit is free
  when the last one is accepted. Written bytes are posted: they have arrived one clock later, and
  bytes read when the data bus has brought the last of them.
- Latencies of caches and memory that were asked delay the result, not the unit.

A channel is ``hw.dram.reference``, clock by clock. In a tick all channels have their clock, then
the arbiter admits whoever is ready, the lowest unit first, as it always does. What a channel is
sent after its commands of a clock have gone out, it accepts in that clock still, if there is room;
whom this makes ready competes in the same tick.

A channel whose banks compute is ``hw.pim.reference``. It takes what it is sent in its next clock.
An instruction's product is commands to its channel: the unit is free when the last one has its
place in the PIM queue, and the result is there when the last command has given what it gives.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import simpy

from accelsim.engine.memory_system import TRUSTED_SHARE, entry_of
from accelsim.engine.reference import Machine, Turn
from accelsim.engine.schedule import TimedProgram
from accelsim.engine.traffic import Traffic
from accelsim.hw.cache.reference import Level, System
from accelsim.hw.dram.block import Dram
from accelsim.hw.dram.reference import Channel, Request
from accelsim.hw.pim.channel.reference import PimChannel
from accelsim.hw.pim.channel.reference_banks import HostRequest
from accelsim.hw.pim.channel.stream import PimStream
from accelsim.hw.pim.memory import PimDram


class Window(NamedTuple):
    """One row of ``Traffic.window``."""

    base: int
    rows: int
    row_bytes: int
    stride: int
    write: bool
    core: int = 0
    operand: int = -1

    @property
    def nbytes(self) -> int:
        return self.rows * self.row_bytes


class MachineWithMemory(Machine):
    """Units whose traffic passes caches and ends at a port or at DRAM channels."""

    def __init__(self, timed: TimedProgram, traffic: Traffic) -> None:
        super().__init__(timed)
        first, rows = traffic.first.tolist(), [Window(*row) for row in traffic.window.tolist()]
        self.windows = [rows[first[i] : first[i + 1]] for i in range(len(timed))]
        self.caches = CachesInFront(traffic) if traffic.arch.caches else None
        self.port = None if traffic.by_channels else MemoryPort(traffic)
        self.channels = self._channels(traffic) if traffic.by_channels else None

    def _channels(self, traffic: Traffic) -> Channels:
        kind = Channels if traffic.pim_dram is None else ComputingChannels
        return kind(self.env, traffic)

    def turn(self, i: int) -> Turn:
        turn, windows = Turn(dict(self.holds[i])), self.windows[i]
        if windows and self.caches is not None:
            windows = self.caches.pass_on(windows, turn)
        if windows and self.port is not None:
            self.port.serve(windows, turn)
        if windows and self.channels is not None:
            self.channels.send(windows, turn)
        if isinstance(self.channels, ComputingChannels):
            self.channels.compute(i, turn)
        return turn


class CachesInFront:
    """All caches, and which windows are taken to be in a lone one without asking it.

    A lone shared LRU cache is not asked for a window that was read before, if what it has fetched
    since and the window together are at most ``TRUSTED_SHARE`` of it: the window is there. Its
    bytes are read evenly from all banks, and no line of it is younger for that.
    """

    def __init__(self, traffic: Traffic) -> None:
        self.arch = traffic.arch
        self.system = System(self.arch.caches, self.arch.cores)
        self.front = list(self.arch.caches)[entry_of(self.arch, traffic.memory)]
        cache = self.arch.caches[self.front]
        lone = len(self.arch.caches) == 1 and cache.shared and cache.policy == "lru"
        self.trusted = int(TRUSTED_SHARE * cache.capacity) if lone else 0
        self.fetched_at: dict[int, int] = {}  # by operand: bytes fetched when it was last read

    def pass_on(self, windows: list[Window], turn: Turn) -> list[Window]:
        """What of the windows is left for the memory; the caches' time is added to ``turn``."""
        core, behind, trusting = windows[0].core, list[Window](), 0
        before = {name: self._asked(name, core) for name in self.arch.caches}
        for window in windows:
            if self._is_there(window):
                trusting += window.nbytes
                continue
            base, rows, row_bytes, stride, write, *_ = window
            runs = self.system.walk(self.front, core, base, rows, row_bytes, stride, write)
            behind += [Window(at, 1, nbytes, nbytes, bool(wrote)) for at, nbytes, wrote in runs]
            if not window.write:
                self.fetched_at[window.operand] = self._fetched()
        for name in self.arch.caches:
            even = trusting if name == self.front else 0
            if even or self._asked(name, core) > before[name]:
                self._take_time(name, core, even, turn)
        turn.at_once = True
        return behind

    def _is_there(self, window: Window) -> bool:
        """Whether the lone cache is trusted to hold a window."""
        if window.write or window.operand not in self.fetched_at:
            return False
        since = self._fetched() - self.fetched_at[window.operand]
        return since + window.nbytes <= self.trusted

    def _take_time(self, name: str, core: int, even: int, turn: Turn) -> None:
        """A cache's latency, and the work of its banks, ``even`` bytes of it spread over all."""
        cache, level = self.arch.caches[name], self._level(name, core)
        tick = self.arch.ticks_of(cache)
        turn.late += cache.latency * tick
        for bank in range(cache.banks):
            cycles = level.busy.pop(bank, 0)
            if cache.width:
                cycles += -(-even // (cache.width * cache.banks))
            if cycles:
                turn.holds[name, id(level), bank] = cycles * tick

    def _level(self, name: str, core: int) -> Level:
        """The instance of a cache that a core sees."""
        levels = self.system.levels[name]
        return levels[core % len(levels)]

    def _asked(self, name: str, core: int) -> int:
        """Bytes that were looked up so far."""
        counts = self._level(name, core).counts
        return counts["read"] + counts["write"]

    def _fetched(self) -> int:
        """Bytes that the lone cache has fetched so far."""
        return self._level(self.front, 0).counts["fill"]


class MemoryPort:
    """Main memory at bandwidth fidelity."""

    def __init__(self, traffic: Traffic) -> None:
        block, arch = traffic.block, traffic.arch
        self.name, self.tick, self.hz = traffic.port, arch.ticks_of(block), arch.hz_of(block)
        self.bandwidth = block.peak_bandwidth
        self.latency = block.latency_cycles(self.hz) * self.tick

    def serve(self, windows: list[Window], turn: Turn) -> None:
        """Whole cycles for the bytes of all windows together."""
        nbytes = sum(window.nbytes for window in windows)
        turn.holds[self.name] = -(-nbytes * self.hz // self.bandwidth) * self.tick
        turn.late += self.latency


class Channels:
    """Main memory at dram fidelity: every channel has its clock at multiples of the same tick."""

    def __init__(self, env: simpy.Environment, traffic: Traffic) -> None:
        dram = traffic.dram
        self.env, self.map, self.parts = env, dram.address_map, dram.part.organization
        self.tick = traffic.arch.ticks_of(dram)
        self.latency = dram.added_cycles * self.tick
        self.channels: list[ClockedChannel] | list[ComputingChannel] = self._new(dram)

    def _new(self, dram: Dram) -> list[ClockedChannel] | list[ComputingChannel]:
        return [
            ClockedChannel(self.env, Channel(dram.part, dram.controller), self.tick)
            for _ in range(dram.channels)
        ]

    def send(self, windows: list[Window], turn: Turn) -> None:
        """Bursts join the FIFOs of their channels, in the order of windows, rows and addresses."""
        clock = -(-int(self.env.now) // self.tick)
        transfer = Transfer(self.env)
        for window in windows:
            for burst in self._bursts(window):
                channel, bank, row, column = self._locate(burst)
                request = Request(bank, row, column, window.write, clock)
                self.channels[channel].offer(request, transfer)
        turn.accepted.append(transfer.accepted)
        turn.arrived.append(transfer.arrived)
        turn.late += self.latency

    def _bursts(self, window: Window) -> list[int]:
        """Numbers of the bursts that the rows of a window touch; one without gaps is one row."""
        base, rows, row_bytes, stride, *_ = window
        if stride == row_bytes:
            rows, row_bytes = 1, rows * row_bytes
        size = self.map.column_bytes
        starts = [base + row * stride for row in range(rows)]
        return [b for s in starts for b in range(s // size, (s + row_bytes - 1) // size + 1)]

    def _locate(self, burst: int) -> tuple[int, int, int, int]:
        """Channel, bank of the channel, row and column of a burst."""
        at, parts = self.map.locate([burst * self.map.column_bytes]), self.parts
        bank = at.pseudo_channel * parts.ranks + at.rank
        bank = (bank * parts.bank_groups + at.bank_group) * parts.banks + at.bank
        return int(at.channel[0]), int(bank[0]), int(at.row[0]), int(at.column[0])


class ComputingChannels(Channels):
    """Main memory at dram fidelity whose banks compute."""

    def __init__(self, env: simpy.Environment, traffic: Traffic) -> None:
        super().__init__(env, traffic)
        self.products = traffic.products

    def _new(self, dram: Dram) -> list[ComputingChannel]:
        assert isinstance(dram, PimDram)
        nothing = PimStream.of([])
        return [
            ComputingChannel(
                self.env, PimChannel(dram.simulated, nothing, refresh=dram.refresh), self.tick
            )
            for _ in range(dram.channels)
        ]

    def compute(self, i: int, turn: Turn) -> None:
        """The commands of instruction i's product, if it has one, go to its channel."""
        if self.products is None or self.products.place[i, 0] < 0:
            return
        channel = self.channels[int(self.products.place[i, 0])]
        assert isinstance(channel, ComputingChannel)
        transfer = Transfer(self.env)
        mine = self.products.table[self.products.sender == i]
        channel.command(PimStream(*mine.T), transfer)
        turn.accepted.append(transfer.accepted)
        turn.arrived.append(transfer.arrived)
        turn.late = self.latency


class Transfer:
    """Bursts or commands of one instruction: all are accepted some time, later all have arrived."""

    def __init__(self, env: simpy.Environment) -> None:
        self.env, self.accepted, self.arrived = env, env.event(), env.event()
        self.to_accept = self.to_arrive = 0

    def accept(self) -> None:
        self.to_accept -= 1
        if not self.to_accept:
            self.accepted.succeed()

    def arrive(self, _: simpy.Event) -> None:
        self.to_arrive -= 1
        if not self.to_arrive:
            self.arrived.succeed()


class ClockedChannel:
    """A channel on the machine's clock; it sleeps while nothing waits.

    The clocks that it slept through it lives when it is woken: nobody could have told.
    """

    def __init__(self, env: simpy.Environment, channel: Channel, ticks_per_clock: int) -> None:
        self.env, self.channel, self.ticks_per_clock = env, channel, ticks_per_clock
        self.transfers: dict[int, Transfer] = {}  # by age of a burst not accepted or not arrived
        self.awaited = set[int]()  # clocks in which it will act

    def offer(self, request: Request, transfer: Transfer) -> None:
        """A burst joins its FIFO."""
        self.transfers[self.channel.offer(request)] = transfer
        transfer.to_accept += 1
        transfer.to_arrive += 1
        self._call(request.clock)

    def _call(self, clock: int) -> None:
        """Act in a clock."""
        if clock in self.awaited:
            return
        self.awaited.add(clock)
        self.env.timeout(clock * self.ticks_per_clock - self.env.now).callbacks.append(self._act)

    def _act(self, _: simpy.Event) -> None:
        """Have a clock, or, if it has begun, accept what arrived since."""
        clock = int(self.env.now) // self.ticks_per_clock
        self.awaited.remove(clock)
        channel = self.channel
        channel.begin(clock)
        channel.accept()
        for age in channel.accepted:
            self.transfers[age].accept()
        channel.accepted.clear()
        for age, end in channel.finished.items():
            self.env.timeout(end * self.ticks_per_clock - self.env.now).callbacks.append(
                self.transfers.pop(age).arrive
            )
        channel.finished.clear()
        if channel.busy():
            self._call(clock + 1)


class ComputingChannel:
    """A channel whose banks compute on the machine's clock; it sleeps while nothing waits."""

    def __init__(self, env: simpy.Environment, channel: PimChannel, ticks_per_clock: int) -> None:
        self.env, self.channel, self.ticks_per_clock = env, channel, ticks_per_clock
        self.awaited = set[int]()

    def offer(self, request: Request, transfer: Transfer) -> None:
        """A burst waits outside the channel from its next clock on."""
        self._wake()
        bank, row, column, write, _ = request
        self.channel.host.append(HostRequest(bank, row, column, write, transfer))
        transfer.to_accept += 1
        transfer.to_arrive += 1

    def command(self, stream: PimStream, transfer: Transfer) -> None:
        """Commands wait outside the channel from its next clock on."""
        self._wake()
        self.channel.command(stream, transfer)
        transfer.to_accept += len(stream)
        transfer.to_arrive += len(stream)

    def _wake(self) -> None:
        """Live the clocks that were slept through, the present one with them; act in the next."""
        clock = int(self.env.now) // self.ticks_per_clock
        while self.channel.clock < clock:
            self.channel.tick()
        self._call(clock + 1)

    def _call(self, clock: int) -> None:
        if clock in self.awaited:
            return
        self.awaited.add(clock)
        self.env.timeout(clock * self.ticks_per_clock - self.env.now).callbacks.append(self._act)

    def _act(self, _: simpy.Event) -> None:
        """Have a clock."""
        clock = int(self.env.now) // self.ticks_per_clock
        self.awaited.remove(clock)
        channel = self.channel
        while channel.clock < clock:
            channel.tick()
        for sender in channel.accepted:
            cast(Transfer, sender).accept()
        channel.accepted.clear()
        for sender, end in channel.given:
            self.env.timeout(end * self.ticks_per_clock - self.env.now).callbacks.append(
                cast(Transfer, sender).arrive
            )
        channel.given.clear()
        if channel.busy():
            self._call(clock + 1)
