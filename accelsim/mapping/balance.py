"""Which channel of a memory that computes serves which request, and which half of a batch it is in.

A request's keys and values lie in one channel, so that the channel with most to do decides. Its
load is estimated in tiles (rows of all banks) and copies of vectors:

    keys      ceil(features / row) chunks, each a copy and ceil(tokens / banks) tiles
    values    ceil(tokens / row) chunks per head, each a copy and ceil(head / banks) tiles

Requests go out longest first, each to the channel that has least to do (Graham's rule: the busiest
channel ends at most 4/3 - 1/(3 channels) times the best possible). A batch is split in two halves
channel by channel, so that both keep every channel busy; of an odd number the halves get the larger
part in turn.

Source: Heo et al., NeuPIMs, ASPLOS 2024, section 6 (Algorithm 1: load; greedy bin packing;
sub-batches); Graham, Bounds on multiprocessing timing anomalies, SIAM J. Appl. Math. 17, 1969.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from accelsim.errors import AccelsimError


@dataclass(frozen=True)
class ChannelLoad:
    """What a request costs a channel of ``banks`` banks with rows of ``row_elements``, for so many
    ``heads`` of ``head_dim``; ``copy`` and ``tile`` are cycles."""

    banks: int
    row_elements: int
    heads: int
    head_dim: int
    copy: float
    tile: float

    def __post_init__(self) -> None:
        for name in ("banks", "row_elements", "heads", "head_dim"):
            if getattr(self, name) < 1:
                raise AccelsimError(f"load of a channel: {name} must be at least 1")

    def scores(self, tokens: int) -> float:
        """Cycles of q K^T."""
        chunks = -(-self.heads * self.head_dim // self.row_elements)
        return chunks * (self.copy + -(-tokens // self.banks) * self.tile)

    def values(self, tokens: int) -> float:
        """Cycles of p V."""
        chunks = -(-tokens // self.row_elements) * self.heads
        return chunks * (self.copy + -(-self.head_dim // self.banks) * self.tile)

    def cycles(self, tokens: int) -> float:
        """Cycles of a request's attention."""
        return self.scores(tokens) + self.values(tokens)


def balanced(loads: Sequence[float], channels: int) -> list[list[int]]:
    """Requests of every channel, by number, the longest first to the channel with least to do.

    Of equal loads the earlier request goes first, of equal channels the lower takes it.
    """
    if channels < 1:
        raise AccelsimError(f"{channels} channels; accepted: at least 1")
    found: list[list[int]] = [[] for _ in range(channels)]
    busy = [(0.0, channel) for channel in range(channels)]
    for request in sorted(range(len(loads)), key=lambda i: -loads[i]):
        load, channel = heapq.heappop(busy)
        found[channel].append(request)
        heapq.heappush(busy, (load + loads[request], channel))
    return found


def in_turns(requests: int, channels: int) -> list[list[int]]:
    """Requests dealt to channels one by one: what balancing is compared with."""
    if channels < 1:
        raise AccelsimError(f"{channels} channels; accepted: at least 1")
    return [list(range(channel, requests, channels)) for channel in range(channels)]


def halves(assigned: Sequence[Sequence[int]]) -> tuple[list[list[int]], list[list[int]]]:
    """Two sub-batches of the same channels: every channel's requests, every other one to each.

    The odd request of a channel goes to the first half and to the second in turn.
    """
    first: list[list[int]] = []
    second: list[list[int]] = []
    odd = 0
    for mine in assigned:
        larger, smaller = list(mine[::2]), list(mine[1::2])
        if len(mine) % 2:
            if odd % 2:
                larger, smaller = smaller, larger
            odd += 1
        first.append(larger)
        second.append(smaller)
    return first, second


def imbalance(loads: Sequence[float], assigned: Sequence[Sequence[int]]) -> float:
    """Load of the busiest channel over the mean; 1 where there is none."""
    sums = [sum(loads[request] for request in mine) for mine in assigned]
    mean = sum(sums) / len(sums)
    return max(sums) / mean if mean else 1.0
