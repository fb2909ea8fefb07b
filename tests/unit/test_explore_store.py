"""Results on disk: appended as they arrive, resumed without repeating, torn lines dropped."""

import csv

import pytest

import accelsim
from accelsim import _version
from accelsim.api import grid, sweep
from accelsim.errors import AccelsimError
from accelsim.explore import evaluate as evaluation
from accelsim.explore.store import Store, store_path

GEMM = "gemm:m=64,n=64,k=64"
POINTS = {"array.rows": [8, 16, 0, 32]}


@pytest.fixture
def counted(monkeypatch):
    """Indices of the points that were simulated."""
    seen = []
    right = evaluation.evaluate_one

    def counting(task):
        seen.append(task.point.parameters.get("array.rows"))
        return right(task)

    monkeypatch.setattr(evaluation, "evaluate_one", counting)
    return seen


def lines(path):
    with store_path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_path_ending_in_csv_is_the_file_and_any_other_its_folder(tmp_path):
    assert store_path(tmp_path / "a.csv") == tmp_path / "a.csv"
    assert store_path(tmp_path / "out") == tmp_path / "out" / "sweep.csv"


def test_the_file_holds_what_the_sweep_holds(tmp_path):
    found = sweep(grid("systolic", POINTS), GEMM, out=tmp_path / "deep" / "out", jobs=1)
    stored = lines(tmp_path / "deep" / "out")
    assert len(stored) == 4
    assert len({line["key"] for line in stored}) == 4
    for line, row in zip(stored, found.rows, strict=True):
        assert line.keys() - {"key"} == row.keys()
        for name, value in row.items():
            assert line[name] == ("" if value is None else str(value)), name


def test_resume_simulates_only_what_is_missing(tmp_path, counted):
    out = tmp_path / "r.csv"
    first = sweep(grid("systolic", {"array.rows": [8, 0]}), GEMM, out=out, jobs=1)
    assert counted == [8, 0]
    found = sweep(grid("systolic", POINTS), GEMM, out=out, resume=True, jobs=1)
    assert counted == [8, 0, 16, 32]
    assert found.resumed == 2
    assert "2 resumed" in found.title
    assert found.rows == sweep(grid("systolic", POINTS), GEMM, jobs=1).rows
    assert first.rows == [found.rows[0], found.rows[2]]


def test_resume_of_a_finished_sweep_simulates_nothing(tmp_path, counted):
    out = tmp_path / "r.csv"
    first = sweep(grid("systolic", POINTS), GEMM, out=out, jobs=1)
    content = out.read_bytes()
    counted.clear()
    again = sweep(grid("systolic", POINTS), GEMM, out=out, resume=True)
    assert counted == []
    assert again.rows == first.rows
    assert out.read_bytes() == content


def test_resume_without_earlier_results_starts(tmp_path, counted):
    sweep(grid("systolic", POINTS), GEMM, out=tmp_path, resume=True, jobs=1)
    assert len(counted) == 4


@pytest.mark.parametrize(
    "change",
    ["workload", "memory", "clock", "version"],
)
def test_other_results_do_not_count_as_done(tmp_path, counted, monkeypatch, change):
    out = tmp_path / "r.csv"
    points = grid("systolic", {"array.rows": [8]})
    sweep(points, GEMM, out=out, jobs=1)
    given = {"workload": GEMM, "memory": "bandwidth"}
    if change == "workload":
        given["workload"] = "gemm:m=65,n=64,k=64"
    elif change == "memory":
        given["memory"] = "ideal"
    elif change == "clock":
        points = grid(accelsim.arch("systolic", {"clock": "2 GHz"}), {"array.rows": [8]})
    else:
        monkeypatch.setattr(_version, "__version__", "99")
    assert sweep(points, out=out, resume=True, jobs=1, **given).resumed == 0
    assert counted == [8, 8]


