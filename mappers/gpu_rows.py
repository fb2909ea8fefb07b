"""Row-wise operators on a GPU, each as the kernel that its library runs.

softmax                 PyTorch: rows of up to 1024 stay in registers; longer ones are read three
                        times, for the maximum, the sum and the result (aten/.../SoftMax.cu)
layernorm, activation,  code that torch.compile generates: packets of 16 bytes; rows of a norm
elementwise, residual   beyond 1024 are read again for the result (torch/_inductor, Triton)
rmsnorm, rotary, glu    vLLM's: one CTA for each token, element by element; the norm reads its
                        row and its weights again for the result (csrc/*_kernels.cu)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from accelsim.hw.simt import LoadStore, Simt
from accelsim.mapping.attention.simt_softmax import softmax_kernel
from accelsim.mapping.attention.stretches import Stretches
from accelsim.mapping.lowering import Lowering
from accelsim.mapping.registry import mapper
from accelsim.mapping.simt_rows import (
    FP32,
    Load,
    Step,
    Threads,
    cut,
    elementwise,
    piece_width,
    shares,
    tile_height,
)
from accelsim.program.opcodes import Function
from accelsim.program.storage import View
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

INDUCTOR_CTAS, VLLM_CTAS = 8, 2
"""Rows that a multiprocessor works on at once: CTAs of 256 and of 1024 of its 2048 threads."""

ACTIVATION_FUNCTIONS = {
    "relu": F.RELU,
    "gelu": F.GELU,
    "gelu_tanh": F.GELU_TANH,
    "silu": F.SILU,
    "tanh": F.TANH,
    "sigmoid": F.SIGMOID,
    "exp": F.EXP,
}


@mapper("gpu-softmax", lowers=("softmax",), needs=(Simt, LoadStore), preference=1)
def gpu_softmax(op: Softmax, low: Lowering) -> None:
    """Row softmax: one read for short rows, three for long ones."""
    x, out = (Stretches((low.matrix(n, op.rows, op.cols),)) for n in (op.inputs[0], op.output))
    softmax_kernel(low, x, out)


@dataclass(frozen=True)
class _Norm:
    """What distinguishes the norms: where the mean is taken out, and how the kernel reads.

    ``resident`` rows are worked on at once by the CTAs that a multiprocessor holds.
    """

    eps: float
    weights: Sequence[View]  # weight, and bias if there is one
    centred: bool
    scalar: bool
    resident: int


@mapper("gpu-layernorm", lowers=("layernorm",), needs=(Simt, LoadStore), preference=1)
def gpu_layernorm(op: LayerNorm, low: Lowering) -> None:
    """Mean, centred variance, scale and shift; long rows are read again for the result."""
    weights = [low.matrix(name, 1, op.cols) for name in op.inputs[1:]]
    _norm_kernel(
        op, low, _Norm(op.eps, weights, centred=True, scalar=False, resident=INDUCTOR_CTAS)
    )


@mapper("gpu-rmsnorm", lowers=("rmsnorm",), needs=(Simt, LoadStore), preference=1)
def gpu_rmsnorm(op: RmsNorm, low: Lowering) -> None:
    """Mean square and scale, element by element, one CTA for each row."""
    weights = [low.matrix(op.inputs[1], 1, op.cols)]
    _norm_kernel(op, low, _Norm(op.eps, weights, centred=False, scalar=True, resident=VLLM_CTAS))


def _norm_kernel(op: LayerNorm | RmsNorm, low: Lowering, norm: _Norm) -> None:
    x = low.matrix(op.inputs[0], op.rows, op.cols)
    out = low.matrix(op.output, op.rows, op.cols)
    low.launch()
    for core, rows in shares(low, op.rows):
        kernel = _NormOnCore(Threads(low, core), x, out, norm)
        tiles = cut(rows, kernel.height)
        kernel.t.run([step for tile in tiles for step in kernel.steps(tile)])


class _NormOnCore:
    """A norm's kernel on one multiprocessor: its buffers and the steps of a tile."""

    def __init__(self, t: Threads, x: View, out: View, norm: _Norm) -> None:
        self.t, self.x, self.out, self.norm = t, x, out, norm
        held = sum(2 * w.fmt.bits // 8 for w in norm.weights)
        element = (2 * x.fmt.bits + 2 * out.fmt.bits) // 8 + 8
        share = -(-x.rows // len(t.low.cores))
        resident = min(share, norm.resident)
        self.width = piece_width(x.cols, element + held, t.free)
        if self.width < x.cols:
            self.width = piece_width(x.cols, resident * element + held, t.free)
        free = t.free - held * self.width
        self.height = tile_height(share, self.width, element * self.width + 64, free, resident)
        self.read = t.ring("x", self.height, self.width, x.fmt)
        self.weights = [t.ring(f"w{i}", 1, self.width, w.fmt) for i, w in enumerate(norm.weights)]
        self.wide = [t.ring(f"t{i}", self.height, self.width, FP32, 1) for i in range(2)]
        self.result = t.ring("y", self.height, self.width, out.fmt)
        self.narrow = {n: t.ring(n, self.height, 1, FP32) for n in ("mean", "scale", "part")}

    def steps(self, rows: slice) -> list[Step]:
        """Mean, variance and result of a tile of rows, each over all pieces of the rows.

        A row that fits on chip keeps what was read for the first pass.
        """
        h = rows.stop - rows.start
        mean, scale = (self.narrow[n].next()[:h, :] for n in ("mean", "scale"))
        pieces = cut(slice(0, self.x.cols), self.width)
        # One descriptor for all reads of a piece.
        loads = [(self.read, self.x[rows, cols], self.norm.scalar) for cols in pieces]
        both = list(zip(pieces, loads, strict=True))
        steps: list[Step] = []
        if len(pieces) == 1:
            steps.append(Step(loads, lambda tiles: self._statistics(tiles[0], mean, scale)))
        else:
            if self.norm.centred:
                steps += [self._mean_step(cols, load, mean) for cols, load in both]
            steps += [self._square_step(cols, load, mean, scale) for cols, load in both]
        return steps + [self._result_step(rows, c, load, mean, scale) for c, load in both]

    def _statistics(self, x: View, mean: View, scale: View) -> None:
        everything = slice(0, x.cols)
        if self.norm.centred:
            self._fold(x, mean, everything)
        self._squares(x, mean, scale, everything)

    def _mean_step(self, cols: slice, load: Load, mean: View) -> Step:
        return Step([load], lambda tiles: self._fold(tiles[0], mean, cols))

    def _square_step(self, cols: slice, load: Load, mean: View, scale: View) -> Step:
        return Step([load], lambda tiles: self._squares(tiles[0], mean, scale, cols))

    def _result_step(self, rows: slice, cols: slice, load: Load, mean: View, scale: View) -> Step:
        loads = [load]
        for ring, weight in zip(self.weights, self.norm.weights, strict=True):
            loads.append((ring, weight[:, cols], False))
        return Step(loads, lambda tiles: self._result(tiles, rows, cols, mean, scale))

    def _fold(self, source: View, total: View, cols: slice) -> None:
        """Add a piece of the rows to their sums; at the end take the mean."""
        if cols.start == 0:
            self.t.do(F.ROW_SUM, total, source)
        else:
            part = self.t.do(F.ROW_SUM, self.narrow["part"].next()[: source.rows, :], source)
            self.t.do(F.ADD, total, total, part)
        if cols.stop == self.x.cols:
            self.t.do(F.MUL_IMM, total, total, imm=1.0 / self.x.cols)

    def _centred(self, x: View, mean: View) -> View:
        if not self.norm.centred:
            return x
        return self.t.do(F.SUB, self.wide[0].next()[: x.rows, : x.cols], x, mean)

    def _squares(self, x: View, mean: View, scale: View, cols: slice) -> None:
        square = self.wide[1].next()[: x.rows, : x.cols]
        centred = self._centred(x, mean)
        self.t.do(F.MUL, square, centred, centred)
        self._fold(square, scale, cols)
        if cols.stop == self.x.cols:
            self.t.do(F.ADD_IMM, scale, scale, imm=self.norm.eps)
            self.t.do(F.RSQRT, scale, scale)

    def _result(self, tiles: list[View], rows: slice, cols: slice, mean: View, scale: View) -> None:
        x, *weights = tiles
        t, y = self.t, self.wide[1].next()[: tiles[0].rows, : tiles[0].cols]
        out = self.result.next()[: x.rows, : x.cols]
        t.do(F.MUL, y, self._centred(x, mean), scale)
        t.do(F.MUL, y if len(weights) > 1 else out, y, weights[0])
        if len(weights) > 1:
            t.do(F.ADD, out, y, weights[1])
        t.store(self.out[rows, cols], out, scalar=self.norm.scalar)


@mapper("gpu-activation", lowers=("activation",), needs=(Simt, LoadStore), preference=1)
def gpu_activation(op: Activation, low: Lowering) -> None:
    """One function over every element."""

    def quick_gelu(t: Threads, x: list[View], temporaries: Sequence[View], y: View) -> None:
        gate = t.do(F.MUL_IMM, temporaries[0], x[0], imm=1.702)
        t.do(F.SIGMOID, gate, gate)
        t.do(F.MUL, y, x[0], gate)

    def single(t: Threads, x: list[View], _temporaries: Sequence[View], y: View) -> None:
        t.do(ACTIVATION_FUNCTIONS[op.function], y, x[0])

    composite = op.function == "quick_gelu"
    elementwise(
        low,
        [low.matrix(op.inputs[0], op.rows, op.cols)],
        low.matrix(op.output, op.rows, op.cols),
        quick_gelu if composite else single,
        temporaries=int(composite),
    )


@mapper("gpu-glu", lowers=("glu",), needs=(Simt, LoadStore), preference=1)
def gpu_glu(op: GatedActivation, low: Lowering) -> None:
    """A function of the gate half of each row, times its other half, element by element."""

    def emit(t: Threads, x: list[View], temporaries: Sequence[View], y: View) -> None:
        t.do(ACTIVATION_FUNCTIONS[op.function], temporaries[0], x[0])
        t.do(F.MUL, y, temporaries[0], x[1])

    halves = [
        low.window(op.inputs[0], half * op.cols, op.rows, op.cols, 2 * op.cols) for half in (0, 1)
    ]
    out = low.matrix(op.output, op.rows, op.cols)
    elementwise(low, halves, out, emit, temporaries=1, scalar=True)


@mapper(
    "gpu-elementwise", lowers=("elementwise", "residual"), needs=(Simt, LoadStore), preference=1
)
def gpu_elementwise(op: Elementwise, low: Lowering) -> None:
    """Two operands combined element by element, the second possibly one row for all."""

    def emit(t: Threads, x: list[View], _temporaries: Sequence[View], y: View) -> None:
        t.do(Function[op.function.upper()], y, x[0], x[1])

    elementwise(
        low,
        [
            low.matrix(op.inputs[0], op.rows, op.cols),
            low.matrix(op.inputs[1], 1 if op.broadcast_b else op.rows, op.cols),
        ],
        low.matrix(op.output, op.rows, op.cols),
        emit,
    )


@mapper("gpu-rotary", lowers=("rotary",), needs=(Simt, LoadStore), preference=1)
def gpu_rotary(op: Rotary, low: Lowering) -> None:
    """x*cos + rotate_half(x)*sin, element by element, one CTA for each token."""
    low.launch()
    for core, tokens in shares(low, op.tokens):
        kernel = _RotaryOnCore(Threads(low, core), op)
        kernel.t.run([kernel.step(token) for token in range(tokens.start, tokens.stop)])


class _RotaryOnCore:
    """The rotary kernel on one multiprocessor: a token's heads are the rows of its tile."""

    def __init__(self, t: Threads, op: Rotary) -> None:
        self.t, self.op, d = t, op, op.head_dim
        fmt, table = t.low.format(op.inputs[0]), t.low.format(op.inputs[1])
        self.read = t.ring("x", op.heads, d, fmt)
        self.tables = [t.ring(name, 1, d, table) for name in ("cos", "sin")]
        self.turned, self.straight = (t.ring(n, op.heads, d, FP32, 1) for n in ("turned", "x cos"))
        self.result = t.ring("y", op.heads, d, fmt)

    def step(self, token: int) -> Step:
        """All heads of one token."""
        op, low, d = self.op, self.t.low, self.op.head_dim
        first = token * op.heads * d
        row = (op.position + token % op.q_len) * d
        x, out = (low.window(n, first, op.heads, d, d) for n in (op.inputs[0], op.output))
        tables = [low.window(name, row, 1, d, d) for name in op.inputs[1:]]

        def work(tiles: list[View]) -> None:
            source, cos, sin = tiles
            turned = self.t.do(F.ROTATE_HALF, self.turned.next(), source, imm=d)
            self.t.do(F.MUL, turned, turned, sin)
            straight = self.t.do(F.MUL, self.straight.next(), source, cos)
            y = self.t.do(F.ADD, self.result.next(), straight, turned)
            self.t.store(out, y, scalar=True)

        loads = [(ring, view, False) for ring, view in zip(self.tables, tables, strict=True)]
        return Step([(self.read, x, True), *loads], work)
