"""Layouts in panels: contiguous tiles, right numbers, and nothing else about a program changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from accelsim.api import as_arch, as_graph, check, simulate
from accelsim.errors import AccelsimError
from accelsim.functional.check import check as check_program
from accelsim.functional.check import load_image
from accelsim.functional.execute import execute
from accelsim.functional.memory import Memory
from accelsim.functional.values import graph_values
from accelsim.mapping.panels import PACKED, SHARED, Layouts, Panels
from accelsim.numerics.formats import FORMATS, Format, integer
from accelsim.program.archive import load, save
from accelsim.program.builder import Builder
from accelsim.program.listing import listing
from accelsim.program.opcodes import Opcode
from accelsim.program.storage import View
from accelsim.program.table import AddressSpace, OperatorInfo, Program, StorageInfo, UnitSlot
from accelsim.program.verify import VerificationError, verify, violations
from accelsim.simulation import compile_program, plan_memory

ROWS = {"dma.weight_layout": "rows"}
MACHINES = ("systolic", "quad-npu", "mesh-npu", "hbm-npu", "edge-npu")
WORK = (
    "gemm:m=100,n=270,k=390",
    "gemm:m=1,n=3001,k=77",
    "gemm:m=130,n=133,k=265,transpose_b=true,bias=true",
    "gemm:m=90,n=65,k=50,batch=3",
    "gemm:m=33,n=300,k=90,batch=5,broadcast_b=true",
    "gemm:m=70,n=1301,k=90,dtype=int8",
    "gemm:m=40,n=301,k=90,dtype=fp16",
    "gemm:m=40,n=301,k=90,dtype=fp32",
    "conv2d:h=5,w=6,cin=3,cout=300,fh=3,fw=3,padding=1",
    "conv2d:h=5,w=6,cin=6,cout=300,fh=3,fw=3,padding=1,groups=3",
)
GEMM = "gemm:m=40,n=301,k=90"


def program_of(machine: str, work: str, overrides: dict[str, Any] | None = None) -> Program:
    arch, graph = as_arch(machine).override(overrides or {}), as_graph(work)
    plan = plan_memory(graph, arch, "bandwidth")
    return compile_program(graph, graph.operators, arch, plan, "bandwidth")


def packed(program: Program) -> list[int]:
    """Weights in panels."""
    storages = enumerate(program.storages)
    return [s for s, info in storages if info.panels and info.role in ("weight", "constant")]


def sources_in(program: Program, storages: list[int]) -> np.ndarray:
    """Operand descriptors that instructions read in these storages."""
    used = program.sources[:, 0]
    operands = program.operands[np.unique(used[used >= 0])]
    return operands[np.isin(operands[:, 0], storages)]


# -- what lies where -----------------------------------------------------------------------------


def test_panels_lie_one_behind_the_other() -> None:
    """The picture in mapping/panels.py, address by address."""
    build = Builder([UnitSlot("dma", "dma", 0)], [AddressSpace("hbm", "hbm", 1 << 20, -1)])
    info = StorageInfo("w", 0, 64, 10, "weight", (2, 5), "int8", panels=(0, 2, 4))
    build.storage(info)
    memory = Memory(build.finish())
    memory.fill(0, np.arange(10, dtype=np.int8).reshape(2, 5))
    assert memory.storage(0).ravel().tolist() == [0, 1, 5, 6, 2, 3, 7, 8, 4, 9]
    assert memory.tensor(0).tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


def weights(fmt: Format, rows: int = 6, columns: int = 20) -> tuple[Layouts, View]:
    build = Builder([UnitSlot("dma", "dma", 0)], [AddressSpace("hbm", "hbm", 1 << 20, -1)])
    build.begin_operator(OperatorInfo("op", "gemm", "", 0))
    nbytes = rows * columns * fmt.bits // 8
    storage = build.storage(StorageInfo("w", 0, 128, nbytes, "weight", (rows, columns), fmt.name))
    found = Layouts(build)
    found.admit(storage, rows, columns)
    return found, storage.view(rows, columns, fmt)


def test_windows_over_several_panels_come_in_pieces() -> None:
    found, matrix = weights(FORMATS["bf16"])
    found.pack(matrix, 8)
    pieces = found.pieces(matrix[2:5, 6:18])
    assert [(c.start, c.stop) for _, c, _ in pieces] == [(0, 2), (2, 10), (10, 12)]
    # base + 6 rows of the panels before + 2 rows of this one + columns within
    assert [v.base - 128 for *_, v in pieces] == [32 + 12, 96 + 32, 192 + 16]
    assert [v.stride for *_, v in pieces] == [16, 16, 8]
    assert {(v.rows, v.storage.name) for *_, v in pieces} == {(3, "w")}


def test_narrow_formats_fill_whole_bytes_or_are_refused() -> None:
    nibbles = integer("nibble", 4, "<i1", -8, 7)
    found, matrix = weights(nibbles)
    found.pack(matrix, 8)
    ((*_, view),) = found.pieces(matrix[1:6, 10:16])
    assert (view.base - 128, view.stride, view.nbytes) == (6 * 4 + 4 + 1, 4, 15)
    uneven, matrix = weights(nibbles)
    uneven.pack(matrix, 3)
    with pytest.raises(AccelsimError, match="3 values of nibble do not fill whole bytes"):
        uneven.pieces(matrix[:, 0:3])


def test_who_packs_first_decides() -> None:
    panels = Panels(4, 100)
    cuts = [(0, 50, 20), (0, 50, 7), (60, 80, 40)]
    assert [panels.cut(*cut) for cut in cuts] == [True, False, True]
    assert panels.starts == [0, 20, 40, 60]
    assert panels.parts(45, 50) == [(45, 50, 40)]
    with pytest.raises(AccelsimError, match="column 50 of a packed weight is in no panel"):
        panels.parts(45, 55)
    assert panels.cuts() == (0, 20, 40, 50, 60, 80)  # what nobody cut are panels, too


def test_who_packs_later_cuts_what_is_left() -> None:
    panels = Panels(4, 100)
    panels.cut(20, 40, 20)
    panels.cut(60, 70, 20)
    assert panels.cut(10, 90, 16)
    assert panels.starts == [10, 20, 40, 56, 60, 70, 86]
    assert [panels.ends[start] for start in panels.starts] == [20, 40, 56, 60, 70, 86, 90]


def test_one_panel_is_none() -> None:
    whole = Panels(4, 100)
    whole.cut(0, 100, 128)
    assert whole.cuts() == ()


# -- programs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_are_right_however_weights_lie(machine: str, work: str) -> None:
    """Executed in the clock's order, and bit for bit what row-major weights give."""
    assert check(machine, work).ok
    results = []
    graph, arch = as_graph(work), as_arch(machine)
    for overrides in ({}, ROWS):
        program = program_of(machine, work, overrides)
        memory = Memory(program)
        load_image(program, memory, graph_values(graph))
        blocks = [arch.units[slot.unit] for slot in program.units]
        results.append(execute(program, blocks, memory).tensors)
    (a,), (b,) = (list(result.values()) for result in results)
    assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("machine", ["systolic", "mesh-npu", "hbm-npu", "edge-npu"])
