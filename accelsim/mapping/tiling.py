"""Tile sizes of a matrix product: a closed-form cost over candidate tiles, vectorised.

The loop nest is: outer tiles (of M or N) > inner tiles (of the other) > K tiles. Every output tile
stays in the accumulators over all of K; operands stream through double buffers, or the outer
operand's whole K panel stays resident while the inner dimension runs.

The cost of a nest is what its resources need (decoders, too), plus what cannot overlap:

    max(array + first load + last store, memory + last tile on the array,
        tiles x round trip of a buffer / buffers) + latencies + drain

``array`` is the exact occupancy of the busiest array, edge tiles included; ``memory`` the traffic
of the nest over the bandwidth of the core (bias rows and the granules of B's rows left out). A
buffer's round trip is the time from one load into it to the next: memory latency, transfer, compute
and drain. The choice is tested against exhaustive simulation on small problems.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from accelsim.errors import CapacityError
from accelsim.hw.dram.service import slowdown
from accelsim.hw.systolic import Systolic
from accelsim.mapping.decoding import Coded, Expander
from accelsim.mapping.placement import ALIGNMENT, readable
from accelsim.mapping.tile_sizes import extents

if TYPE_CHECKING:
    from accelsim.hw.dram.block import Dram

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
# Nests within this factor of the cheapest count as equal; the one with fewest instructions wins.
TOLERANCE = 1.002
MANY = 4  # tiles of so few rows are cut as the array likes it
DEPTHS = ((2, 2), (4, 4), (3, 2), (4, 2), (6, 2))
"""Buffers of a streamed operand, and accumulators: operands wait for the latency of memory and of
the array, accumulators for the store of a tile."""

Axis = Literal["m", "n"]
Split = Literal["m", "n", "job"]


@dataclass(frozen=True)
class Problem:
    """``jobs`` products [m, k] @ [k, n] of one core; bits per element of A, B, C, accumulators.

    Rows of A, B and C lie ``a_stride``, ``b_stride`` and ``c_stride`` bytes apart in main memory
    (0: its tiles are no windows there, or each is one piece); with ``transpose_b`` B is stored as
    [n, k], with ``transpose_a`` A as [k, m]. Tiles of many rows are cut to multiples of
    ``even_rows``.
    ``coded`` says how B is stored where that is not in ``b_bits`` per element.
    """

    m: int
    n: int
    k: int
    jobs: int
    a_bits: int
    b_bits: int
    c_bits: int
    acc_bits: int
    a_stride: int = 0
    b_stride: int = 0
    c_stride: int = 0
    transpose_b: bool = False
    transpose_a: bool = False
    even_rows: int = 1
    coded: Coded | None = None

    @property
    def b_moved_bits(self) -> float:
        """Bits per element of B in main memory."""
        return self.coded.bits if self.coded else self.b_bits

    def extents(self, array: Systolic) -> list[list[int]]:
        """Candidate tile sizes along m, n and k."""
        sizes = (self.m, self.n, self.k)
        found = [extents(*one) for one in zip(sizes, self.granules(array), strict=True)]
        if self.coded and self.coded.cut:
            found[1:] = [[size] for size in self.coded.cut]
        return found

    def granules(self, array: Systolic) -> tuple[int, int, int]:
        """What tiles are multiples of along m, n and k."""
        gm, gn, gk = granules(array)
        gk = math.lcm(gk, self.coded.k_granule) if self.coded else gk
        return (gm if self.m < MANY * self.even_rows else math.lcm(gm, self.even_rows)), gn, gk


@dataclass(frozen=True)
class Resources:
    """What one core offers: ``arrays`` like ``array`` and the memories around them.

    ``a_memory``, ``b_memory`` and ``c_memory`` index ``capacities`` (bytes); equal indices share
    one memory. ``bytes_per_cycle`` and ``latency`` are main memory's, in array cycles (0 bytes:
    unlimited); ``granule`` the bytes of its smallest access. ``port_bytes_per_cycle`` is what the
    core can take in at most (0: unlimited); ``a_readers`` and ``b_readers`` cores receive each
    tile of A and of B that is read once, so it counts for that fraction in main memory. ``alone``:
    nothing runs before or after the product that could fill its ends (a core with a sequencer).
    ``dram`` is main memory if its channels are simulated: then windows take as long as the busiest
    part of it (hw.dram.service). ``expander`` decodes B on its way, if it is coded.
    """

    array: Systolic
    arrays: int
    capacities: tuple[int, ...]
    a_memory: int
    b_memory: int
    c_memory: int
    bytes_per_cycle: float
    latency: float
    granule: int
    port_bytes_per_cycle: float = 0.0
    a_readers: int = 1
    b_readers: int = 1
    alone: bool = False
    dram: Dram | None = None
    expander: Expander | None = None

    def cycles_per_byte(self, readers: int, slowdown: Floats) -> Floats:
        """Cycles that a byte takes which this many cores receive at once."""
        shared = slowdown / (self.bytes_per_cycle * readers)
        if not self.port_bytes_per_cycle:
            return shared
        return np.maximum(shared, 1 / self.port_bytes_per_cycle)


@dataclass(frozen=True)
class Tiling:
    """A loop nest over tiles of [tm, tk] @ [tk, tn].

    ``outer`` is the outermost tiled dimension; ``resident`` keeps that operand's K panel on chip;
    ``split`` says what the arrays of a core share out; ``a_slots``, ``b_slots`` and ``c_slots``
    are the buffers of each operand; ``cycles`` is the closed-form estimate.
    """

    tm: int
    tn: int
    tk: int
    outer: Axis
    resident: bool
    split: Split
    a_slots: int
    b_slots: int
    c_slots: int
    cycles: float
    instructions: float

    def __str__(self) -> str:
        kept = f", {'A' if self.outer == 'm' else 'B'} resident" if self.resident else ""
        shared = f", arrays share {self.split}" if self.split != "m" else ""
        return f"tiles m {self.tm} n {self.tn} k {self.tk}, {self.outer} outermost{kept}{shared}"


def granules(array: Systolic) -> tuple[int, int, int]:
    """What a tile of (m, n, k) should be a multiple of: the array's extent, or a vector of time."""
    time = 16
    if array.dataflow == "ws":
        return time, array.cols, array.fold_rows
    if array.dataflow == "is":
        return array.cols, time, array.fold_rows
    return array.fold_rows, array.cols, time


