"""Weights in coded tiles: they are cut as the mapper that reads them loads them.

Mappers go on thinking in windows of the row-major form; ``CodedLayouts.tile`` gives the run of
coded bytes that holds such a window, laying it out behind the others when it is first asked for.
The cut of a window is remembered, so that whoever else reads the same window cuts it alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from accelsim.encoding.encoding import Encoding, Mask, tile_offset
from accelsim.encoding.encodings import CodedForm, Tile
from accelsim.errors import AccelsimError
from accelsim.numerics.formats import Format, number_format, row_bytes
from accelsim.program.storage import View

if TYPE_CHECKING:
    from accelsim.program.builder import Builder
    from accelsim.program.storage import CodedView, Storage
    from accelsim.workload.tensors import TensorSpec

Window = tuple[int, int, int, int]
"""First row, rows, first column, columns of a tensor's 2-D form."""


@dataclass
class CodedMatrix:
    """One coded weight: its encoding, its tiles so far, and how windows of it were cut.

    ``height`` is the rows of one of its matrices, ``cols`` the columns; ``kept`` the positions
    [lines of all matrices, k] that lengths follow from; ``share`` of the elements is kept.
    """

    name: str
    encoding: Encoding
    fmt: Format
    height: int
    cols: int
    k_rows: bool
    kept: Mask | None
    share: float
    room: int
    tiles: dict[Window, Tile] = field(default_factory=dict)
    cuts: dict[Window, tuple[int, int]] = field(default_factory=dict)
    used: int = 0

    @property
    def mean_bits(self) -> float:
        """Coded bits per element, of a large matrix."""
        return self.encoding.mean_bits(self.fmt, self.share)

    def window(self, view: View) -> Window:
        """Where a window of the row-major form begins, and its size."""
        row, offset = divmod(view.base - view.storage.base, row_bytes(self.cols, self.fmt))
        return row, view.rows, offset * 8 // self.fmt.bits, view.cols

    def tile(self, window: Window) -> Tile:
        """The tile that holds a window, laid out now if nobody has asked for it."""
        found = self.tiles.get(window)
        if found is None:
            nbytes = self._bytes(*window)
            offset = tile_offset(self.used, nbytes)
            if offset + nbytes > self.room:
                raise AccelsimError(
                    f"tiles of weight {self.name!r} ({self.encoding.name}), as its readers cut it,"
                    f" take more than the {self.room} bytes set aside; accepted: readers that cut"
                    " it alike, or larger tiles (a larger scratchpad)"
                )
            row, rows, col, cols = window
            found = self.tiles[window] = Tile(row, rows, col, cols, offset, nbytes)
            self.used = offset + nbytes
        return found

    def form(self, tile: Tile) -> CodedForm:
        """What the bytes of a tile stand for."""
        return CodedForm(self.encoding.name, self.fmt.name, tile.rows, tile.cols, self.k_rows)

    def _bytes(self, row: int, rows: int, col: int, cols: int) -> int:
        matrix, row = divmod(row, self.height)
        start = row if self.k_rows else col
        if start % self.encoding.k_granule:
            raise AccelsimError(
                f"a tile of weight {self.name!r} begins at k {start}; accepted for"
                f" {self.encoding.name}: multiples of {self.encoding.k_granule}"
            )
        lines, k = (cols, rows) if self.k_rows else (rows, cols)
        kept = None
        if self.kept is not None:
            first = matrix * (self.cols if self.k_rows else self.height)
            first += col if self.k_rows else row
            kept = self.kept[first : first + lines, start : start + k]
        return self.encoding.nbytes(lines, k, self.fmt, kept)

    def __str__(self) -> str:
        return self.encoding.name


class CodedLayouts:
    """The coded tensors of a program and where their tiles lie."""

    def __init__(self, build: Builder) -> None:
        self._build = build
        self._matrices: dict[int, CodedMatrix] = {}
        self._storages: dict[int, Storage] = {}

    def admit(self, storage: Storage, spec: TensorSpec) -> None:
        """Make the tiles of a tensor known, if it is coded."""
        coding = spec.coding
        if coding is None:
            return
        self._storages[storage.index] = storage
        self._matrices[storage.index] = CodedMatrix(
            name=spec.name,
            encoding=coding.code,
            fmt=number_format(spec.dtype),
            height=coding.rows(spec.shape),
            cols=spec.shape[-1],
            k_rows=coding.axis == -2,
            kept=coding.kept(spec.shape),
            share=coding.share,
            room=spec.room,
        )

    def of(self, view: object) -> CodedMatrix | None:
        """The coded weight that a window of the row-major form belongs to, None of others."""
        return self._matrices.get(view.storage.index) if isinstance(view, View) else None

    def tile(self, window: View) -> CodedView:
        """The run of coded bytes that holds a window of the row-major form."""
        matrix = self._matrices[window.storage.index]
        tile = matrix.tile(matrix.window(window))
        form = matrix.form(tile)
        return self._build.coded(window.storage, tile.offset, tile.nbytes, form)

    def declare(self) -> None:
        """Tell the program how its tensors are stored; called once all is lowered."""
        for index, matrix in self._matrices.items():
            tiles = tuple(matrix.tiles.values())
            self._build.lay_out_tiles(self._storages[index], matrix.encoding.name, tiles)
