"""Unstructured sparsity in tiled-CSL on an A100: bandwidth limits, decoders, Flash-LLM's averages.

A kept weight takes four bytes, a dense one two, so a product bound by main memory can be at most
1 / (2 (1 - s)) times as fast as its dense twin. The limits are approached from below until the
scatter into shared memory takes longer than the bytes do: at 90 % on an A100, and at any sparsity
where the scatter is made slower.

Flash-LLM's averages over cuBLAS, of twelve shapes, lie below what is simulated of one of them:
pipes overlap perfectly here, and its kernel loads the words of a tile only while it multiplies the
tile before. The comparison is told; it fails only where the kernel is faster than the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from statistics import mean

from accelsim.api import arch, simulate
from accelsim.results.claims import Claim, Row, truth, within

CLAIM = Claim(
    name="tiled-csl",
    statement="tiled-CSL over dense fp16 weights on an A100: bandwidth limits, scatter-bound times",
    source="Flash-LLM (Apache-2.0), VLDB 2024: format, kernel and README averages",
    tolerance=0.08,
)
LARGE = 27648, 4096
"""Columns and depth of a weight of one wave, 256 columns per multiprocessor."""
SMALL = 7168, 7168
"""The smallest weight of Flash-LLM's benchmark."""
BATCHES = (8, 16, 32, 64)
WIDE = {"tensor.shared_width": 512, "tensor.decode": {"tiled-csl": 128}}
"""Four times the shared memory, so that main memory is the bound at any sparsity."""
SLOW = 4
"""Words per cycle of a decoder that is the bound at any sparsity."""


def rows() -> Iterator[Row]:
    """Limits, the region of the decoder, and the published averages."""
    for sparsity in (70, 80, 90):
        limit, found = 50 / (100 - sparsity), speedup(LARGE, 16, sparsity, wide=sparsity == 90)
        case = f"{sparsity} % left out, 16 rows{', wide shared memory' * (sparsity == 90)}"
        near = limit * (1 - CLAIM.tolerance) <= found <= limit
        yield Row(f"{case}, limit", round(limit, 3), round(found, 3), near)
    found = seconds(LARGE, 16, 90, {"tensor.decode": {"tiled-csl": SLOW}}) * 1e6
    case = f"90 % left out, {SLOW} words per cycle, us"
    yield within(case, round(scatter_us(90), 1), round(found, 1), CLAIM.tolerance)
    for row in truth(__name__, "averages.csv"):
        sparsity, published = int(row["sparsity"]), float(row["over_cublas"])
        found = round(mean(speedup(SMALL, m, sparsity) for m in BATCHES), 3)
        case = f"{sparsity} % left out, mean of 8 to 64 rows"
        yield Row(case, published, found, found >= published, "told")


def speedup(shape: tuple[int, int], m: int, sparsity: int, *, wide: bool = False) -> float:
    """Time with dense weights over time with sparse ones."""
    return dense_seconds(shape, m) / seconds(shape, m, sparsity, WIDE if wide else {})


@cache
def dense_seconds(shape: tuple[int, int], m: int) -> float:
    """Of the product with dense weights."""
    return simulate("a100", f"gemm:m={m},n={shape[0]},k={shape[1]},dtype=fp16").seconds


def seconds(shape: tuple[int, int], m: int, sparsity: int, changes: dict[str, object]) -> float:
    """Of the product with sparse weights on an A100 with some parameters changed."""
    kept = (100 - sparsity) / 100
    work = f"gemm:m={m},n={shape[0]},k={shape[1]},dtype=fp16,encoding=tiled-csl,sparsity={kept}"
    return simulate(arch("a100", changes), work).seconds


def scatter_us(sparsity: int) -> float:
    """Time in shared memory by hand, of a CTA of 16 x 256 and its four warps: 80 activations and
    512 weights of two bytes in and out for each k, and the words of 256 lines."""
    chip = arch("a100")
    words = 256 * (100 - sparsity) / 100
    cycles = LARGE[1] * ((80 + 512) * 2 / 128 + words / SLOW)
    return cycles / chip.clocks["core"] * 1e6
