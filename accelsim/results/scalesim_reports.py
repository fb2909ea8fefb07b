"""SCALE-Sim's three report files, for scripts that read them: same columns, same definitions.

Legitimate where this simulator computes what SCALE-Sim does: one systolic array drained per fold,
ideal memory, matrix products and convolutions without bias. Cycles are those of the run; the rest
follows from SCALE-Sim's definitions (v3, dense, CALC mode), its peculiarities included:

- Total Cycles is the index of the last cycle, one less than the cycles taken.
- One word is one byte, whatever the workload's number format.
- Partial sums of ws and is arrays all go to DRAM; os arrays count rows + columns more writes per
  fold than there are results.
- Compute Util % divides by one array height more than a ws or is fold takes.
- With layer-wise sparsity K is what is left of it, but for Overall Util %; see scalesim_sparse.

DRAM counts and cycles: see scalesim_memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from accelsim.errors import AccelsimError
from accelsim.hw.systolic import Systolic
from accelsim.results.scalesim_demand import Layer, Tile
from accelsim.results.scalesim_memory import (
    SETS,
    Access,
    drains,
    epoch_words,
    held_in_place,
    loaded_once,
    prefetches,
    swept_along_rows,
)
from accelsim.results.scalesim_sparse import (
    METADATA_COLUMN,
    SPARSE_COLUMNS,
    Representation,
    metadata_bandwidth,
    sparse_row,
)
from accelsim.results.scalesim_windows import walk_windows
from accelsim.workload.layer_sparsity import KeptSteps, kept_steps
from accelsim.workload.operators import Conv2d, Gemm, Operator

if TYPE_CHECKING:
    from accelsim.arch.model import Architecture
    from accelsim.results.result import Result
    from accelsim.workload.graph import Graph

COMPUTE_COLUMNS = (
    "LayerID", "Total Cycles (incl. prefetch)", "Total Cycles", "Stall Cycles", "Overall Util %",
    "Mapping Efficiency %", "Compute Util %",
)  # fmt: skip
BANDWIDTH_COLUMNS = (
    "LayerID", "Avg IFMAP SRAM BW", "Avg FILTER SRAM BW", "Avg OFMAP SRAM BW",
    "Avg IFMAP DRAM BW", "Avg FILTER DRAM BW", "Avg OFMAP DRAM BW",
)  # fmt: skip
ACCESS_COLUMNS = (
    "LayerID",
    "SRAM IFMAP Start Cycle", "SRAM IFMAP Stop Cycle", "SRAM IFMAP Reads",
    "SRAM Filter Start Cycle", "SRAM Filter Stop Cycle", "SRAM Filter Reads",
    "SRAM OFMAP Start Cycle", "SRAM OFMAP Stop Cycle", "SRAM OFMAP Writes",
    "DRAM IFMAP Start Cycle", "DRAM IFMAP Stop Cycle", "DRAM IFMAP Reads",
    "DRAM Filter Start Cycle", "DRAM Filter Stop Cycle", "DRAM Filter Reads",
    "DRAM OFMAP Start Cycle", "DRAM OFMAP Stop Cycle", "DRAM OFMAP Writes",
)  # fmt: skip

Capacities = tuple[int, int, int]
"""Bytes of the ifmap, filter and ofmap SRAM, both halves."""


@dataclass(frozen=True)
class LayerReport:
    """What SCALE-Sim reports about one layer; SRAM and DRAM in the order ifmap, filter, ofmap.

    ``pruned`` are the steps of K that layer-wise sparsity keeps; those are the layer's K.
    """

    name: str
    layer: Layer
    sram: tuple[Access, Access, Access]
    dram: tuple[Access, Access, Access]
    pruned: KeptSteps | None = None

    @property
    def total_cycles(self) -> int:
        """The index of the last cycle."""
        return self.layer.total_cycles

    @property
    def cycles_with_prefetch(self) -> int:
        """From the first DRAM read to the last DRAM write."""
        return self.dram[2].stop - min(self.dram[0].start, self.dram[1].start)

    @property
    def overall_utilization(self) -> float:
        """Percent of the array's multiply-accumulates that were useful, pruned ones among them."""
        layer = self.layer
        k = layer.k if self.pruned is None else self.pruned.whole
        # A single cell that multiplies once ends in cycle 0, where SCALE-Sim divides by zero.
        capacity = max(layer.total_cycles, 1) * layer.rows * layer.cols
        return layer.m * layer.n * k * 100 / capacity

    @property
    def mapping_efficiency(self) -> float:
        """Percent of the cells that hold something, averaged over the folds."""
        along_rows, along_cols, _ = self.layer.mapped
        cells = self.layer.folds * self.layer.rows * self.layer.cols
        return along_rows * along_cols / cells * 100

    @property
    def compute_utilization(self) -> float:
        """Percent of the cell cycles of the folds that compute, as SCALE-Sim counts cycles."""
        layer = self.layer
        counted = layer.fold_cycles + (0 if layer.dataflow == "os" else layer.cols - 1)
        return self.mapping_efficiency * layer.mapped[2] / counted

    def compute_row(self) -> tuple[float, ...]:
        """COMPUTE_COLUMNS without the id."""
        return (
            self.cycles_with_prefetch,
            self.total_cycles,
            0,
            self.overall_utilization,
            self.mapping_efficiency,
            self.compute_utilization,
        )

    def bandwidth_row(self, metadata: tuple[float, ...] = ()) -> tuple[float, ...]:
        """BANDWIDTH_COLUMNS without the id, in words per cycle; of ``metadata`` too, if any."""
        ifmap, weight, ofmap = (a.words / max(self.total_cycles, 1) for a in self.sram)
        return ifmap, weight, *metadata, ofmap, *(access.words_per_cycle for access in self.dram)

    def access_row(self) -> tuple[float, ...]:
        """ACCESS_COLUMNS without the id; SCALE-Sim prints cycles with a decimal point."""
        return tuple(
            value
            for access in (*self.sram, *self.dram)
            for value in (float(access.start), float(access.stop), access.words)
        )


