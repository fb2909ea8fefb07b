"""An operator on a PIM family: what it took, as a frozen result.

run = run_pim("neupims", "logit:tokens=1024,heads=8", background=128)
run.cycles, run.commands["G_ACT"], run.background_bytes_per_second
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from accelsim._version import __version__
from accelsim.errors import AccelsimError, is_whole, shown
from accelsim.hw.dram.commands import Command
from accelsim.hw.dram.energy import command_energy_pj, standby_power_mw
from accelsim.hw.pim.catalog import family as find_family
from accelsim.hw.pim.channel.checker import PimVerdict, check_log
from accelsim.hw.pim.channel.log import PimLog
from accelsim.hw.pim.channel.stream import PimStream
from accelsim.hw.pim.family import Family
from accelsim.hw.pim.operators import OPERATORS, Elementwise, Operator, name_of, parse
from accelsim.hw.pim.programs.registry import streams_of

if TYPE_CHECKING:
    from accelsim.hw.pim.channel.state import Channels

Ints = NDArray[np.int64]

SCHEMA = 1
LOG_ROWS = 1 << 16
MOST_BACKGROUND = 1000
MOST_READS = 4_000_000


@dataclass(frozen=True, eq=False)
class PimRun:
    """What the channels of a family did with an operator; times in clocks of its device.

    ``cycles`` is when the slowest channel was done, results read. Channels with the same commands
    are simulated once (``channels_simulated``). ``commands`` and ``energy_pj`` are those of all
    channels. With ``background`` sequential reads under way in every channel, ``background_reads``
    of them ended in that time.
    """

    version: str
    family: str
    device: str
    operator: str
    channels: int
    channels_simulated: int
    refresh: bool
    clock_hz: int
    cycles: int
    macs: int
    commands: Mapping[str, int]
    energy_pj: Mapping[str, float]
    background: int
    background_reads: int
    background_bytes_per_second: float
    peak_bytes_per_second: float
    digests: Mapping[str, str]
    wall_seconds: float
    verdicts: tuple[PimVerdict, ...] = field(repr=False, default=())
    logs: tuple[PimLog, ...] = field(repr=False, default=())
    elements: int = 0
    """Results of an operation on vectors, 0 for products."""
    schema: int = SCHEMA

    @property
    def seconds(self) -> float:
        """Simulated time."""
        return self.cycles / self.clock_hz

    @property
    def violations(self) -> int:
        """Broken rules that the checker found in the logs, if it was asked."""
        return sum(one.total for one in self.verdicts)

    def to_dict(self) -> dict[str, Any]:
        """The run as plain JSON values (schema 1); logs are left out."""
        left_out = {"verdicts", "logs", "commands", "energy_pj", "digests"}
        plain = {name: value for name, value in vars(self).items() if name not in left_out}
        checked = {"commands": sum(one.commands for one in self.verdicts)}
        return {
            **plain,
            "seconds": self.seconds,
            "commands": dict(self.commands),
            "energy_pj": dict(self.energy_pj),
            "digests": dict(self.digests),
            "checked": {**checked, "violations": self.violations} if self.verdicts else None,
        }


def run_pim(
    family: str | Family,
    operator: str | Operator,
    *,
    background: int = 0,
    refresh: bool = True,
    log: bool = False,
    check: bool = False,
) -> PimRun:
    """Compute an operator in memory, command by command.

    ``background`` sequential reads of the host are under way in every channel all the time. ``log``
    keeps the commands of each channel that is simulated, ``check`` has them checked.

    Raises:
        AccelsimError: something is unknown or out of range; the message says what would do.
    """
    began = time.perf_counter()
    found = find_family(family) if isinstance(family, str) else family
    work = parse(operator) if isinstance(operator, str) else operator
    _check_arguments(found, work, background, refresh=refresh, log=log, check=check)
    streams = streams_of(found, work)
    parts = [
        _simulated(found, stream, times, background, refresh, log or check)
        for stream, times in streams
    ]
    refreshed = refresh and found.rules.refresh
    verdicts = tuple(
        check_log(found, one.log, refresh=refreshed, end_cycle=one.cycles)
        for one in (parts if check else ())
    )
    return _result(found, work, parts, background, refreshed, verdicts, began)


def _check_arguments(family: object, work: object, background: object, **said: object) -> None:
    """Raise AccelsimError for an argument of another type, or a number out of range."""
    if not isinstance(family, Family):
        raise AccelsimError(
            f"family is {shown(family)}; accepted: a name such as 'neupims', 'FILE.yaml:NAME' or a"
            " Family"
        )
    if not isinstance(work, Operator):
        raise AccelsimError(
            f"operator is {shown(work)}; accepted: a text such as 'gemv:m=1024,n=512', or an"
            f" operator: {', '.join(OPERATORS)}"
        )
    if not is_whole(background, 0, MOST_BACKGROUND):
        raise AccelsimError(
            f"background = {shown(background)}; accepted: 0 to {MOST_BACKGROUND}, a whole number"
        )
    for name, value in said.items():
        if not isinstance(value, (bool, np.bool_)):
            raise AccelsimError(f"{name} is {shown(value)}; accepted: True or False")


def send(family: Family, stream: PimStream) -> tuple[float, float]:
    """Seconds and joules of a stream in one idle channel, without refresh."""
    part = _simulated(family, stream, 1, 0, refresh=False, log=False)
    energy = energy_of(family, [part], part.cycles)
    return part.cycles / family.device.clock_hz, energy["total"] * 1e-12


@dataclass(frozen=True, eq=False)
class _Part:
    """A channel that was simulated, for ``times`` channels."""

    times: int
    cycles: int
    reads: int
    count: Ints
    active: int
    log: PimLog
    columns: Mapping[str, int]


def _simulated(
    family: Family, stream: PimStream, times: int, background: int, refresh: bool, log: bool
) -> _Part:
    from accelsim.hw.pim.channel import channel_kernels as kernels
    from accelsim.hw.pim.channel import state

    room = LOG_ROWS if log else 0
    requests = [sequential_reads(family, stream)] if background else None
    k = state.channels(
        family, [stream], requests, outstanding=background, refresh=refresh,
        refresh_after=family.numbers.get("refresh_after", 0), log=room,
    )  # fmt: skip
    tables: list[Ints] = []
    while True:
        how = kernels.finish(k, 0, False)
        tables.append(k.log[: k.logged[0]].copy())
        k.logged[0] = 0
        if how == kernels.DONE:
            break
        if how == kernels.STUCK:
            raise AccelsimError(
                f"{family.name}: no command can go after clock {k.word[0, state.CLOCK]}; "
                "accepted: constraints that leave every command its clock"
            )
    end = int(k.word[0, state.PIM_FINISH]) + 1
    return _Part(
        times,
        end,
        int(k.word[0, state.DONE_READS]),
        k.sent[0].copy(),
        _active(k, end),
        PimLog.of(np.concatenate(tables)) if log else PimLog.of(np.zeros((0, 6), np.int64)),
        _columns(family, stream),
    )


def _active(k: Channels, end: int) -> int:
    """Clocks, summed over ranks and row buffers, in which a bank was open."""
    from accelsim.hw.pim.channel import state

    rank = k.rank[0]
    open_now = rank[:, :, state.OPEN_BANKS] > 0
    still = np.maximum(0, end - rank[:, :, state.OPEN_SINCE])
    return int(rank[:, :, state.OPEN_CYCLES].sum() + still[open_now].sum())


def _columns(family: Family, stream: PimStream) -> Mapping[str, int]:
    """Columns of composites, by command."""
    return {
        one.name: int(stream.repeat[stream.command == one.number].sum())
        for one in family.commands
        if one.repeat == "composite"
    }


def sequential_reads(family: Family, stream: PimStream) -> Ints:
    """Reads along the rows of one bank after the other, behind the rows that the stream uses."""
    parts = family.device.organization
    used = stream.row[stream.row < parts.rows - 1]
    first = int(used.max(initial=-1)) + 1
    banks = family.banks
    most = (parts.rows - 1 - first) * banks * parts.columns
    n = max(0, min(MOST_READS, 64 * len(stream) * parts.columns + (1 << 16), most))
    number = np.arange(n)
    row = number // parts.columns
    return np.stack(
        [row % banks, first + row // banks, number % parts.columns, np.zeros(n, np.int64)], axis=1
    ).astype(np.int64)


def energy_of(family: Family, parts: list[_Part], cycles: int) -> dict[str, float]:
    """Energy of commands by kind, stand-by of the ranks, and their total."""
    plain = command_energy_pj(family.device)
    found = {"activate": 0.0, "read": 0.0, "write": 0.0, "refresh": 0.0, "pim": 0.0}
    kinds = {
        Command.ACT: "activate", Command.RD: "read", Command.WR: "write", Command.REFAB: "refresh",
    }  # fmt: skip
    for part in parts:
        for one in family.commands:
            count = part.columns.get(one.name, int(part.count[one.number]))
            pj = plain.get(Command(one.number), 0.0) if one.number in kinds else one.energy_pj
            found[kinds.get(Command(one.number), "pim") if one.number in kinds else "pim"] += (
                count * pj * part.times
            )
    active_mw, idle_mw = standby_power_mw(family.device)
    ranks = family.device.organization.channel_ranks
    # A rank stands by once; what an open row adds counts for both of its row buffers.
    standby = sum(
        part.times
        * (active_mw * part.active + idle_mw * (ranks * cycles - part.active))
        * family.device.tck_ns
        for part in parts
    )
    found["standby"] = standby
    return {**found, "total": sum(found.values())}


def _result(
    family: Family,
    work: Operator,
    parts: list[_Part],
    background: int,
    refresh: bool,
    verdicts: tuple[PimVerdict, ...],
    began: float,
) -> PimRun:
    cycles = max(part.cycles for part in parts)
    channels = sum(part.times for part in parts)
    count = np.sum([part.count * part.times for part in parts], axis=0)
    reads = sum(part.reads * part.times for part in parts)
    device = family.device
    moved = reads * device.organization.column_bytes
    return PimRun(
        version=__version__,
        family=family.name,
        device=device.name,
        operator=name_of(work),
        channels=channels,
        channels_simulated=len(parts),
        refresh=refresh,
        clock_hz=device.clock_hz,
        cycles=cycles,
        macs=work.macs,
        elements=work.n if isinstance(work, Elementwise) else 0,
        commands={one.name: int(count[one.number]) for one in family.commands if count[one.number]},
        energy_pj=energy_of(family, parts, cycles),
        background=background,
        background_reads=reads,
        background_bytes_per_second=moved * device.clock_hz / cycles,
        peak_bytes_per_second=channels * device.channel_bytes_per_second,
        digests={"family": family_digest(family)},
        wall_seconds=time.perf_counter() - began,
        verdicts=verdicts,
        logs=tuple(part.log for part in parts if len(part.log)),
    )


def family_digest(family: Family) -> str:
    """SHA-256 of everything about a family that a run depends on."""
    content = asdict(family)
    for name in ("name", "description", "sources"):
        del content[name]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
