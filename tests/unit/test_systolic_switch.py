"""Systolic arrays that lose cycles between tiles, load part of a tile, round what enters, and hold
the other operand."""

from __future__ import annotations

import numpy as np
import pytest

from accelsim.api import check, simulate
from accelsim.errors import AccelsimError
from accelsim.hw.block import Work
from accelsim.hw.systolic import Systolic
from accelsim.numerics.formats import FORMATS
from accelsim.program.opcodes import Flag, Opcode


def array(**parameters: object) -> Systolic:
    memory = {"inputs": "sp", "weights": "sp", "outputs": "sp"}
    return Systolic(**{"rows": 8, "cols": 8, **memory, **parameters})  # type: ignore[arg-type]


def product(m: int, n: int, k: int, flags: int = 0) -> Work:
    one = np.ones(1, dtype=np.int64)
    return Work(
        one * Opcode.MATMUL, 0 * one, one * flags, one * m, one * n, one * k,
        0 * one, 0 * one, one, one, 0 * one,
    )  # fmt: skip


def occupancy(unit: Systolic, work: Work) -> int:
    return int(unit.cost(work).occupancy_cycles[0])


def test_every_stationary_tile_costs_one_switch() -> None:
    work = product(20, 24, 16)  # 3 x 2 tiles
    plain, switching = array(), array(switch=5)
    assert occupancy(switching, work) == occupancy(plain, work) + 6 * 5
    # The result is there before the array turns to the next tile.
    later = switching.cost(work).latency_cycles - plain.cost(work).latency_cycles
    assert int(later[0]) == 5 * 5


def test_a_tile_of_few_rows_loads_in_their_time() -> None:
    short = product(2, 8, 3)
    assert occupancy(array(), short) == 8
    assert occupancy(array(load_used_rows=True), short) == 3
    assert occupancy(array(load_used_rows=True), product(5, 8, 3)) == 5
    assert occupancy(array(load_used_rows=True), product(2, 8, 30)) == 4 * 8


def test_holding_a_streams_b() -> None:
    held = product(8, 50, 8, Flag.STATIONARY_A)
    assert occupancy(array(), product(8, 50, 8)) == 7 * 8
    assert occupancy(array(), held) == 50
    passes = array().operand_passes(product(24, 50, 8, Flag.STATIONARY_A))
    assert [int(p[0]) for p in passes] == [1, 3, 0, 1]
    # Only a weight-stationary array has that choice.
    assert occupancy(array(dataflow="os"), held) == occupancy(
        array(dataflow="os"), product(8, 50, 8)
    )


def test_wider_operands_are_rounded_as_they_enter() -> None:
    a = np.array([[1.0 + 2.0**-9]], dtype=np.float32)
    b = np.array([[1.0]], dtype=np.float32)
    assert array().multiply(a, b, None)[0, 0] == a[0, 0]
    assert array(operands="bf16").multiply(a, b, None)[0, 0] == 1.0
    assert array(operands="bf16").operand_format is FORMATS["bf16"]


def test_the_bound_knows_what_rounding_on_entry_does() -> None:
    """Products of fp32 tensors on a bf16 array: right by their own bound, wrong by the one of an
    array that keeps fp32."""
    work = "gemm:m=40,n=30,k=50,dtype=fp32"
    rounded = check("tpu-v3", work)
    assert rounded.ok
    assert rounded.max_error_over_bound > 0.05
    exact = check("tpu-v3", work, overrides={"mxu.operands": ""})
    assert exact.ok
    assert "bf16 operands" not in exact.operators[0].arithmetic


def test_a_bound_without_the_rounding_finds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Systolic, "operand_format", FORMATS["fp32"])
    assert not check("tpu-v3", "gemm:m=40,n=30,k=50,dtype=fp32").ok


@pytest.mark.parametrize(
    ("parameter", "value", "problem"),
    [
        ("switch", -1, "switch must not be negative"),
        ("operands", "int8", "operands must be a floating-point format"),
        ("operands", "bf17", "unknown number format 'bf17'"),
    ],
)
def test_senseless_parameters_are_refused(parameter: str, value: object, problem: str) -> None:
    with pytest.raises(AccelsimError, match=problem):
        array(**{parameter: value}).check()


def test_a_slower_switch_is_never_faster() -> None:
    cycles = [
        simulate("tpu-v3", "gemm:m=512,n=512,k=512", overrides={"mxu.switch": s}).cycles
        for s in (0, 20, 80, 320)
    ]
    assert cycles == sorted(cycles)
