"""One token after another on a memory that computes and a small ASIC beside it (PIM-GPT).

All products with matrices are the family's own command streams in the channels (hw/pim), one after
the other. The ASIC (hw/adder_array) has what is left: softmax, norms, activations, residuals, and
the partial sums of inputs longer than a row. Results leave the banks tile by tile, and the ASIC
works on those that are there (``overlap``), so of n tiles of a product that takes P and functions
that take A, together

    P + A / n  where A <= P,      A + P / n  otherwise      (two stages, n equal pieces)

A norm waits for all elements; a softmax is one piece for each head, between all scores and the
values of its head. Refresh takes tRFC out of every tREFI of all of it.

Source: Wu et al., PIM-GPT, npj Unconventional Computing 2024, as far as it is known here: sizes of
the ASIC and its clock, powers of MAC units and ASIC, functions by additions and multiplications.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import numpy as np

from accelsim.errors import AccelsimError, CapacityError
from accelsim.hw.adder_array import AdderArray
from accelsim.hw.block import Work, require
from accelsim.hw.dram.commands import Command
from accelsim.hw.dram.energy import command_energy_pj
from accelsim.hw.pim.catalog import family as find_family
from accelsim.hw.pim.family import Family, Role
from accelsim.hw.pim.operators import Attend, Gemv, Logit, Operator
from accelsim.hw.pim.programs.bank_attention import append_cycles, cache_rows, row_elements
from accelsim.hw.pim.run import PimRun, family_digest, run_pim
from accelsim.program.opcodes import REDUCTIONS, Function, Opcode
from accelsim.system.spending import NOTHING, Spent
from accelsim.workload import operators as ops
from accelsim.workload.graph import Graph

F = Function
Steps = list[tuple[Function, int]]

STREAMED = (ops.Activation, ops.Residual, ops.Elementwise)
"""Operators that take the results of a product as they come."""

PIM_GPT_ASIC = AdderArray(
    lanes=128,
    adders=256,
    memory=("sram",),
    latency=4,
    functions="powers-fp32",
    terms={"exp": 3, "reciprocal": 2, "rsqrt": 1},
)
"""256 adders and 128 multipliers; as many terms and steps as a bf16 result can tell."""


@dataclass(frozen=True)
class BankDecoder:
    """Channels of a PIM ``family`` ("pim-gpt" or a family itself) and an ASIC at ``asic_hz``.

    ``mac_mw`` is the power of a channel's arithmetic while it works, ``asic_mw`` that of the ASIC
    at 1 GHz. ``channels`` 0: as many as the family has. ``mac_reads``: a column of all banks takes
    the energy of so many reads (0: the family's figure, a read for each bank).
    """

    family: str | Family = "pim-gpt"
    asic: AdderArray = field(default=PIM_GPT_ASIC)
    asic_hz: int = 1_000_000_000
    channels: int = 0
    overlap: bool = True
    mac_reads: float = 0.0
    mac_mw: float = 149.29
    asic_mw: float = 304.59

    def __post_init__(self) -> None:
        for name, least in (("channels", 0), ("asic_hz", 1), ("mac_reads", 0)):
            require(getattr(self, name) >= least, f"{name} must be at least {least}")
        self.asic.check()

    @cached_property
    def pim(self) -> Family:
        """The family, with as many channels as asked for."""
        found = find_family(self.family) if isinstance(self.family, str) else self.family
        found = replace(found, channels=self.channels) if self.channels else found
        return self._with_energy(found) if self.mac_reads else found

    def _with_energy(self, family: Family) -> Family:
        read = command_energy_pj(family.device)[Command.RD]
        return replace(
            family,
            commands=tuple(
                replace(one, energy_pj=self.mac_reads * read) if one.role == Role.COLUMN else one
                for one in family.commands
            ),
        )

    @cached_property
    def _as_key(self) -> _ByDigest:
        return _ByDigest(self.pim, family_digest(self.pim))

    def decode(self, graph: Graph, tokens: int) -> list[Spent]:
        """What each of ``tokens`` tokens takes, the first with a cache of itself alone.

        ``graph`` is one decode step; only its attention depends on how long the cache is.

        Raises:
            AccelsimError: the graph has operators that the machine does not compute.
        """
        walk = _Walk(self, graph)
        attention = walk.attention
        self.check_room(graph.name, walk, tokens)
        if attention is None:
            return [walk.spent] * tokens
        layers = walk.layers
        return [
            walk.spent + self.attend(attention, cached).times(layers)
            for cached in range(1, tokens + 1)
        ]

    def check_room(self, name: str, walk: _Walk, tokens: int) -> None:
        """Raise CapacityError if weights and caches are more rows than a bank has."""
        needed = walk.rows
        if walk.attention is not None:
            heads, size = walk.attention.heads, walk.attention.head_dim
            needed += walk.layers * cache_rows(self.pim, heads, size, tokens)
        rows = self.pim.device.organization.rows
        if needed > rows:
            raise CapacityError(
                f"{name} with {tokens:,} tokens: {needed:,} rows of every bank of"
                f" {self.pim.channels} channels; accepted: up to {rows:,} (more channels)"
            )

    def product(self, m: int, n: int, after: Steps | None = None) -> Spent:
        """A matrix beside the banks times a vector, and what the ASIC does with its results."""
        chunks = math.ceil(n / row_elements(self.pim))
        steps = [(F.ADD, m * (chunks - 1)), *(after or [])]
        return self.both(self.banks(Gemv(m, n)), steps, self.tiles(m, n))

    def tiles(self, m: int, n: int) -> int:
        """Rows of every bank that a matrix takes."""
        all_banks = self.pim.channels * self.pim.banks
        return math.ceil(n / row_elements(self.pim)) * math.ceil(m / all_banks)

    def attend(self, op: ops.Attention, cached: int) -> Spent:
        """Keys and values of the token into the cache, scores, softmax, weighted values."""
        family, heads, size = self.pim, op.heads, op.head_dim
        all_banks = family.channels * family.banks
        # Streams change where a group of tokens, or a column of them, is full.
        logit = Logit(math.ceil(cached / all_banks) * all_banks, heads, size)
        macs = family.units.macs
        attend = Attend(math.ceil(cached / macs) * macs, heads, size)
        append = append_cycles(family, heads, size) / family.device.clock_hz
        softmax: Steps = [(F.MUL_IMM, heads * size)]  # 1 / sqrt(d), on the query
        one = [(F.ROW_MAX, cached), (F.EXP_SUB, cached), (F.ROW_SUM, cached)]
        last = [(F.RECIPROCAL, 1), (F.MUL, size)]  # divided once the values are added
        softmax += [(function, elements) for function, elements in one + last for _ in range(heads)]
        scores = self.banks(logit)
        return (
            Spent(seconds=append * self.refreshing, pim_seconds=append * self.refreshing)
            + scores
            + self.both(self.banks(attend), softmax, heads)
        )

    def banks(self, work: Operator) -> Spent:
        """A product in the channels, refresh included."""
        run = _run(self._as_key, work)
        seconds = run.seconds * self.refreshing
        commands = run.commands
        columns, rows = commands.get("MAC_ABK", 0), commands.get("ACT_ABK", 0)
        arithmetic = self.mac_mw * run.channels * seconds * columns / (run.channels * run.cycles)
        return Spent(
            seconds=seconds,
            pim_seconds=seconds,
            pim_joules=run.energy_pj["total"] * 1e-12 * self.refreshing,
            mac_joules=arithmetic * 1e-3,
            columns=columns,
            rows=rows,
        )

    def both(self, product: Spent, steps: Steps, pieces: int) -> Spent:
        """A product in so many pieces, whose results the ASIC works on."""
        functions = self.functions(steps)
        p, a = product.seconds, functions.seconds
        if not self.overlap:
            return product + functions
        seconds = p + a / pieces if a <= p else a + p / pieces
        return replace(product + functions, seconds=seconds)

    def functions(self, steps: Steps, *, chained: bool = False) -> Spent:
        """Functions on the ASIC; ``chained`` ones each wait for the result before."""
        steps = [(function, elements) for function, elements in steps if elements]
        if not steps:
            return NOTHING
        cost = self.asic.cost(_work(steps))
        cycles = cost.latency_cycles if chained else cost.occupancy_cycles
        seconds = int(cycles.sum()) / self.asic_hz
        return Spent(seconds=seconds, asic_seconds=seconds)

    @property
    def refreshing(self) -> float:
        """Time with refresh over time without."""
        t = self.pim.device.timings
        return 1 + t["tRFC"] / (t["tREFI"] - t["tRFC"])

    @property
    def standby_watts(self) -> float:
        """Of the memory's channels while only the ASIC works, all rows closed."""
        power = self.pim.device.power
        idle = getattr(power, "vdd", 0.0) * getattr(power, "idd2n", 0.0) * self.pim.channels
        return idle * 1e-3

    def joules(self, spent: Spent) -> float:
        """Energy of memory, arithmetic and ASIC."""
        waiting = max(0.0, spent.seconds - spent.pim_seconds) * self.standby_watts
        asic = self.asic_mw * 1e-3 * self.asic_hz / 1e9 * spent.seconds
        return spent.pim_joules + spent.mac_joules + waiting + asic


class _Walk:
    """What the operators of a decode step take, attention left out."""

    def __init__(self, decoder: BankDecoder, graph: Graph) -> None:
        self.decoder, self.spent = decoder, NOTHING
        self.attention: ops.Attention | None = None
        self.layers = self.rows = 0
        self.product: ops.Gemm | None = None
        self.after: Steps = []
        for op in graph.operators:
            self.take(op)
        self.flush()

    def take(self, op: ops.Operator) -> None:
        """One operator; element-wise ones join the product before them."""
        if isinstance(op, ops.Gemm):
            self.flush()
            if op.m * op.batch != 1:
                raise AccelsimError(
                    f"{op}: {op.m} x {op.batch} rows; accepted: decode of a batch of 1"
                )
            self.product, self.after = op, [(F.ADD, op.n)] if len(op.inputs) > 2 else []
        elif isinstance(op, STREAMED):
            self.after.append((Function[op.function.upper()], op.rows * op.cols))
        elif isinstance(op, ops.LayerNorm):
            self.flush()
            self.spent += self.decoder.functions(_norm(op.cols), chained=True)
        elif isinstance(op, ops.Attention):
            self.flush()
            self.attention, self.layers = op, self.layers + 1
        elif isinstance(op, ops.EmbeddingGather):
            self.spent += self.gather(op.hidden)
        elif not isinstance(op, ops.KvAppend):  # part of attention
            raise AccelsimError(f"{op}: not computed here; accepted: operators of GPT-2")

    def gather(self, elements: int) -> Spent:
        """A row of a table out of one bank."""
        family = self.decoder.pim
        t, macs = family.device.timings, family.units.macs
        cycles = t["tRCDRD"] + math.ceil(elements / macs) * t["tCCD_S"] + t["CL"] + t["tRP"]
        seconds = cycles / family.device.clock_hz
        return Spent(seconds=seconds, pim_seconds=seconds)

    def flush(self) -> None:
        """The product that was under way, and its functions."""
        if self.product is not None:
            m, n = self.product.n, self.product.k
            self.rows += self.decoder.tiles(m, n)
            self.spent += self.decoder.product(m, n, self.after)
        else:
            self.spent += self.decoder.functions(self.after)
        self.product, self.after = None, []


def _norm(n: int) -> Steps:
    """Mean, centred variance, scale and shift."""
    return [
        (F.ROW_SUM, n), (F.MUL_IMM, 1), (F.SUB, n), (F.MUL, n), (F.ROW_SUM, n), (F.MUL_IMM, 1),
        (F.ADD_IMM, 1), (F.RSQRT, 1), (F.MUL, n), (F.MUL, n), (F.ADD, n),
    ]  # fmt: skip


def _work(steps: Steps) -> Work:
    function = np.array([int(f) for f, _ in steps], dtype=np.int64)
    elements = np.array([n for _, n in steps], dtype=np.int64)
    reduces = np.isin(function, [int(f) for f in REDUCTIONS])
    none, one = np.zeros_like(function), np.ones_like(function)
    return Work(
        opcode=np.full_like(function, int(Opcode.VECTOR)),
        function=function,
        flags=none,
        m=one,
        n=np.where(reduces, 1, elements),
        k=np.where(reduces, elements, 1),
        read_bytes=none,
        write_bytes=none,
        source_format=none,
        target_format=none,
        target_storage_bytes=none,
    )


@dataclass(frozen=True)
class _ByDigest:
    """A family by what it is, for a cache of runs."""

    family: Family = field(compare=False)
    digest: str


@lru_cache(maxsize=4096)
def _run(key: _ByDigest, work: Operator) -> PimRun:
    """A run without refresh, kept by family and operator."""
    return run_pim(key.family, work, refresh=False)
