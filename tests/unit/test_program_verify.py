"""The static verifier on programs written by hand, one rule at a time."""

from dataclasses import replace

import numpy as np
import pytest

from accelsim.encoding.encodings import CODED
from accelsim.numerics.formats import FORMAT_CODES
from accelsim.program.opcodes import ISSUED, Flag, Function, Opcode
from accelsim.program.table import (
    COLUMN,
    OPERAND_COLUMN,
    WIDTH,
    AddressSpace,
    OperatorInfo,
    Program,
    StorageInfo,
    UnitSlot,
)
from accelsim.program.verify import VerificationError, verify, violations
from accelsim.program.verify.structure import OPERAND_FAULTS, ROW_FAULTS

DMA0, DMA1, MXU, VPU = range(4)
BF16, FP32, INT8, INT32 = (FORMAT_CODES[f] for f in ("bf16", "fp32", "int8", "int32"))
X, W, C, A_BUF, B_BUF, SUM, SPARE = range(7)
SIDE = 4  # every tensor and buffer is [4, 4]


class Hand:
    """A program in the making: c = x @ w on one array, as raw table rows."""

    def __init__(self) -> None:
        self.rows: list[list[int]] = []
        self.operands: list[list[int]] = []
        self.storages = [
            StorageInfo("x", 0, 0, 32, "input", (4, 4), "bf16"),
            StorageInfo("w", 0, 32, 32, "weight", (4, 4), "bf16"),
            StorageInfo("c", 0, 64, 32, "output", (4, 4), "bf16", 0),
            StorageInfo("a_buf", 1, 0, 32, "buffer"),
            StorageInfo("b_buf", 1, 32, 32, "buffer"),
            StorageInfo("sum", 1, 64, 64, "buffer"),
            StorageInfo("spare", 1, 128, 64, "buffer"),
        ]

    def operand(
        self,
        storage: int,
        fmt: int,
        *,
        rows: int = SIDE,
        cols: int = SIDE,
        offset: int = 0,
        stride: int = 0,
    ) -> int:
        width = {BF16: 2, FP32: 4, INT8: 1, INT32: 4}[fmt]
        info = self.storages[storage]
        self.operands.append(
            [storage, info.space, info.base + offset, rows, cols * width, stride or 4 * width, fmt]
        )
        return len(self.operands) - 1

    def emit(
        self, unit: int, opcode: Opcode, dst: int, *sources: int, after: tuple[int, ...] = (),
        shape: tuple[int, int, int] = (SIDE, SIDE, 0), flags: int = 0, function: int = 0,
    ) -> int:  # fmt: skip
        deps = (*after, -1, -1, -1)[:3]
        read = (*sources, -1, -1, -1)[:3]
        self.rows.append([unit, opcode, function, flags, 0, *shape, *deps, dst, *read])
        return len(self.rows) - 1

    def load(self, unit: int, dst: int, src: int, after: tuple[int, ...] = ()) -> int:
        return self.emit(
            unit, Opcode.LOAD, self.operand(dst, BF16), self.operand(src, BF16), after=after
        )

    def product(self, after: tuple[int, ...], flags: int = 0) -> int:
        a, b = self.operand(A_BUF, BF16), self.operand(B_BUF, BF16)
        dst = self.operand(SUM, FP32)
        return self.emit(MXU, Opcode.MATMUL, dst, a, b, after=after, shape=(4, 4, 4), flags=flags)

    def store(self, after: tuple[int, ...], rows: slice = slice(0, 4), unit: int = DMA1) -> int:
        n = rows.stop - rows.start
        dst = self.operand(C, BF16, rows=n, offset=8 * rows.start)
        src = self.operand(SUM, FP32, rows=n, offset=16 * rows.start)
        return self.emit(unit, Opcode.STORE, dst, src, after=after, shape=(n, 4, 0))

    def program(self) -> Program:
        return Program(
            units=tuple(UnitSlot(n, n, 0) for n in ("dma0", "dma1", "mxu0", "vpu")),
            spaces=(AddressSpace("hbm", "hbm", 256, -1), AddressSpace("vmem", "vmem", 256, 0)),
            storages=tuple(self.storages),
            operators=(OperatorInfo("proj", "gemm", "hand", 64),),
            instructions=np.array(self.rows, dtype=np.int64).reshape(-1, WIDTH),
            immediate=np.zeros(len(self.rows)),
            operands=np.array(self.operands, dtype=np.int64).reshape(-1, 7),
        )


def gemm() -> Hand:
    """load, load, multiply, store: correct."""
    hand = Hand()
    a, b = hand.load(DMA0, A_BUF, X), hand.load(DMA1, B_BUF, W)
    hand.store((hand.product((a, b)),))
    return hand


