"""Weights that are stored in an encoding: what they hold, what that stands for, and their bytes.

The values of a coded weight are drawn like those of any other, then pruned to the positions that
its encoding keeps, or quantised. What decoding gives back is what its product is judged by; the
memory image holds the encoded bytes, tile by tile as the program says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.encoding.encoding import Bytes, Content
from accelsim.encoding.encodings import Tile
from accelsim.errors import AccelsimError
from accelsim.numerics.formats import number_format
from accelsim.workload.coding import Coding
from accelsim.workload.graph import Graph
from accelsim.workload.tensors import TensorSpec

Stored = npt.NDArray[Any]


@dataclass(frozen=True)
class CodedWeight:
    """A weight with the content of each of its matrices."""

    spec: TensorSpec
    coding: Coding
    contents: tuple[Content, ...]

    def elements(self) -> Stored:
        """Stored elements in shape, as decoding gives them back."""
        matrices = [content.elements for content in self.contents]
        if self.coding.axis == -2:
            matrices = [matrix.T for matrix in matrices]
        return np.stack(matrices).reshape(self.spec.shape)

    def tile(self, tile: Tile) -> Bytes:
        """The bytes of one tile of the 2-D form, in which matrices lie one below the other."""
        height = self.coding.rows(self.spec.shape)
        matrix, row = divmod(tile.row, height)
        rows, cols = slice(row, row + tile.rows), slice(tile.col, tile.col + tile.cols)
        if rows.stop > height:
            raise AccelsimError(f"a tile of {self.spec.name} reaches into a second matrix")
        lines, ks = (cols, rows) if self.coding.axis == -2 else (rows, cols)
        part = self.contents[matrix].tile(lines, ks)
        return self.coding.code.encode(part, number_format(self.spec.dtype))


NOTHING_CODED: Mapping[str, CodedWeight] = MappingProxyType({})


def coded_weights(graph: Graph, values: Mapping[str, Stored]) -> dict[str, CodedWeight]:
    """The coded weights of a graph, made from dense stored elements."""
    found = {}
    for spec in graph.tensors.values():
        if spec.coding is not None and spec.name in values:
            found[spec.name] = _coded(spec, spec.coding, values[spec.name])
    return found


def _coded(spec: TensorSpec, coding: Coding, dense: Stored) -> CodedWeight:
    count, lines, k = coding.form(spec.shape)
    matrices = dense.reshape(count, coding.rows(spec.shape), spec.shape[-1])
    if coding.axis == -2:
        matrices = np.ascontiguousarray(matrices.swapaxes(1, 2))
    kept = coding.kept(spec.shape)
    positions = [None] * count if kept is None else kept.reshape(count, lines, k)
    fmt = number_format(spec.dtype)
    contents = (
        coding.code.content(matrix, fmt, mask)
        for matrix, mask in zip(matrices, positions, strict=True)
    )
    return CodedWeight(spec, coding, tuple(contents))
