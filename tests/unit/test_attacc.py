"""AttAcc in tile programs: places, numbers, clocks, what stands once beside 108 cores, refusals."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from accelsim.validation import attacc as claim
from hypothesis import given, settings
from hypothesis import strategies as st

import accelsim as xs
from accelsim.arch.model import Architecture
from accelsim.engine.bind import bind
from accelsim.errors import AccelsimError, CapacityError
from accelsim.functional.check import check
from accelsim.hw.pim.catalog import family
from accelsim.hw.pim.channel.run_alone import run_alone
from accelsim.hw.pim.channel.stream import PimStream
from accelsim.hw.pim.cost import product_cost
from accelsim.hw.pim.loader import FOLDER
from accelsim.hw.pim.memory import PimDram
from accelsim.hw.pim.products.attacc import AttaccProducts, _refresh_share, head_stream
from accelsim.hw.pim.products.product import Sweep
from accelsim.hw.pim.run import run_pim
from accelsim.mapping.head_places import HeadPlaces
from accelsim.numerics.arithmetic import arithmetic, types_of
from accelsim.program.opcodes import Flag, Opcode
from accelsim.program.table import COLUMN, Program
from accelsim.program.verify import violations
from accelsim.results.collect import kept_ticks
from accelsim.simulation import compile_program, plan_memory
from accelsim.system.attacc_server import NVLINK, Server, StepTime
from accelsim.views.overlap import at_work
from accelsim.workload.graph import Graph

FORCED = ("attacc-attention",)
FP16 = types_of("fp16", "fp16", "fp32")


@cache
def small(channels: int = 4, **changes: object) -> Architecture:
    """Two multiprocessors on a few channels."""
    few: dict[str, object] = {"cores": 2, "hbm.channels": channels, "pim.count": channels}
    few["hbm.capacity"] = f"{min(4, 2 * channels)} GiB"
    return xs.arch("attacc", {**few, **{k.replace("__", "."): v for k, v in changes.items()}})


def decode(**changes: object) -> Graph:
    sizes = {"phase": "decode", "layers": 1, "dtype": "fp16", "ffn": 64, "vocab": 64}
    return xs.workload("gpt3-7b", **(sizes | {"heads": 2, "hidden": 256} | changes))


def program_of(graph: Graph, machine: Architecture) -> Program:
    plan = plan_memory(graph, machine, "bandwidth", FORCED)
    return compile_program(graph, graph.operators, machine, plan, "bandwidth", FORCED)


def places_of(graph: Graph, machine: Architecture) -> tuple[PimDram, HeadPlaces]:
    attend = next(op for op in graph.operators if op.kind == "attention")
    memory = machine.main_memory()[1]
    assert isinstance(memory, PimDram)
    return memory, HeadPlaces.of(attend, memory)


# -- numbers -------------------------------------------------------------------------------------


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_random_batches_are_right_in_the_clocks_order(data: st.DataObject) -> None:
    draw = data.draw
    size = draw(st.sampled_from([16, 48, 64, 128]))
    kv_heads = draw(st.integers(1, 3))
    shape = {"kv_heads": kv_heads, "heads": kv_heads * draw(st.integers(1, 2)), "d": size}
    tokens, batch = draw(st.integers(1, 150)), draw(st.integers(1, 4))
    graph = xs.workload("attention", q=1, dtype="fp16", kv=tokens, batch=batch, **shape)
    machine = small(draw(st.integers(1, 5)))
    program = program_of(graph, machine)
    assert not violations(program)
    verdict = check(machine, graph, program)
    assert verdict.ok, verdict.first
    assert "banks of attacc-bank" in verdict.operators[0].arithmetic


def test_a_step_beside_a_gpu_is_right() -> None:
    graph, machine = decode(contexts="45+70+1"), small()
    program = program_of(graph, machine)
    verdict = check(machine, graph, program)
    assert verdict.ok, verdict.first
    attended = next(one for one in verdict.operators if one.kind == "attention")
    assert attended.reduction == "banks:4:16 | lanes:16:2"
    mappers = {op.kind: op.mapper for op in program.operators}
    assert mappers["gemm"] == "gpu-gemm"
    assert mappers["layernorm"] == "gpu-layernorm"
    assert mappers["kv_append"] == "pim-kv-append"


@pytest.mark.parametrize("cache_name", ["k_cache", "v_cache"])
def test_a_wrong_place_gives_wrong_numbers(cache_name: str) -> None:
    graph, machine = decode(contexts="45+70"), small()
    program = program_of(graph, machine)
    storages = list(program.storages)
    index = next(i for i, one in enumerate(storages) if one.name.endswith(cache_name))
    regions = list(storages[index].regions)
    # Two heads of a request change places.
    a, b = (next(i for i, r in enumerate(regions) if r.row == row) for row in (0, 45))
    found = regions[a].offset, regions[b].offset
    regions[a], regions[b] = (
        regions[a]._replace(offset=found[1]),
        regions[b]._replace(offset=found[0]),
    )
    storages[index] = replace(storages[index], regions=tuple(regions))
    wrong = check(machine, graph, replace(program, storages=tuple(storages)))
    assert wrong.first is not None
    assert "attention" in wrong.first.operator


def test_banks_and_lanes_sum_in_their_own_order() -> None:
    draw = np.random.default_rng(1)
    a = draw.standard_normal((3, 128)).astype(np.float16).astype(np.float32)
    b = draw.standard_normal((128, 1)).astype(np.float16).astype(np.float32)
    group = arithmetic("banks4-tree16-fp32").rule(FP16)
    tree = arithmetic("tree16-fp32").rule(FP16)
    parts = [
        tree.multiply(
            np.ascontiguousarray(np.concatenate([a[:, i : i + 16], a[:, i + 64 : i + 80]], 1)),
            np.concatenate([b[i : i + 16], b[i + 64 : i + 80]]),
            None,
        )
        for i in range(0, 64, 16)
    ]
    total = ((parts[0] + parts[1]) + parts[2]) + parts[3]
    assert np.array_equal(group.multiply(a, b, None), total)
    assert not np.array_equal(total, tree.multiply(a, b, None))
    pairs = arithmetic("macs16x2-fp16").rule(FP16)
    order = [t for lane in range(16) for t in range(128) if t // 2 % 16 == lane]
    apart = np.array(order).reshape(16, -1).T.ravel()  # one of every lane after the other
    single = arithmetic("macs16-fp16").rule(FP16)
    turned = np.ascontiguousarray(a[:, apart]), b[apart]
    assert np.array_equal(pairs.multiply(a, b, None), single.multiply(*turned, None))
    assert not np.array_equal(pairs.multiply(a, b, None), single.multiply(a, b, None))


# -- places --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 64, 128])
def test_windows_are_the_layouts_places(size: int) -> None:
    """Element for element: address, taken apart by the memory's map, and place in the layout."""
    graph = decode(hidden=2 * size, contexts="45+300+33")
    memory, places = places_of(graph, small(5))
    for keys in (True, False):
        placed = places.placed(keys)
        for one in places.heads:
            layout = places.layouts(one)[0 if keys else 1]
            token, feature = np.indices((one.tokens, size))
            row, col = (token, feature) if keys else (feature, token)
            place = layout.place(row, col)
            address = np.full(token.shape, -1)
            for r in placed.regions:
                if r.row == one.cache_row:
                    lines = np.arange(r.rows)[:, None] * r.row_step
                    across = r.offset + np.arange(r.cols) * r.col_step
                    address[:, r.col : r.col + r.cols] = lines + across
            assert address.min() >= 0
            at = memory.address_map.locate(address.ravel())
            bank = ((at.pseudo_channel * 2 + at.rank) * 4 + at.bank_group) * 4 + at.bank
            assert np.array_equal(at.channel, place.channel.ravel())
            assert np.array_equal(bank, place.bank.ravel())
            assert np.array_equal(at.row, place.row.ravel())
            column = at.column * 16 + address.ravel() % 32 // 2
            assert np.array_equal(column, place.column.ravel())