def only(program: Program) -> str:
    """The single violation of a program; verify() must raise the same text."""
    found = violations(program)
    assert len(found) == 1, [str(v) for v in found]
    with pytest.raises(VerificationError) as caught:
        verify(program)
    assert str(caught.value) == str(found[0])
    assert "\n" not in str(found[0])
    return str(found[0])


def test_a_correct_program_passes() -> None:
    verify(gemm().program())
    assert violations(gemm().program()) == []


def test_an_empty_program_passes() -> None:
    verify(replace(Hand().program(), storages=()))


def test_a_read_must_wait_for_its_writer() -> None:
    hand = gemm()
    hand.rows[2][COLUMN["dep0"]] = -1
    text = only(hand.program())
    assert text.startswith("operator 'proj': instruction 2 (mxu0 MATMUL) reads a_buf@vmem")
    assert "without waiting for instruction 0 (dma0 LOAD), which writes it" in text


def test_a_read_on_the_writers_own_unit_must_wait_too() -> None:
    hand = gemm()
    hand.rows[1][COLUMN["unit"]] = hand.rows[3][COLUMN["unit"]] = MXU
    hand.rows[3][COLUMN["dep0"]] = -1
    text = only(hand.program())
    assert "instruction 3 (mxu0 STORE) reads sum" in text
    assert "may start before its previous result has left it" in text


def test_a_wait_for_a_later_instruction_of_the_writers_unit_suffices() -> None:
    hand = Hand()
    hand.load(DMA0, A_BUF, X)
    later = hand.load(DMA0, B_BUF, W)
    hand.store((hand.product((later,)),))
    verify(hand.program())


def test_a_wait_reaches_through_joins_and_other_units() -> None:
    hand = Hand()
    a, b = hand.load(DMA0, A_BUF, X), hand.load(DMA1, B_BUF, W)
    relay = hand.emit(VPU, Opcode.JOIN, -1, after=(a,))
    hand.emit(MXU, Opcode.JOIN, -1, after=(relay,))
    hand.store((hand.product((b,)),))
    verify(hand.program())


def test_an_accumulation_needs_no_wait_on_its_own_unit() -> None:
    hand = Hand()
    a, b = hand.load(DMA0, A_BUF, X), hand.load(DMA1, B_BUF, W)
    hand.product((a, b))
    hand.store((hand.product((), flags=Flag.ACCUMULATE),))
    verify(hand.program())


def test_an_accumulation_waits_for_a_sum_that_another_opcode_started() -> None:
    hand = Hand()
    a, b = hand.load(DMA0, A_BUF, X), hand.load(DMA1, B_BUF, W)
    zero = hand.emit(MXU, Opcode.FILL, hand.operand(SUM, FP32))
    hand.store((hand.product((a, b), flags=Flag.ACCUMULATE),))
    assert f"waiting for instruction {zero} (mxu0 FILL)" in only(hand.program())


def test_an_accumulation_onto_nothing_is_a_read_of_nothing() -> None:
    hand = gemm()
    hand.rows[2][COLUMN["flags"]] = int(Flag.ACCUMULATE)
    assert "reads sum@vmem+0x0000040 [4x4 fp32], part of which nothing has written" in only(
        hand.program()
    )


def test_an_overwrite_must_wait_for_readers() -> None:
    hand = gemm()
    hand.load(DMA0, A_BUF, X)
    text = only(hand.program())
    assert "instruction 4 (dma0 LOAD) writes a_buf" in text
    assert "without waiting for instruction 2 (mxu0 MATMUL), which still reads those bytes" in text
    hand.rows[4][COLUMN["dep0"]] = 2
    verify(hand.program())


def test_an_overwrite_must_wait_for_writers_of_other_units() -> None:
    hand = gemm()
    hand.load(DMA0, SPARE, X)
    hand.load(DMA0, SPARE, W)
    verify(hand.program())
    hand.load(DMA1, SPARE, X)
    assert "waiting for instruction 5 (dma0 LOAD), which writes those bytes" in only(hand.program())


