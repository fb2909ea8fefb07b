"""Few vectors times weights, in memory: outputs over all channels and banks, inputs along rows.

A vector is written to a row of every channel, or comes over its pins, as the family has it; each
channel multiplies it with its outputs, a row's length of inputs at a time; sums, or partial sums
that are added there, come to the scratchpad of the memory's side. Weights never leave the banks, so
that one vector takes a fraction of the time in which they could be read; for more vectors it is
taken as often.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from accelsim.hw.dma import Dma
from accelsim.hw.pim.memory import PimDram
from accelsim.hw.pim.products import Share
from accelsim.hw.pim.programs import products_of
from accelsim.hw.pim.unit import Pim
from accelsim.hw.vector import Vector
from accelsim.mapping.bank_layouts import Placed, bank_memory, lacks_banks, only_banks
from accelsim.mapping.bank_weights import Round, WeightPlaces, weight_places
from accelsim.mapping.epilogue import Finish, Finisher, finish_of, reserved_bytes
from accelsim.mapping.lowering import Lowering
from accelsim.mapping.placement import ALIGNMENT, aligned
from accelsim.mapping.registry import mapper
from accelsim.numerics.formats import Format, number_format, row_bytes
from accelsim.numerics.orders import order_of
from accelsim.program.opcodes import Function
from accelsim.program.storage import Storage, View
from accelsim.workload.operators import Gemm

if TYPE_CHECKING:
    from accelsim.arch.model import Architecture

FP32 = number_format("fp32")
MOST_ROWS = 64
"""Vectors of one product; beyond, arrays are always sooner."""


def _declines(op: Gemm, arch: Architecture, forced: bool) -> str:
    """Why the banks are not to compute a product; "" if they are to."""
    memory = bank_memory(arch)
    if op.m > MOST_ROWS or op.batch > 1 or op.groups > 1 or op.transpose_a:
        return f"x W of up to {MOST_ROWS} rows, one weight"
    if op.transpose_b and not products_of(memory.pim).tables:
        return "a weight [k, n], not [n, k]"
    if op.accumulator:
        return "sums as the banks form them"
    places = _places_of(op, memory)
    seconds = op.m * places.cycles / memory.own_clock_hz
    nbytes = op.k * op.n * memory.grid.bits // 8
    if not (forced or only_banks(arch)) and seconds > nbytes / memory.peak_bandwidth:
        return f"what is sooner in the banks than reading {nbytes:,} bytes"
    return ""


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


class _Gemv:
    def __init__(self, op: Gemm, low: Lowering) -> None:
        self.op, self.low, self.build = op, low, low.build
        self.core = low.cores[0]
        self.channels = [slot for slot, _ in self.core.of(Pim)]
        self.chip = self.core.of(Pim)[0][1].results
        self.vector = self.core.vector(self.chip)[0]
        self.memory = bank_memory(low.arch)
        self.places: WeightPlaces = _places_of(op, self.memory)
        self.host = self.places.products.host_vectors
        self.x = low.matrix(op.inputs[0], op.m, op.k)
        self.out = low.matrix(op.output, op.m, op.n)

    def emit(self) -> None:
        op, places = self.op, self.places
        if places.sums > 1:
            self.build.reduce(order_of(f"split:{places.sums}:{self.memory.grid.row_elements}"))
        vectors = self.core.ring(self.chip, "vector", 1, op.k, self.x.fmt)
        finish = finish_of(op, self.low)
        rounds = self._rounds(finish)
        width = max(one.width for one in rounds)
        finisher = Finisher(self.low, self.core, self.chip, width, finish, 1)
        slots = 1 if op.m * len(rounds) == 1 else 2
        self.partials = self.core.ring(self.chip, "sums", places.sums, width, FP32, slots)
        if places.table:
            self.woven = self.core.ring(self.chip, "woven", 1, width, FP32, slots)
        queues = self.core.beside_queues
        for row in range(op.m):
            mine, vector = slice(row, row + 1), vectors.next()
            self.build.load(queues[0], vector, self.x[mine, :])
            given = vector if self.host else self._to_channels(row, vector)
            for one in rounds:
                for total, cols in self._sums(one, given):
                    finisher.finish(total, finish.window(mine, cols))
                    self.build.store(queues[-1], self.out[mine, cols], total)
        widest = max(len(one.numbers) for one in places.shares)
        self.build.note(f"{widest} outputs in each of {places.channels} channels of banks")

    def _rounds(self, finish: Finish) -> list[Round]:
        """As many outputs at a time as there is room for sums and what is added to them."""
        arena = self.core.arenas[self.chip]
        free = arena.free - reserved_bytes(finish, arena.capacity) - 16 * ALIGNMENT
        each = row_bytes(1, FP32) * (self.places.sums + self.places.table)
        beside = 0 if finish.bias is None else row_bytes(1, finish.bias.fmt)
        whole = self.places.rounds(
            max(self.op.n + self.memory.grid.banks, 1) * self.places.channels
        )
        if self.op.m == 1 and (each + beside) * self.op.n <= free:
            return whole
        return self.places.rounds(free // (2 * each + beside))

    def _sums(self, one: Round, given: View | _Rows) -> Iterator[tuple[View, slice]]:
        """The sums of a round, run by run, with their columns of the result."""
        partial = self.partials.next()
        self._products(one, given, partial)
        total = partial[0:1, : one.width]
        for number in range(1, self.places.sums):
            more = partial[number : number + 1, : one.width]
            self.build.vector(self.vector, Function.ADD, total, total, more)
        if self.places.table:
            yield self._weave(one, total)
            return
        for first, numbers in one.runs:
            yield total[:, first : first + len(numbers)], slice(numbers.start, numbers.stop)

    def _weave(self, one: Round, total: View) -> tuple[View, slice]:
        """Outputs that took turns over channels, in their order."""
        woven, first = self.woven.next(), min(numbers.start for _, numbers in one.runs)
        pitch = row_bytes(1, FP32)
        for begin, numbers in one.runs:
            count, place = len(numbers), woven.base + (numbers.start - first) * pitch
            base = total.base + begin * pitch
            found = View(total.storage, base, count, 1, pitch, FP32)
            there = View(woven.storage, place, count, 1, numbers.step * pitch, FP32)
            self.build.vector(self.vector, Function.COPY, there, found)
        return woven[:, : one.width], slice(first, first + one.width)

    def _products(self, one: Round, given: View | _Rows, partial: View) -> None:
        """A row of x with all inputs and the outputs of a round, in all channels."""
        weight = self.low.tensors[self.op.inputs[1]]
        for share, place in one.shares:
            self.build.pim(
                self.channels[share.channel],
                partial[share.sums : share.sums + 1, place : place + len(share.numbers)],
                given[:, share.inputs] if isinstance(given, View) else given.of(share),
                self.places.window(weight, share, self.x.fmt),
                abreast=True, goes_on=not share.begins, held=not share.ends, part=True,
            )  # fmt: skip

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
