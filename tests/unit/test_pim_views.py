"""Arrays and banks at the same time, as traces, timelines, summaries and reports show them."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import accelsim as xs
from accelsim.results.result import Result, SegmentRun
from accelsim.views.counters import flow
from accelsim.views.html import resources_html
from accelsim.views.overlap import at_work, covered
from accelsim.views.summary import summary

SMALL = {"phase": "decode", "layers": 2, "heads": 4, "hidden": 512, "ffn": 512, "vocab": 64}


@pytest.fixture(scope="module", params=["bandwidth", "dram"])
def run(request: pytest.FixtureRequest) -> Result:
    """Halves of a batch that take turns on arrays and banks."""
    graph = xs.workload("gpt3-7b", batch=48, context=40, subbatch=2, subbatch_min=8, **SMALL)
    return xs.simulate(xs.arch("neupims"), graph, memory=request.param, mapper="pim-attention")


@pytest.fixture(scope="module")
def events(run: Result, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    path = run.save_trace(tmp_path_factory.mktemp("trace") / "run.json")
    found: list[dict[str, Any]] = json.loads(path.read_text())["traceEvents"]
    return found


def names(events: list[dict[str, Any]], what: str) -> dict[tuple[int, int], str]:
    return {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == what}


def test_every_channel_has_a_thread_beside_arrays_and_queues(events: list[dict[str, Any]]) -> None:
    processes = {pid: name for (pid, _), name in names(events, "process_name").items()}
    threads = defaultdict(list)
    for (pid, _), name in names(events, "thread_name").items():
        threads[processes[pid]].append(name)
    assert threads["banks of hbm, a thread per channel"] == [f"pim{i}" for i in range(32)]
    units = [f"mxu{i}" for i in range(8)] + ["vpu", "pvpu", "dma0", "dma1"]
    assert threads["units"] == [*units, *(f"pdma{i}" for i in range(4))]


def test_events_are_what_a_viewer_reads(events: list[dict[str, Any]]) -> None:
    known = {*names(events, "thread_name")}
    ends: dict[tuple[int, int], float] = defaultdict(float)
    for one in events:
        assert one["ph"] in "MXC"
        if one["ph"] == "X":
            thread = one["pid"], one["tid"]
            assert thread in known
            assert one["ts"] >= ends[thread] - 1e-6
            assert one["dur"] >= 0
            ends[thread] = one["ts"] + one["dur"]
        if one["ph"] == "C":
            assert all(value >= 0 for value in one["args"].values())


def test_counters_show_arrays_banks_and_memory_at_once(
    run: Result, events: list[dict[str, Any]]
) -> None:
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for one in events:
        if one["ph"] == "C":
            points[one["name"]].append((one["ts"], *one["args"].values()))
    assert {"mxu at work, of 8", "pim at work, of 32", "hbm GB/s"} <= set(points)
    area = {
        name: sum((b[0] - a[0]) * a[1] for a, b in pairwise(mine)) for name, mine in points.items()
    }
    # Every segment is shown once.
    moved = sum(sum(op.traffic_bytes.values()) / op.repeat for op in run.operators)
    assert area["hbm GB/s"] * 1e3 == pytest.approx(moved, rel=0.01)
    together = [
        (arrays[1], banks[1])
        for arrays, banks in zip(
            points["mxu at work, of 8"], points["pim at work, of 32"], strict=True
        )
    ]
    assert any(arrays > 0.5 and banks > 0.5 for arrays, banks in together)


def test_slices_of_queues_last_as_long_as_they_are_busy(
    run: Result, events: list[dict[str, Any]]
) -> None:
    named, busy = names(events, "thread_name"), defaultdict(float)
    for one in events:
        if one["ph"] == "X" and "instruction" in one["args"]:
            waited = one["args"].get("of them waiting for ports", 0)
            thread = named[one["pid"], one["tid"]]
            busy[thread.rstrip("0123456789")] += one["args"]["cycles"] - waited
    assert [segment.repeat for segment in run.segments] == [1] * len(run.segments)
    for name, count in (("dma", 2), ("pdma", 4), ("vpu", 1)):
        assert busy[name] / count / run.cycles == pytest.approx(run.utilization[name])


def ends_of(segment: SegmentRun, mine: np.ndarray) -> np.ndarray:
    """When instructions leave their units; products in simulated channels by what follows them."""
    timed, schedule = segment.bound.timed, segment.schedule
    ends = schedule.start + timed.occupancy
    if segment.bound.fidelity == "dram":
        waiting: dict[int, int] = {}
        for row in reversed(range(len(timed.unit))):
            if timed.occupancy[row] == 0:
                ends[row] = min(schedule.finish[row], waiting.get(timed.unit[row], 1 << 60))
            waiting[timed.unit[row]] = schedule.start[row]
    return ends[mine]


def test_shares_of_time_are_those_of_the_schedule(run: Result) -> None:
    rows = {one.name: one for one in at_work(run)}
    assert list(rows) == ["mxu", "pim", "mxu beside pim"]
    # Tick by tick, which is what the sums stand for.
    ticks, busy = 0, {"mxu": 0, "pim": 0, "both": 0}
    each = {"mxu": 0, "pim": 0}
    for segment in run.segments:
        length = segment.schedule.ticks
        ticks += segment.repeat * length
        at = {}
        for name in ("mxu", "pim"):
            count = np.zeros(length + 1, dtype=np.int64)
            mine = segment.bound.unit_index == [*segment.bound.arch.units].index(name)
            start = segment.schedule.start[mine]
            np.add.at(count, start, 1)
            np.add.at(count, ends_of(segment, mine), -1)
            working = np.cumsum(count)[:-1]
            at[name] = working > 0
            busy[name] += segment.repeat * int(at[name].sum())
            each[name] += segment.repeat * int(working.sum())
        busy["both"] += segment.repeat * int((at["mxu"] & at["pim"]).sum())
    for name, count in (("mxu", 8), ("pim", 32)):
        assert rows[name].some == pytest.approx(busy[name] / ticks)
        assert rows[name].each == pytest.approx(each[name] / ticks / count)
        assert rows[name].count == count
    assert rows["mxu beside pim"].some == pytest.approx(busy["both"] / ticks)
    assert 0 < busy["both"] < busy["mxu"]


def test_summary_and_report_tell_both(run: Result, tmp_path: Path) -> None:
    text = summary(run)
    rows = [line for line in text.splitlines() if line.startswith("  mxu beside pim ")]
    assert rows
    assert "some at work" in text
    assert "mxu beside pim" in resources_html(run)
    page = run.save_report(tmp_path / "run.html").read_text()
    assert "mxu beside pim" in page
    assert page.count("pim31") >= 1  # a lane of the timeline


def test_other_machines_have_no_such_table() -> None:
    other = xs.simulate("hbm-npu", "gemm:m=8,n=64,k=64")
    assert not at_work(other)
    assert "Arrays and banks" not in summary(other)


def test_time_that_several_spans_cover_counts_once() -> None:
    def spans(*ends: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        table = np.array(ends, dtype=np.int64).reshape(-1, 2)
        return table[:, 0], table[:, 1]

    assert covered([spans()]) == 0
    assert covered([spans((3, 9), (4, 5), (20, 21)), spans((8, 12), (0, 1))]) == 9 + 1 + 1


def test_what_overlaps_flows_together() -> None:
    start, stop = np.array([0, 5, 8]), np.array([10, 15, 8])
    found = flow(start, stop, np.array([20, 10, 3]), np.array([0, 5, 10, 20]))
    # The last one takes no time: its amount falls on one tick.
    assert found.tolist() == pytest.approx([2, 3 + 3 / 5, 5 / 10])
