"""The tile program as tables: one row per instruction, one row per operand descriptor.

A structure of arrays, so that cost models are vectorised numpy over columns and the compiled
engine reads flat memory. Every column is documented in ``INSTRUCTION_COLUMNS`` and
``OPERAND_COLUMNS``; index -1 means "none".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from accelsim.encoding.encodings import CODED, CodedForm, Tile
from accelsim.numerics.formats import FORMAT_CODES

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

DEPENDENCIES = 3
SOURCES = 3

# name, meaning. Columns of one instruction row, in builder order.
INSTRUCTION_COLUMNS: tuple[tuple[str, str], ...] = (
    ("unit", "index of the in-order unit that executes it"),
    ("opcode", "Opcode"),
    ("function", "Function of a VECTOR instruction or of a MATMUL's results, else 0"),
    ("flags", "Flag bits"),
    ("operator", "index of the workload operator it belongs to"),
    ("m", "rows of the result"),
    ("n", "columns of the result"),
    ("k", "length of the reduction (MATMUL, row reductions), destinations of a MULTICAST, else 0"),
    ("dep0", "instruction that must have finished (Flag.ISSUED0: been issued) before this starts"),
    ("dep1", "as dep0"),
    ("dep2", "as dep0"),
    ("dst", "operand descriptor that is written"),
    ("src0", "operand descriptor that is read"),
    ("src1", "as src0"),
    ("src2", "as src0"),
)
WIDTH = len(INSTRUCTION_COLUMNS)

# A 2-D window of an address space: ``rows`` rows of ``row_bytes`` bytes, ``stride`` bytes apart.
OPERAND_COLUMNS: tuple[tuple[str, str], ...] = (
    ("storage", "index of the tensor or buffer it lies in"),
    ("space", "index of the address space"),
    ("base", "byte address of the first element"),
    ("rows", "number of rows"),
    ("row_bytes", "bytes in one row, contiguous"),
    ("stride", "bytes from one row to the next"),
    ("format", "code of the number format (numerics.formats.FORMAT_CODES); CODED + i: coded bytes"),
)
OPERAND_WIDTH = len(OPERAND_COLUMNS)


@dataclass(frozen=True)
class UnitSlot:
    """One in-order instruction queue: an instance of a hardware unit."""

    name: str
    unit: str  # name of the unit in the architecture, e.g. "mxu" for "core0.mxu1"
    core: int


@dataclass(frozen=True)
class AddressSpace:
    """One memory instance with byte addresses 0 .. capacity-1."""

    name: str
    memory: str  # name of the memory in the architecture
    capacity: int
    core: int  # -1 for a memory shared by all cores


class Region(NamedTuple):
    """Rows and columns of a tensor's 2-D form, and where they lie: element (row, col) is at byte
    ``offset`` of the storage, its neighbours ``row_step`` and ``col_step`` bytes further on."""

    row: int
    rows: int
    col: int
    cols: int
    offset: int
    row_step: int
    col_step: int


@dataclass(frozen=True)
class StorageInfo:
    """A named extent of an address space: a tensor in a memory, or an on-chip buffer.

    ``role`` is the tensor's role in the workload ("input", "weight", "constant", "activation",
    "cache", "output"), "scratch" for a mapper's own off-chip tensor, "buffer" for on-chip storage.
    ``producer`` is the operator that writes it, -1 if it is there from the start.
    ``written`` limits, as (first row, last row) of its 2-D form, what the producer must write
    (a KV append writes only the new rows); empty means all of it.
    ``panels`` are the first columns of the panels in which its 2-D form is stored, one behind the
    other, each with all rows of its columns, row after row; empty means row-major.
    ``regions`` say the same of a tensor that lies in banks which compute: rectangles of its 2-D
    form, each with constant steps between its rows and its columns; they cover all of it.
    With an ``encoding`` it lies in ``tiles`` of that 2-D form, each coded by itself
    (accelsim.encoding).
    """

    name: str
    space: int
    base: int
    nbytes: int
    role: str
    shape: tuple[int, ...] = ()
    format: str = ""
    producer: int = -1
    written: tuple[tuple[int, int], ...] = ()
    panels: tuple[int, ...] = ()
    encoding: str = ""
    tiles: tuple[Tile, ...] = ()
    regions: tuple[Region, ...] = ()


@dataclass(frozen=True)
class OperatorInfo:
    """What a result row says about a workload operator; ``note`` is how it is mapped.

    ``order`` declares how its matrix products are reduced: tags of numerics.orders, one for each
    kernel that differs, joined by " | ". A split is made of instructions; everything else in the
    tag is what a unit does within each MATMUL. "" is one chain.
    """

    name: str
    kind: str
    mapper: str
    macs: int
    layer: int = -1
    note: str = ""
    order: str = ""


@dataclass(frozen=True)
class Program:
    """A complete tile program: what both interpreters and the verifier read.

    ``instructions`` is int64[n, WIDTH]; ``immediate`` float64[n]; ``operands`` int64[d,
    OPERAND_WIDTH]. Rows are in program order, which is one legal order of execution: a
    dependency points to an earlier row. ``forms`` says what coded operands stand for: one of
    format CODED + i is a ``forms[i]``.
    """

    units: tuple[UnitSlot, ...]
    spaces: tuple[AddressSpace, ...]
    storages: tuple[StorageInfo, ...]
    operators: tuple[OperatorInfo, ...]
    instructions: Ints
    immediate: Floats
    operands: Ints
    approximations: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    forms: tuple[CodedForm, ...] = ()

    def __len__(self) -> int:
        return int(self.instructions.shape[0])

    def column(self, name: str) -> Ints:
        """One instruction column by name (a view)."""
        return self.instructions[:, COLUMN[name]]

    def operand_column(self, name: str) -> Ints:
        """One operand-descriptor column by name (a view)."""
        return self.operands[:, OPERAND_COLUMN[name]]

    @property
    def deps(self) -> Ints:
        """int64[n, 3] dependencies (a view)."""
        first = COLUMN["dep0"]
        return self.instructions[:, first : first + DEPENDENCIES]

    @property
    def sources(self) -> Ints:
        """int64[n, 3] operand descriptors that are read (a view)."""
        first = COLUMN["src0"]
        return self.instructions[:, first : first + SOURCES]

    def operand_bytes(self) -> Ints:
        """int64[d]: payload bytes of every operand descriptor."""
        return self.operand_column("rows") * self.operand_column("row_bytes")

    def encoding_of(self, operand: int) -> str:
        """How an operand is coded, "" if it is not."""
        code = int(self.operands[operand, OPERAND_COLUMN["format"]])
        return self.forms[code - CODED].encoding if code >= CODED else ""

    def element_formats(self) -> Ints:
        """int64[d]: number format of every operand's elements; of coded ones, as they decode."""
        codes = self.operand_column("format")
        coded = np.flatnonzero(codes >= CODED)
        if not len(coded):
            return codes
        decoded = np.array([FORMAT_CODES[form.format] for form in self.forms], dtype=np.int64)
        found = codes.copy()
        found[coded] = decoded[codes[coded] - CODED]
        return found


COLUMN: dict[str, int] = {name: i for i, (name, _) in enumerate(INSTRUCTION_COLUMNS)}
OPERAND_COLUMN: dict[str, int] = {name: i for i, (name, _) in enumerate(OPERAND_COLUMNS)}
