"""Coded tensors: tiles that do not overlap, and operands that are whole tiles, decoded as such."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from accelsim.encoding.encodings import CODED, encoding
from accelsim.errors import AccelsimError
from accelsim.numerics.formats import FORMATS
from accelsim.program.table import COLUMN
from accelsim.program.verify.violation import Violation, at_instruction

if TYPE_CHECKING:
    from accelsim.encoding.encodings import Tile
    from accelsim.program.table import Program, StorageInfo


def coded_problem(info: StorageInfo) -> str:
    """What is wrong with the tiles of a coded storage, '' if nothing is."""
    if not info.encoding:
        return "has coded tiles, but no encoding" if info.tiles else ""
    if not info.shape or info.format not in FORMATS:
        return "is coded, but has no shape or no number format"
    if info.panels:
        return "is coded and in panels"
    try:
        encoding(info.encoding)
    except AccelsimError as fault:
        return f"is coded: {fault}"
    rows, cols = math.prod(info.shape[:-1]), info.shape[-1]
    for tile in info.tiles:
        if min(tile.row, tile.col, tile.offset) < 0 or min(tile.rows, tile.cols, tile.nbytes) < 1:
            return f"has the senseless tile {tuple(tile)}"
        if tile.row + tile.rows > rows or tile.col + tile.cols > cols:
            return f"has the tile {_window(tile)}, which leaves its {rows} x {cols}"
        if tile.offset + tile.nbytes > info.nbytes:
            return f"has the tile {_window(tile)} beyond its {info.nbytes} bytes"
    return _overlap(info)


def _overlap(info: StorageInfo) -> str:
    """Two tiles that share bytes or elements."""
    by_place = sorted(info.tiles, key=lambda tile: tile.offset)
    for before, after in pairwise(by_place):
        if before.offset + before.nbytes > after.offset:
            return f"has the tiles {_window(before)} and {_window(after)} at the same bytes"
    rows = sorted({edge for t in info.tiles for edge in (t.row, t.row + t.rows)})
    cols = sorted({edge for t in info.tiles for edge in (t.col, t.col + t.cols)})
    row_of, col_of = ({edge: i for i, edge in enumerate(edges)} for edges in (rows, cols))
    covered = np.zeros((len(rows), len(cols)), dtype=bool)
    for t in info.tiles:
        cells = (
            slice(row_of[t.row], row_of[t.row + t.rows]),
            slice(col_of[t.col], col_of[t.col + t.cols]),
        )
        if covered[cells].any():
            return f"has the tile {_window(t)}, parts of which are in another one"
        covered[cells] = True
    return ""


def coded_violations(program: Program, limit: int) -> list[Violation]:
    """Instructions with an operand of a coded tensor that is none of its tiles."""
    coded = [s for s, info in enumerate(program.storages) if info.encoding]
    if not coded:
        return []
    storage = program.operand_column("storage")
    wrong = np.zeros(len(program.operands) + 1, dtype=bool)  # the last entry: no operand
    for s in coded:
        tiles = {tile.offset: tile for tile in program.storages[s].tiles}
        for d in np.flatnonzero(storage == s).tolist():
            wrong[d] = not _is_tile(program, program.storages[s], d, tiles)
    first = COLUMN["dst"]
    rows, columns = np.nonzero(wrong[program.instructions[:, first : first + 4]])
    return [
        _worded(program, int(i), int(program.instructions[i, first + c]))
        for i, c in zip(rows[:limit], columns[:limit], strict=True)
    ]


def _is_tile(program: Program, info: StorageInfo, d: int, tiles: dict[int, Tile]) -> bool:
    _, _, base, _, nbytes, _, code = program.operands[d].tolist()
    tile = tiles.get(base - info.base)
    if tile is None or code < CODED:
        return False
    form = program.forms[code - CODED]
    same = (form.encoding, form.format) == (info.encoding, info.format)
    return same and (tile.rows, tile.cols, tile.nbytes) == (form.rows, form.cols, nbytes)


def _window(tile: Tile) -> str:
    row, col = tile.row + tile.rows, tile.col + tile.cols
    return f"[{tile.row}:{row}, {tile.col}:{col}]"


def _worded(program: Program, i: int, operand: int) -> Violation:
    from accelsim.program.listing import operand_text

    info = program.storages[int(program.operands[operand, 0])]
    problem = f"has {operand_text(program, operand)}, which is no tile of {info.name}"
    return at_instruction(program, "layout", i, f"{problem} ({info.encoding})", info.name)
