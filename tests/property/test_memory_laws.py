"""What more memory may never do, on any machine: exceed a bound, or cost time.

Machines have channels, caches, banked scratchpads and networks in any combination. The laws of more
hardware are for the same program: a mapper may choose another one for another machine.

They are laws of the trend, not of every tick. Three things are anomalous by nature, in silicon too:

- *First come, first served and first ready.* A transfer that arrives earlier may go before another
  one that somebody waits for, and an earlier command may block the bank or the bus for a later one
  (Graham, Bounds on multiprocessing timing anomalies, SIAM J. Appl. Math. 17(2), 1969).
- *Hashed and modulo placement.* With more channels, banks or sets, addresses fall on them anew, so
  a few rows or lines that were apart may meet.
- *Convoys.* Links serve whole transfers in turn. Cores that used to take turns may, once memory is
  quicker, ask for the same link at once and leave another one idle.

They concern single rows, lines and transfers: some latencies of memory, and a few per cent of long
programs. A request stream whose rows lie apart for the controller's window can lose more: with
columns above the banks in the address map, twice as many banks put twice as many requests between
two of one row, and hits leave the window (10 to 60 % in streams of reads and writes).
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memory_machines import machines, with_banks, works

from accelsim.api import simulate
from accelsim.engine.bind import Fidelity, bind
from accelsim.engine.merge import run
from accelsim.results.result import Result

SOME = settings(  # the first example compiles
    deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60
)
ANOMALY = 0.05
CONVOY = 0.1  # transfers that queue behind each other at one link while another one is free
ANOMALY_SECONDS = 200e-9  # some row conflicts, or one refresh that falls otherwise

FIDELITIES: tuple[Fidelity, ...] = ("ideal", "bandwidth", "dram")


def seconds(result: Result, memory: Fidelity, **changed: object) -> float:
    """Time of the programs of a result on its machine, with other ``memories`` or ``caches``."""
    arch = replace(result.architecture, **changed)  # type: ignore[type-var]
    ticks = sum(run(bind(s.bound.program, arch, memory).timed).ticks for s in result.segments)
    return ticks / arch.ticks_per_second()


def with_memory(result: Result, **parameters: object) -> dict[str, object]:
    """The memories of a result's machine, parameters of the main one changed."""
    assert result.architecture is not None
    memories = result.architecture.memories
    return {"memories": {**memories, "hbm": replace(memories["hbm"], **parameters)}}


def assert_no_slower(more: float, before: float, anomaly: float = ANOMALY) -> None:
    assert more <= before * (1 + anomaly) + ANOMALY_SECONDS


@given(machines(), works())
@settings(SOME, max_examples=150)
def test_no_result_is_below_a_bound(arch, work):
    """Nor is memory with a time of its own quicker than one without."""
    by_channels = arch.main_memory()[1].kind == "dram"
    found = {
        memory: simulate(arch, work, memory=memory)
        for memory in (FIDELITIES if by_channels else FIDELITIES[:2])
    }
    for result in found.values():
        assert any(result.bounds.values())
        assert all(result.cycles >= bound - 1e-6 for bound in result.bounds.values())
        assert result.cycles >= found["ideal"].cycles


@given(machines(memory=True), works(), st.sampled_from(["bandwidth", "dram"]))
@SOME
def test_more_channels_are_not_slower(arch, work, memory):
    result = simulate(arch, work, memory=memory)
    before = seconds(result, memory)
    more = 2 * arch.memories["hbm"].channels
    assert_no_slower(seconds(result, memory, **with_memory(result, channels=more)), before)


@given(machines(memory=True), works(), st.sampled_from(["bandwidth", "dram"]))
@SOME
def test_a_faster_device_is_not_slower(arch, work, memory):
    result = simulate(arch, work, memory=memory)
    faster = 2 * arch.memories["hbm"].part.clock_hz
    changed = with_memory(result, command_clock=faster)
    assert_no_slower(seconds(result, memory, **changed), seconds(result, memory))


@given(machines(memory=True), works())
@SOME
def test_more_banks_and_no_refresh_are_not_slower(arch, work):
    result = simulate(arch, work, memory="dram")
    before = seconds(result, "dram")
    assert_no_slower(seconds(result, "dram", **with_memory(result, refresh=False)), before)
    with with_banks(2):
        assert_no_slower(seconds(result, "dram"), before)


@given(machines(memory=False), works())
@SOME
def test_more_bandwidth_is_not_slower(arch, work):
    """To the tick where main memory alone is shared; with a network, transfers may convoy, and at a
    scratchpad of limited bandwidth an earlier load may go before a product that others wait for."""
    result = simulate(arch, work)
    before = seconds(result, "bandwidth")
    more = 2 * arch.memories["hbm"].bandwidth
    after = seconds(result, "bandwidth", **with_memory(result, bandwidth=more))
    if arch.networks:
        assert_no_slower(after, before, CONVOY)
    elif arch.memories["spad"].width:
        assert_no_slower(after, before)
    else:
        assert after <= before


@pytest.mark.parametrize("memory", ["bandwidth", "dram"])
@given(machines(memory=True, caches=True), works(), st.sampled_from([2, 64]))
@SOME
def test_larger_caches_are_not_slower(memory, arch, work, factor):
    result = simulate(arch, work, memory=memory)
    last = arch.caches["last"]
    caches = {**arch.caches, "last": replace(last, capacity=factor * last.capacity)}
    assert_no_slower(seconds(result, memory, caches=caches), seconds(result, memory))
