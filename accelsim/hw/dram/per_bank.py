"""Driver of controllers with a command queue per bank (policy ``per-bank``), as DRAMsim3 has them.

A channel has a read queue and a write buffer; each clock, the first request whose bank has room
moves into that bank's queue. Writes move once the buffer is full, or more than 8 of them wait and
the banks have nothing to do; then all of it. What is still in the buffer when the last request is
answered is written after that, which DRAMsim3 does not do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import AccelsimError
from accelsim.hw.dram.commands import SAME_CHANNEL, SCOPES, Command
from accelsim.hw.dram.controller import Controller
from accelsim.hw.dram.device import Device

if TYPE_CHECKING:
    from accelsim.hw.dram.drive import ChannelCounts, Job, Outcome
    from accelsim.hw.dram.per_bank_kernels import Channels

Ints = NDArray[np.int64]

KINDS = (Command.ACT, Command.PRE, Command.RD, Command.WR, Command.REFAB)
"""The commands of the kernels, in their order."""


def drive_per_bank(job: Job) -> Outcome:
    """Drive all channels of a memory in lockstep.

    Raises:
        AccelsimError: a device that is refreshed bank by bank.
    """
    from accelsim.hw.dram import drive
    from accelsim.hw.dram import per_bank_kernels as kernels
    from accelsim.hw.dram.run_kernels import DONE

    check_refresh_and_windows(job.device, job.controller, kernels.MOST_WINDOW)
    places, _ = drive.places_of(job)
    queues = job.device.organization.pseudo_channels
    k = _channels(job)
    rows: list[Ints] = []
    while True:
        state = kernels.drive(k, places, queues)
        rows.append(k.log[: k.book[kernels.LOGGED]].copy())
        k.book[kernels.LOGGED] = 0
        if state == DONE:
            break
    last = int(k.book[kernels.LAST_DATA])
    end = max(last, int(k.finished.max()))
    requests = np.bincount(places.queue // queues, minlength=job.channels).tolist()
    counts = tuple(_counts(k, c, n, end) for c, n in enumerate(requests))
    logs = drive.logs_of(rows, job) if job.log else ()
    return drive.Outcome(k.accepted, k.finished, last, counts, logs)


def check_refresh_and_windows(device: Device, controller: Controller, most_window: int) -> None:
    """Raise AccelsimError for what channels in lockstep do not do."""
    if controller.refresh and device.refresh.kind != "all-bank":
        raise AccelsimError(
            f"policy {controller.policy} refreshes whole ranks, and {device.name} wants "
            f"{device.refresh.kind} refreshes; accepted: policy window, or refresh off"
        )
    for _, window in device.windows():
        if window > most_window:
            raise AccelsimError(
                f"{device.name}: a window of {window} activations; accepted: up to {most_window}"
            )


def _channels(job: Job) -> Channels:
    """All channels of a job, idle."""
    from accelsim.hw.dram import per_bank_kernels as kernels
    from accelsim.hw.dram.drive import LOG_ROWS

    parts, controller, n = job.device.organization, job.controller, len(job.requests)
    ranks = parts.channel_ranks
    banks, channels = ranks * parts.banks_per_rank, job.channels
    bank = np.zeros((channels, banks, kernels.BANK_WORDS), np.int64)
    bank[:, :, kernels.OPEN] = kernels.NONE
    bursts, same = np.unique(job.requests.address // parts.column_bytes, return_inverse=True)
    setting = _setting(job, ranks)
    book = np.zeros(kernels.BOOK_WORDS, np.int64)
    book[kernels.CLOCK] = kernels.FIRST_CLOCK
    book[kernels.REFRESH_AT] = setting[kernels.REFRESH_STEP]
    return kernels.Channels(
        setting=setting,
        delay=delays(job.device, KINDS),
        relation=relations(job.device),
        windows=np.array(job.device.windows(), np.int64).reshape(-1, 2),
        book=book,
        channel=np.zeros((channels, kernels.CHANNEL_WORDS), np.int64),
        rank=np.zeros((channels, ranks, kernels.RANK_WORDS), np.int64),
        acts=np.zeros((channels, ranks, kernels.MOST_WINDOW), np.int64),
        bank=bank,
        ready=np.zeros((channels, banks, kernels.KINDS), np.int64),
        queue=np.zeros((channels, banks, controller.command_queue), np.int64),
        reads=np.zeros((channels, controller.window), np.int64),
        writes=np.zeros((channels, controller.write_buffer), np.int64),
        same=same.reshape(-1).astype(np.int64),
        writing=np.zeros(len(bursts), np.int8),
        reading=np.full(len(bursts), kernels.NONE, np.int64),
        before=np.full(n, kernels.NONE, np.int64),
        accepted=np.zeros(n, np.int64),
        finished=np.full(n, -1, np.int64),
        log=np.zeros((LOG_ROWS if job.log else 0, 6), np.int64),
    )


def _setting(job: Job, ranks: int) -> Ints:
    from accelsim.hw.dram import per_bank_kernels as kernels

    controller, t = job.controller, job.device.timings
    words = {
        kernels.DEPTH: controller.command_queue,
        kernels.READ_QUEUE: controller.window,
        kernels.WRITE_BUFFER: controller.write_buffer,
        kernels.HIT_CAP: controller.hit_cap,
        kernels.PER_CLOCK: controller.accepts_per_clock,
        kernels.DUAL: int(job.device.dual_command),
        kernels.ONE_BY_ONE: int(job.inject == "qd1"),
        kernels.RANK_BANKS: job.device.organization.banks_per_rank,
        kernels.READ_CYCLES: t["CL"] + t["burst_cycles"],
        kernels.WRITE_CYCLES: t["CWL"] + t["burst_cycles"],
        kernels.REFRESH_STEP: (
            max(1, job.device.refresh.interval_cycles // ranks) if controller.refresh else 0
        ),
    }
    return np.array([words[place] for place in range(len(words))], np.int64)


def delays(device: Device, kinds: Sequence[Command]) -> Ints:
    """Cycles between commands by how much their banks share; -1 where nothing is asked."""
    table = device.constraint_table()[:, kinds][:, :, kinds]
    return np.stack([table[list(SCOPES[shared])].max(axis=0) for shared in sorted(SCOPES)])


def relations(device: Device) -> Ints:
    """What every two banks of a channel share."""
    parts = device.organization
    number = np.arange(parts.channel_banks)
    sizes = (1, parts.banks, parts.banks_per_rank, parts.ranks * parts.banks_per_rank)
    found = np.full((len(number), len(number)), SAME_CHANNEL, np.int64)
    for shared, size in reversed(list(enumerate(sizes))):
        found[np.equal.outer(number // size, number // size)] = shared
    return found


def _counts(k: Channels, c: int, requests: int, end: int) -> ChannelCounts:
    from accelsim.hw.dram import per_bank_kernels as kernels
    from accelsim.hw.dram.drive import ChannelCounts

    s, active = k.channel[c].tolist(), 0
    for rank in k.rank[c].tolist():
        active += rank[kernels.OPEN_CYCLES]
        if rank[kernels.OPEN_BANKS]:
            active += end - rank[kernels.OPEN_SINCE]
    commands = dict(zip(KINDS, s[kernels.COUNTS :], strict=True))
    hits, misses, conflicts = s[kernels.HITS], s[kernels.MISSES], s[kernels.CONFLICTS]
    return ChannelCounts(requests, hits, misses, conflicts, commands, active)
