"""What no network can beat, under random traffic: its cuts, its links, its energy per hop."""

from __future__ import annotations

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.api import simulate
from accelsim.arch import Architecture
from accelsim.engine.bind import BoundProgram, bind
from accelsim.engine.merge import run
from accelsim.hw.dma import Dma
from accelsim.hw.memory import MainMemory
from accelsim.hw.noc import Network
from accelsim.hw.noc.kinds import Bus, Crossbar, Mesh, Ring, Torus
from accelsim.hw.sram import Sram
from accelsim.numerics.formats import FORMATS
from accelsim.program.builder import Builder
from accelsim.program.table import OperatorInfo, StorageInfo
from accelsim.results.bounds import check_bounds, lower_bound_ticks

INT8 = FORMATS["int8"]
SPEED = {"bandwidth": 4 * 10**9, "endpoints": ("cores",)}  # 4 bytes per cycle


def machine(cores: int, network: Network) -> Architecture:
    """Cores around a network that joins nothing else."""
    return Architecture.build(
        name="traffic",
        clock="1 GHz",
        cores=cores,
        units={"dma": Dma()},
        memories={"hbm": MainMemory(capacity=1024, bandwidth=1), "spad": Sram(capacity=2**24)},
        networks={"net": network},
    )


def traffic(arch: Architecture, seed: int, each: int, longest: int) -> BoundProgram:
    """Every core pushes ``each`` messages of random length to cores chosen uniformly."""
    rng = np.random.default_rng(seed)
    build = Builder(arch.unit_slots(), arch.address_spaces())
    build.begin_operator(OperatorInfo("traffic", "copy", "hand", 0))
    place = [0] * (arch.cores + 1)

    def window(core: int, nbytes: int, role: str) -> object:
        base, place[core + 1] = place[core + 1], place[core + 1] + nbytes
        shape, fmt = ((), "") if role == "buffer" else ((1, nbytes), "int8")
        info = StorageInfo(f"{core}@{base}", core + 1, base, nbytes, role, shape, fmt)
        return build.storage(info).view(1, nbytes, INT8)

    for _ in range(each):
        for core in range(arch.cores):
            target, nbytes = int(rng.integers(arch.cores)), int(rng.integers(1, longest + 1))
            source = window(core, nbytes, "input")
            build.load(core, window(target, nbytes, "buffer"), source)  # type: ignore[arg-type]
    return bind(build.finish(), arch)


def crossings(bound: BoundProgram, low: set[tuple[int, ...]]) -> tuple[int, int]:
    """Bytes that go from the nodes ``low`` to the others, and back."""
    placed, program = bound.arch.placements["net"], bound.program
    source = program.operand_column("space")[program.sources[:, 0]] - 1
    target = program.operand_column("space")[program.column("dst")] - 1
    inside = np.array([node in low for node in placed.cores])
    nbytes = program.operand_bytes()[program.column("dst")]
    out = nbytes[inside[source] & ~inside[target]].sum()
    return int(out), int(nbytes[~inside[source] & inside[target]].sum())


def independent(network: Network, cores: int) -> networkx.DiGraph:
    if isinstance(network, Ring):
        return networkx.cycle_graph(cores).to_directed()
    assert isinstance(network, Mesh)
    wraps = isinstance(network, Torus)
    return networkx.grid_2d_graph(network.rows, network.cols, periodic=wraps).to_directed()


@given(
    st.sampled_from([Mesh, Torus, Ring]),
    st.tuples(st.integers(2, 5), st.integers(2, 5)),
    st.integers(0, 2**32 - 1),
    st.integers(1, 5),
    st.sampled_from([8, 500]),
)
@settings(deadline=None, max_examples=60)
def test_random_traffic_takes_at_least_its_bytes_over_the_bisection(
    kind: type[Network], shape: tuple[int, int], seed: int, each: int, longest: int
) -> None:
    rows, cols = shape
    cores = rows * cols
    network = Ring(**SPEED) if kind is Ring else kind(rows=rows, cols=cols, **SPEED)
    bound = traffic(machine(cores, network), seed, each, longest)
    cycles = run(bound.timed).ticks / bound.arch.ticks_per_cycle("core")
    graph = independent(network, cores)
    nodes = bound.arch.placements["net"].topology.nodes
    for axis in range(len(nodes[0])):
        middle = (nodes[-1][axis] + 1) // 2
        low = {node for node in nodes if node[axis] < middle}
        plain = {node if len(node) > 1 else node[0] for node in low}
        cut = sum(a in plain and b not in plain for a, b in graph.edges)
        for nbytes in crossings(bound, low):
            assert cycles >= nbytes / (4 * cut)


