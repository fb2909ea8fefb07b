"""Whether the parts of an architecture fit together: names, clocks, memories, links, networks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from accelsim.arch.faults import ParameterError, unknown
from accelsim.arch.parameters import SECTION_OF, parameters_of, shown, values_of
from accelsim.errors import AccelsimError
from accelsim.hw.block import Block, Unit
from accelsim.hw.cache import check_chains
from accelsim.hw.dma import Dma
from accelsim.hw.link import ENDS
from accelsim.hw.noc import CORES
from accelsim.hw.pim.memory import PimDram
from accelsim.hw.pim.unit import Pim
from accelsim.hw.vector import Vector
from accelsim.quantities import closest

if TYPE_CHECKING:
    from accelsim.arch.model import Architecture

# Starting with a letter keeps names apart from the numbers of a path ("links.0.latency").
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_RESERVED = frozenset(
    {"name", "cores", "clock", "clocks", "links", "caches", "networks", "mappers"}
)

CLOCK_MISSING = "clock is missing; accepted: the core's frequency, e.g. clock: 1 GHz"

MAX_CALIBRATED = 5
"""Constants of one architecture that may be fitted to measurements; more would fit anything."""

MAX_QUEUES = 65_536
"""In-order queues of all cores together; more is a typing error, not an accelerator."""


def check_architecture(arch: Architecture) -> None:
    """Check an architecture as a whole; its blocks have been checked one by one.

    Raises:
        ParameterError: at the first parameter that does not fit.
    """
    _check_kinds(arch)
    _check_scale(arch)
    _check_names(arch)
    for name, block in blocks_of(arch).items():
        _check_clock(arch, name, block)
    for name, unit in arch.units.items():
        _check_memories(arch, name, unit)
    for index, link in enumerate(arch.links):
        _check_clock(arch, f"links.{index}", link)
        for end in ("source", "target"):
            _check_end(arch, f"links.{index}.{end}", getattr(link, end))
    _check_banks(arch)
    _check_caches(arch)
    _check_networks(arch)
    _check_sources(arch)


def _check_scale(arch: Architecture) -> None:
    if not isinstance(arch.name, str) or not arch.name.strip():
        raise ParameterError("name", f"{shown(arch.name)} is not a name; accepted: a word")
    if type(arch.cores) is not int or arch.cores < 1:
        raise ParameterError(
            "cores", f"cores must be a whole number of at least 1, not {shown(arch.cores)}"
        )
    if "core" not in arch.clocks:
        raise ParameterError(
            "clock", "clock is missing; accepted: the core's frequency, e.g. clock: 1 GHz"
        )
    for name, hertz in arch.clocks.items():
        if type(hertz) is not int or hertz <= 0:
            where = "clock" if name == "core" else f"clocks.{name}"
            raise ParameterError(
                where, f"a clock must be a positive number of Hz, not {shown(hertz)}"
            )
    if not arch.units:
        raise ParameterError("units", "there is no unit; accepted: at least one")
    queues = sum(arch.instances(name) for name in arch.units)
    if queues > MAX_QUEUES:
        raise ParameterError(
            "cores", f"cores x units make {queues} queues; accepted: at most {MAX_QUEUES}"
        )


def _check_kinds(arch: Architecture) -> None:
    for section, base in SECTION_OF.items():
        for name, block in getattr(arch, section).items():
            if not isinstance(block, base):
                kind = getattr(block, "kind", type(block).__name__)
                raise ParameterError(name, f"kind {kind!r} is no {base.__name__.lower()}")


def _check_names(arch: Architecture) -> None:
    for section in (*SECTION_OF, "clocks"):
        for name in getattr(arch, section):
            check_name(section, name)
    owners: dict[str, str] = {}
    for section, base in SECTION_OF.items():
        for name in getattr(arch, section):
            if name in owners:
                raise ParameterError(
                    f"{section}.{name}",
                    f"{name!r} is also a {owners[name]}'s name; accepted: another name",
                )
            owners[name] = base.__name__.lower()
    _check_slots(arch.units)


def check_name(section: str, name: str) -> None:
    """Raise ParameterError unless a path can name this unit, memory or clock."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name in _RESERVED:
        raise ParameterError(
            f"{section}.{name}",
            f"{shown(name)} is not usable as a name; accepted: a letter, then letters, digits, "
            f"_ and -, except {', '.join(sorted(_RESERVED))}",
        )


