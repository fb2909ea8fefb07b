"""Stripes over bank groups are their requests one by one.

Windows are deep and stripes long here, so that hits follow hits and places in the window go to
nodes that go on; the specification and pushes burst by burst know no stripes.
"""

import numpy as np
import pytest
from dram_streams import MANY, compiled, devices
from hypothesis import given
from hypothesis import strategies as st

from accelsim import memory_stream
from accelsim.hw.dram import reference, state
from accelsim.hw.dram.catalog import device
from accelsim.hw.dram.controller import Controller
from accelsim.hw.dram.fifo_kernels import push_stripe
from accelsim.hw.dram.mapping import AddressMap
from accelsim.hw.dram.reference import Request
from accelsim.hw.dram.streams import SEED, Extent, make_stream
from accelsim.hw.dram.window_kernels import advance


@st.composite
def stripes(draw, one):
    """(banks, here, row, column, count, write, clock): bursts that take turns over bank groups."""
    parts = one.organization
    ranks = parts.pseudo_channels * parts.ranks
    clock, found = 0, []
    pause = draw(st.sampled_from([0, 0, 40, 400]))
    writing = draw(st.sampled_from([0.0, 0.3, 1.0]))
    for _ in range(draw(st.integers(1, 10))):
        clock += draw(st.integers(0, pause))
        rank, bank = draw(st.integers(0, ranks - 1)), draw(st.integers(0, 1))
        lane, shift = (draw(st.integers(0, parts.bank_groups - 1)) for _ in range(2))
        groups = [(lane + k + shift) % parts.bank_groups for k in range(parts.bank_groups)]
        banks = [(rank * parts.bank_groups + group) * parts.banks + bank for group in groups]
        write = draw(st.floats(0, 1, exclude_max=True)) < writing
        row, column = draw(st.integers(0, 2)), draw(st.integers(0, 3))
        count = draw(st.integers(1, 40))
        found.append((banks, parts.bank_groups - lane, row, column, count, write, clock))
    return found


@st.composite
def controllers(draw):
    buffer = draw(st.integers(4, 32))
    high = draw(st.integers(2, buffer))
    return Controller(
        page=draw(st.sampled_from(["open", "open", "open", "closed"])),
        window=draw(st.integers(4, 32)),
        write_buffer=buffer,
        high_watermark=high,
        low_watermark=draw(st.integers(0, high - 1)),
        hit_cap=draw(st.integers(1, 16)),
        accepts_per_clock=draw(st.sampled_from([0, 0, 1, 8])),
        refresh=draw(st.booleans()),
    )


def bursts(stripe):
    banks, here, row, column, count, write, clock = stripe
    for k in range(count):
        turns, lane = divmod(k, len(banks))
        yield Request(banks[lane], row, column + turns + (lane >= here), write, clock)


def striped(one, settings, some, in_pieces):
    """As ``compiled``, pushed stripe by stripe."""
    requests = sum(stripe[4] for stripe in some)
    m = state.memory(
        one, settings, 1, nodes=requests + 9, requests=requests, log=20 * requests + 4000
    )
    following = [stripe[-1] for stripe in some[1:]]
    for k, (banks, here, row, column, count, write, clock) in enumerate(some):
        assert push_stripe(m, 0, -1, np.array(banks), here, row, column, count, int(write), clock)
        if in_pieces and k < len(following):
            advance(m, 0, following[k], False)
    assert advance(m, 0, state.NEVER, False) == state.NEVER
    log = m.log[: m.book[state.LOGGED]]
    rows = [tuple(row) for row in log[:, [0, 1, 3, 4, 5]].tolist()]
    return rows, m.accepted.tolist(), m.finished.tolist()


@given(st.data())
@MANY
def test_a_stripe_is_its_requests(data):
    one, controller = data.draw(devices()), data.draw(controllers())
    some = data.draw(stripes(one))
    requests = [request for stripe in some for request in bursts(stripe)]
    wanted = reference.run(one, controller, requests)
    whole = ([tuple(entry) for entry in wanted.log], *wanted[1:])
    assert striped(one, controller, some, False) == whole
    assert striped(one, controller, some, True) == whole
    assert compiled(one, controller, [(request, 1, 0) for request in requests]) == whole


@pytest.mark.parametrize("name", ["ddr4-2400", "ddr5-4800", "hbm2", "hbm3", "gddr6"])
@pytest.mark.parametrize("write", [False, True])
def test_a_long_stream_of_hits(name, write):
    """Rows of all bank groups one after the other: nothing but the first commands is decided."""
    one = device(name)
    parts = one.organization
    groups = range(parts.bank_groups)
    some = [
        ([group * parts.banks + bank for group in groups], len(groups), 3, 0, 64, write, 0)
        for bank in range(parts.banks)
    ]
    requests = [request for stripe in some for request in bursts(stripe)]
    wanted = reference.run(one, Controller(refresh=False), requests)
    found = striped(one, Controller(refresh=False), some, False)
    assert found == ([tuple(entry) for entry in wanted.log], *wanted[1:])


@pytest.mark.parametrize("name", ["ddr4-2400", "hbm2"])
@pytest.mark.parametrize("stream", ["seq_read", "seq_write", "mix21_seq"])
def test_a_driven_stream_is_the_specification(name, stream):
    """To its very end: behind the last request the driver leaves a mark that never arrives."""
    one = device(name)
    run = memory_stream(name, stream, 700, log=True, mapping="RoRaBaCoChBg")
    found = [
        (int(cycle), int(command))
        for cycle, command in zip(run.logs[0].cycle, run.logs[0].command, strict=True)
    ]
    address_map = AddressMap.of("RoRaBaCoChBg", one.organization, 1)
    extent = Extent(
        address_map.column_bytes,
        address_map.capacity_bytes // address_map.sizes[0],
        address_map.capacity_bytes,
    )
    asked = make_stream(stream, 700, extent, SEED)
    place = address_map.locate(asked.address)
    parts = one.organization
    bank = (place.pseudo_channel * parts.ranks + place.rank) * parts.bank_groups + place.bank_group
    bank = bank * parts.banks + place.bank
    requests = [
        Request(*values)
        for values in zip(
            bank.tolist(), place.row.tolist(), place.column.tolist(), asked.write.tolist(),
            strict=True,
        )
    ]  # fmt: skip
    wanted = reference.run(one, Controller(), requests)
    assert found == [(entry.clock, int(entry.command)) for entry in wanted.log]
