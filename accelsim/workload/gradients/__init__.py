"""Rules of differentiation, one function per operator kind, and the builder that they write with.

A rule gets an operator, the gradient of its result, and a `Backward`, into which it emits the
operators that make the gradients of its inputs::

    @gradient_of("softmax")
    def softmax(op: Softmax, grad: str, back: Backward) -> None:
        name = back.grad_name(op, op.inputs[0])
        grad_op = SoftmaxGrad(name, (op.output, grad), (name,), op.rows, op.cols)
        back.give(op.inputs[0], back.emit(grad_op, like=op.inputs[0]))

A user's operator adds its own rule the same way.
"""

from __future__ import annotations

from accelsim.workload.gradients import elements, images, products, sequences  # register
from accelsim.workload.gradients.backward import RULES, Backward, gradient_of

__all__ = ["RULES", "Backward", "elements", "gradient_of", "images", "products", "sequences"]
