"""The worked examples of CONTRIBUTING.md do what it says."""

import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

from accelsim.api import arch, check, simulate
from accelsim.encoding.encodings import FAMILIES, encoding
from accelsim.hw.block import BLOCKS
from accelsim.hw.dram.catalog import device
from accelsim.mapping.registry import MAPPERS, load_builtin_mappers, load_plugin
from accelsim.numerics.formats import FORMATS

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.fixture(autouse=True)
def _forget_plugins() -> Iterator[None]:
    load_builtin_mappers()
    mappers, blocks = dict(MAPPERS), dict(BLOCKS)
    yield
    for registry, before in ((MAPPERS, mappers), (BLOCKS, blocks)):
        registry.clear()  # type: ignore[attr-defined]
        registry.update(before)  # type: ignore[attr-defined]


def test_a_new_block_is_one_file_and_an_architecture_that_names_it() -> None:
    load_plugin(EXAMPLES / "broadcast_array.py")
    machine = arch(str(EXAMPLES / "broadcast-npu.yaml"))
    work = "gemm:m=100,n=70,k=90,dtype=int8"
    assert check(machine, work).ok
    # One fold of T = 16 vectors: load 16, wires 2, no skew.
    alone = simulate(machine, "gemm:m=16,n=16,k=16", memory="ideal")
    assert alone.cycles == 16 + 16 + 2
    slower = simulate(machine, work, overrides={"array.wire_cycles": 200})
    assert slower.cycles > simulate(machine, work).cycles


def test_a_new_dram_device_is_its_timings() -> None:
    new, known = device(str(EXAMPLES / "ddr4-2133.yaml")), device("ddr4-2400")
    assert new.channel_bytes_per_second == 1066e6 * 2 * 8
    assert new.timings["tRC"] == 36 + 15
    assert (new.timings["tRRD_L"], new.timings["tFAW"], new.timings["tRFC"]) == (6, 23, 374)
    assert {rule.name for rule in new.constraints} == {rule.name for rule in known.constraints}
    assert new.timings.keys() == known.timings.keys()


def test_a_new_mapper_is_one_file() -> None:
    load_plugin(EXAMPLES / "row_by_row_gemm.py")
    for work in ("gemm:m=100,n=70,k=90", "gemm:m=33,n=20,k=50,transpose_b=true,batch=2"):
        assert check("tpu-v3", work, mapper="row-by-row").ok
    mine = simulate("tpu-v3", "gemm:m=1000,n=512,k=512", mapper="row-by-row")
    assert mine.mapper == "row-by-row"
    assert mine.cycles > simulate("tpu-v3", "gemm:m=1000,n=512,k=512").cycles


def test_a_new_encoding_is_one_class() -> None:
    load_plugin(EXAMPLES / "zero_blocks.py")
    try:
        work = "gemm:m=4,n=1024,k=1024,dtype=fp16,sparsity=0.02"
        assert check("coded-npu", "gemm:m=20,n=70,k=96,sparsity=0.05,encoding=blocks").ok
        moved = [
            simulate("coded-npu", f"{work},encoding={name}").traffic_bytes["dram"]["read"]
            for name in ("bitmap", "blocks")
        ]
        # 1 + 16 x 0.02 bits beside 1/8 + 16 (1 - 0.98^8), and A's few rows beside both
        assert moved[1] / moved[0] == pytest.approx(2.52 / 1.32, rel=0.1)
    finally:
        FAMILIES[:] = [family for family in FAMILIES if family.shown != "blocks"]
        encoding.cache_clear()


def test_a_new_number_format_is_one_entry() -> None:
    load_plugin(EXAMPLES / "fp8_format.py")
    assert FORMATS["fp8_e3m4"].bits == 8
    for work in ("gemm:m=60,n=70,k=90", "softmax:rows=20,cols=50"):
        assert check("tpu-v3", f"{work},dtype=fp8_e3m4").ok
    wide = simulate("tpu-v3", "gemm:m=64,n=512,k=512").traffic_bytes["hbm"]["read"]
    narrow = simulate("tpu-v3", "gemm:m=64,n=512,k=512,dtype=fp8_e3m4").traffic_bytes["hbm"]["read"]
    assert narrow == pytest.approx(wide / 2, rel=0.1)


def test_a_cache_keeps_weights_or_not_by_its_policy() -> None:
    kept = runpy.run_path(str(EXAMPLES / "cache_capacity.py"))["kept"]
    mib = 1 << 20
    # A cyclic sweep over more than the capacity: LRU keeps nothing, a stream through one way of
    # sixteen keeps all that fits into the others.
    assert [kept(size * mib, "lru") for size in (2, 4, 8)] == [0, 0, 1]
    assert kept(4 * mib, "streaming") == pytest.approx(15 / 16)
    assert 0 < kept(4 * mib, "random") < kept(4 * mib, "streaming")


def test_a_network_is_a_few_words_in_an_architecture() -> None:
    machine = arch(str(EXAMPLES / "ring-npu.yaml"))
    assert machine.placements["ring"].memories == {"dram": ((0,), (3,))}
    assert machine.placements["ring"].cores == ((1,), (2,), (4,), (5,))
    assert check(machine, "gemm:m=100,n=70,k=90").ok
    work = "gemm:m=256,n=256,k=256"
    shared = simulate(machine, work)
    assert shared.traffic_bytes["dram"]["read"] == 2 * 2 * 256 * 256  # both operands once
    alone = simulate(machine, work, overrides={"ring.multicast": False})
    assert alone.traffic_bytes["dram"]["read"] > 2 * shared.traffic_bytes["dram"]["read"]
    around = simulate(machine, work, overrides={"ring.bidirectional": False})
    assert around.cycles > shared.cycles
    assert sum(use["bytes"] > 0 for use in around.links["ring"].values()) == 6 + 2 * 6


def test_the_command_line_loads_plugins() -> None:
    from typer.testing import CliRunner

    from accelsim.cli.main import app

    machine, work = str(EXAMPLES / "broadcast-npu.yaml"), "gemm:m=40,n=40,k=40,dtype=int8"
    plugin = str(EXAMPLES / "broadcast_array.py")
    good = CliRunner().invoke(app, ["--plugin", plugin, "check", machine, work])
    assert good.exit_code == 0, good.output
    bad = CliRunner().invoke(app, ["--plugin", "nowhere.py", "check", machine, work])
    assert bad.exit_code == 2
    assert "no such Python file" in bad.output
