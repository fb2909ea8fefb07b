"""Closed forms of every shipped device: what its timings say that simple streams must take.

Periods are differences between a longer and a shorter stream over the requests between them, and so
hold for every request of the steady state; latencies are those of reads that come one by one. All
without refresh, on policy ``window``. A request accepted in clock t has its first command in t + 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from accelsim.hw.dram.catalog import device, list_devices
from accelsim.hw.dram.commands import Command, Scope
from accelsim.hw.dram.controller import Controller
from accelsim.hw.dram.device import Device
from accelsim.hw.dram.run import MemoryRun, run_stream
from accelsim.results.claims import Row

GROUP_BY_GROUP = "RoRaBaPcChCoBg"  # neighbours lie in other bank groups of one data bus
COLUMN_BY_COLUMN = "RoRaBaBgPcChCo"  # in one row
BANK_BY_BANK = "RoRaCoPcChBaBg"  # in other banks of one rank
STRIDED = 100
RANDOM = 2000


@dataclass(frozen=True)
class Form:
    """A closed form: its name, what it comes to by the timings, what a stream takes, in clocks."""

    name: str
    expected: Callable[[Device], float]
    measured: Callable[[Device], float]


def closed_form_rows() -> Iterator[Row]:
    """Every form of every shipped device."""
    for one in map(device, list_devices()):
        for form in FORMS:
            expected, found = form.expected(one), form.measured(one)
            case = f"{one.name} {form.name}"
            yield Row(case, expected, found, expected == found, split="closed form")


def _run(one: Device, stream: str, requests: int, **settings: object) -> MemoryRun:
    return run_stream(
        one, stream=stream, requests=requests, controller=Controller(refresh=False),
        **settings,  # type: ignore[arg-type]
    )  # fmt: skip


def _period(one: Device, stream: str, requests: int, **settings: object) -> float:
    """Clocks of each request in the second half of a stream."""
    half = requests // 2
    short, long = (_run(one, stream, n, **settings).cycles for n in (half, requests))
    return (long - short) / (requests - half)


def _access(one: Device) -> int:
    return one.timings["CL"] + one.timings["burst_cycles"]


def _open_time(one: Device, at_least: int) -> int:
    """From ACT to PRE of a bank that is read once."""
    return max(one.timings["tRAS"], one.timings["tRCDRD"] + at_least)


def _read_to_precharge(one: Device) -> int:
    return int(one.constraint_table()[Scope.BANK, Command.RD, Command.PRE])


def _row_cycle(one: Device) -> float:
    t = one.timings
    return max(t["tRC"], _open_time(one, _read_to_precharge(one)) + t["tRP"])


def _conflict(one: Device) -> float:
    """The PRE for the next read comes in the clock after the read before is complete."""
    t = one.timings
    open_for = _open_time(one, max(_read_to_precharge(one), _access(one) + 1))
    return max(t["tRC"], open_for + t["tRP"])


def _activation_window(one: Device) -> float:
    t = one.timings
    return max(t["tFAW"], 4 * t["tRRD_S"])


def _measured_activation_window(one: Device) -> float:
    """The shortest time in which a rank saw five activations, of random reads."""
    log = _run(one, "rand_read", RANDOM, log=True).logs[0]
    rank = log.pseudo_channel * one.organization.ranks + log.rank
    activations = (log.cycle[(log.command == Command.ACT) & (rank == n)] for n in np.unique(rank))
    return min(int(np.min(clocks[4:] - clocks[:-4])) for clocks in activations)


def _interleaved(one: Device) -> float:
    parts = one.organization
    return _period(one, "seq_read", parts.columns * parts.bank_groups, mapping=GROUP_BY_GROUP)


def _hit(one: Device) -> float:
    found = _run(
        one, "seq_read", one.organization.columns, inject="qd1", mapping=COLUMN_BY_COLUMN
    ).read_latency
    assert found is not None
    return found.p50 if found.min == found.p50 else np.nan  # all but the first


def _closed(one: Device) -> float:
    found = _run(
        one, "seq_read", one.organization.banks_per_rank, inject="qd1", mapping=BANK_BY_BANK
    ).read_latency
    assert found is not None
    return found.max if found.min == found.max else np.nan  # all of them


FORMS = (
    Form(
        "row cycle: max(tRC, tRCD + tRTP + tRP)",
        _row_cycle,
        lambda one: _period(one, "strided", STRIDED),
    ),
    Form(
        "five activations of a rank: max(tFAW, 4 tRRD)",
        _activation_window,
        _measured_activation_window,
    ),
    Form(
        "column period across bank groups: max(burst, tCCD_S)",
        lambda one: max(one.timings["burst_cycles"], one.timings["tCCD_S"]),
        _interleaved,
    ),
    Form(
        "column period in a bank group: max(burst, tCCD_L)",
        lambda one: max(one.timings["burst_cycles"], one.timings["tCCD_L"]),
        lambda one: _period(one, "seq_read", one.organization.columns, mapping=COLUMN_BY_COLUMN),
    ),
    Form("latency of a row hit: 1 + CL + burst", lambda one: 1 + _access(one), _hit),
    Form(
        "latency of a closed bank: 1 + tRCD + CL + burst",
        lambda one: 1 + one.timings["tRCDRD"] + _access(one),
        _closed,
    ),
    Form(
        "period of conflicts, one by one: max(tRC, tRCD + CL + burst + 1 + tRP)",
        _conflict,
        lambda one: _period(one, "strided", STRIDED, inject="qd1"),
    ),
)
