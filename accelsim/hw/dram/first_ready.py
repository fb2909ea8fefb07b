"""Driver of controllers that serve the oldest ready request (policy ``first-ready``), as in
Ramulator 2.1.

FR-FCFS to the letter: every clock, the oldest request whose next command is ready gets that
command, be it PRE, ACT or a column; a row is closed for an older request as soon as it may be, hits
waiting or not. A channel has one read queue and one write queue, whatever its pseudo-channels. Who
has opened a row leaves its queue and is served before all others, reads among writes, too. All
ranks are refreshed at once, and until they have been only opened rows are served.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from accelsim.hw.dram.commands import Command
from accelsim.hw.dram.per_bank import check_refresh_and_windows, delays, relations

if TYPE_CHECKING:
    from accelsim.hw.dram.drive import ChannelCounts, Job, Outcome
    from accelsim.hw.dram.first_ready_kernels import Channels

Ints = NDArray[np.int64]

KINDS = tuple(Command)[: Command.PREAB + 1]  # in the order of the kernels
DEEPEST_DEBT = 8  # refreshes of a rank that may wait (JESD79-4B: postponed at most)


def drive_first_ready(job: Job) -> Outcome:
    """Drive all channels of a memory in lockstep.

    Raises:
        AccelsimError: a device that is refreshed bank by bank.
    """
    from accelsim.hw.dram import drive
    from accelsim.hw.dram import first_ready_kernels as kernels
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


def _channels(job: Job) -> Channels:
    """All channels of a job, idle."""
    from accelsim.hw.dram import first_ready_kernels as kernels
    from accelsim.hw.dram.drive import LOG_ROWS

    parts, controller, n = job.device.organization, job.controller, len(job.requests)
    ranks = parts.channel_ranks
    banks, channels = ranks * parts.banks_per_rank, job.channels
    bank = np.zeros((channels, banks, kernels.BANK_WORDS), np.int64)
    bank[:, :, kernels.OPEN] = kernels.NONE
    bursts, same = np.unique(job.requests.address // parts.column_bytes, return_inverse=True)
    setting = _setting(job)
    book = np.zeros(kernels.BOOK_WORDS, np.int64)
    book[kernels.REFRESH_AT] = setting[kernels.REFRESH_STEP]
    longest = max(controller.window, controller.write_buffer)
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
        waiting=np.zeros((channels, 2, longest), np.int64),
        opened=np.zeros((channels, banks), np.int64),
        due=np.zeros((channels, DEEPEST_DEBT * ranks), np.int64),
        same=same.reshape(-1).astype(np.int64),
        pending=np.zeros((2, len(bursts)), np.int64),
        accepted=np.zeros(n, np.int64),
        finished=np.full(n, -1, np.int64),
        log=np.zeros((LOG_ROWS if job.log else 0, 6), np.int64),
    )


def _setting(job: Job) -> Ints:
    from accelsim.hw.dram import first_ready_kernels as kernels

    controller, t = job.controller, job.device.timings
    words = {
        kernels.ROOM + kernels.READ: controller.window,
        kernels.ROOM + kernels.WRITE: controller.write_buffer,
        kernels.HIGH: controller.high_watermark,
        kernels.LOW: controller.low_watermark,
        kernels.PER_CLOCK: controller.accepts_per_clock,
        kernels.DUAL: int(job.device.dual_command),
        kernels.ONE_BY_ONE: int(job.inject == "qd1"),
        kernels.RANK_BANKS: job.device.organization.banks_per_rank,
        kernels.READ_CYCLES: t["CL"] + t["burst_cycles"],
        kernels.WRITE_CYCLES: t["CWL"] + t["burst_cycles"],
        kernels.REFRESH_STEP: job.device.refresh.interval_cycles if controller.refresh else 0,
    }
    return np.array([words[place] for place in range(kernels.SETTINGS)], np.int64)


def _counts(k: Channels, c: int, requests: int, end: int) -> ChannelCounts:
    from accelsim.hw.dram import first_ready_kernels as kernels
    from accelsim.hw.dram.drive import ChannelCounts

    s, active = k.channel[c].tolist(), 0
    for rank in k.rank[c].tolist():
        active += rank[kernels.OPEN_CYCLES]
        if rank[kernels.OPEN_BANKS]:
            active += end - rank[kernels.OPEN_SINCE]
    commands = dict(zip(KINDS, s[kernels.COUNTS :], strict=True))
    hits, misses, conflicts = s[kernels.HITS], s[kernels.MISSES], s[kernels.CONFLICTS]
    return ChannelCounts(requests, hits, misses, conflicts, commands, active)
