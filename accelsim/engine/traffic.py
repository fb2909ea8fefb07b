"""Traffic: what instructions move in main memory where caches or DRAM channels decide its time.

A transfer's bytes are not known to be there, or to take so long, before it runs: that depends on
what ran before. So an instruction carries the windows that it moves, and the clock passes them
through the caches and to the channels in the order in which instructions commit.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from accelsim.arch.model import Architecture
from accelsim.engine.ports import WRITE, Ports
from accelsim.hw.block import Ints
from accelsim.hw.dram.block import Dram
from accelsim.hw.memory import OffChipMemory
from accelsim.hw.pim.memory import PimDram
from accelsim.program.opcodes import Opcode
from accelsim.program.table import Program

WINDOW = ("base", "rows", "row_bytes", "stride", "write", "core", "operand")
"""Columns of a window of main memory."""

# Knuth's multiplicative hash (TAOCP 3, 6.4): which rows of a table a gather reads is not known
# before it runs, so the clock spreads them.
SCATTER = 2654435761


@dataclass(frozen=True, eq=False)
class Products:
    """Products in the banks of main memory by instruction, as commands to its channels.

    ``place`` is (channel, end of its entries in ``table``) of every instruction, -1 where it has
    none; ``table`` are rows of a PimStream, ``sender`` their instructions, channel by channel;
    ``ends[c]`` is where those of channel c end. They come in the order of one unit.
    """

    place: Ints  # [n, 2]
    table: Ints  # [entry, 6]
    sender: Ints  # [entry]
    ends: Ints  # [channel]


@dataclass(frozen=True, eq=False)
class Traffic:
    """Windows of main memory by instruction, and the machine that they go through.

    The windows of instruction i are ``window[first[i] : first[i + 1]]``, columns as ``WINDOW``;
    ``operand`` is below ``operands``, and windows of one operand are the same window.
    ``memory`` is the name of the main memory, ``port`` its port at bandwidth fidelity, -1 where
    its channels are simulated. ``products`` are what its banks compute then.
    """

    first: Ints
    window: Ints
    arch: Architecture
    memory: str
    port: int
    operands: int
    products: Products | None = None

    @property
    def block(self) -> OffChipMemory:
        found = self.arch.memories[self.memory]
        assert isinstance(found, OffChipMemory)
        return found

    @property
    def dram(self) -> Dram:
        """The memory whose channels are simulated."""
        found = self.block
        assert isinstance(found, Dram)
        return found

    @property
    def pim_dram(self) -> PimDram | None:
        """The memory, if its channels are simulated and its banks compute."""
        found = self.block
        return found if self.by_channels and isinstance(found, PimDram) else None

    @property
    def by_channels(self) -> bool:
        """Whether the channels of a DRAM are simulated, command by command."""
        return self.port < 0


@dataclass(frozen=True, eq=False)
class Activity:
    """What caches and main memory did while a program ran.

    ``moved`` are bytes of main memory that instructions read and wrote, misses and evictions of
    their windows where there are caches; ``looked`` the bytes that they looked up, per cache;
    ``served`` the ticks that each cache and at last main memory's port served them. ``counts`` is
    the table of ``hw.cache.COUNTS`` per cache, ``channels`` the account of every DRAM channel,
    ``idle_tick`` when the last byte had moved.
    """

    moved: Ints  # [n, (read, written)]
    looked: Ints  # [n, cache]
    served: Ints  # [n, caches and memory]
    counts: Ints
    bank_ticks: Ints  # [bank] of all caches, instance by instance
    idle_tick: int
    channels: ChannelsActivity | None = None


@dataclass(frozen=True, eq=False)
class ChannelsActivity:
    """The account of DRAM channels: commands and row outcomes, energy with refresh and stand-by.

    ``busiest_ticks`` is the time of the channel with most bytes on its data bus. ``energy_pj``
    leaves out the commands that only a memory with units has.
    """

    counts: dict[str, Ints]  # by name, [channel]
    busiest_ticks: int
    energy_pj: float
    command_pj: dict[str, float] = field(default_factory=dict)  # of the units beside the banks

    def total(self, name: str) -> int:
        return int(self.counts[name].sum())


def traffic_of(
    program: Program,
    space: Ints,
    nbytes: Ints,
    once: Ints,
    main: int,
    ports: Ports,
    by_channels: bool,
    products: Products | None = None,
) -> Traffic:
    """The windows that the instructions of a program move in address space ``main``.

    ``space`` and ``nbytes`` are the accesses of ``engine.bind`` (int64[n, 4]); ``once`` the bytes
    of every operand when it is moved once, so that repeated passes show.
    """
    sources, dst = program.sources, program.column("dst")
    opcode = program.column("opcode")
    operand_of = np.stack([sources[:, 0], sources[:, 1], dst, dst], axis=1)
    here = (space == main) & (nbytes > 0)
    # What the banks multiply stays in them.
    here[opcode == Opcode.PIM] = False
    row, column = np.nonzero(here)
    operand = operand_of[row, column]
    gathers = (opcode[row] == Opcode.GATHER) & (column == 0)
    passes = np.maximum(1, nbytes[row, column] // np.maximum(1, once[operand]))
    passes[gathers] = program.column("m")[row[gathers]]
    row, column, operand, gathers = (
        np.repeat(part, passes) for part in (row, column, operand, gathers)
    )
    core = np.array([slot.core for slot in program.units])[program.column("unit")[row]]
    window = np.stack(
        [
            *(program.operand_column(name)[operand] for name in WINDOW[:4]),
            (column == WRITE).astype(np.int64),
            core,
            operand,
        ],
        axis=1,
    )
    _scatter(window, gathers, len(program.operands))
    first = np.searchsorted(row, np.arange(len(program) + 1))
    return Traffic(
        first=first,
        window=window,
        arch=ports.arch,
        memory=program.spaces[main].memory,
        port=-1 if by_channels else int(ports.read[main]),
        operands=len(program.operands) + int(gathers.sum()),
        products=products,
    )


def _scatter(window: Ints, gathers: npt.NDArray[np.bool_], operands: int) -> None:
    """Turn every pass of a gather into one row of its table, spread over all rows.

    Each row is an operand of its own, numbered from ``operands``: that another row of the table
    was read says nothing about it.
    """
    picked = window[gathers]
    if not len(picked):
        return
    count, stride = picked[:, 1], picked[:, 3]
    nth = np.arange(len(picked))
    window[gathers, 0] = picked[:, 0] + (nth * SCATTER % np.maximum(1, count)) * stride
    window[gathers, 1] = 1
    window[gathers, 3] = picked[:, 2]
    window[gathers, 6] = operands + nth
