"""The block diagram and the parameter table."""

from __future__ import annotations

import pytest

from accelsim.arch import Architecture, arch, describe
from accelsim.arch.canvas import Canvas
from accelsim.arch.describe import value_text
from accelsim.arch.diagram import diagram
from accelsim.hw.cache import Cache
from accelsim.hw.dma import Dma
from accelsim.hw.link import Link
from accelsim.hw.memory import MainMemory
from accelsim.hw.sram import Sram
from accelsim.hw.systolic import Systolic
from accelsim.hw.vector import Vector

QUAD = """\
   ┌ dram ─────────┐
   │ dram          │
   │ 4 x ddr4-3200 │
   │ 32 GiB        │
   │ 102.4 GB/s    │
   │ 70 ns         │
   └─────┬─────────┘
╔═ core x 4 ═══════════════════════════════════════════════════════════════════════════╗
║        │                                                                             ║
║  ┌ dma x 2 ─┐                                                                        ║
║  │ dma      │                                                                        ║
║  └─────┬────┘                                                                        ║
║        ├─────────────┐                                                               ║
║  ┌ spad ────┐  ┌ accumulators ─┐                                                     ║
║  │ sram     │  │ sram          │                                                     ║
║  │ 512 KiB  │  │ 128 KiB       │                                                     ║
║  └─────┬────┘  └─────┬─────────┘                                                     ║
║    ┌───┴───────────┐ │                                                               ║
║    │    ┌──────────│─┴─┐                                                             ║
║  ┌ array ─────┐  ┌ vpu ─────┐                                                        ║
║  │ systolic   │  │ vector   │                                                        ║
║  │ 32 x 32 ws │  │ 32 lanes │                                                        ║
║  └────────────┘  └──────────┘                                                        ║
╚══════════════════════════════════════════════════════════════════════════════════════╝"""


def test_each_memory_is_its_own_wire() -> None:
    assert diagram(arch("quad-npu")) == QUAD


def machine(vectors: int, scratchpads: int, **changes: object) -> Architecture:
    names = [f"spad-{i}" for i in range(scratchpads)]
    units = {f"v{i}x": Vector(lanes=4, memory=tuple(names) or ("dram",)) for i in range(vectors)}
    memories = {name: Sram(capacity=1024) for name in names}
    return Architecture.build(
        name="m",
        clock="1 GHz",
        units={"dma": Dma(), **units},
        memories={"dram": MainMemory(capacity=1024, bandwidth=10**9), **memories},
        **changes,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(("vectors", "scratchpads"), [(0, 0), (1, 0), (9, 1), (2, 9), (4, 3)])
def test_any_shape_is_drawn(vectors: int, scratchpads: int) -> None:
    made = machine(vectors, scratchpads)
    lines = diagram(made).splitlines()
    for name in (*made.units, *made.memories):
        assert sum(f"┌ {name} " in line for line in lines) == 1
    if scratchpads < 5:
        assert max(map(len, lines)) <= 88


def test_where_no_wire_is_drawn_the_unit_names_its_memories() -> None:
    assert "on spad-0" in diagram(machine(9, 1))
    assert "on dram" in diagram(machine(1, 0))
    assert "on spad" not in diagram(machine(2, 1))


def test_joints_and_passings() -> None:
    canvas = Canvas()
    canvas.horizontal(1, 0, 4)
    canvas.vertical(2, 0, 1)
    canvas.vertical(4, 1, 2)
    canvas.passing(1, 0, 2)
    assert canvas.render() == " ││\n─│┴─┐\n │  │"


def test_parameters_have_units_and_sources() -> None:
    text = describe(arch("tpu-v3", {"mxu.cols": 64}))
    rows = {line.split()[0]: line for line in text.splitlines() if line.startswith("  ")}
    assert rows["cols"].split() == ["cols", "64", "override"]
    assert "450 GB/s" in rows["bandwidth"]
    assert "1.992 pJ/B" in rows["read_pj_per_byte"]
    assert "8 cycles" in text
    assert "940 MHz" in text
    assert "a core owns 16 GiB" in text


def test_caches_stand_between_their_memory_and_the_cores() -> None:
    text = describe(arch("a100"))
    assert text.index("┌ hbm ─") < text.index("┌ l2 ─") < text.index("╔═ core x 108")
    assert "40 x hbm2e" in text
    # 80 banks of 64 B at 1410 MHz.
    assert ["l2", "7.2192", "TB/s"] in [line.split() for line in text.splitlines()]


def test_caches_of_a_core_are_drawn_inside_it() -> None:
    l1 = Cache(of="dram", capacity=4096, ways=4, banks=2, width=16)
    text = describe(machine(1, 1, caches={"l1": l1}, cores=2))
    assert text.index("╔═ core x 2") < text.index("┌ l1 ─") < text.index("┌ spad-0 ─")
    assert "l1 per core" in text


def test_peaks_count_two_operations_per_mac() -> None:
    text = describe(arch("quad-npu"))
    # 4 cores x 32 x 32 MAC/cycle at 1 GHz; 8.192 TFLOP/s over 102.4 GB/s
    assert "4096 MAC/cycle" in text
    assert "4.096 TMAC/s = 8.192 TFLOP/s" in text
    assert "80 FLOP/B" in text


def test_links_are_listed() -> None:
    text = describe(machine(1, 1, links=[Link("dram", "spad-0", 2 * 10**9, 5e-9)]))
    assert "dram ↔ spad-0   2 GB/s  5 ns" in text
    assert "links.0" in text


def test_values_read_as_a_file_says_them() -> None:
    unit = Systolic(rows=2, cols=2, inputs="s", weights="s", outputs="s", mac_pj=0.5)
    assert value_text(unit, "pipelined") == "true"
    assert value_text(unit, "mac_pj") == "0.5 pJ"
    vector = Vector(lanes=2, memory=("a", "b"), slots={"exp": 1})
    assert value_text(vector, "memory") == "[a, b]"
    assert value_text(vector, "slots") == "{exp: 1}"
