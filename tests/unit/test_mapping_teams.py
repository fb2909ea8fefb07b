"""Products on a team of cores: right numbers, every operand read once for many, a good grid."""

from __future__ import annotations

import pytest

from accelsim.api import as_arch, as_graph, check, simulate
from accelsim.errors import CapacityError
from accelsim.mapping import teams
from accelsim.program.opcodes import Opcode
from accelsim.results.result import Result

ALONE = {"noc.multicast": False}


def opcodes_of(result: Result) -> set[int]:
    return {int(o) for run in result.segments for o in run.bound.program.column("opcode")}


@pytest.mark.parametrize(
    "work",
    [
        "gemm:m=100,n=70,k=90",
        "gemm:m=1,n=300,k=200",
        "gemm:m=300,n=33,k=65,transpose_b=true",
        "gemm:m=130,n=200,k=70,bias=true",
        "gemm:m=70,n=130,k=90,dtype=int8",
        "gemm:m=90,n=65,k=50,batch=3",
        "attention:heads=3,q=33,kv=70,d=32",
        "conv2d:h=5,w=6,cin=3,cout=5,fh=3,fw=3,padding=1",
    ],
)
@pytest.mark.parametrize(
    "changes", [{}, {"cores": 6, "spad.capacity": 20000}, {"array.dataflow": "os"}]
)
def test_numbers_are_right(work: str, changes: dict[str, object]) -> None:
    assert check("mesh-npu", work, overrides=changes).ok


def test_a_team_reads_every_operand_once() -> None:
    m, n, k = 512, 512, 512
    team = simulate("mesh-npu", f"gemm:m={m},n={n},k={k}")
    alone = simulate("mesh-npu", f"gemm:m={m},n={n},k={k}", overrides=ALONE)
    assert team.traffic_bytes["hbm"] == {"read": 2 * (m * k + k * n), "write": 2 * m * n}
    assert alone.traffic_bytes["hbm"]["read"] > 8 * team.traffic_bytes["hbm"]["read"]
    assert team.cycles < 0.6 * alone.cycles
    assert "2 x 8 cores, multicast" in team.operators[0].mapping
    assert Opcode.MULTICAST in opcodes_of(team)
    assert Opcode.MULTICAST not in opcodes_of(alone)
    # Every core still takes in the whole rows and columns of its share.
    into = [use["bytes"] for link, use in team.links["noc"].items() if link.startswith("to ")]
    assert sum(into) > 4 * team.traffic_bytes["hbm"]["read"]


def test_operators_that_a_network_holds_up_say_so() -> None:
    corner = {"noc.bandwidth": "32 GB/s", "noc.at": {"hbm": [0, 0]}}  # nothing passes most links
    narrow = simulate("mesh-npu", "gemm:m=64,n=512,k=512", overrides=corner)
    assert narrow.bottleneck == narrow.operators[0].bottleneck == "noc"
    wide = simulate("mesh-npu", "gemm:m=512,n=512,k=512", overrides={"noc.bandwidth": "1 TB/s"})
    assert wide.bottleneck == wide.operators[0].bottleneck == "array"


def test_teams_need_a_network_with_multicast_and_fewer_products_than_cores() -> None:
    assert Opcode.MULTICAST not in opcodes_of(simulate("quad-npu", "gemm:m=64,n=64,k=64"))
    many = simulate("mesh-npu", "gemm:m=64,n=64,k=64,batch=16")
    assert Opcode.MULTICAST not in opcodes_of(many)
    single = simulate("mesh-npu", "gemm:m=64,n=64,k=64", overrides={"cores": 1})
    assert Opcode.MULTICAST not in opcodes_of(single)


@pytest.mark.parametrize("work", ["gemm:m=512,n=256,k=384", "gemm:m=64,n=1024,k=256"])
def test_the_chosen_grid_is_near_the_best(work: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = simulate("mesh-npu", work).cycles
    found = []
    for i in range(5):  # 1 x 16, 2 x 8, 4 x 4, 8 x 2, 16 x 1
        monkeypatch.setattr(teams, "choose_grid", lambda low, p, i=i: teams.grids(low, p)[i])
        found.append(simulate("mesh-npu", work).cycles)
    assert chosen in found
    assert max(found) > 1.2 * min(found)
    assert chosen <= 1.09 * min(found), found


def test_too_small_scratchpads_are_a_capacity_error() -> None:
    with pytest.raises(CapacityError, match="operator 'gemm'"):
        simulate("mesh-npu", "gemm:m=64,n=64,k=64", overrides={"spad.capacity": 1024})


def test_the_closed_form_knows_what_a_network_leaves_of_the_memory() -> None:
    from accelsim.mapping.lowering import Lowering, Machine
    from accelsim.mapping.placement import Arena

    def lowering(changes: dict[str, object]) -> Lowering:
        arch, graph = as_arch("mesh-npu", changes), as_graph("gemm:m=8,n=8,k=8")
        machine = Machine(arch, False, 1000)
        arena = Arena(machine.build, 0, "hbm", 1 << 20)
        return Lowering(arch, graph, machine.build, machine.cores, {}, arena, machine.main, False)

    whole = lowering({"noc.bandwidth": "1 TB/s", "noc.header": 0})
    assert whole.core_bytes_per_second == 512e9 / 16
    narrow = lowering({"noc.bandwidth": "16 GB/s", "noc.header": 0})
    # Each of the eight exits of the memory serves two of the sixteen cores.
    assert narrow.core_bytes_per_second == 8e9
    assert narrow.read_seconds == pytest.approx(100e-9 + 2 * 7.5e-9)
    assert lowering({"noc.header": 256}).core_bytes_per_second == 16e9