def test_a_torn_last_line_is_dropped_and_its_point_repeated(tmp_path, counted):
    out = tmp_path / "r.csv"
    first = sweep(grid("systolic", POINTS), GEMM, out=out, jobs=1)
    content = out.read_bytes()
    out.write_bytes(content[:-20])
    counted.clear()
    again = sweep(grid("systolic", POINTS), GEMM, out=out, resume=True, jobs=1)
    assert counted == [32]
    assert again.rows == first.rows
    assert out.read_bytes() == content


def test_a_torn_header_is_written_again(tmp_path):
    out = tmp_path / "r.csv"
    out.write_text("key,arch,work")
    sweep(grid("systolic", {"array.rows": [8]}), GEMM, out=out, resume=True, jobs=1)
    assert len(lines(out)) == 1


def test_failed_points_are_tried_again_and_the_later_line_counts(tmp_path, monkeypatch):
    import accelsim.simulation as simulation

    out = tmp_path / "r.csv"
    with monkeypatch.context() as broken:
        broken.setattr(simulation, "simulate_graph", lambda *_: 1 / 0)
        found = sweep(grid("systolic", {"array.rows": [8]}), GEMM, out=out, jobs=1)
        assert [row["status"] for row in found.rows] == ["failed"]
    found = sweep(grid("systolic", {"array.rows": [8]}), GEMM, out=out, resume=True, jobs=1)
    assert [row["status"] for row in found.rows] == ["ok"]
    assert [line["status"] for line in lines(out)] == ["failed", "ok"]
    assert sweep(grid("systolic", {"array.rows": [8]}), GEMM, out=out, resume=True).resumed == 1


def test_results_are_never_overwritten(tmp_path):
    out = tmp_path / "r.csv"
    sweep(grid("systolic", {"array.rows": [8]}), GEMM, out=out, jobs=1)
    content = out.read_bytes()
    with pytest.raises(AccelsimError, match="holds results already; accepted: resume"):
        sweep(grid("systolic", {"array.rows": [16]}), GEMM, out=out, jobs=1)
    assert out.read_bytes() == content


def test_other_columns_are_refused_by_name(tmp_path):
    out = tmp_path / "r.csv"
    sweep(grid("systolic", {"array.rows": [8]}), GEMM, out=out, jobs=1)
    with pytest.raises(AccelsimError) as caught:
        sweep(grid("systolic", {"array.cols": [8]}), GEMM, out=out, resume=True, jobs=1)
    assert str(caught.value).startswith(f"{out}:1: columns are not those of this sweep")
    assert "too many: array.rows; missing: array.cols" in str(caught.value)


def test_a_line_that_is_no_result_is_named_by_number(tmp_path):
    out = tmp_path / "r.csv"
    sweep(grid("systolic", POINTS), GEMM, out=out, jobs=1)
    content = out.read_text().splitlines(keepends=True)
    out.write_text("".join([*content[:2], "what,is,this\n", *content[2:]]))
    with pytest.raises(AccelsimError, match=r"r\.csv:3: has 3 columns; accepted: \d+"):
        sweep(grid("systolic", POINTS), GEMM, out=out, resume=True, jobs=1)


def test_results_are_on_disk_before_the_sweep_ends(tmp_path):
    """Each chunk is readable as soon as the next one begins."""
    seen = []

    class Watching:
        workers = 1

        def map(self, function, chunks):
            for i, chunk in enumerate(chunks):
                yield i, function(chunk)
                seen.append(len(lines(tmp_path)))

    sweep(grid("systolic", POINTS), GEMM, out=tmp_path, executor=Watching())
    assert seen[0] >= 1
    assert seen == sorted(seen)
    assert seen[-1] == 4


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AccelsimError, match="cannot be written"):
        Store.open(tmp_path / "file" / "out", ["a"], resume=False)


def test_texts_with_commas_quotes_and_nothing_survive(tmp_path):
    store = Store.open(tmp_path / "s.csv", ["a", "b"], resume=False)
    store.append([{"key": "k", "a": 'x, "y"', "b": None}])
    assert store.read() == {"k": {"key": "k", "a": 'x, "y"', "b": ""}}
