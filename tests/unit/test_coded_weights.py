"""Coded weights from a user's words to decoded tiles: bytes, time, numbers, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import accelsim as xs
from accelsim.arch.loader import load as load_arch
from accelsim.arch.model import Architecture
from accelsim.encoding.encodings import encoding
from accelsim.errors import AccelsimError
from accelsim.functional.coded import coded_weights
from accelsim.functional.values import graph_values
from accelsim.numerics.formats import number_format
from accelsim.program.opcodes import Opcode
from accelsim.program.verify import violations
from accelsim.simulation import compile_program, plan_memory

ROOT = Path(__file__).resolve().parents[2]
SHAPE = "gemm:m=40,n=200,k=256"
CODED = (
    *("sparsity=2:4", "sparsity=1:4,dtype=int8", "sparsity=4:8,transpose_b=true,dtype=fp16"),
    *("sparsity=0.3", "sparsity=0.2,encoding=tiled-csl,dtype=fp16", "sparsity=2:4,encoding=bitmap"),
    *("encoding=int4:g128", "encoding=int4:col,dtype=fp16,transpose_b=true", "encoding=int3:g64"),
)


def with_decoder(name: str, memory: str, folder: Path, count: int = 2) -> Architecture:
    """A shipped architecture with decoders into the memory of its weights."""
    text = (ROOT / "arch_configs" / f"{name}.yaml").read_text(encoding="utf-8")
    unit = (
        f"decoder: {{kind: decoder, count: {count}, staging: {memory}, target: {memory},"
        " elements_per_cycle: 64, coded_bytes_per_cycle: 32}"
    )
    file = folder / f"{name}.yaml"
    file.write_text(text.replace("\nunits:\n", f"\nunits:\n  {unit}\n"), encoding="utf-8")
    return load_arch(file)


# -- numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", CODED)
def test_products_of_coded_weights_are_those_of_what_they_decode_to(words: str) -> None:
    found = xs.check("coded-npu", f"{SHAPE},{words}")
    assert found.ok, found.first


@pytest.mark.parametrize(
    ("name", "memory", "dataflow"),
    [
        ("edge-npu", "spad", "os"), ("edge-npu", "spad", "is"), ("systolic", "filter", "ws"),
        ("quad-npu", "spad", "ws"), ("mesh-npu", "spad", "ws"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("words", ["sparsity=2:4,dtype=int8", "sparsity=0.3", "encoding=int4:g32"])
def test_every_dataflow_teams_and_shared_columns(
    name: str, memory: str, dataflow: str, words: str, tmp_path: Path
) -> None:
    arch = with_decoder(name, memory, tmp_path).override({"array.dataflow": dataflow})
    for shape in ("gemm:m=90,n=100,k=160", "gemm:m=300,n=40,k=96,transpose_b=true"):
        found = xs.check(arch, f"{shape},{words}")
        assert found.ok, found.first


@pytest.mark.parametrize(
    "workload",
    [
        "gemm:m=5,n=96,k=64,batch=3,sparsity=1:4", "gemm:m=5,n=96,k=64,groups=3,encoding=int4:col",
        "gemm:m=5,n=96,k=64,batch=9,broadcast_b=true,sparsity=0.3",
        "gemv:n=96,k=300,encoding=int4:g7",
        "grouped_gemm:m=5+0+90,n=96,k=64,sparsity=0.4",
    ],
)  # fmt: skip
def test_batches_groups_and_experts(workload: str, tmp_path: Path) -> None:
    for arch in ("coded-npu", with_decoder("quad-npu", "spad", tmp_path)):
        found = xs.check(arch, workload)
        assert found.ok, found.first


@pytest.mark.parametrize(
    "workload",
    [
        "llama-2-7b:layers=2,hidden=128,heads=4,ffn=256,vocab=256,phase=decode,context=8,weights=int4:g128",
        "mixtral-8x7b:layers=1,hidden=128,heads=4,kv_heads=2,ffn=192,vocab=256,tokens=8,sparsity=2:4",
        "deepseek-v2-lite:layers=2,hidden=64,heads=4,vocab=64,tokens=3,sparsity=0.4,weights=bitmap",
    ],
)
def test_whole_models(workload: str) -> None:
    found = xs.check("coded-npu", workload)
    assert found.ok, found.first


def test_a_product_of_integers_is_that_of_the_pruned_matrix() -> None:
    graph = xs.workload("gemm:m=3,n=5,k=16,sparsity=2:4,dtype=int8")
    dense = graph_values(graph)
    weight = coded_weights(graph, dense)["gemm.b"].elements()
    drawn = dense["gemm.b"]
    groups = np.abs(drawn.astype(int)).T.reshape(5, 4, 4)
    kept = (weight != 0).T.reshape(5, 4, 4)
    assert kept.sum(axis=2).max() == 2
    assert (weight[weight != 0] == drawn[weight != 0]).all()
    smallest_kept = np.where(kept, groups, 999).min(axis=2)
    assert (smallest_kept >= np.where(kept, 0, groups).max(axis=2)).all()


def test_a_decode_that_is_not_waited_for_changes_the_numbers() -> None:
    from accelsim.engine.bind import bind
    from accelsim.engine.merge import run
    from accelsim.functional.check import check
    from accelsim.program.table import COLUMN

    graph = xs.workload("gemm:m=16,n=256,k=512,sparsity=2:4,dtype=int8")
    arch = xs.arch("coded-npu")
    program = compile_program(
        graph, graph.operators, arch, plan_memory(graph, arch, "bandwidth"), "bandwidth"
    )
    rows = program.instructions.copy()
    decodes = program.column("opcode") == Opcode.DECODE
    products = np.flatnonzero(program.column("opcode") == Opcode.MATMUL)
    for c in range(3):
        waits = rows[products, COLUMN["dep0"] + c]
        waits[decodes[np.maximum(waits, 0)] & (waits >= 0)] = -1
        rows[products, COLUMN["dep0"] + c] = waits
    hasty = replace(program, instructions=rows)
    assert any(v.kind == "read-after-write" for v in violations(hasty))
    assert check(arch, graph, program, run(bind(program, arch).timed)).ok
    assert not check(arch, graph, hasty, run(bind(hasty, arch).timed)).ok


@pytest.mark.parametrize("shape", ["m=277,n=61,k=208", "m=193,n=59,k=448", "m=322,n=59,k=160"])
def test_cores_that_share_the_rows_cut_the_weight_alike(shape: str, tmp_path: Path) -> None:
    """The last core has fewer rows and, by itself, would like other tiles."""
    arch = with_decoder("quad-npu", "spad", tmp_path).override({"spad.capacity": 65536})
    found = xs.check(arch, f"gemm:{shape},sparsity=2:4,dtype=int8")
    assert found.ok, found.first
    found = xs.check(arch, f"gemm:{shape},sparsity=2:4")
    assert found.ok, found.first


# -- bytes and time --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "words", "ratio"),
    [
        ("fp16", "sparsity=2:4", 0.5625), ("bf16", "sparsity=2:4", 0.5625),
        ("int8", "sparsity=2:4", 0.625), ("fp16", "sparsity=1:4", 4.5 / 16),
        ("fp16", "sparsity=2:8", 4.75 / 16), ("fp16", "encoding=int4:g128", 4.125 / 16),
        ("fp16", "sparsity=0.5", 0.5625), ("fp16", "sparsity=0.2,encoding=tiled-csl", 0.4),
    ],
)  # fmt: skip
def test_where_memory_limits_time_is_that_of_the_coded_bytes(
    dtype: str, words: str, ratio: float
) -> None:
    shape = f"gemm:m=4,n=4096,k=4096,dtype={dtype}"
    dense, coded = (xs.simulate("coded-npu", text) for text in (shape, f"{shape},{words}"))
    assert coded.bottleneck == dense.bottleneck == "dram"
    assert coded.cycles / dense.cycles == pytest.approx(ratio, rel=0.03)
    read, before = (run.traffic_bytes["dram"]["read"] for run in (coded, dense))
    assert read / before == pytest.approx(ratio, rel=0.01)
    assert coded.energy_pj["decoder"] == pytest.approx(0.21 * 4096**2)
    assert coded.energy_pj["dram"] < 1.03 * ratio * dense.energy_pj["dram"]


@pytest.mark.parametrize("parameter", ["elements_per_cycle", "coded_bytes_per_cycle"])
def test_a_slow_decoder_limits_and_its_time_is_its_throughput(parameter: str) -> None:
    workload = "gemm:m=4,n=2048,k=2048,dtype=fp16,sparsity=2:4"
    work = {"elements_per_cycle": 2048**2, "coded_bytes_per_cycle": 2048**2 * 9 // 8}[parameter]
    rates = (8, 16, 32, 64, 128, 256, 1024)
    before, limited = None, []
    for rate in rates:
        arch = xs.arch("coded-npu", {f"decoder.{parameter}": rate})
        run = xs.simulate(arch, workload)
        least = work / rate
        assert run.cycles >= least
        assert run.bounds["decoder"] >= least * (1 - 1e-9)
        if run.bottleneck == "decoder":
            limited.append(rate)
            assert run.cycles == pytest.approx(least, rel=0.03)
        else:
            assert run.bottleneck == "dram"
        # Faster decoders are never slower, and stop helping where memory limits.
        assert before is None or run.cycles <= before * 1.001
        before = run.cycles
    assert limited == list(rates[: len(limited)])
    assert 0 < len(limited) < len(rates)
    assert before == pytest.approx(xs.simulate("coded-npu", workload).cycles, rel=0.02)


def test_two_decoders_decode_twice_as_fast() -> None:
    workload = "gemm:m=4,n=2048,k=2048,dtype=fp16,sparsity=2:4"
    one, two = (
        xs.simulate(
            xs.arch("coded-npu", {"decoder.elements_per_cycle": 8, "decoder.count": n}), workload
        )
        for n in (1, 2)
    )
    assert one.bottleneck == two.bottleneck == "decoder"
    assert one.cycles / two.cycles == pytest.approx(2.0, rel=0.03)


def test_lengths_of_unstructured_tiles_are_those_of_the_drawn_positions() -> None:
    graph = xs.workload("gemm:m=16,n=300,k=520,sparsity=0.37,sparsity_seed=5")
    arch = xs.arch("coded-npu")
    program = compile_program(
        graph, graph.operators, arch, plan_memory(graph, arch, "bandwidth"), "bandwidth"
    )
    weight = next(info for info in program.storages if info.name == "gemm.b")
    spec = graph.tensors["gemm.b"]
    assert spec.coding is not None
    kept = spec.coding.kept(spec.shape)
    assert kept is not None
    assert abs(kept.mean() - 0.37) < 0.01
    assert sum(tile.rows * tile.cols for tile in weight.tiles) == 300 * 520
    for tile in weight.tiles:
        part = kept[tile.col : tile.col + tile.cols, tile.row : tile.row + tile.rows]
        assert tile.nbytes == -(-tile.rows * tile.cols // 8) + 2 * int(part.sum())
    assert sum(tile.nbytes for tile in weight.tiles) == pytest.approx(
        spec.bytes, abs=2 * len(weight.tiles)
    )
    other = xs.workload("gemm:m=16,n=300,k=520,sparsity=0.37,sparsity_seed=6").tensors["gemm.b"]
    assert other.bytes != spec.bytes


def test_layers_with_coded_weights_stay_identical_and_are_told() -> None:
    graph = xs.workload(
        "llama-2-7b:phase=decode,weights=bitmap,sparsity=0.3,layers=3,hidden=256,heads=4,ffn=512"
    )
    assert [segment.count for segment in graph.segments()] == [1, 3, 1]
    coded = {name for name, spec in graph.tensors.items() if spec.coding}
    assert len(coded) == 3 * 7
    assert not any("embed" in name or "lm_head" in name or "norm" in name for name in coded)
    told = " ".join(graph.assumptions)
    assert "0.3 of their elements kept at drawn positions (seed 0), one draw for each shape" in told
    assert "embeddings, routers, norms and the head are stored in bf16, not coded" in told
    assert graph.settings["weights"] == "bitmap"
    dense = xs.workload("llama-2-7b:phase=decode,layers=3,hidden=256,heads=4,ffn=512")
    saved = sum(dense.tensors[name].bytes - graph.tensors[name].bytes for name in coded)
    assert (
        dense.weight_bytes - graph.weight_bytes
        == saved
        > 0.6 * 3 * 2 * (4 * 256**2 + 3 * 256 * 512)
    )


def test_weights_that_fit_only_coded_are_placed() -> None:
    small = {"dram.capacity": "8 GiB"}
    with pytest.raises(AccelsimError, match="does not fit into dram"):
        xs.simulate(xs.arch("coded-npu", small), "llama-2-7b:phase=decode,context=16")
    run = xs.simulate(
        xs.arch("coded-npu", small), "llama-2-7b:phase=decode,context=16,weights=int4:g128"
    )
    assert run.cycles > 0


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("sparsity=5:4", "gemm: sparsity 5:4 keeps 5 of 4; accepted: N:M with 1 <= N <= M"),
        ("sparsity=2:3", "k 256 is not a whole number of groups of 3 (nm:2:3); accepted: k padded"),
        ("sparsity=2:3", "with zeros to 258"),
        (
            "encoding=bitmap,sparsity=2:3",
            "k 256 is not a whole number of groups of 3 (spars",
        ),
        ("sparsity=0", "sparsity is '0'; accepted: N:M (2:4), or the density that is kept"),
        ("sparsity=1.5", "sparsity is '1.5'; accepted"),
        ("sparsity=half", "sparsity is 'half'; accepted"),
        ("encoding=bitmap", "encoding bitmap without sparsity; accepted: with sparsity="),
        ("encoding=zip", "unknown encoding 'zip'; accepted: nm:N:M, bitmap"),
        ("encoding=int4:g128,sparsity=2:4", "which leaves nothing out; accepted: without sparsity"),
        ("encoding=nm:2:4,sparsity=1:4", "sparsity 1:4 with encoding nm:2:4; accepted: 2:4"),
        ("encoding=nm:2:4,sparsity=0.5", "sparsity 0.5 with encoding nm:2:4; accepted: 2:4"),
        ("sparsity_seed=3", "sparsity_seed without sparsity; accepted: both"),
        (
            "encoding=int4:g128,dtype=int8",
            "stands for floating point of more than 4 bits, not int8",
        ),
        (
            "encoding=tiled-csl,sparsity=.3,dtype=fp32",
            "holds values of 16 bits, not fp32; accepted",
        ),
    ],
)
def test_words_that_mean_nothing(words: str, text: str) -> None:
    with pytest.raises(AccelsimError) as fault:
        xs.workload(f"gemm:m=16,n=64,k=256,{words}")
    assert text in str(fault.value)
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize(
    ("arch", "text"),
    [
        (
            "hbm-npu",
            "weight 'gemm.b' is stored as nm:2:4, and hbm-npu has no decoder of it into 'vmem'",
        ),
        ("tpu-v3", "accepted: an architecture with a unit of kind decoder, such as coded-npu"),
    ],
)
def test_machines_without_a_decoder_refuse(arch: str, text: str) -> None:
    with pytest.raises(AccelsimError) as fault:
        xs.simulate(arch, f"{SHAPE},sparsity=2:4")
    assert text in str(fault.value)


def test_mappers_that_know_nothing_of_codes_refuse() -> None:
    with pytest.raises(
        AccelsimError, match=r"stored as nm:2:4, which mapper gemmini-.* does not read"
    ):
        xs.simulate("coded-npu", f"{SHAPE},sparsity=2:4", mapper="gemmini-gemm")


def test_a_decoder_knows_the_encodings_that_it_names(tmp_path: Path) -> None:
    text = (ROOT / "arch_configs" / "coded-npu.yaml").read_text(encoding="utf-8")
    file = tmp_path / "picky.yaml"
    file.write_text(
        text.replace("    latency: 8\n", "    latency: 8\n    encodings: [nm, int4:g128]\n")
    )
    arch = load_arch(file)
    for words in ("sparsity=2:4", "sparsity=1:8", "encoding=int4:g128"):
        assert xs.simulate(arch, f"{SHAPE},{words}").cycles > 0
    for words in ("sparsity=0.3", "encoding=int4:g64"):
        with pytest.raises(AccelsimError, match="has no decoder of it into 'vmem'"):
            xs.simulate(arch, f"{SHAPE},{words}")
    file.write_text(text.replace("    latency: 8\n", "    latency: 8\n    encodings: [zip]\n"))
    with pytest.raises(AccelsimError, match="encodings names 'zip'"):
        load_arch(file)


def test_a_coded_tensor_is_the_weight_of_a_product() -> None:
    from accelsim.workload.coding import coding_of
    from accelsim.workload.graph import Graph

    graph = xs.workload("softmax:rows=4,cols=8")
    coding = coding_of({"sparsity": "2:4"}, "here")
    spec = replace(graph.tensors["softmax.x"], role="weight", coding=coding)
    with pytest.raises(AccelsimError, match=r"stored as nm:2:4; accepted: as the weight of a prod"):
        Graph("g", {**graph.tensors, "softmax.x": spec}, graph.operators)
    with pytest.raises(AccelsimError, match="only a weight that is a matrix is coded"):
        replace(graph.tensors["softmax.x"], coding=coding)


def test_damaged_bytes_in_memory_name_the_instruction() -> None:
    from accelsim.functional.check import load_image
    from accelsim.functional.execute import execute
    from accelsim.functional.memory import Memory

    graph = xs.workload("gemm:m=4,n=16,k=32,sparsity=2:4,dtype=int8")
    arch = xs.arch("coded-npu")
    program = compile_program(
        graph, graph.operators, arch, plan_memory(graph, arch, "bandwidth"), "bandwidth"
    )
    values = graph_values(graph)
    coded = coded_weights(graph, values)
    memory = Memory(program)
    load_image(program, memory, values, coded)
    index = next(i for i, info in enumerate(program.storages) if info.name == "gemm.b")
    tile = program.storages[index].tiles[0]
    bad = coded["gemm.b"].tile(tile).copy()
    bad[-1] = 0x33
    memory.fill_tile(index, tile, bad)
    with pytest.raises(AccelsimError, match=r"instruction \d+ of gemm on decoder: nm:2:4: indices"):
        execute(program, [arch.units[slot.unit] for slot in program.units], memory)
    with pytest.raises(AccelsimError, match=r"a tile of gemm\.b has 3 bytes, its place"):
        memory.fill_tile(index, tile, bad[:3])


def test_the_room_of_a_quantised_weight_is_little_more_than_its_bytes() -> None:
    for words in ("encoding=int4:g128", "sparsity=2:4", "sparsity=0.3"):
        spec = xs.workload(f"gemm:m=16,n=4096,k=4096,{words}").tensors["gemm.b"]
        assert spec.bytes < spec.room < 1.12 * spec.bytes
    code = encoding("int4:g128")
    assert code.nbytes(4096, 4096, number_format("fp16")) == 4096**2 * 4.125 / 8
