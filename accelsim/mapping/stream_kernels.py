"""The compiled Kahn network: in which order nodes joined by bounded FIFOs can take their elements.

No time passes here. Such a network is determinate: whatever the order in which nodes that can go on
do so, each takes the same elements, and if it gets stuck it always does so in the same state.
"""

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit

# Columns of a tap: one reader of a FIFO (see streams.Tap).
PRODUCER, CONSUMER, PUSH, POP, LAG, DEPTH = range(6)


@njit
def run_network(
    total: NDArray[np.int64], taps: NDArray[np.int64], order: NDArray[np.int16]
) -> NDArray[np.int64]:
    """Fill ``order`` with the node of every firing; return how often each node fired.

    Nodes fire ``total`` times each; less than that means that the network is stuck. A sweep goes
    from the last node to the first, so that every node fires about once in it and FIFOs are as
    short as they can be.
    """
    fired = np.zeros(total.shape[0], np.int64)
    count = 0
    stuck = False
    while not stuck:
        stuck = True
        for node in range(total.shape[0] - 1, -1, -1):
            if fired[node] < total[node] and blocking_tap(node, fired, total, taps) < 0:
                fired[node] += 1
                order[count] = node
                count += 1
                stuck = False
    return fired


@njit
def blocking_tap(
    node: int, fired: NDArray[np.int64], total: NDArray[np.int64], taps: NDArray[np.int64]
) -> int:
    """The first tap that keeps a node from firing: empty if it reads it, full if not; -1: none."""
    for t in range(taps.shape[0]):
        producer, consumer = taps[t, PRODUCER], taps[t, CONSUMER]
        if consumer == node:
            element = fired[node] // taps[t, POP]
            if fired[producer] < (element + 1) * taps[t, PUSH]:
                return t
        elif producer == node:
            element = fired[node] // taps[t, PUSH] - taps[t, DEPTH]
            over = (element + 1) * taps[t, POP] + taps[t, LAG]
            if element >= 0 and fired[consumer] < min(over, total[consumer]):
                return t
    return -1