def _check_slots(units: Mapping[str, Unit]) -> None:
    """A unit "mxu" with count 2 makes "mxu0" and "mxu1", which no other unit may be called."""
    owners: dict[str, str] = {}
    for name, unit in units.items():
        instances = [f"{name}{i}" for i in range(unit.count)] if unit.count > 1 else [name]
        for instance in instances:
            if instance in owners:
                raise ParameterError(
                    name,
                    f"{name!r} and {owners[instance]!r} both have an instance {instance!r}; "
                    "accepted: another name",
                )
            owners[instance] = name


def _check_clock(arch: Architecture, name: str, block: Block) -> None:
    if block.clock not in arch.clocks:
        raise ParameterError(f"{name}.clock", unknown("clock", block.clock, arch.clocks))


def _check_memories(arch: Architecture, name: str, unit: Unit) -> None:
    for memory in unit.memories():
        if memory not in arch.memories:
            where = f"{name}.{_parameter_naming(unit, memory)}".rstrip(".")
            raise ParameterError(where, unknown("memory", memory, arch.memories))


def _parameter_naming(unit: Unit, memory: str) -> str:
    """The parameter in which a unit names this memory, or "" if it is computed."""
    for parameter, value in values_of(unit).items():
        if value == memory or (isinstance(value, (tuple, list)) and memory in value):
            return parameter
    return ""


def _check_end(arch: Architecture, path: str, end: str) -> None:
    if end not in arch.units and end not in arch.memories:
        raise ParameterError(path, unknown("unit or memory", end, (*arch.units, *arch.memories)))


def _check_banks(arch: Architecture) -> None:
    """Units in banks belong to the memory whose channels they are, and to its family."""
    for name, unit in arch.units.items():
        if not isinstance(unit, Pim):
            continue
        memory = arch.memories[unit.memory]
        if not isinstance(memory, PimDram):
            raise ParameterError(
                f"{name}.memory",
                f"{unit.memory} (kind: {memory.kind}) has no units beside its banks;"
                " accepted: a memory of kind: pim_dram",
            )
        if (unit.family, unit.count) != (memory.family, memory.channels):
            raise ParameterError(
                f"{name}.family",
                f"{unit.count} channels of {unit.family} on {unit.memory}, which has"
                f" {memory.channels} of {memory.family}; accepted: the same",
            )
        if arch.memories[unit.results].shared:
            raise ParameterError(
                f"{name}.results",
                f"{unit.results} is a memory of all cores; accepted: a scratchpad, kind: sram",
            )
        if unit.dma and not isinstance(arch.units.get(unit.dma), Dma):
            raise ParameterError(
                f"{name}.dma", f"{shown(unit.dma)} is no DMA engine; accepted: a unit of kind: dma"
            )
        if arch.cores > 1 and unit.results not in arch.beside_banks:
            raise ParameterError(
                f"{name}.results",
                f"every core has {unit.results!r} and units on it, but banks are there once;"
                " accepted: a memory that serves nothing else, or cores: 1",
            )


def beside_banks(arch: Architecture) -> frozenset[str]:
    """Units in banks, and what serves nothing else: their DMA engine, the memory that takes their
    results, vector units on it."""
    banks = {name: unit for name, unit in arch.units.items() if isinstance(unit, Pim)}
    found = {*banks, *(unit.dma for unit in banks.values())} & {*arch.units}
    for results in {unit.results for unit in banks.values()}:
        users = {n: u for n, u in arch.units.items() if n not in banks and results in u.memories()}
        if all(isinstance(u, Vector) and {*u.memories()} == {results} for u in users.values()):
            found |= {results, *users}
    return frozenset(found)


def _check_caches(arch: Architecture) -> None:
    """Caches form chains, and what they lead to serves all cores."""
    shared = {name: memory for name, memory in arch.memories.items() if memory.shared}
    try:
        check_chains(arch.caches, shared)
    except AccelsimError as fault:
        raise ParameterError("caches", str(fault)) from None


