"""Second operands of products that are stored in an encoding: what the tile choice must know of
them, and through which decoders they come."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from accelsim.errors import AccelsimError
from accelsim.hw.decoder import Decoder
from accelsim.hw.pim.unit import Pim
from accelsim.mapping.placement import ALIGNMENT
from accelsim.program.storage import View

if TYPE_CHECKING:
    from accelsim.mapping.lowering import Core, Lowering
    from accelsim.mapping.operands import Second

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

DEVIATIONS = 5  # of a coded tile's length that its buffer has room for


@dataclass(frozen=True)
class Coded:
    """How B lies in main memory: ``bits`` per element on average, in tiles cut along k at multiples
    of ``k_granule``. ``spread`` is the standard deviation of one element's bits, ``cut`` the (n, k)
    of tiles that somebody chose before (() nobody)."""

    bits: float
    k_granule: int
    spread: float = 0.0
    cut: tuple[int, ...] = ()

    def tile_bytes(self, elements: Ints) -> Ints:
        """Bytes that hold every tile of so many elements, almost surely."""
        likely = elements * self.bits + DEVIATIONS * self.spread * np.sqrt(elements)
        return np.asarray(np.ceil(likely / 8), dtype=np.int64) + ALIGNMENT


@dataclass(frozen=True)
class Expander:
    """The decoders of a core, in array cycles: elements out and coded bytes in per cycle of each,
    the cycles until a result may be used, and the index of the memory where coded tiles wait."""

    count: int
    elements_per_cycle: float
    bytes_per_cycle: float
    latency: float
    staging: int

    def cycles(
        self, coded: Coded, elements: Ints | int, tile: Ints, tiles: Ints
    ) -> tuple[Floats, Floats]:
        """Cycles of the decoders for so many elements, and of one for a tile, until it is used.

        Tiles go to the decoders in turn: of ``tiles`` at most so many are busy at a time.
        """
        element = max(1 / self.elements_per_cycle, coded.bits / 8 / self.bytes_per_cycle)
        whole: Floats = elements * element / np.minimum(self.count, tiles)
        one: Floats = np.asarray(tile * element + self.latency, dtype=np.float64)
        return whole, one


def coded_operand(low: Lowering, b: View | Second) -> Coded | None:
    """How the second operand lies in memory if it is coded."""
    matrix = low.coded.of(b)
    if matrix is None or not isinstance(b, View):
        return None
    cut = matrix.cuts.get(matrix.window(b), ())
    encoding = matrix.encoding
    spread = 0.0
    if not encoding.fixed:
        each = encoding.mean_bits(matrix.fmt, 1.0) - encoding.mean_bits(matrix.fmt, 0.0)
        spread = each * math.sqrt(matrix.share * (1 - matrix.share))
    return Coded(matrix.mean_bits, encoding.k_granule, spread, cut)


def read_coded(low: Lowering, core: Core, b: View | Second) -> str:
    """The encoding in which the arrays themselves read the second operand; "" if they do not."""
    matrix = low.coded.of(b)
    if matrix is None or not core.arrays[0][1].decodes(matrix.encoding.name):
        return ""
    return matrix.encoding.name


def decoders_of(low: Lowering, core: Core, b: View | Second) -> list[tuple[int, Decoder]]:
    """The decoders through which the second operand comes; none if it is stored as it is computed
    with, or if the arrays read it coded."""
    matrix = low.coded.of(b)
    array = core.arrays[0][1]
    if matrix is None or read_coded(low, core, b):
        return []
    found = [
        (slot, unit)
        for slot, unit in core.of(Decoder)
        if unit.decodes(matrix.encoding.name) and unit.target == array.weights
    ]
    if not found:
        banks = ", nor do its banks read it" if core.of(Pim) else ""
        raise AccelsimError(
            f"weight {matrix.name!r} is stored as {matrix.encoding.name}, and {low.arch.name} has"
            f" no decoder of it into {array.weights!r}{banks}; accepted: an architecture with a"
            " unit of"
            " kind decoder, such as coded-npu (N:M sparsity also: arrays that read it, such as sat)"
        )
    return [one for one in found if one[1] is found[0][1]]


def expander_of(
    low: Lowering, decoders: Sequence[tuple[int, Decoder]], memories: Sequence[str], hz: float
) -> Expander | None:
    """The decoders of a core as the tile choice sees them, in cycles of ``hz``."""
    if not decoders:
        return None
    unit = decoders[0][1]
    speed = low.arch.clocks[unit.clock] / hz
    return Expander(
        count=len(decoders),
        elements_per_cycle=unit.elements_per_cycle * speed,
        bytes_per_cycle=unit.coded_bytes_per_cycle * speed,
        latency=unit.latency / speed,
        staging=memories.index(unit.staging),
    )
