"""Bad input on the command line: one line that says what was wrong and what is accepted."""

import os
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from accelsim.cli import main, run
from accelsim.cli.main import app

GEMM = "gemm:m=8,n=8,k=8"

MACHINE = """\
name: bare
clock: 1 GHz
units:
  array: {kind: systolic, rows: 4, cols: 4, inputs: pad, weights: pad, outputs: pad}
  dma: {kind: dma}
memories:
  dram: {kind: memory, capacity: 1 GiB, bandwidth: 1 GB/s}
  pad: {kind: sram, capacity: 64 KiB}
"""


def error(*args, code=2):
    """The one line that a command leaves on stderr; nothing on stdout."""
    done = CliRunner().invoke(app, [str(arg) for arg in args])
    assert done.exit_code == code, done.output
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("accelsim: error: ")
    return lines[0]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("run", "systolc", GEMM), "'systolic'"),
        (("run", "systolic", "lama-2-7b"), "'llama-2-7b'"),
        (("run", "systolic", GEMM, "--mapper", "systolic-gem"), "'systolic-gemm'"),
        (("run", "systolic", GEMM, "--mapper", "nowhere.py"), "nowhere.py"),
        (("run", "systolic", GEMM, "--memory", "ideel"), "'ideal'"),
        (("run", "systolic", GEMM, "--set", "array.rows"), "PATH=VALUE"),
        (("run", "systolic", GEMM, "--set", "array.rowz=8"), "'rows'"),
        (("run", "systolic", GEMM, "--set", "cores=1", "--set", "cores=2"), "given twice"),
        (("run", "systolic", "gemm:m=0,n=8,k=8"), "m is 0"),
        (("run", "systolic", "gemm:m=-1,n=8,k=8"), "m is -1"),
        (("run", "systolic", "gemm:m=8.5,n=8,k=8"), "'8.5'"),
        (("run", "systolic", "gemm:m=8,n=8"), "missing 'k'"),
        (("run", "systolic", GEMM, "--set", "ifmap.capacity=1 B"), "smallest tile"),
        (("run", "systolic", GEMM, "--max-instructions", "2"), "limit of 2"),
        (("run", "systolic", "nowhere.json"), "nowhere.json"),
        (("run", "nowhere.yaml", GEMM), "nowhere.yaml"),
        (("run", "", ""), "unknown architecture ''"),
        (("check", "systolic", GEMM, "--order", "both ways"), "program, both"),
        (("check", "systolic", "gemm:m=9999,n=9999,k=9999"), "too large"),
        (("list", "arches"), "'archs'"),
        (("show", "tpu-v4"), "'tpu-v3'"),
        (("validate", "parameter"), "'parameters'"),
        (("sweep", "nowhere.yaml"), "nowhere.yaml"),
        (("sweep", "nowhere.yaml", "--resume"), "--out DIR"),
        (("import", "scalesim", "nowhere.cfg", "nowhere.csv"), "nowhere.cfg"),
        (("import", "hf", "nowhere"), "nowhere"),
    ],
)
def test_bad_words_and_numbers(args, said):
    assert said in error(*args)


def test_an_operator_that_no_unit_runs(tmp_path):
    machine = tmp_path / "bare.yaml"
    machine.write_text(MACHINE)
    line = error("run", machine, "attention:heads=2,kv_heads=2,q=4,kv=4,d=8")
    assert "no unit of bare can run it" in line


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("clock: 1 GHz\n", ""), "clock is missing"),
        (("64 KiB", "64 GHz"), "unknown unit 'GHz'"),
        (("memories:", "units:"), "given twice"),
        (("kind: dma", "kind: dna"), "'dma'"),
    ],
)
def test_faults_of_an_architecture_file_name_the_line(change, said, tmp_path):
    machine = tmp_path / "bare.yaml"
    machine.write_text(MACHINE.replace(*change))
    line = error("run", machine, GEMM)
    assert said in line
    assert "bare.yaml:" in line


