"""Traces: valid Chrome JSON whose slices never overlap and add up to the busy time of units."""

import gzip
import json
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from accelsim.api import simulate
from accelsim.errors import AccelsimError
from accelsim.views.trace import write_trace


@pytest.fixture(scope="module", params=["one core", "four cores", "two clocks"])
def run(request):
    return {
        "one core": lambda: simulate("systolic", "gemm:m=96,n=64,k=64"),
        "four cores": lambda: simulate("quad-npu", "opt-125m:phase=prefill,tokens=16"),
        "two clocks": lambda: simulate("edge-npu", "gemm:m=64,n=96,k=32"),
    }[request.param]()


@pytest.fixture(scope="module")
def trace(run, tmp_path_factory):
    path = write_trace(run, tmp_path_factory.mktemp("trace") / "run.json")
    return json.loads(path.read_text())


def threads(trace):
    """Slices by the name of their thread."""
    names = {
        (e["pid"], e["tid"]): e["args"]["name"]
        for e in trace["traceEvents"]
        if e["name"] == "thread_name"
    }
    found = defaultdict(list)
    for event in trace["traceEvents"]:
        if event["ph"] == "X":
            found[names[event["pid"], event["tid"]]].append(event)
    return found


def nanoseconds(microseconds):
    assert microseconds * 1000 == pytest.approx(round(microseconds * 1000), abs=1e-3)
    return round(microseconds * 1000)


def test_slices_of_a_thread_come_in_order_and_do_not_overlap(trace):
    for name, slices in threads(trace).items():
        end = 0
        for one in slices:
            begin = nanoseconds(one["ts"])
            assert begin >= end, name
            end = begin + nanoseconds(one["dur"])


def test_slices_add_up_to_the_busy_time_of_every_unit(run, trace):
    """Busy: the occupancy of its instructions, and what they wait for ports beyond it."""
    busy, count = defaultdict(float), defaultdict(int)
    for segment in run.segments:
        timed = segment.bound.timed
        tick = segment.bound.arch.ticks_per_cycle("core")
        for i, slot in enumerate(segment.bound.program.units):
            mine = timed.occupancy[timed.unit == i]
            busy[slot.name] += mine.sum() / tick
            count[slot.name] += int((mine > 0).sum())
    found = threads(trace)
    for name, cycles in busy.items():
        slices = found[name]
        assert len(slices) == count[name]
        whole = sum(s["args"]["cycles"] for s in slices)
        waited = sum(s["args"].get("of them waiting for ports", 0) for s in slices)
        assert whole - waited == pytest.approx(cycles)
        length = sum(nanoseconds(s["dur"]) for s in slices)
        # Both ends of a slice are rounded to a nanosecond.
        assert length == pytest.approx(whole / run.clock_hz * 1e9, abs=len(slices) + 1)


def test_ports_are_threads_that_are_busy_while_held(run, trace):
    held = defaultdict(float)
    for segment in run.segments:
        timed, names = segment.bound.timed, segment.bound.port_names
        tick = segment.bound.arch.ticks_per_cycle("core")
        for i, name in enumerate(names):
            held[name] += np.where(timed.port == i, timed.hold, 0).sum() / tick
    found = threads(trace)
    assert held
    for name, cycles in held.items():
        assert sum(s["args"]["cycles"] for s in found[name]) == pytest.approx(cycles), name


def test_segments_follow_one_another(run, trace):
    slices = threads(trace)["segments"]
    assert len(slices) == len(run.segments)
    assert slices[0]["ts"] == 0
    for one, following in pairwise(slices):
        end = nanoseconds(one["ts"]) + nanoseconds(one["dur"])
        assert nanoseconds(following["ts"]) == end
    ticks = sum(segment.schedule.ticks for segment in run.segments)
    per_second = run.architecture.ticks_per_second()
    last = slices[-1]["ts"] + slices[-1]["dur"]
    assert last == pytest.approx(ticks / per_second * 1e6, abs=1e-3)
    named = [s["name"] for s in slices]
    assert all(f"one of {r.repeat}" in n for n, r in zip(named, run.segments, strict=True)
               if r.repeat > 1)  # fmt: skip


def test_operator_slices_are_the_cycles_of_the_result(run, trace):
    found = {s["name"]: nanoseconds(s["dur"]) for s in threads(trace)["operators"]}
    for op in run.operators:
        expected = op.cycles / op.repeat / run.clock_hz * 1e9
        assert found.get(op.name, 0) == pytest.approx(expected, abs=1)


