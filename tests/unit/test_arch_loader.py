"""Architecture files: what is read, and that every fault is one line at the right place."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from accelsim.arch.loader import from_dict, load
from accelsim.errors import AccelsimError
from accelsim.hw.dma import Dma
from accelsim.hw.memory import MainMemory
from accelsim.hw.sram import Sram
from accelsim.hw.systolic import Systolic
from accelsim.yaml_lines import parse_yaml, resolve_scalar

GOOD = """\
name: my-npu
description: one line
clock: 1 GHz
clocks: {bus: 900 MHz}
cores: 2
units:
  mxu: {kind: systolic, count: 2, rows: 128, cols: 64, inputs: vmem, weights: vmem, outputs: vmem}
  vpu:
    kind: vector
    lanes: 1024
    memory: vmem
    slots: {exp: 2}
  dma: {kind: dma, clock: bus}
memories:
  hbm: {kind: memory, capacity: 16 GiB, bandwidth: 450 GB/s, latency: 200 ns}
  vmem:
    kind: sram
    capacity: 16 MiB
links:
  - {from: hbm, to: vmem, bandwidth: 900 GB/s, latency: 10 ns}
mappers: {gemm: systolic-gemm}
assumptions: ["a round device"]
sources:
  mxu: a paper
  hbm.bandwidth: a datasheet