def write_reports(
    result: Result, directory: str | Path, representation: Representation = "ellpack_block"
) -> list[LayerReport]:
    """Write COMPUTE_REPORT.csv, BANDWIDTH_REPORT.csv and DETAILED_ACCESS_REPORT.csv, and of sparse
    layers SPARSE_REPORT.csv.

    Returns what they say, layer by layer in workload order. Raises AccelsimError if the run is not
    one that SCALE-Sim could have made, or the files cannot be written.
    """
    layers = layer_reports(result)
    folder = Path(directory)
    sparse = any(layer.pruned for layer in layers)
    bandwidths = [layer.bandwidth_row() for layer in layers]
    columns: tuple[str, ...] = BANDWIDTH_COLUMNS
    if sparse:
        shares = [(metadata_bandwidth(layer, representation),) for layer in layers]
        bandwidths = [layer.bandwidth_row(s) for layer, s in zip(layers, shares, strict=True)]
        columns = (*columns[:3], METADATA_COLUMN, *columns[3:])
    files: list[tuple[str, tuple[str, ...], Sequence[tuple[float | str, ...]]]] = [
        ("COMPUTE_REPORT.csv", COMPUTE_COLUMNS, [layer.compute_row() for layer in layers]),
        ("BANDWIDTH_REPORT.csv", columns, bandwidths),
        ("DETAILED_ACCESS_REPORT.csv", ACCESS_COLUMNS, [layer.access_row() for layer in layers]),
    ]
    if sparse:
        rows = [sparse_row(layer, representation) for layer in layers]
        files.append(("SPARSE_REPORT.csv", SPARSE_COLUMNS, rows))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, header, body in files:
            (folder / name).write_text("".join(_lines(header, body)), encoding="utf-8")
    except OSError as fault:
        raise AccelsimError(f"cannot write the reports to {folder}: {fault.strerror}") from None
    return layers


def _lines(columns: Iterable[str], rows: Iterable[Iterable[float | str]]) -> Iterator[str]:
    """Lines with the trailing comma that SCALE-Sim writes."""
    yield ", ".join(columns) + ",\n"
    for layer, row in enumerate(rows):
        yield ", ".join([str(layer), *map(str, row)]) + ",\n"


def layer_reports(result: Result) -> list[LayerReport]:
    """What SCALE-Sim would report about the layers of a run, in workload order."""
    arch, graph = result.architecture, result.graph
    if arch is None or graph is None:
        raise _refusal("the result was read from a file", "a result with its programs")
    array, capacities = _machine(arch, result.memory)
    reports = []
    known: dict[object, LayerReport] = {}  # the channels of a depthwise layer are all equal
    for operator, taken in zip(graph.operators, _layer_cycles(result), strict=True):
        layer = _layer(operator, array)
        if taken != layer.total_cycles + 1:
            raise _refusal(
                f"{operator} took {taken:g} cycles, its folds one after the other take"
                f" {layer.total_cycles + 1}",
                "a mapper that does not split it",
            )
        same = (layer, kept_steps(operator), _windows(operator))
        if same not in known:
            known[same] = _report(operator, layer, capacities)
        reports.append(replace(known[same], name=operator.name))
    return reports


def _windows(operator: Operator) -> tuple[object, ...]:
    """What a convolution is beyond its matrix product: which of its ifmap words are the same."""
    if not isinstance(operator, Conv2d):
        return ()
    return (operator.h, operator.w, operator.fh, operator.fw, operator.stride, operator.padding)


def check_reportable(graph: Graph, arch: Architecture, memory: str) -> None:
    """Raise AccelsimError, before a run, if SCALE-Sim could not have made it."""
    array, _ = _machine(arch, memory)
    for operator in graph.operators:
        _layer(operator, array)


