"""Device files: one YAML file per standard, its constraints once and its devices by name.

    standard: DDR4
    constraints:
      - {before: ACT, after: READ, scope: bank, cycles: tRCDRD, name: tRCD}
    devices:
      ddr4-2400:
        clock: 1200 MHz
        organization: {...}
        timings: {CL: 17, tWR: 15 ns, tRC: tRAS + tRP}

``organization``, ``timings``, ``refresh`` and ``sources`` beside ``devices`` hold for all devices
of the file unless a device says otherwise; ``extends: ddr4`` takes them, and the constraints, from
a shipped file, so that another speed grade is a few lines. Times become cycles of the device's
clock: minima rounded up, refresh intervals down. A constraint that comes out at zero or less asks
nothing and is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from accelsim.errors import AccelsimError, ParameterError, unknown
from accelsim.hw.dram.checks import INTERVALS, check
from accelsim.hw.dram.commands import COMMAND_NAMES, Command, Scope
from accelsim.hw.dram.device import (
    BitEnergy,
    Constraint,
    Currents,
    Device,
    Organization,
    Refresh,
    RefreshKind,
)
from accelsim.hw.dram.expression import evaluate, names_in
from accelsim.hw.library import YamlFile
from accelsim.quantities import HERTZ
from accelsim.yaml_lines import Item, as_items, read_yaml

FILE_KEYS = {
    "extends": "a shipped file (ddr4, hbm3, ...) whose sections and constraints are taken over",
    "standard": "name of the standard",
    "description": "one line about the file",
    "dual_command": "whether a row and a column command may share a clock",
    "organization": "parts of a channel that all devices share",
    "timings": "timings that all devices share",
    "refresh": "refresh of all devices",
    "sources": "where shared numbers come from, by parameter",
    "constraints": "what may follow what, and when",
    "devices": "devices by name",
}
DEVICE_KEYS = {
    "description": "one line about the device",
    "clock": "frequency of the command clock",
    "organization": "parts of a channel",
    "timings": "cycles, times or formulas by name",
    "refresh": "kind of refresh",
    "currents": "supply currents of a die",
    "energy": "published energies, where no currents are",
    "sources": "where numbers come from, by parameter",
}
CONSTRAINT_KEYS = ("before", "after", "scope", "cycles", "window", "name")
SHARED_SECTIONS = ("organization", "timings", "refresh", "sources")
FOLDER = Path(__file__).parent / "devices"
"""The shipped device files."""

ARRAY_TIMES = frozenset(
    {
        "CL", "CWL", "tRCDRD", "tRCDWR", "tRP", "tRPab", "tRAS", "tRRD_S", "tRRD_L", "tFAW", "tRTP",
        "tWR", "tWTR_S", "tWTR_L",
    }
)  # fmt: skip
"""What cells, sense amplifiers and data paths need. Given in clocks, it is a time at the clock of
its grade; other clock counts belong to the pins and hold at any clock."""

T = TypeVar("T")


def load_devices(
    path: str | Path, origin: str = "", name: str = "", clock_hz: int = 0
) -> dict[str, Device]:
    """The devices of a file, by name; ``origin`` names the file in messages.

    ``name`` picks one of them, ``clock_hz`` runs it at another clock than its own.

    Raises:
        AccelsimError: one line, ``FILE:LINE: what was wrong; accepted: ...``.
    """
    return _File(origin or str(path), read_yaml(Path(path))).devices(name, clock_hz)


class _File(YamlFile):
    def devices(self, only: str = "", clock_hz: int = 0) -> dict[str, Device]:
        top = self.sections()
        for key in ("standard", "constraints", "devices"):
            if key not in top:
                raise self.fail(self.root.line, f"{key} is missing; accepted: {FILE_KEYS[key]}")
        listed = self.mapping(top["devices"], "device")
        if not listed:
            raise self.fail(top["devices"].line, "devices is empty; accepted: one device or more")
        return {
            name: _One(self, top, name, item, clock_hz).device()
            for name, item in listed.items()
            if only in ("", name)
        }

    def sections(self) -> dict[str, Item]:
        """The file's sections over those of the shipped file it extends."""
        own = self.mapping(self.root, "device file", FILE_KEYS)
        if "extends" not in own:
            return own
        shipped = {file.stem: file for file in FOLDER.glob("*.yaml")}
        name = str(own["extends"].value)
        if name not in shipped:
            raise self.fail(own["extends"].line, unknown("device file", name, shipped))
        line = own["extends"].line  # whatever is wrong with what is taken over, it is wrong there
        taken = _File(self.name, as_items(read_yaml(shipped[name]).plain(), line)).sections()
        base = {key: item for key, item in taken.items() if key != "devices"}
        merged = base | own
        for key in SHARED_SECTIONS:
            parts = [self.mapping(level[key], key) for level in (base, own) if key in level]
            inside = {name: item for part in parts for name, item in part.items()}
            merged[key] = Item(inside, own.get(key, self.root).line)
        return merged

    def text(self, item: Item, what: str) -> str:
        if not isinstance(item.value, str):
            raise self.fail(item.line, f"{what} must be text, not {item.plain()!r}")
        return item.value


