"""An architecture: blocks, memories, links and clocks, loaded from YAML or built in Python.

    arch_configs/*.yaml ──▶ loader ──▶ Architecture ──▶ mappers, engine, functional, results
    blocks in Python ─────▶ build ───┘     │ override({"mxu.rows": 256})
                                           └▶ describe

The package is callable: ``accelsim.arch("tpu-v3")`` is ``accelsim.arch.arch("tpu-v3")``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from types import ModuleType

from accelsim.arch.catalog import arch, list_archs
from accelsim.arch.describe import describe
from accelsim.arch.model import Architecture
from accelsim.arch.overrides import parse_override

__all__ = ["Architecture", "arch", "describe", "list_archs", "parse_override"]


class _CallablePackage(ModuleType):
    """Importing a sub-package sets it as attribute of its parent, which would hide a function
    ``accelsim.arch``; so the package itself is that function."""

    def __call__(
        self, name_or_path: str | os.PathLike[str], overrides: Mapping[str, object] | None = None
    ) -> Architecture:
        return arch(name_or_path, overrides)


sys.modules[__name__].__class__ = _CallablePackage
