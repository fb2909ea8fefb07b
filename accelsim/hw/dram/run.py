"""A request stream on a memory: what it took, as a frozen result.

run = run_stream("hbm2", stream="rand_read", requests=100_000)
run.cycles, run.bytes_per_second, run.read_latency.mean
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from accelsim._version import __version__
from accelsim.errors import AccelsimError, unknown
from accelsim.hw.dram.catalog import device as device_named
from accelsim.hw.dram.checker import Verdict, check_log
from accelsim.hw.dram.commands import COLUMN_COMMANDS, Command
from accelsim.hw.dram.controller import MOST_CHANNELS, Controller
from accelsim.hw.dram.device import Device
from accelsim.hw.dram.dramsim3_ini import import_dramsim3
from accelsim.hw.dram.drive import INJECTS, POLICIES, Ints, Job, Outcome
from accelsim.hw.dram.energy import energy_pj
from accelsim.hw.dram.log import CommandLog
from accelsim.hw.dram.mapping import AddressMap
from accelsim.hw.dram.streams import (
    SEED,
    STREAMS,
    Extent,
    Requests,
    check_inside,
    make_stream,
    read_trace,
)  # fmt: skip

SCHEMA = 1

MAPPING = "RoRaBaCoBgCh"
"""Neighbouring bursts go to all channels, pseudo-channels and bank groups in turn, then along the
rows: both data buses and bank groups of a sequential stream stay busy, and its rows stay open."""

MOST_REQUESTS = 1 << 28
MOST_LOGGED = 10_000_000
REQUESTS = 100_000


@dataclass(frozen=True)
class MemoryDevice:
    """A device and what its file says of the rest; a shipped device says nothing of that."""

    device: Device
    controller: Controller
    mapping: str = MAPPING
    channels: int = 1


@dataclass(frozen=True)
class Latency:
    """Clocks from the acceptance of a read by the controller to the clock after its last beat."""

    mean: float
    min: int
    p50: int
    p90: int
    p99: int
    max: int


@dataclass(frozen=True)
class ChannelLoad:
    """One channel's part: ``bus_share`` of the time its data buses carried data."""

    requests: int
    bytes: int
    bus_share: float
    row_hits: int
    row_misses: int
    row_conflicts: int


@dataclass(frozen=True, eq=False)
class MemoryRun:
    """What a memory did with a stream; times in clocks of the device.

    ``cycles`` is when the last data had moved, ``acknowledged_cycles`` when the last request was
    answered: writes are, as soon as they are accepted; ``accepted_cycles`` when the last one had
    found room in a queue. A burst is a row hit if its row was open, a conflict if another row of
    the bank had to be closed for it, a miss otherwise; reads of what waits in the write buffer, and
    writes to it, are ``merged`` and cost no command.
    """

    version: str
    device: str
    standard: str
    channels: int
    mapping: str
    hashing: bool
    controller: Controller
    stream: str
    seed: int | None
    inject: str
    clock_hz: int
    reads: int
    writes: int
    burst_bytes: int
    cycles: int
    acknowledged_cycles: int
    accepted_cycles: int
    peak_bytes_per_second: float
    row_hits: int
    row_misses: int
    row_conflicts: int
    commands: Mapping[str, int]
    read_latency: Latency | None
    energy_pj: Mapping[str, float]
    channel_loads: tuple[ChannelLoad, ...]
    digests: Mapping[str, str]
    wall_seconds: float
    verdicts: tuple[Verdict, ...] = field(repr=False, default=())
    logs: tuple[CommandLog, ...] = field(repr=False, default=())
    schema: int = SCHEMA

    @property
    def requests(self) -> int:
        return self.reads + self.writes

    @property
    def bytes(self) -> int:
        """Bytes asked for."""
        return self.requests * self.burst_bytes

    @property
    def merged(self) -> int:
        return self.requests - self.row_hits - self.row_misses - self.row_conflicts

    @property
    def seconds(self) -> float:
        """Simulated time."""
        return self.cycles / self.clock_hz

    @property
    def bytes_per_second(self) -> float:
        """Bytes asked for over the simulated time."""
        return self.bytes / self.seconds

    @property
    def violations(self) -> int:
        """Broken rules that the checker found in the logs, if it was asked."""
        return sum(verdict.total for verdict in self.verdicts)

    def to_dict(self) -> dict[str, Any]:
        """The run as plain JSON values (schema 1); logs are left out."""
        plain = {
            name: getattr(self, name)
            for name in (
                "schema", "version", "device", "standard", "channels", "mapping", "hashing",
                "stream", "seed", "inject", "clock_hz", "requests", "reads", "writes",
                "burst_bytes", "bytes", "cycles", "acknowledged_cycles", "accepted_cycles",
                "seconds", "bytes_per_second", "peak_bytes_per_second", "row_hits", "row_misses",
                "row_conflicts", "merged",
            )
        }  # fmt: skip
        checked = {"commands": sum(one.commands for one in self.verdicts)}
        checked |= {"violations": self.violations}
        return {
            **plain,
            "controller": asdict(self.controller),
            "commands": dict(self.commands),
            "read_latency_cycles": asdict(self.read_latency) if self.read_latency else None,
            "energy_pj": dict(self.energy_pj),
            "channel_loads": [asdict(one) for one in self.channel_loads],
            "checked": checked if self.verdicts else None,
            "digests": dict(self.digests),
            "wall_seconds": self.wall_seconds,
        }


