"""The command line: what every command prints, writes and returns."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import accelsim
from accelsim.cli import terminal
from accelsim.cli.main import app
from accelsim.mapping import registry

GEMM = "gemm:m=8,n=8,k=8"

CONFIG = """\
[general]
run_name = tiny
[architecture_presets]
ArrayHeight: 8
ArrayWidth: 4
IfmapSramSzkB: 4
FilterSramSzkB: 2
OfmapSramSzkB: 1
Bandwidth : 10
Dataflow : os
[run_presets]
InterfaceBandwidth: USER
"""
TOPOLOGY = "Layer, M, N, K,\nfirst, 64, 32, 16,\nsecond, 20, 30, 40,\n"


@pytest.fixture
def imported(tmp_path):
    cfg, topology = tmp_path / "a b.cfg", tmp_path / "layers.csv"
    cfg.write_text(CONFIG)
    topology.write_text(TOPOLOGY)
    return str(cfg), str(topology)


@pytest.fixture
def own_mappers(monkeypatch):
    """Mappers of a test's own files are forgotten after it."""
    registry.load_builtin_mappers()
    monkeypatch.setattr(registry, "MAPPERS", dict(registry.MAPPERS))


def invoke(*args):
    return CliRunner().invoke(app, list(args))


def output(*args, code=0):
    done = invoke(*args)
    assert done.exit_code == code, done.output
    return done.stdout


def test_version():
    assert output("--version") == f"accelsim {accelsim.__version__}\n"


def test_help_names_every_command():
    text = output("--help")
    for command in ("list", "show", "run", "check", "sweep", "validate", "import", "warmup"):
        assert command in text


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("archs", ("systolic", "tpu-v3")),
        ("workloads", ("llama-2-7b", "resnet50", "gemm")),
        ("mappers", ("systolic-gemm",)),
        ("formats", ("bf16", "int8")),
        ("memories", ("ideal", "bandwidth", "sram")),
    ],
)
def test_list(what, names):
    text = output("list", what)
    for name in names:
        assert any(name in line.split("  ")[0] for line in text.splitlines())
    assert what in output("list").splitlines()


def test_show_takes_overrides():
    assert "rows                  16" in output("show", "systolic", "--set", "array.rows=16")


def test_run_says_what_it_took_and_what_limits_it():
    text = output("run", "systolic", "gemm:m=64,n=64,k=64")
    assert "bound by" in text or "saturated" in text
    for heading in ("Resources", "Operators", "Traffic", "Energy", "Approximations"):
        assert heading in text


def test_json_alone_on_stdout():
    content = json.loads(output("run", "systolic", GEMM, "--json", "-"))
    assert content["schema"] == 1
    assert content["memory"] == "bandwidth"


def test_set_memory_and_mapper_reach_the_run():
    text = output(
        "run", "systolic", GEMM, "--set", "array.rows=4", "--set", "array.pipelined=false",
        "--memory", "ideal", "--mapper", "systolic-gemm", "--json", "-",
    )  # fmt: skip
    content = json.loads(text)
    assert content["mapper"] == "systolic-gemm"
    assert content["cycles"] == 2 * (2 * 4 + 32 + 8 - 2)


@pytest.mark.usefixtures("own_mappers")
def test_a_mapper_file_of_the_user(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from accelsim.hw.systolic import Systolic\n"
        "from accelsim.mapping.registry import by_name, mapper\n"
        "@mapper('mine', lowers=('gemm',), needs=(Systolic,))\n"
        "def mine(op, low):\n"
        "    '''As the built-in.'''\n"
        "    by_name('systolic-gemm').lower(op, low)\n"
    )
    for given in (str(file), f"{file}:mine"):
        content = json.loads(output("run", "systolic", GEMM, "--mapper", given, "--json", "-"))
        assert content["mapper"] == "mine"


