"""The compiled engine with channels whose banks compute is the SimPy specification, tick by tick.

Loads, stores and products of random programs meet in few channels and few rows: what is written is
read by products at once, tiles and requests want the same banks, refreshes fall into both. Of the
families whose products are more than tiles, products are those of tile programs, and the checker,
which shares no code with either, finds no fault in what the channels were sent.
"""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_engine_memory_reference import architecture, assert_engines_agree, with_traffic
from test_engine_reference import random_program
from test_pim_reference import often_refreshed, tiles

from accelsim.engine import TimedProgram
from accelsim.engine.reference import simulate
from accelsim.engine.reference_memory import MachineWithMemory
from accelsim.engine.traffic import Products
from accelsim.hw.pim.channel.checker import check_log
from accelsim.hw.pim.channel.log import PimLog
from accelsim.hw.pim.channel.reference import PimChannel
from accelsim.hw.pim.channel.stream import PimStream
from accelsim.hw.pim.family import Family
from accelsim.hw.pim.memory import BY_BANK, MAPS, PimDram
from accelsim.hw.pim.products.product import Sweep
from accelsim.hw.pim.products.registry import products_of

MANY = settings(  # the first example compiles
    deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=20
)
FAMILIES = ("neupims", "newton")
WHOLE = ("hbm-pim", "attacc-bank", "attacc-bg", "pim-gpt", "aim-refreshed")
"""Families of which a product is a kernel, a head, or rows of all banks."""


def with_family(found: Family) -> mock._patch:
    """The family that every PIM memory is made of, whatever it names."""
    return mock.patch("accelsim.hw.pim.memory.find_family", return_value=found)


def memory_of(
    channels: int, latency: float = 0.0, refresh: bool = True, mapping: str = BY_BANK
) -> PimDram:
    return PimDram(
        family="neupims", channels=channels, capacity=1 << 28, latency=latency, refresh=refresh,
        mapping=mapping,
    )  # fmt: skip


def product(found: Family, draw: np.random.Generator) -> PimStream:
    """What a product of a tile program sends to a channel in which reads and writes go, too."""
    small = int(draw.integers(1, 40))
    sweep = {
        "hbm-pim": Sweep(1, 1, small * 2, int(draw.integers(1, 300)), True),
        "attacc": Sweep(1, 1, small * 4, int(draw.choice([64, 128]))),
        "banks": Sweep(1, int(draw.integers(1, 3)), small, int(draw.integers(1, 300)), True),
    }[found.programs]
    if found.programs == "attacc" and draw.random() < 0.5:
        first = bool(draw.random() < 0.6)
        sweep = Sweep(1, 1, 64, small * 5, columns=True, brings=first)
    if found.programs == "banks":
        state = {name: bool(draw.random() < 0.7) for name in ("begins", "ends", "brings")}
        sweep = replace(sweep, **state)
    column = int(draw.integers(0, 60)) if found.programs == "attacc" else 0
    table = PimStream.of(products_of(found).beside_host(found, sweep, column, (0, 0))).table()
    table[:, 1] += np.where(table[:, 1] < 0, 0, int(draw.integers(0, 9)))
    return PimStream.of([tuple(row) for row in table.tolist()])


def with_products(
    timed: TimedProgram, found: Family, channels: int, draw: np.random.Generator, longest: int
) -> TimedProgram:
    """Most instructions of the last units compute, each unit in a channel of its own.

    ``longest``: tiles of each at most (0: products of the family)."""
    first_unit = max(0, timed.units - channels)
    place = np.full((len(timed), 2), -1, np.int64)
    tables, senders, ends, total = [], [], [], 0
    for channel in range(channels):
        for i in np.flatnonzero(timed.unit == first_unit + channel).tolist():
            if first_unit + channel < timed.units and draw.random() < 0.8:
                table = _product(found, draw, longest).table()
                total += len(table)
                place[i] = channel, total
                tables.append(table)
                senders += [i] * len(table)
        ends.append(total)
    table = np.concatenate([np.zeros((0, 6), np.int64), *tables])
    products = Products(place, table, np.array(senders, np.int64), np.array(ends))
    return replace(timed, traffic=replace(timed.traffic, products=products))


def _product(found: Family, draw: np.random.Generator, longest: int) -> PimStream:
    if longest == 0:
        return product(found, draw)
    return tiles(found, draw, int(draw.integers(1, longest + 1)))


