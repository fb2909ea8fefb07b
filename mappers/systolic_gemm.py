"""GEMM and grouped GEMM on systolic arrays: tiled, double-buffered, K accumulated on chip."""

from __future__ import annotations

from accelsim.hw.dma import Dma
from accelsim.hw.systolic import Systolic
from accelsim.mapping.groups import grouped_products, lower_groups
from accelsim.mapping.lowering import Lowering
from accelsim.mapping.products import gemm_products, lower_products
from accelsim.mapping.registry import mapper
from accelsim.workload.operators import Gemm, GroupedGemm


@mapper(
    "systolic-gemm",
    lowers=("gemm", "layer_sparse_gemm"),
    needs=(Systolic, Dma),
    preference=1,
    reads_coded=True,
)
def systolic_gemm(op: Gemm, low: Lowering) -> None:
    """Tiles chosen by closed-form cost, shared out over cores and arrays, double-buffered."""
    lower_products(low, gemm_products(op, low))


@mapper(
    "systolic-grouped-gemm",
    lowers=("grouped_gemm",),
    needs=(Systolic, Dma),
    preference=1,
    reads_coded=True,
)
def systolic_grouped_gemm(op: GroupedGemm, low: Lowering) -> None:
    """Groups dealt to the cores by size, or each of them shared out where that is more even."""
    lower_groups(low, grouped_products(op, low))
