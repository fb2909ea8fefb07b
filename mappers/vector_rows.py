"""Row-wise operators on a vector unit: softmax, norms, activations, elementwise, rotary.

Rows of a softmax or a norm that are longer than the scratchpad are swept over (mapping/long_rows).
"""

from __future__ import annotations

from accelsim.hw.dma import Dma
from accelsim.hw.vector import Vector
from accelsim.mapping.epilogue import ACTIVATION_FUNCTIONS
from accelsim.mapping.long_rows import (
    layernorm_sweeps,
    lower_rows,
    rmsnorm_sweeps,
    softmax_sweeps,
)
from accelsim.mapping.lowering import Lowering
from accelsim.mapping.placement import ALIGNMENT
from accelsim.mapping.registry import mapper
from accelsim.mapping.rowwise import (
    SOFTMAX_FUNCTIONS,
    Recipe,
    Steps,
    Tile,
    Vectors,
    lower_rowwise,
    softmax_of,
)
from accelsim.numerics.formats import row_bytes
from accelsim.program.opcodes import Function
from accelsim.workload.operators import (
    Activation,
    Elementwise,
    GatedActivation,
    LayerNorm,
    RmsNorm,
    Rotary,
    Softmax,
)

F = Function


@mapper("vector-softmax", lowers=("softmax",), needs=(Vector, Dma))
def vector_softmax(op: Softmax, low: Lowering) -> None:
    """Row softmax of a tile that stays on chip, or in three sweeps over rows that do not fit."""
    x = low.matrix(op.inputs[0], op.rows, op.cols)
    out = low.matrix(op.output, op.rows, op.cols)

    def steps(v: Vectors, t: Tile) -> None:
        softmax_of(v, t, t.inputs[0])

    recipe = Recipe(steps, [x], out, wide=1, narrow=2, functions=SOFTMAX_FUNCTIONS)
    lower_rows(low, recipe, softmax_sweeps())


@mapper("vector-layernorm", lowers=("layernorm",), needs=(Vector, Dma))
def vector_layernorm(op: LayerNorm, low: Lowering) -> None:
    """Mean, centred variance, scale and shift of a tile that stays on chip; three sweeps if not."""
    functions = (F.ROW_SUM, F.MUL_IMM, F.SUB, F.MUL, F.ROW_SUM, F.MUL_IMM, F.ADD_IMM, F.RSQRT,
                 F.MUL, F.MUL, F.ADD)  # fmt: skip

    def steps(v: Vectors, t: Tile) -> None:
        (x,), (weight, bias), (centred, square), (mean, scale) = t.inputs, t.held, t.wide, t.narrow
        v(F.ROW_SUM, mean, x)
        v(F.MUL_IMM, mean, mean, imm=1.0 / op.cols)
        v(F.SUB, centred, x, mean)
        v(F.MUL, square, centred, centred)
        v(F.ROW_SUM, scale, square)
        v(F.MUL_IMM, scale, scale, imm=1.0 / op.cols)
        v(F.ADD_IMM, scale, scale, imm=op.eps)
        v(F.RSQRT, scale, scale)
        v(F.MUL, centred, centred, scale)
        v(F.MUL, centred, centred, weight)
        v(F.ADD, t.out, centred, bias)

    held = [low.matrix(name, 1, op.cols) for name in op.inputs[1:]]
    x = low.matrix(op.inputs[0], op.rows, op.cols)
    out = low.matrix(op.output, op.rows, op.cols)
    recipe = Recipe(steps, [x], out, held, wide=2, narrow=2, functions=functions)
    lower_rows(low, recipe, layernorm_sweeps(op.cols, op.eps))


@mapper("vector-rmsnorm", lowers=("rmsnorm",), needs=(Vector, Dma))
def vector_rmsnorm(op: RmsNorm, low: Lowering) -> None:
    """Mean square and scale of a tile that stays on chip, or in two sweeps."""
    functions = (F.MUL, F.ROW_SUM, F.MUL_IMM, F.ADD_IMM, F.RSQRT, F.MUL, F.MUL)

    def steps(v: Vectors, t: Tile) -> None:
        (x,), (weight,), (square,), (scale,) = t.inputs, t.held, t.wide, t.narrow
        v(F.MUL, square, x, x)
        v(F.ROW_SUM, scale, square)
        v(F.MUL_IMM, scale, scale, imm=1.0 / op.cols)
        v(F.ADD_IMM, scale, scale, imm=op.eps)
        v(F.RSQRT, scale, scale)
        v(F.MUL, square, x, scale)
        v(F.MUL, t.out, square, weight)

    held = [low.matrix(op.inputs[1], 1, op.cols)]
    x = low.matrix(op.inputs[0], op.rows, op.cols)
    out = low.matrix(op.output, op.rows, op.cols)
    recipe = Recipe(steps, [x], out, held, wide=1, narrow=1, functions=functions)
    lower_rows(low, recipe, rmsnorm_sweeps(op.cols, op.eps))


