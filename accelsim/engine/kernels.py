"""The compiled head-merge loop: one commit per turn, no event queue, no rescanning.

Flat columns throughout: dependency k of instruction i stands at ``3 * i + k``, its port k at
``slots * i + k``. The kernels never look at
an index outside its range, provided that ``schedule.check_layout`` accepted the program.
"""

import numpy as np
from numpy.typing import NDArray

from accelsim._intrinsics import prefetch
from accelsim._jit import njit

NEVER = (1 << 63) - 1  # the key of a unit whose head is not ready
NOBODY = -1  # in finish: not committed, and no head waits for it
AHEAD = 16  # instructions between a commit and the rows fetched for it; 8 to 48 differ little


@njit
def link_queues(
    unit: NDArray[np.int32],
    following: NDArray[np.int32],
    head: NDArray[np.int64],
    finish: NDArray[np.int64],
) -> None:
    """Thread each unit's queue through the program, so that no column has to be permuted.

    Fills ``following`` (the next instruction of the same unit, -1 at the end), ``head`` (the first
    of each unit, -1 if it has none) and ``finish`` (nothing committed).
    """
    for u in range(head.shape[0]):
        head[u] = -1
    for i in range(unit.shape[0] - 1, -1, -1):
        u = unit[i]
        following[i] = head[u]
        head[u] = i
        finish[i] = NOBODY


@njit
def merge_heads(
    occupancy: NDArray[np.int64],
    latency: NDArray[np.int64],
    dep: NDArray[np.int32],
    port: NDArray[np.int16] | None,
    hold: NDArray[np.int64] | None,
    slots: int,
    following: NDArray[np.int32],
    head: NDArray[np.int64],
    bits: int,
    horizon: int,
    early: NDArray[np.bool_] | None,
    issued: NDArray[np.int64] | None,
    port_free: NDArray[np.int64],
    start: NDArray[np.int64],
    finish: NDArray[np.int64],
    order: NDArray[np.int64],
) -> int:
    """Commit heads in (ready, unit) order; return how many, or -1 if a time leaves 0..horizon.

    Fewer than all means deadlock; ``head`` then holds the waiting heads and ``finish`` < 0 marks
    what is not committed. ``port`` and ``hold`` are None for programs without ports. ``early``
    marks the dependencies that wait for the issue only, ``issued[i]`` becomes the tick at which
    the unit of i was free again; both are None where all wait for results.

    key[leaves + u]   ready << bits | u of unit u's head, NEVER while it waits: its minimum is
                      the rule's choice. key[1:leaves] is a tournament tree over these leaves.
    seen[u]           latest of unit free and the finishes that u's head knows so far
    missing[u]        dependencies of u's head that are not committed
    retired[u]        finish of the unit's previous instruction
    served[k]         when the k-th port of the instruction has passed it
    finish[i]         before i commits: NOBODY, or -2 - w, the first slot w = 4 * u + k waiting for
                      it; the next one is waiter[w]. So a blocked head costs nothing until the
                      instruction it waits for commits, and then one addition, not a search.
    """
    n = occupancy.shape[0]
    units = head.shape[0]
    leaves = 1 << bits
    mask = leaves - 1
    key = np.full(2 * leaves, NEVER, np.int64)
    seen = np.zeros(units, np.int64)
    missing = np.zeros(units, np.int64)
    retired = np.zeros(units, np.int64)
    waiter = np.zeros(4 * units, np.int64)
    served = np.zeros(slots, np.int64)
    for u in range(units):
        i = head[u]
        if i >= 0:
            for k in range(3):
                d = dep[3 * i + k]
                if d >= 0:
                    waiter[4 * u + k] = finish[d]
                    finish[d] = -2 - (4 * u + k)
                    missing[u] += 1
            if missing[u] == 0:
                key[leaves + u] = u
    for q in range(leaves - 1, 0, -1):
        key[q] = min(key[2 * q], key[2 * q + 1])

    done = 0
    while done < n:
        best = key[1]
        if best == NEVER:
            break
        u = best & mask
        at = best >> bits
        i = head[u]
        sane = latency[i] | occupancy[i]
        passed = at
        if port is not None and hold is not None:
            first = NEVER
            for k in range(slots):
                p = port[slots * i + k]
                if p >= 0:
                    turn = max(at, port_free[p])
                    first = min(first, turn)
                    sane |= hold[slots * i + k]
                    served[k] = turn + hold[slots * i + k]
                    passed = max(passed, served[k])
            # Only now, for a port may be named twice.
            for k in range(slots):
                p = port[slots * i + k]
                if p >= 0:
                    port_free[p] = max(port_free[p], served[k])
            if first != NEVER:
                at = first
            prefetch(port, slots * (i + AHEAD))
            prefetch(hold, slots * (i + AHEAD))
        free = max(at + occupancy[i], passed)
        end = max(at + latency[i], passed + max(0, latency[i] - occupancy[i]))
        if retired[u] > end:
            end = retired[u]
        retired[u] = end
        sane |= free | end
        if sane < 0 or sane > horizon:
            return -1
        waiting = finish[i]
        start[i] = at
        finish[i] = end
        over = free
        if issued is not None:
            issued[i] = over
        order[done] = i
        done += 1
        # Many units walk many places of the program at once, more than the host's own prefetcher
        # follows: without these lines 64 units run at a third of the speed.
        prefetch(occupancy, i + AHEAD)
        prefetch(latency, i + AHEAD)
        prefetch(dep, 3 * (i + AHEAD))
        prefetch(following, i + AHEAD)
        prefetch(start, i + AHEAD)
        prefetch(finish, i + AHEAD)

        # The unit's next instruction becomes its head.
        i = following[i]
        head[u] = i
        winner = NEVER
        if i >= 0:
            lacking = 0
            for k in range(3):
                d = dep[3 * i + k]
                if d >= 0:
                    t = finish[d]
                    if t < 0:
                        waiter[4 * u + k] = t
                        finish[d] = -2 - (4 * u + k)
                        lacking += 1
                        continue
                    if early is not None and issued is not None and early[3 * i + k]:
                        t = issued[d]
                    if t > free:
                        free = t
            seen[u] = free
            missing[u] = lacking
            if lacking == 0:
                winner = free << bits | u
        q = leaves + u
        key[q] = winner
        while q > 1:
            rival = key[q ^ 1]
            if rival < winner:
                winner = rival
            q >>= 1
            key[q] = winner

        # Tell every head that waited for this instruction.
        while waiting != NOBODY:
            w = -2 - waiting
            waiting = waiter[w]
            v = w >> 2
            arrives = end
            if early is not None and early[3 * head[v] + (w & 3)]:
                arrives = over
            if arrives > seen[v]:
                seen[v] = arrives
            missing[v] -= 1
            if missing[v] == 0:
                winner = seen[v] << bits | v
                q = leaves + v
                while q > 0 and key[q] > winner:
                    key[q] = winner
                    q >>= 1
    return done
