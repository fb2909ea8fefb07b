"""What transfers and memory ports cost, against closed forms worked out by hand."""

import numpy as np
import pytest

from accelsim.arch import Architecture
from accelsim.engine.bind import BoundProgram, bind
from accelsim.engine.merge import run
from accelsim.engine.ports import WRITE
from accelsim.engine.schedule import port_service
from accelsim.errors import AccelsimError
from accelsim.hw.dma import Dma
from accelsim.hw.link import Link
from accelsim.hw.memory import MainMemory
from accelsim.hw.sram import Sram
from accelsim.hw.systolic import Systolic
from accelsim.numerics.formats import FORMATS
from accelsim.program.builder import Builder
from accelsim.program.table import OperatorInfo, StorageInfo

BF16 = FORMATS["bf16"]


def machine(
    *,
    sram: dict[str, object] | None = None,
    link: Link | None = None,
    issue: int = 0,
    **memory: object,
) -> Architecture:
    dram = {"capacity": "1 GiB", "bandwidth": "10 GB/s", "latency": "50 ns", **memory}
    array = Systolic(rows=8, cols=8, inputs="spad", weights="spad", outputs="spad")
    return Architecture.build(
        name="probe",
        clock="1 GHz",
        clocks={"slow": "400 MHz"},
        units={"array": array, "dma": Dma(count=2, issue=issue)},
        memories={
            "dram": MainMemory(**dram),  # type: ignore[arg-type]
            "spad": Sram(**{"capacity": "64 KiB", **(sram or {})}),  # type: ignore[arg-type]
        },
        links=[link] if link else [],
    )


def two_loads(
    target: Architecture, rows: int = 10, cols: int = 50, stride: int = 50
) -> BoundProgram:
    """Two loads of [rows, cols] bf16 on two DMA queues, at the same time."""
    build = Builder(target.unit_slots(), target.address_spaces())
    spaces = {s.name: i for i, s in enumerate(build.spaces)}
    build.begin_operator(OperatorInfo("probe", "gemm", "", 0))
    source = build.storage(StorageInfo("x", spaces["dram"], 0, 1 << 20, "input"))
    for queue in (1, 2):
        base = queue * 8192
        tile = build.storage(StorageInfo(f"b{queue}", spaces["spad"], base, 8192, "buffer"))
        window = source.view(rows, cols, BF16, stride=2 * stride)
        build.load(queue, tile.view(rows, cols, BF16), window)
    return bind(build.finish(), target)


