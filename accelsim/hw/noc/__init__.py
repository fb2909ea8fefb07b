"""Network on chip: the interconnect between the cores and the memories that they share.

kinds      the blocks of an architecture's ``networks:`` section
network    what they have in common: widths, latencies, packets, energy
topology   nodes, numbered directed links, one fixed route per pair
placement  which core and which memory sits at which node
interleave how the bytes of a window fall on the nodes of a memory
"""

from accelsim.hw.noc.network import CORES, Network
from accelsim.hw.noc.placement import Placement, PlacementError, place

__all__ = ["CORES", "Network", "Placement", "PlacementError", "place"]
