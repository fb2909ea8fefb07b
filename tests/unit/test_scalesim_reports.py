"""SCALE-Sim's reports: every number as SCALE-Sim printed it, and refusals where it could not."""

import csv
import io
from pathlib import Path

import pytest

import accelsim.api as xs
from accelsim.errors import AccelsimError
from accelsim.results.scalesim_demand import Layer, Tile
from accelsim.results.scalesim_kernels import window_misses
from accelsim.results.scalesim_memory import drains
from accelsim.results.scalesim_reports import (
    ACCESS_COLUMNS,
    BANDWIDTH_COLUMNS,
    COMPUTE_COLUMNS,
    layer_reports,
    write_reports,
)

DATA = Path(__file__).parent / "data"
OPERANDS = ("ifmap", "filter", "ofmap")
CONV_HEADER = "Layer name, H, W, Fh, Fw, Channels, Num Filter, Strides,\n"
GEMM_HEADER = "Layer, M, N, K,\n"


def recorded(name):
    lines = (DATA / name).read_text().splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def name_of(row):
    return "-".join(row[key] for key in list(row)[:8]).replace(" ", "x")


def run(workload, **overrides):
    overrides = {"array.pipelined": False, **overrides}
    return xs.simulate("systolic", workload, memory="ideal", overrides=overrides)


def machine(rows, cols, dataflow, kilobytes):
    sizes = {
        f"{name}.capacity": 1024 * int(kb) for name, kb in zip(OPERANDS, kilobytes, strict=True)
    }
    return {"array.rows": int(rows), "array.cols": int(cols), "array.dataflow": dataflow, **sizes}


@pytest.mark.parametrize("row", recorded("scalesim_calc.csv"), ids=name_of)
def test_numbers_of_a_recorded_gemm(row):
    kilobytes = [row[f"{operand}_sram_kb"] for operand in OPERANDS]
    result = run(
        f"gemm:m={row['M']},n={row['N']},k={row['K']}",
        **machine(row["array_rows"], row["array_cols"], row["dataflow"], kilobytes),
    )
    (report,) = layer_reports(result)
    assert result.cycles - 1 == report.total_cycles == int(row["total_cycles"])
    if row["total_cycles_incl_prefetch"]:  # v3 only
        assert report.cycles_with_prefetch == int(row["total_cycles_incl_prefetch"])
    assert round(report.overall_utilization, 4) == float(row["overall_util_pct"])
    assert round(report.mapping_efficiency, 4) == float(row["mapping_eff_pct"])
    assert round(report.compute_utilization, 4) == float(row["compute_util_pct"])
    for i, name in enumerate(OPERANDS):
        moved = "writes" if name == "ofmap" else "reads"
        dram = report.dram[i]
        assert report.sram[i].words == int(row[f"sram_{name}_{moved}"])
        assert dram.words == int(row[f"dram_{name}_{moved}"])
        assert dram.start == float(row[f"dram_{name}_start"])
        assert dram.stop == float(row[f"dram_{name}_stop"])
        assert round(dram.words_per_cycle, 4) == float(row[f"avg_{name}_dram_bw"])


@pytest.mark.parametrize("row", recorded("scalesim_all_columns.csv"), ids=name_of)
def test_every_column_of_gemms_and_convolutions(row, tmp_path):
    topology = tmp_path / "layer.csv"
    header = GEMM_HEADER if row["form"] == "gemm" else CONV_HEADER
    topology.write_text(f"{header}layer,{row['dims'].replace(' ', ',')},\n")
    kilobytes = (row["ifmap_kb"], row["filter_kb"], row["ofmap_kb"])
    sizes = machine(row["rows"], row["cols"], row["dataflow"], kilobytes)
    (report,) = layer_reports(run(str(topology), **sizes))
    found = (*report.compute_row(), *report.bandwidth_row(), *report.access_row())
    wanted = [float(row[key]) for key in list(row)[8:]]
    assert found == pytest.approx(wanted, rel=1e-12)


def table(text):
    header, *rows = csv.reader(io.StringIO(text), skipinitialspace=True)
    assert all(row[-1] == "" for row in (header, *rows))  # the trailing comma
    return tuple(header[:-1]), [row[:-1] for row in rows]


