"""DRAM as the main memory of an architecture: a device, some channels of it, a controller each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from accelsim.hw.block import block, require
from accelsim.hw.dram.catalog import device as find_device
from accelsim.hw.dram.commands import Command
from accelsim.hw.dram.controller import MOST_CHANNELS, Controller, Page, Policy
from accelsim.hw.dram.device import Device
from accelsim.hw.dram.energy import command_energy_pj
from accelsim.hw.memory import OffChipMemory, check_latency
from accelsim.quantities import Bytes, BytesPerSecond, Hertz, PicojoulesPerByte, Seconds

if TYPE_CHECKING:
    from accelsim.hw.dram.mapping import AddressMap

CLOCK_STEP = 15_625
"""Hz. Clocks of odd frequencies have no common tick with the others; on 512 bytes a clock, or 2560,
this step meets every bandwidth in whole GB/s."""


@block("dram")
@dataclass(frozen=True, kw_only=True)
class Dram(OffChipMemory):
    """``channels`` channels of a DRAM ``device`` ("hbm2", or FILE.yaml:NAME), one controller each.

    ``mapping`` spreads addresses over them: fields ro, ra, bg, ba, ch, co from the most to the
    least significant; ``hashing`` XORs row bits into banks and channels, so that power-of-two
    strides meet all of them. ``command_clock`` runs the device slower or faster than its grade (0:
    its own clock), at the same times of its arrays and the same clocks of its pins. ``rows`` makes
    its banks higher or lower, as in stacks of more or fewer dies (0: its own). ``latency`` is what
    controller and fabric add to the device's own, ``io_pj_per_byte`` the energy of pins and wires
    that the device's figures leave out (hw.dram.energy says which do). ``refresh_kind`` refreshes
    bank by bank or whole ranks ("": as the device's file says). The other parameters are those of
    ``hw.dram.controller.Controller``.

    The default map keeps pieces of a few hundred bytes to one channel (four columns of every bank
    group) and goes round all channels, hashed, as GPUs do (Khairy et al., Accel-Sim, ISCA 2020).
    Measured: cycles at dram over those at bandwidth fidelity, mean of eight workloads (products,
    attention, a sum, OPT-125M's prefill and decode), on hbm-npu, tpu-v3, quad-npu, edge-npu and
    mesh-npu, and energy on hbm-npu:

        RoRaBaCoPcChCo4Bg  1.10  1.00  1.09  1.05  1.06   4.09 pJ/bit
        RoRaBaCoPcChCo2Bg  1.09  0.99  1.09  1.05  1.19   4.11
        RoRaBaCoChBg       1.07  1.00  1.08  1.05  1.46   4.10: rows thrash below many cores
        RoRaBaBgCoPcCh     1.14  1.02  1.22  1.05  1.16   4.10
        RoRaBaChCoBg       1.47  1.23  1.30  1.09  1.35   4.22: tiles leave channels idle

    ``bandwidth``, the peak of all channels together, follows from channels and clock. Given in
    place of ``command_clock`` (``--set hbm.bandwidth="600 GB/s"``, or in a file), it sets the clock
    to the nearest 1/64 MHz: pins get faster, the array behind them does not. More of the same
    memory is more ``channels``.

    At bandwidth fidelity it is the latency of a read from a closed bank and this bandwidth, of
    which streams sustain the share ``efficiency``: banks, rows, refresh and turnarounds in one
    number. At dram fidelity all of these are simulated, and ``efficiency`` counts for nothing.
    """

    derived: ClassVar[Mapping[str, str]] = {"bandwidth": "command_clock"}

    device: str
    channels: int
    capacity: Bytes
    mapping: str = "RoRaBaCoPcChCo4Bg"
    hashing: bool = True
    command_clock: Hertz = 0
    rows: int = 0
    latency: Seconds = 0.0
    efficiency: float = 1.0
    io_pj_per_byte: PicojoulesPerByte = 0.0
    policy: Policy = "window"
    page: Page = "open"
    window: int = 32
    write_buffer: int = 32
    high_watermark: int = 26
    low_watermark: int = 7
    hit_cap: int = 16
    refresh: bool = True
    refresh_kind: Literal["", "all-bank", "per-bank"] = ""

    def check(self) -> None:
        super().check()
        _check_channels(self.channels)
        require(self.command_clock >= 0, f"command_clock is negative: {self.command_clock}")
        require(self.rows >= 0, f"rows must not be negative, not {self.rows}")
        check_latency(self.latency)
        share = self.efficiency
        require(0 < share <= 1, f"efficiency must be above 0, at most 1, not {share}")
        held = self.channels * self.part.organization.capacity_bytes
        require(
            self.capacity <= held,
            f"capacity {self.capacity} B is more than {self.channels} channels of"
            f" {self.part.name} hold; accepted: up to {held} B",
        )
        per_bank = self.part.refresh.kind == "per-bank"
        require(
            not per_bank or self.part.refresh.per_bank_cycles > 0,
            f"refresh_kind: {self.device} has no per-bank refresh; accepted: all-bank",
        )
        _ = self.controller, self.address_map
        require(
            self.policy == "window",
            f"policy {self.policy} serves request streams only (accelsim memory); accepted: window",
        )

    @property
    def bandwidth(self) -> BytesPerSecond:
        """Peak of all channels together, bytes/s."""
        return int(self.channels * self.part.channel_bytes_per_second)

    def setting(self, name: str, value: Any) -> Any:
        _check_channels(self.channels)
        require(value > 0, f"bandwidth must be positive, not {value}")
        own = find_device(self.device)
        bytes_per_clock = self.channels * own.channel_bytes_per_second / own.clock_hz
        return max(1, round(value / bytes_per_clock / CLOCK_STEP)) * CLOCK_STEP

    @cached_property
    def part(self) -> Device:
        """The device at its clock, with its rows."""
        found = find_device(self.device, self.command_clock)
        organization = found.organization
        rows = self.rows or organization.rows
        return replace(
            found,
            organization=replace(organization, rows=rows),
            refresh=replace(found.refresh, kind=self.refresh_kind or found.refresh.kind),
        )

    @property
    def controller(self) -> Controller:
        return Controller(
            policy=self.policy,
            page=self.page,
            window=self.window,
            write_buffer=self.write_buffer,
            high_watermark=self.high_watermark,
            low_watermark=self.low_watermark,
            hit_cap=self.hit_cap,
            accepts_per_clock=0,
            refresh=self.refresh,
        )

    @property
    def address_map(self) -> AddressMap:
        from accelsim.hw.dram.mapping import AddressMap

        return AddressMap.of(self.mapping, self.part.organization, self.channels, self.hashing)

    @property
    def turn_bytes(self) -> int:
        """Neighbouring bytes that all channels have an equal share of; 0 where they never do."""
        found = self.address_map.compiled
        return found.sweep * found.column_bytes

    @property
    def run_bytes(self) -> int:
        """Neighbouring bytes that lie in one channel."""
        return self.address_map.run_bytes

    @property
    def own_clock_hz(self) -> int:
        return self.part.clock_hz

    def peak_bytes_per_second(self, hz: int) -> int:
        return self.bandwidth

    @property
    def peak_bandwidth(self) -> int:
        peak = self.bandwidth
        # Whole MB/s, so that bytes x clock stays far inside 64 bits (whole_cycles).
        return peak if self.efficiency == 1.0 else round(peak * self.efficiency / 10**6) * 10**6

    def energy_pj_per_action(self) -> dict[str, float]:
        """Of a byte in a stream that opens every row once; without refresh and stand-by."""
        parts, energy = self.part.organization, command_energy_pj(self.part)
        once = energy.get(Command.ACT, 0.0) / parts.row_bytes + self.io_pj_per_byte
        return {
            "read_byte": once + energy.get(Command.RD, 0.0) / parts.column_bytes,
            "write_byte": once + energy.get(Command.WR, 0.0) / parts.column_bytes,
        }

    @property
    def access_bytes(self) -> int:
        return self.part.organization.column_bytes

    @property
    def access_seconds(self) -> float:
        t = self.part.timings
        return (t["tRCDRD"] + t["CL"] + t["burst_cycles"]) / self.own_clock_hz + self.latency

    @property
    def loaded_seconds(self) -> float:
        """From a request of many bursts to its data when rows conflict and banks are refreshed.

        A transfer ends with its last burst: it meets a bank that has another row open, and a
        refresh as often as any rank of any channel is in one.
        """
        t, parts, refresh = self.part.timings, self.part.organization, self.part.refresh
        length, interval = refresh.all_bank_cycles, refresh.interval_cycles
        if refresh.kind == "per-bank":
            length, interval = refresh.per_bank_cycles, refresh.per_bank_interval_cycles
        ranks = self.channels * parts.channel_ranks
        met = min(1.0, ranks * length / interval) if self.refresh and interval else 0.0
        return self.access_seconds + (t["tRP"] + met * length) / self.own_clock_hz

    @property
    def queue_bytes(self) -> int:
        """Bytes that wait in the read windows of all channels: what evens out unequal loads."""
        parts = self.part.organization
        return self.channels * parts.pseudo_channels * self.window * parts.column_bytes

    @property
    def added_cycles(self) -> int:
        """Cycles that controller and fabric add to a transfer."""
        return math.ceil(self.latency * self.own_clock_hz - 1e-9)


def _check_channels(channels: int) -> None:
    require(channels >= 1, f"channels must be at least 1, not {channels}")
    require(channels <= MOST_CHANNELS, f"channels must be at most {MOST_CHANNELS}, not {channels}")
