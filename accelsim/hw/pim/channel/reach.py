"""What commands of each reach touch in a channel, what they wait for, and who hears of them.

A *place* is a bank, a bank group or a rank, numbered in this order. Tables are -1 behind their last
entry; they follow from how the channel is organized alone, and all channels of a kind share them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accelsim.hw.dram.commands import SAME_BANK, SAME_BUS, SAME_CHANNEL, SAME_GROUP, SAME_RANK
from accelsim.hw.dram.device import Organization
from accelsim.hw.pim.family import Reach

Int64 = NDArray[np.int64]
NONE = -1


class Reaches(NamedTuple):
    """By reach and by the bank that a command names."""

    reached: Int64  # [reach, bank, i]: banks that it touches
    asked: Int64  # [reach, bank, i]: places that have to be ready
    heard: Int64  # [reach, bank, i, (place, shared)]: who hears of it, and the most that they share


@lru_cache(maxsize=16)
def reaches(parts: Organization) -> Reaches:
    """The tables of a channel."""
    tables = [
        np.stack([table(parts, reach) for reach in Reach]) for table in (_reached, _asked, _heard)
    ]
    return Reaches(*tables)


def places(parts: Organization) -> int:
    """Banks, bank groups and ranks."""
    return _ranks_from(parts) + parts.channel_ranks


def touches(parts: Organization, reach: Reach) -> NDArray[np.bool_]:
    """[bank named, bank]: whether a command of this reach touches it."""
    group, rank, pseudo = _within(parts)
    bank = np.arange(parts.channel_banks)
    number = bank % parts.banks
    unit = {
        Reach.BANK: bank, Reach.BANK_GROUP: group, Reach.RANK: rank,
        Reach.PSEUDO_CHANNEL: pseudo, Reach.CHANNEL: np.zeros_like(bank),
        Reach.SAME_BANK: number, Reach.TWIN_BANKS: bank % (parts.ranks * parts.banks_per_rank),
        Reach.EVERY_OTHER: 2 * rank + number % 2,
    }[reach]  # fmt: skip
    found: NDArray[np.bool_] = np.equal.outer(unit, unit)
    return found


def _within(parts: Organization) -> tuple[Int64, Int64, Int64]:
    """Bank group, rank and pseudo-channel of every bank."""
    bank = np.arange(parts.channel_banks)
    rank = bank // parts.banks_per_rank
    return bank // parts.banks, rank, rank // parts.ranks


def _ranks_from(parts: Organization) -> int:
    """The place of the first rank."""
    return parts.channel_banks + parts.channel_banks // parts.banks


def _reached(parts: Organization, reach: Reach) -> Int64:
    found = np.full((parts.channel_banks, parts.channel_banks + 1), NONE, np.int64)
    for bank, mine in enumerate(touches(parts, reach)):
        at = np.flatnonzero(mine)
        found[bank, : len(at)] = at
    return found


def _asked(parts: Organization, reach: Reach) -> Int64:
    """Banks that a command touches, their groups, their ranks."""
    group, rank, _ = _within(parts)
    groups, ranks = parts.channel_banks, _ranks_from(parts)
    found = np.full((parts.channel_banks, places(parts) + 1), NONE, np.int64)
    for bank, mine in enumerate(touches(parts, reach)):
        at = np.flatnonzero(mine)
        asked = np.concatenate([at, groups + np.unique(group[at]), ranks + np.unique(rank[at])])
        found[bank, : len(asked)] = asked
    return found


def _heard(parts: Organization, reach: Reach) -> Int64:
    """Banks that a command touches and their groups; all ranks, by what they share with these."""
    group, rank, pseudo = _within(parts)
    groups, ranks = parts.channel_banks, _ranks_from(parts)
    found = np.full((parts.channel_banks, places(parts) + 1, 2), NONE, np.int64)
    for bank, mine in enumerate(touches(parts, reach)):
        at = np.flatnonzero(mine)
        heard = [(int(b), SAME_BANK) for b in at]
        heard += [(groups + int(g), SAME_GROUP) for g in np.unique(group[at])]
        for r in range(parts.channel_ranks):
            shared = SAME_BUS if (pseudo[at] == r // parts.ranks).any() else SAME_CHANNEL
            heard.append((ranks + r, SAME_RANK if (rank[at] == r).any() else shared))
        found[bank, : len(heard)] = heard
    return found
