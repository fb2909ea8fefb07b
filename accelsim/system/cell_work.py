"""What pieces of work take in banks that compute in their cells (family transpim and its like).

All banks do the same at the same time, so one channel is asked: each kind of command is sent there
in a long stream, row by row as programs send it, and work is so many of them.

    operations   row operations in the cells: sums, products
    planes       rows that are written from the channel's bus, stored from a bank's own buffer, or
                 read through its trees
    hops         columns around the ring; without ring links the channel's bus takes every bank's
                 columns one after the other

Without an ACU products are added up in the cells: half of the planes move beside the other half,
through the bank's own columns, and are added, until one number is left; rows are kept full.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache

from accelsim.hw.block import require
from accelsim.hw.pim.channel.stream import NO_ROW, PimStream
from accelsim.hw.pim.family import Family
from accelsim.hw.pim.layouts.bits import BitPlanes, planes_of
from accelsim.hw.pim.programs.cell_sequences import add_operations, multiply_operations
from accelsim.hw.pim.run import family_digest, send

REPEATS = 256
"""Commands of a kind in the stream that measures them."""
DIVIDER_CYCLES = 16
"""A quotient of the ACU: a bit a clock, of 16."""


@dataclass(frozen=True)
class CellTime:
    """Seconds by what they go to, and joules: weights that are brought, what moves between banks,
    products, their sums, functions (softmax, norms, activations)."""

    weights: float = 0.0
    moves: float = 0.0
    products: float = 0.0
    sums: float = 0.0
    functions: float = 0.0
    joules: float = 0.0

    def __add__(self, other: CellTime) -> CellTime:
        return CellTime(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def times(self, count: int) -> CellTime:
        """So many of them, one after the other."""
        return CellTime(*(getattr(self, f.name) * count for f in fields(self)))

    @property
    def seconds(self) -> float:
        """One after the other."""
        return self.weights + self.moves + self.products + self.sums + self.functions

    @property
    def moving(self) -> float:
        """Share of the time in which data move between banks, or from the host."""
        return (self.weights + self.moves) / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Piece:
    """Seconds of some commands, the same in all channels, and joules of all of them."""

    seconds: float = 0.0
    joules: float = 0.0

    def __add__(self, other: Piece) -> Piece:
        return Piece(self.seconds + other.seconds, self.joules + other.joules)

    def times(self, count: float) -> Piece:
        return Piece(self.seconds * count, self.joules * count)


@dataclass(frozen=True)
class CellWork:
    """Work in all channels of a ``family``, with or without ring links and ACUs."""

    family: Family
    ring: bool = True
    acu: bool = True

    def __post_init__(self) -> None:
        require(
            self.family.programs == "bit-serial",
            f"family {self.family.name} computes beside its banks; accepted: transpim and its like",
        )

    @cached_property
    def planes(self) -> BitPlanes:
        return planes_of(self.family)

    @property
    def banks(self) -> int:
        """All of them."""
        return self.planes.all_banks

    @cached_property
    def _digest(self) -> str:
        return family_digest(self.family)

    @property
    def refreshing(self) -> float:
        """Time with refresh over time without."""
        if not self.family.rules.refresh:
            return 1.0
        t = self.family.device.timings
        return 1 + t["tRFC"] / (t["tREFI"] - t["tRFC"])

    def one(self, kind: str) -> Piece:
        """One of a kind of commands, refresh included: operation, write, store, sum, read, hop,
        transfer (see _stream)."""
        seconds, joules = _measured(_ByDigest(self.family, self._digest), kind)
        each = self.refreshing / REPEATS
        return Piece(seconds * each, joules * each * self.family.channels)

    # --- moving

    def write(self, operands: float) -> Piece:
        """The same operands into all banks, from the bus, plane by plane."""
        return self.one("write").times(-(-operands * self.planes.bits // self.planes.lanes))

    def store(self, rows: float) -> Piece:
        """Rows of bits out of every bank's own buffer."""
        return self.one("store").times(rows)

    def spread(self, size: float, banks: int) -> Piece:
        """So many bytes to every one of ``banks`` that have parts of them."""
        if banks < 2 or size <= 0:
            return Piece()
        columns = -(-size // self.family.device.organization.column_bytes)
        if self.ring:
            return self.one("hop").times(columns + banks - 2)
        return self.one("transfer").times(columns * self.family.banks)

    def exchange(self, size: float) -> Piece:
        """So many bytes of all banks together, each from one to another: out of a channel and into
        one."""
        columns = size / self.family.device.organization.column_bytes / self.family.channels
        return self.one("transfer").times(2 * columns)

    # --- computing

    def operations(self, count: float) -> Piece:
        """Row operations."""
        return self.one("operation").times(count)

    def rounds(self, lanes: float) -> int:
        """How often an operation is repeated for so many numbers in every bank."""
        return int(-(-lanes // (self.planes.lanes * self.planes.at_once)))

    def multiplied(self, outputs: int, elements: int) -> Piece:
        """Products of so many sums in every bank."""
        planes = self.planes
        rounds = -(-planes.tiles(outputs, elements) // planes.at_once) * planes.chunks(elements)
        return self.operations(rounds * multiply_operations(planes.bits))

    def vector_planes(self, outputs: int, elements: int, vectors: int) -> Piece:
        """A vector to its rows: one for all outputs (``vectors`` of them in turn), or as many as
        there are outputs (0)."""
        planes = self.planes
        rows = planes.bits * planes.chunks(elements)
        return self.store(rows * (vectors or planes.tiles(outputs, elements)))

    def summed(self, outputs: int, elements: int) -> Piece:
        """Sums of products: through the trees, or in the cells."""
        planes = self.planes
        tiles, chunks = planes.tiles(outputs, elements), planes.chunks(elements)
        if self.acu:
            return self.one("sum").times(tiles * chunks * 2 * planes.bits)
        return self._in_cells(tiles, chunks, min(elements, planes.lanes))

    def _in_cells(self, tiles: int, chunks: int, elements: int) -> Piece:
        """Chunks are added up in place, then halves beside each other."""
        at_once, width = self.planes.at_once, 2 * self.planes.bits
        found = self.operations(-(-tiles // at_once) * (chunks - 1) * add_operations(width))
        moved = self.one("read") + self.one("store")
        for _ in range((elements - 1).bit_length()):
            tiles = -(-tiles // 2)
            found += moved.times(tiles * width)
            found += self.operations(-(-tiles // at_once) * add_operations(width))
            width += 1
        return found

    def mapped(self, lanes: float, products: int, sums: int) -> Piece:
        """A function of so many numbers in every bank: products of operands, sums of twice their
        bits, element by element."""
        if lanes <= 0:
            return Piece()
        bits = self.planes.bits
        each = products * multiply_operations(bits) + sums * add_operations(2 * bits)
        rows = -(-lanes // self.planes.lanes) * 2 * bits
        return self.store(rows) + self.operations(self.rounds(lanes) * each)

    def divided(self, quotients: float, lanes: float) -> Piece:
        """Reciprocals of sums: in the ACU, or in the cells (SIMDRAM's count for n bits: 8 n^2 +
        12 n)."""
        if self.acu:
            cycles = quotients * DIVIDER_CYCLES
            return Piece(cycles / self.family.device.clock_hz * self.refreshing)
        bits = self.planes.bits
        return self.operations(self.rounds(lanes) * (8 * bits * bits + 12 * bits))


@dataclass(frozen=True)
class _ByDigest:
    """A family by what it is, for a cache of runs."""

    family: Family

    digest: str

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByDigest) and other.digest == self.digest


@lru_cache(maxsize=256)
def _measured(key: _ByDigest, kind: str) -> tuple[float, float]:
    """Seconds and joules of ``REPEATS`` of a kind in one channel."""
    return send(key.family, PimStream.of(_stream(key.family, kind)))


def _stream(family: Family, kind: str) -> Iterator[tuple[int, int, int, int, int, int]]:
    """operation: in the cells of all banks. write, store, sum, read: a row of all banks, from the
    bus, from their buffers, through four trees at once, through one. hop: a column to the
    neighbour. transfer: a column over the channel's bus."""
    columns = family.device.organization.columns
    runs = {"operation": "AAP", "hop": "RING", "transfer": "RD_ACU"}
    if kind in runs:
        yield (family.number(runs[kind]), NO_ROW, 0, REPEATS, 0, 1)
        return
    slots = -(-columns // family.figure("trees"))
    name, count = {
        "write": ("WR_ALL", columns), "store": ("ST_BUF", columns),
        "sum": ("ACU", slots), "read": ("ACU", columns),
    }[kind]  # fmt: skip
    for row in range(REPEATS):
        yield (family.number(name), row, 0, count, 0, 1)
