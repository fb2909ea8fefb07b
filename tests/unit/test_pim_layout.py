"""Layouts in banks that compute: bijections within capacity; products in the banks' order equal the
declared rule bit for bit, lie within its bound, and show a layout that is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.errors import AccelsimError, CapacityError
from accelsim.functional.bank_memory import BankMemory, bank_order, gemv, sweeps_of
from accelsim.hw.pim.layouts.families import (
    CACHES,
    WEIGHTS,
    Heads,
    cache_layouts,
    weight_layout,
)
from accelsim.hw.pim.layouts.layout import BankGrid, Digit, Layout, Place
from accelsim.numerics import bounds
from accelsim.numerics.arithmetic import arithmetic, types_of
from accelsim.numerics.formats import FORMATS

NEUPIMS = BankGrid(4, 32, 4096, 1024)
GDDR6 = BankGrid(4, 16, 4096, 2048)
HBM_PIM = BankGrid(2, 16, 4096, 1024)
ATTACC = BankGrid(4, 64, 4096, 1024)
GRIDS = {
    "newton": NEUPIMS, "neupims": NEUPIMS, "aim": GDDR6, "pim-gpt": GDDR6, "hbm-pim": HBM_PIM,
    "attacc": ATTACC,
}  # fmt: skip


def values(fmt: str, *shape: int, seed: int = 1) -> Any:
    drawn = np.random.default_rng(seed).standard_normal(shape)
    return np.asarray(FORMATS[fmt].decode(FORMATS[fmt].encode(drawn)), dtype=np.float32)


def unit_of(family: str, layout: Layout) -> str:
    if family == "attacc":
        return "macs16x2-fp16" if layout.name == "V^T" else "banks4-tree16-fp32"
    return "macs16-fp16" if family == "hbm-pim" else "tree16-fp32"


def product(
    family: str, layout: Layout, unit: str, fmt: str = "fp16", stored: Any = None, head: int = 0
) -> Any:
    """(what the banks compute, what the rule with the declared order does, exact, bound)."""
    w, x = values(fmt, layout.rows, layout.cols), values(fmt, layout.cols, seed=2)
    memory = BankMemory.holding(FORMATS[fmt], *(stored or layout,), layout)
    memory.store(stored or layout, w)
    assert np.array_equal(memory.load(stored or layout), w)
    types, order = types_of(fmt, fmt, "fp32"), bank_order(family, layout, layout.cols)
    whole = arithmetic(unit).reduction(types, order, layout.cols)
    got = gemv(family, memory, layout, arithmetic(unit).rule(types), x, head)
    wide = w.astype(np.float64), x.astype(np.float64)[:, None]
    bound = bounds.product(*wide, whole)
    return got, whole.multiply(w, x[:, None], None)[:, 0], (wide[0] @ wide[1])[:, 0], bound[:, 0]


WEIGHT_CASES = [
    ("newton", 300, 1300), ("newton", 1, 1), ("neupims", 129, 512), ("aim", 300, 2500),
    ("pim-gpt", 65, 1024), ("hbm-pim", 300, 600), ("hbm-pim", 5, 257),
]  # fmt: skip
CACHE_CASES = [
    ("neupims", Heads(8, 128, 700)), ("neupims", Heads(2, 64, 33)),
    ("pim-gpt", Heads(8, 128, 1100)), ("aim", Heads(4, 256, 65)),
    ("attacc", Heads(1, 128, 333)), ("attacc", Heads(1, 160, 40)),
    ("attacc", Heads(1, 64, 16)), ("attacc", Heads(1, 80, 2)),
]  # fmt: skip
LAYOUTS = [
    *[(f, weight_layout(f, GRIDS[f], n, k, 5)) for f, n, k in WEIGHT_CASES],
    *[(f, one) for f, h in CACHE_CASES for one in cache_layouts(f, GRIDS[f], h, 2, 3)],
]
HEAD = {
    id(LAYOUTS[len(WEIGHT_CASES) + 2 * i + 1][1]): heads.size
    for i, (_, heads) in enumerate(CACHE_CASES)
}
"""Features of a head of values."""
NAMES = [f"{family} {one.name} {one.rows}x{one.cols}" for family, one in LAYOUTS]


@pytest.mark.parametrize(("family", "layout"), LAYOUTS, ids=NAMES)
def test_every_address_tells_its_element(family: str, layout: Layout) -> None:
    i, j = np.indices((layout.rows, layout.cols))
    place = layout.place(i, j)
    row, col = layout.element(place)
    assert np.array_equal(row, i)
    assert np.array_equal(col, j)
    assert place.row.min() >= layout.first_row
    assert place.row.max() == layout.last_row
    assert place.channel.max() < layout.grid.channels
    assert place.bank.max() < layout.grid.banks


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_layouts_are_bijections(data: st.DataObject) -> None:
    draw = data.draw
    banks = draw(st.sampled_from([4, 8, 16]))
    grid = BankGrid(draw(st.integers(1, 3)), banks, 4096, draw(st.sampled_from([64, 128, 512])))
    if draw(st.booleans()):
        family = draw(st.sampled_from(list(WEIGHTS)))
        sizes = draw(st.integers(1, 90)), draw(st.integers(1, 90))
        layouts: tuple[Layout, ...] = (weight_layout(family, grid, *sizes),)
    else:
        family = draw(st.sampled_from(list(CACHES)))
        size = draw(st.sampled_from([16, 32]))
        heads = Heads(
            1 if family == "attacc" else draw(st.integers(1, 4)), size, draw(st.integers(1, 90))
        )
        place = draw(st.integers(0, grid.channels - 1))
        layouts = cache_layouts(family, grid, heads, place, draw(st.integers(0, 9)))
    taken: set[tuple[int, ...]] = set()
    for layout in layouts:
        i, j = np.indices((layout.rows, layout.cols))
        place_of = layout.place(i, j)
        cells = np.stack([p.ravel() for p in place_of], axis=1)
        mine = {tuple(cell) for cell in cells.tolist()}
        assert len(mine) == i.size, "two elements at one address"
        assert not mine & taken, "keys and values at one address"
        taken |= mine
        # Every address of its rows, whether it holds something or not, agrees with the way there.
        every = np.stack(
            np.meshgrid(
                np.arange(grid.channels),
                np.arange(grid.banks),
                np.arange(layout.first_row, layout.last_row + 2),
                np.arange(grid.row_elements),
                indexing="ij",
            )
        ).reshape(4, -1)
        row, _ = layout.element(Place(*every))
        used = {tuple(cell) for cell in every.T[row >= 0].tolist()}
        assert used == mine


@pytest.mark.parametrize(("family", "layout"), LAYOUTS, ids=NAMES)
def test_banks_compute_what_the_rule_says(family: str, layout: Layout) -> None:
    unit, head = unit_of(family, layout), HEAD.get(id(layout), 0)
    got, rule, exact, bound = product(family, layout, unit, head=head)
    assert np.array_equal(got, rule)
    assert (np.abs(got - exact) <= bound).all()


@pytest.mark.parametrize("unit", ["tree16-bf16-bf16", "tree16-bf16-fp32", "tree16-fp32-bf16-fp32"])
def test_other_accumulators(unit: str) -> None:
    layout = weight_layout("aim", GDDR6, 70, 1500)
    got, rule, exact, bound = product("aim", layout, unit, "bf16")
    assert np.array_equal(got, rule)
    assert (np.abs(got - exact) <= bound).all()
    assert not np.array_equal(got, product("aim", layout, "tree16-fp32", "bf16")[0])


def turned(layout: Layout, field: str) -> Layout:
    """The same with the lowest bit of the first digit of a field at its top."""
    digit = next(d for d in layout.digits if d.field == field and d.size % 2 == 0)
    low = Digit(digit.axis, 2, digit.field, digit.stride * digit.size // 2)
    high = Digit(digit.axis, digit.size // 2, digit.field, digit.stride)
    at = layout.digits.index(digit)
    return replace(layout, digits=(*layout.digits[:at], low, high, *layout.digits[at + 1 :]))


@pytest.mark.parametrize("field", ["bank", "element"])
@pytest.mark.parametrize(
    ("family", "layout"), [LAYOUTS[i] for i in (0, 3, 5, 7, 8, 11, 15, 16)], ids=str
)
def test_a_bit_in_the_wrong_place_is_found(family: str, layout: Layout, field: str) -> None:
    wrong = turned(layout, field)
    unit, head = unit_of(family, layout), HEAD.get(id(layout), 0)
    got, rule, _, _ = product(family, layout, unit, stored=wrong, head=head)
    assert not np.array_equal(got, rule)


def test_attention_of_a_request_in_one_channel() -> None:
    """All heads, from keys and values as NeuPIMs keeps them: scores and weighted values per head,
    through windows of the sweeps; other requests' channels stay untouched."""
    heads, used = Heads(4, 64, 90), 70
    k_at, v_at = cache_layouts("neupims", NEUPIMS, heads, 2, 7)
    memory = BankMemory.holding(FORMATS["fp16"], k_at, v_at)
    k, v = (
        values("fp16", heads.tokens, heads.width),
        values("fp16", heads.tokens, heads.width, seed=3),
    )
    memory.store(k_at, k)
    memory.store(v_at, v.T)
    rule = arithmetic("tree16-fp32").rule(types_of("fp16", "fp16", "fp32"))
    q = values("fp16", heads.width, seed=5)
    for head in range(heads.count):
        mine = range(head * 64, head * 64 + 64)
        scores = sweeps_of("neupims", k_at).product(
            memory, rule, q[mine.start : mine.stop], range(used), mine
        )
        assert np.array_equal(scores, rule.multiply(k[:used, mine], q[mine, None], None)[:, 0])
        p = np.exp(scores / 8 - (scores / 8).max()).astype(np.float16).astype(np.float32)
        out = sweeps_of("neupims", v_at, 64).product(memory, rule, p, mine, range(used))
        assert np.array_equal(out, rule.multiply(v[:used, mine].T, p[:, None], None)[:, 0])
    assert (memory.bits[[0, 1, 3]] == memory.bits[0, 0, 0, 0]).all()


