"""An accelerator: cores, clocks, units, memories, links, networks, and every number's source."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar, overload

from accelsim.arch.checks import beside_banks, check_architecture
from accelsim.arch.faults import ParameterError, unknown
from accelsim.arch.parameters import revalidated, values_of
from accelsim.errors import AccelsimError
from accelsim.hw.block import Block, Memory, Unit
from accelsim.hw.cache import Cache
from accelsim.hw.link import ENDS, Link
from accelsim.hw.memory import OffChipMemory
from accelsim.hw.noc import Network, Placement, PlacementError, place
from accelsim.program.table import AddressSpace, UnitSlot
from accelsim.quantities import HERTZ

U = TypeVar("U")

MAX_TICKS_PER_SECOND = 10**15
"""Femtosecond ticks: int64 time then spans 2.5 hours, and no real pair of clocks needs finer."""


@dataclass(frozen=True, eq=False)
class Architecture:
    """Block diagram of an accelerator: ``cores`` equal cores around shared memories.

    Units and the memories that are not ``shared`` exist once per core, those ``beside_banks`` but
    once. ``clocks`` are in Hz and always hold "core". ``assumptions`` are declared approximations
    of the description, carried into every result; ``sources`` says where numbers come from, by
    parameter path ("mxu.rows") or block name, ``calibrated`` which of them are no published numbers
    but were fitted to measurements; ``mappers`` names the preferred mapper per operator kind;
    ``origin`` is the file it came from. Two architectures are equal when their digests are.

    Raises:
        AccelsimError: names, ends of links, clocks or memories that do not exist, or clash.
    """

    name: str
    clocks: Mapping[str, int]
    units: Mapping[str, Unit]
    memories: Mapping[str, Memory]
    description: str = ""
    cores: int = 1
    links: tuple[Link, ...] = ()
    caches: Mapping[str, Cache] = field(default_factory=dict)
    networks: Mapping[str, Network] = field(default_factory=dict)
    assumptions: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    calibrated: tuple[str, ...] = ()
    mappers: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""

    def __post_init__(self) -> None:
        check_architecture(self)

    @classmethod
    def build(
        cls,
        *,
        name: str,
        clock: int | str,
        units: Mapping[str, Unit],
        memories: Mapping[str, Memory],
        clocks: Mapping[str, int | str] | None = None,
        cores: int = 1,
        links: Iterable[Link] = (),
        caches: Mapping[str, Cache] | None = None,
        networks: Mapping[str, Network] | None = None,
        description: str = "",
        assumptions: Iterable[str] = (),
        sources: Mapping[str, str] | None = None,
        calibrated: Iterable[str] = (),
        mappers: Mapping[str, str] | None = None,
    ) -> Architecture:
        """An architecture from blocks made in Python, checked as a file is.

        ``clock`` and ``clocks`` take Hz or text such as "940 MHz"; so do the quantities of blocks.

        Raises:
            AccelsimError: as for an architecture file, naming the parameter.
        """
        frequencies = {"core": clock, **(clocks or {})}
        return cls(
            name=name,
            description=description,
            cores=cores,
            clocks={key: parse_frequency(key, value) for key, value in frequencies.items()},
            units={key: revalidated(unit, key) for key, unit in units.items()},
            memories={key: revalidated(memory, key) for key, memory in memories.items()},
            links=tuple(revalidated(link, f"links.{i}") for i, link in enumerate(links)),
            caches={key: revalidated(one, key) for key, one in (caches or {}).items()},
            networks={key: revalidated(one, key) for key, one in (networks or {}).items()},
            assumptions=tuple(assumptions),
            sources=dict(sources or {}),
            calibrated=tuple(calibrated),
            mappers=dict(mappers or {}),
            origin="built in Python",
        )

    # -- time ------------------------------------------------------------------------------------

    @cached_property
    def _ticks_per_second(self) -> int:
        own = {name: memory.own_clock_hz for name, memory in self.memories.items()}
        frequencies = {**self.clocks, **{name: hz for name, hz in own.items() if hz}}
        ticks = math.lcm(*frequencies.values())
        if ticks > MAX_TICKS_PER_SECOND:
            listed = ", ".join(f"{name} {HERTZ.format(hz)}" for name, hz in frequencies.items())
            raise AccelsimError(
                f"{self.name}: the clocks ({listed}) share no tick longer than 1 fs; "
                "accepted: rounder frequencies, e.g. whole MHz"
            )
        return ticks

    def ticks_per_second(self) -> int:
        """Ticks in a second; every edge of every clock falls on a tick exactly.

        One tick is the greatest common divisor of the clock periods, which is one second over
        the least common multiple of the frequencies.

        Raises:
            AccelsimError: more than MAX_TICKS_PER_SECOND.
        """
        return self._ticks_per_second

    def ticks_per_cycle(self, clock: str = "core") -> int:
        """Ticks in one cycle of a clock.

        Raises:
            AccelsimError: there is no such clock.
        """
        if clock not in self.clocks:
            raise AccelsimError(f"{self.name}: {unknown('clock', clock, self.clocks)}")
        return self._ticks_per_second // self.clocks[clock]

    def hz_of(self, block: Block) -> int:
        """Frequency at which a unit, memory or link counts its cycles."""
        return block.own_clock_hz or self.clocks[block.clock]

    def ticks_of(self, block: Block) -> int:
        """Ticks in one cycle of a unit, memory or link."""
        return self._ticks_per_second // self.hz_of(block)

    # -- instances -------------------------------------------------------------------------------

    def unit_slots(self) -> tuple[UnitSlot, ...]:
        """One in-order queue per core, unit and count: "core0.mxu1", core by core.

        "core0." is left out with one core, the index with one unit. What stands beside banks is
        there once, and core 0 commands it.
        """
        return tuple(
            UnitSlot(f"{self._prefix(core, name)}{name}{i if unit.count > 1 else ''}", name, core)
            for core in range(self.cores)
            for name, unit in self.units.items()
            if core == 0 or name not in self.beside_banks
            for i in range(unit.count)
        )

    def address_spaces(self) -> tuple[AddressSpace, ...]:
        """One space per memory instance: the shared memories (core -1), then core by core."""
        shared = [
            AddressSpace(name, name, memory.capacity, -1)
            for name, memory in self.memories.items()
            if memory.shared
        ]
        private = [
            AddressSpace(f"{self._prefix(core, name)}{name}", name, memory.capacity, core)
            for core in range(self.cores)
            for name, memory in self.memories.items()
            if not memory.shared and (core == 0 or name not in self.beside_banks)
        ]
        return (*shared, *private)

    @cached_property
    def beside_banks(self) -> frozenset[str]:
        """Units in banks, and the units and memories that serve nothing else."""
        return beside_banks(self)

    def instances(self, name: str) -> int:
        """How many there are of a unit in all cores together."""
        return self.units[name].count * (1 if name in self.beside_banks else self.cores)

    def main_memory(self) -> tuple[str, OffChipMemory]:
        """Name and block of the memory that holds the tensors: the first one off chip.

        Raises:
            AccelsimError: there is none.
        """
        for name, memory in self.memories.items():
            if isinstance(memory, OffChipMemory):
                return name, memory
        raise AccelsimError(
            f"{self.name}: no main memory (kind: memory or dram) to hold the tensors"
        )

    def _prefix(self, core: int, name: str) -> str:
        return f"core{core}." if self.cores > 1 and name not in self.beside_banks else ""

    def is_per_core(self, name: str) -> bool:
        """Whether a unit or memory exists once per core."""
        memory = self.memories.get(name)
        return name not in self.beside_banks and (memory is None or not memory.shared)

    @cached_property
    def placements(self) -> Mapping[str, Placement]:
        """Which core and which shared memory sits at which node, by network.

        Raises:
            ParameterError: endpoints that do not fit their network.
        """
        shared = [name for name, memory in self.memories.items() if memory.shared]
        found = {}
        for name, network in self.networks.items():
            try:
                found[name] = place(network, self.cores, shared)
            except PlacementError as fault:
                where = f"{name}.{fault.parameter}" if fault.parameter else name
                raise ParameterError(where, fault.message) from None
        return found

    # -- blocks ----------------------------------------------------------------------------------

    @overload
    def units_of(self, kind: str) -> dict[str, Unit]: ...
    @overload
    def units_of(self, kind: type[U]) -> dict[str, U]: ...
    def units_of(self, kind: str | type[Any]) -> dict[str, Any]:
        """Units of a kind ("systolic") or of a class and its subclasses, by name."""
        if isinstance(kind, str):
            return {name: unit for name, unit in self.units.items() if unit.kind == kind}
        return {name: unit for name, unit in self.units.items() if isinstance(unit, kind)}

    def block(self, name: str) -> Unit | Memory:
        """The unit or memory of this name.

        Raises:
            AccelsimError: there is none; the message names the nearest.
        """
        blocks: dict[str, Unit | Memory] = {**self.units, **self.memories}
        if name not in blocks:
            raise AccelsimError(f"{self.name}: {unknown('unit or memory', name, blocks)}")
        return blocks[name]

    def override(self, overrides: Mapping[str, object]) -> Architecture:
        """The architecture with parameters replaced: {"array.rows": 256, "clock": "1.2 GHz"}.

        A path is a unit, memory or network and its parameter, "cores", "clock", "clocks.NAME",
        "links.INDEX.PARAMETER" or "mappers.KIND". Values are read as in a file.

        Raises:
            AccelsimError: an unknown path (the message names the nearest), or a value that does
                not fit.
        """
        from accelsim.arch.overrides import overridden

        return overridden(self, overrides) if overrides else self

    # -- identity --------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """The content of an equal architecture file, numbers in base units, ready for JSON."""
        extra = {name: hz for name, hz in self.clocks.items() if name != "core"}
        content = {
            "name": self.name,
            "description": self.description,
            "clock": self.clocks["core"],
            "clocks": extra,
            "cores": self.cores,
            "units": {name: _block_dict(unit) for name, unit in self.units.items()},
            "memories": {name: _block_dict(memory) for name, memory in self.memories.items()},
            "links": [_link_dict(link) for link in self.links],
            "caches": {name: _block_dict(one) for name, one in self.caches.items()},
            "networks": {name: _block_dict(one) for name, one in self.networks.items()},
            "mappers": self.mappers,
            "assumptions": self.assumptions,
            "sources": {path: self._source(path) for path in self.sources},
        }
        return {section: _canonical(value) for section, value in content.items()}

    def _source(self, path: str) -> Any:
        """What an architecture file says about where a parameter comes from."""
        told = self.sources[path]
        return {"calibrated": True, "source": told} if path in self.calibrated else told

    @cached_property
    def _digest(self) -> str:
        content = self.to_dict()
        for told in ("description", "sources"):
            del content[told]
        # The order of units decides ties in the engine, so it belongs to the identity.
        for section in ("units", "memories"):
            content[section] = list(content[section].items())
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def digest(self) -> str:
        """sha256 (hex) over everything that a result depends on.

        Descriptions, sources, the file's path and its spelling of numbers do not count.
        """
        return self._digest

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Architecture) and self._digest == other._digest

    def __hash__(self) -> int:
        return hash(self._digest)


def parse_frequency(name: str, value: object) -> int:
    """A clock frequency in Hz.

    Raises:
        ParameterError: at "clock" or "clocks.NAME", not a frequency.
    """
    try:
        return int(HERTZ.parse(value))
    except AccelsimError as fault:
        raise ParameterError("clock" if name == "core" else f"clocks.{name}", str(fault)) from None


def _block_dict(block: Block) -> dict[str, Any]:
    return {"kind": block.kind, **values_of(block)}


def _link_dict(link: Link) -> dict[str, Any]:
    values = values_of(link)
    return {**{spelt: values.pop(name) for spelt, name in ENDS.items()}, **values}


def _canonical(value: Any) -> Any:
    """Equal values in one spelling: 1.0 as 1, tuples as lists, numpy scalars as numbers."""
    if isinstance(value, Mapping):
        return {str(key): _canonical(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(inner) for inner in value]
    if hasattr(value, "item"):
        return _canonical(value.item())
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
