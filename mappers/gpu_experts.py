"""A mixture of experts on a GPU: products of all experts in one grid, gate, weighted sums.

The grid is that of the fused kernels of serving engines: tokens are sorted by expert, each expert's
rows are cut into tiles of their own, and the tiles of all experts are issued in turn (vLLM's
fused_moe, Triton; after MegaBlocks, Gale et al., MLSys 2023, arXiv 2211.15841).
"""

from __future__ import annotations

from accelsim.hw.simt import LoadStore, Simt
from accelsim.hw.tensor_core import TensorCore
from accelsim.mapping.groups import grouped_products
from accelsim.mapping.lowering import Lowering
from accelsim.mapping.registry import mapper
from accelsim.mapping.routed_rows import lower_combine, lower_gate, threads
from accelsim.mapping.thread_blocks import lower_grid
from accelsim.workload.operators import ExpertCombine, ExpertGate, GroupedGemm


@mapper(
    "gpu-grouped-gemm",
    lowers=("grouped_gemm",),
    needs=(TensorCore, Simt, LoadStore),
    preference=1,
    reads_coded=True,
)
def gpu_grouped_gemm(op: GroupedGemm, low: Lowering) -> None:
    """One grid for all groups, each cut into CTA tiles of its own."""
    lower_grid(low, grouped_products(op, low))


@mapper("gpu-expert-gate", lowers=("expert_gate",), needs=(Simt, LoadStore), preference=1)
def gpu_expert_gate(op: ExpertGate, low: Lowering) -> None:
    """Rounds of selection over the scores, then the chosen ones, gathered and normalised."""
    lower_gate(op, threads(low, op.tokens))


@mapper("gpu-expert-combine", lowers=("expert_combine",), needs=(Simt, LoadStore), preference=1)
def gpu_expert_combine(op: ExpertCombine, low: Lowering) -> None:
    """Rows gathered choice by choice, weighted and added in fp32."""
    lower_combine(op, threads(low, op.tokens))
