"""Systolic array whose cells leave pruned weights out: N of every M along the reduction.

A group is M neighbouring activations along k with the N weights that are kept of them. The group's
activations are at every cell of a row together, and an M:1 multiplexer, steered by the log2 M index
bits that are stored with each weight, picks the one that a kept weight multiplies. Groups take N
cycles of a cell, so products run M / N times as fast as dense ones, weights and their indices come
at the dense rate and activations at M / N times it (SAT: Fang et al., Efficient N:M Sparse DNN
Training Using Algorithm, Architecture, and Dataflow Co-Design, IEEE TCAD 2023).

    groups    dataflow   a fold takes of k   time of a fold    loading
    in time   ws         R M                 m N               R N      (weights)
              is         R M                 n N               R N      (activations, M in N cycles)
    in rows   ws         floor(R / N) M      m                 R
              is         floor(R / N) M      n                 R
    both      os         all of it           (k / M) N         R        (finished results leave)

``in time`` is SAT's unified cell: one multiplier takes the N weights of a group one by one. ``in
rows`` gives each kept weight a row of its own; N rows share a group's activations. Dense operands
run as on any systolic array.

Adders. A floating-point adder of ``accumulate_latency`` L cycles can start an addition in every
cycle, but a sum takes its next product only when the last addition is done. A cell therefore works
on ``interleave`` I independent results in turn: it starts D products onto each of a <= I results in
(D - 1) max(a, L) + a cycles. D is all kept products of a result where it stays in its cell (os,
whose folds have R I rows of results), N where groups are in time, and 1, which waits for nothing,
where the partial sum runs on to the next row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np

from accelsim.encoding.encodings import encoding
from accelsim.encoding.nm import NofM
from accelsim.errors import AccelsimError
from accelsim.hw.block import Cost, Ints, Work, block, require
from accelsim.hw.systolic import Systolic
from accelsim.numerics.arithmetic import FP32_TYPES, ProductTypes, arithmetic
from accelsim.numerics.orders import CHAIN, Order
from accelsim.numerics.rules import Rule
from accelsim.quantities import Cycles, Picojoules


@dataclass(frozen=True)
class Pattern:
    """``kept`` of every ``group`` weights along k; 1 of 1 is dense."""

    kept: int = 1
    group: int = 1

    @property
    def is_sparse(self) -> bool:
        return self.group > 1

    @property
    def index_bits(self) -> int:
        """Bits that steer the multiplexer for one weight."""
        return (self.group - 1).bit_length()

    def products(self, k: Ints) -> Ints:
        """Weights that are multiplied of ``k``."""
        return -(-k // self.group) * self.kept


DENSE = Pattern()


def pattern_of(name: str) -> Pattern | None:
    """The pattern of an encoding, None of one that is not N:M."""
    code = encoding(name)
    return Pattern(code.n, code.m) if isinstance(code, NofM) else None


@block("sparse_systolic")
@dataclass(frozen=True, kw_only=True)
class SparseSystolic(Systolic):
    """Systolic array of cells with ``mux`` : 1 multiplexers for weights stored as nm:N:M, M <= mux.

    ``groups`` says whether a group's weights take turns in a cell ("time") or have a row each
    ("rows"); ``accumulate_latency`` and ``interleave`` as in the module. ``mux_pj`` is the energy
    of choosing one activation, ``index_bit_pj`` of bringing one index bit to a cell.
    """

    mux: int = 16
    groups: Literal["time", "rows"] = "time"
    accumulate_latency: Cycles = 1
    interleave: int = 1
    mux_pj: Picojoules = 0.0
    index_bit_pj: Picojoules = 0.0

    def check(self) -> None:
        super().check()
        require(1 <= self.mux <= 256, f"mux must be from 1 to 256 inputs, not {self.mux}")
        latency = self.accumulate_latency
        require(latency >= 1, f"accumulate_latency must be at least 1, not {latency}")
        require(self.interleave >= 1, f"interleave must be at least 1, not {self.interleave}")
        chain = arithmetic(self.arithmetic).rule(FP32_TYPES).adders == "chain"
        require(
            chain,
            f"cells that leave weights out add one product after the other (sequential-fp32,"
            f" fma-fp32), not by {self.arithmetic}",
        )

    @property
    def pattern(self) -> Pattern:
        """What it multiplies: dense weights, unless it is ``taking`` others."""
        return DENSE

    def decodes(self, encoding: str) -> bool:
        pattern = pattern_of(encoding)
        if pattern is None or pattern.group > self.mux:
            return False
        return self.groups == "time" or self.dataflow == "os" or pattern.kept <= self.rows

    def taking(self, encoding: str) -> SparseSystolic:
        pattern = pattern_of(encoding) if encoding else DENSE
        if pattern is None or (encoding and not self.decodes(encoding)):
            raise AccelsimError(
                f"cells with {self.mux}:1 multiplexers do not take weights stored as {encoding}"
            )
        settings = {f.name: getattr(self, f.name) for f in fields(SparseSystolic)}
        return _Taking(**settings, weights_pattern=pattern)

    def energy_pj_per_action(self) -> dict[str, float]:
        extra = {"mux": self.mux_pj, "index_bit": self.index_bit_pj}
        return {**super().energy_pj_per_action(), **extra}

    # -- folds -----------------------------------------------------------------------------------

    @property
    def _turns(self) -> int:
        """Weights that take turns in a cell."""
        return self.pattern.kept if self.groups == "time" else 1

    @property
    def fold_rows(self) -> int:
        if self.dataflow == "os":
            return self.rows * self.interleave
        whole = self.rows if self.groups == "time" else self.rows // self.pattern.kept
        return whole * self.pattern.group

    def _fold_cycles(self, along_rows: Ints, time: Ints) -> Ints:
        """Cycles for which the cells of one fold multiply."""
        if self.dataflow == "os":
            results = -(-along_rows // self.rows)
            return self._chains(self.pattern.products(time), results)
        batches, rest = np.divmod(time, self.interleave)
        turns = np.full_like(time, self._turns)
        return batches * self._chains(turns, self.interleave) + self._chains(turns, rest)

    def _chains(self, products: Ints, results: Ints | int) -> Ints:
        """Cycles in which a cell starts ``products`` additions onto each of ``results`` in turn."""
        spacing = np.maximum(results, self.accumulate_latency)
        chains: Ints = np.where(np.asarray(results) > 0, (products - 1) * spacing + results, 0)
        return chains

    def _exchange_cycles(self, along_rows: Ints) -> Ints:
        """Cycles in which stationary operands are loaded, or finished results leave."""
        used = np.minimum(along_rows, self.fold_rows)
        if self.dataflow == "os":
            results = -(-used // self.rows)
            each = (
                np.minimum(used, self.rows)
                if self.load_used_rows
                else np.full_like(used, self.rows)
            )
            leaving: Ints = results * each
            return leaving
        if not self.load_used_rows:
            return np.full_like(used, self.rows * self._turns)
        groups = -(-used // self.pattern.group)
        return groups * self.pattern.kept

    @property
    def fill_drain_cycles(self) -> int:
        latency = self.accumulate_latency
        if self.dataflow == "os":
            return self.rows + self.cols - 2 + latency - 1
        load = (self.weight_load or self.rows) * self._turns
        # A partial sum runs on to the next row when its last product here has been added.
        hop = (self._turns - 1) * max(self.interleave, latency) + latency
        return load + (self.rows - 1) * hop + self.cols - 1 + latency - 1

    def cycles(self, m: Ints, n: Ints, k: Ints) -> tuple[Ints, Ints]:
        along_rows, along_cols, time = self.spatial_and_time(m, n, k)
        strips = -(-along_cols // self.cols)
        whole, rest = np.divmod(along_rows, self.fold_rows)
        folds = strips * (whole + (rest > 0))
        of_whole = self._fold_cycles(np.full_like(rest, self.fold_rows), time)
        of_rest = self._fold_cycles(rest, time)
        last = np.where(rest > 0, of_rest, of_whole)
        if not self.pipelined:
            total = strips * (whole * of_whole + np.where(rest > 0, of_rest, 0))
            total = total + folds * self.fill_drain_cycles
            return total, total
        exchange = self._exchange_cycles(along_rows)
        busy = np.maximum(of_whole, exchange)
        # Fewer interleaved results leave sooner.
        leaving = self._exchange_cycles(rest) if self.dataflow == "os" else exchange
        leaving = np.where(self.load_used_rows, exchange, leaving)
        busy_rest = np.maximum(of_rest, leaving)
        streaming = strips * (whole * busy + np.where(rest > 0, busy_rest, 0))
        bubbles = folds * self.switch
        early = last - np.where(rest > 0, busy_rest, busy)
        latency = streaming + bubbles - self.switch + early + self.fill_drain_cycles
        return streaming + bubbles, latency

    # -- products --------------------------------------------------------------------------------

    def cost(self, work: Work) -> Cost:
        costs = [(rows, self.taking(name)._cost(part)) for name, rows, part in _by_encoding(work)]
        zero = np.zeros(len(work), dtype=np.int64)
        occupancy, latency = zero.copy(), zero.copy()
        actions = {name: zero.copy() for name in self.energy_pj_per_action()}
        for rows, cost in costs:
            occupancy[rows], latency[rows] = cost.occupancy_cycles, cost.latency_cycles
            for name, count in cost.actions.items():
                actions[name][rows] = count
        return Cost(occupancy, latency, actions)

    def _cost(self, work: Work) -> Cost:
        """Of products whose weights are of this array's pattern."""
        swap = self._holds_a(work)
        m, n = np.where(swap, work.n, work.m), np.where(swap, work.m, work.n)
        occupancy, latency = self.cycles(m, n, work.k)
        kept = self.pattern.products(work.k)
        products = work.m * work.n * kept
        chosen = products if self.pattern.is_sparse else np.zeros_like(products)
        weights = super().operand_passes(work)[1] * kept * work.n
        bits = weights * self.pattern.index_bits
        return Cost(occupancy, latency, {"mac": products, "mux": chosen, "index_bit": bits})

    def operand_passes(self, work: Work) -> tuple[Ints, Ints, Ints, Ints]:
        passes = np.zeros((4, len(work)), dtype=np.int64)
        for name, rows, part in _by_encoding(work):
            passes[:, rows] = Systolic.operand_passes(self.taking(name), part)
        return passes[0], passes[1], passes[2], passes[3]

    def rule(self, types: ProductTypes, order: Order = CHAIN) -> Rule:
        """As any systolic array's, but a fold is as long as what its rows take of k.

        Left-out products are zeros, which change no running sum that began with +0, so the bits
        are those of a dense product of the pruned weights in folds of that length.
        """
        return Systolic.rule(self.taking(types.encoding), types, order)


@dataclass(frozen=True, kw_only=True)
class _Taking(SparseSystolic):
    """The same array while its weights are of one pattern."""

    weights_pattern: Pattern = DENSE

    @property
    def pattern(self) -> Pattern:
        return self.weights_pattern

    def cost(self, work: Work) -> Cost:
        return self._cost(work)


def _by_encoding(work: Work) -> Iterator[tuple[str, Ints, Work]]:
    """(encoding of the weights, which instructions, these alone), one for each encoding."""
    coded = np.broadcast_to(work.coded, len(work))
    names = np.array([form.encoding for form in work.forms] + [""])
    for name in np.unique(names[coded]).tolist():
        rows = np.flatnonzero(names[coded] == name)
        yield str(name), rows, _some(work, rows)


def _some(work: Work, rows: Ints) -> Work:
    """Some instructions of a unit's work."""
    columns = {f.name: getattr(work, f.name) for f in fields(work) if f.name != "forms"}
    return replace(work, **{n: c[rows] for n, c in columns.items() if len(c) == len(work)})
