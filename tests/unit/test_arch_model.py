"""The architecture itself: clocks, instances, overrides, identity, building in Python."""

from __future__ import annotations

import math
import os
import pickle
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsim.arch import Architecture, arch, parse_override
from accelsim.errors import AccelsimError
from accelsim.hw.block import BLOCKS, Block, Memory, Unit, block
from accelsim.hw.dma import Dma
from accelsim.hw.link import Link
from accelsim.hw.memory import MainMemory
from accelsim.hw.sram import Sram
from accelsim.hw.systolic import Systolic
from accelsim.hw.vector import Vector
from accelsim.program.table import AddressSpace, UnitSlot


def parts() -> dict[str, Any]:
    return {
        "name": "small",
        "clock": "1 GHz",
        "units": {
            "mxu": Systolic(rows=8, cols=4, inputs="spad", weights="spad", outputs="spad", count=2),
            "vpu": Vector(lanes=4, memory=("spad",)),
            "dma": Dma(),
        },
        "memories": {
            "dram": MainMemory(capacity=2**30, bandwidth=10**9),
            "spad": Sram(capacity=2**16),
        },
    }


def small(**changes: Any) -> Architecture:
    return Architecture.build(**{**parts(), **changes})


# -- clocks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clocks", "ticks"),
    [
        ({"core": 10**9}, 10**9),
        ({"core": 940 * 10**6, "bus": 10**9}, 47 * 10**9),
        ({"core": 10**9, "half": 5 * 10**8}, 10**9),
        ({"core": 800 * 10**6, "bus": 533 * 10**6}, 426_400 * 10**6),
    ],
)
def test_one_tick_divides_every_clock(clocks: dict[str, int], ticks: int) -> None:
    core = clocks.pop("core")
    made = small(clock=core, clocks=clocks)
    assert made.ticks_per_second() == ticks
    for name, hertz in {"core": core, **clocks}.items():
        assert made.ticks_per_cycle(name) * hertz == ticks


def test_a_cycle_of_940_mhz_beside_1_ghz() -> None:
    made = small(clock="940 MHz", clocks={"bus": "1 GHz"})
    assert made.ticks_per_cycle() == made.ticks_per_cycle("core") == 50
    assert made.ticks_per_cycle("bus") == 47


@given(st.lists(st.integers(1, 4000), min_size=1, max_size=3))
def test_ticks_are_the_coarsest_exact_grid(megahertz: list[int]) -> None:
    named = {f"c{i}": f"{mhz} MHz" for i, mhz in enumerate(megahertz[1:])}
    made = small(clock=f"{megahertz[0]} MHz", clocks=named)
    if math.lcm(*made.clocks.values()) > 10**15:
        with pytest.raises(AccelsimError, match="share no tick longer than 1 fs"):
            made.ticks_per_second()
    else:
        assert np.gcd.reduce([made.ticks_per_cycle(clock) for clock in made.clocks]) == 1


def test_clocks_without_a_common_tick_are_refused() -> None:
    made = small(clock=999_999_937, clocks={"bus": 999_999_929})
    with pytest.raises(AccelsimError, match=r"share no tick longer than 1 fs; accepted: rounder"):
        made.ticks_per_second()


def test_unknown_clock_names_the_nearest() -> None:
    with pytest.raises(AccelsimError, match="unknown clock 'cor'; did you mean 'core'"):
        small().ticks_per_cycle("cor")


# -- instances -----------------------------------------------------------------------------------


def test_one_core_needs_no_core_in_names() -> None:
    assert small().unit_slots() == (
        UnitSlot("mxu0", "mxu", 0),
        UnitSlot("mxu1", "mxu", 0),
        UnitSlot("vpu", "vpu", 0),
        UnitSlot("dma", "dma", 0),
    )
    assert small().address_spaces() == (
        AddressSpace("dram", "dram", 2**30, -1),
        AddressSpace("spad", "spad", 2**16, 0),
    )


