"""Libraries of parts in YAML files: what ships, by name, and a user's own, by path."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

from accelsim.errors import AccelsimError, unknown
from accelsim.yaml_lines import Item

Part = TypeVar("Part")


@dataclass(frozen=True)
class Library(Generic[Part]):
    """Parts of one kind (``what``), some in every file of a folder.

    ``load`` gives the parts of a file by name; ``origin`` is what messages call the folder.
    """

    what: str
    folder: Path
    origin: str
    load: Callable[[str | Path, str], dict[str, Part]]

    @cached_property
    def shipped(self) -> dict[str, Part]:
        """Every shipped part by name, as the files list them."""
        found: dict[str, Part] = {}
        for file in sorted(self.folder.glob("*.yaml")):
            found.update(self.load(file, f"{self.origin}/{file.name}"))
        return found

    def find(self, name_or_path: str) -> Part:
        """A part by name, or out of a file: ``FILE.yaml`` (its only one) or ``FILE.yaml:NAME``.

        Raises:
            AccelsimError: an unknown name (the message lists them) or a fault in the file.
        """
        file, name = split(name_or_path)
        if not file:
            if name in self.shipped:
                return self.shipped[name]
            raise AccelsimError(f"{unknown(self.what, name, self.shipped)}; or FILE.yaml:NAME")
        listed = self.load(file, "")
        if not name and len(listed) == 1:
            return next(iter(listed.values()))
        if not name:
            choices = ", ".join(f"{file}:{one}" for one in listed)
            raise AccelsimError(f"{file} holds more than one {self.what}; accepted: {choices}")
        if name not in listed:
            raise AccelsimError(f"{file}: {unknown(self.what, name, listed)}")
        return listed[name]


@dataclass(frozen=True)
class YamlFile:
    """A file of a library: its name in messages, and its values with their lines."""

    name: str
    root: Item

    def fail(self, line: int, message: str) -> AccelsimError:
        return AccelsimError(f"{self.name}:{line}: {message}")

    def mapping(self, item: Item, what: str, keys: Iterable[str] | None = None) -> dict[str, Item]:
        """The values of a mapping by key; ``keys`` are those that are known, None any."""
        if not isinstance(item.value, dict):
            raise self.fail(item.line, f"{what} must be a mapping; accepted: {what}: {{...}}")
        for key, inner in item.value.items():
            if keys is not None and key not in keys:
                raise self.fail(inner.line, unknown(f"key of a {what}", key, keys))
        return item.value


def split(name_or_path: str) -> tuple[str, str]:
    """(file, name) of ``FILE.yaml:NAME``; the file is "" where that is a name alone."""
    path, suffix, name = name_or_path.partition(".yaml")
    return (path + suffix, name.removeprefix(":")) if suffix else ("", path)