def test_windows_of_one_buffer_conflict_only_where_they_meet() -> None:
    hand = Hand()
    left = {"rows": 4, "cols": 2, "stride": 8}
    whole = hand.load(DMA0, A_BUF, X)
    b = hand.load(DMA1, B_BUF, W)
    p = hand.product((whole, b))
    hand.store((p,))
    hand.emit(
        VPU, Opcode.VECTOR, hand.operand(SPARE, BF16, **left), hand.operand(A_BUF, BF16, **left),
        after=(whole,), shape=(4, 2, 0), function=Function.COPY,
    )  # fmt: skip
    right = hand.operand(A_BUF, BF16, **left, offset=4)
    source = hand.operand(X, BF16, **left, offset=4)
    hand.emit(DMA1, Opcode.LOAD, right, source, after=(p,), shape=(4, 2, 0))
    verify(hand.program())
    hand.operands[right][OPERAND_COLUMN["base"]] -= 2
    assert "waiting for instruction 4 (vpu VECTOR.COPY)" in only(hand.program())


def test_storages_at_one_address_conflict_by_bytes() -> None:
    hand = gemm()
    hand.storages[SPARE] = replace(hand.storages[SPARE], base=16, nbytes=32)
    hand.load(DMA0, SPARE, X, after=(2,))
    verify(hand.program())
    hand.rows[4][COLUMN["dep0"]] = -1
    assert "instruction 2 (mxu0 MATMUL), which still reads" in only(hand.program())
    hand.storages[SPARE] = replace(hand.storages[SPARE], base=128)
    hand.operands[-2][OPERAND_COLUMN["base"]] = 128
    verify(hand.program())


def test_a_buffer_is_lost_once_another_one_took_its_bytes() -> None:
    hand = Hand()
    hand.storages[SPARE] = replace(hand.storages[SPARE], base=0, nbytes=32)
    a, b = hand.load(DMA0, A_BUF, X), hand.load(DMA1, B_BUF, W)
    over = hand.load(DMA0, SPARE, X, after=(a,))
    hand.store((hand.product((over, b)),))
    text = only(hand.program())
    assert "reads a_buf" in text
    assert "whose bytes instruction 2 (dma0 LOAD) has overwritten with spare" in text


def test_tensors_that_both_hold_data_at_the_start_may_not_overlap() -> None:
    hand = gemm()
    hand.storages[W] = replace(hand.storages[W], base=16)
    assert only(hand.program()).endswith("hold data from the start at the same addresses")


def test_an_activation_must_be_written_before_it_is_read() -> None:
    hand = gemm()
    hand.storages[X] = replace(hand.storages[X], role="activation")
    assert "reads x[0:4, 0:4]@hbm+0x0000000 bf16, part of which nothing has written" in only(
        hand.program()
    )


def test_every_element_of_an_output_is_written() -> None:
    hand = Hand()
    a, b = hand.load(DMA0, A_BUF, X), hand.load(DMA1, B_BUF, W)
    hand.store((hand.product((a, b)),), rows=slice(0, 3))
    text = only(hand.program())
    assert text == "operator 'proj': no instruction writes output c at row 3, column 0"


def test_no_element_of_an_output_is_written_twice() -> None:
    hand = Hand()
    a, b = hand.load(DMA0, A_BUF, X), hand.load(DMA1, B_BUF, W)
    p = hand.product((a, b))
    hand.store((p,), rows=slice(0, 3))
    hand.store((p,), rows=slice(2, 4))
    assert "(dma1 STORE) writes output c at row 2, column 0 again, after instruction 3" in only(
        hand.program()
    )


def test_only_the_producer_writes_a_tensor() -> None:
    hand = gemm()
    operators = (OperatorInfo("proj", "gemm", "hand", 64), OperatorInfo("other", "gemm", "", 0))
    hand.storages[C] = replace(hand.storages[C], producer=1)
    assert "writes output c, which operator 'other' produces" in only(
        replace(hand.program(), operators=operators)
    )
    hand.storages[C] = replace(hand.storages[C], producer=-1, role="cache")
    assert "writes cache c, which no operator produces" in only(hand.program())


def test_a_cache_is_written_only_in_its_new_rows() -> None:
    hand = Hand()
    hand.storages[C] = replace(hand.storages[C], role="cache", written=((1, 2),))
    a, b = hand.load(DMA0, A_BUF, X), hand.load(DMA1, B_BUF, W)
    p = hand.product((a, b))
    s = hand.store((p,), rows=slice(1, 3))
    old = hand.operand(C, BF16, rows=1)
    hand.emit(DMA0, Opcode.LOAD, hand.operand(SPARE, BF16, rows=1), old, shape=(1, 4, 0))
    verify(hand.program())
    hand.operands[old][OPERAND_COLUMN["base"]] += 8
    assert f"without waiting for instruction {s} (dma1 STORE)" in only(hand.program())
    hand.operands[old][OPERAND_COLUMN["base"]] -= 8
    hand.operands[hand.rows[s][COLUMN["dst"]]][OPERAND_COLUMN["base"]] -= 8
    assert "writes cache c at row 0, column 0, which is not its to write" in str(
        violations(hand.program())[0]
    )


