"""The machine that traffic goes through, laid out for the compiled loop, and what it says after."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from accelsim.engine.bank_system import banks_activity
from accelsim.engine.traffic import Activity, ChannelsActivity, Traffic
from accelsim.errors import AccelsimError
from accelsim.hw.block import Ints
from accelsim.hw.cache import build, most_runs
from accelsim.hw.cache.chain import new_busy, new_counts, new_runs
from accelsim.hw.dram.commands import COLUMN_COMMANDS

if TYPE_CHECKING:
    from accelsim.arch.model import Architecture
    from accelsim.engine.bank_kernels import Banks
    from accelsim.engine.cache_kernels import CacheLevels
    from accelsim.engine.channel_kernels import Channels
    from accelsim.engine.traffic_kernels import Outcome, Port

TRUSTED_SHARE = 0.5
"""Share of a shared cache that may have been refilled before a window is walked again.

With lines spread evenly, a set of 16 ways then saw 8 fills in the mean; it drops a line after 16.
"""


def levels_of(traffic: Traffic) -> CacheLevels | None:
    """The caches before the main memory, empty; None without any."""
    from accelsim.engine.cache_kernels import CacheLevels

    arch = traffic.arch
    if not arch.caches:
        return None
    caches = list(arch.caches.values())
    state = build(arch.caches, arch.cores)
    entry = entry_of(arch, traffic.memory)
    lone = trusted_cache(arch) != ""
    shapes = np.unique(traffic.window[:, 1:4], axis=0)
    runs = max((most_runs(state, entry, *shape) for shape in shapes.tolist()), default=0)
    return CacheLevels(
        state=state,
        counts=new_counts(state),
        busy=new_busy(state),
        bank_free=new_busy(state),
        bank_ticks=new_busy(state),
        runs=new_runs(runs),
        entry=entry,
        tick=np.array([arch.ticks_of(cache) for cache in caches], np.int64),
        latency=np.array([arch.ticks_of(cache) * cache.latency for cache in caches], np.int64),
        walked=np.full(traffic.operands, -1, np.int64),
        trusted=int(TRUSTED_SHARE * caches[0].capacity) if lone else 0,
        trusting=np.zeros(1, np.int64),
    )


def trusted_cache(arch: Architecture) -> str:
    """Name of the cache of which windows that were walked lately are not walked again: a shared LRU
    cache alone before the memory; "" if there is none."""
    if len(arch.caches) != 1:
        return ""
    ((name, cache),) = arch.caches.items()
    return name if cache.shared and cache.policy == "lru" else ""


def entry_of(arch: Architecture, memory: str) -> int:
    """Number of the cache that units of a core meet first on the way to a memory.

    Raises:
        AccelsimError: several chains, or one that leads elsewhere.
    """
    names = list(arch.caches)
    fronts = [name for name in names if all(c.of != name for c in arch.caches.values())]
    if len(fronts) != 1:
        raise AccelsimError(
            f"{arch.name}: caches {', '.join(fronts)} stand side by side; accepted: one chain"
        )
    last = [cache.of for cache in arch.caches.values() if cache.of in arch.memories]
    if last != [memory]:
        raise AccelsimError(
            f"{arch.name}: the caches lead to {last[0]}, but tensors lie in {memory};"
            f" accepted: of: {memory}"
        )
    return names.index(fronts[0])


def port_of(traffic: Traffic) -> Port | None:
    """The main memory's port at bandwidth fidelity; None where channels are simulated."""
    from accelsim.engine.traffic_kernels import Port

    if traffic.by_channels:
        return None
    memory = traffic.block
    hz, tick = traffic.arch.hz_of(memory), traffic.arch.ticks_of(memory)
    common = math.gcd(hz, memory.peak_bandwidth)
    return Port(
        number=traffic.port,
        numerator=hz // common,
        denominator=memory.peak_bandwidth // common,
        tick=tick,
        latency=memory.latency_cycles(hz) * tick,
    )


