"""All caches of an architecture: whether they form chains, their state, and how it is emptied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, get_args

import numpy as np

from accelsim.errors import AccelsimError
from accelsim.hw.block import Ints, Memory, require
from accelsim.hw.cache.block import BankHash, Cache, Policy

if TYPE_CHECKING:
    from accelsim.hw.cache.kernels import Caches

COUNTS = (
    "lookups", "hits", "read", "read_hit", "write", "write_hit", "fill", "back", "through",
)  # fmt: skip
"""What a walk counts per cache, in the order of the columns.

``lookups`` of tags, one per line and row of a window, and ``hits`` among them, that found every
sector; bytes of the sectors that reads and writes looked up, and of those that were there; bytes
filled from behind, written back behind by evictions, and written through or around it at once.
"""

MOST_LINES = 1 << 28
"""Lines of all instances together: 6 GiB of state."""


def check_chains(caches: Mapping[str, Cache], memories: Mapping[str, Memory]) -> None:
    """Raise AccelsimError unless every cache leads to a memory, shared ones through shared ones."""
    for name, cache in caches.items():
        require(cache.of != name, f"cache {name!r}: of names itself; accepted: what is behind it")
        known = [other for other in (*caches, *memories) if other != name]
        require(
            cache.of in known,
            f"cache {name!r}: of names {cache.of!r}; accepted: {', '.join(known)}",
        )
        behind = caches.get(cache.of) or memories[cache.of]
        require(
            behind.shared or not cache.shared,
            f"cache {name!r} is shared, but {cache.of!r} behind it exists once per core",
        )
    for name in caches:
        chain_of(caches, name)


def chain_of(caches: Mapping[str, Cache], entry: str) -> tuple[str, ...]:
    """Names of the caches from ``entry`` to the last one before the memory.

    Raises:
        AccelsimError: there is no such cache, or the chain comes back to where it was.
    """
    require(entry in caches, f"unknown cache {entry!r}; accepted: {', '.join(caches)}")
    chain: list[str] = []
    name = entry
    while name in caches:
        if name in chain:
            ring = " -> ".join((*chain[chain.index(name) :], name))
            raise AccelsimError(f"caches {ring} form a ring; accepted: a chain to a memory")
        chain.append(name)
        name = caches[name].of
    return tuple(chain)


def build(caches: Mapping[str, Cache], cores: int, seed: int = 0) -> Caches:
    """Empty caches, numbered in the order of the mapping; those that are not shared per core.

    Raises:
        AccelsimError: more state than a machine holds.
    """
    from accelsim.hw.cache import kernels as k

    table = np.zeros((len(caches), k.COLUMNS), np.int64)
    ways = instances = banks = 0
    for row, cache in zip(table, caches.values(), strict=True):
        _describe(row, cache)
        copies = 1 if cache.shared else cores
        row[k.INSTANCES] = copies
        row[k.BEHIND] = list(caches).index(cache.of) if cache.of in caches else k.MEMORY
        row[k.FIRST_WAY], row[k.FIRST_INSTANCE], row[k.FIRST_BANK] = ways, instances, banks
        ways += copies * cache.sets * cache.ways
        instances += copies
        banks += copies * cache.banks
        require(ways <= MOST_LINES, f"the caches hold over {MOST_LINES} lines; accepted: fewer")
    lines = np.zeros((3, ways), np.int64)
    lines[k.TAG] = -1
    for row in table:
        stop = row[k.FIRST_WAY] + row[k.INSTANCES] * _ways(row)
        stamps = lines[k.STAMP, row[k.FIRST_WAY] : stop].reshape(-1, row[k.WAYS])
        stamps[:] = k.NEVER_USED + np.arange(row[k.WAYS])
    return k.Caches(
        caches=table,
        ways=lines,
        instances=np.stack([np.zeros(instances, np.int64), _seeds(seed, instances)], axis=1),
        pieces=np.zeros((k.PIECES, 5), np.int64),
        queues=np.zeros((len(caches), k.QUEUE, 3), np.int64),
    )


def _describe(row: Ints, cache: Cache) -> None:
    """The columns that the parameters of a cache give, and nothing open or queued."""
    from accelsim.hw.cache import kernels as k
    from accelsim.hw.cache.bits import PLAIN

    row[k.LINE_BITS] = cache.line.bit_length() - 1
    row[k.SECTOR_BITS] = cache.sector.bit_length() - 1
    row[k.SECTORS], row[k.WAYS], row[k.BANKS] = cache.sectors, cache.ways, cache.banks
    row[k.SETS_PER_BANK] = cache.sets // cache.banks
    # One bank needs no hash.
    row[k.HASH] = get_args(BankHash).index(cache.bank_hash) if cache.banks > 1 else PLAIN
    row[k.POLICY] = get_args(Policy).index(cache.policy)
    row[k.WRITE_BACK], row[k.ALLOCATE] = cache.write == "back", cache.allocate
    row[k.WIDTH] = cache.width
    row[k.OPENED : k.OPENED + 4] = k.NOTHING
    row[k.NEXT_ADDRESS] = k.AT_START


def _seeds(seed: int, instances: int) -> Ints:
    """One state per instance, never zero: splitmix64 (Steele, Lea, Flood, OOPSLA 2014), 32 bits."""
    mask = (1 << 64) - 1
    states = []
    for i in range(instances):
        z = (seed + (i + 1) * 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        states.append(((z ^ (z >> 31)) >> 32) or 1)
    return np.array(states, np.int64)


def new_counts(state: Caches) -> Ints:
    """A table of zeros for what ``walk`` counts: [cache, COUNTS]."""
    return np.zeros((len(state.caches), len(COUNTS)), np.int64)


def new_busy(state: Caches) -> Ints:
    """Zeros for every bank of every instance: its cycles of work, or when it is free."""
    from accelsim.hw.cache import kernels as k

    return np.zeros((state.caches[:, k.INSTANCES] * state.caches[:, k.BANKS]).sum(), np.int64)


def new_runs(capacity: int) -> Ints:
    """Room for ``capacity`` runs: [n, (address, bytes, write)]."""
    return np.zeros((capacity, 3), np.int64)


def most_runs(state: Caches, entry: int, rows: int, row_bytes: int, stride: int) -> int:
    """A bound on the runs that one window can append, whatever the caches hold.

    A line looked up can fetch every other sector and send every other sector of another line
    back, or pass one write on; merging with neighbours makes it fewer. Each of these requests lies
    in one line, so a cache behind with lines not shorter looks up one line for it.
    """
    from accelsim.hw.cache import kernels as k

    if rows < 1 or row_bytes < 1:
        return 0
    if stride == row_bytes:
        rows, row_bytes = 1, rows * row_bytes
    # A row of b bytes touches at most this many lines, wherever it begins.
    line = 1 << int(state.caches[entry, k.LINE_BITS])
    lookups = rows * ((row_bytes + line - 2) // line + 1)
    cache = entry
    while cache != k.MEMORY:
        shape = state.caches[cache]
        ours = 1 << int(shape[k.LINE_BITS])
        requests = lookups * (2 * -(-int(shape[k.SECTORS]) // 2) + 1)
        cache = int(shape[k.BEHIND])
        if cache != k.MEMORY:
            lookups = requests * max(1, ours >> int(state.caches[cache, k.LINE_BITS]))
    return requests


def flush(state: Caches, counts: Ints, busy: Ints) -> Ints:
    """Write all dirty sectors to memory, the caches before others first; the runs this takes.

    Lines leave in the order of their addresses, instance by instance, and stay, clean.
    """
    from accelsim.hw.cache import kernels as k

    found = [new_runs(0)]
    for cache in sorted(range(len(state.caches)), key=lambda c: -_length(state, c)):
        row = state.caches[cache]
        for core in range(row[k.INSTANCES]):
            first = row[k.FIRST_WAY] + core * _ways(row)
            held = state.ways[k.SECTORS_HELD, first : first + _ways(row)]
            dirty = first + np.flatnonzero(held >> k.DIRTY)
            dirty = dirty[np.argsort(state.ways[k.TAG, dirty])]
            runs = new_runs(len(dirty) * most_runs(state, cache, 1, 1, 1))
            used = k.write_back(state, cache, core, dirty, counts, busy, runs, 0)
            found.append(runs[:used])
    return np.concatenate(found)


def _ways(row: Ints) -> int:
    """Ways of one instance of a cache."""
    from accelsim.hw.cache import kernels as k

    return int(row[k.SETS_PER_BANK] * row[k.BANKS] * row[k.WAYS])


def _length(state: Caches, cache: int) -> int:
    """Caches from this one to memory."""
    from accelsim.hw.cache import kernels as k

    length = 0
    while cache != k.MEMORY:
        cache, length = int(state.caches[cache, k.BEHIND]), length + 1
    return length
