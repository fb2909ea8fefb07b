"""What every network on chip has: links of one width, a latency per hop, packets, energy.

A transfer is cut through: its head takes ``hop_latency`` cycles per hop, its body streams through
all links of the route at once, and every one of them is busy for the bytes over the bandwidth.
Each link serves transfers in the order in which they ask; routers hold what waits (no back
pressure), so a transfer that waits at one link does not keep the links before it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from accelsim.hw.block import Block, Ints, require, whole_cycles
from accelsim.hw.noc.topology import Node, Topology
from accelsim.quantities import Bytes, BytesPerSecond, Cycles, PicojoulesPerByte

CORES = "cores"
"""How architecture files call all cores together, as endpoints of a network."""


@dataclass(frozen=True, kw_only=True)
class Network(Block):
    """Interconnect of cores and shared memories; ``bandwidth`` is that of one link, one way.

    ``packet`` is the payload of one packet, each preceded by ``header`` bytes (0: no packets).
    The bytes of a memory that sits at several nodes are dealt to them in blocks of ``interleave``,
    in turn or ``skewed`` (see interleave.py). ``multicast`` routers copy a transfer to several
    destinations. ``endpoints`` names what is joined: memories and "cores" (empty: the cores and
    all shared memories). Energy is that of a byte over one hop.
    """

    bandwidth: BytesPerSecond
    hop_latency: Cycles = 1
    packet: Bytes = 0
    header: Bytes = 0
    interleave: Bytes = 256
    skewed: bool = True
    multicast: bool = False
    endpoints: tuple[str, ...] = ()
    hop_pj_per_byte: PicojoulesPerByte = 0.0

    def check(self) -> None:
        super().check()
        require(self.bandwidth > 0, f"bandwidth must be positive, not {self.bandwidth}")
        require(self.hop_latency >= 0, f"hop_latency must not be negative, not {self.hop_latency}")
        require(self.packet >= 0, f"packet must not be negative, not {self.packet}")
        require(self.header >= 0, f"header must not be negative, not {self.header}")
        require(
            self.packet > 0 or self.header == 0,
            f"header of {self.header} bytes needs a packet size; accepted: packet: BYTES",
        )
        require(self.interleave >= 1, f"interleave must be at least 1, not {self.interleave}")
        for name in self.endpoints:
            once = self.endpoints.count(name) == 1
            require(once, f"endpoints has {name!r} twice; accepted: every endpoint once")

    @abstractmethod
    def topology(self, blocks: int) -> Topology:
        """The topology that joins this many blocks."""

    @property
    def places(self) -> Mapping[str, tuple[Node, ...]]:
        """Nodes of the endpoints whose place is declared."""
        return {}

    @property
    def port_counts(self) -> Mapping[str, int]:
        """How many nodes memories take, where that is declared without places."""
        return {}

    @property
    def shape(self) -> str:
        """The topology in words, for people: "4 x 6 mesh"."""
        return self.kind

    def wire_bytes(self, nbytes: Ints) -> Ints:
        """Bytes on a link: payload and the headers of its packets."""
        if not self.header:
            return nbytes
        return nbytes + -(-nbytes // self.packet) * self.header

    @property
    def payload_share(self) -> float:
        """Share of a link's bytes that is payload, with full packets."""
        return self.packet / (self.packet + self.header) if self.header else 1.0

    def transfer_cycles(self, wire_bytes: Ints, hz: int) -> Ints:
        """Cycles of the network's clock (``hz``) that bytes keep a link busy."""
        return whole_cycles(wire_bytes, hz, self.bandwidth)
