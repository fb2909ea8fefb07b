"""The networks of an architecture file: what is read, drawn and told apart, and every fault."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from accelsim.arch import Architecture, arch, describe
from accelsim.arch.loader import from_dict, load
from accelsim.errors import AccelsimError
from accelsim.hw.dma import Dma
from accelsim.hw.memory import MainMemory
from accelsim.hw.noc import Network
from accelsim.hw.noc.kinds import Bus, Crossbar, Mesh, Ring, Torus
from accelsim.hw.sram import Sram

GOOD = """\
name: grid
clock: 1 GHz
cores: 4
units:
  dma: {kind: dma, count: 2}
memories:
  hbm: {kind: memory, capacity: 1 GiB, bandwidth: 64 GB/s}
  flash: {kind: memory, capacity: 1 GiB, bandwidth: 4 GB/s}
  spad: {kind: sram, capacity: 64 KiB}
networks:
  noc:
    kind: mesh
    rows: 2
    cols: 4
    bandwidth: 32 GB/s
    hop_latency: 2
    at:
      hbm: [[0, 0], [1, 3]]
      cores: [[0, 1], [0, 2], [1, 1], [1, 2]]
sources:
  noc.bandwidth: a round number
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "grid.yaml"
    file.write_text(text)
    return file


def test_endpoints_take_their_place_and_the_first_free_nodes(tmp_path: Path) -> None:
    machine = load(written(tmp_path, GOOD))
    noc, placed = machine.networks["noc"], machine.placements["noc"]
    assert isinstance(noc, Mesh)
    assert (noc.rows, noc.cols, noc.bandwidth, noc.hop_latency) == (2, 4, 32 * 10**9, 2)
    assert placed.memories == {"hbm": ((0, 0), (1, 3)), "flash": ((0, 3),)}
    assert placed.cores == ((0, 1), (0, 2), (1, 1), (1, 2))
    assert placed.nodes_of("spad", 3) == ((1, 2),)
    assert placed.nodes_of("hbm", -1) == ((0, 0), (1, 3))
    moved = load(written(tmp_path, GOOD.replace("hbm: [[0, 0], [1, 3]]", "hbm: [1, 3]")))
    assert moved.placements["noc"].memories == {"hbm": ((1, 3),), "flash": ((0, 0),)}
    free = load(written(tmp_path, GOOD.replace("      cores: [[0, 1]", "      #")))
    assert free.placements["noc"].cores == ((0, 2), (0, 3), (1, 0), (1, 1))


def test_the_same_architecture_comes_back_from_its_content(tmp_path: Path) -> None:
    machine = load(written(tmp_path, GOOD))
    again = from_dict(machine.to_dict())
    assert again == machine
    assert again.placements["noc"].memories == machine.placements["noc"].memories
    for path, value in (
        ("noc.bandwidth", "16 GB/s"),
        ("noc.hop_latency", 3),
        ("noc.multicast", True),
        ("noc.at.hbm", [[0, 0], [0, 3]]),
    ):
        assert machine.override({path: value}).digest() != machine.digest(), path
    assert machine.override({"noc.at.hbm": [1, 3]}).placements["noc"].memories["hbm"] == ((1, 3),)


def test_a_network_is_drawn_between_memories_and_cores(tmp_path: Path) -> None:
    text = describe(load(written(tmp_path, GOOD)))
    box, cores = text.index("┌ noc ─"), text.index("╔═ core x 4")
    assert text.index("┌ hbm ─") < box < cores
    assert "noc: 2 x 4 mesh, 32 GB/s per link, 2 cycles per hop" in text
    assert "    hbm     c0     c1   flash\n     .      c2     c3    hbm\n" in text
    assert "noc bisection, one way        64 GB/s" in text
    assert "a round number" in text
    assert max(map(len, text.splitlines()[2:])) <= 88


