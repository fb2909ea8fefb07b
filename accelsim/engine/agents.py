"""The compiled engine for programs with traffic: units, caches and channels in one merge."""

from __future__ import annotations

import numpy as np

from accelsim.engine.bank_system import banks_of
from accelsim.engine.memory_system import activity_of, channels_of, levels_of, port_of
from accelsim.engine.merge import column, fault
from accelsim.engine.schedule import Schedule, TimedProgram

FIRST_NODES = 1 << 15


def run_agents(timed: TimedProgram, nodes: int = FIRST_NODES) -> Schedule:
    """Schedule every instruction; as ``engine.run``, and with an account of the memory.

    ``nodes`` runs of bursts may wait before the channels; if that is not enough, it starts anew
    with more.
    """
    from accelsim.engine import traffic_kernels as k
    from accelsim.engine.bank_kernels import part_all_banks
    from accelsim.engine.channel_kernels import part_all
    from accelsim.engine.kernels import NEVER, link_queues

    traffic = timed.traffic
    assert traffic is not None
    n, units = len(timed), timed.units
    levels, port = levels_of(traffic), port_of(traffic)
    channels, banks = channels_of(traffic, units, n, nodes), banks_of(traffic, units, n, nodes)
    memory = channels or banks
    deciding = traffic.dram.channels if channels else 1 if banks else 0
    caches = len(traffic.arch.caches)
    bits = max(0, (units + deciding - 1).bit_length())
    horizon = (1 << (62 - bits)) - 1
    following, head = np.empty(n, np.int32), np.empty(units, np.int64)
    out = k.Outcome(
        start=np.zeros(n, np.int64),
        finish=np.empty(n, np.int64),
        order=np.zeros(n, np.int64),
        moved=np.zeros((n, 2), np.int64),
        looked=np.zeros((n, caches), np.int64),
        served=np.zeros((n, caches + 1), np.int64),
    )
    link_queues(column(timed.unit), following, head, out.finish)
    agents = k.Agents(
        key=np.full(2 << bits, NEVER, np.int64),
        head=head,
        retiring=head.copy(),
        seen=np.zeros(units, np.int64),
        missing=np.zeros(units, np.int64),
        retired=np.zeros(units, np.int64),
        waiter=np.zeros(4 * units, np.int64),
        ended=np.full(n, k.UNKNOWN, np.int64),
        least=np.zeros(n, np.int64),
        tail=np.zeros(n, np.int64),
        served=np.zeros(timed.port.shape[1], np.int64),
        transfers=memory.state.transfers if memory else np.zeros((0, 4), np.int64),
        events=memory.state.events if memory else np.zeros((0, 3), np.int64),
        book=memory.state.book if memory else np.zeros(8, np.int64),
    )
    rows = k.Rows(
        occupancy=column(timed.occupancy),
        latency=column(timed.latency),
        dep=column(timed.dep),
        port=column(timed.port),
        hold=column(timed.hold),
        unit=column(timed.unit),
        following=following,
        first_window=column(traffic.first),
        window=traffic.window,
    )
    retired = k.merge_agents(
        rows, levels, port, channels, banks, agents, out, timed.port.shape[1], bits, horizon,
        np.zeros(timed.ports, np.int64),
    )  # fmt: skip
    if retired == k.POOL_USED_UP:
        return run_agents(timed, 4 * nodes)
    if retired != n:
        raise fault(timed, retired, horizon, head, out.finish)
    if channels is not None:
        part_all(channels)
    if banks is not None:
        part_all_banks(banks)
    activity = activity_of(traffic, levels, channels, banks, out)
    return Schedule(out.start, out.finish, out.order, activity)