def memory_device(given: str | Device) -> MemoryDevice:
    """A device by library name, ``FILE.yaml[:NAME]`` or ``FILE.ini`` (DRAMsim3), or itself.

    Raises:
        AccelsimError: an unknown name, or a fault in the file.
    """
    if isinstance(given, Device):
        return MemoryDevice(given, Controller())
    if not given.endswith(".ini"):
        return MemoryDevice(device_named(given), Controller())
    found = import_dramsim3(given)
    controller = Controller.of_dramsim3(found.settings)
    return MemoryDevice(
        found.device,
        controller if controller.policy in POLICIES else Controller(),
        str(found.settings["mapping"]),
        int(str(found.settings["channels"])),
    )


def controller_with(base: Controller, settings: Mapping[str, object]) -> Controller:
    """A controller with some settings replaced; another policy starts from its own defaults."""
    accepted = [one.name for one in fields(Controller)]
    for name in settings:
        if name not in accepted:
            raise AccelsimError(unknown("controller setting", name, accepted))
    policy = settings.get("policy", base.policy)
    start = (
        base if policy == base.policy else Controller.of_policy(str(policy), refresh=base.refresh)
    )
    return replace(start, **settings)  # type: ignore[arg-type]  # Controller checks them


def run_stream(
    device: str | Device | MemoryDevice,
    *,
    stream: str | Requests = "seq_read",
    requests: int | None = None,
    inject: str = "saturating",
    seed: int = SEED,
    controller: Controller | None = None,
    mapping: str | None = None,
    hashing: bool = False,
    channels: int | None = None,
    log: bool = False,
    check: bool = False,
) -> MemoryRun:
    """Drive a memory by a stream: a name of ``streams.STREAMS``, a trace file, or requests.

    ``log`` keeps the commands of each channel, ``check`` has the independent checker read them.

    Raises:
        AccelsimError: something is unknown or out of range; the message says what would do.
    """
    began = time.perf_counter()
    memory = device if isinstance(device, MemoryDevice) else memory_device(device)
    settings = controller or memory.controller
    if inject not in INJECTS:
        raise AccelsimError(unknown("injection", inject, INJECTS))
    if settings.policy not in POLICIES:
        raise AccelsimError(unknown("policy", settings.policy, POLICIES))
    wanted = memory.channels if channels is None else channels
    _check_range("channels", wanted, MOST_CHANNELS)
    if requests is not None:
        _check_range("requests", requests, MOST_REQUESTS)
    parts = memory.device.organization
    address_map = AddressMap.of(
        memory.mapping if mapping is None else mapping, parts, wanted, hashing
    )
    asked = _requests(stream, requests, address_map, seed)
    if (log or check) and len(asked) > MOST_LOGGED:
        raise AccelsimError(
            f"the command log of {len(asked):,} requests is too large to keep; "
            f"accepted: up to {MOST_LOGGED:,} requests with a log or a check"
        )
    job = Job(memory.device, settings, address_map, wanted, asked, inject, log or check)
    outcome = POLICIES[settings.policy](job)
    verdicts = tuple(
        check_log(memory.device, one, refresh=settings.refresh, end_cycle=_end(outcome))
        for one in (outcome.logs if check else ())
    )
    return _result(job, outcome, seed, verdicts, began)


def _check_range(what: str, value: int, most: int) -> None:
    if not 1 <= value <= most:
        raise AccelsimError(f"{what} = {value} is out of range; accepted: 1 to {most:,}")


