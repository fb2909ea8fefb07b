"""Compiled form of a memory: the state of all channels as flat arrays.

``Memory.state[c]`` is everything that channel c knows, one row of 64-bit words: settings, what
commands cost, queues, then a record per rank, bank group and bank. Places below are offsets into
the row; a record is named by its offset. The records of banks, groups and ranks begin with their
*times*: the first clock at which each kind of command may follow. What a constraint asks of a
pseudo-channel, a channel or sibling ranks stands with the ranks it concerns, so a command is ready
at the largest of three numbers, and whatever the constraint list of a device says is honoured.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import AccelsimError
from accelsim.hw.dram.commands import Command, Scope
from accelsim.hw.dram.controller import Controller
from accelsim.hw.dram.device import Device

Int64 = NDArray[np.int64]

NEVER = 1 << 62
NONE = -1

# Kinds of a command. Auto-precharging columns are their plain form plus AUTO.
ACT, PRE, RD, WR, REFAB, REFPB = range(6)
AUTO = 4
KINDS = 8
PLAIN_KINDS = 6  # auto-precharging columns are ready when their plain forms are
COMMAND_OF_KIND = (
    Command.ACT, Command.PRE, Command.RD, Command.WR, Command.REFAB, Command.REFPB,
    Command.RDA, Command.WRA,
)  # fmt: skip

# --- a channel: settings
WINDOW, WRITE_BUFFER, HIGH, LOW, HIT_CAP, PER_CLOCK, DEPTH, CLOSED_PAGE, DUAL = range(9)
READ_CYCLES, WRITE_CYCLES, REFRESH, PERIOD, TURNS, TURN_GROUPS = range(9, 15)
RANKS, BANKS, QUEUES, RANK_BANKS, QUEUE_RANKS = range(15, 20)
# where its records stand
FIRST_RANK, FIRST_BANK, FIRST_QUEUE = range(20, 23)
# what it did
CLOCK, DUE, PENDING, IDLE_CLOCK, LAST_DATA = range(24, 29)
HITS, MISSES, CONFLICTS = range(29, 32)
# which commands leave each other alone: rows and columns of other banks, columns of other
# pseudo-channels; and all but PRE of its own bank, and other columns, what follows a column
APART, ALL_APART = 37, 38
# one bit per kind of command that sibling ranks, and ranks of other pseudo-channels, hear of
SIBLINGS_HEAR, OTHERS_HEAR = 39, 40
MEMBERS = 42  # channels that this record stands for
# the command that is ready first of those that due refreshes need; a clock < 0: to be found again
REFRESH_READY, REFRESH_PLACE, REFRESH_KIND = range(44, 47)
COUNTS = 48  # of commands, by kind
# what commands cost: COST + (place * KINDS + before) * KINDS + after
AT_BANK, AT_GROUP, AT_RANK, AT_SIBLINGS, AT_OTHERS = range(5)
COST = 56
WINDOWS = COST + 5 * KINDS * KINDS  # number of windows, then cycles and activations of each
MOST_WINDOWS = 3
TAGS = WINDOWS + 8  # queued nodes by hash of their row: reads, then writes
TAG_VALUES = 256
RECORDS = TAGS + 2 * TAG_VALUES

# --- a queue: one per pseudo-channel
QUEUE_WORDS = 32
READS, WRITES, DRAIN, MODE, WAKE, ACCEPT_CLOCK, ACCEPTED = range(7)
CURSOR, CURSOR_BEFORE, LAST, REST, TAIL, LANES, MASK = range(7, 14)
ACTIVE, ACTIVE_LIST = 14, 16  # + direction: number and list of banks with requests
CHOICE_CLOCK, DRAINED = 18, 19  # the last choice of a direction, and DRAIN before that clock
# banks by what they need next, rows or columns (+ class), from the oldest: number and list
CANDIDATES, CANDIDATE_LIST = 20, 22
QUEUE_RANK = 24  # its first rank
# the command of each class that is ready first: bank, age, clock; a clock < 0: to be found again
BEST, BEST_WORDS = 26, 3
BANK_OF_BEST, AGE_OF_BEST, READY = range(BEST_WORDS)
BEST_ROW, BEST_COLUMN = BEST, BEST + BEST_WORDS
ROW_READY, COLUMN_READY = BEST_ROW + READY, BEST_COLUMN + READY
# --- a rank: its times, then
RANK_WORDS = 64
REFRESH_DUE, REFRESH_PENDING, TURN, OPEN_BANKS, OPEN_SINCE, OPEN_CYCLES, RANK_BANK, RANK_QUEUE = (
    range(8, 16)
)
ACTS = 16  # number of activations, then the last ones
LARGEST_WINDOW = 32  # activations that a window may span (t32AW of GDDR5 and GDDR6)
# --- a bank group: its times
# --- a bank: its times, then
BANK_WORDS = 32
OPEN, SERVED, KIND, AGE_OF_BANK, BLOCKED, CLOSED_BY_DEMAND = range(8, 14)
HEAD, END, HIT, PLACE = 14, 16, 18, 20  # + direction
GROUP, RANK, QUEUE, NUMBER, GROUP_NUMBER, BANK_NUMBER = range(22, 28)

# --- a node of the pool
NODE_WORDS = 16
ROW, COLUMN, STRIDE, WAITING, LEFT, AGE, STEP, NEXT, BEFORE = range(9)
RING, TRANSFER, BANK, WRITE, AT, REST_OF = range(9, 15)
COPY = 15  # while a channel is copied

# --- the whole memory
FREE, FREE_NODES, RESERVE, EVENTS, LOGGED, PUSHED = range(6)  # book
ACCEPT_LEFT, DONE_LEFT, ACCEPTED_AT, DONE_AT = range(4)  # transfer


class Memory(NamedTuple):
    """State of all channels of a memory, and what they tell."""

    state: Int64  # [channel, word]
    pool: Int64  # [node, field]
    book: Int64
    transfers: Int64  # [transfer, field]
    events: Int64  # [event, (transfer, what, clock)]
    log: Int64  # [command, (clock, command, channel, bank, row, column)]; empty: not wanted
    accepted: Int64  # clocks by number of push; empty: not wanted
    finished: Int64


def memory(
    device: Device,
    controller: Controller,
    channels: int,
    *,
    nodes: int = 4096,
    transfers: int = 0,
    requests: int = 0,
    log: int = 0,
) -> Memory:
    """Idle channels. ``requests`` > 0 keeps the times of that many pushed bursts, ``log`` commands.

    Raises:
        AccelsimError: no channel, or a window of activations that is not simulated.
    """
    if channels < 1:
        raise AccelsimError(f"{channels} channels; accepted: 1 or more")
    row = _channel(device, controller)
    # Dropping a burst out of the middle of a node makes two of it.
    queued = int(row[WINDOW] + row[WRITE_BUFFER]) + 1
    reserve = channels * int(row[QUEUES]) * queued
    pool = np.full((nodes + reserve, NODE_WORDS), NONE, np.int64)
    pool[:-1, NEXT] = np.arange(1, len(pool))
    book = np.zeros(8, np.int64)
    book[[FREE_NODES, RESERVE]] = len(pool), reserve
    return Memory(
        state=np.tile(row, (channels, 1)),
        pool=pool,
        book=book,
        transfers=np.zeros((transfers, 4), np.int64),
        events=np.zeros((2 * transfers + 2, 3), np.int64),
        log=np.zeros((log, 6), np.int64),
        accepted=np.zeros(requests, np.int64),
        finished=np.zeros(requests, np.int64),
    )


def _channel(device: Device, controller: Controller) -> Int64:
    """The row of one idle channel."""
    parts = device.organization
    queues = parts.pseudo_channels
    ranks = queues * parts.ranks
    groups, banks = ranks * parts.bank_groups, ranks * parts.banks_per_rank
    first_queue = RECORDS
    first_rank = first_queue + queues * QUEUE_WORDS
    first_group = first_rank + ranks * RANK_WORDS
    first_bank = first_group + groups * KINDS
    lists = first_bank + banks * BANK_WORDS
    row = np.zeros(lists + 4 * banks, np.int64)
    row[[RANKS, BANKS, QUEUES, RANK_BANKS]] = ranks, banks, queues, parts.banks_per_rank
    row[QUEUE_RANKS] = parts.ranks
    row[MEMBERS] = 1
    row[[FIRST_RANK, FIRST_BANK, FIRST_QUEUE]] = first_rank, first_bank, first_queue
    _settings(row, device, controller, ranks)
    _costs(row, device)
    number = np.arange(banks)
    bank = row[first_bank:lists].reshape(banks, BANK_WORDS)
    bank[:, OPEN:] = NONE
    bank[:, [SERVED, BLOCKED, CLOSED_BY_DEMAND]] = 0
    bank[:, NUMBER], bank[:, BANK_NUMBER] = number, number % parts.banks
    bank[:, GROUP_NUMBER] = number // parts.banks % parts.bank_groups
    bank[:, GROUP] = first_group + number // parts.banks * KINDS
    bank[:, RANK] = first_rank + number // parts.banks_per_rank * RANK_WORDS
    bank[:, QUEUE] = first_queue + number // (banks // queues) * QUEUE_WORDS
    queue = row[first_queue:first_rank].reshape(queues, QUEUE_WORDS)
    queue[:, [CURSOR, LAST, REST, TAIL, ACCEPT_CLOCK]] = NONE
    queue[:, WAKE] = NEVER
    queue[:, [COLUMN_READY, ROW_READY]] = NONE
    queue[:, QUEUE_RANK] = first_rank + np.arange(queues) * parts.ranks * RANK_WORDS
    each = banks // queues
    for k, word in enumerate((ACTIVE_LIST, ACTIVE_LIST + 1, CANDIDATE_LIST, CANDIDATE_LIST + 1)):
        queue[:, word] = lists + (4 * np.arange(queues) + k) * each
    rank = row[first_rank:first_group].reshape(ranks, RANK_WORDS)
    rank[:, RANK_BANK] = first_bank + np.arange(ranks) * parts.banks_per_rank * BANK_WORDS
    rank[:, RANK_QUEUE] = first_queue + np.arange(ranks) // parts.ranks * QUEUE_WORDS
    # The refreshes of the ranks are staggered.
    step = row[PERIOD] // ranks
    rank[:, REFRESH_DUE] = (1 + np.arange(ranks)) * step if step else NEVER
    row[DUE], row[IDLE_CLOCK] = rank[0, REFRESH_DUE], NEVER
    row[REFRESH_READY] = NONE
    return row


def _settings(row: Int64, device: Device, controller: Controller, ranks: int) -> None:
    refresh, t = device.refresh, device.timings
    row[[WINDOW, WRITE_BUFFER]] = controller.window, controller.write_buffer
    row[[HIGH, LOW]] = controller.high_watermark, controller.low_watermark
    row[[HIT_CAP, PER_CLOCK]] = controller.hit_cap, controller.accepts_per_clock
    row[DEPTH], row[DUAL] = controller.command_queue, device.dual_command
    row[CLOSED_PAGE] = controller.page == "closed"
    row[READ_CYCLES] = t["CL"] + t["burst_cycles"]
    row[WRITE_CYCLES] = t["CWL"] + t["burst_cycles"]
    if controller.refresh:
        per_bank = refresh.kind == "per-bank"
        interval = refresh.per_bank_interval_cycles if per_bank else refresh.interval_cycles
        row[REFRESH] = REFPB if per_bank else REFAB
        row[PERIOD] = max(1, interval // ranks) * ranks
    row[TURNS] = row[RANK_BANKS] // refresh.groups_per_command
    row[TURN_GROUPS] = device.organization.bank_groups // refresh.groups_per_command


def _costs(row: Int64, device: Device) -> None:
    """Clocks that a command costs what comes after it; very negative where it costs nothing."""
    table = device.constraint_table()
    columns, closing = [Command.RD, Command.WR], [Command.RDA, Command.WRA]
    if not (table[:, :, columns] == table[:, :, closing]).all():
        raise AccelsimError(
            f"{device.name}: RDA and WRA wait for other commands than RD and WR do; accepted:"
            " constraints after both (READ, WRITE)"
        )
    asked = np.where(table < 0, -NEVER // 2, table)
    bus = [Scope.PSEUDO_CHANNEL, Scope.CHANNEL]
    places = np.stack(
        [
            asked[Scope.BANK],
            asked[Scope.BANK_GROUP],
            asked[[Scope.RANK, *bus]].max(axis=0),
            asked[[Scope.OTHER_RANKS, *bus]].max(axis=0),
            asked[Scope.CHANNEL],
        ]
    )
    kinds = list(COMMAND_OF_KIND)
    places = places[:, kinds][:, :, kinds]
    row[COST:WINDOWS] = places.reshape(-1)
    _couplings(row, places)
    for one in device.constraints:
        plain = (one.before, one.after, one.scope) == (Command.ACT, Command.ACT, Scope.RANK)
        if one.window > 1 and (not plain or one.window > LARGEST_WINDOW):
            raise AccelsimError(
                f"{device.name}: {one}: this window is not simulated; "
                f"accepted: ACT to ACT of a rank, window up to {LARGEST_WINDOW}"
            )
    windows = device.windows()
    if len(windows) > MOST_WINDOWS:
        raise AccelsimError(f"{device.name}: {len(windows)} windows; accepted: {MOST_WINDOWS}")
    row[WINDOWS] = len(windows)
    for k, pair in enumerate(windows):
        row[WINDOWS + 1 + 2 * k : WINDOWS + 3 + 2 * k] = pair


def _couplings(row: Int64, places: Int64) -> None:
    """Which commands are independent of each other."""
    columns, rows = [RD, WR], [ACT, PRE]
    all_columns, far = [RD, WR, RD + AUTO, WR + AUTO], places[AT_GROUP:]

    def apart(columns_before: list[int], others: list[int]) -> bool:
        """Whether columns of a bank and other commands to other banks leave each other alone."""
        after, before = far[:, columns_before][:, :, others], far[:, others][:, :, columns]
        return bool((after < 0).all() and (before < 0).all())

    between = places[AT_OTHERS][np.ix_(all_columns, columns)]
    row[APART] = apart(all_columns, rows) and bool((between < 0).all())
    own = places[AT_BANK][np.ix_(columns, [ACT, *columns, REFAB, REFPB])]
    row[ALL_APART] = row[APART] and apart(columns, [REFAB, REFPB]) and bool((own < 0).all())
    alone = row[RANKS] == row[QUEUES]
    for kind in range(KINDS):
        heard = not alone and (places[AT_SIBLINGS, kind] >= 0).any()
        row[SIBLINGS_HEAR] |= int(heard) << kind
        row[OTHERS_HEAR] |= int((places[AT_OTHERS, kind] >= 0).any()) << kind
