"""Sparse arrays: what N:M products gain where arithmetic limits them, and their bits.

Every random product is executed as its program says, in the clock's order, on an array of 8 x 8
cells, and compared bit by bit with sums that are formed here, one kept product after the other: in
the order of k, in stretches as long as what the rows of the array take of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.api import arch, simulate, workload
from accelsim.functional.check import load_image
from accelsim.functional.coded import coded_weights
from accelsim.functional.execute import execute
from accelsim.functional.memory import Memory
from accelsim.functional.values import graph_values
from accelsim.results.claims import Claim, Row, within
from accelsim.results.result import Result

CLAIM = Claim(
    name="sparse",
    statement="N:M products: M/N of the dense rate, and wrong bits of 200 random ones per pattern",
    source="closed forms; random products against sums of kept products formed one by one",
    tolerance=0.03,
)

PATTERNS = ((1, 4), (2, 4), (2, 8), (4, 8), (2, 16), (3, 5))
DATAFLOWS = ("ws", "os", "is")
GROUPS = ("time", "rows")
PRODUCTS = 200  # of each pattern, over all dataflows, places of groups and formats
LARGE = "gemm:m=2048,n=2048,k=2560,dtype=fp16"
CELLS = 8

Array = npt.NDArray[Any]


def rows() -> Iterator[Row]:
    """Gains of every pattern in every dataflow, then wrong elements of random products."""
    for dataflow in DATAFLOWS:
        for groups in GROUPS:
            machine = {"array.dataflow": dataflow, "array.groups": groups}
            dense = simulate("sat", LARGE, overrides=machine).cycles
            for kept, group in PATTERNS:
                sparse = simulate("sat", f"{LARGE},sparsity={kept}:{group}", overrides=machine)
                case = f"{kept}:{group} {dataflow}, groups in {groups}"
                limit = group / kept * used_rows(dataflow, groups, kept)
                yield within(case, limit, dense / sparse.cycles, CLAIM.tolerance)
    for kept, group in PATTERNS:
        case = f"{kept}:{group}, wrong elements of {PRODUCTS} random products"
        yield within(case, 0, sum(wrong_elements(kept, group)), 0.0)


def used_rows(dataflow: str, groups: str, kept: int) -> float:
    """Share of the array's rows that whole groups fill."""
    rows = 32
    return 1.0 if dataflow == "os" or groups == "time" else rows // kept * kept / rows


def wrong_elements(kept: int, group: int, products: int = PRODUCTS) -> Iterator[int]:
    """Elements of random products whose bits are not those of their kept products."""
    draw = np.random.default_rng(kept * 1000 + group)
    for i in range(products):
        m, n = (int(size) for size in draw.integers(1, 40, 2))
        sizes = m, n, group * int(draw.integers(1, 9))
        case = Case(kept, group, sizes, DATAFLOWS[i % 3], GROUPS[i // 3 % 2], i // 6 % 2 == 0, i)
        yield case.wrong()


@dataclass(frozen=True)
class Case:
    """One random product [m, k] @ [k, n] on an array."""

    kept: int
    group: int
    sizes: tuple[int, int, int]
    dataflow: str
    groups: str
    integer: bool
    seed: int

    @property
    def fold(self) -> int:
        """What the rows of the array take of k; 0 where sums stay in their cells."""
        if self.dataflow == "os":
            return 0
        return (CELLS if self.groups == "time" else CELLS // self.kept) * self.group

    def wrong(self) -> int:
        """Elements that differ."""
        m, n, k = self.sizes
        formats = "int8" if self.integer else "fp16,out=fp32"
        run = simulate(
            arch("sat", self.machine),
            workload(f"gemm:m={m},n={n},k={k},sparsity={self.kept}:{self.group},dtype={formats}"),
        )
        found, a, b = executed(run, self.seed)
        if self.integer:
            wide = pruned(b.astype(np.int64), self.kept, self.group)
            return int((found != a.astype(np.int64) @ wide).sum())
        expected = kept_chains(
            a.astype(np.float32), b.astype(np.float32), self.kept, self.group, self.fold
        )
        return int((found.view(np.uint32) != expected.view(np.uint32)).sum())

    @property
    def machine(self) -> dict[str, object]:
        """The array that it runs on."""
        return {
            "array.rows": CELLS,
            "array.cols": CELLS,
            "array.interleave": 2,
            "array.dataflow": self.dataflow,
            "array.groups": self.groups,
        }


def executed(run: Result, seed: int) -> tuple[Array, Array, Array]:
    """(result, a, dense b) of a single product, executed in the clock's order."""
    graph, segment, machine = run.graph, run.segments[0], run.architecture
    assert graph is not None
    assert machine is not None
    program = segment.bound.program
    values = graph_values(graph, seed)
    memory = Memory(program)
    load_image(program, memory, values, coded_weights(graph, values))
    units = [machine.units[slot.unit] for slot in program.units]
    captures = execute(program, units, memory, segment.schedule)
    operator = graph.operators[0]
    return (
        captures.tensors[operator.name, operator.output],
        values[operator.inputs[0]],
        values[operator.inputs[1]],
    )


def places(weights: Array, kept: int) -> Array:
    """Rows of one group [M, n] that are kept in each column [kept, n], ascending: the largest
    magnitudes, the first of equals."""
    order = np.argsort(-np.abs(weights.astype(np.float64)), axis=0, kind="stable")
    return np.sort(order[:kept], axis=0)


def pruned(weights: Array, kept: int, group: int) -> Array:
    """Weights [k, n] with zeros where they are not kept."""
    result = np.zeros_like(weights)
    for g in range(0, len(weights), group):
        chosen = places(weights[g : g + group], kept)
        part = np.take_along_axis(weights[g : g + group], chosen, axis=0)
        np.put_along_axis(result[g : g + group], chosen, part, axis=0)
    return result


def kept_chains(a: Array, weights: Array, kept: int, group: int, fold: int) -> Array:
    """fp32 sums of kept products in ascending k, each product and each sum rounded; chains down
    every ``fold`` of k (0: all of it) from +0, then added up."""
    k = a.shape[1]
    total = np.zeros((len(a), weights.shape[1]), np.float32)
    for first in range(0, k, fold or k):
        psum = np.zeros_like(total)
        for g in range(first, min(first + (fold or k), k), group):
            chosen = places(weights[g : g + group], kept)
            part = np.take_along_axis(weights[g : g + group], chosen, axis=0)
            for place, value in zip(chosen, part, strict=True):
                psum = psum + a[:, g + place] * value
        total = total + psum
    return total
