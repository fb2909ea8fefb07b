"""Compiled form of PIM channels: a family's commands and rules as tables, channels as arrays.

``Channels.ready[c, p, k]`` is the first clock at which command k may touch place p of channel c: a
bank, a bank group or a rank (in this order). A command to some banks is ready when all places that
these are and lie in are; it pushes the times of those that hear of it, by what they share with it.

Requests of the host come as runs of bursts of one row, *nodes* in a list; the queues of a channel
hold nodes, once per burst. Whoever sent them, and entries of a stream, is told when they have been
accepted and when they are done: ``transfers`` counts, ``events`` tells (fifo_kernels).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accelsim.hw.dram.commands import SCOPES, Command
from accelsim.hw.dram.state import FREE, FREE_NODES
from accelsim.hw.pim.channel.reach import places, reaches
from accelsim.hw.pim.channel.stream import PimStream
from accelsim.hw.pim.family import Deadline, Family, Reach

Int64 = NDArray[np.int64]

NEVER = 1 << 62
NONE = -1
FIRST_CLOCK = 1  # the first command may be offered after one clock, as DRAMsim3 has it
MOST_WINDOW = 32
WIDEST = 32  # PIM commands that may be looked at

# --- settings
(
    CONCURRENT, DUAL, LOOK_AT, HIT_CAP, DEPTH, READ_QUEUE, WRITE_BUFFER, PIM_QUEUE, REFRESH_STEP,
    REFRESH_BATCH, REFRESH_UNITS, REFRESH_ALONE, READ_CYCLES, WRITE_CYCLES, GUARD, SECOND,
    REFRESH_KIND, REFRESH_CLOSE, REFRESH_CLOSE_SECOND, REFRESH_REACH, TRP, TRCD, DEADLINE,
    EST_CLOSE, EST_PAIR, EST_FIRST, EST_SLOT, EST_LEAST, EST_RESULT, EST_REOPEN, BANKS, RANK_BANKS,
    GROUP_BANKS, KINDS, UNIT_BANKS, AHEAD,
) = range(36)  # fmt: skip
SETTINGS = 36

# --- a command: columns of Channels.kind
ROLE, REACH, BUFFER, OPENS, CLOSES, LATENCY, HOLD, STEP, ROW_BUS, COMPOSITE = range(10)
OPEN, CLOSE, COLUMN, MOVE, HEADER, REFRESH = range(6)

# --- words of a channel
(
    CLOCK, HEAD, QUEUED, END, PENDING, UNIT_DUE, REFRESH_AT, REFRESHING, SKIPPING, SLACK, RESERVED,
    HOLDING, HOLD_END, HOLD_BANK, POINTER, READS, WRITES, DRAIN, WAITING, IN_TILE, LOOKED, OFFERED,
    LAST_NODE, DONE_READS, RETURNED, RETURNS, PIM_FINISH, LAST_DATA, HITS, MISSES, CONFLICTS,
    LIMIT, OUTSTANDING, WRITTEN, MEMBERS,
) = range(35)  # fmt: skip
WORDS = 40
# --- words of a rank, by row buffer: banks that are open, since when, clocks with one
OPEN_BANKS, OPEN_SINCE, OPEN_CYCLES, RANK_WORDS = range(4)
# --- entries of a stream
COMMAND, ROW, BANK, REPEAT, RESULTS, LAST, BEGUN, TOTAL, SENDER, AFTER = range(10)
ENTRY_WORDS = 10
# --- nodes: bursts of the host in one row. LEFT of them wait outside, LIVE are not served yet
R_BANK, R_ROW, R_WRITE, R_LEFT, R_LIVE, R_SENDER, R_NEXT, R_COPY = range(8)
NODE_WORDS = 8
# --- a place in a queue: node + (number of the write << NUMBER_BITS), of a run that of its first
NUMBER_BITS = 28
NODE_MASK = (1 << NUMBER_BITS) - 1
MOST_NODES = 1 << NUMBER_BITS


class Channels(NamedTuple):
    """State of channels; c is a channel, b a bank of it, k a command."""

    setting: Int64
    kind: Int64  # [k, column]
    delay: Int64  # [shared, before, after]: cycles after the last
    each: Int64  # [shared, before, after, (cycles, each, least)]: after the first of several
    several: Int64  # [before]: whether each says anything
    reached: Int64  # [reach, bank named, n]: banks, NONE behind the last
    asked: Int64  # [reach, bank named, n]: places that these are and lie in, NONE behind the last
    heard: Int64  # [reach, bank named, n, (place, what they share)]: NONE behind the last
    windows: Int64  # [window, (cycles, activations)]
    word: Int64  # [c, word]
    rank: Int64  # [c, buffer, rank, word]
    acts: Int64  # [c, rank, MOST_WINDOW]
    rows: Int64  # [c, buffer, b]: open row
    served: Int64  # [c, b]
    demanded: Int64  # [c, b]
    ready: Int64  # [c, place, k]
    due: Int64  # [c]: when it acts next, NEVER while nothing waits or it follows another one
    quiet: Int64  # [c, b]: the clock before which its requests need not be looked at
    entry: Int64  # [entry, field]: the streams of all channels, one behind the other
    looked: Int64  # [c, WIDEST]: entries that are looked at
    node: Int64  # [node, field]: requests of the host, of all channels
    reads: Int64  # [c, place]
    writes: Int64  # from the oldest
    queue: Int64  # [c, b, run]: bursts of one node that came one after the other
    bursts: Int64  # [c, b, run]: how many of them wait
    wish: Int64  # [c, b, run]: row << 1, + 1 for writes
    length: Int64  # [c, b]: runs
    held: Int64  # [c, b]: bursts of all its runs
    returns: Int64  # [c, ring]: clocks at which reads end
    sent: Int64  # [c, k]: how often
    log: Int64  # [command, (clock, command, channel, bank, row, repeat)]
    logged: Int64  # [1]
    book: Int64  # as hw.dram.state: FREE, FREE_NODES, EVENTS
    transfers: Int64  # [sender, (ACCEPT_LEFT, DONE_LEFT, ACCEPTED_AT, DONE_AT)]
    events: Int64  # [event, (sender, what, clock)]


def channels(
    family: Family,
    streams: list[PimStream],
    requests: list[Int64] | None = None,
    *,
    outstanding: int = 0,
    refresh: bool = True,
    refresh_after: int = 0,
    log: int = 0,
) -> Channels:
    """Idle channels with their streams and requests of the host.

    ``requests[c]`` are rows of (bank, row, column, write), of which at most ``outstanding`` are
    under way (0: no limit). ``refresh_after``: clocks since the last refresh when clock 0 begins.
    ``log`` commands can be kept.
    """
    ends = np.cumsum([len(one) for one in streams])
    entry = entries(np.concatenate([one.table() for one in streams]))
    asked = requests or [np.zeros((0, 4), np.int64)] * len(streams)
    runs = [_runs(one) for one in asked]
    node = np.zeros((sum(len(one) for one in runs), NODE_WORDS), np.int64)
    k = idle_channels(family, ends, entry, node, refresh=refresh, log=log)
    k.word[:, END] = ends
    k.word[:, OUTSTANDING] = outstanding or NEVER
    k.word[:, REFRESH_AT] = max(1, int(k.setting[REFRESH_STEP]) - refresh_after)
    first = 0
    for c, one in enumerate(runs):
        last = first + len(one) - 1
        if len(one):
            _line_up(node[first : last + 1], one, first)
            k.word[c, [OFFERED, LAST_NODE]] = first, last
        first = last + 1
    k.book[[FREE, FREE_NODES]] = NONE, 0
    return k


def _runs(requests: Int64) -> Int64:
    """Requests (bank, row, column, write) one after the other: rows of (bank, row, write, how many
    of the same)."""
    of = requests[:, [0, 1, 3]]
    first = np.flatnonzero(np.append(True, (of[1:] != of[:-1]).any(axis=1)))[: len(of)]
    return np.column_stack([of[first], np.diff(np.append(first, len(of)))])


def _line_up(node: Int64, runs: Int64, first: int) -> None:
    """Nodes of runs in their order; the first one has a number."""
    node[:, [R_BANK, R_ROW, R_WRITE, R_LEFT]] = runs
    node[:, R_LIVE] = node[:, R_LEFT]
    node[:, R_NEXT] = first + 1 + np.arange(len(node))
    node[-1, R_NEXT] = NONE


def entries(table: Int64) -> Int64:
    """Rows of a stream's table as a channel works on them; nobody is told of them."""
    entry = np.zeros((len(table), ENTRY_WORDS), np.int64)
    entry[:, :6] = table
    entry[:, BEGUN] = entry[:, SENDER] = NONE
    entry[:, TOTAL] = entry[:, REPEAT]
    return entry


