"""What transfers cost on a network, against closed forms worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noc_machine import INT8, Bench, Copy, copies, machine

from accelsim.engine import reference
from accelsim.engine.bind import BoundProgram, bind
from accelsim.engine.flows import Flows
from accelsim.engine.merge import run
from accelsim.errors import AccelsimError
from accelsim.hw.noc.kinds import Bus, Crossbar, Mesh, Ring, Torus
from accelsim.program.table import COLUMN

# 8 bytes per cycle on every link, 3 cycles per hop.
LINK = {"bandwidth": 8 * 10**9, "hop_latency": 3}
LINE = Mesh(rows=1, cols=5, at={"hbm": ((0, 0),)}, **LINK)  # cores 0..3 at columns 1..4


def finishes(bound: BoundProgram) -> list[int]:
    """Cycles at which instructions finish."""
    return (run(bound.timed).finish // bound.arch.ticks_per_cycle("core")).tolist()


def links_of(flows: Flows, instruction: int) -> dict[str, int]:
    """Bytes per link of one instruction."""
    mine = flows.row == instruction
    links = [flows.links[link] for link in flows.link[mine]]
    return dict(zip(links, flows.wire_bytes[mine].tolist(), strict=True))


def test_the_head_takes_the_hops_and_the_body_streams() -> None:
    # To the core in column 3: 3 hops for the request, 3 for the data, 800 bytes at 8 per cycle.
    assert finishes(copies(machine(4, LINE), Copy(2, -1, 2, 800))) == [6 * 3 + 100]
    # A store sends no request.
    assert finishes(copies(machine(4, LINE), Copy(2, 2, -1, 800))) == [3 * 3 + 100]
    # A core that pushes to its neighbour asks nobody, one that pulls does.
    assert finishes(copies(machine(4, LINE), Copy(1, 1, 2, 800))) == [3 + 100]
    assert finishes(copies(machine(4, LINE), Copy(2, 1, 2, 800))) == [3 + 3 + 100]


def test_memory_latency_comes_on_top() -> None:
    slow = machine(4, LINE, latency=50)
    assert finishes(copies(slow, Copy(0, -1, 0, 800))) == [50 + 2 * 3 + 100]


def test_every_link_of_the_route_is_held_and_no_other() -> None:
    (flows,) = copies(machine(4, LINE), Copy(2, -1, 2, 800), Copy(0, 0, -1, 80)).flows
    assert links_of(flows, 0) == dict.fromkeys(
        ("from 0,0", "0,0>0,1", "0,1>0,2", "0,2>0,3", "to 0,3"), 800
    )
    assert links_of(flows, 1) == dict.fromkeys(("from 0,1", "0,1>0,0", "to 0,0"), 80)
    assert flows.byte_hops.tolist() == [800 * 3, 80]
    assert dict(zip(flows.links, flows.link_bytes(), strict=True))["0,1>0,2"] == 800


def test_transfers_that_share_a_link_take_turns_and_others_do_not() -> None:
    arch = machine(4, LINE)
    shared = copies(arch, Copy(1, 0, 2, 800), Copy(2, 1, 3, 800))  # both cross 0,2>0,3
    apart = copies(arch, Copy(0, 0, 1, 800), Copy(2, 2, 3, 800))
    assert finishes(apart) == [3 + 100, 3 + 100]
    assert finishes(shared) == [9 + 100, 9 + 100 + 100]
    crossing = copies(arch, Copy(0, 0, 3, 800), Copy(3, 3, 0, 800))  # opposite directions
    assert finishes(crossing) == [9 + 100, 9 + 100]


def test_a_bus_is_one_medium_and_a_crossbar_contends_at_ports() -> None:
    pairs = (Copy(0, 0, 1, 800), Copy(2, 2, 3, 800))
    to_one = (Copy(0, 0, 3, 800), Copy(1, 1, 3, 800))
    bus, crossbar = machine(4, Bus(**LINK)), machine(4, Crossbar(**LINK))
    assert finishes(copies(bus, *pairs)) == finishes(copies(bus, *to_one)) == [103, 203]
    assert finishes(copies(crossbar, *pairs)) == [103, 103]
    assert finishes(copies(crossbar, *to_one)) == [103, 203]
    # A memory with more ports serves more cores at once.
    loads = (Copy(0, -1, 0, 800), Copy(1, -1, 1, 800, 256))
    two = machine(4, Crossbar(ports={"hbm": 2}, interleave=1024, skewed=False, **LINK))
    assert finishes(copies(crossbar, *loads)) == [106, 206]
    ahead = (Copy(0, -1, 0, 800), Copy(1, -1, 1, 800, 1024))
    assert finishes(copies(two, *ahead)) == [106, 106]


def test_rings_go_the_shorter_way_and_torus_over_the_edge() -> None:
    ring = machine(5, Ring(at={"hbm": ((0,),)}, **LINK))  # cores at 1..5
    (flows,) = copies(ring, Copy(4, -1, 4, 80), Copy(2, -1, 2, 80)).flows
    assert set(links_of(flows, 0)) == {"from 0", "0>5", "to 5"}
    assert set(links_of(flows, 1)) == {"from 0", "0>1", "1>2", "2>3", "to 3"}
    one_way = machine(5, Ring(bidirectional=False, at={"hbm": ((0,),)}, **LINK))
    assert finishes(copies(one_way, Copy(4, -1, 4, 80))) == [6 * 3 + 10]  # once around
    torus = machine(11, Torus(rows=3, cols=4, at={"hbm": ((0, 0),)}, **LINK))
    (flows,) = copies(torus, Copy(10, -1, 10, 80)).flows
    assert set(links_of(flows, 0)) == {"from 0,0", "0,0>0,3", "0,3>2,3", "to 2,3"}


def test_packets_add_their_headers() -> None:
    packed = Mesh(rows=1, cols=5, at={"hbm": ((0, 0),)}, packet=64, header=16, **LINK)
    bound = copies(machine(4, packed), Copy(0, 0, 1, 800))
    assert bound.flows[0].wire_bytes.tolist() == [800 + 13 * 16] * 3
    assert finishes(bound) == [3 + 126]


def test_interleaved_memory_sends_from_every_node_its_part() -> None:
    ends = Mesh(rows=1, cols=6, at={"hbm": ((0, 0), (0, 5))}, interleave=100, skewed=False, **LINK)
    bound = copies(machine(4, ends), Copy(0, -1, 0, 850, 50))
    (flows,) = bound.flows
    # Blocks of 100: 50 bytes at node 0, then 100 at node 1 and so on: 450 and 400.
    assert links_of(flows, 0) == {
        "from 0,0": 450, "0,0>0,1": 450, "to 0,1": 850,
        "from 0,5": 400, "0,5>0,4": 400, "0,4>0,3": 400, "0,3>0,2": 400, "0,2>0,1": 400,
    }  # fmt: skip
    # The farther node decides when the first byte of all is there, the exit when the last is.
    assert finishes(bound) == [2 * 4 * 3 + 107]
    near = copies(machine(4, ends), Copy(0, -1, 0, 50, 20))
    assert finishes(near) == [2 * 3 + 7]


def test_gathers_spread_over_all_nodes_and_carry_their_index() -> None:
    ends = Mesh(rows=1, cols=6, at={"hbm": ((0, 0), (0, 5))}, interleave=64, **LINK)
    bench = Bench(machine(4, ends))
    table = bench.window(-1, 64 * 1000, "weight", 0).storage.view(1000, 64, INT8)
    ids = bench.window(-1, 10, "input", 64 * 1000).storage.view(10, 1, INT8)
    target = bench.window(0, 640, "buffer").storage.view(10, 64, INT8)
    bench.build.gather(0, target, table, ids)
    (flows,) = bench.bound().flows
    found = links_of(flows, 0)
    assert found["from 0,0"] + found["from 0,5"] == found["to 0,1"] == 640 + 10
    assert {found["from 0,0"], found["from 0,5"]} == {320, 330}


def test_fills_of_the_main_memory_cross_and_of_the_own_scratchpad_do_not() -> None:
    bench = Bench(machine(4, LINE))
    bench.build.fill(0, bench.window(0, 80, "buffer"), 1.0)
    bench.build.fill(3, bench.window(-1, 80, "scratch", 0), 1.0)
    (flows,) = bench.bound().flows
    assert set(flows.row.tolist()) == {1}
    assert flows.byte_hops.tolist() == [0, 4 * 80]


def test_network_runs_in_its_own_clock() -> None:
    arch = machine(4, LINE)
    slow = type(arch).build(
        name="slow", clock="1 GHz", clocks={"noc": "500 MHz"}, cores=4, units=arch.units,
        memories=arch.memories,
        networks={"net": Mesh(rows=1, cols=5, clock="noc", at={"hbm": ((0, 0),)}, **LINK)},
    )  # fmt: skip
    # 16 bytes per cycle of 2 ns; 800 bytes take 50 of them, a hop 3.
    assert finishes(copies(slow, Copy(0, 0, 1, 800))) == [6 + 100]
    assert finishes(copies(slow, Copy(0, 0, 1, 801))) == [6 + 102]


def test_multicast_uses_every_link_of_the_tree_once() -> None:
    mesh = Mesh(rows=2, cols=3, at={"hbm": ((0, 0),)}, multicast=True, **LINK)
    bench = Bench(machine(5, mesh))  # cores at 0,1 0,2 1,0 1,1 1,2
    bench.multicast(0, [1, 3, 4], 800)
    bound = bench.bound()
    (flows,) = bound.flows
    assert links_of(flows, 0) == dict.fromkeys(
        ("from 0,0", "0,0>0,1", "0,1>0,2", "0,1>1,1", "0,2>1,2", "to 0,2", "to 1,1", "to 1,2"), 800
    )
    assert set(flows.row.tolist()) == {0}
    assert flows.byte_hops[0] == 4 * 800
    # The request of core 0 takes one hop, the farthest destination three; all arrive together.
    assert finishes(bound) == [3 * 3 + 3 + 100] * 3
    assert bound.accesses.nbytes.tolist() == [[800, 0, 0, 800], [0, 0, 0, 800], [0, 0, 0, 800]]


def test_multicast_waits_for_the_slowest_scratchpad_and_holds_them_all() -> None:
    mesh = Mesh(rows=2, cols=3, at={"hbm": ((0, 0),)}, multicast=True, **LINK)
    bench = Bench(machine(5, mesh, width=4))  # 4 bytes per cycle into each scratchpad
    bench.build.fill(0, bench.window(0, 400, "buffer"), 0.0)  # core 0's is busy for 100 cycles
    bench.multicast(4, [1, 3, 0], 800)
    bound = bench.bound()
    assert finishes(bound)[1:] == [9 + 6 + 100 + 200] * 3
    timed, names = bound.timed, bound.port_names
    held = {names[p]: int(h) for p, h in zip(timed.port[1], timed.hold[1], strict=True) if p >= 0}
    tick = bound.arch.ticks_per_cycle("core")
    assert {n: held[n] // tick for n in held if "spad" in n} == {
        f"core{core}.spad write": 200 for core in (1, 3, 0)
    }
    assert (timed.port[2:] == -1).all()


def test_a_multicast_is_one_descriptor() -> None:
    mesh = Mesh(rows=2, cols=3, at={"hbm": ((0, 0),)}, multicast=True, **LINK)
    arch = machine(5, mesh).override({"dma.issue": 70, "dma.bandwidth": 10**10})
    bench = Bench(arch)
    bench.multicast(0, [1, 3, 4], 80)
    bench.copy(Copy(0, 0, -1, 80))
    bound = bench.bound()
    # 70 cycles for the descriptor and 8 for its bytes through the queue, then for the next one.
    assert finishes(bound) == [78 + 9 + 3] * 3 + [78 + 78 + 3]
    assert bound.work[1:3].tolist() == [0, 0]


def test_between_two_memories_every_node_serves_every_node() -> None:
    mesh = Mesh(
        rows=1, cols=5, at={"hbm": ((0, 0), (0, 1)), "flash": ((0, 3), (0, 4))},
        interleave=100, skewed=False, **LINK,
    )  # fmt: skip
    plain = machine(1, Bus(**LINK))
    arch = type(plain).build(
        name="two", clock="1 GHz", units=plain.units, networks={"net": mesh},
        memories={**plain.memories, "flash": plain.memories["hbm"]},
    )  # fmt: skip
    bench = Bench(arch)
    hbm, flash = (next(i for i, s in enumerate(bench.build.spaces) if s.name == name)
                  for name in ("hbm", "flash"))  # fmt: skip
    bench.build.load(0, bench.window(flash - 1, 300, "buffer"), bench.window(hbm - 1, 300, "input"))
    (flows,) = bench.bound().flows
    # 200 bytes at the first node of the source and 100 at the second, half of each to each node.
    assert links_of(flows, 0) == {
        "from 0,0": 200, "0,0>0,1": 200, "from 0,1": 100, "0,1>0,2": 300, "0,2>0,3": 300,
        "0,3>0,4": 150, "to 0,3": 150, "to 0,4": 150,
    }  # fmt: skip


def test_multicast_needs_a_network_that_has_it() -> None:
    bench = Bench(machine(4, LINE))
    bench.multicast(0, [1, 3], 800)
    with pytest.raises(AccelsimError, match=r"'net' has no multicast; accepted: net\.multicast"):
        bench.bound()


def test_without_a_network_other_cores_are_out_of_reach() -> None:
    joined = machine(4, LINE)
    bench = Bench(joined)
    bench.copy(Copy(0, 1, 2, 80))
    program = bench.build.finish()
    alone = type(joined).build(
        name="alone", clock="1 GHz", cores=4, units=joined.units, memories=joined.memories
    )
    with pytest.raises(AccelsimError, match=r"does not reach memory 'core1\.spad'"):
        bind(program, alone)
    assert bind(program, joined).flows


def test_ideal_memory_holds_nothing_but_counts_the_bytes() -> None:
    bench = Bench(machine(4, LINE))
    bench.copy(Copy(0, -1, 3, 80))
    ideal = bind(bench.build.finish(), bench.arch, "ideal")
    assert run(ideal.timed).ticks == 0
    assert (ideal.timed.port == -1).all()
    assert ideal.flows[0].byte_hops.tolist() == [4 * 80]


moves = st.lists(
    st.tuples(st.integers(0, 7), st.integers(-1, 7), st.integers(-1, 7), st.integers(1, 2000)),
    min_size=1, max_size=25,
)  # fmt: skip


@given(
    moves,
    st.sampled_from(
        [
            Bus(**LINK),
            Crossbar(ports={"hbm": 2}, **LINK),
            Ring(**LINK),
            Mesh(rows=3, cols=4, at={"hbm": ((0, 0), (2, 3), (0, 3))}, multicast=True, **LINK),
            Torus(rows=3, cols=4, packet=64, header=8, multicast=True, **LINK),
        ]
    ),
    st.data(),
)
@settings(deadline=None, max_examples=60)
def test_the_engine_is_its_specification_on_every_network(
    many: list[tuple[int, int, int, int]], network: Mesh, data: st.DataObject
) -> None:
    bench = Bench(machine(8, network, width=data.draw(st.sampled_from([0, 4]))))
    for queue, source, target, nbytes in many:
        if network.multicast and data.draw(st.booleans()):
            cores = data.draw(st.lists(st.integers(0, 7), min_size=2, max_size=5, unique=True))
            bench.multicast(queue, cores, nbytes, base=nbytes)
        elif source >= 0 or target >= 0:
            bench.copy(Copy(queue, source, target, nbytes, base=3 * nbytes))
    bound = bench.bound()
    fast, slow = run(bound.timed), reference.run(bound.timed)
    for column in ("start", "finish", "order"):
        assert np.array_equal(getattr(fast, column), getattr(slow, column))
    # Bytes are conserved: what leaves a node's router links enters it, or its block.
    (flows,) = bound.flows
    moved = flows.link_bytes()
    out = sum(b for b, name in zip(moved, flows.links, strict=True) if name.startswith("from"))
    into = sum(b for b, name in zip(moved, flows.links, strict=True) if name.startswith("to"))
    assert into >= out
    if not any(bound.program.instructions[:, COLUMN["k"]]):
        assert into == out
