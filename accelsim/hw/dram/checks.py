"""What must hold between the numbers of one device, and which constraints none may lack."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from accelsim.errors import ParameterError
from accelsim.hw.dram.commands import Command, Scope
from accelsim.hw.dram.device import Device

REQUIRED_TIMINGS = (
    "CL", "CWL", "burst_cycles", "tRCDRD", "tRCDWR", "tRP", "tRAS", "tRC", "tCCD_S", "tCCD_L",
    "tRRD_S", "tRRD_L", "tFAW", "tRFC", "tREFI",
)  # fmt: skip
"""Timings that every device names, whatever else its constraints use."""

MAY_BE_ZERO = frozenset({"AL", "tRTRS", "tPPD"})

POWERS_OF_TWO = ("pseudo_channels", "bank_groups", "banks", "columns", "column_bytes")
"""Parts of an address that are bits of it; rows stand on top and need not be (24 Gb dies)."""

MOST_BANKS = 4096
"""Banks of a channel, all pseudo-channels and ranks together."""

MOST_CAPACITY_BYTES = 1 << 50

MOST_CYCLES = 10**9
"""No other timing is longer: a second."""

INTERVALS = frozenset({"tREFI", "tREFIpb"})
"""Timings that are upper limits: a time is rounded down."""

LONGEST_INTERVAL = 10**12
"""Beyond all simulated time: files turn refresh off by an interval that never ends."""

ORDERED = (
    ("tCCD_S", "tCCD_L"), ("tRRD_S", "tRRD_L"), ("tWTR_S", "tWTR_L"), ("tRCDRD", "tRAS"),
    ("tRFC", "tREFI"), ("tRFCpb", "tRFC"), ("tREFIpb", "tREFI"),
)  # fmt: skip
"""(a, b): a may not exceed b."""

_C, _S = Command, Scope
REQUIRED_CONSTRAINTS = (
    (_C.ACT, _C.RD, _S.BANK), (_C.ACT, _C.WR, _S.BANK), (_C.ACT, _C.PRE, _S.BANK),
    (_C.ACT, _C.ACT, _S.BANK), (_C.PRE, _C.ACT, _S.BANK), (_C.RD, _C.PRE, _S.BANK),
    (_C.WR, _C.PRE, _S.BANK), (_C.RDA, _C.ACT, _S.BANK), (_C.WRA, _C.ACT, _S.BANK),
    (_C.ACT, _C.ACT, _S.RANK), (_C.RD, _C.RD, _S.RANK), (_C.WR, _C.WR, _S.RANK),
    (_C.RD, _C.WR, _S.RANK), (_C.WR, _C.RD, _S.RANK), (_C.PRE, _C.REFAB, _S.RANK),
    (_C.REFAB, _C.ACT, _S.RANK), (_C.REFAB, _C.REFAB, _S.RANK), (_C.RDA, _C.REFAB, _S.RANK),
    (_C.WRA, _C.REFAB, _S.RANK),
)  # fmt: skip
"""A device without one of these would let a controller do what no DRAM survives."""

SHARED_BUS_PAIRS = ((_C.RD, _C.RD), (_C.WR, _C.WR), (_C.RD, _C.WR))
"""Data of two ranks collide without a constraint on these between them; from write to read, a long
read latency may keep them apart."""


def check(device: Device) -> None:
    """Raise ParameterError, located at the parameter, for the first contradiction."""
    for path, message in _faults(device):
        raise ParameterError(path, message)


def _faults(device: Device) -> Iterator[tuple[str, str]]:
    yield from _organization_faults(device)
    yield from _timing_faults(device)
    yield from _refresh_faults(device)
    yield from _missing_constraints(device)
    yield from _missing_between_ranks(device)


def _organization_faults(device: Device) -> Iterator[tuple[str, str]]:
    for field in fields(device.organization):
        value = getattr(device.organization, field.name)
        path = f"organization.{field.name}"
        if value < 1:
            yield path, f"{field.name} must be at least 1, not {value}; accepted: 1, 2, 3, ..."
        elif field.name in POWERS_OF_TWO and value & (value - 1):
            yield path, f"{field.name} must be a power of two, not {value}; accepted: 1, 2, 4, ..."

    parts = device.organization
    banks = parts.channel_banks
    if banks > MOST_BANKS:
        yield (
            "organization",
            f"{banks} banks in a channel (pseudo_channels x ranks x bank_groups x banks); "
            f"accepted: up to {MOST_BANKS}",
        )
    if parts.capacity_bytes > MOST_CAPACITY_BYTES:
        yield (
            "organization",
            f"a channel of {parts.capacity_bytes} B; accepted: up to {MOST_CAPACITY_BYTES} B",
        )


def _timing_faults(device: Device) -> Iterator[tuple[str, str]]:
    t = device.timings
    for name in REQUIRED_TIMINGS:
        if name not in t:
            yield "timings", f"{name} is missing; accepted: its number of cycles or a time"
    # What everything else is derived from comes first: its fault is the cause of the others.
    for name in sorted(t, key=lambda name: name not in REQUIRED_TIMINGS):
        cycles = t[name]
        least = 0 if name in MAY_BE_ZERO else 1
        if cycles < least:
            yield (
                f"timings.{name}",
                f"{name} must be at least {least} cycle{'s' * (least == 0)}, not {cycles}; "
                f"accepted: {least}, {least + 1}, ...",
            )
        most = LONGEST_INTERVAL if name in INTERVALS else MOST_CYCLES
        if cycles > most:
            yield f"timings.{name}", f"{name} = {cycles} cycles; accepted: up to {most}"
    if t["tRC"] < t["tRAS"] + t["tRP"]:
        yield (
            "timings.tRC",
            f"tRC = {t['tRC']} contradicts tRAS + tRP = {t['tRAS']} + {t['tRP']}; "
            f"accepted: tRC of {t['tRAS'] + t['tRP']} cycles or more",
        )
    for small, large in ORDERED:
        # A refresh as long as its interval leaves no time for anything else.
        strict = small == "tRFC"
        limit = t.get(large, 0) - strict
        if small in t and large in t and t[small] > limit:
            yield (
                f"timings.{small}",
                f"{small} = {t[small]} contradicts {large} = {t[large]}; "
                f"accepted: {small} of at most {limit} cycles",
            )


def _refresh_faults(device: Device) -> Iterator[tuple[str, str]]:
    refresh, groups = device.refresh, device.organization.bank_groups
    if refresh.kind == "per-bank" and not refresh.per_bank_interval_cycles:
        yield "refresh.kind", "per-bank refresh needs tREFIpb and tRFCpb; accepted: all-bank"
    if refresh.groups_per_command < 1 or groups % refresh.groups_per_command:
        yield (
            "refresh.groups_per_command",
            f"groups_per_command = {refresh.groups_per_command} does not divide {groups} "
            "bank groups; accepted: a divisor of the number of bank groups",
        )


def _missing_constraints(device: Device) -> Iterator[tuple[str, str]]:
    present = {(one.before, one.after, one.scope) for one in device.constraints}
    # What holds on the whole data bus holds in every rank of it.
    present |= {(b, a, Scope.RANK) for b, a, scope in present if scope is Scope.PSEUDO_CHANNEL}
    required = list(REQUIRED_CONSTRAINTS)
    if device.refresh.per_bank_cycles:
        required += [
            (Command.REFPB, Command.ACT, Scope.BANK),
            (Command.PRE, Command.REFPB, Scope.BANK),
            (Command.REFPB, Command.REFPB, Scope.RANK),
            (Command.REFPB, Command.REFAB, Scope.RANK),
            (Command.REFAB, Command.REFPB, Scope.RANK),
        ]
    for before, after, scope in required:
        if (before, after, scope) not in present:
            yield (
                "constraints",
                f"no constraint from {before.name} to {after.name} of a {scope.name.lower()}; "
                f"accepted: {{before: {before.name}, after: {after.name}, "
                f"scope: {scope.name.lower()}, cycles: ...}}",
            )


def _missing_between_ranks(device: Device) -> Iterator[tuple[str, str]]:
    ranks = device.organization.ranks
    if ranks == 1:
        return
    shared = (Scope.OTHER_RANKS, Scope.PSEUDO_CHANNEL, Scope.CHANNEL)
    present = {(one.before, one.after) for one in device.constraints if one.scope in shared}
    for before, after in SHARED_BUS_PAIRS:
        if (before, after) not in present:
            yield (
                "organization.ranks",
                f"ranks = {ranks} share a data bus, and no constraint of scope other_ranks is from "
                f"{before.name} to {after.name}; accepted: ranks: 1, or such constraints",
            )