def test_the_new_rows_of_a_cache_hold_nothing_before_they_are_written() -> None:
    hand = Hand()
    hand.storages[C] = replace(hand.storages[C], role="cache", written=((1, 2),))
    early = hand.load(VPU, SPARE, C)
    a, b = hand.load(DMA0, A_BUF, X), hand.load(DMA1, B_BUF, W)
    hand.store((hand.product((a, b)), early), rows=slice(1, 3))
    assert "reads c[0:4, 0:4]@hbm+0x0000040 bf16, part of which nothing has written" in only(
        hand.program()
    )
    source = hand.operands[hand.rows[early][COLUMN["src0"]]]
    target = hand.operands[hand.rows[early][COLUMN["dst"]]]
    hand.rows[early][COLUMN["m"]] = source[OPERAND_COLUMN["rows"]] = 1
    target[OPERAND_COLUMN["rows"]] = 1
    verify(hand.program())
    source[OPERAND_COLUMN["base"]] += 24
    verify(hand.program())


def test_storages_must_fit_their_memory() -> None:
    hand = gemm()
    small = (AddressSpace("hbm", "hbm", 256, -1), AddressSpace("vmem", "vmem", 127, 0))
    hand.storages.pop()
    text = only(replace(hand.program(), spaces=small))
    assert text == "buffer sum at 64 with 64 bytes is not inside vmem, which has 127 bytes"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"space": 7}, "lies in address space 7, which does not exist"),
        ({"base": -1}, "is not inside hbm"),
        ({"format": "fp7"}, "has the unknown number format 'fp7'"),
        ({"shape": (5, 4)}, "has 32 bytes, too few for 5x4 bf16"),
        ({"producer": 3}, "is produced by operator 3, which does not exist"),
        ({"written": ((0, 1), (1, 2))}, "must be written in rows 1 to 2"),
        ({"written": ((3, 4),)}, "must be written in rows 3 to 4"),
    ],
)
def test_storages_must_make_sense(change: dict[str, object], text: str) -> None:
    hand = gemm()
    hand.storages[C] = replace(hand.storages[C], **change)
    assert text in only(hand.program())


def _row(column: str, value: int, i: int = 2) -> object:
    return lambda hand: hand.rows[i].__setitem__(COLUMN[column], value)


def _operand(column: str, value: int, source: str = "src0") -> object:
    def change(hand: Hand) -> None:
        hand.operands[hand.rows[2][COLUMN[source]]][OPERAND_COLUMN[column]] = value

    return change


