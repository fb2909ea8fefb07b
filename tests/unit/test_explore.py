"""Sweeps: grids, what happens to points that cannot run, processes, Pareto fronts."""

import pickle
import sys
from itertools import product

import numpy as np
import pytest

import accelsim as xs
from accelsim.api import arch, grid, simulate, sweep, workload
from accelsim.errors import AccelsimError
from accelsim.explore.outcome import Sweep
from accelsim.explore.pareto import costs, front

GEMM = "gemm:m=64,n=64,k=64"
ROWS = {"array.rows": [8, 16, 32]}


# -- grids -----------------------------------------------------------------------------------------


def test_a_grid_is_every_combination_with_the_last_axis_fastest():
    points = grid("systolic", {"array.rows": [8, 16], "array.dataflow": ["ws", "os"]})
    assert len(points) == 4
    assert [tuple(p.parameters.values()) for p in points] == list(product([8, 16], ["ws", "os"]))
    assert str(points) == "4 points of systolic: array.rows (2) x array.dataflow (2)"


def test_a_grid_may_span_architectures_and_be_a_single_point():
    points = grid(["systolic", arch("tpu-v3")], {"cores": [1, 2]})
    assert [(p.arch.name, p.parameters["cores"]) for p in points] == [
        ("systolic", 1), ("systolic", 2), ("tpu-v3", 1), ("tpu-v3", 2)
    ]  # fmt: skip
    assert [p.parameters for p in grid("systolic")] == [{}]


def test_points_are_plain_data():
    point = grid(
        "systolic", {"array.rows": np.array([8]), "workload.batch": [4], "memory": "ideal"}
    )[0]
    assert pickle.loads(pickle.dumps(point)) == point
    assert type(point.parameters["array.rows"]) is int
    assert point.overrides == {"array.rows": 8}
    assert point.settings == {"batch": 4}


def test_equal_points_have_equal_keys_and_others_do_not():
    points = grid("systolic", {"array.rows": [8, 16]})
    again = grid("systolic", {"array.rows": [16, 8]})
    assert points[0].key("work") == again[1].key("work")
    other_machine = grid(arch("systolic", {"clock": "2 GHz"}), {"array.rows": [8]})[0]
    keys = [points[0].key("work"), points[1].key("work"), points[0].key("other"),
            other_machine.key("work")]  # fmt: skip
    assert len(set(keys)) == 4


@pytest.mark.parametrize(
    ("axes", "told"),
    [
        ({"array.row": [8]}, "did you mean 'rows'"),
        ({"arry.rows": [8]}, "did you mean 'array.rows'"),
        ({"array.rows": []}, "axis 'array.rows' has no values"),
        ({"array.rows": [8, 8]}, "names a value twice"),
        ({"array.rows": [[8]]}, "a list is no value"),
        ({"array.rows": [None]}, "a NoneType is no value"),
    ],
)
def test_a_grid_refuses_axes_that_mean_nothing(axes, told):
    with pytest.raises(AccelsimError, match=told):
        grid("systolic", axes)


def test_a_grid_needs_an_architecture():
    with pytest.raises(AccelsimError, match="needs an architecture"):
        grid([])


# -- sweeps ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swept():
    return sweep(grid("systolic", {**ROWS, "array.dataflow": ["ws", "os"]}), GEMM, jobs=1)


def test_rows_are_the_results_of_simulate(swept):
    assert len(swept) == 6
    for row in swept.rows:
        chosen = {"array.rows": row["array.rows"], "array.dataflow": row["array.dataflow"]}
        run = simulate("systolic", GEMM, overrides=chosen)
        assert (row["arch"], row["workload"], row["memory"]) == ("systolic", GEMM, "bandwidth")
        assert (row["status"], row["error"]) == ("ok", "")
        assert row["cycles"] == run.cycles
        assert row["seconds"] == run.seconds
        assert row["energy_pj"] == run.energy_pj["total"]
        assert row["macs"] == run.macs
        assert row["bottleneck"] == run.bottleneck
        assert row["bound_cycles"] == run.bounds[run.bottleneck]
        assert row["utilization.array"] == run.utilization["array"]
        assert row["read_bytes.dram"] == run.traffic_bytes["dram"]["read"]
        assert row["write_bytes.dram"] == run.traffic_bytes["dram"]["write"]