def finishes(bound: BoundProgram) -> list[int]:
    return list(run(bound.timed).finish // bound.arch.ticks_per_cycle("core"))


def test_transfer_takes_latency_plus_bytes_over_bandwidth_and_queues_share_the_port() -> None:
    # 1000 bytes at 10 bytes/cycle: 100 cycles on the port, 50 cycles of latency.
    assert finishes(two_loads(machine())) == [150, 250]


def test_strided_rows_cost_whole_granules_contiguous_ones_do_not() -> None:
    # Rows of 100 bytes: 2 granules of 64 each when strided, 16 granules for all when packed.
    assert finishes(two_loads(machine(granule=64), stride=60))[0] == 50 + 128
    assert finishes(two_loads(machine(granule=64)))[0] == 50 + 103


def test_memory_clock_quantises_its_own_transfers() -> None:
    # At 400 MHz 10 GB/s is 25 bytes per cycle: 40 memory cycles = 100 core cycles.
    assert finishes(two_loads(machine(clock="slow")))[0] == 150
    # 1010 bytes need 41 memory cycles, 102.5 core cycles.
    bound = two_loads(machine(clock="slow"), rows=5, cols=101, stride=101)
    ticks = run(bound.timed).finish[0]
    assert ticks * 1000 / bound.arch.ticks_per_second() == pytest.approx(152.5e-6)


def test_narrow_scratchpad_stretches_the_transfer() -> None:
    # 4 bytes per cycle into the scratchpad: 250 cycles, and its write port is shared.
    assert finishes(two_loads(machine(sram={"banks": 2, "width": 2}))) == [300, 550]


def test_transfer_that_waits_for_the_scratchpad_has_had_its_turn_at_the_dram() -> None:
    bound = two_loads(machine(sram={"banks": 2, "width": 2}))
    schedule, tick = run(bound.timed), bound.arch.ticks_per_cycle("core")
    assert list(schedule.start // tick) == [0, 100]
    served = {
        name: list(port_service(bound.timed, schedule, p)[1] // tick)
        for p, name in enumerate(bound.port_names)
    }
    assert served == {"dram": [0, 100], "spad read": [], "spad write": [0, 250]}


BANKED = {"banks": 8, "width": 4}
"""A column of words 32 bytes apart lies in one bank; 36 bytes apart it goes through all of them."""


def held(bound: BoundProgram, row: int, name: str) -> int:
    """Cycles for which an instruction holds a port."""
    port = bound.timed.port[row] == bound.port_names.index(name)
    return int(bound.timed.hold[row][port].sum()) // bound.arch.ticks_per_cycle("core")


@pytest.mark.parametrize(("stride", "cycles"), [(4, 2), (36, 2), (64, 16), (32, 16)])
def test_a_strided_transfer_takes_as_long_as_its_busiest_bank(stride: int, cycles: int) -> None:
    target = machine(sram=BANKED)
    build = Builder(target.unit_slots(), target.address_spaces())
    build.begin_operator(OperatorInfo("probe", "gemm", "", 0))
    tile = build.storage(StorageInfo("a", 1, 0, 4096, "buffer")).view(16, 2, BF16, stride=stride)
    out = build.storage(StorageInfo("y", 0, 0, 64, "output")).view(16, 2, BF16)
    build.fill(1, tile, 1.0)
    build.store(2, out, tile)
    bound = bind(build.finish(), target)
    assert held(bound, 0, "spad write") == held(bound, 1, "spad read") == cycles
    # 64 bytes at 10 bytes/cycle are 7 cycles of the DRAM, behind 50 of latency.
    assert finishes(bound) == [cycles, cycles + 50 + max(7, cycles)]


def test_an_array_meets_the_conflicts_of_an_operand_in_every_pass() -> None:
    def reading(stride: int) -> int:
        target = machine(sram=BANKED)
        build = Builder(target.unit_slots(), target.address_spaces())
        build.begin_operator(OperatorInfo("probe", "gemm", "", 0))
        a = build.storage(StorageInfo("a", 1, 0, 4096, "buffer")).view(16, 2, BF16, stride=stride)
        b = build.storage(StorageInfo("b", 1, 8192, 96, "buffer")).view(2, 24, BF16)
        c = build.storage(StorageInfo("c", 1, 16384, 4096, "buffer"))
        build.fill(1, a, 1.0)
        build.fill(1, b, 1.0)
        build.matmul(0, c.view(16, 24, FORMATS["fp32"]), a, b, accumulate=False)
        return held(bind(build.finish(), target), 2, "spad read")

    # Three tiles of 8 columns read all 64 bytes of a, and b once.
    assert reading(4) == 3 * 2 + 3
    assert reading(32) == 3 * 16 + 3


def test_descriptors_hide_behind_longer_transfers_and_limit_shorter_ones() -> None:
    assert finishes(two_loads(machine(issue=4))) == [150, 250]
    assert finishes(two_loads(machine(issue=120)))[0] == 170


def test_link_limits_and_delays() -> None:
    link = Link(source="dram", target="spad", bandwidth=5 * 10**9, latency=20e-9)
    assert finishes(two_loads(machine(link=link))) == [50 + 20 + 200, 50 + 20 + 400]


def test_ideal_memory_takes_no_time() -> None:
    bound = two_loads(machine())
    ideal = bind(bound.program, bound.arch, "ideal")
    assert run(ideal.timed).ticks == 0
    assert (ideal.timed.port == -1).all()


def test_array_contends_with_dma_for_a_single_ported_scratchpad() -> None:
    def cycles(ports: int) -> int:
        target = machine(sram={"banks": 1, "width": 16, "ports": ports})
        build = Builder(target.unit_slots(), target.address_spaces())
        build.begin_operator(OperatorInfo("probe", "gemm", "", 0))
        spad = build.storage(StorageInfo("a", 1, 0, 4096, "buffer"))
        acc = build.storage(StorageInfo("c", 1, 8192, 4096, "buffer"))
        build.fill(1, spad.view(32, 32, BF16), 1.0)
        a = spad.view(32, 32, BF16)
        build.matmul(0, acc.view(32, 32, FORMATS["fp32"]), a, a, accumulate=False)
        return run(bind(build.finish(), target).timed).ticks

    assert cycles(1) > cycles(2)


def test_compute_keeps_its_own_times_and_waits_for_a_slow_port() -> None:
    target = machine(sram={"banks": 1, "width": 2, "ports": 1})
    build = Builder(target.unit_slots(), target.address_spaces())
    build.begin_operator(OperatorInfo("probe", "gemm", "", 0))
    a = build.storage(StorageInfo("a", 1, 0, 4096, "buffer")).view(8, 8, BF16)
    c = build.storage(StorageInfo("c", 1, 8192, 4096, "buffer")).view(8, 8, FORMATS["fp32"])
    build.fill(1, a, 1.0)
    build.matmul(0, c, a, a, accumulate=False)
    program = build.finish()
    real, ideal = bind(program, target).timed, bind(program, target, "ideal").timed
    assert real.occupancy[1] == ideal.occupancy[1]
    assert real.latency[1] == ideal.latency[1]
    # Two operands of 128 bytes and a result of 256 bytes, 2 bytes per cycle: 256 cycles.
    ticks = run(real)
    tail = max(0, real.latency[1] - real.occupancy[1])
    held = 256 * target.ticks_per_cycle("core")
    assert held > real.latency[1]
    assert ticks.finish[1] - ticks.start[1] == held + tail


def test_unknown_fidelity_names_the_known_ones() -> None:
    bound = two_loads(machine())
    with pytest.raises(AccelsimError, match="accepted: ideal, bandwidth, dram"):
        bind(bound.program, bound.arch, "flash")  # type: ignore[arg-type]


def test_bytes_counted_are_the_bytes_of_the_program() -> None:
    bound = two_loads(machine())
    assert np.array_equal(bound.accesses.nbytes[:, 0], [1000, 1000])
    assert np.array_equal(bound.accesses.nbytes[:, WRITE], [1000, 1000])
