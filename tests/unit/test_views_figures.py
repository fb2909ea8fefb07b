"""Figures draw the numbers of the run: timeline, roofline, breakdown, and the report with all."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from accelsim.api import simulate
from accelsim.arch.describe import peak_bytes_per_second, peak_macs_per_second
from accelsim.errors import AccelsimError
from accelsim.results.theme import kind_colors
from accelsim.views.breakdown import breakdown, energy_bars
from accelsim.views.lanes import Lane, lanes_of, tick_lanes
from accelsim.views.report import report_html
from accelsim.views.roofline import roofline
from accelsim.views.timeline import merged, pick_segment, timeline


@pytest.fixture(scope="module")
def gemm():
    return simulate("systolic", "gemm:m=96,n=64,k=64")


@pytest.fixture(scope="module")
def model():
    return simulate("quad-npu", "opt-125m:phase=prefill,tokens=32")


def bars_of(fig):
    return [trace for trace in fig.data if trace.type == "bar"]


# -- timeline --------------------------------------------------------------------------------------


def test_every_instruction_that_takes_time_is_a_bar_of_its_unit(gemm):
    run = gemm.segments[0]
    bars = bars_of(timeline(gemm))
    lane = np.concatenate([trace.y for trace in bars])
    length = np.concatenate([trace.x for trace in bars])
    for i, slot in enumerate(run.bound.program.units):
        mine = run.bound.timed.occupancy[run.bound.timed.unit == i]
        assert (lane == slot.name).sum() == (mine > 0).sum()
        assert length[lane == slot.name].sum() >= mine.sum() > 0 or slot.unit == "vpu"
    held = run.bound.timed.hold[run.bound.timed.port == run.bound.port_names.index("dram")]
    assert length[lane == "dram"].sum() == pytest.approx(held.sum())


def test_idle_units_keep_their_lane(gemm):
    named = {name for trace in timeline(gemm).data for name in trace.y}
    assert {slot.name for slot in gemm.segments[0].bound.program.units} <= named


def test_times_are_core_cycles_in_any_tick():
    """edge-npu's DMA runs on a clock of its own, so a tick is no core cycle."""
    run = simulate("edge-npu", "gemm:m=64,n=64,k=64")
    assert run.segments[0].bound.arch.ticks_per_cycle("core") > 1
    fig = timeline(run)
    assert fig.layout.xaxis.range == pytest.approx((0, run.cycles), abs=1)
    stop = max(b + x for t in bars_of(fig) for b, x in zip(t.base, t.x, strict=True))
    assert stop <= run.cycles


def test_too_many_bars_are_merged_and_the_figure_says_so(model, gemm):
    assert "merged" not in timeline(gemm).layout.title.text
    run = pick_segment(model, None)
    shown = sum(len(lane.start) for lane in lanes_of(run))
    fig = timeline(model, max_bars=300)
    drawn = sum(len(trace.x) for trace in bars_of(fig))
    assert drawn <= 300 < shown
    assert f"{shown:,} instructions merged into {drawn} bars" in fig.layout.title.text


def test_merging_keeps_busy_time_count_and_extent():
    start = np.array([0, 2, 4, 100, 104], dtype=float)
    lane = Lane("u", 0, False, np.arange(5), start, start + 2, np.array([0, 0, 0, 0, 1]))
    (bars,), gap = merged([lane], 200.0, max_bars=3)
    assert gap > 0
    assert [(b.start, b.stop, b.busy, b.count) for b in bars] == [
        (0, 6, 6, 3), (100, 102, 2, 1), (104, 106, 2, 1)
    ]  # fmt: skip


def test_merging_keeps_operators_apart_while_the_cap_allows_it():
    start = np.arange(20) * 3.0
    operator = np.repeat([0, 1], 10)
    lane = Lane("u", 0, False, np.arange(20), start, start + 2.999, operator)
    (bars,), _ = merged([lane], 60.0, max_bars=5)
    assert [(b.first, b.count) for b in bars] == [(0, 10), (10, 10)]


def test_merging_gives_up_operators_before_it_breaks_the_cap():
    start = np.arange(1000) * 3.0
    lane = Lane("u", 0, False, np.arange(1000), start, start + 1, np.arange(1000))
    (bars,), _ = merged([lane], 3000.0, max_bars=10)
    assert len(bars) <= 10
    assert sum(b.busy for b in bars) == 1000
    assert sum(b.count for b in bars) == 1000


