"""A decode batch in two halves that take turns: one attends while the other multiplies weights.

On a machine whose memory attends by itself, arrays are idle while a layer attends, and banks while
it projects. With two halves of the requests both have work. Stages of a layer, for arrays | banks:

    A  projections 1        |              C  output, feed-forward, next projections 1 | attention 2
    B  projections 2        | attention 1  D  the same of half 2        | next attention 1

C and D repeat layer by layer; the last layer ends with the feed-forward of either half. Queues are
in order, so that this is the order of the operators. Weights are read once for each half.

Source: Heo et al., NeuPIMs, ASPLOS 2024, section 5.3 and the published program of stages; enabled
there from 256 requests on, as fewer rows do not fill the arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from accelsim.errors import AccelsimError
from accelsim.workload._words import parse_whole
from accelsim.workload.graph import Graph
from accelsim.workload.operators import Operator
from accelsim.workload.passes import Pass
from accelsim.workload.tensors import TensorSpec

SUB_BATCH_KEYS = ("subbatch", "subbatch_min")
HALVES = 2
LEAST_BATCH = 256
"""Requests below which halves cost more, reading all weights twice, than they hide."""
IN_MEMORY = ("kv_append", "attention")


def sub_batches(step: Pass, count: object, least: object, where: str) -> tuple[Pass, ...]:
    """The passes of the halves of a decode batch; the pass itself for ``count`` 1.

    Raises:
        AccelsimError: another number, no decode, or fewer requests than ``least``.
    """
    number = parse_whole(1 if count is None else count, f"{where}: subbatch")
    most = parse_whole(LEAST_BATCH if least is None else least, f"{where}: subbatch_min")
    if number == 1:
        return (step,)
    if number != HALVES or step.phase != "decode" or step.page:
        raise AccelsimError(
            f"{where}: subbatch {number} in a {step.phase}; accepted: 1, or {HALVES} in a decode"
            " whose cache is not paged"
        )
    if step.batch < max(most, HALVES):
        raise AccelsimError(
            f"{where}: subbatch {HALVES} with batch {step.batch}; accepted: batch from"
            f" {max(most, HALVES)} (subbatch_min), fewer requests do not fill the arrays"
        )
    lengths = step.contexts or (step.kv_len,) * step.batch
    return tuple(_part(step, [lengths[i] for i in mine]) for mine in dealt(lengths))


def dealt(lengths: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Requests of either half: in pairs by length, the longer of a pair to each half in turn."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    halves: tuple[list[int], list[int]] = ([], [])
    for place, request in enumerate(order):
        halves[(place % HALVES) ^ (place // HALVES % HALVES)].append(request)
    return sorted(halves[0]), sorted(halves[1])


def _part(step: Pass, lengths: list[int]) -> Pass:
    same = len({*lengths}) == 1
    return replace(
        step, batch=len(lengths), kv_len=max(lengths), contexts=() if same else tuple(lengths)
    )


def interleaved(step: Pass, parts: tuple[Pass, ...], build: Callable[[Pass], Graph]) -> Graph:
    """One graph of both halves, its operators in the order of the stages."""
    halves = [_renamed(build(part), number) for number, part in enumerate(parts, 1)]
    whole = build(step)
    tensors: dict[str, TensorSpec] = {}
    lanes: dict[str, int] = {}
    for number, half in enumerate(halves, 1):
        tensors |= half.tensors
        lanes |= {s.name: number for s in half.tensors.values() if s.role == "activation"}
    words = (
        f"sub-batches: {' and '.join(str(part.batch) for part in parts)} requests take turns, one"
        " attends while the other multiplies weights, which each half reads",
    )
    settings = dict(whole.settings) | {"subbatch": HALVES}
    operators = tuple(_in_stages(halves))
    return Graph(whole.name, tensors, operators, settings, whole.assumptions + words, lanes)


def _renamed(graph: Graph, number: int) -> Graph:
    """A half with names of its own for everything but weights."""
    new = {
        name: name if spec.role == "weight" else f"{name}#{number}"
        for name, spec in graph.tensors.items()
    }
    operators = tuple(
        replace(
            op,
            name=f"{op.name}#{number}",
            inputs=tuple(new[name] for name in op.inputs),
            outputs=tuple(new[name] for name in op.outputs),
        )
        for op in graph.operators
    )
    tensors = {new[n]: replace(spec, name=new[n]) for n, spec in graph.tensors.items()}
    return Graph(graph.name, tensors, operators, graph.settings, graph.assumptions)


def _in_stages(halves: list[Graph]) -> Iterable[Operator]:
    """Operators of both halves, stage by stage; those of C and D carry their layer."""
    first, second = (_stages(half) for half in halves)
    layers = len(first) // HALVES
    for stages in (first, second):
        yield from _labelled(stages[0], None)
        if stages is first:
            yield from _labelled(first[1], None)
    for layer in range(layers):
        label = layer if layer < layers - 1 else None
        at = 2 * layer
        yield from _labelled(first[at + 2], label)
        yield from _labelled(second[at + 1], label)
        yield from _labelled(second[at + 2], label)
        if label is not None:
            yield from _labelled(first[at + 3], label)


def _stages(graph: Graph) -> list[list[Operator]]:
    """Operators in runs: what arrays and lanes do, then what memory does, in turn."""
    runs: list[list[Operator]] = [[]]
    for op in graph.operators:
        inside = op.kind in IN_MEMORY
        if inside != (len(runs) % 2 == 0):
            runs.append([])
        runs[-1].append(op)
    return runs


def _labelled(operators: list[Operator], layer: int | None) -> Iterable[Operator]:
    return (replace(op, layer=layer) for op in operators)
