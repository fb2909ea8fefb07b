"""Saving and loading programs: equal in every field, or one clear line."""

import json
import zipfile
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from accelsim.errors import AccelsimError
from accelsim.numerics.formats import FORMAT_CODES, FORMAT_NAMES, FORMATS
from accelsim.program import archive
from accelsim.program.archive import load, save
from accelsim.program.builder import Builder
from accelsim.program.opcodes import Function
from accelsim.program.table import (
    OPERAND_COLUMN,
    AddressSpace,
    OperatorInfo,
    Program,
    Region,
    StorageInfo,
    UnitSlot,
)


def small() -> Program:
    build = Builder([UnitSlot("vpu", "vpu", 0)], [AddressSpace("m", "sram", 1024, 0)])
    build.begin_operator(OperatorInfo("op", "copy", "by-hand", 0, 2, "a note"))
    bf16 = FORMATS["bf16"]
    x = build.storage(StorageInfo("x", 0, 0, 64, "input", (4, 8), "bf16")).view(4, 8, bf16)
    y = build.storage(StorageInfo("y", 0, 64, 64, "cache", (4, 8), "bf16", 0, ((0, 1), (3, 3))))
    in_banks = (Region(0, 4, 0, 4, 0, 2, 8), Region(0, 4, 4, 4, 32, 2, 8))
    build.storage(StorageInfo("z", 0, 128, 64, "weight", (4, 8), "bf16", regions=in_banks))
    build.vector(0, Function.MUL_IMM, y.view(2, 8, bf16), x[0:2, :], imm=0.1)
    build.approximate("not everything")
    return replace(build.finish(), metadata={"seed": 3, "arch": {"name": "n"}})


def same(a: Program, b: Program) -> bool:
    for field in fields(Program):
        left, right = getattr(a, field.name), getattr(b, field.name)
        if isinstance(left, np.ndarray):
            if left.dtype != right.dtype or not np.array_equal(left, right):
                return False
        elif left != right:
            return False
    return True


def test_a_program_survives_the_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "p.program"
    save(small(), path)
    assert list(tmp_path.iterdir()) == [path]
    assert same(load(path), small())
    save(load(path), tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_an_empty_program_survives_too(tmp_path: Path) -> None:
    empty = Builder([], []).finish()
    save(empty, tmp_path / "p.npz")
    assert same(load(tmp_path / "p.npz"), empty)


def test_formats_are_read_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.npz"
    old = tuple(reversed(FORMAT_NAMES))
    program = small()
    program.operands[:, OPERAND_COLUMN["format"]] = old.index("bf16")
    with monkeypatch.context() as patch:
        patch.setattr(archive, "FORMAT_NAMES", old)
        save(program, path)
    assert set(load(path).operands[:, OPERAND_COLUMN["format"]]) == {FORMAT_CODES["bf16"]}


def _rewrite(path: Path, change) -> None:
    """Change the header of a saved program."""
    with np.load(path) as stored:
        arrays = dict(stored)
    header = json.loads(arrays["header"].tobytes())
    change(header)
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    with path.open("wb") as file:
        np.savez(file, **arrays)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda h: h.update(schema=5), "it has schema 5, this version reads up to 4"),
        (lambda h: h["instruction_columns"].pop(), "its tables have other columns"),
        (lambda h: h["formats"].append("fp7"), "unknown number formats fp7"),
        (lambda h: h.update(kind="something else"), "not a whole accelsim tile program"),
        (lambda h: h.pop("units"), "not a whole accelsim tile program"),
        (lambda h: h["storages"][0].update(colour="red"), "not a whole accelsim tile program"),
        (lambda h: h.update(storages=5), "not a whole accelsim tile program"),
    ],
)
def test_foreign_and_newer_files_are_refused(tmp_path: Path, change, text: str) -> None:
    path = tmp_path / "p.npz"
    save(small(), path)
    _rewrite(path, change)
    with pytest.raises(AccelsimError) as caught:
        load(path)
    assert text in str(caught.value)
    assert str(path) in str(caught.value)


def test_files_that_are_not_programs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    with pytest.raises(AccelsimError, match=r"cannot load the program .*p.npz: No such file"):
        load(path)
    save(small(), path)
    whole = path.read_bytes()
    damaged = [b"", b"text", b"PK\x03\x04", *(whole[:n] for n in range(1, len(whole), 97))]
    damaged.append(whole[:200] + bytes(64) + whole[264:])
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(AccelsimError, match=r"^cannot load .*p\.npz: [^\n]*$"):
            load(path)
    np.save(path, np.arange(3))
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as other:
        other.writestr("a.txt", "a")
    for name in ("p.npz.npy", "other.npz"):
        with pytest.raises(AccelsimError, match="cannot load"):
            load(tmp_path / name)
    np.savez(path, header=np.array([{}], dtype=object))
    with pytest.raises(AccelsimError, match="not a whole"):
        load(path)


def test_tables_of_the_wrong_shape_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    save(replace(small(), immediate=np.zeros(5)), path)
    with pytest.raises(AccelsimError, match="not a whole"):
        load(path)


def test_what_cannot_be_saved_is_said(tmp_path: Path) -> None:
    with pytest.raises(AccelsimError, match="metadata"):
        save(replace(small(), metadata={"a": object()}), tmp_path / "p.npz")
    with pytest.raises(AccelsimError, match=r"cannot save the program to .*nowhere"):
        save(small(), tmp_path / "nowhere" / "p.npz")
