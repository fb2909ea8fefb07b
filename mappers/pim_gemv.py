"""Few vectors times weights, in memory: outputs over all channels and banks, inputs along rows.

A vector is written to a row of every channel; each channel multiplies it with its block of outputs,
a row's length of inputs at a time; the partial sums come to the scratchpad of the memory's side and
are added there. Weights never leave the banks, so that one vector takes a fraction of the time in
which they could be read; for more vectors it is taken as often.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from accelsim.hw.dma import Dma
from accelsim.hw.pim.memory import PimDram
from accelsim.hw.pim.unit import Pim
from accelsim.hw.vector import Vector
from accelsim.mapping.bank_layouts import Placed, bank_memory, lacks_banks
from accelsim.mapping.bank_weights import WeightPlaces, weight_places
from accelsim.mapping.epilogue import Finisher, finish_of
from accelsim.mapping.lowering import Lowering
from accelsim.mapping.placement import aligned
from accelsim.mapping.registry import mapper
from accelsim.numerics.formats import number_format
from accelsim.numerics.orders import order_of
from accelsim.program.opcodes import Function
from accelsim.program.storage import View
from accelsim.workload.operators import Gemm

if TYPE_CHECKING:
    from accelsim.arch.model import Architecture

FP32 = number_format("fp32")
MOST_ROWS = 64
"""Vectors of one product; beyond, arrays are always sooner."""


def _declines(op: Gemm, arch: Architecture, forced: bool) -> str:
    """Why the banks are not to compute a product; "" if they are to."""
    memory = bank_memory(arch)
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
        self.x = low.matrix(op.inputs[0], op.m, op.k)
        self.out = low.matrix(op.output, op.m, op.n)

    def emit(self) -> None:
        op, chunks = self.op, len(self.places.chunks)
        if chunks > 1:
            self.build.reduce(order_of(f"split:{chunks}:{self.memory.grid.row_elements}"))
        finish = finish_of(op, self.low)
        finisher = Finisher(self.low, self.core, self.chip, op.n, finish, 1)
        vectors = self.core.ring(self.chip, "vector", 1, op.k, self.x.fmt)
        sums = self.core.ring(self.chip, "sums", chunks, op.n, FP32, slots=1 if op.m == 1 else 2)
        queues = self.core.beside_queues
        for row in range(op.m):
            mine = slice(row, row + 1)
            vector, partial = vectors.next(), sums.next()
            self.build.load(queues[0], vector, self.x[mine, :])
            self._products(row, vector, partial)
            total = partial[0:1, :]
            for chunk in range(1, chunks):
                self.build.vector(
                    self.vector, Function.ADD, total, total, partial[chunk : chunk + 1, :]
                )
            finisher.finish(total, finish.window(mine, slice(0, op.n)))
            self.build.store(queues[-1], self.out[mine, :], total)
        blocks = self.places.blocks
        self.build.note(f"{blocks[0].stop} outputs in each of {len(blocks)} channels of banks")

    def _products(self, row: int, vector: View, partial: View) -> None:
        """A row of x to all channels, and their products with all inputs."""
        weight, queues = self.low.tensors[self.op.inputs[1]], self.core.beside_queues
        pitch, places = self.memory.bank_pitch, self.places
        name, wanted = f"vectors[{row}]", (len(places.chunks) + 1) * pitch
        rows = self.low.scratch_arena.take(name, wanted)
        first, step = aligned(rows.base, pitch) - rows.base, self.memory.part.organization.row_bytes
        fmt = self.x.fmt
        for number, inputs in enumerate(places.chunks):
            k, offset = inputs.stop - inputs.start, first + number * pitch
            everywhere = rows.view(len(places.blocks), k, fmt, offset=offset, stride=step)
            same = View(vector.storage, vector[:, inputs].base, everywhere.rows, k, 0, fmt)
            self.build.store(queues[len(queues) // 3], everywhere, same, apart=True)
            for channel, outputs in enumerate(places.blocks):
                there = rows.view(1, k, fmt, offset=offset + channel * step)
                found = partial[number : number + 1, outputs]
                matrix = places.window(weight, outputs, inputs, fmt)
                self.build.pim(
                    self.channels[channel], found, there, matrix, abreast=True, part=True
                )
