"""Caches: blocks, chains of them, and their simulation at the granularity of transfers.

``block`` holds the parameters, ``chain`` the state of all caches of an architecture and what one
asks of it, ``kernels`` the compiled walk of a window through a chain, and ``reference`` the same
rules in plain Python, which is the specification.
"""

from accelsim.hw.cache.block import Cache
from accelsim.hw.cache.chain import (
    COUNTS,
    build,
    chain_of,
    check_chains,
    flush,
    most_runs,
    new_busy,
    new_counts,
    new_runs,
)

__all__ = [
    "COUNTS",
    "Cache",
    "build",
    "chain_of",
    "check_chains",
    "flush",
    "most_runs",
    "new_busy",
    "new_counts",
    "new_runs",
]
