"""Address maps: which channel, bank, row and column an address lies in.

A map is a string of fields from the most to the least significant: ro (row), ra (rank), bg (bank
group), ba (bank), pc (pseudo-channel), ch (channel), co (column, in bursts), in any case:
"RoBaRaCoCh", "rorabgbachco". Without ``pc`` the pseudo-channel is the lowest part of ``ch``, and
without ``bg`` the bank group that of ``ba``, as Ramulator reads such strings. Sizes need not be
powers of two: an address is a number in mixed radix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from accelsim.errors import AccelsimError
from accelsim.hw.dram.device import Organization

if TYPE_CHECKING:
    from collections.abc import Sequence

Ints = npt.NDArray[np.int64]

FIELDS = ("ro", "ra", "bg", "ba", "pc", "ch", "co")
NAMES = {
    "ro": "row",
    "ra": "rank",
    "bg": "bank group",
    "ba": "bank",
    "pc": "pseudo-channel",
    "ch": "channel",
    "co": "column",
}
ROW, RANK, GROUP, BANK, PSEUDO, CHANNEL, COLUMN = range(len(FIELDS))
LANE = len(FIELDS)  # the bank group before hashing, among the digits of compiled code
MOST_LANES = 8


class CompiledMap(NamedTuple):
    """A map as numbers for compiled code."""

    column_bytes: int
    fields: Ints  # [field in address order from the lowest, (which, size)]
    sizes: Ints  # [which] size of every field
    hashed: int  # 1: digits are permuted by what lies above them
    lanes: int  # bank groups that neighbouring bursts take turns over
    run_field: int  # the field whose digits count through those of one bank group in one row


class Location(NamedTuple):
    """Where bursts lie, one entry each: field by field, as ``FIELDS``."""

    row: Ints
    rank: Ints
    bank_group: Ints
    bank: Ints
    pseudo_channel: Ints
    channel: Ints
    column: Ints


@dataclass(frozen=True)
class AddressMap:
    """Fields of an address from the most to the least significant, and how many of each there are.

    ``hashing`` permutes banks, bank groups and pseudo-channels by the row, and channels by all of
    the address above them, so that addresses a power of two apart do not all meet one bank: the
    digits are XORed (Zhang, Zhu and Zhang, A Permutation-Based Page Interleaving Scheme, MICRO
    2000), or added modulo a size that is no power of two.
    """

    text: str
    order: tuple[int, ...]  # from the lowest field
    sizes: tuple[int, ...]  # by field number
    column_bytes: int
    hashing: bool = False

    @classmethod
    def of(cls, text: str, parts: Organization, channels: int, hashing: bool = False) -> AddressMap:
        """The map that a string names, over ``channels`` channels of a device.

        Raises:
            AccelsimError: a field is unknown, given twice or missing; no channels.
        """
        if channels < 1:
            raise AccelsimError(f"{channels} channels; accepted: 1 or more")
        fields = parsed(text)
        sizes = (
            parts.rows,
            parts.ranks,
            parts.bank_groups,
            parts.banks,
            parts.pseudo_channels,
            channels,
            parts.columns,
        )
        for part, of in (("pc", "ch"), ("bg", "ba")):
            if part not in fields:
                fields.insert(fields.index(of) + 1, part)
        order = tuple(FIELDS.index(field) for field in reversed(fields))
        return cls(text, order, sizes, parts.column_bytes, hashing)

    @property
    def capacity_bytes(self) -> int:
        """Bytes that the fields span."""
        total = self.column_bytes
        for size in self.sizes:
            total *= size
        return total

    @property
    def compiled(self) -> CompiledMap:
        fields = [(which, self.sizes[which]) for which in self.order]
        lowest = [*(which for which in self.order if self.sizes[which] > 1), COLUMN, COLUMN]
        turns = lowest[0] == GROUP and self.sizes[GROUP] <= MOST_LANES
        return CompiledMap(
            self.column_bytes,
            np.array(fields, np.int64),
            np.array(self.sizes, np.int64),
            int(self.hashing),
            self.sizes[GROUP] if turns else 1,
            lowest[1 if turns else 0],
        )

    def locate(self, address: Ints | Sequence[int]) -> Location:
        """Where byte addresses lie.

        Raises:
            AccelsimError: an address outside the memory.
        """
        at = np.asarray(address, np.int64)
        if at.size and (at.min() < 0 or at.max() >= self.capacity_bytes):
            worst = int(at.max()) if at.min() >= 0 else int(at.min())
            raise AccelsimError(
                f"address {worst:#x} is outside the memory; accepted: 0 to"
                f" {self.capacity_bytes - 1:#x}"
            )
        left = at // self.column_bytes
        digit: list[Ints] = [np.zeros_like(left)] * len(FIELDS)
        above = left
        for which in self.order:
            left, digit[which] = np.divmod(left, self.sizes[which])
            above = left if which == CHANNEL else above
        if self.hashing:
            digit[CHANNEL] = _permuted(digit[CHANNEL], above, self.sizes[CHANNEL])
            for which in (GROUP, BANK, PSEUDO):
                digit[which] = _permuted(digit[which], digit[ROW], self.sizes[which])
        return Location(*digit)


def _permuted(digit: Ints, by: Ints, size: int) -> Ints:
    """A digit in base ``size``, its value exchanged according to the digits of ``by``."""
    mixed, left = digit, by
    while size > 1 and left.any():
        mixed = mixed ^ (left % size) if size & (size - 1) == 0 else (mixed + left) % size
        left = left // size
    return mixed


def parsed(text: str) -> list[str]:
    """The fields of a mapping string, from the most significant.

    Raises:
        AccelsimError: what is wrong with the string, and what would be accepted.
    """
    word = text.lower()
    found = [word[i : i + 2] for i in range(0, len(word), 2)]
    for field in found:
        if field not in FIELDS:
            raise AccelsimError(
                f"mapping {text!r} has an unknown field {field!r}; accepted: fields"
                f" {', '.join(FIELDS)}, e.g. RoBaRaCoCh"
            )
        if found.count(field) > 1:
            raise AccelsimError(
                f"mapping {text!r} names {field} ({NAMES[field]}) twice; accepted: each field once"
            )
    missing = [field for field in FIELDS if field not in found and field not in ("pc", "bg")]
    if missing:
        named = ", ".join(f"{field} ({NAMES[field]})" for field in missing)
        raise AccelsimError(
            f"mapping {text!r} does not cover the address: {named} missing; accepted: each of"
            " ro, ra, ba, ch, co once, bg and pc if wanted"
        )
    return found
