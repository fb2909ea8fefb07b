"""Attention with an online softmax on systolic arrays: queries stay on chip, keys and values stream
past them, and no score ever leaves (mapping/attention/online_softmax).

Query tiles run side by side, each on one array. Where there are fewer than arrays, as in decoding,
different arrays take different ranges of keys.
"""

from __future__ import annotations

from accelsim.hw.dma import Dma
from accelsim.hw.systolic import Systolic
from accelsim.hw.vector import Vector
from accelsim.mapping.attention.machine import lacks_vector, vector_of
from accelsim.mapping.attention.online_softmax import Site, online_softmax
from accelsim.mapping.attention.phases import on_arrays, phases_of
from accelsim.mapping.attention.unified_max import (
    ASSUMED,
    UnifiedStream,
    refuse_wide_scores,
    without_maximum,
)
from accelsim.mapping.lowering import Core, Lowering
from accelsim.mapping.registry import mapper
from accelsim.workload.operators import Attention


@mapper(
    "flash-attention",
    lowers=("attention",),
    needs=(Systolic, Vector, Dma),
    preference=1,
    lacks=lacks_vector,
)
def flash_attention(op: Attention, low: Lowering) -> None:
    """Q K^T, online softmax and P V in one pass over keys and values, scores on chip."""
    for core in low.cores:
        core.reset()
    sites = [_site(core) for core in low.cores]
    online_softmax(op, low, phases_of(op, low, on_arrays(low)), sites)


@mapper(
    "unified-max-attention",
    lowers=("attention",),
    needs=(Systolic, Vector, Dma),
    lacks=lacks_vector,
)
def unified_max_attention(op: Attention, low: Lowering) -> None:
    """The same without running maxima: nothing is rescaled, split keys are merged by adding."""
    refuse_wide_scores(op)
    for core in low.cores:
        core.reset()
    low.build.approximate(ASSUMED)
    phases = phases_of(op, low, without_maximum(on_arrays(low)))
    sites = [_site(core) for core in low.cores]
    online_softmax(op, low, phases, sites, stream=UnifiedStream)


def _site(core: Core) -> Site:
    array = core.arrays[0][1]
    slots = tuple(slot for slot, _ in core.arrays)
    vector, unit = vector_of(core)
    return Site(core, slots, vector, unit.lanes, array.inputs, array.weights, array.outputs)
