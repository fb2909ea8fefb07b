"""Energy of commands and of waiting, from supply currents or from published energies.

**Currents** (DDR4, DDR5, DRAMsim3 files): the method of Micron's technical note TN-40-07,
"Calculating Memory Power for DDR4 SDRAM". Energy in pJ is VDD (V) x current (mA) x time (ns), times
the dies that share the command:

    ACT with its PRE   VDD x (IDD0 tRC - IDD3N tRAS - IDD2N tRP)
    RD                 VDD x (IDD4R - IDD3N) x burst        WR: IDD4W
    REFAB              VDD x (IDD5AB - IDD3N) x tRFC         REFPB: IDD5PB, tRFCpb
    stand-by           VDD x IDD3N (a bank open) or IDD2N (all precharged) x time

Where data-sheet currents make a difference negative (DDR5: IDD3N is measured with all 32 banks
open, IDD0 with one), it counts as zero. Pins and termination are not in these currents.

**Published energies** (HBM, GDDR, LPDDR): per activated row, per bit read or written, per refresh,
and stand-by power per rank; see device.BitEnergy. A refresh without a figure of its own costs the
activation of the rows it refreshes: tREFI / 32 ms of the rank.
"""

from __future__ import annotations

from collections.abc import Mapping

from accelsim.hw.dram.commands import Command
from accelsim.hw.dram.device import BitEnergy, Currents, Device

RETENTION_NS = 32e6
"""Every row is refreshed once in 32 ms: JESD235D, JESD238A, JESD209-4B, JESD209-5B, JESD250C."""


def command_energy_pj(device: Device) -> dict[Command, float]:
    """Energy of one command; an activation's holds that of its precharge.

    Empty for a device without energy figures.
    """
    power = device.power
    if isinstance(power, Currents):
        return _from_currents(device, power)
    if isinstance(power, BitEnergy):
        return _from_bits(device, power)
    return {}


def standby_power_mw(device: Device) -> tuple[float, float]:
    """Power of one rank with a bank open, and with all banks precharged."""
    power = device.power
    if isinstance(power, Currents):
        supply = power.vdd * power.dies
        return supply * power.idd3n, supply * power.idd2n
    if isinstance(power, BitEnergy):
        return power.active_mw, power.idle_mw
    return 0.0, 0.0


def energy_pj(
    device: Device, counts: Mapping[Command, int], active_cycles: int, idle_cycles: int
) -> dict[str, float]:
    """Energy of a run: activate, read, write, refresh, standby, and their total.

    ``active_cycles`` sums, over the ranks of all pseudo-channels, the clocks in which a bank of the
    rank is open, ``idle_cycles`` the others (fewer than none where ranks with two row buffers have
    rows open in both).
    """
    one = command_energy_pj(device)
    active_mw, idle_mw = standby_power_mw(device)

    def of(*commands: Command) -> float:
        return sum(one.get(command, 0.0) * counts.get(command, 0) for command in commands)

    parts = {
        "activate": of(Command.ACT),
        "read": of(Command.RD, Command.RDA),
        "write": of(Command.WR, Command.WRA),
        "refresh": of(Command.REFAB, Command.REFPB),
        "standby": (active_mw * active_cycles + idle_mw * idle_cycles) * device.tck_ns,
    }
    return {**parts, "total": sum(parts.values())}


def _from_currents(device: Device, power: Currents) -> dict[Command, float]:
    t = device.timings
    supply = power.vdd * power.dies * device.tck_ns  # pJ per mA and clock

    def above_standby(current: float, clocks: int) -> float:
        return max(0.0, supply * (current - power.idd3n) * clocks)

    read = above_standby(power.idd4r, t["burst_cycles"])
    write = above_standby(power.idd4w, t["burst_cycles"])
    row = power.idd0 * t["tRC"] - power.idd3n * t["tRAS"] - power.idd2n * t["tRP"]
    refresh = above_standby(power.idd5ab, t["tRFC"])
    single = above_standby(power.idd5pb, t.get("tRFCpb", 0))
    return {
        Command.ACT: max(0.0, supply * row),
        **_columns(read, write),
        **_refreshes(device, refresh, single),
    }


def _from_bits(device: Device, power: BitEnergy) -> dict[Command, float]:
    parts = device.organization
    bits = 8 * parts.column_bytes
    rows = parts.rows * parts.banks_per_rank
    per_refresh = rows * device.refresh.interval_cycles * device.tck_ns / RETENTION_NS
    refresh = power.refresh_pj or power.activate_pj * per_refresh
    return {
        Command.ACT: power.activate_pj,
        **_columns(power.read_pj_per_bit * bits, power.write_pj_per_bit * bits),
        **_refreshes(device, refresh, 0.0),
    }


def _columns(read: float, write: float) -> dict[Command, float]:
    return {
        Command.RD: read, Command.RDA: read, Command.WR: write, Command.WRA: write,
    }  # fmt: skip


def _refreshes(device: Device, whole: float, single: float) -> dict[Command, float]:
    """Per-bank refreshes without a figure: those of one tREFI cost what an all-bank one does."""
    refresh = device.refresh
    in_turn = device.organization.banks_per_rank / refresh.groups_per_command
    if refresh.per_bank_interval_cycles:
        in_turn = round(refresh.interval_cycles / refresh.per_bank_interval_cycles)
    return {Command.REFAB: whole, Command.REFPB: single or whole / in_turn}
