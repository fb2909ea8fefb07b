"""The library of DRAM devices: ``device("ddr4-2400")``, or ``device("my.yaml:name")`` by path."""

from __future__ import annotations

from functools import cache

from accelsim.hw.dram.device import Device
from accelsim.hw.dram.loader import FOLDER, load_devices
from accelsim.hw.library import Library, split

DEVICES = Library("memory device", FOLDER, "hw/dram/devices", load_devices)


def shipped_devices() -> dict[str, Device]:
    """Every shipped device by name, by standard and speed as the files list them."""
    return DEVICES.shipped


def list_devices() -> list[str]:
    """Names of the shipped devices."""
    return list(DEVICES.shipped)


def device(name_or_path: str, clock_hz: int = 0) -> Device:
    """A device by library name, or out of a file: ``FILE.yaml`` (one device) or ``FILE.yaml:NAME``.

    ``clock_hz`` runs it slower or faster than its grade (0: its own clock): times of its arrays
    stay, clocks of its pins stay (loader.ARRAY_TIMES).

    Raises:
        AccelsimError: an unknown name (the message lists them) or a fault in the file.
    """
    found, (file, _) = DEVICES.find(name_or_path), split(name_or_path)
    if not clock_hz:
        return found
    if file:
        return load_devices(file, name=found.name, clock_hz=clock_hz)[found.name]
    return _at_clock(found.name, clock_hz)


@cache
def _at_clock(name: str, clock_hz: int) -> Device:
    """A shipped device at another clock."""
    found: dict[str, Device] = {}
    for file in FOLDER.glob("*.yaml"):
        found.update(load_devices(file, f"hw/dram/devices/{file.name}", name, clock_hz))
    return found[name]
