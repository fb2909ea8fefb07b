"""The timing kit without a GPU: grid, statistics, drift, restart, and what it refuses."""

import csv
import hashlib
import json
import subprocess
import sys
from itertools import count, pairwise

import pytest
from accelsim.validation.gpu.devices.fake import SteadyNvml, machine
from accelsim.validation.gpu.timing import __main__ as command
from accelsim.validation.gpu.timing import effort, session
from accelsim.validation.gpu.timing.cuda import told
from accelsim.validation.gpu.timing.grid import Case, Row, cold_sets, digest, grid
from accelsim.validation.gpu.timing.method import (
    ATTEMPTS,
    MOST_DRIFT,
    STRETCH,
    LostError,
    Timing,
    UnavailableError,
    lacking,
    launches_for,
)
from accelsim.validation.gpu.timing.record import MANIFEST, Record, read_lines, read_manifest
from accelsim.validation.gpu.timing.rehearsal import small
from accelsim.validation.gpu.timing.spread import drift, spread

from accelsim.errors import AccelsimError

GRID = grid()
JUDGED = {"gemm", "gemv", "attention", "2:4", "softmax and norms"}


class FakeGpu:
    """Times that follow from the row alone; anchors as told, 100 us without."""

    def __init__(self, capability=(9, 0), anchors=(), missing=(), stop_after=None):
        self.capability = capability
        self.anchors = iter(anchors)
        self.missing = missing
        self.stop_after = stop_after
        self.timed = []

    def provenance(self):
        return machine()

    def anchor(self):
        return next(self.anchors, 100.0), 500.0

    def kernels(self, case):
        return f"kernel of {case.kind}"

    def time(self, row):
        if self.stop_after is not None and len(self.timed) >= self.stop_after:
            raise KeyboardInterrupt
        if row.case.kind in self.missing:
            raise UnavailableError("no such kernel")
        self.timed.append(row)
        return Timing(spread([effort.kernel_us(row.case)] * 3), 9.0, 7, 2)


def ran(folder, device=None, rows=GRID, seconds=1e9, clock=None, state=None):
    """A session on a fake GPU: (record, what was said, whether all was done)."""
    device = device or FakeGpu()
    record = Record.at(folder, command.identity(device, rows))
    said = []
    ticks = count()
    done = session.run(
        device, state or SteadyNvml(), rows, record, said.append, seconds,
        clock or (lambda: float(next(ticks))),
    )  # fmt: skip
    return record, said, done


# -- the grid ---------------------------------------------------------------------------------