def test_several_cores_are_listed_core_by_core() -> None:
    made = small(cores=2)
    assert [slot.name for slot in made.unit_slots()] == [
        "core0.mxu0", "core0.mxu1", "core0.vpu", "core0.dma",
        "core1.mxu0", "core1.mxu1", "core1.vpu", "core1.dma",
    ]  # fmt: skip
    assert [slot.core for slot in made.unit_slots()] == [0] * 4 + [1] * 4
    assert made.address_spaces() == (
        AddressSpace("dram", "dram", 2**30, -1),
        AddressSpace("core0.spad", "spad", 2**16, 0),
        AddressSpace("core1.spad", "spad", 2**16, 1),
    )


def test_what_exists_once_per_core() -> None:
    assert [small().is_per_core(name) for name in ("mxu", "spad", "dram")] == [True, True, False]


def test_units_of_a_kind_or_class() -> None:
    made = small()
    assert list(made.units_of("systolic")) == ["mxu"]
    assert list(made.units_of(Systolic)) == ["mxu"]
    assert list(made.units_of(Unit)) == ["mxu", "vpu", "dma"]
    assert made.units_of("nothing") == {}
    assert made.units_of(Systolic)["mxu"].rows == 8


def test_block_by_name() -> None:
    assert small().block("spad").kind == "sram"
    with pytest.raises(AccelsimError, match="unknown unit or memory 'spda'; did you mean 'spad'"):
        small().block("spda")


# -- overrides -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "found"),
    [
        ("mxu.rows", 256, lambda a: a.units["mxu"].rows == 256),
        ("mxu.rows", np.int64(16), lambda a: a.units["mxu"].rows == 16),
        ("mxu.dataflow", "os", lambda a: a.units["mxu"].dataflow == "os"),
        ("mxu.pipelined", False, lambda a: a.units["mxu"].pipelined is False),
        ("mxu.count", 3, lambda a: len(a.unit_slots()) == 5),
        ("mxu.mac_pj", "590 fJ", lambda a: a.units["mxu"].mac_pj == 0.59),
        ("vpu.memory", "dram", lambda a: a.units["vpu"].memory == ("dram",)),
        ("vpu.memory", ["spad", "dram"], lambda a: a.units["vpu"].memory == ("spad", "dram")),
        ("vpu.slots.exp", 1, lambda a: a.units["vpu"].slots == {"exp": 1}),
        ("vpu.slots", {"exp": 1}, lambda a: a.units["vpu"].slots == {"exp": 1}),
        ("spad.capacity", "128 kB", lambda a: a.memories["spad"].capacity == 128_000),
        ("dram.latency", "5 ns", lambda a: a.memories["dram"].latency == 5e-9),
        ("cores", 4, lambda a: a.cores == 4),
        ("cores", np.int32(4), lambda a: a.cores == 4),
        ("clock", "1.2 GHz", lambda a: a.clocks["core"] == 1_200_000_000),
        ("clocks.core", 7, lambda a: a.clocks["core"] == 7),
        ("clocks.bus", "1 MHz", lambda a: a.clocks["bus"] == 10**6),
        ("links.0.bandwidth", "3 GB/s", lambda a: a.links[0].bandwidth == 3 * 10**9),
        ("links.0.to", "mxu", lambda a: a.links[0].target == "mxu"),
        ("links.0.target", "mxu", lambda a: a.links[0].target == "mxu"),
        ("mappers.gemm", "mine", lambda a: a.mappers == {"gemm": "mine"}),
    ],
)
def test_override_changes_what_it_names(path: str, value: object, found: Any) -> None:
    made = small(clocks={"bus": 5}, links=[Link("dram", "spad", 10**9)])
    changed = made.override({path: value})
    assert found(changed)
    assert not found(made)
    assert changed.sources == {path: "override"}
    assert changed.digest() != made.digest()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("mxu.rows", 0, "small: mxu.rows: rows must be at least 1, not 0"),
        ("mxu.rows", "8", "small: mxu.rows: '8' is not a whole number"),
        ("mxu.rows", 8.0, "8.0 is not a whole number"),
        ("mxu.rows", True, "true is not a whole number"),
        ("mxu.rows", float("nan"), "mxu.rows: nan is not a finite plain value"),
        ("mxu.rows", object(), "is not a finite plain value"),
        ("mxu.rowss", 8, "unknown parameter of mxu 'rowss'; did you mean 'rows'? accepted: arith"),
        ("mxu.rows.x", 8, "rows is one value; accepted: mxu.rows"),
        ("mxu.inputs", "sapd", "mxu.inputs: unknown memory 'sapd'; did you mean 'spad'?"),
        ("mxu.clock", "bus", "mxu.clock: unknown clock 'bus'; accepted: core"),
        ("mxu.kind", "dma", "mxu is a block of kind systolic; accepted: one of mxu.rows, mxu.cols"),
        ("mxu", 3, "mxu is a block of kind systolic; accepted: one of mxu.rows, mxu.cols"),
        ("mxv.rows", 8, "unknown parameter 'mxv.rows'; did you mean 'mxu.rows'?"),
        ("vpu.slots.exp", "x", "small: vpu.slots.exp: 'x' is not a whole number"),
        ("vpu.slots.exq", 1, "vpu.slots: slots names 'exq'"),
        ("spad.capacity", "64 MiBs", "spad.capacity: unknown unit 'MiBs'"),
        ("cores", 0, "cores must be a whole number of at least 1"),
        ("cores", "2", "cores must be a whole number"),
        ("core", 2, "unknown parameter 'core'; did you mean 'cores'?"),
        ("clock", "fast", "small: clock: 'fast' is not a quantity"),
        ("clocks.bus", "1 GHz", "unknown parameter 'clocks.bus'"),
        ("links.0.bandwidth", 1, "unknown parameter 'links.0.bandwidth'"),
        ("name", "x", "unknown parameter 'name'"),
        ("mappers.gemm", 3, "mappers.gemm: 3 is not the name of a mapper"),
        ("", 1, "unknown parameter ''"),
    ],
)
def test_override_refuses_in_one_line(path: str, value: object, message: str) -> None:
    with pytest.raises(AccelsimError) as fault:
        small().override({path: value})
    assert message in str(fault.value)
    assert "\n" not in str(fault.value)