def test_files_have_the_headers_and_the_layer_order(tmp_path):
    topology = tmp_path / "two.csv"
    topology.write_text(f"{GEMM_HEADER}a, 5, 6, 7,\nb, 9, 8, 4,\nb, 9, 8, 4,\n")
    layers = write_reports(run(str(topology)), tmp_path / "new" / "reports")
    assert [layer.name for layer in layers] == ["a", "b", "b#2"]
    files = ("COMPUTE_REPORT", "BANDWIDTH_REPORT", "DETAILED_ACCESS_REPORT")
    for name, columns in zip(
        files, (COMPUTE_COLUMNS, BANDWIDTH_COLUMNS, ACCESS_COLUMNS), strict=True
    ):
        header, rows = table((tmp_path / "new" / "reports" / f"{name}.csv").read_text())
        assert header == columns
        assert [row[0] for row in rows] == ["0", "1", "2"]
        assert rows[1][1:] == rows[2][1:]


def test_first_lines_are_written_as_scalesim_writes_them(tmp_path):
    write_reports(run("gemm:m=1,n=1,k=1"), tmp_path)
    assert (tmp_path / "COMPUTE_REPORT.csv").read_text() == (
        "LayerID, Total Cycles (incl. prefetch), Total Cycles, Stall Cycles, Overall Util %,"
        " Mapping Efficiency %, Compute Util %,\n"
        f"0, 160, 94, 0, {100 / (94 * 1024)}, 0.09765625, {100 / 1024 / 126},\n"
    )
    access = (tmp_path / "DETAILED_ACCESS_REPORT.csv").read_text().splitlines()[1]
    assert access.startswith("0, 33.0, 33.0, 1, 32.0, 32.0, 1, 63.0, 63.0, 1, -66.0, -1.0, 1,")


@pytest.mark.parametrize(
    ("overrides", "workload", "said"),
    [
        ({"array.pipelined": True}, "gemm:m=8,n=8,k=8", "array.pipelined=false"),
        ({"array.weight_load": 5}, "gemm:m=8,n=8,k=8", "weight_load"),
        ({"array.count": 2}, "gemm:m=8,n=8,k=8", "one systolic array"),
        ({"ifmap.capacity": 99}, "gemm:m=8,n=8,k=8", "three of 100 B"),
        ({}, "gemm:m=8,n=8,k=8,batch=2", "batch 1"),
        ({}, "gemm:m=8,n=8,k=8,bias=true", "bias"),
        ({}, "softmax:rows=4,cols=8", "gemm and conv2d"),
        ({}, "conv2d:h=8,w=8,cin=2,cout=2,fh=3,fw=3,padding=1", "include the padding"),
    ],
)
def test_runs_that_scalesim_could_not_have_made_are_refused(overrides, workload, said, tmp_path):
    with pytest.raises(AccelsimError, match=f"no SCALE-Sim report: .*{said}"):
        write_reports(run(workload, **overrides), tmp_path)
    assert not list(tmp_path.iterdir())


def test_other_memory_fidelities_are_refused(tmp_path):
    result = xs.simulate(
        "systolic", "gemm:m=8,n=8,k=8", overrides={"array.pipelined": False}, memory="bandwidth"
    )
    with pytest.raises(AccelsimError, match="memory is bandwidth; accepted: --memory ideal"):
        write_reports(result, tmp_path)


@pytest.mark.parametrize("skewed", [True, False])
@pytest.mark.parametrize(("length", "width"), [(1, 1), (1, 5), (5, 1), (3, 4), (4, 3), (4, 4)])
def test_a_tile_moves_its_words_along_diagonals_or_rows(length, width, skewed):
    tile = Tile(length, width, start=10, skewed=skewed)
    cycles = sorted(10 + i + j * skewed for i in range(length) for j in range(width))
    assert tile.last_cycle == cycles[-1]
    assert [tile.cycle_of(word) for word in range(1, tile.words + 1)] == cycles
    for cycle in range(8, cycles[-1] + 3):
        assert tile.words_through(cycle) == sum(c <= cycle for c in cycles)


@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
def test_the_compiled_walk_is_the_python_walk(dataflow, monkeypatch):
    sizes = machine(4, 4, dataflow, (1, 1, 1)) | {"ifmap.capacity": 300}
    result = run("conv2d:h=9,w=8,cin=2,cout=5,fh=3,fw=2,stride=2", **sizes)
    compiled = layer_reports(result)
    monkeypatch.setattr("accelsim.results.scalesim_kernels.window_misses", window_misses.py_func)
    assert layer_reports(result) == compiled


def test_drains_beyond_counting_keep_their_sum():
    layer = Layer(10**5, 10**5, 10**5, 32, 32, "ws")
    access = drains(layer, 1 << 16)
    assert access.words == layer.m * layer.n * layer.row_folds
    assert access.start < layer.total_cycles < access.stop
