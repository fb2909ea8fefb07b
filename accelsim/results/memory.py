"""What caches and main memory did in a run: bytes, busy time, bounds and energy.

Where the clock decided that while it ran (``Schedule.activity``), its account counts, else what the
program says: then a port serves exactly the bytes of every access.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from accelsim.engine.ports import WRITE
from accelsim.engine.traffic import Activity
from accelsim.hw.cache import COUNTS
from accelsim.results.result import SegmentRun

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

READ, WRITTEN = COUNTS.index("read"), COUNTS.index("write")


def main_bytes(run: SegmentRun) -> Ints:
    """int64[n, 2]: bytes of the memories of all cores that every instruction reads and writes."""
    shared = [i for i, space in enumerate(run.bound.program.spaces) if space.core < 0]
    static = bytes_in(run, shared)
    return static if run.schedule.activity is None else run.schedule.activity.moved


def bytes_in(run: SegmentRun, spaces: list[int]) -> Ints:
    """int64[n, 2]: bytes that the accesses of every instruction read and write in some spaces."""
    accesses = run.bound.accesses
    inside = np.zeros(len(run.bound.program.spaces) + 1, dtype=bool)  # the last stands for -1
    inside[spaces] = True
    here = np.where(inside[accesses.space], accesses.nbytes, 0)
    return np.stack([here[:, :WRITE].sum(axis=1), here[:, WRITE]], axis=1)


def traffic(run: SegmentRun) -> dict[str, dict[str, int]]:
    """Bytes read and written per memory and cache, all instances together.

    Of a cache, what units looked up in it.
    """
    arch, activity = run.bound.arch, run.schedule.activity
    moved = {name: np.zeros(2, np.int64) for name in arch.memories}
    for i, space in enumerate(run.bound.program.spaces):
        moved[space.memory] += bytes_in(run, [i]).sum(axis=0)
    if activity is not None:
        moved[arch.main_memory()[0]] = activity.moved.sum(axis=0)
        for name, counts in zip(arch.caches, activity.counts, strict=True):
            moved[name] = counts[[READ, WRITTEN]]
    return {name: {"read": int(r), "write": int(w)} for name, (r, w) in moved.items()}


def busy_ticks(run: SegmentRun) -> dict[str, Floats]:
    """Ticks that every instruction kept each cache and the main memory busy, where they decide."""
    arch, activity = run.bound.arch, run.schedule.activity
    if activity is None:
        return {}
    name, memory = arch.main_memory()
    found = {cache: activity.served[:, c].astype(np.float64) for c, cache in enumerate(arch.caches)}
    if activity.channels is None:
        return {**found, name: activity.served[:, -1].astype(np.float64)}
    peak = memory.peak_bytes_per_second(arch.hz_of(memory))
    ticks_per_byte = arch.ticks_per_second() / peak
    return {**found, name: activity.moved.sum(axis=1) * ticks_per_byte}


def bounds(run: SegmentRun) -> dict[str, float]:
    """Ticks that each cache and the main memory need at least, where they decide."""
    arch, activity = run.bound.arch, run.schedule.activity
    if activity is None:
        return {}
    busy = busy_ticks(run)
    found = dict(_busiest_banks(run, activity))
    name, _ = arch.main_memory()
    found[name] = float(busy[name].sum())
    if activity.channels is not None:
        found[name] = float(activity.channels.busiest_ticks)
    return found


def _busiest_banks(run: SegmentRun, activity: Activity) -> dict[str, float]:
    found, first = {}, 0
    for name, cache in run.bound.arch.caches.items():
        end = first + cache.banks * (1 if cache.shared else run.bound.arch.cores)
        found[name] = float(activity.bank_ticks[first:end].max())
        first = end
    return found


def energy(run: SegmentRun) -> dict[str, Floats]:
    """Picojoules of every instruction per memory and cache that has energy parameters."""
    arch, activity = run.bound.arch, run.schedule.activity
    main, _ = arch.main_memory()
    found: dict[str, Floats] = {}
    for name, memory in arch.memories.items():
        price = memory.energy_pj_per_action()
        read, write = price.get("read_byte", 0.0), price.get("write_byte", 0.0)
        if not (read or write):
            continue
        spaces = [i for i, s in enumerate(run.bound.program.spaces) if s.memory == name]
        here = main_bytes(run) if name == main else bytes_in(run, spaces)
        found[name] = here[:, 0] * read + here[:, 1] * write
    if activity is not None:
        found.update(_cache_energy(run, activity))
        if activity.channels is not None:
            share = _shares(activity.moved.sum(axis=1))
            found[main] = activity.channels.energy_pj * share
            found.update(_command_energy(run, activity.channels.command_pj))
    return found


def _command_energy(run: SegmentRun, command_pj: Mapping[str, float]) -> dict[str, Floats]:
    """Energy of the commands that were sent to the units beside the banks, by instruction as these
    count them alone."""
    total, found = sum(command_pj.values()), {}
    for name, counts in run.bound.actions.items():
        unit = run.bound.arch.units[name]
        price = unit.energy_pj_per_action()
        if total and unit.reads_main_memory and any(one in command_pj for one in counts):
            alone = np.sum([n * price[one] for one, n in counts.items()], axis=0)
            found[name] = total * alone / alone.sum()
    return found


def _cache_energy(run: SegmentRun, activity: Activity) -> dict[str, Floats]:
    found = {}
    for c, (name, cache) in enumerate(run.bound.arch.caches.items()):
        price = cache.energy_pj_per_action()
        actions = cache.actions(dict(zip(COUNTS, activity.counts[c].tolist(), strict=True)))
        total = sum(count * price[action] for action, count in actions.items())
        if total:
            found[name] = total * _shares(activity.looked[:, c])
    return found


def _shares(weights: Ints) -> Floats:
    """Parts of a whole that is counted once for the run, by instruction."""
    return weights / max(1, int(weights.sum()))