def spread(timed: TimedProgram, memory: PimDram, draw: np.random.Generator) -> TimedProgram:
    """Windows lie in rows 0 to 9 of few banks, those of the products among them."""
    window = timed.traffic.window.copy()
    banks, pitch = int(draw.integers(1, 6)), memory.bank_pitch
    for operand in np.unique(window[:, 6]).tolist():
        base = int(draw.integers(0, 10)) * memory.row_pitch + int(draw.integers(0, banks)) * pitch
        window[window[:, 6] == operand, 0] = base + int(draw.integers(0, pitch))
    return replace(timed, traffic=replace(timed.traffic, window=window))


def program(
    seed: int, found: Family, memory: PimDram, n: int, units: int, most: int, **sizes: float
) -> TimedProgram:
    draw = np.random.default_rng(seed)
    timed = random_program(seed, n, units, 2, longest=int(draw.choice([0, 3, 40])))
    clock = f"{draw.choice([500, 1000, 1500])} MHz"
    arch = architecture(memory, clock=clock)
    timed = spread(with_traffic(timed, seed, arch, True, **sizes), memory, draw)
    return with_products(timed, found, memory.channels, draw, most)


@given(st.data(), st.sampled_from(FAMILIES), st.integers(0, 2**32 - 1), st.integers(1, 3))
@MANY
def test_products_between_transfers(data, name, seed, channels):
    found = often_refreshed(
        name,
        data.draw(st.sampled_from([1200, 1700, 3900])),
        pim_queue=data.draw(st.sampled_from([2, 5, 128])),
        read_queue=data.draw(st.sampled_from([1, 4, 32])),
        write_buffer=data.draw(st.sampled_from([1, 5, 32])),
        command_queue=data.draw(st.sampled_from([1, 3, 128])),
    )
    with with_family(found):
        memory = memory_of(channels, data.draw(st.sampled_from([0.0, 20e-9])))
        timed = program(
            seed, found, memory, data.draw(st.integers(1, 13)), data.draw(st.integers(1, 4)), 2,
            longest=data.draw(st.sampled_from([64, 300, 3000])),
            writes=data.draw(st.sampled_from([0.0, 0.3, 0.9])),
        )  # fmt: skip
        assert_engines_agree(timed)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("seed", range(2))
def test_long_programs(name: str, seed: int) -> None:
    """Long enough for several refreshes, full buffers and full PIM queues."""
    found = often_refreshed(name, 1500, pim_queue=5, write_buffer=5, command_queue=1)
    with with_family(found):
        timed = program(seed, found, memory_of(2), 24, 4, 2, longest=600, operands=12)
        assert_engines_agree(timed)


def faults(timed: TimedProgram, found: Family) -> list[str]:
    """What the checker finds in the commands that the specification sends."""
    machine = simulate(timed)
    assert isinstance(machine, MachineWithMemory)
    assert machine.channels is not None
    told = []
    for one in machine.channels.channels:
        assert isinstance(one.channel, PimChannel)
        rows = [(clock, kind, 0, bank, row, n) for clock, kind, bank, row, n in one.channel.log]
        log = PimLog.of(np.array(rows, np.int64).reshape(-1, 6))
        told += check_log(found, log, refresh=False, end_cycle=one.channel.clock).violations
    return told


@pytest.mark.parametrize("name", WHOLE)
@given(st.data(), st.integers(0, 2**32 - 1), st.integers(1, 2))
@settings(MANY, max_examples=8)
def test_whole_products_between_transfers(name, data, seed, channels):
    found = often_refreshed(
        name,
        data.draw(st.sampled_from([1700, 3900])),
        pim_queue=data.draw(st.sampled_from([2, 5, 128])),
        read_queue=data.draw(st.sampled_from([1, 32])),
        write_buffer=data.draw(st.sampled_from([1, 5, 32])),
    )
    with with_family(found):
        memory = memory_of(channels, mapping=MAPS.get(found.programs, BY_BANK))
        timed = program(
            seed, found, memory, data.draw(st.integers(1, 9)), data.draw(st.integers(1, 3)), 0,
            longest=data.draw(st.sampled_from([64, 300])),
            writes=data.draw(st.sampled_from([0.0, 0.3, 0.9])),
        )  # fmt: skip
        assert_engines_agree(timed)
        assert not faults(timed, found)
