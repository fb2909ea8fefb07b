"""A DRAM device as text: one line for lists, a page for reading."""

from __future__ import annotations

from collections.abc import Iterator

from accelsim.hw.dram.device import Device
from accelsim.hw.dram.energy import command_energy_pj, standby_power_mw
from accelsim.quantities import BYTES, HERTZ


def summary(device: Device) -> str:
    """Speed and main timings, e.g. "DDR4-2400T ...: 19.2 GB/s a channel, CL-tRCD-tRP 17-17-17"."""
    t = device.timings
    return (
        f"{device.description}: {device.channel_bytes_per_second / 1e9:g} GB/s a channel, "
        f"CL-tRCD-tRP-tRAS {t['CL']}-{t['tRCDRD']}-{t['tRP']}-{t['tRAS']} at "
        f"{HERTZ.format(device.clock_hz)}"
    )


def describe(device: Device) -> str:
    """Organisation, timings in clocks and nanoseconds, constraints and energy, with sources."""
    return "\n".join(
        [*_head(device), *_timings(device), *_constraints(device), *_energy(device), ""]
    )


def _head(device: Device) -> Iterator[str]:
    parts, refresh = device.organization, device.refresh
    yield f"{device.name}  {device.description}"
    yield (
        f"{device.standard}  {HERTZ.format(device.clock_hz)}  "
        f"{device.channel_bytes_per_second / 1e9:g} GB/s and {BYTES.format(parts.capacity_bytes)} "
        "a channel"
    )
    yield (
        f"channel: {parts.pseudo_channels} pseudo-channels x {parts.ranks} ranks x "
        f"{parts.bank_groups} bank groups x {parts.banks} banks x {parts.rows} rows x "
        f"{parts.columns} columns x {parts.column_bytes} B"
        f"{_source(device, 'organization')}"
    )
    buses = "a row and a column command" if device.dual_command else "one command"
    yield f"command bus: {buses} per clock{_source(device, 'command bus')}"
    groups = refresh.groups_per_command
    single = f"; one per-bank refresh covers {groups} banks" if groups > 1 else ""
    yield f"refresh: {refresh.kind}{single}{_source(device, 'refresh')}"


def _timings(device: Device) -> Iterator[str]:
    yield "\ntimings  clocks       ns"
    width = max(map(len, device.timings))
    for name, cycles in device.timings.items():
        ns = f"{cycles * device.tck_ns:.2f}"
        yield f"  {name:{width}} {cycles:6} {ns:>9}{_source(device, name)}"


def _constraints(device: Device) -> Iterator[str]:
    yield "\nconstraints: at least so many clocks from one command to the other"
    rules: dict[tuple[str, int, str, int], dict[str, list[str]]] = {}
    for one in device.constraints:
        key = (one.name, one.cycles, one.scope.name.lower(), one.window)
        rules.setdefault(key, {}).setdefault(one.before.name, []).append(one.after.name)
    for (name, cycles, scope, window), followers in rules.items():
        several = f"{window} x " if window > 1 else ""
        for after in dict.fromkeys(map(tuple, followers.values())):
            before = [one for one, listed in followers.items() if tuple(listed) == after]
            pair = f"{several}{'/'.join(before)} to {'/'.join(dict.fromkeys(after))}"
            yield f"  {cycles:5}  {pair}, {scope}  ({name})"


def _energy(device: Device) -> Iterator[str]:
    energies = command_energy_pj(device)
    if not energies:
        return
    yield "\nenergy"
    key = "currents" if "currents" in device.sources else "energy"
    listed = ", ".join(f"{command.name} {pj:.0f} pJ" for command, pj in energies.items())
    active_mw, idle_mw = standby_power_mw(device)
    yield f"  {listed}{_source(device, key)}"
    yield f"  stand-by of a rank: {active_mw:.1f} mW with a bank open, {idle_mw:.1f} mW without"


def _source(device: Device, name: str) -> str:
    return f"   [{device.sources[name]}]" if name in device.sources else ""
