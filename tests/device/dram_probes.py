"""Minimal command logs around one timing constraint: met exactly, or missed by one clock."""

from __future__ import annotations

from dataclasses import replace

from accelsim.hw.dram.commands import COLUMN_COMMANDS, Command, Scope
from accelsim.hw.dram.device import Constraint, Device
from accelsim.hw.dram.log import CommandLog

START = 20_000  # of the probed pair: whatever prepared it is long over
Place = tuple[int, int, int, int]  # pseudo-channel, rank, bank group, bank
Entry = tuple[int, int, int, int, int, int, int, int]

REFRESHES = (Command.REFAB, Command.REFPB)


def with_two_ranks(device: Device) -> Device:
    """The device with at least two ranks, so that every scope has two different instances."""
    ranks = max(2, device.organization.ranks)
    return replace(device, organization=replace(device.organization, ranks=ranks))


def probe(device: Device, constraint: Constraint, gap: int) -> CommandLog:
    """A log in which the constraint's commands stand ``gap`` clocks apart, all else prepared."""
    if constraint.window > 1:
        return CommandLog.from_rows(sorted(_window(device, constraint, gap)))
    first, second = places(device, constraint.scope)
    before, after = constraint.before, constraint.after
    entries = [entry(START, before, first), entry(START + gap, after, second)]
    if before in COLUMN_COMMANDS or before in (Command.PRE, Command.PREAB):
        entries.append(entry(0, Command.ACT, first))
    # A refresh or a precharge of its whole rank would close the second bank again.
    closed = before in (Command.PREAB, Command.REFAB) and second[:2] == first[:2]
    if second != first and not closed and after in (*COLUMN_COMMANDS, Command.PRE):
        entries.append(entry(5_000, Command.ACT, second))
    closes = after is Command.ACT or after in REFRESHES
    same = second == first or (after is Command.REFAB and second[:2] == first[:2])
    if before is Command.ACT and closes and same:
        entries.append(entry(START + device.timings["tRAS"], Command.PRE, first))
    return CommandLog.from_rows(sorted(entries))


def places(device: Device, scope: Scope) -> tuple[Place, Place]:
    """Two banks that share an instance of the scope, and none of a narrower one."""
    parts = device.organization
    other_bank = (1 % parts.bank_groups, 1 % parts.banks)
    second = {
        Scope.BANK: (0, 0, 0, 0),
        Scope.BANK_GROUP: (0, 0, 0, 1),
        Scope.RANK: (0, 0, *other_bank),
        Scope.PSEUDO_CHANNEL: (0, 1, *other_bank),
        Scope.CHANNEL: (parts.pseudo_channels - 1, 1, *other_bank),
        Scope.OTHER_RANKS: (0, 1, *other_bank),
    }[scope]
    return (0, 0, 0, 0), second


def entry(cycle: int, command: Command, place: Place, row: int = 7, column: int = 0) -> Entry:
    return (cycle, int(command), *place, row, column)


def _window(device: Device, constraint: Constraint, gap: int) -> list[Entry]:
    """Activations of banks in turn, evenly inside the window; a bank that comes again is closed."""
    parts, ras = device.organization, device.timings["tRAS"]
    turn = [(g, b) for b in range(parts.banks) for g in range(parts.bank_groups)]
    step = max(1, (constraint.cycles - 1) // constraint.window)
    entries = []
    for i in range(constraint.window + 1):
        place = (0, 0, *turn[i % len(turn)])
        at = START + (i * step if i < constraint.window else gap)
        entries.append(entry(at, Command.ACT, place))
        if i + len(turn) <= constraint.window:
            entries.append(entry(at + ras + 2, Command.PRE, place))
    return entries
