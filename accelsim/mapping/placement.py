"""Where bytes live: a scratchpad arena for one operator, a heap with lifetimes for tensors."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

from accelsim.errors import CapacityError
from accelsim.numerics.formats import Format, row_bytes
from accelsim.program.builder import Builder
from accelsim.program.storage import Storage, View
from accelsim.program.table import StorageInfo
from accelsim.workload.attention_operators import Attention

if TYPE_CHECKING:
    from collections.abc import Mapping

    from accelsim.mapping.bank_layouts import Placed
    from accelsim.workload.graph import Graph
    from accelsim.workload.tensors import TensorSpec

# Tensors and buffers start on a boundary that every DMA and DRAM burst of the field divides.
ALIGNMENT = 64
# What fills a page of main memory begins on one, as with device allocators (64 KiB is the small
# page of CUDA's virtual memory): large tensors begin where the channels begin their turns.
PAGE = 1 << 16


def aligned(nbytes: int, boundary: int = ALIGNMENT) -> int:
    """Bytes or an address rounded up to a boundary."""
    return -(-nbytes // boundary) * boundary


def boundary_of(nbytes: int) -> int:
    """Where something of this size may begin and end in main memory: at multiples of the largest
    power of two in it, so that it lies across no more turns over the channels than it must."""
    return min(PAGE, max(ALIGNMENT, 1 << max(0, nbytes.bit_length() - 1)))


def readable(nbytes: int) -> str:
    """Bytes for a message: '12.5 MiB'."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if nbytes >= size:
            return f"{nbytes / size:.4g} {unit}"
    return f"{nbytes} bytes"


@dataclass
class Arena:
    """Memory from address ``start`` on, handed out piece by piece to one operator.

    The next operator starts again there; its buffers wait for the earlier ones that they overlap.
    ``paged`` for main memory: large buffers begin on pages.
    """

    build: Builder
    space: int
    name: str
    capacity: int
    start: int = 0
    paged: bool = False
    used: int = 0
    _live: list[Storage] = field(default_factory=list)
    _earlier: list[Storage] = field(default_factory=list)

    def reset(self) -> None:
        """Begin a new operator: everything may be overwritten once its last user is done."""
        covered = self.start + self.used
        # Older storages beyond what the last operator used are still the latest at their place.
        self._earlier = self._live + [s for s in self._earlier if s.base + s.nbytes > covered]
        self._live = []
        self.used = 0

    @property
    def free(self) -> int:
        """Bytes still available to this operator."""
        return self.capacity - self.used

    def take(
        self,
        name: str,
        nbytes: int,
        role: str = "buffer",
        shape: tuple[int, ...] = (),
        fmt: str = "",
    ) -> Storage:
        """Reserve ``nbytes``; raises CapacityError saying what did not fit."""
        boundary = boundary_of(nbytes) if self.paged else ALIGNMENT
        base, size = aligned(self.start + self.used, boundary), aligned(nbytes, boundary)
        if base + size > self.start + self.capacity:
            raise CapacityError(
                f"{role} {name!r} of {readable(nbytes)} does not fit into {self.name}:"
                f" {readable(self.free)} of {readable(self.capacity)} left"
            )
        self.used = base + size - self.start
        after = [s for s in self._earlier if s.base < base + size and base < s.base + s.nbytes]
        # Scratch tensors are the current operator's product; buffers have no single producer.
        producer = self.build.current_operator if role == "scratch" else -1
        info = StorageInfo(name, self.space, base, nbytes, role, shape, fmt, producer)
        storage = self.build.storage(info, after)
        self._live.append(storage)
        return storage

    def buffer(self, name: str, rows: int, cols: int, fmt: Format) -> View:
        """Reserve a packed [rows, cols]."""
        return self.take(name, rows * row_bytes(cols, fmt)).view(rows, cols, fmt)

    def split(self, parts: int) -> list[Arena]:
        """As many arenas of equal size at its place, each to be handed out anew by itself."""
        size = self.capacity // parts // ALIGNMENT * ALIGNMENT
        earlier = [*self._live, *self._earlier]
        return [
            Arena(
                self.build, self.space, self.name, size, self.start + i * size, self.paged,
                _earlier=list(earlier),
            )
            for i in range(parts)
        ]  # fmt: skip

    def rejoin(self, parts: list[Arena]) -> None:
        """What its parts handed out was handed out by it."""
        for part in parts:
            self._live += [*part._live, *part._earlier]
        self.used = self.capacity