def test_no_two_heads_share_an_address() -> None:
    contexts = "+".join(str(30 + 57 * i) for i in range(13))
    graph = decode(heads=3, hidden=192, contexts=contexts)
    _, places = places_of(graph, small(3))
    rows = {(one.channel, one.first_row + i)
            for one in places.heads for i in range(places.rows(one.tokens))}  # fmt: skip
    assert len(rows) == sum(places.rows(one.tokens) for one in places.heads)


# -- clocks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["attacc-bank", "attacc-bg", "attacc-buffer"])
@pytest.mark.parametrize("tokens", [700, 1500])
def test_heads_one_after_the_other_take_what_their_stream_takes(name: str, tokens: int) -> None:
    """Four heads in every channel, as products and as the published stream of a stack."""
    sweeps = [Sweep(1, 1, tokens, 128)] + [
        Sweep(1, 1, 64, tokens, columns=True, brings=brings) for brings in (True, False)
    ]
    products = [product_cost(name, one) for one in sweeps]
    run = run_pim(name, f"attention:tokens={tokens},heads=64")
    assert sum(one.cycles for one in products) * 4 == pytest.approx(run.cycles, rel=0.07)
    assert all(one.latency >= one.cycles for one in products)
    commands = [dict(one.commands) for one in products]
    for macs in ("MAC_AB", "MAC_SB", "MAC_PB"):
        assert sum(one.get(macs, 0) for one in commands) * 64 == pytest.approx(
            run.commands.get(macs, 0), rel=0.01
        )
    assert "MV_GB" in commands[1]
    assert "MV_GB" not in commands[2]


