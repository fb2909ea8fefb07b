"""Which experts every token visits: given, or drawn with a seed under a stated imbalance.

A router decides on numbers that a simulation of time does not have, and the sizes of the experts'
products follow from its decision. So the decision is an input of a workload:

    balanced   every token takes the experts that have fewest tokens so far
    uniform    all experts are equally popular; the imbalance is that of chance
    zipf       the expert of rank r has a popularity of 1 / r^skew (Zipf, 1949); which expert has
               which rank is drawn, too. skew 0 is uniform.
    a file     expert ids per token, or tokens per expert

Without replacement, a token's experts are the top-k of log popularity + Gumbel noise (Kool, van
Hoof, Welling, Stochastic Beams and Where to Find Them, ICML 2019), as a router takes the top-k of
its logits. Group-limited routing keeps the groups with the largest sums of their best
``group_votes`` experts and chooses among those (1: DeepSeek-V2, arXiv 2405.04434, §2.1.2; 2:
DeepSeek-V3, arXiv 2412.19437, §2.1.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from accelsim.workload.tensors import Shape

MODELS = ("balanced", "uniform", "zipf")
GIVEN = "given"
"""The model of an assignment that somebody brought."""


@dataclass(frozen=True)
class Routing:
    """One assignment of tokens to experts, described, not stored.

    Attributes:
        tokens: rows that are routed.
        experts: what a router chooses from; the first `computing` of them have weights, the next
            `zero` give nothing and the others copy their input (experts without computation).
        top_k: different experts per token.
        model: one of MODELS, or GIVEN.
        skew: exponent of zipf.
        seed: of the draw.
        layer: of the draw; layers that share one have the same.
        groups, groups_kept, group_votes: limits by groups of neighbouring experts (0: none).
        ids: expert ids, token after token, where they are given.
    """

    tokens: int
    experts: int
    top_k: int
    computing: int
    zero: int = 0
    model: str = "uniform"
    skew: float = 0.0
    seed: int = 0
    layer: int = 0
    groups: int = 0
    groups_kept: int = 0
    group_votes: int = 1
    ids: tuple[int, ...] = ()

    def assignment(self) -> NDArray[np.int64]:
        """Expert ids [tokens, top_k], all different within a row, ascending; do not write to it."""
        return _assignment(self)

    @property
    def counts(self) -> tuple[int, ...]:
        """Tokens of each expert that computes."""
        import numpy as np

        counted = np.bincount(self.assignment().ravel(), minlength=self.experts)
        return tuple(counted[: self.computing].tolist())

    @property
    def imbalance(self) -> float:
        """Tokens of the busiest expert that computes over the mean of all of them."""
        total = sum(self.counts)
        return max(self.counts) * self.computing / total if total else 1.0


@dataclass(frozen=True)
class RoutedIds:
    """What a constant of the expert layers holds, for one routing.

    chosen: places t * experts + expert in the scores, token after token
    gathered: the tokens whose rows the experts read, expert after expert
    places: for each choice in turn and each token, the row among those; another row of the same
        token, if there is one, where the expert does not compute
    computing, copying: 1 where the expert computes, where it copies, else 0 [tokens, top_k]
    """

    routing: Routing
    what: str

    def array(self, shape: Shape) -> NDArray[np.int32] | NDArray[np.float32]:
        """The values in the given shape: int32 ids, or fp32 factors."""
        import numpy as np

        routing = self.routing
        ids = routing.assignment()
        computes = ids < routing.computing
        if self.what == "computing":
            return computes.astype(np.float32).reshape(shape)
        if self.what == "copying":
            return (ids >= routing.computing + routing.zero).astype(np.float32).reshape(shape)
        if self.what == "chosen":
            first = routing.experts * np.arange(routing.tokens)[:, None]
            return (first + ids).astype(np.int32).reshape(shape)
        token, choice = np.nonzero(computes)
        order = np.argsort(ids[token, choice], kind="stable")
        if self.what == "gathered":
            return token[order].astype(np.int32).reshape(shape)
        places = np.zeros(ids.shape, dtype=np.int32)
        places[token[order], choice[order]] = np.arange(len(order))
        # Ids ascend and those that compute come first: column 0 does where any of a row does.
        places = np.where(computes, places, places[:, :1])
        return places.T.reshape(shape)


@lru_cache(maxsize=512)
def _assignment(routing: Routing) -> NDArray[np.int64]:
    import numpy as np

    if routing.model == GIVEN:
        ids = np.array(routing.ids, dtype=np.int64).reshape(routing.tokens, routing.top_k)
    elif routing.model == "balanced":
        ids = _balanced(routing)
    else:
        scores = _log_popularity(routing)[None, :] + _gumbel(routing)
        ids = _largest(_within_groups(routing, scores), routing.top_k)
    found = np.sort(ids, axis=1)
    found.flags.writeable = False
    return found


def _key(routing: Routing, purpose: str) -> str:
    return f"routing:{routing.seed}:{routing.layer}:{purpose}"


def _gumbel(routing: Routing) -> NDArray[np.float64]:
    """Standard Gumbel noise [tokens, experts]."""
    import numpy as np

    from accelsim.numerics.splitmix import uniforms

    u = uniforms(_key(routing, "noise"), routing.tokens * routing.experts)
    noise: NDArray[np.float64] = -np.log(-np.log(u))
    return noise.reshape(routing.tokens, routing.experts)


def _log_popularity(routing: Routing) -> NDArray[np.float64]:
    """log of 1 / rank^skew [experts], the ranks in a drawn order."""
    import numpy as np

    from accelsim.numerics.splitmix import uniforms

    if routing.model == "uniform":
        return np.zeros(routing.experts)
    order = np.argsort(uniforms(_key(routing, "ranks"), routing.experts))
    popularity = np.empty(routing.experts)
    popularity[order] = -routing.skew * np.log(np.arange(1, routing.experts + 1))
    return popularity


def _within_groups(routing: Routing, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The scores, -inf in the groups that a token does not keep."""
    import numpy as np

    if not routing.groups:
        return scores
    grouped = scores.reshape(len(scores), routing.groups, -1)
    best = np.sort(grouped, axis=2)[:, :, -routing.group_votes :]
    kept = np.zeros(grouped.shape[:2], dtype=bool)
    np.put_along_axis(kept, _largest(best.sum(axis=2), routing.groups_kept), True, axis=1)
    limited: NDArray[np.float64] = np.where(kept[:, :, None], grouped, -np.inf)
    return limited.reshape(scores.shape)


def _largest(scores: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Columns of the ``count`` largest of each row."""
    import numpy as np

    chosen: NDArray[np.int64] = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return chosen


def _balanced(routing: Routing) -> NDArray[np.int64]:
    """Every token takes what has fewest tokens so far, the lowest ids first."""
    import numpy as np

    if not routing.groups:
        steps = np.arange(routing.tokens * routing.top_k, dtype=np.int64)
        return (steps % routing.experts).reshape(routing.tokens, routing.top_k)
    load = np.zeros((1, routing.experts))
    rows = np.empty((routing.tokens, routing.top_k), dtype=np.int64)
    for token in range(routing.tokens):
        rows[token] = _largest(_within_groups(routing, -load), routing.top_k)[0]
        load[0, rows[token]] += 1
    return rows
