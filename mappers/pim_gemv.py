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
from accelsim.hw.pim.products import Share
from accelsim.hw.pim.programs import products_of
from accelsim.hw.pim.unit import Pim
from accelsim.hw.vector import Vector
from accelsim.mapping.bank_layouts import Placed, bank_memory, lacks_banks
from accelsim.mapping.bank_weights import WeightPlaces, weight_places
from accelsim.mapping.epilogue import Finisher, finish_of
from accelsim.mapping.lowering import Lowering
from accelsim.mapping.placement import aligned
from accelsim.mapping.registry import mapper
from accelsim.numerics.formats import Format, number_format
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
    if not products_of(memory.pim).multiplies_weights:
        return "banks that multiply weights"
    if op.m > MOST_ROWS or op.batch > 1 or op.groups > 1 or op.transpose_a or op.transpose_b:
        return f"x W of up to {MOST_ROWS} rows, one weight [k, n]"
    if op.accumulator:
        return "sums as the banks form them"
    if op.n % memory.grid.banks:
        return f"whole turns of {memory.grid.banks} banks, not {op.n} outputs"
    seconds = op.m * weight_places(memory, op.k, op.n).cycles / memory.own_clock_hz
    nbytes = op.k * op.n * memory.grid.bits // 8
    if not forced and seconds > nbytes / memory.peak_bandwidth:
        return f"what is sooner in the banks than reading {nbytes:,} bytes"
    return ""


def _places(op: Gemm, arch: Architecture) -> Mapping[str, Placed]:
    """The weight in blocks of outputs."""
    return {op.inputs[1]: weight_places(bank_memory(arch), op.k, op.n).placed()}


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
        self.places: WeightPlaces = weight_places(self.memory, op.k, op.n)
        self.host = self.places.products.host_vectors
        self.x = low.matrix(op.inputs[0], op.m, op.k)
        self.out = low.matrix(op.output, op.m, op.n)

    def emit(self) -> None:
        op, places, sums = self.op, self.places, self.places.sums
        if sums > 1:
            self.build.reduce(order_of(f"split:{sums}:{self.memory.grid.row_elements}"))
        finish = finish_of(op, self.low)
        finisher = Finisher(self.low, self.core, self.chip, op.n, finish, 1)
        vectors = self.core.ring(self.chip, "vector", 1, op.k, self.x.fmt)
        partials = self.core.ring(self.chip, "sums", sums, op.n, FP32, slots=1 if op.m == 1 else 2)
        queues = self.core.beside_queues
        for row in range(op.m):
            mine = slice(row, row + 1)
            vector, partial = vectors.next(), partials.next()
            self.build.load(queues[0], vector, self.x[mine, :])
            self._products(vector if self.host else self._to_channels(row, vector), partial)
            total = partial[0:1, :]
            for number in range(1, sums):
                self.build.vector(
                    self.vector, Function.ADD, total, total, partial[number : number + 1, :]
                )
            finisher.finish(total, finish.window(mine, slice(0, op.n)))
            self.build.store(queues[-1], self.out[mine, :], total)
        widest = max(one.outputs.stop - one.outputs.start for one in places.shares)
        self.build.note(f"{widest} outputs in each of {places.channels} channels of banks")

    def _products(self, vectors: View | _Rows, partial: View) -> None:
        """A row of x with all inputs and outputs, in all channels."""
        weight, places = self.low.tensors[self.op.inputs[1]], self.places
        for one in places.shares:
            vector = vectors[:, one.inputs] if isinstance(vectors, View) else vectors.of(one)
            self.build.pim(
                self.channels[one.channel],
                partial[one.sums : one.sums + 1, one.outputs],
                vector,
                places.window(weight, one, self.x.fmt),
                abreast=True, goes_on=not one.begins, held=not one.ends, part=True,
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
