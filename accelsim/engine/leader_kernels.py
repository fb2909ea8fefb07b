"""Who is simulated for whom, compiled: channels that have got the same so far follow one of them.

``leader[c]`` is the channel that is simulated for channel c, itself perhaps; ``account[c]`` is what
c had counted more than its leader when it joined. What a record is, and how many it stands for,
rooms of channels know (hw/dram/twin_kernels, hw/pim/channel/twin_kernels).
"""

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit_in_place as njit

NOBODY = -1


@njit
def follow(leader: NDArray[np.int64], account: NDArray[np.int64], c: int, other: int) -> None:
    """Channel c, whose account says what it has counted more than ``other``, and those that follow
    it get ``other`` as their leader."""
    for k in range(leader.shape[0]):
        if leader[k] == c and k != c:
            leader[k] = other
            for word in range(account.shape[1]):
                account[k, word] += account[c, word]
    leader[c] = other


@njit
def heir_of(leader: NDArray[np.int64], c: int) -> int:
    """Whose record must become one of its own for channel c to be alone: its own if it follows,
    else that of a channel that follows it; NOBODY if none does."""
    if leader[c] != c:
        return c
    for k in range(leader.shape[0]):
        if k != c and leader[k] == c:
            return k
    return NOBODY


@njit
def inherit(leader: NDArray[np.int64], account: NDArray[np.int64], c: int, heir: int) -> None:
    """A channel has a record of its own from now on; if it is not c itself, all that follow c
    follow it."""
    if heir != c:
        for k in range(leader.shape[0]):
            if leader[k] == c and k != c and k != heir:
                leader[k] = heir
                for word in range(account.shape[1]):
                    account[k, word] -= account[heir, word]
    leader[heir] = heir
