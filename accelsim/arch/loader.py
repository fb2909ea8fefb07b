"""Architecture files: YAML to a checked Architecture; a fault is one ``FILE:LINE: ...`` line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelsim.arch.checks import CLOCK_MISSING, check_name
from accelsim.arch.faults import ParameterError, unknown
from accelsim.arch.model import Architecture, parse_frequency
from accelsim.arch.parameters import SECTION_OF, block_class, make_block, shown
from accelsim.errors import AccelsimError
from accelsim.hw.link import ENDS, Link
from accelsim.yaml_lines import Item, as_items, read_yaml

SECTIONS = {
    "name": "the name shown with results",
    "description": "one line about the accelerator",
    "clock": "frequency of the core clock",
    "clocks": "further clocks by name",
    "cores": "number of equal cores",
    "units": "units of a core by name",
    "memories": "memories by name",
    "links": "point-to-point connections",
    "caches": "caches before memories by name",
    "networks": "networks on chip by name",
    "mappers": "preferred mapper per operator kind",
    "assumptions": "declared approximations of the description",
    "sources": "where numbers come from, by parameter",
}
"""Keys of an architecture file and what they hold."""

_loaded: dict[tuple[str, int, int, str], Architecture] = {}


def load(path: str | Path, origin: str = "") -> Architecture:
    """The architecture described by a YAML file; a file that did not change is read once.

    ``origin`` is what the architecture says it came from, by default the path.

    Raises:
        AccelsimError: one line, ``FILE:LINE: what was wrong; what would be accepted``.
    """
    file = Path(path)
    try:
        state = file.stat()
        key = (os.path.abspath(file), state.st_mtime_ns, state.st_size, origin)
    except (OSError, ValueError):
        return _architecture(_read(file), str(file), origin)  # reading says what is wrong
    if key not in _loaded:
        _loaded[key] = _architecture(_read(file), str(file), origin)
    return _loaded[key]


def _read(file: Path) -> Item:
    try:
        return read_yaml(file)
    except ValueError:  # a path with a null character
        raise AccelsimError(f"{str(file)!r} is not a path of a file") from None


def from_dict(content: Mapping[str, Any], origin: str = "built in Python") -> Architecture:
    """The architecture whose file would have this content; the inverse of ``to_dict``.

    Raises:
        AccelsimError: as ``load``, without line numbers.
    """
    return _architecture(as_items(content), origin, origin)


def _architecture(root: Item, file: str, origin: str) -> Architecture:
    try:
        return _Description(root).architecture(origin or file)
    except ParameterError as fault:
        line = line_of(root, fault.path)
        if not line:
            raise
        raise AccelsimError(f"{file}:{line}: {fault.message}") from None


def line_of(root: Item, path: str) -> int:
    """Line of the parameter at a fault's path, or of the nearest thing around it that exists."""
    section, _, rest = path.partition(".")
    if section in (*SECTION_OF, "clocks", "sources", "mappers"):
        return root.line_of(section, rest)
    keys = path.split(".")
    if section == "links" and len(keys) > 2:
        spelt = next((word for word, name in ENDS.items() if name == keys[2]), keys[2])
        return max(root.line_of(*keys), root.line_of(*keys[:2], spelt))
    for blocks in SECTION_OF:
        if section not in SECTIONS and root.holds(blocks, section):
            return root.line_of(blocks, *keys)
    return root.line_of(*keys)


