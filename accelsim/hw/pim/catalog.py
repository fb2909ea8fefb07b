"""The library of families: ``family("neupims")``, or ``family("my.yaml:name")`` by path."""

from __future__ import annotations

from accelsim.errors import AccelsimError
from accelsim.hw.dram.catalog import shipped_devices
from accelsim.hw.library import Library
from accelsim.hw.pim.family import Family
from accelsim.hw.pim.loader import FOLDER, load_families

FAMILIES = Library("PIM family", FOLDER, "hw/pim/families", load_families)


def shipped_families() -> dict[str, Family]:
    """Every shipped family by name."""
    return FAMILIES.shipped


def list_families() -> list[str]:
    """Names of the shipped families."""
    return list(FAMILIES.shipped)


def family(name_or_path: str) -> Family:
    """A family by library name, or out of a file: ``FILE.yaml`` (one) or ``FILE.yaml:NAME``.

    Raises:
        AccelsimError: an unknown name (the message lists them) or a fault in the file.
    """
    if name_or_path in shipped_devices():
        raise AccelsimError(
            f"memory {name_or_path} has no units beside its banks, which PIM commands need;"
            f" accepted: {', '.join(FAMILIES.shipped)}; or FILE.yaml:NAME"
        )
    return FAMILIES.find(name_or_path)