def _requests(
    stream: str | Requests, requests: int | None, address_map: AddressMap, seed: int
) -> Requests:
    """The stream: by rule, out of a file, or as given; inside the memory."""
    if isinstance(stream, str) and stream in STREAMS:
        rows = address_map.sizes[0]
        capacity = address_map.capacity_bytes
        extent = Extent(address_map.column_bytes, capacity // rows, capacity)
        return make_stream(stream, REQUESTS if requests is None else requests, extent, seed)
    if isinstance(stream, str) and not Path(stream).exists():
        raise AccelsimError(f"{unknown('stream', stream, STREAMS)}; or a trace file")
    found = read_trace(stream, requests) if isinstance(stream, str) else stream
    if not len(found):
        raise AccelsimError(f"stream {found.name} is empty; accepted: 1 request or more")
    check_inside(found, address_map.capacity_bytes)
    return found


def _end(outcome: Outcome) -> int:
    return max(outcome.data_cycles, int(outcome.finished.max()))


def _result(
    job: Job, outcome: Outcome, seed: int, verdicts: tuple[Verdict, ...], began: float
) -> MemoryRun:
    device, parts, asked = job.device, job.device.organization, job.requests
    end, write = _end(outcome), asked.write
    counts = {
        command: sum(one.commands.get(command, 0) for one in outcome.channels)
        for command in Command
    }
    active = sum(one.active_cycles for one in outcome.channels)
    ranks = job.channels * parts.channel_ranks
    writes = int(write.sum())
    by_rule = asked.name in STREAMS
    return MemoryRun(
        version=__version__,
        device=device.name,
        standard=device.standard,
        channels=job.channels,
        mapping=job.address_map.text,
        hashing=job.address_map.hashing,
        controller=job.controller,
        stream=asked.name,
        seed=seed if by_rule else None,
        inject=job.inject,
        clock_hz=device.clock_hz,
        reads=len(asked) - writes,
        writes=writes,
        burst_bytes=parts.column_bytes,
        cycles=end,
        acknowledged_cycles=int(outcome.finished.max()),
        accepted_cycles=int(outcome.accepted.max()),
        peak_bytes_per_second=job.channels * device.channel_bytes_per_second,
        row_hits=sum(one.row_hits for one in outcome.channels),
        row_misses=sum(one.row_misses for one in outcome.channels),
        row_conflicts=sum(one.row_conflicts for one in outcome.channels),
        commands={command.name: count for command, count in counts.items()},
        read_latency=_latency(outcome.accepted, outcome.finished, write, writes),
        energy_pj=energy_pj(device, counts, active, ranks * end - active),
        channel_loads=_loads(job, outcome, end),
        digests={"device": _device_digest(device), "stream": _stream_digest(job, seed)},
        wall_seconds=time.perf_counter() - began,
        verdicts=verdicts,
        logs=outcome.logs,
    )


def _latency(accepted: Ints, finished: Ints, write: Any, writes: int) -> Latency | None:
    """Nearest-rank percentiles over all reads; None without reads."""
    clocks = finished - accepted
    if writes:
        clocks = clocks[~write]
    if not len(clocks):
        return None
    least = int(clocks.min())
    below = np.cumsum(np.bincount(clocks - least))

    def percentile(share: float) -> int:
        return least + int(np.searchsorted(below, share * len(clocks)))

    return Latency(
        float(clocks.mean()), least, percentile(0.5), percentile(0.9), percentile(0.99),
        int(clocks.max()),
    )  # fmt: skip


def _loads(job: Job, outcome: Outcome, end: int) -> tuple[ChannelLoad, ...]:
    parts = job.device.organization
    bus = job.device.timings["burst_cycles"] / (end * parts.pseudo_channels)
    return tuple(
        ChannelLoad(
            one.requests,
            one.requests * parts.column_bytes,
            sum(one.commands.get(command, 0) for command in COLUMN_COMMANDS) * bus,
            one.row_hits,
            one.row_misses,
            one.row_conflicts,
        )
        for one in outcome.channels
    )


def _device_digest(device: Device) -> str:
    """SHA-256 of everything about a device that a run depends on."""
    content = asdict(device)
    for name in ("name", "description", "sources"):
        del content[name]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _stream_digest(job: Job, seed: int) -> str:
    """SHA-256 of the rule of a stream, or of the requests where there is none."""
    asked, found = job.requests, hashlib.sha256()
    if asked.name in STREAMS:
        rule = (asked.name, len(asked), seed, job.address_map.column_bytes)
        found.update(json.dumps([*rule, *job.address_map.sizes]).encode())
    else:
        for column in (asked.address, asked.write, asked.clock):
            found.update(b"" if column is None else np.ascontiguousarray(column).tobytes())
    return found.hexdigest()
