"""Placement: which core and which memory sits at which node of a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice

import numpy as np

from accelsim.errors import AccelsimError
from accelsim.hw.noc.network import CORES, Network
from accelsim.hw.noc.topology import MAX_NODES, Node, Routes, Topology, routes_of


class PlacementError(AccelsimError):
    """Endpoints that do not fit a network; ``parameter`` is the network's, e.g. "at.hbm"."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(parameter, message)
        self.parameter, self.message = parameter, message

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, eq=False)
class Placement:
    """Nodes of every endpoint of a network: of core i, and of each memory by name.

    ``cores`` is empty if the network does not join the cores.
    """

    network: Network
    topology: Topology
    cores: tuple[Node, ...]
    memories: Mapping[str, tuple[Node, ...]]

    @property
    def routes(self) -> Routes:
        """The routing table of the network."""
        return routes_of(self.topology)

    def pairs(self) -> Iterator[frozenset[str]]:
        """The endpoints that the network joins, two by two; and cores with each other."""
        names = [*self.memories, *([CORES] if self.cores else [])]
        yield from map(frozenset, combinations(names, 2))
        if self.cores:
            yield frozenset({CORES})

    def nodes_of(self, memory: str, core: int) -> tuple[Node, ...]:
        """Where the bytes of a memory instance are: of a shared one, or of one inside a core.

        Empty if the network does not reach it.
        """
        if core < 0:
            return self.memories.get(memory, ())
        return (self.cores[core],) if self.cores else ()

    def core_bytes_per_second(self, memory: str) -> float:
        """Payload that each core can read while all cores read from a memory at once.

        The bandwidth over the load of the busiest link, when every core takes its bytes from all
        nodes of the memory alike (maximum channel load: Dally and Towles, Principles and Practices
        of Interconnection Networks, 2004, section 3.3).
        """
        load = np.zeros(len(self.routes.names))
        sources = self.memories[memory]
        for source in sources:
            for core in self.cores:
                load[self.routes.route(source, core)] += 1 / len(sources)
        return float(self.network.bandwidth * self.network.payload_share / load.max())

    def read_cycles(self, memory: str) -> float:
        """Cycles of flight of a read, request and data, on the average over cores and nodes."""
        sources, routes = self.memories[memory], self.routes
        hops = [routes.hops(a, b) + routes.hops(b, a) for a in sources for b in self.cores]
        return self.network.hop_latency * sum(hops) / len(hops)


def place(network: Network, cores: int, shared: Sequence[str]) -> Placement:
    """Put ``cores`` cores and the ``shared`` memories on the nodes of a network.

    What the network does not place takes the first free nodes in their order: memories, then
    cores.

    Raises:
        PlacementError: an endpoint that does not exist, a node that does not exist or is taken, or
            more blocks than nodes.
    """
    wanted = _wanted(network, cores, shared)
    blocks = sum(wanted.values())
    if not 2 <= blocks <= MAX_NODES:
        raise PlacementError(
            "endpoints", f"{blocks} blocks to join ({_listed(wanted)}); accepted: 2 to {MAX_NODES}"
        )
    topology = network.topology(blocks)
    places = _declared(network, topology)
    taken = {node for nodes in places.values() for node in nodes}
    free = [node for node in topology.nodes if node not in taken]
    if blocks > len(topology.nodes):
        raise PlacementError(
            "",
            f"{blocks} blocks ({_listed(wanted)}) do not fit on the {len(topology.nodes)} nodes of"
            f" a {network.shape}; accepted: a node for each",
        )
    unplaced = iter(free)
    for name, count in wanted.items():
        if name not in places:
            places[name] = tuple(islice(unplaced, count))
    return Placement(network, topology, places.pop(CORES, ()), places)


def _wanted(network: Network, cores: int, shared: Sequence[str]) -> dict[str, int]:
    """How many nodes each endpoint takes: memories first, then the cores."""
    joined = network.endpoints or (*shared, CORES)
    for name in joined:
        _known(name, (CORES, *shared), "endpoints")
    memories = [name for name in joined if name != CORES]
    for name in network.port_counts:
        _known(name, memories, f"ports.{name}")
    for name in network.places:
        _known(name, joined, f"at.{name}")
    wanted = {name: network.port_counts.get(name, 1) for name in memories}
    if CORES in joined:
        wanted[CORES] = cores
    for name, nodes in network.places.items():
        if name == CORES and len(nodes) != cores:
            raise PlacementError(
                f"at.{CORES}", f"{len(nodes)} nodes for {cores} cores; accepted: one for each"
            )
        wanted[name] = len(nodes)
    return wanted


def _known(name: str, accepted: Sequence[str], parameter: str) -> None:
    if name not in accepted:
        raise PlacementError(
            parameter, f"unknown endpoint {name!r}; accepted: {', '.join(accepted) or 'none'}"
        )


def _declared(network: Network, topology: Topology) -> dict[str, tuple[Node, ...]]:
    """Declared places: nodes of the topology, each used once."""
    nodes, owners = set(topology.nodes), dict[Node, str]()
    for name, places in network.places.items():
        for i, node in enumerate(places):
            owner = f"core {i}" if name == CORES else name
            if node not in nodes:
                first, last = topology.nodes[0], topology.nodes[-1]
                raise PlacementError(
                    f"at.{name}",
                    f"{owner} is at {list(node)}, outside the {network.shape}; "
                    f"accepted: {list(first)} to {list(last)}",
                )
            if node in owners:
                raise PlacementError(
                    f"at.{name}",
                    f"{owner} is at {list(node)}, where {owners[node]} is; "
                    "accepted: one block per node",
                )
            owners[node] = owner
    return dict(network.places)


def _listed(wanted: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in wanted.items())
