"""Sweeps: grids, what happens to points that cannot run, processes, Pareto fronts."""

import os
import pickle
import subprocess
import sys
import textwrap
from itertools import product

import numpy as np
import pytest

import accelsim as xs
from accelsim.api import arch, grid, simulate, sweep, workload
from accelsim.errors import AccelsimError
from accelsim.explore import evaluate as evaluation
from accelsim.explore.chunks import Chunks
from accelsim.explore.evaluate import Task, evaluate
from accelsim.explore.executors import LocalExecutor, executor_named, plugin_files
from accelsim.explore.outcome import Sweep
from accelsim.explore.pareto import costs, front
from accelsim.explore.sweep import SweepInterrupted
from accelsim.mapping.registry import MAPPERS

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


# -- executors -------------------------------------------------------------------------------------


class Backwards:
    """An executor that finishes later chunks first."""

    workers = 2

    def map(self, function, chunks):
        yield from reversed([(i, function(chunk)) for i, chunk in enumerate(chunks)])


def test_rows_come_in_grid_order_whatever_finishes_first(swept):
    found = sweep(
        grid("systolic", {**ROWS, "array.dataflow": ["ws", "os"]}), GEMM, executor=Backwards()
    )
    assert found.rows == swept.rows


def test_processes_give_the_rows_of_one_process(swept):
    found = sweep(grid("systolic", {**ROWS, "array.dataflow": ["ws", "os"]}), GEMM, jobs=2)
    assert found.rows == swept.rows
    assert found.workers == 2
    assert found.busy_seconds > 0


def where(_chunk):
    return os.getpid()


def test_workers_stay_for_the_next_sweep():
    executor = LocalExecutor(2)
    first = {pid for _, pid in executor.map(where, range(20))}
    second = {pid for _, pid in executor.map(where, range(20))}
    assert os.getpid() not in first
    assert second <= first


def fail(chunk):
    if chunk == 3:
        raise AccelsimError("three")
    return chunk


def test_an_exception_in_a_worker_reaches_the_caller():
    with pytest.raises(AccelsimError, match="three"):
        list(LocalExecutor(2).map(fail, range(6)))
    assert sorted(LocalExecutor(2).map(fail, range(3))) == [(0, 0), (1, 1), (2, 2)]


def test_chunks_are_asked_for_only_when_there_is_room():
    asked = []

    def chunks():
        for i in range(50):
            asked.append(i)
            yield i

    running = LocalExecutor(2).map(where, chunks())
    next(running)
    assert len(asked) <= 6
    running.close()


def test_one_job_stays_in_this_process():
    assert list(LocalExecutor(1).map(where, [0])) == [(0, os.getpid())]


def test_small_sweeps_start_no_processes(swept):
    assert sweep(grid("systolic", ROWS), GEMM).workers == 1


def test_large_sweeps_move_to_processes_by_themselves(monkeypatch):
    import accelsim.explore.sweep as room

    monkeypatch.setattr(room, "PROBE_SECONDS", 0.0)
    monkeypatch.setattr(room, "WORTH_WORKERS_SECONDS", 0.0)
    monkeypatch.setitem(room.__dict__, "executor_named", lambda _name, _jobs: LocalExecutor(2))
    found = sweep(grid("systolic", {"array.rows": list(range(4, 16))}), GEMM)
    assert found.workers == 2
    assert [row["array.rows"] for row in found.ok] == list(range(4, 16))


def test_by_default_all_cores_are_used():
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert executor_named("local").workers == cores
    mine = Backwards()
    assert executor_named(mine) is mine


