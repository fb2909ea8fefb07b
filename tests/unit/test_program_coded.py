"""Coded operands in a program: what the builder makes, the verifier refuses, files keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from accelsim.encoding.encodings import CODED, CodedForm, Tile
from accelsim.errors import AccelsimError
from accelsim.numerics.formats import FORMAT_CODES, number_format
from accelsim.program.archive import load, save
from accelsim.program.builder import Builder
from accelsim.program.listing import listing
from accelsim.program.opcodes import Opcode
from accelsim.program.table import (
    COLUMN,
    OPERAND_COLUMN,
    AddressSpace,
    OperatorInfo,
    Program,
    StorageInfo,
    UnitSlot,
)
from accelsim.program.verify import verify, violations

FP16 = number_format("fp16")
FORM = CodedForm("nm:2:4", "fp16", 8, 4, k_rows=True)
NBYTES = 8 * 4 // 2 * 2 + 8  # 16 values of two bytes, 16 indices of two bits
TILES = (Tile(0, 8, 0, 4, 0, NBYTES), Tile(0, 8, 4, 4, 48, NBYTES))


def program(direct: bool = False) -> Program:
    """c[2, 8] = a[2, 8] @ w[8, 8], w in two coded tiles; ``direct``: multiplied as they are."""
    units = [UnitSlot(name, name, 0) for name in ("dma", "decoder", "mxu", "out")]
    build = Builder(
        units, [AddressSpace("hbm", "hbm", 4096, -1), AddressSpace("spad", "spad", 4096, 0)]
    )
    build.begin_operator(OperatorInfo("gemm", "gemm", "hand", 128))

    def tensor(name: str, base: int, nbytes: int, role: str, *shape: int) -> StorageInfo:
        producer = 0 if role == "output" else -1
        return StorageInfo(name, 0, base, nbytes, role, shape, "fp16", producer)

    a, w, c = (
        build.storage(info)
        for info in (
            tensor("a", 0, 32, "input", 2, 8),
            tensor("w", 64, 96, "weight", 8, 8),
            tensor("c", 192, 32, "output", 2, 8),
        )
    )
    build.lay_out_tiles(w, "nm:2:4", TILES)
    names = ("a_buf", "staging", "dense", "sums")
    a_buf, staging, dense, sums = (
        build.storage(StorageInfo(name, 1, 128 * i, 128, "buffer")) for i, name in enumerate(names)
    )
    left = a_buf.view(2, 8, FP16)
    build.load(0, left, a.view(2, 8, FP16))
    for tile in TILES:
        waiting = build.coded(staging, 0, tile.nbytes, FORM)
        build.load(0, waiting, build.coded(w, tile.offset, tile.nbytes, FORM))
        right = waiting if direct else dense.view(8, 4, FP16)
        if not direct:
            build.decode(1, right, waiting)
        total = sums.view(2, 4, number_format("fp32"))
        build.matmul(2, total, left, right, accumulate=False)
        build.store(3, c.view(2, 8, FP16)[:, tile.col : tile.col + 4], total)
        for one in (staging, dense, sums):
            one.renew()
    return build.finish()


def rows_of(opcode: str) -> list[int]:
    return np.flatnonzero(program().column("opcode") == Opcode[opcode]).tolist()


DECODE = rows_of("DECODE")[0]
LOAD = rows_of("LOAD")[1]  # of the first coded tile


def changed(
    i: int,
    operand: str,
    column: str = "",
    value: int = 0,
    whole: Program | None = None,
    **more: int,
) -> Program:
    """The program with other entries in a descriptor that instruction i alone uses."""
    whole = whole or program()
    rows, operands = whole.instructions.copy(), whole.operands.copy()
    new = operands[rows[i, COLUMN[operand]]].copy()
    for name, entry in {**({column: value} if column else {}), **more}.items():
        new[OPERAND_COLUMN[name]] = entry
    rows[i, COLUMN[operand]] = len(operands)
    return replace(whole, instructions=rows, operands=np.vstack([operands, new]))


@pytest.mark.parametrize("direct", [False, True])
def test_coded_tiles_are_copied_decoded_and_multiplied(direct: bool) -> None:
    verify(program(direct))


def encoding_program() -> Program:
    """w[8, 4] pruned to 2:4 and stored as a coded tile."""
    units = [UnitSlot(name, name, 0) for name in ("dma", "pruner", "out")]
    build = Builder(
        units, [AddressSpace("hbm", "hbm", 4096, -1), AddressSpace("spad", "spad", 4096, 0)]
    )
    build.begin_operator(OperatorInfo("prune", "prune_weight", "hand", 0))
    w = build.storage(StorageInfo("w", 0, 0, 64, "input", (8, 4), "fp16"))
    out = build.storage(StorageInfo("out", 0, 64, NBYTES, "output", (8, 4), "fp16", 0))
    build.lay_out_tiles(out, "nm:2:4", TILES[:1])
    dense = build.storage(StorageInfo("dense", 1, 0, 64, "buffer"))
    waiting = build.storage(StorageInfo("coded", 1, 64, NBYTES, "buffer"))
    coded = build.coded(waiting, 0, NBYTES, FORM)
    build.load(0, dense.view(8, 4, FP16), w.view(8, 4, FP16))
    build.encode(1, coded, dense.view(8, 4, FP16))
    build.store(2, build.coded(out, 0, NBYTES, FORM), coded)
    return build.finish()


ENCODE = 1


def test_tiles_are_encoded_on_chip() -> None:
    verify(encoding_program())


def test_a_copy_that_is_not_stored_is_missed() -> None:
    whole = encoding_program()
    found = violations(replace(whole, instructions=whole.instructions[:2]))
    assert any("out" in str(one) for one in found)


@pytest.mark.parametrize(
    ("operand", "entries", "text"),
    [
        (
            "src0",
            {"format": CODED, "rows": 1, "row_bytes": NBYTES, "stride": NBYTES},
            "has a coded source 0",
        ),
        ("src0", {"rows": 4}, "does not agree with m=8, n=4"),
    ],
)
def test_what_is_encoded_is_dense_and_fits(
    operand: str, entries: dict[str, int], text: str
) -> None:
    found = violations(changed(ENCODE, operand, **entries, whole=encoding_program()))
    assert any(text in str(one) for one in found)


FAULTS: dict[int, tuple[Callable[[], Program], str]] = {
    17: (
        lambda: changed(LOAD, "dst", "row_bytes", NBYTES - 2),
        "copies coded bytes of another form or length than the other end",
    ),
    18: (
        lambda: changed(DECODE, "dst", "format", CODED, rows=1),
        "has a coded destination, which only copies, DECODE, ENCODE and products take",
    ),
    19: (
        lambda: changed(DECODE, "src0", "format", FORMAT_CODES["uint8"]),
        "decodes what is not coded: source 0 staging",
    ),
    20: (
        lambda: changed(DECODE, "dst", "format", FORMAT_CODES["bf16"]),
        "decodes into another format than its source has",
    ),
    21: (
        lambda: changed(ENCODE, "dst", "format", FORMAT_CODES["uint8"], encoding_program()),
        "encodes into what is not coded",
    ),
    22: (
        lambda: changed(ENCODE, "src0", "format", FORMAT_CODES["bf16"], encoding_program()),
        "encodes another format than its destination stands for",
    ),
    41: (
        lambda: changed(DECODE, "src0", "rows", 2),
        "of coded bytes that are not one run",
    ),
    36: (lambda: changed(DECODE, "src0", "format", CODED + 1), "of an unknown format"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_coded_operand_cannot_be(fault: int) -> None:
    make, text = FAULTS[fault]
    assert text in str(violations(make())[0])


@pytest.mark.parametrize("step", [-1, 1, 2, 16, 48])
def test_a_wrong_tile_offset_is_caught(step: int) -> None:
    base = int(program().operands[program().sources[LOAD, 0], OPERAND_COLUMN["base"]])
    found = violations(changed(LOAD, "src0", "base", base + step))
    if step == 48:  # the other tile: a whole one, of other columns; the numbers show it
        assert not found
    else:
        assert found[0].kind in ("layout", "bounds")


@pytest.mark.parametrize(
    ("tiles", "text"),
    [
        ((TILES[0], TILES[1]._replace(offset=32)), "at the same bytes"),
        ((TILES[0], TILES[1]._replace(col=2)), "parts of which are in another one"),
        ((TILES[0], TILES[1]._replace(col=6)), "which leaves its 8 x 8"),
        ((TILES[0], TILES[1]._replace(offset=90)), "beyond its 96 bytes"),
        ((TILES[0], TILES[1]._replace(nbytes=0)), "has the senseless tile"),
        ((TILES[0],), "which is no tile of w (nm:2:4)"),
        ((TILES[0], TILES[1]._replace(nbytes=NBYTES - 1)), "which is no tile of w (nm:2:4)"),
    ],
)
def test_tiles_lie_apart_and_are_what_operands_read(tiles: tuple[Tile, ...], text: str) -> None:
    whole = program()
    storages = [replace(s, tiles=tiles) if s.name == "w" else s for s in whole.storages]
    assert text in str(violations(replace(whole, storages=tuple(storages)))[0])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"encoding": "nm:4:2"}, "sparsity 4:2 keeps 4 of 2"),
        ({"encoding": ""}, "has coded tiles, but no encoding"),
        ({"panels": (0, 4)}, "is coded and in panels"),
        ({"encoding": "bitmap"}, "which is no tile of w (bitmap)"),
    ],
)
def test_coded_storages_must_make_sense(change: dict[str, object], text: str) -> None:
    whole = program()
    storages = [replace(s, **change) if s.name == "w" else s for s in whole.storages]
    assert text in str(violations(replace(whole, storages=tuple(storages)))[0])


def test_files_keep_coded_tiles(tmp_path: Path) -> None:
    whole = program()
    save(whole, tmp_path / "p.npz")
    again = load(tmp_path / "p.npz")
    assert (again.storages, again.forms) == (whole.storages, whole.forms)
    assert (again.operands == whole.operands).all()
    verify(again)


def test_the_listing_tells_tiles_and_bytes() -> None:
    text = listing(program())
    assert "w[0:8, 4:8]@hbm+0x0000070 nm:2:4 fp16 40 bytes" in text
    assert "staging@spad+0x0000080 [8x4 nm:2:4 fp16] 40 bytes" in text
    assert "nm:2:4 in 2 tiles" in text


def test_only_whole_coded_tiles_are_operands() -> None:
    build = Builder([UnitSlot("dma", "dma", 0)], [AddressSpace("hbm", "hbm", 4096, -1)])
    storage = build.storage(StorageInfo("w", 0, 0, 96, "weight", (8, 8), "fp16"))
    tile = build.coded(storage, 0, NBYTES, FORM)
    assert tile[0:8, 0:4] is tile
    with pytest.raises(AccelsimError, match=r"rows 0:4, columns 0:4 of w, .* only whole tiles"):
        tile[0:4, 0:4]


def test_units_that_do_not_decode_are_not_given_coded_operands() -> None:
    from accelsim.api import arch
    from accelsim.engine.bind import bind

    machine = arch("coded-npu")
    names = {"dma": "dma", "decoder": "decoder", "mxu": "mxu", "out": "dma"}
    spaces = {"hbm": "dram", "spad": "vmem"}

    def on_machine(whole: Program) -> Program:
        units = tuple(replace(slot, unit=names[slot.unit]) for slot in whole.units)
        memories = tuple(replace(space, memory=spaces[space.memory]) for space in whole.spaces)
        return replace(whole, units=units, spaces=memories)

    bound = bind(on_machine(program()), machine)
    decodes = program().column("opcode") == Opcode.DECODE
    assert bound.actions["decoder"]["coded_byte"][decodes].tolist() == [NBYTES, NBYTES]
    assert bound.actions["decoder"]["decoded"][decodes].tolist() == [32, 32]
    with pytest.raises(
        AccelsimError, match=r"unit 'mxu' \(kind: systolic\) does not read .* stored as nm:2:4"
    ):
        bind(on_machine(program(direct=True)), machine)
