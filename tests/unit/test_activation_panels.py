"""Activations in panels: right numbers on every machine, long runs of addresses, even tiles."""

from __future__ import annotations

import numpy as np
import pytest

from accelsim.api import as_arch, as_graph, check, simulate
from accelsim.errors import AccelsimError
from accelsim.mapping.panels import Layouts, passed_on
from accelsim.numerics.formats import FORMATS
from accelsim.program.builder import Builder
from accelsim.program.storage import Storage
from accelsim.program.table import AddressSpace, OperatorInfo, Program, StorageInfo, UnitSlot
from accelsim.simulation import compile_program, plan_memory

BF16 = FORMATS["bf16"]
MODEL = "llama-2-7b:layers=1,vocab=300,hidden=96,heads=6,kv_heads=2,ffn=200"
WORK = (
    "gemm:m=50,n=90,k=70",
    "gemm:m=33,n=60,k=90,batch=3",
    "gemm:m=30,n=77,k=61,bias=true,dtype=int8",
    "attention:heads=6,kv_heads=2,q=24,kv=24,d=16",
    "attention:heads=6,kv_heads=2,q=1,kv=40,d=16",
    "softmax:rows=40,cols=100",
    "rmsnorm:rows=40,cols=100",
    "elementwise:rows=40,cols=100,function=mul",
    "residual:rows=40,cols=100",
    "rotary:tokens=20,heads=6,d=16",
    "conv2d:h=5,w=6,cin=30,cout=40,fh=3,fw=3,padding=1",
    f"{MODEL},phase=prefill,tokens=20",
    f"{MODEL},phase=decode,batch=2,context=30",
    "gpt2:layers=1,vocab=500,hidden=64,heads=4,tokens=18,ffn=128",
)
MACHINES = ("systolic", "quad-npu", "mesh-npu", "hbm-npu", "edge-npu", "tpu-v3")


def panels(width: int) -> dict[str, int]:
    return {"dma.activation_panel": width}


def program_of(machine: str, work: str, width: int, memory: str = "bandwidth") -> Program:
    arch, graph = as_arch(machine).override(panels(width)), as_graph(work)
    plan = plan_memory(graph, arch, memory)  # type: ignore[arg-type]
    return compile_program(graph, graph.operators, arch, plan, memory)  # type: ignore[arg-type]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("work", WORK)
def test_numbers_are_right_however_activations_lie(machine: str, work: str) -> None:
    """In the clock's order; panels that tiles and heads straddle, fill, and fall short of."""
    for width in (8, 16, 40, 64):
        assert check(as_arch(machine).override(panels(width)), work).ok, width


def test_bytes_stay_the_same() -> None:
    """Packed or not, every byte that moves is moved once."""
    rows = simulate("systolic", WORK[0], overrides=panels(0)).to_dict()["traffic_bytes"]
    packed = simulate("systolic", WORK[0], overrides=panels(8)).to_dict()["traffic_bytes"]
    assert rows == packed


def test_tiles_of_products_are_runs_of_addresses() -> None:
    """A tile of whole panels has as many pieces as panels, each without a gap."""
    program = program_of("hbm-npu", "gemm:m=256,n=512,k=512", 128)
    main = [s for s, info in enumerate(program.storages) if info.space == 0]
    assert {program.storages[s].name: program.storages[s].panels for s in main}["gemm.a"] == (
        0,
        128,
        256,
        384,
    )
    windows = program.operands[np.isin(program.operands[:, 0], main)]
    assert len(windows) > 4
    assert (windows[:, 5] == windows[:, 4]).all()  # stride and row bytes


def _tensor(rows: int) -> tuple[Storage, Layouts]:
    """A bf16 tensor [rows, 32] and who knows where it lies."""
    build = Builder([UnitSlot("dma", "dma", 0)], [AddressSpace("hbm", "hbm", 1 << 20, -1)])
    build.begin_operator(OperatorInfo("op", "attention", "", 0))
    info = StorageInfo("q", 0, 0, rows * 32 * 2, "activation", (rows, 32), "bf16")
    return build.storage(info), Layouts(build)


