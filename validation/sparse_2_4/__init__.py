"""2:4 sparse weights on sparse tensor cores: twice the rate, and the bytes that are stored.

A product bound by arithmetic takes half as long as its dense twin, one bound by main memory as much
less as 2:4 storage takes less: per four elements two, and two places of two bits each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from accelsim.api import arch, simulate
from accelsim.results.claims import Claim, Row, within

CLAIM = Claim(
    name="sparse-2-4",
    statement="2:4 sparse over dense products on GPUs: speed where compute-bound, time where not",
    source="twice the rate: NVIDIA A100 and H100 whitepapers; bytes: PTX ISA, mma.sp metadata",
    tolerance=0.03,
)
COMPUTE = "gemm:m=8192,n=8192"
MEMORY = "gemm:m=16,n=16384,k=16384"
BYTES = {"fp16": (2 * 16 + 4) / 64, "int8": (2 * 8 + 4) / 32}
ALONE = {"l2.width": "1 KiB", "tensor.fetch_width": "1 KiB", "tensor.shared_width": "1 KiB"}
"""Tensor cores alone: on an H100 shared memory and the L2 cache, which is read by each CTA of a
cluster, feed sparse products at less than their full rate."""


LIMITS: tuple[tuple[str, str, int, Mapping[str, object]], ...] = (
    ("a100", "fp16", 32768, {}),
    ("a100", "int8", 32768, {}),
    ("a10", "fp16", 32768, {}),
    ("h100", "fp16", 16384, ALONE),
)


def rows() -> Iterator[Row]:
    """Products bound by arithmetic, then products bound by main memory."""
    for machine, dtype, k, changes in LIMITS:
        faster = round(1 / _ratio(machine, f"{COMPUTE},k={k},dtype={dtype}", changes), 4)
        case = f"{machine}{' tensor cores alone' if changes else ''} {dtype}, times faster"
        yield within(case, 2.0, faster, CLAIM.tolerance)
    for machine in ("a100", "h200"):
        for dtype, stored in BYTES.items():
            shorter = round(_ratio(machine, f"{MEMORY},dtype={dtype}", {}), 4)
            case = f"{machine} {dtype} memory-bound, share of the time"
            yield within(case, stored, shorter, CLAIM.tolerance)


def _ratio(machine: str, work: str, overrides: Mapping[str, object]) -> float:
    """Time with sparse weights over time with dense ones."""
    chip = arch(machine, overrides)
    return simulate(chip, f"{work},sparsity=2:4").seconds / simulate(chip, work).seconds
