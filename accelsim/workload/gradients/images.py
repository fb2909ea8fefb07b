"""Gradients of windows over images."""

from __future__ import annotations

from accelsim.workload.gradients.backward import Backward, gradient_of
from accelsim.workload.operators import Col2im, Pool2d, Pool2dGrad


@gradient_of("pool2d")
def pool2d(op: Pool2d, grad: str, back: Backward) -> None:
    """What every tap of a window gets, then added up in the image."""
    x = op.inputs[0]
    form = (op.batch, op.h, op.w, op.channels, op.fh, op.fw)
    taps, name = back.free(f"{op.name}.taps.grad"), back.grad_name(op, x)
    operands = (grad, x, op.output) if op.function == "max" else (grad,)
    step = Pool2dGrad(taps, operands, (taps,), *form, op.function, op.stride, op.padding)
    back.emit(step, x, final=False)
    image = Col2im(name, (taps,), (name,), *form, op.stride, op.padding)
    back.give(x, back.emit(image, x))
