"""Interleaving: a memory at several nodes deals its addresses to them block by block.

Byte address a lies at node (a // interleave) mod nodes.
"""

from __future__ import annotations

import numpy as np

from accelsim.hw.block import Ints


def bytes_per_node(windows: Ints, interleave: int, nodes: int) -> Ints:
    """int64[n, nodes]: the payload bytes of 2-D windows that lie at each node.

    ``windows`` is int64[n, 4]: base, rows, row_bytes, stride.
    """
    if nodes == 1:
        return windows[:, 1:2] * windows[:, 2:3]
    from accelsim.hw.noc.kernels import deal_windows

    # Mappers use the same few windows, shifted by whole turns, over and over.
    span = interleave * nodes
    phases = windows.copy()
    phases[:, 0] %= span
    distinct, which = np.unique(phases, axis=0, return_inverse=True)
    dealt: Ints = deal_windows(distinct, interleave, nodes)[which.reshape(-1)]
    return dealt