def test_impossible_points_are_skipped_with_their_reason():
    found = sweep(
        grid("systolic", {"array.rows": [8, 0, 16], "dram.capacity": ["1 GiB", "1 B"]}), GEMM
    )
    assert [row["status"] for row in found.rows] == [
        "ok", "skipped", "skipped", "skipped", "ok", "skipped"
    ]  # fmt: skip
    assert "rows must be at least 1, not 0" in found.rows[2]["error"]
    assert all("\n" not in row["error"] for row in found.rows)
    assert len(found.ok) == 2
    assert len(found.skipped) == 4
    assert found.rows[2]["cycles"] is None
    assert found.title.startswith("6 designs, 4 skipped, in ")
    assert len(found.pareto()) == 1
    for shown in (str(found), found._repr_html_()):
        assert "rows must be at least 1" in shown


def test_a_defect_in_one_point_does_not_end_the_sweep(monkeypatch):
    import accelsim.simulation as simulation

    right = simulation.simulate_graph

    def sometimes(graph, machine, *rest):
        if machine.units["array"].rows == 16:
            raise ZeroDivisionError("oh")
        return right(graph, machine, *rest)

    monkeypatch.setattr(simulation, "simulate_graph", sometimes)
    found = sweep(grid("systolic", ROWS), GEMM, jobs=1)
    assert [row["status"] for row in found.rows] == ["ok", "failed", "ok"]
    assert found.rows[1]["error"] == "ZeroDivisionError: oh"
    assert "1 failed" in found.title


def test_workload_settings_memory_and_mapper_are_axes():
    axes = {"workload.batch": [1, 2], "memory": ["ideal", "bandwidth"]}
    found = sweep(grid("tpu-v3", axes), "opt-125m:phase=decode,context=16")
    cycles = {(r["workload.batch"], r["memory"]): r["cycles"] for r in found.rows}
    alone = simulate("tpu-v3", "opt-125m:phase=decode,context=16,batch=2", memory="ideal")
    assert cycles[2, "ideal"] == alone.cycles
    assert cycles[1, "ideal"] < cycles[1, "bandwidth"]
    named = sweep(grid("systolic", {"mapper": ["systolic-gemm", "no-such"]}), GEMM)
    assert [row["status"] for row in named.rows] == ["ok", "skipped"]
    assert "unknown mapper 'no-such'" in named.rows[1]["error"]


def test_workloads_are_an_axis():
    small, large = GEMM, "gemm:m=256,n=64,k=64"
    found = sweep(grid("systolic", {"workload": [small, large]}))
    assert [row["workload"] for row in found.rows] == [small, large]
    assert found.rows[0]["macs"] * 4 == found.rows[1]["macs"]


def test_a_graph_is_a_workload(swept):
    found = sweep(grid("systolic", ROWS), workload(GEMM), jobs=1)
    assert [r["cycles"] for r in found.rows] == [r["cycles"] for r in swept.rows[::2]]
    assert found.rows[0]["workload"].startswith("gemm:m=64,n=64,k=64")


