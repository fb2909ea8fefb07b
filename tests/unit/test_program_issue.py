"""Waits for the issue, forwarding, and products that go on: what the tables may say, and mean."""

from __future__ import annotations

import numpy as np
import pytest
from test_program_verify import A_BUF, BF16, DMA0, FP32, SPARE, SUM, VPU, Hand, X, gemm, only

from accelsim.engine import TimedProgram, run
from accelsim.errors import AccelsimError
from accelsim.program.listing import listing
from accelsim.program.opcodes import Flag, Function, Opcode
from accelsim.program.table import COLUMN
from accelsim.program.verify import violations

NOTHING = "has flags that mean nothing here"


def timed(**columns: object) -> TimedProgram:
    """Two units: one works for 2 ticks and has its result after 9, the other waits for it."""
    values = {
        "unit": np.array([0, 1], np.int32),
        "occupancy": np.array([2, 1]),
        "latency": np.array([9, 1]),
        "dep": np.array([[-1, -1, -1], [0, -1, -1]], np.int32),
        "port": np.full((2, 1), -1, np.int16),
        "hold": np.zeros((2, 1), np.int64),
        "units": 2,
        "ports": 0,
    }
    return TimedProgram(**{**values, **columns})


def early(*marks: tuple[bool, bool, bool]) -> np.ndarray:
    return np.array(marks, dtype=bool)


def test_a_wait_for_the_issue_ends_when_the_unit_is_free() -> None:
    none, first = (False, False, False), (True, False, False)
    assert run(timed()).start.tolist() == [0, 9]
    assert run(timed(early=early(none, none))).start.tolist() == [0, 9]
    assert run(timed(early=early(none, first))).start.tolist() == [0, 2]
    held = {"port": np.array([[0], [-1]], np.int16), "hold": np.array([[5], [0]]), "ports": 1}
    assert run(timed(early=early(none, first), **held)).start.tolist() == [0, 5]


def test_marks_of_the_wrong_form_are_refused() -> None:
    with pytest.raises(AccelsimError, match=r"early must be bool\[2, 3\], got int64\[2, 3\]"):
        run(timed(early=np.zeros((2, 3), np.int64)))
    with pytest.raises(AccelsimError, match=r"early must be bool\[2, 3\], got bool\[1, 3\]"):
        run(timed(early=early((True, False, False))))


def overwritten(flag: Flag) -> Hand:
    """A load overwrites what a product reads, and waits for its issue or its finish."""
    hand = gemm()
    flags = int(flag)
    hand.emit(DMA0, Opcode.LOAD, hand.operand(A_BUF, BF16), hand.operand(X, BF16), after=(2,))
    hand.rows[-1][COLUMN["flags"]] = flags
    return hand


def test_an_overwrite_waits_for_the_issue_of_a_reader() -> None:
    assert violations(overwritten(Flag.ISSUED0).program()) == []
    assert "after issue of 2 (mxu0)" in listing(overwritten(Flag.ISSUED0).program())
    assert "after 2 (mxu0)" in listing(overwritten(Flag.NONE).program())


def test_a_read_does_not() -> None:
    hand = gemm()
    hand.rows[3][COLUMN["flags"]] = int(Flag.ISSUED0)
    assert "reads sum" in only(hand.program())


@pytest.mark.parametrize("late", [True, False])
def test_what_is_forwarded_is_read_at_the_finish(late: bool) -> None:
    """A running sum in ``spare``: its second half reads the first, which is then overwritten."""
    hand = gemm()
    one = hand.operand(SUM, FP32, rows=1)
    first, second = (hand.operand(SPARE, FP32, rows=1, offset=16 * i) for i in (0, 1))
    shape = (1, 4, 0)
    hand.emit(VPU, Opcode.VECTOR, first, one, one, after=(2,), shape=shape, function=Function.ADD)
    hand.emit(
        VPU, Opcode.VECTOR, second, one, first, shape=shape, function=Function.ADD,
        flags=int(Flag.FORWARD),
    )  # fmt: skip
    hand.emit(DMA0, Opcode.FILL, first, after=(4, 5), shape=shape)
    hand.rows[-1][COLUMN["flags"]] = int(Flag.NONE if late else Flag.ISSUED1)
    found = [v.kind for v in violations(hand.program())]
    assert found == ([] if late else ["write-after-read"])
    hand.rows[5][COLUMN["flags"]] = 0
    assert "read-after-write" in {v.kind for v in violations(hand.program())}


def test_a_younger_reader_does_not_speak_for_one_that_reads_late() -> None:
    """Both on one unit: that the younger has been issued leaves the older in its pipeline."""
    hand = gemm()
    one = hand.operand(SUM, FP32, rows=1)
    held, *sums = (hand.operand(SPARE, FP32, rows=1, offset=16 * i) for i in range(3))
    row = {"shape": (1, 4, 0), "function": Function.ADD}
    hand.emit(VPU, Opcode.VECTOR, held, one, one, after=(2,), **row)
    hand.emit(VPU, Opcode.VECTOR, sums[0], one, held, flags=int(Flag.FORWARD), **row)
    hand.emit(VPU, Opcode.VECTOR, sums[1], one, held, after=(4,), **row)
    hand.emit(DMA0, Opcode.FILL, held, after=(4, 6), shape=(1, 4, 0), flags=int(Flag.ISSUED1))
    assert [v.kind for v in violations(hand.program())] == ["write-after-read"]
    hand.rows[-1][COLUMN["dep2"]] = 5
    assert violations(hand.program()) == []


@pytest.mark.parametrize(
    ("i", "flags", "function", "said"),
    [
        (0, Flag.FORWARD, 0, NOTHING),
        (2, Flag.FORWARD, 0, NOTHING),
        (2, Flag.ISSUED2, 0, NOTHING),  # it has two waits
        (2, Flag.RESCALE, 0, NOTHING),
        (2, Flag.ACCUMULATE, Function.EXP, NOTHING),
        (2, Flag.NONE, Function.RELU, "has a function that is unknown here"),
    ],
)
def test_flags_and_functions_must_mean_something(
    i: int, flags: Flag, function: int, said: str
) -> None:
    hand = gemm()
    hand.rows[i][COLUMN["flags"]] = int(flags)
    hand.rows[i][COLUMN["function"]] = int(function)
    assert said in only(hand.program())


def test_only_a_running_sum_is_rescaled_by_a_column() -> None:
    hand = gemm()
    column = hand.operand(SPARE, FP32, cols=1)
    hand.emit(VPU, Opcode.FILL, column, shape=(4, 1, 0))
    hand.rows[2][COLUMN["src2"]] = column
    hand.rows[2][COLUMN["flags"]] = int(Flag.RESCALE)
    assert NOTHING in only(hand.program())
    hand.rows[2][COLUMN["flags"]] = int(Flag.RESCALE | Flag.ACCUMULATE)
    hand.rows[2][COLUMN["src2"]] = hand.operand(SPARE, FP32)
    assert "has source 2 spare" in only(hand.program())
