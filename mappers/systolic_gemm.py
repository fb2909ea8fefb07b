"""GEMM on systolic arrays: tiled, double-buffered, K accumulated on chip."""

from __future__ import annotations

from accelsim.hw.dma import Dma
from accelsim.hw.systolic import Systolic
from accelsim.mapping.lowering import Lowering
from accelsim.mapping.products import Product, Stored, lower_products
from accelsim.mapping.registry import mapper
from accelsim.workload.operators import Gemm


def products_of(op: Gemm, low: Lowering) -> list[Product]:
    """One product per batch element; operands are windows of the operator's tensors."""
    a, b, c = op.inputs[0], op.inputs[1], op.output
    bias = low.matrix(op.inputs[2], rows=1) if op.has_bias else None
    b_rows, b_cols = (op.n, op.k) if op.transpose_b else (op.k, op.n)
    a_all = low.matrix(a, rows=op.batch * op.m)
    b_all = low.matrix(b, rows=b_rows * (1 if op.broadcast_b else op.batch))
    c_all = low.matrix(c, rows=op.batch * op.m)
    everything = slice(None)
    products = []
    for i in range(op.batch):
        rows = slice(i * op.m, (i + 1) * op.m)
        b_window = slice(0, b_rows) if op.broadcast_b else slice(i * b_rows, (i + 1) * b_rows)
        products.append(
            Product(
                Stored(a_all[rows, everything]),
                b_all[b_window, slice(0, b_cols)],
                c_all[rows, everything],
                bias,
                op.transpose_b,
            )
        )
    return products


@mapper("systolic-gemm", lowers=("gemm",), needs=(Systolic, Dma), preference=1)
def systolic_gemm(op: Gemm, low: Lowering) -> None:
    """Tiles chosen by closed-form cost, shared out over cores and arrays, double-buffered."""
    lower_products(low, products_of(op, low))
