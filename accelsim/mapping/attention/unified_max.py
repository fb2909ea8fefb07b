"""Attention without a running maximum: every exponential is taken of the score as it is.

    P = exp(S)         l = l + rowsum P         O = O + P V         and at the end O / l

Ranges of keys share this unified maximum of 0, so no block waits for the one before it to rescale,
and partial results are merged by adding them. A larger score would overflow: hardware finds
that out and computes the row anew with its maximum, which is not modelled.

Source: Hong et al., FlashDecoding++: faster large language model inference on GPUs, MLSys 2024,
section 3 (scores of Llama-2-7B lie between -16.8 and 6.5). Weights in fp16 overflow from a score of
11 on, others from 88.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from accelsim.errors import AccelsimError
from accelsim.mapping.attention.online_softmax import EVERYTHING, F, Step, Stream, Way
from accelsim.mapping.attention.phases import Phase, Tiler
from accelsim.mapping.lowering import Lowering
from accelsim.numerics.orders import Order
from accelsim.program.storage import View
from accelsim.workload.operators import Attention

ASSUMED = (
    "exponentials without a maximum: scores above 88 (weights in fp16: 11) would overflow and be"
    " computed anew, which is not modelled"
)


def refuse_wide_scores(op: Attention) -> None:
    """Raise AccelsimError where scores spread over more than an exponential holds."""
    if op.alibi:
        raise AccelsimError(
            "ALiBi spreads scores over more than exponentials without a maximum hold;"
            " accepted: alibi=false, or a mapper with a maximum (flash-attention)"
        )


def without_maximum(tiler: Tiler) -> Tiler:
    """The same choice of tiles where the vector unit has less to do."""
    return replace(tiler, best=lambda problem: tiler.best(replace(problem, unified=True)))


class UnifiedStream(Stream):
    """The batches of one core, with one maximum for all scores."""

    maxima = False

    @classmethod
    def order(
        cls, op: Attention, low: Lowering, phase: Phase, units: Order, lanes: int, *, split: bool
    ) -> Order:
        """Sums of blocks are added as they come: no tag of a softmax says that."""
        del op, low, phase, lanes, split
        return units

    def _softmax(self, step: Step, ways: Sequence[Way]) -> list[View]:
        """Weights of a block, and running sums."""
        v, build = self.vector, self.build
        scores = [way.score.pop(0) for way in ways]
        weights = [self.weight.next()[: s.rows, : s.cols] for s in scores]
        self._finish_scores(step, ways, scores)
        for s, p in zip(scores, weights, strict=True):
            build.vector(v, F.EXP, p, s)
        sums = self.columns["spare"]
        for way, p in zip(ways, weights, strict=True):
            if not way.started:
                way.total = self.columns["total"].next()[: way.tile.rows, EVERYTHING]
            else:
                way.spare = sums.next()[: way.tile.rows, EVERYTHING]
            build.vector(v, F.ROW_SUM, way.spare if way.started else way.total, p)
        for way in ways:
            if way.started:
                build.vector(v, F.ADD, way.total, way.total, way.spare)
            way.started = True
        return weights

    def _parts(self, way: Way) -> tuple[View, ...]:
        return way.result, way.total
