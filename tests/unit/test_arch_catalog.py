"""The library: every shipped architecture loads, cites its numbers, and is what it claims."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import accelsim.arch
from accelsim.arch import arch, describe, list_archs
from accelsim.arch.catalog import library_folder
from accelsim.arch.checks import blocks_of
from accelsim.arch.describe import peak_bytes_per_second, peak_macs_per_second
from accelsim.errors import AccelsimError
from accelsim.hw.dma import Dma
from accelsim.hw.systolic import Systolic
from accelsim.hw.vector import Vector


def test_the_library_has_the_documented_machines() -> None:
    assert {"systolic", "tpu-v3", "edge-npu", "quad-npu"} <= set(list_archs())


@pytest.mark.parametrize("name", list_archs())
def test_shipped_architecture(name: str) -> None:
    made = arch(name)
    assert made.name == name
    assert made.description
    assert made.origin == f"arch_configs/{name}.yaml"
    assert made.ticks_per_second() <= 10**15
    assert made.unit_slots()
    assert made.address_spaces()
    assert made.units_of(Dma)
    assert any(memory.shared for memory in made.memories.values())


@pytest.mark.parametrize("name", list_archs())
def test_energy_and_bandwidth_of_shipped_architectures_have_sources(name: str) -> None:
    made = arch(name)
    for block_name, block in blocks_of(made).items():
        for parameter in ("mac_pj", "bandwidth", "hop_pj_per_byte"):
            if getattr(block, parameter, 0):
                path = f"{block_name}.{parameter}"
                assert path in made.sources or block_name in made.sources, path


def test_systolic_is_the_default_of_scale_sim() -> None:
    made = arch("systolic")
    array = made.units_of(Systolic)["array"]
    assert (array.rows, array.cols, array.dataflow, array.pipelined) == (32, 32, "ws", True)
    assert array.memories() == ("ifmap", "filter", "ofmap")
    assert [made.memories[name].capacity for name in array.memories()] == [65_536] * 3
    assert made.units_of(Dma)["dma"].count == 3
    assert made.units_of(Vector)["vpu"].memories() == ("ofmap", "ifmap")
    # 32 B per cycle at 1 GHz
    assert peak_bytes_per_second(made, "dram") == 32 * made.clocks["core"]


def test_tpu_v3_has_the_published_peaks_of_one_core() -> None:
    made = arch("tpu-v3")
    # 123 TFLOP/s and 900 GB/s per chip of two cores: cloud.google.com/tpu/docs/v3
    assert 2 * 2 * peak_macs_per_second(made) == pytest.approx(123e12, rel=0.002)
    assert 2 * peak_bytes_per_second(made, "hbm") == 900 * 10**9
    assert made.clocks == {"core": 940_000_000}
    assert made.units_of(Vector)["vpu"].lanes == 128 * 8
    assert made.memories["vmem"].capacity == 16 * 2**20
    assert any("a core owns 16 GiB" in text for text in made.assumptions)


def test_the_other_shapes() -> None:
    assert arch("quad-npu").cores == 4
    assert len(arch("quad-npu").unit_slots()) == 16
    edge = arch("edge-npu")
    assert set(edge.clocks) == {"core", "bus"}
    assert edge.units["dma"].clock == "bus"
    assert edge.units_of(Systolic)["array"].dataflow == "os"
    assert peak_bytes_per_second(edge, "spad") == 128 * edge.clocks["core"]


def test_by_name_by_path_and_overridden(tmp_path: Path) -> None:
    tall = arch("systolic", {"array.rows": 256, "array.cols": 32, "array.dataflow": "os"})
    assert tall.units_of(Systolic)["array"].rows == 256
    copy = tmp_path / "mine.yml"
    copy.write_text((library_folder() / "systolic.yaml").read_text())
    assert arch(str(copy)) == arch(copy) == arch("systolic")
    assert arch(copy).origin == str(copy)
    bare = tmp_path / "bare"
    bare.write_text(copy.read_text())
    assert arch(str(bare)) == arch(bare) == arch("systolic")


@pytest.mark.parametrize("name", ["tpu-v33", "", "../pyproject", "tpu v3"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(AccelsimError) as fault:
        arch(name)
    assert "\n" not in str(fault.value)
    if name.startswith("tpu"):
        assert "did you mean 'tpu-v3'? accepted: a10, a100, aim, coded-npu," in str(fault.value)
        assert str(fault.value).endswith("or the path of a .yaml file")


def test_the_package_itself_is_callable() -> None:
    # Importing accelsim.arch makes it an attribute of accelsim, in place of the function.
    package: Any = sys.modules["accelsim.arch"]
    assert package is accelsim.arch
    assert package("systolic", {"array.rows": 8}) == arch("systolic", {"array.rows": 8})


def test_a_warm_lookup_reads_no_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    first = arch("tpu-v3")
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert arch("tpu-v3") == first


CHECKOUT = Path(accelsim.__file__).parents[1]


@pytest.mark.skipif(not (CHECKOUT / "arch_configs").is_dir(), reason="installed from a wheel")
def test_a_checkout_that_is_not_installed_finds_its_library() -> None:
    code = (
        "import sys, accelsim; sys.modules['accelsim.arch_configs'] = None;"
        "import accelsim.arch as a; print(a.list_archs())"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    assert "tpu-v3" in found


@pytest.mark.parametrize("name", list_archs())
def test_description_fits_a_terminal_and_shows_every_block(name: str) -> None:
    made = arch(name)
    text = describe(made)
    assert max(map(len, text.splitlines())) <= 88
    drawing = text.split("Peak")[0]
    for block in (*made.units, *made.memories):
        assert f"┌ {block} " in drawing
    assert all(line == line.rstrip() for line in text.splitlines())
