"""What every hardware block is: a frozen set of parameters that can be timed.

A block is one frozen dataclass, registered under the ``kind`` that architecture files use::

    @block("systolic")
    @dataclass(frozen=True)
    class Systolic(Unit):
        rows: int
        ...

Its fields are the parameters of the YAML file; physical quantities are declared with the types of
``accelsim.quantities`` so that "16 MiB" or "940 MHz" is read at the edge and everything inside is
a plain number with a unit in its name or docstring.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from accelsim.encoding.encodings import CodedForm
from accelsim.errors import AccelsimError
from accelsim.program.opcodes import Opcode

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Work:
    """Columns of the instructions that one unit executes: the input of its cost model.

    All arrays have one entry per instruction. ``read_bytes`` and ``write_bytes`` are what the
    memories move for the source and destination operands once (whole granules), ``staged_bytes``
    the part of what is read that lies on chip;
    ``source_format`` and ``target_format`` are format codes of src0 and dst (see
    numerics.formats.FORMAT_NAMES), -1 for none; ``target_storage_bytes`` the size of the whole
    buffer that dst is a window of. ``coded`` is which of ``forms`` the coded source of an
    instruction has (src0 of a DECODE, one of a MATMUL's), -1 without one, ``coded_bytes`` how long
    it is.
    """

    opcode: Ints
    function: Ints
    flags: Ints
    m: Ints
    n: Ints
    k: Ints
    read_bytes: Ints
    write_bytes: Ints
    source_format: Ints
    target_format: Ints
    target_storage_bytes: Ints
    staged_bytes: Ints = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    coded: Ints = field(default_factory=lambda: np.full(1, -1, dtype=np.int64))
    coded_bytes: Ints = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    forms: tuple[CodedForm, ...] = ()

    def __len__(self) -> int:
        return len(self.opcode)


@dataclass(frozen=True)
class Cost:
    """What the instructions take: cycles of the unit's clock and counted energy actions.

    ``occupancy_cycles`` until the unit can take its next instruction, ``latency_cycles`` until the
    result may be used. ``actions`` counts what costs energy, e.g. {"mac": ...}, per instruction.
    """

    occupancy_cycles: Ints
    latency_cycles: Ints
    actions: Mapping[str, Ints] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Block:
    """Parameters that every block has. ``clock`` names a clock of the architecture."""

    kind: ClassVar[str]
    derived: ClassVar[Mapping[str, str]] = {}
    """Properties that files and overrides may give like parameters, and the parameter that each
    sets: {"bandwidth": "command_clock"}."""
    clock: str = "core"

    def setting(self, name: str, value: Any) -> Any:
        """What the parameter ``derived[name]`` has to be for the property to become ``value``."""
        raise AccelsimError(f"a {self.kind} has no derived parameter {name}")

    @property
    def own_clock_hz(self) -> int | None:
        """Frequency of a clock that the block brings along (DRAM); None: ``clock`` drives it."""
        return None

    def check(self) -> None:
        """Raise AccelsimError if parameters contradict each other; ranges are checked here too."""
        for parameter in fields(self):
            if "_pj" in parameter.name and getattr(self, parameter.name) < 0:
                energy = getattr(self, parameter.name)
                raise AccelsimError(f"{parameter.name} must not be negative, not {energy}")

    def left_open(self, name: str) -> str:
        """What a parameter that is given as "" follows from others as; "" if it is nothing."""
        del name
        return ""

    def energy_pj_per_action(self) -> Mapping[str, float]:
        """Energy of one counted action in picojoules; {} if the architecture gives none."""
        return {}


@dataclass(frozen=True, kw_only=True)
class Unit(Block):
    """A block with in-order instruction queues: ``count`` of them per core."""

    opcodes: ClassVar[frozenset[Opcode]]
    reads_main_memory: ClassVar[bool] = False
    """Whether its instructions may name windows of main memory, as those of a GPU do."""
    count: int = 1

    def check(self) -> None:
        super().check()
        require(self.count >= 1, f"count must be at least 1, not {self.count}")

    def cost(self, work: Work) -> Cost:
        """Cycles of every instruction, vectorised over the table."""
        raise AccelsimError(f"a {self.kind} unit has no cost model")

    def memories(self) -> tuple[str, ...]:
        """Names of the memories this unit reads or writes directly."""
        return ()

    def decodes(self, encoding: str) -> bool:
        """Whether it reads operands that are stored in an encoding."""
        return False

    def encodes(self, name: str) -> bool:
        """Whether it writes operands that are stored in an encoding."""
        return False

    def speedup(self, form: CodedForm) -> int:
        """How many times its peak a unit reaches on products with an operand of this form."""
        del form
        return 1

    def operand_passes(self, work: Work) -> tuple[Ints, Ints, Ints, Ints]:
        """How often an instruction reads src0, reads src1, reads dst back, and writes dst."""
        once = np.ones(len(work), dtype=np.int64)
        return once, once, np.zeros_like(once), once

    def transfer_cycles(self, nbytes: Ints, hz: int) -> Ints:
        """Cycles that the unit's own bandwidth adds for ``nbytes``, at a clock of ``hz``."""
        return np.zeros_like(nbytes)

    def peak_macs_per_cycle(self, bits: int = 16) -> int:
        """Multiply-accumulates of factors of ``bits`` bits per cycle of one instance, for lower
        bounds (0: none)."""
        del bits
        return 0


@dataclass(frozen=True, kw_only=True)
class Memory(Block):
    """A block that holds bytes. ``shared`` memories serve all cores, others exist per core."""

    capacity: int
    shared: ClassVar[bool] = False

    def check(self) -> None:
        super().check()
        require(self.capacity > 0, f"capacity must be positive, not {self.capacity}")

    @property
    def port_count(self) -> int:
        """Ports that accesses take turns on: 0 none is ever waited for, 1 shared by reads and
        writes, 2 one for each."""
        return 1

    def moved_bytes(self, rows: Ints, row_bytes: Ints, contiguous: npt.NDArray[np.bool_]) -> Ints:
        """Bytes that 2-D windows really move, with what the smallest access adds."""
        return rows * row_bytes

    def transfer_cycles(self, nbytes: Ints, hz: int) -> Ints:
        """Cycles of this memory's clock (``hz``) that a port is busy with ``nbytes``."""
        return np.zeros_like(nbytes)

    def conflict_cycles(self, base: Ints, rows: Ints, row_bytes: Ints, stride: Ints) -> Ints:
        """Cycles that 2-D windows take longer than ``transfer_cycles`` of their bytes, because of
        where these lie: what one pass over a window adds, 0 for contiguous ones."""
        return np.zeros_like(rows)

    def window_cycles(self, base: Ints, rows: Ints, row_bytes: Ints, stride: Ints, hz: int) -> Ints:
        """Cycles of this memory's clock (``hz``) that a port is busy with one pass over windows."""
        moved = self.moved_bytes(rows, row_bytes, stride == row_bytes)
        return self.transfer_cycles(moved, hz) + self.conflict_cycles(base, rows, row_bytes, stride)

    def latency_cycles(self, hz: int) -> int:
        """Cycles of this memory's clock until the first byte of an access."""
        return 0

    def peak_bytes_per_second(self, hz: int) -> int:
        """Bytes/s of all ports of one instance at a clock of ``hz``; 0 if it never limits."""
        return 0


def whole_cycles(nbytes: Ints, hz: int, bandwidth: float) -> Ints:
    """Cycles of a clock of ``hz`` that ``nbytes`` take at ``bandwidth`` bytes/s, rounded up.

    In integers, so that nothing is lost: a transfer takes whole cycles.
    """
    common = math.gcd(hz, int(bandwidth))
    return -(-(nbytes * (hz // common)) // (int(bandwidth) // common))


def require(condition: bool, message: str) -> None:
    """Raise AccelsimError(message) unless the condition holds."""
    if not condition:
        raise AccelsimError(message)


BLOCKS: dict[str, type[Block]] = {}

B = TypeVar("B", bound=type[Block])


def block(kind: str) -> Callable[[B], B]:
    """Register a block class under the kind that architecture files name it by."""

    def register(cls: B) -> B:
        known = BLOCKS.get(kind)
        if known is not None and known.__qualname__ != cls.__qualname__:
            raise AccelsimError(f"block kind {kind!r} is taken by {known.__qualname__}")
        cls.kind = kind
        BLOCKS[kind] = cls
        return cls

    return register