def test_overrides_of_one_block_are_checked_together() -> None:
    made = small(
        units={**parts()["units"], "two": Vector(lanes=2, memory=("spad",), slots={"exp": 2})}
    )
    changed = made.override({"two.slots.exp": 1, "two.slots.tanh": 3, "two.lanes": 9})
    two = changed.units["two"]
    assert isinstance(two, Vector)
    assert (two.lanes, two.slots) == (9, {"exp": 1, "tanh": 3})


def test_an_override_that_clashes_with_the_rest_is_refused() -> None:
    units = {**parts()["units"], "vpu1": Vector(lanes=2, memory=("spad",))}
    with pytest.raises(AccelsimError, match="both have an instance 'vpu1'"):
        small(units=units).override({"vpu.count": 2})


def test_no_override_is_the_same_architecture() -> None:
    made = small()
    assert made.override({}) is made
    assert made.override({"mxu.rows": 8}) == made


def test_sources_of_what_is_not_overridden_stay() -> None:
    made = small(sources={"mxu": "a paper", "mxu.rows": "page 3"})
    assert made.override({"mxu.rows": 9}).sources == {"mxu": "a paper", "mxu.rows": "override"}


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("array.rows=256", "array.rows", 256),
        (" array.rows = 256 ", "array.rows", 256),
        ("array.pipelined=false", "array.pipelined", False),
        ("array.mac_pj=1e-1", "array.mac_pj", 0.1),
        ("ifmap.capacity=128 kB", "ifmap.capacity", "128 kB"),
        ('ifmap.capacity="128 kB"', "ifmap.capacity", "128 kB"),
        ("array.rows='256'", "array.rows", "256"),
        ("vpu.memory=[a, b]", "vpu.memory", ["a", "b"]),
        ("vpu.slots={exp: 1}", "vpu.slots", {"exp": 1}),
        ("a.b=c=d", "a.b", "c=d"),
    ],
)
def test_parse_override(text: str, path: str, value: object) -> None:
    found = parse_override(text)
    assert found == (path, value)
    assert type(found[1]) is type(value)


