"""The recorded latencies of an H200, beside the rows of the grid that they belong to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from accelsim.errors import AccelsimError

from ..gpu.timing.grid import Row, grid
from ..gpu.timing.method import MOST_DRIFT
from ..gpu.timing.record import MANIFEST, read_lines, read_manifest

RECORDED = Path(__file__).resolve().parent / "recorded"
GPU_KIND, GPU_NAME = "cuda", "H200"


@dataclass(frozen=True)
class Measured:
    """A row of the grid and the median microseconds that it took."""

    row: Row
    microseconds: float


def is_there(folder: Path = RECORDED) -> bool:
    """Whether anything was recorded; if so it has to be whole."""
    return folder.is_dir() and any(folder.iterdir())


def measured(folder: Path = RECORDED) -> list[Measured]:
    """The rows between steady anchors, in the order in which they were timed.

    Raises:
        AccelsimError: it is not whole, from no H200, or has rows that the grid has not.
    """
    machine = read_manifest(folder)["identity"]["machine"]
    if machine["kind"] != GPU_KIND or GPU_NAME not in machine["name"]:
        raise AccelsimError(
            f"{folder / MANIFEST} is of {machine['name']} ({machine['kind']}); accepted: an NVIDIA"
            f" {GPU_NAME}"
        )
    known = {row.name: row for row in grid()}
    found = []
    for line in read_lines(folder, "latency.csv"):
        name = f"{line['case']} {line['cache']}"
        if name not in known:
            raise AccelsimError(f"{folder / 'latency.csv'}: {name!r} is no row of the grid")
        if float(line["drift"]) <= MOST_DRIFT:
            found.append(Measured(known[name], float(line["median_us"])))
    return found
