"""Compute in memory as part of a machine: programs, places, numbers, time, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import accelsim as xs
from accelsim import arch_configs
from accelsim.arch.describe import describe as describe_machine
from accelsim.engine.bind import bind
from accelsim.errors import AccelsimError, CapacityError
from accelsim.functional.check import check
from accelsim.hw.pim.catalog import family as find_family
from accelsim.hw.pim.cost import product_cost, refresh_share
from accelsim.hw.pim.describe import describe
from accelsim.hw.pim.loader import FOLDER
from accelsim.hw.pim.products.product import Sweep
from accelsim.hw.pim.products.registry import PRODUCTS
from accelsim.hw.pim.run import run_pim
from accelsim.hw.pim.unit import Pim
from accelsim.mapping.channel_caches import CachePlaces
from accelsim.numerics.arithmetic import arithmetic, types_of
from accelsim.program.opcodes import Opcode
from accelsim.program.table import COLUMN, Program
from accelsim.program.verify import violations
from accelsim.simulation import compile_program, plan_memory
from accelsim.workload.graph import Graph

SMALL = {"phase": "decode", "layers": 1, "dtype": "fp16", "ffn": 64, "vocab": 64}
FORCED = ("pim-attention",)


def decode(**settings: object) -> Graph:
    """A small decode step of a GPT-3."""
    return xs.workload("gpt3-7b", **(SMALL | {"heads": 2, "hidden": 256} | settings))


def program_of(graph: Graph, arch: str = "neupims") -> Program:
    machine = xs.arch(arch)
    plan = plan_memory(graph, machine, "bandwidth", FORCED)
    return compile_program(graph, graph.operators, machine, plan, "bandwidth", FORCED)


@pytest.fixture(scope="module")
def ragged() -> tuple[Graph, Program]:
    """Requests of several rows of tokens, of less than a turn of the banks, and of one token."""
    graph = decode(contexts="45+700+32+1+129")
    return graph, program_of(graph)


def test_banks_attend_and_every_number_is_right(ragged: tuple[Graph, Program]) -> None:
    graph, program = ragged
    verdict = check(xs.arch("neupims"), graph, program)
    assert verdict.ok, verdict.first
    attended = next(one for one in verdict.operators if one.kind == "attention")
    assert "banks of neupims" in attended.arithmetic
    assert attended.reduction == "split:2:512:forward:fp32;tree:16"
    assert (program.column("opcode") == Opcode.PIM).sum() == 5 + 4 + 2 * 2


def test_grouped_heads_on_both_families_in_the_clocks_order() -> None:
    settings = {**SMALL, "heads": 8, "kv_heads": 2, "hidden": 1024, "batch": 3, "context": 40}
    graph = xs.workload("llama-2-7b", **settings)
    for machine in ("neupims", "npu-pim"):
        assert xs.check(xs.arch(machine), graph, mapper="pim-attention").ok


@pytest.mark.parametrize("cache", ["layer0.attention.k_cache", "layer0.attention.v_cache"])
def test_a_wrong_place_gives_wrong_numbers(ragged: tuple[Graph, Program], cache: str) -> None:
    graph, program = ragged
    storages = list(program.storages)
    index = next(i for i, one in enumerate(storages) if one.name == cache)
    # The two heads of the longest request change places.
    regions = list(storages[index].regions)
    mine = [i for i, one in enumerate(regions) if one.rows >= 500]
    a, b = mine[0], mine[1]
    swapped = regions[a].offset, regions[b].offset
    regions[a] = regions[a]._replace(offset=swapped[1])
    regions[b] = regions[b]._replace(offset=swapped[0])
    storages[index] = replace(storages[index], regions=tuple(regions))
    wrong = check(xs.arch("neupims"), graph, replace(program, storages=tuple(storages)))
    assert not wrong.ok
    assert wrong.first is not None
    assert "attention" in wrong.first.operator


def test_elements_of_a_cache_lie_at_their_layouts_addresses() -> None:
    graph = decode(contexts="45+700+33")
    attend = next(op for op in graph.operators if op.kind == "attention")
    memory = xs.arch("neupims").main_memory()[1]
    places = CachePlaces.of(attend, memory)
    for keys in (True, False):
        regions = places.key_regions if keys else places.value_regions
        rows = [0]
        for one in regions:
            assert one.row == rows[-1]
            rows.append(one.row + one.rows)
        assert rows[-1] == 2 * (45 + 700 + 33)
    # Head 1, token 600 of request 1: row 90 + 700 + 600 of the cache of values.
    one = next(r for r in places.value_regions if r.row <= 1390 < r.row + r.rows)
    request = places.requests[1]
    found = one.offset + (1390 - one.row) * one.row_step + 70 * one.col_step
    assert found == places.address(request.values, 128 + 70, 600)
    one = next(r for r in places.key_regions if r.row <= 1390 < r.row + r.rows)
    found = one.offset + (1390 - one.row) * one.row_step + 70 * one.col_step
    assert found == places.address(request.keys, 600, 128 + 70)


def test_no_two_elements_of_a_batch_share_an_address() -> None:
    graph = decode(contexts="+".join(str(30 + 7 * i) for i in range(13)))
    attend = next(op for op in graph.operators if op.kind == "attention")
    machine = xs.arch("neupims", {"hbm.channels": 4, "pim.count": 4, "hbm.capacity": "4 GiB"})
    places = CachePlaces.of(attend, machine.main_memory()[1])
    for regions in (places.key_regions, places.value_regions):
        lines = [
            one.offset
            + np.add.outer(np.arange(one.rows) * one.row_step, np.arange(one.cols) * one.col_step)
            for one in regions
        ]
        found = np.concatenate([line.ravel() for line in lines])
        assert len(np.unique(found)) == len(found)


def test_a_product_takes_what_its_commands_take() -> None:
    for name in ("neupims", "newton"):
        share, alone = refresh_share(name)
        assert share > alone
        taken = run_pim(name, "logit:tokens=256,heads=4", refresh=False).cycles
        assert product_cost(name, Sweep(1, 4, 256, 128, abreast=True)).cycles == -(
            -taken * share // alone
        )
        taken = run_pim(name, "attend:tokens=256,heads=1", refresh=False).cycles
        assert product_cost(name, Sweep(1, 1, 128, 256)).cycles == -(-taken * share // alone)


def test_only_single_row_buffers_hold_the_memory() -> None:
    graph = decode(batch=3, context=40)
    for machine, holds in (("neupims", False), ("npu-pim", True)):
        program = program_of(graph, machine)
        bound = bind(program, xs.arch(machine))
        mine = program.column("opcode") == Opcode.PIM
        port = bound.port_names.index("hbm")
        held = np.where(bound.timed.port[mine] == port, bound.timed.hold[mine], 0).sum()
        share = bound.work[mine].sum() / 32
        assert (held > 0.9 * share) == holds


@pytest.mark.parametrize("source", ["dep0", "src1"])
def test_a_product_that_does_not_wait_is_found(ragged: tuple[Graph, Program], source: str) -> None:
    _, program = ragged
    rows = program.instructions.copy()
    i = int(np.flatnonzero(program.column("opcode") == Opcode.PIM)[0])
    if source == "dep0":
        mine = rows[:, COLUMN["unit"]] == rows[i, COLUMN["unit"]]
        rows[mine, COLUMN["dep0"] : COLUMN["dep0"] + 3] = -1
    else:
        rows[i, COLUMN["src1"]] = rows[i, COLUMN["src0"]]
    found = violations(replace(program, instructions=rows))
    assert found
    assert found[0].kind == ("read-after-write" if source == "dep0" else "structure")


def test_more_requests_go_to_memory_few_to_the_arrays() -> None:
    def mapper_of(batch: int) -> str:
        graph = xs.workload("gpt3-7b", phase="decode", layers=1, context=257, tp=4, batch=batch)
        attend = [op for op in graph.operators if op.kind == "attention"]
        run = xs.simulate(xs.arch("neupims"), graph)
        return next(one.mapper for one in run.operators if one.name == attend[0].name)

    assert mapper_of(2) == "flash-attention"
    assert mapper_of(32) == "pim-attention"


@pytest.mark.parametrize(
    "shape", ["m=1,n=96,k=700,bias=true,residual=true", "m=3,n=2080,k=1300", "m=2,n=1024,k=512"]
)
def test_weights_stay_in_the_banks(shape: str) -> None:
    machine = xs.arch("neupims")
    graph = xs.workload(f"gemm:{shape},dtype=fp16")
    verdict = xs.check(machine, graph, mapper="pim-gemv")
    assert verdict.ok, verdict.first
    assert "banks of neupims" in verdict.operators[0].arithmetic


def test_kernels_of_hbm_pim() -> None:
    machine = xs.arch("hbm-pim")
    for shape in ("m=2,n=4144,k=300,bias=true", "m=1,n=16,k=1"):
        verdict = xs.check(machine, f"gemm:{shape},dtype=fp16", mapper="pim-gemv")
        assert verdict.ok, verdict.first
        assert verdict.operators[0].reduction == "lanes:16"
    # A channel's last block is not full; and sums that the buffer does not hold at once.
    for outputs, kernels in ((151_936, 63), (400_000, 255)):
        wide = xs.workload(f"gemm:m=1,n={outputs},k=256,dtype=fp16")
        assert products_of(wide, machine) == kernels
    run = xs.simulate(machine, "gemm:m=1,n=4096,k=1024,dtype=fp16")
    assert run.mapper == "pim-gemv"
    alone = run_pim("hbm-pim", "gemv:m=4096,n=1024").cycles
    assert product_cost("hbm-pim", Sweep(1, 1, 64, 1024, True)).cycles == alone
    # Beside the kernel: results over the port, and what the host adds.
    assert alone + 128 <= run.cycles < 1.06 * alone


def test_a_decoder_step_beside_hbm_pim() -> None:
    graph = decode(batch=1, context=40, ffn=512)
    machine = xs.arch("hbm-pim")
    verdict = xs.check(machine, graph, mapper="pim-gemv")
    assert verdict.ok, verdict.first
    mine = [one for one in verdict.operators if "banks of hbm-pim" in one.arithmetic]
    assert len(mine) == 6
    with pytest.raises(AccelsimError, match="caches of which each lies in one channel"):
        xs.simulate(machine, graph, mapper="pim-attention")


@pytest.mark.parametrize(("n", "k", "within"), [(4096, 1024, 0.02), (4096, 256, 0.06)])
def test_a_kernel_in_simulated_channels(n: int, k: int, within: float) -> None:
    """As long as at bandwidth fidelity, where results are read without opening their rows, and
    refresh comes at a time of its own."""
    work = f"gemm:m=1,n={n},k={k},dtype=fp16"
    machine = xs.arch("hbm-pim", {"hbm.refresh": False})
    there = xs.simulate(machine, work, memory="dram", mapper="pim-gemv")
    ((schedule, program),) = [(one.schedule, one.bound.program) for one in there.segments]
    channels = schedule.activity.channels
    sent = {name: channels.total(name) for name in ("MAC_HAB", "ST_GRF", "RD", "MODE")}
    vector = k * 2 // 32  # bursts that the host reads before
    assert sent == {"MAC_HAB": 32 * k, "ST_GRF": 512, "RD": 4096 + vector, "MODE": 256}
    mine = program.column("opcode") == Opcode.PIM
    (span,) = set((schedule.finish - schedule.start)[mine].tolist())
    taken = product_cost("hbm-pim", Sweep(1, 1, 64, k, True))
    cost = taken.latency - dict(taken.commands).get("REFAB", 0) * 350
    assert cost <= span <= (1 + within) * cost


def test_what_the_lanes_of_hbm_pim_do_not_multiply() -> None:
    (unit,) = xs.arch("hbm-pim").units_of(Pim).values()
    with pytest.raises(AccelsimError, match="no bf16 x bf16 -> fp32; supported: fp16"):
        unit.rule(types_of("bf16", "bf16", "fp32"))
    with pytest.raises(AccelsimError, match="hbm-pim multiply fp16, not bf16; accepted: dtype=f"):
        xs.simulate("hbm-pim", "gemm:m=1,n=4096,k=64,dtype=bf16", mapper="pim-gemv")


def test_kernels_are_taken_where_they_are_sooner() -> None:
    machine = xs.arch("hbm-pim")
    # Half of the units have nothing to do: PIMSimulator's kernel loses against reads here, too.
    assert xs.simulate(machine, "gemm:m=1,n=1024,k=1024,dtype=fp16").mapper == "systolic-gemm"
    step = xs.workload("gpt3-xl", phase="decode", layers=1, batch=1, context=128, dtype="fp16")
    layer = [
        sum(one.cycles for one in xs.simulate(machine, step, mapper=wanted).operators
            if one.name.startswith("layer0"))
        for wanted in ((), "systolic-gemm")
    ]  # fmt: skip
    assert layer[0] < 0.75 * layer[1]


def test_units_beside_a_memory_without_banks_of_theirs(tmp_path: Path) -> None:
    text = (Path(arch_configs.__file__).parent / "hbm-pim.yaml").read_text()
    for kind, words in (
        ("dram, device: hbm2", r"hbm \(kind: dram\) has no units beside its banks"),
        ("dram_like", "unknown kind 'dram_like'"),
        ("pim_dram, family: neupims", "64 channels of hbm-pim on hbm, which has 64 of neupims"),
    ):
        file = tmp_path / "own.yaml"
        file.write_text(text.replace("pim_dram, family: hbm-pim", kind))
        with pytest.raises(AccelsimError, match=words) as fault:
            xs.arch(str(file))
        assert "\n" not in str(fault.value)


def products_of(graph: Graph, machine: xs.Architecture) -> int:
    """Products in the banks of the program that the machine runs."""
    plan = plan_memory(graph, machine, "bandwidth")
    program = compile_program(graph, graph.operators, machine, plan, "bandwidth")
    return int((program.column("opcode") == Opcode.PIM).sum())


@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_weights_of_other_widths_go_to_the_arrays(dtype: str) -> None:
    graph = xs.workload("gemm", m=1, n=2048, k=2048, dtype=dtype)
    assert products_of(graph, xs.arch("neupims")) == 0
    assert products_of(xs.workload("gemm", m=1, n=2048, k=2048, dtype="fp16"), xs.arch("neupims"))


def test_weights_that_a_step_updates_do_not_lie_in_the_banks() -> None:
    small = {"layers": 1, "heads": 2, "hidden": 512, "ffn": 512, "vocab": 64, "dtype": "fp16"}
    step = xs.workload("gpt2", phase="train", batch=1, context=4, optimizer="sgd", **small)
    machine = xs.arch("neupims")
    wanted = ("pim-gemv",)
    assert not plan_memory(step, machine, "bandwidth", wanted).placed
    prefill = xs.workload("gpt2", tokens=4, **small)
    assert plan_memory(prefill, machine, "bandwidth", wanted).placed
    assert xs.check(machine, step, mapper="pim-gemv").ok


def test_coded_weights_are_not_looked_for_in_the_banks() -> None:
    with pytest.raises(AccelsimError, match="neupims has no decoder of it"):
        xs.simulate("neupims", "gemm:m=1,n=2048,k=2048,dtype=fp16,encoding=int4:g128")


def test_one_vector_is_sooner_in_memory_many_on_the_arrays() -> None:
    machine = xs.arch("neupims")
    run = {
        (m, name): xs.simulate(machine, f"gemm:m={m},n=5120,k=5120,dtype=fp16", mapper=name)
        for m, name in ((1, ()), (1, "systolic-gemm"), (16, ()), (16, "pim-gemv"))
    }
    assert run[1, ()].mapper == "pim-gemv"
    assert run[16, ()].mapper == "systolic-gemm"
    assert 3 * run[1, ()].cycles < run[1, "systolic-gemm"].cycles
    assert run[16, ()].cycles < run[16, "pim-gemv"].cycles
    assert run[1, ()].traffic_bytes["hbm"]["read"] < 5120 * 5120 * 2 / 10


def test_a_decoder_step_in_memory() -> None:
    graph = decode(batch=1, context=40, ffn=512)
    verdict = xs.check(xs.arch("neupims"), graph, mapper=("pim-attention", "pim-gemv"))
    assert verdict.ok, verdict.first
    mine = [one for one in verdict.operators if "banks of" in one.arithmetic]
    assert len(mine) == 8  # with the table of the words


class TestSubBatches:
    def test_numbers_are_right_and_layers_repeat(self) -> None:
        graph = decode(contexts="45+70+32+5+129", subbatch=2, subbatch_min=2, layers=3)
        assert [one.count for one in graph.segments()] == [1, 2, 1]
        assert xs.check(xs.arch("neupims"), graph, mapper="pim-attention").ok

    def test_one_half_attends_while_the_other_multiplies(self) -> None:
        settings = {"phase": "decode", "layers": 2, "context": 257, "tp": 4, "batch": 128}
        whole = xs.workload("gpt3-7b", **settings)
        halves = xs.workload("gpt3-7b", subbatch=2, subbatch_min=64, **settings)
        machine = xs.arch("neupims")
        attention = sum(o.cycles for o in xs.simulate(machine, whole).operators
                        if o.kind == "attention")  # fmt: skip
        hidden = sum(o.cycles for o in xs.simulate(machine, halves).operators
                     if o.kind == "attention")  # fmt: skip
        assert hidden < 0.6 * attention

    def test_halves_never_take_each_others_place(self) -> None:
        graph = decode(batch=4, context=9, subbatch=2, subbatch_min=2, layers=3)
        machine = xs.arch("neupims")
        plan = plan_memory(graph, machine, "bandwidth", FORCED)
        assert any(plan.follows.values())
        for name, earlier in plan.follows.items():
            assert {graph.lanes[one] for one in earlier} <= {graph.lanes[name]}
        extents = {1: [], 2: []}  # type: dict[int, list[tuple[int, int]]]
        for name, lane in graph.lanes.items():
            first = plan.base[name]
            extents[lane].append((first, first + graph.tensors[name].bytes))
        first, second = sorted(extents.values())
        assert max(end for _, end in first) <= min(start for start, _ in second)

    def test_pairs_of_requests_are_split(self) -> None:
        graph = decode(contexts="1+2+3+4+100+200", subbatch=2, subbatch_min=2)
        lengths = [op.lengths for op in graph.operators if op.kind == "attention"]
        assert sorted(sum(lengths, ())) == [1, 2, 3, 4, 100, 200]
        assert sorted(max(one) for one in lengths) == [100, 200]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch": 255, "subbatch": 2, "context": 9}, "batch 255; accepted: batch from 256"),
        ({"batch": 2, "subbatch": 3, "context": 9}, "subbatch 3 in a decode; accepted: 1, or 2"),
    ],
)
def test_batches_that_are_not_split(settings: dict[str, object], words: str) -> None:
    with pytest.raises(AccelsimError, match=words):
        decode(**settings)


def test_a_cache_beyond_memory_tells_how_many_tokens_fit() -> None:
    graph = xs.workload("gpt3-30b", phase="decode", batch=512, context=2000)
    with pytest.raises(CapacityError, match=r"KV cache of 1,024,000 tokens .* tokens fit"):
        xs.simulate(xs.arch("neupims"), graph)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pim.count": 16}, "16 channels of neupims on hbm, which has 32 of neupims"),
        ({"pim.family": "newton"}, "32 channels of newton on hbm, which has 32 of neupims"),
        ({"pim.memory": "spad"}, r"spad \(kind: sram\) has no units beside its banks"),
        ({"pim.dma": "vpu"}, "'vpu' is no DMA engine"),
        ({"hbm.mapping": "RoRaBaCoPcChCo4Bg"}, "accepted: RoRaBgBaChCo without hashing"),
    ],
)
def test_machines_that_do_not_fit_together(change: dict[str, object], words: str) -> None:
    with pytest.raises(AccelsimError, match=words):
        xs.arch("neupims", change)


def test_sums_are_those_that_the_family_says(tmp_path: Path) -> None:
    """In whatever format and order, and another arithmetic only where the architecture names it."""
    text, work = (FOLDER / "newton.yaml").read_text(), "gemm:m=1,n=64,k=600,dtype=fp16"
    types = types_of("fp16", "fp16", "fp32")
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(np.float16) for shape in ((1, 600), (600, 64)))
    bits = set()
    for words, name in (
        ("accumulate: fp32, order: tree", "tree16-fp32"),
        ("accumulate: fp16, order: tree", "tree16-fp16"),
        ("accumulate: fp16, order: lanes", "macs16-fp16"),
        ("accumulate: fp32, order: tree, sum_banks: 2", "banks2-tree16-fp32"),
    ):
        file = tmp_path / f"{name}.yaml"
        file.write_text(text.replace("accumulate: fp32, order: tree", words))
        own = {"pim.family": f"{file}:neupims", "hbm.family": f"{file}:neupims"}
        (one,) = xs.check("neupims", work, mapper="pim-gemv", overrides=own).operators
        assert f"{name} (banks of" in one.arithmetic
        assert not one.mismatches
        (unit,) = xs.arch("neupims", own).units_of(Pim).values()
        sums = unit.multiply(a, b, None, types)
        assert np.array_equal(sums, arithmetic(name).rule(types).multiply(a, b, None))
        bits.add(sums.tobytes())
        named = {**own, "pim.arithmetic": "tree16-fp32-bf16"}
        (other,) = xs.check("neupims", work, mapper="pim-gemv", overrides=named).operators
        assert "tree16-fp32-bf16 (banks of" in other.arithmetic
    assert len(bits) == 4


@pytest.mark.parametrize(
    ("name", "sums", "column_sums"),
    [
        ("attacc", "banks4-tree16-fp32", "macs16x2-fp16"),
        ("hbm-pim", "macs16-fp16", ""),
        ("pim-gpt", "tree16-fp32", ""),
    ],
)
def test_text_says_how_banks_add(name: str, sums: str, column_sums: str) -> None:
    """Of the machine and of its family the same."""
    machine = xs.arch(name)
    (unit,) = machine.units_of(Pim).values()
    words = [line.split() for line in describe_machine(machine).splitlines()]
    assert ["arithmetic", sums] in words
    assert ["column_arithmetic", *column_sums.split()] in words
    columns = f", of columns by {column_sums}" if column_sums else ""
    assert f"sums by {sums}{columns}; " in describe(unit.pim)


def test_formats_are_refused_before_anything_is_lowered() -> None:
    """Only where the banks would multiply: who names the arrays may have any format."""
    machine, graph = xs.arch("hbm-pim"), xs.workload("gemm:m=1,n=4096,k=1024,dtype=bf16")
    with pytest.raises(AccelsimError, match=r"multiply fp16, not bf16; accepted: dtype=fp16"):
        plan_memory(graph, machine, "bandwidth")
    plan_memory(graph, machine, "bandwidth", ("systolic-gemm",))
    wider = xs.arch("hbm-pim", {"pim.arithmetic": "macs16-fp32"})
    assert products_of(graph, wider)
    with pytest.raises(AccelsimError, match=r"multiply bf16, not fp16; accepted: dtype=bf16"):
        plan_memory(
            xs.workload("gemm:m=1,n=4096,k=1024,dtype=fp16"),
            xs.arch("hbm-pim", {"pim.arithmetic": "macs16-bf16"}), "bandwidth",
        )  # fmt: skip


def test_a_family_without_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(PRODUCTS, "newton")
    with pytest.raises(AccelsimError, match=r"family neupims .* no products of tile programs"):
        xs.arch("neupims", {"pim.arithmetic": "tree32-fp32"})


def test_heads_that_do_not_fit_a_row() -> None:
    graph = decode(heads=3, hidden=288, batch=2, context=9)
    with pytest.raises(
        AccelsimError,
        match=r"heads of whole turns of 32 banks that divide a row of 512 elements, not 96",
    ):
        xs.simulate(xs.arch("neupims"), graph, mapper="pim-attention")


FAMILY_OF = {"neupims": "neupims", "npu-pim": "newton"}


@pytest.mark.parametrize("name", list(FAMILY_OF))
def test_commands_of_products_go_through_the_channels(name: str) -> None:
    """Every command of every product is sent, and its energy is counted."""
    run = xs.simulate(
        xs.arch(name), decode(batch=2, context=9), memory="dram", mapper="pim-attention"
    )
    assert any("share their channel" in text for text in run.approximations)
    asked, sent, price = 0, 0, 0.0
    for segment in run.segments:
        activity = segment.schedule.activity
        assert activity is not None
        assert activity.channels is not None
        products = segment.bound.timed.traffic.products
        if products is not None:
            gwrite = find_family(FAMILY_OF[name]).number("GWRITE")
            asked += int((products.table[:, 0] == gwrite).sum())
        sent += activity.channels.total("GWRITE")
        price += sum(activity.channels.command_pj.values()) * segment.repeat
    assert sent == asked > 0
    assert run.energy_pj["pim"] == pytest.approx(price)
