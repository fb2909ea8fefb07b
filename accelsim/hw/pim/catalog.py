"""The library of families: ``family("neupims")``, or ``family("my.yaml:name")`` by path."""

from __future__ import annotations

from functools import cache

from accelsim.errors import AccelsimError, unknown
from accelsim.hw.dram.catalog import shipped_devices
from accelsim.hw.pim.family import Family
from accelsim.hw.pim.loader import FOLDER, load_families


@cache
def shipped_families() -> dict[str, Family]:
    """Every shipped family by name."""
    found: dict[str, Family] = {}
    for file in sorted(FOLDER.glob("*.yaml")):
        found.update(load_families(file, f"hw/pim/families/{file.name}"))
    return found


def list_families() -> list[str]:
    """Names of the shipped families."""
    return list(shipped_families())


def family(name_or_path: str) -> Family:
    """A family by library name, or out of a file: ``FILE.yaml`` (one) or ``FILE.yaml:NAME``.

    Raises:
        AccelsimError: an unknown name (the message lists them) or a fault in the file.
    """
    path, suffix, name = name_or_path.partition(".yaml")
    if not suffix:
        shipped = shipped_families()
        if name_or_path in shipped_devices():
            raise AccelsimError(
                f"memory {name_or_path} has no units beside its banks, which PIM commands need;"
                f" accepted: {', '.join(shipped)}; or FILE.yaml:NAME"
            )
        if name_or_path not in shipped:
            raise AccelsimError(
                f"{unknown('PIM family', name_or_path, shipped)}; or FILE.yaml:NAME"
            )
        return shipped[name_or_path]
    listed = load_families(path + suffix)
    name = name.removeprefix(":") or (next(iter(listed)) if len(listed) == 1 else "")
    if name not in listed:
        choices = ", ".join(f"{path}{suffix}:{one}" for one in listed)
        raise AccelsimError(f"{path}{suffix}: no family {name!r}; accepted: {choices}")
    return listed[name]