@dataclass(frozen=True)
class _One:
    """One device of a file: shared sections below its own."""

    file: _File
    top: Mapping[str, Item]
    name: str
    item: Item
    clock_hz: int = 0  # 0: its own

    def device(self) -> Device:
        own = self.file.mapping(self.item, "device", DEVICE_KEYS)
        clock_hz = self.clock_hz or self.clock(own)
        timings = self.timings(clock_hz, own)
        device = Device(
            name=self.name,
            standard=self.file.text(self.top["standard"], "standard"),
            clock_hz=clock_hz,
            organization=self.numbers(Organization, "organization", whole=True),
            timings=timings,
            constraints=self.constraints(timings),
            refresh=self.refresh(timings),
            power=self.power(own),
            dual_command=self.flag("dual_command"),
            description=self.file.text(own["description"], "description")
            if "description" in own
            else "",
            sources={key: str(one.value) for key, one in self.section("sources").items()},
        )
        try:
            check(device)
        except ParameterError as fault:
            raise self.fail(fault.path, fault.message) from None
        return device

    def fail(self, path: str, message: str) -> AccelsimError:
        """A fault at the line of a parameter: the device's own, else the shared one."""
        keys = path.split(".")
        own = self.item.holds(*keys) or not self.file.root.holds(*keys)
        item = self.item if own else self.file.root
        return self.file.fail(item.line_of(*keys), f"{self.name}: {message}")

    def section(self, key: str) -> dict[str, Item]:
        found: dict[str, Item] = {}
        for level in (self.top, self.file.mapping(self.item, "device")):
            if key in level:
                found.update(self.file.mapping(level[key], key))
        return found

    def flag(self, key: str) -> bool:
        item = self.top.get(key)
        if item is not None and not isinstance(item.value, bool):
            raise self.file.fail(item.line, f"{key} must be true or false, not {item.plain()!r}")
        return bool(item.value) if item is not None else False

    def clock(self, own: Mapping[str, Item]) -> int:
        if "clock" not in own:
            raise self.fail("", "clock is missing; accepted: 1200 MHz, ...")
        try:
            clock_hz = int(HERTZ.parse(own["clock"].plain()))
        except AccelsimError as fault:
            raise self.fail("clock", f"clock: {fault}") from None
        if clock_hz <= 0:
            raise self.fail("clock", f"clock must be positive, not {clock_hz} Hz; accepted: 1 GHz")
        return clock_hz

    def timings(self, clock_hz: int, own: Mapping[str, Item]) -> dict[str, int]:
        """Cycles by name; a formula may use any other timing, wherever it stands."""
        given = self.section("timings")
        found = {name: one.value for name, one in given.items() if type(one.value) is int}
        own_hz = self.clock(own)
        for name in ARRAY_TIMES & found.keys():
            found[name] = -(-found[name] * clock_hz // own_hz)
        waiting = {name: one for name, one in given.items() if name not in found}
        while waiting:
            # A formula of names that nobody gives is tried, too: evaluating says what is wrong.
            name = next((one for one in waiting if self.names(waiting[one]) <= found.keys()), "")
            name = name or next(
                (one for one in waiting if self.names(waiting[one]) - given.keys()), ""
            )
            if not name:
                circle = ", ".join(waiting)
                name = next(iter(waiting))
                raise self.fail(f"timings.{name}", f"the formulas of {circle} need each other")
            text = waiting.pop(name).plain()
            if not isinstance(text, str):
                raise self.fail(
                    f"timings.{name}",
                    f"{name} is {text!r}; accepted: whole cycles, a time (7.5 ns) or a formula",
                )
            try:
                found[name] = evaluate(text, found, clock_hz, down=name in INTERVALS)
            except AccelsimError as fault:
                raise self.fail(f"timings.{name}", f"{name}: {fault}") from None
        return {name: found[name] for name in given}

    @staticmethod
    def names(item: Item) -> set[str]:
        return names_in(item.value) if isinstance(item.value, str) else set()

    def refresh(self, timings: Mapping[str, int]) -> Refresh:
        given = self.section("refresh")
        accepted = {"kind", "groups_per_command"}
        for key in given:
            if key not in accepted:
                raise self.fail(f"refresh.{key}", unknown("key of refresh", key, accepted))
        kinds: dict[str, RefreshKind] = {"all-bank": "all-bank", "per-bank": "per-bank"}
        kind = str(given["kind"].value) if "kind" in given else "all-bank"
        if kind not in kinds:
            raise self.fail("refresh.kind", unknown("refresh kind", kind, kinds))
        groups = given["groups_per_command"].plain() if "groups_per_command" in given else 1
        if type(groups) is not int:
            raise self.fail(
                "refresh.groups_per_command",
                f"groups_per_command must be a whole number, not {groups!r}",
            )
        return Refresh(
            kind=kinds[kind],
            interval_cycles=timings.get("tREFI", 0),
            all_bank_cycles=timings.get("tRFC", 0),
            per_bank_interval_cycles=timings.get("tREFIpb", 0),
            per_bank_cycles=timings.get("tRFCpb", 0),
            groups_per_command=groups,
        )

    def power(self, own: Mapping[str, Item]) -> Currents | BitEnergy | None:
        if "currents" in own and "energy" in own:
            raise self.fail("energy", "currents and energy are both given; accepted: one of them")
        if "currents" in own:
            return self.numbers(Currents, "currents")
        return self.numbers(BitEnergy, "energy") if "energy" in own else None

    def numbers(self, kind: Callable[..., T], key: str, whole: bool = False) -> T:
        """A dataclass of plain numbers from the section of its name."""
        given = self.section(key)
        declared = {one.name: one for one in fields(kind)}  # type: ignore[arg-type]
        for name, item in given.items():
            if name not in declared:
                raise self.fail(f"{key}.{name}", unknown(f"key of {key}", name, declared))
            value: Any = item.value
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                what = "a whole number" if whole else "a number"
                raise self.fail(f"{key}.{name}", f"{name} must be {what}, not {value!r}")
            if not whole and not 0 <= value < math.inf:
                raise self.fail(
                    f"{key}.{name}", f"{name} must be finite and not negative, not {value}"
                )
        for name, one in declared.items():
            if name not in given and one.default is MISSING:
                raise self.fail(key, f"{name} is missing in {key}; accepted: {name}: a number")
        return kind(**{name: item.value for name, item in given.items()})

    def constraints(self, timings: Mapping[str, int]) -> tuple[Constraint, ...]:
        rules = self.top["constraints"]
        if not isinstance(rules.value, list):
            raise self.file.fail(
                rules.line, "constraints must be a list; accepted: - {before: ...}"
            )
        return tuple(one for rule in rules.value for one in self.expanded(rule, timings))

    def expanded(self, rule: Item, timings: Mapping[str, int]) -> Iterable[Constraint]:
        given = self.file.mapping(rule, "constraint", CONSTRAINT_KEYS)
        for key in CONSTRAINT_KEYS[:4]:
            if key not in given:
                raise self.file.fail(rule.line, f"{key} of a constraint is missing")
        try:
            cycles = evaluate(str(given["cycles"].value), timings)
        except AccelsimError as fault:
            line = given["cycles"].line
            raise self.file.fail(line, f"{self.name}: constraint: {fault}") from None
        window = given["window"].value if "window" in given else 1
        if type(window) is not int or window < 1:
            raise self.file.fail(rule.line, f"window must be a whole number >= 1, not {window!r}")
        name = str(given["name"].value) if "name" in given else ""
        scope = self.scope(given["scope"])
        if cycles <= 0:
            return
        for before in self.commands(given["before"]):
            for after in self.commands(given["after"]):
                yield Constraint(before, after, scope, cycles, window, name)

    def scope(self, item: Item) -> Scope:
        name = str(item.value).upper()
        if name not in Scope.__members__:
            accepted = [one.name.lower() for one in Scope]
            raise self.file.fail(item.line, unknown("scope", str(item.value), accepted))
        return Scope[name]

    def commands(self, item: Item) -> list[Command]:
        words = item.value if isinstance(item.value, list) else [item]
        found: list[Command] = []
        for word in words:
            name = str(word.value)
            if name not in COMMAND_NAMES:
                raise self.file.fail(item.line, unknown("command", name, COMMAND_NAMES))
            found += COMMAND_NAMES[name]
        return found
