"""The networks that an architecture can have: bus, crossbar, ring, mesh, torus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from accelsim.hw.block import block, require
from accelsim.hw.noc.coordinates import Coordinates, Positions
from accelsim.hw.noc.network import Network
from accelsim.hw.noc.topology import MAX_NODES, Grid, Node, Star, Topology


@block("bus")
@dataclass(frozen=True, kw_only=True)
class Bus(Network):
    """One shared medium: whoever sends, all others wait. Every transfer is one hop."""

    def topology(self, blocks: int) -> Topology:
        return Star(blocks, shared=True)


@block("crossbar")
@dataclass(frozen=True, kw_only=True)
class Crossbar(Network):
    """Switch with one input and one output link per port; every transfer is one hop.

    ``ports`` gives memories more ports than one, e.g. {hbm: 8}.
    """

    ports: Mapping[str, int] = field(default_factory=dict)

    def check(self) -> None:
        super().check()
        for name, count in self.ports.items():
            require(count >= 1, f"ports.{name} must be at least 1, not {count}")

    def topology(self, blocks: int) -> Topology:
        return Star(blocks, shared=False)

    @property
    def port_counts(self) -> Mapping[str, int]:
        return self.ports


@block("ring")
@dataclass(frozen=True, kw_only=True)
class Ring(Network):
    """Routers in a circle, ``nodes`` of them (0: one per block). ``at`` places endpoints.

    Transfers go the shorter way round, of two equal ways the rising one; all go the rising way
    unless the ring is ``bidirectional``.
    """

    nodes: int = 0
    bidirectional: bool = True
    at: Mapping[str, Positions] = field(default_factory=dict)

    def check(self) -> None:
        super().check()
        require(0 <= self.nodes <= MAX_NODES, f"nodes must be 0 to {MAX_NODES}, not {self.nodes}")

    def topology(self, blocks: int) -> Topology:
        return Grid((self.nodes or blocks,), wraps=True, both_ways=self.bidirectional)

    @property
    def places(self) -> Mapping[str, tuple[Node, ...]]:
        return self.at

    @property
    def shape(self) -> str:
        return f"ring of {self.nodes}" if self.nodes else "ring"


@block("mesh")
@dataclass(frozen=True, kw_only=True)
class Mesh(Network):
    """Grid of ``rows`` x ``cols`` routers with links to their neighbours, routed XY.

    ``at`` places endpoints: {hbm: [[0, 0], [0, 5]]} puts a memory at two nodes, {cores: [...]}
    lists the node of every core.
    """

    rows: int
    cols: int
    at: Mapping[str, Coordinates] = field(default_factory=dict)

    def check(self) -> None:
        super().check()
        require(self.rows >= 1, f"rows must be at least 1, not {self.rows}")
        require(self.cols >= 1, f"cols must be at least 1, not {self.cols}")
        require(
            self.rows * self.cols <= MAX_NODES,
            f"rows x cols make {self.rows * self.cols} nodes; accepted: at most {MAX_NODES}",
        )

    def topology(self, blocks: int) -> Topology:
        return Grid((self.rows, self.cols))

    @property
    def places(self) -> Mapping[str, tuple[Node, ...]]:
        return self.at

    @property
    def shape(self) -> str:
        return f"{self.rows} x {self.cols} {self.kind}"


@block("torus")
@dataclass(frozen=True, kw_only=True)
class Torus(Mesh):
    """Mesh whose rows and columns close to rings; each axis is passed the shorter way round."""

    def topology(self, blocks: int) -> Topology:
        return Grid((self.rows, self.cols), wraps=True)
