"""Activations taken into the products before them, for machines that finish sums as they come."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from accelsim.workload.graph import Graph
from accelsim.workload.matrix_operators import FUSED_ACTIVATIONS
from accelsim.workload.operators import Activation, Gemm, Operator


def with_fused_activations(graph: Graph) -> Graph:
    """The graph in which a product applies the activation that alone reads its result; the result
    before it is never rounded nor stored."""
    readers = Counter(name for op in graph.operators for name in op.inputs)
    found: list[Operator] = []
    gone: set[str] = set()
    for op in graph.operators:
        before = found[-1] if found else None
        alone = before is not None and readers[before.output] == 1
        if alone and isinstance(op, Activation) and isinstance(before, Gemm) and _joins(before, op):
            gone.add(before.output)
            found[-1] = replace(before, outputs=op.outputs, activation=op.function)
        else:
            found.append(op)
    if not gone:
        return graph
    tensors = {name: spec for name, spec in graph.tensors.items() if name not in gone}
    lanes = {name: lane for name, lane in graph.lanes.items() if name not in gone}
    return replace(graph, tensors=tensors, operators=tuple(found), lanes=lanes)


def _joins(product: Gemm, op: Activation) -> bool:
    """Whether an activation is what a product's epilogue can end with."""
    return (
        op.inputs == (product.output,)
        and not product.activation
        and op.function in FUSED_ACTIVATIONS
    )
