"""Main memory as DRAM channels: the clock decides, and what it says holds together."""

from __future__ import annotations

import pytest

from accelsim import arch, simulate
from accelsim.errors import AccelsimError
from accelsim.hw.dram.block import Dram

GEMM = "gemm:m=256,n=384,k=512"


def test_bytes_commands_and_energy_belong_to_the_program() -> None:
    run = simulate("hbm-npu", GEMM, memory="dram")
    moved = run.traffic_bytes["hbm"]
    assert moved == simulate("hbm-npu", GEMM).traffic_bytes["hbm"]  # aligned: no part of a burst
    (segment,) = run.segments
    activity = segment.schedule.activity
    assert activity is not None
    assert activity.channels is not None
    counts = activity.channels
    assert 32 * counts.total("RD") == moved["read"]
    assert 32 * counts.total("WR") == moved["write"]
    columns = counts.total("RD") + counts.total("WR")
    outcomes = sum(counts.total(name) for name in ("hits", "misses", "conflicts"))
    assert outcomes == columns
    assert (counts.counts["RD"] > 0).all()  # hashing spreads a small product over all channels
    assert run.energy_pj["hbm"] == pytest.approx(counts.energy_pj)
    assert segment.schedule.ticks >= activity.idle_tick > 0


def test_a_stream_takes_its_bursts_and_never_less_than_the_bus_needs() -> None:
    """A copy-like operator: bound by memory, near the peak, never above it."""
    run = simulate("hbm-npu", "softmax:rows=2048,cols=2048", memory="dram")
    assert run.cycles >= run.bounds["hbm"]
    assert run.cycles < 4 * max(run.bounds.values())


def test_more_channels_and_no_refresh_are_not_slower() -> None:
    few, many = (
        simulate("hbm-npu", GEMM, memory="dram", overrides={"hbm.channels": n}) for n in (16, 64)
    )
    # First-ready scheduling has anomalies where latency counts: an earlier command may cost a
    # later one, and a tile spread over more channels opens more rows.
    assert many.cycles <= 1.01 * few.cycles
    still = simulate("hbm-npu", GEMM, memory="dram", overrides={"hbm.refresh": False})
    assert still.cycles <= 1.01 * few.cycles


def test_a_stream_gains_from_channels() -> None:
    work = "softmax:rows=2048,cols=2048"
    few, many = (
        simulate(
            "hbm-npu", work, memory="dram", overrides={"hbm.channels": n, "hbm.capacity": "1 GiB"}
        )
        for n in (1, 4)
    )
    assert many.cycles < 0.5 * few.cycles


def test_a_memory_without_channels_says_what_would_do() -> None:
    with pytest.raises(AccelsimError, match=r"dram \(kind: memory\) has no DRAM channels"):
        simulate("systolic", GEMM, memory="dram")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hbm.channels": 0}, "channels must be at least 1"),
        ({"hbm.channels": 1 << 20}, "channels must be at most 1024, not 1048576"),
        ({"hbm.latency": 1e30}, r"latency must be at most 1 s, not 1e\+30 s"),
        ({"hbm.refresh_kind": "never"}, "unknown choice 'never'; accepted: '', all-bank, per-bank"),
        ({"hbm.mapping": "RoBaCo"}, "does not cover the address"),
        ({"hbm.device": "hbm9"}, "unknown memory device 'hbm9'"),
        ({"hbm.capacity": "17 GiB"}, "is more than 16 channels of hbm2 hold"),
        ({"hbm.low_watermark": 40}, "low_watermark"),
    ],
)
def test_bad_parameters_are_one_clear_line(change: dict[str, object], message: str) -> None:
    with pytest.raises(AccelsimError, match=message):
        arch("hbm-npu", change)


def test_the_block_at_bandwidth_fidelity_is_peak_and_closed_bank_latency() -> None:
    hbm = arch("hbm-npu").memories["hbm"]
    assert isinstance(hbm, Dram)
    assert hbm.peak_bandwidth == 16 * 32 * 10**9
    t = hbm.part.timings
    closed = t["tRCDRD"] + t["CL"] + t["burst_cycles"]
    assert hbm.access_seconds == pytest.approx(closed * 1e-9 + 100e-9)
