"""A workload as a validated graph: operators in execution order over named tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from accelsim.errors import AccelsimError
from accelsim.workload._words import did_you_mean
from accelsim.workload.coding import check_coded
from accelsim.workload.operators import Operator, check_dtypes
from accelsim.workload.segments import Segment, find_segments
from accelsim.workload.tensors import TensorSpec, byte_count, same_elements

if TYPE_CHECKING:
    import networkx


@dataclass(frozen=True)
class Graph:
    """A workload: every tensor, and the operators in an order that respects their data flow.

    Validated on construction, so a Graph that exists is consistent: names are unique, shapes
    and dtypes follow each operator's rule, every tensor has at most one producer (caches are
    updated in place, in the order listed) and is written before it is read.

    Attributes:
        name: what a report prints, e.g. "llama-2-7b".
        tensors: by name; treat as read-only.
        operators: in execution order.
        settings: what was asked for (phase, batch, context, ...), for reports.
        assumptions: what it takes for given, in plain words; results tell it.
        lanes: activations of parts that run side by side, by number; only those of one part take
            each other's place in memory.

    Raises:
        AccelsimError: naming the graph, the operator and the tensor that do not fit.
    """

    name: str
    tensors: Mapping[str, TensorSpec]
    operators: tuple[Operator, ...]
    settings: Mapping[str, str | int] = field(default_factory=dict)
    assumptions: tuple[str, ...] = ()
    lanes: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tensors", dict(self.tensors))
        object.__setattr__(self, "operators", tuple(self.operators))
        object.__setattr__(self, "settings", dict(self.settings))
        try:
            _check_names(self)
            _check_shapes(self)
            _check_order(self)
        except AccelsimError as error:
            raise AccelsimError(f"workload '{self.name}': {error}") from None

    def __hash__(self) -> int:
        return hash((self.name, self.operators))

    def __len__(self) -> int:
        return len(self.operators)

    def operator(self, name: str) -> Operator:
        """The operator called `name`; AccelsimError when there is none."""
        for candidate in self.operators:
            if candidate.name == name:
                return candidate
        hint = did_you_mean(name, (candidate.name for candidate in self.operators))
        raise AccelsimError(f"workload '{self.name}' has no operator '{name}'{hint}")

    @cached_property
    def producers(self) -> dict[str, Operator]:
        """The operator that writes each tensor (the last one, for a cache)."""
        return {name: op for op in self.operators for name in op.outputs}

    @cached_property
    def dependencies(self) -> tuple[tuple[int, ...], ...]:
        """For each operator, the indices of the earlier operators that it must follow.

        Covers read after write and, for caches updated in place, write after read and write
        after write.
        """
        return tuple(tuple(sorted(before)) for before in _dependencies(self.operators))

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Tensors that must be filled before a run: all but activations and outputs."""
        produced = ("activation", "output")
        return tuple(spec for spec in self.tensors.values() if spec.role not in produced)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Tensors that are the answer of the workload."""
        return self._with_role("output")

    @property
    def weights(self) -> tuple[TensorSpec, ...]:
        """Learned parameters; a tensor shared by several operators appears once."""
        return self._with_role("weight")

    def _with_role(self, role: str) -> tuple[TensorSpec, ...]:
        return tuple(spec for spec in self.tensors.values() if spec.role == role)

    @property
    def parameters(self) -> int:
        """Number of weight elements, tied weights counted once."""
        return sum(spec.elements for spec in self.weights)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights, tied weights counted once."""
        return sum(spec.bytes for spec in self.weights)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the whole workload."""
        return sum(op.macs for op in self.operators)

    @property
    def flops(self) -> int:
        """Arithmetic operations of the whole workload, two for a multiply-accumulate."""
        return sum(op.flops for op in self.operators)

    def bytes_read(self, operator: Operator) -> int:
        """Bytes that an operator needs from its inputs, each element once."""
        return self._bytes(operator.inputs, operator.elements_read())

    def bytes_written(self, operator: Operator) -> int:
        """Bytes that an operator stores to its outputs, each element once."""
        return self._bytes(operator.outputs, operator.elements_written())

    def _bytes(self, names: tuple[str, ...], elements: tuple[int, ...]) -> int:
        counts: dict[str, int] = {}  # an operand used twice (x + x) moves once
        for name, count in zip(names, elements, strict=True):
            counts[name] = max(count, counts.get(name, 0))
        return sum(self._stored(name, count) for name, count in counts.items())

    def _stored(self, name: str, elements: int) -> int:
        spec = self.tensors[name]
        if spec.coding is not None:  # a coded weight is read as a whole
            return spec.bytes
        return byte_count(elements, spec.dtype)

    def segments(self) -> tuple[Segment, ...]:
        """The operators as slices with repeat counts: identical consecutive layers once.

        See `Segment` for what identical means.
        """
        return find_segments(self)

    def networkx(self) -> networkx.DiGraph:
        """The data-flow graph as a networkx.DiGraph.

        Nodes are operator names with attribute `operator`; an edge carries the names of the
        tensors that cross it in `tensors` (none for a pure ordering edge of a cache).
        """
        import networkx

        graph = networkx.DiGraph(name=self.name)
        graph.add_nodes_from((op.name, {"operator": op}) for op in self.operators)
        for op, before in zip(self.operators, self.dependencies, strict=True):
            for index in before:
                source = self.operators[index]
                crossing = tuple(name for name in source.outputs if name in op.inputs)
                graph.add_edge(source.name, op.name, tensors=crossing)
        return graph

    def renamed(self, name: str) -> Graph:
        """The same workload under another name."""
        return replace(self, name=name)

    def to_dict(self) -> dict[str, Any]:
        """Plain data of the whole graph, JSON-serialisable, in a stable order."""
        return {
            "name": self.name,
            "settings": dict(self.settings),
            "tensors": [
                {**asdict(spec), "values_kind": type(spec.values).__name__}
                for spec in self.tensors.values()
            ],
            "operators": [{"kind": op.kind, **asdict(op)} for op in self.operators],
        }

    def digest(self) -> str:
        """SHA-256 of the graph's content, 64 hexadecimal digits; equal graphs, equal digests."""
        import hashlib

        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _check_names(graph: Graph) -> None:
    """Tensors are known and used; operators have distinct names."""
    if not graph.operators:
        raise AccelsimError("it has no operators; accepted: at least one")
    for key, spec in graph.tensors.items():
        if key != spec.name:
            raise AccelsimError(f"tensor '{spec.name}' is listed under the name '{key}'")
    seen: set[str] = set()
    used: set[str] = set()
    for op in graph.operators:
        if op.name in seen:
            raise AccelsimError(f"two operators are called '{op.name}'")
        seen.add(op.name)
        for name in (*op.inputs, *op.outputs):
            if name not in graph.tensors:
                raise op.error(f"no tensor '{name}'{did_you_mean(name, graph.tensors)}")
            used.add(name)
    for name in graph.tensors:
        if name not in used:
            raise AccelsimError(f"tensor '{name}' is used by no operator")


