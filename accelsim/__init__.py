"""accelsim: a cycle-approximate simulator and co-design explorer for AI accelerators.

    import accelsim as xs

    run = xs.simulate("tpu-v3", xs.workload("llama-2-7b", phase="decode", batch=16, context=2048))
    run.cycles, run.bottleneck

Everything heavier than the standard library is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from accelsim._version import __version__
from accelsim.errors import AccelsimError

if TYPE_CHECKING:
    from accelsim import numerics
    from accelsim.api import (
        arch,
        check,
        generate,
        grid,
        load_plugin,
        memory_stream,
        pim_run,
        simulate,
        sweep,
        workload,
    )

__all__ = [
    "AccelsimError",
    "__version__",
    "arch",
    "check",
    "generate",
    "grid",
    "load_plugin",
    "memory_stream",
    "numerics",
    "pim_run",
    "simulate",
    "sweep",
    "workload",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name == "numerics":
        return import_module("accelsim.numerics")
    if name in __all__:
        from accelsim import api

        return getattr(api, name)
    raise AttributeError(f"module 'accelsim' has no attribute {name!r}")
