"""How sweeps are executed: processes, chunks, and what is left when they are broken off."""

import os
import subprocess
import sys
import textwrap

import pytest

from accelsim.api import grid, sweep
from accelsim.errors import AccelsimError
from accelsim.explore import evaluate as evaluation
from accelsim.explore.chunks import Chunks
from accelsim.explore.evaluate import Task, evaluate
from accelsim.explore.executors import LocalExecutor, executor_named, plugin_files
from accelsim.explore.sweep import SweepInterrupted
from accelsim.mapping.registry import MAPPERS

GEMM = "gemm:m=64,n=64,k=64"
ROWS = {"array.rows": [8, 16, 32]}


@pytest.fixture(scope="module")
def swept():
    return sweep(grid("systolic", {**ROWS, "array.dataflow": ["ws", "os"]}), GEMM, jobs=1)


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