def test_a_window_draws_what_touches_it(gemm):
    half = gemm.cycles / 2
    fig = timeline(gemm, start=half, stop=half + 100)
    for trace in bars_of(fig):
        for base, length in zip(trace.base, trace.x, strict=True):
            assert base < half + 100
            assert base + length > half
    assert fig.layout.xaxis.range == (half, half + 100)


def test_the_longest_segment_is_chosen_and_others_by_name_or_index(model):
    longest = pick_segment(model, None)
    assert longest.name == "layer0 x12"
    assert pick_segment(model, "layer0") is longest
    assert pick_segment(model, 0) is model.segments[0]
    assert "one of 12 repetitions" in timeline(model).layout.title.text


@pytest.mark.parametrize("wrong", ["layer7", 99, -99])
def test_an_unknown_segment_is_named_with_what_there_is(model, wrong):
    with pytest.raises(AccelsimError, match=r"accepted: 0\.\.2 or .*'layer0 x12'"):
        timeline(model, wrong)


@pytest.mark.parametrize(("start", "stop"), [(5.0, 5.0), (-1.0, 5.0), (1e12, None)])
def test_an_empty_window_is_refused(gemm, start, stop):
    with pytest.raises(AccelsimError, match="is empty; accepted: cycles within"):
        timeline(gemm, start=start, stop=stop)


def test_a_result_without_schedules_has_no_timeline(gemm):
    with pytest.raises(AccelsimError, match="holds no schedules"):
        timeline(replace(gemm, segments=()))


def test_ideal_memory_draws_compute_alone():
    fig = timeline(simulate("systolic", "gemm:m=64,n=64,k=64", memory="ideal"))
    assert {name for trace in bars_of(fig) for name in trace.y} == {"array"}


def test_ports_serve_one_instruction_at_a_time_and_end_with_the_schedule():
    """What the lanes reconstruct agrees with the finish times of the engine."""
    segment = simulate("edge-npu", "gemm:m=64,n=96,k=32").segments[0]
    lanes, timed = tick_lanes(segment), segment.bound.timed
    finish = segment.schedule.finish
    for lane in lanes:
        assert (lane.start[1:] >= lane.stop[:-1]).all(), lane.name
        assert (lane.start >= segment.schedule.start[lane.index]).all()
    ports = {lane.name: lane for lane in lanes if lane.is_port}
    assert set(ports) == set(segment.bound.port_names)
    for i, name in enumerate(segment.bound.port_names):
        held = np.where(timed.port == i, timed.hold, 0).max(axis=1)
        lane = ports[name]
        assert (lane.stop - lane.start == held[lane.index]).all()
        assert (lane.stop - lane.start).sum() == held.sum()
    # The engine's own rule for finish times, from what the ports are drawn to do.
    done = segment.schedule.start.copy()
    for lane in ports.values():
        done[lane.index] = np.maximum(done[lane.index], lane.stop)
    tail = np.maximum(timed.latency - timed.occupancy, 0)
    expected = np.maximum(segment.schedule.start + timed.latency, done + tail)
    for unit in range(timed.units):
        mine = timed.unit == unit
        assert (np.maximum.accumulate(expected[mine]) == finish[mine]).all()
    # A unit is drawn until it can take more: also while a port still serves its instruction.
    free = np.maximum(segment.schedule.start + timed.occupancy, done)
    units = [lane for lane in lanes if not lane.is_port]
    for lane in units:
        assert (lane.stop == free[lane.index]).all()
    assert any((lane.stop - lane.start > timed.occupancy[lane.index]).any() for lane in units)


# -- roofline --------------------------------------------------------------------------------------


def test_points_are_the_operators_with_macs_at_their_intensity(model):
    fig = roofline(model)
    points = [t for t in fig.data if t.mode == "markers" and t.name != "whole run"]
    drawn = [op for op in model.operators if op.macs and op.cycles]
    found = sorted((x, y) for t in points for x, y in zip(t.x, t.y, strict=True))
    expected = sorted(
        (op.macs / sum(op.traffic_bytes.values()), op.macs / op.cycles * model.clock_hz)
        for op in drawn
    )
    assert np.array(found) == pytest.approx(np.array(expected))
    assert f"{len(model.operators) - len(drawn)} operators without MACs" in fig.layout.title.text