def test_the_grid_covers_what_is_asked_for():
    assert 550 <= len(GRID) <= 700
    assert {row.case.block for row in GRID} > JUDGED
    cases = {row.case for row in GRID}
    assert len({row.name for row in GRID}) == len(GRID)
    flat = {c.size["m"] for c in cases if c.kind == "gemm" and c.dtype == "bf16"}
    assert {1, 2, 4, 8, 16, 32, 64, 128, 8192} <= flat
    assert {c.dtype for c in cases if c.kind == "gemm"} == {
        "bf16", "fp16", "fp8_e4m3", "int8", "tf32",
    }  # fmt: skip
    decode = [c.size for c in cases if c.kind == "attention" and c.size["q"] == 1]
    assert {s["heads"] // s["kv_heads"] for s in decode} == {1, 4, 8}
    assert max(s["kv"] for s in decode) == 131072
    assert {c.size["causal"] for c in cases if c.kind == "attention"} == {0, 1}


def test_what_fits_a_cache_is_timed_warm_too_beside_its_cold_row():
    for before, row in pairwise(GRID):
        if row.cache == "warm":
            assert before == Row(row.case, "cold")
    warm = {row.case for row in GRID if row.cache == "warm"}
    assert all((row.case in warm) == (row.case.footprint <= 40 << 20) for row in GRID)


def test_a_dense_twin_of_every_sparse_product_is_in_the_grid():
    dense = {(c.dtype, c.sizes) for c in (row.case for row in GRID) if c.kind == "gemm"}
    for row in GRID:
        if row.case.kind == "sparse" and row.case.dtype != "fp16":
            assert (row.case.dtype, row.case.sizes) in dense


def test_a_quarter_may_be_fitted_and_both_rows_of_a_case_go_together():
    share = sum(row.case.split == "fit" for row in GRID) / len(GRID)
    assert 0.2 < share < 0.3
    for block in JUDGED:
        mine = [row.case.split for row in GRID if row.case.block == block]
        assert 5 <= mine.count("fit") < mine.count("test")


def test_the_split_and_the_order_are_those_of_the_first_recording():
    """What a constant may be fitted on must not move once something has been recorded."""
    case = Case("gemm", "gemm", "bf16", (("m", 4096), ("n", 4096), ("k", 4096)))
    seed = "accelsim latency grid 1"
    first = hashlib.sha256(f"{seed} split gemm bf16 m=4096 n=4096 k=4096".encode()).digest()[:8]
    assert case.split == ("fit" if int.from_bytes(first, "big") / 2**64 < 0.25 else "test")
    assert digest(GRID)[:16] == DIGEST
    assert digest(GRID[::-1]) != digest(GRID)


DIGEST = "48135ddc2258d2c6"


@pytest.mark.parametrize(
    ("kind", "dtype", "sizes", "macs", "footprint"),
    [
        ("gemm", "bf16", {"m": 2, "n": 3, "k": 5}, 30, 2 * (10 + 15 + 6)),
        ("gemm", "int8", {"m": 2, "n": 3, "k": 5}, 30, 10 + 15 + 4 * 6),
        ("gemm", "fp8_e4m3", {"m": 2, "n": 3, "k": 5}, 30, 10 + 15 + 2 * 6),
        ("sparse", "bf16", {"m": 1, "n": 8, "k": 16}, 64, 32 + 128 + 16 + 16),
        ("softmax", "bf16", {"rows": 3, "cols": 5}, 0, 60),
        ("add", "bf16", {"rows": 3, "cols": 5}, 0, 90),
        ("copy", "bf16", {"bytes": 64}, 0, 128),
    ],
)
def test_multiplications_and_bytes_of_a_case(kind, dtype, sizes, macs, footprint):
    case = Case("", kind, dtype, tuple(sizes.items()))
    assert (case.macs, case.footprint) == (macs, footprint)


def test_multiplications_and_bytes_of_attention():
    sizes = {"heads": 4, "kv_heads": 2, "d": 8, "q": 6, "kv": 10, "batch": 3}
    full = Case("", "attention", "bf16", (*sizes.items(), ("causal", 0)))
    causal = Case("", "attention", "bf16", (*sizes.items(), ("causal", 1)))
    assert full.macs == 2 * causal.macs == 2 * 3 * 4 * 6 * 10 * 8
    assert full.footprint == 3 * 8 * 2 * (2 * 6 * 4 + 2 * 10 * 2)


# -- method -----------------------------------------------------------------------------------


def test_spreads_are_quantiles():
    found = spread([5.0, 1.0, 2.0, 3.0, 4.0])
    assert (found.median, found.p10, found.p90) == (3.0, pytest.approx(1.4), pytest.approx(4.6))
    assert spread([2.0]) == type(found)(2.0, 2.0, 2.0)
    with pytest.raises(ValueError, match="no readings"):
        spread([])


def test_drift_is_that_of_the_worst_anchor_either_way():
    assert drift((100.0, 50.0), (101.0, 48.0)) == pytest.approx(0.04)
    assert drift((100.0, 50.0), (103.0, 50.0)) == pytest.approx(0.03)
    assert drift((1.0,), (1.0,)) == 0


@pytest.mark.parametrize(("us", "launches"), [(1.0, 200), (10.0, 200), (50.0, 40), (3000.0, 1)])
def test_a_replay_lasts_two_milliseconds(us, launches):
    assert launches_for(us) == launches


def test_cold_operands_are_gone_from_the_cache_when_their_turn_comes():
    l2 = 50 << 20
    for footprint in (1 << 20, 7 << 20, 300 << 20):
        sets = cold_sets(footprint, l2, 200)
        assert (sets - 1) * footprint >= 2 * l2 or sets == 200
        assert sets >= 2
    # More sets than launches are of no use: nothing comes round, and a sweep lies between replays.
    assert cold_sets(1 << 12, l2, 200) == 200


@pytest.mark.parametrize(
    ("capability", "dtype", "kind", "runs"),
    [
        ((8, 0), "fp8_e4m3", "gemm", False), ((8, 9), "fp8_e4m3", "gemm", True),
        ((7, 5), "bf16", "gemm", False), ((7, 5), "int8", "gemm", True),
        ((7, 5), "int8", "sparse", False), ((9, 0), "fp8_e4m3", "sparse", True),
        ((10, 0), "tf32", "gemm", True),
    ],
)  # fmt: skip
def test_what_a_gpu_lacks_is_named(capability, dtype, kind, runs):
    reason = lacking(Case("", kind, dtype, ()), capability)
    assert (reason == "") == runs
    if not runs:
        assert f"{dtype} {kind} needs compute capability" in reason
        assert reason.endswith(f"this GPU has {capability[0]}.{capability[1]}")


# -- a session --------------------------------------------------------------------------------


def test_a_session_leaves_every_row_once_with_its_split(tmp_path):
    device = FakeGpu()
    _, said, done = ran(tmp_path, device)
    assert done
    assert device.timed == list(GRID)
    lines = read_lines(tmp_path, "latency.csv")
    assert [(f"{one['case']} {one['cache']}", one["split"], one["block"]) for one in lines] == [
        (row.name, row.case.split, row.case.block) for row in GRID
    ]
    first = lines[0]
    assert float(first["median_us"]) == pytest.approx(effort.kernel_us(GRID[0].case), abs=1e-4)
    assert (first["launches"], first["sets"], first["sm_mhz"], first["watts"]) == (
        "7", "2", "1980", "300",
    )  # fmt: skip
    assert read_lines(tmp_path, "skipped.csv") == []
    assert len(read_lines(tmp_path, "anchors.csv")) == len(session.stretches(GRID))
    assert len(read_lines(tmp_path, "state.csv")) >= len(session.stretches(GRID))
    assert len(said) == len(session.stretches(GRID))


def test_a_stretch_whose_anchors_moved_is_timed_again(tmp_path):
    rows = GRID[: STRETCH + 5]
    # After the first anchor: a stretch that drifts by 3 %, again without drift, then the second.
    device = FakeGpu(anchors=[100, 100, 103, 103, 103.5, 100, 100])
    _, said, _ = ran(tmp_path, device, rows)
    assert device.timed == [*rows[:STRETCH], *rows]
    kept = [
        (one["stretch"], one["attempt"], one["kept"]) for one in read_lines(tmp_path, "anchors.csv")
    ]
    assert kept == [("0", "0", "0"), ("0", "1", "1"), ("1", "0", "1")]
    assert "anchors moved 3.0%" in said[0]
    lines = read_lines(tmp_path, "latency.csv")
    assert len(lines) == len(rows)
    assert all(float(one["drift"]) < MOST_DRIFT for one in lines)


def test_the_steadiest_attempt_is_kept_if_none_is_steady(tmp_path):
    rows = GRID[:3]
    device = FakeGpu(anchors=[100, 100, 110, 100, 104, 100, 120])
    ran(tmp_path, device, rows)
    assert len(device.timed) == ATTEMPTS * len(rows)
    lines = read_lines(tmp_path, "latency.csv")
    assert [float(one["drift"]) for one in lines] == [pytest.approx(0.04)] * 3
    assert [one["kept"] for one in read_lines(tmp_path, "anchors.csv")] == ["0", "1", "0"]


def test_what_a_gpu_does_not_have_is_skipped_visibly(tmp_path):
    rows = [row for row in GRID if row.case.dtype == "fp8_e4m3" or row.case.kind == "softmax"]
    rows = tuple(rows[: 2 * STRETCH])
    ran(tmp_path, FakeGpu(capability=(8, 0), missing=("softmax",)), rows)
    assert read_lines(tmp_path, "latency.csv") == []
    reasons = {one["case"].split()[0]: one["reason"] for one in read_lines(tmp_path, "skipped.csv")}
    assert reasons["softmax"] == "no such kernel"
    assert reasons["gemm"] == "fp8_e4m3 gemm needs compute capability 8.9, this GPU has 8.0"


def test_an_interrupted_session_goes_on_where_it_stopped(tmp_path):
    stopped = FakeGpu(stop_after=STRETCH + 7)
    with pytest.raises(KeyboardInterrupt):
        ran(tmp_path, stopped)
    assert len(read_lines(tmp_path, "latency.csv")) == STRETCH
    device = FakeGpu()
    record, _, done = ran(tmp_path, device)
    assert done
    assert device.timed == list(GRID[STRETCH:])
    assert record.finished == list(range(len(session.stretches(GRID)) + 1))
    assert [one["case"] for one in read_lines(tmp_path, "kernels.csv")] == list(
        dict.fromkeys(row.case.name for row in GRID)
    )
    names = [f"{one['case']} {one['cache']}" for one in read_lines(tmp_path, "latency.csv")]
    assert names == [row.name for row in GRID]


def test_a_kernel_that_faults_ends_one_run_and_not_the_next(tmp_path):
    bad = GRID[50]

    class Faulty(FakeGpu):
        def time(self, row):
            if row == bad:
                raise LostError(f"the GPU failed at {row.name}: illegal access")
            return super().time(row)

        def kernels(self, case):
            assert case != bad.case
            return super().kernels(case)

    with pytest.raises(LostError, match="illegal access"):
        ran(tmp_path, Faulty())
    record, _, done = ran(tmp_path, Faulty())
    assert done
    assert record.faults == {bad.name: f"the GPU failed at {bad.name}: illegal access"}
    (line,) = read_lines(tmp_path, "skipped.csv")
    assert (line["case"], line["cache"]) == (bad.case.name, bad.cache)
    assert "illegal access" in line["reason"]
    assert len(read_lines(tmp_path, "latency.csv")) == len(GRID) - 1


@pytest.mark.parametrize("seconds", ["nan", "-1"])
def test_times_that_are_none_are_refused(tmp_path, capsys, seconds):
    assert command.main(["--out", str(tmp_path / "new"), "--seconds", seconds]) == 2
    assert "accepted: 0 or more" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_lines_of_a_stretch_that_was_not_finished_are_cut_off(tmp_path):
    ran(tmp_path, rows=GRID[:STRETCH])
    whole = (tmp_path / "latency.csv").read_bytes()
    (tmp_path / "latency.csv").write_bytes(whole + b"3,gemm,half a li")
    assert len(read_lines(tmp_path, "latency.csv")) == STRETCH
    ran(tmp_path, rows=GRID[:STRETCH])
    assert (tmp_path / "latency.csv").read_bytes() == whole


def test_a_session_ends_in_time(tmp_path):
    ticks = iter(range(0, 100_000, 10))  # each look at the clock is ten seconds later
    _, said, done = ran(tmp_path, seconds=100, clock=lambda: next(ticks))
    assert not done
    assert 0 < len(read_manifest(tmp_path)["finished"]) < len(session.stretches(GRID))
    assert "time is up" in said[-1]


def test_kernels_of_a_profile_are_told_in_their_order():
    events = [
        {"cat": "kernel", "name": "b", "ts": 5, "args": {"grid": [4, 2, 1], "block": [128, 1, 1]}},
        {"cat": "kernel", "name": "f" * 500, "ts": 2, "args": {"shared memory": 4096}},
        {"cat": "cuda_runtime", "name": "cudaLaunchKernel", "ts": 1},
        {"cat": "gpu_memcpy", "name": "Memcpy DtoD", "ts": 9},
    ]
    assert told(events) == f"{'f' * 120} shared=4096 | b grid=4x2x1 block=128x1x1 | Memcpy DtoD"


# -- what is refused --------------------------------------------------------------------------


def test_a_record_of_another_machine_or_grid_is_refused(tmp_path):
    ran(tmp_path, rows=GRID[:5])
    with pytest.raises(
        AccelsimError, match=r"manifest\.json is of another grid; accepted: an empty"
    ):
        ran(tmp_path, rows=GRID[:6])
    other = FakeGpu()
    other.provenance = lambda: {**machine(), "torch": "9.9"}
    with pytest.raises(AccelsimError, match=r"is of another machine\.torch"):
        ran(tmp_path, other, GRID[:5])


def changed_manifest(folder, **changes):
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, **changes}))