def _check_networks(arch: Architecture) -> None:
    """Every endpoint has its place, and no two ways join the same blocks."""
    joined: dict[frozenset[str], str] = {}
    for name, placement in arch.placements.items():
        for pair in placement.pairs():
            if pair in joined:
                raise ParameterError(
                    f"{name}.endpoints",
                    f"{' and '.join(sorted(pair))} are joined by {joined[pair]}, too; "
                    "accepted: one network for each pair",
                )
            joined[pair] = name
    for index, link in enumerate(arch.links):
        ends = (link.source, link.target)
        pair = frozenset(CORES if arch.is_per_core(end) else end for end in ends)
        if len(pair) == 2 and pair in joined:
            raise ParameterError(
                f"links.{index}",
                f"{' and '.join(ends)} are joined by {joined[pair]}, too; accepted: one of the two",
            )


def blocks_of(arch: Architecture) -> dict[str, Block]:
    """Every named block: units, memories, caches, networks."""
    return {**arch.units, **arch.memories, **arch.caches, **arch.networks}


def _check_sources(arch: Architecture) -> None:
    for path in arch.sources:
        if not _exists(arch, path):
            raise ParameterError(
                f"sources.{path}", unknown("parameter", path, parameter_paths(arch))
            )
    for path in arch.calibrated:
        if path not in arch.sources or not path.partition(".")[2] or path.startswith("links."):
            raise ParameterError(
                f"sources.{path}",
                f"calibrated {path}: accepted: a parameter of a block, with its source",
            )
    constants = sum(_constants(arch, path) for path in arch.calibrated)
    if constants > MAX_CALIBRATED:
        raise ParameterError(
            f"sources.{arch.calibrated[-1]}",
            f"{constants} calibrated constants; accepted: at most {MAX_CALIBRATED}",
        )


def _constants(arch: Architecture, path: str) -> int:
    """How many numbers a calibrated parameter holds: one, or those of a table."""
    name, _, parameter = path.partition(".")
    value = getattr(blocks_of(arch).get(name), parameter, None)
    return len(value) if isinstance(value, dict) else 1


def _exists(arch: Architecture, path: str) -> bool:
    name, _, parameter = path.partition(".")
    block: Block | None = blocks_of(arch).get(name)
    if name == "links":
        index, _, parameter = parameter.partition(".")
        if index.isdecimal() and int(index) < len(arch.links):
            block, parameter = arch.links[int(index)], ENDS.get(parameter, parameter)
    if block is None:
        return path in _top_level_paths(arch)
    return not parameter or parameter.partition(".")[0] in parameters_of(type(block))


def unknown_path(arch: Architecture, path: str) -> str:
    """Message for a path that names nothing: the nearest one, and what there is."""
    nearest = closest(path, parameter_paths(arch))
    hint = f"did you mean {nearest!r}? " if nearest else ""
    # All parameters of all blocks would make no readable line.
    blocks, plain = blocks_of(arch), (f"clocks.{name}" for name in arch.clocks)
    links = [f"links.{index}.PARAMETER" for index in range(len(arch.links))]
    accepted = ", ".join(("cores", "clock", *plain, *links, "mappers.KIND"))
    return (
        f"unknown parameter {path!r}; {hint}accepted: NAME.PARAMETER with one of "
        f"{', '.join(blocks)}; or {accepted}"
    )


def parameter_paths(arch: Architecture) -> list[str]:
    """Every path that an override or a source may name."""
    paths = list(_top_level_paths(arch))
    for name, block in blocks_of(arch).items():
        paths += [name, *(f"{name}.{parameter}" for parameter in parameters_of(type(block)))]
    return paths


def _top_level_paths(arch: Architecture) -> Iterable[str]:
    yield from ("cores", "clock")
    yield from (f"clocks.{name}" for name in arch.clocks)
    yield from (f"mappers.{kind}" for kind in arch.mappers)
    spelling = {name: spelt for spelt, name in ENDS.items()}
    for index, link in enumerate(arch.links):
        yield f"links.{index}"
        yield from (f"links.{index}.{spelling.get(name, name)}" for name in values_of(link))
