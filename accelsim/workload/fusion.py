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
    made: dict[str, int] = {}  # by result: the product's place
    gone: set[str] = set()
    for op in graph.operators:
        place = made.get(op.inputs[0], -1) if isinstance(op, Activation) else -1
        product = found[place] if place >= 0 and readers[op.inputs[0]] == 1 else None
        if isinstance(op, Activation) and isinstance(product, Gemm) and _joins(product, op):
            gone.add(product.output)
            found[place] = replace(product, outputs=op.outputs, activation=op.function)
            continue
        if isinstance(op, Gemm) and graph.tensors[op.output].role == "activation":
            made[op.output] = len(found)
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