def test_columns_hold_every_architecture():
    found = sweep(grid(["systolic", "tpu-v3"]), GEMM)
    assert {"utilization.array", "utilization.mxu", "utilization.hbm"} <= set(found.metrics)
    assert found.rows[0]["utilization.mxu"] is None
    assert found.rows[1]["utilization.array"] is None
    assert found.rows[1]["utilization.mxu"] > 0
    assert all(tuple(row) == found.columns for row in found.rows)
    assert "arch" in str(found).splitlines()[2]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"workload": "gem:m=1"}, "unknown workload"),
        ({"workload": ""}, "no workload; accepted"),
        ({"memory": "perfect"}, "memory fidelity 'perfect' is not available"),
        ({"executor": "cloud"}, "unknown executor 'cloud'; accepted: local"),
        ({"jobs": 0}, "jobs is 0; accepted: 1 or more"),
        ({"objectives": ["second"]}, "unknown metric 'second'; did you mean 'seconds'"),
        ({"objectives": ["bottleneck"]}, "unknown metric 'bottleneck'"),
    ],
)
def test_what_could_never_run_is_refused_at_once(given, told):
    with pytest.raises(AccelsimError, match=told):
        sweep(grid("systolic", ROWS), **{"workload": GEMM, **given})


def test_settings_cannot_vary_in_a_graph():
    with pytest.raises(AccelsimError, match=r"workload\.m cannot vary in a graph"):
        sweep(grid("systolic", {"workload.m": [1, 2]}), workload(GEMM))


def test_a_sweep_needs_points_with_equal_axes():
    with pytest.raises(AccelsimError, match="a sweep needs points"):
        sweep([], GEMM)
    mixed = [grid("systolic", ROWS)[0], grid("systolic", {"array.cols": [8]})[0]]
    with pytest.raises(AccelsimError, match=r"point 1 has the axes array\.cols"):
        sweep(mixed, GEMM)


# -- Pareto ----------------------------------------------------------------------------------------


def test_front_of_known_points():
    points = np.array([[1, 9], [2, 4], [3, 5], [4, 1], [5, 1], [2, 4], [9, 0.5]], dtype=float)
    assert front(points) == [0, 1, 5, 3, 6]


def test_front_ignores_rows_without_a_value():
    assert front(np.array([[np.nan, 0.0], [2.0, 2.0], [1.0, np.nan]])) == [1]
    assert front(np.empty((0, 2))) == []


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_front_is_what_the_definition_says(dimensions):
    table = np.random.default_rng(3).integers(0, 9, (200, dimensions)).astype(float)
    better = (table[:, None] <= table).all(axis=2) & (table[:, None] < table).any(axis=2)
    assert sorted(front(table)) == np.flatnonzero(~better.any(axis=0)).tolist()


def rows(*pairs):
    return [
        {"arch": "a", "workload": "w", "memory": "m", "x": i, "status": "ok", "error": "",
         "seconds": s, "energy_pj": e, "bottleneck": "b"}
        for i, (s, e) in enumerate(pairs)
    ]  # fmt: skip


def made(*pairs):
    return Sweep(rows(*pairs), ("x",), ("seconds", "energy_pj", "bottleneck"))


def test_pareto_minimises_and_a_minus_sign_maximises():
    found = made((1.0, 9.0), (2.0, 4.0), (3.0, 5.0))
    assert [row["x"] for row in found.pareto("seconds", "energy_pj").rows] == [0, 1]
    assert [row["x"] for row in found.pareto("seconds", "-energy_pj").rows] == [0]
    assert [row["x"] for row in found.pareto("-seconds", "energy_pj").rows] == [2, 1]
    assert [row["x"] for row in found.pareto("-x").rows] == [2]
    assert found.pareto().objectives == ("seconds", "energy_pj")
    assert found.pareto().title == "2 designs of 3 on the Pareto front of seconds and energy_pj"


def test_pareto_works_where_no_energy_is_given():
    found = made((3.0, 0.0), (1.0, 0.0), (2.0, 0.0))
    assert [row["x"] for row in found.pareto().rows] == [1]
    fig = found.figure()
    assert list(fig.data[1].x) == [1.0]


