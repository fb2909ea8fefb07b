"""Arithmetic in the cells: sequences of row operations, bit planes at their addresses, products
bit for bit, and the streams of commands that take as long."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.errors import AccelsimError, CapacityError
from accelsim.functional import bit_memory
from accelsim.functional.bit_memory import BitMemory, product, product_by_tokens
from accelsim.hw.pim.catalog import family
from accelsim.hw.pim.channel.checker import CELLS_CLOSED, check_log
from accelsim.hw.pim.layouts.bits import BitPlanes, planes_of
from accelsim.hw.pim.layouts.layout import BankGrid
from accelsim.hw.pim.operators import parse
from accelsim.hw.pim.programs.cell_sequences import (
    Reserved,
    RowOp,
    add,
    add_operations,
    multiply,
    multiply_operations,
)
from accelsim.hw.pim.programs.registry import streams_of
from accelsim.hw.pim.run import run_pim

ALL = slice(None)


def lanes_of(value: Any, bit: int) -> Any:
    return (value >> bit & 1).astype(np.uint8)


def in_the_cells(operations: Any, a: Any, b: Any, bits: int, out: int) -> Any:
    """Numbers [lanes] in rows 0 and ``bits`` of a bank, and what is in rows 2 x bits after."""
    memory = BitMemory(BitPlanes(BankGrid(1, 1, 512, len(a) // 8, len(a) // 8, 1), 512, 1))
    for bit in range(bits):
        memory.write_lanes(ALL, bit, lanes_of(a, bit))
        memory.write_lanes(ALL, bits + bit, lanes_of(b, bit))
    memory.execute(operations, 0, ALL)
    for bit in range(bits):
        assert (memory.lanes(0, bit)[0, 0] == lanes_of(a, bit)).all(), "an operand was lost"
    rows = [memory.lanes(0, 2 * bits + n)[0, 0].astype(np.int64) << n for n in range(out)]
    return np.sum(rows, axis=0)


def every_pair(bits: int) -> tuple[Any, Any]:
    a, b = np.meshgrid(np.arange(1 << bits), np.arange(1 << bits))
    return a.ravel(), b.ravel()


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_sums_and_products_of_all_pairs(bits: int) -> None:
    a, b = every_pair(bits)
    rows = [range(bits), range(bits, 2 * bits), range(2 * bits, 4 * bits)]
    total = list(add(rows[0], rows[1], rows[2][: bits + 1]))
    assert len(total) == add_operations(bits)
    assert (in_the_cells(total, a, b, bits, bits + 1) == a + b).all()
    both = list(multiply(*rows))
    assert len(both) == multiply_operations(bits)
    assert (in_the_cells(both, a, b, bits, 2 * bits) == a * b).all()


def test_published_counts_are_within_a_few_operations() -> None:
    for bits in (8, 16, 32):
        assert 8 * bits + 1 <= add_operations(bits) <= 8 * bits + 3
        assert multiply_operations(bits) == pytest.approx(11 * bits**2 - 5 * bits - 1, rel=0.02)


def test_an_operation_that_is_left_out_shows() -> None:
    a, b = every_pair(4)
    whole = list(multiply(range(4), range(4, 8), range(8, 16)))
    for n in range(0, len(whole), 11):
        cut = whole[:n] + whole[n + 1 :]
        assert (in_the_cells(cut, a, b, 4, 8) != a * b).any(), whole[n]


def test_rows_that_cannot_be_raised_together_are_refused() -> None:
    memory = BitMemory(BitPlanes(BankGrid(1, 1, 512, 8, 8, 1), 512, 1))
    for operation, message in (
        (RowOp(Reserved.T2_T3, 0), "nothing certain"),
        (RowOp(0, Reserved.ONES), "a constant"),
    ):
        with pytest.raises(AccelsimError, match=message):
            memory.execute([operation], 0, ALL)


GRIDS = [(1, 2, 16, 1), (2, 4, 16, 2), (2, 2, 32, 4), (1, 4, 8, 4)]


def case(shape: tuple[int, int, int, int], m: int, n: int, seed: int) -> tuple[BitPlanes, Any, Any]:
    channels, banks, row_bytes, at_once = shape
    grid = BankGrid(channels, banks, 4 * 512, row_bytes, 8, 1)
    draw = np.random.default_rng(seed)
    w, x = draw.integers(-128, 128, (m, n)), draw.integers(-128, 128, n)
    return BitPlanes(grid, 512, at_once), w, x


@settings(deadline=None, max_examples=12)
@given(st.sampled_from(GRIDS), st.integers(1, 90), st.integers(1, 300), st.integers(0, 99))
def test_products_at_the_places_of_a_layout_are_exact(
    shape: tuple[int, int, int, int], m: int, n: int, seed: int
) -> None:
    planes, w, x = case(shape, m, n, seed)
    memory = BitMemory(planes)
    memory.store(planes.matrix(m, n), w)
    assert (memory.load(planes.matrix(m, n)) == w).all()
    assert (product(memory, x, m) == w @ x).all()
    tokens = BitMemory(planes)
    tokens.store(planes.by_tokens(m, n), w)
    assert (product_by_tokens(tokens, x, m) == w @ x).all()


def test_extreme_operands() -> None:
    planes, _, _ = case(GRIDS[1], 9, 200, 0)
    for w, x in ((-128, -128), (127, -128), (-128, 127), (0, 0)):
        memory = BitMemory(planes)
        memory.store(planes.matrix(9, 200), np.full((9, 200), w))
        assert (product(memory, np.full(200, x), 9) == 200 * w * x).all()


def test_a_wrong_layout_and_a_lost_plane_show() -> None:
    planes, w, x = case(GRIDS[1], 60, 100, 3)
    right = planes.matrix(60, 100)
    bank, channel, *rest = right.digits
    swapped = replace(right, digits=(channel, bank, *rest))
    memory = BitMemory(planes)
    memory.store(swapped, w)
    assert (product(memory, x, 60) != w @ x).any()
    memory = BitMemory(planes)
    memory.store(right, w)
    memory.rows[:, :, 0, 7] ^= 1
    assert (product(memory, x, 60) != w @ x).any()


def test_a_carry_that_is_dropped_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(*rows: Any) -> Iterator[RowOp]:
        return (one for one in multiply(*rows) if one.target != Reserved.NOT_DCC0)

    planes, w, x = case(GRIDS[0], 7, 40, 5)
    memory = BitMemory(planes)
    memory.store(planes.matrix(7, 40), w)
    monkeypatch.setattr(bit_memory, "multiply", forgetful)
    assert (product(memory, x, 7) != w @ x).any()


def test_operands_and_sizes_out_of_range_are_refused() -> None:
    planes, w, _ = case(GRIDS[0], 3, 5, 1)
    memory = BitMemory(planes)
    for values in (w + 200, w.astype(np.float64)):
        with pytest.raises(AccelsimError, match="integers from -128 to 127"):
            memory.store(planes.matrix(3, 5), values)
    with pytest.raises(CapacityError, match="accepted: up to"):
        planes.matrix(100_000, 64)
    with pytest.raises(CapacityError, match="elements of 8 bits"):
        planes.matrix(1, 100_000)
    with pytest.raises(AccelsimError, match="a divisor of the stripes"):
        BitPlanes(planes.grid, 512, 3)


def test_layouts_say_where_bits_lie() -> None:
    planes = planes_of(family("transpim"))
    text = planes.matrix(4096, 768).describe()
    assert "8 -> element x 8,192" in text  # bits of an element lie above each other
    assert "64 channels x 32 banks" in text
    place = planes.matrix(4096, 768).place(2048, np.arange(8))
    assert place.row.tolist() == list(range(8))
    assert set(place.column.tolist()) == {768}  # the second output of the first bank


@pytest.mark.parametrize(
    ("work", "counts"),
    [
        # 2 outputs in a bank side by side: 8 planes of x, 1 product, 16 planes of 4 slots
        ("gemv:m=4096,n=4096", {"WR_ALL": 8 * 16, "AAP": 670, "ACU": 64, "RD_ACU": 32}),
        # 3 tokens of 8 heads: 3 rows, in as many stripes
        ("logit:tokens=6000,heads=64", {"WR_ALL": 8 * 16, "AAP": 670, "ACU": 3 * 64}),
        # 2 chunks of lanes, the second of 808
        ("gemv:m=3,n=9000", {"WR_ALL": 16 * 16, "AAP": 2 * 670, "ACU": 2 * 64, "RD_ACU": 3}),
        # 2 tokens in a bank, 8192 // 2 outputs in a row; 31 hops of 1024 / 32 sums of 4 bytes
        (
            "attend:tokens=4096,heads=8",
            {"ST_BUF": 8 * 16, "AAP": 670, "ACU": 64, "RING": 62, "RD_ACU": 2 * 32},
        ),
    ],
)
def test_streams_have_the_commands_of_their_products(work: str, counts: dict[str, int]) -> None:
    found = family("transpim")
    ((stream, channels),) = streams_of(found, parse(work))
    assert channels == 64
    sent = stream.counts(found)
    assert {name: sent[name] for name in counts} == counts


def test_planes_are_read_where_the_layout_leaves_room() -> None:
    """Products of all stripes, beyond what is stored, and within their stripe."""
    found = family("transpim-row")
    planes = planes_of(found)
    ((stream, _),) = streams_of(found, parse("gemv:m=100000,n=4096"))
    rows = stream.row[stream.command == found.number("ACU")]
    layout = planes.matrix(100_000, 4096)
    used = np.unique(layout.place(np.arange(0, 100_000, 2048)[:, None], np.arange(8)).row)
    assert not np.isin(rows, used).any()
    assert (rows % 512 + 1 + 16 <= 512).all()


def test_a_product_takes_its_closed_form() -> None:
    """x: 8 planes of 16 columns; 670 operations of 52 clocks; 16 planes through the trees; sums."""
    run = run_pim("transpim", "gemv:m=2048,n=8192", refresh=False, check=True)
    assert run.violations == 0
    plane = max(34, 14 + 15 * 2 + 4 + 2 + 16) + 14
    acu = 34 + 14
    begin = 1 + 1
    # Reads of the sums leave the 32 banks one after the other, a burst of 2 clocks each.
    total = begin + 8 * plane + 670 * 52 + 16 * acu + 31 * 2 + 14 + 2
    assert run.cycles == pytest.approx(total, abs=20)


def test_activations_that_tfaw_allows_take_longer() -> None:
    free, held = (run_pim(name, "gemv:m=64,n=64") for name in ("transpim", "transpim-faw"))
    assert held.cycles > 50 * free.cycles


def test_the_checker_sees_an_operation_on_cells_of_an_open_bank() -> None:
    found = family("transpim")
    log = run_pim(found, "gemv:m=64,n=64", log=True).logs[0]
    assert check_log(found, log).ok
    # The one before the first operation in the cells: planes of the vector are open.
    first = int(np.flatnonzero(log.command == found.number("AAP"))[0])
    closing = int(np.flatnonzero(log.command[:first] == found.number("PRE_ALL"))[-1])
    columns = {name: np.delete(getattr(log, name), closing) for name in vars(log)}
    assert CELLS_CLOSED in check_log(found, type(log)(**columns)).rules


def test_what_does_not_fit_is_refused() -> None:
    for work, message in (
        ("attention:tokens=4,heads=1", "accepted: gemv, logit, attend"),
        ("gemv:m=16000000,n=8192", "accepted: up to"),
        ("gemv:m=1,n=400000", "elements of 8 bits"),
    ):
        with pytest.raises(AccelsimError, match=message):
            run_pim("transpim", work)
