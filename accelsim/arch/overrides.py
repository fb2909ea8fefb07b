"""Overrides: the same accelerator with some parameters replaced ("array.rows" -> 256)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from accelsim.arch.checks import blocks_of, parameter_paths, unknown_path
from accelsim.arch.faults import ParameterError
from accelsim.arch.parameters import SECTION_OF, shown, with_values
from accelsim.errors import AccelsimError
from accelsim.hw.link import ENDS
from accelsim.yaml_lines import parse_yaml, resolve_scalar

if TYPE_CHECKING:
    from accelsim.arch.model import Architecture

# A value made only of these needs no YAML parser: a number, a word, a quantity.
_SIMPLE = re.compile(r"[A-Za-z0-9_.+/µ][A-Za-z0-9_.+/µ -]*")


def parse_override(text: str) -> tuple[str, Any]:
    """Read ``PATH=VALUE`` as the command line gives it; VALUE is read as in a YAML file.

    Raises:
        AccelsimError: there is no "=", no path or no value, or VALUE is not YAML.
    """
    path, equals, value = (part.strip() for part in text.partition("="))
    if not (path and equals and value):
        raise AccelsimError(f"{text!r} is not an override; accepted: PATH=VALUE, e.g. cores=2")
    if _SIMPLE.fullmatch(value):
        return path, resolve_scalar(value)
    return path, parse_yaml(value, f"--set {path}").plain()


def overridden(arch: Architecture, overrides: Mapping[str, object]) -> Architecture:
    """The architecture with ``overrides`` applied together, then checked as a whole.

    Raises:
        AccelsimError: naming the path, what was wrong and what would be accepted.
    """
    # Parameters of one block change together: between them they may contradict each other.
    blocks: dict[tuple[str, str], dict[str, object]] = {}
    sections: dict[str, Any] = {}
    try:
        for path, value in overrides.items():
            section, name, parameter = _locate(arch, path)
            plain = value.item() if hasattr(value, "item") else value
            if parameter:
                blocks.setdefault((section, name), {})[parameter] = plain
            else:
                _set_value(arch, sections, section, name, plain)
        _set_blocks(arch, sections, blocks)
        # A number that was overridden no longer comes from where the file says.
        changed = (*overrides, *_changed(arch, sections))
        sources = {**arch.sources, **dict.fromkeys(changed, "override")}
        calibrated = tuple(path for path in arch.calibrated if path not in overrides)
        return replace(arch, **sections, sources=sources, calibrated=calibrated)
    except ParameterError as fault:
        raise ParameterError(f"{arch.name}: {fault.path}", fault.message) from None


def _changed(arch: Architecture, sections: Mapping[str, Any]) -> Iterator[str]:
    """Paths of derived parameters, and of those that they set, whose values overrides changed."""
    for section in SECTION_OF:
        for name, block in sections.get(section, {}).items():
            old = getattr(arch, section)[name]
            for parameter in (*block.derived, *block.derived.values()):
                if getattr(block, parameter) != getattr(old, parameter):
                    yield f"{name}.{parameter}"


def _locate(arch: Architecture, path: str) -> tuple[str, str, str]:
    """(section, name in it, parameter) of a path; no parameter for clocks, mappers and cores."""
    name, _, rest = path.partition(".")
    for section in SECTION_OF:
        if name in getattr(arch, section):
            if not rest or rest == "kind":
                raise _whole_block(arch, path, name)
            return section, name, rest
    if path == "cores":
        return "cores", "", ""
    if path == "clock" or (name == "clocks" and rest in arch.clocks):
        return "clocks", rest or "core", ""
    if name == "mappers" and rest and "." not in rest:
        return "mappers", rest, ""
    index, _, parameter = rest.partition(".")
    if name == "links" and parameter and index.isdecimal() and int(index) < len(arch.links):
        return "links", index, ENDS.get(parameter, parameter)
    raise ParameterError(path, unknown_path(arch, path))


def _whole_block(arch: Architecture, path: str, name: str) -> ParameterError:
    offered = ", ".join(one for one in parameter_paths(arch) if one.startswith(f"{name}."))
    kind = blocks_of(arch)[name].kind
    return ParameterError(path, f"{name} is a block of kind {kind}; accepted: one of {offered}")


def _set_value(
    arch: Architecture, sections: dict[str, Any], section: str, name: str, value: object
) -> None:
    from accelsim.arch.model import parse_frequency

    if section == "cores":
        sections["cores"] = value
        return
    if section == "clocks":
        value = parse_frequency(name, value)
    elif not isinstance(value, str):
        raise ParameterError(f"{section}.{name}", f"{shown(value)} is not the name of a mapper")
    sections.setdefault(section, dict(getattr(arch, section)))[name] = value


def _set_blocks(
    arch: Architecture,
    sections: dict[str, Any],
    blocks: Mapping[tuple[str, str], Mapping[str, object]],
) -> None:
    for (section, name), values in blocks.items():
        if section == "links":
            links = list(sections.get("links", arch.links))
            links[int(name)] = with_values(links[int(name)], values, f"links.{name}")
            sections["links"] = tuple(links)
        else:
            copied = sections.setdefault(section, dict(getattr(arch, section)))
            copied[name] = with_values(copied[name], values, name)
