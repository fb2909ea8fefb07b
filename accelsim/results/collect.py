"""From schedules to a Result: sums over segments, operators, memories and units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.engine.bind import BoundProgram
from accelsim.results import memory
from accelsim.results.bounds import check_bounds, lower_bound_ticks, port_ticks, product_ticks
from accelsim.results.result import OperatorResult, SegmentRun

NOTHING = "none"  # the bottleneck of what takes no time

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[Any]  # bincount gives integers or floats


@dataclass(frozen=True)
class LinkUse:
    """The links of one network by name: bytes that crossed them and ticks they were busy."""

    names: tuple[str, ...]
    nbytes: Ints
    busy_ticks: Floats


@dataclass(frozen=True)
class Totals:
    """Sums over one segment run, once (not yet multiplied by its repetitions)."""

    ticks: int
    bounds_ticks: dict[str, float]
    traffic_bytes: dict[str, dict[str, int]]
    energy_pj: dict[str, float]
    busy_ticks: dict[str, float]
    operators: tuple[OperatorResult, ...]
    links: dict[str, LinkUse]


def collect(run: SegmentRun) -> Totals:
    """Everything a result says about one segment; raises if it beats a lower bound."""
    bound, schedule = run.bound, run.schedule
    bounds = lower_bound_ticks(run)
    check_bounds(schedule.ticks, bounds, run.name)
    energy = _energy_per_instruction(run)
    return Totals(
        ticks=schedule.ticks,
        bounds_ticks=bounds,
        traffic_bytes=memory.traffic(run),
        energy_pj={name: float(pj.sum()) for name, pj in energy.items()},
        busy_ticks=_busy(run, bounds),
        operators=_operators(run, energy),
        links=_links(bound),
    )


def _busy(run: SegmentRun, bounds: dict[str, float]) -> dict[str, float]:
    """Useful ticks per unit, averaged over instances, per memory and of the busiest links."""
    bound, kept = run.bound, kept_ticks(run)
    busy = {}
    for kind, (name, block) in enumerate(bound.arch.units.items()):
        mine = bound.unit_index == kind
        issuing = int(kept[mine].sum()) / bound.arch.instances(name)
        busy[name] = bounds[name] if block.peak_macs_per_cycle() else issuing
    shared = [name for name, block in bound.arch.memories.items() if block.shared]
    for name in (*shared, *bound.arch.caches, *bound.arch.networks):
        if name in bounds:
            busy[name] = bounds[name]
    return busy


def kept_ticks(run: SegmentRun) -> Ints:
    """Ticks for which every instruction kept its unit from the next one.

    Where caches or channels decide how long a transfer or a product in the banks takes, it keeps
    its unit until the next one of the queue starts, at most until it ends.
    """
    timed, schedule = run.bound.timed, run.schedule
    if timed.traffic is None:
        return timed.occupancy
    queue = np.argsort(timed.unit, kind="stable")
    until = schedule.finish.copy()
    following = np.flatnonzero(np.diff(timed.unit[queue]) == 0)
    here, after = queue[following], queue[following + 1]
    until[here] = np.minimum(until[here], schedule.start[after])
    moves = np.diff(timed.traffic.first) > 0
    if timed.traffic.products is not None:
        moves |= timed.traffic.products.place[:, 0] >= 0
    return np.where(moves, np.maximum(timed.occupancy, until - schedule.start), timed.occupancy)


def _energy_per_instruction(run: SegmentRun) -> dict[str, Floats]:
    """Picojoules of every instruction, per unit, memory and network with energy parameters."""
    bound = run.bound
    energy: dict[str, Floats] = {}
    for name, counts in bound.actions.items():
        price = bound.arch.units[name].energy_pj_per_action()
        used = [count * price[a] for a, count in counts.items() if price.get(a)]
        if used:
            energy[name] = np.sum(used, axis=0)
    energy.update(memory.energy(run))
    for flow in bound.flows:
        hop_pj = bound.arch.networks[flow.network].hop_pj_per_byte
        if hop_pj:
            energy[flow.network] = flow.byte_hops.astype(np.float64) * hop_pj
    return energy


def _operators(run: SegmentRun, energy: dict[str, Floats]) -> tuple[OperatorResult, ...]:
    bound = run.bound
    program = bound.program
    count = len(program.operators)
    op = program.column("operator")
    end = np.zeros(count, dtype=np.int64)
    np.maximum.at(end, op, run.schedule.finish)
    begin = np.full(count, run.schedule.ticks, dtype=np.int64)
    np.minimum.at(begin, op, run.schedule.start)
    active = end - begin
    # What an operator adds to the end of the run; one that ends under the cover of others adds 0.
    moved_end = np.diff(np.maximum.accumulate(np.concatenate([[0], end])))
    tick = bound.arch.ticks_per_cycle("core")
    total_pj = np.sum(list(energy.values()), axis=0) if energy else np.zeros(len(program))
    pj = np.bincount(op, weights=total_pj, minlength=count)
    moved = memory.main_bytes(run)
    read, write = (np.bincount(op, weights=part, minlength=count) for part in moved.T)
    peak_ticks, limiting = _limits(run, op, count)
    rows = []
    for i, info in enumerate(program.operators):
        cycles = moved_end[i] / tick
        rows.append(
            OperatorResult(
                name=info.name,
                kind=info.kind,
                mapper=info.mapper,
                repeat=run.repeat,
                cycles=float(cycles * run.repeat),
                macs=info.macs * run.repeat,
                traffic_bytes={
                    "read": int(read[i]) * run.repeat, "write": int(write[i]) * run.repeat
                },
                energy_pj=float(pj[i]) * run.repeat,
                utilization=float(peak_ticks[i] / active[i]) if active[i] else 0.0,
                bottleneck=limiting[i],
                mapping=info.note,
            )
        )  # fmt: skip
    return tuple(rows)


def _limits(run: SegmentRun, op: Ints, count: int) -> tuple[Floats, list[str]]:
    """(ticks its MACs need at peak, name of the resource it keeps busy longest) per operator."""
    bound, arch = run.bound, run.bound.arch
    needs: dict[str, Numbers] = {}
    peak = np.zeros(count)
    for kind, (name, block) in enumerate(arch.units.items()):
        instances = arch.instances(name)
        mine = bound.unit_index == kind
        needs[name] = np.bincount(op[mine], weights=bound.work[mine], minlength=count) / instances
        if block.peak_macs_per_cycle():
            for i, least in product_ticks(bound, kind).items():
                peak[i] += least
    for name, ticks in zip(bound.port_groups, _port_ticks_of(bound, op, count), strict=True):
        needs[name] = np.maximum(needs[name], ticks) if name in needs else ticks
    for name, ticks in memory.busy_ticks(run).items():
        needs[name] = np.bincount(op, weights=ticks, minlength=count)
    names = list(needs)
    table = np.array([needs[n] for n in names])
    longest = table.argmax(axis=0)
    return peak, [names[n] if table[n, i] else NOTHING for i, n in enumerate(longest)]


def _port_ticks_of(bound: BoundProgram, op: Ints, count: int) -> Numbers:
    """[ports, operators]: ticks for which the instructions of each operator hold each port."""
    timed = bound.timed
    row, slot = np.nonzero(timed.port >= 0)
    cell = timed.port[row, slot].astype(np.int64) * count + op[row]
    held = np.bincount(cell, weights=timed.hold[row, slot], minlength=timed.ports * count)
    return held.reshape(timed.ports, count)


def _links(bound: BoundProgram) -> dict[str, LinkUse]:
    """Bytes and busy ticks of every link, by network."""
    ticks = port_ticks(bound)
    return {
        flow.network: LinkUse(
            flow.links,
            flow.link_bytes(),
            ticks[flow.first_port : flow.first_port + len(flow.links)],
        )
        for flow in bound.flows
    }


def weighted(dicts: Sequence[dict[str, float]], weights: Sequence[int]) -> dict[str, float]:
    """Sum of dictionaries with the same keys, each multiplied by its weight."""
    keys = dict.fromkeys(k for d in dicts for k in d)
    return {k: sum(d.get(k, 0.0) * w for d, w in zip(dicts, weights, strict=True)) for k in keys}