FAULTS = [
    (
        "rows: 2",
        "rows: 1",
        18,
        "hbm is at [1, 3], outside the 1 x 4 mesh; accepted: [0, 0] to",
    ),
    ("cols: 4", "cols: 0", 14, "cols must be at least 1, not 0"),
    ("rows: 2", "rows: 100000", 13, "rows x cols make 400000 nodes; accepted: at most 4096"),
    ("    cols: 4\n", "", 11, "cols is missing; kind mesh needs rows, cols, bandwidth"),
    ("bandwidth: 32 GB/s", "bandwidth: 0", 15, "bandwidth must be positive, not 0"),
    ("hop_latency: 2", "hop_latency: -1", 16, "hop_latency must not be negative, not -1"),
    ("hop_latency: 2", "header: 8", 16, "header of 8 bytes needs a packet size"),
    ("hop_latency: 2", "hop_pj_per_byte: -1", 16, "hop_pj_per_byte must not be negative"),
    ("hop_latency: 2", "interleave: 0", 16, "interleave must be at least 1, not 0"),
    ("hop_latency: 2", "clock: fast", 16, "unknown clock 'fast'; accepted: core"),
    ("hop_latency: 2", "endpoints: [hbm, hbm]", 16, "endpoints has 'hbm' twice"),
    ("hop_latency: 2", "endpoints: [hbm, disk]", 16, "unknown endpoint 'disk'; accepted: cores,"),
    ("hop_latency: 2", "hops: 2", 16, "unknown parameter of kind mesh 'hops'"),
    ("hbm: [[0, 0], [1, 3]]", "hbn: [0, 0]", 18, "unknown endpoint 'hbn'; accepted: hbm, flash,"),
    ("hbm: [[0, 0], [1, 3]]", "spad: [0, 0]", 18, "unknown endpoint 'spad'"),
    ("hbm: [[0, 0], [1, 3]]", "hbm: [0, 1]", 19, "core 0 is at [0, 1], where hbm is; accepted:"),
    ("[[0, 0], [1, 3]]", "[[0, 0], [0, 0]]", 18, "hbm is at [0, 0], where hbm is; accepted: one"),
    ("[[0, 0], [1, 3]]", "[[0, 0], [3, 1]]", 18, "hbm is at [3, 1], outside the 2 x 4 mesh"),
    ("[[0, 0], [1, 3]]", "[0, 0, 0]", 18, "[0, 0, 0] is not a node; accepted: [row, column], or"),
    ("[[0, 0], [1, 3]]", "corner", 18, "'corner' is not a node; accepted: [row, column], or a"),
    ("[[0, 0], [1, 3]]", "[[0, 0], [1.5, 3]]", 18, "is not a node; accepted: [row, column], or a"),
    ("[[0, 0], [1, 3]]", "[]", 18, "[] is not a node; accepted: [row, column], or a list of them"),
    ("[1, 1], [1, 2]]", "[1, 1]]", 19, "3 nodes for 4 cores; accepted: one for each"),
    ("cores: 4", "cores: 8", 19, "4 nodes for 8 cores; accepted: one for each"),
    ("kind: mesh", "kind: torsu", 12, "unknown kind 'torsu'; did you mean 'torus'? accepted: bus,"),
    ("kind: mesh", "kind: sram", 12, "kind 'sram' belongs under memories, not networks"),
    ("kind: dma", "kind: mesh", 5, "kind 'mesh' belongs under networks, not units"),
    ("  noc:\n", "  hbm:\n", 11, "'hbm' is also a memory's name; accepted: another name"),
    ("  noc:\n", "  links:\n", 11, "'links' is not usable as a name"),
    ("  noc.bandwidth:", "  noc.speed:", 21, "unknown parameter 'noc.speed'"),
    ("networks:", "networks: 3", 10, "networks is 3"),
]


@pytest.mark.parametrize(("old", "new", "line", "message"), FAULTS)
def test_faults_are_one_line_at_their_place(
    tmp_path: Path, old: str, new: str, line: int, message: str
) -> None:
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    if new == "networks: 3":
        text = text[: text.index("networks: 3")] + "networks: 3\n"
    with pytest.raises(AccelsimError) as fault:
        load(written(tmp_path, text))
    found = str(fault.value).replace(str(tmp_path) + os.sep, "")
    assert found.startswith(f"grid.yaml:{line}: ")
    assert message in found
    assert "\n" not in found


def test_a_mesh_too_small_says_how_many_blocks_there_are(tmp_path: Path) -> None:
    text = GOOD[: GOOD.index("    at:")].replace("cols: 4", "cols: 2")
    with pytest.raises(AccelsimError) as fault:
        load(written(tmp_path, text))
    assert "grid.yaml:11: 6 blocks (hbm 1, flash 1, cores 4) do not fit on the 4 nodes" in str(
        fault.value
    )


def machine(cores: int = 4, links: tuple[object, ...] = (), **networks: Network) -> Architecture:
    return Architecture.build(
        name="m",
        clock="1 GHz",
        cores=cores,
        units={"dma": Dma(count=2)},
        memories={
            "hbm": MainMemory(capacity=2**30, bandwidth=10**10),
            **({"flash": MainMemory(capacity=2**30, bandwidth=10**9)} if len(networks) > 1 else {}),
            "spad": Sram(capacity=2**16),
        },
        networks=networks,
        links=links,  # type: ignore[arg-type]
    )