@dataclass(frozen=True)
class Plan:
    """Where every tensor of a graph lies: in main memory, or ``on_chip``.

    ``base`` gives byte addresses; ``follows`` names the tensors whose place a tensor reuses, whose
    last users it must wait for; ``peak`` is the first byte that no tensor ever uses.
    """

    base: dict[str, int]
    follows: dict[str, tuple[str, ...]]
    peak: int
    placed: Mapping[str, Placed] = field(default_factory=dict)
    on_chip: frozenset[str] = frozenset()


@dataclass
class Heap:
    """First-fit heap over the addresses of one memory."""

    name: str
    capacity: int
    peak: int = 0
    _free: list[tuple[int, int]] = field(default_factory=list)  # (base, size), sorted

    def __post_init__(self) -> None:
        self._free = [(0, self.capacity)]

    def take(self, name: str, nbytes: int, boundary: int = 0) -> int:
        """Reserve room and return its base address; raises CapacityError if there is none."""
        boundary = boundary or boundary_of(nbytes)
        size = aligned(nbytes, boundary)
        for i, (start, extent) in enumerate(self._free):
            base = aligned(start, boundary)
            left = start + extent - base - size
            if left >= 0:
                rest = [(start, base - start), (base + size, left)]
                self._free[i : i + 1] = [one for one in rest if one[1] > 0]
                self.peak = max(self.peak, base + size)
                return base
        room = sum(extent for _, extent in self._free)
        raise CapacityError(
            f"tensor {name!r} of {readable(nbytes)} does not fit into {self.name}:"
            f" {readable(room)} of {readable(self.capacity)} left"
        )

    def fits(self, nbytes: int, boundary: int) -> bool:
        """Whether there is room."""
        size = aligned(nbytes, boundary)
        return any(aligned(at, boundary) + size <= at + room for at, room in self._free)

    def give_back(self, base: int, nbytes: int, boundary: int = 0) -> None:
        """Free an extent again, merging it with its neighbours."""
        merged: list[tuple[int, int]] = []
        extent = base, aligned(nbytes, boundary or boundary_of(nbytes))
        for start, size in sorted([*self._free, extent]):
            if merged and merged[-1][0] + merged[-1][1] == start:
                merged[-1] = (merged[-1][0], merged[-1][1] + size)
            else:
                merged.append((start, size))
        self._free = merged


def plan_tensors(
    graph: Graph,
    memory: str,
    capacity: int,
    placed: Mapping[str, Placed] | None = None,
    chip: Heap | None = None,
) -> Plan:
    """Place weights, inputs, caches and outputs for good, activations from first to last use, what
    is updated in place where the old one is.

    Those of ``placed`` lie in banks, in regions of their own. Activations lie in ``chip`` where it
    has room for them, if there are no parts that run side by side.
    """
    heap = Heap(memory, capacity)
    placed = placed or {}
    _check_room(graph, memory, capacity, placed)
    try:
        base = _place_for_good(graph, heap, placed)
    except CapacityError as error:
        weights = sum(_room(spec, placed) for spec in graph.tensors.values() if _is_weight(spec))
        told = f"; all weights together take {readable(weights)}" if weights else ""
        raise CapacityError(f"{error}{told}") from None
    updated = {spec.name: spec.place_of for spec in graph.tensors.values() if spec.place_of}
    base |= {name: base[old] for name, old in updated.items()}
    follows: dict[str, tuple[str, ...]] = {name: (old,) for name, old in updated.items()}
    lanes = {*graph.lanes.values()}
    on_chip: set[str] = set()
    if not lanes:
        _place_activations(graph, heap, base, follows, None, chip, on_chip)
    for lane in sorted(lanes):
        # What runs side by side must not wait for the other's places.
        own, there = Heap(memory, capacity), dict.fromkeys(base, 0)
        _place_activations(graph, own, there, follows, lane)
        start = heap.take(f"activations of part {lane}", own.peak, PAGE) if own.peak else 0
        base |= {name: start + first for name, first in there.items() if name not in base}
    return Plan(base, follows, heap.peak, placed, frozenset(on_chip))


