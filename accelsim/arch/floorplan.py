"""Networks as text: what each one is, and who sits at which node of a grid."""

from __future__ import annotations

from collections.abc import Iterator

from accelsim.arch.model import Architecture
from accelsim.hw.noc import Placement
from accelsim.hw.noc.topology import Grid, Node
from accelsim.quantities import BYTES_PER_SECOND, CYCLES

_INDENT = "   "


def networks_text(arch: Architecture, width: int) -> str:
    """Every network: one line, then a map of its nodes if it is a grid that fits ``width``."""
    return "\n\n".join("\n".join(_lines(arch, name, width)) for name in arch.networks)


def _lines(arch: Architecture, name: str, width: int) -> Iterator[str]:
    network, placement = arch.networks[name], arch.placements[name]
    rate = BYTES_PER_SECOND.format(network.bandwidth)
    copies = ", multicast" if network.multicast else ""
    yield (
        f"{_INDENT}{name}: {network.shape}, {rate} per link, "
        f"{CYCLES.format(network.hop_latency)} per hop{copies}"
    )
    if isinstance(placement.topology, Grid):
        rows = list(_map(placement))
        if max(map(len, rows)) + len(_INDENT) <= width:
            yield from (f"{_INDENT}{row}" for row in rows)


def _map(placement: Placement) -> Iterator[str]:
    """One line per row of the grid; cores by number, "." where nothing is attached."""
    owners: dict[Node, str] = {node: f"c{i}" for i, node in enumerate(placement.cores)}
    for name, nodes in placement.memories.items():
        owners |= dict.fromkeys(nodes, name)
    nodes = placement.topology.nodes
    cols = nodes[-1][-1] + 1
    cell = max(map(len, owners.values()))
    for first in range(0, len(nodes), cols):
        row = nodes[first : first + cols]
        yield "  ".join(owners.get(node, ".").center(cell) for node in row).rstrip()