def test_what_is_not_whole_is_refused_by_name(tmp_path):
    ran(tmp_path, rows=GRID[:5])
    file = tmp_path / "latency.csv"
    right = file.read_bytes()
    file.write_bytes(right.replace(b"cold", b"warm", 1))
    with pytest.raises(AccelsimError, match=r"latency\.csv does not match its digest"):
        read_lines(tmp_path, "latency.csv")
    with pytest.raises(AccelsimError, match=r"latency\.csv does not match its digest"):
        ran(tmp_path, rows=GRID[:5])
    file.write_bytes(right[:-1])
    with pytest.raises(AccelsimError, match=r"latency\.csv does not match its digest"):
        read_lines(tmp_path, "latency.csv")
    file.unlink()
    with pytest.raises(AccelsimError, match=r"latency\.csv is missing; manifest\.json lists it"):
        read_lines(tmp_path, "latency.csv")
    with pytest.raises(AccelsimError, match=r"does not list extra\.csv; accepted: latency\.csv"):
        read_lines(tmp_path, "extra.csv")


def test_manifests_of_another_kind_are_refused_by_name(tmp_path):
    with pytest.raises(AccelsimError, match=r"manifest\.json is missing; latencies without it"):
        read_lines(tmp_path, "latency.csv")
    ran(tmp_path, rows=GRID[:5])
    changed_manifest(tmp_path, schema=7)
    with pytest.raises(AccelsimError, match=r"manifest\.json is of version 7; accepted: 1"):
        read_lines(tmp_path, "latency.csv")
    (tmp_path / MANIFEST).write_text('{"schema": 1}')
    with pytest.raises(AccelsimError, match=r"manifest\.json has no 'identity'"):
        read_manifest(tmp_path)
    (tmp_path / MANIFEST).write_text("[")
    with pytest.raises(AccelsimError, match=r"manifest\.json is no JSON"):
        ran(tmp_path, rows=GRID[:5])


