"""The compiled PIM channel sends the commands of the specification, clock by clock."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from accelsim.hw.pim.catalog import family
from accelsim.hw.pim.channel.checker import check_log
from accelsim.hw.pim.channel.log import PimLog
from accelsim.hw.pim.channel.reference import PimChannel
from accelsim.hw.pim.channel.reference_banks import HostRequest
from accelsim.hw.pim.channel.stream import PimStream
from accelsim.hw.pim.family import Family
from accelsim.hw.pim.operators import Attend, Attention, Gemv, Logit, Operator, parse
from accelsim.hw.pim.programs.registry import streams_of

LONGEST = 40_000


def often_refreshed(name: str, interval: int, **rules: object) -> Family:
    """A family that meets its refreshes within a short stream."""
    found = family(name)
    device = found.device
    refresh = replace(device.refresh, interval_cycles=interval)
    return replace(
        found,
        device=replace(device, refresh=refresh),
        rules=replace(found.rules, **rules),  # type: ignore[arg-type]
    )


def tiles(found: Family, draw: np.random.Generator, count: int) -> PimStream:
    """Random vectors and tiles on few rows, so that rows are met again."""
    rows = []
    dual = found.rules.concurrent
    for _ in range(count):
        row = int(draw.integers(0, 4))
        if draw.random() < 0.3:
            bank = int(draw.integers(0, found.banks))
            if not dual:
                rows.append((found.number("P_HEADER"), row, 0, 4, 1, 0))
            rows.append((found.number("GWRITE"), int(draw.integers(8, 10)), bank, 1, 0, 0))
        results = int(draw.integers(1, 4))
        columns = [int(draw.integers(1, 12)) for _ in range(results)]
        rows.append((found.number("P_HEADER"), row, 0, sum(columns), results, 0))
        for n, k in enumerate(columns):
            last = int(n == results - 1)
            if dual:
                rows.append((found.number("COMPS_READRES"), row, 0, k, 1, last))
            else:
                rows.append((found.number("COMP"), row, 0, k, 0, 0))
                rows.append((found.number("READRES"), row, 0, 1, 1, last))
    return PimStream.of(rows)


def traffic(found: Family, draw: np.random.Generator, count: int, first_row: int) -> np.ndarray:
    table = np.zeros((count, 4), np.int64)
    table[:, 0] = draw.integers(0, found.banks, count) // int(draw.integers(1, 5))
    table[:, 1] = draw.integers(first_row, first_row + 3, count)
    table[:, 2] = draw.integers(0, 8, count)
    table[:, 3] = draw.random(count) < draw.choice([0.0, 0.3])
    return table


def compiled(
    found: Family, stream: PimStream, table: np.ndarray, outstanding: int, refresh: bool
) -> tuple[list[tuple[int, ...]], int]:
    from accelsim.hw.pim.channel import channel_kernels as kernels
    from accelsim.hw.pim.channel import state

    k = state.channels(
        found, [stream], [table], outstanding=outstanding, refresh=refresh, log=1 << 15
    )
    assert kernels.finish(k, 0, False) == kernels.DONE
    log = k.log[: k.logged[0]]
    return [tuple(row) for row in log[:, [0, 1, 3, 4, 5]].tolist()], int(k.word[0, state.CLOCK])


def specified(
    found: Family, stream: PimStream, table: np.ndarray, outstanding: int, refresh: bool
) -> tuple[list[tuple[int, ...]], int]:
    asked = [HostRequest(b, r, c, bool(w)) for b, r, c, w in table.tolist()]
    channel = PimChannel(found, stream, asked, outstanding, refresh)
    while not channel.done:
        channel.tick()
        assert channel.clock < LONGEST
    return [tuple(one) for one in channel.log], channel.clock


def assert_equal(
    found: Family, stream: PimStream, table: np.ndarray, outstanding: int = 0, refresh: bool = True
) -> None:
    mine, end = compiled(found, stream, table, outstanding, refresh)
    wanted, clock = specified(found, stream, table, outstanding, refresh)
    assert sorted(mine) == sorted(wanted)
    assert end == clock
    log = PimLog.of(np.array([(c, k, 0, b, r, n) for c, k, b, r, n in mine], np.int64))
    verdict = check_log(found, log, refresh=refresh, end_cycle=end)
    assert verdict.ok, verdict.violations[:3]


@pytest.mark.parametrize("name", ["neupims", "newton"])
@pytest.mark.parametrize("seed", range(6))
def test_tiles_beside_traffic(name: str, seed: int) -> None:
    draw = np.random.default_rng(seed)
    found = often_refreshed(name, int(draw.choice([1200, 1700, 2600])))
    stream = tiles(found, draw, 7)
    # Rows 3 and up: some that tiles reserve, too.
    table = traffic(found, draw, int(draw.choice([0, 150])), int(draw.choice([3, 20])))
    assert_equal(found, stream, table, int(draw.choice([0, 12])), bool(draw.random() < 0.85))


@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize(
    ("name", "tokens"), [("attacc-bank", 40), ("attacc-bg", 20), ("attacc-buffer", 9)]
)
def test_attention_in_a_window(name: str, tokens: int, ahead: bool) -> None:
    found = often_refreshed(name, 900, rows_ahead=ahead)
    for stream, _ in streams_of(found, Attention(tokens, 35, 64))[:1]:
        table = traffic(found, np.random.default_rng(tokens), 40 if ahead else 0, 100)
        assert_equal(found, stream, table)


@pytest.mark.parametrize("name", ["aim-refreshed", "hbm-pim", "pim-gpt"])
def test_products_in_order(name: str) -> None:
    found = often_refreshed(name, 1100)
    ((stream, _),) = streams_of(found, Gemv(600, 300))
    assert_equal(found, stream, np.zeros((0, 4), np.int64))


@pytest.mark.parametrize(
    ("name", "operator"),
    [
        ("hbm-pim", "add:n=400000"), ("hbm-pim", "relu:n=400000"), ("hbm-pim", "mad:n=270000"),
        ("aim-refreshed", "ewmul:n=300000"), ("aim-refreshed", "ewadd:n=9000"),
        ("aim-refreshed", "copy:n=30000"), ("aim-refreshed", "af:n=4000"),
    ],
)  # fmt: skip
def test_vectors_in_order(name: str, operator: str) -> None:
    found = often_refreshed(name, 1100)
    ((stream, _),) = streams_of(found, parse(operator))
    assert_equal(found, stream, np.zeros((0, 4), np.int64))


@pytest.mark.parametrize("work", [Gemv(5000, 300), Logit(4100, 4, 64), Attend(9000, 2, 16)])
@pytest.mark.parametrize("host", [0, 40])
def test_products_in_the_cells(work: Operator, host: int) -> None:
    """Runs of row operations are cut short: their clocks would be most of the test's."""
    found = often_refreshed("transpim", 1100)
    ((stream, _),) = streams_of(found, work)
    rows = [row for row in stream.table()[:110].tolist() if row[1] < 2000] + [
        (found.number("RD_ACU"), -1, bank, 2, 1, 1) for bank in (0, 7, 31)
    ]
    short = PimStream.of((c, r, b, min(n, 24), k, e) for c, r, b, n, k, e in rows)
    assert_equal(found, short, traffic(found, np.random.default_rng(host), host, 3000))
