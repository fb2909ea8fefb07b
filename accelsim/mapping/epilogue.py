"""What is done to finished sums before they are stored: bias, residual, activation."""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.mapping.lowering import Core, Lowering, Ring
from accelsim.mapping.placement import ALIGNMENT
from accelsim.numerics.formats import row_bytes
from accelsim.program.opcodes import Function
from accelsim.program.storage import View
from accelsim.workload.operators import Conv2d, Gemm

F = Function

# The residual passes through a share of the accumulators' memory: 1 / RESERVE of it.
RESERVE = 8

ACTIVATION_FUNCTIONS = {
    "relu": F.RELU,
    "gelu": F.GELU,
    "gelu_tanh": F.GELU_TANH,
    "silu": F.SILU,
    "tanh": F.TANH,
    "sigmoid": F.SIGMOID,
    "exp": F.EXP,
}


DERIVATIVES = {
    "relu": F.STEP,
    "gelu": F.GELU_GRAD,
    "gelu_tanh": F.GELU_TANH_GRAD,
    "silu": F.SILU_GRAD,
    "tanh": F.TANH_GRAD,
    "sigmoid": F.SIGMOID_GRAD,
    "exp": F.EXP,
}


@dataclass(frozen=True)
class Finish:
    """The operands of an epilogue: ``bias`` [1, n], ``residual`` of the result's shape, and the
    activation by name ("": none)."""

    bias: View | None = None
    residual: View | None = None
    activation: str = ""

    def window(self, rows: slice, cols: slice) -> Finish:
        """The epilogue of a window of the result."""
        return Finish(
            None if self.bias is None else self.bias[:, cols],
            None if self.residual is None else self.residual[rows, cols],
            self.activation,
        )

    @property
    def is_empty(self) -> bool:
        """Whether the sums are stored as they are."""
        return self.bias is None and self.residual is None and not self.activation


def finish_of(op: Gemm | Conv2d, low: Lowering) -> Finish:
    """The epilogue of a whole operator; the residual as rows of the result's last axis."""
    width = op.output_shapes()[0][-1]
    bias = low.matrix(op.inputs[2], rows=1) if op.has_bias else None
    residual = low.matrix(op.inputs[3], cols=width) if op.has_residual else None
    return Finish(bias, residual, op.activation)


class Finisher:
    """Carries epilogues out on one core, in the memory of its accumulators."""

    def __init__(
        self,
        low: Lowering,
        core: Core,
        memory: str,
        width: int,
        like: Finish,
        slots: int,
        *,
        streamed: bool = True,
    ) -> None:
        """Buffers for windows of ``width`` columns of results that finish ``like``.

        ``streamed``: the residual passes through buffers of this epilogue, a few rows at a time.
        """
        self.build, self.core, self.memory = low.build, core, memory
        self.bias_ring: Ring | None = None
        self.residual_ring: Ring | None = None
        if not like.is_empty:
            self.vector = core.vector(memory)[0]
        if like.bias is not None:
            self.bias_ring = core.ring(memory, "bias", 1, width, like.bias.fmt, slots)
        if like.residual is not None and streamed:
            fmt = like.residual.fmt
            room = core.arenas[memory].capacity // RESERVE // 2 - 2 * ALIGNMENT
            self.height = max(1, room // row_bytes(width, fmt))
            height = min(self.height, like.residual.rows)
            self.residual_ring = core.ring(memory, "residual", height, width, fmt)

    def finish(self, sums: View, what: Finish) -> None:
        """Add the bias and the residual to ``sums`` and apply the activation, in place."""
        if (bias := self.bias(what)) is not None:
            self.add(sums, bias)
        if what.residual is not None:
            self._add_residual(sums, what.residual)
        if what.activation:
            self.activate(sums, what.activation)

    def bias(self, what: Finish) -> View | None:
        """The bias on chip, if there is one."""
        if what.bias is None or self.bias_ring is None:
            return None
        bias = self.bias_ring.next()[:, : what.bias.cols]
        self.build.load(self.core.load_queues[-1], bias, what.bias)
        return bias

    def add(self, sums: View, term: View) -> None:
        """Add what lies on chip to ``sums``."""
        self.build.vector(self.vector, F.ADD, sums, sums, term)

    def activate(self, sums: View, activation: str) -> None:
        """Apply a function to ``sums``."""
        self.build.vector(self.vector, ACTIVATION_FUNCTIONS[activation], sums, sums)

    def _add_residual(self, sums: View, residual: View) -> None:
        """Add a window of the residual, a few rows at a time."""
        assert self.residual_ring is not None
        for top in range(0, sums.rows, self.height):
            rows = slice(top, min(top + self.height, sums.rows))
            part = self.residual_ring.next()[: rows.stop - top, : sums.cols]
            self.build.load(self.core.load_queues[-1], part, residual[rows, :])
            self.add(sums[rows, :], part)


def reserved_bytes(like: Finish, capacity: int) -> int:
    """Bytes of the accumulators' memory that an epilogue needs beside the bias."""
    return capacity // RESERVE if like.residual is not None else 0
