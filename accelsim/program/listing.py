"""A tile program as text: one line per instruction, for people and for ``diff``."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from accelsim.encoding.encodings import CODED
from accelsim.errors import AccelsimError
from accelsim.numerics.formats import FORMAT_NAMES, FORMATS
from accelsim.program.opcodes import ISSUED, Flag, Function, Opcode
from accelsim.program.table import COLUMN, DEPENDENCIES, SOURCES

if TYPE_CHECKING:
    from accelsim.encoding.encodings import Tile
    from accelsim.program.table import Program, StorageInfo

COLUMNS = """\
# index   row of the instruction table; program order is one legal order of execution
# unit    in-order queue that executes it
# opcode  with the vector function, or the flags of a product: +acc adds to the destination,
#         ta/tb: the first/second source is stored transposed; abreast: vectors side by side
# ->      destination; <- sources
# operand storage@space+address [rows x columns format], '/stride' in bytes if rows are not packed;
#         a window of a tensor is given as [rows, columns] of its 2-D form, in banks by its shape
#         (its rows are runs of the banks' rows); coded bytes as what they decode to, with their
#         number
# after   instructions that must have finished first, with their units"""


def listing(program: Program) -> str:
    """The whole program as text; see ``COLUMNS`` for what a line says."""
    return "\n".join(lines(program)) + "\n"


