"""YAML with line numbers: a file as a tree of values that know the line they stand on.

Scalars follow the YAML 1.2 core schema plus yes/no/on/off, so "1e9" is a number, "1:30" is not
ninety, and names are what is written. Keys are always text. Anchors and merge keys (``<<``) work;
a key given twice is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from accelsim.errors import AccelsimError

if TYPE_CHECKING:
    from yaml import MappingNode, MarkedYAMLError, ScalarNode

Scalar: TypeAlias = str | int | float | bool | None

# Deeper than any parameter of a block; also ends a self-referring alias.
_MAX_DEPTH = 8

# What the parser itself calls plain and quoted scalars.
_TAGS = frozenset({"str", "int", "float", "bool", "null", "timestamp", "value", "merge"})

_INTEGER = re.compile(r"[+-]?[0-9][0-9_]*", re.ASCII)
_BASED = re.compile(r"0x[0-9a-fA-F]+|0o[0-7]+|0b[01]+", re.ASCII)
_FLOAT = re.compile(r"[+-]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][+-]?[0-9]+)?", re.ASCII)
_WORDS: dict[str, Scalar] = {
    "": None, "~": None, "null": None,
    "true": True, "yes": True, "on": True,
    "false": False, "no": False, "off": False,
    ".inf": float("inf"), "+.inf": float("inf"), "-.inf": float("-inf"), ".nan": float("nan"),
}  # fmt: skip


@dataclass(frozen=True)
class Item:
    """A value of a file. ``line`` counts from 1 and is the line of its key where it has one."""

    value: Scalar | list[Item] | dict[str, Item]
    line: int

    def plain(self) -> Any:
        """The value without lines: scalars, lists and dicts."""
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        return self.value

    def line_of(self, *keys: str) -> int:
        """Line of the value at the end of a chain of keys, or of the last one that exists."""
        inner = self._inner(keys[0]) if keys else None
        return inner.line_of(*keys[1:]) if inner else self.line

    def holds(self, *keys: str) -> bool:
        """Whether there is a value at the end of a chain of keys."""
        inner = self._inner(keys[0]) if keys else None
        return inner.holds(*keys[1:]) if inner else not keys

    def _inner(self, key: str) -> Item | None:
        if isinstance(self.value, dict):
            return self.value.get(key)
        if isinstance(self.value, list) and key.isdecimal() and int(key) < len(self.value):
            return self.value[int(key)]
        return None


def as_items(value: object, line: int = 0) -> Item:
    """A plain value as a tree of items that all stand on ``line``."""
    if isinstance(value, Mapping):
        return Item({str(key): as_items(inner, line) for key, inner in value.items()}, line)
    if isinstance(value, (list, tuple)):
        return Item([as_items(inner, line) for inner in value], line)
    return Item(value, line)  # type: ignore[arg-type]


def read_yaml(path: Path) -> Item:
    """The content of a file.

    Raises:
        AccelsimError: ``FILE: ...`` or ``FILE:LINE: ...``; the file cannot be read, is not text,
            is not YAML, or gives a key twice.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise AccelsimError(f"{path}: {_why_unreadable(error)}") from None
    except UnicodeDecodeError as error:
        raise AccelsimError(
            f"{path}: byte {error.start} is not UTF-8; accepted: a YAML file in UTF-8"
        ) from None
    return parse_yaml(text, str(path))


def _why_unreadable(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file; accepted: the path of a YAML file"
    if isinstance(error, IsADirectoryError):
        return "is a directory; accepted: the path of a YAML file"
    reason = (error.strerror or type(error).__name__).lower()
    return f"cannot be read ({reason}); accepted: a readable YAML file"


def parse_yaml(text: str, name: str) -> Item:
    """The content of YAML text; ``name`` stands for the file in messages.

    Raises:
        AccelsimError: as read_yaml.
    """
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        root = yaml.compose(text, loader)
    except yaml.MarkedYAMLError as error:
        raise AccelsimError(f"{name}{_syntax(error)}; accepted: YAML") from None
    except (yaml.YAMLError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise AccelsimError(f"{name}: is not YAML ({reason})") from None
    if root is None:
        raise AccelsimError(f"{name}: is empty; accepted: a YAML mapping")
    return _Reader(name).item(root, root.start_mark.line + 1, 0)


def _syntax(error: MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    context = f" ({error.context})" if error.context else ""
    # An indentation fault is reported where the parser gave up, often after its cause.
    return f":{mark.line + 1 if mark else 1}: {error.problem or 'is not YAML'}{context}"


@dataclass(frozen=True)
class _Reader:
    name: str

    def fail(self, line: int, message: str) -> AccelsimError:
        return AccelsimError(f"{self.name}:{line}: {message}")

    def item(self, node: Any, line: int, depth: int) -> Item:
        if depth > _MAX_DEPTH:
            raise self.fail(line, f"is nested too deeply; accepted: up to {_MAX_DEPTH} levels")
        if node.id == "mapping":
            return Item(self.mapping(node, depth), line)
        if node.id == "sequence":
            inner = [self.item(one, one.start_mark.line + 1, depth + 1) for one in node.value]
            return Item(inner, line)
        return Item(self.scalar(node), line)

    def scalar(self, node: ScalarNode) -> Scalar:
        if node.tag.removeprefix("tag:yaml.org,2002:") not in _TAGS:
            raise self.fail(node.start_mark.line + 1, f"unknown tag {node.tag}; accepted: no tags")
        return node.value if node.style else resolve_scalar(node.value)

    def mapping(self, node: MappingNode, depth: int) -> dict[str, Item]:
        found: dict[str, Item] = {}
        merged: list[Any] = []
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.id != "scalar":
                raise self.fail(line, "a list or mapping cannot be a key; accepted: a name")
            if key.tag == "tag:yaml.org,2002:merge":
                merged += value.value if value.id == "sequence" else [value]
            elif key.value in found:
                first = found[key.value].line
                raise self.fail(
                    line,
                    f"{key.value!r} is given twice, first on line {first}; accepted: once",
                )
            else:
                found[key.value] = self.item(value, line, depth + 1)
        for base in merged:
            if base.id != "mapping":
                raise self.fail(base.start_mark.line + 1, "<< accepts a mapping or a list of them")
            for name, item in self.mapping(base, depth + 1).items():
                found.setdefault(name, item)
        return found


def resolve_scalar(text: str) -> Scalar:
    """What an unquoted word of a file or of the command line stands for."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    digits = text.replace("_", "")
    try:
        if _INTEGER.fullmatch(text):
            return int(digits)
        if _BASED.fullmatch(text):
            return int(digits, 0)
        if _FLOAT.fullmatch(text):
            return float(digits)
    except ValueError:  # more digits than the interpreter converts
        return text
    return text
