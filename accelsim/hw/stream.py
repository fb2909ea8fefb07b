"""Spatial nodes of a streaming-dataflow machine, and how deep the FIFOs between them are.

A node is a pipeline configured for one function. It takes an element every ``interval`` cycles
(its initiation interval) and the result is in the FIFO behind it some cycles later. An element that
is a vector of up to ``width`` numbers counts as one; longer ones take several turns. FIFOs are no
blocks: they are rings of buffers in a scratchpad, and a slot is taken from the issue of the element
that fills it to the issue of the one that reads it. Programs say so with dependencies:

    element i may be read              when its producer's element i has finished
    element i may be made, depth D     when its consumer's element i - D has been issued

The controller of a node's loops costs ``controller`` cycles before its first element and again
before every iteration of its outer loop, during which it takes no element.

The numbers. Products are summed by ``arithmetic``. Everything else is fp32, rounded once to nearest
even, but exponentials, which are made of fp32 operations (numerics.functions). A node that goes on
behind its sums multiplies by a constant, then exponentiates, each rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from accelsim.errors import AccelsimError
from accelsim.hw.block import Cost, Ints, Unit, Work, block, require
from accelsim.hw.sums import NamedSums
from accelsim.hw.vector import binary
from accelsim.numerics import functions
from accelsim.numerics.arithmetic import FP32_TYPES, arithmetic
from accelsim.numerics.rules import additions
from accelsim.program.opcodes import Flag, Function, Opcode
from accelsim.quantities import Cycles, Picojoules

Operand = npt.NDArray[Any]  # fp32 carriers, [rows, cols]


@block("stream")
@dataclass(frozen=True, kw_only=True)
class Stream(NamedSums, Unit):
    """A pool of ``count`` nodes around the FIFOs of ``memory``; a mapper gives each its function.

    Latencies count from the issue of an element to its result: ``dot_latency`` of a row times a
    row, ``product_latency`` of a number times a row added to a row (and of rescaled sums),
    ``sum_latency`` and ``max_latency`` of running sums and maxima, the others of one operation
    each; what a node does in a row adds up. ``fifo_depth`` is what a FIFO holds beyond the elements
    in its producer's pipeline, ``long_fifo_depth`` all that one holds which must keep a whole row.
    """

    opcodes: ClassVar[frozenset[Opcode]] = frozenset({Opcode.MATMUL, Opcode.VECTOR, Opcode.LAUNCH})

    memory: tuple[str, ...]
    width: int = 128
    interval: Cycles = 1
    controller: Cycles = 0
    dot_latency: Cycles
    product_latency: Cycles
    sum_latency: Cycles
    max_latency: Cycles
    subtract_latency: Cycles
    exp_latency: Cycles
    divide_latency: Cycles
    fifo_depth: int = 2
    long_fifo_depth: int
    arithmetic: str = "sequential-fp32"
    mac_pj: Picojoules = 0.0
    op_pj: Picojoules = 0.0

    def check(self) -> None:
        super().check()
        for name in ("width", "interval", "fifo_depth", "long_fifo_depth"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be at least 1, not {value}")
        for name in ("controller", *(f"{step}_latency" for step in STEPS)):
            value = getattr(self, name)
            require(value >= 0, f"{name} must not be negative, not {value}")
        require(len(self.memory) >= 1, "memory must name at least one memory")
        arithmetic(self.arithmetic)

    def memories(self) -> tuple[str, ...]:
        return self.memory

    def peak_macs_per_cycle(self, bits: int = 16) -> int:
        del bits  # one element of any format per lane
        return self.width

    def energy_pj_per_action(self) -> dict[str, float]:
        return {"mac": self.mac_pj, "stream_op": self.op_pj}

    # -- time ------------------------------------------------------------------------------------

    def latency_of(self, *functions: Function) -> int:
        """Cycles of vector functions in a row, from the issue of an element to its result."""
        return int(self._latencies()[list(functions)].sum())

    def _latencies(self) -> Ints:
        """Latency by Function code, -1 where nodes do not know the function."""
        table = np.full(max(Function) + 1, -1, dtype=np.int64)
        table[Function.NONE] = 0
        for function, steps in FUNCTIONS.items():
            table[function] = sum(getattr(self, f"{step}_latency") for step in steps)
        return table

    def cost(self, work: Work) -> Cost:
        """Turns of the pipeline, and its depth; a LAUNCH is the controller's time."""
        products, launches = work.opcode == Opcode.MATMUL, work.opcode == Opcode.LAUNCH
        latencies = self._latencies()[np.where(launches, 0, work.function)]
        if (latencies < 0).any():
            unknown = Function(int(work.function[latencies < 0][0]))
            raise AccelsimError(f"a stream node has no function {unknown.name}")
        dots = products & ((work.flags & Flag.TRANSPOSE_B) != 0)
        depth = latencies + np.where(dots, self.dot_latency, products * self.product_latency)
        elements = work.m * work.n * np.where(products, work.k, 1)
        occupancy = -(-elements // self.width) * self.interval
        return Cost(
            np.where(launches, self.controller, occupancy),
            np.where(launches, self.controller, depth + occupancy - self.interval),
            {"mac": elements * products, "stream_op": elements * ~(products | launches)},
        )

    # -- arithmetic ------------------------------------------------------------------------------

    def summation_depth(self, k: int, before: int | None) -> int:
        """Additions that a product may pass through, for error bounds."""
        return additions(self.rule(FP32_TYPES), k, before)

    def apply(self, function: Function, a: Operand, b: Operand | None, imm: float) -> Operand:
        """``function(a, b)`` in fp32."""
        a = a.astype(np.float32, copy=False)
        b = np.full((1, 1), imm, np.float32) if b is None else b.astype(np.float32, copy=False)
        with np.errstate(all="ignore"):
            if function == Function.EXP:
                return functions.exp_fp32(a)
            if function == Function.EXP_SUB:
                return functions.exp_fp32(a - b)
            return binary(Function.MUL if function == Function.MUL_IMM else function, a, b)

    def arithmetic_name(self) -> str:
        """How values are computed, in words, for reports."""
        return f"{self.arithmetic}, fp32 nodes"


STEPS = ("dot", "product", "sum", "max", "subtract", "exp", "divide")
# What a vector function consists of.
FUNCTIONS: dict[Function, tuple[str, ...]] = {
    Function.ADD: ("sum",),
    Function.MAX: ("max",),
    Function.SUB: ("subtract",),
    Function.EXP: ("exp",),
    Function.EXP_SUB: ("subtract", "exp"),
    Function.DIV: ("divide",),
}