def test_what_nobody_wrote_shows() -> None:
    layout = weight_layout("newton", NEUPIMS, 40, 600)
    memory = BankMemory.holding(FORMATS["bf16"], layout)
    x = values("bf16", 600)
    rule = arithmetic("tree16-fp32").rule(types_of("bf16", "bf16", "fp32"))
    assert np.isnan(gemv("newton", memory, layout, rule, x)).all()


def test_capacity_says_how_much_fits() -> None:
    heads = Heads(8, 128, 400_000)
    with pytest.raises(
        CapacityError, match=r"^KV cache of 400,000 tokens: .*; ([\d,]+) tokens fit$"
    ) as e:
        cache_layouts("neupims", NEUPIMS, heads)
    fit = int(str(e.value).split()[-3].replace(",", ""))
    cache_layouts("neupims", NEUPIMS, replace(heads, tokens=fit))
    with pytest.raises(CapacityError):
        cache_layouts("neupims", NEUPIMS, replace(heads, tokens=fit + 1))
    # A bank's rows: two for 32 tokens of keys, 32 per 512 tokens of values.
    assert 2 * -(-fit // 32) + 32 * -(-fit // 512) <= 4096
    with pytest.raises(CapacityError, match="outputs fit"):
        weight_layout("aim", GDDR6, 10**6, 4096)


def by_tree(family: str, layout: Layout) -> Any:
    rule = arithmetic("tree16-fp32").rule(types_of("fp16", "fp16", "fp32"))
    memory = BankMemory.holding(FORMATS["fp16"], layout)
    return gemv(family, memory, layout, rule, np.zeros(layout.cols))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: cache_layouts("neupims", NEUPIMS, Heads(8, 96, 9)), "heads of 96 across the ends"),
        (lambda: cache_layouts("neupims", NEUPIMS, Heads(8, 16, 9)), "a multiple of the banks"),
        (lambda: cache_layouts("neupim", NEUPIMS, Heads(8, 64, 9)), "did you mean 'neupims'"),
        (lambda: cache_layouts("attacc", replace(ATTACC, banks=6), Heads(1, 64, 9)), "groups of 4"),
        (lambda: weight_layout("hbm-pim", replace(HBM_PIM, banks=3), 9, 9), "even number"),
        (lambda: weight_layout("attacc", ATTACC, 9, 9), "layout of weights"),
        (lambda: BankGrid(1, 1, 1, 100), "whole columns in a row"),
        (lambda: cache_layouts("neupims", NEUPIMS, Heads(8, 64, 9), place=4), "the grid has 0"),
        (lambda: weight_layout("newton", NEUPIMS, 9, 9).place(9, 0), "no row beyond 8"),
        (lambda: BankMemory(NEUPIMS, FORMATS["fp32"], 0, 1), "accepted: fp16, bf16"),
        (lambda: by_tree("hbm-pim", LAYOUTS[5][1]), "hbm-pim multiplies weights by lanes"),
    ],
)
def test_bad_words_get_one_line(call: Any, says: str) -> None:
    with pytest.raises(AccelsimError) as caught:
        call()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_digits_at_one_address_are_refused() -> None:
    digits = (Digit("row", 32, "bank"), Digit("col", 64, "element"), Digit("col", 2, "element", 32))
    with pytest.raises(AccelsimError, match="two elements at one element"):
        Layout("weights", NEUPIMS, 32, 128, digits)
    with pytest.raises(AccelsimError, match="do not reach"):
        Layout("weights", NEUPIMS, 33, 64, digits[:2])


