"""Systolic array: a grid of multiply-accumulate cells through which operands flow.

A fold is one R x C stationary tile (or, output stationary, one R x C tile of results):

    dataflow   rows hold   columns hold   time T
    ws         K           N              M
    is         K           M              N
    os         M           N              K

Drained per fold (``pipelined: false``), a fold costs what SCALE-Sim charges (Samajdar et al.,
ISPASS 2020, and the v2/v3 simulators): 2R + C + T - 2 cycles for ws and is, R + C + T - 2 for os,
and folds do not overlap. Pipelined, every cell has a shadow register: the next stationary tile is
loaded while the current one computes, so a fold occupies the array for max(T, R) cycles (ws, is)
or max(T, R) (os, whose finished tile leaves over R cycles while the next one computes), and the
skew and the drain appear once, in the latency. ONNXim's core has the same overlap (Ham et al.,
IEEE CAL 2024).

The numbers follow from the same picture: in ws and is arrays the partial sum of a fold runs down
the R rows of a column and meets the accumulator at the bottom; in os arrays it stays in its cell.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from accelsim.errors import AccelsimError
from accelsim.hw.block import Cost, Ints, Unit, Work, block, require
from accelsim.numerics.arithmetic import FP32_TYPES, ProductTypes, arithmetic, carrier_types
from accelsim.numerics.formats import FORMATS, Format, number_format
from accelsim.numerics.orders import CHAIN, Order
from accelsim.numerics.rules import Rule, additions
from accelsim.program.opcodes import Flag, Opcode
from accelsim.quantities import Cycles, Picojoules

Dataflow = Literal["ws", "os", "is"]
Operand = npt.NDArray[Any]


@block("systolic")
@dataclass(frozen=True, kw_only=True)
class Systolic(Unit):
    """Array of ``rows`` x ``cols`` cells, one multiply-accumulate per cell and cycle.

    ``weight_load`` is the cycles from the start of a stationary load until it can be used (0: one
    per row); pipelined, it shows only when the array has run dry. ``load_used_rows``: a stationary
    tile of fewer rows than the array takes only its own rows' time to load. ``switch`` is the
    cycles that a pipelined array loses whenever it turns to its next stationary tile.
    ``operands`` names the format to which wider floating-point operands are rounded as they enter
    ("": multiplied as they are).
    ``inputs``, ``weights`` and ``outputs`` name the memories it reads A from, reads B from and
    accumulates into. ``arithmetic`` names how the cells form a floating-point sum, in the order of
    the dataflow: sequential-fp32, tree16-fp32, ... (numerics.arithmetic); integers are exact.
    """

    opcodes: ClassVar[frozenset[Opcode]] = frozenset({Opcode.MATMUL})

    rows: int
    cols: int
    dataflow: Dataflow = "ws"
    pipelined: bool = True
    weight_load: int = 0
    load_used_rows: bool = False
    switch: Cycles = 0
    operands: str = ""
    inputs: str
    weights: str
    outputs: str
    arithmetic: str = "sequential-fp32"
    mac_pj: Picojoules = 0.0

    def check(self) -> None:
        super().check()
        require(self.rows >= 1, f"rows must be at least 1, not {self.rows}")
        require(self.cols >= 1, f"cols must be at least 1, not {self.cols}")
        require(self.weight_load >= 0, f"weight_load must not be negative, not {self.weight_load}")
        require(self.switch >= 0, f"switch must not be negative, not {self.switch}")
        require(
            not self.operands or not number_format(self.operands).is_integer,
            f"operands must be a floating-point format, not {self.operands}",
        )
        require(
            not arithmetic(self.arithmetic).is_tensor_core,
            f"arithmetic of a systolic array is one of adders, not {self.arithmetic}",
        )

    def memories(self) -> tuple[str, ...]:
        return (self.inputs, self.weights, self.outputs)

    def peak_macs_per_cycle(self, bits: int = 16) -> int:
        del bits  # one element of any format per cell
        return self.rows * self.cols

    def energy_pj_per_action(self) -> dict[str, float]:
        return {"mac": self.mac_pj}

    @property
    def fold_rows(self) -> int:
        """How much of the dimension along the rows a fold takes."""
        return self.rows

    def taking(self, encoding: str) -> Systolic:
        """The array as it multiplies weights that are stored in an encoding."""
        return self

    def spatial_and_time(self, m: Ints, n: Ints, k: Ints) -> tuple[Ints, Ints, Ints]:
        """The dimensions along the rows, along the columns, and along time."""
        if self.dataflow == "ws":
            return k, n, m
        if self.dataflow == "is":
            return k, m, n
        return m, n, k

    def folds(self, m: Ints, n: Ints, k: Ints) -> Ints:
        """Stationary tiles that a [m, k] @ [k, n] product needs."""
        along_rows, along_cols, _ = self.spatial_and_time(m, n, k)
        return -(-along_rows // self.fold_rows) * -(-along_cols // self.cols)

    @property
    def fill_drain_cycles(self) -> int:
        """Cycles of a fold beyond T: stationary load, skew and drain."""
        load = 0 if self.dataflow == "os" else self.weight_load or self.rows
        return load + self.rows + self.cols - 2

    def cycles(self, m: Ints, n: Ints, k: Ints) -> tuple[Ints, Ints]:
        """(occupancy, latency) of a [m, k] @ [k, n] product in array cycles."""
        along_rows, _, time = self.spatial_and_time(m, n, k)
        folds = self.folds(m, n, k)
        if not self.pipelined:
            total = folds * (time + self.fill_drain_cycles)
            return total, total
        load = np.minimum(along_rows, self.rows) if self.load_used_rows else self.rows
        streaming = folds * np.maximum(time, load)
        # The last fold ends after its own T even where the next stationary load needs longer.
        last = np.minimum(time - load, 0)
        bubbles = folds * self.switch
        before = bubbles - self.switch
        return streaming + bubbles, streaming + before + last + self.fill_drain_cycles

    def operand_passes(self, work: Work) -> tuple[Ints, Ints, Ints, Ints]:
        """SRAM passes over A, B and C: a moving operand once per fold of the dimension that it
        does not have; partial sums are written once per fold of K, and read back for every fold
        that adds to an earlier one (SCALE-Sim counts the writes, not the read-back)."""
        added = (work.flags & Flag.ACCUMULATE) // Flag.ACCUMULATE
        holds_a = self._holds_a(work)
        over_m = -(-work.m // (self.fold_rows if self.dataflow == "os" else self.cols))
        over_n = -(-work.n // self.cols)
        over_k = -(-work.k // self.fold_rows)
        once = np.ones(len(work), dtype=np.int64)
        if self.dataflow == "ws":
            passes_a, passes_b = np.where(holds_a, once, over_n), np.where(holds_a, over_m, once)
            return passes_a, passes_b, over_k - 1 + added, over_k
        if self.dataflow == "is":
            return once, over_m, over_k - 1 + added, over_k
        return over_n, over_m, added, once

    def _holds_a(self, work: Work) -> npt.NDArray[np.bool_]:
        """Products whose first operand is the stationary one of a weight-stationary array."""
        flagged: npt.NDArray[np.bool_] = (work.flags & Flag.STATIONARY_A) > 0
        return flagged & (self.dataflow == "ws")

    def cost(self, work: Work) -> Cost:
        swap = self._holds_a(work)
        m, n = np.where(swap, work.n, work.m), np.where(swap, work.m, work.n)
        occupancy, latency = self.cycles(m, n, work.k)
        return Cost(occupancy, latency, {"mac": work.m * work.n * work.k})

    def rule(self, types: ProductTypes, order: Order = CHAIN) -> Rule:
        """How this array forms products of some formats; raises AccelsimError if it does not.

        In ws and is arrays the sum of a fold of ``rows`` runs down a column from +0 and meets the
        accumulator at the bottom; in os arrays it stays in place.
        """
        fold = 0 if self.dataflow == "os" else self.fold_rows
        return arithmetic(self.arithmetic).rule(types, replace(order, fold=fold))

    def multiply(
        self,
        a: Operand,
        b: Operand,
        acc: Operand | None,
        types: ProductTypes | None = None,
        order: Order = CHAIN,
    ) -> Operand:
        """The product ``a[m, k] @ b[k, n]`` as this array sums it, onto ``acc[m, n]`` or nothing.

        Operands are carriers of ``types`` (None: fp32 or int32 themselves, both of one kind); so is
        the result. ``arithmetic`` decides the roundings, see numerics.arithmetic.
        """
        if a.dtype.kind != b.dtype.kind:
            raise AccelsimError("a systolic array cannot multiply integers by floating point")
        types = types or carrier_types(a)
        if self.operands and a.dtype.kind == "f":
            entering = number_format(self.operands)
            a, b = (entering.decode(entering.encode(x)) for x in (a, b))
        return self.rule(types, order).multiply(a, b, acc)

    def summation_depth(self, k: int, before: int | None) -> int:
        """Additions that a product may pass through in a sum of ``k`` products, for error bounds.

        ``before`` is the depth of the accumulated sum it joins, None if it starts a new one.
        """
        return additions(self.rule(FP32_TYPES), k, before)

    @property
    def operand_format(self) -> Format:
        """Coarsest format to which a floating-point operand is rounded on entry, for bounds."""
        return number_format(self.operands) if self.operands else FORMATS["fp32"]

    def arithmetic_name(self) -> str:
        """How sums are formed, in words, for reports."""
        entering = f", {self.operands} operands" if self.operands else ""
        order = "in place" if self.dataflow == "os" else f"folds of {self.rows}"
        return f"{self.arithmetic} ({self.dataflow}, {order}{entering})"
