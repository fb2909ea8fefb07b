"""The listing: a program that a person can read and diff."""

from random import Random

import pytest

from accelsim.errors import AccelsimError
from accelsim.numerics.formats import FORMATS
from accelsim.program.builder import Builder
from accelsim.program.listing import listing, mnemonic, operand_text, write_listing
from accelsim.program.opcodes import Function
from accelsim.program.table import AddressSpace, OperatorInfo, Program, StorageInfo, UnitSlot

BF16, FP32 = FORMATS["bf16"], FORMATS["fp32"]


def small() -> Program:
    build = Builder(
        [UnitSlot("dma0", "dma", 0), UnitSlot("mxu0", "mxu", 0), UnitSlot("vpu", "vpu", 0)],
        [AddressSpace("hbm", "hbm", 1 << 20, -1), AddressSpace("vmem", "vmem", 4096, 0)],
    )
    build.approximate("one of 2 identical layers is simulated")
    build.begin_operator(OperatorInfo("q_proj", "gemm", "by-hand", 512, layer=3))
    x = build.storage(StorageInfo("x", 0, 0, 256, "input", (8, 16), "bf16")).view(8, 16, BF16)
    y = build.storage(StorageInfo("y", 0, 256, 256, "output", (8, 16), "bf16", 0)).view(8, 16, BF16)
    a = build.storage(StorageInfo("a[0]", 1, 0, 64, "buffer")).view(8, 4, BF16)
    s = build.storage(StorageInfo("sum", 1, 64, 256, "buffer")).view(4, 4, FP32)
    build.load(0, a, x[0:8, 4:8])
    build.matmul(1, s, a, a, accumulate=False, transpose_a=True)
    build.vector(2, Function.MUL_IMM, s, s, imm=0.5)
    build.store(0, y[4:8, 0:4], s)
    return build.finish()


def test_every_instruction_is_one_line() -> None:
    assert listing(small()).splitlines()[-5:] == [
        "# operator 0: q_proj (gemm) by by-hand, 512 MACs, layer 3",
        "0  dma0  LOAD          -> a[0]@vmem+0x0000000 [8x4 bf16]"
        "  <- x[0:8, 4:8]@hbm+0x0000008 bf16",
        "1  mxu0  MATMUL/ta     -> sum@vmem+0x0000040 [4x4 fp32]"
        "  <- a[0]@vmem+0x0000000 [8x4 bf16], a[0]@vmem+0x0000000 [8x4 bf16]  after 0 (dma0)",
        "2  vpu   VECTOR.MUL_IMM  -> sum@vmem+0x0000040 [4x4 fp32]"
        "  <- sum@vmem+0x0000040 [4x4 fp32]  imm 0.5  after 1 (mxu0)",
        "3  dma0  STORE         -> y[4:8, 0:4]@hbm+0x0000180 bf16"
        "  <- sum@vmem+0x0000040 [4x4 fp32]  after 1 (mxu0), 2 (vpu)",
    ]


def test_the_header_names_units_spaces_and_storages() -> None:
    head = listing(small()).split("\n\n")[0].splitlines()
    assert head[0] == "# tile program: 4 instructions, 1 operators, 3 units, 4 storages"
    assert head[1] == "# approximation: one of 2 identical layers is simulated"
    assert "#     1 mxu0  (mxu of core 0)" in head
    assert "#     0 hbm  1048576 bytes  (hbm, shared)" in head
    assert "#     1 y@hbm+0x0000100  256 bytes  output 8x16 bf16  by q_proj" in head


def test_equal_programs_have_equal_listings(tmp_path) -> None:
    write_listing(small(), tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == listing(small())
    with pytest.raises(AccelsimError, match=r"cannot write the listing .*nowhere"):
        write_listing(small(), tmp_path / "nowhere" / "a.txt")


def test_windows_that_are_no_rectangles_show_their_stride() -> None:
    build = Builder([UnitSlot("d", "d", 0)], [AddressSpace("m", "m", 4096, 0)])
    build.begin_operator(OperatorInfo("op", "copy", "", 0))
    storage = build.storage(StorageInfo("t", 0, 0, 256, "input", (8, 16), "bf16"))
    buffer = build.storage(StorageInfo("b", 0, 256, 256, "buffer"))
    build.load(0, buffer.view(2, 20, BF16, stride=64), storage.view(2, 20, BF16, stride=40))
    build.load(0, buffer.view(1, 20, BF16), storage.view(1, 20, BF16, offset=8))
    program = build.finish()
    assert operand_text(program, 0) == "t[0:2, 0:20]@m+0x0000000 bf16"
    assert operand_text(program, 1) == "b@m+0x0000100 [2x20 bf16/64]"
    assert operand_text(program, 2) == "t@m+0x0000008 [1x20 bf16]"


def test_senseless_rows_can_still_be_listed() -> None:
    program = small()
    rng = Random(1)
    for _ in range(200):
        program.instructions[rng.randrange(4), rng.randrange(15)] = rng.choice((-5, 3, 77))
        program.operands[rng.randrange(4), rng.randrange(7)] = rng.choice((-5, 3, 77))
        assert listing(program)
    program.instructions[0, 1] = 99
    assert mnemonic(program, 0) == "opcode 99"
