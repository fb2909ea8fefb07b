"""Binding a program to an architecture: rows get ticks, ports and bytes.

Compute instructions take what their block's cost model says, in its own clock. Transfers take what
the memories at their ends and the links between them say. Every instruction holds the ports of the
memories and links that it touches for as long as its bytes need there, so units, DMA and other
cores contend; the engine itself keeps a unit until the slowest port has passed what it works on.

At ``ideal`` fidelity memories are infinitely fast and large: transfers take no time, nothing is
held, and the clock shows the compute units alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from accelsim.arch.model import Architecture
from accelsim.encoding.encodings import CODED
from accelsim.engine.flows import Flows, flows
from accelsim.engine.ports import ACCESSES, READ_BACK, WRITE, Holds, Ports, merge_same_port, table
from accelsim.engine.products import products_of
from accelsim.engine.schedule import TimedProgram
from accelsim.engine.traffic import Products, Traffic, traffic_of
from accelsim.errors import AccelsimError
from accelsim.hw.block import Ints, Unit, Work
from accelsim.hw.dram.block import Dram
from accelsim.hw.pim.memory import PimDram
from accelsim.hw.pim.unit import Pim
from accelsim.numerics.arithmetic import ProductTypes, types_of
from accelsim.numerics.formats import FORMAT_NAMES
from accelsim.numerics.rules import Rule
from accelsim.program.opcodes import ISSUED, PRODUCTS, TRANSFERS, Flag, Opcode
from accelsim.program.table import Program

Fidelity = Literal["ideal", "bandwidth", "dram"]
FIDELITIES: tuple[Fidelity, ...] = ("ideal", "bandwidth", "dram")

_IS_TRANSFER = np.zeros(max(Opcode) + 1, dtype=bool)
_IS_TRANSFER[list(TRANSFERS)] = True


@runtime_checkable
class Multiplies(Protocol):
    """A matrix unit that tells which formats it multiplies."""

    def rule(self, types: ProductTypes) -> Rule:
        """How their product is formed; raises AccelsimError naming what there is."""


@dataclass(frozen=True)
class Accesses:
    """Bytes that instructions move in memories: int64[n, 4], columns as in ``engine.ports``.

    ``space`` is -1 where there is no access. The last column is the write, the others are reads.
    """

    space: Ints
    nbytes: Ints


@dataclass(frozen=True)
class BoundProgram:
    """A program with its time on one architecture: the engine's input and what results count.

    ``unit_index`` gives, per instruction row, the position of its unit in ``arch.units``;
    ``work`` the ticks that the unit itself needs for it, memories aside; ``actions`` maps a unit
    name to its counted energy actions per row. ``port_groups`` names, per port, what results call
    it: the links of a network are one resource. ``flows`` are what crosses each network.
    """

    program: Program
    arch: Architecture
    fidelity: Fidelity
    timed: TimedProgram
    accesses: Accesses
    port_names: tuple[str, ...]
    port_groups: tuple[str, ...]
    flows: tuple[Flows, ...]
    unit_index: Ints
    work: Ints
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
        self.unit_index = kinds[self.unit]
        self.work = np.zeros(n, dtype=np.int64)
        self.occupancy = self.work
        self.latency = np.zeros(n, dtype=np.int64)
        self.space = np.full((n, ACCESSES), -1, dtype=np.int64)
        self.nbytes = np.zeros((n, ACCESSES), dtype=np.int64)
        self.conflict = np.zeros((n, ACCESSES), dtype=np.int64)
        self.blocked = np.zeros(n, dtype=np.int64)
        self.given = np.ones(n, dtype=np.int64)  # 0: the channels say how long the unit works
        self.products: list[tuple[Pim, Ints, Work]] = []
        self.passing = np.zeros(n, dtype=np.bool_)
        self.actions: dict[str, dict[str, Ints]] = {}
        self.formats = program.element_formats()
        self.coded = np.full(n, -1, dtype=np.int64)  # the coded operand that a row decodes
        self.ports = Ports(program, arch)
        self.issuing = [Holds.nothing()]
        self.flows: tuple[Flows, ...] = ()
        main, memory = arch.main_memory()
        if fidelity == "dram" and not isinstance(memory, Dram):
            raise AccelsimError(
                f"{arch.name}: {main} (kind: {memory.kind}) has no DRAM channels to simulate;"
                " accepted: kind: dram with a device, or --memory bandwidth"
            )
        self.main = next(i for i, space in enumerate(program.spaces) if space.memory == main)
        self.dynamic = fidelity == "dram" or (fidelity != "ideal" and bool(arch.caches))

    def bound(self) -> BoundProgram:
        self._locate_accesses()
        self._find_coded()
        self.flows = tuple(
            flows(self.program, self.arch, name, first)
            for name, first in self.ports.first_link.items()
        )
        transfers = _IS_TRANSFER[self.opcode]
        for name, unit, rows in self._rows_by_unit():
            if len(rows):
                self._check(name, unit, rows)
                self._cost(name, unit, rows)
        if self.fidelity == "ideal":
            n = len(self.program)
            port = np.full((n, 1), -1, dtype=np.int16)
            hold = np.zeros((n, 1), dtype=np.int64)
            traffic = None
            self.work[transfers] = 0
            self.occupancy, self.latency = self.work, np.where(transfers, 0, self.latency)
        else:
            traffic = self._traffic()
            port, hold, in_flight = self._hold_ports(transfers)
            # A queue is as slow as its descriptors, its own bandwidth or the slowest port.
            slowest = np.maximum(self.work, hold.max(axis=1))
            self.occupancy = np.where(transfers, slowest, self.work * self.given)
            self.latency = np.where(transfers, slowest + in_flight, self.latency)
        timed = TimedProgram(
            unit=self.unit.astype(np.int32),
            occupancy=self.occupancy,
            latency=self.latency,
            dep=self.program.deps.astype(np.int32),
            port=port,
            hold=hold,
            units=len(self.program.units),
            ports=len(self.ports.names),
            traffic=traffic,
            early=self._early(),
        )
        return BoundProgram(
            self.program, self.arch, self.fidelity, timed,
            Accesses(self.space, self.nbytes), tuple(self.ports.names), tuple(self.ports.groups),
            self.flows, self.unit_index, self.work, self.actions,
        )  # fmt: skip

    def _early(self) -> npt.NDArray[np.bool_] | None:
        """Dependencies that wait until an instruction has been issued; None if all wait longer."""
        flags = self.program.column("flags")
        if not (flags & sum(ISSUED)).any():
            return None
        early: npt.NDArray[np.bool_] = (flags[:, None] & np.array(ISSUED)) != 0
        return early

    # -- bytes -----------------------------------------------------------------------------------

    def _locate_accesses(self) -> None:
        """Space and bytes of every access, as the memory moves them (whole granules)."""
        program = self.program
        if not len(program.operands):
            return
        moved, conflicts = self._moved_bytes_of_operands(), self._conflicts_of_operands()
        spaces = program.operand_column("space")
        sources, dst = program.sources, program.column("dst")
        columns = ((0, sources[:, 0]), (1, sources[:, 1]), (READ_BACK, dst), (WRITE, dst))
        for column, operand in columns:
            there = operand >= 0
            self.space[:, column] = np.where(there, spaces[operand], -1)
            self.nbytes[:, column] = np.where(there, moved[operand], 0)
            self.conflict[:, column] = np.where(there, conflicts[operand], 0)
        # What a multicast delivers was read once, so a DELIVER only writes.
        delivers = self.opcode == Opcode.DELIVER
        self.space[delivers, :WRITE], self.nbytes[delivers, :WRITE] = -1, 0
        self.conflict[delivers, :WRITE] = 0
        # A gather reads the rows that are named, not the whole table.
        gathers = np.flatnonzero(self.opcode == Opcode.GATHER)
        if len(gathers):
            table = sources[gathers, 0]
            row = self._moved(np.ones(len(table), np.int64), table)
            self.nbytes[gathers, 0] = program.column("m")[gathers] * row
            self.conflict[gathers, 0] = 0  # which rows these are is data

    def _moved_bytes_of_operands(self) -> Ints:
        operands = np.arange(len(self.program.operands))
        return self._moved(self.program.operand_column("rows"), operands)

    def _conflicts_of_operands(self) -> Ints:
        """Cycles of its memory that one pass over an operand loses to conflicts of banks."""
        program = self.program
        window = [program.operand_column(name) for name in ("base", "rows", "row_bytes", "stride")]
        space = program.operand_column("space")
        cycles = np.zeros_like(space)
        for index, info in enumerate(program.spaces):
            there = np.flatnonzero(space == index)
            if len(there):
                memory = self.arch.memories[info.memory]
                cycles[there] = memory.conflict_cycles(*(column[there] for column in window))
        return cycles

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
            yield name, unit, np.flatnonzero(works & (self.unit_index == kind))

    def _check(self, name: str, unit: Unit, rows: Ints) -> None:
        """Units execute their own opcodes, on their own memories, in their own core."""
        wrong = [o for o in np.unique(self.opcode[rows]).tolist() if o not in unit.opcodes]
        if wrong:
            able = ", ".join(o.name for o in unit.opcodes)
            raise AccelsimError(
                f"unit {name!r} cannot execute {Opcode(wrong[0]).name}; it executes {able}"
            )
        self._check_encodings(name, unit, rows)
        if isinstance(unit, Multiplies):
            products = rows[np.isin(self.opcode[rows], PRODUCTS)]
            columns = (self.program.column("flags")[products] & Flag.COLUMNS) > 0
            self._check_formats(unit.rule, products[~columns])
            if isinstance(unit, Pim):
                self._check_formats(unit.columns_rule, products[columns])
        spaces = self.program.spaces
        core = np.array([s.core for s in spaces] + [-1])[self.space[rows]]
        own = np.array([s.core for s in self.program.units])[self.unit[rows], None]
        reachable = [not unit.memories() or s.memory in unit.memories() for s in spaces]
        near = (core < 0) | (core == own)
        if not unit.memories() and any(one.cores for one in self.arch.placements.values()):
            near[:] = True  # a DMA reaches the other cores over the network
        good = np.array([*reachable, True])[self.space[rows]] & near
        if not good.all():
            row, column = np.argwhere(~good)[0]
            raise AccelsimError(
                f"instruction {rows[row]}: unit {self.program.units[self.unit[rows[row]]].name!r}"
                f" does not reach memory {spaces[self.space[rows[row], column]].name!r}"
            )

    def _find_coded(self) -> None:
        """Sources that are read as what their coded bytes stand for."""
        codes = self.program.operand_column("format")
        if not self.program.forms:
            return
        for column in (1, 0):
            operand = self.program.sources[:, column]
            coded = (operand >= 0) & (codes[operand] >= CODED) & ~_IS_TRANSFER[self.opcode]
            self.coded[coded] = operand[coded]

    def _check_encodings(self, name: str, unit: Unit, rows: Ints) -> None:
        """Only units that decode read coded operands, only those that encode write them."""
        target = self.program.operand_column("format")[self.program.column("dst")[rows]]
        writing = (self.opcode[rows] == Opcode.ENCODE) & (target >= CODED)
        for code in np.unique(target[writing]).tolist():
            form = self.program.forms[code - CODED]
            if not unit.encodes(form.encoding):
                row = int(rows[np.argmax(writing & (target == code))])
                raise AccelsimError(
                    f"instruction {row}: unit {name!r} (kind: {unit.kind}) does not write operands"
                    f" stored as {form.encoding}"
                )
        reading = rows[self.coded[rows] >= 0]
        codes = self.program.operand_column("format")[self.coded[reading]]
        for code in np.unique(codes).tolist():
            form = self.program.forms[code - CODED]
            if not unit.decodes(form.encoding):
                row = int(reading[np.argmax(codes == code)])
                raise AccelsimError(
                    f"instruction {row}: unit {name!r} (kind: {unit.kind}) does not read operands"
                    f" stored as {form.encoding}"
                )

    def _check_formats(self, rule: Callable[[ProductTypes], Rule], rows: Ints) -> None:
        """What a unit cannot multiply is not timed either."""
        program = self.program
        formats = self.formats
        source, target = program.sources[rows], program.column("dst")[rows]
        used = np.stack([formats[d] for d in (source[:, 0], source[:, 1], target)])
        known = (len(FORMAT_NAMES),) * 3
        for code in np.flatnonzero(np.bincount(np.ravel_multi_index(tuple(used), known))):
            types = [int(one) for one in np.unravel_index(code, known)]
            try:
                rule(types_of(*(FORMAT_NAMES[one] for one in types)))
            except AccelsimError as error:
                row = int(rows[np.argmax(np.equal(used.T, types).all(axis=1))])
                owner = int(program.column("operator")[row])
                name = program.operators[owner].name if owner >= 0 else "no operator"
                on = program.units[int(self.unit[row])].name
                raise AccelsimError(f"instruction {row} of {name} on {on}: {error}") from None

    def _work(self, rows: Ints) -> Work:
        program = self.program
        fmt = self.formats
        column = program.column
        first, target, coded = program.sources[rows, 0], column("dst")[rows], self.coded[rows]
        return Work(
            opcode=self.opcode[rows],
            function=column("function")[rows],
            flags=column("flags")[rows],
            m=column("m")[rows],
            n=column("n")[rows],
            k=column("k")[rows],
            read_bytes=self.nbytes[rows, 0] + self.nbytes[rows, 1],
            write_bytes=self.nbytes[rows, WRITE],
            source_format=np.where(first >= 0, fmt[first], -1),
            target_format=np.where(target >= 0, fmt[target], -1),
            target_storage_bytes=np.where(target >= 0, self._storage_bytes(target), 0),
            staged_bytes=np.where(self.space[rows, :2] == self.main, 0, self.nbytes[rows, :2]).sum(
                1
            ),
            coded=np.where(coded >= 0, program.operand_column("format")[coded] - CODED, -1),
            coded_bytes=np.where(coded >= 0, program.operand_bytes()[coded], 0),
            forms=program.forms,
        )

    def _storage_bytes(self, operands: Ints) -> Ints:
        """Bytes of the whole buffer or tensor that each operand is a window of."""
        program = self.program
        nbytes = np.array([info.nbytes for info in program.storages], dtype=np.int64)
        return nbytes[program.operand_column("storage")[operands]]

    def _cost(self, name: str, unit: Unit, rows: Ints) -> None:
        """What the unit itself needs, and how often it passes over its operands."""
        # A delivery is the end of a transfer that has been paid for.
        rows = rows[self.opcode[rows] != Opcode.DELIVER]
        work = self._work(rows)
        cost = unit.cost(work)
        hz, tick = self.arch.hz_of(unit), self.arch.ticks_of(unit)
        moving = unit.transfer_cycles(self.nbytes[rows].max(axis=1), hz)
        self.work[rows] = (cost.occupancy_cycles + moving) * tick
        self.latency[rows] = (cost.latency_cycles + moving) * tick
        for column, passes in enumerate(unit.operand_passes(work)):
            self.nbytes[rows, column] *= passes
            self.conflict[rows, column] *= passes
        self.space[rows, READ_BACK] = np.where(
            self.nbytes[rows, READ_BACK] > 0, self.space[rows, READ_BACK], -1
        )
        if isinstance(unit, Pim):
            self._stay_in_banks(unit, rows, work)
            if unit.issue:
                port = np.full(len(rows), self.ports.issue(name), dtype=np.int64)
                self.issuing.append(Holds(rows, port, unit.issue_cycles(work) * tick))
        self.actions[name] = {}
        for action, count in cost.actions.items():
            counts = np.zeros(len(self.program), dtype=np.int64)
            counts[rows] = count
            self.actions[name][action] = counts

    def _stay_in_banks(self, unit: Pim, rows: Ints, work: Work) -> None:
        """Products in banks: the matrix stays there, and so do vectors that lie there. Channels
        that are simulated decide when."""
        self.nbytes[rows, 1] = unit.channel_bytes(work)
        self.nbytes[rows, 0] *= self.space[rows, 0] != self.space[rows, 1]
        if self.fidelity != "dram":
            self.blocked[rows] = self.work[rows] // unit.count if unit.holds_memory else 0
            self.passing[rows] = unit.own_pins
            return
        self.latency[rows] = 0
        self.given[rows] = 0
        self.products.append((unit, rows, work))

    # -- memory that decides while time passes -------------------------------------------------

    def _traffic(self) -> Traffic | None:
        """The windows of main memory, where caches or channels decide how long they take."""
        if not self.dynamic:
            return None
        once = self._moved_bytes_of_operands()
        return traffic_of(
            self.program,
            self.space,
            self.nbytes,
            once,
            self.main,
            self.ports,
            self.fidelity == "dram",
            self._products(),
        )

    def _products(self) -> Products | None:
        """What the banks compute, where their channels are simulated."""
        memory = self.arch.memories[self.program.spaces[self.main].memory]
        if self.fidelity != "dram" or not isinstance(memory, PimDram):
            return None
        return products_of(self.program, memory, self.products)

    # -- ports -----------------------------------------------------------------------------------

    def _hold_ports(
        self, transfers: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.int16], Ints, Ints]:
        """(port, hold ticks) of everything an instruction uses, and ticks that bytes fly."""
        space = self.space
        if self.dynamic:
            space = np.where(space == self.main, -1, space)
        port, hold, delay = self.ports.of(space, self.nbytes, self.conflict)
        # A channel in which nothing else may happen is its share of the memory, with caches before
        # it or without.
        hold[:, 1] += self.blocked
        port[self.blocked > 0, 1] = self.ports.read[self.main]
        hold[self.passing] = 0
        merge_same_port(port, hold)
        crossed, crossing, way = self.ports.crossings(self.space, self.nbytes, transfers)
        holds = [Holds.of(port, hold), Holds.of(crossed, crossing), *self.issuing]
        holds += [flow.holds for flow in self.flows]
        way += sum(flow.flight for flow in self.flows)
        # A multicast arrives everywhere at once, so it holds the ports of all its destinations;
        # the DELIVERs retire with it and take no time.
        rows = np.arange(len(self.program))
        owner = np.maximum.accumulate(np.where(self.opcode == Opcode.DELIVER, 0, rows))
        ports, ticks = table(len(rows), [one._replace(row=owner[one.row]) for one in holds])
        # The first byte arrives after the latencies of both ends and of the way between them, the
        # last one after the slowest port has passed them all.
        return ports, ticks, delay + way