@given(
    st.sampled_from([Bus, Crossbar, Ring]),
    st.integers(2, 9),
    st.integers(0, 2**32 - 1),
    st.integers(1, 6),
)
@settings(deadline=None, max_examples=40)
def test_no_run_beats_its_busiest_link_and_none_takes_longer_than_one_by_one(
    kind: type[Network], cores: int, seed: int, each: int
) -> None:
    bound = traffic(machine(cores, kind(**SPEED)), seed, each, 300)
    ticks = run(bound.timed).ticks
    bounds = lower_bound_ticks(bound)
    check_bounds(ticks, bounds, "traffic")
    (flows,) = bound.flows
    tick = bound.arch.ticks_per_cycle("core")
    assert bounds["net"] >= flows.link_bytes().max() / 4 * tick
    one_by_one = (bound.timed.hold.max(axis=1) + flows.flight).sum()
    assert ticks <= one_by_one


def test_heavy_uniform_traffic_uses_the_links_of_a_mesh_at_once() -> None:
    """The other side of the bound; messages that wait in order for their turn leave some unused."""
    bound = traffic(machine(16, Mesh(rows=4, cols=4, **SPEED)), seed=7, each=200, longest=64)
    busiest = lower_bound_ticks(bound)["net"]
    assert run(bound.timed).ticks < 2 * busiest


# Karol, Hluchyj and Morgan, Input Versus Output Queueing on a Space-Division Packet Switch, IEEE
# Trans. Communications 35(12), 1987, Table I.
SATURATION = {1: 1.0, 2: 0.75, 3: 0.6825, 4: 0.6553, 8: 0.6184}


@pytest.mark.parametrize("ports", SATURATION)
def test_a_crossbar_saturates_where_head_of_line_blocking_says(ports: int) -> None:
    """Input queues in order, messages of one length to outputs chosen uniformly."""
    length, each = 40, 4000
    arch = machine(2 * ports, Crossbar(hop_latency=0, **SPEED))
    build = Builder(arch.unit_slots(), arch.address_spaces())
    build.begin_operator(OperatorInfo("traffic", "copy", "hand", 0))
    rng = np.random.default_rng(1)
    places = [
        build.storage(StorageInfo(f"{core}", core + 1, 0, length, "buffer")).view(1, length, INT8)
        for core in range(2 * ports)
    ]
    for _ in range(each):
        for core in range(ports):
            target = places[ports + int(rng.integers(ports))]
            target.storage.writers.clear()  # the receiver has room for everything
            build.load(core, target, places[core])
    bound = bind(build.finish(), arch)
    schedule, unit = run(bound.timed), bound.timed.unit
    # Until the first input runs dry.
    last = min(int(schedule.finish[unit == u].max()) for u in range(ports))
    moved = int((schedule.finish <= last).sum()) * length / 4
    slots = ports * last / arch.ticks_per_cycle("core")
    assert moved / slots == pytest.approx(SATURATION[ports], rel=0.02)


@given(
    st.fixed_dictionaries(
        {
            "noc.bandwidth": st.sampled_from([4 * 10**9, 64 * 10**9, 10**12]),
            "noc.hop_latency": st.integers(0, 9),
            "noc.interleave": st.sampled_from([32, 256, 4096]),
            "noc.header": st.sampled_from([0, 8]),
            "noc.skewed": st.booleans(),
            "noc.multicast": st.booleans(),
            "noc.at": st.sampled_from([{}, {"hbm": [[0, 0], [3, 5]]}, {"hbm": [2, 3]}]),
        }
    ),
    st.sampled_from(["gemm:m=70,n=90,k=50", "softmax:rows=40,cols=70"]),
)
@settings(deadline=None, max_examples=25)
def test_results_keep_their_bounds_and_their_energy(changes: dict[str, object], work: str) -> None:
    result = simulate("mesh-npu", work, overrides={**changes, "noc.hop_pj_per_byte": 2.0})
    assert all(result.cycles >= bound for bound in result.bounds.values())
    used = result.links["noc"]
    assert result.utilization["noc"] == pytest.approx(max(u["utilization"] for u in used.values()))
    hops = sum(use["bytes"] for link, use in used.items() if ">" in link)
    assert result.energy_pj["noc"] == pytest.approx(2 * hops)
    total = sum(pj for name, pj in result.energy_pj.items() if name != "total")
    assert result.energy_pj["total"] == pytest.approx(total)
    # What leaves the memory enters it or a core, headers and copies included.
    out = sum(u["bytes"] for link, u in used.items() if link.startswith("from "))
    into = sum(u["bytes"] for link, u in used.items() if link.startswith("to "))
    assert into >= out if changes["noc.multicast"] else into == out
