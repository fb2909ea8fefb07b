"""Random commands of every shipped device through the independent checker, and injected violations.

A row of its own per device: no violation in what a controller did, and every violation found that
was then put in: commands that met a constraint exactly come one clock too early, activations are
left out, columns go to another row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace

import numpy as np
from numpy.typing import NDArray

from accelsim.hw.dram.catalog import device, list_devices
from accelsim.hw.dram.checker import check_log
from accelsim.hw.dram.commands import Command
from accelsim.hw.dram.device import Device
from accelsim.hw.dram.log import CommandLog
from accelsim.hw.dram.run import run_stream
from accelsim.results.claims import Row

Ints = NDArray[np.int64]

REQUESTS = 270_000  # of each device: ten million commands of all
INJECTED_REQUESTS = 800
INJECTIONS = 40  # of each kind


def checked_rows() -> Iterator[Row]:
    """Of every device: violations in its commands, and how many of the injected were found."""
    for one in map(device, list_devices()):
        run = run_stream(one, stream="mix21_rand", requests=REQUESTS, check=True)
        commands = sum(run.commands.values())
        case = f"{one.name} violations in {commands:,} random commands"
        yield Row(case, 0, run.violations, run.violations == 0, split="checker")
        tried, found = injected(one)
        yield Row(
            f"{one.name} injected violations found", tried, found, tried == found > 0, "checker"
        )


def injected(one: Device, seed: int = 7) -> tuple[int, int]:
    """How many violations were put into a clean log, one at a time, and how many were found."""
    log = run_stream(one, stream="mix21_rand", requests=INJECTED_REQUESTS, log=True).logs[0]
    random = np.random.default_rng(seed)
    tried = found = 0
    for bad in (*_too_early(one, log, random), *_misdirected(log, random)):
        tried += 1
        found += not check_log(one, bad, refresh=False).ok
    return tried, found


def _too_early(one: Device, log: CommandLog, random: np.random.Generator) -> Iterator[CommandLog]:
    """The second command of a pair that meets its constraint exactly comes one clock earlier."""
    stricter = replace(
        one, constraints=tuple(replace(rule, cycles=rule.cycles + 1) for rule in one.constraints)
    )
    exact = check_log(stricter, log, refresh=False, limit=100_000).violations
    second = np.unique([v.second for v in exact if v.constraint is not None])
    second = second[log.cycle[second - 1] < log.cycle[second]]  # the order stays as it is
    for index in random.choice(second, min(INJECTIONS, len(second)), replace=False):
        cycle = log.cycle.copy()
        cycle[index] -= 1
        yield replace(log, cycle=cycle)


def _misdirected(log: CommandLog, random: np.random.Generator) -> Iterator[CommandLog]:
    """The activation before a column is left out; a column command finds another row open."""
    opened, columns = _used_activations(log)
    for index in random.choice(opened, min(INJECTIONS, len(opened)), replace=False):
        yield CommandLog(*(np.delete(getattr(log, one.name), index) for one in fields(log)))
    for index in random.choice(columns, min(INJECTIONS, len(columns)), replace=False):
        row = log.row.copy()
        row[index] ^= 1
        yield replace(log, row=row)


def _used_activations(log: CommandLog) -> tuple[Ints, Ints]:
    """Places of the activations that a column command follows in their bank, and of columns.

    Without the others nothing is broken: a row may be closed, or refreshed over, unused.
    """
    column = (log.command == Command.RD) | (log.command == Command.WR)
    by_bank = np.lexsort(
        (np.arange(len(log)), log.bank, log.bank_group, log.rank, log.pseudo_channel)
    )
    used = (log.command[by_bank[:-1]] == Command.ACT) & column[by_bank[1:]]
    return by_bank[:-1][used], np.flatnonzero(column)
