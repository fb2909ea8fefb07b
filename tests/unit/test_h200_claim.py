"""The claim h200 without a recording: rows as workloads, refusals, verdicts, calibration."""

import pytest
from accelsim.validation import h200
from accelsim.validation.gpu.devices.fake import machine
from accelsim.validation.gpu.timing.grid import Case, Row, grid
from accelsim.validation.gpu.timing.record import Record
from accelsim.validation.h200 import calibrate
from accelsim.validation.h200.calibrate import CONSTANTS, fitted_rows, simulate_row
from accelsim.validation.h200.measured import Measured, is_there, measured
from accelsim.validation.h200.workloads import simulated_us, workload_text

from accelsim.api import arch
from accelsim.errors import AccelsimError
from accelsim.results.claims import claim_names, holds
from accelsim.workload import workload
from accelsim.workload.kinds import KEYS

GRID = grid()


def case(kind, dtype="bf16", block="gemm", **sizes):
    return Case(block, kind, dtype, tuple(sizes.items()))


def gemm(m, n, k, dtype="bf16"):
    return case("gemm", dtype, m=m, n=n, k=k)


# -- rows as workloads ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted({row.case.kind for row in GRID}))
def test_every_row_of_the_grid_is_a_workload_of_the_same_size(kind):
    for one in dict.fromkeys(row.case for row in GRID if row.case.kind == kind):
        text = workload_text(one)
        if kind == "sparse":
            dense = workload_text(Case("", "gemm", one.dtype, one.sizes))
            assert text == f"{dense},sparsity=2:4"
            if "sparsity" not in KEYS["gemm"]:
                continue
        graph = workload(text)
        (operator,) = graph.operators
        touched = sum(graph.tensors[name].bytes for name in (*operator.inputs, *operator.outputs))
        vectors = 16 * one.size.get("cols", 0)  # of a norm: not counted in the grid
        assert one.footprint <= touched <= one.footprint + vectors
        half = one.size["batch"] * one.size["heads"] if kind == "attention" else 0
        diagonal = half * one.size.get("q", 0) * one.size.get("d", 0)
        assert one.macs <= operator.macs <= one.macs + diagonal


def test_an_unknown_kind_is_refused():
    with pytest.raises(AccelsimError, match=r"no workload for 'fft bf16 n=8'; known kinds: gemm"):
        workload_text(case("fft", n=8))


def test_a_warm_cache_makes_up_for_main_memory_and_for_nothing_else():
    rows = case("relu", rows=1024, cols=4096)
    cold, warm = (simulated_us(Row(rows, cache)) for cache in ("cold", "warm"))
    assert warm < 0.9 * cold
    # With half the bandwidth of main memory what is in the cache takes the same time.
    slower = {"hbm.efficiency": 0.4}
    assert simulated_us(Row(rows, "warm"), slower) == pytest.approx(warm, rel=0.05)
    assert simulated_us(Row(rows, "cold"), slower) > 1.2 * cold
    tiny = case("relu", rows=1, cols=64)
    both = [simulated_us(Row(tiny, cache)) for cache in ("cold", "warm")]
    assert 0 <= both[0] - both[1] < 0.5


# -- what is refused ----------------------------------------------------------------------------


def recorded(folder, rows, name="NVIDIA H200", kind="cuda", drifts=None):
    record = Record.at(folder, {"machine": {**machine(), "kind": kind, "name": name}})
    lines = [
        {
            "stretch": 0, "case": row.case.name, "cache": row.cache, "median_us": 5.0 + i,
            "drift": (drifts or {}).get(i, 0.001),
        }
        for i, row in enumerate(rows)
    ]  # fmt: skip
    record.add(0, {"latency.csv": lines})
    return folder


def test_recorded_rows_are_those_between_steady_anchors(tmp_path):
    folder = recorded(tmp_path, GRID[:4], drifts={1: 0.021, 2: 0.02})
    assert is_there(folder)
    assert [(one.row, one.microseconds) for one in measured(folder)] == [
        (GRID[0], 5.0), (GRID[2], 7.0), (GRID[3], 8.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("NVIDIA H100", "cuda", r"is of NVIDIA H100 \(cuda\); accepted: an NVIDIA H200"),
        ("NVIDIA H200", "fake", r"is of NVIDIA H200 \(fake\)"),
        ("processor", "rehearsal", r"is of processor \(rehearsal\)"),
    ],
)
def test_evidence_from_anything_but_an_h200_is_refused(tmp_path, name, kind, said):
    with pytest.raises(AccelsimError, match=said):
        measured(recorded(tmp_path, GRID[:2], name, kind))


def test_rows_that_the_grid_does_not_have_are_refused(tmp_path):
    strange = Row(gemm(1, 2, 3), "cold")
    with pytest.raises(
        AccelsimError, match=r"latency\.csv: 'gemm bf16 m=1 n=2 k=3 cold' is no row"
    ):
        measured(recorded(tmp_path, [strange]))


