"""Traffic of attention against the theory of its I/O: Theta(N^2 d^2 / M) elements with M >= d^2 of
them on chip, Theta(N^2 d / sqrt(M)) with fewer, for N queries and keys of d elements.

Above d^2 the best schedule is one pass with the scores on chip (``flash-attention``), below it
products of square tiles with the scores spilled (``unfused-attention``). Both are simulated as they
are on a machine that waits for nothing but memory; the one that moves less counts, with all that it
moves. Slopes say what the theory says, constants and the proven least (``study``) what it leaves
open.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from accelsim.results.claims import Claim, Row

from .study import (
    HEAD_DIMS,
    ONE_PASS,
    SPILLED,
    Point,
    above,
    around,
    below,
    crossing,
    must_move,
    slope,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

CLAIM = Claim(
    name="attention-io",
    statement="exponents of attention's DRAM traffic over M elements on chip (-1 above d^2, -1/2 "
    "below, each +- 0.05), of the M where the schedules meet; traffic below the proven least",
    source="Saha and Ye, The I/O complexity of attention, ICML 2024; lower bound derived here",
    tolerance=0.1,
)

SLOPE_TOLERANCE = 0.05  # absolute
CROSSING_FACTOR = 2.0  # either way of d^2


def rows() -> Iterator[Row]:
    """Per head dimension both slopes, where the schedules meet, and the proven bound."""
    for d in HEAD_DIMS:
        yield _slope(-0.5, below(d), "N^2 d / sqrt(M)", [p.spilled_constant for p in below(d)])
        yield _slope(-1.0, above(d), "N^2 d^2 / M", [p.one_pass_constant for p in above(d)])
        yield _crossing(d)
        points = (*below(d), *around(d), *above(d))
        wrong = sum(point.traffic < point.least for point in points)
        ratios = [point.traffic / point.least for point in points]
        case = f"d={d}: points below the proven least, traffic {_range(ratios)} times it"
        yield Row(case, 0, wrong, wrong == 0)


def _slope(expected: float, points: Sequence[Point], theta: str, constants: list[float]) -> Row:
    d = points[0].d
    shares = f"M {points[0].m / d**2:g} to {points[-1].m / d**2:g} d^2"
    found = slope(points)
    case = f"d={d}, {shares}: slope, traffic {_range(constants)} {theta}"
    return Row(case, expected, found, abs(found - expected) <= SLOPE_TOLERANCE)


def _crossing(d: int) -> Row:
    meet = crossing(around(d))
    ok = 1 / CROSSING_FACTOR <= meet / d**2 <= CROSSING_FACTOR
    case = f"d={d}: exponent of d of the M where schedules meet, {meet / d**2:.2f} d^2"
    return Row(case, 2.0, math.log(meet) / math.log(d), ok)


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.3g} to {max(values):.3g}"


def figure() -> Figure:
    """Traffic per pair of a query and a key over M, both schedules, with the two lines of the
    theory through the middle of what was simulated and the proven least."""
    from accelsim.results import theme

    fig = theme.figure(
        "Traffic of attention over the scratchpad",
        "elements per query and key; solid: N² d / √M and N² d² / M with the constants found, "
        "dotted: the proven least",
        height=560,
    )
    for i, d in enumerate(HEAD_DIMS):
        points = (*below(d), *around(d), *above(d))
        color = theme.PALETTE[i]
        for schedule, symbol in ((SPILLED, "square"), (ONE_PASS, "circle")):
            some = [p for p in points if schedule in dict(p.moved)]
            fig.add_scatter(
                x=[p.m for p in some], y=[p.of(schedule) / p.n**2 for p in some], mode="markers",
                name=f"{schedule}, d = {d}",
                marker={"color": color, "symbol": symbol, "size": 9},
            )  # fmt: skip
        for name, sizes, values in _lines(d):
            fig.add_scatter(
                x=sizes, y=values, mode="lines", name=name, hoverinfo="skip", showlegend=False,
                line={"color": color, "width": 1, "dash": "dot" if "least" in name else "solid"},
            )  # fmt: skip
        fig.add_vline(x=d * d, line={"color": theme.FAINT, "width": 1})
    fig.update_xaxes(type="log", title="M, elements on chip")
    fig.update_yaxes(type="log", title="traffic / N², elements")
    return fig


def _lines(d: int) -> Iterator[tuple[str, list[float], list[float]]]:
    """(name, elements on chip, traffic / N^2): the two powers of the theory, and the least."""
    first, last, square = float(below(d)[0].m), float(above(d)[-1].m), float(d * d)

    def middle(values: Sequence[float]) -> float:
        return sorted(values)[len(values) // 2]

    low = middle([p.spilled_constant for p in below(d)])
    high = middle([p.one_pass_constant for p in above(d)])
    yield "sqrt", [first, square], [low * d / first**0.5, low]
    yield "one pass", [square, last], [high, high * d * d / last]
    sizes = [first * 2.0**e for e in range(round(last / first).bit_length())]
    n = above(d)[0].n
    yield "least", sizes, [must_move(n, d, round(m)) / n**2 for m in sizes]
