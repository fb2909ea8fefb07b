"""DRAM whose banks compute, as the main memory of an architecture."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal

from accelsim.errors import AccelsimError
from accelsim.hw.block import Ints, block, require
from accelsim.hw.dram.block import Dram
from accelsim.hw.dram.device import Device
from accelsim.hw.pim.catalog import family as find_family
from accelsim.hw.pim.family import Family
from accelsim.hw.pim.layouts.layout import BankGrid, Place

RULED = (
    "page", "window", "write_buffer", "high_watermark", "low_watermark", "hit_cap", "refresh_kind",
)  # fmt: skip
"""Parameters of ``kind: dram`` that a family's own controller decides (hw.pim.family.Rules)."""

BY_BANK = "RoRaBgBaChCo"
"""The map in which a row of a bank is one run of addresses, and banks are equally far apart."""

IN_GROUPS = "RoCoPcRaBgCo2ChBa"
"""The map in which neighbouring addresses are a column of each bank of a group, then go over
channels, pairs of columns and groups: a head's keys and values in the groups of one channel are
windows with constant steps (layouts.families.attacc_cache)."""

MAPS = {"attacc": IN_GROUPS}


@block("pim_dram")
@dataclass(frozen=True, kw_only=True)
class PimDram(Dram):
    """``channels`` channels of a PIM ``family`` ("neupims", or FILE.yaml:NAME): its DRAM device,
    and units beside the banks that a unit of ``kind: pim`` commands.

    Addresses go along a row of a bank, then over channels, then over banks, so that a matrix with
    one row per bank is a window with constant steps; families with groups of banks have a
    ``mapping`` of their own (IN_GROUPS). ``requests`` says which channel keeps the keys and values
    of which request of a batch: "balanced" by what their attention takes there, or "in turns", as
    they come. Its controller is the family's (rules of its file): none of RULED is accepted. Other
    parameters are those of ``kind: dram``.
    """

    family: str
    device: str = ""
    mapping: str = BY_BANK
    hashing: bool = False
    requests: Literal["balanced", "in turns"] = "balanced"

    def check(self) -> None:
        super().check()
        require(not self.device, f"device is that of family {self.family}; accepted: none")
        require(not self.command_clock, "command_clock is that of the family; accepted: none")
        for one in fields(Dram):
            own = one.name not in RULED or getattr(self, one.name) == one.default
            require(own, f"{one.name} is that of family {self.family} (its rules); accepted: none")
        accepted = MAPS.get(self.pim.programs, BY_BANK)
        same = self.mapping.lower() == accepted.lower() and not self.hashing
        require(same, f"mapping {self.mapping}; accepted: {accepted} without hashing")
        parts = self.part.organization
        require(
            accepted == IN_GROUPS or parts.pseudo_channels == 1,
            f"family {self.family} has {parts.pseudo_channels} pseudo-channels; accepted: 1",
        )

    def setting(self, name: str, value: Any) -> Any:
        raise AccelsimError(f"{name} follows from family {self.family} and channels")

    @cached_property
    def pim(self) -> Family:
        """The family of its banks."""
        return find_family(self.family)

    @cached_property
    def simulated(self) -> Family:
        """The family with its banks as high as they are here."""
        return replace(self.pim, device=self.part)

    @cached_property
    def part(self) -> Device:
        found = self.pim.device
        parts = found.organization
        return replace(found, organization=replace(parts, rows=self.rows or parts.rows))

    @property
    def own_clock_hz(self) -> int:
        return self.part.clock_hz

    @cached_property
    def grid(self) -> BankGrid:
        """Its banks as layouts see them."""
        parts, units = self.part.organization, self.pim.units
        bits = units.operand_bits
        return BankGrid(
            self.channels, self.pim.banks, parts.rows, parts.row_bytes, units.macs * bits // 8, bits
        )

    def address(self, place: Place) -> Ints:
        """Bytes from row 0 of all banks to places of its banks: numbers of numbers."""
        element = place.column * self.grid.bits // 8
        in_row = place.channel * self.part.organization.row_bytes + element
        return place.row * self.row_pitch + place.bank * self.bank_pitch + in_row

    @cached_property
    def bank_pitch(self) -> int:
        """Bytes from an address to the same place of the next bank."""
        return self.part.organization.row_bytes * self.channels

    @cached_property
    def row_pitch(self) -> int:
        """Bytes of one row of all banks of all channels."""
        return self.bank_pitch * self.pim.banks