def idle_channels(
    family: Family,
    ends: Int64,
    entry: Int64,
    node: Int64,
    *,
    senders: int = 0,
    refresh: bool = True,
    log: int = 0,
) -> Channels:
    """Channels to which nothing has been given yet.

    ``ends[c]`` is where the entries of channel c end, one behind the other; ``node`` the free nodes
    for requests. ``senders`` want to be told.
    """
    n, banks, kinds = len(ends), family.banks, len(family.commands)
    parts = family.device.organization
    reached, asked, heard = reaches(parts)
    setting = _settings(family, refresh)
    reads, depth = int(setting[READ_QUEUE]), int(setting[DEPTH])
    node[:, [R_SENDER, R_COPY]] = NONE
    node[:, R_NEXT] = np.arange(1, len(node) + 1)
    book = np.zeros(8, np.int64)
    book[FREE_NODES] = len(node)
    first, several = _delays(family)
    return Channels(
        setting=setting,
        kind=_kinds(family),
        delay=first,
        each=several,
        several=np.asarray((several[:, :, :, 1] > 0).any(axis=(0, 2)), np.int64),
        reached=reached,
        asked=asked,
        heard=heard,
        windows=np.array(family.device.windows(), np.int64).reshape(-1, 2),
        word=_words(setting, ends),
        rank=np.zeros((n, 2, parts.channel_ranks, RANK_WORDS), np.int64),
        acts=np.zeros((n, parts.channel_ranks, MOST_WINDOW + 1), np.int64),
        rows=np.full((n, 2, banks), NONE, np.int64),
        served=np.zeros((n, banks), np.int64),
        demanded=np.zeros((n, banks), np.int64),
        ready=np.zeros((n, places(parts), kinds), np.int64),
        due=np.full(n, NEVER, np.int64),
        quiet=np.zeros((n, banks), np.int64),
        entry=entry,
        looked=np.full((n, WIDEST), NONE, np.int64),
        node=node,
        reads=np.zeros((n, reads), np.int64),
        writes=np.zeros((n, int(setting[WRITE_BUFFER])), np.int64),
        queue=np.zeros((n, banks, depth), np.int64),
        bursts=np.zeros((n, banks, depth), np.int64),
        wish=np.zeros((n, banks, depth), np.int64),
        length=np.zeros((n, banks), np.int64),
        held=np.zeros((n, banks), np.int64),
        returns=np.zeros((n, 1 << 10), np.int64),
        sent=np.zeros((n, kinds), np.int64),
        log=np.zeros((log, 6), np.int64),
        logged=np.zeros(1, np.int64),
        book=book,
        transfers=np.zeros((senders, 4), np.int64),
        events=np.zeros((2 * senders + 2, 3), np.int64),
    )


