"""Address maps: which channel, bank, row and column an address lies in.

A map is a string of fields from the most to the least significant: ro (row), ra (rank), bg (bank
group), ba (bank), pc (pseudo-channel), ch (channel), co (column, in bursts), in any case:
"RoBaRaCoCh", "rorabgbachco". Without ``pc`` the pseudo-channel is the lowest part of ``ch``, and
without ``bg`` the bank group that of ``ba``, as Ramulator reads such strings. Sizes need not be
powers of two: an address is a number in mixed radix. Columns may lie in two places, the lower one
with how many of them it counts: in "RoRaBaCoPcChCo8Bg" neighbouring addresses keep to eight columns
of a channel.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import takewhile
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
    fields: Ints  # [field in address order from the lowest, (which, size, worth of its digit)]
    sizes: Ints  # [which] size of every field
    hashed: int  # 1: digits are permuted by what lies above them
    lanes: int  # bank groups that neighbouring bursts take turns over
    run: int  # columns that they go through in one row
    sweep: int  # bursts after which all pseudo-channels of all channels have had as many; 0: none


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
    low_columns: int = 0  # where columns lie in two places: those in the lower one

    @classmethod
    def of(cls, text: str, parts: Organization, channels: int, hashing: bool = False) -> AddressMap:
        """The map that a string names, over ``channels`` channels of a device.

        Raises:
            AccelsimError: a field is unknown, given twice or missing; no channels.
        """
        if channels < 1:
            raise AccelsimError(f"{channels} channels; accepted: 1 or more")
        fields, low_columns = parsed(text)
        sizes = (
            parts.rows,
            parts.ranks,
            parts.bank_groups,
            parts.banks,
            parts.pseudo_channels,
            channels,
            parts.columns,
        )
        if low_columns and (low_columns >= parts.columns or parts.columns % low_columns):
            raise AccelsimError(
                f"mapping {text!r}: {low_columns} of {parts.columns} columns do not leave whole "
                f"parts of a row; accepted: a divisor of {parts.columns} below it"
            )
        for part, of in (("pc", "ch"), ("bg", "ba")):
            if part not in fields:
                fields.insert(fields.index(of) + 1, part)
        order = tuple(FIELDS.index(field) for field in reversed(fields))
        return cls(text, order, sizes, parts.column_bytes, hashing, low_columns)

    @property
    def digits(self) -> tuple[tuple[int, int, int], ...]:
        """(field, size, worth) of the digits of an address from the lowest."""
        found = []
        for k, which in enumerate(self.order):
            size, worth = self.sizes[which], 1
            if which == COLUMN and self.low_columns:
                upper = COLUMN in self.order[:k]
                size = size // self.low_columns if upper else self.low_columns
                worth = self.low_columns if upper else 1
            found.append((which, size, worth))
        return tuple(found)

    @property
    def capacity_bytes(self) -> int:
        """Bytes that the fields span."""
        total = self.column_bytes
        for size in self.sizes:
            total *= size
        return total

    @property
    def run_bytes(self) -> int:
        """Neighbouring bytes that lie in one pseudo-channel of a channel."""
        below = takewhile(lambda digit: digit[0] not in (PSEUDO, CHANNEL), self.digits)
        return self.column_bytes * math.prod(size for _, size, _ in below)

    @property
    def compiled(self) -> CompiledMap:
        lowest = [digit for digit in self.digits if digit[1] > 1]
        turns = bool(lowest) and lowest[0][0] == GROUP and self.sizes[GROUP] <= MOST_LANES
        lanes = self.sizes[GROUP] if turns else 1
        lowest = lowest[1:] if turns else lowest
        run = lowest.pop(0)[1] if lowest and lowest[0][0] == COLUMN else 1
        sweep = lanes * run
        while lowest and lowest[0][0] in (CHANNEL, PSEUDO):
            sweep *= lowest.pop(0)[1]
        everywhere = sweep == lanes * run * self.sizes[CHANNEL] * self.sizes[PSEUDO]
        goes_on = run == self.sizes[COLUMN] or (bool(lowest) and lowest[0][0] == COLUMN)
        return CompiledMap(
            self.column_bytes,
            np.array(self.digits, np.int64),
            np.array(self.sizes, np.int64),
            int(self.hashing),
            lanes,
            run,
            sweep if everywhere and goes_on else 0,
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
        for which, size, worth in self.digits:
            left, low = np.divmod(left, size)
            digit[which] = digit[which] + worth * low
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


def parsed(text: str) -> tuple[list[str], int]:
    """The fields of a mapping string from the most significant, and how many columns the lower of
    two column fields counts, else 0.

    Raises:
        AccelsimError: what is wrong with the string, and what would be accepted.
    """
    found: list[str] = []
    low_columns = 0
    for field, number in re.findall(r"(\D\D?|^\d+)(\d*)", text.lower(), re.ASCII):
        if field not in FIELDS:
            raise AccelsimError(
                f"mapping {text!r} has an unknown field {field!r}; accepted: fields"
                f" {', '.join(FIELDS)}, e.g. RoBaRaCoCh"
            )
        again = field in found
        if number:
            if field != "co" or not again or int(number) < 1:
                raise AccelsimError(
                    f"mapping {text!r} gives {field} a size, {number}; accepted: a size above 0 "
                    "for the lower of two fields co, e.g. RoRaBaCoChCo8"
                )
            low_columns = int(number)
        if again and not (number and found.count(field) == 1):
            raise AccelsimError(
                f"mapping {text!r} names {field} ({NAMES[field]}) twice; accepted: each field"
                " once, or co a second time with a size, e.g. RoRaBaCoChCo8"
            )
        found.append(field)
    missing = [field for field in FIELDS if field not in found and field not in ("pc", "bg")]
    if missing:
        named = ", ".join(f"{field} ({NAMES[field]})" for field in missing)
        raise AccelsimError(
            f"mapping {text!r} does not cover the address: {named} missing; accepted: each of"
            " ro, ra, ba, ch, co once, bg and pc if wanted"
        )
    return found, low_columns