def test_workers_know_the_mappers_and_plugins_of_this_process(tmp_path, monkeypatch):
    """In a fresh interpreter: a script without a main guard, with a mapper of its own."""
    from pathlib import Path

    examples = Path(__file__).parents[2] / "docs" / "examples"
    (tmp_path / "mine.py").write_text(
        textwrap.dedent(f"""
            from accelsim.api import grid, sweep
            from accelsim.hw.dma import Dma
            from accelsim.hw.systolic import Systolic
            from accelsim.mapping.registry import MAPPERS, load_builtin_mappers, load_plugin, mapper

            load_plugin({str(examples / "row_by_row_gemm.py")!r})
            load_builtin_mappers()

            @mapper("mine", lowers=("gemm",), needs=(Systolic, Dma))
            def mine(op, low):
                return MAPPERS["systolic-gemm"].lower(op, low)

            points = grid("systolic", {{"mapper": ["mine", "row-by-row", "systolic-gemm"]}})
            found = sweep(points, "gemm:m=64,n=64,k=64", jobs=2)
            assert found.workers == 2
            print([(row["status"], row["error"], row["cycles"]) for row in found.rows])
            mine, by_row, built_in = found.rows
            assert mine["cycles"] == built_in["cycles"] != by_row["cycles"] is not None
        """)
    )
    done = subprocess.run([sys.executable, tmp_path / "mine.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mine" not in MAPPERS


def test_plugin_files_are_those_that_were_loaded(tmp_path, monkeypatch):
    from types import ModuleType

    file = tmp_path / "x.py"
    file.write_text("")
    module = ModuleType("accelsim_user_x")
    module.__file__ = str(file)
    before = plugin_files()
    monkeypatch.setitem(sys.modules, "accelsim_user_x", module)
    assert set(plugin_files()) - set(before) == {(str(file), file.stat().st_mtime_ns)}


# -- interrupts ------------------------------------------------------------------------------------


class Interrupted:
    """An executor during which someone presses Ctrl-C after two chunks."""

    workers = 1

    def map(self, function, chunks):
        for i, chunk in enumerate(chunks):
            if i == 2:
                raise KeyboardInterrupt
            yield i, function(chunk)


def test_an_interrupted_sweep_hands_over_what_is_finished(tmp_path, monkeypatch):
    points = grid("systolic", {"array.rows": list(range(4, 40))})
    monkeypatch.setattr(Chunks, "_size", lambda _self: 1)
    with pytest.raises(SweepInterrupted) as caught:
        sweep(points, GEMM, out=tmp_path, executor=Interrupted())
    done = caught.value.sweep
    assert isinstance(caught.value, KeyboardInterrupt)
    assert len(done) == 2
    assert str(caught.value).startswith(f"interrupted after {len(done)} of 36 points; ")
    found = sweep(points, GEMM, out=tmp_path, resume=True, jobs=1)
    assert found.resumed == len(done)
    assert found.rows == sweep(points, GEMM, jobs=1).rows


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
@pytest.mark.parametrize("moment", [0.6, 3.0], ids=["starting", "working"])
def test_ctrl_c_ends_the_workers(tmp_path, moment):
    """SIGINT to the whole group, as a terminal sends it: one line, no traceback of a worker."""
    script = tmp_path / "long.py"
    script.write_text(
        textwrap.dedent("""
            import accelsim.explore.sweep
            from accelsim.api import grid, sweep
            sizes = list(range(4, 60))
            points = grid("systolic", {"array.rows": sizes, "array.cols": sizes})
            print("started", flush=True)
            try:
                sweep(points, "gemm:m=512,n=512,k=512", jobs=2)
            except KeyboardInterrupt as stop:
                print(stop)
        """)
    )
    code = (
        "import os, signal, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, {str(script)!r}], start_new_session=True,"
        " stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,"
        # A suite run in the background inherits an ignored SIGINT.
        " preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))\n"
        "child.stdout.readline()\n"
        f"time.sleep({moment})\n"
        "os.killpg(child.pid, signal.SIGINT)\n"
        "print(child.communicate(timeout=20)[0])\n"
        "sys.exit(child.returncode)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("interrupted after ")
    assert "Traceback" not in done.stdout


# -- chunks ----------------------------------------------------------------------------------------


def test_chunks_hold_one_task_until_a_pace_is_known():
    chunks = Chunks(list(range(100)), workers=2)
    it = iter(chunks)
    assert [len(next(it)) for _ in range(3)] == [1, 1, 1]
    assert chunks.seconds_left() is None
    chunks.took(1, 0.1)
    assert len(next(it)) == 10
    assert chunks.seconds_left() == pytest.approx(8.7)


def test_chunks_shrink_to_a_fair_share_towards_the_end():
    chunks = Chunks(list(range(1000)), workers=2)
    chunks.took(1, 1e-6)
    sizes = [len(chunk) for chunk in chunks]
    assert sum(sizes) == 1000
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 167
    assert sizes[-1] == 1


def test_chunks_cover_every_task_once_in_order():
    chunks, seen = Chunks(list(range(57)), workers=3), []
    for chunk in chunks:
        seen += chunk
        chunks.took(len(chunk), 0.07 * len(chunk))
    assert seen == list(range(57))


def test_slow_tasks_stay_alone():
    chunks = Chunks(list(range(10)), workers=1)
    chunks.took(1, 30.0)
    assert {len(chunk) for chunk in chunks} == {1}


def test_evaluate_keeps_the_order_of_its_chunk():
    tasks = [Task(i, p, GEMM, "ideal") for i, p in enumerate(grid("systolic", ROWS))]
    done = evaluate(tasks[::-1])
    assert [record["index"] for record in done.records] == [2, 1, 0]
    assert done.seconds > 0


def test_a_changed_workload_file_is_read_again_by_the_next_sweep(tmp_path):
    file = tmp_path / "w.csv"
    header = "Layer, M, N, K,\n"
    cycles = []
    for m in (32, 64):
        file.write_text(f"{header}a, {m}, 32, 32,\n")
        cycles.append(sweep(grid("systolic"), str(file), jobs=1).rows[0]["cycles"])
    assert cycles[0] < cycles[1]
    assert evaluation._graph.cache_info().maxsize


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