@pytest.mark.parametrize("text", ["array.rows", "=3", "array.rows=", "", "a=[1"])
def test_parse_override_refuses(text: str) -> None:
    with pytest.raises(AccelsimError, match="accepted: "):
        parse_override(text)


# -- identity ------------------------------------------------------------------------------------


def test_digest_is_stable_across_processes_and_spellings() -> None:
    code = "from accelsim.arch import arch; print(arch('tpu-v3').digest())"
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert digests == {arch("tpu-v3").digest()}
    assert re.fullmatch("[0-9a-f]{64}", digests.pop())
    assert small(clock=10**9).digest() == small(clock="1000 MHz").digest()


def test_what_does_not_change_a_result_does_not_change_the_digest() -> None:
    made = small()
    told = small(description="another", sources={"mxu": "a paper"})
    assert told.digest() == made.digest()
    assert told == made
    assert hash(told) == hash(made)
    assert replace(made, origin="elsewhere") == made


def test_whole_floats_and_integers_are_one_value() -> None:
    dram = MainMemory(capacity=2**30, bandwidth=10**9, read_pj_per_byte=3)
    plain = Architecture(
        name="small",
        clocks={"core": 10**9},
        units=parts()["units"],
        memories={**parts()["memories"], "dram": dram},
    )
    built = small(memories={**parts()["memories"], "dram": replace(dram, read_pj_per_byte=3.0)})
    assert plain == built


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"clock": "2 GHz"},
        {"clocks": {"bus": 1}},
        {"cores": 2},
        {"assumptions": ["none"]},
        {"mappers": {"gemm": "mine"}},
        {"links": [Link("dram", "spad", 1)]},
        {"units": dict(reversed(parts()["units"].items()))},
        {"units": {**parts()["units"], "dma": Dma(issue=1)}},
        {"memories": {**parts()["memories"], "spad": Sram(capacity=2**16, ports=1)}},
    ],
)
def test_digest_changes_with_whatever_a_result_depends_on(changes: dict[str, Any]) -> None:
    assert small(**changes).digest() != small().digest()
    assert small(**changes) != small()


def test_is_not_equal_to_something_else() -> None:
    assert small() != "small"


def test_travels_to_another_process() -> None:
    made = small()
    made.digest()
    again = pickle.loads(pickle.dumps(made))
    assert again == made
    assert again.override({"mxu.rows": 3}).units["mxu"].rows == 3


def test_faults_travel_to_another_process() -> None:
    with pytest.raises(AccelsimError) as fault:
        small().override({"mxu.rows": 0})
    assert str(pickle.loads(pickle.dumps(fault.value))) == str(fault.value)


# -- building in Python --------------------------------------------------------------------------