@mapper("vector-activation", lowers=("activation",), needs=(Vector, Dma))
def vector_activation(op: Activation, low: Lowering) -> None:
    """One function over every element."""

    def quick_gelu(v: Vectors, t: Tile) -> None:
        (x,), (gate,) = t.inputs, t.wide
        v(F.MUL_IMM, gate, x, imm=1.702)
        v(F.SIGMOID, gate, gate)
        v(F.MUL, t.out, x, gate)

    def single(v: Vectors, t: Tile) -> None:
        v(ACTIVATION_FUNCTIONS[op.function], t.out, t.inputs[0])

    composite = op.function == "quick_gelu"
    functions = (F.MUL_IMM, F.SIGMOID, F.MUL) if composite else (ACTIVATION_FUNCTIONS[op.function],)
    x = low.matrix(op.inputs[0], op.rows, op.cols)
    out = low.matrix(op.output, op.rows, op.cols)
    steps: Steps = quick_gelu if composite else single
    recipe = Recipe(steps, [x], out, wide=int(composite), columns_split=True, functions=functions)
    lower_rowwise(low, recipe)


@mapper("vector-glu", lowers=("glu",), needs=(Vector, Dma))
def vector_glu(op: GatedActivation, low: Lowering) -> None:
    """A function of the gate half of each row, times its other half."""
    function = ACTIVATION_FUNCTIONS[op.function]
    gate, up = (
        low.window(op.inputs[0], i * op.cols, op.rows, op.cols, 2 * op.cols) for i in (0, 1)
    )
    out = low.matrix(op.output, op.rows, op.cols)

    def steps(v: Vectors, t: Tile) -> None:
        v(function, t.wide[0], t.inputs[0])
        v(F.MUL, t.out, t.wide[0], t.inputs[1])

    functions = (function, F.MUL)
    recipe = Recipe(steps, [gate, up], out, wide=1, columns_split=True, functions=functions)
    lower_rowwise(low, recipe)


@mapper("vector-elementwise", lowers=("elementwise", "residual"), needs=(Vector, Dma))
def vector_elementwise(op: Elementwise, low: Lowering) -> None:
    """Two operands combined element by element, the second possibly one row for all."""
    function = Function[op.function.upper()]
    a = low.matrix(op.inputs[0], op.rows, op.cols)
    b = low.matrix(op.inputs[1], 1 if op.broadcast_b else op.rows, op.cols)
    out = low.matrix(op.output, op.rows, op.cols)

    def steps(v: Vectors, t: Tile) -> None:
        v(function, t.out, t.inputs[0], t.held[0] if op.broadcast_b else t.inputs[1])

    streams, held = ([a], [b]) if op.broadcast_b else ([a, b], [])
    recipe = Recipe(steps, streams, out, held, columns_split=True, functions=(function,))
    lower_rowwise(low, recipe)


@mapper("vector-rotary", lowers=("rotary",), needs=(Vector, Dma))
def vector_rotary(op: Rotary, low: Lowering) -> None:
    """x*cos + rotate_half(x)*sin, head by head, or all heads at once where positions agree."""
    d, width = op.head_dim, op.heads * op.head_dim

    functions = (F.ROTATE_HALF, F.MUL, F.MUL, F.ADD)

    def same_position(v: Vectors, t: Tile) -> None:
        (x,), (cos, sin), (turned, straight) = t.inputs, t.held, t.wide
        v(F.ROTATE_HALF, turned, x, imm=d)
        v(F.MUL, turned, turned, sin)
        v(F.MUL, straight, x, cos)
        v(F.ADD, t.out, straight, turned)

    if op.q_len == 1:  # every token stands at the same position: one table row serves all heads
        rows = op.tokens * op.heads
        tables = [low.window(n, op.position * d, 1, d, d) for n in op.inputs[1:]]
        x, out = low.matrix(op.inputs[0], rows, d), low.matrix(op.output, rows, d)
        lower_rowwise(low, Recipe(same_position, [x], out, tables, wide=2, functions=functions))
        return

    heads = _heads_at_once(op, low)

    def per_head(v: Vectors, t: Tile) -> None:
        (x, cos, sin), (turned, straight) = t.inputs, t.wide
        v(F.ROTATE_HALF, turned, x, imm=d)
        for head in range(x.cols // d):
            columns = slice(head * d, (head + 1) * d)
            v(F.MUL, turned[:, columns], turned[:, columns], sin)
            v(F.MUL, straight[:, columns], x[:, columns], cos)
        v(F.ADD, t.out, straight, turned)

    for sequence in range(op.tokens // op.q_len):
        for first in range(0, op.heads, heads):
            cols = min(heads, op.heads - first) * d
            start = sequence * op.q_len * width + first * d
            x, out = (
                low.window(n, start, op.q_len, cols, width) for n in (op.inputs[0], op.output)
            )
            tables = [low.window(n, op.position * d, op.q_len, d, d) for n in op.inputs[1:]]
            count = 2 + 2 * cols // d
            lower_rowwise(
                low,
                Recipe(
                    per_head, [x, *tables], out, wide=2, functions=functions, instructions=count
                ),
            )


def _heads_at_once(op: Rotary, low: Lowering) -> int:
    """Heads of one row that fit on chip with their buffers: all, or a half, a quarter, ..."""
    fmt, heads = low.format(op.inputs[0]), op.heads
    unit = low.cores[0].vector()[1]
    capacity = max(low.cores[0].arenas[name].capacity for name in unit.memory)
    while heads > 1:
        # x and out twice, two fp32 temporaries, and the two tables twice, a few boundaries.
        row = 4 * row_bytes(heads * op.head_dim, fmt) + 8 * heads * op.head_dim
        if row + 16 * op.head_dim + 12 * ALIGNMENT <= capacity:
            break
        heads = -(-heads // 2)
    return heads