def test_files_of_a_run(tmp_path):
    names = {flag: str(tmp_path / f"out{flag}") for flag in ("--json", "--report", "--trace")}
    listing, reports = tmp_path / "listing", tmp_path / "reports"
    output(
        "run", "systolic", GEMM, "--memory", "ideal", "--set", "array.pipelined=false",
        *(part for pair in names.items() for part in pair),
        "--listing", str(listing), "--scalesim-reports", str(reports),
    )  # fmt: skip
    assert json.loads(Path(names["--json"]).read_text())["schema"] == 1
    assert json.loads(Path(names["--trace"]).read_text())["traceEvents"]
    assert "<html" in Path(names["--report"]).read_text()
    assert "# segment gemm" in listing.read_text()
    assert "MATMUL" in listing.read_text()
    assert len(list(reports.iterdir())) == 3


def test_identical_layers_are_simulated_once_unless_told_otherwise():
    model = "gpt2:layers=3,hidden=64,heads=4,ffn=128,vocab=100,tokens=8"
    once = json.loads(output("run", "tpu-v3", model, "--json", "-"))
    each = json.loads(output("run", "tpu-v3", model, "--no-compose", "--json", "-"))
    assert once["macs"] == each["macs"]
    assert any("3 identical layers" in text for text in once["approximations"])
    assert not any("identical layers" in text for text in each["approximations"])


def test_check_passes_and_says_how():
    text = output("check", "systolic", f"{GEMM},dtype=int8", "--order", "both")
    assert "exact int32" in text
    assert "program order" in text
    assert "clock order" in text
    content = json.loads(output("check", "systolic", GEMM, "--seed", "3", "--json", "-"))
    assert content["ok"] is True
    assert content["seed"] == 3
    assert content["checks"][0]["operators"][0]["compared"] == 64


@pytest.mark.usefixtures("own_mappers")
def test_check_fails_with_exit_1_and_the_first_wrong_element(tmp_path):
    file = tmp_path / "wrong.py"
    file.write_text(
        "from dataclasses import replace\n"
        "from accelsim.hw.systolic import Systolic\n"
        "from accelsim.mapping.registry import by_name, mapper\n"
        "@mapper('wrong', lowers=('gemm',), needs=(Systolic,))\n"
        "def wrong(op, low):\n"
        "    '''Takes the right operand as if it were transposed.'''\n"
        "    by_name('systolic-gemm').lower(replace(op, transpose_b=True), low)\n"
    )
    args = ("check", "systolic", f"{GEMM},dtype=int8", "--mapper", str(file))
    text = output(*args, code=1)
    assert "WRONG" in text
    assert "first: gemm: gemm.out[0, 0] is" in text
    content = json.loads(output(*args, "--json", "-", code=1))
    assert content["ok"] is False


def test_import_scalesim_runs_as_scalesim_does(imported, tmp_path):
    text = output("import", "scalesim", *imported, "--scalesim-reports", str(tmp_path / "out"))
    assert "8 x 4 array, os" in text
    assert "not modelled: InterfaceBandwidth USER" in text
    cycles = [8 * 8 * (8 + 4 + 16 - 2) - 1, 3 * 8 * (8 + 4 + 40 - 2) - 1]
    assert f"Total Cycles of all layers: {sum(cycles)}" in text
    with (tmp_path / "out" / "tiny" / "COMPUTE_REPORT.csv").open() as file:
        rows = list(csv.DictReader(file, skipinitialspace=True))
    assert [int(row["Total Cycles"]) for row in rows] == cycles


def test_an_imported_architecture_runs_alike(imported, tmp_path):
    machine = tmp_path / "machine.yaml"
    told = output("import", "scalesim", *imported, "--no-run", "--out", str(machine))
    assert f"accelsim run {machine}" in told
    assert "Total Cycles" not in told
    text = output("run", str(machine), imported[1], "--memory", "ideal", "--json", "-")
    content = json.loads(text)
    assert content["cycles"] == 8 * 8 * 26 + 3 * 8 * 50
    assert "bandwidth             10 GB/s" in output("show", str(machine))