@lru_cache(maxsize=4096)
def promising_tilings(problem: Problem, resources: Resources) -> tuple[Tiling, ...]:
    """The cheapest and the shortest loop nest of each variant."""
    return tuple(all_tilings(problem, resources))


def best_tiling(problem: Problem, resources: Resources, instruction_limit: int) -> Tiling:
    """The cheapest loop nest that fits; CapacityError if not even the smallest tile does."""
    choices = promising_tilings(problem, resources)
    fitting = [c for c in choices if c.instructions <= instruction_limit]
    if not choices:
        raise _too_small(problem, resources)
    if not fitting:
        return min(choices, key=lambda c: c.instructions)
    fastest = min(c.cycles for c in fitting)
    near = [c for c in fitting if c.cycles <= fastest * TOLERANCE]
    # Deeper rings are never slower, and hide what the closed form does not see.
    return min(near, key=lambda c: (c.instructions, -c.a_slots - c.b_slots - c.c_slots, c.cycles))


def all_tilings(problem: Problem, resources: Resources, every: bool = False) -> Iterator[Tiling]:
    """The best tiling of each nest variant, or ``every`` one of them (for exhaustive checks)."""
    axes = problem.extents(resources.array)
    grid = np.meshgrid(*(np.array(a, dtype=np.int64) for a in axes), indexing="ij")
    tm, tn, tk = (g.ravel() for g in grid)
    splits: tuple[Split, ...] = ("m",) if resources.arrays == 1 else ("n", "m", "job")
    if problem.coded and resources.expander is None:
        splits = splits[-2:]  # coded tiles have no parts
    outers: tuple[Axis, ...] = ("m", "n")
    slow = _slowdowns(problem, resources, tm, tn, tk)
    for split in splits:
        busy, last_busy = _array_cycles(problem, resources, tm, tn, tk, split)
        for outer, resident, depth in product(outers, (True, False), DEPTHS):
            nest = _Nest(problem, resources, tm, tn, tk, outer, resident, split, *depth, slow)
            slots = nest.slots()
            fits = nest.fits(slots)
            cycles = np.where(fits, nest.cycles(busy, last_busy, slots), np.inf)
            instructions = nest.instructions()
            picks = np.flatnonzero(fits) if every else _lowest(cycles, instructions, fits)
            for i in picks:
                yield Tiling(
                    int(tm[i]), int(tn[i]), int(tk[i]), outer, resident, split,
                    int(slots[0][i]), int(slots[1][i]), int(slots[2][i]),
                    float(cycles[i]), float(instructions[i]),
                )  # fmt: skip


