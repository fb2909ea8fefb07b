"""Attention of one token beside the banks, all banks of a channel in step, as PIM-GPT maps it.

Keys: tokens over channels and banks, heads side by side along the rows of a bank, so that a row is
open for all of them; one result per head. Values: elements of all heads over channels and banks,
tokens along the rows; channels may have different heads and so different weights in their buffers.

Where the cache grows, the token's keys are one run per row of one bank, its values one element in
every row that has some: a masked column of each bank, rows of a channel opened together.

Source: Wu et al., PIM-GPT, npj Unconventional Computing 2024: heads concatenated, keys row-major,
values column-major, room for all tokens reserved. That channels get weights of their own follows
from the layout (hw/pim/layouts/families); what an append takes is derived here from the timings.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from accelsim.hw.pim.channel.stream import NO_ROW
from accelsim.hw.pim.family import Family
from accelsim.hw.pim.layouts.families import check_head
from accelsim.hw.pim.operators import Attend, Logit

Row = tuple[int, int, int, int, int, int]


def row_elements(family: Family) -> int:
    """Elements of a row of a bank."""
    return family.device.organization.row_bytes * 8 // family.units.operand_bits


def heads_of_a_row(family: Family, head_dim: int) -> int:
    """Whole heads side by side in a row."""
    size = row_elements(family)
    check_head(head_dim, size, family.banks, whole=False)
    return size // head_dim


def logit_rows(family: Family, work: Logit, first_row: int = 0) -> Iterator[Row]:
    """Chunk by chunk of the heads: the query into the buffer, then one row of every bank for each
    group of tokens, whose heads are results of their own."""
    number, together = family.number, heads_of_a_row(family, work.head_dim)
    columns = math.ceil(work.head_dim / family.units.macs)
    groups = math.ceil(work.tokens / (family.channels * family.banks))
    row = first_row
    for first in range(0, work.heads, together):
        heads = min(together, work.heads - first)
        yield (number("WR_GB"), NO_ROW, 0, heads * columns, 0, 0)
        for _ in range(groups):
            for head in range(heads):
                yield (number("MAC_ABK"), row, 0, columns, 0, 0)
                if head == heads - 1:
                    yield (number("PRE_ABK"), NO_ROW, 0, 1, 0, 0)
                yield (number("RD_MAC"), NO_ROW, 0, 1, 1, 1)
            row += 1


def attend_rows(family: Family, work: Attend, first_row: int = 0) -> Iterator[Row]:
    """The first channel's tiles: the weights of its head into the buffer unless they are there,
    then the tokens along one row of every bank."""
    number, size = family.number, row_elements(family)
    row = first_row
    for first in range(0, work.tokens, size):
        columns = math.ceil(min(size, work.tokens - first) / family.units.macs)
        held = -1
        for tile in range(value_tiles(family, work)):
            head = tile * family.channels * family.banks // work.head_dim
            if head != held:
                yield (number("WR_GB"), NO_ROW, 0, columns, 0, 0)
            held = head
            yield (number("MAC_ABK"), row, 0, columns, 0, 0)
            yield (number("PRE_ABK"), NO_ROW, 0, 1, 0, 0)
            yield (number("RD_MAC"), NO_ROW, 0, 1, 1, 1)
            row += 1


def value_tiles(family: Family, work: Attend) -> int:
    """Rows of every bank that the elements of all heads take."""
    check_head(work.head_dim, row_elements(family), family.banks, whole=False)
    return math.ceil(work.heads * work.head_dim / (family.channels * family.banks))


def cache_rows(family: Family, heads: int, head_dim: int, tokens: int) -> int:
    """Rows of every bank that keys and values of so many tokens take, in one layer."""
    groups = math.ceil(tokens / (family.channels * family.banks))
    keys = groups * math.ceil(heads / heads_of_a_row(family, head_dim))
    values = value_tiles(family, Attend(tokens, heads, head_dim))
    return keys + values * math.ceil(tokens / row_elements(family))


def append_cycles(family: Family, heads: int, head_dim: int) -> int:
    """Clocks in which keys and values of a token get into the cache, one access after the other."""
    t = family.device.timings
    opened = t["tRCDWR"] + t["CWL"] + t["burst_cycles"] + t["tWR"] + t["tRP"]
    columns = math.ceil(heads * head_dim / family.units.macs)
    rows = math.ceil(heads / heads_of_a_row(family, head_dim))
    keys = rows * opened + columns * t["tCCD_S"]
    tiles = math.ceil(heads * head_dim / (family.channels * family.banks))
    values = tiles * (opened + family.banks * t["tCCD_S"])
    return keys + values
