"""Programs as files: one .npz with the tables as arrays and the rest as JSON, no pickle."""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from accelsim.encoding.encodings import CodedForm, Tile
from accelsim.errors import AccelsimError
from accelsim.numerics.formats import FORMAT_CODES, FORMAT_NAMES
from accelsim.program.table import (
    INSTRUCTION_COLUMNS,
    OPERAND_COLUMN,
    OPERAND_COLUMNS,
    AddressSpace,
    OperatorInfo,
    Program,
    Region,
    StorageInfo,
    UnitSlot,
)

SCHEMA = 4  # 2: storages in panels; 3: coded tiles; 4: regions in banks
KIND = "accelsim tile program"
TABLES = {"instructions": np.int64, "immediate": np.float64, "operands": np.int64}

# What a damaged or foreign file makes numpy, zipfile and json raise.
UNREADABLE = (
    zipfile.BadZipFile, zlib.error, ValueError, KeyError, TypeError, EOFError,
    RuntimeError, AttributeError,
)  # fmt: skip


def save(program: Program, path: str | Path) -> None:
    """Write a program to ``path`` (conventionally *.npz). Its metadata must be JSON values."""
    try:
        text = json.dumps(_header(program), allow_nan=False)
    except (TypeError, ValueError) as fault:
        raise AccelsimError(f"cannot save the program to {path}: metadata: {fault}") from None
    tables = {
        name: np.ascontiguousarray(getattr(program, name), kind) for name, kind in TABLES.items()
    }
    header = np.frombuffer(text.encode(), dtype=np.uint8)
    try:
        with Path(path).open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, header=header, **tables)
    except OSError as fault:
        raise AccelsimError(f"cannot save the program to {path}: {fault.strerror}") from None


def load(path: str | Path) -> Program:
    """Read a program that ``save`` wrote; equal to it in every table and field.

    Raises AccelsimError naming the path if it is missing, damaged, foreign or of a newer version.
    """
    try:
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            header = json.loads(archive["header"].tobytes())
            _check_header(header, path)
            tables = {name: archive[name] for name in TABLES}
        return _program(header, tables)
    except OSError as fault:
        reason = fault.strerror or "not a readable archive"
        raise AccelsimError(f"cannot load the program {path}: {reason}") from None
    except UNREADABLE:
        raise AccelsimError(f"cannot load {path}: not a whole {KIND} file") from None


def _header(program: Program) -> dict[str, Any]:
    return {
        "kind": KIND,
        "schema": SCHEMA,
        "instruction_columns": [name for name, _ in INSTRUCTION_COLUMNS],
        "operand_columns": [name for name, _ in OPERAND_COLUMNS],
        "formats": list(FORMAT_NAMES),
        "units": [asdict(unit) for unit in program.units],
        "spaces": [asdict(space) for space in program.spaces],
        "storages": [asdict(storage) for storage in program.storages],
        "operators": [asdict(operator) for operator in program.operators],
        "approximations": list(program.approximations),
        "metadata": program.metadata,
        "forms": [asdict(form) for form in program.forms],
    }


def _check_header(header: dict[str, Any], path: str | Path) -> None:
    if header["kind"] != KIND:
        raise ValueError(header["kind"])
    if header["schema"] > SCHEMA:
        raise AccelsimError(
            f"cannot load {path}: it has schema {header['schema']}, this version reads up to"
            f" {SCHEMA}"
        )
    columns = [name for name, _ in INSTRUCTION_COLUMNS], [name for name, _ in OPERAND_COLUMNS]
    if (header["instruction_columns"], header["operand_columns"]) != columns:
        raise AccelsimError(f"cannot load {path}: its tables have other columns than this version")
    unknown = [name for name in header["formats"] if name not in FORMAT_CODES]
    if unknown:
        raise AccelsimError(f"cannot load {path}: unknown number formats {', '.join(unknown)}")


def _program(header: dict[str, Any], tables: dict[str, Any]) -> Program:
    for name, kind in TABLES.items():
        if tables[name].dtype != kind:
            raise ValueError(name)
    n, d = len(tables["instructions"]), len(tables["operands"])
    wanted = (n, len(INSTRUCTION_COLUMNS)), (n,), (d, len(OPERAND_COLUMNS))
    if tuple(tables[name].shape for name in TABLES) != wanted:
        raise ValueError("shapes")
    return Program(
        units=tuple(UnitSlot(**unit) for unit in header["units"]),
        spaces=tuple(AddressSpace(**space) for space in header["spaces"]),
        storages=tuple(_storage(storage) for storage in header["storages"]),
        operators=tuple(OperatorInfo(**operator) for operator in header["operators"]),
        instructions=tables["instructions"],
        immediate=tables["immediate"],
        operands=_recoded(tables["operands"], header["formats"]),
        approximations=tuple(header["approximations"]),
        metadata=header["metadata"],
        forms=tuple(CodedForm(**form) for form in header.get("forms", ())),
    )


def _storage(fields: dict[str, Any]) -> StorageInfo:
    written = tuple((first, last) for first, last in fields["written"])
    shape, panels = tuple(fields["shape"]), tuple(fields.get("panels", ()))
    tiles = tuple(Tile(*tile) for tile in fields.get("tiles", ()))
    regions = tuple(Region(*numbers) for numbers in fields.get("regions", ()))
    lists = {
        "shape": shape, "written": written, "panels": panels, "tiles": tiles, "regions": regions,
    }  # fmt: skip
    return StorageInfo(**(fields | lists))


def _recoded(operands: Any, formats: list[str]) -> Any:
    """Format codes of the file's own list of formats, as codes of this version."""
    codes = operands[:, OPERAND_COLUMN["format"]]
    if formats != FORMAT_NAMES and len(codes):
        known = (codes >= 0) & (codes < len(formats))
        table = np.array([FORMAT_CODES[name] for name in formats], dtype=np.int64)
        codes[known] = table[codes[known]]
    return operands