def test_windows_of_another_form_go_row_by_row() -> None:
    """Heads of one token as rows: each lies where its columns do."""
    storage, layouts = _tensor(16)
    layouts.cut(storage, 16, 32, 16)
    second_token = storage.view(4, 8, BF16, offset=64)  # 4 heads of 8
    pieces = layouts.pieces(second_token)
    assert [(rows.start, rows.stop) for rows, _, _ in pieces] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    # panels of 16 rows x 32 bytes; the second token is their second row
    assert [view.base for *_, view in pieces] == [32, 48, 512 + 32, 512 + 48]


def test_a_single_row_stays_a_run() -> None:
    storage, layouts = _tensor(1)
    layouts.cut(storage, 1, 32, 16)
    assert len(layouts.pieces(storage.view(1, 32, BF16))) == 1
    storage, layouts = _tensor(2)
    layouts.cut(storage, 2, 32, 16)
    assert len(layouts.pieces(storage.view(2, 32, BF16))) == 2


def test_tiles_of_few_long_rows_do_not_crowd_into_few_channels() -> None:
    """Row-major rows of 16 KiB begin in two of 32 channels, and tiles of some columns lie there."""
    machines = [as_arch("npu-only", {"dma.activation_panel": width}) for width in (128, 0)]
    panels, rows = (
        simulate(machine, "gemm:m=32,n=1024,k=8192", memory="dram").cycles for machine in machines
    )
    assert panels < 0.8 * rows


def test_what_is_read_as_a_table_or_by_heads_stays_row_major() -> None:
    arch = as_arch("systolic").override(panels(16))
    assert not passed_on(as_graph(MODEL), as_arch("systolic"))
    prefill = passed_on(as_graph(f"{MODEL},phase=prefill,tokens=20"), arch)
    decode = passed_on(as_graph(f"{MODEL},phase=decode,batch=2,context=30"), arch)
    assert "layer0.attention.q_proj.out" in prefill
    assert "layer0.attention.q_proj.out" not in decode
    assert "final_norm.out" not in prefill  # rows of the last tokens are gathered from it
    assert set(prefill.values()) == {16}
    assert not passed_on(as_graph("softmax:rows=40,cols=100"), arch)  # whole rows


def test_tiles_take_whole_turns_over_the_channels() -> None:
    """At dram fidelity all pieces but those at the lower edge are multiples of a turn."""
    work = "gemm:m=2000,n=512,k=1024"
    program = program_of("hbm-npu", work, 128, "dram")
    hbm = as_arch("hbm-npu").memories["hbm"]
    turn = hbm.turn_bytes  # type: ignore[attr-defined]
    assert turn == 16 * 1024
    main = [s for s, info in enumerate(program.storages) if info.panels and len(info.shape) > 1]
    main = [s for s in main if program.storages[s].shape[-2] == 2000]
    windows = program.operands[np.isin(program.operands[:, 0], main)]
    nbytes = windows[:, 3] * windows[:, 4]
    base = np.array([info.base for info in program.storages])[windows[:, 0]]
    inside = (windows[:, 2] - base) % (2000 * 256) + nbytes < 2000 * 256
    assert inside.any()
    assert (nbytes[inside] % turn == 0).all()


def test_operators_alone_take_whole_rows() -> None:
    """Nothing lies in panels where no product asks for them, so no tile is cut to them."""
    work = "elementwise:rows=2000,cols=28672,function=mul"
    plain, wide = (simulate("hbm-npu", work, memory="dram", overrides=panels(w)) for w in (0, 128))
    assert wide.operators[0].mapping == plain.operators[0].mapping
    assert wide.cycles == plain.cycles


def test_the_layout_is_declared_and_bad_widths_are_refused() -> None:
    said = simulate("systolic", WORK[0], overrides=panels(8)).approximations
    assert any("panels of 8 columns" in one for one in said)
    for width in (-8, 12):
        with pytest.raises(AccelsimError, match="activation_panel must be a multiple of 8"):
            as_arch("systolic").override(panels(width))


def test_engines_that_serve_banks_alone_have_no_say() -> None:
    work = as_graph("gemm:m=256,n=512,k=512,dtype=fp16")
    assert passed_on(work, as_arch("neupims")) == {"gemm.a": 128, "gemm.out": 128}
    decode = f"{MODEL},phase=decode,batch=2,context=30,dtype=fp16"
    for width in (8, 40):
        assert check(as_arch("neupims").override(panels(width)), decode).ok, width
