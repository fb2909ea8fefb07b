"""The study of attention's I/O: its bound, its fits, its crossing, and points of it simulated."""

from __future__ import annotations

import math

import pytest
from accelsim.validation import attention_io
from accelsim.validation.attention_io import study
from accelsim.validation.attention_io.study import ONE_PASS, SPILLED, Point

from accelsim.api import simulate


@pytest.mark.parametrize("d", [64, 256])
def test_the_bound_has_both_regimes(d: int) -> None:
    """Never below the closed form of one length of segments; the powers of the theory far out."""
    n = 1 << 26
    for share in (1 / 64, 1, 64):
        m = round(share * d * d)
        closed = n * n * d * d / (m + d * math.sqrt(m)) - m
        assert closed * (1 - 1e-12) <= study.must_move(n, d, m) < 2 * closed
    small, large = (1 << 2, 1 << 4), (d * d << 12, d * d << 14)
    for (few, many), exponent in ((small, -0.5), (large, -1.0)):
        ratio = study.must_move(n, d, many) / study.must_move(n, d, few)
        assert math.log(ratio, 4) == pytest.approx(exponent, abs=0.06)


def _points(exponent: float) -> list[Point]:
    sizes = (1 << 10, 1 << 12, 1 << 14)
    return [Point(64, 64, m, ((SPILLED, round(1e9 * m**exponent)),)) for m in sizes]


@pytest.mark.parametrize(("exponent", "good"), [(-0.5, True), (-0.56, False), (-0.44, False)])
def test_a_slope_beyond_its_tolerance_fails(exponent: float, good: bool) -> None:
    assert study.slope(_points(exponent)) == pytest.approx(exponent, abs=1e-3)
    assert attention_io._slope(-0.5, _points(exponent), "", [1.0]).ok is good


def test_schedules_cross_where_their_powers_do() -> None:
    """8 d^2 / M and 8 d / sqrt(M) meet at d^2; two curves that do not meet are nan."""
    d = 64
    points = []
    for share in study.AROUND:
        m = share * d * d
        moved = (ONE_PASS, round(8e9 * d * d / m)), (SPILLED, round(8e9 * d / math.sqrt(m)))
        points.append(Point(1, d, round(m), moved))
    assert study.crossing(points) == pytest.approx(d * d, rel=1e-6)
    assert math.isnan(study.crossing(points[3:]))


def test_more_queries_and_keys_move_as_much_each() -> None:
    """Why the rows below d^2 may be short; a schedule that does not fit is left out."""
    few, many = (study._point(n, 128, 1024, (ONE_PASS, SPILLED)) for n in (256, 512))
    assert dict(few.moved).keys() == {SPILLED}
    assert many.traffic / many.n**2 == pytest.approx(few.traffic / few.n**2, rel=0.01)


def test_a_point_is_the_traffic_that_was_simulated() -> None:
    """One pass: queries and results once, keys and values once per pair of query tiles."""
    n, d, m = 512, 32, 4096
    point = study._point(n, d, m, (ONE_PASS, SPILLED))
    run = simulate(study._machine(m), f"attention:heads=1,q={n},kv={n},d={d},dtype=fp32")
    assert sum(run.traffic_bytes["dram"].values()) == 4 * point.of(ONE_PASS)
    passes = point.of(ONE_PASS) / (2 * n * d) - 1
    assert passes == n / (m / (4 * d))
    assert point.traffic == min(point.of(ONE_PASS), point.of(SPILLED)) > point.least


def test_the_page_shows_the_figure_of_a_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelsim.results.verdict import judge
    from accelsim.views.claims import claims_html

    def few(d: int) -> tuple[Point, ...]:
        both = (ONE_PASS, 10 * d), (SPILLED, 11 * d)
        return tuple(Point(d, d, m, both) for m in (d * d // 4, d * d, 4 * d * d))

    for name in ("below", "around", "above"):
        monkeypatch.setattr(attention_io, name, few)
    verdict = judge(attention_io)
    assert not verdict.ok
    assert len(verdict.rows) == 4 * len(attention_io.HEAD_DIMS)
    assert "M, elements on chip" in claims_html([verdict])
