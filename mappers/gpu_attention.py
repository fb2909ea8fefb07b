"""Attention on a GPU without fusion: scores to memory, softmax over them, values.

Three kinds of kernels, as frameworks ran them before fused attention: batched products of queries
and keys, the softmax of their rows, batched products with the values. Scores keep fp32, the
probabilities take the format of the queries.
"""

from __future__ import annotations

from accelsim.hw.simt import LoadStore, Simt
from accelsim.hw.tensor_core import TensorCore
from accelsim.mapping.attention.gathered import Plain
from accelsim.mapping.attention.heads import head_groups, outputs
from accelsim.mapping.attention.simt_softmax import softmax_kernel
from accelsim.mapping.lowering import Lowering
from accelsim.mapping.products import Product, Stored
from accelsim.mapping.registry import mapper
from accelsim.mapping.thread_blocks import lower_grids
from accelsim.numerics.formats import number_format
from accelsim.workload.operators import Attention


@mapper("gpu-attention", lowers=("attention",), needs=(TensorCore, Simt, LoadStore), preference=1)
def gpu_attention(op: Attention, low: Lowering) -> None:
    """Q K^T, softmax and P V as three kernels."""
    groups, plain = head_groups(op), Plain(op, low)
    scores = plain.scores("scores", number_format("fp32"))
    weights = plain.scores("weights", plain.fmt)
    lower_grids(
        low,
        [
            Product(
                Stored(plain.queries(group)),
                plain.keys(group),
                scores.of(group),
                transpose_b=True,
            )
            for group in groups
        ],
    )
    softmax_kernel(low, scores, weights, plain)
    lower_grids(
        low,
        [
            Product(
                Stored(weights.of(group)),
                plain.values(group),
                outputs(op, low, group),
            )
            for group in groups
        ],
    )
