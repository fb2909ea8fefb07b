"""What attention moves through a scratchpad of M elements, simulated, and what it must move.

The smallest traffic of Q K^T, written or not, in elements. Cut the run into segments of T >= M
transfers. In a segment s elements of Q and K are on chip or loaded, and c partial scores cross its
ends: at its begin or as transfers the two share M + T, at its end there are up to M more, so
s + c <= 2 M + T, s <= M + T. A score whose d products all fall into the segment needs d elements
of Q and d of K: there are (s / 2d)^2 such at most, with d products each. Of the others no more than
sqrt((s/2)^2 c) products can be formed (Loomis and Whitney), most with s = 2 c:

    F(T) = (M + T)^2 / 4d + ((2 M + T) / 3)^1.5    products in a segment,
    traffic >= T (N^2 d / F(T) - 1)

With T = M that is N^2 d^2 / (M + d sqrt(M)) - M: both regimes in one. It holds for every order of
work in which a score is the sum of its d products, and however many are formed twice.

Sources: Saha and Ye, The I/O complexity of attention, or how optimal is FlashAttention?, ICML 2024
(arXiv 2402.07443): Theta(N^2 d^2 / M) for M >= d^2, Theta(N^2 d / sqrt(M)) for less, with
standard products; Irony, Toledo and Tiskin, JPDC 64, 2004 (segments and Loomis-Whitney). The
constants are derived here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files

import numpy as np

from accelsim.api import arch, simulate
from accelsim.arch import Architecture
from accelsim.errors import CapacityError

ELEMENT_BYTES = 4
"""fp32 throughout, so that scores and sums are elements like the operands."""

ONE_PASS, SPILLED = "flash-attention", "unfused-attention"

HEAD_DIMS = (256, 512)
"""Large: scores that are spilled cost N^2 a few times over whatever M is, which hides the slope of
N^2 d / sqrt(M) unless sqrt(M) is well below d, while a scratchpad holds some hundred elements at
least with its buffers on their boundaries."""

BELOW = (1 / 64, 1 / 32, 1 / 16, 1 / 8)
AROUND = (1 / 4, 1 / 2, 1, 2)
ABOVE = (4, 8, 16)
"""Scratchpads in d^2 elements. All powers of two, as tiles are."""


@dataclass(frozen=True)
class Point:
    """Attention of ``n`` queries to ``n`` keys, head dimension ``d``, through ``m`` elements on
    chip: what the schedules moved, in elements. A schedule that needs more room is left out."""

    n: int
    d: int
    m: int
    moved: tuple[tuple[str, int], ...]

    @property
    def traffic(self) -> int:
        """Elements of the schedule that moves least; nothing is subtracted."""
        return min(moved for _, moved in self.moved)

    def of(self, schedule: str) -> int:
        """Elements that one schedule moves."""
        return dict(self.moved)[schedule]

    @property
    def one_pass_constant(self) -> float:
        """Traffic over N^2 d^2 / M."""
        return self.traffic * self.m / (self.n * self.d) ** 2

    @property
    def spilled_constant(self) -> float:
        """Traffic over N^2 d / sqrt(M)."""
        return self.traffic * math.sqrt(self.m) / (self.n**2 * self.d)

    @property
    def least(self) -> float:
        """What every schedule moves: a proven bound with its constant, see the module."""
        return max(must_move(self.n, self.d, self.m), 4.0 * self.n * self.d)


def must_move(n: int, d: int, m: int) -> float:
    """Elements that Q K^T moves at least, by the best of a few lengths of segments."""

    def of(segment: float) -> float:
        whole = (m + segment) ** 2 / (4 * d)
        crossing = math.pow((2 * m + segment) / 3, 1.5)
        return segment * (n * n * d / (whole + crossing) - 1)

    return max(of(float(m * times)) for times in (1, 2, 4))


@cache
def below(d: int) -> tuple[Point, ...]:
    """Scratchpads well below d^2; per pair of a query and a key more of them move the same."""
    return tuple(_point(2 * d, d, round(share * d * d), (SPILLED,)) for share in BELOW)


@cache
def around(d: int) -> tuple[Point, ...]:
    """Scratchpads where the schedules meet, both simulated."""
    return tuple(_point(4 * d, d, round(share * d * d), (ONE_PASS, SPILLED)) for share in AROUND)


@cache
def above(d: int) -> tuple[Point, ...]:
    """Scratchpads well above d^2, and queries enough that they are far from holding all."""
    return tuple(_point(64 * d, d, round(share * d * d), (ONE_PASS, SPILLED)) for share in ABOVE)


def slope(points: Sequence[Point]) -> float:
    """Exponent of M in the traffic: least squares over logarithms."""
    m, traffic = (np.log([getattr(p, name) for p in points]) for name in ("m", "traffic"))
    return float(np.polyfit(m, traffic, 1)[0])


def crossing(points: Sequence[Point]) -> float:
    """Elements on chip from which on one pass moves less: between two scratchpads, along straight
    lines on logarithmic axes; nan if the schedules do not cross."""
    gaps = [math.log(p.of(ONE_PASS) / p.of(SPILLED)) for p in points]
    for i in range(len(points) - 1):
        if gaps[i] > 0 >= gaps[i + 1]:
            share = gaps[i] / (gaps[i] - gaps[i + 1])
            low, high = math.log(points[i].m), math.log(points[i + 1].m)
            return math.exp(low + share * (high - low))
    return math.nan


def _point(n: int, d: int, m: int, schedules: Sequence[str]) -> Point:
    work = f"attention:heads=1,q={n},kv={n},d={d},dtype=fp32"
    machine = _machine(m)
    moved = []
    for schedule in schedules:
        try:
            traffic = simulate(machine, work, mapper=schedule).traffic_bytes["dram"]
        except CapacityError:
            continue
        moved.append((schedule, (traffic["read"] + traffic["write"]) // ELEMENT_BYTES))
    return Point(n, d, m, tuple(moved))


def _machine(m: int) -> Architecture:
    """The machine with ``m`` elements on chip."""
    with as_file(files(__package__) / "machine.yaml") as file:
        return arch(str(file), {"pad.capacity": m * ELEMENT_BYTES})
