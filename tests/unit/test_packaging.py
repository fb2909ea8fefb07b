"""What a wheel holds: every package of the tree, and every file that lies in one."""

import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARIES = ("mappers", "arch_configs", "workloads", "validation")
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def packages():
    """Folders of packages by the name that they are imported by."""
    for top in ("accelsim", *LIBRARIES):
        for file in (ROOT / top).rglob("__init__.py"):
            parts = file.parent.relative_to(ROOT).parts
            yield ".".join(parts if top == "accelsim" else ("accelsim", *parts)), file.parent


@pytest.mark.skipif(not (ROOT / "accelsim").is_dir(), reason="an installed wheel")
def test_every_package_is_listed():
    assert {name for name, _ in packages()} <= set(SETTINGS["packages"])


@pytest.mark.skipif(not (ROOT / "accelsim").is_dir(), reason="an installed wheel")
@pytest.mark.parametrize("kind", ["csv", "yaml", "json", "npz", "cu", "ini", "LICENSE"])
def test_every_data_file_belongs_to_a_package(kind):
    held = {
        file
        for name, patterns in SETTINGS["package-data"].items()
        for folder in [_folder(name)]
        for pattern in patterns
        for file in folder.glob(pattern)
    }
    for top in ("accelsim", *LIBRARIES):
        left_out = [
            file for file in (ROOT / top).rglob(f"*.{kind}")
            if file not in held and not fnmatch(file.name, ".*")
        ]  # fmt: skip
        assert not left_out


def _folder(name):
    parts = name.split(".")
    return ROOT.joinpath(*(parts[1:] if len(parts) > 1 and parts[1] in LIBRARIES else parts))