class _Description:
    """One architecture file while it is read: its sections and what they must hold."""

    def __init__(self, root: Item) -> None:
        if not isinstance(root.value, dict):
            raise ParameterError(
                "", f"{shown(root.plain())} is not an architecture; accepted: name, clock, units, …"
            )
        self.sections = root.value
        for key in self.sections:
            if key not in SECTIONS:
                raise ParameterError(key, unknown("key", key, SECTIONS))

    def architecture(self, origin: str) -> Architecture:
        return Architecture(
            name=self.text("name", required=True),
            description=self.text("description"),
            clocks=self.clocks(),
            cores=self.cores(),
            units=self.blocks("units"),
            memories=self.blocks("memories"),
            links=self.links(),
            caches=self.blocks("caches"),
            networks=self.blocks("networks"),
            mappers=self.words("mappers"),
            assumptions=self.assumptions(),
            sources=self.sources(),
            calibrated=self.calibrated(),
            origin=origin,
        )

    def plain(self, key: str) -> Any:
        item = self.sections.get(key)
        return None if item is None else item.plain()

    def text(self, key: str, required: bool = False) -> str:
        value = self.plain(key)
        if value is None and required:
            raise ParameterError(key, f"{key} is missing; accepted: {SECTIONS[key]}")
        if value is not None and not isinstance(value, str):
            raise ParameterError(key, f"{shown(value)} is not text; accepted: {SECTIONS[key]}")
        return value or ""

    def mapping(self, key: str) -> dict[str, Item]:
        item = self.sections.get(key)
        if item is None or item.value is None:
            return {}
        if not isinstance(item.value, dict):
            raise ParameterError(key, f"{key} is {shown(item.plain())}; accepted: {SECTIONS[key]}")
        return item.value

    def words(self, key: str) -> dict[str, str]:
        found = {}
        for name, item in self.mapping(key).items():
            if not isinstance(item.value, str):
                raise ParameterError(
                    f"{key}.{name}", f"{shown(item.plain())} is not text; accepted: text"
                )
            found[name] = item.value
        return found

    def sources(self) -> dict[str, str]:
        """Where numbers come from: a text, or {calibrated: true, source: text}."""
        found = {}
        for path, item in self.mapping("sources").items():
            value = item.plain()
            if isinstance(value, dict):
                value = value.get("source") if _declares_calibration(value) else None
            if not isinstance(value, str):
                raise ParameterError(
                    f"sources.{path}",
                    f"{shown(item.plain())} is no source; accepted: a text, or "
                    "{calibrated: true, source: a text}",
                )
            found[path] = value
        return found

    def calibrated(self) -> tuple[str, ...]:
        """Parameters whose source is a calibration."""
        entries = self.mapping("sources").items()
        return tuple(path for path, item in entries if isinstance(item.value, dict))

    def clocks(self) -> dict[str, int]:
        clock = self.plain("clock")
        if clock is None:
            raise ParameterError("clock", CLOCK_MISSING)
        found = {"core": parse_frequency("core", clock)}
        for name, item in self.mapping("clocks").items():
            if name == "core":
                raise ParameterError(
                    "clocks.core", "the core's clock is given twice; accepted: only clock"
                )
            found[name] = parse_frequency(name, item.plain())
        return found

    def cores(self) -> Any:
        value = self.plain("cores")
        return 1 if "cores" not in self.sections else value

    def blocks(self, section: str) -> dict[str, Any]:
        listed = self.mapping(section)
        return {name: self.block(item, section, name) for name, item in listed.items()}

    def block(self, item: Item, section: str, name: str) -> Any:
        check_name(section, name)
        values = item.plain()
        if not isinstance(values, dict):
            raise ParameterError(
                name, f"{name} is {shown(values)}; accepted: a mapping with a kind"
            )
        if "kind" not in values:
            raise ParameterError(name, f"{name} has no kind; accepted: kind and its parameters")
        cls = block_class(values.pop("kind"), section, f"{name}.kind")
        return make_block(cls, values, name)

    def links(self) -> tuple[Link, ...]:
        value = self.plain("links")
        if value is not None and not isinstance(value, list):
            raise ParameterError("links", f"links is {shown(value)}; accepted: a list of links")
        return tuple(self.link(values, f"links.{i}") for i, values in enumerate(value or ()))

    def link(self, values: Any, path: str) -> Link:
        if not isinstance(values, dict):
            raise ParameterError(
                path, f"a link is {shown(values)}; accepted: a mapping with from and to"
            )
        for spelt, name in ENDS.items():
            if spelt in values and name in values:
                raise ParameterError(
                    f"{path}.{name}", f"{spelt} and {name} mean the same; accepted: one"
                )
            if spelt not in values and name not in values:
                raise ParameterError(path, f"{spelt} is missing; accepted: a unit or memory")
        named: dict[str, Any] = {ENDS.get(str(key), str(key)): v for key, v in values.items()}
        return make_block(Link, named, path)

    def assumptions(self) -> tuple[str, ...]:
        value = self.plain("assumptions")
        entries = [value] if isinstance(value, str) else value or []
        if not isinstance(entries, list):
            raise ParameterError(
                "assumptions", f"{shown(value)} is not a list; accepted: a list of texts"
            )
        for index, entry in enumerate(entries):
            if not isinstance(entry, str):
                raise ParameterError(
                    f"assumptions.{index}", f"{shown(entry)} is not text; accepted: text"
                )
        return tuple(entries)


def _declares_calibration(entry: dict[str, Any]) -> bool:
    return set(entry) == {"calibrated", "source"} and entry["calibrated"] is True
