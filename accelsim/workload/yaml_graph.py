"""A graph of operators written in YAML: kinds and dimensions by name, blocks repeated.

    name: ffn-block                      # optional, by default the file's name
    description: one line                # optional
    dtype: bf16                          # optional
    parameters: {tokens: 128}            # sizes that a user may override by key=value
    operators:
      - {name: embed, kind: gemm, m: tokens, n: 64, k: 32}
      - repeat: 4                        # names become layer0.up, layer1.up, ...
        carry: {x: {first: embed, next: down}}
        operators:
          - {name: up, kind: gemm, m: tokens, n: 256, k: 64, inputs: {a: x}}
          - {name: down, kind: gemm, m: tokens, n: 64, k: 256, inputs: {a: up}}

`inputs` names, for an operand, an earlier operator (its result), an operand of an earlier
operator (`up.b`, to share a weight) or a carried name. An operand left out gets a tensor of its
own. `carry` gives a name to what flows from one repetition to the next: the result of operator
`first` outside of the block (a new input when absent) and then of `next` in the one before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelsim.errors import AccelsimError
from accelsim.workload._words import did_you_mean, listed, parse_whole, shown
from accelsim.workload.coding import coding_assumptions
from accelsim.workload.graph import Graph
from accelsim.workload.kinds import DEFAULT_DTYPE, describe
from accelsim.workload.operators import Operator
from accelsim.workload.single import bind, declare
from accelsim.workload.tensors import TensorSpec, dtype_named
from accelsim.workload.yaml_tables import Table, load_table

TOP_KEYS = ("name", "description", "dtype", "parameters", "operators")
BLOCK_KEYS = ("repeat", "carry", "operators")
MAX_OPERATORS = 1_000_000


def read_yaml_graph(path: str | Path, settings: Mapping[str, object] | None = None) -> Graph:
    """The graph in a YAML file.

    Args:
        path: the file.
        settings: `dtype` and values for the file's `parameters`; values may be text.

    Raises:
        AccelsimError: with file:line, for anything that is not understood or does not fit.
    """
    file = Path(path)
    top = load_table(file)
    _known(top, TOP_KEYS, file)
    chosen = dict(settings or {})
    dtype = str(chosen.pop("dtype", top.get("dtype", DEFAULT_DTYPE)))
    dtype_named(dtype, str(file))
    parameters = _parameters(file, top, chosen)
    reader = _Reader(file, dtype, parameters)
    reader.entries(_tables(top, "operators", file), {}, "", None)
    name = top.get("name", file.stem)
    if not isinstance(name, str):
        raise AccelsimError(f"{file}:{top.line}: name is {shown(name)}; accepted: a word")
    try:
        return reader.graph(name)
    except AccelsimError as error:
        raise AccelsimError(f"{file}: {error}") from None


def describe_yaml_graph(path: Path) -> str:
    """The description line of a YAML graph."""
    return str(load_table(path).get("description", "graph of operators"))


def _known(table: Table, accepted: tuple[str, ...], file: Path) -> None:
    for key in table:
        if key not in accepted:
            raise AccelsimError(
                f"{file}:{table.line_of(key)}: unknown key '{key}'{did_you_mean(key, accepted)}; "
                f"accepted: {listed(accepted)}"
            )


def _tables(table: Table, key: str, file: Path) -> list[Table]:
    value = table.get(key)
    if isinstance(value, list) and value and all(isinstance(item, Table) for item in value):
        return value
    line = table.line_of(key) if key in table else table.line
    raise AccelsimError(f"{file}:{line}: {key} is {shown(value)}; accepted: a list of operators")


def _parameters(file: Path, top: Table, chosen: Mapping[str, object]) -> dict[str, int]:
    """The file's parameters with the user's values in place of the defaults."""
    declared = top.get("parameters", Table(top.line))
    if not isinstance(declared, Table):
        raise AccelsimError(f"{file}:{top.line_of('parameters')}: accepted: NAME: SIZE pairs")
    for name in chosen:
        if name not in declared:
            accepted = [*declared, "dtype"]
            raise AccelsimError(
                f"{file}: unknown key '{name}'{did_you_mean(name, accepted)}; "
                f"accepted: {listed(accepted)}"
            )
    return {
        name: parse_whole(chosen.get(name, value), f"{file}:{declared.line_of(name)}: {name}")
        for name, value in declared.items()
    }


class _Reader:
    """Turns entries into operators; `scope` maps the names an entry may use to tensors."""

    def __init__(self, file: Path, dtype: str, parameters: dict[str, int]) -> None:
        self.file = file
        self.dtype = dtype
        self.parameters = parameters
        self.tensors: dict[str, TensorSpec] = {}
        self.operators: list[Operator] = []
        self.layers = 0

    def graph(self, name: str) -> Graph:
        """The graph; results that nobody reads are its outputs."""
        read = {tensor for op in self.operators for tensor in op.inputs}
        tensors = {
            key: replace(spec, role="output")
            if spec.role == "activation" and key not in read
            else spec
            for key, spec in self.tensors.items()
        }
        settings: dict[str, str | int] = {**self.parameters, "dtype": self.dtype}
        told = coding_assumptions([*tensors.values()])
        return Graph(name, tensors, tuple(self.operators), settings, told)

    def error(self, line: int, problem: str) -> AccelsimError:
        """An error at a line of the file."""
        return AccelsimError(f"{self.file}:{line}: {problem}")

    def entries(
        self, tables: list[Table], scope: dict[str, str], prefix: str, layer: int | None
    ) -> None:
        """Operators and blocks in order; adds their results to `scope`."""
        for table in tables:
            if "repeat" not in table:
                self.operator(table, scope, prefix, layer)
            elif layer is None:
                self.block(table, scope)
            else:
                raise self.error(table.line, "a block inside a block; accepted: one level")

    def block(self, table: Table, scope: dict[str, str]) -> None:
        """A repeated block; each repetition is a layer."""
        _known(table, BLOCK_KEYS, self.file)
        count = self.size(table, "repeat")
        body = _tables(table, "operators", self.file)
        carry = self.carry(table)
        if count * len(body) > MAX_OPERATORS:
            raise self.error(table.line, f"repeat {count}; accepted: {MAX_OPERATORS} operators")
        inner: dict[str, str] = {}
        for repetition in range(count):
            carried = {
                name: self.resolve(rule["next"], inner, rule.line)
                if repetition
                else self.first(rule, scope)
                for name, rule in carry.items()
            }
            inner = {**scope, **carried}
            self.entries(body, inner, f"layer{self.layers}.", self.layers)
            self.layers += 1
        scope.update({name: value for name, value in inner.items() if name not in carry})

    def carry(self, table: Table) -> dict[str, Table]:
        """The carried names of a block, each with its rule."""
        carry = table.get("carry", {})
        valid = isinstance(carry, Mapping) and all(
            isinstance(rule, Table) and "next" in rule for rule in carry.values()
        )
        if not valid:
            raise self.error(table.line_of("carry"), "accepted: NAME: {first: OP, next: OP}")
        for rule in carry.values():
            _known(rule, ("first", "next"), self.file)
        return dict(carry)

    def first(self, rule: Table, scope: dict[str, str]) -> str:
        """The tensor that enters the first repetition; empty until its first use declares it."""
        return self.resolve(rule["first"], scope, rule.line) if "first" in rule else ""

    def resolve(self, name: object, scope: Mapping[str, str], line: int) -> str:
        """The tensor that a name means."""
        if isinstance(name, str) and name in scope:
            return scope[name]
        hint = did_you_mean(name, scope) if isinstance(name, str) else ""
        accepted = listed(scope) or "no earlier operators"
        raise self.error(line, f"no tensor {shown(name)}{hint}; accepted: {accepted}")

    def size(self, table: Table, key: str) -> int:
        """A whole number, or the name of a parameter."""
        what = f"{self.file}:{table.line_of(key)}: {key}"
        return parse_whole(self.value(table[key]), what)

    def value(self, value: object) -> object:
        """The value of an entry's key: the parameter that it names, or itself."""
        return self.parameters.get(value, value) if isinstance(value, str) else value

    def operator(self, table: Table, scope: dict[str, str], prefix: str, layer: int | None) -> None:
        """One operator, its tensors, and its names in `scope`."""
        where = f"{self.file}:{table.line}"
        name, kind = (self.word(table, key) for key in ("name", "kind"))
        pairs = {
            key: self.value(value)
            for key, value in table.items()
            if key not in ("name", "kind", "inputs")
        }
        form, dtype, extras, out, coding = describe(kind, pairs, where)
        bound = self.bound(table, form[0], scope)
        try:
            operator = bind(form, prefix + name, bound, extras=extras, layer=layer)
            main = self.tensors.get(operator.inputs[0])
            own = main.dtype if main else dtype or self.dtype
            specs = declare(operator, own, "activation", out, coding)
        except AccelsimError as error:
            raise AccelsimError(f"{where}: {error}") from None
        self.operators.append(operator)
        for spec in specs:
            self.tensors.setdefault(spec.name, spec)
        self.publish(table, name, operator, scope)

    def publish(self, table: Table, name: str, operator: Operator, scope: dict[str, str]) -> None:
        """Let later entries use an operator's result and operands by name."""
        for operand, tensor in zip(operator.present(), operator.inputs, strict=True):
            scope[f"{name}.{operand.name}"] = tensor
            used = table.get("inputs", {}).get(operand.name)
            if scope.get(used) == "":  # a carried name that enters as a new input
                scope[used] = tensor
        scope[name] = operator.output

    def bound(self, table: Table, cls: type[Operator], scope: dict[str, str]) -> dict[str, str]:
        """Tensor names for the operands that the entry wires."""
        inputs = table.get("inputs", Table(table.line))
        if not isinstance(inputs, Table):
            raise self.error(table.line_of("inputs"), "accepted: inputs: {OPERAND: OPERATOR}")
        _known(inputs, tuple(operand.name for operand in cls.operands), self.file)
        wired = {key: self.resolve(value, scope, inputs.line) for key, value in inputs.items()}
        return {key: tensor for key, tensor in wired.items() if tensor}

    def word(self, table: Table, key: str) -> str:
        """A required word of an entry."""
        value: Any = table.get(key)
        if isinstance(value, str) and value:
            return value
        raise self.error(table.line, f"{key} is {shown(value)}; accepted: {key}: a word")
