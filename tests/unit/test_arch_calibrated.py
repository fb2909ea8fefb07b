"""Calibrated constants: declared where a number comes from, few, and told with every result."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from accelsim.api import arch, simulate
from accelsim.arch.describe import describe
from accelsim.arch.loader import from_dict, load
from accelsim.arch.overrides import parse_override
from accelsim.errors import AccelsimError

FITTED = "{calibrated: true, source: four rows of a table}"
FILE = """\
name: my-npu
clock: 1 GHz
units:
  mxu: {kind: systolic, rows: 16, cols: 16, inputs: vmem, weights: vmem, outputs: vmem}
  dma: {kind: dma, issue: 7}
memories:
  hbm: {kind: memory, capacity: 16 GiB, bandwidth: 450 GB/s, efficiency: 0.8}
  vmem: {kind: sram, capacity: 16 MiB}
sources:
  hbm.bandwidth: a datasheet
  hbm.efficiency: ENTRY
"""


def file(folder: Path, text: str) -> Path:
    path = folder / "npu.yaml"
    path.write_text(text)
    return path


def test_it_is_declared_shown_and_told_with_every_result(tmp_path: Path) -> None:
    made = load(file(tmp_path, FILE.replace("ENTRY", FITTED)))
    assert made.calibrated == ("hbm.efficiency",)
    assert "calibrated: four rows of a table" in " ".join(describe(made).split())
    told = simulate(made, "gemm:m=8,n=8,k=8").approximations
    said = "my-npu: hbm.efficiency = 0.8 is calibrated, not published: four rows of a table"
    assert said in told


def test_it_survives_the_dictionary_and_does_not_change_the_digest(tmp_path: Path) -> None:
    made = load(file(tmp_path, FILE.replace("ENTRY", FITTED)))
    again = from_dict(yaml.safe_load(yaml.safe_dump(made.to_dict())))
    assert again.calibrated == made.calibrated
    assert again.sources == made.sources
    assert load(file(tmp_path, FILE.replace("ENTRY", "a datasheet"))).digest() == made.digest()


def test_a_number_that_is_overridden_is_no_longer_calibrated(tmp_path: Path) -> None:
    made = load(file(tmp_path, FILE.replace("ENTRY", FITTED)))
    assert made.override({"hbm.efficiency": 0.5}).calibrated == ()
    assert made.override({"mxu.rows": 8}).calibrated == ("hbm.efficiency",)


@pytest.mark.parametrize(
    "entry",
    ["{calibrated: false, source: x}", "{calibrated: true}", "{source: x}", "[a]", "3",
     "{calibrated: true, source: 3}", "{calibrated: 1, source: x}"],
)  # fmt: skip
def test_any_other_form_is_one_line_with_its_place(tmp_path: Path, entry: str) -> None:
    with pytest.raises(AccelsimError, match=r"npu.yaml:11: .* is no source; accepted: a text, or"):
        load(file(tmp_path, FILE.replace("ENTRY", entry)))


def test_five_are_the_most(tmp_path: Path) -> None:
    paths = ("mxu.rows", "mxu.cols", "mxu.switch", "dma.issue", "hbm.latency")
    text = FILE.replace("ENTRY", FITTED)
    for path in paths[:-1]:
        text += f"  {path}: {FITTED}\n"
    assert len(load(file(tmp_path, text)).calibrated) == 5
    with pytest.raises(AccelsimError, match="6 calibrated constants; accepted: at most 5"):
        load(file(tmp_path, text + f"  {paths[-1]}: {FITTED}\n"))


def test_a_table_counts_as_many_as_it_holds(tmp_path: Path) -> None:
    """A100: four overheads of calls and the efficiency of its memory are the five."""
    machine = arch("a100")
    assert machine.calibrated == ("simt.call_us", "hbm.efficiency")
    text = FILE.replace("ENTRY", FITTED)
    for path in ("vpu.slots", "mxu.rows", "mxu.cols", "mxu.switch"):
        text += f"  {path}: {FITTED}\n"
    vector = "  vpu: {kind: vector, lanes: 8, memory: vmem, slots: {exp: 2, tanh: 3}}"
    text = text.replace("units:", f"units:\n{vector}", 1)
    with pytest.raises(AccelsimError, match="6 calibrated constants; accepted: at most 5"):
        load(file(tmp_path, text))


@pytest.mark.parametrize("value", ["-1", "soon", ".inf", "true"])
def test_an_overhead_is_a_time(value: str) -> None:
    with pytest.raises(AccelsimError, match=r"simt\.call_us"):
        arch("a100", {"simt.call_us": parse_override(f"x={{gelu: {value}}}")[1]})


@pytest.mark.parametrize("path", ["mxu", "clock"])
def test_only_parameters_of_blocks_can_be_calibrated(tmp_path: Path, path: str) -> None:
    text = FILE.replace("ENTRY", "x") + f"  {path}: {FITTED}\n"
    with pytest.raises(AccelsimError, match=f"calibrated {path}: accepted: a parameter"):
        load(file(tmp_path, text))