@pytest.mark.parametrize("name", ["attacc-bank", "attacc-bg"])
def test_vectors_come_once_beside_the_product_before(name: str) -> None:
    scores = Sweep(1, 1, 700, 128)
    values = Sweep(1, 1, 64, 700, columns=True)
    work = [scores, values, replace(values, brings=False), scores]
    stream = head_stream(family(name), work)
    found = stream.counts(family(name))
    assert (found["WR_GB"], found["MV_GB"], found["SFM"]) == (2 * 8, 8 * 3, 1)
    # The second score's vector comes before the last of the values before it has left.
    number = {one: family(name).number(one) for one in ("WR_GB", "MV_SB")}
    second = np.flatnonzero(stream.command == number["WR_GB"])[8]
    assert second < np.flatnonzero(stream.command == number["MV_SB"])[-8 - 8 * 3]


def test_weights_stay_in_the_units_for_the_next_features() -> None:
    graph = xs.workload("attention", heads=3, q=1, kv=40, d=128, dtype="fp16")
    program = program_of(graph, small())
    flags = program.column("flags")[program.column("opcode") == Opcode.PIM]
    assert ((flags & Flag.COLUMNS) > 0).sum() == 2 * 3
    assert ((flags & Flag.KEPT) > 0).sum() == 3


def test_what_stands_beside_banks_is_there_once() -> None:
    machine = xs.arch("attacc")
    assert machine.beside_banks == {"pim", "softmax", "pdma", "buffer"}
    names = [slot.name for slot in machine.unit_slots()]
    assert names.count("pim79") == 1
    assert "core107.tensor" in names
    assert len(names) == 108 * 3 + 80 + 5 + 2
    assert [s.name for s in machine.address_spaces()].count("buffer") == 1
    assert machine.instances("softmax") == 5
    assert machine.instances("tensor") == 108
    assert xs.arch("neupims").beside_banks == {"pim", "pdma", "pvpu", "pspad"}


def test_products_hold_their_share_of_the_memory_unless_it_is_apart() -> None:
    graph = decode(contexts="300+300")
    for apart, share in ((True, 0.0), (False, 0.25)):
        machine = small(pim__apart=apart)
        bound = bind(program_of(graph, machine), machine)
        mine = bound.program.column("opcode") == Opcode.PIM
        port = bound.port_names.index("hbm")
        held = np.where(bound.timed.port[mine] == port, bound.timed.hold[mine], 0).sum()
        assert held == pytest.approx(bound.work[mine].sum() * share, rel=0.01)


def test_fewer_channels_and_units_further_away_are_slower() -> None:
    work = xs.workload("attention", heads=8, q=1, kv=800, d=128, batch=8, dtype="fp16")
    whole = xs.simulate(small(16), work, mapper=FORCED).cycles
    assert xs.simulate(small(8), work, mapper=FORCED).cycles > 1.8 * whole
    group = {"hbm__family": "attacc-bg", "pim__family": "attacc-bg"}
    assert xs.simulate(small(16, **group), work, mapper=FORCED).cycles > 2.5 * whole


