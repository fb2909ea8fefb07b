"""A DRAM device: what one channel is made of, when its commands may follow one another.

All times are whole cycles of the command clock. A device says nothing about a controller: queues,
policies and address maps belong to whoever drives it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from accelsim.hw.dram.commands import Command, Scope

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

RefreshKind = Literal["all-bank", "per-bank"]


@dataclass(frozen=True)
class Constraint:
    """``after`` comes no earlier than ``cycles`` after the ``window``-th last ``before``.

    Both in the same instance of ``scope``. A window of 4 makes tFAW, one of 32 t32AW.
    """

    before: Command
    after: Command
    scope: Scope
    cycles: int
    window: int = 1
    name: str = ""

    def __str__(self) -> str:
        window = f", window {self.window}" if self.window > 1 else ""
        name = self.name or "constraint"
        return (
            f"{name}: {self.before.name} to {self.after.name} of a {self.scope.name.lower()}"
            f"{window}: {self.cycles} cycles"
        )


@dataclass(frozen=True)
class Organization:
    """What a channel consists of.

    ``banks`` are those of one bank group, ``columns`` the bursts in one row of one pseudo-channel,
    ``column_bytes`` the bytes that one read or write of one pseudo-channel moves.
    """

    pseudo_channels: int
    ranks: int
    bank_groups: int
    banks: int
    rows: int
    columns: int
    column_bytes: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of one bank."""
        return self.columns * self.column_bytes

    @property
    def banks_per_rank(self) -> int:
        return self.bank_groups * self.banks

    @property
    def channel_ranks(self) -> int:
        """Ranks of all pseudo-channels."""
        return self.pseudo_channels * self.ranks

    @property
    def channel_banks(self) -> int:
        """Banks of all ranks."""
        return self.channel_ranks * self.banks_per_rank

    @property
    def capacity_bytes(self) -> int:
        """Bytes of the channel."""
        return self.channel_banks * self.rows * self.row_bytes


@dataclass(frozen=True)
class Refresh:
    """How often a rank is refreshed and how long that takes.

    ``all-bank``: one REFAB per rank every ``interval_cycles`` (tREFI), ranks staggered by
    tREFI / ranks. ``per-bank``: one REFPB per rank every ``per_bank_interval_cycles``, banks in
    turn. One REFPB refreshes its bank in ``groups_per_command`` bank groups, those whose number is
    the command's bank group modulo bank_groups / groups_per_command (DDR5 "same bank": all of them;
    LPDDR5: pairs of banks; 1 elsewhere). Zero where a device knows no per-bank refresh.
    """

    kind: RefreshKind
    interval_cycles: int
    all_bank_cycles: int
    per_bank_interval_cycles: int = 0
    per_bank_cycles: int = 0
    groups_per_command: int = 1


@dataclass(frozen=True)
class Currents:
    """Supply currents of one die (mA), for the power method of Micron's TN-40-07.

    ``dies`` share a command (the width of a rank over the width of a die). Only the core supply:
    the pins' own (VDDQ, termination) and the word lines' (VPP) are not in these currents.
    """

    vdd: float
    idd0: float
    idd2n: float
    idd3n: float
    idd4r: float
    idd4w: float
    idd5ab: float
    idd2p: float = 0.0
    idd3p: float = 0.0
    idd5pb: float = 0.0
    dies: int = 1


@dataclass(frozen=True)
class BitEnergy:
    """Published energies where no currents are: per activated row, per bit moved, per refresh.

    ``read_pj_per_bit`` and ``write_pj_per_bit`` hold everything between the sense amplifiers and
    the host's pins, ``activate_pj`` one ACT with its precharge, ``refresh_pj`` one all-bank
    refresh of a rank (0: the activation of its rows), ``idle_mw`` and ``active_mw`` the stand-by
    power of one rank of a pseudo-channel with all banks precharged and with one open.
    """

    activate_pj: float
    read_pj_per_bit: float
    write_pj_per_bit: float
    refresh_pj: float = 0.0
    idle_mw: float = 0.0
    active_mw: float = 0.0


@dataclass(frozen=True)
class Device:
    """One channel of a DRAM standard at one speed.

    ``timings`` are the named cycle counts that constraints were derived from; ``burst_cycles`` is
    the time on the data bus. ``dual_command``: a row and a column command may share a clock (HBM).
    ``sources`` says where every number comes from, by parameter.
    """

    name: str
    standard: str
    clock_hz: int
    organization: Organization
    timings: Mapping[str, int]
    constraints: tuple[Constraint, ...]
    refresh: Refresh
    power: Currents | BitEnergy | None = None
    dual_command: bool = False
    description: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def tck_ns(self) -> float:
        """Period of the command clock."""
        return 1e9 / self.clock_hz

    @property
    def bytes_per_second(self) -> float:
        """Peak of one pseudo-channel's data bus: a column every max(burst, tCCD_S)."""
        cycles = max(self.timings["burst_cycles"], self.timings["tCCD_S"])
        return self.organization.column_bytes * self.clock_hz / cycles

    @property
    def channel_bytes_per_second(self) -> float:
        return self.organization.pseudo_channels * self.bytes_per_second

    def constraint_table(self) -> npt.NDArray[np.int64]:
        """Cycles by [scope, before, after] for windows of 1; -1 where nothing is asked."""
        import numpy as np

        table = np.full((len(Scope), len(Command), len(Command)), -1, np.int64)
        for one in self.constraints:
            if one.window == 1:
                at = (one.scope, one.before, one.after)
                table[at] = max(table[at], one.cycles)
        return table

    def windows(self) -> list[tuple[int, int]]:
        """(cycles, window) of the activation windows of a rank, shortest window first."""
        found = {(one.window, one.cycles) for one in self.constraints if one.window > 1}
        return [(cycles, window) for window, cycles in sorted(found)]
