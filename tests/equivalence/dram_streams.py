"""Small random request streams, settings and devices, and the compiled channel driven by them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from accelsim.hw.dram import state
from accelsim.hw.dram.catalog import device
from accelsim.hw.dram.controller import Controller
from accelsim.hw.dram.device import Device
from accelsim.hw.dram.fifo_kernels import push
from accelsim.hw.dram.reference import Request
from accelsim.hw.dram.window_kernels import advance

MANY = settings(  # the first example compiles
    deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=400
)
DEVICES = ("ddr4-2400", "hbm2", "hbm2", "gddr6", "lpddr5-6400", "ddr5-4800")


@st.composite
def devices(draw):
    """A shipped device with one or two ranks and pseudo-channels, often refreshed."""
    one = device(draw(st.sampled_from(DEVICES)))
    parts = replace(
        one.organization,
        ranks=draw(st.integers(1, 2)),
        pseudo_channels=draw(st.integers(1, 2)),
    )
    refresh = one.refresh
    kinds = ["all-bank"] + (["per-bank"] if refresh.per_bank_interval_cycles else [])
    # Intervals are short, so that refreshes meet requests, but longer than all refreshes together.
    ranks = parts.ranks * parts.pseudo_channels
    refresh = replace(
        refresh,
        kind=draw(st.sampled_from(kinds)),
        interval_cycles=(refresh.all_bank_cycles + draw(st.integers(200, 500))) * ranks,
        per_bank_interval_cycles=(refresh.per_bank_cycles + draw(st.integers(0, 200))) * ranks,
    )
    return replace(one, organization=parts, refresh=refresh)


@st.composite
def controllers(draw):
    buffer = draw(st.integers(1, 12))
    high = draw(st.integers(1, buffer))
    return Controller(
        page=draw(st.sampled_from(["open", "closed"])),
        window=draw(st.integers(1, 16)),
        write_buffer=buffer,
        high_watermark=high,
        low_watermark=draw(st.integers(0, high - 1)),
        hit_cap=draw(st.integers(1, 4)),
        accepts_per_clock=draw(st.sampled_from([0, 1, 8])),
        refresh=draw(st.booleans()),
    )


@st.composite
def runs(draw, one: Device, most: int = 16):
    """(first request, bursts, stride) of runs within few banks, rows and columns, in time."""
    parts = one.organization
    banks = parts.pseudo_channels * parts.ranks * parts.banks_per_rank
    some_banks = draw(st.lists(st.integers(0, banks - 1), min_size=1, max_size=10))
    pause = draw(st.sampled_from([0, 3, 40, 900]))
    clock, found = 0, []
    for _ in range(draw(st.integers(1, most))):
        clock += draw(st.integers(0, pause))
        first = Request(
            draw(st.sampled_from(some_banks)),
            draw(st.integers(0, 2)),
            draw(st.integers(0, 3)),
            draw(st.booleans()),
            clock,
        )
        # Neighbours, every other burst, backwards, or one address again and again.
        stride = draw(st.sampled_from([1, 1, 2, -1, 0]))
        first = first._replace(column=first.column + (8 if stride < 0 else 0))
        found.append((first, draw(st.integers(1, 8)), stride))
    return found


def singles(some):
    """The requests of runs, one by one."""
    return [
        first._replace(column=first.column + k * stride)
        for first, count, stride in some
        for k in range(count)
    ]


def compiled(one: Device, controller: Controller, some, in_pieces: bool = False):
    """Log, acceptances and finishing clocks; in pieces, pushed run by run as late as is allowed."""
    requests = sum(count for _, count, _ in some)
    m = state.memory(
        one, controller, 1, nodes=requests + 1, requests=requests, log=20 * requests + 4000
    )
    following = [first.clock for first, _, _ in some[1:]]
    for k, (first, count, stride) in enumerate(some):
        bank, row, column, write, at = first
        assert push(m, 0, -1, bank, row, column, count, stride, int(write), at)
        if in_pieces and k < len(following):
            advance(m, 0, following[k], False)
    assert advance(m, 0, state.NEVER, False) == state.NEVER
    log = m.log[: m.book[state.LOGGED]]
    assert len(log) + 2 <= len(m.log)
    assert all(a <= b for a, b in pairwise(log[:, 0].tolist()))
    rows = [tuple(row) for row in log[:, [0, 1, 3, 4, 5]].tolist()]
    return rows, m.accepted.tolist(), m.finished.tolist()
