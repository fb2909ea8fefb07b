"""Units beside the banks of main memory, as an architecture commands them: a queue per channel.

One instruction is the product of m vectors with n rows of a matrix each, in one channel. The matrix
lies in it, at the places of a layout (hw/pim/layouts), and so do the vectors, or they come over the
pins from a scratchpad, as the family has it (hw/pim/products); the results are read out to a
scratchpad. What that takes alone in the channel is the family's own command stream
(hw/pim/cost); at dram fidelity the commands go through the channel together with reads and writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from accelsim.errors import AccelsimError
from accelsim.hw.block import Cost, Ints, Unit, Work, block, require
from accelsim.hw.pim.catalog import family as find_family
from accelsim.hw.pim.cost import product_cost
from accelsim.hw.pim.family import Family
from accelsim.hw.pim.products.product import Products, Sweep, Taken
from accelsim.hw.pim.products.registry import products_of
from accelsim.hw.sums import NamedSums
from accelsim.numerics.arithmetic import ProductTypes, arithmetic
from accelsim.numerics.orders import CHAIN, Order
from accelsim.numerics.rules import Rule
from accelsim.program.opcodes import Flag, Opcode
from accelsim.quantities import Cycles

Operand = npt.NDArray[Any]


@block("pim")
@dataclass(frozen=True, kw_only=True)
class Pim(NamedSums, Unit):
    """``count`` channels of a main ``memory`` of ``kind: pim_dram`` and of the same ``family``.

    ``results`` names the scratchpad that takes what the banks give, ``dma`` the DMA engine that
    serves nobody else ("": that of the arrays). How a bank forms a sum is the family's; another
    ``arithmetic``, and ``column_arithmetic`` where results are those of a matrix's columns, say
    otherwise (names of numerics.arithmetic; "": the family's). With
    ``fuses`` activations behind a product are applied to its sums as they come.
    ``apart``: what others read lies in stacks of their own, which ``memory`` stands for as well, so
    that products keep nobody waiting. ``issue`` is how many cycles of its clock whoever commands it
    needs for a command to any of the channels, a column of a run or a result (0: as fast as
    channels take them).
    """

    opcodes: ClassVar[frozenset[Opcode]] = frozenset({Opcode.PIM})
    reads_main_memory: ClassVar[bool] = True

    family: str
    memory: str
    results: str
    dma: str = ""
    arithmetic: str = ""
    fuses: bool = False
    column_arithmetic: str = ""
    apart: bool = False
    issue: Cycles = 0

    def check(self) -> None:
        super().check()
        require(self.issue >= 0, f"issue must not be negative, not {self.issue}")
        by_columns = self.products.by_columns
        for name in filter(None, (self.sums, self.column_sums)):
            _ = arithmetic(name)
        require(
            by_columns == bool(self.column_sums),
            f"column_arithmetic {self.column_sums!r} with family {self.family}; accepted: one"
            " where a family multiplies columns, none elsewhere",
        )

    def memories(self) -> tuple[str, ...]:
        return (self.memory, self.results)

    @cached_property
    def pim(self) -> Family:
        """The family of its banks."""
        return find_family(self.family)

    @cached_property
    def products(self) -> Products:
        """How its banks compute products."""
        return products_of(self.pim)

    @property
    def own_clock_hz(self) -> int:
        return self.pim.device.clock_hz

    @property
    def blocks_memory(self) -> bool:
        """Whether nothing is read or written in a channel while a product is in work there."""
        return not self.pim.rules.concurrent

    @property
    def holds_memory(self) -> bool:
        """Whether its products take their channel's share of the memory meanwhile."""
        return self.blocks_memory and not (self.apart or self.own_pins)

    @property
    def own_pins(self) -> bool:
        """Whether a product's time has that of its vectors and results on its channel's pins, so
        that it waits for no other channel's; reads and writes pass between its commands."""
        return self.products.host_vectors

    def peak_macs_per_cycle(self, bits: int = 16) -> int:
        del bits
        runs = [one.step for one in self.pim.commands if one.repeat == "run" and one.opens >= 0]
        step = max(1, self.pim.device.timings["burst_cycles"], min(runs, default=0))
        return self.pim.banks // self.pim.units.banks_per_unit * self.pim.units.macs // step

    def sweeps(self, work: Work) -> list[Sweep]:
        """The products of some instructions."""
        different, which = self._different(work)
        return [different[number] for number in which.tolist()]

    def _different(self, work: Work) -> tuple[list[Sweep], Ints]:
        """The different products among some instructions, and which of them each is."""
        columns = np.stack([work.m, work.n, work.k, work.flags], axis=1)
        shapes, which = np.unique(columns, axis=0, return_inverse=True)
        return [self._sweep(*row) for row in shapes.tolist()], which.reshape(-1)

    def _sweep(self, m: int, n: int, k: int, flags: int) -> Sweep:
        state = not flags & Flag.ACCUMULATE, not flags & Flag.HELD, not flags & Flag.KEPT
        products = self.products
        keeps = products.goes_on or (products.by_columns and all(state[:2]))
        if not all(state) and not keeps:
            raise AccelsimError(
                f"banks of {self.family} keep nothing from one product to the next; accepted:"
                " products that bring their vectors, begin at 0 and are read out"
            )
        if not all(state[:2]) and m * n > self.pim.banks:
            raise AccelsimError(
                f"{m * n} sums beside {self.pim.banks} banks, each of which keeps one; accepted: up"
                f" to {self.pim.banks}"
            )
        columns = bool(flags & Flag.COLUMNS)
        if columns and not products.by_columns:
            raise AccelsimError(
                f"banks of {self.family} multiply no columns of a matrix; accepted: its rows, each"
                " with a vector that comes with it"
            )
        if flags & Flag.ABREAST:
            return Sweep(1, m, n, k, True, *state)
        return Sweep(m, 1, n, k, False, *state, columns)

    def cost(self, work: Work) -> Cost:
        different, which = self._different(work)
        taken = [product_cost(self.family, sweep) for sweep in different]
        cycles = np.array([one.cycles for one in taken], dtype=np.int64)
        latency = np.array([one.latency for one in taken], dtype=np.int64)
        actions = {name: count[which] for name, count in self._actions(taken).items()}
        return Cost(cycles[which], latency[which], actions)

    def _actions(self, taken: list[Taken]) -> dict[str, Ints]:
        names = [one.name for one in self.pim.commands if one.energy_pj]
        tables = [dict(one.commands) for one in taken]
        return {
            name: np.array([table.get(name, 0) for table in tables], dtype=np.int64)
            for name in names
        }

    def energy_pj_per_action(self) -> dict[str, float]:
        """Of the commands that only a memory with units has."""
        return {one.name: one.energy_pj for one in self.pim.commands if one.energy_pj}

    def channel_bytes(self, work: Work) -> Ints:
        """Bytes that vectors and results take on the data pins of the channel."""
        different, which = self._different(work)
        moved = [self.products.pin_bytes(self.pim, sweep) for sweep in different]
        return np.array(moved, dtype=np.int64)[which]

    def issue_cycles(self, work: Work) -> Ints:
        """Cycles for which commands of instructions keep whoever sends them."""
        different, which = self._different(work)
        sent = [product_cost(self.family, sweep).sent for sweep in different]
        return np.array(sent, dtype=np.int64)[which] * self.issue

    # -- arithmetic ------------------------------------------------------------------------------

    @cached_property
    def sums(self) -> str:
        """How sums over the rows of a matrix are formed, by its name."""
        return self.arithmetic or self.pim.units.arithmetic

    @cached_property
    def column_sums(self) -> str:
        """How sums over its columns are formed, by its name; "" if there are none."""
        return self.column_arithmetic or self.pim.units.column_arithmetic

    def left_open(self, name: str) -> str:
        return {"arithmetic": self.sums, "column_arithmetic": self.column_sums}.get(name, "")

    def columns_rule(self, types: ProductTypes, order: Order = CHAIN) -> Rule:
        """How they form sums over the rows of a matrix, for all of its columns."""
        return arithmetic(self.column_sums).rule(types, order)

    def multiply_columns(
        self, a: Operand, b: Operand, acc: Operand | None, types: ProductTypes, order: Order
    ) -> Operand:
        """``a[n, k] @ b[k, 1]``: every row of a lies across a group's banks."""
        return self.columns_rule(types, order).multiply(a, b, acc)

    def arithmetic_name(self) -> str:
        """How sums are formed, in words, for reports."""
        both = " and ".join(filter(None, (self.sums, self.column_sums)))
        return f"{both} (banks of {self.family})"