def _words(setting: Int64, ends: Int64) -> Int64:
    """What channels know in which nothing has happened."""
    word = np.zeros((len(ends), WORDS), np.int64)
    starts = np.concatenate([[0], ends[:-1]])
    for place in (HEAD, QUEUED, END):
        word[:, place] = starts
    word[:, [OFFERED, LAST_NODE, RESERVED, HOLD_BANK]] = NONE
    word[:, [OUTSTANDING, LIMIT]] = NEVER
    word[:, CLOCK], word[:, MEMBERS] = FIRST_CLOCK, 1
    word[:, REFRESH_AT] = max(1, int(setting[REFRESH_STEP]))
    return word


def _settings(family: Family, refresh: bool) -> Int64:
    rules, device, t = family.rules, family.device, family.device.timings
    parts, found = device.organization, np.zeros(SETTINGS, np.int64)
    refreshing = family.commands[Command.REFAB]
    per_unit = (
        parts.ranks * parts.banks_per_rank
        if refreshing.reach is Reach.PSEUDO_CHANNEL
        else parts.banks_per_rank
    )
    units = family.banks // per_unit
    deadline = rules.deadline or Deadline(0, 0, 0, 0, 0, 0, 0)
    second = int(family.units.row_buffer == "dual")
    closing = [one.closes for one in family.commands if one.second_buffer and one.closes >= 0]
    interval = device.refresh.interval_cycles if refresh and rules.refresh else 0
    words = {
        CONCURRENT: rules.concurrent, DUAL: rules.dual_command, LOOK_AT: rules.window,
        HIT_CAP: rules.hit_cap, DEPTH: rules.command_queue, READ_QUEUE: rules.read_queue,
        WRITE_BUFFER: rules.write_buffer, PIM_QUEUE: rules.pim_queue,
        REFRESH_STEP: interval if rules.refresh_together else interval // units,
        REFRESH_BATCH: units if rules.refresh_together else 1, REFRESH_UNITS: units,
        REFRESH_ALONE: rules.refresh_alone, READ_CYCLES: t["CL"] + t["burst_cycles"],
        WRITE_CYCLES: t["CWL"] + t["burst_cycles"], GUARD: rules.guard, SECOND: second,
        REFRESH_KIND: Command.REFAB,
        REFRESH_CLOSE: refreshing.closes if refreshing.closes >= 0 else Command.PRE,
        REFRESH_CLOSE_SECOND: closing[0] if closing else NONE, REFRESH_REACH: refreshing.reach,
        TRP: t["tRP"], TRCD: t["tRCDWR"], DEADLINE: rules.deadline is not None,
        EST_CLOSE: deadline.close, EST_PAIR: deadline.open_pair, EST_FIRST: deadline.first,
        EST_SLOT: deadline.slot, EST_LEAST: deadline.least, EST_RESULT: deadline.result,
        EST_REOPEN: deadline.reopen, BANKS: family.banks, RANK_BANKS: parts.banks_per_rank,
        GROUP_BANKS: parts.banks, KINDS: len(family.commands), UNIT_BANKS: per_unit,
        AHEAD: rules.rows_ahead,
    }  # fmt: skip
    for place, value in words.items():
        found[place] = int(value)
    return found


def _kinds(family: Family) -> Int64:
    return np.array(
        [
            (
                one.role, one.reach, int(one.second_buffer), one.opens, one.closes, one.latency,
                one.hold, one.step if one.repeat == "run" else 0, int(one.row_bus),
                int(one.repeat == "composite"),
            )
            for one in family.commands
        ],
        np.int64,
    )  # fmt: skip


def _delays(family: Family) -> tuple[Int64, Int64]:
    """Cycles between commands by how much their banks share, and those that count repeats."""
    kinds = len(family.commands)
    plain = np.full((len(SCOPES), kinds, kinds), -NEVER // 2, np.int64)
    several = np.zeros((len(SCOPES), kinds, kinds, 3), np.int64)
    several[:, :, :, 0] = -NEVER // 2
    for one in family.all_constraints():
        if one.window > 1:
            continue
        for shared, scopes in SCOPES.items():
            if one.scope not in scopes:
                continue
            at = (shared, one.before, one.after)
            if one.each:
                several[at] = one.cycles, one.each, one.least
            else:
                plain[at] = max(plain[at], one.cycles)
    return plain, several
