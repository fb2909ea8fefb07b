"""Few vectors times weights, in memory: outputs over all channels and banks, inputs along rows.

A vector is written to a row of every channel, or comes over its pins, as the family has it; each
channel multiplies it with its outputs, a row's length of inputs at a time; sums, or partial sums
that are added there, come to the scratchpad of the memory's side. Weights never leave the banks, so
that one vector takes a fraction of the time in which they could be read; for more vectors it is
taken as often.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from accelsim.hw.dma import Dma
from accelsim.hw.pim.memory import PimDram
from accelsim.hw.pim.products.product import Share
from accelsim.hw.pim.products.registry import products_of
from accelsim.hw.pim.unit import Pim
from accelsim.hw.vector import Vector
from accelsim.mapping.bank_layouts import (
    Placed,
    bank_memory,
    lacks_banks,
    only_banks,
    slower_than_reading,
)
from accelsim.mapping.bank_weights import Piece, WeightPlaces, weight_places
from accelsim.mapping.epilogue import ACTIVATION_FUNCTIONS, finish_of
from accelsim.mapping.lowering import Lowering, Ring
from accelsim.mapping.placement import ALIGNMENT, aligned
from accelsim.mapping.registry import mapper
from accelsim.numerics.formats import Format, number_format, row_bytes
from accelsim.numerics.orders import order_of
from accelsim.program.opcodes import Function
from accelsim.program.storage import Storage, View
from accelsim.workload.operators import Gemm

if TYPE_CHECKING:
    from accelsim.arch.model import Architecture

F = Function
FP32 = number_format("fp32")
MARGIN = 32 * ALIGNMENT
"""Room that buffers may lose by alignment."""
MOST_PIECES, LEAST_OUTPUTS = 4, 64
"""Pieces in which outputs are finished while the banks go on, each of so many per channel."""
ROUNDS = 2
"""In which the outputs of one vector come, if a slow unit has functions of many to take."""
MOST_ROWS = 64
"""Vectors of one product; beyond, arrays are always sooner."""


def _declines(op: Gemm, arch: Architecture, forced: bool) -> str:
    """Why the banks are not to compute a product; "" if they are to."""
    memory = bank_memory(arch)
    if not products_of(memory.pim).multiplies_weights:
        return "banks that multiply weights"
    if op.m > MOST_ROWS or op.batch > 1 or op.groups > 1 or op.transpose_a:
        return f"x W of up to {MOST_ROWS} rows, one weight"
    if op.transpose_b and not products_of(memory.pim).tables:
        return "a weight [k, n], not [n, k]"
    if op.accumulator:
        return "sums as the banks form them"
    places, unit = _places_of(op, memory), next(iter(arch.units_of(Pim).values()))
    room, needed = arch.memories[unit.results].capacity, _room_for_one_turn(op, places, memory)
    if needed > room and not only_banks(arch):
        return f"vectors and sums of at most {room:,} bytes in {unit.results}, not {needed:,}"
    # Until the busiest channel and whoever sends the commands of all are done.
    clocks = op.m * max(places.cycles, places.sent * unit.issue)
    return slower_than_reading(arch, clocks, op.k * op.n * memory.grid.bits // 8, forced)


def _room_for_one_turn(op: Gemm, places: WeightPlaces, memory: PimDram) -> int:
    """Bytes on chip for the smallest pieces: vectors, of which two are there by turns, and a turn
    of sums in every channel."""
    vectors = min(2, op.m) * op.k * memory.grid.bits // 8
    added = (op.has_bias + op.has_residual) * row_bytes(1, FP32)
    return vectors + places.at_once * (_sums_bytes(places, 2) + added) + MARGIN


def _sums_bytes(places: WeightPlaces, slots: int) -> int:
    """Bytes on chip per output: its sum, the next partial one, and the sum in its place."""
    return slots * (1 + (places.sums > 1) + places.table) * row_bytes(1, FP32)


def _places_of(op: Gemm, memory: PimDram) -> WeightPlaces:
    return weight_places(memory, op.k, op.n, op.transpose_b)


def _places(op: Gemm, arch: Architecture) -> Mapping[str, Placed]:
    """The weight where the family's products find it."""
    return {op.inputs[1]: _places_of(op, bank_memory(arch)).placed()}


@mapper(
    "pim-gemv", lowers=("gemm",), needs=(Pim, PimDram, Vector, Dma),
    preference=2, lacks=lacks_banks, declines=_declines, places=_places, strict=False,
)  # fmt: skip
def pim_gemv(op: Gemm, low: Lowering) -> None:
    """Each row of x by the banks of all channels, partial sums added beside."""
    _Gemv(op, low).emit()


