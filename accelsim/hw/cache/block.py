"""Cache: set-associative on-chip memory before another memory, sectored and banked.

A cache is no address space: programs address the memory behind it, and what they move passes the
caches in between. Lines are interleaved over the banks, line by line; every bank holds its own
sets. A line has ``sectors``, each with its own valid and dirty bit, so a miss fetches the sectors
that are asked for and not the line.

Private caches are not kept coherent with each other, and levels are neither inclusive nor
exclusive: a line may be in any of them, and dropping it here drops it nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from accelsim.hw.block import Block, block, require
from accelsim.quantities import Bytes, Cycles, Picojoules, PicojoulesPerByte

Policy = Literal["lru", "random", "streaming"]
Write = Literal["back", "through"]
BankHash = Literal["none", "xor", "sum"]

MAX_SECTORS = 16
"""Bits in a line's sector mask."""
MAX_WAYS = 1 << 20
"""Numbers that the low bits of a way's stamp can hold; a fully associative cache has one set."""


@block("cache")
@dataclass(frozen=True, kw_only=True)
class Cache(Block):
    """Cache before the memory or cache ``of``; one per core, or one for all if ``shared``.

    ``policy`` says which line of a full set makes room: ``lru`` the least recently used one,
    ``random`` any (xorshift, seeded), ``streaming`` as lru, but what a read brings in is the next
    to go until it is used again, so a stream passes through one way and leaves the rest alone.

    ``write: back`` keeps written bytes until their line is evicted, ``through`` sends them on at
    once. With ``allocate`` a write that misses makes room for its line, and a sector written in
    part is fetched first; without, what is not there goes past the cache.

    Each of ``banks`` serves one line at a time, ``width`` bytes per cycle (0: never limits).
    ``bank_hash`` spreads power-of-two strides: the digits of the line number, in base ``banks``,
    are XORed (``xor``) or added modulo ``banks`` (``sum``); ``none`` takes the lowest alone.
    ``latency`` is the cycles that a hit takes, and that a miss adds on its way.
    """

    of: str
    capacity: Bytes
    line: Bytes = 128
    sectors: int = 1
    ways: int
    policy: Policy = "lru"
    write: Write = "back"
    allocate: bool = True
    shared: bool = False
    banks: int = 1
    bank_hash: BankHash = "none"
    width: Bytes = 0
    latency: Cycles = 0
    read_pj_per_byte: PicojoulesPerByte = 0.0
    write_pj_per_byte: PicojoulesPerByte = 0.0
    lookup_pj: Picojoules = 0.0

    def check(self) -> None:
        super().check()
        require(bool(self.of), "of is empty; accepted: the memory or cache behind this one")
        require(_power_of_two(self.line), f"line must be a power of two of bytes, not {self.line}")
        most = min(MAX_SECTORS, self.line)
        require(
            _power_of_two(self.sectors) and self.sectors <= most,
            f"sectors must be a power of two of at most {most}, not {self.sectors}",
        )
        self._check_sets()
        for name, choices in (("policy", Policy), ("write", Write), ("bank_hash", BankHash)):
            value = getattr(self, name)
            accepted = get_args(choices)
            require(value in accepted, f"{name} must be one of {', '.join(accepted)}, not {value}")
        require(
            self.bank_hash != "xor" or _power_of_two(self.banks),
            f"bank_hash xor needs a power of two of banks, not {self.banks}; accepted here: sum",
        )
        require(self.width >= 0, f"width must not be negative, not {self.width}")
        require(self.latency >= 0, f"latency must not be negative, not {self.latency}")

    def _check_sets(self) -> None:
        require(1 <= self.ways <= MAX_WAYS, f"ways must be 1 to {MAX_WAYS}, not {self.ways}")
        require(self.banks >= 1, f"banks must be at least 1, not {self.banks}")
        in_set = self.line * self.ways
        require(
            self.capacity >= in_set,
            f"capacity {self.capacity} B is less than one set of {self.ways} x {self.line} B",
        )
        require(
            self.capacity % in_set == 0,
            f"capacity {self.capacity} B is no whole number of sets of {self.ways} x {self.line} B",
        )
        require(
            self.sets % self.banks == 0,
            f"{self.sets} sets do not divide over {self.banks} banks",
        )

    @property
    def sets(self) -> int:
        return self.capacity // (self.line * self.ways)

    @property
    def sector(self) -> int:
        """Bytes of one sector."""
        return self.line // self.sectors

    @property
    def bytes_per_cycle(self) -> int:
        """Peak bytes per cycle of all banks; 0 if unlimited."""
        return self.banks * self.width

    def energy_pj_per_action(self) -> dict[str, float]:
        return {
            "read_byte": self.read_pj_per_byte,
            "write_byte": self.write_pj_per_byte,
            "lookup": self.lookup_pj,
        }

    def actions(self, counts: Mapping[str, Any]) -> dict[str, Any]:
        """What costs energy, from the ``COUNTS`` of a run: the data array and the tags.

        The array is read by hits and by evictions, and written by fills and by the writes that
        stay; a read that misses is answered by what is filled.
        """
        stored = counts["write"] if self.allocate else counts["write_hit"]
        return {
            "read_byte": counts["read_hit"] + counts["back"],
            "write_byte": counts["fill"] + stored,
            "lookup": counts["lookups"],
        }


def _power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0
