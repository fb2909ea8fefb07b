"""Tensor cores: the matrix units of one streaming multiprocessor, fed by its warps.

A CTA (thread block) computes one tile of the result. Its warps bring panels of A and B from main
memory, through whatever caches lie before it, into shared memory and multiply them from there;
the sums stay in registers until the tile is finished. One instruction is a stretch of this main
loop. It takes as long as the slowest of four pipes:

    multiply   tile rows x tile cols x k over ``macs``, at the issue ``efficiency`` of the main loop
    shared     what is stored into shared memory, and what warps load from it, over its bandwidth;
               each warp computes a ``warp_tile`` and loads both of its edges for every k
    fetch      bytes of the panels over the bandwidth of the multiprocessor's port
    decode     stored elements of coded weights over the rate at which threads expand them

The accumulator *buffer* of an instruction is the CTA tile: at the edge of a matrix the tensor cores
work on all of it, whatever part holds results. The first instruction of a tile also pays the
``prologue``: nothing is multiplied until the first panels have arrived.

The second operand may be a coded window (accelsim.encoding): kernels read what is stored and expand
it on the way (hw.expansion). ``decode`` says which encodings they know, by name or family, and how
many stored elements the threads of a multiprocessor expand per cycle; ``coded_tiles`` are the CTA
tiles of these kernels, ``sparse`` tensor cores multiply 2:4 sparse weights as they are.

Operands may also lie in ``shared`` memory, where loads of their own have brought them. Then nothing
is fetched, nothing is stored, and there is no prologue.

The numbers: ``arithmetic`` names the tensor cores (ampere-mma, hopper-wgmma, ...) or another way of
adding (numerics.arithmetic). With ``promote_fp8`` kernels add the sums of that many products of
fp8 to accumulators in fp32 registers (numerics.orders); 0 leaves them in the tensor core. Where
kernels split K, ``merge`` says how the slices come together, by the names of cuBLASLt's reduction
schemes: compute-type and output-type keep partial sums in a workspace, as they are or rounded to
the format of the result, and a second kernel adds them; inplace adds each slice to what the slices
before left, in the format of the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from accelsim.encoding.encodings import CodedForm
from accelsim.errors import AccelsimError
from accelsim.hw.block import Cost, Ints, Unit, Work, block, require
from accelsim.hw.expansion import Expansion, Weights, check_decode, expansion_of, reads
from accelsim.hw.sums import NamedSums
from accelsim.numerics.arithmetic import FP32_TYPES, ProductTypes, arithmetic, carrier_types
from accelsim.numerics.formats import FORMATS, Format
from accelsim.numerics.orders import CHAIN, Order
from accelsim.numerics.rules import additions
from accelsim.program.opcodes import Flag, Opcode
from accelsim.quantities import Bytes, Cycles, Picojoules

Operand = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Shape = tuple[int, int]

WARPS = 4
"""Warps that a CTA has at least: one for each scheduler of the multiprocessor."""

PLAIN, EXPANDING, SPARSE = range(3)
"""Kernels: of dense weights, of weights that threads expand, of sparse tensor cores."""

ACCUMULATOR_BYTES = 4
"""Of a sum in fp32 or int32, by which kernels choose their tiles."""


@block("tensor_core")
@dataclass(frozen=True, kw_only=True)
class TensorCore(NamedSums, Unit):
    """The tensor cores of one multiprocessor: ``macs`` 16-bit multiply-accumulates per cycle.

    Half as many of 32 bits, twice as many of 8 bits. ``operands`` names the main memory that holds
    A and B, ``accumulators`` the memory of the sums, ``shared`` the multiprocessor's shared memory
    ("": kernels cannot name what is in it). ``tiles`` are the CTA tiles that kernels come
    in and ``warp_tile`` the largest part of one that ``warp_group`` warps compute together, as
    "ROWSxCOLS"; ``k_step`` is the k of one step of the main loop, which is padded to whole ones.
    """

    opcodes: ClassVar[frozenset[Opcode]] = frozenset({Opcode.MATMUL})
    reads_main_memory: ClassVar[bool] = True

    macs: int
    operands: str
    accumulators: str
    shared: str = ""
    tiles: tuple[str, ...]
    warp_tile: str = "64x64"
    warp_group: int = 1
    k_step: int = 32
    efficiency: float = 1.0
    prologue: Cycles = 0
    drain: Cycles = 0
    shared_width: Bytes = 128
    fetch_width: Bytes = 64
    arithmetic: str = "sequential-fp32"
    promote_fp8: int = 0
    merge: Literal["compute-type", "output-type", "inplace"] = "compute-type"
    sparse: bool = False
    decode: dict[str, float] = field(default_factory=dict, hash=False)
    coded_tiles: tuple[str, ...] = ()
    mac_pj: Picojoules = 0.0
    decoded_pj: Picojoules = 0.0

    def check(self) -> None:
        super().check()
        for name in ("macs", "warp_group", "k_step", "shared_width", "fetch_width"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be at least 1, not {value}")
        for name in ("prologue", "drain", "promote_fp8"):
            value = getattr(self, name)
            require(value >= 0, f"{name} must not be negative, not {value}")
        require(0 < self.efficiency <= 1, f"efficiency must be in (0, 1], not {self.efficiency}")
        require(len(self.tiles) >= 1, "tiles must name at least one CTA tile")
        for text in (*self.tiles, *self.coded_tiles, self.warp_tile):
            shape_of(text)
        check_decode(self.decode)
        arithmetic(self.arithmetic)

    def memories(self) -> tuple[str, ...]:
        staged = (self.shared,) if self.shared else ()
        return (self.operands, self.accumulators, *staged)

    def peak_macs_per_cycle(self, bits: int = 16) -> int:
        return -(-self.macs * 16 // bits)

    def energy_pj_per_action(self) -> dict[str, float]:
        return {"mac": self.mac_pj, "decoded": self.decoded_pj}

    def decodes(self, encoding: str) -> bool:
        return reads(encoding, sparse=self.sparse, decode=self.decode)

    def expansion(self, encoding: str, bits: int) -> Expansion:
        """How kernels read weights in an encoding; raises AccelsimError if none does."""
        return expansion_of(encoding, bits, sparse=self.sparse, decode=self.decode)

    def speedup(self, form: CodedForm) -> int:
        return self.expansion(form.encoding, form.fmt.bits).speedup

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The CTA tiles as (rows, cols)."""
        return tuple(shape_of(text) for text in self.tiles)

    def shapes_for(self, weights: Weights | None) -> tuple[Shape, ...]:
        """The CTA tiles of the kernels that read such weights."""
        if weights is None or weights.expansion.way == "multiplied" or not self.coded_tiles:
            return self.shapes
        return tuple(shape_of(text) for text in self.coded_tiles)

    def rate(self, bits: int) -> float:
        """Multiply-accumulates per cycle of operands of ``bits`` bits, main loop included."""
        return self.macs * 16 / bits * self.efficiency

    def warp_shape(self, tile: Shape) -> Shape:
        """The part of a CTA tile that each warp, or group of warps, computes."""
        rows, cols = (min(a, b) for a, b in zip(shape_of(self.warp_tile), tile, strict=True))
        while tile[0] * tile[1] * self.warp_group < WARPS * rows * cols:
            rows, cols = (rows // 2, cols) if rows >= cols else (rows, cols // 2)
        return rows, cols

    def shared_elements_per_k(self, tile: Shape, *, staged: bool = False) -> tuple[float, float]:
        """Elements of A and of B that a CTA moves in and out of shared memory for every k; only out
        of it if its operands are ``staged`` there."""
        rows, cols = self.warp_shape(tile)
        warps = tile[0] * tile[1] / (rows * cols)
        stored = (0, 0) if staged else tile
        return warps * rows + stored[0], warps * cols + stored[1]

    def shared_bytes_per_k(self, tile: Shape, bits: int, *, staged: bool = False) -> float:
        """Bytes that a CTA moves in and out of shared memory for every k of dense operands."""
        return sum(self.shared_elements_per_k(tile, staged=staged)) * bits / 8

    def expansions(self, tile: Shape) -> float:
        """How often a CTA expands each of its weights: once in every row of warps."""
        return tile[0] / self.warp_shape(tile)[0]

    def main_loop_cycles(
        self,
        tile: Shape,
        k: int,
        bits: int,
        *,
        staged: bool = False,
        weights: Weights | None = None,
    ) -> float:
        """Cycles that a CTA's main loop over ``k`` takes, operands fetched in time or staged."""
        k = -(-k // self.k_step) * self.k_step
        multiply = tile[0] * tile[1] * k / self.rate(bits)
        if weights is None:
            moved = self.shared_bytes_per_k(tile, bits, staged=staged)
            return max(multiply, moved * k / self.shared_width)
        how = weights.expansion
        a, b = self._elements(tile, how.way == "multiplied")
        held = bits if how.way == "scattered" else weights.bits
        shared = (a * bits + b * held) / 8 * k / self.shared_width
        decode = tile[1] * k * weights.stored / how.rate if how.rate else 0.0
        if how.way == "scattered":
            shared += decode
        else:
            decode *= self.expansions(tile)
        return max(multiply / how.speedup, shared, decode)

    def cost(self, work: Work) -> Cost:
        """Main loop, fetch and prologue; see the module."""
        bits = _bits(work.source_format)
        k = -(-work.k // self.k_step) * self.k_step
        area = work.target_storage_bytes * 8 // _bits(work.target_format)
        coded = _Coded(self, work, bits)
        multiply = area * k * bits / (self.macs * 16 * self.efficiency) / coded.speedup
        shared, decode = np.zeros(len(work)), np.zeros(len(work))
        expansions = np.ones(len(work))
        fetched = work.read_bytes - work.staged_bytes
        fetches = (fetched > 0) | (work.staged_bytes == 0)
        for tile, way in self._kernels():
            holds = (area == tile[0] * tile[1]) & (work.m <= tile[0]) & (work.n <= tile[1])
            holds &= (shared == 0) & (coded.kernel == way)
            for staged, chosen in ((False, holds & fetches), (True, holds & ~fetches)):
                a, b = self._elements(tile, way == SPARSE, staged=staged)
                moved = a * bits[chosen] + b * coded.held_bits[chosen]
                shared[chosen] = moved / 8 * k[chosen] / self.shared_width
            if way == EXPANDING:
                expansions[holds & ~coded.scattered] = self.expansions(tile)
        expanded = coded.stored * expansions
        decode = expanded * coded.cycles_each
        shared += np.where(coded.scattered, decode, 0.0)
        cycles = np.maximum.reduce([multiply, shared, decode, fetched / self.fetch_width])
        first = ((work.flags & Flag.ACCUMULATE) == 0) & fetches
        occupancy = np.ceil(cycles).astype(np.int64) + first * self.prologue
        counted = {
            "mac": work.m * work.n * work.k // coded.speedup,
            "decoded": expanded.astype(np.int64),
        }
        return Cost(occupancy, occupancy + self.drain, counted)

    def _elements(
        self, tile: Shape, transposed: bool, *, staged: bool = False
    ) -> tuple[float, float]:
        """Elements of A and of B, as shared_elements_per_k; of a kernel whose instructions take B
        as their first operand, as sparse ones do, ``transposed``."""
        if not transposed:
            return self.shared_elements_per_k(tile, staged=staged)
        b, a = self.shared_elements_per_k(tile[::-1], staged=staged)
        return a, b

    def _kernels(self) -> list[tuple[Shape, int]]:
        """CTA tiles, and what kernels they are of."""
        expanding = tuple(map(shape_of, self.coded_tiles)) or self.shapes
        kinds = ((PLAIN, self.shapes), (EXPANDING, expanding), (SPARSE, self.shapes))
        return [(tile, way) for way, tiles in kinds for tile in tiles]

    def order(
        self,
        operands: Format,
        slices: int,
        sums: Format,
        result: Format,
        *,
        grain: int = 0,
        speedup: int = 1,
    ) -> Order:
        """How kernels reduce operands of a format, K cut into ``slices`` of whole steps.

        ``sums`` is the format of accumulators; what integers add up to is never rounded. ``grain``
        is what slices are cut at where that is more than a step, ``speedup`` that of sparse tensor
        cores.
        """
        order = Order(promote=self.promotion(operands), sparse=speedup if speedup > 1 else 0)
        if slices == 1:
            return order
        narrow = self.merge != "compute-type" and sums.is_float
        return replace(
            order,
            slices=slices,
            grain=grain or self.k_granule(operands),
            merge="serial" if self.merge == "inplace" else "forward",
            partials=(result if narrow else sums).name,
        )

    def k_granule(self, operands: Format) -> int:
        """K that kernels do not cut: a step of the main loop, and what is promoted at once."""
        return math.lcm(self.k_step, self.promotion(operands) or 1)

    def promotion(self, operands: Format) -> int:
        """After how many k sums are added in fp32; 0: never."""
        return self.promote_fp8 if operands.is_float and operands.bits == 8 else 0

    def multiply(
        self,
        a: Operand,
        b: Operand,
        acc: Operand | None,
        types: ProductTypes | None = None,
        order: Order = CHAIN,
    ) -> Operand:
        """``a[m, k] @ b[k, n]`` onto ``acc[m, n]`` or nothing, carriers of ``types`` in and out."""
        if a.dtype.kind != b.dtype.kind:
            raise AccelsimError("tensor cores cannot multiply integers by floating point")
        return self.rule(types or carrier_types(a), order).multiply(a, b, acc)

    def summation_depth(self, k: int, before: int | None) -> int:
        """Additions that a product of fp32 passes through in a sum of ``k`` products, at most."""
        return additions(self.rule(FP32_TYPES), k, before)

    def arithmetic_name(self) -> str:
        """How sums are formed, in words, for reports."""
        return self.arithmetic


def shape_of(text: str) -> Shape:
    """(rows, cols) of a tile written as "128x256"."""
    rows, _, cols = text.partition("x")
    if not (rows.isdecimal() and cols.isdecimal() and int(rows) and int(cols)):
        raise AccelsimError(f"{text!r} is no tile; accepted: ROWSxCOLS, e.g. 128x256")
    return int(rows), int(cols)


def _bits(codes: Ints) -> Ints:
    """Bits per element by format code."""
    table = np.array([f.bits for f in FORMATS.values()], dtype=np.int64)
    return table[codes]


class _Coded:
    """The coded weights of some instructions, column by column.

    ``kernel`` that reads them, ``held_bits`` per element in shared memory, ``speedup`` of
    multiplication, elements ``stored`` that are expanded at ``cycles_each``, whether ``scattered``.
    """

    def __init__(self, unit: TensorCore, work: Work, bits: Ints) -> None:
        count = len(bits)
        self.held_bits = bits.astype(np.float64)
        self.speedup = np.ones(count, dtype=np.int64)
        self.stored, self.cycles_each = np.zeros(count), np.zeros(count)
        self.kernel, self.scattered = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=bool)
        for number in np.unique(work.coded[work.coded >= 0]).tolist():
            form, rows = work.forms[number], work.coded == number
            how = unit.expansion(form.encoding, form.fmt.bits)
            elements, nbytes = form.rows * form.cols, work.coded_bytes[rows]
            self.speedup[rows] = how.speedup
            self.scattered[rows] = how.way == "scattered"
            self.kernel[rows] = SPARSE if how.way == "multiplied" else EXPANDING
            if how.way != "scattered":
                self.held_bits[rows] = nbytes * 8 / elements
            if how.rate:
                self.stored[rows] = form.code.stored(np.int64(elements), nbytes, form.fmt)
                self.cycles_each[rows] = 1 / how.rate
