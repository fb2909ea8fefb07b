"""What SCALE-Sim v3 reports of layers with layer-wise N:M sparsity, beyond a smaller K.

A layer's compute, SRAM and DRAM figures are those of the dense layer that is left, except that
ifmap reads of weight-stationary arrays count as M / N times as many. Storage is in words of 32
bits, a value taking one whatever its format:

    ellpack_block   k' n values, ceil(log2 M) bits beside each
    csr             as many indices as values, and a pointer per row of the dense filter, and one
    csc             the same with a pointer per column

(definitions: SCALE-Sim 3.0.0; compared with its reports in tests/unit/test_scalesim_sparse.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from accelsim.workload.layer_sparsity import KeptSteps

if TYPE_CHECKING:
    from accelsim.results.scalesim_reports import LayerReport

Representation = Literal["ellpack_block", "csr", "csc"]

SPARSE_COLUMNS = (
    "LayerID", "Sparsity Representation", "Original Filter Storage",
    "New Storage (Filter+Metadata)", "Filter Metadata Storage", "Avg FILTER Metadata SRAM BW",
)  # fmt: skip
METADATA_COLUMN = "Avg FILTER Metadata SRAM BW"
WORD_BITS = 32


@dataclass(frozen=True)
class FilterStorage:
    """Words of a filter: dense, and of what is stored beside the kept values."""

    original: int
    kept: int
    metadata: float

    @property
    def new(self) -> float:
        """Kept values and metadata."""
        return self.kept + self.metadata


def filter_storage(n: int, steps: KeptSteps, representation: Representation) -> FilterStorage:
    """Storage of a filter of ``n`` columns."""
    original, kept = steps.whole * n, steps.length * n
    if representation == "ellpack_block":
        return FilterStorage(original, kept, kept * (steps.group - 1).bit_length() / WORD_BITS)
    pointers = steps.whole if representation == "csr" else n
    return FilterStorage(original, kept, kept + pointers + 1)


def all_steps(k: int) -> KeptSteps:
    """What a layer without a pattern keeps."""
    return KeptSteps(1, 1, k)


def metadata_bandwidth(layer: LayerReport, representation: Representation) -> float:
    """Words of metadata per cycle, each read once."""
    storage = _storage(layer, representation)
    return storage.metadata / max(layer.total_cycles, 1)


def sparse_row(layer: LayerReport, representation: Representation) -> tuple[float | str, ...]:
    """SPARSE_COLUMNS without the id."""
    storage = _storage(layer, representation)
    bandwidth = metadata_bandwidth(layer, representation)
    return representation, storage.original, storage.new, storage.metadata, bandwidth


def _storage(layer: LayerReport, representation: Representation) -> FilterStorage:
    steps = layer.pruned or all_steps(layer.layer.k)
    return filter_storage(layer.layer.n, steps, representation)
