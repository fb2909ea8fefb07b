"""Vectors in banks that compute: commands, microprograms and layouts give the bits of plain numpy,
whatever their length, and take the clocks of the published runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import accelsim as xs
from accelsim.errors import AccelsimError
from accelsim.functional.bank_memory import BankMemory, gemv
from accelsim.functional.bank_registers import RegisterUnits
from accelsim.functional.bank_vectors import VectorBanks, table_of
from accelsim.hw.pim.catalog import family
from accelsim.hw.pim.family import Family
from accelsim.hw.pim.layouts.families import hbm_pim_blocks, hbm_pim_weights
from accelsim.hw.pim.layouts.vectors import grid_of, vector_layout
from accelsim.hw.pim.memory import PimDram
from accelsim.hw.pim.operators import Af, Copy, Elementwise, Ewadd, Ewmul, Gemv, Relu, parse
from accelsim.hw.pim.products.registry import products_of
from accelsim.hw.pim.programs.aim import aim_steps
from accelsim.hw.pim.programs.crf import (
    Instruction,
    Op,
    Place,
    checked,
    elementwise_program,
    product_program,
)
from accelsim.hw.pim.programs.hbm_pim import hbm_pim_steps, vector_columns
from accelsim.hw.pim.run import run_pim
from accelsim.numerics.arithmetic import arithmetic, types_of
from accelsim.numerics.formats import FORMATS

HBM, AIM = ("add", "mul", "relu", "mad"), ("ewmul", "ewadd", "copy")
SCALE, SHIFT = np.float16(1.3).astype(np.float32), np.float16(-0.7).astype(np.float32)


def small(name: str, channels: int = 2, rows: int = 96, columns: int = 32) -> Family:
    """A family with few channels and short rows."""
    found = family(name)
    parts = replace(found.device.organization, rows=rows, columns=columns)
    return replace(found, channels=channels, device=replace(found.device, organization=parts))


def drawn(fmt: str, n: int, seed: int) -> Any:
    """Values of many magnitudes, some of which overflow when they are multiplied."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(n) * 2.0 ** rng.integers(-12, 12, n)
    return np.asarray(FORMATS[fmt].decode(FORMATS[fmt].encode(values)), dtype=np.float32)


def rounded(fmt: str, values: Any) -> Any:
    """The nearest value of a format, ties to even, from float64."""
    if fmt == "fp16":
        return values.astype(np.float16).astype(np.float32)
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16
    return bits.astype(np.uint32).view(np.float32)


def wanted(operator: Elementwise, fmt: str, a: Any, b: Any) -> Any:
    """One operation in float64, or two, each rounded."""
    a, b, name = a.astype(np.float64), b.astype(np.float64), type(operator).__name__
    with np.errstate(over="ignore"):
        if name == "Mad":
            scaled = rounded(fmt, a * float(SCALE)).astype(np.float64)
            return rounded(fmt, scaled + float(SHIFT))
        by_name = {"Relu": np.maximum(a, 0), "Copy": a, "Add": a + b, "Ewadd": a + b}
        return rounded(fmt, by_name.get(name, a * b))