def test_a_layout_prints_itself() -> None:
    keys, _ = cache_layouts("neupims", NEUPIMS, Heads(8, 128, 70), 1, 4)
    lines = keys.describe().splitlines()
    assert lines[0].startswith("K [70, 1,024] in 4 channels x 32 banks, rows 4 to 9")
    assert "32 -> bank" in lines[1]
    assert lines[4].split()[:4] == ["4", "(0,", "0)", ".."]
    assert "(63, 0) .. (63, 511)" in lines[5]
    assert keys.filled == pytest.approx(70 / 96)


def test_rows_per_request_are_the_published_tiles() -> None:
    """NeuPIMs, section 5: a tile is one row of 32 banks; L/32 tiles of keys per 512 features, and
    (features / 32) tiles of values per 512 tokens."""
    for tokens in (1, 32, 33, 512, 700):
        k, v = cache_layouts("neupims", NEUPIMS, Heads(8, 128, tokens))
        assert k.last_row - k.first_row + 1 == -(-tokens // 32) * 2
        assert v.last_row - v.first_row + 1 == -(-tokens // 512) * 32


@pytest.mark.parametrize("family", ["neupims", "pim-gpt"])
def test_one_channel_keeps_the_order_of_its_family(family: str) -> None:
    """Head by head or chunk by chunk is a family's choice, however many channels there are."""
    grid = BankGrid(1, 16, 4096, 256)
    for layout in cache_layouts(family, grid, Heads(2, 128, 145), 0, 8):
        got, rule, _, _ = product(family, layout, "tree16-fp32", head=128)
        assert np.array_equal(got, rule)
