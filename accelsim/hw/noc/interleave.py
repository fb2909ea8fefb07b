"""Interleaving: a memory at several nodes deals its addresses to them, block by block.

Block b = address // interleave lies at node b mod N. With rows that are a multiple of N blocks
apart, all of a tile would lie at one node; ``skewed`` dealing starts every turn one node further
(and every N turns once more): b + b // N + b // N^2 mod N. Skewed storage: Harper and Jump, Vector
Access Performance in Parallel Memories, IEEE Trans. Computers C-36(12), 1987.
"""

from __future__ import annotations

import numpy as np

from accelsim.hw.block import Ints


def bytes_per_node(windows: Ints, interleave: int, nodes: int, skewed: bool) -> Ints:
    """int64[n, nodes]: the payload bytes of 2-D windows that lie at each node.

    ``windows`` is int64[n, 4]: base, rows, row_bytes, stride.
    """
    if nodes == 1:
        return windows[:, 1:2] * windows[:, 2:3]
    from accelsim.hw.noc.kernels import deal_windows

    turns = np.array([1, nodes, nodes * nodes] if skewed else [1], dtype=np.int64)
    # Mappers use the same few windows, shifted by whole turns, over and over.
    phases = windows.copy()
    phases[:, 0] %= interleave * nodes * turns[-1]
    distinct, which = np.unique(phases, axis=0, return_inverse=True)
    dealt: Ints = deal_windows(distinct, interleave, nodes, turns)[which.reshape(-1)]
    return dealt
