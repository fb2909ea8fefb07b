"""Products in the cells of all banks at once, as TransPIM computes them.

The vector is written beside the matrix, plane by plane, in all banks and stripes together. A round
multiplies what lies in the stripes that work at once, element by element; then the trees of a bank
add up the planes of the products, stripe by stripe, and keep the sums.

Where tokens are dealt to banks (attend), each bank's weights come from its own buffer, and what
banks have added up goes around the ring in as many pieces as there are banks, so that every bank
ends with the channel's sum of a piece.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from accelsim.errors import AccelsimError
from accelsim.hw.pim.channel.stream import NO_ROW, PimStream
from accelsim.hw.pim.family import Family
from accelsim.hw.pim.layouts.bits import BitPlanes, planes_of
from accelsim.hw.pim.operators import Attend, Gemv, Logit, Operator
from accelsim.hw.pim.programs.cell_sequences import multiply_operations

Row = tuple[int, int, int, int, int, int]

SUM_BYTES = 4


@dataclass(frozen=True)
class Products:
    """``outputs`` sums of ``elements`` products each in every bank; ``own``: by a vector of its
    own."""

    outputs: int
    elements: int
    own: bool = False


def bit_serial_streams(family: Family, operator: Operator) -> list[tuple[PimStream, int]]:
    """The stream that all channels get."""
    if isinstance(operator, Gemv):
        rows = _gemv(family, operator)
    elif isinstance(operator, Logit):
        rows = _logit(family, operator)
    elif isinstance(operator, Attend):
        rows = _attend(family, operator)
    else:
        raise AccelsimError(
            f"{family.name} computes no attention at once; accepted: gemv, logit, attend"
        )
    return [(PimStream.of(rows), family.channels)]


def _gemv(family: Family, work: Gemv) -> Iterator[Row]:
    outputs = _each(work.m, family)
    yield from product_rows(family, Products(outputs, work.n))
    yield from read_rows(family, outputs, min(work.m, family.banks))


def _logit(family: Family, work: Logit) -> Iterator[Row]:
    """Tokens over the banks; their scores stay there, where their values are."""
    tokens = _each(work.tokens, family)
    yield from product_rows(family, Products(tokens, work.heads * work.head_dim))


def _attend(family: Family, work: Attend) -> Iterator[Row]:
    """Each bank's own tokens, then the sums of a channel's banks around its ring."""
    outputs = work.heads * work.head_dim
    yield from product_rows(family, Products(outputs, _each(work.tokens, family), own=True))
    pieces = min(family.banks, work.tokens)
    piece = -(-outputs // pieces)
    yield from ring_rows(family, (pieces - 1) * piece * SUM_BYTES)
    yield from read_rows(family, piece, pieces)


def _each(count: int, family: Family) -> int:
    """The most that a bank has of things that are dealt to all."""
    return -(-count // (family.channels * family.banks))


def product_rows(family: Family, work: Products) -> Iterator[Row]:
    """The vector to the matrix, then rounds of products and sums."""
    planes = planes_of(family)
    planes.check_outputs(work.outputs, work.elements)
    tiles = planes.tiles(work.outputs, work.elements)
    used = min(tiles, planes.at_once)
    number = family.number
    yield (number("BEGIN"), NO_ROW, 0, 1, 0, 0)
    yield from _vector(family, planes, work, used)
    for first in range(0, tiles, planes.at_once):
        if first:
            yield (number("BEGIN"), NO_ROW, 0, 1, 0, 0)
        group = [
            planes.row(tile, work.elements)[0]
            for tile in range(first, min(tiles, first + planes.at_once))
        ]
        for _ in range(planes.chunks(work.elements)):
            yield (number("AAP"), NO_ROW, 0, multiply_operations(planes.bits), 0, 0)
            yield from sum_rows(family, planes, work.elements, group)
        yield (number("PRE_ALL"), NO_ROW, 0, 1, 0, 1)


def _vector(family: Family, planes: BitPlanes, work: Products, used: int) -> Iterator[Row]:
    """Its planes in all stripes together; what each bank has of its own, stripe by stripe."""
    columns = family.device.organization.columns
    first = planes.first_shared(work.elements)
    count = planes.bits * planes.chunks(work.elements)
    command = family.number("ST_BUF" if work.own else "WR_ALL")
    for stripe in range(used if work.own else 1):
        for plane in range(count):
            row = stripe * planes.stripe_rows + first + plane
            yield (command, row, 0, columns, 0, 0)
    yield (family.number("PRE_ALL"), NO_ROW, 0, 1, 0, 0)


def sum_rows(family: Family, planes: BitPlanes, elements: int, stripes: list[int]) -> Iterator[Row]:
    """Planes of the products through the trees, stripe by stripe; stripes by their first rows."""
    parts = family.device.organization
    slots = math.ceil(parts.columns / family.figure("trees"))
    first = planes.first_product(elements)
    for stripe in stripes:
        for plane in range(2 * planes.bits):
            yield (family.number("ACU"), stripe + first + plane, 0, slots, 1, 0)
    yield (family.number("PRE_ALL"), NO_ROW, 0, 1, 0, 0)


def ring_rows(family: Family, bytes_passed: int) -> Iterator[Row]:
    """Every bank passes so many bytes to its neighbour."""
    hops = math.ceil(bytes_passed / family.device.organization.column_bytes)
    if hops:
        yield (family.number("RING"), NO_ROW, 0, hops, 0, 1)


def read_rows(family: Family, outputs: int, banks: int) -> Iterator[Row]:
    """Sums of some banks to the host, bank by bank."""
    bursts = math.ceil(outputs * SUM_BYTES / family.device.organization.column_bytes)
    for bank in range(banks):
        yield (family.number("RD_ACU"), NO_ROW, bank, bursts, outputs, 1)