@dataclass(frozen=True)
class _Buffers:
    """What a piece needs on chip: sums, the partial sums that are added to them, bias, residual,
    and sums in the order of the outputs. One row each."""

    total: Ring
    partial: Ring | None
    bias: Ring | None
    residual: Ring | None
    woven: Ring | None


class _Gemv:
    def __init__(self, op: Gemm, low: Lowering) -> None:
        self.op, self.low, self.build = op, low, low.build
        self.core = low.cores[0]
        self.channels = [slot for slot, _ in self.core.of(Pim)]
        self.chip = self.core.of(Pim)[0][1].results
        self.vector = self.core.vector(self.chip)[0]
        self.memory = bank_memory(low.arch)
        self.places: WeightPlaces = _places_of(op, self.memory)
        self.products = self.places.products
        self.x = low.matrix(op.inputs[0], op.m, op.k)
        self.out = low.matrix(op.output, op.m, op.n)
        self.finish = finish_of(op, low)

    def emit(self) -> None:
        op, places = self.op, self.places
        if places.sums > 1:
            self.build.reduce(order_of(f"split:{places.sums}:{self.memory.grid.row_elements}"))
        self._make_room()
        vectors = self.core.ring(self.chip, "vector", 1, op.k, self.x.fmt, min(2, op.m))
        rounds = self._rounds()
        width, most = max(p.width for r in rounds for p in r), max(map(len, rounds))
        slots = 1 if op.m * len(rounds) == 1 else 2
        self.buffers = [self._buffers(number, width, slots) for number in range(most)]
        queue = self.core.beside_queues[0]
        for row in range(op.m):
            vector = vectors.next()
            self.build.load(queue, vector, self.x[row : row + 1, :])
            given = vector if self.products.host_vectors else self._to_channels(row, vector)
            for pieces in rounds:
                self._round(row, pieces, given)
        widest = max(len(one.numbers) for one in places.shares)
        self.build.note(f"{widest} outputs in each of {places.channels} channels of banks")

    # -- room ----------------------------------------------------------------------------------

    def _make_room(self) -> None:
        """Operators in turn take the lower and the upper half, where that is enough."""
        arena, half = self.core.arenas[self.chip], self.core.arenas[self.chip].capacity // 2
        sums = self.places.whole * self._each(2)
        needed = 2 * row_bytes(self.op.k, self.x.fmt) + sums + MARGIN
        if self.build.current_operator % 2 and needed <= half:
            arena.take("of the operator before", half)

    def _each(self, slots: int) -> int:
        """Bytes on chip per output."""
        beside = (self.finish.bias, self.finish.residual)
        added = sum(row_bytes(1, one.fmt) for one in beside if one)
        return _sums_bytes(self.places, slots) + added

    def _rounds(self) -> list[list[Piece]]:
        """Pieces, of which as many are in work at once as there is room for: one vector's in two
        rounds, if they are many, so that functions of the first are taken beside the second."""
        free = self.core.arenas[self.chip].free - MARGIN
        places, turn, whole = self.places, self.places.at_once, self.places.whole
        once, least = self.op.m == 1, LEAST_OUTPUTS * places.channels
        many = whole >= ROUNDS * MOST_PIECES * least
        rounds = ROUNDS if once and many and self.op.activation else 1
        fit = min(whole // rounds // least, free // (self._each(2) * turn))
        count = max(1, min(MOST_PIECES, fit)) if self.products.goes_on else 1
        if once and rounds == 1 and whole * self._each(1) <= free:
            return [places.pieces(-(-whole // count // turn) * turn)]
        most = free // (self._each(2) * count)
        pieces = places.pieces(min(most, -(-whole // (rounds * count) // turn) * turn))
        return [pieces[first : first + count] for first in range(0, len(pieces), count)]

    def _buffers(self, number: int, width: int, slots: int) -> _Buffers:
        def ring(name: str, fmt: Format, slots: int = slots) -> Ring:
            return self.core.ring(self.chip, f"{name}{number}", 1, width, fmt, slots)

        bias, residual = self.finish.bias, self.finish.residual
        return _Buffers(
            ring("sums", FP32),
            ring("partial", FP32) if self.places.sums > 1 else None,
            ring("bias", bias.fmt, 1) if bias else None,
            ring("residual", residual.fmt, 1) if residual else None,
            ring("woven", FP32) if self.places.table else None,
        )

    # -- products ------------------------------------------------------------------------------

    def _round(self, row: int, pieces: list[Piece], given: View | _Rows) -> None:
        """Chunk by chunk of the inputs, piece by piece; pieces are finished in the last chunk."""
        totals = [b.total.next()[:, : p.width] for p, b in zip(pieces, self.buffers, strict=False)]
        last = self.places.sums - 1
        for number in range(self.places.sums):
            met: dict[int, slice] = {}
            for piece, total, buffers in zip(pieces, totals, self.buffers, strict=False):
                found = total
                if buffers.partial and number:
                    found = buffers.partial.next()[:, : piece.width]
                self._products(piece, number, given, found, met)
                if number:
                    self.build.vector(self.vector, F.ADD, total, total, found)
                if number == last:
                    self._finish(row, piece, total, buffers)

    def _products(
        self, piece: Piece, number: int, given: View | _Rows, found: View, met: dict[int, slice]
    ) -> None:
        """A chunk of the inputs with the outputs of a piece, in all channels."""
        weight = self.low.tensors[self.op.inputs[1]]
        for job in piece.jobs:
            share, place = job.share, job.place
            if share.sums != number:
                continue
            kept = share.further and met.get(share.channel) == share.inputs
            met[share.channel] = share.inputs
            self.build.pim(
                self.channels[share.channel],
                found[:, place : place + len(share.numbers)],
                given[:, share.inputs] if isinstance(given, View) else given.of(share),
                job.window(weight, self.x.fmt),
                abreast=True, goes_on=not share.begins, held=not share.ends, kept=kept, part=True,
            )  # fmt: skip

    def _finish(self, row: int, piece: Piece, total: View, buffers: _Buffers) -> None:
        """Bias, residual and activation of a piece, then its results, run by run."""
        runs = [(first, slice(n.start, n.stop)) for first, n in piece.runs]
        if buffers.woven:
            first = min(n.start for _, n in piece.runs)
            total = self._weave(piece, total, buffers.woven.next())
            runs = [(0, slice(first, first + piece.width))]
        bias, residual = self.finish.bias, self.finish.residual
        if bias and buffers.bias:
            self._add(total, bias, buffers.bias.next(), runs)
        if residual and buffers.residual:
            self._add(total, residual[row : row + 1, :], buffers.residual.next(), runs)
        if self.finish.activation:
            function = ACTIVATION_FUNCTIONS[self.finish.activation]
            self.build.vector(self.vector, function, total, total)
        for first, cols in runs:
            mine = total[:, first : first + cols.stop - cols.start]
            self.build.store(self.core.beside_queues[-1], self.out[row : row + 1, cols], mine)

    def _add(self, total: View, term: View, buffer: View, runs: list[tuple[int, slice]]) -> None:
        """A row of main memory, run by run, and its sum with the piece's."""
        there, queues = buffer[:, : total.cols], self.core.beside_queues
        for first, cols in runs:
            mine = there[:, first : first + cols.stop - cols.start]
            self.build.load(queues[len(queues) // 2], mine, term[:, cols], part=True)
        self.build.vector(self.vector, F.ADD, total, total, there)

    def _weave(self, piece: Piece, total: View, woven: View) -> View:
        """Outputs that took turns over channels, in their order."""
        top = min(numbers.start for _, numbers in piece.runs)
        pitch = row_bytes(1, FP32)
        for begin, numbers in piece.runs:
            count, place = len(numbers), woven.base + (numbers.start - top) * pitch
            found = View(total.storage, total.base + begin * pitch, count, 1, pitch, FP32)
            there = View(woven.storage, place, count, 1, numbers.step * pitch, FP32)
            self.build.vector(self.vector, F.COPY, there, found)
        return woven[:, : piece.width]

    def _to_channels(self, row: int, vector: View) -> _Rows:
        """A row of x to a row of a bank of every channel, for each row's length of inputs."""
        queues, pitch, places = self.core.beside_queues, self.memory.bank_pitch, self.places
        starts = sorted({one.inputs.start: one.inputs for one in places.shares}.items())
        rows = self.low.scratch_arena.take(f"vectors[{row}]", (len(starts) + 1) * pitch)
        first, step = aligned(rows.base, pitch) - rows.base, self.memory.part.organization.row_bytes
        fmt, offsets = self.x.fmt, {}
        for number, (start, inputs) in enumerate(starts):
            k, offsets[start] = inputs.stop - inputs.start, first + number * pitch
            there = rows.view(places.channels, k, fmt, offset=offsets[start], stride=step)
            same = View(vector.storage, vector[:, inputs].base, there.rows, k, 0, fmt)
            self.build.store(queues[len(queues) // 3], there, same, apart=True)
        return _Rows(rows, offsets, step, fmt)


@dataclass(frozen=True)
class _Rows:
    """A vector in rows of banks: where the inputs from each start on lie in channel 0."""

    storage: Storage
    offsets: dict[int, int]
    step: int
    fmt: Format

    def of(self, one: Share) -> View:
        """The inputs of a product, in its channel."""
        offset = self.offsets[one.inputs.start] + one.channel * self.step
        k = one.inputs.stop - one.inputs.start
        return self.storage.view(1, k, self.fmt, offset=offset)
