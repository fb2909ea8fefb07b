"""Ports: the memories, links and network links that instructions take turns on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from accelsim.arch.model import Architecture
from accelsim.errors import AccelsimError
from accelsim.hw.block import Ints
from accelsim.program.table import Program

# Columns of an access table: what an instruction reads first, reads second, reads back of its
# destination while it accumulates, and writes.
ACCESSES = 4
READ_BACK, WRITE = 2, 3

MAX_PORTS = 1 << 15  # the engine numbers them in 16 bits


class Ports:
    """Numbering of the ports of an architecture's memories, links and networks.

    ``names`` by port; ``groups`` name what results show: all links of a network are one.
    ``first_link`` is the port of a network's link 0.
    """

    def __init__(self, program: Program, arch: Architecture) -> None:
        self.arch, self.program = arch, program
        self.names: list[str] = []
        self.groups: list[str] = []
        spaces = len(program.spaces)
        self.read = np.full(spaces + 1, -1, dtype=np.int64)
        self.write = np.full(spaces + 1, -1, dtype=np.int64)
        for i, space in enumerate(program.spaces):
            count = arch.memories[space.memory].port_count
            if count == 1:
                self.read[i] = self.write[i] = self._new(space.name)
            elif count == 2:
                self.read[i] = self._new(f"{space.name} read")
                self.write[i] = self._new(f"{space.name} write")
        self._crossings = {
            link: [
                (a, b, self._new(name)) for a, b, name in self._instances(link.source, link.target)
            ]
            for link in arch.links
        }

        self.first_link: dict[str, int] = {}
        for network, placement in arch.placements.items():
            self.first_link[network] = len(self.names)
            for link in placement.routes.names:
                self._new(f"{network} {link}", network)

    def _new(self, name: str, group: str = "") -> int:
        if len(self.names) == MAX_PORTS:
            raise AccelsimError(
                f"{self.arch.name} has more than {MAX_PORTS} ports of memories and links;"
                " accepted: fewer cores or network nodes"
            )
        self.names.append(name)
        self.groups.append(group or name)
        return len(self.names) - 1

    def issue(self, unit: str) -> int:
        """The port of whoever sends commands one by one to all channels of a unit."""
        return self._new(f"{unit} commands")

    def of(self, space: Ints, nbytes: Ints, conflict: Ints) -> tuple[Ints, Ints, Ints]:
        """(port, hold ticks) per access and the summed access latency of each instruction.

        ``conflict`` are cycles of the memory that an access loses to conflicts of its banks.
        """
        port = np.empty_like(space)
        port[:, :WRITE] = self.read[space[:, :WRITE]]
        port[:, WRITE] = self.write[space[:, WRITE]]
        hold = np.zeros_like(nbytes)
        delay = np.zeros(len(space), dtype=np.int64)
        for i, info in enumerate(self.program.spaces):
            memory = self.arch.memories[info.memory]
            hz, tick = self.arch.hz_of(memory), self.arch.ticks_of(memory)
            touched = space == i
            if not touched.any():
                continue
            cycles = memory.transfer_cycles(nbytes[touched], hz) + conflict[touched]
            hold[touched] = cycles * tick
            delay += touched.any(axis=1) * (memory.latency_cycles(hz) * tick)
        return port, hold, delay

    def crossings(
        self, space: Ints, nbytes: Ints, transfers: npt.NDArray[np.bool_]
    ) -> tuple[Ints, Ints, Ints]:
        """(port, hold ticks) of the links that each transfer crosses, -1 none, and its latency."""
        n = len(space)
        port = np.full((n, 1), -1, dtype=np.int64)
        hold, delay = np.zeros((n, 1), dtype=np.int64), np.zeros(n, dtype=np.int64)
        for link in self.arch.links:
            hz, tick = self.arch.hz_of(link), self.arch.ticks_of(link)
            for a, b, number in self._crossings[link]:
                source, target = space[:, 0], space[:, WRITE]
                crosses = transfers & (
                    ((source == a) & (target == b)) | ((source == b) & (target == a))
                )
                port[crosses, 0] = number
                payload = np.minimum(nbytes[crosses, 0], nbytes[crosses, WRITE])
                hold[crosses, 0] = link.transfer_cycles(payload, hz) * tick
                delay[crosses] = link.latency_cycles(hz) * tick
        return port, hold, delay

    def _instances(self, source: str, target: str) -> Iterator[tuple[int, int, str]]:
        """Pairs of spaces that a link connects: shared with each core's, or within a core."""
        spaces = list(enumerate(self.program.spaces))
        for a, first in spaces:
            for b, second in spaces:
                same_core = first.core == second.core or -1 in (first.core, second.core)
                if first.memory == source and second.memory == target and same_core:
                    yield a, b, f"{first.name}-{second.name}"


def merge_same_port(port: Ints, hold: Ints) -> None:
    """One entry per port: an instruction that reads and writes one port holds it for both."""
    for earlier, later in combinations(range(port.shape[1]), 2):
        same = (port[:, later] >= 0) & (port[:, later] == port[:, earlier])
        hold[same, earlier] += hold[same, later]
        port[same, later] = -1
        hold[same, later] = 0


class Holds(NamedTuple):
    """Instructions, the ports that they hold, and for how many ticks: one entry per port held."""

    row: Ints
    port: Ints
    ticks: Ints

    @classmethod
    def nothing(cls) -> Holds:
        """No entry."""
        none = np.empty(0, dtype=np.int64)
        return cls(none, none, none)

    @classmethod
    def of(cls, port: Ints, hold: Ints) -> Holds:
        """The entries of a table with one row per instruction; -1 where there is no port."""
        row, column = np.nonzero(port >= 0)
        return cls(row, port[row, column], hold[row, column])


def table(n: int, holds: Sequence[Holds]) -> tuple[npt.NDArray[np.int16], Ints]:
    """(port, hold ticks) of n instructions, in as few columns as the fullest one needs."""
    row, port, ticks = (np.concatenate(part) for part in zip(*holds, strict=True))
    order = np.argsort(row, kind="stable")
    row = row[order]
    column = np.arange(len(row)) - np.searchsorted(row, row)
    shape = (n, int(column.max(initial=0)) + 1)
    ports, hold = np.full(shape, -1, dtype=np.int16), np.zeros(shape, dtype=np.int64)
    ports[row, column], hold[row, column] = port[order], ticks[order]
    return ports, hold
