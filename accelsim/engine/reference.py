"""The executable specification of the clock: units as SimPy processes, one arbiter between them.

It obeys the rule of ``accelsim.engine.schedule`` by letting time pass: a unit waits until it is
free and until its head's operands have arrived, then *requests* at that tick. The arbiter speaks
last in every tick, when everybody who is ready has requested, and admits one request at a time, so
that what an admission makes ready in the same tick can request before the next choice. SimPy's own
``Resource`` cannot be used: it grants equal requests in the order in which processes were created.
"""

import heapq
from collections.abc import Generator

import numpy as np
import simpy
from simpy.events import EventPriority

from accelsim.engine.schedule import Schedule, TimedProgram, check_layout, check_values, deadlock

LAST_OF_TICK = EventPriority(2)  # SimPy's own events have priority 0 (urgent) and 1 (normal)

Steps = Generator[simpy.Event, int, None]


def run(timed: TimedProgram) -> Schedule:
    """Schedule every instruction by simulation, some thousand times slower than the compiled run.

    Raises what ``accelsim.engine.run`` raises.
    """
    check_layout(timed)
    check_values(timed)
    machine = Machine(timed)
    machine.env.run()
    if len(machine.order) < len(timed):
        committed = np.zeros(len(timed), np.bool_)
        committed[machine.order] = True
        raise deadlock(timed, machine.waiting_heads(), committed)
    return Schedule(
        np.array(machine.start, np.int64),
        np.array(machine.finish, np.int64),
        np.array(machine.order, np.int64),
    )


class Machine:
    """In-order units, shared ports and the arbiter that admits the units' heads."""

    def __init__(self, timed: TimedProgram) -> None:
        n = len(timed)
        self.env = simpy.Environment()
        self.occupancy: list[int] = timed.occupancy.tolist()
        self.latency: list[int] = timed.latency.tolist()
        self.dep: list[list[int]] = [[d for d in row if d >= 0] for row in timed.dep.tolist()]
        self.port_holds: list[list[tuple[int, int]]] = [
            [(p, ticks) for p, ticks in zip(ports, holds, strict=True) if p >= 0]
            for ports, holds in zip(timed.port.tolist(), timed.hold.tolist(), strict=True)
        ]
        self.port_free = [0] * timed.ports
        self.retired = [0] * timed.units  # finish of each unit's latest instruction
        self.result = [self.env.event() for _ in range(n)]  # fires when the result may be used
        self.start, self.finish, self.order = [0] * n, [0] * n, list[int]()

        self.requests: list[tuple[int, int, int, simpy.Event]] = []  # ready tick, unit, instruction
        self.arbiter_called = False
        self.queues: list[list[int]] = [[] for _ in range(timed.units)]
        for i, u in enumerate(timed.unit.tolist()):
            self.queues[u].append(i)
        for u in range(timed.units):
            self.env.process(self.unit(u))

    def unit(self, u: int) -> Steps:
        """One unit: for each instruction in order, wait for operands, ask, then be occupied."""
        for i in self.queues[u]:
            for d in self.dep[i]:
                yield self.result[d]
            admission = self.env.event()
            heapq.heappush(self.requests, (int(self.env.now), u, i, admission))
            self.call_arbiter()
            start = yield admission
            yield self.env.timeout(start + self.occupancy[i] - self.env.now)

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
        ready, u, i, admission = heapq.heappop(self.requests)
        admission.succeed(self.commit(ready, u, i))
        self.call_arbiter()

    def commit(self, ready: int, u: int, i: int) -> int:
        """Fix when instruction i runs; returns its start."""
        start = max([ready] + [self.port_free[p] for p, _ in self.port_holds[i]])
        for p, ticks in self.port_holds[i]:
            self.port_free[p] = max(self.port_free[p], start + ticks)
        finish = max(start + self.latency[i], self.retired[u])
        self.retired[u] = finish
        self.start[i], self.finish[i] = start, finish
        self.order.append(i)
        self.env.process(self.deliver(i, finish - ready))
        return start

    def deliver(self, i: int, delay: int) -> Steps:
        """Let the result of instruction i arrive at its consumers."""
        yield self.env.timeout(delay)
        self.result[i].succeed()

    def waiting_heads(self) -> list[int]:
        """The first uncommitted instruction of every unit that has one."""
        committed = set(self.order)
        heads = (next((i for i in queue if i not in committed), None) for queue in self.queues)
        return [i for i in heads if i is not None]
