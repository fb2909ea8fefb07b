"""Parameters of hardware blocks: which a block has, of which type, and whether a value fits.

The dataclass fields of a block are its parameters. One validator per field is built once per
class, so overriding a parameter validates that parameter and nothing else. Values are checked
strictly, as JSON: a quoted number, a fraction or a truth value is not a whole number.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, get_origin, get_type_hints

from accelsim.arch.faults import ParameterError, unknown
from accelsim.errors import AccelsimError
from accelsim.hw.block import Block, Memory, Unit
from accelsim.hw.cache import Cache
from accelsim.hw.catalog import block_kinds
from accelsim.hw.noc import Network
from accelsim.quantities import LARGEST, Quantity, quantity_of

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pydantic_core import ErrorDetails

B = TypeVar("B", bound=Block)

SECTION_OF: dict[str, type[Block]] = {
    "units": Unit,
    "memories": Memory,
    "caches": Cache,
    "networks": Network,
}
"""Sections of an architecture file, and what the blocks in them are."""

# What pydantic's error types mean to someone who writes an architecture.
_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a word",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "missing": "a value",
}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a block class: its name, its declared type and whether it must be given."""

    name: str
    annotation: Any
    required: bool

    @cached_property
    def quantity(self) -> Quantity | None:
        """The physical quantity of the value, None for a plain type."""
        return quantity_of(self.annotation)

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        from pydantic import TypeAdapter

        return TypeAdapter(self.annotation)

    def validated(self, value: object, path: str) -> Any:
        """The value in the declared type; a single value stands for a list of one.

        Raises:
            ParameterError: at ``path``, the value is not what the type accepts.
        """
        from pydantic import ValidationError

        if get_origin(self.annotation) is tuple and not isinstance(value, (list, tuple, Mapping)):
            value = [value]
        try:
            text = json.dumps(value, default=_plain, allow_nan=False)
            valid = self._adapter.validate_json(text, strict=True)
        except ValidationError as error:
            raise _fault(path, error.errors(include_url=False)[0]) from None
        except (ValueError, TypeError, RecursionError):
            raise ParameterError(path, f"{shown(value)} is not a finite plain value") from None
        if isinstance(valid, int) and abs(valid) > LARGEST:
            raise ParameterError(path, f"{shown(value)} is too large; accepted: up to {LARGEST}")
        return valid


def _plain(value: object) -> Any:
    """numpy scalars of a sweep, and paths or dates that YAML or Python made of plain text."""
    if hasattr(value, "item"):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError


def shown(value: object, limit: int = 60) -> str:
    """A value as an architecture file spells it, shortened."""
    if isinstance(value, bool):
        text = "true" if value else "false"
    elif value is None:
        text = "an empty value"
    elif isinstance(value, Mapping):
        text = f"a mapping ({', '.join(map(str, value))})" if value else "an empty mapping"
    else:
        try:
            text = repr(value)
        except ValueError:  # an integer beyond the interpreter's digit limit
            text = "a very long number"
    text = " ".join(text.split())  # a quoted key may hold line breaks; a message is one line
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _fault(path: str, error: ErrorDetails) -> ParameterError:
    """The first thing that pydantic found wrong, in the words of an architecture file."""
    where = ".".join((path, *map(str, error["loc"])))
    kind, value = error["type"], error["input"]
    if kind in ("quantity", "nodes"):
        return ParameterError(where, error["msg"])
    if kind == "literal_error":
        return ParameterError(where, _unknown_choice(value, error["ctx"]["expected"]))
    if kind in _EXPECTED:
        return ParameterError(where, f"{shown(value)} is not {_EXPECTED[kind]}")
    return ParameterError(where, f"{shown(value)}: {error['msg']}")


def _unknown_choice(value: object, expected: str) -> str:
    choices = [choice.strip("'") or "''" for choice in expected.replace(" or ", ", ").split(", ")]
    return unknown("choice", str(value), choices)


_parameters: dict[type, Mapping[str, Parameter]] = {}


def parameters_of(kind: type[Block]) -> Mapping[str, Parameter]:
    """Every parameter of a block class by name, in the order of its fields."""
    if kind not in _parameters:
        _parameters[kind] = MappingProxyType(_read_parameters(kind))
    return _parameters[kind]


def _read_parameters(kind: type[Block]) -> dict[str, Parameter]:
    types = get_type_hints(kind, include_extras=True)
    found = {
        field.name: Parameter(
            field.name,
            types[field.name],
            field.default is MISSING and field.default_factory is MISSING,
        )
        for field in fields(kind)
        if field.init
    }
    # A block's own parameters read better before those that every network has (bandwidth, ...),
    # and those before what every unit has (clock, count).
    common = [field.name for field in fields(Unit)]
    if issubclass(kind, Network):
        common = [field.name for field in fields(Network) if field.name not in common] + common
    rank = {name: place for place, name in enumerate(common, 1)}
    found = {name: found[name] for name in sorted(found, key=lambda name: rank.get(name, 0))}
    return {
        name: parameter
        for sets, own in found.items()
        for name, parameter in (*_derived(kind, sets), (sets, own))
    }


