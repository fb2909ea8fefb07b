"""Drivers: how each queue structure of a controller is fed with a request stream.

Two ways of offering requests. ``saturating``: all wait from the beginning (or from their clocks in
a trace) in front of the queue of their pseudo-channel, which accepts them in order while there is
room, ``accepts_per_clock`` in a clock. ``qd1``: each is offered when the one before is complete.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from accelsim.hw.dram.commands import Command
from accelsim.hw.dram.controller import Controller
from accelsim.hw.dram.device import Device
from accelsim.hw.dram.first_ready import drive_first_ready
from accelsim.hw.dram.log import CommandLog
from accelsim.hw.dram.mapping import AddressMap
from accelsim.hw.dram.per_bank import drive_per_bank
from accelsim.hw.dram.streams import Requests

if TYPE_CHECKING:
    from accelsim.hw.dram.run_kernels import Places
    from accelsim.hw.dram.state import Memory

Ints = NDArray[np.int64]

INJECTS = ("saturating", "qd1")
LOG_ROWS = 1 << 18  # commands that are logged before Python takes them


@dataclass(frozen=True, eq=False)
class Job:
    """What is to be driven: channels of a device behind an address map, and the requests."""

    device: Device
    controller: Controller
    address_map: AddressMap
    channels: int
    requests: Requests
    inject: str
    log: bool = False


@dataclass(frozen=True)
class ChannelCounts:
    """What one channel did; ``active_cycles`` sums over its ranks the clocks with a bank open."""

    requests: int
    row_hits: int
    row_misses: int
    row_conflicts: int
    commands: Mapping[Command, int]
    active_cycles: int


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a driver measured.

    ``accepted`` and ``finished`` are clocks by request, ``data_cycles`` is when the last data had
    moved (posted writes finish before), ``logs`` one per channel if wanted.
    """

    accepted: Ints
    finished: Ints
    data_cycles: int
    channels: tuple[ChannelCounts, ...]
    logs: tuple[CommandLog, ...] = ()


def drive_window(job: Job) -> Outcome:
    """Drive channels whose controllers reorder within a read window and a write buffer."""
    from accelsim.hw.dram import run_kernels as kernels
    from accelsim.hw.dram import state

    places, queues = places_of(job)
    first, order = np.zeros(queues + 1, np.int64), np.zeros(len(job.requests), np.int32)
    kernels.sort_by_queue(places.queue, first, order)
    memory = state.memory(
        job.device, job.controller, job.channels,
        nodes=queues * (job.controller.window + job.controller.write_buffer + kernels.STOCK + 2),
        transfers=1,
        requests=len(job.requests),
        log=LOG_ROWS if job.log else 0,
    )  # fmt: skip
    rows: list[Ints] = []

    def complete(step: Callable[[], int]) -> None:
        """Take the log whenever it is full, until a step is done."""
        while step() == kernels.FILLED:
            _take_log(memory, rows)

    if job.inject == "qd1":
        progress = np.zeros(3, np.int64)
        complete(lambda: kernels.one_by_one(memory, places, progress))
    following = first.copy()
    for c in range(job.channels):
        if job.inject == "saturating":
            complete(lambda c=c: kernels.saturate(memory, c, places, order, first, following))  # type: ignore[misc]
        complete(lambda c=c: kernels.finish(memory, c))  # type: ignore[misc]
    last = int(memory.state[:, state.LAST_DATA].max())
    end = max(last, int(memory.finished.max()))
    for c in range(job.channels):
        complete(lambda c=c: kernels.idle_until(memory, c, end))  # type: ignore[misc]
    _take_log(memory, rows)
    per_channel = np.diff(first).reshape(job.channels, -1).sum(axis=1).tolist()
    counts = tuple(_counts(memory, c, n, end) for c, n in enumerate(per_channel))
    logs = logs_of(rows, job) if job.log else ()
    return Outcome(memory.accepted, memory.finished, last, counts, logs)


POLICIES: dict[str, Callable[[Job], Outcome]] = {
    "window": drive_window,
    "per-bank": drive_per_bank,
    "first-ready": drive_first_ready,
}
"""The driver of each queue structure of a controller."""


def places_of(job: Job) -> tuple[Places, int]:
    """Where all requests lie, and the number of queues of all channels."""
    from accelsim.hw.dram import run_kernels as kernels

    parts, n = job.device.organization, len(job.requests)
    clock = job.requests.clock
    queue, bank, row, column = np.zeros((4, n), np.int32)
    places = kernels.Places(
        queue,
        bank,
        row,
        column,
        job.requests.write,
        np.zeros(0, np.int64) if clock is None else clock,
    )
    queues = parts.pseudo_channels
    banks = parts.ranks * parts.banks_per_rank
    kernels.place(job.address_map.compiled, job.requests.address, banks, queues, places)
    return places, job.channels * queues


def _take_log(memory: Memory, rows: list[Ints]) -> None:
    from accelsim.hw.dram.state import LOGGED

    rows.append(memory.log[: memory.book[LOGGED]].copy())
    memory.book[LOGGED] = 0


def _counts(memory: Memory, c: int, requests: int, end: int) -> ChannelCounts:
    from accelsim.hw.dram import state

    s = memory.state[c]
    count = s[state.COUNTS : state.COUNTS + state.KINDS].tolist()
    active = 0
    for rank in range(s[state.RANKS]):
        r = s[state.FIRST_RANK] + rank * state.RANK_WORDS
        active += int(s[r + state.OPEN_CYCLES])
        if s[r + state.OPEN_BANKS] > 0:
            active += end - int(s[r + state.OPEN_SINCE])
    return ChannelCounts(
        requests,
        int(s[state.HITS]),
        int(s[state.MISSES]),
        int(s[state.CONFLICTS]),
        dict(zip(state.COMMAND_OF_KIND, count, strict=True)),
        active,
    )


def logs_of(rows: list[Ints], job: Job) -> tuple[CommandLog, ...]:
    """The log of each channel; banks of the channel become pseudo-channel, rank, group and bank."""
    parts = job.device.organization
    everything = np.concatenate(rows)
    logs = []
    for c in range(job.channels):
        mine = everything[everything[:, 2] == c]
        clock, command, _, number, row, column = (np.ascontiguousarray(one) for one in mine.T)
        left, bank = np.divmod(number, parts.banks)
        left, group = np.divmod(left, parts.bank_groups)
        pseudo, rank = np.divmod(left, parts.ranks)
        logs.append(CommandLog(clock, command, pseudo, rank, group, bank, row, column))
    return tuple(logs)
