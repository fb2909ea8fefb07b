"""Lowering: a graph and an architecture become a tile program, operator by operator.

``Lowering`` is what a mapper sees: the machine as cores with queues and scratchpads, the tensors
as 2-D windows, and the program builder.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from accelsim.errors import AccelsimError
from accelsim.hw.block import Unit
from accelsim.hw.dma import Dma
from accelsim.hw.dram.block import Dram
from accelsim.hw.memory import OffChipMemory
from accelsim.hw.pim.unit import Pim
from accelsim.hw.sequencer import Sequencer
from accelsim.hw.simt import Simt
from accelsim.hw.sram import Sram
from accelsim.hw.systolic import Systolic
from accelsim.hw.tensor_core import TensorCore
from accelsim.hw.vector import Vector
from accelsim.mapping.coded import CodedLayouts
from accelsim.mapping.panels import Layouts, laid_out, panel_width
from accelsim.mapping.placement import Arena, Plan
from accelsim.mapping.registry import choose, mappers_for, passed_over
from accelsim.numerics.formats import Format, number_format, row_bytes
from accelsim.program.builder import DEFAULT_INSTRUCTION_LIMIT, Builder
from accelsim.program.storage import Piece, Storage, View
from accelsim.program.table import OperatorInfo, Program, StorageInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from accelsim.arch.model import Architecture
    from accelsim.hw.noc import Placement
    from accelsim.mapping.bank_layouts import Placed
    from accelsim.program.table import Region
    from accelsim.workload.graph import Graph
    from accelsim.workload.operators import Operator

U = TypeVar("U", bound=Unit)

# Stands for "no limit" of a memory at ideal fidelity; far below the end of 64-bit addresses.
UNLIMITED_BYTES = 1 << 56


@dataclass(frozen=True)
class Queue:
    """One in-order unit instance as a mapper uses it: its index in the program and its block.

    ``beside`` memory that computes: it serves only what goes on there.
    """

    slot: int
    unit: Unit
    beside: bool = False


@dataclass
class Ring:
    """Buffers of one shape used in turn: double buffering is a ring of two."""

    slots: list[View]
    _next: int = 0

    def next(self) -> View:
        """The next buffer; the first write to it waits for everybody who still uses it."""
        view = self.slots[self._next % len(self.slots)]
        self._next += 1
        view.storage.renew()
        return view


@dataclass
class Core:
    """The units of one core and its scratchpads."""

    index: int
    queues: list[Queue]
    arenas: dict[str, Arena]

    def of(self, kind: type[U]) -> list[tuple[int, U]]:
        """(program slot, block) of every unit of a class."""
        return [(q.slot, q.unit) for q in self.queues if isinstance(q.unit, kind)]

    def reset(self) -> None:
        """Hand out the scratchpads anew; what still uses them is waited for."""
        for arena in self.arenas.values():
            arena.reset()

    @cached_property
    def arrays(self) -> list[tuple[int, Systolic]]:
        """The arrays of the unit with the highest peak; mappers share work among equals only."""
        arrays = self.of(Systolic)
        best = leading_array(unit for _, unit in arrays)
        return [(slot, unit) for slot, unit in arrays if unit is best]

    def vector(self, memory: str | None = None) -> tuple[int, Vector]:
        """The vector unit that works on ``memory`` (default: any)."""
        for slot, unit in self.of(Vector):
            if memory is None or memory in unit.memory:
                return slot, unit
        raise AccelsimError(f"no vector unit of core {self.index} works on memory {memory!r}")

    @cached_property
    def tensor_cores(self) -> tuple[int, TensorCore]:
        """Slot and block of a multiprocessor's tensor cores."""
        return self.of(TensorCore)[0]

    @cached_property
    def threads(self) -> tuple[int, Simt]:
        """Slot and block of a multiprocessor's SIMT lanes."""
        return self.of(Simt)[0]

    @cached_property
    def load_queues(self) -> list[int]:
        """DMA queues for loads: all but the last, if there are several."""
        return self.dma_queues[:-1] or self.dma_queues

    @cached_property
    def store_queue(self) -> int:
        """The DMA queue for stores: the last."""
        return self.dma_queues[-1]

    @cached_property
    def dma_queues(self) -> list[int]:
        """Every DMA queue that serves the arrays."""
        queues = [q for q in self.queues if isinstance(q.unit, Dma)]
        return [q.slot for q in queues if not q.beside] or [q.slot for q in queues]

    @cached_property
    def beside_queues(self) -> list[int]:
        """The DMA queues that serve memory which computes: its own, or those of the arrays."""
        queues = [q.slot for q in self.queues if isinstance(q.unit, Dma) and q.beside]
        return queues or self.dma_queues

    @cached_property
    def sequencer(self) -> int | None:
        """The queue that starts kernels; None if operators run into each other."""
        return next((slot for slot, _ in self.of(Sequencer)), None)

    def ring(
        self, memory: str, name: str, rows: int, cols: int, fmt: Format, slots: int = 2
    ) -> Ring:
        """``slots`` buffers of [rows, cols] in a scratchpad; CapacityError if they do not fit."""
        arena = self.arenas[memory]
        return Ring([arena.buffer(f"{name}[{i}]", rows, cols, fmt) for i in range(slots)])

    @property
    def staging(self) -> str:
        """The scratchpad through which the DMA moves data that no array needs: the largest."""
        if not self.arenas:
            raise AccelsimError(f"core {self.index} has no scratchpad")
        return max(self.arenas, key=lambda name: self.arenas[name].capacity)

    def buffer(self, memory: str, name: str, rows: int, cols: int, fmt: Format) -> View:
        """One buffer of [rows, cols] in a scratchpad."""
        return self.ring(memory, name, rows, cols, fmt, slots=1).next()