def computed(found: Family, operator: Elementwise, a: Any, b: Any) -> Any:
    """What the banks hold as the result, and the two operands as they hold them afterwards."""
    layout, fmt = vector_layout(found, operator), FORMATS["fp16"]
    if found.programs == "banks":
        fmt = FORMATS["bf16"]
    memory = BankMemory(layout.grid, fmt, 0, layout.grid.rows - 1)
    memory.store(layout, np.stack([*(a, b)[: operator.vectors - 1], np.full_like(a, np.nan)]))
    if found.programs == "hbm-pim":
        program = elementwise_program(operator, vector_columns(found, operator.n) // 8)
        units = RegisterUnits(memory, program, scale=float(SCALE), shift=float(SHIFT))
        units.run(hbm_pim_steps(found, operator))
    else:
        steps = aim_steps(found, operator)
        assert steps is not None
        VectorBanks(memory).run(steps)
    held = memory.load(layout)
    assert np.array_equal(held[0], a)
    return held[-1]


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(HBM), st.integers(1, 14_000), st.integers(1, 3), st.sampled_from([8, 16, 64]),
    st.integers(0, 99),
)  # fmt: skip
def test_vectors_of_hbm_pim(name: str, n: int, channels: int, columns: int, seed: int) -> None:
    found, operator = small("hbm-pim", channels, columns=columns), parse(f"{name}:n={n}")
    assert isinstance(operator, Elementwise)
    a, b = drawn("fp16", n, seed), drawn("fp16", n, seed + 100)
    got, want = computed(found, operator, a, b), wanted(operator, "fp16", a, b)
    assert np.array_equal(got, want)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(AIM), st.integers(1, 14_000), st.integers(1, 3), st.sampled_from([8, 16, 64]),
    st.integers(0, 99),
)  # fmt: skip
def test_vectors_of_aim(name: str, n: int, channels: int, columns: int, seed: int) -> None:
    found, operator = small("aim", channels, columns=columns), parse(f"{name}:n={n}")
    assert isinstance(operator, Elementwise)
    a, b = drawn("bf16", n, seed), drawn("bf16", n, seed + 100)
    got, want = computed(found, operator, a, b), wanted(operator, "bf16", a, b)
    assert np.array_equal(got, want)


def test_a_program_and_its_commands_must_agree() -> None:
    found, operator = small("hbm-pim"), Relu(100)
    memory = BankMemory(grid_of(found), FORMATS["fp16"], 0, 9)
    for program in (elementwise_program(parse("add:n=100"), 1), product_program(1)):  # type: ignore[arg-type]
        with pytest.raises(AccelsimError, match="meets the instruction"):
            RegisterUnits(memory, program).run(hbm_pim_steps(found, operator))


