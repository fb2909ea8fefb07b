"""A new mapper in one file: GEMM by strips of rows, B fetched again for every strip.

Slow on purpose, short on purpose. Buffers and addresses are explicit, dependencies are not: the
builder adds what each instruction must wait for, and the verifier checks that nothing is missing.
"""

from accelsim.hw.dma import Dma
from accelsim.hw.systolic import Systolic
from accelsim.mapping.lowering import Lowering
from accelsim.mapping.products import accumulator_format, gemm_products, steps
from accelsim.mapping.registry import mapper
from accelsim.workload.operators import Gemm


@mapper("row-by-row", lowers=("gemm",), needs=(Systolic, Dma))
def row_by_row(op: Gemm, low: Lowering) -> None:
    """Strips of rows, the whole of B per strip."""
    core = low.cores[0]
    slot, array = core.arrays[0]
    load, store = core.load_queues[0], core.store_queue
    for product in gemm_products(op, low):
        core.reset()
        fmt = product.b.fmt
        height = array.rows
        a_ring = core.ring(array.inputs, "a", height, product.k, fmt)
        b_ring = core.ring(array.weights, "b", product.b.rows, product.b.cols, fmt, slots=1)
        c_ring = core.ring(array.outputs, "c", height, product.n, accumulator_format(fmt))
        for rows in steps(product.m, height):
            count = rows.stop - rows.start
            a, b, c = a_ring.next()[:count, :], b_ring.next(), c_ring.next()[:count, :]
            product.a.fetch(low.build, load, a, rows, slice(0, product.k))
            low.build.load(load, b, product.b)
            low.build.matmul(slot, c, a, b, accumulate=False, transpose_b=product.transpose_b)
            low.build.store(store, product.c[rows, :], c)
