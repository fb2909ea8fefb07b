"""Routing: what is drawn, what is given, and what is refused."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsim.errors import AccelsimError
from accelsim.workload import library_folder, read_config, workload
from accelsim.workload.routing import MODELS, RoutedIds, Routing
from accelsim.workload.routing_choice import RoutingChoice, routing_choice

MIXTRAL = read_config(library_folder() / "mixtral-8x7b.json")
SMALL = {"layers": 2, "hidden": 64, "heads": 4, "kv_heads": 2, "ffn": 48, "vocab": 50}


@st.composite
def routings(draw):
    """Any routing that a config can ask for."""
    groups = draw(st.sampled_from([0, 0, 2, 4]))
    experts = draw(st.integers(1, 6)) * (groups or 1)
    kept = draw(st.integers(1, groups)) if groups else 0
    within = experts // groups * kept if groups else experts
    computing = draw(st.integers(1, experts))
    return Routing(
        tokens=draw(st.integers(1, 40)),
        experts=experts,
        top_k=draw(st.integers(1, within)),
        computing=computing,
        zero=draw(st.integers(0, experts - computing)),
        model=draw(st.sampled_from(MODELS)),
        skew=draw(st.sampled_from([0.0, 1.0, 3.0])),
        seed=draw(st.integers(0, 99)),
        groups=groups,
        groups_kept=kept,
        group_votes=min(draw(st.integers(1, 2)), experts // (groups or 1)),
    )


@given(routings())
def test_every_token_visits_top_k_different_experts(routing):
    ids = routing.assignment()
    assert ids.shape == (routing.tokens, routing.top_k)
    assert all(len({*row}) == routing.top_k for row in ids.tolist())
    assert ids.min() >= 0
    assert ids.max() < routing.experts
    computed = int((ids < routing.computing).sum())
    assert sum(routing.counts) == computed
    if routing.groups:
        size = routing.experts // routing.groups
        assert all(len({e // size for e in row}) <= routing.groups_kept for row in ids.tolist())


@given(routings())
def test_the_lists_of_ids_lead_every_token_to_its_experts(routing):
    """Follow the lists by hand: what is dispatched to an expert comes back from it."""
    ids, counts = routing.assignment(), routing.counts
    shape = (routing.tokens, routing.top_k)
    chosen = RoutedIds(routing, "chosen").array((ids.size,)).reshape(shape)
    token, expert = divmod(chosen, routing.experts)
    assert (token == np.arange(routing.tokens)[:, None]).all()
    assert (expert == ids).all()
    gathered = RoutedIds(routing, "gathered").array((sum(counts),))
    owner = np.repeat(np.arange(routing.computing), counts)
    places = RoutedIds(routing, "places").array((ids.size,)).reshape(routing.top_k, -1)
    computing = RoutedIds(routing, "computing").array(shape)
    copying = RoutedIds(routing, "copying").array(shape)
    used = []
    for t in range(routing.tokens):
        for j in range(routing.top_k):
            place = places[j, t]
            if ids[t, j] < routing.computing:
                assert (gathered[place], owner[place]) == (t, ids[t, j])
                used.append(place)
            elif (ids[t] < routing.computing).any():
                assert gathered[place] == t  # weighs zero, but is a row of the same token
            assert computing[t, j] == (ids[t, j] < routing.computing)
            assert copying[t, j] == (ids[t, j] >= routing.computing + routing.zero)
    assert sorted(used) == [*range(sum(counts))]


def test_balanced_counts_differ_by_one_at_most():
    for tokens, experts, top_k in [(37, 8, 2), (5, 64, 6), (1, 3, 3)]:
        counts = Routing(tokens, experts, top_k, experts, model="balanced").counts
        assert max(counts) - min(counts) <= 1
    grouped = Routing(64, 16, 4, 16, model="balanced", groups=4, groups_kept=2, group_votes=2)
    assert grouped.imbalance <= 1.1


def test_zipf_follows_the_popularity_that_it_states():
    """With one expert per token, shares are the popularities; skew 0 is uniform."""
    routing = Routing(20_000, 8, 1, 8, model="zipf", skew=1.0, seed=3)
    shares = np.sort(np.array(routing.counts) / 20_000)[::-1]
    stated = 1.0 / np.arange(1, 9)
    assert np.abs(shares - stated / stated.sum()).max() < 0.01
    flat = Routing(20_000, 8, 1, 8, model="zipf", skew=0.0, seed=3)
    assert np.abs(np.array(flat.counts) / 20_000 - 1 / 8).max() < 0.01
    imbalance = [
        Routing(500, 8, 2, 8, model="zipf", skew=skew).imbalance for skew in (0.0, 0.5, 1.0, 2.0)
    ]
    assert imbalance == sorted(imbalance)


def test_draws_differ_by_seed_and_layer_and_are_the_same_everywhere():
    draws = [Routing(50, 8, 2, 8, seed=seed, layer=layer) for seed in (0, 1) for layer in (0, 1)]
    assert len({draw.assignment().tobytes() for draw in draws}) == 4
    # Recorded once: the bits must not depend on numpy's generators.
    assert Routing(4, 8, 2, 8).assignment().tolist() == RECORDED


RECORDED = [[0, 3], [0, 2], [6, 7], [4, 7]]


def test_layers_share_one_draw_by_default_and_differ_on_request():
    alike = workload("mixtral-8x7b", tokens=9, **{**SMALL, "layers": 4})
    assert [segment.count for segment in alike.segments()] == [1, 4, 1]
    assert "all layers alike" in alike.assumptions[0]
    differ = workload("mixtral-8x7b", tokens=9, draw="layer", **{**SMALL, "layers": 4})
    assert [segment.count for segment in differ.segments()] == [1, 1, 1, 1, 1, 1]
    assert len({op.m for op in differ.operators if op.kind == "grouped_gemm"}) == 4
    assert "each layer" in differ.assumptions[0]
    assert differ.settings["draw"] == "layer"
    assert differ.digest() != alike.digest()


def test_a_balanced_routing_of_dense_and_expert_layers_composes():
    graph = workload(
        "deepseek-v2-lite", kv_lora_rank=0, layers=5, tokens=9, routing="balanced", vocab=99
    )
    assert [segment.count for segment in graph.segments()] == [1, 1, 4, 1]
    assert graph.settings["routing"] == "balanced"


IDS = [[0, 3], [1, 2], [7, 0]]


@pytest.mark.parametrize(
    ("name", "text", "counts"),
    [
        ("a.json", json.dumps(IDS), (2, 1, 1, 1, 0, 0, 0, 1)),
        ("a.csv", "# by hand\n0,3\n1, 2\n\n7,0\n", (2, 1, 1, 1, 0, 0, 0, 1)),
        ("a.json", '{"counts": [3, 0, 2, 0, 1, 0, 0, 0]}', (3, 0, 2, 0, 1, 0, 0, 0)),
        (
            "a.csv",
            "expert,tokens\n"
            + "".join(f"{e},{n}\n" for e, n in enumerate((3, 0, 0, 3, 0, 0, 0, 0))),
            (3, 0, 0, 3, 0, 0, 0, 0),
        ),
    ],
)
def test_a_routing_is_read_from_a_file(tmp_path, name, text, counts):
    file = tmp_path / name
    file.write_text(text)
    graph = workload("mixtral-8x7b", tokens=3, routing=str(file), **SMALL)
    assert graph.operator("layer1.ffn.experts.up_proj").m == counts
    assert graph.settings["routing"] == str(file)
    ids = graph.tensors["layer0.ffn.chosen"].values.routing.assignment()
    assert all(len({*row}) == 2 for row in ids.tolist())


def test_layers_may_be_given_one_by_one():
    other = [[4, 5], [4, 5], [4, 5]]
    graph = workload("mixtral-8x7b", tokens=3, routing=[IDS, other], **SMALL)
    assert graph.operator("layer0.ffn.experts.up_proj").m == (2, 1, 1, 1, 0, 0, 0, 1)
    assert graph.operator("layer1.ffn.experts.up_proj").m == (0, 0, 0, 0, 3, 3, 0, 0)
    array = workload("mixtral-8x7b", tokens=3, routing=np.array(IDS), **SMALL)
    assert array.operator("layer1.ffn.experts.up_proj").m == (2, 1, 1, 1, 0, 0, 0, 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"routing": "zipff"}, r"routing is 'zipff' \(did you mean 'zipf'\?\); accepted: balanced"),
        ({"routing": "no/such.json"}, "accepted: balanced, uniform, zipf, or a file"),
        ({"routing": "balanced", "seed": 1}, "'seed' with routing=balanced; accepted: with unif"),
        ({"skew": 1}, "'skew' with routing=uniform; accepted: with zipf"),
        ({"routing": "zipf", "skew": -1}, "skew is -1; accepted: 0 to 10"),
        ({"routing": "zipf", "skew": "much"}, "skew is 'much'; accepted: a finite number"),
        ({"seed": -1}, "seed is -1; accepted: a whole number from 0"),
        ({"draw": "always"}, "draw is 'always'; accepted: once, layer"),
        ({"routing": []}, r"routing is \[\]; accepted: ids \[tokens, experts\]"),
        ({"routing": [[0, 1]]}, "routing of 1 tokens; accepted: 3"),
        ({"routing": [[0, 1], [2, 2], [0, 1]]}, r"token 1 visits \[2, 2\]; accepted: 2 different"),
        ({"routing": [[0, 1], [2], [0, 1]]}, r"token 1 visits \[2\]"),
        ({"routing": [[0, 1], [2, 8], [0, 1]]}, "experts from 0 to 7"),
        ({"routing": [[0, 1], [2, "x"], [0, 1]]}, "an entry is 'x'; accepted: a whole number"),
        ({"routing": [[0, 1], 3, [0, 1]]}, "3 is no row; accepted: a list of whole numbers"),
        ({"routing": {"count": [1]}}, r"keys \['count'\]; accepted: counts"),
        ({"routing": {"counts": [4, 2, 0, 0, 0, 0, 0, 0]}}, "accepted: 6 on 8, at most 3 on one"),
        ({"routing": {"counts": [3, 2]}}, "5 tokens on 2 experts"),
        ({"routing": [IDS, IDS, IDS]}, "routing of 3 layers; accepted: one for all, or of 2"),
    ],
)
def test_a_routing_that_cannot_be_is_refused_in_one_line(words, message):
    with pytest.raises(AccelsimError, match=message) as caught:
        workload("mixtral-8x7b", tokens=3, **words, **SMALL)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "[[0,", r"a\.json:1: invalid JSON"),
        ("a.csv", "0,x\n", r"a\.csv:1: an entry is 'x'"),
        ("a.csv", "expert,tokens\n1,2\n", "experts are not 0, 1, 2, ..."),
        ("a.csv", "", "accepted: ids"),
        ("a.txt", "0,1\n", "or a file"),
    ],
)
def test_broken_files_are_refused_with_their_name(tmp_path, name, text, message):
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(AccelsimError, match=message) as caught:
        routing_choice(MIXTRAL, {"routing": str(file)})
    assert "\n" not in str(caught.value)


def test_routing_words_need_experts():
    with pytest.raises(AccelsimError, match="'routing' without experts; accepted: a mixture"):
        workload("llama-2-7b", routing="zipf", **SMALL)
    assert RoutingChoice().words().endswith("all layers alike")