def test_import_hf_says_what_was_read_and_how_to_run_it():
    folder = accelsim.workload.library_folder()
    text = output("import", "hf", str(folder / "llama-2-7b.json"))
    assert "6,738,415,616 parameters" in text
    assert "phase=decode" in text
    assert "46,702,792,704 parameters" in output("import", "hf", str(folder / "mixtral-8x7b.json"))
    assert "phase=decode" in output("import", "hf", str(folder / "deepseek-v3.json"))


@pytest.fixture
def in_a_folder(monkeypatch, tmp_path):
    """An empty working directory, where a report may be written."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_validate_one_claim(in_a_folder):
    text = output("validate", "parameters", "--rows")
    assert "llama-2-7b: expected" in text
    assert "report: validation/report.md, validation/report.html" in text
    report = (in_a_folder / "validation/report.md").read_text()
    assert "| parameters | " in report
    assert "| all | 38 | 0 | exact | exact |" in report
    assert "| llama-2-7b |  | 6,738,415,616 | 6,738,415,616 | +0.0 % |" in report
    assert "Plotly.newPlot" in (in_a_folder / "validation/report.html").read_text()
    content = json.loads(output("validate", "parameters", "--json", "-", "--no-report"))
    assert content["ok"] is True
    assert content["claims"][0]["rows"]
    assert content["claims"][0]["splits"][""]["cases"] == 38


def test_where_the_report_goes(in_a_folder, monkeypatch):
    from accelsim.results import claims

    quiet = output("validate", "parameters", "--no-report")
    assert "report:" not in quiet
    assert output("validate", "parameters", "--to", "-") == quiet
    assert not list(in_a_folder.iterdir())
    output("validate", "parameters", "--to", "a/b", "--markdown", "c.md", "--html", "c.html")
    both = [in_a_folder / "a/b/report.md", in_a_folder / "c.md"]
    assert both[0].read_text() == both[1].read_text()
    assert (in_a_folder / "a/b/report.html").read_text() == (in_a_folder / "c.html").read_text()
    # A folder that cannot be is said before anything is computed.
    monkeypatch.setattr(claims, "evidence", None)
    for to in ("c.md", "c.md/d", "/proc/nowhere"):
        said = CliRunner().invoke(app, ["validate", "parameters", "--to", to])
        assert said.exit_code == 2
        assert f"cannot write to folder {to}: " in said.stderr
        assert said.stderr.count("\n") == 1


def test_validate_fails_with_exit_1(in_a_folder, monkeypatch):
    from accelsim.results import claims

    claim = claims.Claim("parameters", "one is two", "nobody", 0.1)
    rows = [claims.Row("good", 1, 1, True), claims.Row("bad", 0, 2, False)]

    class Wrong:
        CLAIM = claim

        @staticmethod
        def rows():
            yield from rows
            raise accelsim.AccelsimError("no more data")

    monkeypatch.setattr(claims, "evidence", lambda _name: Wrong)
    text = output("validate", "parameters", code=1)
    assert "2 (1 failed)" in text
    assert "FAILED  bad: expected 0, got 2" in text
    assert "stopped: no more data" in text
    assert "good" not in text
    json.loads(output("validate", "parameters", "--json", "-", code=1))


def test_a_claim_about_a_mean_is_judged_by_its_split(in_a_folder, monkeypatch):
    from accelsim.results import claims

    rows = [
        claims.Row("a", 100, 110, split="test", others={"rival": 150.0}),
        claims.Row("b", 100, 71, split="test"),
        claims.Row("c", 100, 300, split="fit"),
    ]

    class Silicon:
        CLAIM = claims.Claim("parameters", "cycles", "silicon", 0.2, mean_of="test")

        @staticmethod
        def rows():
            yield from rows

    monkeypatch.setattr(claims, "evidence", lambda _name: Silicon)
    file, page = (in_a_folder / f"validation/report.{kind}" for kind in ("md", "html"))
    text = output("validate", "parameters", "--rows")
    assert "mean of rival" in text
    assert "19.5 % mean of test" in text
    assert "+200.0 %" in text
    assert "| a | test | 100 | 110 | +10.0 % | +50.0 % |" in file.read_text()
    assert "| mean absolute error | test |  | 2 cases | 19.5 % | 50.0 % |" in file.read_text()
    drawn = page.read_text()
    assert "Plotly.newPlot" in drawn
    assert "truth 100, test 110 (+10.0%)" in drawn
    assert "truth 100, rival 150 (+50.0%)" in drawn
    assert "<td>19.5 %</td>" in drawn
    assert "| test | 2 | 0 | 19.5 % | 29 % | 50 % | b |" in file.read_text()
    content = json.loads(output("validate", "parameters", "--json", "-"))
    assert content["claims"][0]["mean_error"] == pytest.approx(0.195)
    rows[1] = claims.Row("b", 100, 69, split="test")
    assert "FAILED" in output("validate", "parameters", code=1)
    rows[:] = [claims.Row("c", 100, 100, split="fit")]
    assert "FAILED" in output("validate", "parameters", code=1)


SPEC = """\
arch: systolic
workload: "gemm:m=32,n=32,k=32"
set:
  array.rows: [8, 16]
  array.dataflow: [ws, os]
