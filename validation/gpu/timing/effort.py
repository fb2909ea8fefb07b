"""What a run of the grid will take, before there is a GPU: seconds, and bytes of the files.

The estimate is a roofline at rates that a Hopper GPU of 2023 reaches, with what a row costs beside
its kernels. It is used for ``--dry-run`` and for nothing that is recorded.
"""

from __future__ import annotations

from collections.abc import Sequence

from .grid import BYTES, Case, Row
from .method import REPLAYS, STRETCH, WARM_UPS, launches_for

FLOPS_PER_SECOND = 6e14  # of 16-bit operands, as products and attention reach them together
BYTES_PER_SECOND = 4e12
LAUNCH_US = 2.0
RECORDING_US = 12.0  # the host's time to put one launch into a graph
ROW_SECONDS = 0.12  # inputs, first call, graph instantiation
ANCHOR_SECONDS = 0.15
NAME_SECONDS = 0.08  # a launch under the profiler
ROW_BYTES = 300  # a line of times, and what the kernels are
SAMPLE_BYTES = 60
FIXED_BYTES = 8000


def kernel_us(case: Case) -> float:
    """Microseconds of a kernel, about."""
    flops = 2 * case.macs * BYTES[case.dtype] / 2
    return LAUNCH_US + 1e6 * max(flops / FLOPS_PER_SECOND, case.footprint / BYTES_PER_SECOND)


def seconds(rows: Sequence[Row]) -> float:
    """Seconds that some rows take, anchors included."""
    total = (1 + -(-len(rows) // STRETCH)) * 2 * ANCHOR_SECONDS
    total += NAME_SECONDS * len({row.case for row in rows})
    for row in rows:
        each = kernel_us(row.case)
        launches = launches_for(each)
        replays = (WARM_UPS + REPLAYS) * launches * each
        total += ROW_SECONDS + (replays + launches * RECORDING_US) / 1e6
    return total


def recorded_bytes(rows: Sequence[Row], interval: float) -> int:
    """Bytes of the files, with a reading of the GPU's state every ``interval`` seconds."""
    readings = seconds(rows) / interval
    return int(FIXED_BYTES + ROW_BYTES * len(rows) + SAMPLE_BYTES * readings)