def test_a_program_is_no_longer_than_its_memory() -> None:
    assert len(elementwise_program(parse("mad:n=9"), 4)) <= 32  # type: ignore[arg-type]
    with pytest.raises(AccelsimError, match="33 instructions; accepted: up to 32"):
        checked([Instruction(Op.FILL, Place.GRF_A, Place.EVEN)] * 33)


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize(("m", "n"), [(300, 600), (129, 257), (5, 1)])
def test_the_commands_of_gemv_give_its_rule(m: int, n: int, blocks: bool) -> None:
    """The microprogram, fed by the stream's own commands, against the product in plain numpy."""
    found = small("hbm-pim", rows=256)
    layout = (hbm_pim_blocks if blocks else hbm_pim_weights)(grid_of(found), m, n)
    memory = BankMemory(layout.grid, FORMATS["fp16"], 0, layout.grid.rows - 1)
    memory.bits[:] = 0
    w, x = drawn("fp16", m * n, 1).reshape(m, n) / 4096, drawn("fp16", n, 2) / 4096
    w, x = rounded("fp16", w), rounded("fp16", x)
    memory.store(layout, w)
    tiles, pairs = -(-m // 128), -(-n // 256)
    given = np.zeros(pairs * 256, dtype=np.float32)
    given[:n] = x
    units = RegisterUnits(memory, product_program(pairs), given.reshape(-1, 8, 16))
    units.run(hbm_pim_steps(found, Gemv(m, n)))
    sums = np.stack(
        [
            memory.columns((128 + tile) * 512 + register * 16, 1)[:, 1::2]
            for tile in range(tiles)
            for register in range(8)
        ]
    ).reshape(tiles, 8, 2, 8, 16)  # [tile, register, channel, unit, lane]
    order = (2, 0, 3, 1, 4) if blocks else (0, 2, 3, 1, 4)
    sums = np.transpose(sums, order).reshape(-1, 16)[:m]
    want = np.zeros((16, m), np.float16)
    for i in range(n):
        want[i % 16] = want[i % 16] + w[:, i].astype(np.float16) * x[i].astype(np.float16)
    assert np.array_equal(sums, want.T.astype(np.float32))
    while sums.shape[1] > 1:
        half = sums.shape[1] // 2
        sums = sums[:, :half] + sums[:, half:]
    if not blocks:
        rule = arithmetic("macs16-fp16").rule(types_of("fp16", "fp16", "fp32"))
        assert np.array_equal(sums[:, 0], gemv("hbm-pim", memory, layout, rule, x))


def test_addresses_of_a_weight_are_as_many_as_its_elements() -> None:
    """Output by output, within the rows of the banks that hold it, and none twice."""
    machine = xs.arch("hbm-pim", {"hbm.channels": 2, "pim.count": 2, "hbm.capacity": "512 MiB"})
    memory = machine.main_memory()[1]
    assert isinstance(memory, PimDram)
    for outputs, inputs in ((300, 300), (64, 257), (17, 1)):
        layout = hbm_pim_blocks(memory.grid, outputs, inputs)
        products = products_of(memory.pim)
        flat = products.address(memory, layout, *np.ogrid[:outputs, :inputs])
        assert len(np.unique(flat)) == flat.size
        assert flat.max() < (layout.last_row + 1) * memory.row_pitch
        assert np.all(np.diff(flat, axis=1) == 2)
        assert len(np.unique(np.diff(flat, axis=0))) == 1


def test_a_function_by_the_tables_of_all_banks() -> None:
    found = small("aim", channels=3, columns=64)
    grid, fmt = grid_of(found), FORMATS["bf16"]
    x = drawn("bf16", 500, 3)
    memory = BankMemory(grid, fmt, 0, grid.rows - 1)
    row = grid.rows - 1
    tables = [lambda v: np.maximum(v, 0), np.tanh, lambda v: v / (1 + np.exp(-v))]
    for exact, table in zip((True, False, False), tables, strict=True):
        memory.bits[:, :, row] = fmt.codes(fmt.encode(table_of(table, grid, fmt)))
        banks = VectorBanks(memory, x)
        banks.run(aim_steps(found, Af(500)) or ())
        got = np.concatenate(banks.results)[:500]
        want = table(np.clip(x.astype(np.float64), -8, 8))
        inside = np.abs(x) < 8
        assert np.allclose(got[inside], want[inside], rtol=0.02, atol=0.02)
        # The last segment goes on for ever.
        assert not exact or np.array_equal(got, np.maximum(x, 0))
    # Another bank's table is not looked at.
    memory.bits[1, 5, row] = 0
    banks = VectorBanks(memory, np.full(96, 3.0, np.float32))
    banks.run(aim_steps(found, Af(96)) or ())
    assert np.flatnonzero(np.concatenate(banks.results)[:48] == 0).tolist() == [16 + 5]


def test_another_place_gives_other_numbers() -> None:
    """A vector a row, a bank or a column away is not what the commands find."""
    found, operator = small("aim", columns=16), Ewmul(3000)
    layout = vector_layout(found, operator)
    a, b = drawn("bf16", 3000, 5), drawn("bf16", 3000, 6)
    want = wanted(operator, "bf16", a, b)
    for axis in (1, 2, 3):
        memory = BankMemory(layout.grid, FORMATS["bf16"], 0, 20)
        memory.store(layout, np.stack([a, b, np.full_like(a, np.nan)]))
        memory.bits = np.roll(memory.bits, 16 if axis == 3 else 1, axis)
        VectorBanks(memory).run(aim_steps(found, operator) or ())
        assert not np.array_equal(memory.load(layout)[2], want)


@pytest.mark.parametrize(
    ("operator", "clocks"),
    [
        # 16 tiles, each half: 3 runs of 8, two rows changed, one turn from writing to reading.
        ("mul:n=262144", 165), ("relu:n=262144", 106),
    ],
)  # fmt: skip
def test_a_half_of_a_tile_takes_its_closed_form(operator: str, clocks: int) -> None:
    short = run_pim("hbm-pim", operator, refresh=False)
    name = operator.partition(":")[0]
    longer = run_pim("hbm-pim", f"{name}:n={2 * 262_144}", refresh=False)
    assert longer.cycles - short.cycles == 2 * 2 * clocks


def test_products_of_two_banks_take_their_closed_form() -> None:
    """tRCDEWMUL, 64 columns, CWL + tWR, tRP for each row of all banks."""
    one, three = (run_pim("aim", f"ewmul:n={n * 131_072}", refresh=False) for n in (1, 3))
    assert three.cycles - one.cycles == 2 * (25 + 63 * 2 + 6 + 33 + 32)
    assert one.commands == {"ACT_ABK": 32, "PRE_ABK": 32, "EWMUL": 2048}


@pytest.mark.parametrize("name", ["aim-refreshed", "hbm-pim"])
def test_every_command_keeps_the_rules(name: str) -> None:
    works = [f"{one}:n=700000" for one in (HBM if name == "hbm-pim" else (*AIM, "af"))]
    for work in works:
        run = run_pim(name, work, check=True)
        assert run.violations == 0, run.verdicts[0].violations[:3]
        assert run.energy_pj["total"] > 0


def test_a_dropped_constraint_shows_in_the_log() -> None:
    from accelsim.hw.pim.channel.checker import check_log

    for name, rule, work in (
        ("hbm-pim", "tWTR_L", "mul:n=700000"), ("hbm-pim", "tRRD_L", "relu:n=700000"),
        ("aim", "tRCDEWMUL", "ewmul:n=9000"), ("aim", "tRCDRDCP", "copy:n=9000"),
        ("aim", "tRCDRDAF", "af:n=9000"), ("aim", "in the registers", "ewadd:n=9000"),
    ):  # fmt: skip
        found = family(name)
        looser = replace(found, constraints=tuple(c for c in found.constraints if c.name != rule))
        log = run_pim(looser, work, refresh=False, log=True).logs[0]
        assert rule in check_log(found, log, refresh=False).rules


def test_what_the_banks_cannot_do_is_one_line() -> None:
    for name, work, message in (
        ("neupims", "add:n=16", "neupims computes no add; accepted: logit, attend, gemv"),
        ("attacc-bank", "mul:n=16", "computes no mul; accepted: attention"),
        ("pim-gpt", "ewmul:n=16", "pim-gpt computes no ewmul; accepted: gemv, logit, attend"),
        ("aim", "relu:n=16", "aim computes no relu; accepted: gemv, ewmul, ewadd, af, copy"),
        ("hbm-pim", "ewmul:n=16", "hbm-pim computes no ewmul; accepted: gemv:m=,n=, add:n="),
        ("hbm-pim", "add:n=0", "accepted: whole numbers from 1"),
        ("hbm-pim", "add", "a value is missing"),
        ("hbm-pim", "add:m=4", "unknown key of add 'm'"),
        (small("hbm-pim", 1, rows=2), "add:n=16384", "needs 6 rows of every bank"),
        (small("aim", 1, rows=2, columns=8), "ewmul:n=16384", "needs 32 rows of every bank"),
        (small("aim", 1, rows=2, columns=8), "copy:n=16384", "needs 16 rows of every bank"),
    ):
        with pytest.raises(AccelsimError) as fault:
            run_pim(name, work)
        assert message in str(fault.value)
        assert "\n" not in str(fault.value)
    with pytest.raises(AccelsimError, match="has no vectors"):
        vector_layout(family("aim"), Af(4))
    assert vector_layout(family("aim"), Ewadd(4)) == vector_layout(family("aim"), Ewmul(4))
    assert vector_layout(family("aim"), Copy(4)).rows == 2