def write_listing(program: Program, path: str | Path) -> None:
    """Write the listing to a file, line by line."""
    try:
        with Path(path).open("w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines(program))
    except OSError as fault:
        raise AccelsimError(f"cannot write the listing {path}: {fault.strerror}") from None


def lines(program: Program) -> Iterator[str]:
    """The lines of the listing: columns, tables, then the instructions operator by operator."""
    yield (
        f"# tile program: {len(program)} instructions, {len(program.operators)} operators,"
        f" {len(program.units)} units, {len(program.storages)} storages"
    )
    yield from (f"# approximation: {statement}" for statement in program.approximations)
    yield COLUMNS
    yield from _tables(program)
    width = len(str(max(0, len(program) - 1)))
    unit_width = max((len(unit.name) for unit in program.units), default=0)
    texts: dict[int, str] = {}
    operator = None
    for i, current in enumerate(program.column("operator").tolist()):
        if current != operator:
            operator = current
            yield from ("", _operator_header(program, operator))
        yield _instruction(program, i, width, unit_width, texts)


def mnemonic(program: Program, i: int) -> str:
    """Name of what instruction i does: ``LOAD``, ``VECTOR.EXP``, ``MATMUL+acc``."""
    row = program.instructions[i]
    code = int(row[COLUMN["opcode"]])
    try:
        name = Opcode(code).name
        if row[COLUMN["function"]] or code == Opcode.VECTOR:
            name += f".{Function(int(row[COLUMN['function']])).name}"
    except ValueError:
        return f"opcode {code}"
    flags = int(row[COLUMN["flags"]])
    if flags & Flag.ACCUMULATE:
        name += "+acc"
    if flags & Flag.KEPT:
        name += "/kept"
    if flags & Flag.HELD:
        name += "/held"
    if flags & Flag.RESCALE:
        name += "*src2"
    if flags & Flag.FORWARD:
        name += "+fwd"
    if flags & Flag.SCALAR:
        name += "/scalar"
    if flags & (Flag.TRANSPOSE_A | Flag.TRANSPOSE_B):
        name += "/t" + ("a" if flags & Flag.TRANSPOSE_A else "")
        name += "b" if flags & Flag.TRANSPOSE_B else ""
    if flags & Flag.STATIONARY_A:
        name += "/holds-a"
    if flags & Flag.ABREAST:
        name += "/abreast"
    if flags & Flag.COLUMNS:
        name += "/columns"
    return name


def operand_text(program: Program, d: int) -> str:
    """Operand descriptor d: storage, window, address. Works for senseless descriptors too."""
    if not 0 <= d < len(program.operands):
        return f"operand {d}"
    s, space, base, rows, row_bytes, stride, code = program.operands[d].tolist()
    if 0 <= code - CODED < len(program.forms):
        return _coded_text(program, d)
    fmt = FORMAT_NAMES[code] if 0 <= code < len(FORMAT_NAMES) else f"format {code}"
    bits = FORMATS[fmt].bits if fmt in FORMATS else 8
    cols = row_bytes * 8 // bits
    place = program.spaces[space].name if 0 <= space < len(program.spaces) else f"space {space}"
    if not 0 <= s < len(program.storages):
        return f"storage {s}@{place}+{base:#09x} [{rows}x{cols} {fmt}]"
    info = program.storages[s]
    window = _window(info, base - info.base, rows, cols, stride, bits)
    if window:
        return f"{info.name}{window}@{place}+{base:#09x} {fmt}"
    pitch = f"/{stride}" if rows > 1 and stride != row_bytes else ""
    return f"{info.name}@{place}+{base:#09x} [{rows}x{cols} {fmt}{pitch}]"


def _coded_text(program: Program, d: int) -> str:
    """A run of coded bytes: the tile of a tensor, or the shape that it decodes to."""
    s, space, base, _, nbytes, _, code = program.operands[d].tolist()
    form = program.forms[code - CODED]
    place = program.spaces[space].name if 0 <= space < len(program.spaces) else f"space {space}"
    info = program.storages[s] if 0 <= s < len(program.storages) else None
    name, shape = info.name if info else f"storage {s}", f"[{form.rows}x{form.cols} {form}]"
    tile = _tile_at(info, base - info.base) if info else None
    if tile and (tile.rows, tile.cols) == (form.rows, form.cols):
        window = f"[{tile.row}:{tile.row + tile.rows}, {tile.col}:{tile.col + tile.cols}]"
        return f"{name}{window}@{place}+{base:#09x} {form} {nbytes} bytes"
    return f"{name}@{place}+{base:#09x} {shape} {nbytes} bytes"


def _tile_at(info: StorageInfo, offset: int) -> Tile | None:
    """The coded tile that begins at an offset; mappers lay them out one behind the other."""
    i = bisect_left(info.tiles, offset, key=lambda tile: tile.offset)
    return info.tiles[i] if i < len(info.tiles) and info.tiles[i].offset == offset else None


def _window(info: StorageInfo, offset: int, rows: int, cols: int, stride: int, bits: int) -> str:
    """``[0:128, 512:1024]``, or '' where a window is no rectangle of the tensor's 2-D form."""
    if not info.shape or bits % 8 or info.regions:
        return ""
    width = bits // 8
    first, columns = _panel(info, offset // width)
    offset -= math.prod(info.shape[:-1]) * first * width
    pitch = stride if rows > 1 else columns * width
    if pitch < cols * width or offset < 0 or offset % width or pitch % width:
        return ""
    row, column = divmod(offset, pitch)
    column //= width
    if (column + cols) * width > pitch or (info.panels and pitch != columns * width):
        return ""
    column += first
    return f"[{row}:{row + rows}, {column}:{column + cols}]"


def _widths(info: StorageInfo) -> str:
    """Widths of the panels of a tensor in order, neighbours of one width counted: '9 x 32, 12'."""
    edges = (*info.panels, info.shape[-1])
    widths = [end - first for first, end in pairwise(edges)]
    runs = [(width, len(list(same))) for width, same in groupby(widths)]
    return ", ".join(f"{count} x {width}" if count > 1 else f"{width}" for width, count in runs)


def _panel(info: StorageInfo, element: int) -> tuple[int, int]:
    """(first column, columns) of the panel in which the n-th stored element lies."""
    starts = info.panels or (0,)
    i = max(0, bisect_right(starts, element // math.prod(info.shape[:-1])) - 1)
    return starts[i], (*starts, info.shape[-1])[i + 1] - starts[i]


def _tables(program: Program) -> Iterator[str]:
    yield "# units"
    for u, unit in enumerate(program.units):
        yield f"#   {u:3} {unit.name}  ({unit.unit} of core {unit.core})"
    yield "# address spaces"
    for x, space in enumerate(program.spaces):
        where = "shared" if space.core < 0 else f"core {space.core}"
        yield f"#   {x:3} {space.name}  {space.capacity} bytes  ({space.memory}, {where})"
    yield "# storages"
    for s, info in enumerate(program.storages):
        yield f"#   {s:3} {_storage(program, info)}"


def _storage(program: Program, info: StorageInfo) -> str:
    known = 0 <= info.space < len(program.spaces)
    place = program.spaces[info.space].name if known else f"space {info.space}"
    text = f"{info.name}@{place}+{info.base:#09x}  {info.nbytes} bytes  {info.role}"
    if info.shape:
        text += f" {'x'.join(map(str, info.shape))} {info.format}"
    if info.producer >= 0:
        known = info.producer < len(program.operators)
        text += f"  by {program.operators[info.producer].name if known else info.producer}"
    if info.encoding:
        text += f"  {info.encoding} in {len(info.tiles)} tiles"
    if info.panels and info.shape:
        text += f"  in panels of {_widths(info)} columns"
    if info.regions:
        text += f"  in regions of banks: {len(info.regions)}"
    if info.written:
        text += "  rows " + ", ".join(f"{first}..{last}" for first, last in info.written)
    return text


def _operator_header(program: Program, operator: int) -> str:
    if not 0 <= operator < len(program.operators):
        return "# no operator"
    info = program.operators[operator]
    text = f"# operator {operator}: {info.name} ({info.kind}) by {info.mapper}, {info.macs} MACs"
    if info.layer >= 0:
        text += f", layer {info.layer}"
    return text + (f", {info.note}" if info.note else "")


def _instruction(
    program: Program, i: int, width: int, unit_width: int, texts: dict[int, str]
) -> str:
    row = program.instructions[i].tolist()
    parts = [f"{i:{width}}  {_unit(program, row[0]):{unit_width}}  {mnemonic(program, i):12}"]
    dst, first = row[COLUMN["dst"]], COLUMN["src0"]
    sources = [d for d in row[first : first + SOURCES] if d >= 0]
    for d in (dst, *sources):
        if d >= 0 and d not in texts:
            texts[d] = operand_text(program, d)
    if dst >= 0:
        parts.append(f"-> {texts[dst]}")
    if sources:
        parts.append("<- " + ", ".join(texts[d] for d in sources))
    if program.immediate[i]:
        parts.append(f"imm {float(program.immediate[i])!r}")
    deps = row[COLUMN["dep0"] : COLUMN["dep0"] + DEPENDENCIES]
    waits = [
        ("issue of " if row[COLUMN["flags"]] & flag else "") + _dependency(program, d)
        for d, flag in zip(deps, ISSUED, strict=True)
        if d >= 0
    ]
    if waits:
        parts.append("after " + ", ".join(waits))
    return "  ".join(parts).rstrip()


def _dependency(program: Program, d: int) -> str:
    if d >= len(program):
        return f"{d} (?)"
    return f"{d} ({_unit(program, int(program.instructions[d, COLUMN['unit']]))})"


def _unit(program: Program, unit: int) -> str:
    return program.units[unit].name if 0 <= unit < len(program.units) else f"unit {unit}"
