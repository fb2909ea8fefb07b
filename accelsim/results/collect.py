"""From schedules to a Result: sums over segments, operators, memories and units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.engine.bind import BoundProgram
from accelsim.engine.ports import WRITE
from accelsim.results.bounds import check_bounds, lower_bound_ticks, operators_on, port_ticks
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
    bounds = lower_bound_ticks(bound)
    check_bounds(schedule.ticks, bounds, run.name)
    energy = _energy_per_instruction(bound)
    return Totals(
        ticks=schedule.ticks,
        bounds_ticks=bounds,
        traffic_bytes=_traffic(bound),
        energy_pj={name: float(pj.sum()) for name, pj in energy.items()},
        busy_ticks=_busy(bound, bounds),
        operators=_operators(run, energy),
        links=_links(bound),
    )


def _busy(bound: BoundProgram, bounds: dict[str, float]) -> dict[str, float]:
    """Useful ticks per unit, averaged over instances, per memory and of the busiest links."""
    busy = {}
    for kind, (name, block) in enumerate(bound.arch.units.items()):
        mine = bound.unit_index == kind
        issuing = int(bound.timed.occupancy[mine].sum()) / (block.count * bound.arch.cores)
        busy[name] = bounds[name] if block.peak_macs_per_cycle() else issuing
    for name, memory in bound.arch.memories.items():
        if memory.shared and name in bounds:
            busy[name] = bounds[name]
    for name in bound.arch.networks:
        busy[name] = bounds[name]
    return busy


def _traffic(bound: BoundProgram) -> dict[str, dict[str, int]]:
    """Bytes read and written per memory, all its instances together."""
    accesses = bound.accesses
    traffic = {name: {"read": 0, "write": 0} for name in bound.arch.memories}
    for i, space in enumerate(bound.program.spaces):
        here = np.where(accesses.space == i, accesses.nbytes, 0)
        traffic[space.memory]["read"] += int(here[:, :WRITE].sum())
        traffic[space.memory]["write"] += int(here[:, WRITE].sum())
    return traffic


def _energy_per_instruction(bound: BoundProgram) -> dict[str, Floats]:
    """Picojoules of every instruction, per unit, memory and network with energy parameters."""
    energy: dict[str, Floats] = {}
    for name, counts in bound.actions.items():
        price = bound.arch.units[name].energy_pj_per_action()
        used = [count * price[a] for a, count in counts.items() if price.get(a)]
        if used:
            energy[name] = np.sum(used, axis=0)
    for name, memory in bound.arch.memories.items():
        price = memory.energy_pj_per_action()
        read, write = price.get("read_byte", 0.0), price.get("write_byte", 0.0)
        if not (read or write):
            continue
        spaces = [i for i, s in enumerate(bound.program.spaces) if s.memory == name]
        here = _bytes_in(bound, spaces)
        energy[name] = here[:, :WRITE].sum(axis=1) * read + here[:, WRITE] * write
    for flow in bound.flows:
        hop_pj = bound.arch.networks[flow.network].hop_pj_per_byte
        if hop_pj:
            energy[flow.network] = flow.byte_hops.astype(np.float64) * hop_pj
    return energy


def _bytes_in(bound: BoundProgram, spaces: list[int]) -> Ints:
    """int64[n, 4]: the bytes of each access that lie in some address spaces, 0 elsewhere."""
    inside = np.zeros(len(bound.program.spaces) + 1, dtype=bool)  # the last one stands for -1
    inside[spaces] = True
    return np.where(inside[bound.accesses.space], bound.accesses.nbytes, 0)


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
    read, write = _main_traffic(bound, op, count)
    peak_ticks, limiting = _limits(bound, op, count)
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


def _main_traffic(bound: BoundProgram, op: Ints, count: int) -> tuple[Numbers, Numbers]:
    """Bytes that each operator reads from and writes to the shared memories."""
    shared = [i for i, s in enumerate(bound.program.spaces) if s.core < 0]
    here = _bytes_in(bound, shared)
    read = np.bincount(op, weights=here[:, :WRITE].sum(axis=1), minlength=count)
    write = np.bincount(op, weights=here[:, WRITE], minlength=count)
    return read, write


def _limits(bound: BoundProgram, op: Ints, count: int) -> tuple[Floats, list[str]]:
    """(ticks its MACs need at peak, name of the resource it keeps busy longest) per operator."""
    program, arch = bound.program, bound.arch
    needs: dict[str, Numbers] = {}
    peak = np.zeros(count)
    for kind, (name, block) in enumerate(arch.units.items()):
        instances = block.count * arch.cores
        mine = bound.unit_index == kind
        needs[name] = np.bincount(op[mine], weights=bound.work[mine], minlength=count) / instances
        rate = block.peak_macs_per_cycle() * instances / arch.ticks_per_cycle(block.clock)
        if rate:
            for i in operators_on(bound, kind):
                peak[i] += program.operators[i].macs / rate
    for name, ticks in zip(bound.port_groups, _port_ticks_of(bound, op, count), strict=True):
        needs[name] = np.maximum(needs[name], ticks) if name in needs else ticks
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
