"""Binding a program to an architecture: rows get ticks, ports and bytes.

Compute instructions take what their block's cost model says, in its own clock. Transfers take what
the memories and the link at their ends say. Every instruction holds the ports of the memories that
it touches for as long as its bytes need there, so units, DMA and other cores contend; the engine
itself keeps a unit until the slowest port has passed what it works on.

At ``ideal`` fidelity memories are infinitely fast and large: transfers take no time, nothing is
held, and the clock shows the compute units alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from accelsim.arch.model import Architecture
from accelsim.engine.schedule import SLOTS, TimedProgram
from accelsim.errors import AccelsimError
from accelsim.hw.block import Ints, Unit, Work
from accelsim.hw.dma import Dma
from accelsim.program.opcodes import TRANSFERS, Opcode
from accelsim.program.table import Program

Fidelity = Literal["ideal", "bandwidth"]
FIDELITIES: tuple[Fidelity, ...] = ("ideal", "bandwidth")

_IS_TRANSFER = np.zeros(max(Opcode) + 1, dtype=bool)
_IS_TRANSFER[list(TRANSFERS)] = True
# Columns of the access table: what an instruction reads first, reads second, and writes.
_ACCESSES = 3


@dataclass(frozen=True)
class Accesses:
    """Bytes that instructions move in memories: int64[n, 3] for src0, src1 and dst.

    ``space`` is -1 where there is no access. The third column is the write.
    """

    space: Ints
    nbytes: Ints


@dataclass(frozen=True)
class BoundProgram:
    """A program with its time on one architecture: the engine's input and what results count.

    ``unit_kind`` gives, per instruction row, the position of its unit in ``arch.units``;
    ``actions`` maps a unit name to its counted energy actions per row.
    """

    program: Program
    arch: Architecture
    fidelity: Fidelity
    timed: TimedProgram
    accesses: Accesses
    port_names: tuple[str, ...]
    unit_kind: Ints
    actions: dict[str, dict[str, Ints]]


def bind(program: Program, arch: Architecture, fidelity: Fidelity = "bandwidth") -> BoundProgram:
    """Ticks, ports and bytes of every instruction of a program."""
    if fidelity not in FIDELITIES:
        raise AccelsimError(
            f"memory fidelity {fidelity!r} is not available; accepted: {', '.join(FIDELITIES)}"
        )
    return _Binding(program, arch, fidelity).bound()


class _Binding:
    def __init__(self, program: Program, arch: Architecture, fidelity: Fidelity) -> None:
        self.program, self.arch, self.fidelity = program, arch, fidelity
        n = len(program)
        self.opcode = program.column("opcode")
        self.unit = program.column("unit")
        names = list(arch.units)
        kinds = np.array([names.index(slot.unit) for slot in program.units], dtype=np.int64)
        self.unit_kind = kinds[self.unit]
        self.occupancy = np.zeros(n, dtype=np.int64)
        self.latency = np.zeros(n, dtype=np.int64)
        self.space = np.full((n, _ACCESSES), -1, dtype=np.int64)
        self.nbytes = np.zeros((n, _ACCESSES), dtype=np.int64)
        self.actions: dict[str, dict[str, Ints]] = {}
        self.ports = _Ports(program, arch)

    def bound(self) -> BoundProgram:
        self._locate_accesses()
        queues: list[tuple[Dma, Ints]] = []
        for name, unit, rows in self._rows_by_unit():
            if isinstance(unit, Dma):
                queues.append((unit, rows))
            elif len(rows):
                self._time_compute(name, unit, rows)
        if self.fidelity == "ideal":
            n = len(self.program)
            port = np.full((n, SLOTS), -1, dtype=np.int16)
            hold = np.zeros((n, SLOTS), dtype=np.int64)
        else:
            port, hold, in_flight = self._hold_ports()
            for unit, rows in queues:
                self._time_transfers(unit, rows, hold[rows].max(axis=1), in_flight[rows])
        timed = TimedProgram(
            unit=self.unit.astype(np.int32),
            occupancy=self.occupancy,
            latency=self.latency,
            dep=self.program.deps.astype(np.int32),
            port=port,
            hold=hold,
            units=len(self.program.units),
            ports=len(self.ports.names),
        )
        return BoundProgram(
            self.program, self.arch, self.fidelity, timed,
            Accesses(self.space, self.nbytes), tuple(self.ports.names),
            self.unit_kind, self.actions,
        )  # fmt: skip

    # -- bytes -----------------------------------------------------------------------------------

    def _locate_accesses(self) -> None:
        """Space and bytes of every access, as the memory moves them (whole granules)."""
        program = self.program
        if not len(program.operands):
            return
        moved = self._moved_bytes_of_operands()
        spaces = program.operand_column("space")
        sources, dst = program.sources, program.column("dst")
        for column, operand in ((0, sources[:, 0]), (1, sources[:, 1]), (2, dst)):
            there = operand >= 0
            self.space[:, column] = np.where(there, spaces[operand], -1)
            self.nbytes[:, column] = np.where(there, moved[operand], 0)
        # A gather reads the rows that are named, not the whole table.
        gathers = np.flatnonzero(self.opcode == Opcode.GATHER)
        if len(gathers):
            table = sources[gathers, 0]
            row = self._moved(np.ones(len(table), np.int64), table)
            self.nbytes[gathers, 0] = program.column("m")[gathers] * row

    def _moved_bytes_of_operands(self) -> Ints:
        operands = np.arange(len(self.program.operands))
        return self._moved(self.program.operand_column("rows"), operands)

    def _moved(self, rows: Ints, operands: Ints) -> Ints:
        program = self.program
        row_bytes = program.operand_column("row_bytes")[operands]
        contiguous = program.operand_column("stride")[operands] == row_bytes
        moved = rows * row_bytes
        space = program.operand_column("space")[operands]
        for index, info in enumerate(program.spaces):
            there = np.flatnonzero(space == index)
            if len(there):
                memory = self.arch.memories[info.memory]
                moved[there] = memory.moved_bytes(rows[there], row_bytes[there], contiguous[there])
        return moved

    # -- time ------------------------------------------------------------------------------------

    def _rows_by_unit(self) -> Iterator[tuple[str, Unit, Ints]]:
        """(name, block, instruction rows without joins) of every unit of the architecture."""
        works = self.opcode != Opcode.JOIN
        for kind, (name, unit) in enumerate(self.arch.units.items()):
            rows = np.flatnonzero(works & (self.unit_kind == kind))
            self._check_opcodes(name, unit, rows)
            yield name, unit, rows

    def _check_opcodes(self, name: str, unit: Unit, rows: Ints) -> None:
        wrong = [o for o in np.unique(self.opcode[rows]).tolist() if o not in unit.opcodes]
        if wrong:
            able = ", ".join(o.name for o in unit.opcodes)
            raise AccelsimError(
                f"unit {name!r} cannot execute {Opcode(wrong[0]).name}; it executes {able}"
            )

    def _work(self, rows: Ints) -> Work:
        program = self.program
        fmt = program.operand_column("format")
        column = program.column
        first = program.sources[rows, 0]
        return Work(
            opcode=self.opcode[rows],
            function=column("function")[rows],
            flags=column("flags")[rows],
            m=column("m")[rows],
            n=column("n")[rows],
            k=column("k")[rows],
            read_bytes=self.nbytes[rows, 0] + self.nbytes[rows, 1],
            write_bytes=self.nbytes[rows, 2],
            source_format=np.where(first >= 0, fmt[first], -1),
            target_format=fmt[column("dst")[rows]],
        )

    def _time_compute(self, name: str, unit: Unit, rows: Ints) -> None:
        work = self._work(rows)
        cost = unit.cost(work)
        tick = self.arch.ticks_per_cycle(unit.clock)
        self.occupancy[rows] = cost.occupancy_cycles * tick
        self.latency[rows] = cost.latency_cycles * tick
        for column, passes in enumerate(unit.operand_passes(work)):
            self.nbytes[rows, column] *= passes
        self.actions[name] = {}
        for action, count in cost.actions.items():
            counts = np.zeros(len(self.program), dtype=np.int64)
            counts[rows] = count
            self.actions[name][action] = counts

    def _time_transfers(self, unit: Dma, rows: Ints, held: Ints, in_flight: Ints) -> None:
        """A queue is as slow as its descriptors, its own bandwidth or the slowest port."""
        tick = self.arch.ticks_per_cycle(unit.clock)
        payload = self.nbytes[rows].max(axis=1)
        cycles = unit.transfer_cycles(payload, self.arch.clocks[unit.clock])
        self.occupancy[rows] = np.maximum((unit.issue + cycles) * tick, held)
        self.latency[rows] = self.occupancy[rows] + in_flight

    # -- ports -----------------------------------------------------------------------------------

    def _hold_ports(self) -> tuple[npt.NDArray[np.int16], Ints, Ints]:
        """(port, hold ticks) of every access, one entry per port, and ticks that bytes fly."""
        transfers = _IS_TRANSFER[self.opcode]
        port, hold, delay = self.ports.of(self.space, self.nbytes)
        link, link_hold, link_delay = self.ports.links(self.space, self.nbytes, transfers)
        # A transfer has at most two memory ends (a gather's index column rides along), so the
        # second source's slot is free for the link; compute has no link.
        riding = transfers & (port[:, 0] == port[:, 1])
        hold[riding, 0] += hold[riding, 1]
        port[transfers, 1] = link[transfers]
        hold[transfers, 1] = link_hold[transfers]
        _merge_same_port(port, hold)
        hold[port < 0] = 0
        # The first byte arrives after the latencies of both ends and the link, the last one after
        # the slowest port has passed them all.
        return port.astype(np.int16), hold, delay + link_delay


class _Ports:
    """Numbering of the ports of an architecture's memory and link instances."""

    def __init__(self, program: Program, arch: Architecture) -> None:
        self.arch, self.program = arch, program
        self.names: list[str] = []
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

    def _new(self, name: str) -> int:
        self.names.append(name)
        return len(self.names) - 1

    def of(self, space: Ints, nbytes: Ints) -> tuple[Ints, Ints, Ints]:
        """(port, hold ticks) per access and the summed access latency of each instruction."""
        port = np.empty_like(space)
        port[:, :2] = self.read[space[:, :2]]
        port[:, 2] = self.write[space[:, 2]]
        hold = np.zeros_like(nbytes)
        delay = np.zeros(len(space), dtype=np.int64)
        for i, info in enumerate(self.program.spaces):
            memory = self.arch.memories[info.memory]
            hz, tick = self.arch.clocks[memory.clock], self.arch.ticks_per_cycle(memory.clock)
            touched = space == i
            if not touched.any():
                continue
            hold[touched] = memory.transfer_cycles(nbytes[touched], hz) * tick
            delay += touched.any(axis=1) * (memory.latency_cycles(hz) * tick)
        return port, hold, delay

    def links(
        self, space: Ints, nbytes: Ints, transfers: npt.NDArray[np.bool_]
    ) -> tuple[Ints, Ints, Ints]:
        """(port, hold ticks, latency ticks) of the link that each transfer crosses, -1 if none."""
        n = len(space)
        port = np.full(n, -1, dtype=np.int64)
        hold, delay = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        for link in self.arch.links:
            hz, tick = self.arch.clocks[link.clock], self.arch.ticks_per_cycle(link.clock)
            for a, b, name in self._instances(link.source, link.target):
                crosses = transfers & (
                    ((space[:, 0] == a) & (space[:, 2] == b))
                    | ((space[:, 0] == b) & (space[:, 2] == a))
                )
                port[crosses] = self._new(name)
                payload = np.minimum(nbytes[crosses, 0], nbytes[crosses, 2])
                hold[crosses] = link.transfer_cycles(payload, hz) * tick
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


def _merge_same_port(port: Ints, hold: Ints) -> None:
    """One entry per port: an instruction that reads and writes one port holds it for both."""
    for later, earlier in ((1, 0), (2, 0), (2, 1)):
        same = (port[:, later] >= 0) & (port[:, later] == port[:, earlier])
        hold[same, earlier] += hold[same, later]
        port[same, later] = -1
        hold[same, later] = 0
