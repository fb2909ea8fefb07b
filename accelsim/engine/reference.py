"""The executable specification of the clock: units and ports in SimPy, one arbiter before them.

It obeys the rule of ``accelsim.engine.schedule`` by letting time pass, and computes no times. A
unit waits until it is free and until its head's operands have arrived, then *requests* at that
tick. The arbiter speaks last in every tick, when everybody who is ready has requested, and admits
one request at a time, so that what an admission makes ready in the same tick can request before the
next choice. An admitted instruction queues at its ports, which are SimPy's first-come-first-served
resources. The units' requests cannot be: those would be granted in the order in which processes
were created.
"""

import heapq
from collections import defaultdict
from collections.abc import Generator
from dataclasses import dataclass, field

import numpy as np
import simpy
from simpy.events import EventPriority
from simpy.resources.resource import Request

from accelsim.engine.schedule import Schedule, TimedProgram, check_layout, check_values, deadlock

LAST_OF_TICK = EventPriority(2)  # SimPy's own events have priority 0 (urgent) and 1 (normal)

Steps = Generator[simpy.Event, None, None]
PortName = int | tuple[str, int, int]  # of the program; or cache, instance and bank


@dataclass
class Turn:
    """What an instruction that was admitted uses, and what it waits for beside its ports."""

    holds: dict[PortName, int]  # ticks per port
    at_once: bool = False  # it starts when it is admitted, whatever its ports do
    late: int = 0  # ticks on the way that nothing hides
    accepted: list[simpy.Event] = field(default_factory=list)  # before the unit is free
    arrived: list[simpy.Event] = field(default_factory=list)  # before the pipeline's tail


def run(timed: TimedProgram) -> Schedule:
    """Schedule every instruction by simulation, some thousand times slower than the compiled run.

    Raises what ``accelsim.engine.run`` raises. Of ``Schedule.activity`` it says nothing.
    """
    machine = simulate(timed)
    return Schedule(
        np.array(machine.start, np.int64),
        np.array(machine.finish, np.int64),
        np.array(machine.order, np.int64),
    )


def simulate(timed: TimedProgram) -> "Machine":
    """The machine after it has run a program, with all that it knows; raises as ``run``."""
    from accelsim.engine.reference_memory import MachineWithMemory

    check_layout(timed)
    check_values(timed)
    machine = Machine(timed) if timed.traffic is None else MachineWithMemory(timed, timed.traffic)
    machine.env.run()
    if len(machine.order) < len(timed):
        committed = np.zeros(len(timed), np.bool_)
        committed[machine.order] = True
        raise deadlock(timed, machine.waiting_heads(), committed)
    return machine


class Machine:
    """In-order units, the arbiter that admits their heads, and the ports that serve them."""

    def __init__(self, timed: TimedProgram) -> None:
        n = len(timed)
        self.env = simpy.Environment()
        self.occupancy: list[int] = timed.occupancy.tolist()
        self.latency: list[int] = timed.latency.tolist()
        self.dep: list[list[int]] = timed.dep.tolist()
        early = np.zeros_like(timed.dep) if timed.early is None else timed.early
        self.early: list[list[bool]] = early.tolist()
        self.holds: list[dict[PortName, int]] = [{} for _ in range(n)]  # ticks per port
        for i, row in enumerate(zip(timed.port.tolist(), timed.hold.tolist(), strict=True)):
            for p, ticks in zip(*row, strict=True):
                if p >= 0:
                    self.holds[i][p] = max(ticks, self.holds[i].get(p, 0))
        self.ports = defaultdict[PortName, simpy.Resource](lambda: simpy.Resource(self.env))
        self.result = [self.env.event() for _ in range(n)]  # fires when the result may be used
        self.issued = [self.env.event() for _ in range(n)]  # fires when its unit is free again
        self.start, self.finish, self.order = [0] * n, [0] * n, list[int]()

        self.requests: list[tuple[int, int, int, simpy.Event]] = []  # ready tick, unit, instruction
        self.arbiter_called = False
        self.queues: list[list[int]] = [[] for _ in range(timed.units)]
        for i, u in enumerate(timed.unit.tolist()):
            self.queues[u].append(i)
        for u in range(timed.units):
            self.env.process(self.unit(u))

    def unit(self, u: int) -> Steps:
        """One unit: for each instruction in order, wait for operands, ask, and be occupied."""
        previous = None
        for i in self.queues[u]:
            for d, early in zip(self.dep[i], self.early[i], strict=True):
                if d >= 0:
                    yield self.issued[d] if early else self.result[d]
            yield self.admission(u, i)
            turn = self.turn(i)
            queued = {p: self.ports[p].request() for p in turn.holds}
            served = [
                self.env.process(self.serve(p, queued[p], ticks)) for p, ticks in turn.holds.items()
            ]
            if queued and not turn.at_once:
                yield self.env.any_of(queued.values())
            self.start[i] = int(self.env.now)
            occupied, passed = self.env.timeout(self.occupancy[i]), self.env.all_of(served)
            self.env.process(self.retire(i, turn, passed, previous))
            previous = self.result[i]
            yield self.env.all_of([occupied, passed, *turn.accepted])
            self.issued[i].succeed()

    def turn(self, i: int) -> Turn:
        """What instruction i, which was admitted now, uses."""
        return Turn(self.holds[i])

    def serve(self, p: PortName, queued: Request, ticks: int) -> Steps:
        """Port p serves an instruction when it is its turn, whatever the other ports do."""
        yield queued
        yield self.env.timeout(ticks)
        self.ports[p].release(queued)

    def retire(
        self, i: int, turn: Turn, passed: simpy.Event, previous: simpy.Event | None
    ) -> Steps:
        """The result of instruction i arrives behind its ports, and in order of the unit."""
        flown = self.env.timeout(self.latency[i])
        yield self.env.all_of([passed, *turn.arrived])
        yield self.env.timeout(max(0, self.latency[i] - self.occupancy[i]))
        yield flown
        yield self.env.timeout(turn.late)
        if previous:
            yield previous
        self.finish[i] = int(self.env.now)
        self.result[i].succeed()

    def admission(self, u: int, i: int) -> simpy.Event:
        """Request that unit u may run instruction i; the event fires when the arbiter agrees."""
        admitted = self.env.event()
        heapq.heappush(self.requests, (int(self.env.now), u, i, admitted))
        self.call_arbiter()
        return admitted

    def call_arbiter(self) -> None:
        """Let the arbiter act once in this tick, after every event that is not an arbitration."""
        if self.requests and not self.arbiter_called:
            self.arbiter_called = True
            turn = simpy.Event(self.env)
            turn._ok, turn._value = True, None  # as Timeout does: triggered when made
            turn.callbacks = [self.arbitrate]
            self.env.schedule(turn, LAST_OF_TICK)

    def arbitrate(self, _turn: simpy.Event) -> None:
        """Admit the earliest request, of equal ones the lowest unit's; then listen again."""
        self.arbiter_called = False
        _, _, i, admitted = heapq.heappop(self.requests)
        self.order.append(i)
        admitted.succeed()
        self.call_arbiter()

    def waiting_heads(self) -> list[int]:
        """The first uncommitted instruction of every unit that has one."""
        committed = set(self.order)
        heads = (next((i for i in queue if i not in committed), None) for queue in self.queues)
        return [i for i in heads if i is not None]
