"""Compiled driving of channels by a request stream. ``drive`` says what ways of offering mean."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit, njit_in_place
from accelsim.hw.dram.fifo_kernels import push
from accelsim.hw.dram.mapping import (
    BANK,
    CHANNEL,
    COLUMN,
    GROUP,
    PSEUDO,
    RANK,
    ROW,
    CompiledMap,
)
from accelsim.hw.dram.mapping_kernels import locate
from accelsim.hw.dram.state import (
    ACCEPT_LEFT,
    BANKS,
    CURSOR,
    DONE_LEFT,
    EVENTS,
    FIRST_QUEUE,
    LAST,
    LOGGED,
    NEVER,
    NONE,
    PUSHED,
    QUEUE_WORDS,
    QUEUES,
    WAKE,
    Memory,
)  # fmt: skip
from accelsim.hw.dram.window_kernels import advance

Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]
Bools = NDArray[np.bool_]

STOCK = 128  # nodes that a FIFO is stocked up with at a time
FILLED, DONE = 0, 1  # why driving stopped: the log is full, everything is done


class Places(NamedTuple):
    """Where the bursts of a stream lie, one entry each, and who asks for them when."""

    queue: Int32  # pseudo-channel of channel, counted through
    bank: Int32  # in the channel
    row: Int32
    column: Int32
    write: Bools
    clock: Int64  # of arrival; empty: 0


@njit
def place(a: CompiledMap, address: Int64, banks_per_queue: int, queues: int, p: Places) -> None:
    """Decode all addresses; neighbours in a row are counted on."""
    digit = np.zeros(a.sizes.shape[0] + 1, np.int64)
    n, size = address.shape[0], a.column_bytes
    if _is_binary(a):
        _place_binary(a, address, banks_per_queue, queues, p, digit)
        return
    i = 0
    while i < n:
        channel, bank, row, column, run = locate(a, address[i] // size, digit)
        run = run if a.lanes == 1 else 1
        queue = channel * queues + bank // banks_per_queue
        first, k = address[i], 0
        while True:
            p.queue[i], p.bank[i], p.row[i], p.column[i] = queue, bank, row, column + k
            i += 1
            k += 1
            if k >= run or i >= n or address[i] != first + k * size:
                break


@njit
def _is_binary(a: CompiledMap) -> bool:
    """Whether shifts will do: powers of two, not hashed, every field in one place."""
    binary = a.hashed == 0 and a.column_bytes & (a.column_bytes - 1) == 0
    for size in a.sizes:
        binary = binary and size & (size - 1) == 0
    for k in range(a.fields.shape[0]):
        binary = binary and a.fields[k, 2] == 1
    return binary


@njit
def _place_binary(
    a: CompiledMap, address: Int64, banks_per_queue: int, queues: int, p: Places, shift: Int64
) -> None:
    """``place`` by shifts: divisions cost more than everything else that is done to a burst."""
    low = _bits(a.column_bytes)
    for k in range(a.fields.shape[0]):
        shift[a.fields[k, 0]] = low
        low += _bits(a.fields[k, 1])
    ranks, groups, banks = _bits(a.sizes[RANK]), _bits(a.sizes[GROUP]), _bits(a.sizes[BANK])
    queue_bits, all_queues = _bits(banks_per_queue), _bits(queues)
    for i in range(address.shape[0]):
        at = address[i]
        bank = (at >> shift[PSEUDO]) & (a.sizes[PSEUDO] - 1)
        bank = bank << ranks | (at >> shift[RANK]) & (a.sizes[RANK] - 1)
        bank = bank << groups | (at >> shift[GROUP]) & (a.sizes[GROUP] - 1)
        bank = bank << banks | (at >> shift[BANK]) & (a.sizes[BANK] - 1)
        channel = (at >> shift[CHANNEL]) & (a.sizes[CHANNEL] - 1)
        p.queue[i] = channel << all_queues | bank >> queue_bits
        p.bank[i] = bank
        p.row[i] = (at >> shift[ROW]) & (a.sizes[ROW] - 1)
        p.column[i] = (at >> shift[COLUMN]) & (a.sizes[COLUMN] - 1)


@njit
def _bits(size: int) -> int:
    """Binary digits of a power of two."""
    bits = 0
    while size >> bits > 1:
        bits += 1
    return bits


@njit
def sort_by_queue(queue: Int32, first: Int64, order: Int32) -> None:
    """Requests of each queue in their order: those of q from first[q] to first[q + 1]."""
    for i in range(queue.shape[0]):
        first[queue[i] + 1] += 1
    for q in range(first.shape[0] - 1):
        first[q + 1] += first[q]
    at = first.copy()
    for i in range(queue.shape[0]):
        q = queue[i]
        order[at[q]] = i
        at[q] += 1


@njit_in_place
def _offer(m: Memory, c: int, p: Places, order: Int32, begin: int, end: int) -> int:
    """Push some requests of a queue; returns the place of the first one not pushed."""
    for _ in range(STOCK):
        if begin >= end:
            break
        i = order[begin]
        write, row, bank = p.write[i], p.row[i], p.bank[i]
        at = p.clock[i] if p.clock.shape[0] > 0 else 0
        count = 1
        while (
            begin + count < end
            and order[begin + count] == i + count
            and p.column[i + count] == p.column[i] + count
            and p.row[i + count] == row
            and p.bank[i + count] == bank
            and p.write[i + count] == write
            and (p.clock.shape[0] == 0 or p.clock[i + count] == at)
        ):
            count += 1
        m.book[PUSHED] = i  # ages are places in the stream, whatever queue is stocked up first
        way = 1 if write else 0
        if not push(m, c, NONE, int(bank), int(row), int(p.column[i]), count, 1, way, at):
            break
        begin += count
    return begin


@njit_in_place
def saturate(m: Memory, c: int, p: Places, order: Int32, first: Int64, following: Int64) -> int:
    """Drive channel c until its requests are done or the log is full.

    ``advance`` stops when a FIFO runs dry, in the clock in which it does, and goes on there once it
    is stocked up: pieces change nothing. ``following`` holds for each queue the place in ``order``
    of the request to push next, and one more than the end behind the end mark: requests that never
    arrive, so that an advance knows that nothing else does.
    """
    s = m.state[c]
    queues = s[QUEUES]
    banks = s[BANKS] // queues
    while True:
        for k in range(queues):
            g, end = c * queues + k, first[c * queues + k + 1]
            if following[g] > end or s[s[FIRST_QUEUE] + k * QUEUE_WORDS + CURSOR] >= 0:
                continue
            following[g] = _offer(m, c, p, order, following[g], end)
            if following[g] == end:
                m.book[PUSHED] = order.shape[0]
                if push(m, c, NONE, k * banks, 0, 0, 2, 1, 0, NEVER):
                    following[g] = end + 1
        at = advance(m, c, 0, False)
        if is_full(m):
            return FILLED
        if at == NEVER:
            return DONE


@njit_in_place
def one_by_one(m: Memory, p: Places, progress: Int64) -> int:
    """Offer each request when the one before is complete, until all are or the log is full.

    ``progress``: the request, the clock at which it is offered, and whether it has been.
    """
    while progress[0] < p.bank.shape[0]:
        i = progress[0]
        c = p.queue[i] // m.state[0, QUEUES]
        if progress[2] == 0:
            at = progress[1] if p.clock.shape[0] == 0 else max(progress[1], p.clock[i])
            m.transfers[0, ACCEPT_LEFT] = NEVER
            m.transfers[0, DONE_LEFT] = 1
            m.book[EVENTS] = 0
            m.book[PUSHED] = i
            way = 1 if p.write[i] else 0
            push(m, c, 0, int(p.bank[i]), int(p.row[i]), int(p.column[i]), 1, 1, way, at)
            progress[2] = 1
        advance(m, c, NEVER, False)
        if m.book[EVENTS] == 0:
            return FILLED
        progress[0], progress[1], progress[2] = i + 1, m.finished[i], 0
    return DONE


@njit_in_place
def finish(m: Memory, c: int) -> int:
    """Issue what is left in the queues of a channel."""
    advance(m, c, NEVER, False)
    return FILLED if is_full(m) else DONE


@njit_in_place
def idle_until(m: Memory, c: int, clock: int) -> int:
    """Refresh a channel without requests up to a clock."""
    s = m.state[c]
    for k in range(s[QUEUES]):  # an end mark has served
        q = s[FIRST_QUEUE] + k * QUEUE_WORDS
        s[q + CURSOR], s[q + LAST], s[q + WAKE] = NONE, NONE, NEVER
    advance(m, c, clock, True)
    return FILLED if is_full(m) else DONE


@njit_in_place
def is_full(m: Memory) -> bool:
    """Whether ``advance`` stopped because the log is full."""
    return bool(m.log.shape[0] > 0 and m.book[LOGGED] + 2 > m.log.shape[0])
