"""GEMM on a GPU: a grid of CTAs on the tensor cores."""

from __future__ import annotations

from accelsim.hw.simt import LoadStore, Simt
from accelsim.hw.tensor_core import TensorCore
from accelsim.mapping.lowering import Lowering
from accelsim.mapping.products import gemm_products
from accelsim.mapping.registry import mapper
from accelsim.mapping.thread_blocks import lower_grids
from accelsim.workload.operators import Gemm


@mapper(
    "gpu-gemm",
    lowers=("gemm",),
    needs=(TensorCore, Simt, LoadStore),
    preference=1,
    reads_coded=True,
)
def gpu_gemm(op: Gemm, low: Lowering) -> None:
    """Tile, split of K and raster chosen by closed-form cost; one CTA per multiprocessor."""
    lower_grids(low, gemm_products(op, low))
