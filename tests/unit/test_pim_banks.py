"""Banks in step (AiM, PIM-GPT) in tile programs: time, what they hold, what must come out wrong."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import accelsim as xs
from accelsim.engine.bind import bind
from accelsim.engine.merge import run as run_engine
from accelsim.errors import AccelsimError, CapacityError
from accelsim.functional.check import check
from accelsim.hw.pim.cost import product_cost
from accelsim.hw.pim.products.product import Sweep, table_layout
from accelsim.mapping.bank_caches import SpreadCaches
from accelsim.mapping.bank_layouts import address, bank_memory
from accelsim.mapping.bank_weights import weight_places
from accelsim.program.listing import listing
from accelsim.program.opcodes import Flag, Opcode
from accelsim.program.table import COLUMN, Program
from accelsim.program.verify import violations
from accelsim.simulation import _as_run, compile_program, plan_memory
from accelsim.system.bank_decoder import BankDecoder, _Walk
from accelsim.workload.fusion import with_fused_activations
from accelsim.workload.graph import Graph

DECODE = {"phase": "decode", "layers": 1, "heads": 2, "hidden": 128, "ffn": 96, "vocab": 75}


@cache
def machine_of(name: str) -> xs.Architecture:
    return xs.arch(name)


def compiled(name: str, graph: Graph) -> Program:
    machine = machine_of(name)
    plan = plan_memory(graph, machine, "bandwidth")
    return compile_program(graph, graph.operators, machine, plan, "bandwidth")


def in_banks(program: Program) -> np.ndarray:
    return np.flatnonzero(program.column("opcode") == Opcode.PIM)


def with_rows(program: Program, rows: np.ndarray) -> Program:
    return replace(program, instructions=rows)


@pytest.mark.parametrize(
    ("outputs", "inputs", "clocks"),
    [(512, 256, 222), (512, 1024, 414), (1024, 1024, 828), (4096, 2048, 6560), (4096, 4096, 13056)],
)
def test_products_of_aim_take_its_measured_clocks(outputs: int, inputs: int, clocks: int) -> None:
    """First command to last result of all channels, in clocks of 0.5 ns (aim_simulator)."""
    graph = xs.workload("gemm", m=1, n=outputs, k=inputs)
    program = compiled("aim", graph)
    bound = bind(program, machine_of("aim"), "bandwidth")
    ran, mine = run_engine(bound.timed), in_banks(program)
    ticks = ran.finish[mine].max() - ran.start[mine].min()
    per_clock = machine_of("aim").ticks_per_second() // 2_000_000_000
    assert ticks / per_clock == pytest.approx(clocks, rel=0.002)


def test_parts_of_a_product_take_what_the_whole_takes() -> None:
    """Sums held over chunks on AiM, and vectors kept over outputs on PIM-GPT."""

    def cycles(family: str, **how: bool) -> int:
        return product_cost(family, Sweep(1, 1, 16, 1024, abreast=True, **how)).cycles

    first = cycles("aim", ends=False)
    middle, last = cycles("aim", begins=False, ends=False), cycles("aim", begins=False)
    assert (first + middle + last, cycles("aim")) == (414 + 2 * 406, 414)
    whole = product_cost("pim-gpt", Sweep(1, 1, 64, 1024, abreast=True)).cycles
    parts = cycles("pim-gpt") + 3 * cycles("pim-gpt", brings=False)
    assert parts == pytest.approx(whole, abs=4)
    assert cycles("pim-gpt") - cycles("pim-gpt", brings=False) > 60


@pytest.fixture(scope="module")
def held() -> tuple[Graph, Program]:
    graph = xs.workload("gemm", m=1, n=530, k=2100, dtype="bf16")
    return graph, compiled("aim", graph)


def test_sums_stay_in_the_banks_of_aim(held: tuple[Graph, Program]) -> None:
    graph, program = held
    flags = program.column("flags")[in_banks(program)]
    assert ((flags & Flag.HELD) > 0).sum() == ((flags & Flag.ACCUMULATE) > 0).sum() > 0
    assert check(machine_of("aim"), graph, program).ok
    text = listing(program)
    assert "PIM/held" in text
    assert "PIM+acc/held" in text


@pytest.mark.parametrize("lost", [Flag.ACCUMULATE, Flag.HELD])
def test_sums_that_do_not_go_on_are_wrong(held: tuple[Graph, Program], lost: Flag) -> None:
    graph, program = held
    rows = program.instructions.copy()
    mine = in_banks(program)
    one = mine[(rows[mine, COLUMN["flags"]] & lost) > 0][0]
    rows[one, COLUMN["flags"]] &= ~int(lost)
    assert not check(machine_of("aim"), graph, with_rows(program, rows)).ok


def test_a_vector_that_a_channel_no_longer_has_is_wrong() -> None:
    graph = xs.workload("gemm", m=1, n=1100, k=1500, dtype="bf16")
    program = compiled("pim-gpt", graph)
    rows, mine = program.instructions.copy(), in_banks(program)
    kept = (rows[mine, COLUMN["flags"]] & Flag.KEPT) > 0
    assert kept.any()
    assert check(machine_of("pim-gpt"), graph, program).ok
    # The first product with the second chunk of a channel goes on with the first chunk.
    channel = rows[mine, COLUMN["unit"]] == rows[mine[0], COLUMN["unit"]]
    further = mine[channel & ~kept][1]
    rows[further, COLUMN["flags"]] |= int(Flag.KEPT)
    assert not check(machine_of("pim-gpt"), graph, with_rows(program, rows)).ok


def test_forgotten_waits_and_wrong_places_are_found() -> None:
    graph = xs.workload("gpt2", context=40, **DECODE)
    program = compiled("pim-gpt", graph)
    mine, rows = in_banks(program), program.instructions.copy()
    rows[mine[0], COLUMN["dep0"] : COLUMN["dep0"] + 3] = -1
    found = violations(with_rows(program, rows))
    assert found
    assert found[0].kind == "read-after-write"
    storages = list(program.storages)
    index = next(i for i, s in enumerate(storages) if s.name.endswith("v_cache"))
    regions = list(storages[index].regions)
    a, b = regions[0].offset, regions[1].offset
    regions[0], regions[1] = regions[0]._replace(offset=b), regions[1]._replace(offset=a)
    storages[index] = replace(storages[index], regions=tuple(regions))
    wrong = check(machine_of("pim-gpt"), graph, replace(program, storages=tuple(storages)))
    assert wrong.first is not None
    assert "v_append" in wrong.first.operator or "attend" in wrong.first.operator


def test_banks_without_such_memory_refuse(held: tuple[Graph, Program]) -> None:
    graph = xs.workload("gemm", m=1, n=64, k=512, dtype="fp16")
    machine = xs.arch("neupims")
    plan = plan_memory(graph, machine, "bandwidth", ("pim-gemv",))
    program = compile_program(graph, graph.operators, machine, plan, "bandwidth", ("pim-gemv",))
    rows = program.instructions.copy()
    rows[in_banks(program)[0], COLUMN["flags"]] |= int(Flag.HELD)
    with pytest.raises(AccelsimError, match="neupims keep nothing from one product to the next"):
        bind(with_rows(program, rows), machine, "bandwidth")
    wide = xs.workload("gemm", m=1, n=1100, k=200, dtype="bf16")
    program = compiled("pim-gpt", wide)
    rows = program.instructions.copy()
    rows[in_banks(program)[0], COLUMN["flags"]] |= int(Flag.HELD)
    with pytest.raises(AccelsimError, match="sums beside 16 banks, each of which keeps one"):
        bind(with_rows(program, rows), machine_of("pim-gpt"), "bandwidth")


def test_rows_of_a_table_are_equally_far_apart() -> None:
    memory = bank_memory(machine_of("pim-gpt"))
    layout = table_layout(memory.grid, 700, 1500)
    size = memory.part.organization.row_bytes
    assert {address(memory, layout, r, 0) - r * size for r in range(700)} == {0}
    second = {address(memory, layout, r, 1024) - r * size for r in range(700)}
    assert len(second) == 1
    places = weight_places(memory, 1500, 700, True)
    assert sorted(n for s in places.shares if not s.sums for n in s.numbers) == [*range(700)]
    graph = xs.workload("gpt2", context=3, **(DECODE | {"hidden": 1280, "heads": 20}))
    assert xs.check(machine_of("pim-gpt"), graph).ok


def test_pieces_cover_every_output_once() -> None:
    memory = bank_memory(machine_of("pim-gpt"))
    for outputs, table in ((1000, False), (1000, True), (37, False), (37, True)):
        places = weight_places(memory, 1500, outputs, table)
        for width in (128, 300, 5000):
            pieces = places.pieces(width)
            found = [n for p in pieces for _, numbers in p.runs for n in numbers]
            assert sorted(found) == [*range(outputs)]
            assert max(p.width for p in pieces) <= width
            shares = [job.share for p in pieces for job in p.jobs]
            assert sum(len(s.numbers) for s in shares) == outputs * places.sums
    with pytest.raises(CapacityError, match="sums of 16 outputs in each of 8 channels do not fit"):
        weight_places(memory, 64, 1000).pieces(100)


def test_no_two_elements_of_the_caches_meet() -> None:
    graph = xs.workload("gpt2", contexts="45+300+7", **DECODE)
    attend = next(op for op in graph.operators if op.kind == "attention")
    memory = bank_memory(machine_of("pim-gpt"))
    places = SpreadCaches.of(attend, memory)
    for keys, regions in ((True, places.key_regions), (False, places.value_regions)):
        lines = [
            one.offset
            + np.add.outer(np.arange(one.rows) * one.row_step, np.arange(one.cols) * one.col_step)
            for one in regions
        ]
        found = np.concatenate([line.ravel() for line in lines])
        assert len(found) == 2 * 64 * (45 + 300 + 7)
        assert len(np.unique(found)) == len(found)
        assert found.max() < places.placed(keys).nbytes
    one = places.requests[1]
    row = next(r for r in places.key_regions if r.row == 2 * 45 + 300 + 144)  # head 1, token 144
    assert row.offset == places.memory.bank_pitch * 0 + address(memory, one.keys, 144, 64)


def test_heads_that_do_not_divide_a_row_leave_its_end_empty() -> None:
    memory = bank_memory(machine_of("pim-gpt"))
    graph = xs.workload("gpt2", context=30, **(DECODE | {"heads": 12, "hidden": 12 * 96}))
    attend = next(op for op in graph.operators if op.kind == "attention")
    one = SpreadCaches.of(attend, memory).requests[0]
    place = one.keys.place(np.array([3, 3, 3]), np.array([959, 960, 1151]))
    assert place.column.tolist() == [959, 0, 191]
    assert (place.row[1:] == place.row[0] + 1).all()
    assert xs.check(machine_of("pim-gpt"), graph).ok


def test_every_query_of_a_key_head_takes_its_own_products() -> None:
    memory = bank_memory(machine_of("pim-gpt"))
    graph = xs.workload(
        "llama-3-8b", batch=2, context=300, **(DECODE | {"heads": 8, "kv_heads": 2, "hidden": 512})
    )
    attend = next(op for op in graph.operators if op.kind == "attention")
    places = SpreadCaches.of(attend, memory)
    assert places.shared == attend.heads // 2 > 1
    assert places.cycles == places.shared * replace(places, shared=1).cycles


@pytest.mark.parametrize(
    ("work", "words"),
    [
        ("gpt2:tokens=8,layers=1", "spread-attention accepts one query per sequence"),
        ("attention:heads=3,q=1,kv=40,d=24", "heads of whole turns of 16 banks, not 24"),
        ("gemm:m=1,n=64,k=64,dtype=fp32", "accepts weights and caches of the width of its banks"),
        ("gemm:m=65,n=64,k=64", "pim-gemv accepts x W of up to 64 rows"),
        (
            "gpt2:phase=decode,context=30000,layers=1,positions=32000",
            "scores of 30,000 tokens do not fit into sram twice",
        ),
    ],
)
def test_what_its_banks_do_not_compute(work: str, words: str) -> None:
    with pytest.raises(AccelsimError, match=words):
        xs.simulate(machine_of("pim-gpt"), work)


class TestFusion:
    def test_only_what_nobody_else_reads(self) -> None:
        graph = xs.workload("gpt2", context=3, **DECODE)
        fused = with_fused_activations(graph)
        assert len(fused.operators) == len(graph.operators) - 1
        assert fused.operator("layer0.ffn.up_proj").activation == "gelu_tanh"
        assert "layer0.ffn.up_proj.out" not in fused.tensors
        assert with_fused_activations(fused) is fused
        gated = xs.workload("llama-2-7b", context=3, **(DECODE | {"kv_heads": 2}))
        assert not any(op.kind == "activation" for op in with_fused_activations(gated).operators)

    def test_machines_that_do_not_ask_keep_theirs(self) -> None:
        graph = xs.workload("gpt2", context=3, **DECODE)
        assert _as_run(graph, machine_of("aim")) is graph
        assert xs.check(machine_of("pim-gpt"), graph).ok


def test_activations_lie_on_chip_where_they_have_room() -> None:
    graph = xs.workload("gpt2", context=3, **DECODE)
    machine = machine_of("pim-gpt")
    plan = plan_memory(graph, machine, "bandwidth")
    kinds = {name: spec.role for name, spec in graph.tensors.items()}
    assert plan.on_chip == {name for name, role in kinds.items() if role == "activation"}
    small = xs.arch("pim-gpt", {"lines.capacity": "512 B"})
    some = plan_memory(graph, small, "bandwidth").on_chip
    assert set() < some < plan.on_chip
    assert xs.check(small, graph).ok
    assert xs.simulate(small, graph).cycles > xs.simulate(machine, graph).cycles


def step(model: str, context: int, **change: object) -> xs.Result:
    machine = xs.arch("pim-gpt", change) if change else machine_of("pim-gpt")
    return xs.simulate(machine, f"{model}:phase=decode,context={context}")


@pytest.mark.parametrize(("model", "context"), [("gpt2", 700), ("gpt3-xl", 300)])
def test_programs_take_what_streams_one_after_the_other_take(model: str, context: int) -> None:
    """bank_decoder adds up the same products, and appends command by command."""
    graph, decoder = xs.workload(model, phase="decode", context=context), BankDecoder()
    walk = _Walk(decoder, graph)
    assert walk.attention is not None
    spent = walk.spent + decoder.attend(walk.attention, context).times(walk.layers)
    assert step(model, context).seconds == pytest.approx(spent.seconds, rel=0.05)


def test_a_slow_asic_costs_the_largest_model_a_fifth_at_most() -> None:
    fast, slow = step("gpt3-xl", 512), step("gpt3-xl", 512, clock="100 MHz")
    assert 1.1 < slow.seconds / fast.seconds < 1.2
