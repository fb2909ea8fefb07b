"""DRAM as the main memory of an architecture: a device, some channels of it, a controller each."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from accelsim.hw.block import block, require
from accelsim.hw.dram.catalog import device as find_device
from accelsim.hw.dram.controller import Controller, Page, Policy
from accelsim.hw.dram.device import Device
from accelsim.hw.memory import OffChipMemory
from accelsim.quantities import Bytes, Hertz, Seconds

if TYPE_CHECKING:
    from accelsim.hw.dram.mapping import AddressMap


@block("dram")
@dataclass(frozen=True, kw_only=True)
class Dram(OffChipMemory):
    """``channels`` channels of a DRAM ``device`` ("hbm2", or FILE.yaml:NAME), one controller each.

    ``mapping`` spreads addresses over them: fields ro, ra, bg, ba, ch, co from the most to the
    least significant; ``hashing`` XORs row bits into banks and channels, so that power-of-two
    strides meet all of them. ``command_clock`` runs the device slower or faster than its grade, at
    the same cycle counts (0: its own clock). ``latency`` is what controller and fabric add to the
    device's own. The other parameters are those of ``hw.dram.controller.Controller``.

    At bandwidth fidelity it is its peak bandwidth and the latency of a read from a closed bank.
    """

    device: str
    channels: int
    capacity: Bytes
    mapping: str = "RoRaBaChCoBg"
    hashing: bool = True
    command_clock: Hertz = 0
    latency: Seconds = 0.0
    policy: Policy = "window"
    page: Page = "open"
    window: int = 32
    write_buffer: int = 32
    high_watermark: int = 26
    low_watermark: int = 7
    hit_cap: int = 16
    refresh: bool = True

    def check(self) -> None:
        super().check()
        require(self.channels >= 1, f"channels must be at least 1, not {self.channels}")
        require(self.command_clock >= 0, f"command_clock is negative: {self.command_clock}")
        require(self.latency >= 0, f"latency must not be negative, not {self.latency}")
        held = self.channels * self.part.organization.capacity_bytes
        require(
            self.capacity <= held,
            f"capacity {self.capacity} B is more than {self.channels} channels of {self.device} "
            f"hold; accepted: up to {held} B",
        )
        _ = self.controller, self.address_map

    @property
    def part(self) -> Device:
        """The device at its clock."""
        found = find_device(self.device)
        return replace(found, clock_hz=self.command_clock) if self.command_clock else found

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
    def own_clock_hz(self) -> int:
        return self.part.clock_hz

    @property
    def peak_bandwidth(self) -> int:
        return int(self.channels * self.part.channel_bytes_per_second)

    @property
    def access_bytes(self) -> int:
        return self.part.organization.column_bytes

    @property
    def access_seconds(self) -> float:
        t = self.part.timings
        return (t["tRCDRD"] + t["CL"] + t["burst_cycles"]) / self.own_clock_hz + self.latency

    @property
    def added_cycles(self) -> int:
        """Cycles that controller and fabric add to a transfer."""
        return math.ceil(self.latency * self.own_clock_hz - 1e-9)