def test_slices_say_what_was_done(run, trace):
    program = run.segments[0].bound.program
    slices = [
        s for name, mine in threads(trace).items() for s in mine if "instruction" in s["args"]
    ]
    work = [s for s in slices if s["name"].startswith("MATMUL ")]
    loads = [s for s in slices if s["name"].startswith("LOAD ")]
    assert work
    assert loads
    assert all({"m", "n", "k", "read_bytes", "write_bytes"} <= set(s["args"]) for s in work)
    assert all(s["args"]["bytes"] > 0 for s in loads)
    if len(run.segments) == 1:
        for one in work:
            row = one["args"]["instruction"]
            assert one["args"]["m"] == program.column("m")[row]
            info = program.operators[program.column("operator")[row]]
            assert one["name"] == f"MATMUL {info.name}"


def test_there_is_one_process_per_core(run, trace):
    names = {
        e["args"]["name"]: e["pid"] for e in trace["traceEvents"] if e["name"] == "process_name"
    }
    cores = run.architecture.cores
    expected = [f"core {i}" for i in range(cores)] if cores > 1 else ["units"]
    assert set(expected) <= set(names)
    assert len(set(names.values())) == len(names)
    for segment in run.segments:
        assert len(segment.bound.program.units) <= len(threads(trace))


def test_bandwidth_counters_carry_the_traffic(run, trace):
    """The integral of each segment's counter is what its shared memory moved."""
    main = next(name for name, memory in run.architecture.memories.items() if memory.shared)
    points = [e for e in trace["traceEvents"] if e["ph"] == "C" and "GB/s" in e["args"]]
    assert {e["name"] for e in points} == {f"{main} GB/s"}
    moved = sum(
        (after["ts"] - before["ts"]) * before["args"]["GB/s"] * 1e3
        for before, after in pairwise(points)
    )
    once = sum(sum(op.traffic_bytes.values()) / op.repeat for op in run.operators)
    assert moved == pytest.approx(once, rel=0.01)
    peak = run.architecture.memories[main].bandwidth / 1e9
    assert max(e["args"]["GB/s"] for e in points) <= peak * 1.001


def test_counters_tell_how_many_units_are_at_work(run, trace):
    """The integral of a counter is the time that the slices of its units last."""
    slices = threads(trace)
    units = [unit.name for unit in run.segments[0].bound.program.units]
    found = {
        unit: [one for name in units if name.rsplit(".")[-1].rstrip("0123456789") == unit
               for one in slices[name]]
        for unit in run.architecture.units
    }  # fmt: skip
    points = defaultdict(list)
    for event in trace["traceEvents"]:
        if event["ph"] == "C" and "units" in event["args"]:
            points[event["name"]].append(event)
    cores = run.architecture.cores
    count = {name: unit.count * cores for name, unit in run.architecture.units.items()}
    several = {f"{name} at work, of {n}" for name, n in count.items() if n > 1}
    assert set(points) <= several
    assert any(name.startswith("dma") for name in points)
    for name, mine in points.items():
        area = sum((b["ts"] - a["ts"]) * a["args"]["units"] for a, b in pairwise(mine))
        worked = sum(one["dur"] for one in found[name.split(" ")[0]])
        assert area == pytest.approx(worked, rel=0.01)
        assert max(one["args"]["units"] for one in mine) <= int(name.rsplit(" ")[-1])


def test_metadata_says_what_is_shown(run, trace):
    told = trace["otherData"]
    assert told["arch"] == run.arch
    assert told["workload"] == run.workload
    assert told["cut"] == ""
    assert [s["repeat"] for s in told["segments"]] == [s.repeat for s in run.segments]
    assert trace["displayTimeUnit"] == "ns"


def test_a_cut_trace_keeps_the_first_slices_and_says_so(run, trace, tmp_path):
    path = write_trace(run, tmp_path / "cut.json", max_events=50)
    cut = json.loads(path.read_text())

    def work(content):
        return [e for e in content["traceEvents"] if "instruction" in e.get("args", {})]

    assert len(work(cut)) == 50
    assert work(cut) == work(trace)[:50]
    assert cut["otherData"]["cut"] == f"{len(work(trace)) - 50} later slices left out"


def test_a_name_ending_in_gz_is_compressed(run, trace, tmp_path):
    path = run.save_trace(tmp_path / "run.json.gz")
    assert json.loads(gzip.decompress(path.read_bytes())) == trace


def test_what_takes_no_time_is_left_out(tmp_path):
    run = simulate("systolic", "gemm:m=64,n=64,k=64", memory="ideal")
    trace = json.loads(write_trace(run, tmp_path / "t.json").read_text())
    found = threads(trace)
    assert set(found) == {"segments", "operators", "array"}
    assert not [e for e in trace["traceEvents"] if e["ph"] == "C"]


def test_a_result_without_schedules_has_no_trace(run, tmp_path):
    with pytest.raises(AccelsimError, match="holds no schedules"):
        write_trace(replace(run, segments=()), tmp_path / "t.json")


def test_a_path_that_cannot_be_written_is_named(run, tmp_path):
    with pytest.raises(AccelsimError, match="cannot be written"):
        run.save_trace(tmp_path / "no" / "t.json")
