"""The compiled engine: checks a timed program, runs the head-merge loop over it, names faults."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.engine.schedule import (
    DEPENDENCIES,
    Schedule,
    TimedProgram,
    check_layout,
    check_values,
    deadlock,
)
from accelsim.errors import AccelsimError


def run(timed: TimedProgram) -> Schedule:
    """Schedule every instruction by the rule of ``accelsim.engine.schedule``.

    Raises DeadlockError when no head can become ready, AccelsimError on input that is not a program
    and on one that runs for more than 2**61 / units ticks.
    """
    from accelsim.engine.kernels import link_queues, merge_heads

    check_layout(timed)
    if timed.traffic is not None:
        from accelsim.engine.agents import run_agents

        return run_agents(timed)
    n = len(timed)
    following, head = np.empty(n, np.int32), np.empty(timed.units, np.int64)
    start, finish, order = (np.empty(n, np.int64) for _ in range(3))
    link_queues(column(timed.unit), following, head, finish)
    bits = (timed.units - 1).bit_length() if timed.units else 0
    horizon = (1 << (62 - bits)) - 1
    contended = timed.port.max(initial=-1) >= 0
    early = timed.early
    committed = merge_heads(
        column(timed.occupancy),
        column(timed.latency),
        column(timed.dep),
        column(timed.port) if contended else None,
        column(timed.hold) if contended else None,
        timed.port.shape[1],
        following,
        head,
        bits,
        horizon,
        None if early is None else column(early),
        None if early is None else np.empty(n, np.int64),
        np.zeros(timed.ports, np.int64),
        start,
        finish,
        order,
    )
    if committed != n:
        raise fault(timed, committed, horizon, head, finish)
    return Schedule(start, finish, order)


def warm_up() -> None:
    """Compile every kernel of this room, or load it from the cache."""
    none = np.full((1, DEPENDENCIES), -1)
    for port in (none, none + 1):
        run(
            TimedProgram(
                unit=np.zeros(1, np.int32),
                occupancy=np.ones(1, np.int64),
                latency=np.ones(1, np.int64),
                dep=none.astype(np.int32),
                port=port.astype(np.int16),
                hold=np.zeros(none.shape, np.int64),
                units=1,
                ports=1,
            )
        )


def fault(
    timed: TimedProgram,
    committed: int,
    horizon: int,
    head: NDArray[np.int64],
    finish: NDArray[np.int64],
) -> AccelsimError:
    """Why the loop stopped before the end of the program."""
    check_values(timed)
    if committed < 0:
        return AccelsimError(f"the program runs past tick {horizon}; use a coarser tick")
    return deadlock(timed, [i for i in head.tolist() if i >= 0], finish >= 0)


def column(array: NDArray[Any]) -> NDArray[Any]:
    """A flat read-only view: one type for numba, however the caller's array came about."""
    flat = np.ascontiguousarray(array).reshape(-1)
    flat.flags.writeable = False
    return flat
