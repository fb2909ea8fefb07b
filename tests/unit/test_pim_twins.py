"""Channels that are taken for one another: only where nothing that either will do tells them apart.

The state of two channels is changed word by word. That whole runs of channels which part and join
are what each would be alone is checked in tests/equivalence/test_bank_twins.
"""

from __future__ import annotations

import numpy as np
import pytest

from accelsim.hw.dram.commands import Command
from accelsim.hw.pim.catalog import family
from accelsim.hw.pim.channel import state
from accelsim.hw.pim.channel.state import MOST_WINDOW, Channels, idle_channels
from accelsim.hw.pim.channel.twin_kernels import alike

CLOCK = 5_000
FAMILY = family("neupims")
FAW = next(one for one in FAMILY.device.constraints if one.window > 1)
APART = (
    "PENDING", "UNIT_DUE", "REFRESH_AT", "REFRESHING", "SKIPPING", "SLACK", "RESERVED", "HOLDING",
    "POINTER", "IN_TILE",
)  # fmt: skip
"""Words of a channel any of which decides what it does next."""
TOGETHER = (
    "CLOCK", "HEAD", "QUEUED", "END", "HOLD_END", "HOLD_BANK", "READS", "WRITES", "DRAIN",
    "WAITING", "LOOKED", "OFFERED", "LAST_NODE", "DONE_READS", "RETURNED", "RETURNS", "PIM_FINISH",
    "LAST_DATA", "HITS", "MISSES", "CONFLICTS", "LIMIT", "OUTSTANDING", "WRITTEN", "MEMBERS",
)  # fmt: skip
"""Words of what waits, where nothing does, or of what has been: counts, places of entries."""


def two() -> Channels:
    """Two channels in which nothing has happened."""
    node = np.zeros((4, state.NODE_WORDS), np.int64)
    return idle_channels(FAMILY, np.zeros(2, np.int64), state.entries(np.zeros((0, 6))), node)


def same(k: Channels) -> bool:
    """Whether they are alike, which does not depend on which of them is asked about."""
    found = bool(alike(k, 0, 1, CLOCK))
    assert bool(alike(k, 1, 0, CLOCK)) is found
    return found


def test_every_word_of_a_channel_is_looked_at_here() -> None:
    words = [getattr(state, name) for name in (*APART, *TOGETHER)]
    assert sorted(words) == list(range(state.MEMBERS + 1))


@pytest.mark.parametrize("word", [*APART, *TOGETHER])
def test_words_that_decide_tell_channels_apart(word: str) -> None:
    k = two()
    assert same(k)
    k.word[1, getattr(state, word)] += 1
    assert same(k) is (word in TOGETHER)


@pytest.mark.parametrize("word", ["HOLD_END", "HOLD_BANK"])
def test_a_hold_counts_while_it_lasts(word: str) -> None:
    k = two()
    k.word[:, state.HOLDING] = 1
    assert same(k)
    k.word[1, getattr(state, word)] += 1
    assert not same(k)


@pytest.mark.parametrize("bank", [0, FAMILY.banks - 1])
@pytest.mark.parametrize("table", ["rows", "second rows", "served", "demanded"])
def test_every_bank_is_compared(table: str, bank: int) -> None:
    k = two()
    changed = {"rows": k.rows[1, 0], "second rows": k.rows[1, 1]}.get(table)
    (getattr(k, table)[1] if changed is None else changed)[bank] = 7
    assert not same(k)


@pytest.mark.parametrize("place", [0, -1])
@pytest.mark.parametrize("kind", [Command.ACT, FAMILY.number("G_ACT"), len(FAMILY.commands) - 1])
def test_what_is_ready_since_long_ago_is_ready(place: int, kind: int) -> None:
    k = two()
    k.ready[1, place, kind] = CLOCK
    assert same(k)
    k.ready[1, place, kind] = CLOCK + 1
    assert not same(k)


def activated(k: Channels, rank: int, clocks: list[int]) -> None:
    """Activations of a rank of channel 1, the first ones first."""
    for clock in clocks:
        count = k.acts[1, rank, MOST_WINDOW]
        k.acts[1, rank, count % MOST_WINDOW] = clock
        k.acts[1, rank, MOST_WINDOW] += 1


@pytest.mark.parametrize("rank", range(FAMILY.device.organization.channel_ranks))
def test_activations_count_as_long_as_a_window_holds_up_the_next_one(rank: int) -> None:
    past, last = CLOCK - FAW.cycles, CLOCK - FAW.cycles + 1
    k = two()
    activated(k, rank, [past - 3, past])
    assert same(k)
    activated(k, rank, [last])
    assert not same(k)


def test_activations_beyond_a_window_are_forgotten() -> None:
    """Of more than the window has, only the last ones hold anything up; any of them does."""
    k = two()
    many = [CLOCK - 20 + n for n in range(FAW.window + 3)]
    k.acts[0] = 0
    activated(k, 0, many)
    k.acts[0, 0] = k.acts[1, 0]
    beyond = (k.acts[1, 0, MOST_WINDOW] - 1 - FAW.window) % MOST_WINDOW
    k.acts[1, 0, beyond] -= 1
    assert same(k)
    for back in range(FAW.window):
        at = (k.acts[1, 0, MOST_WINDOW] - 1 - back) % MOST_WINDOW
        k.acts[1, 0, at] -= 1
        assert not same(k)
        k.acts[1, 0, at] += 1
