"""Machines whose main memory is a DRAM: its peak as a parameter, refresh, energy, whole models."""

from __future__ import annotations

from fractions import Fraction

import pytest

from accelsim.api import arch, grid, simulate, sweep
from accelsim.arch.describe import peak_bytes_per_second
from accelsim.arch.model import Architecture
from accelsim.errors import AccelsimError
from accelsim.hw.dma import Dma
from accelsim.hw.dram.block import Dram
from accelsim.hw.systolic import Systolic

MACHINES = ("tpu-v3", "a100", "h100", "hbm-npu", "mesh-npu", "quad-npu", "edge-npu")
GEMM = "gemm:m=256,n=256,k=256"


def dram(machine: str, **changes: object) -> Dram:
    name = arch(machine).main_memory()[0]
    found = arch(machine, {f"{name}.{key}": v for key, v in changes.items()}).main_memory()[1]
    assert isinstance(found, Dram)
    return found


@pytest.mark.parametrize(
    ("machine", "peak", "nanoseconds"),
    [
        ("tpu-v3", "450", 200),
        ("a100", "2039", 145),
        ("h100", "3350", 118),
        ("mesh-npu", "512", 100),
        ("quad-npu", "102.4", 100),
        ("edge-npu", "25.6", 120),
    ],
)
def test_peak_and_latency_are_those_of_the_data_sheet(
    machine: str, peak: str, nanoseconds: int
) -> None:
    memory = dram(machine)
    assert memory.bandwidth == Fraction(peak) * 10**9
    assert memory.access_seconds == pytest.approx(nanoseconds * 1e-9, rel=0.01)
    assert peak_bytes_per_second(arch(machine), arch(machine).main_memory()[0]) == memory.bandwidth