"""


def write(folder: Path, text: str | bytes) -> Path:
    file = folder / "npu.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def fault_of(folder: Path, text: str | bytes) -> str:
    """The message without the folder; asserts that it is one line."""
    with pytest.raises(AccelsimError) as fault:
        load(write(folder, text))
    message = str(fault.value)
    assert "\n" not in message
    return message.replace(str(folder) + os.sep, "")


def test_reads_every_section(tmp_path: Path) -> None:
    arch = load(write(tmp_path, GOOD))
    assert (arch.name, arch.description, arch.cores) == ("my-npu", "one line", 2)
    assert arch.clocks == {"core": 10**9, "bus": 900 * 10**6}
    mxu = arch.units["mxu"]
    assert isinstance(mxu, Systolic)
    assert (mxu.count, mxu.rows, mxu.cols, mxu.dataflow, mxu.pipelined) == (2, 128, 64, "ws", True)
    assert arch.units["vpu"].memories() == ("vmem",)
    assert arch.units["vpu"].slots == {"exp": 2}  # type: ignore[attr-defined]
    assert isinstance(arch.units["dma"], Dma)
    hbm, vmem = arch.memories["hbm"], arch.memories["vmem"]
    assert isinstance(hbm, MainMemory)
    assert isinstance(vmem, Sram)
    assert (hbm.capacity, hbm.bandwidth, hbm.latency) == (2**34, 450 * 10**9, 200e-9)
    assert vmem.capacity == 2**24
    (link,) = arch.links
    assert (link.source, link.target) == ("hbm", "vmem")
    assert (link.bandwidth, link.latency) == (900 * 10**9, 10e-9)
    assert arch.mappers == {"gemm": "systolic-gemm"}
    assert arch.assumptions == ("a round device",)
    assert arch.sources == {"mxu": "a paper", "hbm.bandwidth": "a datasheet"}
    assert arch.origin == str(tmp_path / "npu.yaml")


def test_links_may_say_source_and_target(tmp_path: Path) -> None:
    spelt = GOOD.replace("from: hbm, to: vmem", "source: hbm, target: vmem")
    assert load(write(tmp_path, spelt)) == from_dict(yaml.safe_load(GOOD))


def test_anchors_and_merge_keys(tmp_path: Path) -> None:
    text = GOOD.replace("  vmem:\n", "  vmem: &sram\n").replace(
        "links:\n", "  spad: {<<: *sram, capacity: 1 MiB}\nlinks:\n"
    )
    spad = load(write(tmp_path, text)).memories["spad"]
    assert isinstance(spad, Sram)
    assert spad.capacity == 2**20


# Each case: what to replace in GOOD, by what, the line of the fault, and its message.
FAULTS = [
    ("name: my-npu\n", "", 1, "name is missing; accepted: the name shown with results"),
    ("name: my-npu", "name: [a]", 1, "['a'] is not text"),
    ("clock: 1 GHz\n", "", 1, "clock is missing; accepted: the core's frequency"),
    ("clock: 1 GHz", "clock:", 3, "clock is missing"),
    ("clock: 1 GHz", "clock: 1 GHZ", 3, "unknown unit 'GHZ' for Hz; did you mean 'GHz'?"),
    ("clock: 1 GHz", "clock: 0", 3, "a clock must be a positive number of Hz, not 0"),
    (
        "{bus: 900 MHz}",
        "{core: 900 MHz}",
        4,
        "the core's clock is given twice; accepted: only clock",
    ),
    ("{bus: 900 MHz}", "{bus: fast}", 4, "'fast' is not a quantity"),
    ("{bus: 900 MHz}", "900 MHz", 4, "clocks is '900 MHz'; accepted: further clocks by name"),
    ("cores: 2", "cores: 0", 5, "cores must be a whole number of at least 1, not 0"),
    ("cores: 2", "cores: true", 5, "cores must be a whole number of at least 1, not true"),
    ("cores: 2", "cores: 2.0", 5, "cores must be a whole number"),
    ("cores: 2", "cores: 1000000", 5, "queues; accepted: at most"),
    ("cores: 2", "core: 2", 5, "unknown key 'core'; did you mean 'cores'? accepted: assumptions,"),
    ("rows: 128", "rows: 12.5", 7, "12.5 is not a whole number"),
    ("rows: 128", "rows: 128.0", 7, "128.0 is not a whole number"),
    ("rows: 128", "rows: '128'", 7, "'128' is not a whole number"),
    ("rows: 128", "rows: true", 7, "true is not a whole number"),
    ("    lanes: 1024", "    lanes:", 10, "an empty value is not a whole number"),
    ("rows: 128", "rows: .inf", 7, "is not a finite plain value"),
    ("rows: 128", f"rows: {10**30}", 7, "is too large; accepted: up to 9223372036854775807"),
    ("rows: 128", "rows: 0", 7, "rows must be at least 1, not 0"),
    ("rows: 128", "rowss: 128", 7, "unknown parameter of kind systolic 'rowss'; did you mean"),
    ("rows: 128, ", "", 7, "rows is missing; kind systolic needs rows, cols, inputs"),
    ("cols: 64", "cols: 64, pipelined: 1", 7, "1 is not true or false"),
    ("cols: 64", "cols: 64, dataflow: wx", 7, "unknown choice 'wx'; did you mean 'ws'? accepted: "),
    ("cols: 64", "cols: 64, mac_pj: cheap", 7, "'cheap' is not a quantity"),
    ("cols: 64", "cols: 64, clock: slow", 7, "unknown clock 'slow'; accepted: bus, core"),
    ("kind: systolic", "kind: sistolic", 7, "unknown kind 'sistolic'; did you mean 'systolic'?"),
    ("kind: systolic, ", "", 7, "mxu has no kind"),
    ("kind: systolic", "kind: sram", 7, "kind 'sram' belongs under memories, not units"),
    ("kind: systolic", "kind: [a]", 7, "unknown kind"),
    ("inputs: vmem", "inputs: vmen", 7, "unknown memory 'vmen'; did you mean 'vmem'? accepted:"),
    ("inputs: vmem", "inputs: 5", 7, "5 is not a word"),
    ("    lanes: 1024", "    lanes: -1", 10, "lanes must be at least 1, not -1"),
    (
        "    memory: vmem",
        "    memory: [vmem, hbn]",
        11,
        "unknown memory 'hbn'; did you mean 'hbm'?",
    ),
    ("    memory: vmem", "    memory: 7", 11, "7 is not a word"),
    ("    memory: vmem", "    memory: {a: b}", 11, "is not a list"),
    ("{exp: 2}", "{exp: fast}", 12, "'fast' is not a whole number"),
    ("{exp: 2}", "{exp: 0}", 12, "slots.exp must be at least 1 and at most 1048576, not 0"),
    ("{exp: 2}", "{exp: 1048577}", 12, "at most 1048576, not 1048577"),
    ("{exp: 2}", f"{{exp: 1{30 * '0'}}}", 12, f"at most 1048576, not 1{30 * '0'}"),
    ("{exp: 2}", "{exq: 2}", 12, "slots names 'exq'"),
    ("{kind: dma, clock: bus}", "dma", 13, "dma is 'dma'; accepted: a mapping with a kind"),
    ("  hbm: {", "  mxu: {", 15, "'mxu' is also a unit's name"),
    ("16 GiB", "16 GiBs", 15, "unknown unit 'GiBs' for bytes; did you mean 'GiB'?"),
    ("16 GiB", "-1", 15, "capacity must be positive, not -1"),
    ("200 ns", "-200 ns", 15, "latency must not be negative"),
    ("200 ns", "1e20 s", 15, "latency must be at most 1 s, not 1e+20 s"),
    ("    kind: sram", "    kind: dma", 17, "kind 'dma' belongs under units, not memories"),
    ("    kind: sram", "    kind: link", 17, "kind 'link' belongs under links, not memories"),
    ("    capacity: 16 MiB\n", "", 16, "capacity is missing; kind sram needs capacity"),
    ("from: hbm", "from: hbn", 20, "unknown unit or memory 'hbn'; did you mean 'hbm'?"),
    ("to: vmem", "to: hbm", 20, "source and target are both 'hbm'"),
    ("to: vmem, ", "", 20, "to is missing; accepted: a unit or memory"),
    ("to: vmem", "to: vmem, target: vmem", 20, "to and target mean the same; accepted: one"),
    ("900 GB/s", "0 GB/s", 20, "bandwidth must be positive, not 0"),
    ("  - {from: hbm, ", "  - x\n  - {from: hbm, ", 20, "a link is 'x'; accepted: a mapping"),
    ("{gemm: systolic-gemm}", "{gemm: 3}", 21, "3 is not text"),
    ('["a round device"]', "{a: b}", 22, "is not a list; accepted: a list of texts"),
    ('["a round device"]', "[a, 3]", 22, "3 is not text"),
    ("mxu: a paper", "mxv: a paper", 24, "unknown parameter 'mxv'; did you mean 'mxu'?"),
    ("hbm.bandwidth:", "hbm.width:", 25, "unknown parameter 'hbm.width'; did you mean 'hbm.band"),
    ("  dma: {", "  mxu1: {", 13, "'mxu1' and 'mxu' both have an instance 'mxu1'"),
    ("  dma: {", "  links: {", 13, "'links' is not usable as a name"),
    ("  dma: {", "  d.ma: {", 13, "'d.ma' is not usable as a name; accepted: a letter"),
    ("  dma: {", "  2dma: {", 13, "'2dma' is not usable as a name"),
    ("  dma: {", "  vpu: {", 13, "'vpu' is given twice, first on line 8; accepted: once"),
    ("cores: 2", "cores: 2\ncores: 4", 6, "'cores' is given twice, first on line 5"),
    ("    lanes: 1024", "    lanes: 1024\n    lanes: 2", 11, "'lanes' is given twice, first on"),
    ("cores: 2", "cores: !!python/name:os.system 2", 5, "unknown tag"),
    ("cores: 2", "cores: !mine 2", 5, "unknown tag !mine; accepted: no tags"),
    ("cores: 2", "? [a]\n: b", 5, "a list or mapping cannot be a key"),
    ("cores: 2", "cores: [2", 6, "accepted: YAML"),
    ("cores: 2", "\tcores: 2", 5, "accepted: YAML"),
    ("cores: 2", "---\ncores: 2", 5, "accepted: YAML"),
    ("cores: 2", "cores: *nowhere", 5, "undefined alias"),
    ("{exp: 2}", "&a {exp: *a}", 12, "is nested too deeply; accepted: up to 8"),
]


@pytest.mark.parametrize(("old", "new", "line", "message"), FAULTS)
def test_fault_is_one_line_at_its_place(
    tmp_path: Path, old: str, new: str, line: int, message: str
) -> None:
    assert GOOD.count(old) >= 1
    found = fault_of(tmp_path, GOOD.replace(old, new, 1))
    assert found.startswith(f"npu.yaml:{line}: "), found
    assert message in found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "npu.yaml: is empty; accepted: a YAML mapping"),
        ("# nothing\n", "npu.yaml: is empty; accepted: a YAML mapping"),
        ("- a\n- b\n", "npu.yaml:1: ['a', 'b'] is not an architecture; accepted: name, clock"),
        ("just text", "npu.yaml:1: 'just text' is not an architecture"),
        (b"name: \xff\xfe", "npu.yaml: byte 6 is not UTF-8; accepted: a YAML file in UTF-8"),
        (b"name: \x00", "npu.yaml: is not YAML"),
        ("name: x\nclock: 1 GHz\n", "npu.yaml:1: there is no unit; accepted: at least one"),
    ],
)
def test_what_is_no_architecture(tmp_path: Path, content: str | bytes, message: str) -> None:
    assert fault_of(tmp_path, content).startswith(message)


def test_no_units_points_at_the_section(tmp_path: Path) -> None:
    assert fault_of(tmp_path, "name: x\nclock: 1 GHz\nunits: {}\n").startswith(
        "npu.yaml:3: there is no unit"
    )


def test_unreadable_paths(tmp_path: Path) -> None:
    with pytest.raises(AccelsimError, match=r"gone\.yaml: there is no such file; accepted: "):
        load(tmp_path / "gone.yaml")
    with pytest.raises(AccelsimError, match=r": is a directory; accepted: the path of a YAML"):
        load(tmp_path)
    with pytest.raises(AccelsimError, match="is not a path of a file"):
        load("a\0b.yaml")
    with pytest.raises(AccelsimError, match="cannot be read"):
        load("x" * 5000 + ".yaml")


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    assert load(write(tmp_path, b"\xef\xbb\xbf" + GOOD.encode())).name == "my-npu"


def test_a_file_is_read_once_until_it_changes(tmp_path: Path) -> None:
    file = write(tmp_path, GOOD)
    first = load(file)
    assert load(file) is first
    write(tmp_path, GOOD.replace("rows: 128", "rows: 1280"))
    assert load(file).units["mxu"].rows == 1280  # type: ignore[attr-defined]


def test_a_failed_file_is_read_again(tmp_path: Path) -> None:
    fault_of(tmp_path, GOOD.replace("rows: 128", "rows: 0"))
    assert load(write(tmp_path, GOOD)).name == "my-npu"


def test_what_to_dict_says_loads_as_an_equal_architecture(tmp_path: Path) -> None:
    arch = load(write(tmp_path, GOOD))
    again = load(write(tmp_path, yaml.safe_dump(arch.to_dict(), sort_keys=False)))
    assert again == arch
    assert again is not arch
    assert from_dict(arch.to_dict()) == arch
    assert again.sources == arch.sources


def test_faults_of_a_dict_name_the_parameter() -> None:
    content = yaml.safe_load(GOOD)
    content["units"]["mxu"]["rows"] = 0
    with pytest.raises(AccelsimError, match=r"^mxu\.rows: rows must be at least 1, not 0$"):
        from_dict(content)


# -- YAML scalars --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12), ("-3", -3), ("1_000", 1000), ("0x10", 16), ("0b101", 5), ("010", 10),
        ("1e9", 1e9), ("1.5", 1.5), (".5", 0.5), ("1e-3", 1e-3),
        ("true", True), ("No", False), ("", None), ("~", None), ("null", None),
        ("1:30", "1:30"), ("64 kB", "64 kB"), ("ws", "ws"), ("2020-01-01", "2020-01-01"),
        ("1.2.3", "1.2.3"), ("9" * 5000, "9" * 5000),
    ],
)  # fmt: skip
def test_scalars(text: str, value: object) -> None:
    found = resolve_scalar(text)
    assert found == value
    assert type(found) is type(value)


def test_quoted_scalars_stay_text() -> None:
    assert parse_yaml("'12'", "x").plain() == "12"
    assert parse_yaml('"true"', "x").plain() == "true"
    assert parse_yaml("|\n  12\n", "x").plain() == "12\n"
    assert parse_yaml("on: no", "x").plain() == {"on": False}


def test_every_value_knows_its_line() -> None:
    root = parse_yaml("a:\n  b: 1\n  c:\n    - x\n    - y\n", "x")
    assert root.line_of("a") == 1
    assert root.line_of("a", "b") == 2
    assert root.line_of("a", "c", "1") == 5
    assert root.line_of("a", "nothing", "here") == 1
    assert root.holds("a", "c", "0")
    assert not root.holds("a", "c", "2")


def test_deep_nesting_is_a_fault_not_a_crash() -> None:
    with pytest.raises(AccelsimError, match=r"nested too deeply|is not YAML"):
        parse_yaml("[" * 3000 + "]" * 3000, "x")


def outcome(attempt: Callable[[], object]) -> str | None:
    """The message with which something is refused, None if it is not."""
    try:
        attempt()
    except AccelsimError as fault:
        return str(fault)
    return None


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    message = outcome(lambda: parse_yaml(text, "x.yaml"))
    assert message is None or re.fullmatch(r"x\.yaml(:\d+)?: [^\n]+", message)


@given(
    st.sampled_from(["name", "clock", "clocks", "cores", "units", "memories", "links", "sources"]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=4,
    ),
)
def test_any_value_in_a_section_is_read_or_refused(section: str, value: Any) -> None:
    content = yaml.safe_load(GOOD)
    content[section] = value
    message = outcome(lambda: from_dict(content))
    assert message is None or re.fullmatch(r"[^\n]+", message)