@dataclass
class Lowering:
    """Everything a mapper works with while it lowers one operator after the other."""

    arch: Architecture
    graph: Graph
    build: Builder
    cores: list[Core]
    tensors: dict[str, Storage]
    scratch_arena: Arena
    memory: OffChipMemory
    ideal: bool
    channels: Dram | None = None  # the main memory at dram fidelity
    placed: Mapping[str, Placed] = field(default_factory=dict)

    @cached_property
    def layouts(self) -> Layouts:
        """Where tensors lie in main memory: mappers pack weights through this."""
        return laid_out(self.build, self.graph, self.arch, self.tensors, self._in_banks)

    @cached_property
    def coded(self) -> CodedLayouts:
        """The tiles of weights that are stored in an encoding; mappers cut them through this."""
        layouts = CodedLayouts(self.build)
        for name, storage in self.tensors.items():
            layouts.admit(storage, self.graph.tensors[name])
        return layouts

    def pieces(self, window: View) -> list[Piece]:
        """Where a window of the row-major form of a tensor lies."""
        if self.coded.of(window):
            raise AccelsimError(
                f"weight {window.storage.name!r} is stored as {self.coded.of(window)}, and a window"
                " of it is read that is no coded tile"
            )
        return self.layouts.pieces(window)

    @cached_property
    def _in_banks(self) -> dict[int, tuple[int, Sequence[Region]]]:
        """Columns and regions of the tensors that lie in banks, by storage."""
        return {
            self.tensors[name].index: (self.graph.tensors[name].shape[-1], one.regions)
            for name, one in self.placed.items()
            if name in self.tensors
        }

    @cached_property
    def panel_width(self) -> int:
        """Columns of the panels in which activations and scratch tensors lie; 0: row-major."""
        return panel_width(self.graph, self.arch)

    @cached_property
    def even_rows(self) -> int:
        """Rows of a panel of activations over which all channels take one turn; 1 without."""
        if not isinstance(self.memory, Dram) or not self.panel_width:
            return 1
        row = row_bytes(self.panel_width, number_format("bf16"))
        return max(1, self.memory.turn_bytes // row)

    @cached_property
    def network(self) -> Placement | None:
        """The network between the cores and the memory of the tensors, if there is one."""
        name = self.arch.main_memory()[0]
        joined = (p for p in self.arch.placements.values() if p.cores and name in p.memories)
        return next(joined, None)

    @property
    def multicasts(self) -> bool:
        """Whether several cores can receive what is read from main memory once."""
        return self.network is not None and self.network.network.multicast and len(self.cores) > 1

    @cached_property
    def core_bytes_per_second(self) -> float:
        """What every core gets of main memory when all of them read at once."""
        memory = self.memory
        peak = self.channels.bandwidth if self.channels else memory.peak_bandwidth
        share = peak / len(self.cores)
        if self.network is None:
            return share
        return min(share, self.network.core_bytes_per_second(self.arch.main_memory()[0]))

    @cached_property
    def read_seconds(self) -> float:
        """Time until the first byte of a read arrives: memory and way."""
        seconds = self.channels.loaded_seconds if self.channels else self.memory.access_seconds
        if self.network is None:
            return seconds
        cycles = self.network.read_cycles(self.arch.main_memory()[0])
        return seconds + cycles / self.arch.clocks[self.network.network.clock]

    def format(self, tensor: str) -> Format:
        """Number format of a workload tensor."""
        return number_format(self.graph.tensors[tensor].dtype)

    def matrix(self, tensor: str, rows: int | None = None, cols: int | None = None) -> View:
        """A workload tensor as a packed [rows, cols] window (default: last axis as columns)."""
        spec = self.graph.tensors[tensor]
        fmt = number_format(spec.dtype)
        if cols is None:
            cols = spec.shape[-1] if rows is None else spec.elements // rows
        if rows is None:
            rows = spec.elements // cols
        return self.tensors[tensor].view(rows, cols, fmt)

    def window(
        self, tensor: str, first_element: int, rows: int, cols: int, row_stride: int
    ) -> View:
        """A strided [rows, cols] window; offsets and strides in elements."""
        fmt = self.format(tensor)
        return self.tensors[tensor].view(
            rows, cols, fmt, offset=row_bytes(first_element, fmt), stride=row_bytes(row_stride, fmt)
        )

    def launch(self) -> None:
        """Start a kernel: it comes after everything before it, and before all that follows."""
        self.build.launch(self.cores[0].threads[0])

    def begin_kernel(self) -> None:
        """Start a kernel on a machine that has any; elsewhere operators run into each other."""
        if self.cores[0].of(Simt):
            self.launch()

    def scratch(self, name: str, rows: int, cols: int, fmt: Format) -> View:
        """An off-chip [rows, cols] tensor of the mapper's own, for this operator only."""
        storage = self.scratch_arena.take(
            name, rows * row_bytes(cols, fmt), "scratch", (rows, cols), fmt.name
        )
        if self.panel_width:
            self.layouts.cut(storage, rows, cols, self.panel_width)
        return storage.view(rows, cols, fmt)


def leading_array(arrays: Iterable[Systolic]) -> Systolic | None:
    """The unit that products go to: the highest peak of all its instances, the first of equals."""
    return max(arrays, key=lambda unit: unit.count * unit.peak_macs_per_cycle(), default=None)


def unused_parts(arch: Architecture) -> list[str]:
    """What the built-in mappers leave idle on this architecture, for its results to declare."""
    arrays = arch.units_of(Systolic)
    best = leading_array(arrays.values())
    used = [name for name, unit in arrays.items() if unit is best]
    idle = [name for name, unit in arrays.items() if unit is not best]
    memories = [name for name, m in arch.memories.items() if isinstance(m, OffChipMemory)]
    return [
        *(f"unit {name} is left idle: products go to {used[0]}" for name in idle),
        *(f"memory {name} is left empty: tensors lie in {memories[0]}" for name in memories[1:]),
    ]


class Machine:
    """An architecture laid out as program units, address spaces and cores."""

    def __init__(self, arch: Architecture, ideal: bool, instruction_limit: int) -> None:
        self.arch = arch
        self.ideal = ideal
        slots = arch.unit_slots()
        spaces = arch.address_spaces()
        if ideal:
            spaces = tuple(replace(s, capacity=UNLIMITED_BYTES) for s in spaces)
        self.build = Builder(slots, spaces, instruction_limit)
        self.main_name, self.main = arch.main_memory()
        for name, unit in arch.units.items():
            for memory in unit.memories():
                if arch.memories[memory].shared and not unit.reads_main_memory:
                    raise AccelsimError(
                        f"{arch.name}: unit {name!r} works on {memory!r}, which all cores share;"
                        " accepted: a scratchpad of its core (kind: sram)"
                    )
        self.main_space = next(i for i, s in enumerate(spaces) if s.memory == self.main_name)
        self.main_capacity = spaces[self.main_space].capacity
        chips = [n for n, m in arch.memories.items() if isinstance(m, Sram) and m.activations]
        self.chip_name = chips[0] if chips else ""
        self.chip_space = next((i for i, s in enumerate(spaces) if s.memory == self.chip_name), -1)
        beside = {unit.dma for unit in arch.units_of(Pim).values()}
        self.cores = [
            Core(
                core,
                [
                    Queue(i, arch.units[s.unit], s.unit in beside)
                    for i, s in enumerate(slots)
                    if s.core == core
                ],
                {
                    s.memory: Arena(self.build, i, s.name, s.capacity)
                    for i, s in enumerate(spaces)
                    if s.core == core and s.memory != self.chip_name
                },
            )
            for core in range(arch.cores)
        ]


def lower(
    graph: Graph,
    operators: Sequence[Operator],
    arch: Architecture,
    plan: Plan,
    *,
    ideal: bool = False,
    channels: bool = False,
    mappers: tuple[str, ...] = (),
    instruction_limit: int = DEFAULT_INSTRUCTION_LIMIT,
) -> Program:
    """The tile program of a slice of a graph.

    ``plan`` places every tensor; ``mappers`` are names to prefer; ``ideal`` lifts all capacities;
    with ``channels`` tiles are chosen for a DRAM whose channels are simulated.
    Raises AccelsimError if an operator cannot be run, CapacityError if a buffer does not fit.
    """
    machine = Machine(arch, ideal, instruction_limit)
    low = Lowering(
        arch=arch,
        graph=graph,
        build=machine.build,
        cores=machine.cores,
        tensors=_register(graph, operators, plan, machine),
        scratch_arena=Arena(
            machine.build,
            machine.main_space,
            machine.main_name,
            machine.main_capacity - plan.peak,
            start=plan.peak,
            paged=True,
        ),
        memory=machine.main,
        ideal=ideal,
        channels=machine.main if channels and isinstance(machine.main, Dram) else None,
        placed=plan.placed,
    )
    low.build.pieces = low.pieces
    for idle in unused_parts(arch):
        low.build.approximate(idle)
    for operator in operators:
        _lower_operator(operator, low, mappers)
    low.layouts.declare()
    low.coded.declare()
    return machine.build.finish()


def _register(
    graph: Graph, operators: Sequence[Operator], plan: Plan, machine: Machine
) -> dict[str, Storage]:
    """Register the tensors that the operators touch, with the tensors whose place they reuse."""
    producer = {name: i for i, op in enumerate(operators) for name in op.outputs}
    storages: dict[str, Storage] = {}
    names = dict.fromkeys(n for op in operators for n in (*op.inputs, *op.outputs))
    for name in sorted(names, key=lambda n: producer.get(n, -1)):
        spec = graph.tensors[name]
        written: tuple[tuple[int, int], ...] = ()
        role = spec.role
        if name in producer and role == "cache":
            append: Any = operators[producer[name]]
            written = append.rows_written()
        elif name not in producer and role in ("activation", "output"):
            role = "input"  # an earlier slice of the graph produced it
        there = plan.placed.get(name)
        info = StorageInfo(
            name,
            machine.chip_space if name in plan.on_chip else machine.main_space,
            plan.base[name],
            there.nbytes if there else spec.room,
            role,
            spec.shape,
            spec.dtype,
            producer.get(name, -1),
            written,
            regions=there.regions if there else (),
        )
        after = [storages[f] for f in plan.follows.get(name, ()) if f in storages]
        storages[name] = machine.build.storage(info, after)
    return storages


def _lower_operator(operator: Operator, low: Lowering, wanted: tuple[str, ...]) -> None:
    mapper = choose(operator, low.arch, wanted, low.placed)
    if not mapper.reads_coded:
        _refuse_coded(operator, low, mapper.name)
    for core in low.cores:
        core.reset()
    low.scratch_arena.reset()
    layer = -1 if operator.layer is None else operator.layer
    low.build.begin_operator(
        OperatorInfo(operator.name, operator.kind, mapper.name, useful_macs(operator, low), layer)
    )
    _start(low)
    try:
        mapper.lower(operator, low)
    except AccelsimError as fault:
        raise type(fault)(f"operator {operator.name!r} ({operator.kind}): {fault}") from None
    if over := passed_over(operator, low.arch, mapper, wanted, low.placed):
        better, accepted = over
        told = f"not by {better.name}, which accepts {accepted}"
        low.build.note(told)
        if better.name in wanted:
            low.build.approximate(f"{operator.kind} {told}")


def useful_macs(operator: Operator, low: Lowering) -> int:
    """Multiply-accumulates of an operator, without those that its arrays leave out."""
    arrays = leading_array(unit for core in low.cores for _, unit in core.of(Systolic))
    for name in operator.inputs:
        coding = low.graph.tensors[name].coding
        if coding and coding.sparsity and arrays and arrays.decodes(coding.encoding):
            return operator.macs * coding.sparsity.n // coding.sparsity.m
    return operator.macs


def _refuse_coded(operator: Operator, low: Lowering, mapper: str) -> None:
    """Say which weight a mapper would read as if it were not coded."""
    for name in operator.inputs:
        if coding := low.graph.tensors[name].coding:
            able = [m.name for m in mappers_for(operator.kind) if m.reads_coded]
            raise AccelsimError(
                f"operator {operator.name!r} ({operator.kind}): weight {name!r} is stored as"
                f" {coding}, which mapper {mapper} does not read; accepted: mapper"
                f" {' or '.join(able) or '(none)'} on an architecture that it fits"
            )


def _start(low: Lowering) -> None:
    """On a machine with a sequencer, what runs finishes before the next operator is launched."""
    slots = [core.sequencer for core in low.cores if core.sequencer is not None]
    if slots:
        low.build.launch(slots[0])