def test_a_truncated_configuration(tmp_path):
    config = tmp_path / "config.json"
    config.write_text('{"model_type": "llama", "hidden_si')
    for args in (("run", "tpu-v3", config), ("import", "hf", tmp_path)):
        assert "config.json:1" in error(*args)


@pytest.mark.parametrize(
    "flag", ["--json", "--report", "--trace", "--listing", "--scalesim-reports"]
)
def test_output_paths_are_tried_before_the_work(flag, tmp_path, monkeypatch):
    monkeypatch.setattr("accelsim.simulation.simulate_graph", None)
    (tmp_path / "file").write_text("")
    line = error("run", "systolic", GEMM, flag, tmp_path / "file" / "out")
    assert "cannot write" in line
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_trying_a_path_leaves_no_file(tmp_path):
    error("run", "systolc", GEMM, "--json", tmp_path / "out.json")
    assert not list(tmp_path.iterdir())


def test_reports_that_scalesim_could_not_write_are_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("accelsim.simulation.simulate_graph", None)
    line = error("run", "systolic", GEMM, "--memory", "ideal", "--scalesim-reports", tmp_path)
    assert "array.pipelined=false" in line


def test_ten_to_the_15_macs_end_at_once_or_are_refused_with_the_limit():
    began = time.monotonic()
    huge = "gemm:m=100000,n=100000,k=100000"
    assert "more than the limit of" in error("run", "systolic", huge)
    done = CliRunner().invoke(app, ["run", "systolic", huge, "--memory", "ideal"])
    assert done.exit_code == 0
    assert time.monotonic() - began < 60


def test_errors_with_json_are_one_line_too():
    assert "unknown architecture" in error("run", "systolc", GEMM, "--json", "-")


def test_options_that_do_not_exist_are_the_parsers_business():
    done = CliRunner().invoke(app, ["run", "systolic", GEMM, "--speed", "high"])
    assert done.exit_code == 2
    assert "--speed" in done.stderr


def defect(*_args, **_settings):
    raise ZeroDivisionError("no\nway")


def test_a_defect_is_one_line_and_says_how_to_see_more(monkeypatch):
    monkeypatch.setattr("accelsim.simulation.simulate_graph", defect)
    line = error("run", "systolic", GEMM, code=70)
    assert "ZeroDivisionError: no way" in line
    assert "ACCELSIM_TRACEBACK=1" in line


def test_the_traceback_is_shown_on_request(monkeypatch):
    monkeypatch.setattr("accelsim.simulation.simulate_graph", defect)
    monkeypatch.setenv("ACCELSIM_TRACEBACK", "1")
    done = CliRunner().invoke(app, ["run", "systolic", GEMM])
    assert done.exit_code == 70
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("accelsim: error: ")


@pytest.mark.parametrize(
    ("fault", "said", "code"),
    [
        (MemoryError(), "not enough memory", 2),
        (OSError(28, "No space left on device", "big.json"), "big.json: No space left", 2),
        (RuntimeError(), "RuntimeError", 70),
    ],
)
def test_what_the_machine_refuses(fault, said, code, monkeypatch):
    def refuse(*_args, **_settings):
        raise fault

    monkeypatch.setattr(run, "_print", refuse)
    assert said in error("run", "systolic", GEMM, code=code)


def test_an_interruption_is_silent(monkeypatch):
    def interrupt(*_args, **_settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "_print", interrupt)
    done = CliRunner().invoke(app, ["run", "systolic", GEMM])
    assert (done.exit_code, done.output) == (main.INTERRUPTED, "")


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_while_working():
    code = (
        "import time, accelsim.cli.run as r\n"
        "def slow(*_):\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
        "r._print = slow\n"
        "from accelsim.cli.main import main\n"
        f"import sys; sys.argv = ['accelsim', 'run', 'systolic', '{GEMM}']\n"
        "main()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A suite run in the background inherits an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as child:
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGINT)
        _, stderr = child.communicate(timeout=30)
    assert (child.returncode, stderr) == (130, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_under_stdout():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", "from accelsim.cli.main import main; main()", "list"],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "accelsim: error: output: No space left on device\n"
