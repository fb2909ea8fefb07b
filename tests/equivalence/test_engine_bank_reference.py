"""The compiled engine with channels whose banks compute is the SimPy specification, tick by tick.

Loads, stores and products of random programs meet in few channels and few rows: what is written is
read by products at once, tiles and requests want the same banks, refreshes fall into both.
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
from accelsim.engine.traffic import Products
from accelsim.hw.pim.family import Family
from accelsim.hw.pim.memory import PimDram

MANY = settings(  # the first example compiles
    deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=20
)
FAMILIES = ("neupims", "newton")
PITCH = 1024  # bytes of a row of a bank


def with_family(found: Family) -> mock._patch:
    """The family that every PIM memory is made of, whatever it names."""
    return mock.patch("accelsim.hw.pim.memory.find_family", return_value=found)


def memory_of(channels: int, latency: float = 0.0, refresh: bool = True) -> PimDram:
    return PimDram(
        family="neupims", channels=channels, capacity=1 << 30, latency=latency, refresh=refresh
    )


def with_products(
    timed: TimedProgram, found: Family, channels: int, draw: np.random.Generator, longest: int
) -> TimedProgram:
    """Most instructions of the last units compute, each unit in a channel of its own."""
    first_unit = max(0, timed.units - channels)
    place = np.full((len(timed), 2), -1, np.int64)
    tables, senders, ends, total = [], [], [], 0
    for channel in range(channels):
        for i in np.flatnonzero(timed.unit == first_unit + channel).tolist():
            if first_unit + channel < timed.units and draw.random() < 0.8:
                table = tiles(found, draw, int(draw.integers(1, longest + 1))).table()
                total += len(table)
                place[i] = channel, total
                tables.append(table)
                senders += [i] * len(table)
        ends.append(total)
    table = np.concatenate([np.zeros((0, 6), np.int64), *tables])
    products = Products(place, table, np.array(senders, np.int64), np.array(ends))
    return replace(timed, traffic=replace(timed.traffic, products=products))


def spread(timed: TimedProgram, channels: int, draw: np.random.Generator) -> TimedProgram:
    """Windows lie in rows 0 to 9 of few banks, those of the products among them."""
    window = timed.traffic.window.copy()
    banks, pitch = int(draw.integers(1, 6)), PITCH * channels
    for operand in np.unique(window[:, 6]).tolist():
        base = int(draw.integers(0, 10)) * 32 * pitch + int(draw.integers(0, banks)) * pitch
        window[window[:, 6] == operand, 0] = base + int(draw.integers(0, pitch))
    return replace(timed, traffic=replace(timed.traffic, window=window))


def program(
    seed: int, found: Family, memory: PimDram, n: int, units: int, most: int, **sizes: float
) -> TimedProgram:
    draw = np.random.default_rng(seed)
    timed = random_program(seed, n, units, 2, longest=int(draw.choice([0, 3, 40])))
    clock = f"{draw.choice([500, 1000, 1500])} MHz"
    arch = architecture(memory, clock=clock)
    timed = spread(with_traffic(timed, seed, arch, True, **sizes), memory.channels, draw)
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
