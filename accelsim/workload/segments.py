"""Repeated layers of a workload: which consecutive layers are one structure, simulated once."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, fields
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelsim.workload.graph import Graph
    from accelsim.workload.operators import Operator

_CONNECTIONS = ("name", "inputs", "outputs", "layer")
"""Operator fields that name things; every other field is part of the structure."""


@dataclass(frozen=True)
class Segment:
    """A slice of the operator list and how many times in a row its structure occurs.

    Consecutive layers are identical when, operator by operator, they have the same kind, the
    same fields, and tensors of the same shapes, dtypes and codings wired in the same way, namely:
        inside the layer, the same operand reads the result of the same operator;
        tensors only this layer uses (weights, caches), in its forward pass or in its backward
            pass, have the same role, sharing and constant values; tensors used elsewhere too
            (rotary tables, tied weights) are the same tensor;
        the same results are visible outside of the layer (read there, or outputs);
        from the second layer on, what enters comes from the same place: the same operator of
            the layer before, the same tensor for all, an input of its own, or, behind the forward
            pass, what an earlier pass left in main memory, wherever that was made. What enters the
            first layer is free where the second is fed by the first.

    Attributes:
        operators: those of the first occurrence, in order.
        start: index of the first of them in the graph.
        count: occurrences; the segment covers operators [start, start + count*len(operators)).
        layers: the layer index of each occurrence, empty outside of layers.
    """

    operators: tuple[Operator, ...]
    start: int
    count: int
    layers: tuple[int, ...]

    @property
    def name(self) -> str:
        """Label of the slice: "layer0 x32", or the operators that it spans."""
        if self.layers:
            return f"layer{self.layers[0]} x{self.count}"
        first, last = self.operators[0].name, self.operators[-1].name
        return first if first == last else f"{first}..{last}"

    @property
    def stop(self) -> int:
        """Index after the last operator that it covers."""
        return self.start + self.count * len(self.operators)


Origins = frozenset[tuple[Hashable, ...]]
"""True descriptions of where a tensor comes from, in forms that several layers can share."""


@dataclass(frozen=True)
class _Block:
    """A maximal run of operators of one layer, with its structure in comparable form."""

    layer: int | None
    start: int
    operators: tuple[Operator, ...]
    structure: Hashable
    origins: tuple[Origins, ...]
    """Where each activation or input from outside comes from."""


def find_segments(graph: Graph) -> tuple[Segment, ...]:
    """The graph's operators as segments, in order, covering each operator exactly once."""
    runs: list[_Run] = []
    for block in _blocks(graph):
        if not (runs and runs[-1].extend(block)):
            runs.append(_Run([block], ()))
    return tuple(run.segment() for run in runs)


@dataclass
class _Run:
    """Identical consecutive layers found so far."""

    blocks: list[_Block]
    origins: tuple[Origins, ...]
    """For each entering tensor, the descriptions true of every layer from the second on."""

    def extend(self, block: _Block) -> bool:
        """Append a block if it repeats the layers of the run; whether it did."""
        first = self.blocks[0]
        if block.layer is None or block.structure != first.structure:
            return False
        if len(self.blocks) == 1:
            # What enters the first layer is free where the second is fed by the first.
            origins = tuple(
                frozenset(item for item in here if item in before or item[0] == "previous")
                for before, here in zip(first.origins, block.origins, strict=True)
            )
        else:
            origins = tuple(
                before & here for before, here in zip(self.origins, block.origins, strict=True)
            )
        if not all(origins):
            return False
        self.origins = origins
        self.blocks.append(block)
        return True

    def segment(self) -> Segment:
        """The run as a segment."""
        first = self.blocks[0]
        layers = tuple(block.layer for block in self.blocks if block.layer is not None)
        return Segment(first.operators, first.start, len(self.blocks), layers)


def _blocks(graph: Graph) -> Iterator[_Block]:
    homes = _users(graph)
    previous: dict[str, tuple[int, int]] = {}
    start = 0
    for layer, group in groupby(graph.operators, key=lambda op: op.layer):
        operators = tuple(group)
        scan = _Scan(graph, operators, start, homes)
        structure = scan.structure()
        origins = tuple(scan.origins(name, previous) for name in scan.entering)
        yield _Block(layer, start, operators, structure, origins)
        previous = scan.produced
        start += len(operators)


@dataclass
class _Users:
    """First and last operator index that touches a tensor, and the layers of all that do."""

    first: int
    last: int
    layers: set[int | None]

    @property
    def one_layer(self) -> bool:
        """Whether all of them belong to one layer, in whichever pass."""
        return len(self.layers) == 1 and None not in self.layers


def _users(graph: Graph) -> dict[str, _Users]:
    found: dict[str, _Users] = {}
    for index, op in enumerate(graph.operators):
        for name in (*op.inputs, *op.outputs):
            users = found.setdefault(name, _Users(index, index, set()))
            users.last = index
            users.layers.add(op.layer)
    return found


class _Scan:
    """Canonical names for the tensors of one block, given in the order of first use."""

    def __init__(
        self,
        graph: Graph,
        operators: tuple[Operator, ...],
        start: int,
        users: dict[str, _Users],
    ) -> None:
        self.graph = graph
        self.operators = operators
        self.inside = range(start, start + len(operators))
        self.users = users
        self.produced = {
            name: (position, index)
            for position, op in enumerate(operators)
            for index, name in enumerate(op.outputs)
            if graph.tensors[name].role != "cache"
        }
        self.entering: list[str] = []
        self.private: dict[str, int] = {}

    def structure(self) -> Hashable:
        """Everything that must be equal for two layers to be identical, but the origins."""
        return tuple(
            (
                op.kind,
                self._fields(op),
                tuple(self._reference(name) for name in op.inputs),
                tuple((self._reference(name), self._visible(name)) for name in op.outputs),
            )
            for op in self.operators
        )

    @staticmethod
    def _fields(op: Operator) -> Hashable:
        return tuple(getattr(op, f.name) for f in fields(op) if f.name not in _CONNECTIONS)

    def _reference(self, name: str) -> Hashable:
        spec = self.graph.tensors[name]
        form = (spec.shape, spec.dtype, spec.coding)
        if name in self.produced:
            return "produced", self.produced[name], form
        if spec.role in ("input", "activation", "output"):
            if name not in self.entering:
                self.entering.append(name)
            return "entering", self.entering.index(name), form
        if not self._visible(name) or self.users[name].one_layer:
            number = self.private.setdefault(name, len(self.private))
            return "private", number, spec.role, spec.values, form
        return "shared", name

    def origins(self, name: str, previous: dict[str, tuple[int, int]]) -> Origins:
        """Where a tensor from outside comes from: a tensor, the block before, an earlier pass, its
        own input."""
        found: set[tuple[Hashable, ...]] = {("tensor", name)}
        if name in previous:
            found.add(("previous", *previous[name]))
        elif self.operators[0].pass_ != "forward" and self.graph.tensors[name].role != "input":
            found.add(("kept",))
        if self.graph.tensors[name].role == "input" and not self._visible(name):
            found.add(("own",))
        return frozenset(found)

    def _visible(self, name: str) -> bool:
        """Whether anything outside of the block uses a tensor, or it is a result of the graph."""
        users = self.users[name]
        alone = users.first in self.inside and users.last in self.inside
        return not alone or self.graph.tensors[name].role == "output"