def test_bandwidth_sets_the_clock_and_follows_from_channels() -> None:
    faster = dram("tpu-v3", bandwidth="900 GB/s")
    assert faster.command_clock == 2 * dram("tpu-v3").command_clock
    assert dram("tpu-v3", channels=32).bandwidth == 900 * 10**9
    both = dram("tpu-v3", channels=32, bandwidth="450 GB/s")
    assert (both.bandwidth, both.command_clock) == (450 * 10**9, dram("tpu-v3").command_clock // 2)


def test_arrays_keep_their_nanoseconds_at_another_clock() -> None:
    slow, fast = dram("hbm-npu").part, dram("hbm-npu", bandwidth="1024 GB/s").part
    assert fast.clock_hz == 2 * slow.clock_hz
    for name in ("tRCDRD", "tRAS", "tFAW", "tREFI"):
        assert fast.timings[name] == 2 * slow.timings[name]
    assert fast.timings["burst_cycles"] == slow.timings["burst_cycles"]


def test_array_times_in_clocks_follow_the_clock_as_in_the_standard() -> None:
    # LPDDR4X-4266 has RL 36 and WL 18; JESD209-4B asks for 28 and 14 at 3200 MT/s.
    part = dram("edge-npu", bandwidth="25.6 GB/s").part
    assert part.clock_hz == 1600 * 10**6
    assert (part.timings["CL"], part.timings["CWL"]) == (28, 14)
    slow = dram("quad-npu", command_clock="500 MHz").part.timings
    assert slow["tRCDRD"] + slow["tRP"] <= slow["tRC"]


def test_what_follows_from_an_override_is_told_as_one() -> None:
    changed = arch("tpu-v3", {"hbm.bandwidth": "600 GB/s"})
    assert changed.sources["hbm.bandwidth"] == changed.sources["hbm.command_clock"] == "override"
    assert arch("tpu-v3", {"hbm.channels": 32}).sources["hbm.bandwidth"] == "override"
    assert arch("tpu-v3", {"hbm.efficiency": 0.9}).sources["hbm.bandwidth"].startswith("900 GB/s")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hbm.bandwidth": 0}, "hbm.bandwidth: bandwidth must be positive"),
        ({"hbm.bandwidth": "fast"}, "hbm.bandwidth: "),
        (
            {"hbm.bandwidth": "600 GB/s", "hbm.command_clock": "1 GHz"},
            "bandwidth sets command_clock, which is given, too; accepted: one of them",
        ),
        ({"hbm.bandwith": "1 GB/s"}, "did you mean 'bandwidth'"),
        ({"hbm.refresh_kind": "never"}, "hbm.refresh_kind"),
        ({"hbm.device": "ddr4-3200", "hbm.channels": 64}, "ddr4-3200 has no per-bank refresh"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(change: dict[str, object], message: str) -> None:
    with pytest.raises(AccelsimError, match=message) as fault:
        arch("tpu-v3", change)
    assert "\n" not in str(fault.value)


def test_bandwidth_can_be_swept() -> None:
    points = grid("tpu-v3", {"hbm.bandwidth": ["225 GB/s", "450 GB/s", "900 GB/s"]})
    table = sweep(points, "gemm:m=16,n=2048,k=2048")
    seconds = [float(row["seconds"]) for row in table.ok]
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[0] > 1.5 * seconds[1]


def test_a_machine_in_python_may_give_the_bandwidth_by_its_clock() -> None:
    made = Architecture.build(
        name="m", clock="1 GHz",
        units={"mxu": Systolic(rows=8, cols=8, inputs="s", weights="s", outputs="s"), "dma": Dma()},
        memories={"hbm": dram("tpu-v3"), "s": arch("tpu-v3").memories["vmem"]},
    )  # fmt: skip
    memory = made.memories["hbm"]
    assert isinstance(memory, Dram)
    assert memory.bandwidth == 450 * 10**9


def test_energy_of_pins_comes_on_top_at_both_fidelities() -> None:
    def energy(memory: str, pins: float) -> float:
        run = simulate("quad-npu", GEMM, memory=memory, overrides={"dram.io_pj_per_byte": pins})
        moved = sum(run.traffic_bytes["dram"].values())
        return run.energy_pj["dram"] / moved

    for memory in ("bandwidth", "dram"):
        assert energy(memory, 100) - energy(memory, 0) == pytest.approx(100)


@pytest.mark.parametrize("machine", MACHINES)
def test_channels_take_about_as_long_as_the_bandwidth_says(machine: str) -> None:
    work = "opt-125m:layers=1,phase=decode,batch=4,context=128,vocab=1000"
    plain, real = (simulate(machine, work, memory=memory) for memory in ("bandwidth", "dram"))
    assert 0.8 * plain.cycles < real.cycles < 1.4 * plain.cycles
    assert all(real.cycles >= bound for bound in real.bounds.values())


def test_a_long_stream_of_reads_comes_near_the_peak() -> None:
    run = simulate("tpu-v3", "softmax:rows=4096,cols=4096", memory="dram")
    rate = sum(run.traffic_bytes["hbm"].values()) / run.seconds
    assert 0.8 < rate / (450 * 10**9) < 0.97


def test_refresh_bank_by_bank_holds_up_less() -> None:
    stream = "softmax:rows=2048,cols=2048"
    cycles = [
        simulate("hbm-npu", stream, memory="dram", overrides={"hbm.refresh_kind": kind}).cycles
        for kind in ("per-bank", "all-bank")
    ]
    assert cycles[0] < 0.95 * cycles[1]


def test_a_dma_is_busy_while_channels_move_its_bytes() -> None:
    run = simulate("tpu-v3", "gemm:m=16,n=4096,k=1024", memory="dram")
    # Two queues: one loads all the time, the other stores little.
    assert 0.4 < run.utilization["dma"] < 0.7


def test_what_a_gpu_has_no_mapper_for_is_said_in_one_line() -> None:
    with pytest.raises(
        AccelsimError, match=r"no unit of a100 can run it .* needs systolic"
    ) as fault:
        simulate("a100", "conv2d:h=14,w=14,cin=64,cout=64,fh=3,fw=3")
    assert "\n" not in str(fault.value)
