"""SCALE-Sim topology CSV files, convolution and GEMM form, as graphs of independent layers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from accelsim.errors import AccelsimError
from accelsim.workload._words import did_you_mean, listed, parse_whole, shown
from accelsim.workload.graph import Graph
from accelsim.workload.layer_sparsity import layer_pattern, layer_sparse
from accelsim.workload.operators import Conv2d, Gemm, Operator
from accelsim.workload.single import standalone
from accelsim.workload.tensors import TensorSpec

FORMS = ("conv", "gemm")
CONV_COLUMNS = (
    *("IFMAP Height", "IFMAP Width", "Filter Height", "Filter Width"),
    *("Channels", "Num Filter", "Strides"),
)
GEMM_COLUMNS = ("M", "N", "K")
MAX_DEPTHWISE = 65_536
"""Largest channel count that a depthwise row is expanded to."""

_SPARSITY = re.compile(r"(\d+)\s*:\s*(\d+)")
_SYMBOL = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class TopologyRow:
    """One row of a topology: its file:line, name, dimensions and what the extra columns say.

    `dims` follows CONV_COLUMNS (the last is the vertical stride) or GEMM_COLUMNS; `sparsity` is
    (N, M) of an N:M weight sparsity, (1, 1) when the row has none.
    """

    where: str
    name: str
    dims: tuple[int, ...]
    stride_w: int
    batch: int
    sparsity: tuple[int, int]


def read_lines(file: Path) -> list[str]:
    """The lines of a text file, without a byte-order mark.

    Raises:
        AccelsimError: when it is missing or not UTF-8 text.
    """
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise AccelsimError(f"{file}: cannot read it ({reason})") from None
    except ValueError:
        raise AccelsimError(f"{file}: not a text file; accepted: UTF-8 text") from None


def read_topology(
    path: str | Path,
    *,
    form: str = "auto",
    dtype: str = "int8",
    symbols: Mapping[str, object] | None = None,
    sparse: bool = True,
) -> Graph:
    """A SCALE-Sim topology as independent layers in file order.

    Convolution heights and widths are already padded; an output size is
    ceil((in - filter + stride) / stride), so a remainder is completed with zeros at the bottom
    and right. A row whose name contains DP is depthwise: one layer per channel, each with all
    its filters. Consecutive equal layers are one segment of the graph.

    Tolerated: a missing trailing comma, tabs for commas, a byte-order mark, blank rows, further
    columns (`Batch Size` and a second stride are read, the rest is notes), repeated names.

    Args:
        path: the CSV file; its first line is a header.
        form: "conv", "gemm", or "auto" to tell by the header and the number of columns.
        dtype: of inputs and weights; int8 gives int32 results.
        symbols: values for the letters of a template row (B, H, D).
        sparse: whether N:M columns count; they prune whole rows of a layer's weights, as in v3
            (workload.layer_sparsity).

    Raises:
        AccelsimError: with file:line, for a row that is not understood.
    """
    file = Path(path)
    tensors: dict[str, TensorSpec] = {}
    operators: list[Operator] = []
    chosen, rows = parse_topology(file, form, symbols or {})
    names: set[str] = set()
    for layer, row in enumerate(rows):
        pattern = row.sparsity if sparse else (1, 1)
        for name, form_of_layer in _layers(row, chosen, layer, names):
            try:
                form_of_layer = layer_sparse(form_of_layer, pattern)
                made, specs = standalone(form_of_layer, name, dtype, layer)
            except AccelsimError as error:
                raise AccelsimError(f"{row.where}: {error}") from None
            operators.append(made)
            tensors.update((spec.name, spec) for spec in specs)
    return Graph(file.stem, tensors, tuple(operators), {"form": chosen, "dtype": dtype})


def parse_topology(
    file: Path, form: str, symbols: Mapping[str, object]
) -> tuple[str, list[TopologyRow]]:
    """The form of a topology file and its rows, depthwise rows not yet expanded."""
    if form not in (*FORMS, "auto"):
        hint = did_you_mean(form, FORMS)
        raise AccelsimError(f"{file}: form is {shown(form)}{hint}; accepted: auto, conv, gemm")
    lines = [_cells(line) for line in read_lines(file)]
    if not lines:
        raise AccelsimError(f"{file}: empty; accepted: a header line, then one row per layer")
    header = [cell.lower() for cell in lines[0]]
    if len(header) > 3 and all(cell.isdigit() for cell in header[1:4]):
        raise AccelsimError(f"{file}:1: a layer in place of the header; accepted: a header line")
    body = [(line, row) for line, row in enumerate(lines[1:], start=2) if any(row)]
    if not body:
        raise AccelsimError(f"{file}: no layers; accepted: one row per layer after the header")
    chosen = form if form != "auto" else _form(header, body[0][1])
    parser = _RowParser(file, chosen, header, symbols)
    rows = [parser.row(line, cells) for line, cells in body]
    parser.check_symbols()
    return chosen, rows


def _cells(line: str) -> list[str]:
    parts = line.split(",") if "," in line else line.split("\t")
    cells = [part.strip() for part in parts]
    while cells and not cells[-1]:
        cells.pop()
    return cells


def _form(header: list[str], first: list[str]) -> str:
    """What the header says, else GEMM when there are too few columns for a convolution."""
    if header[1:4] == ["m", "n", "k"]:
        return "gemm"
    if len(header) > 1 and "ifmap" in header[1]:
        return "conv"
    return "gemm" if len(first) <= len(GEMM_COLUMNS) + 2 else "conv"


class _RowParser:
    """Reads the rows of one file; extra columns mean what the header calls them."""

    def __init__(
        self, file: Path, form: str, header: list[str], symbols: Mapping[str, object]
    ) -> None:
        self.file = file
        self.columns = CONV_COLUMNS if form == "conv" else GEMM_COLUMNS
        self.header = header
        self.symbols = symbols
        self.used: set[str] = set()

    def row(self, line: int, cells: list[str]) -> TopologyRow:
        """One row."""
        where = f"{self.file}:{line}"
        count = len(self.columns)
        if len(cells) <= count or not cells[0]:
            raise AccelsimError(
                f"{where}: {len(cells)} columns; accepted: a name, then {listed(self.columns)}"
            )
        dims = tuple(
            self.number(cell, f"{where}: {column}")
            for cell, column in zip(cells[1 : count + 1], self.columns, strict=True)
        )
        sparsity, extras = (1, 1), {"stride": dims[-1], "batch": 1}
        for index, cell in enumerate(cells[count + 1 :], start=count + 1):
            if _SPARSITY.fullmatch(cell):
                sparsity = layer_pattern(cell, f"{where}: sparsity")
            elif meaning := self.meaning(index, cell):
                extras[meaning] = self.number(cell, f"{where}: {meaning}")
        return TopologyRow(where, cells[0], dims, extras["stride"], extras["batch"], sparsity)

    def number(self, cell: str, what: str) -> int:
        """A whole number, or the value bound to a letter of a template."""
        if _SYMBOL.fullmatch(cell):
            if cell not in self.symbols:
                raise AccelsimError(
                    f"{what} is the letter {cell}; accepted: a whole number, or give {cell}=..."
                )
            self.used.add(cell)
            return parse_whole(self.symbols[cell], f"{what} ({cell})")
        return parse_whole(cell, what)

    def meaning(self, index: int, cell: str) -> str | None:
        """What an extra column holds: "batch", "stride" (horizontal), or None for notes."""
        title = self.header[index] if index < len(self.header) else ""
        if "batch" in title and cell:
            return "batch"
        second_stride = index == len(CONV_COLUMNS) + 1 and self.columns is CONV_COLUMNS
        if second_stride and ("stride" in title or (not title and cell.isdigit())):
            return "stride"
        return None

    def check_symbols(self) -> None:
        """Refuse bindings that no row uses."""
        for name in self.symbols:
            if name not in self.used:
                raise AccelsimError(
                    f"{self.file}: unknown key '{name}'; accepted: "
                    f"{listed(['form', 'dtype', *sorted(self.used)])}"
                )


Fields = Mapping[str, object]


def _layers(
    row: TopologyRow, form: str, layer: int, names: set[str]
) -> list[tuple[str, tuple[type[Operator], Fields]]]:
    """The operators of a row, with unique names: one, or one per channel when depthwise."""
    if form == "gemm":
        m, n, k = row.dims
        fields: Fields = {"m": m, "n": n, "k": k, "batch": row.batch, "broadcast_b": row.batch > 1}
        return [(_unique(row.name, layer, names), (Gemm, fields))]
    if "DP" not in row.name:
        return [(_unique(row.name, layer, names), (Conv2d, _conv(row, row.dims[4])))]
    channels = row.dims[4]
    if channels > MAX_DEPTHWISE:
        raise AccelsimError(f"{row.where}: {channels} channels; accepted: up to {MAX_DEPTHWISE}")
    fields = _conv(row, 1)
    return [
        (_unique(f"{row.name}Channel_{channel}", layer, names), (Conv2d, fields))
        for channel in range(channels)
    ]


def _unique(name: str, layer: int, names: set[str]) -> str:
    """The row's name, with its row number when an earlier row has the same."""
    chosen = name if name not in names else f"{name}#{layer}"
    names.add(chosen)
    return chosen


def _conv(row: TopologyRow, cin: int) -> Fields:
    h, w, fh, fw, _, cout, stride_h = row.dims
    bottom, right = _completion(h, fh, stride_h), _completion(w, fw, row.stride_w)
    if fh > h or fw > w:
        raise AccelsimError(
            f"{row.where}: filter {fh}x{fw} is larger than the ifmap {h}x{w}; accepted: "
            "at most its size, which includes the padding"
        )
    return {
        "batch": row.batch,
        "h": h,
        "w": w,
        "cin": cin,
        "fh": fh,
        "fw": fw,
        "cout": cout,
        "stride": (stride_h, row.stride_w),
        "padding": (0, bottom, 0, right),
    }


def _completion(size: int, window: int, stride: int) -> int:
    """Zeros appended so that the last, partial step of the window becomes a whole one."""
    return -(size - window) % stride