def test_without_its_manifest_a_recording_is_refused(tmp_path):
    (recorded(tmp_path, GRID[:2]) / "manifest.json").unlink()
    assert is_there(tmp_path)
    with pytest.raises(AccelsimError, match=r"manifest\.json is missing"):
        measured(tmp_path)


# -- the verdict ----------------------------------------------------------------------------------


def few_rows():
    """Some test and fit rows of two judged blocks, and one that is only told."""
    wanted = {"gemm": [], "softmax and norms": [], "elementwise": []}
    for row in GRID:
        if (
            row.case.block in wanted
            and row.case.footprint < 30 << 20
            and row.case.kind != "rmsnorm"
        ):
            wanted[row.case.block].append(row)
    return [row for rows in wanted.values() for row in rows[:6]]


def judged(monkeypatch, factors):
    """The claim's rows if a block had taken so many times as long as simulated, and rows to fit of
    judged blocks thrice as long, whatever else."""

    def took(row):
        fitted = row.case.split == "fit" and row.case.block in calibrate.JUDGED
        return simulated_us(row) * (3 if fitted else factors[row.case.block])

    rows = [Measured(row, took(row)) for row in few_rows()]
    monkeypatch.setattr(h200, "measured", lambda: rows)
    return list(h200.rows())


def test_each_judged_block_stands_beside_what_is_asked(monkeypatch):
    factors = {"gemm": 1.05, "softmax and norms": 0.95, "elementwise": 2.0}
    rows = judged(monkeypatch, factors)
    assert holds(h200.CLAIM, rows)
    means = {row.case: row for row in rows if row.split == "asked of a block"}
    assert means["mean error of gemm"].expected == 0.10
    assert means["mean error of gemm"].measured == pytest.approx(1 - 1 / 1.05, abs=1e-3)
    assert means["mean error of softmax and norms"].measured == pytest.approx(
        1 / 0.95 - 1, abs=1e-3
    )
    assert means["mean error of elementwise"].measured == pytest.approx(0.5, abs=1e-3)
    assert {row.split for row in rows} == {"fit", "test", "told", "asked of a block"}


def test_one_block_that_is_wrong_is_enough_to_fail(monkeypatch):
    # The mean over all test rows is still within 10 %.
    factors = {"gemm": 1.0, "softmax and norms": 1.15, "elementwise": 1.0}
    rows = judged(monkeypatch, factors)
    bad = [row.case for row in rows if not row.ok]
    assert bad == ["mean error of softmax and norms"]
    assert not holds(h200.CLAIM, rows)


def test_what_is_missing_says_how_to_record_it(monkeypatch, tmp_path):
    assert "h200" in claim_names()
    monkeypatch.setattr(h200, "is_there", lambda: False)
    assert h200.outstanding().endswith(h200.COMMAND)
    assert "accelsim.validation.gpu.timing" in h200.COMMAND
    monkeypatch.setattr(h200, "is_there", lambda: True)
    assert h200.outstanding() == ""
    assert not is_there(tmp_path)
    assert not is_there(tmp_path / "none")


# -- calibration ----------------------------------------------------------------------------------


def test_the_constants_begin_where_the_architecture_is_and_are_declared_there():
    h200_arch = arch("h200")
    for one in CONSTANTS:
        block, name = one.path.split(".")
        here = {**h200_arch.units, **h200_arch.memories}[block]
        assert getattr(here, name) == one.start
        assert one.least < one.start < one.most
        assert one.path in h200_arch.calibrated
    assert len(h200_arch.calibrated) <= 5


def test_only_rows_marked_fit_decide_the_constants():
    rows = fitted_rows([Measured(row, 1.0) for row in GRID])
    assert {one.row.case.split for one in rows} == {"fit"}
    assert {one.row.case.block for one in rows} == set(calibrate.JUDGED)
    assert 0.15 * len(GRID) < len(rows) < 0.3 * len(GRID)


def test_calibration_finds_the_constants_that_made_the_rows():
    """Synthetic times of a machine with other constants: the fit returns to those."""
    made = {
        "hbm.efficiency": 0.9, "tensor.efficiency": 0.7, "tensor.prologue": 2300,
        "simt.launch": 1500,
    }  # fmt: skip
    cases = [
        gemm(2048, 4096, 2048), gemm(512, 512, 512),
        gemm(1, 8192, 4096),
        case("softmax", rows=256, cols=1024), case("relu", rows=1024, cols=4096),
    ]  # fmt: skip
    rows = [Measured(Row(one, "cold"), simulated_us(Row(one, "cold"), made)) for one in cases]
    said = []
    found = calibrate.fit(rows, simulate_row, say=said.append)
    for path, value in made.items():
        assert found[path] == pytest.approx(value, rel=0.03), path
    assert isinstance(found["simt.launch"], int)
    assert len(said) < 70


def test_there_is_nothing_to_fit_yet(monkeypatch):
    monkeypatch.setattr(calibrate.records, "is_there", lambda: False)
    with pytest.raises(AccelsimError, match="holds no latencies yet"):
        calibrate.main()