def _place_for_good(graph: Graph, heap: Heap, placed: Mapping[str, Placed]) -> dict[str, int]:
    """Addresses of what lies in banks, then of whatever else is no activation."""
    base = {name: heap.take(name, one.nbytes, one.boundary) for name, one in placed.items()}
    for spec in graph.tensors.values():
        if spec.role != "activation" and not spec.place_of and spec.name not in base:
            base[spec.name] = heap.take(spec.name, spec.room)
    return base


def _is_weight(spec: TensorSpec) -> bool:
    """Whether it is a weight with a place of its own, not one that is updated in another's."""
    return spec.role == "weight" and not spec.place_of


def _room(spec: TensorSpec, placed: Mapping[str, Placed]) -> int:
    """Bytes that a tensor takes where it lies."""
    return placed[spec.name].nbytes if spec.name in placed else spec.room


def _place_activations(
    graph: Graph,
    heap: Heap,
    base: dict[str, int],
    follows: dict[str, tuple[str, ...]],
    lane: int | None,
    chip: Heap | None = None,
    on_chip: set[str] | None = None,
) -> None:
    """Room for the activations of a lane, or of all, from first to last use; the names of those
    that have it in ``chip`` are added to ``on_chip``."""
    there: set[str] = set() if on_chip is None else on_chip
    last_use = {name: i for i, op in enumerate(graph.operators) for name in op.inputs}
    retired: list[str] = []
    for i, op in enumerate(graph.operators):
        if lane is not None and lane != graph.lanes.get(op.output, lane):
            continue
        for name in op.outputs:
            if name not in base:
                nbytes = graph.tensors[name].bytes
                if (
                    chip
                    and graph.tensors[name].role == "activation"
                    and chip.fits(nbytes, ALIGNMENT)
                ):
                    there.add(name)
                    start = base[name] = chip.take(name, nbytes, ALIGNMENT)
                else:
                    start = base[name] = heap.take(name, nbytes)
                over = [
                    r for r in retired
                    if (r in there) == (name in there)
                    and base[r] < start + nbytes and start < base[r] + graph.tensors[r].bytes
                ]  # fmt: skip
                follows[name] = tuple(over)
        for name in {*op.inputs, *op.outputs}:
            spec = graph.tensors[name]
            mine = lane is None or graph.lanes.get(name) == lane
            if spec.role == "activation" and mine and last_use.get(name, i) == i:
                if chip and name in there:
                    chip.give_back(base[name], spec.bytes, ALIGNMENT)
                else:
                    heap.give_back(base[name], spec.bytes)
                retired.append(name)


def _check_room(graph: Graph, memory: str, capacity: int, placed: Mapping[str, Placed]) -> None:
    """Say how many tokens fit where the caches leave no room for the other tensors."""
    needed = others = 0
    for spec in graph.tensors.values():
        if spec.role == "activation" or spec.place_of:
            continue
        room = _room(spec, placed)
        if spec.role == "cache":
            needed += room
        else:
            others += room
    if not others <= capacity < needed + others:
        return
    lengths = _cached_lengths(graph)
    if tokens := sum(lengths):
        fit = tokens * max(0, capacity - others) // needed
        whole = bisect_right(list(accumulate(lengths)), fit)
        raise CapacityError(
            f"KV cache of {tokens:,} tokens of all requests takes {readable(needed)} of {memory},"
            f" beside {readable(others)} of other tensors; it has {readable(capacity)}:"
            f" {fit:,} tokens fit, {whole:,} of {len(lengths):,} requests"
        )


def _cached_lengths(graph: Graph) -> list[int]:
    """Tokens of every sequence in the caches of a layer, of that with most."""
    of_layer: dict[int | None, list[int]] = {}
    for op in graph.operators:
        if isinstance(op, Attention) and op.cached:
            of_layer.setdefault(op.layer, []).extend(op.lengths)
    return max(of_layer.values(), key=sum, default=[])
