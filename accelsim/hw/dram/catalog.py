"""The library of DRAM devices: ``device("ddr4-2400")``, or ``device("my.yaml:name")`` by path."""

from __future__ import annotations

from functools import cache

from accelsim.errors import AccelsimError, unknown
from accelsim.hw.dram.device import Device
from accelsim.hw.dram.loader import FOLDER, load_devices


@cache
def shipped_devices() -> dict[str, Device]:
    """Every shipped device by name, by standard and speed as the files list them."""
    found: dict[str, Device] = {}
    for file in sorted(FOLDER.glob("*.yaml")):
        found.update(load_devices(file, f"hw/dram/devices/{file.name}"))
    return found


def list_devices() -> list[str]:
    """Names of the shipped devices."""
    return list(shipped_devices())


def device(name_or_path: str, clock_hz: int = 0) -> Device:
    """A device by library name, or out of a file: ``FILE.yaml`` (one device) or ``FILE.yaml:NAME``.

    ``clock_hz`` runs it slower or faster than its grade (0: its own clock): times of its arrays
    stay, clocks of its pins stay (loader.ARRAY_TIMES).

    Raises:
        AccelsimError: an unknown name (the message lists them) or a fault in the file.
    """
    path, suffix, name = name_or_path.partition(".yaml")
    if not suffix:
        shipped = shipped_devices()
        if name_or_path not in shipped:
            raise AccelsimError(
                f"{unknown('memory device', name_or_path, shipped)}; or FILE.yaml:NAME"
            )
        return _at_clock(name_or_path, clock_hz) if clock_hz else shipped[name_or_path]
    listed = load_devices(path + suffix)
    name = name.removeprefix(":") or (next(iter(listed)) if len(listed) == 1 else "")
    if not name:
        choices = ", ".join(f"{path}{suffix}:{one}" for one in listed)
        raise AccelsimError(f"{path}{suffix} holds several devices; accepted: {choices}")
    if name not in listed:
        raise AccelsimError(f"{path}{suffix}: {unknown('memory device', name, listed)}")
    if clock_hz:
        return load_devices(path + suffix, name=name, clock_hz=clock_hz)[name]
    return listed[name]


@cache
def _at_clock(name: str, clock_hz: int) -> Device:
    """A shipped device at another clock."""
    found: dict[str, Device] = {}
    for file in FOLDER.glob("*.yaml"):
        found.update(load_devices(file, f"hw/dram/devices/{file.name}", name, clock_hz))
    return found[name]
