"""The library of architectures: ``arch("tpu-v3")`` by name, ``arch("./my-npu.yaml")`` by path."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path

import accelsim.errors
from accelsim.arch.faults import unknown
from accelsim.arch.loader import load
from accelsim.arch.model import Architecture
from accelsim.errors import AccelsimError
from accelsim.hw.pim.catalog import family, list_families

LIBRARY = "arch_configs"
_SUFFIXES = (".yaml", ".yml")


@cache
def library_folder() -> Path:
    """Folder of the shipped architecture files: the installed package, else the checkout's."""
    try:
        return Path(str(resources.files(f"accelsim.{LIBRARY}")))
    except ModuleNotFoundError:
        # A plain checkout: the libraries stand beside the package, not yet inside it.
        return Path(accelsim.errors.__file__).parents[1] / LIBRARY


def list_archs() -> list[str]:
    """Names of the shipped architectures, sorted."""
    return sorted(file.stem for file in library_folder().glob("*.yaml"))


def arch(
    name_or_path: str | os.PathLike[str], overrides: Mapping[str, object] | None = None
) -> Architecture:
    """An architecture by library name or by path, with parameters overridden.

    Text that ends in .yaml or .yml, or has a path separator, is a path.

    Raises:
        AccelsimError: an unknown name (the message lists them), a fault in the file, or an
            override that does not fit.
    """
    text = os.fspath(name_or_path)
    is_path = text.lower().endswith(_SUFFIXES) or "/" in text or os.sep in text
    found = load(text) if is_path or not isinstance(name_or_path, str) else _shipped(text)
    return found.override(overrides) if overrides else found


def _shipped(name: str) -> Architecture:
    file = library_folder() / f"{name}.yaml"
    if not name or not file.is_file():
        if name in list_families():
            raise AccelsimError(_family_alone(name))
        names = unknown("architecture", name, list_archs())
        raise AccelsimError(f"{names}; or the path of a .yaml file")
    return load(file, origin=f"{LIBRARY}/{name}.yaml")


def _family_alone(name: str) -> str:
    """What is said of a family of banks that is no architecture by itself."""
    commands = [f"accelsim memory {name} OPERATION"]
    if family(name).programs == "bit-serial":
        commands.insert(0, f"accelsim generate MODEL --on {name}")
    return (
        f"{name!r} is a family of banks that compute, not an architecture; accepted:"
        f" {' or '.join(commands)}; or an architecture of `accelsim list archs`"
    )
