"""DRAMsim3 configuration files (.ini): the device, as DRAMsim3 derives it, and its queues.

What DRAMsim3 makes of its own file is kept, where it differs from the standards, too: a GDDR6 burst
takes BL / 16 clocks, reads are precharged after ``tRTP`` (5 where the file does not say; tRTP_L and
tRTP_S are not read), ``bankgroup_enable = false`` makes one group of all banks with the short
timings, missing keys have its defaults.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from accelsim.errors import AccelsimError, ParameterError, unknown
from accelsim.hw.dram.checks import check
from accelsim.hw.dram.commands import READS, WRITES, Command, Scope
from accelsim.hw.dram.controller import MOST_CHANNELS
from accelsim.hw.dram.device import Constraint, Currents, Device, Organization, Refresh
from accelsim.hw.dram.mapping import parsed

BURST_DIVISOR = {"GDDR5": 4, "GDDR5X": 8, "GDDR6": 16}
"""Beats per clock of the data bus; 2 elsewhere."""

PROTOCOLS = (
    "DDR3", "DDR4", "GDDR5", "GDDR5X", "GDDR6", "LPDDR", "LPDDR3", "LPDDR4", "HBM", "HBM2",
)  # fmt: skip

TIMING_DEFAULTS = {
    "AL": 0, "CL": 12, "CWL": 12, "tCCD_L": 6, "tCCD_S": 4, "tRTRS": 2, "tRTP": 5, "tWTR_L": 5,
    "tWTR_S": 5, "tWR": 10, "tRP": 10, "tRRD_L": 4, "tRRD_S": 4, "tRAS": 24, "tRCD": 10,
    "tRFC": 74, "tRFCb": 20, "tREFI": 7800, "tREFIb": 1950, "tFAW": 50, "tPPD": 0, "t32AW": 330,
    "tRCDRD": 24, "tRCDWR": 20,
}  # fmt: skip
"""DRAMsim3 configuration.cc, InitTimingParams."""

REFRESH_POLICIES = {
    "RANK_LEVEL_STAGGERED": "staggered",
    "RANK_LEVEL_SIMULTANEOUS": "simultaneous",
    "BANK_LEVEL_STAGGERED": "per-bank",
}
KEYS = {
    "burst_cycles": "BL", "tRC": "tRAS", "tRFCpb": "tRFCb", "tREFIpb": "tREFIb",
    "bank_groups": "bankgroups", "banks": "banks_per_group", "column_bytes": "bus_width",
}  # fmt: skip
"""What the file calls the parameters that a fault is found in."""

QUEUES = {"PER_BANK": "per-bank", "PER_RANK": "per-rank"}
PAGES = {"OPEN_PAGE": "open", "CLOSE_PAGE": "closed"}


@dataclass(frozen=True)
class Imported:
    """A device and what the file says of its controller.

    ``settings`` keys: channels, mapping (fields from most to least significant), queues
    ("per-bank", "per-rank"), command_queue, read_queue, write_buffer (entries), unified_queue,
    page ("open", "closed"), refresh ("staggered", "simultaneous", "per-bank").
    """

    device: Device
    settings: Mapping[str, object]


def import_dramsim3(path: str | Path) -> Imported:
    """Read a DRAMsim3 file.

    Raises:
        AccelsimError: ``FILE:LINE: what was wrong; accepted: ...``.
    """
    ini = _read(Path(path))
    protocol = ini.choice("dram_structure", "protocol", "DDR3", {name: name for name in PROTOCOLS})
    organization, dies = _organization(ini, protocol)
    timings = _timings(ini, protocol, organization)
    device = Device(
        name=Path(path).stem,
        standard=protocol,
        clock_hz=_clock_hz(ini),
        organization=organization,
        timings=timings,
        constraints=tuple(_constraints(timings, protocol, organization.ranks)),
        refresh=_refresh(ini, timings),
        power=_currents(ini, dies),
        dual_command=_is_hbm(protocol) and ini.flag("dram_structure", "hbm_dual_cmd", True),
        description=f"{protocol} of a DRAMsim3 file",
        sources={"timings": f"{path}; defaults and derivation of DRAMsim3"},
    )
    try:
        check(device)
    except ParameterError as fault:
        key = fault.path.rpartition(".")[2]
        key = KEYS.get(key, key)
        raise AccelsimError(f"{ini.where(key)}: {fault.message}") from None
    return Imported(device, _settings(ini))


@dataclass(frozen=True)
class _Ini:
    path: str
    values: Mapping[tuple[str, str], tuple[str, int]]

    def where(self, key: str) -> str:
        lines = [line for (_, name), (_, line) in self.values.items() if name == key.lower()]
        return f"{self.path}:{lines[0]}" if lines else self.path

    def fail(self, key: str, message: str) -> AccelsimError:
        return AccelsimError(f"{self.where(key)}: {key}: {message}")

    def text(self, section: str, key: str, default: str) -> str:
        return self.values.get((section, key.lower()), (default, 0))[0]

    def number(self, section: str, key: str, default: float) -> float:
        given = self.text(section, key, "")
        try:
            value = float(given) if given else default
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self.fail(key, f"{given!r} is not a number; accepted: a number")
        return value

    def whole(self, section: str, key: str, default: int) -> int:
        value = self.number(section, key, default)
        if value != int(value):
            raise self.fail(key, f"{value:g} is not whole; accepted: a whole number")
        return int(value)

    def flag(self, section: str, key: str, default: bool) -> bool:
        word = self.text(section, key, str(default)).lower()
        words = {"true": True, "yes": True, "on": True, "1": True}
        words |= {"false": False, "no": False, "off": False, "0": False}
        if word not in words:
            raise self.fail(key, f"{word!r} is neither true nor false; accepted: true, false")
        return words[word]

    def choice(self, section: str, key: str, default: str, known: Mapping[str, str]) -> str:
        word = self.text(section, key, default)
        if word not in known:
            raise self.fail(key, unknown(key, word, known))
        return known[word]


def _read(path: Path) -> _Ini:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not text"
        raise AccelsimError(f"{path}: {reason}; accepted: a DRAMsim3 .ini file") from None
    values: dict[tuple[str, str], tuple[str, int]] = {}
    section = ""
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.split(";")[0].strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1].strip().lower()
            continue
        key, sign, value = line.partition("=")
        if not sign or not key.strip():
            raise AccelsimError(
                f"{path}:{number}: {line!r} is not understood; "
                "accepted: [section], key = value, ; comment"
            )
        values[section, key.strip().lower()] = value.strip(), number
    if not any(section == "dram_structure" for section, _ in values):
        raise AccelsimError(f"{path}: no section [dram_structure]; accepted: a DRAMsim3 .ini file")
    return _Ini(str(path), values)


def _is_hbm(protocol: str) -> bool:
    return protocol.startswith("HBM")


def _is_gddr(protocol: str) -> bool:
    return protocol.startswith("GDDR")


def _clock_hz(ini: _Ini) -> int:
    period_ns = ini.number("timing", "tCK", 1.0)
    if period_ns <= 0:
        raise ini.fail("tCK", f"must be positive, not {period_ns:g}; accepted: nanoseconds")
    return round(1e9 / period_ns)


def _burst_length(ini: _Ini, protocol: str) -> int:
    given = ini.whole("dram_structure", "BL", 8)
    return given or (4 if _is_hbm(protocol) else 8)


def _organization(ini: _Ini, protocol: str) -> tuple[Organization, int]:
    """Parts of a channel, and dies per rank."""
    width = ini.whole("dram_structure", "device_width", 8)
    bus = ini.whole("system", "bus_width", 64)
    if width < 1 or bus < width or bus % 8:
        raise ini.fail("bus_width", f"{bus} is no multiple of device_width {width}; accepted: 64")
    groups = ini.whole("dram_structure", "bankgroups", 2)
    banks = ini.whole("dram_structure", "banks_per_group", 2)
    if not ini.flag("dram_structure", "bankgroup_enable", True):
        groups, banks = 1, groups * banks
    burst = _burst_length(ini, protocol)
    columns = ini.whole("dram_structure", "columns", 1024)
    # A column of the file is a pin's bit (DDR), a burst (GDDR) or a prefetch of two (HBM).
    beats = columns * (burst if _is_gddr(protocol) else 2 if _is_hbm(protocol) else 1)
    rows = ini.whole("dram_structure", "rows", 65536)
    rank_bytes = beats * width // 8 * rows * groups * banks * (bus // width)
    size = ini.whole("system", "channel_size", 1024) * 2**20
    # Like DRAMsim3: as many whole ranks as fit, at least one.
    ranks = max(1, size // rank_bytes) if rank_bytes > 0 else 1
    parts = Organization(1, ranks, groups, banks, rows, beats // burst, bus // 8 * burst)
    return parts, bus // width


def _timings(ini: _Ini, protocol: str, organization: Organization) -> dict[str, int]:
    t = {name: ini.whole("timing", name, default) for name, default in TIMING_DEFAULTS.items()}
    separate = _is_gddr(protocol) or _is_hbm(protocol)
    if not separate:
        t["tRCDRD"] = t["tRCDWR"] = t["tRCD"] - t["AL"]
    if organization.bank_groups == 1:
        t |= {"tCCD_L": t["tCCD_S"], "tWTR_L": t["tWTR_S"], "tRRD_L": t["tRRD_S"]}
    t["burst_cycles"] = ini.whole("dram_structure", "BL", 8) // BURST_DIVISOR.get(protocol, 2)
    t["CL"], t["CWL"] = t["AL"] + t["CL"], t["AL"] + t["CWL"]
    t["tRC"] = t["tRAS"] + t["tRP"]
    t["tRFCpb"], t["tREFIpb"] = t.pop("tRFCb"), t.pop("tREFIb")
    unused = {"tRCD", *(() if _is_gddr(protocol) else ("t32AW",))}
    if not _has_tppd(protocol):
        unused.add("tPPD")
    if ini.text("system", "refresh_policy", "") != "BANK_LEVEL_STAGGERED":
        unused |= {"tRFCpb", "tREFIpb"}
    return {name: cycles for name, cycles in t.items() if name not in unused}


def _has_tppd(protocol: str) -> bool:
    return _is_gddr(protocol) or protocol == "LPDDR4"


def _refresh(ini: _Ini, t: Mapping[str, int]) -> Refresh:
    policy = ini.choice("system", "refresh_policy", "RANK_LEVEL_STAGGERED", REFRESH_POLICIES)
    if policy == "per-bank":
        return Refresh("per-bank", t["tREFI"], t["tRFC"], t["tREFIpb"], t["tRFCpb"])
    return Refresh("all-bank", t["tREFI"], t["tRFC"])


def _currents(ini: _Ini, dies: int) -> Currents:
    def read(key: str, default: float) -> float:
        return ini.number("power", key, default)

    return Currents(
        vdd=read("VDD", 1.2), idd0=read("IDD0", 48), idd2p=read("IDD2P", 25),
        idd2n=read("IDD2N", 34), idd3p=read("IDD3P", 37), idd3n=read("IDD3N", 43),
        idd4w=read("IDD4W", 123), idd4r=read("IDD4R", 135), idd5ab=read("IDD5AB", 250),
        idd5pb=read("IDD5PB", 5), dies=dies,
    )  # fmt: skip


def _settings(ini: _Ini) -> dict[str, object]:
    entries = ini.whole("system", "trans_queue_size", 32)
    channels = ini.whole("system", "channels", 1)
    if not 1 <= channels <= MOST_CHANNELS:
        raise ini.fail("channels", f"{channels} is out of range; accepted: 1 to {MOST_CHANNELS}")
    mapping = ini.text("system", "address_mapping", "chrobabgraco")
    try:
        parsed(mapping)
    except AccelsimError as fault:
        raise AccelsimError(f"{ini.where('address_mapping')}: {fault}") from None
    return {
        "channels": channels,
        "mapping": mapping,
        "queues": ini.choice("system", "queue_structure", "PER_BANK", QUEUES),
        "command_queue": ini.whole("system", "cmd_queue_size", 16),
        "read_queue": entries,
        "write_buffer": entries,
        "unified_queue": ini.flag("system", "unified_queue", False),
        "page": ini.choice("system", "row_buf_policy", "OPEN_PAGE", PAGES),
        "refresh": ini.choice("system", "refresh_policy", "RANK_LEVEL_STAGGERED", REFRESH_POLICIES),
    }


def _constraints(t: Mapping[str, int], protocol: str, ranks: int) -> Iterator[Constraint]:
    yield from _column_constraints(t, ranks)
    yield from _row_constraints(t, protocol)
    yield from _refresh_constraints(t)


def _rules(
    befores: tuple[Command, ...], afters: tuple[Command, ...], scope: Scope, cycles: int, name: str
) -> Iterator[Constraint]:
    if cycles > 0:
        for before in befores:
            for after in afters:
                yield Constraint(before, after, scope, cycles, name=name)


def _column_constraints(t: Mapping[str, int], ranks: int) -> Iterator[Constraint]:
    burst, long, short = t["burst_cycles"], t["tCCD_L"], t["tCCD_S"]
    read_delay, write_delay = t["CL"] + burst, t["CWL"] + burst
    switch = burst + t["tRTRS"]
    for same in (READS, WRITES):
        yield from _rules(same, same, Scope.BANK_GROUP, max(burst, long), "tCCD_L")
        yield from _rules(same, same, Scope.RANK, max(burst, short), "tCCD_S")
    for name, after in (("tWTR_L", Scope.BANK_GROUP), ("tWTR_S", Scope.RANK)):
        yield from _rules(WRITES, READS, after, write_delay + t[name], name)
    turnaround = t["CL"] + burst - t["CWL"] + t["tRTRS"]
    yield from _rules(READS, WRITES, Scope.RANK, turnaround, "read to write")
    if ranks > 1:
        others = Scope.OTHER_RANKS
        yield from _rules(READS, READS, others, switch, "tRTRS")
        yield from _rules(READS, WRITES, others, read_delay + switch - write_delay, "tRTRS")
        yield from _rules(WRITES, READS, others, write_delay + switch - read_delay, "tRTRS")
        yield from _rules(WRITES, WRITES, others, burst, "burst")


def _row_constraints(t: Mapping[str, int], protocol: str) -> Iterator[Constraint]:
    act, pre, bank, rank = (Command.ACT,), (Command.PRE,), Scope.BANK, Scope.RANK
    to_precharge = t["CWL"] + t["burst_cycles"] + t["tWR"]
    yield from _rules(act, READS, bank, t["tRCDRD"], "tRCDRD")
    yield from _rules(act, WRITES, bank, t["tRCDWR"], "tRCDWR")
    yield from _rules(act, pre, bank, t["tRAS"], "tRAS")
    yield from _rules(act, act, bank, t["tRC"], "tRC")
    yield from _rules(act, act, Scope.BANK_GROUP, t["tRRD_L"], "tRRD_L")
    yield from _rules(act, act, rank, t["tRRD_S"], "tRRD_S")
    yield Constraint(Command.ACT, Command.ACT, rank, t["tFAW"], 4, "tFAW")
    if "t32AW" in t:
        yield Constraint(Command.ACT, Command.ACT, rank, t["t32AW"], 32, "t32AW")
    yield from _rules(pre, act, bank, t["tRP"], "tRP")
    if "tPPD" in t:
        yield from _rules(pre, pre, rank, t["tPPD"], "tPPD")
    read_to_act = t["AL"] + t["burst_cycles"] + t["tRTP"] + t["tRP"]
    yield from _rules((Command.RD,), pre, bank, t["AL"] + t["tRTP"], "tRTP")
    yield from _rules((Command.WR,), pre, bank, to_precharge, "tWR")
    yield from _rules((Command.RDA,), act, bank, read_to_act, "tRTP + tRP")
    yield from _rules((Command.WRA,), act, bank, to_precharge + t["tRP"], "tWR + tRP")


def _refresh_constraints(t: Mapping[str, int]) -> Iterator[Constraint]:
    refab, act, pre = (Command.REFAB,), (Command.ACT,), (Command.PRE,)
    after_write = t["CWL"] + t["burst_cycles"] + t["tWR"] + t["tRP"]
    after_read = t["AL"] + t["tRTP"] + t["tRP"]
    yield from _rules(pre, refab, Scope.RANK, t["tRP"], "tRP")
    yield from _rules((Command.RDA,), refab, Scope.RANK, after_read, "tRTP + tRP")
    yield from _rules((Command.WRA,), refab, Scope.RANK, after_write, "tWR + tRP")
    yield from _rules(refab, act + refab, Scope.RANK, t["tRFC"], "tRFC")
    if "tRFCpb" not in t:
        return
    one = (Command.REFPB,)
    yield from _rules(pre, one, Scope.BANK, t["tRP"], "tRP")
    yield from _rules((Command.RDA,), one, Scope.BANK, after_read, "tRTP + tRP")
    yield from _rules((Command.WRA,), one, Scope.BANK, after_write, "tWR + tRP")
    yield from _rules(act, one, Scope.RANK, t["tRC"], "tRC")
    yield from _rules(one, act, Scope.BANK, t["tRFCpb"], "tRFCb")
    yield from _rules(one, one + refab, Scope.RANK, t["tRFCpb"], "tRFCb")
    yield from _rules(refab, one, Scope.RANK, t["tRFC"], "tRFC")