def _check_shapes(graph: Graph) -> None:
    """Shapes and dtypes of every operator's tensors follow its rule."""
    for op in graph.operators:
        names = (*op.inputs, *op.outputs)
        for name, expected in zip(names, (*op.input_shapes(), *op.output_shapes()), strict=True):
            found = graph.tensors[name].shape
            if not same_elements(found, expected):
                raise op.error(
                    f"tensor '{name}' has shape {list(found)}, expected {list(expected)}"
                )
        for position, name in enumerate(op.inputs):
            check_coded(op, position, graph.tensors[name])
        dtypes = [graph.tensors[name].dtype for name in names]
        check_dtypes(op, dtypes[: len(op.inputs)], dtypes[len(op.inputs) :])


def _check_order(graph: Graph) -> None:
    """One producer each, and every tensor is written before it is read."""
    producers: dict[str, Operator] = {}
    for op in graph.operators:
        for name in op.outputs:
            _check_producer(op, graph.tensors[name], producers.get(name))
            producers[name] = op
    written: set[str] = set()
    _check_places(graph, producers)
    for op in graph.operators:
        for name in op.inputs:
            role = graph.tensors[name].role
            if role not in ("activation", "output") or name in written:
                continue
            if name not in producers:
                raise op.error(f"reads {role} '{name}', which no operator writes")
            raise _order_error(graph, op, name, producers[name])
        written.update(op.outputs)


def _check_places(graph: Graph, producers: Mapping[str, Operator]) -> None:
    """What takes the place of a tensor is as large, and made when all others have read that."""
    readers = {name: op for op in graph.operators for name in op.inputs}
    order = {op.name: i for i, op in enumerate(graph.operators)}
    for spec in graph.tensors.values():
        if not spec.place_of:
            continue
        old = graph.tensors.get(spec.place_of)
        if old is None or old.role not in ("input", "weight") or old.bytes != spec.bytes:
            raise AccelsimError(
                f"tensor '{spec.name}' takes the place of '{spec.place_of}'; accepted: an input or"
                f" weight of {spec.bytes} bytes"
            )
        maker, last = producers.get(spec.name), readers.get(old.name)
        if maker is None or (last is not None and order[last.name] > order[maker.name]):
            raise AccelsimError(
                f"tensor '{spec.name}' takes the place of '{old.name}', which is read later;"
                " accepted: written last"
            )


def _check_producer(op: Operator, spec: TensorSpec, earlier: Operator | None) -> None:
    if spec.role == "cache":
        if spec.name not in op.inputs:
            raise op.error(f"overwrites cache '{spec.name}'; accepted: an in-place update")
        return
    if spec.role not in ("activation", "output"):
        raise op.error(f"writes {spec.role} '{spec.name}'; accepted: an activation or output")
    if earlier is not None:
        raise op.error(f"writes '{spec.name}', which operator '{earlier.name}' writes too")


def _order_error(graph: Graph, op: Operator, tensor: str, producer: Operator) -> AccelsimError:
    """The reason why `op` reads a tensor too early: a cycle, or a wrong listing order."""
    cycle = _cycle(graph)
    if cycle:
        return AccelsimError(f"operators form a cycle: {' -> '.join([*cycle, cycle[0]])}")
    return op.error(
        f"reads '{tensor}' before operator '{producer.name}' writes it; "
        f"accepted: '{producer.name}' listed before '{op.name}'"
    )


def _cycle(graph: Graph) -> list[str]:
    """Names of the operators around one cycle of the data flow, or an empty list."""
    import networkx

    flow = networkx.DiGraph()
    for op in graph.operators:
        for name in op.inputs:
            producer = graph.producers.get(name)
            if producer is not None and graph.tensors[name].role != "cache":
                flow.add_edge(producer.name, op.name)
    try:
        return [source for source, _ in networkx.find_cycle(flow)]
    except networkx.NetworkXNoCycle:
        return []


def _dependencies(operators: tuple[Operator, ...]) -> list[set[int]]:
    last_writer: dict[str, int] = {}
    readers: dict[str, list[int]] = {}
    result: list[set[int]] = []
    for index, op in enumerate(operators):
        before = {last_writer[name] for name in op.inputs if name in last_writer}
        for name in op.outputs:
            before.update(readers.pop(name, []))
            if name in last_writer:
                before.add(last_writer[name])
            last_writer[name] = index
        for name in op.inputs:
            if name not in op.outputs:
                readers.setdefault(name, []).append(index)
        result.append(before)
    return result
