"""Runs of bursts are their bursts one by one, and driving in pieces changes nothing.

The compiled channel keeps runs, rings of interleaved runs and jumps between decisions; nobody may
be able to tell.
"""

import numpy as np
import pytest
from dram_streams import compiled, controllers, devices, runs, singles
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accelsim.hw.dram import reference
from accelsim.hw.dram.catalog import device
from accelsim.hw.dram.commands import Command
from accelsim.hw.dram.controller import Controller
from accelsim.hw.dram.reference import Request

MANY = settings(  # the first example compiles
    deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=600
)


def one_by_one(some):
    return [(request, 1, 0) for request in singles(some)]


@given(st.data())
@MANY
def test_a_run_is_its_requests(data):
    one, controller = data.draw(devices()), data.draw(controllers())
    some = data.draw(runs(one, most=30))
    assert compiled(one, controller, some) == compiled(one, controller, one_by_one(some))


@given(st.data())
@MANY
def test_driving_in_pieces_changes_nothing(data):
    one, controller = data.draw(devices()), data.draw(controllers())
    some = data.draw(runs(one, most=30))
    whole = compiled(one, controller, some)
    assert compiled(one, controller, some, in_pieces=True) == whole
    assert compiled(one, controller, one_by_one(some), in_pieces=True) == whole


@given(st.data())
@MANY
def test_interleaved_runs_are_their_requests(data):
    """Runs that take turns burst by burst become rings: one lane per run, in banks of its own."""
    one, controller = data.draw(devices()), data.draw(controllers())
    lanes = data.draw(runs(one, most=4))
    clock, rounds = lanes[-1][0].clock, data.draw(st.integers(1, 12))
    turns = [
        first._replace(column=first.column + k * max(stride, 0), clock=clock)
        for k in range(rounds)
        for first, _, stride in lanes
    ]
    alone = [(request, 1, 0) for request in turns]
    assert compiled(one, controller, alone) == compiled(one, controller, alone, in_pieces=True)


@pytest.mark.parametrize("name", ["ddr4-2400", "hbm2"])
def test_long_runs_are_their_requests(name):
    """Hundreds of runs, as DMA blocks give them: queues stay full."""
    one, random = device(name), np.random.default_rng(7)
    some = [
        (Request(int(bank), int(row), 0, bool(write < 0.3)), 16, 1)
        for bank, row, write in zip(
            random.integers(16, size=300),
            random.integers(50, size=300),
            random.random(300),
            strict=True,
        )
    ]
    whole = compiled(one, Controller(), some)
    assert compiled(one, Controller(), one_by_one(some)) == whole
    assert compiled(one, Controller(), some, in_pieces=True) == whole


def test_requests_of_one_clock_may_come_in_pieces():
    """A drain ends by what is queued at the end of a clock, not by what was pushed first."""
    one = device("ddr4-2400")
    controller = Controller(write_buffer=8, high_watermark=3, low_watermark=1, refresh=False)
    some = [(Request(bank, 1, 0, bank < 3), 1, 0) for bank in range(6)]
    log, _, _ = compiled(one, controller, some)
    second_write = [entry[0] for entry in log if entry[1] == Command.WR][1]
    # In this clock the buffer falls to the low watermark, and another write comes after a read.
    some += [(Request(7, 1, 0, False, second_write), 1, 0)]
    some += [(Request(6, 1, 0, True, second_write), 1, 0)]
    whole = compiled(one, controller, some)
    wanted = reference.run(one, controller, singles(some))
    assert whole[0] == [tuple(entry) for entry in wanted.log]
    assert compiled(one, controller, some, in_pieces=True) == whole