def _slowdowns(
    p: Problem, r: Resources, tm: Ints, tn: Ints, tk: Ints
) -> tuple[Floats, Floats, Floats]:
    """How much longer tiles of A, B and C take than their bytes, by where they lie in channels.

    Queues before the channels even out small tiles: as many of them along k (C: along n) count as
    one as the queues hold.
    """
    even = np.ones(len(tm))
    if r.dram is None:
        return even, even, even
    dram = r.dram

    def of(rows: Ints, cols: Ints, bits: int, stride: int, along: int, by_rows: bool) -> Floats:
        times = -(-dram.queue_bytes * 8 // (rows * cols * bits))
        if by_rows:
            rows = np.minimum(rows * times, along)
        else:
            cols = np.minimum(cols * times, along)
        row_bytes = -(-cols * bits // 8)
        return slowdown(dram, rows, row_bytes, stride) if stride else even

    if p.transpose_a:
        a = of(tk, tm, p.a_bits, p.a_stride, p.k, by_rows=True)
    else:
        a = of(tm, tk, p.a_bits, p.a_stride, p.k, by_rows=False)
    if p.transpose_b:
        b = of(tn, tk, p.b_bits, p.b_stride, p.k, by_rows=False)
    else:
        b = of(tk, tn, p.b_bits, p.b_stride, p.k, by_rows=True)
    return a, b, of(tm, tn, p.c_bits, p.c_stride, p.n, by_rows=False)


def _lowest(cycles: Floats, instructions: Floats, fits: Mask) -> Ints:
    if not fits.any():
        return np.empty(0, dtype=np.int64)
    best = np.flatnonzero(cycles <= cycles.min() * TOLERANCE)
    fewest = np.flatnonzero(np.where(fits, instructions, np.inf) == instructions[fits].min())
    return np.array([best[np.argmin(instructions[best])], fewest[0]])


def _edges(size: int, tile: Ints) -> tuple[tuple[Ints, Ints], ...]:
    """((count, extent) of full tiles, (count, extent) of the remainder tile)."""
    full, rest = size // tile, size % tile
    return (full, tile), ((rest > 0).astype(np.int64), rest)


def _array_cycles(
    p: Problem, r: Resources, tm: Ints, tn: Ints, tk: Ints, split: Split
) -> tuple[Ints, Ints]:
    """(occupancy of the busiest array over the whole problem, of one full tile)."""
    gm, gn, _ = granules(r.array)

    def share(extent: Ints, granule: int) -> Ints:
        part = -(-extent // r.arrays)
        return np.minimum(extent, -(-part // granule) * granule)

    def occupancy(m: Ints, n: Ints, k: Ints) -> Ints:
        m = share(m, gm) if split == "m" else m
        n = share(n, gn) if split == "n" else n
        return r.array.cycles(m, n, k)[0]

    total = np.zeros_like(tm)
    for cm, m in _edges(p.m, tm):
        for cn, n in _edges(p.n, tn):
            for ck, k in _edges(p.k, tk):
                total += np.where(cm * cn * ck > 0, cm * cn * ck * occupancy(m, n, k), 0)
    jobs = -(-p.jobs // r.arrays) if split == "job" else p.jobs
    one = occupancy(np.minimum(tm, p.m), np.minimum(tn, p.n), np.minimum(tk, p.k))
    return total * jobs, one


@dataclass
class _Nest:
    """One loop nest variant over all candidate tiles at once."""

    p: Problem
    r: Resources
    tm: Ints
    tn: Ints
    tk: Ints
    outer: Axis
    resident: bool
    split: Split
    depth: int  # buffers per streamed operand and array
    results: int  # accumulators per array
    slow: tuple[Floats, Floats, Floats]  # of tiles of A, B and C, see _slowdowns

    def __post_init__(self) -> None:
        self.nm = -(-self.p.m // self.tm)
        self.nn = -(-self.p.n // self.tn)
        self.nk = -(-self.p.k // self.tk)
        r, (a, b, c) = self.r, self.slow
        if r.bytes_per_cycle:
            self.a_rate = r.cycles_per_byte(r.a_readers, a)
            self.b_rate = r.cycles_per_byte(r.b_readers, b)
            self.c_rate = r.cycles_per_byte(1, c)

    def slots(self) -> tuple[Ints, Ints, Ints]:
        """Buffers of A, B and accumulators; never more than there are tiles to hold."""
        arrays = self.r.arrays if self.split == "job" else 1
        ways, outputs = self.depth * arrays, self.p.jobs * self.nm * self.nn
        a = b = np.minimum(ways, outputs * self.nk)
        if self.resident and self.outer == "m":
            a = np.minimum(self.nk + ways, self.nm * self.p.jobs * self.nk)
        elif self.resident:
            b = np.minimum(self.nk + ways, self.nn * self.p.jobs * self.nk)
        return a, b, np.minimum(self.results * arrays, outputs)

    def _allowed(self) -> Mask:
        """Arrays work on different jobs only if a job is one tile: else the first job's loads
        would hold up the second array."""
        if self.split != "job":
            return np.ones(len(self.tm), dtype=bool)
        single: Mask = self.nm * self.nn * self.nk == 1
        return single

    def fits(self, slots: tuple[Ints, Ints, Ints]) -> Mask:
        p, r = self.p, self.r
        a = self.tm * self.tk * p.a_bits // 8
        b = self.tn * self.tk * p.b_bits // 8
        if p.coded and r.expander is None:
            b = p.coded.tile_bytes(self.tn * self.tk)
        # A bias row lies beside every accumulator tile.
        c = self.tm * self.tn * p.acc_bits // 8 + self.tn * p.acc_bits // 8
        use = [np.zeros_like(self.tm) for _ in r.capacities]
        memories = (r.a_memory, r.b_memory, r.c_memory)
        for memory, nbytes, count in zip(memories, (a, b, c), slots, strict=True):
            use[memory] = use[memory] + (nbytes + 2 * ALIGNMENT) * count
        if r.expander and p.coded:
            waiting = p.coded.tile_bytes(self.tn * self.tk) + 2 * ALIGNMENT
            use[r.expander.staging] = use[r.expander.staging] + waiting * np.minimum(*slots[:2])
        fits = self._allowed()
        for used, capacity in zip(use, r.capacities, strict=True):
            fits &= used <= capacity
        return fits

    def _row_bytes(self, cols: Ints, bits: int) -> Ints:
        """Bytes of main memory that one tile row really moves."""
        nbytes = -(-cols * bits // 8)
        return -(-nbytes // self.r.granule) * self.r.granule

    def _matrix_bytes(self, rows: int, cols: int, tile: Ints, bits: int) -> Ints:
        """Bytes of a matrix moved once in tiles of ``tile`` columns, edge tiles included."""
        full = cols // tile * self._row_bytes(tile, bits)
        return rows * (full + self._row_bytes(cols % tile, bits))

    def _traffic(self) -> Floats:
        """Cycles that the bytes of all jobs take through main memory."""
        p = self.p
        a_once = self._matrix_bytes(p.m, p.k, self.tk, p.a_bits)
        if p.transpose_a:
            a_once = self._matrix_bytes(p.k, p.m, self.tm, p.a_bits)
        b_once = p.k * p.n * p.b_moved_bits / 8
        c_once = self._matrix_bytes(p.m, p.n, self.tn, p.c_bits)
        a_times = 1 if self.resident and self.outer == "m" else self.nn
        b_times = self._b_times()
        a = a_once * a_times * self.a_rate
        b = b_once * b_times * self.b_rate
        return np.asarray(p.jobs * (a + b + c_once * self.c_rate), dtype=np.float64)

    def _b_times(self) -> Ints | int:
        """How often B is brought on chip."""
        return 1 if self.resident and self.outer == "n" else self.nm

    def _decoding(self) -> tuple[Floats, Floats]:
        """Cycles of the decoders for the whole problem, and of one for one tile of B."""
        p, expander, tile = self.p, self.r.expander, self.tn * self.tk
        if expander is None or p.coded is None:
            return np.zeros(len(tile)), np.zeros(len(tile))
        return expander.cycles(
            p.coded, p.jobs * p.n * p.k * self._b_times(), tile, self.nn * self.nk
        )

    def cycles(self, busy: Ints, last_busy: Ints, slots: tuple[Ints, Ints, Ints]) -> Floats:
        """Closed-form cost, array cycles."""
        r, p = self.r, self.p
        drain = r.array.fill_drain_cycles
        decoding, first = self._decoding()
        if not r.bytes_per_cycle:
            return np.asarray(np.maximum(busy + first, decoding + last_busy) + drain, np.float64)
        a, b = self._tile_cycles()
        last = self.tm * self.tn * p.c_bits / 8 * self.c_rate
        exposed = a + b + last + first
        slowest = np.maximum(busy + exposed, self._traffic() + first + last_busy)
        slowest = np.maximum(slowest, decoding + a + b + last_busy)
        slowest = np.maximum(slowest, self._round_trips(last, last_busy, slots))
        # What nothing overlaps with: the ends of the memory's work or, if less, of the arrays'.
        ends = np.minimum(exposed, last_busy) if r.alone else exposed
        if r.expander:  # coded tiles are small: a store that they wait behind empties their ring
            waits = last - (np.minimum(*slots[:2]) - 1) * last_busy
            busy = busy + p.jobs * self.nm * self.nn * np.maximum(waits, 0)
        slowest = np.maximum(slowest, self._phases(busy) + ends)
        total: Floats = slowest + 2 * r.latency + drain
        return total

    def _tile_cycles(self) -> tuple[Floats, Floats]:
        """Cycles that a tile of A and one of B take from main memory."""
        p = self.p
        a = self.tm * self.tk * p.a_bits / 8 * self.a_rate
        b = self.tn * self.tk * p.b_moved_bits / 8 * self.b_rate
        return a, b

    def _phases(self, busy: Ints) -> Floats:
        """Output tiles that fetch the resident panel, and the others, each by its own limit.

        A panel arrives while its first output tile is computed; buffers are too shallow to spread
        that load over the following tiles.
        """
        p = self.p
        outputs = self.nm * self.nn
        # Average tiles, so that edge tiles count for what they hold.
        a = p.m * p.k * p.a_bits / 8 / self.nm * self.a_rate
        b = p.k * p.n * p.b_moved_bits / 8 / self.nn * self.b_rate
        c = p.m * p.n * p.c_bits / 8 / outputs * self.c_rate
        work = busy / (p.jobs * outputs)
        outer = self.nm if self.outer == "m" else self.nn
        kept = (a if self.outer == "m" else b) if self.resident else 0.0
        decode = self._decoding()[0] / (p.jobs * self._b_times() * self.nn)
        again = decode * (not self.resident or self.outer == "m")
        fetching = np.maximum(np.maximum(work, decode), a + b + c)
        running = np.maximum(np.maximum(work, again), a + b + c - kept)
        phases: Floats = p.jobs * (outer * fetching + (outputs - outer) * running)
        return phases

    def _round_trips(self, last: Floats, tile_busy: Ints, slots: tuple[Ints, Ints, Ints]) -> Floats:
        """What the turnover of the buffers allows: a tile waits for a free one."""
        r, p = self.r, self.p
        drain = r.array.fill_drain_cycles
        outputs = p.jobs * self.nm * self.nn
        a_slots, b_slots, c_slots = slots
        a, b = self._tile_cycles()
        if self.resident:
            streamed, transfer = (b_slots, b) if self.outer == "m" else (a_slots, a)
        else:
            streamed, transfer = b_slots, a + b
        load = r.latency + transfer + tile_busy + drain
        if r.expander and not (self.resident and self.outer == "n"):
            load = np.maximum(r.latency + transfer, tile_busy + drain) + self._decoding()[1]
        store = r.latency + last + self.nk * tile_busy + drain
        loads = outputs * self.nk / streamed * load
        stores = outputs / c_slots * store
        # The caller adds the latency and drain of the ends once more.
        turns: Floats = np.maximum(loads, stores) - r.latency - drain
        return turns

    def instructions(self) -> Floats:
        """Instructions of the nest, joins aside."""
        tiles = self.nm * self.nn * self.nk
        outer = self.nm if self.outer == "m" else self.nn
        loads = tiles + (outer * self.nk if self.resident else tiles)
        decodes = self._b_times() * self.nn * self.nk if self.r.expander else 0
        ways = self.r.arrays if self.split != "job" else 1
        count = self.p.jobs * (loads + decodes + tiles * ways + 2.0 * self.nm * self.nn)
        return np.asarray(count, dtype=np.float64)


def _too_small(p: Problem, r: Resources) -> CapacityError:
    tm, tn, tk = (one[0] for one in p.extents(r.array))
    a, b, c = tm * tk * p.a_bits // 8, tn * tk * p.b_bits // 8, tm * tn * p.acc_bits // 8
    have = " + ".join(readable(c) for c in r.capacities)
    return CapacityError(
        f"the smallest tile [{tm}, {tk}] @ [{tk}, {tn}] needs buffers of {readable(a)},"
        f" {readable(b)} and {readable(c)} (accumulators)"
        f"{', and for coded bytes' if r.expander else ''}, up to two of each on"
        f" {2 * ALIGNMENT}-byte boundaries, more than the on-chip memory of {have}:"
        " enlarge the memories or use a smaller array"
    )
