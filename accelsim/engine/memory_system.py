"""The machine that traffic goes through, laid out for the compiled loop, and what it says after."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from accelsim.engine.traffic import Activity, Traffic
from accelsim.errors import AccelsimError
from accelsim.hw.cache import build, most_runs
from accelsim.hw.cache.chain import new_busy, new_counts, new_runs

if TYPE_CHECKING:
    from accelsim.arch.model import Architecture
    from accelsim.engine.traffic_kernels import CacheLevels, Outcome, Port

TRUSTED_SHARE = 0.5
"""Share of a shared cache that may have been refilled before a window is walked again.

With lines spread evenly, a set of 16 ways then saw 8 fills in the mean; it drops a line after 16.
"""


def levels_of(traffic: Traffic) -> CacheLevels | None:
    """The caches before the main memory, empty; None without any."""
    from accelsim.engine.traffic_kernels import CacheLevels

    arch = traffic.arch
    if not arch.caches:
        return None
    caches = list(arch.caches.values())
    state = build(arch.caches, arch.cores)
    entry = entry_of(arch, traffic.memory)
    lone = len(caches) == 1 and caches[0].shared and caches[0].policy == "lru"
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


def activity_of(levels: CacheLevels | None, out: Outcome) -> Activity:
    """What caches and memory did, after the loop."""
    none = np.zeros((0, 9), np.int64)
    return Activity(
        moved=out.moved,
        looked=out.looked,
        served=out.served,
        counts=none if levels is None else levels.counts,
        bank_ticks=none[:, 0] if levels is None else levels.bank_ticks,
        idle_tick=0,
    )
