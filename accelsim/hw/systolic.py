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

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from accelsim.errors import AccelsimError
from accelsim.hw.block import Cost, Ints, Unit, Work, block, require
from accelsim.numerics import accumulate
from accelsim.program.opcodes import Flag, Opcode
from accelsim.quantities import Picojoules

Dataflow = Literal["ws", "os", "is"]
Operand = npt.NDArray[Any]


@block("systolic")
@dataclass(frozen=True, kw_only=True)
class Systolic(Unit):
    """Array of ``rows`` x ``cols`` cells, one multiply-accumulate per cell and cycle.

    ``weight_load`` is the cycles from the start of a stationary load until it can be used (0: one
    per row); pipelined, it shows only when the array has run dry.
    ``inputs``, ``weights`` and ``outputs`` name the memories it reads A from, reads B from and
    accumulates into. ``arithmetic`` names how a floating-point sum is formed: in fp32, product
    after product in the order of the dataflow (numerics.accumulate), the only one built so far;
    integers are exact.
    """

    opcodes: ClassVar[frozenset[Opcode]] = frozenset({Opcode.MATMUL})

    rows: int
    cols: int
    dataflow: Dataflow = "ws"
    pipelined: bool = True
    weight_load: int = 0
    inputs: str
    weights: str
    outputs: str
    arithmetic: Literal["sequential-fp32"] = "sequential-fp32"
    mac_pj: Picojoules = 0.0

    def check(self) -> None:
        super().check()
        require(self.rows >= 1, f"rows must be at least 1, not {self.rows}")
        require(self.cols >= 1, f"cols must be at least 1, not {self.cols}")
        require(self.weight_load >= 0, f"weight_load must not be negative, not {self.weight_load}")

    def memories(self) -> tuple[str, ...]:
        return (self.inputs, self.weights, self.outputs)

    def peak_macs_per_cycle(self) -> int:
        return self.rows * self.cols

    def energy_pj_per_action(self) -> dict[str, float]:
        return {"mac": self.mac_pj}

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
        return -(-along_rows // self.rows) * -(-along_cols // self.cols)

    @property
    def fill_drain_cycles(self) -> int:
        """Cycles of a fold beyond T: stationary load, skew and drain."""
        load = 0 if self.dataflow == "os" else self.weight_load or self.rows
        return load + self.rows + self.cols - 2

    def cycles(self, m: Ints, n: Ints, k: Ints) -> tuple[Ints, Ints]:
        """(occupancy, latency) of a [m, k] @ [k, n] product in array cycles."""
        time = self.spatial_and_time(m, n, k)[2]
        folds = self.folds(m, n, k)
        if not self.pipelined:
            total = folds * (time + self.fill_drain_cycles)
            return total, total
        busy = folds * np.maximum(time, self.rows)
        # The last fold ends after its own T even where the next stationary load needs longer.
        last = np.minimum(time - self.rows, 0)
        return busy, busy + last + self.fill_drain_cycles

    def operand_passes(self, work: Work) -> tuple[Ints, Ints, Ints, Ints]:
        """SRAM passes over A, B and C: a moving operand once per fold of the dimension that it
        does not have; partial sums are written once per fold of K, and read back for every fold
        that adds to an earlier one (SCALE-Sim counts the writes, not the read-back)."""
        added = (work.flags & Flag.ACCUMULATE) // Flag.ACCUMULATE
        over_m = -(-work.m // (self.rows if self.dataflow == "os" else self.cols))
        over_n = -(-work.n // self.cols)
        over_k = -(-work.k // self.rows)
        once = np.ones(len(work), dtype=np.int64)
        if self.dataflow == "ws":
            return over_n, once, over_k - 1 + added, over_k
        if self.dataflow == "is":
            return once, over_m, over_k - 1 + added, over_k
        return over_n, over_m, added, once

    def cost(self, work: Work) -> Cost:
        occupancy, latency = self.cycles(work.m, work.n, work.k)
        return Cost(occupancy, latency, {"mac": work.m * work.n * work.k})

    def multiply(self, a: Operand, b: Operand, acc: Operand | None) -> Operand:
        """The product ``a[m, k] @ b[k, n]`` as this array sums it, onto ``acc[m, n]`` or nothing.

        Operands are fp32 or int32 carriers of narrower values (both of one kind); so is the
        result. ``arithmetic`` decides the roundings, see numerics.accumulate.
        """
        if a.dtype.kind != b.dtype.kind:
            raise AccelsimError("a systolic array cannot multiply integers by floating point")
        if a.dtype.kind == "i":
            return accumulate.exact_int32(a, b, acc)
        if self.dataflow == "os":
            return accumulate.in_place_fp32(a, b, acc)
        return accumulate.folded_fp32(a, b, self.rows, acc)

    def summation_depth(self, k: int, before: int | None) -> int:
        """Additions that a product may pass through in a sum of ``k`` products, for error bounds.

        ``before`` is the depth of the accumulated sum it joins, None if it starts a new one.
        The first product of a chain meets +0, which rounds nothing.
        """
        if self.dataflow == "os":
            return k - 1 if before is None else before + k
        chain, folds = min(k, self.rows) - 1, -(-k // self.rows)
        return chain + folds - 1 if before is None else max(before, chain) + folds

    def arithmetic_name(self) -> str:
        """How sums are formed, in words, for reports."""
        order = "in place" if self.dataflow == "os" else f"folds of {self.rows}"
        return f"{self.arithmetic} ({self.dataflow}, {order})"