def test_best_is_the_smallest_or_with_a_minus_sign_the_largest(swept):
    assert swept.best("cycles")["cycles"] == min(row["cycles"] for row in swept.rows)
    top = max(row["utilization.array"] for row in swept.rows)
    assert swept.best("-utilization.array")["utilization.array"] == top


@pytest.mark.parametrize("metric", ["second", "bottleneck", "array.dataflow", "status"])
def test_what_is_no_number_is_no_objective(swept, metric):
    for ask in (swept.best, swept.pareto, swept.figure):
        with pytest.raises(AccelsimError, match=f"unknown metric '{metric}'"):
            ask(metric)


def test_best_of_nothing_says_so():
    none = made((1.0, None))
    with pytest.raises(AccelsimError, match="no design of this sweep has energy_pj"):
        none.best("energy_pj")
    assert len(none.pareto()) == 0


def test_costs_turn_maximised_metrics_around():
    table = costs(rows((1.0, 2.0)), ("-seconds", "energy_pj"))
    assert table.tolist() == [[-1.0, 2.0]]


# -- what a sweep shows ----------------------------------------------------------------------------


def test_figure_draws_designs_and_their_front(swept):
    fig = swept.figure("seconds", "-utilization.array")
    designs, best = fig.data
    assert sorted(designs.x) == sorted(row["seconds"] for row in swept.rows)
    chosen = swept.pareto("seconds", "-utilization.array").rows
    assert list(best.x) == [row["seconds"] for row in chosen]
    assert list(best.y) == [row["utilization.array"] for row in chosen]
    assert "array.rows = <b>" in designs.text[0]
    assert list(swept.figure().data[0].y) == [row["energy_pj"] * 1e-12 for row in swept.rows]


def test_a_wide_range_gets_a_logarithmic_axis():
    assert made((1.0, 1.0), (99.0, 2.0)).figure().layout.xaxis.type == "log"
    assert made((1.0, 1.0), (99.0, 2.0)).figure().layout.yaxis.type == "-"
    assert made((0.0, 1.0), (99.0, 2.0)).figure().layout.xaxis.type == "-"


def test_tables_show_axes_and_metrics(swept):
    lines = str(swept).splitlines()
    assert lines[2].split()[:3] == ["array.rows", "array.cols", "cycles"] or "cycles" in lines[2]
    assert len(lines) == 4 + len(swept)
    html = swept._repr_html_()
    assert html.count("<tr>") == 1 + len(swept)
    assert repr(swept) == f"<Sweep: {swept.title}>"
    assert "utilization.array" in str(swept.pareto("seconds", "-utilization.array"))


def test_long_tables_are_cut_with_a_count():
    found = made(*((float(i), 1.0) for i in range(100)))
    assert str(found).endswith("… and 40 more; all are in .rows and .to_csv(path)")
    assert "… and 40 more" in found._repr_html_()


def test_to_csv_writes_every_row(swept, tmp_path):
    text = swept.to_csv(tmp_path / "all.csv").read_text()
    lines = text.splitlines()
    assert lines[0].split(",")[:5] == ["arch", "workload", "memory", "array.rows", "array.dataflow"]
    assert len(lines) == 7
    assert str(swept.rows[0]["cycles"]) in lines[1]
    with pytest.raises(AccelsimError, match="cannot be written"):
        swept.to_csv(tmp_path / "no" / "all.csv")


def test_to_pandas_names_the_extra(swept, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(AccelsimError, match=r"pip install 'accelsim\[data\]'"):
        swept.to_pandas()


def test_progress_is_silent_in_a_pipe(swept, capfd):
    sweep(grid("systolic", ROWS), GEMM, jobs=1)
    assert capfd.readouterr() == ("", "")


def test_progress_is_drawn_on_a_terminal(monkeypatch):
    import io

    from accelsim.explore.progress import progress_bar

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("sweep", 10, 4) as advance:
        advance(6)
    assert "10/10" in screen.getvalue()


def test_public_names():
    assert xs.grid is grid
    assert xs.sweep is sweep
