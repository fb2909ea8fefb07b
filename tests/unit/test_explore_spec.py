"""Sweep files: what they mean, and faults with the line they stand on."""

from pathlib import Path

import pytest

from accelsim.api import grid, sweep
from accelsim.arch.catalog import library_folder
from accelsim.errors import AccelsimError
from accelsim.explore.spec import read_spec, run_spec

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "sweep_systolic.yaml"

GOOD = """\
arch: systolic
workload: "gemm:m=64,n=64,k=64"
memory: ideal
set:
  array.rows: [8, 16]
  array.dataflow:
    - ws
    - os
pareto: [seconds, -utilization.array]
"""


@pytest.fixture
def spec(tmp_path):
    def write(text):
        path = tmp_path / "spec.yaml"
        path.write_text(text)
        return path

    return write


def test_a_file_is_the_grid_that_it_describes(spec):
    found = run_spec(spec(GOOD), jobs=1)
    points = grid("systolic", {"array.rows": [8, 16], "array.dataflow": ["ws", "os"]})
    direct = sweep(points, "gemm:m=64,n=64,k=64", memory="ideal", jobs=1)
    assert found.rows == direct.rows
    assert found.objectives == ("seconds", "-utilization.array")
    assert found.pareto().rows == direct.pareto("seconds", "-utilization.array").rows


def test_lists_of_machines_workloads_and_fidelities_are_axes(spec):
    read = read_spec(spec(
        "arch: [systolic, tpu-v3]\nworkload: ['gemm:m=8,n=8,k=8', 'gemm:m=9,n=8,k=8']\n"
        "memory: [ideal, bandwidth]\n"
    ))  # fmt: skip
    assert len(read.points) == 8
    assert tuple(read.points.axes) == ("workload", "memory")
    assert read.objectives == ("seconds", "energy_pj")


def test_workload_settings_are_axes(spec):
    read = read_spec(spec("arch: tpu-v3\nworkload: opt-125m\nset: {workload.batch: [1, 2]}\n"))
    assert [point.settings for point in read.points] == [{"batch": 1}, {"batch": 2}]
    assert (read.workload, read.memory, read.mapper) == ("opt-125m", "bandwidth", "")


def test_an_architecture_file_is_looked_for_beside_the_sweep_file(spec, tmp_path, monkeypatch):
    source = library_folder() / "systolic.yaml"
    (tmp_path / "mine.yaml").write_text(source.read_text().replace("systolic\n", "mine\n", 1))
    monkeypatch.chdir(tmp_path.parent)
    read = read_spec(spec(GOOD.replace("arch: systolic", "arch: mine.yaml")))
    assert read.points.archs[0].name == "mine"


def test_results_are_stored_and_resumed(spec, tmp_path):
    path = spec(GOOD)
    run_spec(path, tmp_path / "out", jobs=1)
    assert (tmp_path / "out" / "sweep.csv").exists()
    assert run_spec(path, tmp_path / "out", resume=True).resumed == 4


@pytest.mark.parametrize(
    ("old", "new", "line", "told"),
    [
        ("memory: ideal", "memroy: ideal", 3, "did you mean 'memory'"),
        ("arch: systolic", "arch: sistolic", 1, "did you mean 'systolic'"),
        ("arch: systolic", "arch: [systolic, 3]", 1, "arch: 3; accepted: an architecture"),
        ("arch: systolic", "arch: []", 1, "arch is empty"),
        ("arch: systolic", "arch:", 1, "an empty value; accepted"),
        ("array.rows", "array.row", 5, "did you mean 'rows'"),
        ("array.rows: [8, 16]", "array.rows: []", 5, "has no values"),
        ("array.rows: [8, 16]", "array.rows: {from: 8}", 5, "a mapping (from)"),
        ("    - os", "    - [os]", 8, "array.dataflow: ['os']; accepted: numbers or words"),
        ("    - os", "    - ws", 6, "names a value twice"),
        ("seconds,", "second,", 9, "did you mean 'seconds'"),
        ("seconds,", "bottleneck,", 9, "unknown metric 'bottleneck'"),
        ("set:", "set: 5\nx:", 5, "unknown key 'x'"),
    ],
)
def test_faults_stand_on_their_line(spec, old, new, line, told):
    assert old in GOOD
    path = spec(GOOD.replace(old, new, 1))
    with pytest.raises(AccelsimError) as caught:
        read_spec(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- a\n", "1: is no sweep; accepted: a mapping with arch, workload"),
        ("arch: systolic\n", "1: workload is missing"),
        ("workload: opt-125m\n", "1: arch is missing"),
        ("arch: systolic\nworkload: x\nset: [1]\n", "3: set: [1]; accepted: a list of values"),
        ("arch: systolic\nworkload: x\nmemory: [a, b]\nset: {memory: [c]}\n",
         "4: memory is given twice"),
        ("arch: [\n", "2: "),
    ],
)  # fmt: skip
def test_files_that_are_no_sweeps(spec, text, told):
    path = spec(text)
    with pytest.raises(AccelsimError) as caught:
        read_spec(path)
    assert str(caught.value).startswith(f"{path}:{told}")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(AccelsimError, match="there is no such file"):
        run_spec(tmp_path / "none.yaml")


def test_an_unknown_workload_is_found_before_anything_runs(spec):
    with pytest.raises(AccelsimError, match="unknown workload 'gem'"):
        run_spec(spec(GOOD.replace("gemm:m=64,n=64,k=64", "gem")))


def test_the_shipped_example_has_a_front_worth_looking_at():
    found = run_spec(EXAMPLE, jobs=1)
    assert len(found.ok) == len(found) == 54
    assert 1 < len(found.pareto()) < 20