FAULTS = {
    1: (_row("unit", 9), "is on a unit that does not exist"),
    2: (_row("opcode", 15), "has an unknown opcode"),
    3: (_row("operator", 4), "belongs to an operator that does not exist"),
    4: (_row("flags", 8), "has flags that mean nothing here"),
    5: (_row("opcode", Opcode.VECTOR), "has a function that is unknown here"),
    6: (_row("dep1", 2), "waits for instruction 2, which is not an earlier one"),
    7: (_row("src1", 99), "has operand descriptor 99 as source 1, which does not exist"),
    8: (_row("src1", -1), "has no source 1"),
    9: (_row("src2", 0), "has a source 2 it does not use: a_buf"),
    10: (_operand("stride", 8, "dst"), "writes rows that overlap each other: destination sum"),
    11: (_row("k", 3), "which does not agree with m=4, n=4, k=3 and its flags"),
    13: (_row("m", 0), "has the empty shape m=0, n=4, k=4"),
    15: (_operand("format", FORMAT_CODES["fp16"], "src1"), "multiplies different formats"),
    16: (_operand("format", INT32, "dst"), "sums in a format of another kind: destination sum"),
    33: (_operand("storage", 99), "has source 0 in a storage that does not exist"),
    34: (_operand("space", 0), "in another address space than its storage"),
    35: (_operand("rows", 0), "has an empty source 0"),
    36: (_operand("format", 99), "of an unknown format"),
    37: (_operand("row_bytes", 7), "whose rows are not whole elements"),
    40: (_operand("base", 2), "which is not inside a_buf"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_instructions_must_make_sense(fault: int) -> None:
    change, text = FAULTS[fault]
    hand = gemm()
    change(hand)
    assert text in only(hand.program())


def test_tensor_windows_are_whole_elements_of_the_tensors_format() -> None:
    hand = gemm()
    hand.operands[hand.rows[0][COLUMN["src0"]]][OPERAND_COLUMN["format"]] = FORMAT_CODES["fp16"]
    assert "source 0 x[0:4, 0:4]@hbm+0x0000000 fp16 of another format than the tensor" in only(
        hand.program()
    )
    hand = gemm()
    window = hand.operands[hand.rows[0][COLUMN["src0"]]]
    window[OPERAND_COLUMN["base"]] += 1
    window[OPERAND_COLUMN["stride"]] -= 1
    window[OPERAND_COLUMN["row_bytes"]] -= 2
    assert "starts inside an element" in only(hand.program())


def test_gathers_take_integer_row_numbers_and_rotations_whole_heads() -> None:
    hand = Hand()
    ids = hand.operand(W, BF16, cols=1, stride=8)
    dst, table = hand.operand(A_BUF, BF16), hand.operand(X, BF16)
    hand.emit(DMA0, Opcode.GATHER, dst, table, ids)
    hand.storages[C] = replace(hand.storages[C], role="buffer", producer=-1)
    assert "takes row numbers that are not integers: source 1 w" in only(hand.program())
    hand = gemm()
    dst, src = hand.operand(SPARE, BF16), hand.operand(A_BUF, BF16)
    hand.emit(VPU, Opcode.VECTOR, dst, src, after=(0,), function=Function.ROTATE_HALF)
    program = hand.program()
    assert "rotates heads that do not divide its 4 columns" in only(program)
    program.immediate[-1] = 4
    verify(program)


def test_a_limit_cuts_the_list_of_violations() -> None:
    hand = gemm()
    for row in hand.rows:
        row[COLUMN["dep0"]] = row[COLUMN["dep1"]] = -1
    assert [v.instruction for v in violations(hand.program())] == [2, 3]
    assert [v.kind for v in violations(hand.program(), limit=1)] == ["read-after-write"]


def test_every_fault_of_the_kernels_has_words_and_a_test() -> None:
    coded = {17, 18, 19, 20, 21, 22, 41}  # test_program_coded.py
    tested = {*FAULTS, 12, 14, 38, 39, *coded}
    assert tested == {*ROW_FAULTS, *(32 + code for code in OPERAND_FAULTS)}


def test_kernel_literals_agree_with_the_tables() -> None:
    from accelsim.program.verify import cell_kernels, hazard_kernels, hazards, structure_kernels

    assert structure_kernels.CODED == CODED
    for kernels in (structure_kernels, hazard_kernels):
        for name in ("unit", "opcode", "flags", "dst"):
            assert getattr(kernels, name.upper()) == COLUMN[name]
        assert COLUMN["dep0"] == kernels.DEPENDENCY
    for name in ("function", "operator", "m", "n", "k"):
        assert getattr(structure_kernels, name.upper()) == COLUMN[name]
    assert COLUMN["src0"] == structure_kernels.SOURCE
    assert (
        COLUMN["flags"], COLUMN["operator"], COLUMN["dst"],
    ) == (cell_kernels.FLAGS, cell_kernels.OPERATOR, cell_kernels.DST)  # fmt: skip
    for name, at in OPERAND_COLUMN.items():
        assert getattr(structure_kernels, name.upper()) == at
        assert getattr(cell_kernels, f"D_{name.upper()}", at) == at
    assert structure_kernels.TRANSPOSE_A == Flag.TRANSPOSE_A
    assert structure_kernels.TRANSPOSE_B == Flag.TRANSPOSE_B
    names = ["ACCUMULATE", "SCALAR", "FORWARD", "RESCALE", "ABREAST", "HELD", "KEPT", "COLUMNS"]
    for name in names:
        assert getattr(structure_kernels, name) == Flag[name]
    for c, flag in enumerate(ISSUED):
        assert structure_kernels.ISSUED << c == flag
    others = (
        *(structure_kernels.SCALAR, structure_kernels.FORWARD, structure_kernels.COLUMNS),
        *(structure_kernels.ABREAST, structure_kernels.HELD, structure_kernels.KEPT),
        *ISSUED,
    )
    assert sum(Flag) == structure_kernels.MATMUL_FLAGS + sum(others)
    assert Function.EXP == structure_kernels.EXP
    assert OPERAND_COLUMN["storage"] == hazard_kernels.D_STORAGE
    for name in ("R_CELL", "R_LINES", "R_WIDTH", "R_STEP"):
        assert getattr(hazard_kernels, name) == getattr(cell_kernels, name)
    for name in ("NEVER_WRITTEN", "OVERWRITTEN", "READ_EARLY", "OVERTAKES_READ"):
        assert getattr(hazards, name) == getattr(hazard_kernels, name)


def test_importing_the_verifier_loads_no_compiler() -> None:
    import subprocess
    import sys

    code = "import sys, accelsim.program.verify; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
