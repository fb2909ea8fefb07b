"""Requests over channels and sub-batches: laws of the greedy packing, the published estimate."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.errors import AccelsimError
from accelsim.mapping.balance import ChannelLoad, balanced, halves, imbalance, in_turns
from accelsim.workload.requests import SHAREGPT, contexts

NEUPIMS_7B = ChannelLoad(banks=32, row_elements=512, heads=8, head_dim=128, copy=100, tile=184)
"""A device of four of GPT3-7B; cycles as NeuPIMs' load balancer takes them."""

LOADS = st.lists(st.integers(1, 1000), max_size=40)


def sums(loads, assigned):
    return [sum(loads[i] for i in mine) for mine in assigned]


@given(LOADS, st.integers(1, 9))
def test_every_request_has_one_channel(loads, channels):
    for assigned in (balanced(loads, channels), in_turns(len(loads), channels)):
        assert len(assigned) == channels
        assert sorted(itertools.chain(*assigned)) == list(range(len(loads)))


@given(LOADS, st.integers(1, 9))
def test_no_channel_took_more_than_another_had(loads, channels):
    """The last request of a channel came while it had least to do."""
    assigned = balanced(loads, channels)
    total = sums(loads, assigned)
    for channel, mine in enumerate(assigned):
        assert [loads[i] for i in mine] == sorted((loads[i] for i in mine), reverse=True)
        if mine:
            assert total[channel] - loads[mine[-1]] <= min(total)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=7), st.integers(1, 3))
def test_grahams_bound(loads, channels):
    best = min(
        max(
            sum(v for v, c in zip(loads, choice, strict=True) if c == one)
            for one in range(channels)
        )
        for choice in itertools.product(range(channels), repeat=len(loads))
    )
    worst = max(sums(loads, balanced(loads, channels)))
    assert worst <= (4 / 3 - 1 / (3 * channels)) * best + 1e-9


@given(LOADS, st.integers(1, 9))
def test_halves_keep_every_channel_busy(loads, channels):
    assigned = balanced(loads, channels)
    first, second = halves(assigned)
    for whole, a, b in zip(assigned, first, second, strict=True):
        assert sorted([*a, *b]) == sorted(whole)
        assert abs(len(a) - len(b)) == len(whole) % 2
    assert abs(sum(map(len, first)) - sum(map(len, second))) <= 1


def test_odd_requests_alternate():
    assert halves([[0], [1], [2, 3, 4], [5, 6]]) == (
        [[0], [], [2, 4], [5]],
        [[], [1], [3], [6]],
    )


def test_the_load_is_the_published_estimate():
    # 300 tokens: 2 chunks of keys with 10 tiles each; 8 heads of a chunk of values, 4 tiles each.
    assert NEUPIMS_7B.scores(300) == 2 * (100 + 10 * 184)
    assert NEUPIMS_7B.values(300) == 8 * (100 + 4 * 184)
    assert NEUPIMS_7B.values(513) == 2 * NEUPIMS_7B.values(512)
    assert NEUPIMS_7B.cycles(300) == NEUPIMS_7B.scores(300) + NEUPIMS_7B.values(300)


def test_balancing_beats_turns_on_sharegpt():
    """512 requests on 32 channels: how far the busiest channel is above the mean."""
    over = []
    for seed in range(6):
        tokens = contexts(SHAREGPT, 512, seed, 2048)
        loads = [NEUPIMS_7B.cycles(n) for n in tokens]
        packed, dealt = balanced(loads, 32), in_turns(512, 32)
        assert imbalance(loads, packed) < 1.06
        over.append([imbalance(loads, packed) - 1, imbalance(loads, dealt) - 1])
        for half in halves(packed):
            assert imbalance(loads, half) < 2 * imbalance(loads, dealt)
    packed_over, dealt_over = (sum(column) for column in zip(*over, strict=True))
    assert dealt_over > 3 * packed_over


@pytest.mark.parametrize(
    "call",
    [
        lambda: balanced([1.0], 0),
        lambda: in_turns(1, 0),
        lambda: ChannelLoad(0, 512, 8, 128, 1, 1),
    ],
)
def test_bad_numbers_get_one_line(call):
    with pytest.raises(AccelsimError, match="at least 1"):
        call()


def test_nothing_to_do():
    assert balanced([], 2) == [[], []]
    assert imbalance([], [[], []]) == 1.0
