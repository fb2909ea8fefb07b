"""Flows: the links of a network that each transfer keeps busy, and its time of flight.

A transfer between nodes follows the fixed route. The bytes of a memory at several nodes are those
of its interleaved addresses; each node sends or takes its own part, and the parts that share a
link add up on it. A multicast follows the union of its routes, every link once. A read sends its
request ahead, one more way without bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from accelsim.arch.model import Architecture
from accelsim.engine.ports import Holds
from accelsim.errors import AccelsimError
from accelsim.hw.block import Ints
from accelsim.hw.noc import Placement
from accelsim.hw.noc.interleave import bytes_per_node
from accelsim.hw.noc.topology import Node
from accelsim.program.opcodes import TRANSFERS, Opcode
from accelsim.program.table import OPERAND_COLUMN, Program

_WINDOW = [OPERAND_COLUMN[name] for name in ("base", "rows", "row_bytes", "stride")]
_NOBODY = -1  # the source of a FILL


@dataclass(frozen=True)
class Flows:
    """What a program's transfers do to one network.

    ``row``, ``link``, ``wire_bytes`` and ``hold`` (ticks) list the links of every instruction;
    ``flight`` is int64[n], ticks until its first byte arrives; ``byte_hops`` int64[n], bytes times
    the hops that they make. ``links`` are names, ``first_port`` the port of the first one.
    """

    network: str
    links: tuple[str, ...]
    first_port: int
    row: Ints
    link: Ints
    wire_bytes: Ints
    hold: Ints
    flight: Ints
    byte_hops: Ints

    def link_bytes(self) -> Ints:
        """Bytes that cross every link, headers included."""
        return np.bincount(
            self.link, weights=self.wire_bytes, minlength=len(self.links)
        ).astype(np.int64)  # fmt: skip

    @property
    def holds(self) -> Holds:
        """The ports that the links are, and how long instructions hold them."""
        return Holds(self.row, self.first_port + self.link, self.hold)


class Way(NamedTuple):
    """From one node to another, or to several at once: its links and cycles until it is passed."""

    links: Ints
    cycles: int


class _Pattern(NamedTuple):
    """Transfers between the same memories: spaces of source and targets, core that asks."""

    source: int
    targets: tuple[int, ...]
    core: int


def flows(program: Program, arch: Architecture, network: str, first_port: int) -> Flows:
    """The flows of a program over one network.

    Raises:
        AccelsimError: a multicast over a network that has none.
    """
    return _Binding(program, arch, network).flows(first_port)


class _Binding:
    def __init__(self, program: Program, arch: Architecture, name: str) -> None:
        self.program, self.arch, self.name = program, arch, name
        self.placement: Placement = arch.placements[name]
        self.network, self.routes = self.placement.network, self.placement.routes
        self.opcode = program.column("opcode")
        self.dst, self.src = program.column("dst"), program.sources[:, 0]
        self.space = np.append(program.operand_column("space"), _NOBODY)

    def flows(self, first_port: int) -> Flows:
        n, hop = len(self.program), self.routes.hop
        hz = self.arch.clocks[self.network.clock]
        tick = self.arch.ticks_per_cycle(self.network.clock)
        flight, byte_hops = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        rows, links, wires = [], [], []
        for pattern, mine in self._patterns():
            busy, wire, cycles = self._pattern(pattern, mine)
            flight[mine] = cycles * tick
            byte_hops[mine] = wire @ hop[busy]
            row, column = np.nonzero(wire)
            rows.append(mine[row])
            links.append(busy[column])
            wires.append(wire[row, column])
        nothing = np.zeros(0, dtype=np.int64)
        wire_bytes = np.concatenate([nothing, *wires])
        return Flows(
            network=self.name,
            links=self.routes.names,
            first_port=first_port,
            row=np.concatenate([nothing, *rows]),
            link=np.concatenate([nothing, *links]),
            wire_bytes=wire_bytes,
            hold=self.network.transfer_cycles(wire_bytes, hz) * tick,
            flight=flight,
            byte_hops=byte_hops,
        )

    # -- who sends to whom -----------------------------------------------------------------------

    def _patterns(self) -> Iterator[tuple[_Pattern, Ints]]:
        """Transfers that cross the network, grouped by their ends."""
        core = np.array([slot.core for slot in self.program.units])[self.program.column("unit")]
        moves = np.isin(self.opcode, [o for o in TRANSFERS if o != Opcode.DELIVER])
        single = np.flatnonzero(moves & (self.opcode != Opcode.MULTICAST))
        ends = [self.space[self.src[single]], core[single], self.space[self.dst[single]]]
        yield from self._grouped(np.stack(ends, axis=1), single)
        heads = np.flatnonzero(self.opcode == Opcode.MULTICAST)
        count = self.program.column("k")[heads]
        for k in np.unique(count).tolist():
            mine = heads[count == k]
            targets = self.space[self.dst[mine[:, None] + np.arange(k)]]
            ends = [self.space[self.src[mine]], core[mine], *targets.T]
            yield from self._grouped(np.stack(ends, axis=1), mine)

    def _grouped(self, ends: Ints, rows: Ints) -> Iterator[tuple[_Pattern, Ints]]:
        distinct, which = np.unique(ends, axis=0, return_inverse=True)
        order = np.argsort(which.reshape(-1), kind="stable")
        bounds = np.searchsorted(which.reshape(-1)[order], np.arange(len(distinct) + 1))
        for i, (source, core, *targets) in enumerate(distinct.tolist()):
            pattern = _Pattern(source, tuple(targets), core)
            if self._crosses(pattern):
                mine = rows[order[bounds[i] : bounds[i + 1]]]
                if len(targets) > 1 and not self.network.multicast:
                    raise AccelsimError(
                        f"instruction {mine[0]}: network {self.name!r} has no multicast; "
                        f"accepted: {self.name}.multicast=true, or a mapper that needs none"
                    )
                yield pattern, mine

    def _crosses(self, pattern: _Pattern) -> bool:
        """Whether this network joins both ends and they are apart."""
        sources = self._nodes(pattern.source, pattern.core)
        targets = [self._nodes(target, pattern.core) for target in pattern.targets]
        return bool(sources) and all(targets) and any(nodes != sources for nodes in targets)

    def _nodes(self, space: int, core: int) -> tuple[Node, ...]:
        """Nodes of an address space; what no memory holds comes from the core that writes it."""
        if space == _NOBODY:
            return self.placement.nodes_of("", core)
        info = self.program.spaces[space]
        return self.placement.nodes_of(info.memory, info.core)

    # -- what a group of transfers does ----------------------------------------------------------

    def _pattern(self, pattern: _Pattern, rows: Ints) -> tuple[Ints, Ints, Ints]:
        """(links, bytes on each of them per transfer, cycles of flight) of a group."""
        sources = self._nodes(pattern.source, pattern.core)
        targets = [self._nodes(target, pattern.core) for target in pattern.targets]
        one_to_many = len(targets) > 1
        ends = [tuple(nodes[0] for nodes in targets)] if one_to_many else [(t,) for t in targets[0]]
        ways = [self._way(pattern, source, end) for source in sources for end in ends]
        parts = self._parts(rows, pattern, len(sources), len(ends))
        wire = self.network.wire_bytes(parts)
        links = np.unique(np.concatenate([way.links for way in ways]))
        passes = np.stack([np.isin(links, way.links) for way in ways]).astype(np.int64)
        cycles = np.where(wire > 0, np.array([way.cycles for way in ways]), 0).max(axis=1)
        return links, wire @ passes, cycles

    def _way(self, pattern: _Pattern, source: Node, targets: tuple[Node, ...]) -> Way:
        routes, hops = self.routes, 0
        asks = self.placement.nodes_of("", pattern.core)
        if pattern.source != _NOBODY and asks and asks[0] != source:
            hops = routes.hops(asks[0], source)
        targets = tuple(target for target in targets if target != source)
        hops += max((routes.hops(source, target) for target in targets), default=0)
        return Way(routes.tree(source, targets), hops * self.network.hop_latency)

    def _parts(self, rows: Ints, pattern: _Pattern, sources: int, targets: int) -> Ints:
        """int64[rows, sources * targets]: payload bytes of each way.

        Bytes cross in the format of the shared memory; the DMA converts in its core.
        """
        spaces = self.program.spaces
        if pattern.source == _NOBODY or (
            spaces[pattern.source].core >= 0 > spaces[pattern.targets[0]].core
        ):
            return self._dealt(self.dst[rows], targets)
        sent = self._sent(rows, sources)
        # Between two memories each node's part is spread evenly over the nodes of the other.
        return sent if targets == 1 else np.repeat(-(-sent // targets), targets, axis=1)

    def _sent(self, rows: Ints, sources: int) -> Ints:
        """Bytes that transfers read at each node of their source."""
        sent = self._dealt(self.src[rows], sources)
        gathers = self.opcode[rows] == Opcode.GATHER
        if gathers.any():
            # Which rows of the table the index names is not known before the numbers are.
            table = self.program.operands[self.src[rows[gathers]]]
            row_bytes = table[:, OPERAND_COLUMN["row_bytes"]]
            picked = self.program.column("m")[rows[gathers]] * row_bytes
            index = self._dealt(self.program.sources[rows[gathers], 1], sources)
            sent[gathers] = index - (-picked[:, None] // sources)
        return sent

    def _dealt(self, operands: Ints, nodes: int) -> Ints:
        windows = self.program.operands[operands][:, _WINDOW]
        network = self.network
        return bytes_per_node(windows, network.interleave, nodes, network.skewed)