def test_many_requests_go_to_the_banks_one_stays_on_the_gpu() -> None:
    def mapper_of(machine: str, batch: int) -> str:
        graph = xs.workload("attention", heads=12, q=1, kv=64, d=128, batch=batch, dtype="fp16")
        return xs.simulate(machine, graph).mapper

    assert mapper_of("attacc", 40) == "attacc-attention"
    assert mapper_of("attacc", 1) == "gpu-flash-attention"
    assert mapper_of("dgx-a100a", 40) == "gpu-flash-attention"


# -- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hbm.mapping": "RoRaBgBaChCo"}, "accepted: RoCoPcRaBgCo2ChBa without hashing"),
        ({"pim.column_arithmetic": "macs3-fp16"}, "unknown arithmetic 'macs3-fp16'"),
        ({"pim.results": "shared"}, "every core has 'shared'"),
        ({"pim.count": 40}, "accepted: the same"),
    ],
)
def test_machines_that_make_no_sense(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(AccelsimError, match=reason):
        xs.arch("attacc", changes)


def test_a_family_of_columns_says_how_their_sums_are_formed(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    text = (FOLDER / "attacc.yaml").read_text()
    file.write_text(text.replace("column_accumulate: fp16, ", ""))
    own = f"{file}:attacc-bank"
    with pytest.raises(AccelsimError, match="one where a family multiplies columns"):
        xs.arch("attacc", {"pim.family": own, "hbm.family": own})


def test_other_families_multiply_no_columns() -> None:
    with pytest.raises(AccelsimError, match="none elsewhere"):
        xs.arch("neupims", {"pim.column_arithmetic": "macs16x2-fp16"})
    with pytest.raises(AccelsimError, match="one vector at a time"):
        product_cost("attacc-bank", Sweep(2, 1, 64, 64))


@pytest.mark.parametrize("size", [96, 24, 256])
def test_heads_that_fit_no_group_of_banks(size: int) -> None:
    graph = xs.workload("attention", heads=2, q=1, kv=64, d=size, dtype="fp16")
    with pytest.raises(AccelsimError, match="heads of whole columns of 16 elements"):
        xs.simulate(small(), graph, mapper=FORCED)
    assert xs.simulate(small(), graph).mapper == "gpu-flash-attention"


def test_scores_that_do_not_fit_the_buffer_die() -> None:
    graph = xs.workload("attention", heads=1, q=1, kv=4000, d=64, dtype="fp16")
    with pytest.raises(CapacityError, match="scores of 4,000 tokens"):
        xs.simulate(small(2, buffer__capacity="16 KiB"), graph, mapper=FORCED)


def test_a_step_in_simulated_channels() -> None:
    """Commands of every head go to its channel, beside the GPU's reads and writes."""
    machine, graph = small(), decode(contexts="45+70+1")
    there = xs.simulate(machine, graph, memory="dram", mapper=FORCED)
    found = [one.schedule.activity.channels for one in there.segments if one.schedule.activity]
    scores = 2 * (-(-45 // 16) + -(-70 // 16) + 1) * 2  # of two heads, two columns a token
    values = 2 * 2 * (-(-45 // 16) + -(-70 // 16) + 1)
    assert sum(one.total("MAC_AB") for one in found if one) == scores + values
    assert not any("pass between the commands" in text for text in there.approximations)


@pytest.mark.parametrize(("tokens", "size"), [(1024, 128), (300, 64), (40, 16)])
@pytest.mark.parametrize("columns", [False, True])
def test_a_product_alone_in_a_channel(tokens: int, size: int, columns: bool) -> None:
    """Both fidelities agree on a product alone; one has the share of refresh, one none."""
    features = min(size, 64)
    shape = (features, tokens) if columns else (tokens, size)
    sweep, found = Sweep(1, 1, *shape, columns=columns), family("attacc-bank")
    for column in (0, 7, 31):
        stream = PimStream.of(AttaccProducts().beside_host(found, sweep, column, (0, 0)))
        alone = run_alone(found, stream, refresh=False)[0]
        share = product_cost("attacc-bank", sweep).latency
        lost = Fraction(*_refresh_share("attacc-bank"))
        # A further row, where the matrix does not begin with one.
        opened = found.device.timings["tRTP"] + found.device.timings["tRC"]
        assert -1 < alone - share / lost <= (opened if column else 0)


def test_the_verifier_knows_columns() -> None:
    graph = xs.workload("attention", heads=2, q=1, kv=40, d=128, dtype="fp16")
    program = program_of(graph, small())
    rows = program.instructions.copy()
    mine = (program.column("opcode") == Opcode.PIM) & (program.column("flags") & Flag.COLUMNS > 0)
    i = int(np.flatnonzero(mine)[0])
    rows[i, COLUMN["flags"]] &= ~Flag.COLUMNS
    assert violations(replace(program, instructions=rows))[0].kind == "structure"
    rows[i, COLUMN["flags"]] |= Flag.COLUMNS | Flag.ABREAST
    assert violations(replace(program, instructions=rows))[0].kind == "structure"


# -- the server ----------------------------------------------------------------------------------


def test_steps_overlap_as_published() -> None:
    step = StepTime(2.0, 3.0, 5.0, 1.0, 0.5, 1.0, 12, 0.25)
    assert step.serial == step.seconds() == 11.5
    assert step.seconds(pipelined=True) == 3.0 + 2.0 / 12 + 6.5
    assert step.seconds(True, True) == pytest.approx(3.0 + 2.0 / 12 + 3.75 + 1.5)
    longer = replace(step, attention=6.0)
    assert longer.seconds(pipelined=True) == 6.0 + 3.0 / 12 + 6.5
    # 7 hops of 6.06 us and 0.009 ns per byte of an eighth; large shares at the link's rate.
    assert NVLINK.all_reduce_seconds(8000, 8) == pytest.approx(7 * (6.06e-6 + 9e-9))
    slow = replace(NVLINK, seconds_per_byte=0.0)
    assert slow.all_reduce_seconds(8 * 3 * 10**9, 8) == pytest.approx(7 * 0.01)


def test_a_step_is_its_layers_and_their_all_reduces() -> None:
    graph = decode(batch=3, context=300, heads=8, hidden=1024, tp=4, layers=2)
    machine = small()
    step = Server(machine, devices=4, mappers=FORCED).step(graph)
    run = xs.simulate(machine, graph, mapper=FORCED)
    names = ("layer", "all_reduce")
    mine = [o for o in run.operators if o.name.startswith(names[0]) and names[1] not in o.name]
    total = sum(o.cycles for o in mine) / run.clock_hz
    assert step.serial - step.all_reduce == pytest.approx(total)
    assert step.all_reduce == pytest.approx(4 * NVLINK.all_reduce_seconds(3 * 1024 * 2, 4))
    moved = 4 * 3 * 1024 * 2 * 4 * 10.4e-12
    assert step.joules == pytest.approx(4e-12 * sum(o.energy_pj for o in mine) + moved)
    assert step.heads == 2
    # Both sides of a co-processed product end together.
    server = Server(machine, devices=4, mappers=FORCED)
    weights = 2 * 2 * 1024 * 16 * 2
    banks = 3 * step.co_processed * weights / server.weights_per_second
    assert banks == pytest.approx((1 - step.co_processed) * step.feed_forward)


def test_rate_of_weights_is_below_that_of_the_commands() -> None:
    server = Server(xs.arch("attacc"))
    peak = 80 * 64 * 32 * 1_300_000_000 / 6  # a column in every bank every six clocks
    assert 0.7 * peak < server.weights_per_second < 0.9 * peak
    assert Server(xs.arch("dgx-a100a")).weights_per_second == 0.0


def test_the_claim_on_two_points_of_attention() -> None:
    """The rest is `accelsim validate attacc`."""
    assert claim.attention_clocks(claim.machine("bank"), 1194, 243) == pytest.approx(38853, 0.1)
    assert claim.attention_clocks(claim.machine("bank-group"), 2437, 188) == pytest.approx(
        194453, 0.1
    )


def test_what_stands_once_is_counted_once() -> None:
    """Every multiprocessor has a tensor core; the banks of a channel are there once."""
    run = xs.simulate(small(), decode(contexts="45+70+1"), mapper=FORCED)
    rows = {one.name: one for one in at_work(run)}
    assert (rows["tensor"].count, rows["pim"].count) == (2, 4)
    ticks = sum(part.schedule.ticks for part in run.segments)
    kinds = [(part, [*part.bound.arch.units].index("pim")) for part in run.segments]
    busy = sum(int(kept_ticks(part)[part.bound.unit_index == kind].sum()) for part, kind in kinds)
    assert rows["pim"].each == pytest.approx(busy / 4 / ticks)
    assert busy > 0