def _layer_cycles(result: Result) -> list[float]:
    """Cycles of every operator of the workload, identical layers repeated."""
    rows = iter(result.operators)
    cycles = []
    for segment in result.segments:
        once = [next(rows).cycles / segment.repeat for _ in segment.bound.program.operators]
        cycles += once * segment.repeat
    return cycles


def _machine(arch: Architecture, memory: str) -> tuple[Systolic, Capacities]:
    """The array and its three SRAMs, if SCALE-Sim has such a machine."""
    arrays = list(arch.units_of(Systolic).values())
    if len(arrays) != 1 or arrays[0].count * arch.cores != 1:
        raise _refusal(f"{arch.name} is not one systolic array", "the architecture 'systolic'")
    array = arrays[0]
    if array.pipelined:
        raise _refusal("the array overlaps folds", "--set array.pipelined=false")
    if array.weight_load not in (0, array.rows):
        raise _refusal("the stationary load is not one row per cycle", "weight_load=0")
    if memory != "ideal":
        raise _refusal(f"memory is {memory}", "--memory ideal")
    names = (array.inputs, array.weights, array.outputs)
    if len(set(names)) != 3 or any(arch.memories[name].capacity < SETS for name in names):
        raise _refusal("the array has no three SRAMs of its own", f"three of {SETS} B or more")
    return array, cast(Capacities, tuple(arch.memories[name].capacity for name in names))


def _refusal(problem: str, accepted: str) -> AccelsimError:
    return AccelsimError(f"no SCALE-Sim report: {problem}; accepted: {accepted}")


def _layer(operator: Operator, array: Systolic) -> Layer:
    """The matrix product of an operator; SCALE-Sim knows neither batches nor groups nor biases."""
    flow: Literal["os", "ws", "is"] = array.dataflow
    plain = isinstance(operator, (Gemm, Conv2d)) and operator.batch == 1 and operator.is_plain
    steps = kept_steps(operator)
    if plain and isinstance(operator, Gemm) and operator.groups == 1:
        return Layer(operator.m, operator.n, operator.b_k, array.rows, array.cols, flow)
    if plain and isinstance(operator, Conv2d) and operator.groups == 1:
        if not any(operator.padding[::2]):
            m, n, k = operator.gemm_m, operator.gemm_n, operator.gemm_k
            k = k if steps is None else steps.length
            return Layer(m, n, k, array.rows, array.cols, flow)
        raise _refusal(f"{operator} is padded", "a height and width that include the padding")
    raise _refusal(f"{operator}", "gemm and conv2d of batch 1, without groups and bias")


def _report(operator: Operator, layer: Layer, capacities: Capacities) -> LayerReport:
    """One layer; operands are followed along the rows, along the columns, and out of the array."""
    order = (1, 0) if layer.dataflow == "is" else (0, 1)
    rows_sram, columns_sram = (capacities[i] for i in order)
    along_rows = swept_along_rows(layer, epoch_words(rows_sram))
    single = held_in_place if layer.dataflow == "os" else loaded_once
    along_columns = single(layer, epoch_words(columns_sram))
    misses = [along_rows, along_columns]
    stops = [_last(layer, layer.along_rows), _last(layer, layer.along_columns)]
    if isinstance(operator, Conv2d):
        ifmap = order.index(0)
        misses[ifmap], stops[ifmap] = walk_windows(operator, layer, epoch_words(capacities[0]))
    starts = [layer.along_rows(0).start, layer.along_columns(0).start]
    steps = kept_steps(operator)
    reads = _sram_words(layer, steps)
    # Reads are answered in the next cycle, writes at once.
    sram = [Access(starts[i] + 1, stops[i] + 1, reads[order[i]]) for i in (0, 1)]
    dram = [prefetches(misses[i], capacities[order[i]], starts[i]) for i in (0, 1)]
    written = Access(layer.ofmap(0).start, _last(layer, layer.ofmap), reads[2])
    return LayerReport(
        operator.name,
        layer,
        (sram[order[0]], sram[order[1]], written),
        (dram[order[0]], dram[order[1]], drains(layer, capacities[2])),
        steps,
    )


def _last(layer: Layer, tiles: Callable[[int], Tile]) -> int:
    """The cycle of an operand's last word."""
    return (layer.folds - 1) * layer.fold_cycles + tiles(layer.folds - 1).last_cycle


def _sram_words(layer: Layer, steps: KeptSteps | None) -> tuple[float, int, int]:
    """Words that ifmap and filter SRAM deliver and the ofmap SRAM takes."""
    m, n, k = layer.m, layer.n, layer.k
    if layer.dataflow == "os":
        extra = (layer.rows + layer.cols) * layer.folds
        return m * k * layer.col_folds, k * n * layer.row_folds, m * n + extra
    if layer.dataflow == "ws":
        times = steps.group / steps.kept if steps else 1
        return m * k * layer.col_folds * times, k * n, m * n * layer.row_folds
    return m * k, k * n * layer.col_folds, m * n * layer.row_folds