def _derived(kind: type[Block], sets: str) -> Iterator[tuple[str, Parameter]]:
    """The derived parameters that set the parameter ``sets``."""
    for name, target in kind.derived.items():
        if target == sets:
            hints = get_type_hints(getattr(kind, name).fget, include_extras=True)
            yield name, Parameter(name, hints["return"], required=False)


def _settled(block: B, values: dict[str, Any], path: str) -> B:
    """The block with valid values; a derived one sets what it is derived from."""
    block = replace(block, **{name: v for name, v in values.items() if name not in block.derived})
    for name, sets in block.derived.items():
        if name not in values:
            continue
        if sets in values:
            raise ParameterError(
                f"{path}.{name}", f"{name} sets {sets}, which is given, too; accepted: one of them"
            )
        try:
            block = replace(block, **{sets: block.setting(name, values[name])})
        except AccelsimError as fault:
            raise ParameterError(f"{path}.{name}", str(fault)) from None
    return block


def block_class(kind: object, section: str, path: str) -> type[Block]:
    """The registered class of a kind that may stand in ``section`` (a key of SECTION_OF).

    Raises:
        ParameterError: at ``path``, the kind is unknown or belongs into the other section.
    """
    kinds = block_kinds()
    fitting = [name for name, cls in kinds.items() if issubclass(cls, SECTION_OF[section])]
    name = shown(kind) if not isinstance(kind, str) else kind
    if name not in kinds:
        raise ParameterError(path, unknown("kind", name, fitting))
    if name not in fitting:
        homes = [home for home, base in SECTION_OF.items() if issubclass(kinds[name], base)]
        home = homes[0] if homes else "links"
        raise ParameterError(
            path,
            f"kind {name!r} belongs under {home}, not {section}; "
            f"accepted: {', '.join(sorted(fitting))}",
        )
    return kinds[name]


def make_block(cls: type[B], values: Mapping[str, object], path: str) -> B:
    """A block of this class from unvalidated parameter values.

    Raises:
        ParameterError: an unknown, missing, ill-typed or contradictory parameter, and where.
    """
    known = parameters_of(cls)
    for name in values:
        if name not in known:
            raise ParameterError(
                f"{path}.{name}", unknown(f"parameter of kind {cls.kind}", name, known)
            )
    for name, parameter in known.items():
        if parameter.required and name not in values:
            raise ParameterError(path, f"{name} is missing; kind {cls.kind} needs {_needed(known)}")
    valid = {name: known[name].validated(v, f"{path}.{name}") for name, v in values.items()}
    plain = {name: value for name, value in valid.items() if name not in cls.derived}
    return checked(_settled(cls(**plain), valid, path), path)


def _needed(known: Mapping[str, Parameter]) -> str:
    return ", ".join(name for name, parameter in known.items() if parameter.required)


def revalidated(block: B, path: str) -> B:
    """A block built in Python, its values read and checked as a file's would be."""
    return make_block(type(block), values_of(block), path)


def values_of(block: Block) -> dict[str, Any]:
    """Every parameter of a block and its value, without those that follow from others."""
    names = (name for name in parameters_of(type(block)) if name not in block.derived)
    return {name: getattr(block, name) for name in names}


def with_values(block: B, values: Mapping[str, object], path: str) -> B:
    """The block with parameters replaced; a name may go into a mapping ("slots.exp").

    Raises:
        ParameterError: at ``path``.name, as make_block.
    """
    known = parameters_of(type(block))
    valid: dict[str, Any] = {}
    for name, value in values.items():
        first, _, inner = name.partition(".")
        if first not in known:
            raise ParameterError(f"{path}.{name}", unknown(f"parameter of {path}", first, known))
        if inner:
            old = valid.get(first, getattr(block, first))
            if not isinstance(old, Mapping):
                raise ParameterError(
                    f"{path}.{name}", f"{first} is one value; accepted: {path}.{first}"
                )
            value = {**old, inner: value}
        valid[first] = known[first].validated(value, f"{path}.{first}")
    return checked(_settled(block, valid, path), path)


def checked(block: B, path: str) -> B:
    """The block, after its own check of ranges and contradictions.

    Raises:
        ParameterError: at the parameter that the check's message starts with, else at the block.
    """
    try:
        block.check()
    except AccelsimError as fault:
        message = str(fault)
        subject = message.split(" ", 1)[0].split(".")[0]
        inside = subject in parameters_of(type(block))
        raise ParameterError(f"{path}.{subject}" if inside else path, message) from None
    return block