def channels_of(traffic: Traffic, units: int, instructions: int, nodes: int) -> Channels | None:
    """The main memory's channels, idle, with room for ``nodes`` runs of bursts; None at bandwidth
    fidelity."""
    from accelsim.engine.channel_kernels import Channels
    from accelsim.hw.dram.mapping import FIELDS
    from accelsim.hw.dram.state import MEMBERS, memory
    from accelsim.hw.dram.twin_kernels import ACCOUNT

    if not traffic.by_channels or traffic.pim_dram is not None:
        return None
    dram = traffic.dram
    tick = traffic.arch.ticks_of(dram)
    state = memory(dram.part, dram.controller, dram.channels, nodes=nodes, transfers=instructions)
    state.state[0, MEMBERS] = dram.channels
    parts = dram.part.organization
    return Channels(
        state=state,
        map=dram.address_map.compiled,
        digits=np.zeros(len(FIELDS) + 1, np.int64),
        banks=np.zeros(parts.bank_groups, np.int64),
        nodes=np.zeros(len(state.pool), np.int64),
        tick=tick,
        latency=dram.added_cycles * tick,
        first=units,
        touched=np.zeros(dram.channels, np.int64),
        full=np.zeros(1, np.int64),
        leader=np.zeros(dram.channels, np.int64),
        account=np.zeros((dram.channels, ACCOUNT + parts.channel_ranks), np.int64),
    )


def channels_activity(traffic: Traffic, channels: Channels) -> ChannelsActivity:
    """Commands, outcomes and energy of all channels up to their last byte."""
    from accelsim.hw.dram import state as s
    from accelsim.hw.dram.energy import energy_pj

    dram, state = traffic.dram, channels.state.state
    device = dram.part
    commands = {
        command: state[:, s.COUNTS + kind] for kind, command in enumerate(s.COMMAND_OF_KIND)
    }
    columns = sum(commands[command] for command in COLUMN_COMMANDS)
    pseudo = device.organization.pseudo_channels
    burst = max(device.timings["burst_cycles"], device.timings["tCCD_S"])
    last = int(state[:, s.LAST_DATA].max())
    ranks = dram.channels * pseudo * device.organization.ranks
    active = open_cycles(state)
    totals = {command: int(count.sum()) for command, count in commands.items()}
    moved = int(np.sum(columns)) * device.organization.column_bytes
    idle = max(0, ranks * last - active)
    return ChannelsActivity(
        counts={
            **{command.name: count for command, count in commands.items()},
            "hits": state[:, s.HITS],
            "misses": state[:, s.MISSES],
            "conflicts": state[:, s.CONFLICTS],
        },
        busiest_ticks=int(np.max(columns, initial=0)) * burst * channels.tick // pseudo,
        energy_pj=energy_pj(device, totals, active, idle)["total"] + moved * dram.io_pj_per_byte,
    )


def open_cycles(state: Ints) -> int:
    """Clocks, summed over ranks, in which a bank of the rank was open."""
    from accelsim.hw.dram import state as s

    total = 0
    for row in state:
        first, ranks = int(row[s.FIRST_RANK]), int(row[s.RANKS])
        for rank in range(first, first + ranks * s.RANK_WORDS, s.RANK_WORDS):
            total += int(row[rank + s.OPEN_CYCLES])
            if row[rank + s.OPEN_BANKS] > 0:
                total += int(max(0, row[s.LAST_DATA] - row[rank + s.OPEN_SINCE]))
    return total


def activity_of(
    traffic: Traffic,
    levels: CacheLevels | None,
    channels: Channels | None,
    banks: Banks | None,
    out: Outcome,
) -> Activity:
    """What caches and memory did, after the loop."""
    from accelsim.hw.dram.state import LAST_DATA

    none = np.zeros((0, 9), np.int64)
    idle, account = 0, None
    if channels is not None:
        idle = int(channels.state.state[:, LAST_DATA].max()) * channels.tick
        account = channels_activity(traffic, channels)
    elif banks is not None:
        idle, account = banks_activity(traffic, banks)
    return Activity(
        moved=out.moved,
        looked=out.looked,
        served=out.served,
        counts=none if levels is None else levels.counts,
        bank_ticks=none[:, 0] if levels is None else levels.bank_ticks,
        idle_tick=idle,
        channels=account,
    )
