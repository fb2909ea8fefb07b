"""Layer-wise N:M sparsity: SCALE-Sim's figures one by one, and right numbers."""

import csv
from pathlib import Path

import pytest
from typer.testing import CliRunner

import accelsim.api as xs
from accelsim.cli.main import app
from accelsim.errors import AccelsimError
from accelsim.results.scalesim_reports import layer_reports, write_reports
from accelsim.results.scalesim_sparse import metadata_bandwidth, sparse_row
from accelsim.workload import read_topology
from accelsim.workload.layer_sparsity import KeptSteps

DATA = Path(__file__).parent / "data"
CONV_HEADER = "Layer name, H, W, Fh, Fw, Channels, Num Filter, Strides, Sparsity,\n"
GEMM_HEADER = "Layer, M, N, K, Sparsity,\n"


def recorded():
    lines = (DATA / "scalesim_sparse.csv").read_text().splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def run(workload, **overrides):
    return xs.simulate(
        "systolic", workload, memory="ideal", overrides={"array.pipelined": False, **overrides}
    )


def topology_of(row, tmp_path):
    file = tmp_path / "layer.csv"
    header = GEMM_HEADER if row["form"] == "gemm" else CONV_HEADER
    file.write_text(f"{header}L,{row['dims'].replace(' ', ',')},{row['sparsity']},\n")
    return file


@pytest.mark.parametrize("row", recorded(), ids=lambda r: "-".join(list(r.values())[:7]))
def test_every_column_of_sparse_layers(row, tmp_path):
    sizes = {f"array.{key}": int(row[key]) for key in ("rows", "cols")}
    workload = str(topology_of(row, tmp_path))
    (report,) = layer_reports(run(workload, **sizes, **{"array.dataflow": row["dataflow"]}))
    representation = row["representation"]
    found = (
        *report.compute_row(),
        *report.bandwidth_row((metadata_bandwidth(report, representation),)),
        *report.access_row(),
        *sparse_row(report, representation)[1:4],
    )
    wanted = [float(row[key]) for key in list(row)[7:]]
    assert found == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(("kept", "group", "whole"), [(2, 4, 51), (1, 4, 3), (3, 3, 7), (5, 8, 64)])
def test_kept_steps_are_the_first_of_every_group(kept, group, whole):
    steps = KeptSteps(kept, group, whole)
    expected = [k for k in range(whole) if k % group < kept]
    found = []
    for first in range(0, steps.length, 7):  # windows that cut groups
        for part, place in steps.runs(slice(first, min(first + 7, steps.length))):
            assert part.stop - part.start == place.stop - place.start
            found += range(place.start, place.stop)
    assert found == expected
    assert steps.length == len(expected)


@pytest.mark.parametrize(
    "workload",
    [
        "gemm:m=20,n=18,k=51,sparsity=2:4:layer",
        "gemm:m=9,n=18,k=52,sparsity=3:8:layer,dtype=int8,transpose_b=true,batch=2",
        "gemm:m=9,n=18,k=52,sparsity=3:4:layer,groups=2,bias=true",
        "conv2d:h=7,w=7,fh=3,fw=3,cin=6,cout=4,padding=1,groups=2,sparsity=2:4:layer",
    ],
)
@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
def test_numbers_are_those_of_the_pruned_product(workload, dataflow):
    overrides = {"array.dataflow": dataflow, "array.rows": 8, "array.cols": 8}
    assert xs.check("systolic", workload, overrides=overrides).ok


def test_a_sparse_layer_multiplies_what_is_kept():
    dense, sparse = (run(f"gemm:m=64,n=64,k=64{s}") for s in ("", ",sparsity=1:4:layer"))
    assert sparse.macs * 4 == dense.macs
    assert sparse.cycles * 2 == dense.cycles  # 16 of 32 rows are used


def test_reports_say_what_is_stored(tmp_path):
    write_reports(run("gemm:m=64,n=64,k=64,sparsity=2:4:layer"), tmp_path)
    header, row = (tmp_path / "SPARSE_REPORT.csv").read_text().splitlines()
    assert header.startswith("LayerID, Sparsity Representation, Original Filter Storage, New")
    assert row.startswith("0, ellpack_block, 4096, 2176.0, 128.0, ")
    bandwidth = (tmp_path / "BANDWIDTH_REPORT.csv").read_text()
    assert "Avg FILTER Metadata SRAM BW, Avg OFMAP SRAM BW" in bandwidth


CFG = """[general]
run_name = r
[architecture_presets]
ArrayHeight: 16
ArrayWidth: 16
IfmapSramSzkB: 64
FilterSramSzkB: 64
OfmapSramSzkB: 64
Dataflow : ws
[sparsity]
SparsitySupport : {support}
SparseRep : csr
OptimizedMapping : {row_wise}
"""


@pytest.mark.parametrize(
    ("support", "row_wise", "cycles", "said"),
    [
        ("true", "false", "879", "r"),
        ("false", "false", "1759", "r"),
        ("true", "true", "1759", "not modelled: row-wise sparsity"),
    ],
)
def test_an_imported_configuration_decides(support, row_wise, cycles, said, tmp_path):
    (tmp_path / "a.cfg").write_text(CFG.format(support=support, row_wise=row_wise))
    (tmp_path / "a.csv").write_text(f"{GEMM_HEADER}L, 64, 64, 64, 2:4,\n")
    files = [str(tmp_path / name) for name in ("a.cfg", "a.csv")]
    told = CliRunner().invoke(
        app, ["import", "scalesim", *files, "--scalesim-reports", str(tmp_path)]
    )
    assert told.exit_code == 0
    assert f"Total Cycles of all layers: {cycles}" in told.output
    assert said in told.output
    sparse = tmp_path / "r" / "SPARSE_REPORT.csv"
    assert sparse.exists() == (cycles == "879")
    assert not sparse.exists() or ", csr, 4096, 4161, 2113" in sparse.read_text()


@pytest.mark.parametrize(
    ("workload", "said"),
    [
        ("gemm:m=8,n=8,k=8,sparsity=5:4:layer", "5:4.*accepted: N:M with 1 <= N <= M"),
        ("gemm:m=8,n=8,k=8,sparsity=0:4:layer", "0:4.*accepted: N:M with 1 <= N <= M"),
        ("gemm:m=8,n=8,k=8,sparsity=half:layer", "half.*accepted: N:M"),
    ],
)
def test_patterns_that_keep_more_than_there_is_are_refused(workload, said):
    with pytest.raises(AccelsimError, match=said):
        xs.workload(workload)


def test_a_topology_without_sparsity_is_dense(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text(f"{GEMM_HEADER}L, 64, 64, 64, 2:4,\n")
    assert read_topology(file).macs * 2 == read_topology(file, sparse=False).macs


def test_what_does_not_prune_rows_refuses_such_products():
    with pytest.raises(AccelsimError, match="layer_sparse_gemm"):
        xs.simulate("a100", "gemm:m=64,n=64,k=64,sparsity=2:4:layer")
