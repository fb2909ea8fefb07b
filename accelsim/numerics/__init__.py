"""Number formats, rounding and accumulators: what a datapath does to a value.

    formats ──▶ cast (each value rounded once) ──▶ blocks (MX, NVFP4)
       │                                             └──▶ scaled ──┐
       ├──▶ accumulate, tensor_core ──▶ rules ──▶ cuts ──▶ arithmetic (units by name)
       └──▶ orders (by tag) ───────────────────────┘       └──▶ bounds, attention ──▶ study

For accuracy studies: ``xs.numerics.compare(formats, accumulators, data)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accelsim.numerics.study import Study, compare, sample

__all__ = ["Study", "compare", "sample"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from accelsim.numerics import study

        return getattr(study, name)
    raise AttributeError(f"module 'accelsim.numerics' has no attribute {name!r}")
