"""What may lie in banks that compute and what may not, and how listings show it."""

from __future__ import annotations

from pathlib import Path

import pytest

import accelsim as xs
from accelsim.arch.catalog import library_folder
from accelsim.errors import AccelsimError
from accelsim.numerics.formats import FORMATS
from accelsim.program.builder import Builder
from accelsim.program.listing import lines
from accelsim.program.table import AddressSpace, OperatorInfo, Program, StorageInfo, UnitSlot
from accelsim.simulation import compile_program, plan_memory
from accelsim.workload.graph import Graph

SOFT_TOKEN = """\
name: soft-token
dtype: fp16
operators:
  - {name: embed, kind: embedding, vocab: 700, hidden: 512, tokens: 2}
  - {name: mix, kind: gemm, m: 1, n: 512, k: 700, inputs: {b: embed.table}}
  - {name: other, kind: gemm, m: 1, n: 512, k: 700}
"""


def program_of(graph: Graph, machine: xs.Architecture, mapper: tuple[str, ...] = ()) -> Program:
    plan = plan_memory(graph, machine, "bandwidth", mapper)
    return compile_program(graph, graph.operators, machine, plan, "bandwidth", mapper)


def test_a_table_that_is_gathered_stays_out_of_the_banks(tmp_path: Path) -> None:
    file = tmp_path / "soft.yaml"
    file.write_text(SOFT_TOKEN)
    graph, machine = xs.workload(str(file)), xs.arch("neupims")
    assert list(plan_memory(graph, machine, "bandwidth").placed) == ["other.b"]
    verdict = xs.check(machine, graph)
    assert verdict.ok, verdict.first
    assert ["banks" in one.arithmetic for one in verdict.operators] == [False, False, True]


@pytest.mark.parametrize("arch", ["neupims", "pim-gpt", "aim"])
def test_tied_embeddings_lie_in_the_banks_row_by_row(arch: str) -> None:
    small = {"layers": 1, "heads": 10, "hidden": 1280, "ffn": 512, "vocab": 700}
    graph, machine = xs.workload("gpt2", phase="decode", batch=2, context=8, **small), xs.arch(arch)
    wanted = ("pim-gemv",)
    placed = plan_memory(graph, machine, "bandwidth", wanted).placed
    assert placed["embedding.weight"].in_columns
    assert not placed["layer0.ffn.up_proj.weight"].in_columns
    verdict = xs.check(machine, graph, mapper=wanted)
    assert verdict.ok, verdict.first
    by_name = {one.name: one.arithmetic for one in verdict.operators}
    assert "banks" in by_name["lm_head"]
    assert by_name["embedding"] == "copy"


def test_a_gather_from_a_table_in_pieces_is_refused() -> None:
    build = Builder([UnitSlot("dma", "dma", 0)], [AddressSpace("hbm", "hbm", 1 << 20, -1)])
    build.begin_operator(OperatorInfo("embed", "embedding", "by-hand", 0))
    table = build.storage(StorageInfo("table", 0, 0, 256, "weight", (8, 16), "bf16"))
    ids = build.storage(StorageInfo("ids", 0, 256, 64, "input", (2,), "int32"))
    rows = build.storage(StorageInfo("rows", 0, 512, 64, "buffer"))
    fmt = FORMATS["bf16"]
    views = rows.view(2, 16, fmt), table.view(8, 16, fmt), ids.view(2, 1, FORMATS["int32"])
    build.gather(0, *views)
    halves = (slice(0, 4), slice(4, 8))
    build.pieces = lambda v: [(r, slice(0, v.cols), v[r, 0 : v.cols]) for r in halves]
    with pytest.raises(AccelsimError, match="rows of table are gathered, and not all of them lie"):
        build.gather(0, *views)


def test_the_listing_tells_products_in_banks_and_what_lies_there() -> None:
    small = {"layers": 1, "heads": 2, "hidden": 256, "ffn": 64, "vocab": 64, "dtype": "fp16"}
    graph = xs.workload("gpt3-7b", phase="decode", contexts="45+700", **small)
    program = program_of(graph, xs.arch("neupims"), ("pim-attention", "pim-gemv"))
    text = list(lines(program))
    caches = [one for one in text if "layer0.attention.k_cache@" in one and one.startswith("#")]
    assert "in regions of banks: 4 " in caches[0]  # two heads of two requests
    products = [one for one in text if "  PIM" in one]
    scores = [one for one in products if "k_cache" in one]
    assert all("PIM/abreast" in one for one in scores)
    assert "k_cache@hbm+" in scores[0]
    assert "[700x256 fp16/32768]" in scores[0]
    values = [one for one in products if "v_cache" in one]
    assert values
    assert not any("abreast" in one for one in values)


DECODER = (
    "{kind: decoder, staging: spad, target: spad, elements_per_cycle: 512,"
    " coded_bytes_per_cycle: 256, latency: 8}"
)


def test_coded_weights_pass_the_banks_by(tmp_path: Path) -> None:
    coded = "gemm:m=1,n=512,k=512,dtype=fp16,encoding=int4:g128"
    words = "neupims has no decoder of it into 'spad', nor do its banks read it; accepted: an arch"
    with pytest.raises(AccelsimError, match=words):
        xs.simulate("neupims", coded, mapper="pim-gemv")
    text = (library_folder() / "neupims.yaml").read_text()
    file = tmp_path / "coded.yaml"
    file.write_text(text.replace("\nmemories:", f"\n  dec: {DECODER}\n\nmemories:", 1))
    verdict = xs.check(str(file), coded)
    assert verdict.ok, verdict.first
    assert "banks" not in verdict.operators[0].arithmetic
    assert "banks" in xs.check(str(file), "gemm:m=1,n=512,k=512").operators[0].arithmetic