def test_the_roof_is_that_of_the_architecture(model):
    (roof,) = (t for t in roofline(model).data if t.mode == "lines")
    peak = peak_macs_per_second(model.architecture)
    rate = peak_bytes_per_second(model.architecture, "dram")
    assert max(roof.y) == peak
    assert roof.x[1] == pytest.approx(peak / rate)
    assert roof.y[0] == pytest.approx(rate * roof.x[0])


def test_the_whole_run_lies_under_the_roof(gemm):
    (star,) = (t for t in roofline(gemm).data if t.name == "whole run")
    rate = peak_bytes_per_second(gemm.architecture, "dram")
    assert star.y[0] == pytest.approx(gemm.macs / gemm.seconds)
    assert star.y[0] <= min(peak_macs_per_second(gemm.architecture), rate * star.x[0])


def test_a_roofline_needs_the_architecture(gemm):
    with pytest.raises(AccelsimError, match="does not hold its architecture"):
        roofline(replace(gemm, architecture=None))


# -- breakdown -------------------------------------------------------------------------------------


def test_every_measure_is_divided_completely(model):
    fig = breakdown(model)
    assert [trace.name for trace in fig.data] == [r.kind for r in model.operators.by_kind()]
    assert list(fig.data[0].y) == ["energy", "traffic", "MACs", "time"]
    totals = np.sum([trace.x for trace in fig.data], axis=0)
    assert totals == pytest.approx(100)
    shares = [trace.x[3] for trace in fig.data]
    assert shares == pytest.approx([100 * r.share for r in model.operators.by_kind()])


def test_measures_that_are_zero_are_left_out(gemm):
    no_energy = tuple(replace(op, energy_pj=0.0) for op in gemm.operators)
    fig = breakdown(replace(gemm, operators=no_energy))
    assert list(fig.data[0].y) == ["traffic", "MACs", "time"]


def test_energy_bars_are_those_of_the_result(gemm):
    (bars,) = energy_bars(gemm).data
    found = dict(zip(bars.y, bars.x, strict=True))
    assert found == pytest.approx(
        {name: pj * 1e-12 for name, pj in gemm.energy_pj.items() if name != "total"}
    )


def test_a_kind_has_one_colour_everywhere(gemm, model):
    assert kind_colors(["gemm"])["gemm"] == kind_colors(["mine", "gemm"])["gemm"]
    kinds = {op.kind for op in model.operators}
    assert len(set(kind_colors(kinds).values())) == len(kinds)


# -- report ----------------------------------------------------------------------------------------


class _Page(HTMLParser):
    """Collects what a browser would fetch, and the JSON that the page carries."""

    def __init__(self):
        super().__init__()
        self.fetched, self.scripts, self.json, self._reading = [], 0, "", False
        self.open = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.fetched += [given[k] for k in ("src", "href") if k in given]
        self.scripts += tag == "script"
        self._reading = given.get("type") == "application/json"
        if tag not in ("meta", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self._reading = False

    def handle_data(self, data):
        if self._reading:
            self.json += data


@pytest.fixture(scope="module")
def page(model):
    text = report_html(model)
    parsed = _Page()
    parsed.feed(text)
    return text, parsed


def test_report_is_whole_and_fetches_nothing(page):
    text, parsed = page
    assert parsed.open == []
    assert parsed.fetched == []
    assert text.count("Plotly.newPlot(") >= 3
    assert len(re.findall(r"plotly\.js v\d", text)) == 1


def test_report_carries_the_result(page, model):
    text, parsed = page
    assert json.loads(parsed.json) == json.loads(json.dumps(model.to_dict()))
    assert f"{model.cycles:,}" in text
    for op in model.operators:
        assert op.name in text
    for title in ("Resources", "Operators", "Traffic and energy", "Declared approximations"):
        assert f"<h2>{title}</h2>" in text


def test_report_escapes_names(gemm):
    sly = "</script><script>alert(1)</script>"
    text = report_html(replace(gemm, workload=sly, graph=None))
    head, _, carried = text.rpartition('<script type="application/json"')
    assert "<script>alert(1)" not in head
    assert "</script><script>" not in carried


def test_save_report_says_where_it_cannot_write(gemm, tmp_path):
    assert gemm.save_report(tmp_path / "r.html").stat().st_size > 1_000_000
    with pytest.raises(AccelsimError, match="cannot be written"):
        gemm.save_report(tmp_path / "no" / "r.html")