def test_blocks_built_in_python_may_use_text() -> None:
    spad = Sram(capacity="64 KiB")  # type: ignore[arg-type]
    dram = MainMemory(capacity="1 GiB", bandwidth="1 GB/s")  # type: ignore[arg-type]
    assert small(memories={"dram": dram, "spad": spad}) == small()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clock": "1 GHZ"}, "clock: unknown unit 'GHZ'"),
        ({"clocks": {"b.s": 1}}, "'b.s' is not usable as a name"),
        ({"clocks": {"bus": -1}}, "clocks.bus: a clock must be a positive number of Hz, not -1"),
        ({"cores": 0}, "cores must be a whole number of at least 1"),
        ({"name": ""}, "name: '' is not a name"),
        ({"units": {}}, "there is no unit"),
        ({"units": {"dma": Dma(count=0)}}, "dma.count: count must be at least 1, not 0"),
        ({"units": {"dma": Dma(issue=1.5)}}, "dma.issue: 1.5 is not a whole number"),  # type: ignore[arg-type]
        ({"units": {"dma": Sram(capacity=1)}}, "dma: kind 'sram' is no unit"),
        ({"memories": {"spad": Dma()}}, "spad: kind 'dma' is no memory"),
        ({"memories": {}}, "mxu.inputs: unknown memory 'spad'; accepted: none"),
        ({"memories": {"spad": Sram(capacity=0)}}, "spad.capacity: capacity must be positive"),
        (
            {"links": [Link("dram", "spda", 1)]},
            "links.0.target: unknown unit or memory 'spda'",
        ),
        ({"links": [Link("dram", "spad", 0)]}, "links.0.bandwidth: bandwidth must be positive"),
        ({"links": [Link("dram", "spad", 1, clock="x")]}, "links.0.clock: unknown clock 'x'"),
        ({"sources": {"mxu.row": "p"}}, "unknown parameter 'mxu.row'; did you mean 'mxu.rows'?"),
        ({"sources": {"mxu.cost": "p"}}, "unknown parameter 'mxu.cost'"),
        ({"sources": {"links.0": "p"}}, "unknown parameter 'links.0'"),
    ],
)
def test_building_runs_the_checks_of_a_file(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(AccelsimError) as fault:
        small(**changes)
    assert message in str(fault.value)
    assert "\n" not in str(fault.value)


def test_sources_may_name_links_and_clocks() -> None:
    sources = dict.fromkeys(
        (
            "links.0",
            "links.0.bandwidth",
            "links.0.from",
            "clock",
            "clocks.core",
            "cores",
            "vpu.slots",
        ),
        "p",
    )
    made = small(links=[Link("dram", "spad", 1)], sources=sources)
    assert made.sources == sources


def test_a_memory_may_be_named_in_computed_ways() -> None:
    """A unit whose memories() is no parameter still gets its fault at the unit."""

    @dataclass(frozen=True, kw_only=True)
    class Fixed(Dma):
        def memories(self) -> tuple[str, ...]:
            return ("nowhere",)

    with pytest.raises(AccelsimError, match=r"^dma: unknown memory 'nowhere'; accepted: dram,"):
        small(units={"dma": Fixed()})


@pytest.fixture
def wide_kind() -> Any:
    @block("wide-test-array")
    @dataclass(frozen=True, kw_only=True)
    class WideArray(Systolic):
        """A block as a user would add it, with parameters of every shape."""

        groups: tuple[int, ...] = (1,)
        labels: dict[str, tuple[int, int]]
        depth: float = 1.0

        def check(self) -> None:
            super().check()
            if len(self.groups) > 2:
                raise AccelsimError("too many groups")

    yield WideArray
    del BLOCKS["wide-test-array"]


def test_a_new_block_is_one_class(wide_kind: type[Block], tmp_path: Path) -> None:
    file = tmp_path / "wide.yaml"
    text = (
        "name: wide\nclock: 1 GHz\nunits:\n  a:\n    kind: wide-test-array\n    rows: 2\n"
        "    cols: 2\n    inputs: s\n    weights: s\n    outputs: s\n"
        "    groups: 3\n    depth: 2\n    labels: {x: [1, 2]}\n"
        "memories:\n  s: {kind: sram, capacity: 1 KiB}\n"
    )
    file.write_text(text)
    made = arch(file)
    assert type(made.units["a"]) is wide_kind
    unit: Any = made.units["a"]
    assert (unit.groups, unit.depth, unit.labels) == ((3,), 2.0, {"x": (1, 2)})
    assert made.units_of(Systolic) == {"a": unit}
    assert made.units_of("systolic") == {}
    file.write_text(text.replace("[1, 2]", "[1, b]"))
    with pytest.raises(AccelsimError, match=r"wide\.yaml:13: 'b' is not a whole number$"):
        arch(file)
    file.write_text(text.replace("groups: 3", "groups: [1, 2, 3]"))
    with pytest.raises(AccelsimError, match=r"wide\.yaml:4: too many groups$"):
        arch(file)


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=0))
def test_floats_arrive_exactly(value: float) -> None:
    latency = min(value, 1.0)  # seconds: no memory takes longer
    changed = small().override({"mxu.mac_pj": value, "dram.latency": latency})
    assert changed.units_of(Systolic)["mxu"].mac_pj == value
    assert changed.memories["dram"].latency == latency  # type: ignore[attr-defined]


def test_memories_are_memories() -> None:
    assert all(isinstance(memory, Memory) for memory in small().memories.values())
