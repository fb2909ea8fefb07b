"""NVIDIA H200 against silicon: the latency grid of ``gpu.timing``, cold and warm L2 cache.

Every recorded row is simulated. A quarter of the cases, chosen by a hash of their names, may have
been used to fit constants (``calibrate``); the claim is judged by the others, block by block: each
judged block is a row of its own, with the error that is asked for as what is expected. The other
blocks of the grid (elementwise, copies, attention by kernels that do not use Hopper's instructions)
are told and not judged.
"""

from __future__ import annotations

from collections.abc import Iterator

from accelsim.results.claims import Claim, Row, mean_error

from .calibrate import JUDGED
from .measured import RECORDED, is_there, measured
from .workloads import simulated_us

ASKED = 0.10
COMMAND = "python -m accelsim.validation.gpu.timing --out validation/h200/recorded"

CLAIM = Claim(
    name="h200",
    statement="microseconds of kernels on an H200 SXM, cold and warm L2 cache; mean absolute error"
    " of each block of the grid on rows that were not fitted",
    source="recorded by validation/gpu/timing on one H200",
    tolerance=ASKED,
    mean_of="test",
)


def outstanding() -> str:
    """How to record the latencies, "" once they are there."""
    if is_there():
        return ""
    return (
        f"no latencies are recorded in {RECORDED.name}/ yet; on a machine with an H200: {COMMAND}"
    )


def rows() -> Iterator[Row]:
    """Every recorded row, simulated, and then the mean error of each block."""
    found: dict[str, list[Row]] = {}
    for one in measured():
        case = one.row.case
        split = case.split if case.block in JUDGED else "told"
        row = Row(
            f"{case.block}: {one.row.name}",
            one.microseconds,
            round(simulated_us(one.row), 3),
            split=split,
        )
        found.setdefault(case.block, []).append(row)
        yield row
    for block, mine in found.items():
        yield from _means(block, mine)


def _means(block: str, mine: list[Row]) -> Iterator[Row]:
    """The mean error of a block beside the one asked for; of blocks that are only told, beside
    itself."""
    judged = block in JUDGED
    error = round(mean_error(mine, "test" if judged else ""), 4)
    ok = not judged or error <= ASKED
    yield Row(
        f"mean error of {block}", ASKED if judged else error, error, ok, split="asked of a block"
    )
