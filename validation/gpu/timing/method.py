"""How a row is timed, and what a device has to offer for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

from accelsim.errors import AccelsimError

from .grid import Case, Row
from .spread import Spread

REPLAY_US = 2000.0
"""A replay of a graph lasts at least so long, as far as MOST_LAUNCHES go."""
MOST_LAUNCHES = 200
WARM_UPS = 3
REPLAYS = 15
STRETCH = 40
"""Rows between two anchors."""
MOST_DRIFT = 0.02
ATTEMPTS = 3
"""How often a stretch is timed, until its anchors agree."""
SAMPLE_SECONDS = 0.2
LINE = 120


def launches_for(kernel_us: float) -> int:
    """How often a kernel is launched in a graph."""
    return max(1, min(MOST_LAUNCHES, math.ceil(REPLAY_US / max(kernel_us, 1e-3))))


@dataclass(frozen=True)
class Timing:
    """Microseconds of one launch, and how they were found.

    ``sets`` is the number of sets of operands that a replay goes round (1: the same each time),
    ``eager_us`` the time of a launch that the host makes on its own.
    """

    per_launch_us: Spread
    eager_us: float
    launches: int
    sets: int


class UnavailableError(Exception):
    """A kernel that this GPU or this build of a library does not have."""


class LostError(AccelsimError):
    """The GPU does not answer this process any more, since a kernel faulted."""


def first_line(fault: Exception) -> str:
    """What a library says, without the pages behind it."""
    lines = str(fault).strip().splitlines() or [type(fault).__name__]
    return lines[0][:LINE]


class Device(Protocol):
    """A GPU, or what stands in for one."""

    capability: tuple[int, int]

    def provenance(self) -> dict[str, Any]:
        """The GPU, its driver and its libraries."""

    def time(self, row: Row) -> Timing:
        """Time one row; raises UnavailableError."""

    def kernels(self, case: Case) -> str:
        """Names, grids and shared memory of the kernels that a case runs, "" if they cannot be
        told."""

    def anchor(self) -> tuple[float, float]:
        """Microseconds of a bf16 product of 4096 x 4096 x 4096 and of a copy of 1 GiB."""


def lacking(case: Case, capability: tuple[int, int]) -> str:
    """Why a GPU of this compute capability cannot run a case, "" if it can."""
    if capability >= case.needs:
        return ""
    need, have = (".".join(map(str, pair)) for pair in (case.needs, capability))
    return f"{case.dtype} {case.kind} needs compute capability {need}, this GPU has {have}"