def test_every_kind_joins_cores_and_memories() -> None:
    speed = 10**9
    for network, nodes in (
        (Bus(bandwidth=speed), 5),
        (Crossbar(bandwidth=speed, ports={"hbm": 3}), 7),
        (Ring(bandwidth=speed), 5),
        (Ring(bandwidth=speed, nodes=8, at={"hbm": ((0,), (4,))}), 8),
        (Mesh(bandwidth=speed, rows=2, cols=3), 6),
        (Torus(bandwidth=speed, rows=2, cols=3), 6),
    ):
        placed = machine(net=network).placements["net"]
        assert len(placed.topology.nodes) == nodes
        assert len({*placed.cores, *placed.memories["hbm"]}) == 4 + len(placed.memories["hbm"])


def test_positions_of_a_ring_are_numbers() -> None:
    ring = machine(net=Ring(bandwidth=10**9, nodes=9)).override({"net.at": {"hbm": [0, 4]}})
    assert ring.placements["net"].memories["hbm"] == ((0,), (4,))
    assert ring.override({"net.at.hbm": 7}).placements["net"].memories["hbm"] == ((7,),)


def test_faults_of_networks_made_in_python() -> None:
    bus, speed = Bus(bandwidth=10**9), 10**9
    for networks, message in (
        ({"a": bus, "b": bus}, "b.endpoints: flash and hbm are joined by a, too"),
        ({"x": Crossbar(bandwidth=speed, ports={"spad": 2})}, "unknown endpoint 'spad'"),
        ({"x": Crossbar(bandwidth=speed, ports={"hbm": 0})}, "ports.hbm must be at least 1"),
        ({"x": Crossbar(bandwidth=speed, ports={"hbm": 10**6})}, "blocks to join"),
        ({"x": Bus(bandwidth=speed, endpoints=("hbm",))}, "1 blocks to join (hbm 1)"),
        ({"x": Ring(bandwidth=speed, nodes=3)}, "5 blocks (hbm 1, cores 4) do not fit"),
        ({"x": Ring(bandwidth=speed, nodes=-1)}, "nodes must be 0 to 4096"),
    ):
        with pytest.raises(AccelsimError) as fault:
            machine(**networks)  # type: ignore[arg-type]
        assert message in str(fault.value)


def test_a_link_beside_a_network_is_one_way_too_many() -> None:
    from accelsim.hw.link import Link

    link = Link(source="hbm", target="spad", bandwidth=10**9)
    with pytest.raises(AccelsimError, match=r"links\.0: hbm and spad are joined by net, too"):
        machine(links=(link,), net=Bus(bandwidth=10**9))
    inside = Link(source="dma", target="spad", bandwidth=10**9)
    assert machine(links=(inside,), net=Bus(bandwidth=10**9)).links


def test_two_networks_may_join_different_blocks() -> None:
    speed = 10**9
    both = machine(
        one=Bus(bandwidth=speed, endpoints=("flash", "hbm")),
        two=Ring(bandwidth=speed, endpoints=("hbm", "cores")),
    )
    one, two = both.placements["one"], both.placements["two"]
    assert (one.cores, list(one.memories)) == ((), ["flash", "hbm"])
    assert (len(two.cores), list(two.memories)) == (4, ["hbm"])
    assert one.nodes_of("spad", 0) == two.nodes_of("flash", -1) == ()


def test_unknown_paths_name_the_network(tmp_path: Path) -> None:
    grid = load(written(tmp_path, GOOD))
    with pytest.raises(AccelsimError, match="unknown parameter of noc 'bandwith'; did you mean"):
        grid.override({"noc.bandwith": 1})
    with pytest.raises(AccelsimError, match=r"block of kind mesh; accepted: one of noc\.rows"):
        grid.override({"noc": 1})
    with pytest.raises(AccelsimError, match="outside the 1 x 4 mesh"):
        grid.override({"noc.rows": 1})


def test_channel_load_says_what_each_core_gets() -> None:
    def share(network: Network, cores: int = 4) -> float:
        return machine(cores, net=network).placements["net"].core_bytes_per_second("hbm")

    speed = 12 * 10**9
    assert share(Bus(bandwidth=speed)) == speed / 4
    assert share(Crossbar(bandwidth=speed)) == speed / 4  # one output of the memory
    assert share(Crossbar(bandwidth=speed, ports={"hbm": 4})) == speed  # one input each
    assert share(Crossbar(bandwidth=speed, ports={"hbm": 4}, packet=60, header=20)) == speed * 3 / 4
    # From the end of a line all four streams cross the first link; from the middle, two.
    assert share(Mesh(bandwidth=speed, rows=1, cols=5, at={"hbm": ((0, 0),)})) == speed / 4
    both_ends = Mesh(bandwidth=speed, rows=1, cols=6, at={"hbm": ((0, 0), (0, 5))})
    assert share(both_ends) == speed / 2


def test_shipped_architectures_still_have_no_network() -> None:
    assert not arch("quad-npu").networks
