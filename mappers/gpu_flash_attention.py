"""Attention on a GPU with an online softmax: scores never leave their multiprocessor.

A CTA keeps a tile of queries of one key head, its query heads stacked as rows, and loads keys and
values block by block into shared memory; the tensor cores multiply from there. They make the scores
of the next block while the SIMT lanes turn those of this one into weights (FlashAttention-2, and
its ping-pong between tensor cores and softmax in FlashAttention-3). CTAs go out longest first, of
so many heads at a time as the cache holds keys and values of, each to the multiprocessor that has
least to do. Blocks that a mask hides are skipped.

Where tiles are fewer than multiprocessors, as in decoding, the keys are split over several CTAs; a
second kernel merges their partial results (Flash-Decoding).

The stream of instructions is that of mapping/attention/online_softmax with a multiprocessor's
units; tiles and splits are chosen by mapping/attention/cta_tiling, which names the sources.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from accelsim.hw.simt import LoadStore, Simt
from accelsim.hw.tensor_core import TensorCore
from accelsim.mapping.attention.cta_tiling import (
    Multiprocessor,
    best_cta_tiling,
    fused_slots,
    merge_cycles,
)
from accelsim.mapping.attention.online_softmax import Site, online_softmax
from accelsim.mapping.attention.phases import Tiler, phases_of
from accelsim.mapping.attention.unified_max import (
    ASSUMED,
    UnifiedStream,
    refuse_wide_scores,
    without_maximum,
)
from accelsim.mapping.lowering import Core, Lowering
from accelsim.mapping.registry import mapper
from accelsim.mapping.thread_blocks import gpu_of
from accelsim.numerics.formats import number_format
from accelsim.workload.operators import Attention

if TYPE_CHECKING:
    from accelsim.arch.model import Architecture

BLOCKS = (TensorCore, Simt, LoadStore)


def _lacks(arch: Architecture) -> str:
    """Scores lie in the registers and weights in shared memory: both units reach both."""
    tensor = next(iter(arch.units_of(TensorCore).values()))
    lanes = next(iter(arch.units_of(Simt).values()))
    if not tensor.shared:
        return "tensor cores that read shared memory (shared: NAME)"
    lacking = {tensor.accumulators, tensor.shared} - set(lanes.memory)
    return f"SIMT lanes that work on {' and '.join(sorted(lacking))}" if lacking else ""


@mapper("gpu-flash-attention", lowers=("attention",), needs=BLOCKS, preference=2, lacks=_lacks)
def gpu_flash_attention(op: Attention, low: Lowering) -> None:
    """One kernel with an online softmax; keys are split where multiprocessors would be idle."""
    _lower(op, low, splits=True)


@mapper("gpu-flash-attention-unsplit", lowers=("attention",), needs=BLOCKS, lacks=_lacks)
def gpu_flash_attention_unsplit(op: Attention, low: Lowering) -> None:
    """The same with the keys of a query tile in one CTA, however few CTAs there are."""
    _lower(op, low, splits=False)


@mapper("gpu-unified-max-attention", lowers=("attention",), needs=BLOCKS, lacks=_lacks)
def gpu_unified_max_attention(op: Attention, low: Lowering) -> None:
    """The same without running maxima: nothing is rescaled, split keys are merged by adding."""
    refuse_wide_scores(op)
    low.build.approximate(ASSUMED)
    _lower(op, low, splits=True, unified=True)


def _lower(op: Attention, low: Lowering, *, splits: bool, unified: bool = False) -> None:
    multiprocessor = _multiprocessor(low)
    tensor, sums = low.cores[0].tensor_cores[1], number_format("fp32")

    tiler = Tiler(
        lambda problem: best_cta_tiling(problem, multiprocessor, splits),
        lambda problem, parts: merge_cycles(problem, multiprocessor, parts),
    )
    phases = phases_of(op, low, without_maximum(tiler) if unified else tiler)
    sites = [_site(core) for core in low.cores]
    order = tensor.order(low.format(op.inputs[0]), 1, sums, sums)
    stream = UnifiedStream if unified else None
    online_softmax(op, low, phases, sites, low.launch, stream, order)


def _multiprocessor(low: Lowering) -> Multiprocessor:
    core = low.cores[0]
    tensor, lanes = core.tensor_cores[1], core.threads[1]
    return Multiprocessor(
        gpu=gpu_of(low),
        lanes=lanes.lanes,
        slots=tuple(lanes.slots_by_function().tolist()),
        latency=lanes.latency,
        shared_bytes=core.arenas[tensor.shared].capacity,
    )


def _site(core: Core) -> Site:
    slot, tensor = core.tensor_cores
    lanes = core.threads[1]
    return Site(
        core=core,
        arrays=(slot,),
        vector=core.threads[0],
        lanes=lanes.lanes,
        queries=tensor.shared,
        keys=tensor.shared,
        scores=tensor.accumulators,
        fuse=fused_slots(tuple(lanes.slots_by_function().tolist())) > 0,
    )
