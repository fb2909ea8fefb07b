"""Topologies: nodes where blocks attach, directed links between them, one fixed route per pair.

Routes are deterministic, so the links that a transfer keeps busy are known before anything runs.
Dimension-ordered routing is deadlock-free on a mesh (Dally and Seitz, IEEE Trans. Computers 36(5),
1987); on rings and tori it stands for routers with two virtual channels per link.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, product
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from accelsim.hw.block import Ints

Node: TypeAlias = tuple[int, ...]
Vertex: TypeAlias = tuple[str | int, ...]


MAX_NODES = 4096
"""Nodes of one network; more is a typing error, not a chip (and links have 16-bit numbers)."""


class Edge(NamedTuple):
    """A directed connection; edges of one ``name`` are one link, that transfers take turns on.

    ``hop`` is 1 where it leads through a switch to the next one, 0 between a block and its router.
    """

    tail: Vertex
    head: Vertex
    name: str
    hop: int


@dataclass(frozen=True)
class Topology(ABC):
    """Shape of an interconnect. Equal topologies have the same links by the same numbers."""

    @property
    @abstractmethod
    def nodes(self) -> tuple[Node, ...]:
        """Where blocks can attach, in the order of default placement."""

    @abstractmethod
    def edges(self) -> Iterator[Edge]:
        """Every connection, blocks included: their vertices are ``block(node)``."""

    @abstractmethod
    def walk(self, source: Node, target: Node) -> list[Vertex]:
        """The vertices that a transfer passes, from one block to another."""

    @property
    @abstractmethod
    def bisection_links(self) -> int:
        """Links, one way, over the narrowest cut through the middle."""

    def graph(self) -> Any:
        """The connections as a ``networkx.DiGraph``; edges carry ``link``, ``name`` and ``hop``."""
        import networkx

        graph, numbers = networkx.DiGraph(), dict[str, int]()
        for edge in self.edges():
            link = numbers.setdefault(edge.name, len(numbers))
            graph.add_edge(edge.tail, edge.head, link=link, name=edge.name, hop=edge.hop)
        return graph


def block(node: Node) -> Vertex:
    """The block at a node, as a vertex."""
    return ("block", *node)


def router(node: Node) -> Vertex:
    """The router of a node, as a vertex."""
    return ("router", *node)


def label(node: Node) -> str:
    """A node in the name of a link: "1,4"."""
    return ",".join(map(str, node))


@dataclass(frozen=True)
class Star(Topology):
    """``ports`` blocks around one hub: a crossbar switch, or a bus if the medium is ``shared``.

    A crossbar has a link from and a link to every port; a bus is a single link.
    """

    ports: int
    shared: bool

    @property
    def nodes(self) -> tuple[Node, ...]:
        return tuple((i,) for i in range(self.ports))

    def edges(self) -> Iterator[Edge]:
        hub: Vertex = ("hub",)
        for node in self.nodes:
            into, out = f"from {label(node)}", f"to {label(node)}"
            if self.shared:
                into = out = "medium"
            yield Edge(block(node), hub, into, int(self.shared))
            yield Edge(hub, block(node), out, 1)

    def walk(self, source: Node, target: Node) -> list[Vertex]:
        return [block(source), ("hub",), block(target)]

    @property
    def bisection_links(self) -> int:
        return 1 if self.shared else self.ports // 2


@dataclass(frozen=True)
class Grid(Topology):
    """Routers at the points of a grid, each joined to its neighbours along every axis.

    A mesh is a grid of two axes, (row, column); a torus ``wraps`` around at the edges; a ring is a
    torus of one axis, possibly with links ``both_ways``. A block has one link into its router and
    one out of it.

    Routes go along the last axis first (XY: along the row, then along the column), each axis the
    shorter way round; of two equally short ways the one with rising coordinates.
    """

    shape: tuple[int, ...]
    wraps: bool = False
    both_ways: bool = True

    @property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(product(*map(range, self.shape)))

    def edges(self) -> Iterator[Edge]:
        for node in self.nodes:
            yield Edge(block(node), router(node), f"from {label(node)}", 0)
            yield Edge(router(node), block(node), f"to {label(node)}", 0)
            for axis in range(len(self.shape)):
                for step in (1, -1) if self.both_ways else (1,):
                    following = self._beside(node, axis, step)
                    if following != node:
                        name = f"{label(node)}>{label(following)}"
                        yield Edge(router(node), router(following), name, 1)

    def walk(self, source: Node, target: Node) -> list[Vertex]:
        at, passed = source, [block(source), router(source)]
        for axis in reversed(range(len(self.shape))):
            distance = self._distance(at[axis], target[axis], self.shape[axis])
            for _ in range(abs(distance)):
                at = self._beside(at, axis, 1 if distance > 0 else -1)
                passed.append(router(at))
        return [*passed, block(target)]

    def _beside(self, node: Node, axis: int, step: int) -> Node:
        """The next node along an axis; the node itself beyond the edge of a mesh."""
        size, place = self.shape[axis], node[axis] + step
        if self.wraps:
            place %= size
        elif not 0 <= place < size:
            return node
        return (*node[:axis], place, *node[axis + 1 :])

    def _distance(self, start: int, end: int, size: int) -> int:
        """Signed steps along one axis."""
        if not self.wraps:
            return end - start
        rising = (end - start) % size
        return rising if not self.both_ways or 2 * rising <= size else rising - size

    @property
    def bisection_links(self) -> int:
        across = [
            math.prod(self.shape) // size * (2 if self.wraps and self.both_ways and size > 2 else 1)
            for size in self.shape
            if size > 1
        ]
        return min(across, default=0)


class Routes:
    """Routing table of a topology: the links between any two nodes, each pair looked up once.

    ``names`` are the links by number, ``hop`` is int64[links]: 1 for those that count as a hop.
    """

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.graph = topology.graph()
        edges = {data["link"]: data for _, _, data in self.graph.edges(data=True)}
        self.names: tuple[str, ...] = tuple(edges[i]["name"] for i in range(len(edges)))
        self.hop: Ints = np.array([edges[i]["hop"] for i in range(len(edges))], dtype=np.int64)
        self._found: dict[tuple[Node, Node], Ints] = {}

    def route(self, source: Node, target: Node) -> Ints:
        """Links from one block to another, in the order in which they are passed."""
        found = self._found.get((source, target))
        if found is None:
            edges = pairwise(self.topology.walk(source, target))
            links = dict.fromkeys(self.graph.edges[edge]["link"] for edge in edges)
            found = self._found[source, target] = np.array(list(links), dtype=np.int64)
        return found

    def tree(self, source: Node, targets: Iterable[Node]) -> Ints:
        """Links of a multicast: the union of the routes, every link once."""
        passed = (int(link) for target in targets for link in self.route(source, target))
        return np.array(list(dict.fromkeys(passed)), dtype=np.int64)

    def hops(self, source: Node, target: Node) -> int:
        """Switches that the head of a transfer passes one after the other."""
        return int(self.hop[self.route(source, target)].sum())


@lru_cache(maxsize=64)
def routes_of(topology: Topology) -> Routes:
    """The routing table of a topology, built once."""
    return Routes(topology)