# -- the command ------------------------------------------------------------------------------


def test_a_dry_run_tells_rows_seconds_and_bytes(capsys):
    assert command.main(["--dry-run"]) == 0
    said = capsys.readouterr().out
    assert f"{len(GRID)} rows in {len(session.stretches(GRID))} stretches" in said
    assert effort.seconds(GRID) < 360
    assert effort.recorded_bytes(GRID, 0.2) < 2e6
    table = list(csv.reader(said.splitlines()[1:-1], delimiter=" ", skipinitialspace=True))
    assert sum(int(line[-1]) + int(line[-2]) for line in table) == len(GRID)


def test_what_was_recorded_is_about_as_large_as_foretold(tmp_path):
    ran(tmp_path)
    lines = (tmp_path / "latency.csv").stat().st_size
    assert 0.3 < lines / (effort.ROW_BYTES * len(GRID)) < 1


def test_the_kit_needs_nothing_that_is_compiled_or_beyond_its_own_needs():
    """On a GPU's machine there are torch, triton and numpy, and no numba, scipy or yaml."""
    code = (
        "import sys\n"
        "for name in 'numba scipy yaml pydantic typer plotly joblib simpy'.split():\n"
        "    sys.modules[name] = None\n"
        "from accelsim.validation.gpu.timing import __main__ as m\n"
        "from accelsim.validation.gpu.timing import cuda, operators, rehearsal\n"
        "sys.exit(m.main(['--dry-run']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_without_a_gpu_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    for words in ([], ["--rehearse"]):
        assert command.main(["--out", str(tmp_path / "out"), *words]) == 2
        said = capsys.readouterr().err
        assert said.startswith("accelsim: error: ")
        assert "--dry-run" in said
        assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_rehearsal_is_small_and_keeps_the_sharing_of_heads():
    for row in GRID:
        less = small(row.case)
        assert less.kind == row.case.kind
        assert less.macs <= 2 * 64**3 * 8
        if row.case.kind == "attention":
            assert less.size["heads"] % less.size["kv_heads"] == 0
