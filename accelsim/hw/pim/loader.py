"""Family files: commands and constraints beside a DRAM device, once for several families.

    memory: newton_hbm2.yaml:newton-hbm2
    timings: {tCOMP: max(burst_cycles, tCCD_S)}
    commands:
      G_ACT: {role: open, reach: bank_group}
    constraints:
      - {before: G_ACT, after: UNIT, scope: bank_group, cycles: tRCDRD, name: tRCD}
    families:
      newton: {rules: {window: 1}}

Every section may stand beside ``families``, where it holds for all of them, and in a family, which
adds to it or says otherwise. Formulas may name timings of the device and of the file. UNIT stands
for all commands of role column that reach a whole channel, the DRAM's own sets for what they are
there. A constraint that comes out at zero or less asks nothing and is left out; no other number may
be negative.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from accelsim.errors import AccelsimError, unknown
from accelsim.hw.dram.catalog import device as find_device
from accelsim.hw.dram.checks import MOST_CYCLES
from accelsim.hw.dram.commands import COMMAND_NAMES, Scope
from accelsim.hw.dram.controller import MOST_CHANNELS
from accelsim.hw.dram.device import Device
from accelsim.hw.dram.energy import command_energy_pj
from accelsim.hw.dram.expression import evaluate, names_in
from accelsim.hw.library import YamlFile
from accelsim.hw.pim.checks import WORDS, check
from accelsim.hw.pim.family import (
    FIGURES,
    Deadline,
    Family,
    PimCommand,
    PimConstraint,
    Reach,
    Role,
    Rules,
    Units,
    dram_commands,
)
from accelsim.yaml_lines import Item, read_yaml

FOLDER = Path(__file__).parent / "families"
MEMORIES = Path(__file__).parent / "memories"

SECTIONS = (
    "description", "memory", "channels", "programs", "units", "rules", "numbers", "timings",
    "commands", "constraints", "sources",
)  # fmt: skip
COMMAND_KEYS = (
    "role", "reach", "second_buffer", "opens", "closes", "repeat", "step", "latency", "hold",
    "row_bus", "needs_closed", "energy",
)  # fmt: skip
CONSTRAINT_KEYS = ("before", "after", "scope", "cycles", "each", "least", "window", "name")
FORMULAS = frozenset({"units", "rules", "numbers", "timings", "commands", "constraints"})
"""Sections in which a timing may be named."""
REPEATS = ("once", "run", "composite")
ALL_UNITS = "UNIT"
MOST_COMMANDS = 24
MOST_ENERGY_PJ = 1e12
"""One joule: sums of as many commands as a run has stay finite."""

T = TypeVar("T")


def load_families(path: str | Path, origin: str = "") -> dict[str, Family]:
    """The families of a file, by name; ``origin`` names the file in messages.

    Raises:
        AccelsimError: one line, ``FILE:LINE: what was wrong; accepted: ...``.
    """
    file = _File(origin or str(path), read_yaml(Path(path)), Path(path).parent)
    return file.families()


@dataclass(frozen=True)
class _File(YamlFile):
    folder: Path

    def families(self) -> dict[str, Family]:
        top = self.mapping(self.root, "family file", (*SECTIONS, "families"))
        if "families" not in top:
            raise self.fail(self.root.line, "families is missing; accepted: families by name")
        listed = self.mapping(top["families"], "families")
        found = {name: _One(self, top, name, item).family() for name, item in listed.items()}
        self.check_timings(top, list(listed.values()))
        return found

    def check_timings(self, top: Mapping[str, Item], families: Sequence[Item]) -> None:
        """Refuse a family's own timing that no formula of the file names: what it should change
        has another name."""
        own = [self.mapping(one, "family") for one in families]
        asked = {
            name
            for level in (top, *own)
            for key in FORMULAS & level.keys()
            for text in _texts(level[key])
            for name in names_in(text)
        }
        for level in own:
            given = self.mapping(level["timings"], "timings") if "timings" in level else {}
            for name, item in given.items():
                if name not in asked:
                    raise self.fail(item.line, unknown("timing", name, asked))


@dataclass(frozen=True)
class _One:
    """One family of a file: shared sections below its own."""

    file: _File
    top: Mapping[str, Item]
    name: str
    item: Item

    def family(self) -> Family:
        device = self.device()
        names = self.timings(device)
        commands = self.commands(device, names)
        family = Family(
            name=self.name,
            description=self.text("description"),
            device=device,
            channels=self.whole("channels", MOST_CHANNELS),
            programs=self.text("programs"),
            commands=commands,
            constraints=self.constraints(commands, names),
            units=self.record(Units, "units", names),
            rules=self.rules(names),
            numbers=self.figures(names),
            sources={k: str(v.value) for k, v in self.section("sources").items()},
        )
        try:
            check(family)
        except AccelsimError as fault:
            raise self.file.fail(self.item.line, f"{self.name}: {fault}") from None
        return family

    def own(self) -> dict[str, Item]:
        return self.file.mapping(self.item, "family", SECTIONS)

    def section(self, key: str) -> dict[str, Item]:
        found: dict[str, Item] = {}
        for level in (self.top, self.own()):
            if key in level:
                found.update(self.file.mapping(level[key], key))
        return found

    def one(self, key: str) -> Item:
        item = self.own().get(key) or self.top.get(key)
        if item is None:
            raise self.file.fail(self.item.line, f"{self.name}: {key} is missing")
        return item

    def text(self, key: str) -> str:
        return str(self.one(key).value)

    def whole(self, key: str, most: int) -> int:
        item = self.one(key)
        if type(item.value) is not int or not 1 <= item.value <= most:
            raise self.file.fail(
                item.line,
                f"{key} must be a whole number, not {item.value!r}; accepted: 1 to {most}",
            )
        return item.value

    def device(self) -> Device:
        item = self.one("memory")
        given = str(item.value)
        for folder in (self.file.folder, MEMORIES):
            if (folder / given.partition(":")[0]).is_file():
                given = str(folder / given)
                break
        try:
            return find_device(given)
        except AccelsimError as fault:
            raise self.file.fail(item.line, f"memory: {fault}") from None

    def formula(
        self, key: str, item: Item, names: Mapping[str, int], hz: int = 0, least: int = 0
    ) -> int:
        """The value of a formula, which a message calls ``key``."""
        try:
            found = evaluate(str(item.value), names, hz)
        except AccelsimError as fault:
            raise self.file.fail(item.line, f"{self.name}: {fault}") from None
        if not least <= found <= MOST_CYCLES:
            text = str(found) if str(found) == str(item.value) else f"{item.value} = {found}"
            raise self.file.fail(
                item.line, f"{self.name}: {key}: {text}; accepted: {least} to {MOST_CYCLES}"
            )
        return found

    def figures(self, names: Mapping[str, int]) -> dict[str, int]:
        """What programs ask for."""
        given = self.section("numbers")
        for key, item in given.items():
            if key not in FIGURES:
                raise self.file.fail(item.line, unknown("key of numbers", key, FIGURES))
        return {key: self.formula(key, item, names) for key, item in given.items()}

    def timings(self, device: Device) -> dict[str, int]:
        """The device's timings and the file's, which may use those before them."""
        parts = device.organization
        found = {**device.timings, "columns": parts.columns, "banks": parts.banks}
        for key, item in self.section("timings").items():
            if key in device.timings:
                raise self.file.fail(
                    item.line,
                    f"timings: {key} is that of {device.name}; accepted: a name that it has not,"
                    " or another memory",
                )
            found[key] = self.formula(key, item, found, device.clock_hz)
        return found

    def commands(self, device: Device, names: Mapping[str, int]) -> tuple[PimCommand, ...]:
        found = dram_commands()
        given = self.section("commands")
        numbers = {one.name: one.number for one in found}
        for key in given:
            numbers.setdefault(key, len(numbers))
        if len(numbers) > MOST_COMMANDS:
            line = self.one("commands").line
            raise self.file.fail(line, f"{len(numbers)} commands; accepted: {MOST_COMMANDS}")
        energies = {one.name: pj for one, pj in command_energy_pj(device).items()}
        for key, item in given.items():
            one = self.command(key, item, numbers, names, energies)
            if one.number < len(found):  # a DRAM command that this family sends otherwise
                found[one.number] = one
            else:
                found.append(one)
        return tuple(found)

    def command(
        self,
        name: str,
        item: Item,
        numbers: Mapping[str, int],
        names: Mapping[str, int],
        energies: Mapping[str, float],
    ) -> PimCommand:
        given = self.file.mapping(item, "command", COMMAND_KEYS)

        def number(key: str) -> int:
            if key not in given:
                return -1
            word = str(given[key].value)
            if word not in numbers:
                raise self.file.fail(given[key].line, unknown("command", word, numbers))
            return numbers[word]

        def cycles(key: str) -> int:
            return self.formula(key, given[key], names) if key in given else 0

        def said(key: str) -> bool:
            return key in given and bool(given[key].value)

        energy = str(given["energy"].value) if "energy" in given else ""
        return PimCommand(
            name,
            numbers[name],
            Role[self.choice(item, "role", [one.name.lower() for one in Role]).upper()],
            Reach[self.choice(item, "reach", [one.name.lower() for one in Reach]).upper()],
            second_buffer=said("second_buffer"),
            opens=number("opens"),
            closes=number("closes"),
            repeat=self.choice(item, "repeat", REPEATS) if "repeat" in given else "once",  # type: ignore[arg-type]
            step=cycles("step"),
            latency=cycles("latency"),
            hold=cycles("hold"),
            row_bus=said("row_bus"),
            needs_closed=said("needs_closed"),
            energy_pj=self.energy(given.get("energy"), energies),
            energy=energy,
        )

    def choice(self, item: Item, key: str, accepted: tuple[str, ...] | list[str]) -> str:
        given = self.file.mapping(item, "command")
        if key not in given:
            raise self.file.fail(item.line, f"{key} is missing; accepted: {', '.join(accepted)}")
        word = str(given[key].value)
        if word not in accepted:
            raise self.file.fail(given[key].line, unknown(key, word, accepted))
        return word

    def energy(self, item: Item | None, energies: Mapping[str, float]) -> float:
        """``12.5`` pJ, or a multiple of a DRAM command's: ``4 RD``."""
        if item is None:
            return 0.0
        words = str(item.value).split()
        try:
            times = float(words[0])
        except (ValueError, IndexError):
            times = -1.0
        known = len(words) == 1 or (len(words) == 2 and words[1] in COMMAND_NAMES)
        pj = times * (energies.get(words[1], 0.0) if len(words) == 2 else 1.0) if known else -1.0
        if not 0 <= times <= MOST_ENERGY_PJ or not 0 <= pj <= MOST_ENERGY_PJ:  # nor nan
            raise self.file.fail(
                item.line,
                f"energy {item.value!r}; accepted: 12.5 (pJ) or 4 RD, 0 to {MOST_ENERGY_PJ:.0e} pJ",
            )
        return pj

    def constraints(
        self, commands: tuple[PimCommand, ...], names: Mapping[str, int]
    ) -> tuple[PimConstraint, ...]:
        rules: list[Item] = []
        for level in (self.top, self.own()):
            if "constraints" in level:
                listed = level["constraints"]
                if not isinstance(listed.value, list):
                    raise self.file.fail(listed.line, "constraints must be a list")
                rules += listed.value
        return tuple(one for rule in rules for one in self.expanded(rule, commands, names))

    def expanded(
        self, rule: Item, commands: tuple[PimCommand, ...], names: Mapping[str, int]
    ) -> Iterator[PimConstraint]:
        given = self.file.mapping(rule, "constraint", CONSTRAINT_KEYS)
        for key in CONSTRAINT_KEYS[:4]:
            if key not in given:
                raise self.file.fail(rule.line, f"{key} of a constraint is missing")
        values = {
            key: self.constraint(key, given[key], names) if key in given else default
            for key, default in (("cycles", 0), ("each", 0), ("least", 0), ("window", 1))
        }
        word = str(given["scope"].value).upper()
        if word not in Scope.__members__:
            accepted = [one.name.lower() for one in Scope]
            raise self.file.fail(given["scope"].line, unknown("scope", word.lower(), accepted))
        if values["cycles"] <= 0 and values["each"] <= 0:
            return
        name = str(given["name"].value) if "name" in given else ""
        for before in self.named(given["before"], commands):
            for after in self.named(given["after"], commands):
                yield PimConstraint(before, after, Scope[word], name=name, **values)

    def constraint(self, key: str, item: Item, names: Mapping[str, int]) -> int:
        """A number of a constraint: a formula may come out negative, which then asks nothing."""
        literal = type(item.value) is int
        return self.formula(key, item, names, least=0 if literal else -MOST_CYCLES)

    def named(self, item: Item, commands: tuple[PimCommand, ...]) -> list[int]:
        sets = {name: [int(one) for one in held] for name, held in COMMAND_NAMES.items()}
        sets |= {one.name: [one.number] for one in commands}
        sets[ALL_UNITS] = [
            one.number for one in commands if one.role is Role.COLUMN and one.reach is Reach.CHANNEL
        ]
        words = item.value if isinstance(item.value, list) else [item]
        found: list[int] = []
        for word in words:
            name = str(word.value)
            if name not in sets:
                raise self.file.fail(item.line, unknown("command", name, sets))
            found += sets[name]
        return found

    def rules(self, names: Mapping[str, int]) -> Rules:
        given = self.section("rules")
        deadline = given.pop("deadline", None)
        found = self.record(Rules, "rules", names, leave=("deadline",))
        if deadline is None:
            return found
        inner = {
            key: self.formula(key, item, names)
            for key, item in self.file.mapping(
                deadline, "deadline", tuple(one.name for one in fields(Deadline))
            ).items()
        }
        try:
            return Rules(**{**vars(found), "deadline": Deadline(**inner)})
        except TypeError:
            accepted = ", ".join(one.name for one in fields(Deadline))
            raise self.file.fail(deadline.line, f"deadline needs {accepted}") from None

    def record(
        self, kind: type[T], key: str, names: Mapping[str, int], leave: tuple[str, ...] = ()
    ) -> T:
        """A dataclass from the section of its name; whole numbers may be formulas."""
        declared = {one.name: one for one in fields(kind)}  # type: ignore[arg-type]
        values: dict[str, Any] = {}
        for name, item in self.section(key).items():
            if name in leave:
                continue
            if name not in declared:
                raise self.file.fail(item.line, unknown(f"key of {key}", name, declared))
            wanted = str(declared[name].type)
            whole = wanted == "int"
            values[name] = self.formula(name, item, names) if whole else item.plain()
            if name in WORDS and values[name] not in WORDS[name]:
                raise self.file.fail(item.line, unknown(name, str(values[name]), WORDS[name]))
            if wanted == "bool" and not isinstance(values[name], bool):
                raise self.file.fail(item.line, f"{name} must be true or false")
        for name, one in declared.items():
            if name not in values and one.default is MISSING and name not in leave:
                raise self.file.fail(self.item.line, f"{self.name}: {key}.{name} is missing")
        return kind(**values)


def _texts(item: Item) -> Iterator[str]:
    """All texts of a value."""
    if isinstance(item.value, str):
        yield item.value
    elif isinstance(item.value, dict | list):
        inner = item.value.values() if isinstance(item.value, dict) else item.value
        for one in inner:
            yield from _texts(one)
