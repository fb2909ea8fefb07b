"""Gradient of an embedding table as a product: the transposed one-hot matrix of the ids times what
comes back to the tokens.

The vector unit compares columns with ids, tile by tile; the one-hot matrix goes through main
memory. Tokens that share a row are added up in the product, whatever their number and order. That
is how machines without a scattered addition do it (one-hot embedding look-ups on TPUs).
"""

from __future__ import annotations

from accelsim.hw.dma import Dma
from accelsim.hw.simt import LoadStore, Simt
from accelsim.hw.systolic import Systolic
from accelsim.hw.tensor_core import TensorCore
from accelsim.hw.vector import Vector
from accelsim.mapping.lowering import Core, Lowering
from accelsim.mapping.operands import Stored
from accelsim.mapping.placement import ALIGNMENT
from accelsim.mapping.products import Product, lower_products
from accelsim.mapping.registry import mapper
from accelsim.mapping.rowwise import FP32
from accelsim.mapping.thread_blocks import lower_grids
from accelsim.mapping.tile_sizes import even_shares
from accelsim.numerics.formats import row_bytes
from accelsim.program.opcodes import Function
from accelsim.program.storage import View
from accelsim.workload.operators import EmbeddingGrad

F = Function
SORTED = (
    "gradients of embedding tables are products with one-hot matrices; libraries of GPUs sort ids"
    " and add up runs, which takes less"
)
HEIGHT = 64  # tokens of a tile


@mapper("one-hot-embedding-grad", lowers=("embedding_grad",), needs=(Systolic, Vector, Dma))
def one_hot_embedding_grad(op: EmbeddingGrad, low: Lowering) -> None:
    """One-hot rows of the ids, then their transpose times the gradients of the tokens."""
    lower_products(low, [_product(op, low)])


@mapper("gpu-embedding-grad", lowers=("embedding_grad",), needs=(TensorCore, Simt, LoadStore))
def gpu_embedding_grad(op: EmbeddingGrad, low: Lowering) -> None:
    """The same on tensor cores; libraries sort the ids and add up runs of equal ones."""
    low.build.approximate(SORTED)
    low.begin_kernel()
    lower_grids(low, [_product(op, low)])


def _product(op: EmbeddingGrad, low: Lowering) -> Product:
    """The product, once the instructions that make its one-hot matrix are there."""
    grad = low.matrix(op.inputs[0], op.tokens, op.hidden)
    hot = low.scratch(f"{op.name}.hot", op.tokens, op.vocab, grad.fmt)
    for core, mine in zip(low.cores, even_shares(op.tokens, len(low.cores)), strict=False):
        _one_hot(op, low, core, hot, slice(mine.start, mine.stop))
    table = low.matrix(op.output, op.vocab, op.hidden)
    return Product(Stored(hot), grad, table, transpose_a=True)


def _one_hot(op: EmbeddingGrad, low: Lowering, core: Core, hot: View, tokens: slice) -> None:
    """The one-hot rows of some tokens."""
    core.reset()
    slot, unit = core.vector()
    memory = max(unit.memory, key=lambda name: core.arenas[name].capacity)
    ids = low.matrix(op.inputs[1], op.tokens, 1)
    free = core.arenas[memory].free - 8 * ALIGNMENT
    height = max(1, min(HEIGHT, tokens.stop - tokens.start, free // (1024 * 16)))
    each = 2 * row_bytes(64, FP32) + 2 * row_bytes(64, hot.fmt)
    width = min(op.vocab, max(64, (free - 8 * height) // (height * each) * 64))
    zeros = core.buffer(memory, "zeros", height, width, FP32)
    low.build.fill(core.load_queues[-1], zeros, 0.0)
    marks = core.ring(memory, "marks", height, width, FP32, 1)
    tiles, column = (
        core.ring(memory, "hot", height, width, hot.fmt),
        core.ring(memory, "ids", height, 1, ids.fmt),
    )
    blocks = -(-(tokens.stop - tokens.start) // height) * -(-op.vocab // width)
    low.build.reserve(4 * blocks, "one-hot rows")
    for top in range(tokens.start, tokens.stop, height):
        rows = slice(top, min(top + height, tokens.stop))
        count = rows.stop - rows.start
        mine = column.next()[:count, :]
        low.build.load(core.load_queues[0], mine, ids[rows, :])
        for left in range(0, op.vocab, width):
            cols = slice(left, min(left + width, op.vocab))
            mark = marks.next()[:count, : cols.stop - cols.start]
            tile = tiles.next()[:count, : cols.stop - cols.start]
            low.build.vector(slot, F.UNHOT, mark, zeros[:count, : mark.cols], mine, float(left))
            low.build.vector(slot, F.MUL_IMM, tile, mark, None, -1.0)
            low.build.store(core.store_queue, hot[rows, cols], tile)