pareto: [cycles]
"""


def test_sweep_shows_designs_and_their_front(tmp_path):
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC)
    text = output("sweep", str(spec), "--jobs", "1", "--out", str(tmp_path / "out"))
    assert "4 designs" in text
    assert "on the Pareto front of cycles" in text
    args = ("--out", str(tmp_path / "out"), "--resume", "--json", "-")
    content = json.loads(output("sweep", str(spec), "--jobs", "1", *args))
    assert len(content["rows"]) == 4
    assert min(row["cycles"] for row in content["rows"]) == content["pareto"][0]["cycles"]


def test_sweep_where_nothing_runs_says_why(tmp_path):
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC.replace("[8, 16]", "[0]"))
    done = invoke("sweep", str(spec), "--jobs", "1")
    assert done.exit_code == 2
    assert "rows must be at least 1" in done.stderr
    assert "why not" in done.stdout


def test_warmup():
    assert output("warmup").startswith("compiled in")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_sees_progress_and_why_the_first_run_is_slow(monkeypatch):
    monkeypatch.setattr("accelsim._jit.kernels_are_cached", lambda: False)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with terminal.working() as progress:
        progress("layer0", 0, 2)
        progress("layer1", 1, 2)
    assert "compiling the engine (first run only)" in sys.stderr.getvalue()
    assert "layer1" in sys.stderr.getvalue()


def test_a_pipe_sees_neither(monkeypatch):
    monkeypatch.setattr("accelsim._jit.kernels_are_cached", lambda: False)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with terminal.working() as progress:
        assert progress is None
    assert sys.stderr.getvalue() == ""


def program(*args, **settings):
    return subprocess.run(
        [sys.executable, "-c", "from accelsim.cli.main import main; main()", *args],
        capture_output=True, text=True, timeout=120, check=False, **settings,
    )  # fmt: skip


def test_help_and_import_load_nothing_heavy():
    code = (
        "import sys, accelsim\n"
        "from accelsim.cli.main import app\n"
        "from typer.testing import CliRunner\n"
        "assert CliRunner().invoke(app, ['run', '--help']).exit_code == 0\n"
        "heavy = {'numba', 'numpy', 'scipy', 'networkx', 'plotly', 'yaml'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_pipe_gets_the_result_and_nothing_else():
    done = program("run", "systolic", GEMM, "--json", "-")
    assert done.returncode == 0
    assert done.stderr == ""
    assert json.loads(done.stdout)["arch"] == "systolic"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of a POSIX shell")
def test_a_reader_that_is_gone_is_no_error():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", "from accelsim.cli.main import main; main()", "list"],
        stdout=write, stderr=subprocess.PIPE, text=True, timeout=120, check=False,
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")
