"""Gate and weighted sums of a mixture of experts on vector units."""

from __future__ import annotations

from accelsim.hw.dma import Dma
from accelsim.hw.vector import Vector
from accelsim.mapping.lowering import Lowering
from accelsim.mapping.registry import mapper
from accelsim.mapping.routed_rows import lower_combine, lower_gate, vector_lanes
from accelsim.workload.operators import ExpertCombine, ExpertGate


@mapper("vector-expert-gate", lowers=("expert_gate",), needs=(Vector, Dma))
def vector_expert_gate(op: ExpertGate, low: Lowering) -> None:
    """Rounds of selection over the scores, then the chosen ones, gathered and normalised."""
    lower_gate(op, vector_lanes(low, op.tokens))


@mapper("vector-expert-combine", lowers=("expert_combine",), needs=(Vector, Dma))
def vector_expert_combine(op: ExpertCombine, low: Lowering) -> None:
    """Rows gathered choice by choice, weighted and added in fp32."""
    lower_combine(op, vector_lanes(low, op.tokens))
