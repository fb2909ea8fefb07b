"""Tensors in panels: weights are packed offline, so that a tile is one piece of main memory.

A weight's 2-D form [rows, columns] lies row by row unless somebody packs it. Then a tile of some of
its columns is a window of short rows, and almost every one of them lies in another row of the
DRAM. Packed, the columns are cut into panels as wide as the tiles that read them; a panel holds all
rows of its columns, and panels lie one behind the other:

    row-major    0 1 2 3 4      panels of 2    0 1 | 2 3 | 4
                 5 6 7 8 9                     5 6 | 7 8 | 9     addresses: 0 1 5 6 2 3 7 8 4 9

This is the blocked weight layout of deep-learning compilers (oneDNN's reorder to blocked formats,
oneapi-src.github.io/oneDNN/dev_guide_understanding_memory_formats.html; XLA's tiled layouts,
openxla.org/xla/tiled_layout). It costs nothing at run time where weights never change; those that
are trained lie row by row.

Activations can lie in panels, too, of one width on a machine: what a tile of a product reads and
writes is then a few long runs, whoever comes next. That is the fractal layout of NPUs and the tiled
one of TPUs (Ascend's NZ format; XLA above).

A weight that several products of a layer read is packed by the first of them, as by both halves of
a batch. What is read in different parts of a model is packed by none of them: its panels are as
wide as the neighbouring bytes of a DRAM channel. So are those of tables that are multiplied as
well; their rows are looked up panel by panel, and no more rows of the DRAM are opened for that.

Mappers go on thinking in windows of the row-major form; ``Layouts`` says where they really lie.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from accelsim.errors import AccelsimError
from accelsim.hw.dma import Dma
from accelsim.hw.dram.block import Dram
from accelsim.mapping.bank_layouts import region_pieces
from accelsim.numerics.formats import number_format, row_bytes
from accelsim.program.storage import Piece, Storage, View

if TYPE_CHECKING:
    from accelsim.arch.model import Architecture
    from accelsim.program.builder import Builder
    from accelsim.program.table import Region
    from accelsim.workload.graph import Graph

PACKED = (
    "weights lie in main memory in panels as wide as the tiles that read them, packed before the"
    " run (weight_layout: rows leaves them row-major)"
)
SHARED = (
    "weights that products and lookups of several layers read lie in main memory in panels as wide"
    " as a DRAM channel's neighbouring bytes (weight_layout: rows leaves them row-major)"
)
CUT = (
    "what operators hand on lies in main memory in panels of {width} columns (activation_panel: 0"
    " leaves it row-major)"
)
HANDED_ON = ("activation", "input", "output")
PASSED_ON = frozenset(
    {"gemm", "residual", "activation", "elementwise", "rmsnorm", "layernorm", "softmax"}
    | {"rotary", "attention", "kv_append", "embedding", "grouped_gemm"}
    | {"linear_attention", "state_update"}
)
"""Kinds of operators whose windows are rows and columns of what they read and write."""
PRODUCTS = frozenset({"gemm", "attention", "grouped_gemm"})
"""Kinds that take some columns of many rows; the others take whole rows, best as they lie."""
SHARING = frozenset({"gemm", "embedding"})
"""Kinds whose windows of a weight are rows and columns of it, or some columns of rows by number."""


@dataclass
class Panels:
    """Where the columns of one [rows, columns] weight lie; nothing is cut at first.

    ``starts`` are the first columns of its panels in order, ``ends[start]`` is one past the last.
    """

    rows: int
    columns: int
    starts: list[int] = field(default_factory=list)
    ends: dict[int, int] = field(default_factory=dict)

    def cut(self, first: int, last: int, width: int) -> bool:
        """Cut columns first .. last-1 into panels, as far as they are in none yet; whether any
        were."""
        gaps = []
        while first < last:
            i = bisect_right(self.starts, first)
            covered = self.ends[self.starts[i - 1]] if i else first
            end = min(last, self.starts[i]) if i < len(self.starts) else last
            if max(first, covered) < end:
                gaps.append((max(first, covered), end))
            first = max(end, covered)
        for start, end in gaps:
            for panel in range(start, end, width):
                insort(self.starts, panel)
                self.ends[panel] = min(panel + width, end)
        return bool(gaps)

    def parts(self, first: int, last: int) -> list[tuple[int, int, int]]:
        """Columns first .. last-1 panel by panel: (first, one past the last, panel's first)."""
        found = []
        while first < last:
            i = bisect_right(self.starts, first)
            start = self.starts[i - 1] if i else first
            end = min(last, self.ends.get(start, first))
            if end <= first:
                raise AccelsimError(f"column {first} of a packed weight is in no panel")
            found.append((first, end, start))
            first = end
        return found

    def cuts(self) -> tuple[int, ...]:
        """First columns of all panels, what no mapper cut included; () if that is one panel."""
        edges = {0, *self.starts, *self.ends.values()} - {self.columns}
        return tuple(sorted(edges)) if len(edges) > 1 else ()


class Layouts:
    """The tensors of a program that lie in panels, and the panels of each."""

    def __init__(
        self, build: Builder, in_banks: Mapping[int, tuple[int, Sequence[Region]]] | None = None
    ) -> None:
        self._build = build
        self._in_banks = in_banks or {}
        self._panels: dict[int, Panels] = {}
        self._storages: dict[int, Storage] = {}

    def admit(self, storage: Storage, rows: int, columns: int) -> None:
        """Let the [rows, columns] tensor in a storage be packed."""
        self._panels[storage.index] = Panels(rows, columns)
        self._storages[storage.index] = storage

    def cut(self, storage: Storage, rows: int, columns: int, width: int, told: str = CUT) -> None:
        """Store a [rows, columns] tensor in panels of ``width``, whoever writes and reads it, which
        is ``told`` with the program.

        Not a single row, which is a run of addresses already.
        """
        if width < columns and rows > 1:
            self.admit(storage, rows, columns)
            self._panels[storage.index].cut(0, columns, width)
            self._build.approximate(told.format(width=width))

    def pack(self, matrix: View, width: int) -> None:
        """Store the columns of ``matrix`` in panels of ``width``; who comes first decides.

        Nothing happens to what may not be packed, nor to a window of another 2-D form.
        """
        if not self.packs(matrix):
            return
        panels = self._panels[matrix.storage.index]
        _, first = _place(matrix, panels)
        if panels.cut(first, first + matrix.cols, width) and width < panels.columns:
            self._build.note(f"weights in panels of {width}")
            self._build.approximate(PACKED)

    def packs(self, matrix: View) -> bool:
        """Whether tiles of this matrix can be runs of addresses."""
        panels = self._panels.get(matrix.storage.index)
        return panels is not None and matrix.stride == row_bytes(panels.columns, matrix.fmt)

    def pitch(self, matrix: View) -> int:
        """Bytes from row to row of a tile in main memory; 0 where they lie one behind the other."""
        return 0 if self.packs(matrix) else matrix.stride

    def pieces(self, window: View) -> list[Piece]:
        """Where a window of the row-major form lies, panel by panel."""
        if window.storage.index in self._in_banks:
            columns, regions = self._in_banks[window.storage.index]
            return region_pieces(window, regions, columns)
        panels = self._panels.get(window.storage.index)
        rows = slice(0, window.rows)
        if panels is None or not panels.starts:
            return [(rows, slice(0, window.cols), window)]
        if window.rows > 1 and window.stride != row_bytes(panels.columns, window.fmt):
            lines = [(slice(r, r + 1), window[r : r + 1, :]) for r in range(window.rows)]
        else:
            lines = [(rows, window)]
        return [
            (rows, columns, view) for rows, line in lines for columns, view in _across(line, panels)
        ]

    def declare(self) -> None:
        """Tell the program how its tensors are stored; called once all is lowered."""
        for index, panels in self._panels.items():
            if cuts := panels.cuts():
                self._build.lay_out(self._storages[index], cuts)


def _across(window: View, panels: Panels) -> list[tuple[slice, View]]:
    """(columns of the window, where they lie) of a window of the row-major form."""
    row, column = _place(window, panels)
    found = []
    for first, last, start in panels.parts(column, column + window.cols):
        stride = row_bytes(panels.ends[start] - start, window.fmt)
        base = panels.rows * row_bytes(start, window.fmt) + row * stride
        view = window.storage.view(
            window.rows, last - first, window.fmt,
            offset=base + row_bytes(first - start, window.fmt), stride=stride,
        )  # fmt: skip
        found.append((slice(first - column, last - column), view))
    return found


def _place(window: View, panels: Panels) -> tuple[int, int]:
    """(row, column) where a window of the row-major form begins."""
    pitch = row_bytes(panels.columns, window.fmt)
    row, offset = divmod(window.base - window.storage.base, pitch)
    return row, offset * 8 // window.fmt.bits


def laid_out(
    build: Builder,
    graph: Graph,
    arch: Architecture,
    tensors: Mapping[str, Storage],
    in_banks: Mapping[int, tuple[int, Sequence[Region]]],
) -> Layouts:
    """How the tensors of a program lie before its mappers pack any; ``in_banks`` as in Layouts."""
    layouts = Layouts(build, in_banks)
    weights, memory = _packed_offline(graph, arch), arch.main_memory()[1]
    run = memory.run_bytes if isinstance(memory, Dram) else 0
    widths, several = passed_on(graph, arch), _shared(weights)
    for name, storage in tensors.items():
        spec = graph.tensors[name]
        form = spec.elements // spec.shape[-1], spec.shape[-1]
        if storage.index in in_banks:
            continue
        if name in weights and _one_decides(weights[name]):
            layouts.admit(storage, *form)
        elif name in widths:
            layouts.cut(storage, *form, widths[name])
        elif run and name in several:
            layouts.cut(storage, *form, run * 8 // number_format(spec.dtype).bits, SHARED)
    return layouts


def _engines(arch: Architecture) -> list[Dma]:
    """DMA engines that have a say: what serves the banks alone takes single rows, wherever they
    lie."""
    return [unit for name, unit in arch.units_of(Dma).items() if name not in arch.beside_banks]


Reader = tuple[int, str]
"""Who reads a tensor: which run of operators of one layer it belongs to, and its kind."""


def _packed_offline(graph: Graph, arch: Architecture) -> dict[str, list[Reader]]:
    """Matrices that never change, with all who read them, where a DMA engine fetches panels."""
    if not any(engine.weight_layout == "panels" for engine in _engines(arch)):
        return {}
    readers: dict[str, list[Reader]] = {}
    for number, (_, run) in enumerate(groupby(graph.operators, key=lambda one: one.layer)):
        for operator in run:
            for name in operator.inputs:
                readers.setdefault(name, []).append((number, operator.kind))
    updated = {spec.place_of for spec in graph.tensors.values()}
    return {
        spec.name: readers[spec.name]
        for spec in graph.tensors.values()
        if spec.role in ("weight", "constant")
        and spec.name in readers
        and len(spec.shape) > 1
        and spec.coding is None
        and spec.name not in updated
    }


def _one_decides(readers: Sequence[Reader]) -> bool:
    """Whether the first who reads a weight may choose its panels: it reads it alone, or before
    other products of its layer. What layers apart read has to lie alike in all their programs."""
    kinds = {kind for _, kind in readers}
    return len(readers) == 1 or (len({run for run, _ in readers}) == 1 and kinds == {"gemm"})


def _shared(weights: Mapping[str, Sequence[Reader]]) -> list[str]:
    """Weights on which no operator alone decides: those that products read, and lookups besides;
    for lookups alone rows are best as they lie."""
    kinds = {name: {kind for _, kind in readers} for name, readers in weights.items()}
    return [
        name
        for name, readers in weights.items()
        if "gemm" in kinds[name] <= SHARING and not _one_decides(readers)
    ]


def panel_width(graph: Graph, arch: Architecture) -> int:
    """Columns of the panels of activations; 0 where they are row-major."""
    if not any(operator.kind in PRODUCTS for operator in graph.operators):
        return 0
    engines = _engines(arch)
    return min((engine.activation_panel for engine in engines), default=0)


def passed_on(graph: Graph, arch: Architecture) -> dict[str, int]:
    """Tensors that lie in panels, by name, and the panels' width: those that only operators of the
    kinds ``PASSED_ON`` write and read."""
    width = panel_width(graph, arch)
    if not width:
        return {}
    users: dict[str, set[str]] = {}
    for operator in graph.operators:
        # With one query, heads are rows; and rows are gathered from a table of rows.
        one_query = getattr(operator, "q_len", 0) == 1
        kind = "heads" if one_query else operator.kind
        for name in operator.inputs:
            users.setdefault(name, set()).add("table" if kind == "embedding" else kind)
        for name in operator.outputs:
            users.setdefault(name, set()).add(kind)
    return {
        spec.name: width
        for spec in graph.tensors.values()
        if spec.role in HANDED_ON and users.get(spec.name, set()) <= PASSED_ON
    }