def test_tiles_of_packed_weights_are_contiguous(machine: str) -> None:
    work = "gemm:m=64,n=5000,k=700"
    program = program_of(machine, work)
    storages = packed(program)
    assert [program.storages[s].name for s in storages] == ["gemm.b"]
    tiles = sources_in(program, storages)
    assert len(tiles) > 4
    assert (tiles[:, 5] == tiles[:, 4]).all()  # stride and row bytes
    plain = program_of(machine, work, ROWS)
    assert not packed(plain)
    assert (sources_in(plain, storages)[:, 5] > sources_in(plain, storages)[:, 4]).all()
    assert len(plain) == len(program)


def test_cores_have_panels_of_their_own() -> None:
    (s,) = packed(program := program_of("quad-npu", "gemm:m=100,n=270,k=390"))
    widths = np.diff([*program.storages[s].panels, 270])
    assert widths[-1] == 78  # the share of the last core is one panel
    tiles = sources_in(program, [s])
    assert (tiles[:, 5] == tiles[:, 4]).all()


@pytest.mark.parametrize("width", [1, 7, 48, 5000])
@pytest.mark.parametrize("machine", ["quad-npu", "mesh-npu", "tpu-v3"])
def test_panels_of_any_width_give_the_same_numbers(
    machine: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tiles that cross panels are loaded in pieces."""
    pack = Layouts.pack
    monkeypatch.setattr(Layouts, "pack", lambda self, matrix, _: pack(self, matrix, width))
    assert check(machine, "gemm:m=40,n=301,k=90").ok
    assert check(machine, "gemm:m=40,n=90,k=301,transpose_b=true").ok
    assert check(machine, "conv2d:h=5,w=6,cin=6,cout=99,fh=3,fw=3,padding=1,groups=3").ok


def test_tapwise_filters_are_packed() -> None:
    work = "conv2d:h=9,w=9,cin=160,cout=600,fh=3,fw=3,padding=1"
    assert packed(program_of("tpu-v3", work))
    assert check("tpu-v3", work).ok


def test_weights_with_two_readers_and_activations_stay_as_they_are() -> None:
    tied = "gpt2:layers=1,vocab=500,hidden=64,heads=2,tokens=8,ffn=640"
    program = program_of("systolic", tied)
    names = {program.storages[s].name for s in packed(program)}
    assert "embedding.weight" not in names
    assert names
    assert all(name.endswith(".weight") for name in names)
    assert check("systolic", tied).ok


def panels_of(program: Program, name: str) -> tuple[int, ...]:
    return next(info.panels for info in program.storages if info.name == name)


TIED = "gpt2:layers=2,vocab=300,hidden=160,heads=2,tokens=8"


@pytest.mark.parametrize(("machine", "edges"), [("edge-npu", (0, 64, 128)), ("mesh-npu", ())])
def test_tied_tables_lie_in_panels_of_a_channels_neighbouring_bytes(
    machine: str, edges: tuple[int, ...]
) -> None:
    """Alike in the program that looks rows up and in the one that multiplies; not where a row is
    no longer than what lies in one channel."""
    arch, graph = as_arch(machine), as_graph(TIED)
    plan = plan_memory(graph, arch, "bandwidth")
    first, *_, last = (
        compile_program(graph, part.operators, arch, plan, "bandwidth") for part in graph.segments()
    )
    assert panels_of(first, "embedding.weight") == edges
    assert panels_of(last, "embedding.weight") == edges
    assert (SHARED in last.approximations) == bool(edges)
    gathers = first.column("opcode")[first.column("operator") == 0] == Opcode.GATHER
    assert gathers.sum() % max(1, len(edges)) == 0
    row_major = as_arch(machine).override({"dma.weight_layout": "rows"})
    for one in (arch, row_major):
        assert check(one, TIED).ok


HALVES = "gpt2:phase=decode,batch=5,context=9,layers=3,vocab=64,hidden=256,heads=2,subbatch=2"


@pytest.mark.parametrize("machine", ["quad-npu", "hbm-npu", "neupims"])
def test_both_halves_of_a_batch_multiply_what_the_first_packed(machine: str) -> None:
    """Every tile of a weight of the repeated layer is a run of addresses for either half; what
    banks multiply lies where they find it."""
    arch, graph = as_arch(machine), as_graph(f"{HALVES},subbatch_min=2")
    plan = plan_memory(graph, arch, "bandwidth")
    layer = next(part for part in graph.segments() if part.layers)
    program = compile_program(graph, layer.operators, arch, plan, "bandwidth")
    weight = f"{layer.operators[0].name.split('.')[0]}.ffn.up_proj.weight"
    assert len([op for op in layer.operators if weight in op.inputs]) == 2
    (s,) = (s for s, info in enumerate(program.storages) if info.name == weight)
    tiles = sources_in(program, [s])
    in_banks = weight in plan.placed
    assert in_banks == (machine == "neupims")
    assert (tiles[:, 5] == tiles[:, 4]).all() != in_banks
    assert not (in_banks and program.storages[s].panels)
    assert check(arch, f"{HALVES},subbatch_min=2").ok


def test_the_layout_is_declared_and_can_be_switched_off() -> None:
    there, off = simulate("hbm-npu", GEMM, overrides={}), simulate("hbm-npu", GEMM, overrides=ROWS)
    wide = simulate("systolic", GEMM)
    assert PACKED in wide.approximations
    assert "weights in panels of" in wide.operators[0].mapping
    assert PACKED not in off.approximations
    assert PACKED not in simulate("systolic", GEMM, overrides=ROWS).approximations
    assert there.macs == off.macs
    with pytest.raises(AccelsimError, match="weight_layout"):
        simulate("systolic", GEMM, overrides={"dma.weight_layout": "columns"})


@pytest.mark.parametrize("machine", ["h100", "onnxim-mobile"])
def test_machines_that_read_rows_say_so(machine: str) -> None:
    assert PACKED not in simulate(machine, GEMM).approximations
    layouts = [getattr(u, "weight_layout", "rows") for u in as_arch(machine).units.values()]
    assert set(layouts) == {"rows"}


def test_bandwidth_fidelity_sees_no_difference_where_rows_are_whole_accesses() -> None:
    work = "gemm:m=128,n=4096,k=1024"
    a, b = (simulate("hbm-npu", work, overrides=o) for o in ({}, ROWS))
    assert (a.cycles, a.traffic_bytes) == (b.cycles, b.traffic_bytes)


def test_channels_open_far_fewer_rows() -> None:
    def activations(overrides: dict[str, Any]) -> tuple[int, float]:
        run = simulate("hbm-npu", "gemm:m=4,n=4096,k=1024", memory="dram", overrides=overrides)
        activity = run.segments[0].schedule.activity
        assert activity is not None
        assert activity.channels is not None
        return activity.channels.total("ACT"), run.energy_pj["hbm"]

    # In time, wider tiles make up for it: the tile choice knows what short rows cost.
    (few, cheap), (many, dear) = activations({}), activations(ROWS)
    assert 3 * few < many
    assert 1.05 * cheap < dear


# -- what is noticed -----------------------------------------------------------------------------


def moved(program: Program, **columns: int) -> Program:
    """The program whose first load of a packed weight has other numbers in its descriptor."""
    (s,) = packed(program)
    operands = program.operands.copy()
    d = int(np.flatnonzero((operands[:, 0] == s) & (operands[:, 3] > 1))[0])
    for name, value in columns.items():
        operands[d, {"base": 2, "stride": 5}[name]] += value
    return replace(program, operands=operands)


@pytest.mark.parametrize("change", [{"stride": 64}, {"base": 6}, {"base": 64}])
def test_a_wrong_panel_address_changes_the_numbers(change: dict[str, int]) -> None:
    program, arch, graph = program_of("systolic", GEMM), as_arch("systolic"), as_graph(GEMM)
    assert check_program(arch, graph, program).ok
    assert not check_program(arch, graph, moved(program, **change)).ok


def test_an_image_that_is_not_packed_changes_the_numbers() -> None:
    program, arch, graph = program_of("systolic", GEMM), as_arch("systolic"), as_graph(GEMM)
    storages = tuple(replace(info, panels=()) for info in program.storages)
    assert not check_program(arch, graph, replace(program, storages=storages)).ok


def test_the_verifier_proves_that_windows_lie_in_panels() -> None:
    program = program_of("systolic", GEMM)
    assert violations(program) == []
    for change in ({"stride": 64}, {"base": 6}):
        with pytest.raises(VerificationError, match=r"no window of one panel of gemm\.b"):
            verify(moved(program, **change))
    # A row-major window of a packed tensor stays inside the storage, and is refused.
    plain = program_of("systolic", GEMM, ROWS)
    (s,) = packed(program)
    mixed = replace(plain, storages=program.storages)
    found = violations(mixed)
    assert {v.kind for v in found} == {"layout"}
    assert {v.storage for v in found} == {program.storages[s].name}


@pytest.mark.parametrize(
    ("panels", "text"),
    [
        ((1, 4), "do not cut its 20 columns"),
        ((0, 8, 8), "do not cut its 20 columns"),
        ((0, 20), "do not cut its 20 columns"),
    ],
)
def test_panels_that_mean_nothing_are_refused(panels: tuple[int, ...], text: str) -> None:
    build = Builder([UnitSlot("dma", "dma", 0)], [AddressSpace("hbm", "hbm", 1 << 20, -1)])
    build.storage(StorageInfo("w", 0, 0, 240, "weight", (6, 20), "bf16", panels=panels))
    with pytest.raises(VerificationError, match=text):
        verify(build.finish())


def test_archive_and_listing_tell_the_layout(tmp_path: Any) -> None:
    program = program_of("systolic", GEMM)
    path = tmp_path / "p.npz"
    save(program, path)
    assert load(path).storages == program.storages
    text = listing(program)
    assert "weight 90x301 bf16  in panels of 9 x 32, 13 columns" in text
    assert "<- gemm.b[0:32, 32:64]@dram" in text  # a tile by its place in the whole matrix
    assert "<- gemm.b[64:90, 288:301]@dram" in text
